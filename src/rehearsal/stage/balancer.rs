//! The front of the direct lane: a balancer that gives each request to the next replica, on a connection of its own, and
//! knows nothing of keys.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, combinators::BoxBody};
use hyper::{
    body::Incoming, client::conn::http1 as client, server::conn::http1 as server, service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// Between two looks whether a replica's last request has ended.
const LOOK: Duration = Duration::from_millis(10);

/// A running balancer. Dropped, it ends.
#[derive(Debug)]
pub struct Balancer {
    address: SocketAddr,
    turns: Arc<Turns>,
    _acceptor: JoinSet<()>,
}

/// Whose turn it is.
#[derive(Debug, Default)]
struct Turns {
    replicas: ArcSwap<Vec<Replica>>,
    taken: AtomicUsize,
}

/// One replica; each request that runs there holds a clone.
#[derive(Clone, Debug)]
struct Replica(Arc<SocketAddr>);

type Outgoing = BoxBody<Bytes, hyper::Error>;

impl Balancer {
    /// Listens on a free port, without a replica yet.
    pub async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let turns = Arc::new(Turns::default());
        let mut acceptor = JoinSet::new();
        acceptor.spawn(accept(listener, Arc::clone(&turns)));
        Ok(Self { address, turns, _acceptor: acceptor })
    }

    /// Where clients come in.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves these from now on; returns when the last request has ended at those that left.
    pub async fn serve(&self, addresses: &[SocketAddr]) {
        let before = self.turns.replicas.load_full();
        let find = |address: &SocketAddr| before.iter().find(|replica| *replica.0 == *address).cloned();
        let replicas: Vec<Replica> = addresses
            .iter()
            .map(|address| find(address).unwrap_or_else(|| Replica(Arc::new(*address))))
            .collect();
        let left: Vec<Replica> =
            before.iter().filter(|replica| !addresses.contains(&replica.0)).cloned().collect();
        self.turns.replicas.store(Arc::new(replicas));
        drop(before);
        while left.iter().any(Replica::is_busy) {
            tokio::time::sleep(LOOK).await;
        }
    }
}

impl Replica {
    /// Whether anybody but the caller holds it.
    fn is_busy(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }
}

impl Turns {
    fn next(&self) -> Option<Replica> {
        let replicas = self.replicas.load_full();
        let turn = self.taken.fetch_add(1, Ordering::Relaxed);
        replicas.get(turn.checked_rem(replicas.len())?).cloned()
    }
}

async fn accept(listener: TcpListener, turns: Arc<Turns>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                connections.spawn(serve(stream, Arc::clone(&turns)));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(stream: TcpStream, turns: Arc<Turns>) {
    // Without it small answers wait for the client's delayed acknowledgement.
    _ = stream.set_nodelay(true);
    let service = service_fn(|request| {
        let turn = turns.next();
        async move { Ok::<_, Infallible>(answer(turn, request).await) }
    });
    // A client that leaves is no fault of the balancer's.
    _ = server::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(replica: Option<Replica>, request: Request<Incoming>) -> Response<Outgoing> {
    let Some(replica) = replica else { return own(StatusCode::SERVICE_UNAVAILABLE) };
    forward(replica, request).await.unwrap_or_else(|_| own(StatusCode::BAD_GATEWAY))
}

async fn forward(replica: Replica, mut request: Request<Incoming>) -> io::Result<Response<Outgoing>> {
    let stream = TcpStream::connect(*replica.0).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = client::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let mut driver = JoinSet::new();
    driver.spawn(async move { drop(connection.await) });
    request.headers_mut().remove(header::CONNECTION);
    let response = sender.send_request(request).await.map_err(io::Error::other)?;
    let (mut parts, body) = response.into_parts();
    parts.headers.remove(header::CONNECTION);
    // The answer's body keeps connection and replica until it has ended.
    let kept = (driver, sender, replica);
    let body = body.map_frame(move |frame| {
        let _ = &kept;
        frame
    });
    Ok(Response::from_parts(parts, body.boxed()))
}

fn own(status: StatusCode) -> Response<Outgoing> {
    let body = Full::new(Bytes::from_static(b"no replica\n")).map_err(|never| match never {});
    let mut response = Response::new(body.boxed());
    *response.status_mut() = status;
    response
}
