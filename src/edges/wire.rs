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

/// What a connection is doing, as seen from its wire. It counts and never asks for the time: that is for the
/// connection's [`Watch`], which looks now and then.
#[derive(Debug, Default)]
pub struct Pulse {
    phase: Cell<Phase>,
    entered: Cell<u32>,
    writes: Cell<Wait>,
    reads: Cell<Wait>,
    read_any: Cell<bool>,
    peer_gone: Cell<bool>,
    patience: Cell<Option<Patience>>,
    overdue: Cell<bool>,
    given_up: Cell<bool>,
}

/// How long an answer's head may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// At most.
    pub most: Duration,
    /// Whether a shorter silence makes one doubt that it comes at all: of a request that takes an endpoint no time and
    /// may be sent twice.
    pub doubts: bool,
}

/// Whether one direction waits for the peer, and how often that has changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Wait {
    waits: bool,
    turn: u32,
}

impl Wait {
    fn set(cell: &Cell<Self>, waits: bool) {
        let now = cell.get();
        if now.waits != waits {
            cell.set(Self { waits, turn: now.turn.wrapping_add(1) });
        }
    }
}

/// The part of an exchange that a connection is in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Between exchanges.
    #[default]
    Idle,
    /// A head has begun to arrive.
    Head,
    /// A request is being served: only bodies have a clock.
    Busy,
    /// A request's body is awaited from the peer.
    Body,
}

impl Pulse {
    /// Enters a phase now.
    pub fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        self.entered.set(self.entered.get().wrapping_add(1));
    }

    /// The phase of now.
    pub fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// Forgets what was read: an exchange begins, whose answer may take `patience` once nothing moves any more.
    pub fn expect_answer(&self, patience: Option<Patience>) {
        self.read_any.set(false);
        self.overdue.set(false);
        self.given_up.set(false);
        self.patience.set(patience);
        self.enter(Phase::Busy);
    }

    /// Whether the connection was stopped because no answer came in time.
    pub fn is_overdue(&self) -> bool {
        self.overdue.get()
    }

    /// Gives up the exchange: the endpoint hangs.
    pub fn give_up(&self) {
        self.given_up.set(true);
    }

    /// Whether the connection was stopped because the endpoint hangs.
    pub fn is_given_up(&self) -> bool {
        self.given_up.get()
    }

    /// The exchange that is under way, as a number that no other on this connection has for long.
    pub fn exchange(&self) -> u32 {
        self.entered.get()
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

/// The timer's view of a [`Pulse`]: since when it has not changed, as precise as the looks are close.
#[derive(Debug)]
pub struct Watch {
    pulse: Rc<Pulse>,
    entered: (u32, Instant),
    writes: (Wait, Instant),
    reads: (Wait, Instant),
}

impl Watch {
    /// Begins to watch at `now`.
    pub fn new(pulse: Rc<Pulse>, now: Instant) -> Self {
        let (entered, writes, reads) = (pulse.entered.get(), pulse.writes.get(), pulse.reads.get());
        Self { pulse, entered: (entered, now), writes: (writes, now), reads: (reads, now) }
    }

    /// Looks at the wire.
    pub fn look(&mut self, now: Instant) {
        fn note<T: PartialEq>(seen: &mut (T, Instant), is: T, now: Instant) {
            if seen.0 != is {
                *seen = (is, now);
            }
        }
        note(&mut self.entered, self.pulse.entered.get(), now);
        note(&mut self.writes, self.pulse.writes.get(), now);
        note(&mut self.reads, self.pulse.reads.get(), now);
    }

    /// The phase, and for how long it had not been entered anew at the last look.
    pub fn phase(&self, now: Instant) -> (Phase, Duration) {
        (self.pulse.phase(), now.saturating_duration_since(self.entered.1))
    }

    /// How long a write has been waiting for the peer to read; `None` where none waits.
    pub fn write_waiting(&self, now: Instant) -> Option<Duration> {
        self.writes.0.waits.then(|| now.saturating_duration_since(self.writes.1))
    }

    /// Whether an answer's head is awaited and neither side has moved for as long as it may take; a body that moves
    /// is never late, however long it is.
    pub fn is_overdue(&self, now: Instant) -> bool {
        let overdue = self.awaited().is_some_and(|patience| self.stood(now) >= patience.most);
        self.pulse.overdue.set(overdue);
        overdue
    }

    /// For how long an answer's head that should come soon has been awaited while neither side moved; `None` where
    /// none is, or it may take its time.
    pub fn silence(&self, now: Instant) -> Option<Duration> {
        self.awaited().filter(|patience| patience.doubts).map(|_| self.stood(now))
    }

    fn awaited(&self) -> Option<Patience> {
        self.pulse.patience.get().filter(|_| self.pulse.phase() == Phase::Busy)
    }

    fn stood(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.entered.1.max(self.writes.1).max(self.reads.1))
    }

    /// How long a read has been waiting for the peer, while nothing was written either; `None` where none waits.
    pub fn read_waiting(&self, now: Instant) -> Option<Duration> {
        self.reads.0.waits.then(|| now.saturating_duration_since(self.reads.1))
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

/// Bytes that are written as one piece where they come in several.
const JOINED: usize = 1024;

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
                if n > 0 && self.side == Side::Upstream {
                    let Wait { waits, turn } = self.pulse.reads.get();
                    self.pulse.reads.set(Wait { waits, turn: turn.wrapping_add(1) });
                }
                Wait::set(&self.pulse.writes, false);
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
                Wait::set(&self.pulse.writes, true);
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
            Wait::set(&self.pulse.reads, result.is_pending());
        }
        if let Poll::Ready(Ok(())) = result {
            if buf.filled().len() > before {
                self.pulse.read_any.set(true);
                match self.pulse.phase() {
                    Phase::Idle => self.pulse.enter(Phase::Head),
                    Phase::Body => self.pulse.enter(Phase::Body),
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
        let bytes: usize = bufs.iter().map(|buf| buf.len()).sum();
        let result = match bufs {
            [one] => self.stream().poll_write(cx, one),
            // A head and a small body: one copy is cheaper for the kernel than a list.
            _ if bytes <= JOINED => {
                let mut joined = [0; JOINED];
                let mut end = 0;
                for buf in bufs {
                    joined[end..end + buf.len()].copy_from_slice(buf);
                    end += buf.len();
                }
                self.stream().poll_write(cx, &joined[..end])
            }
            _ => self.stream().poll_write_vectored(cx, bufs),
        };
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
