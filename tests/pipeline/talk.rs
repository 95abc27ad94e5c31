//! A client over HTTP/1.1 that sends what it is told, over any stream, and hides nothing of what comes back.

use crate::recorder::Received;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;
use std::{
    fmt::Write as _,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// No answer takes longer: a wrong password 1.5 s, a hold for a clock some seconds.
const PATIENCE: Duration = Duration::from_secs(20);

/// A request to be sent.
#[derive(Clone, Debug)]
pub struct Ask {
    method: String,
    target: String,
    host: String,
    headers: Vec<(String, String)>,
    body: Option<Vec<u8>>,
    chunked: bool,
}

impl Ask {
    pub fn new(method: &str, target: &str) -> Self {
        let host = "harbor.example".to_owned();
        Self {
            method: method.into(),
            target: target.into(),
            host,
            headers: Vec::new(),
            body: None,
            chunked: false,
        }
    }

    pub fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    /// Another `Host`.
    pub fn on(mut self, host: &str) -> Self {
        host.clone_into(&mut self.host);
        self
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub fn bearer(self, token: &str) -> Self {
        self.header("Authorization", &format!("Bearer {token}"))
    }

    pub fn basic(self, (name, password): (&str, &str)) -> Self {
        self.header("Authorization", &format!("Basic {}", STANDARD.encode(format!("{name}:{password}"))))
    }

    pub fn body(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.body = Some(bytes.into());
        self
    }

    /// The body goes in chunks of 64 KiB, its length untold.
    pub fn chunked(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.chunked = true;
        self.body(bytes)
    }

    /// Sends it on a connection of its own.
    pub fn at(&self, address: SocketAddr) -> Answer {
        Line::open(address).ask(self).expect("an answer")
    }

    /// All that an upstream should see of it, `Host` and `Content-Length` too.
    pub fn received(&self) -> Received {
        let mut headers = vec![("host".to_owned(), self.host.clone().into_bytes())];
        if let (Some(body), false) = (&self.body, self.chunked) {
            headers.push(("content-length".to_owned(), body.len().to_string().into_bytes()));
        }
        let given = self.headers.iter();
        headers.extend(given.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().into())));
        let body = self.body.clone().unwrap_or_default();
        Received { method: self.method.clone(), target: self.target.clone(), headers, body }
    }

    /// The head alone; of a chunked body it says so.
    pub fn head(&self) -> Vec<u8> {
        let mut text = format!("{} {} HTTP/1.1\r\nHost: {}\r\n", self.method, self.target, self.host);
        for (name, value) in &self.headers {
            _ = write!(text, "{name}: {value}\r\n");
        }
        match &self.body {
            Some(_) if self.chunked => text.push_str("Transfer-Encoding: chunked\r\n"),
            Some(body) => _ = write!(text, "Content-Length: {}\r\n", body.len()),
            None => {}
        }
        text.push_str("\r\n");
        text.into_bytes()
    }

    fn bytes(&self) -> Vec<u8> {
        let body = self.body.clone().unwrap_or_default();
        let framed = if self.chunked { [chunks(&body), b"0\r\n\r\n".to_vec()].concat() } else { body };
        [self.head(), framed].concat()
    }
}

/// Bytes as chunks, without the last, empty one.
pub fn chunks(bytes: &[u8]) -> Vec<u8> {
    let chunk = |part: &[u8]| [format!("{:x}\r\n", part.len()).as_bytes(), part, b"\r\n"].concat();
    bytes.chunks(64 * 1024).flat_map(chunk).collect()
}

/// What came back.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub status: u16,
    /// As they came, names as spelled.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("JSON, not {} {:?}", self.status, self.text()))
    }

    /// The registry token in an answer of the token service.
    pub fn token(&self) -> String {
        assert_eq!(self.status, 200, "{}", self.text());
        self.json()["token"].as_str().expect("a token").to_owned()
    }

    /// The name that the token is for; empty for nobody's.
    pub fn subject(&self) -> String {
        claims(&self.token())["sub"].as_str().unwrap_or_default().to_owned()
    }
}

/// The claims of a token, unverified.
pub fn claims(token: &str) -> Value {
    let part = token.split('.').nth(1).expect("claims");
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part).expect("base64url");
    serde_json::from_slice(&bytes).expect("JSON")
}

/// A connection under the test's own control.
#[derive(Debug)]
pub struct Line<S> {
    pub stream: S,
    read: Vec<u8>,
}

impl Line<TcpStream> {
    pub fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).expect("somebody listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        stream.set_nodelay(true).expect("no delay");
        Self::over(stream)
    }
}

impl<S: Read + Write> Line<S> {
    pub fn over(stream: S) -> Self {
        Self { stream, read: Vec::new() }
    }

    /// Sends a request and reads its answer. A server that answers before it has read all may refuse the rest.
    pub fn ask(&mut self, ask: &Ask) -> io::Result<Answer> {
        let written = self.send(&ask.bytes());
        let answer = self.answer(ask.method == "HEAD");
        if answer.is_err() {
            written?;
        }
        answer
    }

    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    /// The next final answer to its end.
    pub fn answer(&mut self, head_only: bool) -> io::Result<Answer> {
        let mut answer = self.head()?;
        while (100..200).contains(&answer.status) {
            answer = self.head()?;
        }
        if head_only || matches!(answer.status, 204 | 304) {
            return Ok(answer);
        }
        if answer.header("transfer-encoding").is_some() {
            answer.body = self.chunks()?;
        } else {
            let length = answer.header("content-length").and_then(|length| length.parse().ok());
            answer.body = self.exactly(length.unwrap_or(usize::MAX))?;
        }
        Ok(answer)
    }

    /// The next head, of an interim answer too.
    pub fn head(&mut self) -> io::Result<Answer> {
        loop {
            let mut headers = [httparse::EMPTY_HEADER; 64];
            let mut response = httparse::Response::new(&mut headers);
            if let Ok(httparse::Status::Complete(length)) = response.parse(&self.read) {
                let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
                let fields = response.headers.iter().map(|h| (h.name.to_owned(), text(h.value))).collect();
                let status = response.code.unwrap_or_default();
                self.read.drain(..length);
                return Ok(Answer { status, headers: fields, body: Vec::new() });
            }
            self.fill()?;
        }
    }

    /// That many bytes; fewer only where no length was told and the connection ends.
    pub fn exactly(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.read.len() < length {
            match self.fill() {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && length == usize::MAX => break,
                other => other?,
            }
        }
        let taken = length.min(self.read.len());
        Ok(self.read.drain(..taken).collect())
    }

    /// What stands before the next blank line, as it came.
    pub fn raw_head(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some(end) = self.read.windows(4).position(|four| four == b"\r\n\r\n") {
                return Ok(self.read.drain(..end + 4).collect());
            }
            self.fill()?;
        }
    }

    /// A body in chunks, to its end.
    pub fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let size = usize::from_str_radix(self.line()?.trim(), 16).map_err(io::Error::other)?;
            body.extend(self.exactly(size)?);
            self.line()?;
            if size == 0 {
                return Ok(body);
            }
        }
    }

    fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.read.windows(2).position(|two| two == b"\r\n") {
                let line: Vec<u8> = self.read.drain(..end + 2).take(end).collect();
                return Ok(String::from_utf8_lossy(&line).into_owned());
            }
            self.fill()?;
        }
    }

    fn fill(&mut self) -> io::Result<()> {
        let mut chunk = [0; 16 * 1024];
        match self.stream.read(&mut chunk)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                self.read.extend_from_slice(&chunk[..read]);
                Ok(())
            }
        }
    }
}
