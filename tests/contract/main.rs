//! The contract suite: a test for each line of the contract with Harbor, named by its id.
//!
//! It runs on the stand-in core in each version, or on a real Harbor named by the environment; see `docs/contract-suite.md`.
//! The lines on OIDC (O, with C13, S5, T13) come with their issue.

#![expect(clippy::expect_used, reason = "a test says by its panic what it missed")]

#[path = "../support/support.rs"]
mod support;

mod backends;
mod challenges;
mod client;
mod environment;
mod front;
mod keys;
mod parts;
mod registry_double;
mod restarts;
mod sessions;
mod stand_in;
mod target;
mod token_service;
mod tokens;
mod uploads;
mod verification;
