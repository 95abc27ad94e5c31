//! Clients that are slow, still, many or half open: time-outs and limits end them, others are served meanwhile.

use crate::{
    bench::Bench,
    memory::resident,
    raw::{Raw, find},
    recorder::{Script, plain},
    support::{ports, settings, waiting},
};
use std::{
    io::Write,
    process::Command,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

const SHORT: &str = "[timeouts]\nhandshake = \"1s\"\nhead = \"1s\"\nidle = \"2s\"\nstall = \"1s\"\n";
const SOON: Duration = Duration::from_secs(10);

#[test]
fn a_head_that_drips_is_cut_at_its_time_though_bytes_keep_coming() {
    let bench = Bench::with(SHORT, plain());
    let began = Instant::now();
    let mut client = bench.open();
    client.send("GET /v2/drip HTTP/1.1\r\nHost: h\r\n");
    while began.elapsed() < SOON && client.stream.write_all(b"X-A: b\r\n").is_ok() {
        thread::sleep(Duration::from_millis(50));
    }
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    bench.serves_others();
    assert!(bench.recorder.lines().iter().all(|line| !line.contains("drip")));
}

#[test]
fn a_body_that_stands_still_is_cut_and_one_that_drips_is_not() {
    let bench = Bench::with(SHORT, plain());
    let head = "PATCH /v2/p/r/blobs/uploads/u HTTP/1.1\r\nHost: h\r\nContent-Length: 20\r\n\r\n";
    let mut still = bench.open();
    still.send(head).send("abc");
    let began = Instant::now();
    assert!(find(&still.rest(), b"HTTP/1.1 2").is_none());
    assert!(began.elapsed() < SOON);
    let mut dripping = bench.open();
    dripping.send(head);
    for _ in 0..20 {
        dripping.send("a");
        thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(dripping.last_answer().map(|answer| answer.status), Some(200), "two seconds of moving");
    waiting::holds("the cut body's connection upstream is closed", SOON, || {
        bench.recorder.connections().iter().any(|seen| seen.closed)
    });
    bench.serves_others();
}

#[test]
fn a_reader_that_stands_still_is_cut_and_lets_go_of_the_endpoint() {
    let script: Script = Arc::new(|turn| {
        if !turn.head.contains("/big") {
            turn.answer("200 OK", "", "ok")?;
            return Ok(true);
        }
        let chunk = vec![b'x'; 1 << 20];
        turn.write(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 256 << 20))?;
        for _ in 0..256 {
            turn.write(&chunk)?;
        }
        Ok(true)
    });
    let bench = Bench::with(SHORT, script);
    let mut reader = bench.open();
    reader.send("GET /v2/big HTTP/1.1\r\nHost: h\r\n\r\n");
    waiting::holds("the endpoint is let go of", SOON, || {
        bench.recorder.connections().iter().any(|seen| seen.closed)
    });
    bench.serves_others();
    waiting::holds("it is logged as the client's leaving", SOON, || {
        bench.gate.log().iter().any(|line| line["path"] == "/v2/big" && line["outcome"] == "client_gone")
    });
}

#[test]
fn idle_connections_are_bounded_in_number_and_in_time() {
    let bench = Bench::with(&format!("[limits]\nconnections = 50\n{SHORT}"), plain());
    let began = Instant::now();
    let mut idle: Vec<Raw> = (0..200).map(|_| bench.open()).collect();
    let refused =
        idle.iter_mut().filter_map(|client| client.is_closed_within(Duration::from_millis(5)).then_some(()));
    assert!(refused.count() >= 149, "over the limit a connection is closed at once");
    waiting::holds("the idle ones end, so that others are served", SOON, || {
        bench.ask_quietly("GET /v2/x HTTP/1.1\r\nHost: h\r\n\r\n") == Some(200)
    });
    assert!(began.elapsed() < SOON);
    waiting::holds("all are gone", SOON, || bench.gate.metrics().sum("tidegate_connections", &[]) < 2.0);
}

#[test]
fn ten_thousand_idle_connections_cost_little_and_others_are_served() {
    let count: usize = if settings::long() { 10_000 } else { 2_000 };
    // Ours and, because it is inherited, tidegate's: a shell's usual limit is 1,024.
    let limit = format!("--nofile={}", count + 2_000);
    let raised = Command::new("prlimit").args(["--pid", &std::process::id().to_string(), &limit]).output();
    let raised = raised.expect("prlimit of util-linux");
    assert!(raised.status.success(), "{count} files: {}", String::from_utf8_lossy(&raised.stderr));
    let bench = Bench::with(&format!("[limits]\nconnections = {}\n", count + 100), plain());
    let before = resident(bench.gate.id());
    let request = "GET /v2/idle HTTP/1.1\r\nHost: h\r\n\r\n";
    let mut idle: Vec<Raw> = (0..count)
        .map(|n| {
            // Each has been used once, so that it costs what a client's idle connection does.
            let mut client = Raw::open_from([127, 0, 0, 1 + (n % 50) as u8], bench.gate.address);
            assert_eq!(client.send(request).last_answer().map(|answer| answer.status), Some(200), "{n}");
            client
        })
        .collect();
    let open = bench.gate.metrics().sum("tidegate_connections", &[]);
    assert!(open >= count as f64, "{open} are open");
    let began = Instant::now();
    bench.serves_others();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let each = resident(bench.gate.id()).saturating_sub(before) / count as u64;
    println!("{count} idle connections: {each} bytes each");
    assert!(each < 32 << 10, "{each} bytes for an idle connection");
    for client in idle.iter_mut().step_by(count / 20) {
        assert_eq!(client.send(request).last_answer().map(|answer| answer.status), Some(200), "still usable");
    }
    drop(idle);
    waiting::holds("all are gone", SOON, || bench.gate.metrics().sum("tidegate_connections", &[]) < 2.0);
}

#[test]
fn a_thousand_half_open_handshakes_end_and_others_are_served() {
    let address = ports::free();
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (certificate, key) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let listener = format!(
        "[[listener]]\naddress = \"{address}\"\ntls = {{ certificate_file = \"{}\", key_file = \"{}\" }}\n",
        certificate.display(),
        key.display()
    );
    let bench = Bench::with(&format!("{listener}{SHORT}"), plain());
    let began = Instant::now();
    let mut open: Vec<Raw> = (0..1_000).map(|_| Raw::open(address)).collect();
    // The first bytes of a ClientHello, never the rest; and what is no TLS at all.
    for client in &mut open {
        client.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03");
    }
    bench.serves_others();
    let mut plain = Raw::open(address);
    plain.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    assert!(find(&plain.rest(), b"HTTP/1.1").is_none(), "no HTTP without TLS");
    assert!(open.iter_mut().all(|client| {
        let _ = client.rest();
        began.elapsed() < Duration::from_secs(15)
    }));
    waiting::holds("all are gone", SOON, || bench.gate.metrics().sum("tidegate_connections", &[]) < 2.0);
}

#[test]
fn a_client_that_leaves_early_leaves_nothing_behind() {
    let script: Script = Arc::new(|turn| {
        if turn.head.contains("/slow") {
            turn.hold(Duration::from_secs(30));
            return Ok(false);
        }
        turn.answer("200 OK", "", "ok")?;
        Ok(true)
    });
    let bench = Bench::with("", script);
    for _ in 0..20 {
        bench.open().send("GET /v2/slow HTTP/1.1\r\nHost: h\r\n\r\n");
    }
    waiting::holds("requests without a client end", SOON, || {
        let seen = bench.recorder.connections();
        bench.gate.metrics().sum("tidegate_connections", &[]) < 2.0 && seen.iter().all(|seen| seen.closed)
    });
    bench.serves_others();
}

#[test]
fn a_body_that_moves_may_take_longer_than_its_answer() {
    let bench = Bench::with("[upstream.timeouts]\nregistry = \"1s\"\n", plain());
    let mut dripping = bench.open();
    dripping.send("PATCH /v2/p/r/blobs/uploads/u HTTP/1.1\r\nHost: h\r\nContent-Length: 20\r\n\r\n");
    for _ in 0..20 {
        dripping.send("a");
        thread::sleep(Duration::from_millis(150));
    }
    assert_eq!(dripping.last_answer().map(|answer| answer.status), Some(200), "three seconds of moving");
}

#[test]
fn an_answer_that_never_begins_is_504_in_time() {
    let script: Script = Arc::new(|turn| {
        turn.read_body()?;
        turn.hold(Duration::from_secs(30));
        Ok(false)
    });
    let times = "[upstream.timeouts]\napi = \"1s\"\nregistry = \"1s\"\ntoken = \"1s\"\n";
    let bench = Bench::with(times, script);
    for target in ["/api/v2.0/x", "/v2/x", "/service/token?service=harbor-registry&scope=repository:p/r:pull"]
    {
        let began = Instant::now();
        assert_eq!(bench.get(target, "").status, 504, "{target}");
        assert!(began.elapsed() < SOON);
    }
}
