//! Each real client works at the stand-in of Harbor as it does at Harbor: with one key nothing fails; with two keys,
//! and nothing but a load balancer between, operations fail as on real replicas (contract, N).

use crate::{
    lane::{Lane, Ledger, Side},
    support::{
        balancer::{Balancer, Choice},
        client::{self, Client, skopeo::Skopeo},
        harbor::Harbor,
        image::Image,
    },
};

#[test]
fn with_one_key_no_client_fails_directly_at_a_core() {
    let harbor = Harbor::start();
    let core = harbor.replica("only");
    let lane = &Lane::both(core.address, core.address)[0];
    let ledger = Ledger::default();
    for client in client::all() {
        work(&ledger, lane, client.as_ref(), 1);
        assert_eq!(ledger.failures(Side::Direct), 0, "{}\n{}", client.name(), ledger.said());
    }
    println!("\none core, one key\n{ledger}");
}

#[test]
fn with_two_keys_every_operation_of_skopeo_fails_by_turns() {
    let (harbor, ledger, skopeo) = (Harbor::start(), Ledger::default(), Skopeo::new());
    let (first, second) = (harbor.replica("first"), harbor.replica("second"));
    second.hold_the_key_of(&first);
    let balancer = Balancer::nginx(Choice::RoundRobin, &[first.address, second.address]);
    let lane = &Lane::both(balancer.address, balancer.address)[0];
    first.seed("priv/seed:v1", &Image::generate(1, 1));
    work(&ledger, lane, &skopeo, 2);
    assert_eq!(ledger.failures(Side::Direct), 0, "two replicas, one key\n{}", ledger.said());
    second.take_a_key_of_its_own();
    for _ in 0..4 {
        ledger.inspect(lane, &skopeo, "priv/seed:v1");
        ledger.pull(lane, &skopeo, "priv/seed:v1");
        ledger.push_new(lane, &skopeo, 1);
    }
    println!("\ntwo replicas, two keys, nginx by turns\n{ledger}");
    assert_eq!(ledger.failures(Side::Direct), 12, "{}", ledger.said());
}

/// Logs in, then pushes, inspects and pulls so many times.
fn work(ledger: &Ledger, lane: &Lane, client: &dyn Client, times: usize) {
    ledger.login(lane, client);
    for turn in 0..times {
        let repository = format!("priv/{}-{turn}:v1", client.name().replace([' ', '.'], "-"));
        ledger.push(lane, client, &Image::generate(turn as u64, 8), &repository);
        ledger.inspect(lane, client, &repository);
        ledger.pull(lane, client, &repository);
    }
}
