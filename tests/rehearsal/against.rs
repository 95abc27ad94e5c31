//! `tidegate rehearse --against`: a stand-in with its key replaced in mid-load plays the operator's Harbor.

use std::{fs, net::SocketAddr, path::Path, process::Command, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;
use tempfile::TempDir;
use tidegate::rehearsal::harbor::{SAMPLE_ADMIN_PASSWORD, SAMPLE_USER_PASSWORD};

use crate::{
    support::{
        gate::{self, Gate},
        harbor::{Harbor, Replica},
        http,
        process::Program,
        waiting,
    },
    tidegate,
};

/// How long a load of seconds may take with all that is around it.
const PATIENCE: Duration = Duration::from_mins(1);

/// A Harbor, a tidegate before it, and a folder for what the load writes.
struct Scene {
    // Ended before what it talks to.
    gate: Gate,
    core: Replica,
    _harbor: Harbor,
    folder: TempDir,
}

impl Scene {
    fn new() -> Self {
        let harbor = Harbor::start_in_memory();
        let core = harbor.replica("core");
        let gate = Gate::start(&gate::configuration(&[core.address], "auto", &[&core.key_file]));
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::write(folder.path().join("admin"), format!("{SAMPLE_ADMIN_PASSWORD}\n"))
            .expect("a password file");
        fs::write(folder.path().join("dev"), SAMPLE_USER_PASSWORD).expect("a password file");
        Self { gate, core, _harbor: harbor, folder }
    }

    /// A load that begins; its report goes to the program's output.
    fn load(&self, user: &str, arguments: &[&str]) -> Program {
        let mut command: Command = tidegate();
        command.args(["rehearse", "--project", "priv", "--user", user, "--password-file"]);
        command.arg(self.folder.path().join(user)).args(arguments);
        Program::start(&mut command, self.folder.path(), "load")
    }

    fn repositories(&self) -> Value {
        repositories(self.core.address)
    }
}

fn url(address: SocketAddr) -> String {
    format!("http://{address}")
}

/// All that Harbor lists, as its administrator sees it.
fn repositories(core: SocketAddr) -> Value {
    let basic = format!("Basic {}", STANDARD.encode(format!("admin:{SAMPLE_ADMIN_PASSWORD}")));
    let answer = http::get(core, "/v2/_catalog", &[("Authorization", &basic)]).expect("Harbor answers");
    serde_json::from_str::<Value>(&answer.body).expect("JSON")["repositories"].clone()
}

fn wait_for(load: &Program, words: &str) {
    let found = waiting::until(PATIENCE, || load.output().contains(words).then_some(()));
    assert!(found.is_some(), "never said: {words}\n{}", load.tail());
}

/// The JSON between the lines of progress.
fn report(load: &Program) -> Value {
    let output = load.output();
    let from = output.find("\n{").map_or(0, |at| at + 1);
    serde_json::from_str(&output[from..]).unwrap_or_else(|error| panic!("{error}: {output}"))
}

#[test]
fn a_key_that_is_replaced_under_load_fails_directly_and_not_through_tidegate() {
    let scene = Scene::new();
    let (through, direct) = (url(scene.gate.address), url(scene.core.address));
    let mut load =
        scene.load("admin", &["--against", &through, "--direct", &direct, "--duration", "6s", "--json"]);
    wait_for(&load, "the load runs");
    // The pushes that hold their token have begun, and go on long after.
    std::thread::sleep(Duration::from_secs(2));
    scene.core.take_a_key_of_its_own();
    assert_eq!(load.ends(PATIENCE), Some(0), "{}", load.tail());
    let report = report(&load);
    assert_eq!(report["against"]["failures"], Value::Array(Vec::new()), "{report:#}");
    assert!(report["direct"]["failed"].as_u64() > Some(0), "{report:#}");
    assert_eq!(report["against"]["operations"], report["direct"]["operations"]);
    assert_eq!((&report["passed"], &report["not_deleted"]), (&true.into(), &Value::Array(Vec::new())));
    assert_eq!(scene.repositories(), Value::Array(Vec::new()));
}

#[test]
fn an_interrupted_load_leaves_nothing_behind() {
    let scene = Scene::new();
    let mut load =
        scene.load("admin", &["--against", &url(scene.core.address), "--duration", "1m", "--json"]);
    wait_for(&load, "the load runs");
    assert_ne!(scene.repositories(), Value::Array(Vec::new()), "it has pushed before");
    load.signal("INT");
    assert_eq!(load.ends(PATIENCE), Some(1), "{}", load.tail());
    assert_eq!(report(&load)["interrupted"], true);
    assert_eq!(scene.repositories(), Value::Array(Vec::new()));
}

#[test]
fn who_may_not_delete_is_told_before_the_load_and_what_is_left_is_named() {
    let scene = Scene::new();
    let mut load = scene.load("dev", &["--against", &url(scene.core.address), "--duration", "6s"]);
    assert_eq!(load.ends(PATIENCE), Some(1), "{}", load.tail());
    assert!(!load.output().contains("the load runs"), "{}", load.tail());
    let left = scene.repositories();
    let names = left.as_array().expect("a list");
    assert_eq!(names.len(), 1, "{left}");
    let name = names[0].as_str().expect("a name");
    assert!(name.starts_with("priv/tidegate-rehearsal-") && load.output().contains(name), "{}", load.tail());
    assert!(!load.output().contains(SAMPLE_USER_PASSWORD));
}

#[test]
fn a_password_is_read_from_a_file_that_is_there() {
    let output = tidegate()
        .args([
            "rehearse",
            "--against",
            "http://127.0.0.1:1",
            "--user",
            "ci",
            "--project",
            "priv",
            "--password-file",
        ])
        .arg(Path::new("/nowhere"))
        .output()
        .expect("tidegate runs");
    assert_eq!(output.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&output.stderr).contains("flag --password-file"));
}
