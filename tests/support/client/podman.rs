//! podman: images in a storage of its own, without containers.

use super::{Account, Client, Home, note, patience};
use crate::support::{
    image::Image,
    process::{Failure, run},
    settings,
};
use std::{fs, path::PathBuf};

/// Debian's podman.
#[derive(Debug)]
pub struct Podman {
    program: PathBuf,
    home: Home,
}

impl Podman {
    pub fn new() -> Self {
        let program = settings::packaged("podman");
        note("podman", &program, &["--version"], 2);
        let home = Home::new();
        let folder = home.path().display();
        // The drivers that need nothing of the kernel.
        let storage = format!(
            "[storage]\ndriver = \"vfs\"\ngraphroot = \"{folder}/graph\"\nrunroot = \"{folder}/run\"\n"
        );
        fs::write(home.path().join("storage.conf"), storage).expect("storage.conf is written");
        let containers = "[engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n";
        fs::write(home.path().join("containers.conf"), containers).expect("containers.conf is written");
        Self { program, home }
    }

    fn run(&self, arguments: &[&str]) -> Result<(), Failure> {
        let mut command = self.home.command(&self.program);
        command
            .env("CONTAINERS_STORAGE_CONF", self.home.path().join("storage.conf"))
            .env("CONTAINERS_CONF", self.home.path().join("containers.conf"))
            .env("REGISTRY_AUTH_FILE", self.home.path().join("auth.json"));
        run(command.args(arguments), patience()).map(drop)
    }

    fn forget(&self) -> Result<(), Failure> {
        self.run(&["image", "rm", "--all", "--force"])
    }
}

impl Client for Podman {
    fn name(&self) -> &'static str {
        "podman 4.3"
    }

    fn login(&self, at: &Account) -> Result<(), Failure> {
        let registry = at.registry.to_string();
        self.run(&["login", "--tls-verify=false", "-u", &at.user, "-p", &at.password, &registry])
    }

    fn push(&self, at: &Account, image: &Image, repository: &str) -> Result<(), Failure> {
        self.forget()?;
        self.run(&["load", "-q", "-i", &image.archive().to_string_lossy()])?;
        let to = format!("docker://{}", at.reference(repository));
        let pushed = self.run(&["push", "-q", "--tls-verify=false", &image.name, &to]);
        self.forget()?;
        pushed
    }

    fn pull(&self, at: &Account, repository: &str) -> Result<(), Failure> {
        self.forget()?;
        let pulled = self.run(&["pull", "-q", "--tls-verify=false", &at.reference(repository)]);
        self.forget()?;
        pulled
    }

    fn inspect(&self, at: &Account, repository: &str) -> Result<(), Failure> {
        let untagged = repository.split(':').next().unwrap_or(repository);
        self.run(&["search", "--list-tags", "--tls-verify=false", &at.reference(untagged)])
    }
}
