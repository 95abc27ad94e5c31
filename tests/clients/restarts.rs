//! U8 under the load of real clients: core ends in the middle of whatever it does, by SIGTERM and by SIGKILL, and comes
//! back after a while.

use crate::{
    crew::{Crew, Met, SEED, StopAtEnd},
    lane::{Lane, Ledger, Side},
    support::{
        balancer::{Balancer, Choice},
        gate::{self, Gate},
        harbor::{Harbor, Replica},
        image::Image,
        process::peak_memory,
        settings,
        witness::Witness,
    },
};
use std::{
    ops::Range,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;

const MIB: u64 = 1 << 20;
/// Layers with short durations, and with long ones, MiB.
const LAYERS: [u64; 2] = [8, 32];
/// Kills at most, however slow the clients are.
const MOST: usize = 100;
/// `uploads.memory_total`, and what tidegate may take beside that: itself, its connections and what is on their way,
/// MiB.
const KEPT: u64 = 64;
const BESIDE: u64 = 96;

#[test]
fn nothing_fails_while_replicas_are_killed_in_turn() {
    // Every 20 s for three minutes.
    let (up, gone, kills) = if settings::long() { (18_500, 1_500, 9) } else { (1_500, 1_000, 4) };
    let [up, gone] = [up, gone].map(Duration::from_millis);
    Scene::begin(2, gone).run("replicas killed in turn", &Kills { up, least: kills });
}

#[test]
fn nothing_fails_while_the_only_replica_is_gone() {
    // For 20 s each time, for three minutes.
    let (up, gone, kills) = if settings::long() { (25, 20, 4) } else { (3, 3, 2) };
    let [up, gone] = [up, gone].map(Duration::from_secs);
    Scene::begin(1, gone).run("the only replica gone", &Kills { up, least: kills });
}

/// When replicas end.
struct Kills {
    /// From one's return to the next one's end.
    up: Duration,
    /// How many at least.
    least: usize,
}

/// MiB.
fn layer() -> u64 {
    LAYERS[usize::from(settings::long())]
}

/// Replicas with one key, and both lanes before them.
struct Scene {
    replicas: Vec<Replica>,
    crews: [Crew; 2],
    ledger: Ledger,
    gate: Gate,
    _balancer: Balancer,
    _spool: TempDir,
    harbor: Harbor,
}

impl Scene {
    fn begin(replicas: usize, gone: Duration) -> Self {
        let harbor = Harbor::start();
        let mut replicas: Vec<Replica> =
            (0..replicas).map(|number| harbor.replica(&format!("replica-{number}"))).collect();
        for replica in &mut replicas {
            replica.start_delay = gone;
        }
        replicas.iter().skip(1).for_each(|replica| replica.hold_the_key_of(&replicas[0]));
        let addresses: Vec<_> = replicas.iter().map(|replica| replica.address).collect();
        let spool = tempfile::tempdir().expect("a temporary folder");
        let configuration = gate::configuration(&addresses, "auto", &[&replicas[0].key_file]);
        let gate = Gate::start(&format!(
            "{configuration}\n[uploads]\nmemory_total = \"{KEPT}MiB\"\nspool = \"{}\"\n{}",
            spool.path().display(),
            gate::http2_listener()
        ));
        let balancer = Balancer::nginx(Choice::RoundRobin, &addresses);
        let ledger = Ledger::default();
        let crews = Lane::both(balancer.address, gate.address).map(|lane| Crew::of_four(lane, layer()));
        for (lane, client) in crews.iter().flat_map(Crew::everybody) {
            assert!(ledger.login(lane, client), "{ledger}");
        }
        replicas[0].seed(SEED, &Image::generate(2, layer()));
        Self { replicas, crews, ledger, gate, _balancer: balancer, _spool: spool, harbor }
    }

    fn run(self, title: &str, kills: &Kills) {
        let (ledger, stop) = (&self.ledger, AtomicBool::new(false));
        let witness = Witness::watch(self.harbor.world(), &self.gate);
        let gone = thread::scope(|scope| {
            let _stopped = StopAtEnd(&stop);
            for crew in &self.crews {
                crew.work(scope, ledger, &stop);
            }
            let gone = self.kill(kills);
            // What goes through tidegate runs to its end, and must not fail.
            let direct = self.crews.iter().filter(|crew| crew.lane.side == Side::Direct);
            direct.for_each(|crew| crew.lane.over.store(true, Ordering::Relaxed));
            gone
        });
        let peak = peak_memory(self.gate.id());
        println!("  {} kills; met by:{}", gone.len(), self.met(&gone));
        println!("  at most {} MiB of memory", peak / MIB);
        ledger.verify_pushes(self.replicas[0].address);
        ledger.judge(title, &self.gate);
        // Whatever a client would have tried again by itself. The witness also removes and makes things, and what changes
        // something and may have been done gets an honest 502 (A22).
        let refusals = self.gate.refusals();
        let of_clients =
            refusals.lines().filter(|line| !line.contains("/witness") && !line.contains("/api/"));
        assert_eq!(of_clients.collect::<String>(), "", "{title}: what tidegate refused");
        assert!(peak < (KEPT + BESIDE) * MIB, "{peak} bytes of memory");
        witness.judge(self.replicas[0].address);
    }

    /// Each in turn, first by SIGTERM, then by SIGKILL; until there were enough of both, a push and a pull of every
    /// client through tidegate met some, and something failed directly. From when to when a replica was gone each time.
    fn kill(&self, kills: &Kills) -> Vec<Range<Instant>> {
        let mut gone = Vec::new();
        let is_enough = |gone: &[_]| self.ledger.failures(Side::Direct) > 0 && self.met(gone).everybody();
        while gone.len() < kills.least || !is_enough(&gone) {
            assert!(gone.len() < MOST, "not enough after {MOST} kills:{}\n{}", self.met(&gone), self.ledger);
            thread::sleep(kills.up);
            let (count, since) = (gone.len(), Instant::now());
            let replica = &self.replicas[count % self.replicas.len()];
            if (count / self.replicas.len()).is_multiple_of(2) {
                replica.terminate();
            } else {
                replica.kill();
            }
            replica.start_again();
            gone.push(since..Instant::now());
        }
        gone
    }

    fn met(&self, gone: &[Range<Instant>]) -> Met {
        let [_, through] = &self.crews;
        through.met(&self.ledger, gone)
    }
}
