//! `tidegate rehearse` as an operator runs it: the binary alone.
#![allow(clippy::expect_used, reason = "a program that can't be started ends the test")]

use std::{
    path::PathBuf,
    process::{Command, Output},
};

use serde_json::Value;

/// The tidegate under test: the release binary that the runner built, else the one of this build.
fn tidegate() -> Command {
    #[expect(clippy::disallowed_methods, reason = "the tests' own switch, not the program's configuration")]
    let named = std::env::var("TIDEGATE_BIN").ok().filter(|path| !path.is_empty());
    Command::new(named.map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_tidegate")), PathBuf::from))
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
    // containerd goes on with Basic (contract P).
    assert_eq!(failed(&report, "containerd", "push"), 0, "{}", said(&output));
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
