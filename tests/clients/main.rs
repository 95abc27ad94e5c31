//! Real programs: every client that must not notice, against the real docker-registry.

#![allow(clippy::expect_used, reason = "a test ends at what it can't do")]

#[path = "../support/support.rs"]
mod support;

mod balancers;
mod smoke;
