//! What tests and the rehearsal see of a core, and where they can hold a request.

use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::wire::head::Head;

/// A point in a request's life at which a [`Gate`] is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The head was read; nothing was verified yet.
    Arrived,
    /// Credential and access were judged good; no byte of a body was read yet.
    Allowed,
}

/// Asked at each [`Moment`] of each request; a future that it gives is awaited before the core goes on.
pub type Gate =
    Arc<dyn Fn(Moment, &Head) -> Option<Pin<Box<dyn Future<Output = ()> + Send>>> + Send + Sync + 'static>;

/// A request that a core received, for tests that watch.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its head as it came.
    pub head: Head,
    /// The core that received it.
    pub core: std::net::SocketAddr,
}

/// What core's work costs here beyond what it really does (parsing and using RSA keys at each use). Zero by default.
#[derive(Clone, Copy, Debug, Default)]
pub struct Latency {
    /// Added to each token that is issued (real core: 15 to 25 ms in all).
    pub token: Duration,
    /// Added to each Bearer on `/v2/` (6 ms in all).
    pub bearer: Duration,
    /// Added to each password that is checked (7 to 8 ms in all; with PBKDF2 of 2.8 and later some 100 ms).
    pub password: Duration,
}

impl Latency {
    pub(super) async fn token(&self) {
        pause(self.token).await;
    }

    pub(super) async fn bearer(&self) {
        pause(self.bearer).await;
    }

    pub(super) async fn password(&self) {
        pause(self.password).await;
    }
}

async fn pause(duration: Duration) {
    if !duration.is_zero() {
        tokio::time::sleep(duration).await;
    }
}

/// How many requests of each kind a core has received and refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// Connections accepted.
    pub connections: u64,
    /// Requests of all kinds.
    pub requests: u64,
    /// Requests to `/service/token`.
    pub tokens: u64,
    /// Requests below `/v2/`.
    pub registry: u64,
    /// Answers 401 below `/v2/`.
    pub registry_refusals: u64,
    /// Requests below `/api/`.
    pub api: u64,
    /// Requests below `/c/`.
    pub ui: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) connections: AtomicU64,
    requests: AtomicU64,
    tokens: AtomicU64,
    registry: AtomicU64,
    registry_refusals: AtomicU64,
    api: AtomicU64,
    ui: AtomicU64,
}

impl Counters {
    pub(super) fn received(&self, path: &str) {
        add(&self.requests);
        match path {
            "/service/token" => add(&self.tokens),
            path if path.starts_with("/v2") => add(&self.registry),
            path if path.starts_with("/api/") => add(&self.api),
            path if path.starts_with("/c/") => add(&self.ui),
            _ => {}
        }
    }

    pub(super) fn answered(&self, path: &str, status: u16) {
        if status == 401 && path.starts_with("/v2") {
            add(&self.registry_refusals);
        }
    }

    pub(super) fn snapshot(&self) -> Served {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Served {
            connections: read(&self.connections),
            requests: read(&self.requests),
            tokens: read(&self.tokens),
            registry: read(&self.registry),
            registry_refusals: read(&self.registry_refusals),
            api: read(&self.api),
            ui: read(&self.ui),
        }
    }
}

pub(super) fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// A gate that can stand in a `Debug` struct.
#[derive(Clone, Default)]
pub(super) struct Gated(pub(super) Option<Gate>);

impl Gated {
    pub(super) async fn at(&self, moment: Moment, head: &Head) {
        let pending = self.0.as_ref().and_then(|gate| gate(moment, head));
        if let Some(pending) = pending {
            pending.await;
        }
    }
}

impl fmt::Debug for Gated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "gated" } else { "open" })
    }
}
