//! docker: its daemon, without containers and without a bridge, and its command line.

use super::{Account, Client, Home, note, patience};
use crate::support::{
    image::Image,
    process::{Failure, Program, run},
    settings,
};
use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// Debian's dockerd, and the docker client of the machine.
#[derive(Debug)]
pub struct Docker {
    program: PathBuf,
    // Ended before the folder that it lives in is removed.
    daemon: Program,
    home: Home,
}

impl Docker {
    pub fn new() -> Self {
        let daemon = settings::packaged("dockerd");
        note("dockerd", &daemon, &["--version"], 2);
        let program = settings::packaged("docker");
        note("docker", &program, &["--version"], 2);
        let home = Home::new();
        let mut command = Command::new(daemon);
        command.args(["--storage-driver", "vfs", "--iptables=false", "--ip6tables=false", "--bridge=none"]);
        // One socket, and no network beside it; 127.0.0.0/8 may be plain HTTP by itself.
        command.arg("-H").arg(format!("unix://{}/docker.sock", home.path().display()));
        command
            .arg("--data-root")
            .arg(home.path().join("data"))
            .arg("--exec-root")
            .arg(home.path().join("exec"));
        command.arg("--pidfile").arg(home.path().join("docker.pid"));
        let mut docker = Self { program, daemon: Program::start(&mut command, home.path(), "dockerd"), home };
        let (program, home) = (&docker.program, &docker.home);
        docker.daemon.wait_until(Duration::from_mins(1), || {
            run(Self::command(program, home).arg("version"), Duration::from_secs(10)).is_ok()
        });
        docker
    }

    fn command(program: &Path, home: &Home) -> Command {
        let mut command = home.command(program);
        command.arg("-H").arg(format!("unix://{}/docker.sock", home.path().display()));
        command
    }

    fn run(&self, arguments: &[&str]) -> Result<(), Failure> {
        run(Self::command(&self.program, &self.home).args(arguments), patience()).map(drop)
    }

    fn forget(&self) -> Result<(), Failure> {
        self.run(&["image", "prune", "--all", "--force"])
    }
}

impl Client for Docker {
    fn name(&self) -> &'static str {
        "dockerd 20.10"
    }

    fn login(&self, at: &Account) -> Result<(), Failure> {
        self.run(&["login", "-u", &at.user, "-p", &at.password, &at.registry.to_string()])
    }

    fn push(&self, at: &Account, image: &Image, repository: &str) -> Result<(), Failure> {
        self.forget()?;
        self.run(&["load", "-q", "-i", &image.archive().to_string_lossy()])?;
        let reference = at.reference(repository);
        self.run(&["tag", &image.name, &reference])?;
        let pushed = self.run(&["push", "-q", &reference]);
        self.forget()?;
        pushed
    }

    fn pull(&self, at: &Account, repository: &str) -> Result<(), Failure> {
        self.forget()?;
        let pulled = self.run(&["pull", "-q", &at.reference(repository)]);
        self.forget()?;
        pulled
    }

    fn inspect(&self, at: &Account, repository: &str) -> Result<(), Failure> {
        self.run(&["manifest", "inspect", "--insecure", &at.reference(repository)])
    }
}
