//! A rolling upgrade with a new key under load: a replica with the new key joins; the old one leaves the endpoints
//! and stops when its last request has ended.

use crate::{
    crew::{Crew, LAYER, SEED, StopAtEnd, phase},
    lane::{Lane, Ledger},
    support::{
        balancer::{Balancer, Choice},
        client::skopeo::Skopeo,
        gate::{self, Gate},
        harbor::{self, Harbor, Replica},
        image::Image,
        waiting,
    },
};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
    thread,
    time::Duration,
};

/// How long the clients may take for a push and a pull each.
const PATIENCE: Duration = Duration::from_mins(10);

#[test]
fn nothing_fails_while_a_replica_with_a_new_key_takes_over() {
    Upgrade::begin(true, Crew::of_all).run("rolling upgrade with a new key");
}

#[test]
fn nothing_fails_while_a_replica_with_a_new_key_takes_over_and_tidegate_has_none() {
    let skopeo = |lane| Crew::new(lane, vec![Box::new(Skopeo::new())], Vec::new());
    Upgrade::begin(false, skopeo).run("rolling upgrade with a new key, no key material");
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

impl Upgrade {
    fn begin(with_key: bool, crew: impl Fn(Lane) -> Crew) -> Self {
        let harbor = Harbor::start();
        let leaving = harbor.replica("leaving");
        let known = with_key.then(|| harbor.key_path("known-to-tidegate"));
        if let Some(known) = &known {
            harbor::copy_key(&leaving.key_file, known);
        }
        let gate = Gate::start(&configuration(&[leaving.address], known.as_deref()));
        let balancer = Balancer::nginx(Choice::RoundRobin, &[leaving.address]);
        let ledger = Ledger::default();
        let crews = Lane::both(balancer.address, gate.address).map(crew);
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
            for crew in crews {
                crew.work(scope, ledger, &stop);
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

fn configuration(replicas: &[SocketAddr], known: Option<&Path>) -> String {
    gate::configuration(replicas, "auto", known.as_slice())
}
