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
    random,
    serve::accept,
    version::Version,
    wire::{head::Head, reply::Reply, request_body::RequestBody},
    world::World,
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
    stopping: watch::Sender<bool>,
}

impl Core {
    /// Listens and serves on the current runtime. Port 0 takes a free one; an empty `ext_endpoint` becomes the address.
    pub async fn start(listen: SocketAddr, options: CoreOptions) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let inner = Arc::new(Inner::new(address, options));
        let (stopping, told) = watch::channel(false);
        let mut acceptor = JoinSet::new();
        acceptor.spawn(accept(listener, Arc::clone(&inner), told));
        Ok(Self { address, inner, acceptor, stopping })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it has served so far.
    pub fn served(&self) -> Served {
        self.inner.counters.snapshot()
    }

    /// Stops accepting, closes idle connections and returns when the last request in flight has ended.
    pub async fn stop(mut self) {
        self.stopping.send_replace(true);
        while self.acceptor.join_next().await.is_some() {}
    }

    /// Ends at once, in the middle of whatever it does (U8); returns when the port is free.
    pub async fn kill(mut self) {
        self.acceptor.shutdown().await;
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

    /// The answer to one request, with what every answer carries.
    pub(super) async fn answer(
        &self,
        head: &Head,
        body: &mut RequestBody<'_>,
        peer: Option<SocketAddr>,
    ) -> Reply {
        let path = head.path();
        self.counters.received(&path);
        if let Some(observer) = &self.observer {
            // A test that no longer watches is no fault.
            _ = observer.send(Seen { head: head.clone(), core: self.address });
        }
        self.gate.at(Moment::Arrived, head).await;
        let reply = match self.check_csrf(head, &path) {
            Err(refusal) => refusal,
            Ok(csrf) => {
                let reply = self.route(head, &path, body, peer).await;
                self.attach_session(head, csrf.attach_passed(reply))
            }
        };
        self.counters.answered(&path, reply.status);
        let sent = head.header("x-request-id").filter(|id| !id.is_empty()).map(str::to_owned);
        reply.with("X-Request-Id", sent.unwrap_or_else(random::uuid))
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
        if path.starts_with("/api/") {
            return self.api(head, path, &who, body).await;
        }
        self.ui(head, path, body).await
    }
}
