//! Where one request ends and the next begins: one reading for us and for what is behind us.

use crate::{
    bench::Bench,
    raw::{Raw, find},
    support::waiting,
};
use std::time::Duration;

/// What a second reader would take for a request of its own.
const HIDDEN: &str = "GET /v2/hidden HTTP/1.1\r\nHost: h\r\n\r\n";
const SOON: Duration = Duration::from_secs(5);

/// Sends bytes, reads the first answer, and whether the connection ends after it.
fn tried(bench: &Bench, bytes: &str) -> (Option<u16>, bool) {
    let mut client = bench.open();
    let status = client.send(bytes).last_answer().map(|answer| answer.status);
    let closed = client.half_close().is_closed_within(SOON);
    (status, closed)
}

fn post(lines: &str, body: &str) -> String {
    format!("POST /v2/first HTTP/1.1\r\nHost: h\r\n{lines}\r\n{body}")
}

#[test]
fn what_is_framed_in_two_ways_is_400_and_close_and_nothing_of_it_goes_up() {
    let bench = Bench::plain();
    let chunked = format!("0\r\n\r\n{HIDDEN}");
    let length = HIDDEN.len();
    let table = [
        ("xchunked", post("Transfer-Encoding: xchunked\r\n", &chunked)),
        ("chunked, identity", post("Transfer-Encoding: chunked, identity\r\n", &chunked)),
        ("gzip, chunked", post("Transfer-Encoding: gzip, chunked\r\n", &chunked)),
        ("chunked twice", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", &chunked)),
        (
            "chunked, then identity",
            post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", &chunked),
        ),
        ("vertical tab", post("Transfer-Encoding: \x0bchunked\r\n", &chunked)),
        ("space before the colon", post("Transfer-Encoding : chunked\r\n", &chunked)),
        ("plus", post(&format!("Content-Length: +{length}\r\n"), HIDDEN)),
        ("minus", post("Content-Length: -1\r\n", HIDDEN)),
        ("hexadecimal", post("Content-Length: 0x10\r\n", HIDDEN)),
        ("list", post("Content-Length: 1,1\r\n", HIDDEN)),
        ("two lengths", post(&format!("Content-Length: 0\r\nContent-Length: {length}\r\n"), HIDDEN)),
        ("beyond 64 bits", post("Content-Length: 18446744073709551617\r\n", HIDDEN)),
        ("folded", post("X-A: a\r\n Content-Length: 5\r\n", HIDDEN)),
        (
            "HTTP/1.0 with chunks",
            format!("POST /v2/first HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{chunked}"),
        ),
        ("no colon", post("Content-Length 5\r\n", HIDDEN)),
        ("NUL in a value", post("X-A: a\0b\r\n", HIDDEN)),
        ("bare CR in a value", post("X-A: a\rContent-Length: 5\r\n", HIDDEN)),
        ("HTTP/1.2", format!("GET /v2/first HTTP/1.2\r\nHost: h\r\n\r\n{HIDDEN}")),
        ("two spaces", format!("GET  /v2/first HTTP/1.1\r\nHost: h\r\n\r\n{HIDDEN}")),
    ];
    for (name, bytes) in &table {
        let (status, closed) = tried(&bench, bytes);
        assert_eq!(status, Some(400), "{name}");
        assert!(closed, "{name}: nothing is read after it");
    }
    assert_eq!(bench.recorder.lines(), Vec::<String>::new());
    // Counted when the connection has ended, which the client may see first.
    bench.gate.wait_for("all are counted", |metrics| {
        metrics.sum("tidegate_rejections_total", &[("reason", "unreadable")]) as usize >= table.len() - 1
    });
}

#[test]
fn a_length_beside_chunks_is_one_request_and_the_connection_ends_after_it() {
    let bench = Bench::plain();
    for lines in [
        format!("Content-Length: {}\r\nTransfer-Encoding: chunked\r\n", 5 + HIDDEN.len()),
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n".to_owned(),
    ] {
        let before = bench.recorder.lines().len();
        let (status, closed) = tried(&bench, &post(&lines, &format!("0\r\n\r\n{HIDDEN}")));
        assert!(matches!(status, Some(200 | 400)), "{status:?}");
        assert!(closed);
        assert!(bench.recorder.lines().len() <= before + 1, "{:?}", bench.recorder.lines());
    }
    assert!(bench.recorder.lines().iter().all(|line| line == "POST /v2/first HTTP/1.1"));
    for head in bench.recorder.heads() {
        assert!(!head.to_lowercase().contains("content-length"), "one framing goes up: {head}");
    }
}

#[test]
fn bad_chunks_never_become_a_request() {
    let bench = Bench::plain();
    let bodies = [
        ("huge size", format!("fffffffffffffffff\r\n{HIDDEN}")),
        ("size of 64 bits", format!("ffffffffffffffff\r\n{HIDDEN}")),
        ("sign", format!("+5\r\nabcde\r\n0\r\n\r\n{HIDDEN}")),
        ("0x", format!("0x5\r\nabcde\r\n0\r\n\r\n{HIDDEN}")),
        ("no CRLF after data", format!("5\r\nabcdeXX0\r\n\r\n{HIDDEN}")),
        ("bare LF as the line's end", format!("5\nabcde\r\n0\r\n\r\n{HIDDEN}")),
        ("LF in an extension", format!("5;a\nb\r\nabcde\r\n0\r\n\r\n{HIDDEN}")),
        ("endless extension", format!("5;{}\r\nabcde\r\n0\r\n\r\n{HIDDEN}", "x".repeat(64 * 1024))),
    ];
    for (name, body) in bodies {
        let mut client = bench.open();
        client.send(post("Transfer-Encoding: chunked\r\n", &body)).half_close();
        let answers = client.rest();
        assert!(find(&answers, b"HTTP/1.1 200").is_none(), "{name}: {}", String::from_utf8_lossy(&answers));
    }
    assert!(bench.recorder.lines().iter().all(|line| line == "POST /v2/first HTTP/1.1"));
    let bodies: Vec<_> = bench.recorder.connections().into_iter().flat_map(|seen| seen.bodies).collect();
    assert!(bodies.is_empty(), "no broken body arrives as a whole one: {bodies:?}");
    bench.serves_others();
}

#[test]
fn bare_line_feeds_are_one_request_or_none() {
    let bench = Bench::plain();
    let (status, _) = tried(&bench, &format!("GET /v2/first HTTP/1.1\nHost: h\nX-A: b\n\n{HIDDEN}"));
    // What follows a whole head is the client's own next request; it must never be part of the first one's body.
    assert!(matches!(status, Some(200 | 400)), "{status:?}");
    for head in bench.recorder.heads() {
        let bare = head.replace("\r\n", "");
        assert!(!bare.contains('\n') && !bare.contains('\r'), "what goes up ends lines with CRLF: {head:?}");
    }
}

#[test]
fn an_upgrade_is_not_passed_on_and_what_follows_is_no_tunnel() {
    let bench = Bench::plain();
    for protocol in ["websocket", "h2c", "HTTP/2.0"] {
        let mut client = bench.open();
        let lines = format!(
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: {protocol}\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"
        );
        client.send(format!("GET /v2/upgrade HTTP/1.1\r\nHost: h\r\n{lines}\r\n\x01\x02 not HTTP\r\n\r\n"));
        assert_eq!(client.last_answer().map(|answer| answer.status), Some(200), "{protocol}");
        client.half_close();
        assert!(find(&client.rest(), b"HTTP/1.1 200").is_none(), "what follows is read as HTTP and refused");
    }
    for head in bench.recorder.heads() {
        let head = head.to_lowercase();
        assert!(!head.contains("upgrade:") && !head.contains("http2-settings"), "{head}");
    }
    assert_eq!(bench.recorder.lines().len(), 3);
}

#[test]
fn trailers_of_a_request_are_dropped() {
    let bench = Bench::plain();
    let trailers = "Authorization: Basic YWRtaW46eA==\r\nHost: evil\r\nContent-Length: 3\r\nX-Own: 1\r\n";
    let body = format!("5\r\nabcde\r\n0\r\n{trailers}\r\n");
    let lines = "Transfer-Encoding: chunked\r\nTrailer: Authorization, Host\r\n";
    let answer = bench.ask(post(lines, &body)).expect("an answer");
    assert_eq!(answer.status, 200);
    let seen = &bench.recorder.connections()[0];
    assert_eq!(seen.bodies, [b"abcde"]);
    let bytes = String::from_utf8_lossy(&seen.bytes).to_lowercase();
    for name in ["ywrtaw46ea==", "evil", "x-own", "trailer"] {
        assert!(!bytes.contains(name), "{name} went up: {bytes}");
    }
}

#[test]
fn reads_with_a_body_of_unknown_length_are_400_and_of_known_length_one_request() {
    let bench = Bench::plain();
    let chunked =
        format!("GET /v2/first HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{HIDDEN}");
    assert_eq!(bench.ask(&chunked).map(|a| a.status), Some(400));
    let length = HIDDEN.len();
    let known = format!("GET /v2/first HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n{HIDDEN}");
    assert_eq!(tried(&bench, &known).0, Some(200));
    let hidden = bench.recorder.lines().iter().filter(|line| line.contains("hidden")).count();
    // After the refusal the connection closes or the next request is the client's own; never is it hidden in a body.
    assert!(hidden <= 1);
    let seen = bench.recorder.connections();
    assert!(seen.iter().any(|seen| seen.bodies.iter().any(|body| body == HIDDEN.as_bytes())));
}

#[test]
fn heads_that_are_too_long_are_431_or_414_and_close() {
    let bench = Bench::plain();
    let many = (0..2_000).map(|n| format!("X-Many-{n}: {}\r\n", "a".repeat(60))).collect::<Vec<_>>().concat();
    let table = [
        (
            "a long target",
            format!("GET /v2/{} HTTP/1.1\r\nHost: h\r\n\r\n", "a".repeat(70 * 1024)),
            [414, 431],
        ),
        (
            "a long header",
            format!("GET /v2/ HTTP/1.1\r\nHost: h\r\nX-A: {}\r\n\r\n", "a".repeat(1 << 20)),
            [431, 431],
        ),
        ("many headers", format!("GET /v2/ HTTP/1.1\r\nHost: h\r\n{many}\r\n"), [431, 431]),
        (
            "a head that never ends",
            format!("GET /v2/ HTTP/1.1\r\nHost: h\r\nX-A: {}", "a".repeat(1 << 20)),
            [431, 431],
        ),
    ];
    for (name, bytes, statuses) in table {
        let mut client = Raw::open(bench.gate.address);
        let answer = client.send(bytes).last_answer().unwrap_or_else(|| panic!("{name} is answered"));
        assert!(statuses.contains(&answer.status), "{name}: {}", answer.status);
        assert!(answer.body.is_empty() && client.is_closed_within(SOON), "{name}");
    }
    assert_eq!(bench.recorder.lines(), Vec::<String>::new());
}

#[test]
fn a_head_over_its_limit_is_431_and_close_though_the_buffer_would_hold_it() {
    let bench = Bench::with("[limits]\nhead = \"16KiB\"\n", crate::recorder::plain());
    let in_target = |fill: &str| format!("GET /v2/{fill} HTTP/1.1\r\nHost: h\r\n\r\n");
    let in_header = |fill: &str| format!("GET /v2/ HTTP/1.1\r\nHost: h\r\nX-A: b{fill}\r\n\r\n");
    let head: [&dyn Fn(&str) -> String; 2] = [&in_target, &in_header];
    for head in head {
        let of = |bytes: usize| head(&"a".repeat(bytes - head("").len()));
        let mut client = bench.open();
        for _ in 0..2 {
            assert_eq!(client.send(of(16 * 1024)).last_answer().map(|answer| answer.status), Some(200));
        }
        let answer = client.send(of(16 * 1024 + 1) + HIDDEN).last_answer().expect("an answer");
        assert_eq!((answer.status, answer.header("connection").as_deref()), (431, Some("close")));
        assert_eq!(answer.all("x-request-id").len(), 1, "it can be found in the log");
        assert!(client.is_closed_within(SOON));
    }
    assert_eq!(bench.recorder.lines().len(), 4, "nothing longer went up, nor what followed it");
    waiting::holds("both are logged", SOON, || {
        bench.gate.log().iter().filter(|line| line["reason"] == "head_too_long").count() == 2
    });
    let counted = bench.gate.metrics().sum("tidegate_rejections_total", &[("reason", "head_too_long")]);
    assert!((counted - 2.0).abs() < 0.5, "{counted}");
}

#[test]
fn expect_is_answered_by_us_and_never_goes_up() {
    let bench = Bench::plain();
    let mut client = bench.open();
    client.send("PATCH /v2/p/r/blobs/uploads/u HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.answer().map(|answer| answer.status), Some(100));
    assert_eq!(client.send("abcde").answer().map(|answer| answer.status), Some(200));
    let head = bench.recorder.head("PATCH");
    assert!(!head.to_lowercase().contains("expect"), "{head}");
    assert_eq!(bench.recorder.connections()[0].bodies, [b"abcde"]);
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let bench = Bench::plain();
    let mut client = bench.open();
    let requests =
        (0..20).map(|n| format!("GET /v2/n{n} HTTP/1.1\r\nHost: h\r\n\r\n")).collect::<Vec<_>>().concat();
    client.send(requests);
    for _ in 0..20 {
        assert_eq!(client.last_answer().map(|answer| answer.status), Some(200));
    }
    let lines: Vec<String> = (0..20).map(|n| format!("GET /v2/n{n} HTTP/1.1")).collect();
    assert_eq!(bench.recorder.lines(), lines);
}
