//! A way to a server that takes as long as it is told: every byte comes, and in its order.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

/// A listener in front of one address. Its threads end with the connections.
#[derive(Debug)]
pub struct SlowLink {
    /// Where it listens.
    pub address: SocketAddr,
    milliseconds: Arc<AtomicU64>,
}

impl SlowLink {
    /// Passes on to `to`, without delay until it is told of one.
    pub fn before(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = listener.local_addr().expect("its address");
        let milliseconds = Arc::new(AtomicU64::new(0));
        let delay = Arc::clone(&milliseconds);
        thread::spawn(move || {
            for downstream in listener.incoming().map_while(Result::ok) {
                let Ok(upstream) = TcpStream::connect(to) else { continue };
                let clone = |stream: &TcpStream| stream.try_clone().expect("a second handle");
                carry(clone(&downstream), clone(&upstream), Arc::clone(&delay));
                carry(upstream, downstream, Arc::clone(&delay));
            }
        });
        Self { address, milliseconds }
    }

    /// From now on, each way; also on connections that are open.
    pub fn takes(&self, each_way: Duration) {
        self.milliseconds.store(u64::try_from(each_way.as_millis()).expect("a while"), Ordering::Relaxed);
    }
}

/// One direction of one connection: what is read now is written when it is due.
fn carry(mut from: TcpStream, mut to: TcpStream, milliseconds: Arc<AtomicU64>) {
    let (send, carried) = mpsc::channel::<(Instant, Vec<u8>)>();
    thread::spawn(move || {
        for (due, bytes) in carried {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if to.write_all(&bytes).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
    });
    thread::spawn(move || {
        let mut chunk = vec![0; 64 * 1024];
        while let Ok(read @ 1..) = from.read(&mut chunk) {
            let delay = Duration::from_millis(milliseconds.load(Ordering::Relaxed));
            if send.send((Instant::now() + delay, chunk[..read].to_vec())).is_err() {
                let _ = from.shutdown(Shutdown::Read);
                break;
            }
        }
    });
}
