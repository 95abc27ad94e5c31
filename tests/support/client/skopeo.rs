//! skopeo: no daemon, the client of most tests.

use super::{Account, Client, Home, note, patience};
use crate::support::{
    image::{self, Image},
    process::{Failure, run},
    settings,
};
use std::{path::PathBuf, process::Command};
use tempfile::TempDir;

/// Debian's skopeo.
#[derive(Debug)]
pub struct Skopeo {
    program: PathBuf,
    home: Home,
}

impl Skopeo {
    pub fn new() -> Self {
        let program = settings::packaged("skopeo");
        note("skopeo", &program, &["--version"], 2);
        Self { program, home: Home::new() }
    }

    fn command(&self, verb: &str) -> Command {
        let mut command = self.home.command(&self.program);
        command.args(["--insecure-policy", verb]);
        command
    }

    /// Pulls an image into a folder: a file for each blob, named by its digest, beside `manifest.json`.
    pub fn fetch(&self, at: &Account, repository: &str) -> Result<TempDir, Failure> {
        let folder = tempfile::tempdir_in(self.home.path()).expect("a temporary folder");
        let mut command = self.command("copy");
        command.args(["--src-tls-verify=false", "--authfile"]).arg(self.authfile());
        let to = format!("dir:{}", folder.path().display());
        run(command.args([format!("docker://{}", at.reference(repository)), to]), patience()).map(|_| folder)
    }

    /// Pushes an image as Docker's own kind of manifest: docker's command line of 20.10 asks for no other.
    pub fn push_for_docker(&self, at: &Account, image: &Image, repository: &str) -> Result<(), Failure> {
        self.copy(at, image, repository, &["--format", "v2s2"])
    }

    fn copy(&self, at: &Account, image: &Image, repository: &str, options: &[&str]) -> Result<(), Failure> {
        let mut command = self.command("copy");
        command.args(options).args(["--dest-tls-verify=false", "--authfile"]).arg(self.authfile());
        let from = format!("oci:{}:{}", image.layout().display(), image::TAG);
        run(command.args([from, format!("docker://{}", at.reference(repository))]), patience()).map(drop)
    }

    fn authfile(&self) -> PathBuf {
        self.home.path().join("auth.json")
    }
}

impl Client for Skopeo {
    fn name(&self) -> &'static str {
        "skopeo 1.9"
    }

    fn login(&self, at: &Account) -> Result<(), Failure> {
        let mut command = self.command("login");
        command.args(["--tls-verify=false", "-u", &at.user, "-p", &at.password, "--authfile"]);
        run(command.arg(self.authfile()).arg(at.registry.to_string()), patience()).map(drop)
    }

    fn push(&self, at: &Account, image: &Image, repository: &str) -> Result<(), Failure> {
        self.copy(at, image, repository, &[])
    }

    fn pull(&self, at: &Account, repository: &str) -> Result<(), Failure> {
        self.fetch(at, repository).map(drop)
    }

    fn inspect(&self, at: &Account, repository: &str) -> Result<(), Failure> {
        let mut command = self.command("inspect");
        command.args(["--tls-verify=false", "--authfile"]).arg(self.authfile());
        run(command.arg(format!("docker://{}", at.reference(repository))), patience()).map(drop)
    }
}
