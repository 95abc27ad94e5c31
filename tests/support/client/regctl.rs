//! regctl: retries by itself, goes back to Basic on pushes.

use super::{Account, Client, Home, note, patience};
use crate::support::{
    image::{self, Image},
    process::{Failure, run},
    settings,
};
use std::path::PathBuf;

/// regctl, built from the Go module proxy.
#[derive(Debug)]
pub struct Regctl {
    program: PathBuf,
    home: Home,
}

impl Regctl {
    pub fn new() -> Self {
        let program = settings::built("regctl");
        note("regctl", &program, &["version", "--format", "{{.VCSTag}}"], 0);
        Self { program, home: Home::new() }
    }

    fn run(&self, arguments: &[&str]) -> Result<(), Failure> {
        run(self.home.command(&self.program).args(arguments), patience()).map(drop)
    }
}

impl Client for Regctl {
    fn name(&self) -> &'static str {
        "regctl 0.11"
    }

    fn login(&self, at: &Account) -> Result<(), Failure> {
        let registry = at.registry.to_string();
        self.run(&["registry", "set", "--skip-check", "--tls", "disabled", &registry])?;
        self.run(&["registry", "login", &registry, "-u", &at.user, "-p", &at.password])
    }

    fn push(&self, at: &Account, image: &Image, repository: &str) -> Result<(), Failure> {
        let from = format!("ocidir://{}:{}", image.layout().display(), image::TAG);
        self.run(&["image", "copy", &from, &at.reference(repository)])
    }

    fn pull(&self, at: &Account, repository: &str) -> Result<(), Failure> {
        let folder = tempfile::tempdir_in(self.home.path()).expect("a temporary folder");
        let to = format!("ocidir://{}/layout:{}", folder.path().display(), image::TAG);
        self.run(&["image", "copy", &at.reference(repository), &to])
    }

    fn inspect(&self, at: &Account, repository: &str) -> Result<(), Failure> {
        self.run(&["manifest", "get", &at.reference(repository)])
    }
}
