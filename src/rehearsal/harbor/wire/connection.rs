//! A socket with what was read from it ahead.

use std::{io, time::Duration};

use bytes::BytesMut;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{
    head::Head,
    transfer::{Piece, Transfer},
};

/// How much is read at once.
const READ: usize = 64 * 1024;

/// Go waits that long between its half-close and the close, so that a peer can read the answer (`rstAvoidanceDelay`).
const LINGER: Duration = Duration::from_millis(500);

/// A socket and a read buffer. Every read is safe to cancel.
#[derive(Debug)]
pub(in super::super) struct Connection {
    stream: TcpStream,
    pub(in super::super) buffer: BytesMut,
}

impl Connection {
    pub(in super::super) fn new(stream: TcpStream) -> Self {
        // Small answers go out at once; a failure here costs time only.
        _ = stream.set_nodelay(true);
        Self { stream, buffer: BytesMut::new() }
    }

    /// The next request's head; `None` where the peer ended between requests.
    pub(in super::super) async fn head(&mut self) -> io::Result<Option<Head>> {
        loop {
            match Head::take(&mut self.buffer) {
                Ok(Some(head)) => return Ok(Some(head)),
                Ok(None) => {}
                Err(malformed) => return Err(io::Error::new(io::ErrorKind::InvalidData, malformed)),
            }
            if self.fill().await? == 0 {
                let between = self.buffer.is_empty();
                return if between { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
        }
    }

    /// The next bytes of a body; `None` at its framed end.
    pub(in super::super) async fn body(&mut self, left: &mut Transfer) -> io::Result<Option<bytes::Bytes>> {
        loop {
            match left.take(&mut self.buffer)? {
                Piece::Data(data) => return Ok(Some(data)),
                Piece::End => return Ok(None),
                Piece::NeedsMore => {}
            }
            if self.fill().await? == 0 {
                return if *left == Transfer::UntilClose {
                    *left = Transfer::Ended;
                    Ok(None)
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                };
            }
        }
    }

    /// Reads more; 0 at the peer's end.
    pub(in super::super) async fn fill(&mut self) -> io::Result<usize> {
        self.buffer.reserve(READ);
        self.stream.read_buf(&mut self.buffer).await
    }

    /// Returns when the peer has ended. Reads ahead meanwhile, but no more than fits: where a long body is on its way,
    /// its end isn't seen.
    pub(in super::super) async fn peer_left(&mut self) {
        while self.buffer.len() < READ {
            if !self.fill().await.is_ok_and(|read| read > 0) {
                return;
            }
        }
        std::future::pending::<()>().await;
    }

    pub(in super::super) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Ends as Go does after an answer that came before the request's end: half-close, linger without reading, close.
    pub(in super::super) async fn linger(mut self) {
        if self.stream.shutdown().await.is_ok() {
            tokio::time::sleep(LINGER).await;
        }
    }

    /// The peer's address.
    pub(in super::super) fn peer(&self) -> io::Result<std::net::SocketAddr> {
        self.stream.peer_addr()
    }
}
