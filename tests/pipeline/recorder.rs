//! An upstream that keeps every byte of what it is sent and answers what it is told; to probes it is a core.

use crate::{
    stage::{Replica, ask_token},
    talk::Line,
};
use std::{
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

/// A request as it came over the wire.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Received {
    pub method: String,
    pub target: String,
    /// Name in lower case and value, in the order of the wire.
    pub headers: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
}

impl Received {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(n, _)| n == name);
        found.and_then(|(_, value)| std::str::from_utf8(value).ok())
    }
}

/// The recorder. Its threads end with their connections.
pub struct Recorder {
    pub address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
}

impl Recorder {
    /// Answers each request with these bytes, and probes as `core` does.
    pub fn start(core: &Replica, answer: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = listener.local_addr().expect("its address");
        let received: Arc<Mutex<Vec<Received>>> = Arc::default();
        let token = ask_token("registry:catalog:*").at(core.address).text();
        let (kept, answer) = (Arc::clone(&received), Arc::<str>::from(answer));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (kept, answer, token) = (Arc::clone(&kept), Arc::clone(&answer), token.clone());
                thread::spawn(move || serve(stream, &kept, &answer, &token));
            }
        });
        Self { address, received }
    }

    /// What came last.
    pub fn last(&self) -> Received {
        self.received.lock().expect("no thread of it panics").last().cloned().expect("a request came")
    }
}

fn serve(stream: TcpStream, kept: &Mutex<Vec<Received>>, answer: &str, token: &str) {
    let mut line = Line::over(stream);
    while let Ok(request) = receive(&mut line) {
        let probe = request.header("user-agent").is_some_and(|agent| agent.starts_with("tidegate/"));
        let sent = if !probe {
            kept.lock().expect("no thread of it panics").push(request);
            line.send(answer.as_bytes())
        } else if request.target.starts_with("/service/token") {
            line.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{token}", token.len()).as_bytes())
        } else {
            line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        };
        if sent.is_err() {
            return;
        }
    }
}

pub fn receive(line: &mut Line<TcpStream>) -> io::Result<Received> {
    let head = line.raw_head()?;
    let mut headers = [httparse::EMPTY_HEADER; 128];
    let mut request = httparse::Request::new(&mut headers);
    request.parse(&head).map_err(io::Error::other)?;
    let mut received = Received {
        method: request.method.unwrap_or_default().to_owned(),
        target: request.path.unwrap_or_default().to_owned(),
        headers: request.headers.iter().map(|h| (h.name.to_ascii_lowercase(), h.value.to_vec())).collect(),
        body: Vec::new(),
    };
    received.body = match (received.header("transfer-encoding"), received.header("content-length")) {
        (Some(_), _) => line.chunks()?,
        (None, Some(length)) => line.exactly(length.parse().map_err(io::Error::other)?)?,
        (None, None) => Vec::new(),
    };
    Ok(received)
}
