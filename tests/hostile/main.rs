//! Hostile input: what it gets from the real binary, in front of a raw recorder that keeps every byte, or of the
//! stand-in where Harbor's own behaviour matters.

#![allow(unreachable_pub, dead_code, reason = "modules of a test crate")]
#![allow(clippy::print_stdout, reason = "measured numbers are for whoever runs the tests")]
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test ends at what it can't do")]

#[path = "../support/support.rs"]
mod support;

mod bench;
mod raw;
mod recorder;
mod standin;

mod admin;
mod answers;
mod framing;
mod headers;
mod http2;
mod keys;
mod memory;
mod operators;
mod refusals;
mod service;
mod shares;
mod slow;
mod targets;
mod tls;
mod tokens;
