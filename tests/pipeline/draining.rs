//! SIGTERM: readiness goes at once, new connections are served for `drain_delay`, what runs may end, exit 0.

use crate::{
    stage::{DEV, MANIFEST, SCOPE, Setup, Stage, path_of, pull, push, sha256, token, told},
    support::{gate::Gate, http, waiting},
    talk::{Ask, Line, chunks},
};
use std::{net::TcpStream, time::Duration};

/// Past what sockets and buffers between take in.
const LAYER: usize = 24 << 20;

#[test]
fn an_upload_and_a_download_that_run_are_finished_before_the_end() {
    let stage = Stage::new();
    let core = stage.replica("core", |_| {});
    core.seed();
    let layer = vec![5; LAYER];
    assert_eq!(push(core.address, "priv/big", "v1", &layer, |ask| ask.basic(DEV)), Ok(()));
    let mut gate = Setup::before(&[&core], &[&core.key_file])
        .rest("[timeouts]\ndrain_delay = \"2s\"\ndrain = \"60s\"")
        .start();
    let token = token(gate.address, DEV, &format!("{SCOPE}&scope=repository:priv/big:pull"));

    let open = Ask::new("POST", "/v2/priv/seed/blobs/uploads/").body("").bearer(&token).at(gate.address);
    let patch = Ask::new("PATCH", &path_of(&open)).chunked("").bearer(&token);
    let mut upload = Line::open(gate.address);
    upload.send(&[patch.head(), chunks(&vec![1; 600_000])].concat()).expect("the first half");
    let mut download = Line::open(gate.address);
    let blob = Ask::get(&format!("/v2/priv/big/blobs/{}", sha256(&layer))).bearer(&token);
    download.send(&blob.head()).expect("a request");
    let head = download.head().expect("the blob's head");
    assert_eq!(head.status, 200, "{}", gate.tail());
    let mut idle = Line::open(gate.address);
    assert_eq!(idle.ask(&pull(MANIFEST).bearer(&token)).expect("an answer").status, 200);

    gate.signal("TERM");
    let unready = || http::get(gate.admin, "/readyz", &[]).is_ok_and(|answer| answer.status == 503);
    waiting::holds("readiness is off", Duration::from_secs(1), unready);
    let fresh = pull(MANIFEST).bearer(&token).at(gate.address);
    assert_eq!(fresh.status, 200, "within the delay");
    let refused = || TcpStream::connect(gate.address).is_err();
    waiting::holds("after the delay nothing new is accepted", Duration::from_secs(10), refused);

    upload.send(&[chunks(&vec![2; 400_000]), b"0\r\n\r\n".to_vec()].concat()).expect("the second half");
    let patched = upload.answer(false).expect("the upload's answer");
    assert_eq!((patched.status, patched.header("range")), (202, Some("0-999999")), "{}", gate.tail());
    assert_eq!(download.exactly(LAYER).expect("the whole blob"), layer);
    assert_eq!(gate.ends(Duration::from_secs(20)), Some(0), "{}", gate.tail());
    assert_eq!(told(&gate, &patched)["outcome"], "forwarded", "its last lines are written");
}

#[test]
fn a_drain_ends_at_its_bound_whatever_still_runs() {
    let stage = Stage::new();
    let core = stage.replica("core", |_| {});
    core.seed();
    let bounds = "[timeouts]\ndrain_delay = \"0s\"\ndrain = \"1s\"";
    let mut gate = Setup::before(&[&core], &[&core.key_file]).rest(bounds).start();
    let token = token(gate.address, DEV, SCOPE);
    let open = Ask::new("POST", "/v2/priv/seed/blobs/uploads/").body("").bearer(&token).at(gate.address);
    let mut upload = Line::open(gate.address);
    let patch = Ask::new("PATCH", &path_of(&open)).chunked("").bearer(&token);
    upload.send(&[patch.head(), chunks(&vec![1; 600_000])].concat()).expect("the first half");
    gate.signal("TERM");
    assert_eq!(gate.ends(Duration::from_secs(10)), Some(0), "{}", gate.tail());
}

#[test]
fn standard_output_that_nobody_reads_does_not_hold_up_the_end() {
    let stage = Stage::new();
    let core = stage.replica("core", |_| {});
    let bounds = "[timeouts]\ndrain_delay = \"0s\"\ndrain = \"1s\"";
    let text = Setup::before(&[&core], &[&core.key_file]).rest(bounds).text();
    // Its own reading end keeps the pipe open, and nobody reads there.
    let unread = "mkfifo unread; exec 3<>unread; exec \"$0\" \"$@\" >&3";
    let mut gate = Gate::start_by(&["sh", "-c", unread], &text);
    let path = format!("/v2/{}", "a".repeat(200));
    for _ in 0..600 {
        assert_eq!(Ask::get(&path).at(gate.address).status, 401);
    }
    gate.signal("TERM");
    assert_eq!(gate.ends(Duration::from_secs(10)), Some(0), "{}", gate.tail());
}
