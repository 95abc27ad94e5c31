//! The assembly: the only group that knows every concrete type.

pub mod admin;
mod binding;
pub mod check;
pub mod cli;
pub mod config;
mod distant;
mod held_keys;
mod log;
pub mod pages;
pub mod ramp;
mod realm;
mod rehearse;
pub mod serve;
pub mod status;
mod store;
pub mod translate;

use std::process::ExitCode;

/// Runs the command line of this process. What the commands start is put together here.
pub fn run() -> ExitCode {
    let programs =
        cli::Programs { serve: serve::run, rehearse: rehearse::run, ask_endpoints: check::endpoints::ask };
    cli::run(std::env::args_os(), &programs)
}
