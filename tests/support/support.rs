//! Real programs on loopback, for the test crates: each type starts one on free ports and temporary folders, waits
//! until it serves, ends it when dropped, and shows what it said when something fails.
//!
//! Included by `#[path = "../support/support.rs"] mod support;`.
#![allow(clippy::expect_used, reason = "a program that can't be started ends the test, with what it said")]
#![allow(dead_code, unreachable_pub, reason = "each test crate uses its part of the programs")]

pub mod balancer;
pub mod client;
pub mod failing;
pub mod gate;
pub mod harbor;
pub mod http;
pub mod image;
pub mod ports;
pub mod process;
pub mod registry;
pub mod settings;
pub mod slow_link;
pub mod tap;
pub mod waiting;
pub mod witness;
