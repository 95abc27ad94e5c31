//! crane: plain HTTP by itself on loopback, uploads chunked.

use super::{Account, Client, Home, note, patience};
use crate::support::{
    image::Image,
    process::{Failure, run},
    settings,
};
use std::path::PathBuf;

/// crane, built from the Go module proxy.
#[derive(Debug)]
pub struct Crane {
    program: PathBuf,
    home: Home,
}

impl Crane {
    pub fn new() -> Self {
        let program = settings::built("crane");
        note("crane", &program, &["version"], 0);
        Self { program, home: Home::new() }
    }

    fn run(&self, arguments: &[&str]) -> Result<(), Failure> {
        run(self.home.command(&self.program).args(arguments), patience()).map(drop)
    }
}

impl Client for Crane {
    fn name(&self) -> &'static str {
        "crane 0.22"
    }

    fn login(&self, at: &Account) -> Result<(), Failure> {
        self.run(&["auth", "login", &at.registry.to_string(), "-u", &at.user, "-p", &at.password])
    }

    fn push(&self, at: &Account, image: &Image, repository: &str) -> Result<(), Failure> {
        self.run(&["push", &image.layout().to_string_lossy(), &at.reference(repository)])
    }

    fn pull(&self, at: &Account, repository: &str) -> Result<(), Failure> {
        let folder = tempfile::tempdir_in(self.home.path()).expect("a temporary folder");
        let to = folder.path().join("layout");
        self.run(&["pull", "--format=oci", &at.reference(repository), &to.to_string_lossy()])
    }

    fn inspect(&self, at: &Account, repository: &str) -> Result<(), Failure> {
        self.run(&["manifest", &at.reference(repository)])
    }
}
