//! A wire with a trigger: passes bytes on as they come, and does something once, at a chosen moment of a request.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

/// When the trigger fires: before any byte of that moment is passed on.
#[derive(Clone, Copy, Debug)]
pub enum Moment {
    /// At the head of the first request with that method.
    Head(&'static str),
    /// When so many bytes of the first request with that method were passed on.
    Inside(&'static str, u64),
}

/// A listener in front of one address.
#[derive(Debug)]
pub struct Tap {
    /// Where it listens.
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
    passed: Arc<AtomicU64>,
}

struct State {
    moment: Moment,
    act: Option<Box<dyn FnOnce() + Send>>,
    heads: Vec<String>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("moment", &self.moment)
            .field("heads", &self.heads)
            .finish_non_exhaustive()
    }
}

impl Tap {
    /// Passes on to `to` and only counts.
    pub fn counting(to: SocketAddr) -> Self {
        Self::start(to, Moment::Inside("GET", u64::MAX), || {})
    }

    /// Passes on to `to`, and calls `act` at `moment`. Its threads end with the connections.
    pub fn start(to: SocketAddr, moment: Moment, act: impl FnOnce() + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = listener.local_addr().expect("its address");
        let state = Arc::new(Mutex::new(State { moment, act: Some(Box::new(act)), heads: Vec::new() }));
        let passed = Arc::new(AtomicU64::new(0));
        let (shared, counted) = (Arc::clone(&state), Arc::clone(&passed));
        thread::spawn(move || {
            for downstream in listener.incoming().map_while(Result::ok) {
                let Ok(upstream) = TcpStream::connect(to) else { continue };
                pass(&downstream, &upstream, &shared, &counted);
            }
        });
        Self { address, state, passed }
    }

    /// Bytes that were passed on so far, both ways.
    pub fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }

    /// Whether the moment came.
    pub fn fired(&self) -> bool {
        lock(&self.state).act.is_none()
    }

    /// The heads of requests that passed, without bodies.
    pub fn heads(&self) -> Vec<String> {
        lock(&self.state).heads.clone()
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Both directions of one connection, each on a thread.
fn pass(downstream: &TcpStream, upstream: &TcpStream, state: &Arc<Mutex<State>>, passed: &Arc<AtomicU64>) {
    let clone = |stream: &TcpStream| stream.try_clone().expect("a second handle");
    let (mut from, mut to) = (clone(downstream), clone(upstream));
    let (state, counted) = (Arc::clone(state), Arc::clone(passed));
    thread::spawn(move || {
        let mut request = Request::default();
        copy(&mut from, &mut to, &counted, |bytes| request.watch(bytes, &state));
    });
    let (mut from, mut to) = (clone(upstream), clone(downstream));
    let counted = Arc::clone(passed);
    thread::spawn(move || copy(&mut from, &mut to, &counted, |_| {}));
}

/// Copies until the end, which it passes on as a half-close; a failed write ends the reading side too.
fn copy(from: &mut TcpStream, to: &mut TcpStream, passed: &AtomicU64, mut watch: impl FnMut(&[u8])) {
    let mut chunk = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut chunk) {
        watch(&chunk[..read]);
        if to.write_all(&chunk[..read]).is_err() {
            let _ = from.shutdown(Shutdown::Read);
            break;
        }
        passed.fetch_add(read as u64, Ordering::Relaxed);
    }
    let _ = to.shutdown(Shutdown::Write);
}

/// The request that is passing. Clients here wait for an answer before they ask again, so a head always begins
/// what was read.
#[derive(Default)]
struct Request {
    method: String,
    passed: u64,
}

impl Request {
    fn watch(&mut self, bytes: &[u8], state: &Mutex<State>) {
        if let Some(head) = head(bytes) {
            head.split(' ').next().unwrap_or_default().clone_into(&mut self.method);
            self.passed = 0;
            lock(state).heads.push(head);
        }
        let mut state = lock(state);
        let now = match state.moment {
            Moment::Head(method) => self.method == method && self.passed == 0,
            Moment::Inside(method, after) => self.method == method && self.passed >= after,
        };
        self.passed += bytes.len() as u64;
        if now && let Some(act) = state.act.take() {
            act();
        }
    }
}

/// The head of a request that these bytes begin with, without its credential.
fn head(bytes: &[u8]) -> Option<String> {
    let known: [&[u8]; 6] = [b"GET /", b"HEAD /", b"POST /", b"PATCH /", b"PUT /", b"DELETE /"];
    if !known.iter().any(|method| bytes.starts_with(method)) {
        return None;
    }
    let text = String::from_utf8_lossy(bytes);
    let (head, _) = text.split_once("\r\n\r\n")?;
    let shown = head.split("\r\n").filter(|line| !line.to_ascii_lowercase().starts_with("authorization:"));
    Some(shown.collect::<Vec<_>>().join("\r\n"))
}
