//! Kept heads of bodies: one budget, shared fairly; without a share the endpoint is asked first (A25).

use crate::{
    bench::{self, Bench, token_through},
    memory,
    raw::{self, Raw},
    recorder::Script,
    standin::Standin,
    support::{gate::Gate, harbor, waiting},
};
use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

const SOON: Duration = Duration::from_secs(10);
const FIRST: [u8; 4] = [127, 0, 0, 1];
const SECOND: [u8; 4] = [127, 0, 0, 2];

/// The path of a new upload of this token's.
fn upload(gate: &Gate, token: &str) -> String {
    let lines = format!("Host: h\r\nAuthorization: Bearer {token}\r\nContent-Length: 0\r\n");
    let answer = raw::ask(gate.address, format!("POST /v2/priv/app/blobs/uploads/ HTTP/1.1\r\n{lines}\r\n"))
        .expect("an answer");
    assert_eq!(answer.status, 202, "{}", answer.text());
    let location = answer.header("location").expect("a location");
    location.split_once("://h").map_or(location.clone(), |(_, path)| path.to_owned())
}

fn patch(path: &str, token: &str) -> String {
    let lines = format!("Host: h\r\nAuthorization: Bearer {token}\r\nTransfer-Encoding: chunked\r\n");
    format!("PATCH {path} HTTP/1.1\r\n{lines}\r\n")
}

fn chunk(bytes: usize) -> String {
    format!("{bytes:x}\r\n{}\r\n", "b".repeat(bytes))
}

/// A chunked upload that stands still after its first bytes.
fn stalled(source: [u8; 4], address: SocketAddr, path: &str, token: &str, bytes: usize) -> Raw {
    let mut client = Raw::open_from(source, address);
    client.send(patch(path, token)).send(chunk(bytes));
    client
}

/// Answers reads, and never a body.
fn silent() -> Script {
    Arc::new(|turn| {
        if turn.head.starts_with("GET") {
            turn.answer("200 OK", "", "ok")?;
            return Ok(true);
        }
        turn.read_to_end();
        Ok(false)
    })
}

fn patches(standin: &Standin, path: &str) -> usize {
    standin.heads().iter().filter(|head| head.method == "PATCH" && head.target == path).count()
}

#[test]
fn a25_without_room_for_its_head_a_push_is_checked_first_and_survives_a_swapped_key() {
    let standin = Standin::start();
    // Without a key nothing tells tidegate of the swap before the push does.
    let configuration = "[uploads]\nhead = \"320KiB\"\nheads_total = \"320KiB\"\n";
    let gate = bench::start_with(configuration, standin.address, &[]);
    let (dev, robot) = (token_through(&gate, "dev"), token_through(&gate, "robot$ci"));
    let (first, second) = (upload(&gate, &dev), upload(&gate, &robot));
    let _stalled = stalled(FIRST, gate.address, &first, &dev, 1_000);
    waiting::holds("the first upload has taken the whole budget", SOON, || patches(&standin, &first) == 1);
    harbor::replace_key(&standin.key_file);
    let mut client = Raw::open_from(SECOND, gate.address);
    client.send(patch(&second, &robot));
    for _ in 0..32 {
        client.send(chunk(64 * 1024));
    }
    let answer = client.send("0\r\n\r\n").last_answer().expect("an answer");
    assert_eq!(answer.status, 202, "{}\n{}", answer.text(), gate.tail());
    assert_eq!(patches(&standin, &second), 1, "it went up once, after the question");
    assert_eq!(answer.header("range").as_deref(), Some("0-2097151"), "whole");
}

#[test]
fn a25_one_address_leaves_room_for_the_heads_of_another() {
    let bench = Bench::with("[uploads]\nhead = \"320KiB\"\nheads_total = \"1280KiB\"\n", silent());
    let scope = ["repository:priv/app:pull,push"];
    let [dev, robot] = ["dev", "robot$ci"].map(|user| bench.standin.token(user, &scope));
    let mut open = Vec::new();
    // Whether the endpoint was asked before this upload's body: then nothing of it is kept.
    let mut asked_first = |source, token: &str| {
        let (bearer, before) = (format!("Bearer {token}"), bench.recorder.lines().len());
        let asked = bench.standin.asked_with(&bearer);
        let path = format!("/v2/priv/app/blobs/uploads/{before}");
        open.push(stalled(source, bench.gate.address, &path, token, 1_000));
        waiting::holds("it goes up", SOON, || bench.recorder.lines().len() > before);
        bench.standin.asked_with(&bearer) > asked
    };
    let first: Vec<bool> = (0..4).map(|_| asked_first(FIRST, &dev)).collect();
    assert_eq!(first, [false, false, true, true], "half of the room is the most for one address");
    assert!(asked_first(SECOND, &dev), "nor has its principal more at another address");
    assert!(!asked_first(SECOND, &robot), "another one finds room");
    bench.serves_others();
}

#[test]
fn a25_a_token_that_nobody_proved_has_no_head_kept() {
    let standin = Standin::start();
    let gate = bench::start_with("", standin.address, &[]);
    let stranger = standin.token("dev", &["repository:priv/app:pull,push"]);
    let issued = token_through(&gate, "robot$ci");
    for (token, asked) in [(stranger, 1), (issued, 0)] {
        let path = upload(&gate, &token);
        let mut client = Raw::open(gate.address);
        client.send(patch(&path, &token)).send(chunk(1_000)).send("0\r\n\r\n");
        assert_eq!(client.last_answer().map(|answer| answer.status), Some(202));
        assert_eq!(standin.asked_with(&format!("Bearer {token}")), asked, "asked before the body");
    }
}

#[test]
fn a25_heads_of_uploads_that_stand_still_are_kept_within_their_budget() {
    let bench = Bench::with("[uploads]\nhead = \"2MiB\"\nheads_total = \"4MiB\"\n", silent());
    let token = bench.bearer().trim_start_matches("Bearer ").to_owned();
    let before = memory::resident(bench.gate.id());
    let uploads = 50;
    let open: Vec<Raw> = (0..uploads)
        .map(|n| {
            let path = format!("/v2/priv/app/blobs/uploads/{n}");
            stalled(FIRST, bench.gate.address, &path, &token, 1_500 * 1024)
        })
        .collect();
    waiting::holds("all of them go up", Duration::from_mins(1), || bench.recorder.lines().len() >= uploads);
    let after = memory::resident(bench.gate.id());
    println!("{uploads} uploads that stand still: {} KiB before, {} KiB after", before >> 10, after >> 10);
    // Unbounded they would be 73 MiB.
    assert!(after < before + (32 << 20), "{before} grew to {after}");
    bench.serves_others();
    drop(open);
}

#[test]
fn uploads_that_stand_still_leave_connections_to_clients_of_other_addresses() {
    let bench = Bench::with("[upstream.pool]\nper_endpoint = 32\n", silent());
    let head = "PATCH /v2/priv/app/blobs/uploads/u HTTP/1.1\r\nHost: h\r\nContent-Length: 9000\r\n\r\nabc";
    let _open: Vec<Raw> = (0..60)
        .map(|_| {
            let mut client = Raw::open_from(FIRST, bench.gate.address);
            client.send(head);
            client
        })
        .collect();
    let refused = || bench.gate.log().iter().filter(|line| line["status"] == 503).count();
    waiting::holds("the address has its part", SOON, || bench.recorder.lines().len() >= 8);
    for _ in 0..8 {
        let mut client = Raw::open_from(SECOND, bench.gate.address);
        let answer = client.send("GET /v2/alive HTTP/1.1\r\nHost: h\r\n\r\n").answer();
        assert_eq!(answer.map(|answer| answer.status), Some(200), "{}", bench.gate.tail());
    }
    // What finds no connection that its address may have waits for one, and not for ever.
    waiting::holds("each is up or refused", 3 * SOON, || bench.recorder.lines().len() + refused() >= 68);
    assert!(refused() > 0, "{}", bench.gate.tail());
}

#[test]
fn a_client_that_holds_its_connections_keeps_no_anonymous_token_from_others() {
    let bench = Bench::with("[upstream.pool]\nper_endpoint = 32\n", silent());
    let head = "PATCH /v2/priv/app/blobs/uploads/u HTTP/1.1\r\nHost: h\r\nContent-Length: 9000\r\n\r\nabc";
    let ask = "GET /service/token?service=harbor-registry&scope=repository:library/app:pull HTTP/1.1\r\nHost: h\r\n\r\n";
    let open = |source, request: &str| {
        let mut client = Raw::open_from(source, bench.gate.address);
        client.send(request);
        client
    };
    let _held: Vec<Raw> = (0..60).map(|_| open(FIRST, head)).collect();
    waiting::holds("the address has its part", SOON, || bench.recorder.lines().len() >= 8);
    let _asks: Vec<Raw> = (0..8).map(|_| open(FIRST, ask)).collect();
    for _ in 0..8 {
        let asked = Instant::now();
        let answer = open(SECOND, ask).answer();
        assert_eq!(answer.map(|answer| answer.status), Some(200), "{}", bench.gate.tail());
        assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    }
}
