//! The command line. Exit codes: 0 done, 1 failed, 2 usage, 64 bad configuration.

mod archive;
mod ask;
mod hash;
mod keys;
mod orders;
pub mod output;
mod ramp;

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

use super::{
    check,
    config::{self, Faults, Flags, Settings, Sources, documents},
    rehearse::order::{Order, Rehearse},
};
use crate::words::clock::Clock;

/// What the commands do that isn't done here.
pub struct Programs {
    /// Serves until it is told to stop. The sources are there to be loaded again.
    pub serve: fn(Settings, Sources) -> anyhow::Result<()>,
    /// Says whether our lane lost nothing and the direct one something.
    pub rehearse: fn(&Order) -> anyhow::Result<bool>,
    /// Resolves, connects to and probes every endpoint.
    pub ask_endpoints: fn(&Settings) -> check::Asked,
}

/// An authenticating reverse proxy in front of Harbor: clients keep working while its signing key changes.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, arg_required_else_help = true, max_term_width = 80)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the proxy. SIGHUP or a changed file reloads its configuration, SIGTERM drains it
    Serve(Serving),
    /// Show what `serve` would run with and everything that is wrong with it: configuration, keys, certificates,
    /// addresses, endpoints. Nothing listens
    Check(Check),
    /// Play an upgrade of Harbor with a new key under load, directly and through tidegate; or make the same load on
    /// your own Harbor while you upgrade it
    Rehearse(Rehearse),
    /// Show endpoints with their keys, the key ring and the rescues of a running tidegate
    ///
    /// Exit code: 0 where it is ready, 1 where it is not ready or doesn't answer.
    Status(ask::Status),
    /// List, add, retire and publish the keys of a running tidegate, back them up and restore them
    #[command(subcommand)]
    Keys(keys::Keys),
    /// The upgrade window: while it is open, endpoints are asked for their keys every few seconds, and a key that stops
    /// signing goes on verifying at least until it closes
    #[command(subcommand)]
    Window(orders::Window),
    /// End at once, on all replicas, a token, or all that a user was given so far: tokens, cached answers, grace
    ///
    /// What Harbor gives the user afterwards is good. To keep somebody out, end the account in Harbor first.
    Revoke(orders::RevokeArguments),
    /// Show and steer the move to the endpoints with side = "next" of a running tidegate
    #[command(subcommand)]
    Ramp(ramp::Ramp),
    /// Print the hash of a robot's former secret, for `former_hash_file`
    HashSecret(hash::HashSecret),
    /// Print the configuration's schema or a file with all its defaults
    #[command(subcommand)]
    Config(Documents),
}

/// Where the configuration comes from.
#[derive(Debug, Args)]
struct Serving {
    /// Configuration; else ./tidegate.toml, else /etc/tidegate/tidegate.toml, else none
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Harbor core, or what stands before it
    #[arg(long, value_name = "URL")]
    harbor: Option<String>,
    /// Listen here, without TLS
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Vec<String>,
    /// The key that core signs with, or a folder of keys if it ends with /
    #[arg(long, value_name = "PATH")]
    key: Vec<PathBuf>,
    /// Judge and change nothing, only count
    #[arg(long)]
    observe: bool,
}

#[derive(Debug, Args)]
struct Check {
    #[command(flatten)]
    serving: Serving,
    /// Ask no endpoint
    #[arg(long)]
    offline: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Documents {
    /// The JSON schema
    Schema,
    /// A file with every key, its meaning and its default
    Reference,
}

/// Why a command didn't do what it was told.
enum Failure {
    Configuration(Faults),
    Other(anyhow::Error),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}

impl From<Faults> for Failure {
    fn from(faults: Faults) -> Self {
        Self::Configuration(faults)
    }
}

/// Runs one command.
pub fn run(arguments: impl IntoIterator<Item = OsString>, programs: &Programs) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(usage) => return output::usage(&usage),
    };
    match command(cli.command, programs) {
        Ok(code) => code.into(),
        Err(Failure::Configuration(faults)) => {
            output::complain(&format!("{} in the configuration\n\n{faults}", counted(faults.0.len())));
            64.into()
        }
        Err(Failure::Other(error)) => {
            output::complain(&format!("error: {error:#}\n"));
            1.into()
        }
    }
}

fn counted(faults: usize) -> String {
    if faults == 1 { "1 fault".to_owned() } else { format!("{faults} faults") }
}

fn command(command: Command, programs: &Programs) -> Result<u8, Failure> {
    match command {
        Command::Serve(serving) => {
            let sources = serving.sources();
            let settings = config::load(&sources)?;
            (programs.serve)(settings, sources)?;
            Ok(0)
        }
        Command::Check(check) => Ok(check.run(programs)?),
        Command::Rehearse(rehearse) => Ok(u8::from(!(programs.rehearse)(&rehearse.order()?)?)),
        Command::Status(status) => status.run(),
        Command::Keys(keys) => keys.run(),
        Command::Window(window) => window.run(),
        Command::Revoke(revoke) => revoke.run(),
        Command::Ramp(ramp) => ramp.run(),
        Command::HashSecret(hash) => hash.run(),
        Command::Config(Documents::Schema) => Ok(output::print(&documents::schema()?)),
        Command::Config(Documents::Reference) => Ok(output::print(&documents::defaults())),
    }
}

impl Serving {
    fn sources(self) -> Sources {
        let Self { config, harbor, listen, key, observe } = self;
        Sources::of_process(config, Flags { harbor, listen, keys: key, observe })
    }
}

impl Check {
    fn run(self, programs: &Programs) -> anyhow::Result<u8> {
        let ask: &check::AskEndpoints = &programs.ask_endpoints;
        let report = check::check(&self.serving.sources(), &Clock::system(), (!self.offline).then_some(ask));
        let text = if self.json { serde_json::to_string_pretty(&report)? + "\n" } else { report.to_string() };
        output::print(&text);
        Ok(report.exit_code())
    }
}

#[cfg(test)]
mod tests;
