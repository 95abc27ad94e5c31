//! A request's body while it is being read, and what Go's server does with what a handler left of it.

use std::io;

use bytes::Bytes;

use super::{connection::Connection, head::Head, transfer::Transfer};

/// Go reads that much of a body after its handler returned (`maxPostHandlerReadBytes`): U2 to U4.
const READ_AFTER_ANSWER: u64 = 256 * 1024;

/// The body of the request that a connection is at.
#[derive(Debug)]
pub(in super::super) struct RequestBody<'c> {
    connection: &'c mut Connection,
    left: Transfer,
    expects_continue: bool,
    continued: bool,
}

/// What becomes of the connection after the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Afterwards {
    /// The body was read to its end: the connection can carry the next request.
    Reuse,
    /// It wasn't: half-close, linger, close.
    Linger,
}

impl<'c> RequestBody<'c> {
    pub(in super::super) fn of(head: &Head, connection: &'c mut Connection) -> io::Result<Self> {
        let chunked = head.all("transfer-encoding").any(|value| value.eq_ignore_ascii_case("chunked"));
        let left = Transfer::of(chunked, head.header("content-length"))?.unwrap_or(Transfer::Ended);
        let expects_continue = left != Transfer::Ended
            && head.header("expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue"));
        Ok(Self { connection, left, expects_continue, continued: false })
    }

    /// The next bytes; `None` at the framed end. Safe to cancel.
    pub(in super::super) async fn chunk(&mut self) -> io::Result<Option<Bytes>> {
        if self.expects_continue && !self.continued {
            self.connection.write(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
            self.continued = true;
        }
        self.connection.body(&mut self.left).await
    }

    /// The whole body where it has at most `limit` bytes.
    pub(in super::super) async fn whole(&mut self, limit: usize) -> io::Result<Option<Vec<u8>>> {
        let mut whole = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            if whole.len() + chunk.len() > limit {
                return Ok(None);
            }
            whole.extend_from_slice(&chunk);
        }
        Ok(Some(whole))
    }

    /// Whether a body is announced, of whatever length.
    pub(in super::super) fn is_announced(&self) -> bool {
        self.left != Transfer::Ended
    }

    /// The announced length, where one is.
    pub(in super::super) fn announced_length(&self) -> Option<u64> {
        if let Transfer::Length(length) = self.left { Some(length) } else { None }
    }

    /// Whether the client was told to go on (U6: core then spoils the answer's status).
    pub(in super::super) fn expects_continue(&self) -> bool {
        self.expects_continue
    }

    /// Returns when the client has ended, as far as that can be seen.
    pub(in super::super) async fn client_left(&mut self) {
        self.connection.peer_left().await;
    }

    /// Before the answer's head goes out: reads a short rest, gives up on a long one.
    pub(in super::super) async fn settle(&mut self) -> Afterwards {
        match self.left {
            Transfer::Ended => Afterwards::Reuse,
            _ if self.expects_continue && !self.continued => Afterwards::Linger,
            Transfer::Length(left) if left >= READ_AFTER_ANSWER => Afterwards::Linger,
            _ => self.discard(READ_AFTER_ANSWER + 1).await,
        }
    }

    /// After the answer, where the connection is to close: Go's `Body.Close` reads on once more.
    pub(in super::super) async fn read_on(&mut self) {
        let long = matches!(self.left, Transfer::Length(left) if left > READ_AFTER_ANSWER);
        let unsent = self.expects_continue && !self.continued;
        if !long && !unsent {
            self.discard(READ_AFTER_ANSWER).await;
        }
    }

    async fn discard(&mut self, limit: u64) -> Afterwards {
        let mut read = 0;
        while read < limit {
            match self.connection.body(&mut self.left).await {
                Ok(Some(chunk)) => read += chunk.len() as u64,
                Ok(None) => return Afterwards::Reuse,
                Err(_) => return Afterwards::Linger,
            }
        }
        Afterwards::Linger
    }

    pub(in super::super) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.connection.write(bytes).await
    }
}
