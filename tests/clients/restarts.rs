//! U8 under the load of real clients: core ends in the middle of whatever it does, by SIGTERM and by SIGKILL, and comes
//! back after a while.

use crate::{
    crew::{Clients, Crew, LAYER, SEED, StopAtEnd},
    lane::{Lane, Ledger, Side},
    support::{
        balancer::{Balancer, Choice},
        client::{containerd::Containerd, docker::Docker, podman::Podman, skopeo::Skopeo},
        gate::{self, Gate},
        harbor::{Harbor, Replica},
        image::Image,
        settings,
        witness::Witness,
    },
};
use std::{sync::atomic::AtomicBool, thread, time::Duration};
use tempfile::TempDir;

/// Layers with short durations, MiB.
const SMALL: u64 = 32;
/// Kills at most, however slow the clients are.
const MOST: usize = 100;

#[test]
fn nothing_fails_while_replicas_are_killed_in_turn() {
    // Every 20 s for three minutes.
    let (up, kills) = if settings::long() { (18_500, 9) } else { (3_500, 4) };
    let (up, gone) = (Duration::from_millis(up), Duration::from_millis(1_500));
    Scene::begin(2, gone).run("replicas killed in turn", &Kills { up, least: kills });
}

#[test]
fn nothing_fails_while_the_only_replica_is_gone() {
    let (up, gone) = if settings::long() { (40, 20) } else { (5, 6) };
    let (up, gone) = (Duration::from_secs(up), Duration::from_secs(gone));
    Scene::begin(1, gone).run("the only replica gone", &Kills { up, least: 2 });
}

/// When replicas end.
struct Kills {
    /// From one's return to the next one's end.
    up: Duration,
    /// How many at least.
    least: usize,
}

/// skopeo and containerd busy; dockerd and podman once, through tidegate alone: directly they try again and again for
/// minutes. With long durations every client busy in both lanes.
fn crew(lane: Lane) -> Crew {
    if settings::long() {
        return Crew::of_all(lane);
    }
    let mut once: Clients = Vec::new();
    if lane.side == Side::Through {
        once = vec![Box::new(Podman::new()), Box::new(Docker::new())];
    }
    Crew::new(lane, vec![Box::new(Skopeo::new()), Box::new(Containerd::two())], once).with_layers(SMALL)
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
            "{configuration}\n[uploads]\nspool = \"{}\"\n{}",
            spool.path().display(),
            gate::http2_listener()
        ));
        let balancer = Balancer::nginx(Choice::RoundRobin, &addresses);
        let ledger = Ledger::default();
        let crews = Lane::both(balancer.address, gate.address).map(crew);
        for (lane, client) in crews.iter().flat_map(Crew::everybody) {
            assert!(ledger.login(lane, client), "{ledger}");
        }
        replicas[0].seed(SEED, &Image::generate(2, LAYER));
        Self { replicas, crews, ledger, gate, _balancer: balancer, _spool: spool, harbor }
    }

    fn run(self, title: &str, kills: &Kills) {
        let (ledger, stop) = (&self.ledger, AtomicBool::new(false));
        let witness = Witness::watch(self.harbor.world(), &self.gate);
        thread::scope(|scope| {
            let _stopped = StopAtEnd(&stop);
            for crew in &self.crews {
                crew.work(scope, ledger, &stop);
                crew.take_part_at_once(scope, ledger);
            }
            self.kill(kills);
        });
        ledger.verify_pushes(self.replicas[0].address);
        ledger.judge(title, &self.gate);
        witness.judge(self.replicas[0].address);
    }

    /// Each in turn, first by SIGTERM, then by SIGKILL; until there were enough of both, every client has met some,
    /// and one was in the middle of something that then failed directly.
    fn kill(&self, kills: &Kills) {
        let enough = || {
            self.ledger.failures(Side::Direct) > 0
                && self.crews.iter().all(|crew| crew.has_taken_part(&self.ledger))
        };
        let count = (0..MOST).find(|count| {
            if *count >= kills.least && enough() {
                return true;
            }
            thread::sleep(kills.up);
            let replica = &self.replicas[count % self.replicas.len()];
            if (count / self.replicas.len()).is_multiple_of(2) {
                replica.terminate();
            } else {
                replica.kill();
            }
            replica.start_again();
            false
        });
        println!("  {} kills", count.unwrap_or_else(|| panic!("still not enough after {MOST} kills")));
    }
}
