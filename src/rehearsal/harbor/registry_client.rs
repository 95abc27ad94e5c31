//! The way to a real docker-registry behind core, with Basic (K5). Bodies stream both ways.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::{Buf as _, Bytes, BytesMut};
use tokio::{net::TcpStream, runtime::Handle};

use super::{
    wire::{connection::Connection, head::Head, request_body::RequestBody, transfer::Transfer},
    world::deeds::{Begun, Place, is_safe},
};

/// Idle connections kept to the registry.
const MOST_IDLE: usize = 64;

/// Headers of a request that end at core.
const DROPPED: [&str; 11] = [
    "authorization",
    "connection",
    "content-length",
    "cookie",
    "expect",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Where the registry is and how core logs in there.
#[derive(Debug)]
pub struct RegistryAddress {
    address: SocketAddr,
    authorization: String,
    idle: Mutex<Vec<Connection>>,
}

/// An answer whose body still streams.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    /// What it tells of, where somebody watches.
    pub(super) deed: Option<Place>,
    connection: Connection,
    left: Transfer,
    home: Arc<RegistryAddress>,
}

impl RegistryAddress {
    /// A registry that takes this user and password (its htpasswd).
    pub fn new(address: SocketAddr, user: &str, password: &str) -> Self {
        let authorization = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
        Self { address, authorization, idle: Mutex::default() }
    }

    /// Sends a request on, its body while it comes.
    pub(super) async fn send(
        self: &Arc<Self>,
        head: &Head,
        body: &mut RequestBody<'_>,
        (peer, begun): (Option<SocketAddr>, Option<Begun>),
    ) -> io::Result<Answer> {
        let bytes = self.head_for(head, body, peer);
        if is_safe(&head.method) && !body.is_announced() {
            // An idle connection may have been closed meanwhile; what changes nothing may be tried again.
            let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            if let Some(mut connection) = idle
                && connection.write(&bytes).await.is_ok()
                && let Ok(answer) = self.read_answer(connection, head).await
            {
                return Ok(answer);
            }
        }
        let mut connection = Connection::new(TcpStream::connect(self.address).await?);
        connection.write(&bytes).await?;
        relay(&mut connection, body).await?;
        match begun {
            None => self.read_answer(connection, head).await,
            Some(begun) => self.hear(connection, head.clone(), begun).await,
        }
    }

    /// Reads the answer to what may be a deed, also where the core that asked ends meanwhile: the registry has all of the
    /// request and does it.
    async fn hear(self: &Arc<Self>, connection: Connection, head: Head, begun: Begun) -> io::Result<Answer> {
        let home = Arc::clone(self);
        let reading = Handle::current().spawn(async move {
            let mut answer = home.read_answer(connection, &head).await?;
            answer.deed = begun.answered(answer.status, &answer.headers);
            Ok(answer)
        });
        reading.await.map_err(io::Error::other)?
    }

    fn head_for(&self, head: &Head, body: &RequestBody<'_>, peer: Option<SocketAddr>) -> Vec<u8> {
        let mut bytes = format!("{} {} HTTP/1.1\r\n", head.method, head.target).into_bytes();
        for (name, value) in &head.headers {
            if !DROPPED.iter().any(|dropped| name.eq_ignore_ascii_case(dropped)) {
                bytes.extend_from_slice(name.as_bytes());
                bytes.extend_from_slice(b": ");
                bytes.extend_from_slice(value);
                bytes.extend_from_slice(b"\r\n");
            }
        }
        if let Some(peer) = peer {
            bytes.extend_from_slice(format!("X-Forwarded-For: {}\r\n", peer.ip()).as_bytes());
        }
        bytes.extend_from_slice(format!("Authorization: {}\r\n", self.authorization).as_bytes());
        bytes.extend_from_slice(framing(head, body).as_bytes());
        bytes.extend_from_slice(b"\r\n");
        bytes
    }

    async fn read_answer(self: &Arc<Self>, mut connection: Connection, head: &Head) -> io::Result<Answer> {
        loop {
            if let Some((status, headers)) = take_head(&mut connection.buffer)? {
                if (100..200).contains(&status) {
                    continue;
                }
                let header = |name: &str| {
                    headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
                };
                let chunked = header("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked"));
                let bodiless = head.is("HEAD") || matches!(status, 204 | 304);
                let left = match Transfer::of(chunked, header("content-length"))? {
                    _ if bodiless => Transfer::Ended,
                    Some(left) => left,
                    None => Transfer::UntilClose,
                };
                let home = Arc::clone(self);
                return Ok(Answer { status, headers, deed: None, connection, left, home });
            }
            if connection.fill().await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

impl Answer {
    /// What of the body is still to come.
    pub(super) fn left(&self) -> Transfer {
        self.left
    }

    /// The next bytes of the body.
    pub(super) async fn chunk(&mut self) -> io::Result<Option<Bytes>> {
        self.connection.body(&mut self.left).await
    }

    /// Gives the connection back where the answer was read to its end.
    pub(super) fn done(self) {
        if self.left == Transfer::Ended && self.connection.buffer.is_empty() {
            let mut idle = self.home.idle.lock().unwrap_or_else(PoisonError::into_inner);
            if idle.len() < MOST_IDLE {
                idle.push(self.connection);
            }
        }
    }

    /// The whole body, for the short ones that core reads itself.
    pub(super) async fn whole(&mut self) -> io::Result<Vec<u8>> {
        let mut whole = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            whole.extend_from_slice(&chunk);
        }
        Ok(whole)
    }
}

/// How a request's body goes on: as it came.
fn framing(head: &Head, body: &RequestBody<'_>) -> String {
    match body.announced_length() {
        Some(length) => format!("Content-Length: {length}\r\n"),
        None if body.is_announced() => "Transfer-Encoding: chunked\r\n".to_owned(),
        None if matches!(head.method.as_str(), "POST" | "PUT" | "PATCH") => {
            "Content-Length: 0\r\n".to_owned()
        }
        None => String::new(),
    }
}

/// Sends a request's body on while it comes; an early answer or a broken pipe ends that, and the answer tells why.
async fn relay(connection: &mut Connection, body: &mut RequestBody<'_>) -> io::Result<()> {
    let chunked = body.is_announced() && body.announced_length().is_none();
    while body.is_announced() {
        tokio::select! {
            read = connection.fill() => return read.map(|_| ()),
            chunk = body.chunk() => match chunk? {
                Some(chunk) => {
                    if send_chunk(connection, &chunk, chunked).await.is_err() {
                        return Ok(());
                    }
                }
                None => break,
            },
        }
    }
    if chunked {
        // Where this fails, reading the answer tells.
        _ = connection.write(b"0\r\n\r\n").await;
    }
    Ok(())
}

async fn send_chunk(connection: &mut Connection, chunk: &[u8], chunked: bool) -> io::Result<()> {
    if !chunked {
        return connection.write(chunk).await;
    }
    connection.write(format!("{:x}\r\n", chunk.len()).as_bytes()).await?;
    connection.write(chunk).await?;
    connection.write(b"\r\n").await
}

type AnswerHead = (u16, Vec<(String, String)>);

fn take_head(buffer: &mut BytesMut) -> io::Result<Option<AnswerHead>> {
    let mut headers = [httparse::EMPTY_HEADER; 128];
    let mut response = httparse::Response::new(&mut headers);
    let length = match response.parse(buffer) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
    };
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    let taken = (
        response.code.unwrap_or_default(),
        response.headers.iter().map(|h| (h.name.to_owned(), text(h.value))).collect(),
    );
    buffer.advance(length);
    Ok(Some(taken))
}
