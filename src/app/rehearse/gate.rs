//! The rehearsal's own tidegate.

use std::{
    fs, io,
    net::SocketAddr,
    path::PathBuf,
    pin::Pin,
    thread,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use crate::{
    app::{
        admin::client::{Client, Target},
        config::{self, Flags, Sources},
        serve,
        status::{Endpoint, Held, Status},
    },
    rehearsal::stage::{Gate, Gated, Wanted},
};

/// How long it may take to be ready, or to take up a new configuration.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks whether it is.
const LOOK: Duration = Duration::from_millis(25);

/// A tidegate in a thread of this process: the same assembly as `tidegate serve`, with a configuration file and an admin
/// socket.
struct InProcess {
    wanted: Wanted,
    client: Client,
    stop: oneshot::Sender<()>,
    thread: thread::JoinHandle<anyhow::Result<()>>,
}

pub(super) async fn start(wanted: Wanted) -> io::Result<Box<dyn Gate>> {
    write(&wanted, &wanted.replicas)?;
    let sources = Sources { file: Some(file(&wanted)), environment: Vec::new(), flags: Flags::default() };
    let settings = config::load(&sources).map_err(|faults| io::Error::other(faults.to_string()))?;
    let (stop, stopped) = oneshot::channel();
    let thread = thread::Builder::new()
        .name("tidegate".to_owned())
        .spawn(move || serve::run_until(settings, sources, stopped))?;
    let client = Client { target: Target::Unix(socket(&wanted)), token: None };
    let gate = InProcess { wanted, client, stop, thread };
    gate.until_it_serves(&gate.wanted.replicas).await?;
    Ok(Box::new(gate))
}

impl Gate for InProcess {
    fn serve<'a>(
        &'a self,
        replicas: &'a [SocketAddr],
    ) -> Pin<Box<dyn Future<Output = io::Result<()>> + Send + 'a>> {
        Box::pin(async move {
            write(&self.wanted, replicas)?;
            self.until_it_serves(replicas).await
        })
    }

    fn counted(&self) -> Pin<Box<dyn Future<Output = io::Result<Gated>> + Send + '_>> {
        Box::pin(async move {
            let status: Status = self.client.get("/v1/status").await.map_err(io::Error::other)?;
            Ok(Gated { rescues: status.rescues, rejections: status.rejections })
        })
    }

    fn end(self: Box<Self>) -> Pin<Box<dyn Future<Output = io::Result<()>> + Send>> {
        Box::pin(async move {
            // Where nobody listens any more it has ended already, and says why.
            let Self { stop, thread, .. } = *self;
            let _ = stop.send(());
            let ended = tokio::task::spawn_blocking(move || thread.join()).await?;
            ended.map_err(|_| io::Error::other("tidegate panicked"))?.map_err(io::Error::other)
        })
    }
}

impl InProcess {
    /// Waits until these are its endpoints and it knows the key of each.
    async fn until_it_serves(&self, replicas: &[SocketAddr]) -> io::Result<()> {
        let until = Instant::now() + PATIENCE;
        loop {
            let status = self.client.get::<Status>("/v1/status").await;
            if status.is_ok_and(|status| serves(&status, replicas)) {
                return Ok(());
            }
            if self.thread.is_finished() || Instant::now() > until {
                return Err(io::Error::other("tidegate is not ready: `tidegate check` may know why"));
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

fn serves(status: &Status, replicas: &[SocketAddr]) -> bool {
    let known = |address: &SocketAddr| {
        let is = |e: &&Endpoint| e.address == address.to_string() && matches!(e.held, Held::One(_));
        status.endpoints.iter().any(|endpoint| is(&endpoint))
    };
    status.endpoints.len() == replicas.len() && replicas.iter().all(known)
}

/// Its configuration, replaced whole as an operator should.
fn write(wanted: &Wanted, replicas: &[SocketAddr]) -> io::Result<()> {
    let endpoints: Vec<String> =
        replicas.iter().map(|replica| format!("{{ url = \"http://{replica}\" }}")).collect();
    let text = format!(
        "[[listener]]\naddress = \"{}\"\n\n[upstream]\nendpoints = [{}]\n\n[keys]\nsources = [{{ file = {} }}]\n\n\
         [timeouts]\ndrain_delay = \"0s\"\ndrain = \"2s\"\n\n[admin]\naddress = {}\n\n[log]\naccess = false\n\n[store]\nurl = \"memory:\"\n",
        wanted.listen,
        endpoints.join(", "),
        quoted(&wanted.key_file.display().to_string()),
        quoted(&format!("unix:{}", socket(wanted).display())),
    );
    let beside = wanted.folder.join("tidegate.toml.next");
    fs::write(&beside, text)?;
    fs::rename(beside, file(wanted))
}

/// As TOML writes a text.
fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

fn file(wanted: &Wanted) -> PathBuf {
    wanted.folder.join("tidegate.toml")
}

fn socket(wanted: &Wanted) -> PathBuf {
    wanted.folder.join("admin")
}
