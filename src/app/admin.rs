//! The listener for operators: health, metrics, status, keys, windows, revocations.
//!
//! Rule A28: its `Host` must be one of ours and a foreign `Origin` is refused; only `/healthz`, `/readyz`, `/metrics` and
//! the JWKS are open. All else asks for the token, on loopback too: core makes requests to URLs that users set.
//! Who may open the Unix socket of mode 0600 needs none.

mod answer;
mod body;
pub mod client;
mod guard;
mod keys;
mod listen;
mod orders;
mod ramp;

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{Semaphore, watch},
    task::JoinSet,
};
use tower::{ServiceBuilder, limit::GlobalConcurrencyLimitLayer, service_fn};
use tower_http::{catch_panic::CatchPanicLayer, timeout::TimeoutLayer};

use self::guard::Guard;
pub use self::{
    keys::{Added, AddedKey, Archivable, Published, Restore, Restored, RestoredWindow},
    listen::{Bound, can_bind},
    orders::{Done, OpenWindow, Revoke},
};
use super::{
    config,
    ramp::Steer,
    status::{Evidence, Readiness, Status, WindowReport},
};
use crate::{
    decisions::{
        archive::ContentFault,
        key::Key,
        ring::{AddFault, RetireFault},
    },
    flow::replicas::{Ordered, Unsettled},
    words::clock::UnixTime,
};

/// A key was not retired; who uses it, where that is why.
#[derive(Debug)]
pub struct NotRetired {
    pub fault: RetireFault,
    pub evidence: Option<Evidence>,
}

/// What the listener asks of the process.
pub trait Operator: Send + Sync + 'static {
    fn readiness(&self) -> Readiness;

    /// All metrics in the text format of `OpenMetrics`.
    fn metrics(&self) -> String;

    fn status(&self) -> Status;

    /// The public halves of the keys that verify, as others may read them.
    fn published(&self) -> Published;

    /// What an archive of keys is made of here.
    fn archivable(&self) -> Archivable;

    /// Takes what an archive holds beside its files, but for a dry run; and what of it all replicas must know.
    fn restore(&self, archived: Restore) -> Result<(Restored, Vec<Ordered>), ContentFault>;

    /// Steers the move to the next side; `false` where there is none.
    fn steer(&self, how: Steer) -> bool;

    /// Retires the key of this name, or whose id alone begins so: its tokens are refused from the next request on. One
    /// whose tokens may live is retired only `at_once`.
    fn retire(&self, kid: &str, at_once: bool) -> Result<Ordered, NotRetired>;

    /// Upgrade windows, and the keys that verify.
    fn window(&self) -> WindowReport;

    /// Opens the upgrade window for so long from now on.
    fn open_window(&self, length: Duration) -> Ordered;

    /// Closes it; `None` where none is open by command.
    fn close_window(&self) -> Option<Ordered>;

    /// Ends a token, or all that a user was given before; `None` where it names neither.
    fn revoke(&self, what: &Revoke) -> Option<Ordered>;

    /// Waits until the store and every live replica have taken these orders (A20).
    fn settled(&self, ordered: &[Ordered]) -> impl Future<Output = Result<(), Unsettled>> + Send;

    /// Takes keys that core signed with until then (`None` = now) into the ring.
    fn add(&self, keys: Vec<Key>, signed_until: Option<UnixTime>) -> Result<(), AddFault>;
}

/// Connections at a time; the next one waits for a place.
const CONNECTIONS: usize = 64;
/// Requests at a time over all of them.
const REQUESTS: usize = 16;
/// Of a request, and of a head.
const PATIENCE: Duration = Duration::from_secs(10);
/// A head that is longer is refused.
const LONGEST_HEAD: usize = 16 * 1024;

/// Where a connection came in.
#[derive(Clone, Copy, Debug)]
enum Peer {
    /// Our own address of the connection, which is one of our names.
    Tcp(SocketAddr),
    Unix,
}

/// Serves until `stop` ends; requests that run then may end within [`PATIENCE`].
pub async fn serve<O: Operator>(
    bound: Bound,
    settings: &config::Admin,
    operator: Arc<O>,
    stop: impl Future<Output = ()>,
) {
    let guard = Arc::new(Guard::new(settings));
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let requests = GlobalConcurrencyLimitLayer::new(REQUESTS);
    let (going_on, stopping) = watch::channel(());
    let mut connections = JoinSet::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        while connections.try_join_next().is_some() {}
        let accepted = async {
            // The semaphore is never closed, so a place is only ever waited for.
            let place = Arc::clone(&places).acquire_owned().await.ok();
            (place, bound.accept().await)
        };
        let (place, (stream, peer)) = tokio::select! {
            () = &mut stop => break,
            accepted = accepted => accepted,
        };
        let (guard, operator, requests) = (Arc::clone(&guard), Arc::clone(&operator), requests.clone());
        let served = connection(stream, peer, guard, operator, requests, stopping.clone());
        connections.spawn(async move {
            served.await;
            drop(place);
        });
    }
    drop(going_on);
    drop(bound);
    let all_ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(PATIENCE, all_ended).await.is_err() {
        tracing::warn!("connections of the admin listener were cut: they didn't end in time");
    }
}

async fn connection<O: Operator>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: Peer,
    guard: Arc<Guard>,
    operator: Arc<O>,
    requests: GlobalConcurrencyLimitLayer,
    mut stopping: watch::Receiver<()>,
) {
    // Top is outermost. Who reads a request's body limits it by its path.
    let service = ServiceBuilder::new()
        .layer(CatchPanicLayer::new()) // a fault in one answer must not end the listener
        .layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, PATIENCE)) // the wait below included
        .layer(requests) // scrapes are cheap, but not free
        .service(service_fn(move |request| {
            let (guard, operator) = (Arc::clone(&guard), Arc::clone(&operator));
            async move { Ok::<_, Infallible>(handle(request, peer, &guard, &*operator).await) }
        }));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(LONGEST_HEAD)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    let mut served = std::pin::pin!(served);
    let served = tokio::select! {
        ended = served.as_mut() => ended,
        // The sender sends nothing: it is dropped when we stop.
        _ = stopping.changed() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "a connection of the admin listener ended early");
    }
}

async fn handle<O: Operator>(
    request: Request<Incoming>,
    peer: Peer,
    guard: &Guard,
    operator: &O,
) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    if let Err(refusal) = guard.names_us(&head, peer) {
        return answer::refusal(refusal);
    }
    let path = head.uri.path();
    let is_open = matches!(path, "/healthz" | "/readyz" | "/metrics" | keys::JWKS);
    if !is_open && let Err(refusal) = guard.may_operate(&head, peer).await {
        tracing::warn!(method = %head.method, reason = %refusal, "the admin listener refused a request");
        return answer::refusal(refusal);
    }
    let reads = head.method == Method::GET || head.method == Method::HEAD;
    match path {
        "/healthz" | "/readyz" | "/metrics" | "/v1/status" if !reads => answer::method("GET, HEAD"),
        "/healthz" => answer::text(StatusCode::OK, "ok\n".to_owned()),
        "/readyz" => answer::readiness(&operator.readiness()),
        "/metrics" => answer::metrics(operator.metrics()),
        "/v1/status" => answer::json(StatusCode::OK, &operator.status()),
        path => {
            let answer = match path {
                "/v1/window" | "/v1/window/close" | "/v1/revoke" => {
                    orders::handle(&head, body, operator).await
                }
                "/v1/ramp" => ramp::handle(&head, body, operator).await,
                _ => keys::handle(&head, body, operator).await,
            };
            answer.unwrap_or_else(|| answer::error(StatusCode::NOT_FOUND, "no such path"))
        }
    }
}

#[cfg(test)]
mod tests;
