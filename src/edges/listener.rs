//! Addresses that clients connect to: bound once, accepted in one place, handed to the workers in turn.

use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
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
        let socket = bound(address)?;
        socket.set_nonblocking(true)?;
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

/// Whether an address can be bound now: bound, never listened on, and given back.
pub fn can_bind(address: SocketAddr) -> io::Result<()> {
    bound(address).map(drop)
}

fn bound(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Our addresses on the way out, one a family: connecting a UDP socket chooses one and sends nothing.
pub fn own_addresses() -> Vec<IpAddr> {
    // Addresses of documentation (RFC 5737, RFC 3849): nobody has them, so the default route counts.
    let outward = [("0.0.0.0:0", "192.0.2.1:9"), ("[::]:0", "[2001:db8::1]:9")];
    let address = |(any, far): (&str, &str)| {
        let socket = UdpSocket::bind(any).ok()?;
        socket.connect(far).ok()?;
        Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
    };
    outward.into_iter().filter_map(address).collect()
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind as K;
    matches!(error.kind(), K::ConnectionAborted | K::ConnectionReset | K::ConnectionRefused | K::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_listened_on_is_in_use_and_another_is_free() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = taken.local_addr().expect("an address");
        let kind = |address| can_bind(address).map_err(|error| error.kind());
        assert_eq!(kind(address), Err(io::ErrorKind::AddrInUse));
        drop(taken);
        assert_eq!(kind(address), Ok(()));
        // Addresses of documentation are nobody's (RFC 5737).
        assert_eq!(kind(SocketAddr::from(([192, 0, 2, 1], 0))), Err(io::ErrorKind::AddrNotAvailable));
    }
}
