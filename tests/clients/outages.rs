//! D1, D2 under the load of real clients: the database of all cores refuses, hangs, or is gone for long.

use crate::{
    crew::{Clients, Crew, LAYER, SEED, StopAtEnd},
    lane::{Lane, Ledger, Side},
    support::{
        client::{Account, Client, docker::Docker, podman::Podman, skopeo::Skopeo},
        gate::{self, Gate},
        harbor::{self, Harbor, Replica},
        http,
        image::Image,
        process::{self, Failure},
        settings, waiting,
        witness::Witness,
    },
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use std::{
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};
use tidegate::rehearsal::harbor::Health;

/// Layers, MiB.
const SMALL: u64 = 16;
/// Outages at most, however slow the clients are.
const MOST: usize = 30;
/// Between two.
const UP: Duration = Duration::from_secs(12);
const SOON: Duration = Duration::from_secs(30);
/// The words of a refusal.
const REFUSALS: [&str; 5] =
    ["unauthorized", "incorrect username", "invalid username", "authentication required", "denied"];

#[test]
fn nothing_fails_while_the_database_refuses() {
    let outage = Duration::from_secs(if settings::long() { 10 } else { 6 });
    Scene::begin("", four).run("the database refuses", Health::Refusing, outage);
}

/// Ten seconds of silence fail no client that waits for longer; curl is one that gives its token 9 s.
#[test]
fn nothing_fails_while_the_database_hangs() {
    let scene = Scene::begin("[token]\ncache = \"0s\"\n", four);
    for crew in &scene.crews {
        assert!(scene.ledger.login(&crew.lane, &Curl), "{}", scene.ledger);
    }
    scene.run("the database hangs", Health::Hanging, Duration::from_secs(10));
}

#[test]
fn known_credentials_go_on_while_the_database_is_gone_for_long() {
    let (gone, park) = if settings::long() { (300, 30) } else { (10, 2) };
    let crew = |lane: Lane| {
        let busy: Clients = vec![Box::new(Skopeo::new()), Box::new(Docker::new()), Box::new(Podman::new())];
        Crew::new(lane, busy, Vec::new())
    };
    let more = format!("[token]\ncache = \"0s\"\n[park]\ntimeout = \"{park}s\"\n");
    let scene = Scene::begin(&more, crew);
    let (ledger, through) = (&scene.ledger, &scene.crews[1]);
    for crew in &scene.crews {
        // A pull's scope is known from now on.
        crew.busy().for_each(|(lane, client)| assert!(ledger.pull(lane, client, SEED), "{ledger}"));
    }
    let witness = Witness::watch(scene.harbor.world(), &scene.gate);
    scene.harbor.world().set_database(Health::Refusing);
    let began = Instant::now();
    let mut rounds = 0;
    while rounds == 0 || began.elapsed() < Duration::from_secs(gone) {
        rounds += 1;
        thread::scope(|scope| {
            for (lane, client) in scene.crews.iter().flat_map(Crew::busy) {
                scope.spawn(move || ledger.login(lane, client));
            }
        });
    }
    thread::scope(|scope| {
        for (lane, client) in through.busy() {
            scope.spawn(move || {
                let (name, account) = (client.name(), &lane.account);
                let stranger = Account { password: "guessed".into(), ..account.clone() };
                tells_no_refusal(name, client.login(&stranger));
                // Logged in again, as before.
                assert!(ledger.login(lane, client), "{ledger}");
                tells_no_refusal(name, client.pull(account, SEED));
            });
        }
    });
    for (name, scope) in [("its password is wrong", "&scope=repository:priv/seed:pull"), ("it logs in", "")] {
        let wrong = format!("Basic {}", STANDARD.encode(format!("{}:guessed", harbor::USER)));
        let path = format!("/service/token?service=harbor-registry{scope}");
        let answer = http::get(scene.gate.address, &path, &[("Authorization", &wrong)]).expect("an answer");
        assert_eq!(answer.status, 503, "{name}: {}", answer.body);
        assert!(
            answer.header("retry-after").is_some() && answer.header("www-authenticate").is_none(),
            "{name}"
        );
        assert!(!REFUSALS.iter().any(|word| answer.body.to_lowercase().contains(word)), "{}", answer.body);
    }
    scene.harbor.world().set_database(Health::Up);
    let back = Instant::now();
    thread::scope(|scope| {
        for (lane, client) in through.busy() {
            scope.spawn(move || {
                waiting::holds("it is well again", SOON, || client.pull(&lane.account, SEED).is_ok());
                assert!(ledger.login(lane, client), "{ledger}");
            });
        }
    });
    println!("  {rounds} rounds of log-ins; all well {:.1} s after the return", back.elapsed().as_secs_f64());
    ledger.judge("the database gone for long", &scene.gate);
    witness.judge(scene.replica.address);
}

/// It failed, and not as one whose password is wrong.
fn tells_no_refusal(name: &str, ended: Result<(), Failure>) {
    let failure = ended.expect_err(name);
    let said = failure.output.to_lowercase();
    assert!(!REFUSALS.iter().any(|word| said.contains(word)), "{name}: {failure}");
    assert!(said.contains("503") || said.contains("unavailable"), "{name}: {failure}");
}

/// All of them busy: each pushes and pulls in turn.
fn four(lane: Lane) -> Crew {
    Crew::of_four(lane, SMALL)
}

/// One core, directly and through tidegate.
struct Scene {
    replica: Replica,
    crews: [Crew; 2],
    ledger: Ledger,
    gate: Gate,
    harbor: Harbor,
}

impl Scene {
    fn begin(more: &str, crew: impl FnMut(Lane) -> Crew) -> Self {
        let harbor = Harbor::start();
        let replica = harbor.replica("core");
        let configuration = gate::configuration(&[replica.address], "auto", &[&replica.key_file]);
        let gate = Gate::start(&format!("{configuration}\n{more}\n{}", gate::http2_listener()));
        let ledger = Ledger::default();
        let crews = Lane::both(replica.address, gate.address).map(crew);
        for (lane, client) in crews.iter().flat_map(Crew::everybody) {
            assert!(ledger.login(lane, client), "{ledger}");
        }
        replica.seed(SEED, &Image::generate(2, LAYER));
        Self { replica, crews, ledger, gate, harbor }
    }

    /// One outage after the other, until every client has met some and one failed directly.
    fn run(self, title: &str, health: Health, outage: Duration) {
        let (ledger, stop) = (&self.ledger, AtomicBool::new(false));
        let [direct, through] = &self.crews;
        let witness = Witness::watch(self.harbor.world(), &self.gate);
        let out = thread::scope(|scope| {
            let _stopped = StopAtEnd(&stop);
            for crew in &self.crews {
                crew.work(scope, ledger, &stop);
            }
            let mut out = Vec::new();
            let enough =
                |out: &[_]| ledger.failures(Side::Direct) > 0 && through.met(ledger, out).everybody();
            while !enough(&out) {
                assert!(out.len() < MOST, "not enough after {MOST}:{}\n{ledger}", through.met(ledger, &out));
                let since = Instant::now();
                self.harbor.world().set_database(health);
                for crew in &self.crews {
                    if health == Health::Hanging {
                        scope.spawn(|| ledger.login(&crew.lane, &Curl));
                    }
                }
                thread::sleep(outage);
                self.harbor.world().set_database(Health::Up);
                out.push(since..Instant::now());
                waiting::until(UP, || enough(&out).then_some(()));
            }
            // What goes through tidegate runs to its end, and must not fail.
            direct.lane.over.store(true, Ordering::Relaxed);
            out
        });
        println!("  {} outages; met by:{}", out.len(), through.met(ledger, &out));
        ledger.verify_pushes(self.replica.address);
        ledger.judge(title, &self.gate);
        witness.judge(self.replica.address);
    }
}

/// curl, which asks for a token as a log-in does, and waits 9 s for it.
struct Curl;

impl Client for Curl {
    fn name(&self) -> &'static str {
        "curl"
    }

    fn login(&self, at: &Account) -> Result<(), Failure> {
        let user = format!("{}:{}", at.user, at.password);
        let url = format!("http://{}/service/token?service=harbor-registry", at.registry);
        let curl = settings::packaged("curl");
        let version = process::run(Command::new(&curl).arg("--version"), SOON)?;
        settings::took_part("curl", version.split_whitespace().nth(1).unwrap_or_default());
        let mut command = Command::new(curl);
        command.args(["--silent", "--show-error", "--fail", "--max-time", "9", "--user", &user, &url]);
        process::run(&mut command, SOON).map(drop)
    }

    fn push(&self, _: &Account, _: &Image, _: &str) -> Result<(), Failure> {
        unreachable!("curl only logs in")
    }

    fn pull(&self, _: &Account, _: &str) -> Result<(), Failure> {
        unreachable!("curl only logs in")
    }

    fn inspect(&self, _: &Account, _: &str) -> Result<(), Failure> {
        unreachable!("curl only logs in")
    }
}
