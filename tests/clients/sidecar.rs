//! A tidegate beside each replica, peers of each other, clients spread over all of them: each sidecar has its own core's key
//! file and nothing else, so that another side's token is known by that side's public key and signed again with its own.

use crate::{
    crew::{Crew, SEED, StopAtEnd, phase},
    lane::{Lane, Ledger},
    support::{
        balancer::{Balancer, Choice},
        client::{crane::Crane, podman::Podman, skopeo::Skopeo},
        gate::{self, Gate},
        harbor::{Harbor, Replica},
        image::Image,
        ports, waiting,
    },
};
use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
    thread,
    time::Duration,
};

/// Layers of the images that are pushed and pulled, MiB.
const LAYER: u64 = 16;
/// How long one phase may take to see each client's operations, beyond its duration.
const PATIENCE: Duration = Duration::from_mins(10);

/// A core and its sidecar.
struct Side {
    core: Replica,
    /// Where clients and peers reach the sidecar.
    door: SocketAddr,
    gate: Gate,
}

/// All that sidecars share: where they are or will be, and a secret.
struct Peers {
    doors: Vec<SocketAddr>,
    secret: PathBuf,
}

impl Peers {
    /// The sidecar beside this core takes the next door.
    fn join(&self, core: Replica, place: usize) -> Side {
        let door = self.doors[place];
        let gate = Gate::start(&self.configuration(&core, door));
        Side { core, door, gate }
    }

    fn configuration(&self, core: &Replica, door: SocketAddr) -> String {
        let urls: Vec<String> = self.doors.iter().map(|door| format!("\"http://{door}\"")).collect();
        format!(
            "deployment = \"harbor\"\n{}\n[peers]\nurls = [{}]\nsecret_file = \"{}\"\n\n[replay]\nenabled = false\n\n\
             [timeouts]\ndrain_delay = \"1s\"\n\n[[listener]]\naddress = \"{door}\"\nscope = \"cluster\"\n",
            gate::configuration(&[core.address], "no", &[&core.key_file]),
            urls.join(", "),
            self.secret.display(),
        )
    }
}

#[test]
fn nothing_fails_while_sidecars_of_replicas_with_different_keys_are_upgraded() {
    let harbor = Harbor::start();
    let peers = Peers { doors: vec![ports::free(), ports::free(), ports::free()], secret: secret(&harbor) };
    let (first, second) = (harbor.replica("first"), harbor.replica("second"));
    // Clients log in while the keys are still one, so that both lanes have their credentials.
    second.hold_the_key_of(&first);
    let (leaving, staying) = (peers.join(first, 0), peers.join(second, 1));
    let sides = [&leaving, &staying];
    let mut direct = Balancer::nginx(Choice::RoundRobin, &sides.map(|side| side.core.address));
    let mut through = Balancer::nginx(Choice::RoundRobin, &sides.map(|side| side.door));
    let ledger = Ledger::default();
    let crews = Lane::both(direct.address, through.address).map(|lane| {
        let once = vec![Box::new(Crane::new()) as _, Box::new(Podman::new()) as _];
        Crew::new(lane, vec![Box::new(Skopeo::new())], once).with_layers(LAYER)
    });
    for (lane, client) in crews.iter().flat_map(Crew::everybody) {
        assert!(ledger.login(lane, client), "{ledger}");
    }
    leaving.core.seed(SEED, &Image::generate(2, LAYER));
    let (ledger, crews, stop) = (&ledger, &crews, AtomicBool::new(false));
    let (rescued_before, joining) = thread::scope(|scope| {
        let _stopped = StopAtEnd(&stop);
        staying.core.take_a_key_of_its_own();
        for crew in crews {
            crew.work(scope, ledger, &stop);
            scope.spawn(|| crew.take_part_once(ledger));
        }
        phase("each replica with a key of its own", ledger, crews);
        waiting::holds("each client has pushed and pulled once", PATIENCE, || {
            crews.iter().all(|crew| crew.has_taken_part(ledger))
        });
        let joining = peers.join(harbor.replica("joining"), 2);
        let all = [&leaving, &staying, &joining];
        direct.serve(&all.map(|side| side.core.address));
        through.serve(&all.map(|side| side.door));
        phase("a replica with a third key has joined", ledger, crews);
        let left = [&staying, &joining];
        direct.serve(&left.map(|side| side.core.address));
        through.serve(&left.map(|side| side.door));
        let rescued = leave(leaving);
        phase("the first one has left", ledger, crews);
        // Cores run for as long as clients work.
        (rescued, joining)
    });
    println!("  rescued by the sidecar that left: {rescued_before}");
    for side in [&staying, &joining] {
        let rescues = side.gate.metrics().rescues();
        assert!(rescues.contains("resign"), "other sides' tokens came here too: {rescues}");
        ledger.judge("sidecars of replicas with different keys, rolling upgrade", &side.gate);
    }
}

/// The sidecar drains, then its core stops; what it has rescued.
fn leave(side: Side) -> String {
    let Side { core, mut gate, .. } = side;
    let rescued = gate.metrics().rescues();
    gate.signal("TERM");
    assert_eq!(gate.ends(PATIENCE), Some(0), "{}", gate.tail());
    core.stop_when_idle();
    rescued
}

fn secret(harbor: &Harbor) -> PathBuf {
    let path = harbor.key_path("peers").with_extension("secret");
    write(&path);
    path
}

fn write(path: &Path) {
    fs::write(path, "a secret that all sidecars of this Harbor have\n").expect("a secret");
}
