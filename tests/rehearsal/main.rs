//! `tidegate rehearse` as an operator runs it.
#![allow(unreachable_pub, reason = "modules of a test crate")]
#![allow(clippy::expect_used, reason = "a program that can't be started ends the test")]

#[path = "../support/support.rs"]
mod support;

mod against;

use std::{
    net::SocketAddr,
    process::{Command, Output},
    time::Duration,
};

use serde_json::Value;
use support::{
    client::Client as _, client::skopeo::Skopeo, harbor, image::Image, process::Program, settings, waiting,
};

/// The tidegate under test.
fn tidegate() -> Command {
    Command::new(settings::tidegate())
}

fn rehearse(arguments: &[&str]) -> Output {
    tidegate().arg("rehearse").args(arguments).output().expect("tidegate runs")
}

fn said(output: &Output) -> String {
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn our_lane_loses_nothing_and_the_direct_lane_something() {
    let output = rehearse(&["--seed", "7", "--duration", "6s", "--json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    assert_eq!(report["through_tidegate"]["failures"], Value::Array(Vec::new()), "{}", said(&output));
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(report["passed"], true);
    assert_eq!(report["direct"]["operations"], report["through_tidegate"]["operations"]);
    // containerd asks for a token by POST first, which is answered 405, as by Harbor (T).
    let rejections = report["tidegate"]["rejections"].as_object().expect("rejections by reason");
    assert_eq!(rejections.keys().collect::<Vec<_>>(), ["token_method"], "{}", said(&output));
    assert!(report["tidegate"]["rescues"].as_object().is_some_and(|rescues| !rescues.is_empty()));
    // Their pushes held a token of the former key until only the new one was served: no luck in that.
    for client in ["docker", "podman"] {
        assert!(failed(&report, client, "push") > 0, "{client}: {}", said(&output));
    }
}

#[test]
fn a_load_that_is_too_short_is_not_played() {
    let output = rehearse(&["--duration", "1s"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("shows nothing"), "{}", said(&output));
}

fn failed(report: &Value, client: &str, operation: &str) -> u64 {
    let parts = report["direct"]["parts"].as_array().expect("the lane's parts");
    let part = parts.iter().find(|part| part["client"] == client && part["operation"] == operation);
    part.and_then(|part| part["failed"].as_u64()).expect("a part for each client and operation")
}

#[test]
fn a_real_client_makes_the_load() {
    let output = rehearse(&["--client", "skopeo", "--duration", "8s", "--json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(report["client"]["name"], "skopeo");
    assert_eq!(report["through_tidegate"]["failed"], 0);
    assert_eq!(report["direct"]["operations"], report["through_tidegate"]["operations"]);
    assert!(report["direct"]["failures"].to_string().contains("unauthorized"), "{}", said(&output));
}

#[test]
fn a_client_that_is_not_there_is_named() {
    let output = tidegate().args(["rehearse", "--client", "podman"]).env("PATH", "/nowhere").output();
    let output = output.expect("tidegate runs");
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("podman isn't on PATH"), "{}", said(&output));
}

#[test]
fn a_docker_without_a_daemon_is_told_so() {
    let mut command = tidegate();
    command.args(["rehearse", "--client", "docker"]).env("DOCKER_HOST", "unix:///nowhere/docker.sock");
    let output = command.output().expect("tidegate runs");
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("docker has no daemon that answers"), "{}", said(&output));
}

#[test]
fn lanes_stay_when_asked_to_and_end_at_a_signal() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut command = tidegate();
    command.args(["rehearse", "--stay", "--duration", "3s"]);
    let mut stays = Program::start(&mut command, folder.path(), "rehearsal");
    let front = waiting::until(Duration::from_mins(1), || {
        let output = stays.output();
        let line = output.lines().find(|line| line.contains("docker login "))?;
        line.split_whitespace().last()?.parse::<SocketAddr>().ok()
    });
    let front = front.unwrap_or_else(|| panic!("no line to log in with: {}", stays.tail()));
    let (skopeo, account) = (Skopeo::new(), harbor::account(front));
    let image = Image::generate(1, 1);
    let used = skopeo.login(&account).and_then(|()| skopeo.pull(&account, "priv/base-0:v1"));
    used.and_then(|()| skopeo.push(&account, &image, "priv/mine:v1")).expect("the printed front serves");
    stays.signal("TERM");
    assert!(stays.ends(Duration::from_mins(1)).is_some(), "{}", stays.tail());
}
