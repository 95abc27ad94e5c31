//! The whole of tidegate, as its binary, between raw requests and the stand-in core.

#![allow(unreachable_pub, reason = "modules of a test crate")]
#![allow(clippy::expect_used, reason = "a test ends at what it can't do")]

#[path = "../support/support.rs"]
mod support;

mod bearer;
mod core;
mod key_overlap;
mod key_states;
mod listeners;
