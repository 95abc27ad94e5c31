//! Streams of any length pass in bounded memory, both ways at once.

use crate::{bench::Bench, raw::Raw, recorder::Script, support::settings};
use std::{
    fs,
    io::{Read, Write},
    sync::Arc,
    thread,
};

/// Growth that a stream may cost, bytes.
const GROWTH: u64 = 64 << 20;

/// Resident memory of a process, bytes.
pub fn resident(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("its status");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("its resident memory");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number") << 10
}

#[test]
fn long_streams_pass_in_bounded_memory_both_ways() {
    let length: u64 = if settings::long() { 10 << 30 } else { 512 << 20 };
    let script: Script = Arc::new(move |turn| {
        let chunk = vec![b'x'; 1 << 20];
        if turn.head.starts_with("PATCH") {
            for _ in 0..length >> 20 {
                turn.read_some(1 << 20)?;
            }
            turn.answer("202 Accepted", "", "")?;
        } else {
            turn.write(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n"))?;
            for _ in 0..length >> 20 {
                turn.write(&chunk)?;
            }
        }
        Ok(true)
    });
    let bench = Bench::with("", script);
    let (address, process) = (bench.gate.address, bench.gate.id());
    let before = resident(process);
    let up = thread::spawn(move || {
        let mut client = Raw::open(address);
        client.send(format!(
            "PATCH /v2/p/r/blobs/uploads/u HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n"
        ));
        let chunk = vec![b'x'; 1 << 20];
        (0..length >> 20).for_each(|_| client.stream.write_all(&chunk).expect("it is taken"));
        client.last_answer().map(|answer| answer.status)
    });
    let down = thread::spawn(move || {
        let mut client = Raw::open(address);
        client.send("GET /v2/p/r/blobs/sha256:ab HTTP/1.1\r\nHost: h\r\n\r\n");
        let (mut all, mut chunk) = (0_u64, vec![0; 1 << 20]);
        while all < length {
            let read = client.stream.read(&mut chunk).expect("it comes");
            assert!(read > 0, "cut after {all}");
            all += read as u64;
        }
    });
    let mut most = before;
    while !up.is_finished() || !down.is_finished() {
        most = most.max(resident(process));
        thread::sleep(std::time::Duration::from_millis(5));
    }
    assert_eq!(up.join().expect("up"), Some(202));
    down.join().expect("down");
    println!("{} MiB each way: {} KiB before, {} KiB at most", length >> 20, before >> 10, most >> 10);
    assert!(most < before + GROWTH, "{before} grew to {most}");
}
