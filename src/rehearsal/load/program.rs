//! A real client that makes the load: found on `PATH`, with a home of its own, so that its credentials and storage touch
//! nothing else on the machine.

mod run;
mod script;
mod words;

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{process::Child, time::Instant};

use self::{
    run::Runner,
    script::{Script, Setting},
};
use super::{client::Client, image::Image, place::Place, site::Origin};

/// How long a daemon may take to answer at first.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks whether it does.
const LOOK: Duration = Duration::from_millis(100);

/// One client with its home. It does one thing at a time.
#[derive(Debug)]
pub struct Program {
    client: Client,
    registry: String,
    home: PathBuf,
    runner: Runner,
    /// See [`Setting`].
    local: bool,
    /// Ended with us.
    daemon: Option<Child>,
}

/// The version of a client that is there and works; an error that names it where it doesn't. The operator's own settings
/// say where a daemon is.
pub async fn find(client: Client, folder: &Path) -> io::Result<String> {
    let runner = Runner::of_operator(folder);
    if client == Client::Containerd {
        runner.ask(&["containerd", "--version"]).await?;
    }
    let asked = runner.ask(script::version(client)).await;
    let said = asked.map_err(|error| match client {
        Client::Docker if error.kind() == io::ErrorKind::Other => {
            io::Error::other(format!("docker has no daemon that answers: {error}"))
        }
        _ => error,
    })?;
    Ok(said.split_whitespace().last().unwrap_or_default().to_owned())
}

impl Program {
    /// A client of this registry that lives in a new folder `home`.
    pub async fn start(client: Client, registry: &Origin, home: PathBuf) -> io::Result<Self> {
        let registry = registry.authority();
        fs::create_dir_all(home.join("docker"))?;
        for (name, content) in script::files(client, &registry, &home) {
            fs::write(home.join(name), content)?;
        }
        let runner = Runner::new(&home, docker_host(client, &home).await);
        let mut program = Self { client, registry, home, runner, local: false, daemon: None };
        if client == Client::Containerd {
            program.start_containerd().await?;
        }
        Ok(program)
    }

    async fn start_containerd(&mut self) -> io::Result<()> {
        let (config, socket) = (self.at("config.toml"), self.at("containerd.sock"));
        self.daemon = Some(self.runner.background(&["containerd", "--config", &config])?);
        let until = Instant::now() + PATIENCE;
        while let Err(error) = self.runner.ask(&["ctr", "--address", &socket, "version"]).await {
            if Instant::now() > until {
                return Err(io::Error::other(format!("containerd doesn't start (it wants root): {error}")));
            }
            tokio::time::sleep(LOOK).await;
        }
        let help = self.runner.ask(&["ctr", "images", "pull", "--help"]).await?;
        self.local = help.contains("--local");
        Ok(())
    }

    pub(super) async fn login(&self) -> Result<(), String> {
        self.play(&script::login(self.client, &self.setting())).await
    }

    pub(super) async fn pull(&self, place: &Place) -> Result<(), String> {
        self.play(&script::pull(self.client, &self.setting(), place)).await
    }

    pub(super) async fn push(&self, place: &Place, image: &Image) -> Result<(), String> {
        let name = script::local_name(place);
        let (layout, archive) = (self.home.join(script::LAYOUT), self.home.join(script::ARCHIVE));
        // Left by the push before.
        _ = fs::remove_dir_all(&layout);
        let written = image.write(&layout, &archive, &name, script::TAG);
        written.map_err(|error| format!("the image can't be written: {error}"))?;
        self.play(&script::push(self.client, &self.setting(), place)).await
    }

    /// Ends what the client left behind on its own.
    pub async fn end(&self) {
        for words in script::end(self.client) {
            // Where nothing is left there is nothing to end.
            _ = self.runner.run(&words).await;
        }
    }

    /// Runs what is written, and what tidies up in any case.
    async fn play(&self, script: &Script) -> Result<(), String> {
        let mut ended = Ok(());
        for words in &script.work {
            ended = self.runner.run(words).await;
            if ended.is_err() {
                break;
            }
        }
        for words in &script.after {
            // What was never there can't be removed.
            _ = self.runner.run(words).await;
        }
        _ = fs::remove_dir_all(self.home.join(script::PULLED));
        ended.map_err(|said| words::plain(&said, &self.registry))
    }

    fn setting(&self) -> Setting<'_> {
        let (user, password) = self.client.sample();
        Setting { registry: &self.registry, user, password, home: &self.home, local: self.local }
    }

    fn at(&self, name: &str) -> String {
        self.home.join(name).display().to_string()
    }
}

/// The socket of the daemon that the operator's own docker uses: by its context, which a home of our own doesn't have.
async fn docker_host(client: Client, home: &Path) -> Option<String> {
    const CONTEXT: [&str; 5] = ["docker", "context", "inspect", "-f", "{{.Endpoints.docker.Host}}"];
    if client != Client::Docker {
        return None;
    }
    let host = Runner::of_operator(home).ask(&CONTEXT).await.ok()?;
    Some(host.trim().to_owned()).filter(|host| !host.is_empty())
}
