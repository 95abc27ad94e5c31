//! One core: its options, its life, and the way of a request through it.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinSet,
};

use super::{
    hooks::{Counters, Gate, Gated, Latency, Moment, Seen, Served},
    outage::{Endured, internal_error, unavailable},
    random,
    serve::{Told, accept},
    version::Version,
    wire::{head::Head, reply::Reply, request_body::RequestBody},
    world::{World, deeds::Begun},
};
use crate::words::clock::Clock;

/// How a core is set up. [`CoreOptions::new`] gives what a fresh Harbor has.
#[derive(Clone)]
pub struct CoreOptions {
    /// The version that it plays.
    pub version: Version,
    /// `TOKEN_PRIVATE_KEY_PATH`, read at each use.
    pub key_file: PathBuf,
    /// What it shares with its replicas.
    pub world: Arc<World>,
    /// `EXT_ENDPOINT`, scheme and host: where the realm points (F1).
    pub ext_endpoint: String,
    /// Host of `CORE_URL`; a request with that `Host` is told the internal realm (F1).
    pub core_url_host: Option<String>,
    /// Its wall clock.
    pub clock: Clock,
    /// `token_expiration`, 30 min.
    pub token_expiration: Duration,
    /// What its work costs beyond what it does.
    pub latency: Latency,
    /// How long it takes from its start until it listens (U8: 1 to 2 s in a real one). Zero by default.
    pub start_delay: Duration,
    /// Holds requests where a test wants it.
    pub gate: Option<Gate>,
    /// Receives each request's head.
    pub observer: Option<mpsc::UnboundedSender<Seen>>,
}

impl CoreOptions {
    /// Defaults but for what has none.
    pub fn new(
        version: Version,
        key_file: impl Into<PathBuf>,
        world: Arc<World>,
        ext_endpoint: &str,
    ) -> Self {
        Self {
            version,
            key_file: key_file.into(),
            world,
            ext_endpoint: ext_endpoint.to_owned(),
            core_url_host: None,
            clock: Clock::system(),
            token_expiration: Duration::from_mins(30),
            latency: Latency::default(),
            start_delay: Duration::ZERO,
            gate: None,
            observer: None,
        }
    }
}

/// A running core. Dropped, it ends as if killed.
#[derive(Debug)]
pub struct Core {
    address: SocketAddr,
    inner: Arc<Inner>,
    acceptor: JoinSet<()>,
    told: watch::Sender<Told>,
}

impl Core {
    /// After its start delay listens and serves on the current runtime. Port 0 takes a free one; an empty `ext_endpoint` becomes the address.
    pub async fn start(listen: SocketAddr, options: CoreOptions) -> io::Result<Self> {
        tokio::time::sleep(options.start_delay).await;
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let inner = Arc::new(Inner::new(address, options));
        let (told, tells) = watch::channel(Told::Serve);
        let mut acceptor = JoinSet::new();
        acceptor.spawn(accept(listener, Arc::clone(&inner), tells));
        Ok(Self { address, inner, acceptor, told })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it has served so far.
    pub fn served(&self) -> Served {
        self.inner.counters.snapshot()
    }

    /// Stops accepting, closes idle connections and returns when the last request in flight has ended: a balancer takes
    /// its time, core itself never does.
    pub async fn stop(self) {
        self.tell(Told::Finish).await;
    }

    /// Ends as core does on SIGTERM (U8): serves on for 10 to 100 ms, then as [`Core::kill`].
    pub async fn terminate(self) {
        let part = random::bytes(1).first().copied().unwrap_or_default();
        tokio::time::sleep(Duration::from_millis(10 + u64::from(part) * 90 / 255)).await;
        self.kill().await;
    }

    /// Ends at once, in the middle of whatever it does, as on SIGKILL: its sockets close as a dead process's do, those of
    /// clients and those to the registry. Returns when all are closed and the port is free.
    pub async fn kill(self) {
        self.tell(Told::Die).await;
    }

    async fn tell(mut self, told: Told) {
        self.told.send_replace(told);
        while self.acceptor.join_next().await.is_some() {}
    }
}

/// What a core's connections share.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) version: Version,
    pub(super) key_file: PathBuf,
    pub(super) world: Arc<World>,
    pub(super) ext_endpoint: String,
    pub(super) core_url_host: Option<String>,
    pub(super) clock: Clock,
    pub(super) token_expiration: Duration,
    pub(super) latency: Latency,
    address: SocketAddr,
    gate: Gated,
    observer: Option<mpsc::UnboundedSender<Seen>>,
    pub(super) counters: Counters,
    frozen: Mutex<HashMap<String, Instant>>,
}

impl Inner {
    fn new(address: SocketAddr, options: CoreOptions) -> Self {
        let given = options.ext_endpoint;
        Self {
            version: options.version,
            key_file: options.key_file,
            world: options.world,
            ext_endpoint: if given.is_empty() { format!("http://{address}") } else { given },
            core_url_host: options.core_url_host,
            clock: options.clock,
            token_expiration: options.token_expiration,
            latency: options.latency,
            address,
            gate: Gated(options.gate),
            observer: options.observer,
            counters: Counters::default(),
            frozen: Mutex::default(),
        }
    }

    /// Names frozen after a wrong password, in this core alone (T8).
    pub(super) fn frozen(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.frozen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer to one request, with what every answer carries; `None` where its client left before.
    pub(super) async fn answer(
        &self,
        head: &Head,
        body: &mut RequestBody<'_>,
        peer: Option<SocketAddr>,
    ) -> Option<Reply> {
        let path = head.path();
        self.counters.received(&path);
        if let Some(observer) = &self.observer {
            // A test that no longer watches is no fault.
            _ = observer.send(Seen { head: head.clone(), core: self.address });
        }
        self.gate.at(Moment::Arrived, head).await;
        let reply = match self.endure(head, &path, body).await {
            Endured::Served => self.checked(head, &path, body, peer).await,
            Endured::Unavailable => unavailable(),
            Endured::Left => return None,
        };
        self.counters.answered(&path, reply.status);
        let sent = head.header("x-request-id").filter(|id| !id.is_empty()).map(str::to_owned);
        Some(reply.with("X-Request-Id", sent.unwrap_or_else(random::uuid)))
    }

    /// What comes before the routes: CSRF, and the transaction of a write, whose failure takes all headers with it.
    async fn checked(
        &self,
        head: &Head,
        path: &str,
        body: &mut RequestBody<'_>,
        peer: Option<SocketAddr>,
    ) -> Reply {
        match self.check_csrf(head, path) {
            Err(refusal) => refusal,
            Ok(_) if self.has_no_transaction(head, path) => internal_error(),
            Ok(csrf) => {
                let reply = self.route(head, path, body, peer).await;
                self.attach_session(head, csrf.attach_passed(reply))
            }
        }
    }

    /// What a request may change, where somebody watches.
    pub(super) fn begun(&self, head: &Head) -> Option<Begun> {
        self.world.begin(head, self.address)
    }

    async fn route(
        &self,
        head: &Head,
        path: &str,
        body: &mut RequestBody<'_>,
        peer: Option<SocketAddr>,
    ) -> Reply {
        let who = self.identify(head, path).await;
        if path == "/service/token" {
            return self.token(head, &who).await;
        }
        if path == "/v2" || path.starts_with("/v2/") {
            if let Some(refusal) = self.refuse(head, path, &who) {
                return refusal;
            }
            self.gate.at(Moment::Allowed, head).await;
            return self.registry(head, path, body, peer).await;
        }
        let begun = self.begun(head);
        if path.starts_with("/api/") {
            return self.api(head, path, &who, body).await.of(begun);
        }
        self.ui(head, path, body).await.of(begun)
    }
}
