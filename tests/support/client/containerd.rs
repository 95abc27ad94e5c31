//! containerd: a daemon without its CRI, and the `ctr` of the same version.

use super::{Account, Client, Home, note, patience};
use crate::support::{
    image::Image,
    process::{Failure, Program, run},
    settings,
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// containerd of one version.
#[derive(Debug)]
pub struct Containerd {
    name: &'static str,
    /// What `images` of this version needs to do the work in `ctr` itself, as 1.6 does, with the credential and plain
    /// HTTP of its command line.
    local: &'static [&'static str],
    ctr: PathBuf,
    // Ended before the folder that it lives in is removed.
    daemon: Program,
    home: Home,
}

impl Containerd {
    /// Debian's 1.6, with the habits of every `ctr` up to 1.7.15.
    pub fn one() -> Self {
        Self::start("containerd 1.6", 2, &[], settings::packaged("containerd"), settings::packaged("ctr"))
    }

    /// 2.4, built from the Go module proxy.
    pub fn two() -> Self {
        Self::start(
            "containerd 2.4",
            3,
            &["--local"],
            settings::built("containerd-2"),
            settings::built("ctr-2"),
        )
    }

    fn start(
        name: &'static str,
        layout: u8,
        local: &'static [&'static str],
        daemon: PathBuf,
        ctr: PathBuf,
    ) -> Self {
        note("containerd", &daemon, &["--version"], 2);
        let home = Home::new();
        let file = home.path().join("config.toml");
        fs::write(&file, configure(layout, home.path())).expect("config.toml is written");
        let mut command = Command::new(daemon);
        command.arg("--config").arg(file);
        let daemon = Program::start(&mut command, home.path(), "containerd");
        let mut containerd = Self { name, local, ctr, daemon, home };
        let (ctr, home) = (&containerd.ctr, &containerd.home);
        containerd.daemon.wait_until(Duration::from_mins(1), || {
            run(Self::command(ctr, home).arg("version"), Duration::from_secs(10)).is_ok()
        });
        containerd
    }

    fn command(ctr: &Path, home: &Home) -> Command {
        let mut command = home.command(ctr);
        command.arg("--address").arg(home.path().join("containerd.sock"));
        command
    }

    fn run(&self, arguments: &[&str]) -> Result<String, Failure> {
        run(Self::command(&self.ctr, &self.home).args(arguments), patience())
    }

    /// Removes all images, and with `--sync` what they held.
    fn forget(&self) -> Result<(), Failure> {
        for image in self.run(&["images", "list", "-q"])?.lines() {
            self.run(&["images", "remove", "--sync", image])?;
        }
        Ok(())
    }
}

impl Client for Containerd {
    fn name(&self) -> &'static str {
        self.name
    }

    /// `ctr` takes the credential with each command.
    fn login(&self, _: &Account) -> Result<(), Failure> {
        Ok(())
    }

    fn push(&self, at: &Account, image: &Image, repository: &str) -> Result<(), Failure> {
        self.forget()?;
        let archive = image.archive().to_string_lossy().into_owned();
        let words = ["images", "import", "--no-unpack"];
        self.run(&words.iter().chain(self.local).copied().chain([archive.as_str()]).collect::<Vec<_>>())?;
        let (reference, credential) = (at.reference(repository), at.credential());
        let words = ["images", "push", "--plain-http", "--user", &credential];
        let words: Vec<&str> =
            words.iter().chain(self.local).copied().chain([reference.as_str(), &image.name]).collect();
        let pushed = self.run(&words);
        self.forget()?;
        pushed.map(drop)
    }

    fn pull(&self, at: &Account, repository: &str) -> Result<(), Failure> {
        self.forget()?;
        let (reference, credential) = (at.reference(repository), at.credential());
        let words = ["images", "pull", "--plain-http", "--user", &credential, "--snapshotter", "native"];
        let words: Vec<&str> = words.iter().chain(self.local).copied().chain([reference.as_str()]).collect();
        let pulled = self.run(&words);
        self.forget()?;
        pulled.map(drop)
    }

    fn inspect(&self, at: &Account, repository: &str) -> Result<(), Failure> {
        self.forget()?;
        let (reference, credential) = (at.reference(repository), at.credential());
        let fetched = self.run(&[
            "content",
            "fetch",
            "--metadata-only",
            "--plain-http",
            "--user",
            &credential,
            &reference,
        ]);
        self.forget()?;
        fetched.map(drop)
    }
}

/// No CRI, which would want a network; no snapshotter that wants a kernel module.
fn configure(layout: u8, home: &Path) -> String {
    let home = home.display();
    format!(
        "version = {layout}
root = \"{home}/root\"
state = \"{home}/state\"
disabled_plugins = [
  \"io.containerd.grpc.v1.cri\", \"io.containerd.cri.v1.images\", \"io.containerd.cri.v1.runtime\",
  \"io.containerd.snapshotter.v1.overlayfs\", \"io.containerd.snapshotter.v1.btrfs\",
  \"io.containerd.snapshotter.v1.devmapper\", \"io.containerd.snapshotter.v1.zfs\", \"io.containerd.snapshotter.v1.aufs\",
  \"io.containerd.nri.v1.nri\", \"io.containerd.internal.v1.tracing\",
]
[grpc]
address = \"{home}/containerd.sock\"
[ttrpc]
address = \"{home}/containerd.sock.ttrpc\"
"
    )
}
