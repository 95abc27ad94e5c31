//! The very moment in which replicas behind one address begin to hold different keys: tidegate has to find out by
//! the first refusal, and that request may not be lost for it.

use crate::support::{
    balancer::{Balancer, Choice},
    gate::{self, Gate},
    harbor::{self, Harbor},
    http::Connection,
    image::Image,
    settings,
};

const SEED: &str = "priv/seed:v1";
/// Requests after each parting.
const REQUESTS: usize = 8;

/// Chance decides which replica answers what, so that many partings are needed: a plan that tries a refused key
/// again for the same request lost one in twelve.
#[test]
fn no_request_fails_when_replicas_behind_one_address_part() {
    let partings = if settings::long() { 300 } else { 40 };
    let harbor = Harbor::start();
    let (first, second) = (harbor.replica("first"), harbor.replica("second"));
    first.seed(SEED, &Image::generate(6, 1));
    let balancer = Balancer::nginx(Choice::Random, &[first.address, second.address]);
    let configuration =
        gate::configuration(&[balancer.address], "auto", &[&first.key_file, &second.key_file]);
    for parting in 0..partings {
        second.hold_the_key_of(&first);
        let gate = Gate::start(&configuration);
        let token = harbor::token(gate.address, SEED);
        second.take_a_key_of_its_own();
        let mut connection = Connection::open(gate.address).expect("a connection");
        let statuses = [(); REQUESTS].map(|()| harbor::use_token(&mut connection, &token, SEED));
        assert_eq!(statuses, [200; REQUESTS], "parting {parting} of {partings}");
    }
}
