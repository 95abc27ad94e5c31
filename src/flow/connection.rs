//! One connection from a client, from its first byte to its last, under one timer.

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use hyper::{
    rt::Executor,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use ipnet::IpNet;
use tokio::{
    net::TcpStream,
    sync::{oneshot, watch},
    time::timeout,
};

use super::{
    context::{self, Downstream, Waits, Worker},
    service,
};
use crate::{
    edges::{
        listener::Place,
        proxy_protocol,
        task::Bound,
        tls::{self, ServerTls},
        wire::{Phase, Pulse, Side, Stream, Watch, Wire},
    },
    words::reason::Reason,
};

/// What a listener gives each of its connections.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own, none a state")]
pub struct Door {
    /// Whether Harbor's components may speak here (A26).
    pub cluster: bool,
    /// Whether its clients must show a certificate.
    pub certified: bool,
    /// HTTP/2 by prior knowledge; with TLS, ALPN decides.
    pub http2: bool,
    /// A PROXY header must come first.
    pub proxy_protocol: bool,
    /// Whose forwarding headers count, and who may send a PROXY header.
    pub trusted_proxies: Arc<[IpNet]>,
    /// TLS; `None` = plain.
    pub tls: Option<Arc<ServerTls>>,
}

/// Bounds of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// For PROXY header and TLS.
    pub handshake: Duration,
    /// From a request's first byte to its head's end.
    pub head: Duration,
    /// Between requests.
    pub idle: Duration,
    /// A body that stands still, in either direction.
    pub stall: Duration,
    /// Bytes of a head at most; with HTTP/2 of its headers.
    pub head_bytes: usize,
    /// hyper's read buffer, bytes.
    pub buffer: usize,
    /// Streams of an HTTP/2 connection.
    pub http2_streams: u32,
}

/// Serves a connection until it ends, idles for too long, or `drain` is true and its requests have ended.
pub async fn serve(
    worker: Rc<Worker>,
    door: Arc<Door>,
    bounds: Bounds,
    accepted: (TcpStream, SocketAddr, Place),
    drain: watch::Receiver<bool>,
) {
    let (stream, address, _place) = accepted;
    let _ = stream.set_nodelay(true);
    worker.counters.connections.fetch_add(1, Relaxed);
    let opened = timeout(bounds.handshake, open(&door, stream, address, bounds.handshake)).await;
    match opened {
        Ok(Some((stream, peer, http2))) => talk(&worker, &door, bounds, (stream, peer, http2), drain).await,
        Ok(None) => {}
        Err(_) => tracing::debug!(%address, "a client did not finish its handshake in time"),
    }
    worker.counters.connections.fetch_sub(1, Relaxed);
}

async fn open(
    door: &Door,
    mut stream: TcpStream,
    address: SocketAddr,
    within: Duration,
) -> Option<(Stream, SocketAddr, bool)> {
    let mut peer = address;
    if door.proxy_protocol {
        match proxy_protocol::read_header(&mut stream, address, &door.trusted_proxies, within).await {
            Ok(told) => peer = told.unwrap_or(address),
            Err(fault) => {
                tracing::info!(%address, cause = %fault, "a connection was closed: its PROXY header is missing, wrong or a stranger's");
                return None;
            }
        }
    }
    let Some(tls) = &door.tls else { return Some((Stream::Plain(stream), peer, door.http2)) };
    match tls.accept(stream).await {
        Ok(stream) => {
            let http2 = tls::is_http2(&stream);
            Some((Stream::TlsServer(Box::new(stream)), peer, http2))
        }
        Err(error) => {
            tracing::debug!(%address, %error, "a TLS handshake failed");
            None
        }
    }
}

async fn talk(
    worker: &Rc<Worker>,
    door: &Arc<Door>,
    bounds: Bounds,
    (stream, peer, http2): (Stream, SocketAddr, bool),
    drain: watch::Receiver<bool>,
) {
    let pulse = Rc::new(Pulse::default());
    let tls = matches!(stream, Stream::TlsServer(_));
    let wire = TokioIo::new(Wire::new(stream, Side::Downstream, pulse.clone()));
    let client = peer.ip().to_canonical();
    let downstream = Rc::new(Downstream {
        peer: client,
        peer_text: service::address_text(client),
        proxied: context::trusts(&door.trusted_proxies, client),
        trusted_proxies: door.trusted_proxies.clone(),
        tls,
        cluster: door.cluster,
        certified: door.certified,
        pulse: pulse.clone(),
        in_flight: Cell::new(0),
        http2,
        // HTTP/2 has a setting of its own for it, and a buffer no larger than a head lets no longer one in.
        longest_head: (!http2 && bounds.buffer > bounds.head_bytes).then_some(bounds.head_bytes),
        streams: RefCell::default(),
        opening: RefCell::default(),
        last: RefCell::new(None),
    });
    let (owner, served) = (worker.clone(), downstream.clone());
    // Boxed, so that an idle connection does not pay for the size of a request being served.
    let service = service_fn(move |request| Box::pin(service::serve(owner.clone(), served.clone(), request)));
    let ((leave, mut leaving), (stop, mut stopped)) = (oneshot::channel(), oneshot::channel());
    let streams = Local(downstream.clone());
    let _watch = Bound::spawn(watch_over((downstream, peer), bounds, drain, leave, stop));
    let result = if http2 {
        let connection = http2::Builder::new(streams)
            .max_concurrent_streams(bounds.http2_streams)
            .initial_stream_window_size(256 * 1024)
            .initial_connection_window_size(1024 * 1024)
            .max_send_buf_size(64 * 1024)
            .max_header_list_size(bounds.head_bytes as u32)
            .serve_connection(wire, service);
        tokio::pin!(connection);
        tokio::select! {
            result = connection.as_mut() => result,
            Ok(why) = &mut stopped => return tell_end(why, peer),
            Ok(()) = &mut leaving => {
                connection.as_mut().graceful_shutdown();
                tokio::select! { result = connection => result, Ok(why) = stopped => return tell_end(why, peer) }
            }
        }
    } else {
        let connection = http1::Builder::new()
            .max_buf_size(bounds.buffer.max(bounds.head_bytes))
            .serve_connection(wire, service);
        tokio::pin!(connection);
        tokio::select! {
            result = connection.as_mut() => result,
            Ok(why) = &mut stopped => return tell_end(why, peer),
            Ok(()) = &mut leaving => {
                connection.as_mut().graceful_shutdown();
                tokio::select! { result = connection => result, Ok(why) = stopped => return tell_end(why, peer) }
            }
        }
    };
    if let Err(error) = result
        && (error.is_parse() || error.is_parse_too_large())
    {
        worker.counters.refused(Reason::Unreadable);
        tracing::info!(client = %peer, cause = %error, "a request could not be read and was refused");
    }
}

/// Why a connection was ended by its timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    Idle,
    SlowHead,
    BodyStands,
    ReaderStands,
    StreamsStand,
}

fn tell_end(why: Why, peer: SocketAddr) {
    match why {
        Why::Idle => {}
        Why::SlowHead => {
            tracing::info!(client = %peer, "a connection was closed: a request's head did not arrive in time");
        }
        Why::BodyStands => {
            tracing::info!(client = %peer, "a connection was closed: a request's body stood still");
        }
        Why::StreamsStand => {
            tracing::info!(client = %peer, "a connection was closed: its client neither sends nor takes what its HTTP/2 streams wait for");
        }
        Why::ReaderStands => {
            tracing::info!(client = %peer, "a connection was closed: its client stopped reading");
        }
    }
}

/// Says when to leave and when to stop. In a task of its own: beside the connection, timer and drain would be looked
/// at with each of its wake-ups.
async fn watch_over(
    (downstream, peer): (Rc<Downstream>, SocketAddr),
    bounds: Bounds,
    mut drain: watch::Receiver<bool>,
    leave: oneshot::Sender<()>,
    stop: oneshot::Sender<Why>,
) {
    let timer = timer(&downstream, peer, &bounds);
    tokio::pin!(timer);
    let why = tokio::select! {
        why = &mut timer => why,
        _ = drain.wait_for(|drain| *drain) => {
            // The connection may have ended meanwhile; here and below.
            let _ = leave.send(());
            timer.await
        }
    };
    let _ = stop.send(why);
}

/// The connection's one timer: looks now and then at what the wire has noted, so that nothing is armed for
/// each request.
async fn timer(downstream: &Downstream, peer: SocketAddr, bounds: &Bounds) -> Why {
    let http2 = downstream.http2;
    let mut watch = Watch::new(downstream.pulse.clone(), Instant::now());
    let shortest = bounds.head.min(bounds.idle).min(bounds.stall);
    let pause = (shortest / 4).clamp(Duration::from_millis(20), Duration::from_secs(5));
    loop {
        tokio::time::sleep(pause).await;
        let now = Instant::now();
        watch.look(now);
        let (phase, waited) = watch.phase(now);
        let (streams, standing) = downstream.standing(now, bounds.stall);
        if standing > 0 {
            // The last look at the wire may have come late.
            if standing == streams && waited + 2 * pause >= bounds.stall {
                return Why::StreamsStand;
            }
            tracing::info!(client = %peer, streams = standing, "HTTP/2 streams were ended: their client neither sends nor takes what they wait for");
            downstream.end_standing(now, bounds.stall);
        }
        if let Some(why) = overdue(phase, waited, watch.write_waiting(now), bounds, http2) {
            return why;
        }
    }
}

fn overdue(
    phase: Phase,
    waited: Duration,
    write_waits: Option<Duration>,
    bounds: &Bounds,
    http2: bool,
) -> Option<Why> {
    if write_waits.is_some_and(|waits| waits >= bounds.stall) {
        return Some(Why::ReaderStands);
    }
    match phase {
        Phase::Idle => (waited >= bounds.idle).then_some(Why::Idle),
        // With HTTP/2 bytes between requests may be anything; a head that never ends is idleness too.
        Phase::Head if http2 => (waited >= bounds.idle).then_some(Why::Idle),
        Phase::Head => (waited >= bounds.head).then_some(Why::SlowHead),
        Phase::Body => (waited >= bounds.stall).then_some(Why::BodyStands),
        Phase::Busy => None,
    }
}

/// Runs HTTP/2's streams on the worker that has the connection.
#[derive(Clone)]
struct Local(Rc<Downstream>);

impl<F: Future + 'static> Executor<F> for Local {
    fn execute(&self, stream: F) {
        let (downstream, waits) = (self.0.clone(), Rc::<Waits>::default());
        // A stream's end is its answer's end; nobody else waits for it. Where it is ended before, h2 resets it.
        drop(tokio::task::spawn_local(async move {
            // Its request begins in its first poll, which follows.
            downstream.opening.replace(Some(waits.clone()));
            tokio::select! {
                biased;
                () = waits.ended() => {}
                _ = stream => {}
            }
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_being_served_stays_small() {
        fn size<A, B, C, F: Future>(_: fn(A, B, C) -> F) -> usize {
            size_of::<F>()
        }
        // Each open HTTP/1 connection keeps room for one while it serves, and moving it in costs as much.
        assert!(size(service::serve) <= 9 * 1024, "{}", size(service::serve));
    }

    #[test]
    fn only_what_stands_still_is_overdue() {
        let s = Duration::from_secs;
        let bounds = Bounds {
            handshake: s(10),
            head: s(10),
            idle: s(75),
            stall: s(60),
            head_bytes: 32 * 1024,
            buffer: 64 * 1024,
            http2_streams: 128,
        };
        let table = [
            (Phase::Idle, 74, None, false, None),
            (Phase::Idle, 75, None, false, Some(Why::Idle)),
            (Phase::Head, 10, None, false, Some(Why::SlowHead)),
            (Phase::Head, 10, None, true, None),
            (Phase::Body, 59, None, false, None),
            (Phase::Body, 60, None, false, Some(Why::BodyStands)),
            (Phase::Busy, 9_000, None, false, None),
            (Phase::Busy, 9_000, Some(60), false, Some(Why::ReaderStands)),
        ];
        for (phase, waited, write, http2, want) in table {
            assert_eq!(overdue(phase, s(waited), write.map(s), &bounds, http2), want, "{phase:?} {waited}");
        }
    }
}
