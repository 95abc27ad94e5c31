//! The README's commands, as printed: each is run, but the test command itself. The Harbor in them is a stand-in, ports
//! are free ones, and what goes into the system's folders goes into a temporary one. The checkout is what a reader has
//! after cloning.

#![allow(unreachable_pub, reason = "modules of a test crate")]
#![allow(clippy::expect_used, reason = "a test ends at what it can't do")]
#![allow(dead_code, reason = "this suite needs a part of what the others share")]

#[path = "../support/support.rs"]
mod support;

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use support::{http, ports, process, settings, waiting};
use tidegate::rehearsal::harbor::{Core, CoreOptions, Version, World, write_key};
use tokio::runtime::Runtime;

/// Where the README's Harbor is.
const PRINTED_HARBOR: &str = "https://harbor.example.com";
/// Where its tidegate listens.
const PRINTED_LISTENER: &str = ":8080";
/// Where it listens for a reader's own clients.
const PRINTED_NAME: &str = "localhost:8080";
/// The folder of its admin socket.
const PRINTED_RUN: &str = "/run/tidegate";
/// For a command that ends by itself; the first one may have to build.
const PATIENCE: Duration = Duration::from_mins(15);

fn commands() -> Vec<String> {
    let text = fs::read_to_string(root().join("README.md")).expect("the README is there");
    let mut found = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        match line {
            "```sh" => inside = true,
            "```" => inside = false,
            _ if inside => found.push(line.to_owned()),
            _ => {}
        }
    }
    found
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A Harbor to stand before.
struct StandIn {
    _runtime: Runtime,
    _core: Core,
    url: String,
}

fn stand_in(folder: &Path) -> StandIn {
    let key = folder.join("private_key.pem");
    write_key(&key, 2048).expect("a key is written");
    let runtime = Runtime::new().expect("a runtime");
    let options = CoreOptions::new(Version::V2_15_2, &key, Arc::new(World::sample()), "");
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let core = runtime.block_on(Core::start(any, options)).expect("the core listens");
    let url = format!("http://{}", core.address());
    StandIn { _runtime: runtime, _core: core, url }
}

/// A printed command, with `tidegate` as it is built and the stand-in's address.
fn command(printed: &str, harbor: &str, listener: SocketAddr) -> Command {
    let listener = listener.to_string();
    let line = printed.replace(PRINTED_HARBOR, harbor).replace(PRINTED_NAME, &listener);
    let line = line.replace(PRINTED_LISTENER, &listener);
    let binary = settings::tidegate();
    let folder = binary.parent().expect("a folder").to_owned();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let paths = std::iter::once(folder).chain(std::env::split_paths(&path));
    let mut command = Command::new("sh");
    command.args(["-c", &format!("exec env {line}")]).current_dir(root()).stdin(Stdio::null());
    command.env("PATH", std::env::join_paths(paths).expect("a path"));
    command.env("TIDEGATE_ADMIN__ADDRESS", ports::free().to_string());
    command
}

#[test]
fn every_printed_command_is_known_here() {
    let known = [
        "git clone URL-OF-THIS-REPOSITORY tidegate",
        "cd tidegate",
        "cargo run --release -- rehearse",
        "install -m755 target/release/tidegate /usr/local/bin/",
        "install -d -m 0700 /run/tidegate",
        "export TIDEGATE_ADMIN__ADDRESS=unix:/run/tidegate/admin.sock",
        "tidegate check --harbor https://harbor.example.com",
        "tidegate serve --harbor https://harbor.example.com --listen :8080",
        "TIDEGATE_PUBLIC_URL=http://localhost:8080 TIDEGATE_REALM=rewrite tidegate serve \
         --harbor https://harbor.example.com --listen :8080",
        "./tests/run",
    ];
    assert_eq!(commands(), known, "a command that is printed is a command that is run");
}

#[test]
fn the_rehearsal_ends_well_within_its_minute() {
    let mut command = command("cargo run --release -- rehearse", "", ports::free());
    let report = process::run(&mut command, PATIENCE).expect("the rehearsal ends with 0");
    assert!(report.contains("through tidegate"), "{report}");
}

/// The first answer of a tidegate that was started by a printed command.
fn first_answer(serving: &mut Ended, listener: SocketAddr) -> http::Answer {
    let answered = waiting::until(Duration::from_secs(20), || http::get(listener, "/v2/", &[]).ok());
    let answer = answered.expect("it answers");
    assert_eq!(answer.status, 401, "Harbor's challenge");
    assert!(serving.0.try_wait().expect("its state is known").is_none(), "it goes on serving");
    answer
}

#[test]
fn a_clone_is_a_checkout() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let printed = "git clone URL-OF-THIS-REPOSITORY tidegate && cd tidegate && test -f README.md";
    let line = printed.replace("URL-OF-THIS-REPOSITORY", &root().display().to_string());
    let mut command = Command::new("sh");
    process::run(command.args(["-c", &line]).current_dir(folder.path()), PATIENCE).expect("it is cloned");
}

#[test]
fn tidegate_stands_before_harbor_without_configuration() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let harbor = stand_in(folder.path());
    let (listener, run) = (ports::free(), folder.path().join("run").display().to_string());
    let in_folder = |printed: &str| {
        let built = settings::tidegate().display().to_string();
        let line = printed.replace(PRINTED_RUN, &run).replace("target/release/tidegate", &built);
        line.replace("/usr/local/bin/", &folder.path().display().to_string())
    };
    for printed in
        ["install -m755 target/release/tidegate /usr/local/bin/", "install -d -m 0700 /run/tidegate"]
    {
        process::run(&mut command(&in_folder(printed), "", listener), PATIENCE).expect("it is installed");
    }
    let installed = folder.path().join("tidegate");
    assert!(installed.is_file(), "{}", installed.display());

    let exported = in_folder("unix:/run/tidegate/admin.sock");
    let printed = "tidegate serve --harbor https://harbor.example.com --listen :8080";
    let mut serve = command(printed, &harbor.url, listener);
    let mut serving = Ended(serve.env("TIDEGATE_ADMIN__ADDRESS", &exported).spawn().expect("it starts"));
    first_answer(&mut serving, listener);
    let mut status = command("tidegate status", "", listener);
    let screen = process::run(status.env("TIDEGATE_ADMIN__ADDRESS", &exported), PATIENCE).expect("a status");
    assert!(screen.contains("HELD KEY"), "{screen}");
}

#[test]
fn under_another_name_tidegate_names_itself() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let harbor = stand_in(folder.path());
    let listener = ports::free();
    let printed = "TIDEGATE_PUBLIC_URL=http://localhost:8080 TIDEGATE_REALM=rewrite tidegate serve \
                   --harbor https://harbor.example.com --listen :8080";
    let mut serving = Ended(command(printed, &harbor.url, listener).spawn().expect("it starts"));
    let answer = first_answer(&mut serving, listener);
    let challenge = answer.headers.iter().find(|(name, _)| name == "www-authenticate").expect("a challenge");
    let realm = format!("realm=\"http://{listener}/service/token\"");
    assert!(challenge.1.contains(&realm), "{}", challenge.1);
}

#[test]
fn the_check_of_a_sound_harbor_finds_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let harbor = stand_in(folder.path());
    let printed = "tidegate check --harbor https://harbor.example.com";
    process::run(&mut command(printed, &harbor.url, ports::free()), PATIENCE).expect("the check ends with 0");
}

/// Ends its process, whatever the test comes to.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to end.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
