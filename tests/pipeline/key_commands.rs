//! `tidegate keys` as an operator types it.

use crate::{
    operating::with_token,
    stage::{DEV, MANIFEST, Replica, SCOPE, Setup, Stage, hold, kid, pull, token},
    support::{gate::Gate, registry::Registry, settings},
    talk::Ask,
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};
use tidegate::words::clock::Clock;

/// A gate before a core, and the admin token's file.
struct Scene {
    stage: Stage,
    core: Replica,
    gate: Gate,
    secret: PathBuf,
}

impl Scene {
    fn new() -> Self {
        let stage = Stage::new();
        let core = stage.replica("core", |_| {});
        core.seed();
        let setup = Setup::before(&[&core], &[&core.key_file]).rest("[replay]\nenabled = false\n");
        let (gate, secret) = with_token(&stage, &setup);
        Self { stage, core, gate, secret }
    }

    /// The exit code and all that `tidegate keys …` printed.
    fn keys(&self, arguments: &[&str]) -> (i32, String) {
        let admin = format!("http://{}", self.gate.admin);
        let which = ["--admin", &admin, "--admin-token-file"];
        let mut command = Command::new(settings::tidegate());
        command.arg("keys").args(arguments).args(which).arg(&self.secret);
        let output = command.output().expect("tidegate runs");
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8(text).expect("text");
        (output.status.code().unwrap_or(-1), text)
    }

    fn done(&self, arguments: &[&str]) -> String {
        let (code, text) = self.keys(arguments);
        assert_eq!(code, 0, "{arguments:?}\n{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        text
    }

    fn refused(&self, arguments: &[&str], words: &str) {
        let (code, text) = self.keys(arguments);
        assert_eq!(code, 1, "{arguments:?}\n{text}");
        assert!(text.starts_with("error: ") && text.contains(words), "{words}\n{text}");
    }

    fn is_in_state(&self, key: usize, state: &str) {
        self.gate.wait_for(&format!("key {key} is {state}"), |metrics| {
            metrics.sum("tidegate_key_state", &[("kid", &kid(key)), ("state", state)]) > 0.5
        });
    }

    fn pulled(&self, token: &str) -> u16 {
        pull(MANIFEST).bearer(token).at(self.gate.address).status
    }

    /// A token of another replica, which holds this key.
    fn token_of(&self, key: usize) -> String {
        let other = self.stage.replica("other", |_| {});
        hold(&other.key_file, key);
        token(other.address, DEV, SCOPE)
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn registry_takes(registry: &Registry, token: &str) -> u16 {
    Ask::get("/v2/").on(&registry.address.to_string()).bearer(token).at(registry.address).status
}

#[test]
fn a_registry_that_is_given_the_bundle_takes_tokens_of_all_keys_that_verify() {
    let scene = Scene::new();
    let former = token(scene.core.address, DEV, SCOPE);
    hold(&scene.core.key_file, 1);
    scene.is_in_state(0, "verifying");
    scene.is_in_state(1, "signing");
    let present = token(scene.core.address, DEV, SCOPE);
    let foreign = scene.token_of(2);
    let (bundle, jwks) = (scene.stage.path("bundle.pem"), scene.stage.path("keys.json"));
    let publish = ["publish", "--bundle", &text(&bundle), "--jwks", &text(&jwks)];
    let said = scene.done(&publish);
    assert_eq!(said.matches("is written").count(), 2, "{said}");
    let registry = Registry::with_tokens(&bundle);
    let taken = [&former, &present, &foreign].map(|token| registry_takes(&registry, token));
    assert_eq!(taken, [200, 200, 401], "{}\n{}", registry.log(), fs::read_to_string(&bundle).expect("text"));
    let again = scene.done(&publish);
    assert_eq!(again.matches("says this already").count(), 2, "{again}");
    let served = Ask::get("/.tidegate/jwks.json").on(&scene.gate.admin.to_string()).at(scene.gate.admin);
    assert_eq!(served.text().trim(), fs::read_to_string(&jwks).expect("text").trim());
    let nowhere = scene.stage.path("nowhere/bundle.pem");
    scene.refused(&["publish", "--bundle", &text(&nowhere)], "was not written");
}

/// An upgrade that happened before tidegate was put there: core's former key is in no source.
#[test]
fn a_key_that_tidegate_never_saw_verifies_once_it_is_added() {
    let scene = Scene::new();
    let (former, file) = (scene.token_of(2), scene.stage.path("former.pem"));
    hold(&file, 2);
    scene.is_in_state(0, "signing");
    assert_eq!(scene.pulled(&former), 401);
    let now = Clock::system().now().0;
    for (signed_until, words) in [(now - 7_200, "ended at"), (now + 60, "yet to come")] {
        let date = tidegate::words::clock::UnixTime(signed_until).rfc3339();
        scene.refused(&["add", &text(&file), "--signed-until", &date], words);
    }
    assert_eq!(scene.pulled(&former), 401);
    let listed = scene.done(&["add", &text(&file), "--alias", "before-tidegate"]);
    assert!(listed.contains(&kid(2)) && listed.contains("public, from keys add"), "{listed}");
    assert_eq!(scene.pulled(&former), 200, "{}", scene.gate.tail());
    scene.refused(&["add", &text(&file)], "in the ring already");
    scene.refused(&["add", &text(&scene.secret)], "neither PEM blocks nor a JWKS");
    scene.refused(&["retire", "before-tidegate"], "--now ends it at once");
    assert_eq!(scene.pulled(&former), 200, "its tokens live, and so does it");
    scene.done(&["retire", "before-tidegate", "--now"]);
    assert_eq!(scene.pulled(&former), 401);
    scene.refused(&["add", &text(&file)], "retired at once");
}
