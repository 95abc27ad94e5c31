//! One wrapper under hyper on both sides, for what hyper can't do: keep an early answer readable after the
//! peer stopped reading, close without losing our own answer, and know what has moved on the wire.

use std::{
    cell::Cell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Sleep,
};

/// A TCP connection, plain or inside TLS.
#[derive(Debug)]
pub enum Stream {
    /// As it is.
    Plain(TcpStream),
    /// We are the server; boxed, so that plain connections don't pay for its size.
    TlsServer(Box<tokio_rustls::server::TlsStream<TcpStream>>),
    /// We are the client.
    TlsClient(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

/// Runs one method on whichever stream it is.
macro_rules! each {
    ($self:expr, $s:ident => $run:expr) => {
        match $self {
            Stream::Plain($s) => $run,
            Stream::TlsServer($s) => $run,
            Stream::TlsClient($s) => $run,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        each!(&mut *self, s => Pin::new(s).poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        each!(&mut *self, s => Pin::new(s).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(&mut *self, s => Pin::new(s).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        each!(self, s => s.is_write_vectored())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(&mut *self, s => Pin::new(s).poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(&mut *self, s => Pin::new(s).poll_shutdown(cx))
    }
}

/// What a connection is doing, as seen from its wire. Read by the connection's one timer.
#[derive(Debug)]
pub struct Pulse {
    phase: Cell<Phase>,
    since: Cell<Instant>,
    wrote: Cell<Instant>,
    write_waits: Cell<bool>,
    reads: Cell<Option<Instant>>,
    read_any: Cell<bool>,
    peer_gone: Cell<bool>,
}

/// The part of an exchange that a connection is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Between exchanges.
    Idle,
    /// A head has begun to arrive.
    Head,
    /// A request is being served: only bodies have a clock.
    Busy,
    /// A request's body is awaited from the peer.
    Body,
}

impl Default for Pulse {
    fn default() -> Self {
        let now = Instant::now();
        Self {
            phase: Cell::new(Phase::Idle),
            since: Cell::new(now),
            wrote: Cell::new(now),
            write_waits: Cell::new(false),
            reads: Cell::new(None),
            read_any: Cell::new(false),
            peer_gone: Cell::new(false),
        }
    }
}

impl Pulse {
    /// Enters a phase now.
    pub fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        self.since.set(Instant::now());
    }

    /// The phase, and since when.
    pub fn phase(&self) -> (Phase, Instant) {
        (self.phase.get(), self.since.get())
    }

    /// How long a write has been waiting for the peer to read; `None` where none waits.
    pub fn write_waiting(&self, now: Instant) -> Option<Duration> {
        self.write_waits.get().then(|| now.saturating_duration_since(self.wrote.get()))
    }

    /// How long a read has been waiting for the peer, while nothing was written either; `None` where none waits.
    pub fn read_waiting(&self, now: Instant) -> Option<Duration> {
        self.reads.get().map(|since| now.saturating_duration_since(since))
    }

    /// Forgets what was read: an exchange begins.
    pub fn expect_answer(&self) {
        self.read_any.set(false);
    }

    /// Whether any byte came since [`Pulse::expect_answer`].
    pub fn answered(&self) -> bool {
        self.read_any.get()
    }

    /// Whether the peer has stopped reading or closed.
    pub fn peer_gone(&self) -> bool {
        self.peer_gone.get()
    }
}

/// Which side of us the peer is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// A client: closing lets it read our answer first.
    Downstream,
    /// Harbor: a write error waits for what the read side still holds (U4).
    Upstream,
}

/// Bytes that are read and thrown away while a client that still writes gets our answer.
const DISCARD: usize = 1024 * 1024;
/// The longest time that takes.
const LINGER: Duration = Duration::from_secs(1);

/// A stream with a pulse.
#[derive(Debug)]
pub struct Wire {
    stream: Stream,
    pulse: Rc<Pulse>,
    side: Side,
    closing: Option<Closing>,
}

#[derive(Debug)]
struct Closing {
    half_closed: bool,
    discarded: usize,
    until: Pin<Box<Sleep>>,
}

impl Wire {
    /// Wraps a connection.
    pub fn new(stream: Stream, side: Side, pulse: Rc<Pulse>) -> Self {
        Self { stream, pulse, side, closing: None }
    }

    fn stream(&mut self) -> Pin<&mut Stream> {
        Pin::new(&mut self.stream)
    }

    fn wrote(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match result {
            Poll::Ready(Ok(n)) => {
                if n > 0 && self.side == Side::Upstream && self.pulse.reads.get().is_some() {
                    self.pulse.reads.set(Some(Instant::now()));
                }
                if self.pulse.write_waits.replace(false) {
                    self.pulse.wrote.set(Instant::now());
                }
                Poll::Ready(Ok(n))
            }
            Poll::Ready(Err(e)) if self.side == Side::Upstream && stopped_reading(&e) => {
                // Core refused and closed while we were writing: its 401 may still be in our socket (U4).
                // The read side ends the connection; until then this write never completes.
                self.pulse.peer_gone.set(true);
                Poll::Pending
            }
            Poll::Ready(Err(e)) => Poll::Ready(Err(e)),
            Poll::Pending => {
                if !self.pulse.write_waits.replace(true) {
                    self.pulse.wrote.set(Instant::now());
                }
                Poll::Pending
            }
        }
    }

    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut scratch = [0u8; 4096];
        loop {
            let mut buf = ReadBuf::new(&mut scratch);
            let read = self.stream().poll_read(cx, &mut buf);
            let Some(closing) = &mut self.closing else { return Poll::Ready(()) };
            match read {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {
                    closing.discarded += buf.filled().len();
                    if closing.discarded >= DISCARD {
                        return Poll::Ready(());
                    }
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return closing.until.as_mut().poll(cx),
            }
        }
    }
}

fn stopped_reading(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = self.stream().poll_read(cx, buf);
        if self.side == Side::Upstream {
            let since = || self.pulse.reads.get().unwrap_or_else(Instant::now);
            self.pulse.reads.set(result.is_pending().then(since));
        }
        if let Poll::Ready(Ok(())) = result {
            if buf.filled().len() > before {
                self.pulse.read_any.set(true);
                match self.pulse.phase.get() {
                    Phase::Idle => self.pulse.enter(Phase::Head),
                    Phase::Body => self.pulse.since.set(Instant::now()),
                    Phase::Head | Phase::Busy => {}
                }
            } else {
                self.pulse.peer_gone.set(true);
            }
        }
        result
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = self.stream().poll_write(cx, buf);
        self.wrote(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = self.stream().poll_write_vectored(cx, bufs);
        self.wrote(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = self.stream().poll_flush(cx);
        self.wrote(flushed.map_ok(|()| 0)).map_ok(|_| ())
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.side == Side::Upstream {
            return self.stream().poll_shutdown(cx);
        }
        if self.closing.is_none() {
            let until = Box::pin(tokio::time::sleep(LINGER));
            self.closing = Some(Closing { half_closed: false, discarded: 0, until });
        }
        if self.closing.as_ref().is_some_and(|c| !c.half_closed) {
            ready!(self.stream().poll_shutdown(cx))?;
            if let Some(closing) = &mut self.closing {
                closing.half_closed = true;
            }
        }
        self.poll_linger(cx).map(Ok)
    }
}
