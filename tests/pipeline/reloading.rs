//! A configuration is taken up at SIGHUP and when its file changes; a bad one keeps the running one and says why.

use crate::{
    operating,
    stage::{Replica, Setup, Stage},
    support::{gate::Gate, waiting},
    talk::Ask,
};
use std::{net::TcpListener, time::Duration};

const PATIENCE: Duration = Duration::from_secs(10);

fn scene() -> (Stage, Replica, Gate) {
    let stage = Stage::new();
    let core = stage.replica("core", |options| "http://internal".clone_into(&mut options.ext_endpoint));
    let gate = Setup::before(&[&core], &[]).start();
    (stage, core, gate)
}

fn rewriting(core: &Replica) -> Setup {
    Setup::before(&[core], &[]).top("realm = \"rewrite\"\npublic_url = \"https://harbor.example\"")
}

fn realm(gate: &Gate) -> String {
    let answer = Ask::get("/v2/").at(gate.address);
    let challenge = answer.header("www-authenticate").expect("a challenge");
    challenge.split('"').nth(1).expect("a realm").to_owned()
}

#[test]
fn what_needs_a_restart_is_named_at_every_reload_until_it_is_taken_back() {
    let (_stage, core, gate) = scene();
    let named = || gate.output().matches("restart needed").count();
    let reloads = || gate.output().matches("the configuration was reloaded").count();
    gate.configure(&Setup::before(&[&core], &[]).rest("[limits]\nconnections = 7").text());
    waiting::holds("it is named", PATIENCE, || named() == 1);
    gate.signal("HUP");
    waiting::holds("it is named again", PATIENCE, || named() == 2 && reloads() == 2);
    gate.configure(&Setup::before(&[&core], &[]).text());
    waiting::holds("it is taken back", PATIENCE, || reloads() == 3);
    assert_eq!(named(), 2, "{}", gate.tail());
}

/// Core hangs, so that the start takes its time: the file changes in the middle of it, and an operator tells so.
#[test]
fn what_changes_while_tidegate_starts_is_taken_up() {
    let hangs = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let setup = Setup::before(&[], &[])
        .endpoint(&format!("http://{}", hangs.local_addr().expect("its address")))
        .upstream(r#"probe = { timeout = "1s" }"#);
    for by_signal in [false, true] {
        let mut gate = Gate::start_unready(&[], &setup.text());
        let said = |gate: &Gate, words: &str| gate.output().matches(words).count();
        gate.kill();
        gate.begin_again();
        waiting::holds("it starts", PATIENCE, || said(&gate, "tidegate starts") == 2);
        if by_signal {
            gate.signal("HUP");
        } else {
            gate.configure(&setup.clone().rest("[limits]\nconnections = 7").text());
        }
        waiting::holds("it is taken up", PATIENCE, || said(&gate, "the configuration was reloaded") == 1);
    }
}

#[test]
fn the_mode_in_force_is_the_one_that_status_tells() {
    let stage = Stage::new();
    let core = stage.replica("core", |_| {});
    let (gate, _) = operating::with_token(&stage, &Setup::before(&[&core], &[]));
    assert_eq!(operating::status(&gate)["mode"], "enforce");
    gate.configure(&Setup::before(&[&core], &[]).top("mode = \"observe\"").text());
    waiting::holds("observe", PATIENCE, || operating::status(&gate)["mode"] == "observe");
}

fn says(gate: &Gate, words: &[&str]) {
    let said = || {
        let told = |line: &serde_json::Value| words.iter().all(|word| line.to_string().contains(word));
        gate.events().iter().any(told)
    };
    let found = waiting::until(PATIENCE, || said().then_some(()));
    assert!(found.is_some(), "{words:?} in the log\n{}", gate.tail());
}

#[test]
fn a_changed_file_is_taken_up_by_itself_and_at_sighup() {
    for by_signal in [false, true] {
        let (_stage, core, gate) = scene();
        assert_eq!(realm(&gate), "http://internal/service/token");
        gate.configure(&rewriting(&core).text());
        if by_signal {
            gate.signal("HUP");
        }
        waiting::holds("the realm is rewritten", PATIENCE, || {
            realm(&gate) == "https://harbor.example/service/token"
        });
    }
}

#[test]
fn a_bad_configuration_keeps_the_running_one_and_says_what_is_wrong() {
    let (_stage, core, gate) = scene();
    gate.configure(&rewriting(&core).top("mode = \"enforced\"").text());
    gate.signal("HUP");
    says(&gate, &["the running one stays", "tidegate.toml:3", "enforced"]);
    assert_eq!(realm(&gate), "http://internal/service/token");
    gate.configure(&rewriting(&core).text());
    waiting::holds("the mended one is taken up", PATIENCE, || {
        realm(&gate) == "https://harbor.example/service/token"
    });
}

#[test]
fn endpoints_are_replaced_without_a_restart() {
    let (stage, _core, gate) = scene();
    let next = stage.replica("next", |options| "http://next".clone_into(&mut options.ext_endpoint));
    gate.configure(&Setup::before(&[&next], &[]).upstream("resolve_every = \"1s\"").text());
    gate.signal("HUP");
    waiting::holds("requests go to the new endpoint", PATIENCE, || {
        realm(&gate) == "http://next/service/token"
    });
}

#[test]
fn what_a_reload_cannot_change_is_named() {
    let (_stage, core, gate) = scene();
    gate.configure(&Setup::before(&[&core], &[]).rest("[limits]\nconnections = 7").text());
    gate.signal("HUP");
    says(&gate, &["restart needed", "limits"]);
}

#[test]
fn an_emptied_file_keeps_the_running_configuration() {
    let (_stage, _core, gate) = scene();
    gate.empty_configuration();
    says(&gate, &["the running one stays", "the file is empty"]);
    assert_eq!(realm(&gate), "http://internal/service/token", "{}", gate.tail());
}

#[test]
fn a_file_that_drops_endpoints_or_key_sources_is_refused() {
    let stage = Stage::new();
    let core = stage.replica("core", |options| "http://internal".clone_into(&mut options.ext_endpoint));
    let gate = Setup::before(&[&core], &[&core.key_file]).start();
    let text = Setup::before(&[&core], &[&core.key_file]).text();
    for name in ["endpoints", "sources"] {
        let without = text.lines().filter(|line| !line.starts_with(name)).collect::<Vec<_>>().join("\n");
        assert_ne!(without, text.trim_end());
        gate.configure(&without);
        says(&gate, &["the running one stays", name, "restart"]);
        assert_eq!(realm(&gate), "http://internal/service/token", "{}", gate.tail());
    }
}

#[test]
fn a_file_is_taken_up_only_when_it_is_written_to_its_end() {
    let (_stage, core, gate) = scene();
    let long = format!("{}{}", "# a comment\n".repeat(60), rewriting(&core).text());
    gate.copy_over(&long, Duration::from_millis(20));
    waiting::holds("the whole is taken up", PATIENCE, || {
        realm(&gate) == "https://harbor.example/service/token"
    });
    assert!(!gate.output().contains("the running one stays"), "{}", gate.tail());
    assert_eq!(gate.output().matches("the configuration was reloaded").count(), 1, "{}", gate.tail());
}
