//! Harbor's parts, stopped, frozen and started: the stand-in's by its own means, a real Harbor's by the commands that the
//! environment names.

use std::{
    collections::BTreeMap,
    process::Command,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use tidegate::rehearsal::harbor::{Core, Health, OutageTimes};

use crate::{
    support::process,
    target::{Need, StandIn, Target, stand_in_options},
};

pub(crate) const DATABASE_REFUSES: Need = Need::Commands(&["DATABASE_REFUSE", "DATABASE_START"]);
pub(crate) const DATABASE_HANGS: Need = Need::Commands(&["DATABASE_HANG", "DATABASE_START"]);
pub(crate) const REDIS_REFUSES: Need = Need::Commands(&["REDIS_REFUSE", "REDIS_START"]);
pub(crate) const REDIS_HANGS: Need = Need::Commands(&["REDIS_HANG", "REDIS_START"]);
pub(crate) const REDIS_IS_EMPTIED: Need = Need::Commands(&["REDIS_EMPTY"]);
pub(crate) const CORE_STOPS: Need = Need::Commands(&["CORE_STOP", "CORE_START"]);
pub(crate) const CORE_IS_KILLED: Need = Need::Commands(&["CORE_KILL", "CORE_START"]);

const ALL: [&str; 10] = [
    "DATABASE_REFUSE",
    "DATABASE_HANG",
    "DATABASE_START",
    "REDIS_REFUSE",
    "REDIS_HANG",
    "REDIS_START",
    "REDIS_EMPTY",
    "CORE_STOP",
    "CORE_KILL",
    "CORE_START",
];

/// Outages of the stand-in show sooner than real ones, for the tests' sake.
pub(crate) const SOON: OutageTimes = OutageTimes {
    health_check: Duration::from_secs(2),
    configuration: Duration::from_secs(3),
    redis_use: Duration::from_secs(1),
};

/// How long a command may take.
const COMMAND: Duration = Duration::from_mins(1);
/// How long Harbor may take to be well when all its parts run.
const RECOVERY: Duration = Duration::from_mins(2);

/// The environment's commands, by name without `TIDEGATE_CONTRACT_`, and those that are still owed.
#[derive(Debug, Default)]
pub(crate) struct Commands {
    known: BTreeMap<&'static str, String>,
    /// What starts again what a test has stopped.
    owed: Mutex<Vec<&'static str>>,
}

impl Commands {
    pub(crate) fn by(environment: impl Fn(&str) -> Option<String>) -> Self {
        let known = ALL.iter().filter_map(|name| Some((*name, environment(name)?))).collect();
        Self { known, owed: Mutex::default() }
    }

    /// Whether all of these are known.
    pub(crate) fn name(&self, wanted: &[&str]) -> bool {
        wanted.iter().all(|name| self.known.contains_key(name))
    }

    async fn run(&self, name: &'static str) {
        let text = self.known.get(name).expect("asked for by Need::Commands").clone();
        let ended = tokio::task::spawn_blocking(move || {
            process::run(Command::new("sh").args(["-c", &text]), COMMAND).map(drop)
        });
        if let Err(failure) = ended.await.expect("no panic") {
            panic!("TIDEGATE_CONTRACT_{name}: {failure}");
        }
    }

    fn owe(&self, name: &'static str) {
        let mut owed = self.owed.lock().unwrap_or_else(PoisonError::into_inner);
        if !owed.contains(&name) {
            owed.push(name);
        }
    }

    fn pay(&self, name: &'static str) {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner).retain(|owed| *owed != name);
    }

    /// What was stopped and not started.
    fn owed(&self) -> Vec<&'static str> {
        std::mem::take(&mut *self.owed.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Target {
    /// Stops, freezes or starts the database.
    pub(crate) async fn database(&self, health: Health) {
        match &self.stand_in {
            Some(stand_in) => stand_in.world.set_database(health),
            None => self.turn(health, ["DATABASE_START", "DATABASE_REFUSE", "DATABASE_HANG"]).await,
        }
    }

    /// The same for Redis, which keeps what it holds on the stand-in.
    pub(crate) async fn redis(&self, health: Health) {
        match &self.stand_in {
            Some(stand_in) => stand_in.world.set_redis(health),
            None => self.turn(health, ["REDIS_START", "REDIS_REFUSE", "REDIS_HANG"]).await,
        }
    }

    pub(crate) async fn empty_redis(&self) {
        match &self.stand_in {
            Some(stand_in) => stand_in.world.forget_sessions(),
            None => self.commands.run("REDIS_EMPTY").await,
        }
    }

    async fn turn(&self, health: Health, [start, refuse, hang]: [&'static str; 3]) {
        match health {
            Health::Up => {
                self.commands.run(start).await;
                self.commands.pay(start);
                self.is_well().await;
            }
            Health::Refusing | Health::Hanging => {
                self.commands.owe(start);
                self.commands.run(if health == Health::Refusing { refuse } else { hang }).await;
            }
        }
    }

    /// SIGTERM for core.
    pub(crate) async fn terminate_core(&mut self) {
        match &mut self.stand_in {
            Some(stand_in) => running(stand_in).terminate().await,
            None => self.end_core("CORE_STOP").await,
        }
    }

    /// SIGKILL for core.
    pub(crate) async fn kill_core(&mut self) {
        match &mut self.stand_in {
            Some(stand_in) => running(stand_in).kill().await,
            None => self.end_core("CORE_KILL").await,
        }
    }

    async fn end_core(&self, command: &'static str) {
        self.commands.owe("CORE_START");
        self.commands.run(command).await;
    }

    /// Starts core on its former address, and waits until it serves.
    pub(crate) async fn start_core(&mut self) {
        if let (Some(stand_in), Some(key_file)) = (&mut self.stand_in, &self.key_file) {
            let mut options = stand_in_options(self.version, key_file, &stand_in.world);
            options.start_delay = Duration::from_millis(200);
            stand_in.core = Some(Core::start(self.address, options).await.expect("its port is free"));
        } else {
            self.commands.run("CORE_START").await;
            self.commands.pay("CORE_START");
        }
        self.is_well().await;
    }

    /// Starts what a test has stopped, whether or not it came to its end. A stand-in goes with its test.
    pub(crate) async fn put_back(&self) {
        let owed = self.commands.owed();
        for name in &owed {
            self.commands.run(name).await;
        }
        if !owed.is_empty() {
            self.is_well().await;
        }
    }

    /// Waits until a password, which needs the database, is accepted again.
    async fn is_well(&self) {
        let began = Instant::now();
        loop {
            let listens = tokio::net::TcpStream::connect(self.address).await.is_ok();
            if listens && self.get("/v2/").basic(&self.admin).send().await.status == 200 {
                return;
            }
            assert!(began.elapsed() < RECOVERY, "Harbor isn't well within {RECOVERY:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// How long outages take to show here.
    pub(crate) fn outage_times(&self) -> OutageTimes {
        if self.stand_in.is_some() { SOON } else { OutageTimes::default() }
    }
}

fn running(stand_in: &mut StandIn) -> Core {
    stand_in.core.take().expect("it runs")
}
