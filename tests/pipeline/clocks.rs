//! Clocks that differ: ours from core's, and one replica's from another's (V7, V8). No client notices, whatever
//! Harbor's version.

use crate::{
    stage::{DEV, MANIFEST, SCOPE, Setup, Stage, ask_token, pull, push, story, token},
    talk::Ask,
};
use std::time::Duration;
use tidegate::{rehearsal::harbor::Version, words::clock::Clock};

#[test]
fn login_pull_and_push_work_before_a_core_whose_clock_is_off() {
    for version in Version::ALL {
        for shift in [-45, 45] {
            let stage = Stage::new();
            let core = stage.replica("core", |options| {
                options.version = version;
                options.clock = Clock::shifted(shift);
            });
            core.seed();
            let gate = Setup::before(&[&core], &[&core.key_file]).start();
            let login =
                Ask::get("/service/token?service=harbor-registry").basic(DEV).at(gate.address).token();
            assert_eq!(Ask::get("/v2/").bearer(&login).at(gate.address).status, 200, "{version} {shift}");
            for turn in 0..3 {
                let scope = format!("repository:priv/of-{turn}:pull,push");
                let token = token(gate.address, DEV, &scope);
                let name = format!("priv/of-{turn}");
                let pushed = push(gate.address, &name, "v1", b"a layer", |ask| ask.bearer(&token));
                assert_eq!(pushed, Ok(()), "{version} {shift}\n{}", gate.tail());
                let pulled = pull(&format!("/v2/{name}/manifests/v1")).bearer(&token).at(gate.address);
                assert_eq!(pulled.status, 200, "{version} {shift}");
            }
        }
    }
}

#[test]
fn a_token_of_one_replica_serves_at_another_whose_clock_is_behind() {
    for version in Version::ALL {
        let stage = Stage::new();
        let behind = stage.replica("behind", |options| {
            options.version = version;
            options.clock = Clock::shifted(-45);
        });
        let ahead = stage.replica("ahead", |options| options.version = version);
        ahead.seed();
        let direct = token(ahead.address, DEV, SCOPE);
        let directly = pull(MANIFEST).bearer(&direct).at(behind.address).status;
        assert_eq!(directly, if version == Version::V2_15_2 { 200 } else { 401 }, "{version}: V8, directly");
        let gate = Setup::before(&[&ahead, &behind], &[&ahead.key_file]).start();
        for turn in 0..8 {
            let token = token(gate.address, DEV, &format!("{SCOPE}&scope=repository:priv/x{turn}:pull"));
            let answer = pull(MANIFEST).bearer(&token).at(gate.address);
            assert_eq!(answer.status, 200, "{version} {turn}: {:?}\n{}", story(&gate, &answer), gate.tail());
        }
    }
}

#[test]
fn a_fresh_token_waits_for_a_core_whose_clock_is_a_moment_behind() {
    for method in ["GET", "POST"] {
        let stage = Stage::new();
        let clock = Clock::shifted(0);
        let theirs = clock.clone();
        let core = stage.replica("core", |options| options.clock = theirs);
        let other = stage.replica("other", |_| {});
        other.seed();
        let slow = r#"probe = { every = "60s", in_window = "60s", timeout = "3s" }"#;
        let gate = Setup::before(&[&core], &[&core.key_file]).upstream(slow).start();
        // After the probes: what they found of this clock is a second too much.
        clock.shift_to(-1);
        let token = token(other.address, DEV, SCOPE);
        let ask = match method {
            "GET" => pull(MANIFEST),
            _ => Ask::new("POST", "/v2/priv/seed/blobs/uploads/").body(""),
        };
        let answer = ask.bearer(&token).at(gate.address);
        assert!((200..300).contains(&answer.status), "{}: {:?}", answer.status, story(&gate, &answer));
        assert_eq!(story(&gate, &answer)[2], "clock");
    }
}

#[test]
fn a_token_at_the_end_of_its_life_serves_as_long_as_its_credential_does() {
    let stage = Stage::new();
    let core = stage.replica("core", |options| {
        options.token_expiration = Duration::from_secs(2);
        options.clock = Clock::shifted(-1);
    });
    core.seed();
    let gate = Setup::before(&[&core], &[&core.key_file]).rest("[token]\ncache = \"0s\"").start();
    let token = ask_token(SCOPE).basic(DEV).at(gate.address).token();
    let answer = pull(MANIFEST).bearer(&token).at(gate.address);
    assert_eq!(answer.status, 200, "{:?}", story(&gate, &answer));
}
