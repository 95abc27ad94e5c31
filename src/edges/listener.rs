//! Addresses that clients connect to: bound once, accepted in one place, handed to the workers in turn.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::{net::TcpListener, sync::watch};

/// Connections that the kernel keeps for us while we are busy.
const BACKLOG: i32 = 4096;
/// After the process has run out of files: until one is closed there is nothing to do.
const OUT_OF_FILES: Duration = Duration::from_millis(50);

/// A bound address.
pub struct Listener {
    inner: TcpListener,
}

/// How many connections from clients are open, of how many.
pub struct Places {
    open: AtomicUsize,
    most: usize,
    refused: AtomicUsize,
}

/// One connection's place; given back when dropped.
pub struct Place(Arc<Places>);

impl Places {
    /// Room for `most` connections.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { open: AtomicUsize::new(0), most, refused: AtomicUsize::new(0) })
    }

    /// A place, where one is free.
    pub fn take(self: &Arc<Self>) -> Option<Place> {
        let taken = self.open.fetch_update(Relaxed, Relaxed, |open| (open < self.most).then_some(open + 1));
        if taken.is_err() {
            self.refused.fetch_add(1, Relaxed);
        }
        taken.ok().map(|_| Place(self.clone()))
    }

    /// Open connections.
    pub fn open(&self) -> usize {
        self.open.load(Relaxed)
    }

    /// Connections closed at once because no place was free.
    pub fn refused(&self) -> usize {
        self.refused.load(Relaxed)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

impl Listener {
    /// Binds an address; `[::]` takes IPv4 too.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        if address.is_ipv6() {
            socket.set_only_v6(!address.ip().is_unspecified())?;
        }
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(Self { inner: TcpListener::from_std(socket.into())? })
    }

    /// The address that was bound.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    /// Accepts until `stop` is true, and gives each connection to `hand`.
    pub async fn accept(
        self,
        places: Arc<Places>,
        mut stop: watch::Receiver<bool>,
        mut hand: impl FnMut(std::net::TcpStream, SocketAddr, Place),
    ) {
        loop {
            let accepted = tokio::select! {
                accepted = self.inner.accept() => accepted,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            match accepted {
                Ok((stream, peer)) => {
                    if let (Some(place), Ok(stream)) = (places.take(), stream.into_std()) {
                        hand(stream, peer, place);
                    }
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "no connection could be accepted; trying again");
                    tokio::time::sleep(OUT_OF_FILES).await;
                }
            }
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind as K;
    matches!(error.kind(), K::ConnectionAborted | K::ConnectionReset | K::ConnectionRefused | K::Interrupted)
}
