//! Clients that ask for tokens and pull with them all the time, on connections of all ages, and what became of each
//! request. The same load goes directly to Harbor's cores and through tidegate.

use crate::{
    stage::{DEV, MANIFEST, SCOPE},
    support::http::{Answer, Connection},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use std::{
    collections::HashMap,
    fmt,
    io::{self, ErrorKind},
    net::SocketAddr,
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Between two requests of one client.
const PAUSE: Duration = Duration::from_millis(5);
/// Between two tries of an address on which nobody listens, and how long it is tried.
const AGAIN: Duration = Duration::from_millis(5);
const MOST: Duration = Duration::from_secs(30);
/// Pulls with one token.
const PULLS: usize = 25;

/// Where clients go, each request to the next address.
#[derive(Clone, Debug)]
pub struct Front {
    addresses: Vec<SocketAddr>,
    /// Of the processes there; `None` where a connection that nobody takes is a failure.
    killed: Option<Killed>,
}

/// When processes were killed: each time from the signal until it was gone.
#[derive(Clone, Debug, Default)]
pub struct Killed(Arc<Mutex<Vec<Range<Instant>>>>);

impl Killed {
    /// Notes a kill; clients may see it before it is over. When it began.
    pub fn note(&self, kill: impl FnOnce()) -> Instant {
        let began = Instant::now();
        held(&self.0).push(began..began + MOST);
        kill();
        if let Some(last) = held(&self.0).last_mut() {
            last.end = Instant::now();
        }
        began
    }

    /// Whether a connection that was opened then may have been open at a kill.
    fn met(&self, opened: Instant) -> bool {
        held(&self.0).iter().any(|kill| opened <= kill.end && kill.start <= Instant::now())
    }
}

impl Front {
    pub fn new(addresses: &[SocketAddr]) -> Self {
        Self { addresses: addresses.to_vec(), killed: None }
    }

    /// Of processes that end now and then: their clients connect again until somebody listens.
    pub fn of_killed(addresses: &[SocketAddr], killed: &Killed) -> Self {
        Self { addresses: addresses.to_vec(), killed: Some(killed.clone()) }
    }
}

/// What became of the requests of one side.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub answered: usize,
    /// Connections that nobody took, and that were tried again.
    pub refused: usize,
    /// Connections that were open when their process was killed.
    pub cut: usize,
    pub failed: Vec<String>,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { answered, refused, cut, failed } = self;
        write!(
            f,
            "{answered} answered, {refused} connections tried again, {cut} cut, {} failed",
            failed.len()
        )?;
        failed.iter().take(5).try_for_each(|failure| write!(f, "\n  {failure}"))
    }
}

/// Clients of one side, until they are dropped.
pub struct Pullers {
    tally: Arc<Mutex<Tally>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Pullers {
    /// So many; every second one keeps its connections, the others open one for each request.
    pub fn begin(front: &Front, clients: usize) -> Self {
        let (tally, stop) = (Arc::<Mutex<Tally>>::default(), Arc::<AtomicBool>::default());
        let begin = |number: usize| {
            let mut client = Client {
                front: front.clone(),
                tally: Arc::clone(&tally),
                stop: Arc::clone(&stop),
                keeps: number.is_multiple_of(2),
                lines: HashMap::new(),
                turn: number,
            };
            thread::spawn(move || client.work())
        };
        let threads = (0..clients).map(begin).collect();
        Self { tally, stop, threads }
    }

    pub fn tally(&self) -> Tally {
        held(&self.tally).clone()
    }

    /// Ends them; what they had.
    pub fn end(mut self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| thread.join().expect("a client ends"));
        self.tally()
    }
}

impl Drop for Pullers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Asserts what every scene does: nothing failed through tidegate, and the same load failed without it.
#[expect(clippy::print_stdout, reason = "what came of a load is for whoever runs the tests")]
pub fn judge(title: &str, direct: Pullers, through: Pullers, log: &str) {
    let (direct, through) = (direct.end(), through.end());
    println!("{title}\n  directly: {direct}\n  through tidegate: {through}");
    assert!(through.failed.is_empty(), "{title}: through tidegate {through}\n{log}");
    assert!(through.answered > 0, "{title}: nothing was answered through tidegate");
    assert!(!direct.failed.is_empty(), "{title}: nothing failed directly, so nothing was shown: {direct}");
}

struct Client {
    front: Front,
    tally: Arc<Mutex<Tally>>,
    stop: Arc<AtomicBool>,
    keeps: bool,
    lines: HashMap<SocketAddr, (Connection, Instant)>,
    turn: usize,
}

impl Client {
    fn work(&mut self) {
        let token_path = format!("/service/token?service=harbor-registry&scope={SCOPE}");
        let basic = format!("Basic {}", STANDARD.encode(format!("{}:{}", DEV.0, DEV.1)));
        while !self.has_ended() {
            let Some(answer) = self.ask(&token_path, &basic) else { continue };
            let Some(token) = token_in(&answer) else { continue };
            for _ in 0..PULLS {
                if self.has_ended() {
                    return;
                }
                self.ask(MANIFEST, &format!("Bearer {token}"));
            }
        }
    }

    fn has_ended(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// The answer to one request, if it was a good one; it is counted.
    fn ask(&mut self, path: &str, authorization: &str) -> Option<Answer> {
        thread::sleep(PAUSE);
        self.turn += 1;
        let address = self.front.addresses[self.turn % self.front.addresses.len()];
        let began = Instant::now();
        let (mut line, opened) = match self.lines.remove(&address) {
            Some(kept) => kept,
            None => (self.open(address, began)?, began),
        };
        let accept = "application/vnd.oci.image.manifest.v1+json";
        let asked = line.ask("GET", path, &[("Authorization", authorization), ("Accept", accept)]);
        let answer = match asked {
            Ok(answer) => answer,
            Err(error) => {
                self.broke(opened, &error);
                return None;
            }
        };
        if self.keeps && answer.header("connection") != Some("close") {
            self.lines.insert(address, (line, opened));
        }
        let mut tally = held(&self.tally);
        if answer.status == 200 {
            tally.answered += 1;
            return Some(answer);
        }
        tally.failed.push(format!("{path}: {} {}", answer.status, answer.body));
        None
    }

    fn open(&mut self, address: SocketAddr, began: Instant) -> Option<Connection> {
        loop {
            let error = match Connection::open(address) {
                Ok(line) => return Some(line),
                Err(error) => error,
            };
            let waits = self.front.killed.is_some() && began.elapsed() < MOST;
            if error.kind() != ErrorKind::ConnectionRefused || !waits {
                self.broke(began, &error);
                return None;
            }
            held(&self.tally).refused += 1;
            if self.has_ended() {
                return None;
            }
            thread::sleep(AGAIN);
        }
    }

    fn broke(&self, opened: Instant, error: &io::Error) {
        let was_cut = self.front.killed.as_ref().is_some_and(|killed| killed.met(opened));
        let mut tally = held(&self.tally);
        if was_cut {
            tally.cut += 1;
        } else {
            tally.failed.push(format!("its connection: {error}"));
        }
    }
}

fn token_in(answer: &Answer) -> Option<String> {
    let body: serde_json::Value = serde_json::from_str(&answer.body).ok()?;
    body["token"].as_str().map(str::to_owned)
}

fn held<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
