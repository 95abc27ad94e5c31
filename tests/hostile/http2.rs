//! HTTP/2, its frames written by hand (RFC 9113), and h2spec.

use crate::{
    bench::Bench,
    raw::{PATIENCE, values},
    recorder::{Script, Turn, plain},
    support::{ports, process, settings, waiting},
};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const SOON: Duration = Duration::from_secs(10);

struct Frame {
    kind: u8,
    stream: u32,
    payload: Vec<u8>,
}

struct Client(TcpStream);

impl Client {
    /// A connection after its preface, with these settings.
    fn open(address: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let stream = TcpStream::connect(address).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let mut client = Self(stream);
        let payload: Vec<u8> = settings
            .iter()
            .flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
            .collect();
        let _ = client.0.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        client.send(SETTINGS, 0, 0, &payload);
        client
    }

    /// Whether the frame could be written.
    fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> bool {
        let length = (payload.len() as u32).to_be_bytes();
        let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
        self.0.write_all(&[&head, payload].concat()).is_ok()
    }

    fn ask(&mut self, stream: u32, fields: &[(&str, &str)], ends: bool) -> bool {
        let flags = END_HEADERS | if ends { END_STREAM } else { 0 };
        self.send(HEADERS, flags, stream, &block(fields))
    }

    /// The next frame; `None` at the connection's end.
    fn frame(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        self.0.read_exact(&mut payload).ok()?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Some(Frame { kind: head[3], stream, payload })
    }

    /// What a stream gets: a status, or why there is none.
    fn outcome(&mut self, stream: u32) -> Outcome {
        while let Some(frame) = self.frame() {
            match frame.kind {
                HEADERS if frame.stream == stream => return Outcome::Status(status(&frame.payload)),
                RST_STREAM if frame.stream == stream => return Outcome::Refused,
                GOAWAY if frame.payload[4..8] != [0; 4] => return Outcome::Refused,
                _ => {}
            }
        }
        Outcome::Refused
    }

    fn ends_within(&mut self, time: Duration) -> bool {
        self.0.set_read_timeout(Some(time)).unwrap();
        let began = Instant::now();
        while self.frame().is_some() {}
        began.elapsed() < time
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Status(u16),
    /// A stream or connection error.
    Refused,
}

/// Fields as literals without indexing and without Huffman (RFC 7541, 6.2.2).
fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        out.push(0);
        for text in [name, value] {
            integer(&mut out, text.len());
            out.extend_from_slice(text.as_bytes());
        }
    }
    out
}

/// A length with a prefix of seven bits (RFC 7541, 5.1).
fn integer(out: &mut Vec<u8>, mut value: usize) {
    if value < 127 {
        return out.push(value as u8);
    }
    out.push(127);
    value -= 127;
    while value >= 128 {
        out.push((value % 128 + 128) as u8);
        value /= 128;
    }
    out.push(value as u8);
}

/// The status that a header block begins with: indexed, or digits as they are (Huffman's are not read: 0).
fn status(block: &[u8]) -> u16 {
    const INDEXED: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    match block.first() {
        Some(first @ 0x88..=0x8e) => INDEXED[usize::from(first - 0x88)],
        _ => 0,
    }
}

fn get(path: &str) -> Vec<(&str, &str)> {
    vec![(":method", "GET"), (":scheme", "http"), (":authority", "h"), (":path", path)]
}

fn bench(configuration: &str, script: Script) -> (Bench, SocketAddr) {
    let address = ports::free();
    let listener = format!("[[listener]]\naddress = \"{address}\"\nhttp2 = true\n");
    (Bench::with(&format!("{listener}{configuration}"), script), address)
}

#[test]
fn http2_requests_that_no_http1_could_say_are_refused_and_nothing_of_them_goes_up() {
    let (bench, address) = bench("", plain());
    let with = |more: &[(&'static str, &'static str)]| [get("/v2/x"), more.to_vec()].concat();
    let path = |path: &'static str| get(path);
    let table: Vec<(&str, Vec<(&str, &str)>)> = vec![
        ("CR LF in the path", path("/v2/x\r\nHost: evil")),
        ("LF in the path", path("/v2/x\nb")),
        ("NUL in the path", path("/v2/x\0b")),
        ("space in the path", path("/v2/x HTTP/1.1")),
        ("empty path", path("")),
        ("relative path", path("v2/x")),
        ("dot segments", path("/c/../v2/")),
        ("two paths", with(&[(":path", "/v2/y")])),
        ("two methods", with(&[(":method", "POST")])),
        ("two authorities", with(&[(":authority", "evil")])),
        ("two schemes", with(&[(":scheme", "https")])),
        ("pseudo-header after a field", [vec![("x-a", "b")], get("/v2/x")].concat()),
        ("unknown pseudo-header", with(&[(":own", "x")])),
        ("response pseudo-header", with(&[(":status", "200")])),
        ("no path", vec![(":method", "GET"), (":scheme", "http"), (":authority", "h")]),
        ("no method", vec![(":scheme", "http"), (":authority", "h"), (":path", "/v2/x")]),
        ("no authority", vec![(":method", "GET"), (":scheme", "http"), (":path", "/v2/x")]),
        ("transfer-encoding", with(&[("transfer-encoding", "chunked")])),
        ("connection", with(&[("connection", "x-a")])),
        ("keep-alive", with(&[("keep-alive", "1")])),
        ("upgrade", with(&[("upgrade", "h2c")])),
        ("te", with(&[("te", "gzip")])),
        ("upper case", with(&[("X-Upper", "1")])),
        ("CR LF in a value", with(&[("x-a", "b\r\nx-forwarded-for: 1.2.3.4")])),
        ("CR LF in a name", with(&[("x-a: b\r\nx-b", "c")])),
        ("host unlike the authority", with(&[("host", "evil")])),
        ("CONNECT", vec![(":method", "CONNECT"), (":authority", "h:443")]),
        ("length without a body", with(&[("content-length", "5")])),
    ];
    for (name, fields) in table {
        let mut client = Client::open(address, &[]);
        client.ask(1, &fields, true);
        let outcome = client.outcome(1);
        assert!(matches!(outcome, Outcome::Refused | Outcome::Status(400 | 0)), "{name}: {outcome:?}");
    }
    assert_eq!(bench.recorder.lines(), Vec::<String>::new());
    let mut client = Client::open(address, &[]);
    client.ask(1, &with(&[("cookie", "a=1"), ("cookie", "b=2")]), true);
    assert_eq!(client.outcome(1), Outcome::Status(200));
    client.ask(3, &[get("/api/v2.0/x"), vec![("cookie", "a=1"), ("cookie", "b=2")]].concat(), true);
    assert_eq!(client.outcome(3), Outcome::Status(200));
    assert_eq!(values(&bench.recorder.head("/api/"), "cookie"), ["a=1; b=2"]);
}

#[test]
fn http2_bodies_that_are_not_as_long_as_they_say_never_arrive_as_whole() {
    let (bench, address) = bench("", plain());
    for body in ["abc", "abcdefgh"] {
        let mut client = Client::open(address, &[]);
        let fields = [
            (":method", "POST"),
            (":scheme", "http"),
            (":authority", "h"),
            (":path", "/v2/x"),
            ("content-length", "5"),
        ];
        client.ask(1, &fields, false);
        client.send(DATA, END_STREAM, 1, body.as_bytes());
        let outcome = client.outcome(1);
        assert!(matches!(outcome, Outcome::Refused | Outcome::Status(400)), "{body}: {outcome:?}");
    }
    let bodies: Vec<_> = bench.recorder.connections().into_iter().flat_map(|seen| seen.bodies).collect();
    assert!(bodies.is_empty(), "{bodies:?}");
}

#[test]
fn http2_trailers_of_a_request_are_dropped() {
    let (bench, address) = bench("", plain());
    let mut client = Client::open(address, &[]);
    client.ask(
        1,
        &[(":method", "POST"), (":scheme", "http"), (":authority", "h"), (":path", "/v2/x")],
        false,
    );
    client.send(DATA, 0, 1, b"abcde");
    client.ask(1, &[("authorization", "Basic YWRtaW46eA=="), ("host", "evil"), ("x-own", "1")], true);
    assert_eq!(client.outcome(1), Outcome::Status(200));
    let seen = &bench.recorder.connections()[0];
    assert_eq!(seen.bodies, [b"abcde"]);
    let bytes = String::from_utf8_lossy(&seen.bytes).to_lowercase();
    assert!(!bytes.contains("evil") && !bytes.contains("x-own") && !bytes.contains("ywrtaw46ea"), "{bytes}");
}

#[test]
fn http2_rapid_reset_is_ended_and_others_are_served() {
    let script: Script = Arc::new(|turn| {
        if turn.head.contains("/reset") {
            turn.hold(Duration::from_secs(30));
            return Ok(false);
        }
        turn.answer("200 OK", "", "ok")?;
        Ok(true)
    });
    let (bench, address) = bench("", script);
    let mut client = Client::open(address, &[]);
    let mut sent = 0_u32;
    while sent < 20_000 {
        let stream = sent * 2 + 1;
        let fields = get("/v2/reset");
        if !client.ask(stream, &fields, true) || !client.send(RST_STREAM, 0, stream, &[0, 0, 0, 8]) {
            break;
        }
        sent += 1;
    }
    bench.serves_others();
    let up = bench.recorder.lines().iter().filter(|line| line.contains("/reset")).count();
    println!("rapid reset: {sent} streams opened and reset, {up} requests went up");
    assert!(sent < 20_000, "the connection is ended");
    assert!(client.ends_within(SOON));
    waiting::holds("nothing stays behind", SOON, || {
        let open = bench.recorder.connections().iter().filter(|seen| !seen.closed).count();
        bench.gate.metrics().sum("tidegate_connections", &[]) < 2.0 && open < 5
    });
}

#[test]
fn http2_continuation_without_end_is_ended() {
    let (bench, address) = bench("", plain());
    let mut client = Client::open(address, &[]);
    client.send(HEADERS, END_STREAM, 1, &block(&get("/v2/x")));
    let field = block(&[("x-a", &"a".repeat(8_000))]);
    let mut sent = 0;
    while sent < 20_000 && client.send(CONTINUATION, 0, 1, &field) {
        sent += 1;
    }
    println!("CONTINUATION flood: {sent} frames until the end");
    assert!(sent < 20_000);
    bench.serves_others();
    let mut empty = Client::open(address, &[]);
    empty.send(HEADERS, END_STREAM, 1, &block(&get("/v2/x")));
    let mut sent = 0;
    while sent < 200_000 && empty.send(CONTINUATION, 0, 1, &[]) {
        sent += 1;
    }
    assert!(sent < 200_000, "empty ones too");
    assert!(bench.recorder.lines().iter().all(|line| line.contains("alive")));
}

#[test]
fn http2_a_client_that_opens_no_window_is_ended_in_time() {
    let (bench, address) = bench("[timeouts]\nstall = \"1s\"\n", plain());
    let mut client = Client::open(address, &[(4, 0)]);
    client.ask(1, &get("/v2/x"), true);
    assert_eq!(client.outcome(1), Outcome::Status(200));
    assert!(client.ends_within(SOON), "the connection ends");
    bench.serves_others();
}

const UPLOAD: [(&str, &str); 4] =
    [(":method", "PATCH"), (":scheme", "http"), (":authority", "h"), (":path", "/v2/p/r/blobs/uploads/u")];

/// Drips an answer of 30 bytes over three seconds for `/v2/drip`, and reads and answers everything else.
fn dripping() -> Script {
    let else_plain = plain();
    Arc::new(move |turn| {
        if !turn.head.contains("/v2/drip") {
            return else_plain(turn);
        }
        turn.write("HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n")?;
        for _ in 0..30 {
            turn.hold(Duration::from_millis(100));
            turn.write("x")?;
        }
        Ok(true)
    })
}

impl Client {
    /// Reads until `drips` has ended; the streams that were reset meanwhile, and the bytes that came.
    fn until_end_of(&mut self, drips: u32) -> (Vec<u32>, usize) {
        let (mut reset, mut bytes) = (Vec::new(), 0);
        while bytes < 30 {
            let Some(frame) = self.frame() else { break };
            match frame.kind {
                RST_STREAM => reset.push(frame.stream),
                DATA if frame.stream == drips => bytes += frame.payload.len(),
                _ => {}
            }
        }
        (reset, bytes)
    }
}

#[test]
fn http2_a_body_that_stands_still_ends_its_stream_and_no_other() {
    let (bench, address) = bench("[timeouts]\nstall = \"1s\"\n", dripping());
    let mut client = Client::open(address, &[]);
    client.ask(1, &UPLOAD, false);
    client.send(DATA, 0, 1, b"abc");
    client.ask(3, &get("/v2/drip"), true);
    assert_eq!(client.until_end_of(3), (vec![1], 30), "{}", bench.gate.tail());
    client.ask(5, &get("/v2/x"), true);
    assert_eq!(client.outcome(5), Outcome::Status(200), "the connection is as good as before");
    let uploads = || bench.recorder.connections().into_iter().flat_map(|seen| seen.bodies);
    assert!(!uploads().any(|body| body == b"abc"), "nothing that was cut counts as whole");
    let gone = |line: &serde_json::Value| {
        line["path"] == "/v2/p/r/blobs/uploads/u" && line["outcome"] == "client_gone"
    };
    waiting::holds("its line says so", SOON, || bench.gate.log().iter().any(gone));
}

#[test]
fn http2_an_answer_that_is_not_taken_ends_its_stream_and_no_other() {
    let (bench, address) = bench("[timeouts]\nstall = \"1s\"\n", dripping());
    // Room for an answer's first bytes only; the sibling gets its own.
    let mut client = Client::open(address, &[(4, 0)]);
    client.ask(1, &get("/v2/x"), true);
    client.ask(3, &get("/v2/drip"), true);
    client.send(WINDOW_UPDATE, 0, 3, &1_000_u32.to_be_bytes());
    assert_eq!(client.until_end_of(3), (vec![1], 30), "{}", bench.gate.tail());
    bench.serves_others();
}

#[test]
fn http2_a_connection_on_which_nothing_moves_is_closed() {
    let (bench, address) = bench("[timeouts]\nstall = \"1s\"\n", plain());
    let mut client = Client::open(address, &[]);
    client.ask(1, &UPLOAD, false);
    client.send(DATA, 0, 1, b"abc");
    assert!(client.ends_within(SOON), "the connection ends");
    bench.serves_others();
}

#[test]
fn http2_a_reset_stream_does_not_keep_an_idle_connection_open() {
    let script: Script = Arc::new(|turn| {
        turn.hold(Duration::from_secs(20));
        Ok(false)
    });
    let (bench, address) = bench("[timeouts]\nidle = \"2s\"\n", script);
    let mut client = Client::open(address, &[]);
    client.ask(1, &get("/v2/reset"), true);
    waiting::holds("it is under way", SOON, || bench.recorder.lines().len() == 1);
    client.send(RST_STREAM, 0, 1, &[0, 0, 0, 8]);
    assert!(client.ends_within(SOON), "idle from the reset on");
    waiting::holds("its line says so", SOON, || {
        bench.gate.log().iter().any(|line| line["path"] == "/v2/reset" && line["outcome"] == "client_gone")
    });
}

/// Failures of h2spec that we accept, by the words of its report, each with its reason.
const ACCEPTED: [(&str, &str); 4] = [
    (
        "2: Sends invalid connection preface",
        "the connection is closed by a reset, because the junk after the preface is not read; h2spec waits for a FIN",
    ),
    (
        "3: Sends multiple WINDOW_UPDATE frames increasing the flow control window to above 2^31-1 on a stream",
        "now and then the stream is reset with another code first: the answer may be over before the second frame comes",
    ),
    (
        "8: closed: Sends a DATA frame after sending RST_STREAM frame",
        "now and then its GET with a body to come has been answered with 400 before the reset arrives, and the stream is over",
    ),
    (
        "9: closed: Sends a HEADERS frame after sending RST_STREAM frame",
        "now and then its GET with a body to come has been answered with 400 before the reset arrives, and the stream is over",
    ),
];

#[test]
fn h2spec_finds_nothing_that_is_not_accepted_by_name() {
    // A stream whose answer is over is gone: what h2spec sends next to it must still find it there.
    let late = Arc::new(|turn: &mut Turn<'_>| {
        turn.read_body()?;
        turn.hold(Duration::from_millis(150));
        turn.answer("200 OK", "", "ok")?;
        Ok(true)
    });
    let (bench, address) = bench("", late);
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report.xml");
    let mut command = Command::new(settings::built("h2spec"));
    command.args([
        "generic",
        "http2",
        "-h",
        "127.0.0.1",
        "-p",
        &address.port().to_string(),
        "-P",
        "/v2/x",
        "-o",
        "2",
        "-j",
    ]);
    let said = process::run(command.arg(&report), Duration::from_mins(3));
    settings::took_part("h2spec", "2.6");
    let said = said.unwrap_or_else(|failure| failure.output);
    let failed: Vec<&str> = said.lines().filter(|line| line.trim_start().starts_with('×')).collect();
    let passed = said.lines().rev().find(|line| line.contains("passed")).unwrap_or_default();
    println!("h2spec: {passed}");
    assert!(passed.contains("tests,"), "{said}");
    let unknown: Vec<_> =
        failed.iter().filter(|line| !ACCEPTED.iter().any(|(name, _)| line.contains(name))).collect();
    assert!(unknown.is_empty(), "{unknown:#?}\n{said}");
    bench.serves_others();
}
