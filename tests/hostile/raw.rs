//! A client that writes what it likes and reads what comes, byte by byte.

use socket2::{Domain, Socket, Type};
use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    time::Duration,
};

/// How long to wait for the next bytes of an answer.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// An answer as it came.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    /// Status line and headers.
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    /// All values of a header, by its name in lower case.
    pub fn all(&self, name: &str) -> Vec<String> {
        values(&self.head, name)
    }

    /// The only value of a header.
    pub fn header(&self, name: &str) -> Option<String> {
        self.all(name).into_iter().next()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// All values of a header in a head.
pub fn values(head: &str, name: &str) -> Vec<String> {
    let lines = head.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
    lines.filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.trim().to_owned()).collect()
}

/// One connection.
#[derive(Debug)]
pub struct Raw {
    pub stream: TcpStream,
    buffer: Vec<u8>,
}

impl Raw {
    pub fn open(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect_timeout(&address, PATIENCE).expect("a connection"))
    }

    /// From another address of this machine (127.0.0.2, …).
    pub fn open_from(source: [u8; 4], address: SocketAddr) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::from((source, 0)).into()).expect("a source address");
        socket.connect_timeout(&address.into(), PATIENCE).expect("a connection");
        Self::over(socket.into())
    }

    fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).expect("a time limit");
        stream.set_write_timeout(Some(PATIENCE)).expect("a time limit");
        stream.set_nodelay(true).expect("no delay");
        Self { stream, buffer: Vec::new() }
    }

    /// Sends these bytes; a peer that has closed already is no fault.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        let _ = self.stream.write_all(bytes.as_ref());
        self
    }

    /// No more bytes will come.
    pub fn half_close(&mut self) -> &mut Self {
        let _ = self.stream.shutdown(Shutdown::Write);
        self
    }

    /// The next answer, interim ones included; `None` where the connection ended in its place.
    pub fn answer(&mut self) -> Option<Answer> {
        self.answer_to("GET")
    }

    /// The same, for a method whose answers have no body.
    pub fn answer_to(&mut self, method: &str) -> Option<Answer> {
        let end = loop {
            if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                break at;
            }
            if self.more() == 0 {
                return None;
            }
        };
        let head = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
        self.buffer.drain(..end + 4);
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status line");
        let mut answer = Answer { status, head, body: Vec::new() };
        if method != "HEAD" && status >= 200 && ![204, 304].contains(&status) {
            answer.body = self.body(&answer);
        }
        Some(answer)
    }

    /// The next answer that is final.
    pub fn last_answer(&mut self) -> Option<Answer> {
        loop {
            let answer = self.answer()?;
            if answer.status >= 200 {
                return Some(answer);
            }
        }
    }

    /// Whether the other side closes within `within`, without another byte.
    pub fn is_closed_within(&mut self, within: Duration) -> bool {
        self.stream.set_read_timeout(Some(within)).expect("a time limit");
        let closed = match self.stream.read(&mut [0; 1]) {
            Ok(0) => true,
            Ok(_) => false,
            Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        };
        self.stream.set_read_timeout(Some(PATIENCE)).expect("a time limit");
        closed && self.buffer.is_empty()
    }

    /// All that comes until the connection ends.
    pub fn rest(&mut self) -> Vec<u8> {
        while self.more() > 0 {}
        std::mem::take(&mut self.buffer)
    }

    fn body(&mut self, answer: &Answer) -> Vec<u8> {
        if answer.header("transfer-encoding").is_some() {
            return self.chunks();
        }
        match answer.header("content-length").and_then(|n| n.parse().ok()) {
            Some(length) => self.take(length),
            None => self.rest(),
        }
    }

    fn chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let end = loop {
                if let Some(at) = find(&self.buffer, b"\r\n") {
                    break at;
                }
                if self.more() == 0 {
                    return body;
                }
            };
            let size = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
            self.buffer.drain(..end + 2);
            let size = usize::from_str_radix(size.trim(), 16).expect("a chunk's size");
            let chunk = self.take(size + 2);
            body.extend_from_slice(&chunk[..chunk.len().min(size)]);
            if size == 0 {
                return body;
            }
        }
    }

    /// So many bytes, or fewer where the connection ends.
    fn take(&mut self, length: usize) -> Vec<u8> {
        while self.buffer.len() < length && self.more() > 0 {}
        let length = length.min(self.buffer.len());
        self.buffer.drain(..length).collect()
    }

    fn more(&mut self) -> usize {
        let mut chunk = [0; 16 * 1024];
        let read = self.stream.read(&mut chunk).unwrap_or(0);
        self.buffer.extend_from_slice(&chunk[..read]);
        read
    }
}

/// Sends one request on a connection of its own and reads its final answer.
pub fn ask(address: SocketAddr, request: impl AsRef<[u8]>) -> Option<Answer> {
    Raw::open(address).send(request).last_answer()
}

/// `GET target` with these header lines, each with its end.
pub fn get(address: SocketAddr, target: &str, lines: &str) -> Answer {
    let request = format!("GET {target} HTTP/1.1\r\nHost: h\r\n{lines}\r\n");
    ask(address, request).unwrap_or_else(|| panic!("{target} is answered"))
}

pub fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
