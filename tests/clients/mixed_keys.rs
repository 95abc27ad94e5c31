//! Replicas that hold different keys for good (contract, N): each refuses the other's tokens.

use crate::{
    lane::{Lane, Ledger},
    support::{
        balancer::{Balancer, Choice},
        client::{self, Client, skopeo::Skopeo},
        gate::{self, Gate},
        harbor::Harbor,
        image::Image,
        settings,
    },
};
use std::{net::SocketAddr, path::Path, thread};

/// How often a client does each thing in a lane.
#[derive(Clone, Copy)]
struct Load {
    inspects: usize,
    pulls: usize,
    pushes: usize,
}

#[test]
fn nothing_fails_while_replicas_hold_different_keys() {
    let load = Load { inspects: 40, pulls: 20, pushes: 20 };
    behind("replicas with different keys for good", load, |direct, replicas, keys| {
        (Balancer::nginx(Choice::RoundRobin, direct), gate::configuration(replicas, "auto", keys))
    });
}

#[test]
fn nothing_fails_while_replicas_hold_different_keys_and_tidegate_none() {
    let load = Load { inspects: 40, pulls: 20, pushes: 20 };
    behind("replicas with different keys for good, no key material", load, |direct, replicas, _| {
        (Balancer::nginx(Choice::RoundRobin, direct), gate::configuration(replicas, "auto", &[]))
    });
}

#[test]
fn nothing_fails_behind_an_opaque_nginx() {
    opaque("opaque endpoint", Balancer::nginx);
}

#[test]
fn nothing_fails_behind_an_opaque_haproxy() {
    opaque("opaque endpoint", Balancer::haproxy);
}

/// tidegate knows one address only, behind which each request finds another replica.
fn opaque(title: &str, start: fn(Choice, &[SocketAddr]) -> Balancer) {
    let load = Load { inspects: 16, pulls: 8, pushes: 8 };
    for choice in [Choice::RoundRobin, Choice::Random] {
        behind(title, load, |direct, _, keys| {
            let balancer = start(choice, direct);
            let configuration = gate::configuration(&[balancer.address], "auto", keys);
            (balancer, configuration)
        });
    }
}

/// Two replicas, and what stands in front of them in each lane.
fn behind(
    title: &str,
    load: Load,
    front: impl FnOnce(&[SocketAddr], &[SocketAddr], &[&Path]) -> (Balancer, String),
) {
    let harbor = Harbor::start();
    let (first, second) = (harbor.replica("first"), harbor.replica("second"));
    // Clients log in while the keys are still one, so that both lanes have their credentials.
    second.hold_the_key_of(&first);
    let replicas = [first.address, second.address];
    let (balancer, configuration) = front(&replicas, &replicas, &[&first.key_file, &second.key_file]);
    let title = format!("{title} ({})", balancer.name);
    let ledger = Ledger::default();
    let gate = Gate::start(&configuration);
    let lanes = Lane::both(balancer.address, gate.address);
    let clients = lanes.each_ref().map(|lane| (lane, clients()));
    for (lane, clients) in &clients {
        for client in clients {
            assert!(ledger.login(lane, client.as_ref()), "{ledger}");
        }
    }
    let seed = Image::generate(1, 1);
    first.seed("priv/seed:v1", &seed);
    first.seed_for_docker("priv/docker:v1", &seed);
    second.take_a_key_of_its_own();
    thread::scope(|scope| {
        for (lane, clients) in &clients {
            scope.spawn(|| clients.iter().for_each(|client| run(&ledger, lane, client.as_ref(), load)));
        }
    });
    ledger.judge(&title, &gate);
}

fn run(ledger: &Ledger, lane: &Lane, client: &dyn Client, load: Load) {
    for _ in 0..load.inspects {
        let docker = client.name().starts_with("docker");
        ledger.inspect(lane, client, if docker { "priv/docker:v1" } else { "priv/seed:v1" });
    }
    for _ in 0..load.pulls {
        ledger.pull(lane, client, "priv/seed:v1");
    }
    for _ in 0..load.pushes {
        ledger.push_new(lane, client, 1);
    }
    println!("  {:?}: {} done", lane.side, client.name());
}

/// skopeo; with long durations every client.
fn clients() -> Vec<Box<dyn Client>> {
    if settings::long() { client::all() } else { vec![Box::new(Skopeo::new())] }
}
