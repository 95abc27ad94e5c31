//! The upstream connections of one worker: for each endpoint the idle ones, last used first.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    io,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{Request, Response};
use http_body::Body;
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http1},
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::AbortHandle, time::timeout};

use super::{
    fleet::Endpoint,
    wire::{Phase, Pulse, Side, Stream, Wire},
};
use crate::words::kid::Kid;

/// Bounds of a pool.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// An idle connection older than this is not used again.
    pub idle: Duration,
    /// Connections of one worker to one endpoint at most, idle and busy together.
    pub per_endpoint: usize,
    /// The longest time for TCP and TLS.
    pub connect: Duration,
    /// A body that stands still for so long ends its connection.
    pub stall: Duration,
    /// hyper's read buffer of a connection, bytes.
    pub buffer: usize,
}

/// Why no connection could be had.
#[derive(Debug, thiserror::Error)]
pub enum ConnectFault {
    /// Refused, unreachable, reset.
    #[error("no connection")]
    Io(#[source] io::Error),
    /// Not within `timeouts.connect`.
    #[error("no connection in time")]
    Slow,
    /// The TLS handshake failed.
    #[error("no TLS")]
    Tls(#[source] io::Error),
    /// HTTP could not begin.
    #[error("no HTTP")]
    Http(#[source] hyper::Error),
    /// `pool.per_endpoint` are in use.
    #[error("all connections to the endpoint are in use")]
    Full,
}

/// One worker's pool for request bodies of type `B`.
pub struct Pool<B> {
    limits: Limits,
    slots: RefCell<HashMap<u64, Slot<B>>>,
}

struct Slot<B> {
    idle: Vec<Parked<B>>,
    open: Rc<Cell<usize>>,
}

struct Parked<B> {
    connection: Connection<B>,
    since: Instant,
}

/// A connection and what is known of it.
struct Connection<B> {
    sender: http1::SendRequest<B>,
    pulse: Rc<Pulse>,
    held: Option<Kid>,
    reused: bool,
    _task: Driver,
    _open: Counted,
}

/// The task that moves a connection's bytes. It ends with the connection's last owner: a body that was taken back
/// would otherwise keep it, and the socket, for as long as the endpoint likes.
struct Driver(AbortHandle);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Counted(Rc<Cell<usize>>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// The use of one connection for one exchange. Dropped without [`Lease::give_back`] it closes (A23).
pub struct Lease<B> {
    connection: Connection<B>,
    endpoint: Arc<Endpoint>,
    pool: Rc<Pool<B>>,
}

impl<B: Body<Data = bytes::Bytes> + 'static> Pool<B>
where
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// An empty pool.
    pub fn new(limits: Limits) -> Rc<Self> {
        Rc::new(Self { limits, slots: RefCell::new(HashMap::new()) })
    }

    /// An idle connection to `endpoint`, or a new one.
    pub async fn lease(self: &Rc<Self>, endpoint: &Arc<Endpoint>) -> Result<Lease<B>, ConnectFault> {
        while let Some(mut connection) = self.take_idle(endpoint.id) {
            if connection.sender.ready().await.is_ok() {
                connection.reused = true;
                return Ok(Lease { connection, endpoint: endpoint.clone(), pool: self.clone() });
            }
        }
        self.fresh(endpoint).await
    }

    /// A new connection, for what must not meet a stale one.
    pub async fn fresh(self: &Rc<Self>, endpoint: &Arc<Endpoint>) -> Result<Lease<B>, ConnectFault> {
        let open = self.slots.borrow_mut().entry(endpoint.id).or_default().open.clone();
        if open.get() >= self.limits.per_endpoint {
            return Err(ConnectFault::Full);
        }
        open.set(open.get() + 1);
        let counted = Counted(open);
        let stream =
            timeout(self.limits.connect, connect(endpoint)).await.map_err(|_| ConnectFault::Slow)??;
        let pulse = Rc::new(Pulse::default());
        let wire = Wire::new(stream, Side::Upstream, pulse.clone());
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(self.limits.buffer)
            .handshake(TokioIo::new(wire))
            .await
            .map_err(ConnectFault::Http)?;
        let stall = self.limits.stall;
        let watched = pulse.clone();
        // Its end shows in the exchange that it carries; a task of its own has nothing more to tell.
        let task = tokio::task::spawn_local(async move {
            tokio::select! {
                _ = connection => {}
                () = stalled(&watched, stall) => {}
            }
        });
        let task = Driver(task.abort_handle());
        let connection = Connection { sender, pulse, held: None, reused: false, _task: task, _open: counted };
        Ok(Lease { connection, endpoint: endpoint.clone(), pool: self.clone() })
    }

    /// Closes what has been idle for too long or belongs to an endpoint that `lives` denies.
    pub fn sweep(&self, lives: impl Fn(u64) -> bool) {
        let now = Instant::now();
        self.slots.borrow_mut().retain(|id, slot| {
            let stays = lives(*id);
            slot.idle.retain(|p| stays && now.duration_since(p.since) < self.limits.idle);
            stays || slot.open.get() > 0
        });
    }

    /// Connections to an endpoint now, idle and busy.
    pub fn open(&self, id: u64) -> usize {
        self.slots.borrow().get(&id).map_or(0, |slot| slot.open.get())
    }

    fn take_idle(&self, id: u64) -> Option<Connection<B>> {
        let mut slots = self.slots.borrow_mut();
        let slot = slots.get_mut(&id)?;
        let now = Instant::now();
        while let Some(parked) = slot.idle.pop() {
            let young = now.duration_since(parked.since) < self.limits.idle;
            if young && !parked.connection.sender.is_closed() && !parked.connection.pulse.peer_gone() {
                return Some(parked.connection);
            }
        }
        None
    }
}

impl<B> Default for Slot<B> {
    fn default() -> Self {
        Self { idle: Vec::new(), open: Rc::default() }
    }
}

impl<B: Body<Data = bytes::Bytes> + 'static> Lease<B> {
    /// Sends a request and waits for the head of its answer. The message comes back where nothing of it was
    /// written.
    pub async fn send(
        &mut self,
        request: Request<B>,
    ) -> Result<Response<Incoming>, TrySendError<Request<B>>> {
        self.connection.pulse.expect_answer();
        self.connection.pulse.enter(Phase::Busy);
        let answer = self.connection.sender.try_send_request(request).await;
        self.connection.pulse.enter(Phase::Body);
        answer
    }

    /// Waits until the next request can be sent on this connection; `false` where it is closed.
    pub async fn ready(&mut self) -> bool {
        self.connection.sender.ready().await.is_ok()
    }

    /// Whether an exchange has gone over this connection before this lease.
    pub fn reused(&self) -> bool {
        self.connection.reused
    }

    /// Whether any byte of an answer came since the last request began.
    pub fn answered(&self) -> bool {
        self.connection.pulse.answered()
    }

    /// The endpoint at the other end.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// The key that was last accepted on this very connection: what counts on an opaque endpoint.
    pub fn held(&self) -> Option<&Kid> {
        self.connection.held.as_ref()
    }

    /// Notes or forgets that key.
    pub fn hold(&mut self, kid: Option<Kid>) {
        self.connection.held = kid;
    }

    /// The connection's wire.
    pub fn pulse(&self) -> &Rc<Pulse> {
        &self.connection.pulse
    }

    /// The exchange ended on both sides: the connection may carry another one.
    pub fn give_back(self) {
        let Self { connection, endpoint, pool } = self;
        connection.pulse.enter(Phase::Idle);
        if let Some(slot) = pool.slots.borrow_mut().get_mut(&endpoint.id) {
            slot.idle.push(Parked { connection, since: Instant::now() });
        }
    }
}

/// A connection to an endpoint, TLS included; without a time limit of its own.
pub(super) async fn connect(endpoint: &Endpoint) -> Result<Stream, ConnectFault> {
    let tcp = TcpStream::connect(endpoint.address).await.map_err(ConnectFault::Io)?;
    tcp.set_nodelay(true).map_err(ConnectFault::Io)?;
    match &endpoint.tls {
        None => Ok(Stream::Plain(tcp)),
        Some(tls) => {
            let stream = tls.client.connect(&tls.name, tcp).await.map_err(ConnectFault::Tls)?;
            Ok(Stream::TlsClient(Box::new(stream)))
        }
    }
}

/// Ends when a write has waited for core to read, or an answer that has begun for its next byte, for `stall`.
async fn stalled(pulse: &Pulse, stall: Duration) {
    let look = (stall / 4).max(Duration::from_millis(50));
    loop {
        tokio::time::sleep(look).await;
        let now = Instant::now();
        let writes = pulse.write_waiting(now).is_some_and(|waits| waits >= stall) && !pulse.peer_gone();
        let reads =
            pulse.phase().0 == Phase::Body && pulse.read_waiting(now).is_some_and(|waits| waits >= stall);
        if writes || reads {
            return;
        }
    }
}
