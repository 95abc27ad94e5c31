//! An upstream that keeps the exact bytes of every connection and answers as a script says. tidegate's own
//! questions (which key, which version) are passed on to a stand-in, so that the endpoint counts as Harbor's.

use crate::{raw, support::http};
use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

/// What a script does with a request; `false` closes the connection.
pub type Script = Arc<dyn Fn(&mut Turn<'_>) -> io::Result<bool> + Send + Sync>;

/// A running recorder; its threads end with their connections.
#[derive(Clone)]
pub struct Recorder {
    pub address: SocketAddr,
    state: Arc<Mutex<Vec<Seen>>>,
}

/// One connection that carried a request which is not one of tidegate's own.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// All bytes since its first request, tidegate's questions included.
    pub bytes: Vec<u8>,
    /// The heads that a script was given.
    pub heads: Vec<String>,
    /// The place of each among all requests.
    pub places: Vec<usize>,
    /// The bodies that scripts read, one a head, decoded.
    pub bodies: Vec<Vec<u8>>,
    /// Whether tidegate has closed it.
    pub closed: bool,
}

/// One request, in the hands of a script.
pub struct Turn<'a> {
    pub head: String,
    /// Requests of this recorder before it.
    pub before: usize,
    line: &'a mut Line,
}

struct Line {
    stream: TcpStream,
    buffer: Vec<u8>,
    place: usize,
    state: Arc<Mutex<Vec<Seen>>>,
}

impl Recorder {
    /// Records, with `script` for what is not tidegate's own; `core` answers that.
    pub fn start(core: SocketAddr, script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = listener.local_addr().expect("its address");
        let state: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (script, state) = (Arc::clone(&script), Arc::clone(&shared));
                thread::spawn(move || serve(stream, core, &script, state));
            }
        });
        Self { address, state }
    }

    /// Connections so far.
    pub fn connections(&self) -> Vec<Seen> {
        lock(&self.state).iter().filter(|seen| !seen.heads.is_empty()).cloned().collect()
    }

    /// Heads of all requests, in the order in which they came.
    pub fn heads(&self) -> Vec<String> {
        let seen = self.connections().into_iter();
        let mut heads: Vec<_> = seen.flat_map(|seen| seen.places.into_iter().zip(seen.heads)).collect();
        heads.sort_unstable();
        heads.into_iter().map(|(_, head)| head).collect()
    }

    /// First lines of all requests.
    pub fn lines(&self) -> Vec<String> {
        self.heads().iter().map(|head| head.split("\r\n").next().unwrap_or_default().to_owned()).collect()
    }

    /// The head of the only request whose first line contains `part`.
    pub fn head(&self, part: &str) -> String {
        let mut found: Vec<String> = self.heads();
        found.retain(|head| head.split("\r\n").next().unwrap_or_default().contains(part));
        assert_eq!(found.len(), 1, "{part}: {found:?}");
        found.remove(0)
    }
}

impl Turn<'_> {
    /// Reads the body as its head frames it, and keeps it.
    pub fn read_body(&mut self) -> io::Result<Vec<u8>> {
        let chunked = !raw::values(&self.head, "transfer-encoding").is_empty();
        let length = raw::values(&self.head, "content-length").first().and_then(|n| n.parse().ok());
        let body = if chunked { self.line.chunks()? } else { self.line.take(length.unwrap_or(0))? };
        if let Some(seen) = lock(&self.line.state).get_mut(self.line.place) {
            seen.bodies.push(body.clone());
        }
        Ok(body)
    }

    /// Reads so many bytes of the body, framing included, and keeps nothing.
    pub fn read_some(&mut self, bytes: usize) -> io::Result<Vec<u8>> {
        self.line.take(bytes)
    }

    /// Reads and throws away until the end of the connection.
    pub fn read_to_end(&mut self) -> u64 {
        let mut all = self.line.buffer.len() as u64;
        self.line.buffer.clear();
        let mut chunk = vec![0; 64 * 1024];
        while let Ok(read @ 1..) = self.line.stream.read(&mut chunk) {
            all += read as u64;
        }
        all
    }

    /// Writes bytes as they are.
    pub fn write(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.line.stream.write_all(bytes.as_ref())
    }

    /// A whole answer of this status, with more header lines, each with its end.
    pub fn answer(&mut self, status: &str, lines: &str, body: &str) -> io::Result<()> {
        self.write(format!("HTTP/1.1 {status}\r\n{lines}Content-Length: {}\r\n\r\n{body}", body.len()))
    }

    /// Keeps the connection open for so long, without a word; ends early when the other side closes.
    pub fn hold(&mut self, time: Duration) -> bool {
        let _ = self.line.stream.set_read_timeout(Some(time));
        let closed = matches!(self.line.stream.read(&mut [0; 1]), Ok(0));
        let _ = self.line.stream.set_read_timeout(None);
        closed
    }
}

/// Reads the whole body and answers 200 `ok`.
pub fn plain() -> Script {
    Arc::new(|turn| {
        turn.read_body()?;
        turn.answer("200 OK", "", "ok")?;
        Ok(true)
    })
}

fn serve(stream: TcpStream, core: SocketAddr, script: &Script, state: Arc<Mutex<Vec<Seen>>>) {
    let _ = stream.set_nodelay(true);
    let place = {
        let mut seen = lock(&state);
        seen.push(Seen::default());
        seen.len() - 1
    };
    let mut line = Line { stream, buffer: Vec::new(), place, state };
    while let Ok(Some(head)) = line.head() {
        if is_our_own(&head) {
            if line.pass_to(core, &head).is_err() {
                break;
            }
            continue;
        }
        let before = {
            let mut seen = lock(&line.state);
            let before = seen.iter().map(|seen| seen.heads.len()).sum();
            seen[place].heads.push(head.clone());
            seen[place].places.push(before);
            before
        };
        if !matches!(script(&mut Turn { head, before, line: &mut line }), Ok(true)) {
            break;
        }
    }
    lock(&line.state)[place].closed = true;
}

/// What tidegate asks on its own behalf.
fn is_our_own(head: &str) -> bool {
    let line = head.split("\r\n").next().unwrap_or_default();
    line.contains("scope=registry:catalog:*")
        || line.contains("/api/v2.0/systeminfo")
        || raw::values(head, "user-agent").iter().any(|agent| agent.starts_with("tidegate/"))
}

impl Line {
    /// The next head; `None` at the end of the connection.
    fn head(&mut self) -> io::Result<Option<String>> {
        loop {
            if let Some(at) = raw::find(&self.buffer, b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&self.buffer[..at]).into_owned();
                self.buffer.drain(..at + 4);
                return Ok(Some(head));
            }
            if self.more()? == 0 {
                return Ok(None);
            }
        }
    }

    fn pass_to(&mut self, core: SocketAddr, head: &str) -> io::Result<()> {
        let target = head.split(' ').nth(1).unwrap_or("/");
        let named = |name: &str| raw::values(head, name).concat();
        let (agent, bearer) = (named("user-agent"), named("authorization"));
        let mut headers = vec![("User-Agent", agent.as_str())];
        headers.extend((!bearer.is_empty()).then_some(("Authorization", bearer.as_str())));
        let answer = http::get(core, target, &headers)?;
        let (status, body) = (answer.status, answer.body);
        let text = format!(
            "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.stream.write_all(text.as_bytes())
    }

    fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let end = loop {
                if let Some(at) = raw::find(&self.buffer, b"\r\n") {
                    break at;
                }
                if self.more()? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            };
            let size = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
            self.buffer.drain(..end + 2);
            let size = usize::from_str_radix(size.trim(), 16).map_err(io::Error::other)?;
            if size == 0 {
                self.trailers()?;
                return Ok(body);
            }
            let chunk = self.take(size + 2)?;
            body.extend_from_slice(&chunk[..size]);
        }
    }

    /// Trailers go into the record by their bytes alone.
    fn trailers(&mut self) -> io::Result<()> {
        loop {
            let Some(at) = raw::find(&self.buffer, b"\r\n") else {
                if self.more()? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                continue;
            };
            self.buffer.drain(..at + 2);
            if at == 0 {
                return Ok(());
            }
        }
    }

    fn take(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < length {
            if self.more()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.buffer.drain(..length).collect())
    }

    fn more(&mut self) -> io::Result<usize> {
        let mut chunk = vec![0; 64 * 1024];
        let read = self.stream.read(&mut chunk)?;
        self.buffer.extend_from_slice(&chunk[..read]);
        let mut seen = lock(&self.state);
        let record = &mut seen[self.place].bytes;
        // Streams of a test about memory are not kept.
        if record.len() < 4 << 20 {
            record.extend_from_slice(&chunk[..read]);
        }
        Ok(read)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
