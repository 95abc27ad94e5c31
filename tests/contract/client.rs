//! A raw HTTP/1.1 client: it sends what it is told and hides nothing of what comes back.

use std::{
    fmt::Write as _,
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

/// No answer takes longer than this: a wrong password 1.5 s, a ping while Redis hangs 24 s.
const PATIENCE: Duration = Duration::from_secs(40);

/// A request to be sent.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    address: SocketAddr,
    method: String,
    target: String,
    host: String,
    headers: Vec<(String, String)>,
    body: Option<Vec<u8>>,
}

/// What came back.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// 1xx answers before the final one.
    pub(crate) interim: Vec<(u16, Vec<(String, String)>)>,
    pub(crate) took: Duration,
}

impl Request {
    pub(crate) fn new(address: SocketAddr, host: &str, method: &str, target: &str) -> Self {
        Self {
            address,
            method: method.into(),
            target: target.into(),
            host: host.into(),
            headers: Vec::new(),
            body: None,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub(crate) fn host(mut self, host: &str) -> Self {
        self.host = host.into();
        self
    }

    pub(crate) fn bearer(self, token: &str) -> Self {
        self.header("Authorization", &format!("Bearer {token}"))
    }

    pub(crate) fn basic(self, credential: &(String, String)) -> Self {
        let (name, password) = credential;
        self.header("Authorization", &format!("Basic {}", STANDARD.encode(format!("{name}:{password}"))))
    }

    pub(crate) fn body(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.body = Some(bytes.into());
        self
    }

    pub(crate) fn json(self, value: &Value) -> Self {
        self.header("Content-Type", "application/json").body(value.to_string())
    }

    /// Sends it on a connection of its own and reads the answer.
    pub(crate) async fn send(self) -> Answer {
        let mut wire = Wire::connect(self.address).await;
        let (begun, head_request) = (Instant::now(), self.method == "HEAD");
        wire.write(&self.bytes()).await.expect("a server takes a small request whole");
        let mut answer = wire.answer(head_request).await.expect("an answer");
        answer.took = begun.elapsed();
        answer
    }

    /// The request as it goes out; a body brings its length.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let length = self.body.as_ref().map(|body| ("Content-Length".to_owned(), body.len().to_string()));
        let mut text = format!("{} {} HTTP/1.1\r\nHost: {}\r\n", self.method, self.target, self.host);
        for (name, value) in self.headers.iter().chain(length.iter()) {
            _ = write!(text, "{name}: {value}\r\n");
        }
        text.push_str("\r\n");
        [text.as_bytes(), self.body.as_deref().unwrap_or_default()].concat()
    }
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("JSON, not {:?}", self.text()))
    }

    /// The value of a cookie that the answer sets.
    pub(crate) fn cookie(&self, name: &str) -> Option<String> {
        let of_it = format!("{name}=");
        let mut set = self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case("set-cookie"));
        let value = set.find_map(|(_, value)| value.strip_prefix(&of_it))?;
        value.split(';').next().map(str::to_owned)
    }

    pub(crate) fn challenge(&self) -> &str {
        self.header("www-authenticate").expect("a challenge")
    }

    /// The first error's code and message.
    pub(crate) fn error(&self) -> (String, String) {
        let error = self.json()["errors"][0].clone();
        let text = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
        (text("code"), text("message"))
    }

    /// Checks a refusal's status, code and message at once; Harbor says registry messages twice.
    pub(crate) fn is_unauthorized(&self, message: &str) {
        assert_eq!(self.status, 401, "{}", self.text());
        assert_eq!(self.error(), ("UNAUTHORIZED".into(), format!("{message}: {message}")));
        assert_eq!(self.header("docker-distribution-api-version"), Some("registry/2.0"));
    }
}

/// A socket under the test's own control.
#[derive(Debug)]
pub(crate) struct Wire {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Wire {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("the target listens");
        Self { stream, read: Vec::new() }
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        timeout(PATIENCE, self.stream.write_all(bytes)).await.expect("a server that reads")
    }

    /// Whether nothing comes for a while: what must not be answered yet.
    pub(crate) async fn is_silent_for(&mut self, duration: Duration) -> bool {
        let mut byte = [0];
        timeout(duration, self.stream.peek(&mut byte)).await.is_err()
    }

    /// Whether the server has ended the connection with nothing more to read.
    pub(crate) async fn is_closed(&mut self) -> bool {
        self.read.is_empty() && matches!(self.fill().await, Ok(0) | Err(_))
    }

    /// How many bytes come before the server ends, in whatever way.
    pub(crate) async fn rest(&mut self) -> usize {
        while self.fill().await.is_ok_and(|read| read > 0) {}
        self.read.len()
    }

    /// Stops sending and waits until the server has ended too, with or without an answer.
    pub(crate) async fn end(mut self) {
        self.stream.shutdown().await.expect("the socket is open");
        while self.fill().await.is_ok_and(|read| read > 0) {}
    }

    pub(crate) async fn answer(&mut self, to_head: bool) -> io::Result<Answer> {
        let mut answer = Answer::default();
        loop {
            let (status, headers) = self.head().await?;
            if (100..200).contains(&status) {
                answer.interim.push((status, headers));
                continue;
            }
            (answer.status, answer.headers) = (status, headers);
            break;
        }
        if to_head || matches!(answer.status, 204 | 304) {
            return Ok(answer);
        }
        let length = answer.header("content-length").and_then(|length| length.parse::<usize>().ok());
        if answer.header("transfer-encoding") == Some("chunked") {
            answer.body = self.chunked().await?;
        } else {
            answer.body = self.exactly(length.unwrap_or(usize::MAX)).await?;
        }
        Ok(answer)
    }

    /// The next head.
    pub(crate) async fn head(&mut self) -> io::Result<(u16, Vec<(String, String)>)> {
        loop {
            let mut headers = [httparse::EMPTY_HEADER; 64];
            let mut response = httparse::Response::new(&mut headers);
            if let Ok(httparse::Status::Complete(length)) = response.parse(&self.read) {
                let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
                let fields = response.headers.iter().map(|h| (h.name.to_owned(), text(h.value))).collect();
                let status = response.code.unwrap_or_default();
                self.read.drain(..length);
                return Ok((status, fields));
            }
            if self.fill().await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// That many bytes, fewer where the server ends before.
    async fn exactly(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.read.len() < length && self.fill().await? > 0 {}
        let taken = length.min(self.read.len());
        Ok(self.read.drain(..taken).collect())
    }

    async fn chunked(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.line().await?;
            let size = usize::from_str_radix(&line, 16).map_err(io::Error::other)?;
            body.extend(self.exactly(size).await?);
            self.line().await?;
            if size == 0 {
                return Ok(body);
            }
        }
    }

    async fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.read.windows(2).position(|two| two == b"\r\n") {
                let line: Vec<u8> = self.read.drain(..end + 2).take(end).collect();
                return Ok(String::from_utf8_lossy(&line).into_owned());
            }
            if self.fill().await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    async fn fill(&mut self) -> io::Result<usize> {
        timeout(PATIENCE, self.stream.read_buf(&mut self.read)).await.expect("an answer in time")
    }
}
