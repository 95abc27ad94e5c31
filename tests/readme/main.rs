//! The README's commands, as printed: each block is run, but the test command itself. The Harbor in them is a
//! stand-in, and ports are free ones. The checkout is what a reader has after cloning.

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
    let line = printed.replace(PRINTED_HARBOR, harbor).replace(PRINTED_LISTENER, &listener.to_string());
    let binary = settings::tidegate();
    let folder = binary.parent().expect("a folder").to_owned();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let paths = std::iter::once(folder).chain(std::env::split_paths(&path));
    let mut command = Command::new("sh");
    command.args(["-c", &format!("exec {line}")]).current_dir(root()).stdin(Stdio::null());
    command.env("PATH", std::env::join_paths(paths).expect("a path"));
    command.env("TIDEGATE_ADMIN__ADDRESS", ports::free().to_string());
    command
}

#[test]
fn every_printed_command_is_known_here() {
    let known = [
        "cargo run --release -- rehearse",
        "tidegate serve --harbor https://harbor.example.com --listen :8080",
        "tidegate check --harbor https://harbor.example.com",
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

#[test]
fn tidegate_stands_before_harbor_with_one_command() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let harbor = stand_in(folder.path());
    let listener = ports::free();
    let printed = "tidegate serve --harbor https://harbor.example.com --listen :8080";
    let mut serving = Ended(command(printed, &harbor.url, listener).spawn().expect("it starts"));
    let answered = waiting::until(Duration::from_secs(20), || http::get(listener, "/v2/", &[]).ok());
    let answer = answered.expect("it answers");
    assert_eq!(answer.status, 401, "Harbor's challenge");
    assert!(serving.0.try_wait().expect("its state is known").is_none(), "it goes on serving");
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
