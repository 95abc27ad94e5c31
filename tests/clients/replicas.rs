//! Three tidegates that share a Redis, behind a round robin: while Harbor is upgraded, Redis is killed, and one tidegate
//! with it, just when it has seen a key that no store could take. Both come back.
//!
//! What a killed process had in its hands is lost, whoever stands behind it: a client whose operation ran at a kill does
//! it once more, as jobs do, in both lanes. So does a push that ran when a core was terminated: its bytes may come by
//! another tidegate than the one that began the upload, and that one can't begin it anew. Every other failure counts.

use crate::{
    crew::{Clients, Crew, SEED, StopAtEnd},
    lane::{Lane, Ledger},
    servers::{PASSWORD, Redis},
    support::{
        balancer::{Balancer, Choice},
        client::{Account, Client, crane::Crane, skopeo::Skopeo},
        gate::{self, Gate},
        harbor::{Harbor, Replica},
        image::Image,
        process::Failure,
        settings, waiting,
    },
};
use std::{
    fs,
    net::SocketAddr,
    sync::{Arc, Mutex, atomic::AtomicBool},
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tidegate::decisions::record::seal;

const PATIENCE: Duration = Duration::from_mins(5);
/// Of a layer, MiB.
const LAYER: u64 = 4;
/// How long a core is away.
const AWAY: Duration = Duration::from_secs(1);

#[test]
fn nothing_fails_while_harbor_is_upgraded_and_a_replica_and_redis_are_killed() {
    let upgrades = if settings::long() { 5 } else { 1 };
    let mut scene = Scene::begin();
    let (crews, ledger, stop) = (scene.crews(), Ledger::default(), AtomicBool::new(false));
    for (lane, client) in crews.iter().flat_map(Crew::busy) {
        assert!(ledger.login(lane, client), "{ledger}");
    }
    thread::scope(|scope| {
        let _stopped = StopAtEnd(&stop);
        for crew in &crews {
            crew.work(scope, &ledger, &stop);
        }
        all_work_on(&ledger, &crews);
        for _ in 0..upgrades {
            scene.upgrade(&ledger, &crews);
        }
    });
    println!("  {} kills", scene.killed.lock().expect("no client panics").len());
    ledger.verify_pushes(scene.cores[0].address);
    ledger.judge("three replicas, one killed, Redis restarted", &scene.gates[0]);
}

/// Until each has ended two more operations.
fn all_work_on(ledger: &Ledger, crews: &[Crew]) {
    let count = |(lane, client): (&Lane, &dyn Client)| ledger.count(lane.side, client.name());
    let counts = || crews.iter().flat_map(Crew::busy).map(count).collect::<Vec<_>>();
    let before = counts();
    waiting::holds("every client works on", PATIENCE, || {
        counts().iter().zip(&before).all(|(now, then)| *now >= then + 2)
    });
}

type Killed = Arc<Mutex<Vec<Instant>>>;

struct Scene {
    cores: [Replica; 2],
    gates: [Gate; 3],
    fronts: [Balancer; 2],
    redis: Option<Redis>,
    at: SocketAddr,
    killed: Killed,
    terminated: Killed,
    _files: TempDir,
    _harbor: Harbor,
}

impl Scene {
    fn begin() -> Self {
        let harbor = Harbor::start();
        let mut cores = ["one", "other"].map(|name| harbor.replica(name));
        cores[1].hold_the_key_of(&cores[0]);
        for core in &mut cores {
            core.start_delay = AWAY;
        }
        cores[0].seed(SEED, &Image::generate(2, LAYER));
        let (redis, files) = (Redis::start(&[]), tempfile::tempdir().expect("a folder"));
        let addresses = [cores[0].address, cores[1].address];
        let (password, key) = (files.path().join("password"), files.path().join("seal.key"));
        fs::write(&password, PASSWORD).expect("the password");
        fs::write(&key, seal::written(&[7; seal::KEY]).as_bytes()).expect("the sealing key");
        let configuration = format!(
            "deployment = \"harbor\"\n{}\n[store]\nurl = \"redis://{}\"\npassword_file = \"{}\"\nseal_key_files = [\"{}\"]\n",
            gate::configuration(&addresses, "auto", &[&cores[0].key_file, &cores[1].key_file]),
            redis.address,
            password.display(),
            key.display()
        );
        let gates = [(); 3].map(|()| Gate::start(&configuration));
        let through: Vec<SocketAddr> = gates.iter().map(|gate| gate.address).collect();
        let front = |addresses: &[SocketAddr]| Balancer::nginx(Choice::RoundRobinAndNext, addresses);
        let fronts = [front(&addresses), front(&through)];
        let at = redis.address;
        Self {
            cores,
            gates,
            fronts,
            redis: Some(redis),
            at,
            killed: Killed::default(),
            terminated: Killed::default(),
            _files: files,
            _harbor: harbor,
        }
    }

    fn crews(&self) -> [Crew; 2] {
        let [direct, through] = [self.fronts[0].address, self.fronts[1].address];
        Lane::both(direct, through).map(|lane| {
            let again = |client: Box<dyn Client>| -> Box<dyn Client> {
                let (killed, terminated) = (Arc::clone(&self.killed), Arc::clone(&self.terminated));
                Box::new(Again { client, killed, terminated })
            };
            let clients: Clients = vec![again(Box::new(Skopeo::new())), again(Box::new(Crane::new()))];
            Crew::new(lane, clients, Vec::new()).with_layers(LAYER)
        })
    }

    fn terminate(&self, core: usize) {
        self.terminated.lock().expect("no client panics").push(Instant::now());
        self.cores[core].terminate();
    }

    fn upgrade(&mut self, ledger: &Ledger, crews: &[Crew]) {
        self.terminate(0);
        drop(self.redis.take());
        self.cores[0].take_a_key_of_its_own();
        for gate in &self.gates {
            gate.wait_for("both keys sign", |metrics| {
                metrics.sum("tidegate_key_state", &[("state", "signing")]) > 1.5
            });
        }
        self.cores[0].start_again();
        self.killed.lock().expect("no client panics").push(Instant::now());
        self.gates[0].kill();
        self.gates[0].begin_again();
        self.gates[0].becomes_ready();
        all_work_on(ledger, crews);
        self.redis = Some(Redis::at(self.at, &[]));
        for gate in &self.gates {
            gate.wait_for("the store is well", |metrics| {
                metrics.sum("tidegate_store_waiting_changes", &[]) == 0.0
                    && metrics.sum("tidegate_store_degraded_since_seconds", &[]) == 0.0
            });
        }
        self.terminate(1);
        self.cores[1].hold_the_key_of(&self.cores[0]);
        self.cores[1].start_again();
        all_work_on(ledger, crews);
    }
}

/// A client that does again what a kill broke.
struct Again {
    client: Box<dyn Client>,
    killed: Killed,
    terminated: Killed,
}

impl Again {
    fn at_a_kill(&self, act: impl Fn() -> Result<(), Failure>) -> Result<(), Failure> {
        again_if_met(&[&self.killed], act)
    }
}

fn again_if_met(ends: &[&Killed], act: impl Fn() -> Result<(), Failure>) -> Result<(), Failure> {
    let began = Instant::now();
    let met = |ends: &&Killed| ends.lock().expect("no client panics").iter().any(|at| *at >= began);
    act().or_else(|failure| if ends.iter().any(met) { act() } else { Err(failure) })
}

impl Client for Again {
    fn name(&self) -> &'static str {
        self.client.name()
    }

    fn login(&self, at: &Account) -> Result<(), Failure> {
        self.at_a_kill(|| self.client.login(at))
    }

    fn push(&self, at: &Account, image: &Image, repository: &str) -> Result<(), Failure> {
        again_if_met(&[&self.killed, &self.terminated], || self.client.push(at, image, repository))
    }

    fn pull(&self, at: &Account, repository: &str) -> Result<(), Failure> {
        self.at_a_kill(|| self.client.pull(at, repository))
    }

    fn inspect(&self, at: &Account, repository: &str) -> Result<(), Failure> {
        self.at_a_kill(|| self.client.inspect(at, repository))
    }
}
