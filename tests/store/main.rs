//! What every store must do, on every store there is: memory, an embedded file, Redis alone, behind Sentinel and as a
//! Cluster of three nodes, each of them real processes.

#![allow(unreachable_pub, reason = "modules of a test crate")]
#![allow(clippy::expect_used, reason = "a test ends at what it can't do")]
#![allow(dead_code, reason = "other suites use the rest of what they share")]

#[path = "../support/support.rs"]
mod support;

mod archive_fixtures;
mod behaviour;
mod embedded;
mod fixtures;
mod redis;
mod servers;
