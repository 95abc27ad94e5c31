//! Runs a client's commands.

use std::{
    io,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

use tokio::process::{Child, Command};

/// How long one command may take.
const PATIENCE: Duration = Duration::from_mins(1);

/// Starts programs in a home.
#[derive(Clone, Debug)]
pub(super) struct Runner {
    home: PathBuf,
    /// Whether the operator's own settings are left to the program.
    of_operator: bool,
    docker_host: Option<String>,
}

impl Runner {
    pub(super) fn new(home: &Path, docker_host: Option<String>) -> Self {
        Self { home: home.to_owned(), of_operator: false, docker_host }
    }

    /// With the operator's own settings, to read what they say.
    pub(super) fn of_operator(home: &Path) -> Self {
        Self { home: home.to_owned(), of_operator: true, docker_host: None }
    }

    /// What a command prints; its own words as the error.
    pub(super) async fn ask(&self, words: &[&str]) -> io::Result<String> {
        let output = self.end(words).await?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            Err(io::Error::other(said(&output)))
        }
    }

    /// Runs a command to its end; its words where it failed.
    pub(super) async fn run(&self, words: &[String]) -> Result<(), String> {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match self.end(&words).await {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => Err(said(&output)),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Starts a daemon that ends with the value.
    pub(super) fn background(&self, words: &[&str]) -> io::Result<Child> {
        let mut command = self.command(words);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().map_err(|error| missing(words, &error))
    }

    async fn end(&self, words: &[&str]) -> io::Result<Output> {
        let ended = tokio::time::timeout(PATIENCE, self.command(words).output()).await;
        let late = || io::Error::new(io::ErrorKind::TimedOut, format!("not done within {PATIENCE:?}"));
        ended.map_err(|_| late())?.map_err(|error| missing(words, &error))
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(words.first().copied().unwrap_or_default());
        command.args(words.iter().skip(1)).stdin(Stdio::null()).kill_on_drop(true);
        if self.of_operator {
            return command;
        }
        let home = &self.home;
        command
            .current_dir(home)
            .env("HOME", home)
            .env("XDG_CONFIG_HOME", home.join(".config"))
            .env("XDG_RUNTIME_DIR", home)
            .env("TMPDIR", home)
            .env("DOCKER_CONFIG", home.join("docker"))
            .env("CONTAINERS_STORAGE_CONF", home.join("storage.conf"))
            .env("CONTAINERS_CONF", home.join("containers.conf"))
            .env("REGISTRY_AUTH_FILE", home.join("auth.json"));
        if let Some(host) = &self.docker_host {
            command.env("DOCKER_HOST", host).env_remove("DOCKER_CONTEXT");
        }
        command
    }
}

fn missing(words: &[&str], error: &io::Error) -> io::Error {
    let program = words.first().copied().unwrap_or_default();
    match error.kind() {
        io::ErrorKind::NotFound => io::Error::new(
            io::ErrorKind::NotFound,
            format!("{program} isn't on PATH: install it, or name another client"),
        ),
        kind => io::Error::new(kind, format!("{program} can't be started: {error}")),
    }
}

/// What a command wrote: its errors, or where it wrote none, anything.
fn said(output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    let words = if errors.trim().is_empty() { String::from_utf8_lossy(&output.stdout) } else { errors };
    if words.trim().is_empty() { output.status.to_string() } else { words.trim().to_owned() }
}
