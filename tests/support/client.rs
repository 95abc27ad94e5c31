//! The clients that must not notice, each behind one trait.

pub mod containerd;
pub mod crane;
pub mod docker;
pub mod podman;
pub mod regctl;
pub mod skopeo;

use super::{
    image::Image,
    process::{self, Failure},
    settings,
};
use std::{net::SocketAddr, path::Path, process::Command, time::Duration};
use tempfile::TempDir;

/// Where a client works, and as whom.
#[derive(Clone, Debug)]
pub struct Account {
    /// The registry as the client is told it: a lane's front door.
    pub registry: SocketAddr,
    pub user: String,
    pub password: String,
}

impl Account {
    pub fn new(registry: SocketAddr, user: &str, password: &str) -> Self {
        Self { registry, user: user.to_owned(), password: password.to_owned() }
    }

    /// `repository` (`project/name:tag`) at this registry.
    pub fn reference(&self, repository: &str) -> String {
        format!("{}/{repository}", self.registry)
    }

    fn credential(&self) -> String {
        format!("{}:{}", self.user, self.password)
    }
}

/// What every client can do. Each operation begins without anything of the image on the client's side, so that
/// its layer really travels; `repository` is `project/name:tag`.
pub trait Client: Send + Sync {
    /// Name and main version, as in the tables.
    fn name(&self) -> &'static str;
    /// Stores the credential and has the registry prove it; clients that take it with each command prove nothing.
    fn login(&self, at: &Account) -> Result<(), Failure>;
    fn push(&self, at: &Account, image: &Image, repository: &str) -> Result<(), Failure>;
    fn pull(&self, at: &Account, repository: &str) -> Result<(), Failure>;
    /// Asks for the manifest or, where a client has no such command, for the tags.
    fn inspect(&self, at: &Account, repository: &str) -> Result<(), Failure>;
}

/// Every client, in the order of the tables.
pub fn all() -> Vec<Box<dyn Client>> {
    vec![
        Box::new(skopeo::Skopeo::new()),
        Box::new(containerd::Containerd::two()),
        Box::new(containerd::Containerd::one()),
        Box::new(docker::Docker::new()),
        Box::new(podman::Podman::new()),
        Box::new(crane::Crane::new()),
        Box::new(regctl::Regctl::new()),
    ]
}

/// How long one operation may take.
pub fn patience() -> Duration {
    Duration::from_secs(if settings::long() { 1800 } else { 120 })
}

/// A client's own home: its credentials and storage touch nothing else on the machine.
#[derive(Debug)]
struct Home(TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// `program`, living here.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env("HOME", self.path())
            .env("XDG_CONFIG_HOME", self.path().join(".config"))
            .env("XDG_RUNTIME_DIR", self.path())
            .env("DOCKER_CONFIG", self.path())
            .env("TMPDIR", self.path());
        command
    }
}

/// Notes a client by its version, the word of that number in the first line of what `arguments` print.
fn note(name: &str, program: &Path, arguments: &[&str], word: usize) {
    let said = process::run(Command::new(program).args(arguments), Duration::from_secs(20));
    let said = said.unwrap_or_else(|failure| panic!("{name} tells its version: {failure}"));
    let version = said.lines().next().unwrap_or_default().split_whitespace().nth(word).unwrap_or_default();
    settings::took_part(name, version.trim_end_matches(','));
}
