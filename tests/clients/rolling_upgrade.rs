//! A rolling upgrade with a new key under load: a replica with the new key joins; the old one leaves the endpoints
//! and stops when its last request has ended.

use crate::{
    lane::{Lane, Ledger},
    support::{
        balancer::{Balancer, Choice},
        client::{
            Client, containerd::Containerd, crane::Crane, docker::Docker, podman::Podman, regctl::Regctl,
            skopeo::Skopeo,
        },
        gate::{self, Gate},
        harbor::{self, Harbor, Replica},
        image::Image,
        settings, waiting,
    },
};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

/// Layers of the images that are pushed and pulled, MiB.
const LAYER: u64 = 64;
/// skopeo's large layer with long durations, MiB.
const LONG_LAYER: u64 = 1024;
/// How many of skopeo's pushes have one large layer among them: more would fill the disk.
const LARGE_EVERY: u32 = 6;
/// How long one phase may take to see each client's operations, beyond its duration.
const PATIENCE: Duration = Duration::from_mins(10);
/// What is pulled.
const SEED: &str = "priv/seed:v1";

type Clients = Vec<Box<dyn Client>>;

#[test]
fn nothing_fails_while_a_replica_with_a_new_key_takes_over() {
    let busy = || -> Clients { vec![Box::new(Skopeo::new()), Box::new(Containerd::two())] };
    let once = || -> Clients {
        let (docker, podman) = (Box::new(Docker::new()), Box::new(Podman::new()));
        vec![docker, podman, Box::new(Containerd::one()), Box::new(Crane::new()), Box::new(Regctl::new())]
    };
    Upgrade::begin(true, busy, once).run("rolling upgrade with a new key");
}

#[test]
fn nothing_fails_while_a_replica_with_a_new_key_takes_over_and_tidegate_has_none() {
    let skopeo = || -> Clients { vec![Box::new(Skopeo::new())] };
    Upgrade::begin(false, skopeo, Vec::new).run("rolling upgrade with a new key, no key material");
}

/// Both lanes before the upgrade.
struct Upgrade {
    harbor: Harbor,
    fronts: Fronts,
    crews: [Crew; 2],
    ledger: Ledger,
    leaving: Replica,
}

/// The two front doors, and the key file that tidegate knows, if any.
struct Fronts {
    balancer: Balancer,
    gate: Gate,
    known: Option<PathBuf>,
}

/// Clients of one lane: those that push and pull all the time, and those that do it once while both keys live.
struct Crew {
    lane: Lane,
    busy: Clients,
    once: Clients,
}

impl Upgrade {
    fn begin(with_key: bool, busy: impl Fn() -> Clients, once: impl Fn() -> Clients) -> Self {
        let harbor = Harbor::start();
        let leaving = harbor.replica("leaving");
        let known = with_key.then(|| harbor.key_path("known-to-tidegate"));
        if let Some(known) = &known {
            harbor::copy_key(&leaving.key_file, known);
        }
        let gate = Gate::start(&configuration(&[leaving.address], known.as_deref()));
        let balancer = Balancer::nginx(Choice::RoundRobin, &[leaving.address]);
        let ledger = Ledger::default();
        let crews = Lane::both(balancer.address, gate.address).map(|lane| Crew::new(lane, busy(), once()));
        for (lane, client) in crews.iter().flat_map(Crew::everybody) {
            assert!(ledger.login(lane, client), "{ledger}");
        }
        leaving.seed(SEED, &Image::generate(2, LAYER));
        Self { harbor, fronts: Fronts { balancer, gate, known }, crews, ledger, leaving }
    }

    fn run(self, title: &str) {
        let Self { harbor, mut fronts, crews, ledger, leaving } = self;
        let (ledger, crews, stop) = (&ledger, &crews, AtomicBool::new(false));
        thread::scope(|scope| {
            let _stopped = StopAtEnd(&stop);
            for (lane, client) in crews.iter().flat_map(Crew::busy) {
                let stop = &stop;
                scope.spawn(move || work(ledger, lane, client, stop));
            }
            phase("the former key alone", ledger, crews);
            let joining = harbor.replica("joining");
            fronts.known.iter().for_each(|known| harbor::copy_key(&joining.key_file, known));
            fronts.serve(&[leaving.address, joining.address]);
            for crew in crews {
                scope.spawn(|| crew.take_part_once(ledger));
            }
            phase("both keys", ledger, crews);
            waiting::holds("each client has pushed and pulled once", PATIENCE, || {
                crews.iter().all(|crew| crew.has_taken_part(ledger))
            });
            fronts.serve(&[joining.address]);
            leaving.stop_when_idle();
            phase("the new key alone", ledger, crews);
            joining
        });
        ledger.judge(title, &fronts.gate);
    }
}

impl Fronts {
    /// Both doors lead to these replicas from now on.
    fn serve(&mut self, replicas: &[SocketAddr]) {
        self.balancer.serve(replicas);
        self.gate.reload(&configuration(replicas, self.known.as_deref()), |metrics| {
            let held = metrics.values("tidegate_endpoint_held_key", "endpoint");
            let knows = |address: &SocketAddr| held.iter().any(|held| held.contains(&address.to_string()));
            held.len() == replicas.len() && replicas.iter().all(knows)
        });
    }
}

impl Crew {
    /// With long durations everybody is busy.
    fn new(lane: Lane, mut busy: Clients, mut once: Clients) -> Self {
        if settings::long() {
            busy.append(&mut once);
        }
        Self { lane, busy, once }
    }

    fn busy(&self) -> impl Iterator<Item = (&Lane, &dyn Client)> {
        self.busy.iter().map(|client| (&self.lane, client.as_ref()))
    }

    fn everybody(&self) -> impl Iterator<Item = (&Lane, &dyn Client)> {
        self.busy().chain(self.once.iter().map(|client| (&self.lane, client.as_ref())))
    }

    fn take_part_once(&self, ledger: &Ledger) {
        for client in &self.once {
            push_and_pull(ledger, &self.lane, client.as_ref(), LAYER);
        }
    }

    /// Login, push and pull have ended.
    fn has_taken_part(&self, ledger: &Ledger) -> bool {
        self.once.iter().all(|client| ledger.count(self.lane.side, client.name()) >= 3)
    }
}

/// Ends the workers also when an assertion ends the test in between.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn configuration(replicas: &[SocketAddr], known: Option<&Path>) -> String {
    gate::configuration(replicas, "auto", known.as_slice())
}

/// Lasts its share of the time, and until every busy client has ended two more operations.
fn phase(name: &str, ledger: &Ledger, crews: &[Crew]) {
    let lasts = Duration::from_secs(if settings::long() { 60 } else { 7 });
    let busy = || crews.iter().flat_map(Crew::busy);
    let counts =
        || -> Vec<usize> { busy().map(|(lane, client)| ledger.count(lane.side, client.name())).collect() };
    let (began, before) = (Instant::now(), counts());
    waiting::holds(name, PATIENCE, || {
        began.elapsed() >= lasts && counts().iter().zip(&before).all(|(now, then)| *now >= then + 2)
    });
    println!(
        "  {name}: {:.0} s, {} operations so far",
        began.elapsed().as_secs_f64(),
        counts().iter().sum::<usize>()
    );
}

/// Pushes new images and pulls the seed, in turn.
fn work(ledger: &Ledger, lane: &Lane, client: &dyn Client, stop: &AtomicBool) {
    let skopeo = client.name().starts_with("skopeo");
    let mut turns = 0_u32..;
    while let (false, Some(turn)) = (stop.load(Ordering::Relaxed), turns.next()) {
        let large = settings::long() && skopeo && turn.is_multiple_of(LARGE_EVERY);
        push_and_pull(ledger, lane, client, if large { LONG_LAYER } else { LAYER });
    }
}

fn push_and_pull(ledger: &Ledger, lane: &Lane, client: &dyn Client, mebibytes: u64) {
    ledger.push_new(lane, client, mebibytes);
    ledger.pull(lane, client, SEED);
}
