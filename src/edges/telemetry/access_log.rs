//! The access log: one JSON line a request, written by hand into a buffer of the worker and handed to a
//! writer thread at 64 KiB or 100 ms. A writer that is behind loses lines, never requests; they are counted.

use std::{
    cell::RefCell,
    io::{self, Write},
    sync::{Arc, atomic::Ordering::Relaxed},
    thread,
    time::Duration,
};

use crossbeam_channel::{Receiver, Sender, TrySendError};

use super::counters::Counters;

/// Bytes of a worker's buffer.
const BUFFER: usize = 64 * 1024;
/// Buffers that may wait for the writer.
const QUEUE: usize = 64;
/// Longest text of a client's that is written.
const LONGEST: usize = 256;

/// The members of a line in their order, and what they mean; `docs/log.md` is made of it. A text that is empty
/// is left out.
pub const MEMBERS: [(&str, &str); 17] = [
    ("time", "When the request ended: seconds since 1970, with milliseconds."),
    ("request_id", "`X-Request-ID`, which goes up to Harbor too and stands in core's log."),
    ("client", "The client's address, or what a trusted proxy says it is."),
    ("method", "Request method."),
    ("path", "Path without its query, which is never written."),
    ("route", "What the request was for."),
    ("status", "Status that the client got."),
    ("outcome", "What became of the request."),
    ("plan", "What went up in the place of the client's token."),
    ("reason", "What rescued the request, or why it or its token was refused."),
    ("endpoint", "The endpoint that answered."),
    ("principal", "The user or robot that a verified token names."),
    ("agent", "`User-Agent`."),
    ("bytes_in", "Bytes of the request's body."),
    ("bytes_out", "Bytes of the answer's body."),
    ("sends", "How often the request was sent to an endpoint."),
    ("duration_seconds", "From the request's head to the answer's end."),
];

/// What one line says. Queries are never in it (A29).
#[derive(Clone, Debug)]
pub struct Record<'a> {
    /// Time of the request's end, since 1970.
    pub at: Duration,
    /// See `X-Request-ID`.
    pub request_id: &'a str,
    /// The client, or what a trusted proxy says it is.
    pub client: &'a str,
    /// Request method.
    pub method: &'a str,
    /// Path without its query.
    pub path: &'a str,
    /// Route's name.
    pub route: &'a str,
    /// Status that the client got.
    pub status: u16,
    /// What became of it.
    pub outcome: &'a str,
    /// What went up; empty where nothing did.
    pub plan: &'a str,
    /// Rescue or refusal; empty mostly.
    pub reason: &'a str,
    /// Endpoint's name; empty where none was asked.
    pub endpoint: &'a str,
    /// Who it proved to be; empty where nothing was proved.
    pub principal: &'a str,
    /// `User-Agent`.
    pub agent: &'a [u8],
    /// Bytes of the request's body.
    pub bytes_in: u64,
    /// Bytes of the answer's body.
    pub bytes_out: u64,
    /// How long it took.
    pub took: Duration,
    /// Sends to endpoints.
    pub sends: u32,
}

/// The thread that writes.
pub struct Writer {
    full: Sender<Vec<u8>>,
    empty: Receiver<Vec<u8>>,
    done: Option<thread::JoinHandle<()>>,
}

impl Writer {
    /// Starts it. It ends when every [`AccessLog`] of it is gone.
    pub fn start(mut out: impl Write + Send + 'static) -> io::Result<Self> {
        let (full, lines) = crossbeam_channel::bounded::<Vec<u8>>(QUEUE);
        let (back, empty) = crossbeam_channel::bounded(QUEUE);
        let done = thread::Builder::new().name("access-log".into()).spawn(move || {
            for mut buffer in lines {
                // A log that can't be written must not stop what it is about.
                let _ = out.write_all(&buffer).and_then(|()| out.flush());
                buffer.clear();
                let _ = back.try_send(buffer);
            }
        })?;
        Ok(Self { full, empty, done: Some(done) })
    }

    /// A worker's end of the log.
    pub fn log(&self, counters: Arc<Counters>) -> AccessLog {
        let buffer = RefCell::new(Vec::with_capacity(BUFFER + 4096));
        AccessLog { buffer, full: self.full.clone(), empty: self.empty.clone(), counters }
    }

    /// Waits until all that was handed over is written.
    pub fn finish(mut self) {
        let done = self.done.take();
        drop(self);
        if let Some(done) = done {
            let _ = done.join();
        }
    }
}

/// One worker's access log.
pub struct AccessLog {
    buffer: RefCell<Vec<u8>>,
    full: Sender<Vec<u8>>,
    empty: Receiver<Vec<u8>>,
    counters: Arc<Counters>,
}

impl AccessLog {
    /// Appends a line.
    pub fn write(&self, record: &Record<'_>) {
        let mut buffer = self.buffer.borrow_mut();
        line(&mut buffer, record);
        if buffer.len() >= BUFFER {
            drop(buffer);
            self.flush();
        }
    }

    /// Hands over what is buffered; called every 100 ms by the worker.
    pub fn flush(&self) {
        let mut buffer = self.buffer.borrow_mut();
        if buffer.is_empty() {
            return;
        }
        let fresh = self.empty.try_recv().unwrap_or_else(|_| Vec::with_capacity(BUFFER + 4096));
        let lines = std::mem::replace(&mut *buffer, fresh);
        if let Err(TrySendError::Full(lost) | TrySendError::Disconnected(lost)) = self.full.try_send(lines) {
            let count = lost.split(|b| *b == b'\n').count() as u64 - 1;
            self.counters.log_dropped.fetch_add(count, Relaxed);
        }
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.flush();
    }
}

fn line(out: &mut Vec<u8>, r: &Record<'_>) {
    out.extend_from_slice(b"{\"time\":");
    decimal(out, r.at.as_secs());
    fraction(out, u64::from(r.at.subsec_millis()), 100);
    text(out, b",\"request_id\":\"", r.request_id.as_bytes());
    text(out, b",\"client\":\"", r.client.as_bytes());
    text(out, b",\"method\":\"", r.method.as_bytes());
    text(out, b",\"path\":\"", r.path.as_bytes());
    text(out, b",\"route\":\"", r.route.as_bytes());
    number(out, b",\"status\":", u64::from(r.status));
    text(out, b",\"outcome\":\"", r.outcome.as_bytes());
    text(out, b",\"plan\":\"", r.plan.as_bytes());
    text(out, b",\"reason\":\"", r.reason.as_bytes());
    text(out, b",\"endpoint\":\"", r.endpoint.as_bytes());
    text(out, b",\"principal\":\"", r.principal.as_bytes());
    text(out, b",\"agent\":\"", r.agent);
    number(out, b",\"bytes_in\":", r.bytes_in);
    number(out, b",\"bytes_out\":", r.bytes_out);
    number(out, b",\"sends\":", u64::from(r.sends));
    number(out, b",\"duration_seconds\":", r.took.as_secs());
    fraction(out, u64::from(r.took.subsec_micros()), 100_000);
    out.extend_from_slice(b"}\n");
}

/// A member whose name and opening quote are `start`; none where the value is empty.
fn text(out: &mut Vec<u8>, start: &[u8], value: &[u8]) {
    if !value.is_empty() {
        out.extend_from_slice(start);
        escape(out, value);
        out.push(b'"');
    }
}

fn number(out: &mut Vec<u8>, start: &[u8], value: u64) {
    out.extend_from_slice(start);
    decimal(out, value);
}

fn decimal(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// A point and as many digits as `largest` has.
fn fraction(out: &mut Vec<u8>, value: u64, mut largest: u64) {
    out.push(b'.');
    while largest > 0 {
        out.push(b'0' + (value / largest % 10) as u8);
        largest /= 10;
    }
}

/// JSON's escapes for what a client sent; what is not ASCII or not printable is written as `\u00XX`.
fn escape(out: &mut Vec<u8>, value: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut rest = &value[..value.len().min(LONGEST)];
    // Over all of it without an end between: the compiler looks at sixteen bytes at once.
    if !rest.iter().fold(false, |odd, b| odd | needs_escape(*b)) {
        return out.extend_from_slice(rest);
    }
    while !rest.is_empty() {
        let clean = rest.iter().position(|b| needs_escape(*b));
        let (plain, odd) = rest.split_at(clean.unwrap_or(rest.len()));
        out.extend_from_slice(plain);
        rest = odd;
        if let Some((b, after)) = odd.split_first() {
            match b {
                b'"' | b'\\' => out.extend_from_slice(&[b'\\', *b]),
                _ => {
                    out.extend_from_slice(b"\\u00");
                    out.extend_from_slice(&[HEX[usize::from(b >> 4)], HEX[usize::from(b & 15)]]);
                }
            }
            rest = after;
        }
    }
}

fn needs_escape(b: u8) -> bool {
    b.wrapping_sub(0x20) > 0x5e || b == b'"' || b == b'\\'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record<'a>(path: &'a str, agent: &'a [u8]) -> Record<'a> {
        Record {
            at: Duration::from_millis(1_500),
            request_id: "r-1",
            client: "127.0.0.1",
            method: "GET",
            path,
            route: "registry",
            status: 200,
            outcome: "forwarded",
            plan: "as_came",
            reason: "",
            endpoint: "core",
            principal: "",
            agent,
            bytes_in: 0,
            bytes_out: 2,
            took: Duration::from_micros(1_250),
            sends: 1,
        }
    }

    #[test]
    fn a_line_is_one_json_object_whatever_a_client_sent() {
        let long = vec![b'a'; 1_000_000];
        for agent in [&b"curl"[..], b"a\r\nb\"\\\x1b[31m\xff", &long] {
            let mut out = Vec::new();
            line(&mut out, &record("/v2/\u{7}", agent));
            assert_eq!(out.split(|b| *b == b'\n').count(), 2, "one line and what follows its end");
            assert!(out.len() < 2_000 && out.is_ascii());
            let value: serde_json::Value = serde_json::from_slice(&out).expect("JSON");
            assert_eq!(value["status"], 200);
            assert_eq!(value["time"], 1.5);
            assert_eq!(value["duration_seconds"], 0.001_25);
            assert!(value.get("reason").is_none());
        }
    }

    #[test]
    fn a_full_line_has_the_documented_members_in_their_order() {
        let mut out = Vec::new();
        line(&mut out, &Record { reason: "resign", principal: "alice", ..record("/v2/", b"curl") });
        let value: serde_json::Value = serde_json::from_slice(&out).expect("JSON");
        let written: Vec<_> = value.as_object().expect("an object").keys().map(String::as_str).collect();
        assert_eq!(written, MEMBERS.map(|(name, _)| name));
    }

    #[test]
    fn lines_reach_the_writer_when_flushed() {
        #[derive(Clone, Default)]
        struct Shared(Arc<std::sync::Mutex<Vec<u8>>>);
        impl Write for Shared {
            fn write(&mut self, b: &[u8]) -> io::Result<usize> {
                self.0.lock().expect("unpoisoned").extend_from_slice(b);
                Ok(b.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let out = Shared::default();
        let writer = Writer::start(out.clone()).expect("a thread");
        let log = writer.log(Arc::default());
        log.write(&record("/v2/", b""));
        log.write(&record("/v2/", b""));
        drop(log);
        writer.finish();
        assert_eq!(out.0.lock().expect("unpoisoned").split(|b| *b == b'\n').count(), 3);
    }
}
