//! Real programs: every client that must not notice, against the real docker-registry.

#![allow(unreachable_pub, reason = "modules of a test crate")]
#![allow(clippy::print_stdout, reason = "progress and tables are for whoever runs the tests")]
#![allow(clippy::expect_used, reason = "a test ends at what it can't do")]

#[path = "../support/support.rs"]
mod support;

mod balancers;
mod big;
mod broken_keys;
mod chunked_push;
mod core_dies;
mod crew;
mod key_file;
mod lane;
mod mixed_keys;
mod outages;
mod parting;
mod ramp;
mod replicas;
mod restarts;
mod rolling_upgrade;
mod same_second;
#[allow(dead_code, reason = "the suite of the store has its other uses")]
#[path = "../store/servers.rs"]
mod servers;
mod sidecar;
mod smoke;
mod standin;
