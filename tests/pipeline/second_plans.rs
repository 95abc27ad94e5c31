//! Core's key changes between the choice of a plan and its verification: the stand-in swaps it when it has read
//! the request's head. The request is planned again, and its client sees nothing.

use crate::{
    stage::{
        DEV, MANIFEST, Replica, SCOPE, Setup, Stage, hold, manifest, path_of, pull, sha256, spare_key, story,
        token, told,
    },
    support::gate::Gate,
    talk::{Answer, Ask},
};
use std::{
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};
use tidegate::rehearsal::harbor::{Head, KeyForm, Moment};

/// A core that takes its next key at the head of the first request whose method and path begin so, once armed.
fn swapping(stage: &Stage, method: &'static str, path: &'static str) -> (Replica, Arc<AtomicBool>) {
    changing(stage, (Moment::Arrived, method, path), |key_file| hold(key_file, 1))
}

/// A core whose key file is changed so at that moment of the first such request, once armed.
fn changing(
    stage: &Stage,
    (at, method, path): (Moment, &'static str, &'static str),
    change: impl Fn(&Path) + Send + Sync + 'static,
) -> (Replica, Arc<AtomicBool>) {
    let (armed, key_file) = (Arc::new(AtomicBool::new(false)), stage.path("core.pem"));
    let trigger = armed.clone();
    // Made here: it takes longer than core takes to verify a token.
    spare_key(1);
    let core = stage.replica("core", |options| {
        let turn = Mutex::new(());
        options.gate = Some(Arc::new(move |moment, head: &Head| {
            // Whatever comes after this head is verified with the key that it brought.
            let _turn = turn.lock().expect("no hook panics");
            let now = moment == at && head.method == method && head.target.starts_with(path);
            if now && trigger.swap(false, SeqCst) {
                change(&key_file);
            }
            None
        }));
    });
    core.seed();
    (core, armed)
}

/// One key swap under one request, with key files or without any; the request's answer must have this status.
fn survives(method: &'static str, path: &'static str, status: u16, ask: impl Fn(&Gate, &str) -> Ask) {
    for with_keys in [true, false] {
        let stage = Stage::new();
        let (core, armed) = swapping(&stage, method, path);
        let keys = if with_keys { vec![core.key_file.as_path()] } else { Vec::new() };
        let gate = Setup::before(&[&core], &keys).start();
        let token = token(gate.address, DEV, SCOPE);
        let ask = ask(&gate, &token).bearer(&token);
        armed.store(true, SeqCst);
        let answer = ask.at(gate.address);
        assert!(!armed.load(SeqCst), "the key was swapped under the request");
        judge(&gate, &answer, status, with_keys);
    }
}

fn judge(gate: &Gate, answer: &Answer, status: u16, with_keys: bool) {
    assert_eq!(answer.status, status, "keys {with_keys}: {}\n{}", answer.text(), gate.tail());
    let told = told(gate, answer);
    assert!(told["sends"].as_u64().is_some_and(|sends| (2..=3).contains(&sends)), "{told}");
    let [outcome, plan, reason] = story(gate, answer);
    assert_eq!(outcome, "rescued");
    if with_keys {
        // By then our copy of the key file is core's: signed again, or, where it was slower, by the credential.
        assert!(["resign", "replay"].contains(&plan.as_str()), "{plan}");
        assert!(["second_plan", "replay"].contains(&reason.as_str()), "{reason}");
    } else {
        assert_eq!([plan, reason], ["replay", "replay"]);
    }
}

#[test]
fn a_read_is_planned_again() {
    survives("GET", MANIFEST, 200, |_, _| pull(MANIFEST));
}

#[test]
fn a_small_put_is_planned_again_after_core_has_read_it_whole() {
    survives("PUT", "/v2/priv/seed/manifests", 201, |_, _| {
        let text = manifest(b"{}", b"a layer of priv/seed");
        Ask::new("PUT", "/v2/priv/seed/manifests/v2")
            .header("Content-Type", "application/vnd.oci.image.manifest.v1+json")
            .body(text)
    });
}

#[test]
fn a_large_chunked_patch_is_planned_again_with_its_kept_head() {
    survives("PATCH", "/v2/priv/seed/blobs/uploads/", 202, |gate, token| {
        let open = Ask::new("POST", "/v2/priv/seed/blobs/uploads/").body("").bearer(token).at(gate.address);
        assert_eq!(open.status, 202, "{}", open.text());
        Ask::new("PATCH", &path_of(&open)).chunked(vec![7; 8 << 20])
    });
}

#[test]
fn a_large_patch_of_known_length_is_planned_again() {
    survives("PATCH", "/v2/priv/seed/blobs/uploads/", 202, |gate, token| {
        let open = Ask::new("POST", "/v2/priv/seed/blobs/uploads/").body("").bearer(token).at(gate.address);
        Ask::new("PATCH", &path_of(&open)).body(vec![7; 8 << 20])
    });
}

#[test]
fn with_a_key_file_alone_and_no_credential_the_token_is_signed_by_the_key_that_core_has_just_taken() {
    for (method, path) in [("GET", MANIFEST), ("POST", "/v2/priv/seed/blobs/uploads/")] {
        let stage = Stage::new();
        let (core, armed) = swapping(&stage, method, path);
        let gate = Setup::before(&[&core], &[&core.key_file]).start();
        let token = token(core.address, DEV, SCOPE);
        armed.store(true, SeqCst);
        let answer = if method == "GET" { pull(path) } else { Ask::new(method, path).body("") };
        let answer = answer.bearer(&token).at(gate.address);
        assert!(!armed.load(SeqCst), "the key was swapped under the request");
        assert!(
            (200..300).contains(&answer.status),
            "{method}: {} {}\n{}",
            answer.status,
            answer.text(),
            gate.tail()
        );
        assert_eq!(story(&gate, &answer), ["rescued", "resign", "second_plan"]);
    }
}

#[test]
fn a_push_goes_on_to_its_end_after_the_swap_within_its_patch() {
    let stage = Stage::new();
    let (core, armed) = swapping(&stage, "PATCH", "/v2/priv/seed/blobs/uploads/");
    let gate = Setup::before(&[&core], &[&core.key_file]).start();
    let (token, layer) = (token(gate.address, DEV, SCOPE), vec![3; 3 << 20]);
    let open = Ask::new("POST", "/v2/priv/seed/blobs/uploads/").body("").bearer(&token).at(gate.address);
    armed.store(true, SeqCst);
    let patched = Ask::new("PATCH", &path_of(&open)).chunked(layer.clone()).bearer(&token).at(gate.address);
    assert_eq!((patched.status, patched.header("range")), (202, Some("0-3145727")), "{}", patched.text());
    let put = format!("{}&digest={}", path_of(&patched), sha256(&layer));
    let put = Ask::new("PUT", &put).body("").bearer(&token).at(gate.address);
    assert_eq!(
        (put.status, put.header("docker-content-digest")),
        (201, Some(&*sha256(&layer))),
        "{}",
        put.text()
    );
}

#[test]
fn a22_a_patch_that_core_has_accepted_is_not_sent_again_when_its_key_changes_meanwhile() {
    let replaced: fn(&Path) = |key_file| hold(key_file, 1);
    let emptied: fn(&Path) =
        |key_file| spare_key(0).overwrite(key_file, KeyForm::Empty).expect("the key file is emptied");
    for (change, with_keys) in [(replaced, true), (replaced, false), (emptied, false)] {
        let stage = Stage::new();
        let uploads = "/v2/priv/seed/blobs/uploads/";
        let (core, armed) = changing(&stage, (Moment::Allowed, "PATCH", uploads), change);
        let keys = if with_keys { vec![core.key_file.as_path()] } else { Vec::new() };
        let gate = Setup::before(&[&core], &keys).start();
        let token = token(gate.address, DEV, SCOPE);
        let open = Ask::new("POST", uploads).body("").bearer(&token).at(gate.address);
        armed.store(true, SeqCst);
        let patched = Ask::new("PATCH", &path_of(&open)).chunked(vec![3; 3 << 20]).bearer(&token);
        let patched = patched.at(gate.address);
        assert!(!armed.load(SeqCst), "the key was changed under the request");
        assert_eq!(
            (patched.status, patched.header("range")),
            (202, Some("0-3145727")),
            "{}\n{}",
            patched.text(),
            gate.tail()
        );
        assert_eq!(told(&gate, &patched)["sends"].as_u64(), Some(1));
    }
}
