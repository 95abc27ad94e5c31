//! The two lanes that every scenario has, and the table of what came of each.

use crate::support::{
    client::{self, Account, Client, skopeo::Skopeo},
    gate::Gate,
    harbor,
    image::Image,
    process::{self, Failure},
};
use std::{
    collections::BTreeMap,
    fmt, fs,
    net::SocketAddr,
    ops::Range,
    process::Command,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// The same load goes directly to Harbor, or through tidegate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    Direct,
    Through,
}

/// One lane: its side and the front door that its clients are told.
#[derive(Clone, Debug)]
pub struct Lane {
    pub side: Side,
    pub account: Account,
    /// Once set, what a client of this lane still does is ended, and counts as nothing: some try again for minutes.
    pub over: Arc<AtomicBool>,
}

impl Lane {
    /// Both lanes, as the developer of project `priv`.
    pub fn both(direct: SocketAddr, through: SocketAddr) -> [Self; 2] {
        let lane = |side, address| Self { side, account: harbor::account(address), over: Arc::default() };
        [lane(Side::Direct, direct), lane(Side::Through, through)]
    }
}

/// What a client can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    Login,
    Inspect,
    Pull,
    Push,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Login => "login",
            Self::Inspect => "inspect",
            Self::Pull => "pull",
            Self::Push => "push",
        })
    }
}

/// Every operation of a scenario and how it ended.
#[derive(Debug, Default)]
pub struct Ledger {
    entries: Mutex<Vec<Entry>>,
    acknowledged: Mutex<Vec<Pushed>>,
}

/// A push through tidegate that its client was told had succeeded.
#[derive(Debug)]
struct Pushed {
    client: &'static str,
    repository: String,
    diff_id: String,
}

#[derive(Debug)]
struct Entry {
    side: Side,
    client: &'static str,
    operation: Operation,
    failure: Option<Failure>,
    began: Instant,
    took: Duration,
}

impl Entry {
    /// Whether it ran at any time of that.
    fn met(&self, time: &Range<Instant>) -> bool {
        self.began < time.end && self.began + self.took > time.start
    }
}

impl Ledger {
    pub fn login(&self, lane: &Lane, client: &dyn Client) -> bool {
        self.note(lane, client, Operation::Login, || client.login(&lane.account))
    }

    pub fn inspect(&self, lane: &Lane, client: &dyn Client, repository: &str) -> bool {
        self.note(lane, client, Operation::Inspect, || client.inspect(&lane.account, repository))
    }

    pub fn pull(&self, lane: &Lane, client: &dyn Client, repository: &str) -> bool {
        self.note(lane, client, Operation::Pull, || client.pull(&lane.account, repository))
    }

    pub fn push(&self, lane: &Lane, client: &dyn Client, image: &Image, repository: &str) -> bool {
        let pushed =
            self.note(lane, client, Operation::Push, || client.push(&lane.account, image, repository));
        if pushed && lane.side == Side::Through {
            let (client, repository, diff_id) = (client.name(), repository.to_owned(), image.diff_id.clone());
            held(&self.acknowledged).push(Pushed { client, repository, diff_id });
        }
        pushed
    }

    /// Pushes an image that the registry has never seen, of so many MiB, to a repository of its own.
    pub fn push_new(&self, lane: &Lane, client: &dyn Client, mebibytes: u64) -> bool {
        static SEED: AtomicU64 = AtomicU64::new(1000);
        let seed = SEED.fetch_add(1, Ordering::Relaxed);
        self.push(lane, client, &Image::generate(seed, mebibytes), &format!("priv/new-{seed}:v1"))
    }

    /// How many operations of that client on that side have ended.
    pub fn count(&self, side: Side, client: &str) -> usize {
        self.entries().iter().filter(|entry| entry.side == side && entry.client == client).count()
    }

    /// How many of these operations of that client have ended and ran during any of these times.
    pub fn met(&self, side: Side, client: &str, operation: Operation, times: &[Range<Instant>]) -> usize {
        let entries = self.entries();
        let of_it = |entry: &&Entry| (entry.side, entry.client, entry.operation) == (side, client, operation);
        entries.iter().filter(of_it).filter(|entry| times.iter().any(|time| entry.met(time))).count()
    }

    /// How many operations of that side failed.
    pub fn failures(&self, side: Side) -> usize {
        self.entries().iter().filter(|entry| entry.side == side && entry.failure.is_some()).count()
    }

    /// How many operations of that side there were.
    pub fn operations(&self, side: Side) -> usize {
        self.entries().iter().filter(|entry| entry.side == side).count()
    }

    /// Prints the table, and asserts what every scenario asserts: nothing failed through tidegate, and the same
    /// load failed without it.
    pub fn judge(&self, title: &str, gate: &Gate) {
        println!("\n{title}\n{self}  rescued: {}", gate.metrics().rescues());
        let through = self.failures(Side::Through);
        assert_eq!(through, 0, "{title}: failures through tidegate, which refused:\n{}", gate.refusals());
        assert!(self.operations(Side::Through) > 0, "{title}: no operation through tidegate");
        assert!(
            self.failures(Side::Direct) > 0,
            "{title}: nothing failed in the direct lane, so nothing was shown"
        );
    }

    /// Pulls every acknowledged push straight from a core, and asserts that each is what was sent.
    pub fn verify_pushes(&self, core: SocketAddr) {
        let (skopeo, account, pushed) = (Skopeo::new(), harbor::account(core), held(&self.acknowledged));
        skopeo.login(&account).unwrap_or_else(|failure| panic!("{failure}"));
        let wrong = pushed.iter().filter_map(|pushed| {
            let Pushed { client, repository, diff_id } = pushed;
            let fault = stored_as_sent(&skopeo, &account, repository, diff_id).err()?;
            Some(format!("{client} {repository}: {fault}"))
        });
        let wrong: Vec<String> = wrong.collect();
        println!("  {} acknowledged pushes pulled from core, {} wrong", pushed.len(), wrong.len());
        assert!(wrong.is_empty(), "acknowledged and not what was sent:\n{}", wrong.join("\n"));
    }

    /// All that the failed commands said.
    pub fn said(&self) -> String {
        let entries = self.entries();
        let failures = entries.iter().filter_map(|entry| entry.failure.as_ref());
        failures.map(ToString::to_string).collect::<Vec<_>>().join("\n\n")
    }

    fn note(
        &self,
        lane: &Lane,
        client: &dyn Client,
        operation: Operation,
        act: impl FnOnce() -> Result<(), Failure>,
    ) -> bool {
        let began = Instant::now();
        let failure = process::until_end_of(&lane.over, act).err();
        let failed = failure.is_some();
        if failed && lane.over.load(Ordering::Relaxed) {
            return false;
        }
        let (side, client, took) = (lane.side, client.name(), began.elapsed());
        self.entries().push(Entry { side, client, operation, failure, began, took });
        !failed
    }

    fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        held(&self.entries)
    }
}

fn held<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is stored is what was sent: every blob, as skopeo pulls it, has the digest in the manifest, and the layer,
/// decompressed, the one that the image's maker knows.
pub fn stored_as_sent(
    skopeo: &Skopeo,
    account: &Account,
    repository: &str,
    diff_id: &str,
) -> Result<(), String> {
    let folder = skopeo.fetch(account, repository).map_err(|failure| failure.to_string())?;
    let files =
        fs::read_dir(folder.path()).expect("the image's files").map(|file| file.expect("a file").path());
    let layer = files.max_by_key(|path| path.metadata().map(|data| data.len()).unwrap_or_default());
    let mut command = Command::new("sh");
    command.args(["-c", "gzip -dc <\"$0\" | sha256sum"]).arg(layer.expect("a layer"));
    let digest = process::run(&mut command, client::patience()).map_err(|failure| failure.to_string())?;
    let digest = format!("sha256:{}", digest.split_whitespace().next().unwrap_or_default());
    if digest == diff_id { Ok(()) } else { Err(format!("{digest}, not {diff_id}")) }
}

/// A row for each client and operation with the failures of each lane, then the clients' own words.
impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries = self.entries();
        let mut rows: BTreeMap<_, Vec<&Entry>> = BTreeMap::new();
        for entry in entries.iter() {
            rows.entry((entry.client, entry.operation)).or_default().push(entry);
        }
        writeln!(f, "  {:<16}{:<10}{:<26}failed through tidegate", "client", "", "failed directly")?;
        for ((client, operation), entries) in rows {
            let [direct, through] = [Side::Direct, Side::Through].map(|side| cell(&entries, side));
            writeln!(f, "  {client:<16}{operation:<10}{direct:<26}{through}")?;
        }
        for (side, name) in [(Side::Direct, "directly"), (Side::Through, "through tidegate")] {
            for (words, count) in words(&entries, side) {
                writeln!(f, "  {name} {count} ×: {words}")?;
            }
        }
        Ok(())
    }
}

/// `2 of 40, median 0.21 s`.
fn cell(entries: &[&Entry], side: Side) -> String {
    let of_side: Vec<&&Entry> = entries.iter().filter(|entry| entry.side == side).collect();
    let failed = of_side.iter().filter(|entry| entry.failure.is_some()).count();
    if of_side.is_empty() {
        return String::new();
    }
    let mut times: Vec<Duration> = of_side.iter().map(|entry| entry.took).collect();
    times.sort();
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    format!("{failed} of {}, {:.2} s", of_side.len(), median.as_secs_f64())
}

/// The last line of each failure without what differs from one to the next, and how often it came.
fn words(entries: &[Entry], side: Side) -> BTreeMap<String, usize> {
    let mut counted = BTreeMap::new();
    for failure in
        entries.iter().filter(|entry| entry.side == side).filter_map(|entry| entry.failure.as_ref())
    {
        let last =
            failure.output.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or(&failure.status);
        let tail: Vec<&str> = last.rsplitn(4, ": ").take(3).collect();
        let words: Vec<&str> = tail.into_iter().rev().collect();
        *counted.entry(masked(&words.join(": "))).or_insert(0) += 1;
    }
    counted
}

/// Digests, front doors, times and the names of new repositories as `…`.
fn masked(words: &str) -> String {
    const DIFFERING: [&str; 3] = ["/new-", "127.0.0.1", "\"issued_at\""];
    let differs =
        |word: &&str| word.starts_with("sha256:") || DIFFERING.iter().any(|part| word.contains(part));
    let shown = |word| if differs(&word) { "…" } else { word };
    words.split(' ').map(shown).collect::<Vec<_>>().join(" ").trim_matches('"').to_owned()
}
