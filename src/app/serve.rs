//! `tidegate serve`: everything put together, and taken apart again in order.

mod begun;
mod operator;
mod reload;
pub(super) mod wiring;
mod workers;

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow};
use arc_swap::ArcSwap;
use aws_lc_rs::rand;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{Notify, oneshot, watch},
    task::JoinSet,
};

use self::{operator::Process, wiring::Wired, workers::Workers};
use super::{
    admin,
    binding::Unbound,
    config::{AdminAddress, Settings, Sources},
    realm::{self, Reached},
    store, translate,
};
use crate::{
    edges::{
        distant::Distant,
        fleet::Endpoint,
        key_source,
        listener::{Listener, Places, own_addresses},
        probe::{
            reading::Held,
            rounds::{AskPlain, Learn, Pace, Rounds},
        },
        resolve::{self, Names},
        store::Store,
        telemetry::access_log,
        tls::ClientTls,
    },
    flow::{
        connection::Door,
        context::Shared,
        formers,
        kept_graces::{self, KeptGraces},
        plain::{self, Known},
        registry::serves,
        replicas::Replicas,
        seen_keys::{SeenKeys, Shelves},
    },
    words::clock::Clock,
};

/// How long the first round of probes may hold up the start.
const FIRST_ROUND: Duration = Duration::from_secs(10);

/// How long the first answers of peers and JWKS URLs may hold up the start.
const FIRST_ANSWERS: Duration = Duration::from_secs(1);

/// How long the access log's last lines may take at the end.
const LAST_LINES: Duration = Duration::from_secs(1);

/// How long the store's last changes may take at the end.
const LAST_CHANGES: Duration = Duration::from_secs(2);

/// Serves until SIGTERM or SIGINT, then drains. Errors are of the start only.
pub fn run(settings: Settings, sources: Sources) -> anyhow::Result<()> {
    super::log::start(settings.log);
    control()?.block_on(async { serve(settings, sources, told_by_signal()?).await })
}

/// The same for one among other things of a process: it ends when it is told to, or forgotten, and starts no log.
pub fn run_until(settings: Settings, sources: Sources, stop: oneshot::Receiver<()>) -> anyhow::Result<()> {
    let told = async {
        let _ = stop.await;
        "its owner"
    };
    control()?.block_on(serve(settings, sources, told))
}

fn control() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("control")
        .enable_all()
        .build()
        .context("the control runtime did not start")
}

async fn serve(
    settings: Settings,
    sources: Sources,
    told: impl Future<Output = &'static str>,
) -> anyhow::Result<()> {
    let clock = Clock::system();
    let began_with = settings.clone();
    let watch = reload::Watch::begin(sources.clone());
    let Wired { shared, names, doors, alarms } = wiring::wire(&settings, &clock)?;
    let (stop_background, stopped) = watch::channel(false);
    let mut background = JoinSet::new();

    let listeners = bind(&settings)?;
    let admin = admin::Bound::bind(&settings.admin.address).await.map_err(|error| {
        let address = &settings.admin.address;
        anyhow!(Unbound::of(address, &error).sentence("admin listener", address, "admin.address"))
    })?;

    let (store, replicas) = store(&settings, &shared, &clock, &mut background, &stopped).await?;
    let kept = store.store.clone();
    begun::tell(&settings, &sources, store.name(), &shared.keys.ring(), clock.now());
    // Core may take another key while we ask for it.
    follow_files(&shared, &clock, settings.keys.reread_every, &mut background, &stopped);
    resolve::resolve(&shared.fleet, &names.load_full()).await;
    let mut rounds = rounds(&settings, &shared, &clock);
    if tokio::time::timeout(FIRST_ROUND, rounds.round()).await.is_err() {
        tracing::warn!("not every endpoint has answered its first probe; serving begins without");
    }
    background.spawn(stop_at(rounds.run(shared.probe_now.clone()), stopped.clone()));
    background.spawn(stop_at(watch_endpoints(shared.clone()), stopped.clone()));
    background.spawn(stop_at(watch_outages(shared.clone()), stopped.clone()));
    background.spawn(stop_at(watch_windows(shared.clone()), stopped.clone()));
    background.spawn(stop_at(probe_at_new_keys(shared.clone()), stopped.clone()));
    ask_afar(&shared.distant, &mut background, &stopped).await;
    let resolve_now = Arc::new(Notify::new());
    background.spawn(resolve::run(
        shared.fleet.clone(),
        names.clone(),
        settings.upstream.resolve_every,
        resolve_now.clone(),
        shared.probe_now.clone(),
        stopped.clone(),
    ));
    follow_certificates(&names, &doors, &clock, &mut background, &stopped);

    let writer = settings.log.access.then(|| access_log::Writer::start(std::io::stdout())).transpose()?;
    let (drain, draining) = watch::channel(false);
    let (close, closing) = watch::channel(false);
    let workers = Workers::start(&settings, &shared, &doors, writer.as_ref(), &closing)?;
    let places = Places::new(settings.limits.connections);
    let (stop_accepting, accepting) = watch::channel(false);
    for (number, listener) in listeners.into_iter().enumerate() {
        tracing::info!(address = %listener.address()?, "listening");
        background.spawn(listener.accept(places.clone(), accepting.clone(), workers.hand(number)));
    }
    let process = Arc::new(Process {
        shared: shared.clone(),
        counters: workers.counters(),
        places: places.clone(),
        alarms,
        store,
        replicas: replicas.clone(),
        deployment: settings.deployment.clone(),
        policy: translate::policy(&settings.keys),
        began: Instant::now(),
        draining: draining.clone(),
    });
    let mut admin_stop = stopped.clone();
    background.spawn(async move {
        let asked = async move {
            let _ = admin_stop.wait_for(|stop| *stop).await;
        };
        admin::serve(admin, &settings.admin, process, asked).await;
    });
    let reloading = reload::run(watch, began_with, shared.clone(), names, resolve_now, clock);
    let told = tokio::select! {
        told = told => told,
        () = reloading => "reload ended",
    };
    tracing::info!(signal = told, "draining: readiness is off, requests that run may end");

    drain.send_replace(true);
    let (delay, most) = (settings.timeouts.drain_delay, settings.timeouts.drain);
    workers.drain(&stop_accepting, &close, &places, (delay, most)).await;
    if let Some(writer) = writer {
        finish(writer).await;
    }
    if let Some(store) = kept {
        if let Some(replicas) = replicas {
            replicas.leave();
        }
        last_changes(&store).await;
    }
    stop_background.send_replace(true);
    let ended = async { while background.join_next().await.is_some() {} };
    if tokio::time::timeout(Duration::from_secs(5), ended).await.is_err() {
        tracing::warn!("some background task did not end in time");
    }
    shared.keys.end();
    tracing::info!("stopped");
    Ok(())
}

/// Waits for the last lines. Standard output may be a pipe that nobody reads: its thread is then left behind.
async fn finish(writer: access_log::Writer) {
    let (done, written) = oneshot::channel();
    let waits = thread::Builder::new().name("last-lines".into()).spawn(move || {
        writer.finish();
        // Nobody may be waiting any more.
        let _ = done.send(());
    });
    if waits.is_err() || !matches!(tokio::time::timeout(LAST_LINES, written).await, Ok(Ok(()))) {
        tracing::warn!("standard output takes no more lines; the last ones of the access log are lost");
    }
}

fn bind(settings: &Settings) -> anyhow::Result<Vec<Listener>> {
    let bind = |(i, l): (usize, &super::config::Listener)| {
        Listener::bind(l.address).map_err(|error| {
            let (address, key) = (AdminAddress::Tcp(l.address), format!("listener[{i}].address"));
            anyhow!(Unbound::of(&address, &error).sentence("listener", &address, &key))
        })
    };
    settings.listeners.iter().enumerate().map(bind).collect()
}

/// The rounds of probes, and what they teach.
fn rounds(settings: &Settings, shared: &Arc<Shared>, clock: &Clock) -> Rounds {
    let probe = &settings.upstream.probe;
    let learner: Arc<dyn Learn> = Arc::new(Learner::new(shared, settings));
    let pace = Pace { every: probe.every, in_window: probe.in_window, timeout: probe.timeout };
    Rounds::new(shared.fleet.clone(), pace, clock.clone(), learner)
}

/// Opens the store, takes what it holds into the ring, and keeps the two together from then on, and with other
/// replicas.
async fn store(
    settings: &Settings,
    shared: &Arc<Shared>,
    clock: &Clock,
    background: &mut JoinSet<()>,
    stopped: &watch::Receiver<bool>,
) -> anyhow::Result<(store::Opened, Option<Arc<Replicas>>)> {
    let opened = store::open(settings, clock)?;
    let Some(store) = &opened.store else {
        kept_graces::without_a_store(shared);
        if opened.is_lost {
            shared.keys.trust_held_only(true, clock.now());
        }
        return Ok((opened, None));
    };
    if settings.store.url.servers().is_none() {
        shared.keys.recall_as_own();
    }
    let shelves = Shelves {
        keys: shared.keys.clone(),
        revocations: shared.revocations.clone(),
        windows: shared.windows.clone(),
        answers: shared.answers.clone(),
        graces: shared.graces.clone(),
    };
    let us = us()?;
    let mut seen_keys = SeenKeys::new(store.clone(), shelves, clock.clone(), us.1.clone());
    let (applied, evidence) = (seen_keys.applied(), shared.evidence.clone());
    let replicas = Arc::new(Replicas::new(store.clone(), us, clock.clone(), applied, evidence));
    seen_keys.begin(opened.is_lost).await;
    background.spawn(store.clone().run(stopped.clone()));
    background.spawn(stop_at(seen_keys.run(), stopped.clone()));
    background.spawn(stop_at(replicas.clone().run(), stopped.clone()));
    let graces = KeptGraces::new(store.clone(), shared.clone());
    graces.begin().await;
    background.spawn(stop_at(graces.run(), stopped.clone()));
    Ok((opened, Some(replicas)))
}

/// What this process is called among its like: an id of its own, its machine, its version.
fn us() -> anyhow::Result<(String, String, &'static str)> {
    let mut id = [0; 8];
    rand::fill(&mut id).ok().context("no randomness")?;
    let id = format!("{:016x}", u64::from_be_bytes(id));
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = if host.trim().is_empty() { "unknown" } else { host.trim() };
    Ok((id, host.to_owned(), env!("CARGO_PKG_VERSION")))
}

/// Peers and JWKS URLs are asked from now on; the first answers are waited for.
async fn ask_afar(distant: &Arc<Distant>, background: &mut JoinSet<()>, stopped: &watch::Receiver<bool>) {
    background.spawn(distant.clone().run(stopped.clone()));
    if distant.is_any() {
        distant.answered_within(distant.ask(None), FIRST_ANSWERS).await;
    }
}

/// Has them written.
async fn last_changes(store: &Store) {
    if !store.written_within(LAST_CHANGES).await {
        tracing::warn!(store.name = store.name(), "the store takes no more changes; the last ones are lost");
    }
}

/// Keys and robots' secrets that change are taken up.
fn follow_files(
    shared: &Arc<Shared>,
    clock: &Clock,
    every: Duration,
    background: &mut JoinSet<()>,
    stopped: &watch::Receiver<bool>,
) {
    background.spawn(key_source::run(shared.keys.clone(), clock.clone(), every, stopped.clone()));
    background.spawn(formers::follow(shared.clone(), every, stopped.clone()));
}

/// Certificates that change are taken up.
fn follow_certificates(
    names: &Arc<ArcSwap<Names>>,
    doors: &[Arc<Door>],
    clock: &Clock,
    background: &mut JoinSet<()>,
    stopped: &watch::Receiver<bool>,
) {
    let client = names.clone();
    let client = move || client.load().client();
    background.spawn(ClientTls::follow(client, clock.clone(), Duration::from_secs(1), stopped.clone()));
    for tls in doors.iter().filter_map(|door| door.tls.clone()) {
        background.spawn(tls.follow(clock.clone(), Duration::from_secs(1), stopped.clone()));
    }
}

/// Requests wait for an endpoint that takes them.
async fn watch_endpoints(shared: Arc<Shared>) {
    shared.fleet.watch(|snapshot| shared.lot.tell(serves(snapshot))).await;
}

async fn watch_outages(shared: Arc<Shared>) {
    shared.outages.watch(&shared.fleet).await;
}

async fn watch_windows(shared: Arc<Shared>) {
    shared.windows.watch(&shared.keys, &shared.clock, &shared.probe_now).await;
}

async fn stop_at(task: impl Future<Output = ()>, mut stopped: watch::Receiver<bool>) {
    tokio::select! {
        () = task => {}
        _ = stopped.wait_for(|stop| *stop) => {}
    }
}

/// A key file that changes is core's own more often than not, and core holds its key from that moment on (K1):
/// the endpoints are asked at once.
async fn probe_at_new_keys(shared: Arc<Shared>) {
    let mut generation = shared.keys.ring().generation();
    loop {
        shared.keys.looked_within(Duration::from_mins(1)).await;
        let now = shared.keys.ring().generation();
        if now != generation {
            generation = now;
            shared.probe_now.notify_one();
        }
    }
}

/// Listened to from now on; the signal's name when it comes.
fn told_by_signal() -> anyhow::Result<impl Future<Output = &'static str>> {
    let mut term = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = term.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        }
    })
}

/// What the probes teach the process.
struct Learner {
    shared: Arc<Shared>,
    reached: Reached,
    /// For one answer.
    probe_timeout: Duration,
}

impl Learner {
    fn new(shared: &Arc<Shared>, settings: &Settings) -> Self {
        let reached = Reached::new(settings, own_addresses());
        Self { shared: shared.clone(), reached, probe_timeout: settings.upstream.probe.timeout }
    }
}

impl Learn for Learner {
    fn lifetime(&self, lifetime: Duration) {
        self.shared.lifetime_seen.fetch_max(lifetime.as_secs(), std::sync::atomic::Ordering::Relaxed);
    }

    fn auth_mode(&self, mode: &str) {
        // The first answer stands: a change of Harbor's mode makes all its users anew.
        let _ = self.shared.auth_mode.set(mode.into());
    }

    fn realm(&self, realm: &str) {
        if let Some(found) = self.reached.passed_by(realm) {
            tracing::warn!(realm, remedy = realm::REMEDY, "{found}");
        }
    }

    fn is_plain(&self) -> bool {
        self.shared.policy.load().is_plain()
    }

    fn ask_plain(&self, endpoint: Arc<Endpoint>) -> AskPlain {
        let (shared, within) = (self.shared.clone(), self.probe_timeout);
        Box::pin(async move {
            match plain::known(&shared, &endpoint, Instant::now(), within).await {
                Known::By(kid) => Ok(Some(kid)),
                Known::Nobody => Ok(None),
                Known::Strange(why) => Err(why),
            }
        })
    }

    fn awaited(&self) -> bool {
        let shared = &self.shared;
        let for_core = || shared.outages.waiting() > 0 && !serves(&shared.fleet.snapshot());
        shared.lot.waiting() > 0 || for_core()
    }

    fn window_open(&self) -> bool {
        let now = self.shared.clock.now();
        let several =
            || self.shared.keys.ring().entries().filter(|e| e.state(now).verifies()).nth(1).is_some();
        self.shared.windows.open(now).is_some() || several()
    }

    fn issued(&self, held: &Held) {
        let ring = self.shared.keys.ring();
        let signature = held.token.rsplit_once('.');
        let proved = ring
            .find(held.kid.as_str())
            .zip(signature)
            .is_some_and(|(entry, (message, signature))| entry.key().verifies(message.as_bytes(), signature));
        if proved {
            self.shared.keys.note_held([&held.kid], self.shared.clock.now());
        }
    }
}
