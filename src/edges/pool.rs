//! The upstream connections of one worker: for each endpoint the idle ones, last used first.

mod shares;

use std::{
    cell::{Cell, RefCell},
    io,
    net::IpAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::LocalBoxFuture;
use http::{Request, Response};
use http_body::Body;
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http1},
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, sync::oneshot, time::timeout};

use self::shares::{Share, Shares};
use super::{
    fleet::Endpoint,
    task::Bound,
    wire::{Patience, Phase, Pulse, Side, Stream, Watch, Wire},
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
    /// The shortest patience that an exchange has: looks at a connection come a few times in it.
    pub shortest_patience: Duration,
    /// hyper's read buffer of a connection, bytes.
    pub buffer: usize,
}

/// What is done about an answer that should be here and is not.
#[derive(Clone)]
pub struct Doubt {
    /// The silence that makes one doubt, and again after each as long.
    pub after: Duration,
    /// Finds out whether the endpoint hangs.
    pub hangs: Hangs,
}

/// Asks an endpoint whether it hangs.
pub type Hangs = Rc<dyn Fn(Arc<Endpoint>) -> LocalBoxFuture<'static, bool>>;

/// How long a request waits for a connection that its client may have, where all are in use.
const PATIENCE: Duration = Duration::from_secs(10);

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
    /// `pool.per_endpoint` are in use, or the client's part of them.
    #[error("all connections to the endpoint that the client may have are in use")]
    Full,
}

/// One worker's pool for request bodies of type `B`.
pub struct Pool<B> {
    limits: Limits,
    doubt: Option<Doubt>,
    /// As of the last sweep: near enough for what is idle.
    swept: Cell<Instant>,
    /// By endpoint: few, so that a look at each is sooner done than a hash.
    slots: RefCell<Vec<(u64, Slot<B>)>>,
}

struct Slot<B> {
    idle: Vec<Parked<B>>,
    open: Rc<Cell<usize>>,
    shares: Rc<Shares>,
}

struct Parked<B> {
    connection: Box<Connection<B>>,
    since: Instant,
}

/// A connection and what is known of it.
struct Connection<B> {
    sender: http1::SendRequest<B>,
    pulse: Rc<Pulse>,
    held: Option<Kid>,
    reused: bool,
    /// Moves its bytes and watches over them. A body that was taken back would otherwise keep the socket for as long
    /// as the endpoint likes.
    _tasks: [Bound; 2],
    _open: Counted,
}

struct Counted(Rc<Cell<usize>>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// The use of one connection for one exchange. Dropped without [`Lease::give_back`] it closes (A23).
pub struct Lease<B> {
    /// Boxed once in its life: a lease is moved often.
    connection: Box<Connection<B>>,
    endpoint: Arc<Endpoint>,
    pool: Rc<Pool<B>>,
    share: Share,
    in_line: bool,
}

impl<B: Body<Data = bytes::Bytes> + 'static> Pool<B>
where
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// An empty pool; without a `doubt` every answer may take its time.
    pub fn new(limits: Limits, doubt: Option<Doubt>) -> Rc<Self> {
        Rc::new(Self { limits, doubt, swept: Cell::new(Instant::now()), slots: RefCell::default() })
    }

    /// An idle connection to `endpoint`, or a new one, for a client by its network; `None` = for our own question.
    pub async fn lease(
        self: &Rc<Self>,
        endpoint: &Arc<Endpoint>,
        client: Option<IpAddr>,
    ) -> Result<Lease<B>, ConnectFault> {
        let shares = self.of_slot(endpoint.id, |slot| slot.shares.clone());
        if let Some(share) = shares.take(client) {
            return self.over(endpoint, share).await;
        }
        let share = shares.wait(client, PATIENCE).await.ok_or(ConnectFault::Full)?;
        let mut lease = self.over(endpoint, share).await?;
        lease.in_line = true;
        Ok(lease)
    }

    /// The same where the client need not wait for others to be done with one; else [`ConnectFault::Full`].
    pub async fn lease_at_once(
        self: &Rc<Self>,
        endpoint: &Arc<Endpoint>,
        client: Option<IpAddr>,
    ) -> Result<Lease<B>, ConnectFault> {
        let shares = self.of_slot(endpoint.id, |slot| slot.shares.clone());
        let share = shares.take(client).ok_or(ConnectFault::Full)?;
        self.over(endpoint, share).await
    }

    /// A new connection, for what must not meet a stale one.
    pub async fn fresh(
        self: &Rc<Self>,
        endpoint: &Arc<Endpoint>,
        client: Option<IpAddr>,
    ) -> Result<Lease<B>, ConnectFault> {
        let share = self.share(endpoint.id, client).await?;
        self.open_one(endpoint, share).await
    }

    async fn over(self: &Rc<Self>, endpoint: &Arc<Endpoint>, share: Share) -> Result<Lease<B>, ConnectFault> {
        while let Some(mut connection) = self.take_idle(endpoint.id) {
            if connection.sender.ready().await.is_ok() {
                connection.reused = true;
                let (endpoint, pool) = (endpoint.clone(), self.clone());
                return Ok(Lease { connection, endpoint, pool, share, in_line: false });
            }
        }
        self.open_one(endpoint, share).await
    }

    async fn open_one(
        self: &Rc<Self>,
        endpoint: &Arc<Endpoint>,
        share: Share,
    ) -> Result<Lease<B>, ConnectFault> {
        let open = self.of_slot(endpoint.id, |slot| slot.open.clone());
        // With a share there is room, but for what lies idle.
        if open.get() >= self.limits.per_endpoint && self.take_idle(endpoint.id).is_none() {
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
        let (stop, stopped) = oneshot::channel();
        let doubt = self.doubt.clone().map(|doubt| (doubt, endpoint.clone()));
        let watch = Bound::spawn(watch_over(pulse.clone(), self.limits, doubt, stop));
        // Its end shows in the exchange that it carries; a task of its own has nothing more to tell.
        let drive = Bound::spawn(async move {
            tokio::select! {
                _ = connection => {}
                _ = stopped => {}
            }
        });
        let tasks = [drive, watch];
        let connection =
            Box::new(Connection { sender, pulse, held: None, reused: false, _tasks: tasks, _open: counted });
        let (endpoint, pool) = (endpoint.clone(), self.clone());
        Ok(Lease { connection, endpoint, pool, share, in_line: false })
    }

    /// Closes what has been idle for too long or belongs to an endpoint that `lives` denies. To be called several
    /// times a second: idle times are told by its clock.
    pub fn sweep(&self, lives: impl Fn(u64) -> bool) {
        let now = Instant::now();
        self.swept.set(now);
        self.slots.borrow_mut().retain_mut(|(id, slot)| {
            let stays = lives(*id);
            slot.idle.retain(|p| stays && now.duration_since(p.since) < self.limits.idle);
            stays || slot.open.get() > 0 || Rc::strong_count(&slot.shares) > 1
        });
    }

    /// Connections to an endpoint now, idle and busy.
    pub fn open(&self, id: u64) -> usize {
        self.slots.borrow().iter().find(|(of, _)| *of == id).map_or(0, |(_, slot)| slot.open.get())
    }

    async fn share(&self, id: u64, client: Option<IpAddr>) -> Result<Share, ConnectFault> {
        let shares = self.of_slot(id, |slot| slot.shares.clone());
        shares.wait(client, PATIENCE).await.ok_or(ConnectFault::Full)
    }

    fn of_slot<T>(&self, id: u64, part: impl FnOnce(&Slot<B>) -> T) -> T {
        let mut slots = self.slots.borrow_mut();
        if let Some(slot) = slot_of(&mut slots, id) {
            return part(slot);
        }
        let shares = Shares::new(self.limits.per_endpoint);
        let slot = Slot { idle: Vec::new(), open: Rc::default(), shares };
        let part = part(&slot);
        slots.push((id, slot));
        part
    }

    fn take_idle(&self, id: u64) -> Option<Box<Connection<B>>> {
        let mut slots = self.slots.borrow_mut();
        let slot = slot_of(&mut slots, id)?;
        while let Some(parked) = slot.idle.pop() {
            let young = self.swept.get().duration_since(parked.since) < self.limits.idle;
            if young && !parked.connection.sender.is_closed() && !parked.connection.pulse.peer_gone() {
                return Some(parked.connection);
            }
        }
        None
    }
}

fn slot_of<B>(slots: &mut [(u64, Slot<B>)], id: u64) -> Option<&mut Slot<B>> {
    slots.iter_mut().find(|(of, _)| *of == id).map(|(_, slot)| slot)
}

impl<B: Body<Data = bytes::Bytes> + 'static> Lease<B> {
    /// Sends a request and waits for the head of its answer: with `patience` from the last byte that went up, where
    /// that is given. The message comes back where nothing of it was written.
    pub async fn send(
        &mut self,
        request: Request<B>,
        patience: Option<Patience>,
    ) -> Result<Response<Incoming>, TrySendError<Request<B>>> {
        self.connection.pulse.expect_answer(patience);
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

    /// Whether it was had only after a while: after waiting for the client's share, or with a new connection.
    pub fn took_time(&self) -> bool {
        self.in_line || !self.connection.reused
    }

    /// Whether the last request got no answer within its patience.
    pub fn is_overdue(&self) -> bool {
        self.connection.pulse.is_overdue()
    }

    /// Whether the last request was given up because its endpoint hangs.
    pub fn is_given_up(&self) -> bool {
        self.connection.pulse.is_given_up()
    }

    /// Whether any byte of an answer came since the last request began.
    pub fn answered(&self) -> bool {
        self.connection.pulse.answered()
    }

    /// Whom it is for, as it was asked for.
    pub fn client(&self) -> Option<IpAddr> {
        self.share.client()
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
        let Self { connection, endpoint, pool, share: _share, .. } = self;
        connection.pulse.enter(Phase::Idle);
        if let Some(slot) = slot_of(&mut pool.slots.borrow_mut(), endpoint.id) {
            slot.idle.push(Parked { connection, since: pool.swept.get() });
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

/// Stops a connection when a write has waited for core to read, or an answer that has begun for its next byte, for
/// `limits.stall`, or when an answer has not begun in time, or is not here and its endpoint hangs. In a task of its own:
/// a timer beside the connection would be looked at with each of its wake-ups.
async fn watch_over(
    pulse: Rc<Pulse>,
    limits: Limits,
    doubt: Option<(Doubt, Arc<Endpoint>)>,
    stop: oneshot::Sender<()>,
) {
    let after = doubt.as_ref().map_or(Duration::MAX, |(doubt, _)| doubt.after);
    let shortest = limits.stall.min(limits.shortest_patience).min(after);
    let pause = (shortest / 4).clamp(Duration::from_millis(20), Duration::from_secs(1));
    let mut watch = Watch::new(pulse.clone(), Instant::now());
    let mut doubts = Doubts { doubt, question: None, asked: (0, Duration::ZERO) };
    loop {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            hangs = doubts.answered() => {
                if hangs == Some(pulse.exchange()) && pulse.phase() == Phase::Busy {
                    pulse.give_up();
                    let _ = stop.send(());
                    return;
                }
            }
        }
        let now = Instant::now();
        watch.look(now);
        let stands = |waits: Option<Duration>| waits.is_some_and(|waits| waits >= limits.stall);
        let writes = stands(watch.write_waiting(now)) && !pulse.peer_gone();
        let reads = pulse.phase() == Phase::Body && stands(watch.read_waiting(now));
        if writes || reads || watch.is_overdue(now) {
            // The connection may have ended meanwhile.
            let _ = stop.send(());
            return;
        }
        if let Some(silence) = watch.silence(now) {
            doubts.ask(pulse.exchange(), silence);
        }
    }
}

/// The questions whether a connection's endpoint hangs, one after the other.
struct Doubts {
    doubt: Option<(Doubt, Arc<Endpoint>)>,
    /// The one that is asked now, and for which exchange.
    question: Option<(u32, LocalBoxFuture<'static, bool>)>,
    /// For which exchange it was asked last, and how long that had been silent.
    asked: (u32, Duration),
}

impl Doubts {
    fn ask(&mut self, exchange: u32, silence: Duration) {
        let Some((doubt, endpoint)) = self.doubt.as_ref().filter(|_| self.question.is_none()) else { return };
        let before = if self.asked.0 == exchange { self.asked.1 } else { Duration::ZERO };
        if silence >= before + doubt.after {
            self.asked = (exchange, silence);
            self.question = Some((exchange, (doubt.hangs)(endpoint.clone())));
        }
    }

    /// The exchange whose endpoint hangs, `None` where it does not; never completes while nothing is asked.
    async fn answered(&mut self) -> Option<u32> {
        let Some((exchange, question)) = &mut self.question else { return std::future::pending().await };
        let (exchange, hangs) = (*exchange, question.await);
        self.question = None;
        hangs.then_some(exchange)
    }
}
