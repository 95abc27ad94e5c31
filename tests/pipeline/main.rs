//! The whole proxy as an operator configures it: the real binary between a raw client and the stand-in of Harbor,
//! or a recorder that keeps every byte. Each test is named after the behaviour that it shows.

#![allow(unreachable_pub, reason = "modules of a test crate")]
#![allow(clippy::expect_used, reason = "a test ends at what it can't do")]

#[path = "../support/support.rs"]
mod support;

mod archives;
mod bearer;
mod blind;
mod broken_key;
mod clocks;
mod core;
mod crowd;
mod cutter;
mod dead_core;
mod draining;
mod ended_grace;
mod evidence;
mod former_secrets;
mod full_disk;
mod gate_clock;
mod hanging;
mod kept_grace;
mod key_commands;
mod key_overlap;
mod key_states;
mod keys;
mod kills;
mod lines;
mod listeners;
mod listening;
mod meanings;
mod monitoring;
mod names;
mod observing;
mod operating;
mod outages;
mod parking;
mod peers;
mod pkcs11;
mod plain_registry;
mod plans;
mod pullers;
mod pulls;
mod pushes;
mod ramp;
mod recorder;
mod reloading;
mod replicas;
mod request_ids;
mod rolling;
mod second_plans;
#[allow(dead_code, reason = "the suite of the store has its other uses")]
#[path = "../store/servers.rs"]
mod servers;
mod softhsm;
mod stage;
mod store;
mod store_outages;
mod talk;
mod tls;
mod token_service;
mod upstream;
mod upstream_tls;
mod windows;
mod witness;
mod wrong_passwords;
