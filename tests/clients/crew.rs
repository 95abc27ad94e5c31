//! The clients of one lane: those that push and pull all the time, and those that do it once.

use crate::{
    lane::{Lane, Ledger, Operation},
    support::{
        client::{
            Client, containerd::Containerd, crane::Crane, docker::Docker, podman::Podman, regctl::Regctl,
            skopeo::Skopeo,
        },
        settings, waiting,
    },
};
use std::{
    fmt,
    ops::Range,
    sync::atomic::{AtomicBool, Ordering},
    thread::{self, Scope},
    time::{Duration, Instant},
};

/// Layers of the images that are pushed and pulled where nothing else is said, MiB.
pub const LAYER: u64 = 64;
/// skopeo's large layer with long durations, MiB.
const LONG_LAYER: u64 = 1024;
/// How many of skopeo's pushes have one large layer among them: more would fill the disk.
const LARGE_EVERY: u32 = 6;
/// A phase at most, however slow the clients are.
const PHASE: Duration = Duration::from_mins(10);
/// Between a failure and the next try, as jobs do that try again: a client that fails at once would do nothing else.
const BREATH: Duration = Duration::from_millis(500);
/// What is pulled.
pub const SEED: &str = "priv/seed:v1";

pub type Clients = Vec<Box<dyn Client>>;

/// Clients of one lane.
pub struct Crew {
    pub lane: Lane,
    busy: Clients,
    once: Clients,
    layer: u64,
    /// Whether skopeo pushes a large layer now and then.
    large: bool,
}

impl Crew {
    /// With long durations everybody is busy.
    pub fn new(lane: Lane, mut busy: Clients, mut once: Clients) -> Self {
        if settings::long() {
            busy.append(&mut once);
        }
        Self { lane, busy, once, layer: LAYER, large: settings::long() }
    }

    /// The same with layers of another size alone, MiB.
    pub fn with_layers(self, layer: u64) -> Self {
        Self { layer, large: false, ..self }
    }

    /// skopeo and containerd busy, every other client once.
    pub fn of_all(lane: Lane) -> Self {
        let (docker, podman) = (Box::new(Docker::new()), Box::new(Podman::new()));
        let once: Clients = vec![
            docker,
            podman,
            Box::new(Containerd::one()),
            Box::new(Crane::new()),
            Box::new(Regctl::new()),
        ];
        Self::new(lane, vec![Box::new(Skopeo::new()), Box::new(Containerd::two())], once)
    }

    /// skopeo, dockerd, podman and containerd, all of them busy, with layers of so many MiB.
    pub fn of_four(lane: Lane, layer: u64) -> Self {
        let clients: Clients = vec![
            Box::new(Skopeo::new()),
            Box::new(Docker::new()),
            Box::new(Podman::new()),
            Box::new(Containerd::two()),
        ];
        Self::new(lane, clients, Vec::new()).with_layers(layer)
    }

    pub fn busy(&self) -> impl Iterator<Item = (&Lane, &dyn Client)> {
        self.busy.iter().map(|client| (&self.lane, client.as_ref()))
    }

    pub fn everybody(&self) -> impl Iterator<Item = (&Lane, &dyn Client)> {
        self.busy().chain(self.once.iter().map(|client| (&self.lane, client.as_ref())))
    }

    /// Each client pushes new images and pulls the seed, in turn, until `stop`.
    pub fn work<'a>(&'a self, scope: &'a Scope<'a, '_>, ledger: &'a Ledger, stop: &'a AtomicBool) {
        for client in &self.busy {
            scope.spawn(|| self.work_as(ledger, client.as_ref(), stop));
        }
    }

    fn work_as(&self, ledger: &Ledger, client: &dyn Client, stop: &AtomicBool) {
        let skopeo = client.name().starts_with("skopeo");
        let mut turns = 0_u32..;
        while let (false, Some(turn)) = (stop.load(Ordering::Relaxed), turns.next()) {
            let large = self.large && skopeo && turn.is_multiple_of(LARGE_EVERY);
            push_and_pull(ledger, &self.lane, client, if large { LONG_LAYER } else { self.layer });
        }
    }

    pub fn take_part_once(&self, ledger: &Ledger) {
        for client in &self.once {
            push_and_pull(ledger, &self.lane, client.as_ref(), self.layer);
        }
    }

    /// What each client was at while something was out, those times.
    pub fn met(&self, ledger: &Ledger, out: &[Range<Instant>]) -> Met {
        let of = |client, operation| ledger.met(self.lane.side, client, operation, out);
        let names = self.everybody().map(|(_, client)| client.name());
        Met(names.map(|name| (name, [Operation::Push, Operation::Pull].map(|it| of(name, it)))).collect())
    }

    /// Login, push and pull have ended.
    pub fn has_taken_part(&self, ledger: &Ledger) -> bool {
        self.once.iter().all(|client| ledger.count(self.lane.side, client.name()) >= 3)
    }
}

/// Lasts its share of the time, and until every busy client has ended two more operations.
pub fn phase(name: &str, ledger: &Ledger, crews: &[Crew]) {
    let lasts = Duration::from_secs(if settings::long() { 60 } else { 7 });
    let busy = || crews.iter().flat_map(Crew::busy);
    let counts =
        || -> Vec<usize> { busy().map(|(lane, client)| ledger.count(lane.side, client.name())).collect() };
    let (began, before) = (Instant::now(), counts());
    waiting::holds(name, PHASE, || {
        began.elapsed() >= lasts && counts().iter().zip(&before).all(|(now, then)| *now >= then + 2)
    });
    println!(
        "  {name}: {:.0} s, {} operations so far",
        began.elapsed().as_secs_f64(),
        counts().iter().sum::<usize>()
    );
}

/// How many ended pushes and pulls of each client met something.
pub struct Met(Vec<(&'static str, [usize; 2])>);

impl Met {
    /// A push and a pull of every client.
    pub fn everybody(&self) -> bool {
        self.0.iter().flat_map(|(_, counts)| counts).all(|count| *count > 0)
    }
}

impl fmt::Display for Met {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .try_for_each(|(client, [pushes, pulls])| write!(f, " {client} {pushes} pushes, {pulls} pulls;"))
    }
}

/// Ends the workers also when an assertion ends the test in between.
pub struct StopAtEnd<'a>(pub &'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn push_and_pull(ledger: &Ledger, lane: &Lane, client: &dyn Client, mebibytes: u64) {
    if !ledger.push_new(lane, client, mebibytes) {
        thread::sleep(BREATH);
    }
    if !ledger.pull(lane, client, SEED) {
        thread::sleep(BREATH);
    }
}
