//! Free ports on loopback.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    process,
    sync::atomic::{AtomicU16, Ordering},
};

/// Below the range from which the kernel takes the local ports of connections: a port found free stays free
/// until its program listens.
const FIRST: u16 = 12_000;
const COUNT: u16 = 16_000;

/// An address of 127.0.0.1 on which nobody listens, handed out once in this process.
pub fn free() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Processes that run side by side begin at different places.
    let start = (process::id() as u16).wrapping_mul(97);
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, FIRST + start.wrapping_add(step) % COUNT));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no free port on loopback from {FIRST} to {}", FIRST + COUNT);
}
