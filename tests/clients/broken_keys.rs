//! K7 to K9 under load: core's key file is broken in every way and mended again, while users, robots and everybody pull
//! and push. tidegate stands before core twice: once it sees the same file, once it doesn't.

use crate::{
    lane::{Lane, Ledger, Side},
    support::{
        client::{
            Account, Client, containerd::Containerd, crane::Crane, docker::Docker, podman::Podman,
            skopeo::Skopeo,
        },
        gate::{self, Gate},
        harbor::{self, Harbor, Replica},
        http,
        image::Image,
        settings, waiting,
        witness::Witness,
    },
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};
use tidegate::rehearsal::harbor::{CoreKey, KeyForm, SAMPLE_ADMIN_PASSWORD, SAMPLE_ROBOT_SECRET, Version};

const PRIVATE: &str = "priv/seed:v1";
const PUBLIC: &str = "library/seed:v1";
const ADMIN_TOKEN: &str = "a token of the operator's";
/// Within so long an alarm is raised, and within so long all is as before once the file is mended.
const TOLD: Duration = Duration::from_secs(20);
const NORMAL: Duration = Duration::from_secs(10);

/// A state of the key file.
struct State {
    name: &'static str,
    /// What the alarm says where tidegate sees the file, and what of the remedy.
    cause: [&'static str; 2],
    /// Every kind of client takes part, in the short form too.
    everybody: bool,
}

const fn state(name: &'static str, cause: [&'static str; 2]) -> State {
    State { name, cause, everybody: false }
}

const EC: State = state("EC", ["the key is EC", "openssl genrsa -traditional"]);

const STATES: [State; 8] = [
    state("PKCS#8", ["the key is PKCS#8", "openssl rsa -traditional"]),
    EC,
    state("empty", ["the file is empty", "rename it over the path"]),
    state("garbage", ["neither PEM blocks nor", "rename it over the path"]),
    state("half written", ["ends in the middle", "rename it over the path"]),
    State { everybody: true, ..state("missing", ["the file is not there", "/etc/core/private_key.pem"]) },
    // As root we can read it still, and name its mode.
    state("mode 000", ["may", "10000"]),
    state("public", ["public keys only", "TOKEN_PRIVATE_KEY_PATH"]),
];

#[test]
fn nothing_fails_in_any_state_of_the_key_file() {
    Scene::begin(Version::V2_15_2).run("core's key file broken in every way, 2.15.2", &STATES);
}

/// K8: older cores answer 200 with an empty token.
#[test]
fn nothing_fails_while_core_gives_empty_tokens() {
    Scene::begin(Version::V2_10_2).run("core's key file is an EC key, 2.10.2", &[EC]);
}

/// Brings a state about. A draft beside the file, renamed over it, is how operators should do it too.
fn break_file(state: &str, path: &Path, key: &CoreKey) {
    let form = match state {
        "PKCS#8" => KeyForm::Pkcs8,
        "EC" => KeyForm::Ec,
        "empty" => KeyForm::Empty,
        "garbage" => KeyForm::Garbage,
        "half written" => KeyForm::HalfWritten,
        "public" => KeyForm::Public,
        "missing" => return fs::remove_file(path).expect("no key file"),
        _ => return fs::set_permissions(path, fs::Permissions::from_mode(0o000)).expect("its mode"),
    };
    key.rename_into(path, form).expect("a broken key file");
}

/// Somebody with a client.
struct Party {
    lane: Lane,
    client: Box<dyn Client>,
    role: Role,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    User,
    Robot,
    Nobody,
}

impl Party {
    fn new(side: Side, front: SocketAddr, role: Role, client: Box<dyn Client>) -> Self {
        let account = match role {
            Role::Robot => Account::new(front, "robot$ci", SAMPLE_ROBOT_SECRET),
            _ => harbor::account(front),
        };
        Self { lane: Lane { side, account, over: Arc::default() }, client, role }
    }

    /// What is asked for in every state: users log in again and pull, robots push, everybody pulls what is public; `all`
    /// of them do all that they may.
    fn work(&self, ledger: &Ledger, all: bool) {
        let Self { lane, client, role } = self;
        let client = client.as_ref();
        if *role == Role::Nobody {
            ledger.pull(lane, client, PUBLIC);
            return;
        }
        if all || *role == Role::User {
            ledger.login(lane, client);
            ledger.pull(lane, client, PRIVATE);
        }
        if all || *role == Role::Robot {
            ledger.push_new(lane, client, 1);
        }
    }
}

/// skopeo in every role.
fn parties(side: Side, front: SocketAddr) -> Vec<Party> {
    let skopeo = |role| Party::new(side, front, role, Box::new(Skopeo::new()));
    vec![skopeo(Role::User), skopeo(Role::Robot), skopeo(Role::Nobody)]
}

/// Whoever takes part in some states alone, and directly with long durations alone: some try again and again for minutes.
fn others(side: Side, front: SocketAddr) -> Vec<Party> {
    let user = |client| Party::new(side, front, Role::User, client);
    vec![
        user(Box::new(Crane::new())),
        user(Box::new(Docker::new())),
        user(Box::new(Podman::new())),
        user(Box::new(Containerd::two())),
    ]
}

/// Three cores with one key file: clients come to one directly, tidegate stands before the others.
struct Scene {
    cores: [Replica; 3],
    key: CoreKey,
    parties: Vec<Party>,
    others: Vec<Party>,
    ledger: Ledger,
    seeing: Gate,
    blind: Gate,
    harbor: Harbor,
}

impl Scene {
    fn begin(version: Version) -> Self {
        let harbor = Harbor::start();
        let mut cores = ["direct", "seen", "unseen"].map(|name| harbor.replica(name));
        let key_file = cores[0].key_file.clone();
        let key = CoreKey::read(&key_file).expect("core's key");
        for core in &mut cores[1..] {
            core.key_file.clone_from(&key_file);
            restart(core);
        }
        cores[0].seed(PRIVATE, &Image::generate(7, 1));
        seed_public(&cores[0]);
        let admin_token = harbor.key_path("admin-token");
        fs::write(&admin_token, ADMIN_TOKEN).expect("the token file");
        let start = |core: &Replica, keys: &[&Path]| {
            let by_environment = format!("TIDEGATE_ADMIN__TOKEN_FILE={}", admin_token.display());
            let configuration = gate::configuration(&[core.address], "auto", keys) + &gate::http2_listener();
            Gate::start_by(&["env", &by_environment], &configuration)
        };
        let (seeing, blind) = (start(&cores[1], &[&key_file]), start(&cores[2], &[]));
        let fronts = [cores[0].address, seeing.address, blind.address];
        for (core, front) in cores.iter_mut().zip(fronts) {
            core.version = version;
            core.ext_endpoint = format!("http://{front}");
            restart(core);
        }
        let [direct, sees, sees_not] = fronts;
        let parties = [(Side::Direct, direct), (Side::Through, sees), (Side::Through, sees_not)]
            .into_iter()
            .flat_map(|(side, front)| parties(side, front));
        let (parties, mut others): (Vec<_>, _) = (parties.collect(), Vec::new());
        // One state of an older core shows what differs there.
        if version == Version::V2_15_2 || settings::long() {
            others.extend(self::others(Side::Through, sees_not));
        }
        if settings::long() {
            others.extend(self::others(Side::Direct, direct));
        }
        let ledger = Ledger::default();
        for Party { lane, client, role } in parties.iter().chain(&others) {
            let knows_nobody = *role == Role::Nobody;
            assert!(knows_nobody || ledger.login(lane, client.as_ref()), "{ledger}\n{}", ledger.said());
        }
        Self { cores, key, parties, others, ledger, seeing, blind, harbor }
    }

    fn run(self, title: &str, states: &[State]) {
        let world = self.harbor.world();
        let direct = Witness::watch_at(world, self.cores[0].address, None);
        let witnesses = [&self.seeing, &self.blind].map(|gate| Witness::watch(world, gate));
        for state in states {
            self.is_broken(state, &direct, &witnesses);
        }
        self.ledger.verify_pushes(self.cores[0].address);
        for witness in witnesses {
            witness.judge(self.cores[0].address);
        }
        println!("  before core without its key file, rescued: {}", self.blind.metrics().rescues());
        self.ledger.judge(title, &self.seeing);
    }

    /// One state of the key file, under load from its beginning to its mend.
    fn is_broken(&self, state: &State, direct: &Witness, witnesses: &[Witness; 2]) {
        let (name, began) = (state.name, Instant::now());
        let before = (self.ledger.failures(Side::Direct), direct.failures().0);
        break_file(name, &self.cores[0].key_file, &self.key);
        let until = Instant::now() + if settings::long() { Duration::from_mins(1) } else { Duration::ZERO };
        thread::scope(|scope| {
            let all = state.everybody || settings::long();
            let others = self.others.iter().filter(|_| all);
            for party in self.parties.iter().chain(others) {
                scope.spawn(move || {
                    party.work(&self.ledger, all);
                    while Instant::now() < until {
                        party.work(&self.ledger, all);
                    }
                });
            }
        });
        let failed = (self.ledger.failures(Side::Direct), direct.failures().0);
        assert!(failed.0 > before.0 && failed.1 > before.1, "{name}: nothing failed directly");
        self.is_told(state);
        self.key.rename_into(&self.cores[0].key_file, KeyForm::Pkcs1).expect("the file is mended");
        let mended = Instant::now();
        self.is_normal(name);
        println!(
            "  {name}: {:.1} s broken, normal after {:.1} s; {} operations and {} requests failed directly",
            (mended - began).as_secs_f64(),
            mended.elapsed().as_secs_f64(),
            failed.0 - before.0,
            failed.1 - before.1
        );
        for (witness, gate) in witnesses.iter().zip([&self.seeing, &self.blind]) {
            assert_eq!(witness.failures(), (0, vec![]), "{name}\n{}", gate.refusals());
        }
    }

    /// Both alarms say which core, and why as far as each can know.
    fn is_told(&self, state: &State) {
        let file = self.cores[0].key_file.display().to_string();
        let [cause, remedy] = state.cause;
        let of_file =
            |alarm: &String| alarm.starts_with(&file) && alarm.contains(cause) && alarm.contains(remedy);
        let rows = [(&self.seeing, &self.cores[1], true), (&self.blind, &self.cores[2], false)];
        for (gate, core, sees) in rows {
            let of_core = |alarm: &String| {
                alarm.starts_with(&core.address.to_string())
                    && alarm.contains("core answers token requests with 500")
                    && alarm.contains("uid 10000")
            };
            let told = waiting::until(TOLD, || {
                let alarms = alarms(gate);
                (alarms.iter().any(of_core) && alarms.iter().any(of_file) == sees).then_some(())
            });
            assert!(told.is_some(), "{}, the file seen: {sees}: {:#?}", state.name, alarms(gate));
        }
    }

    /// Tokens are Harbor's own again at both, and no alarm is left.
    fn is_normal(&self, name: &str) {
        for (gate, core) in [(&self.seeing, &self.cores[1]), (&self.blind, &self.cores[2])] {
            waiting::holds(&format!("{name}: tokens are Harbor's own again"), NORMAL, || {
                // The signature differs by time; nothing of it is ours.
                token(gate.address).is_some_and(|token| token.split('.').count() == 3)
            });
            let cleared = waiting::until(TOLD, || {
                let left = |alarm: &String| {
                    alarm.starts_with(&core.address.to_string())
                        || alarm.contains(".pem: ") && !alarm.contains("by the world")
                };
                (!alarms(gate).iter().any(left)).then_some(())
            });
            assert!(cleared.is_some(), "{name}: {:#?}", alarms(gate));
        }
    }
}

fn restart(core: &Replica) {
    core.kill();
    core.start_again();
}

fn seed_public(core: &Replica) {
    let (skopeo, admin) = (Skopeo::new(), Account::new(core.address, "admin", SAMPLE_ADMIN_PASSWORD));
    let pushed = skopeo.login(&admin).and_then(|()| skopeo.push(&admin, &Image::generate(8, 1), PUBLIC));
    pushed.unwrap_or_else(|failure| panic!("the public seed is pushed: {failure}"));
}

/// A token of the developer; `None` where none comes.
fn token(front: SocketAddr) -> Option<String> {
    let account = harbor::account(front);
    let basic = format!("Basic {}", STANDARD.encode(format!("{}:{}", account.user, account.password)));
    let path = "/service/token?service=harbor-registry&scope=repository:priv/asked:pull";
    let answer = http::get(front, path, &[("Authorization", &basic)]).ok()?;
    let body: serde_json::Value = serde_json::from_str(&answer.body).ok()?;
    body["token"].as_str().map(str::to_owned)
}

/// Alarms now, as `subject: cause; remedy`.
fn alarms(gate: &Gate) -> Vec<String> {
    let authorization = format!("Bearer {ADMIN_TOKEN}");
    let answer = http::get(gate.admin, "/v1/status", &[("Authorization", &authorization)]).expect("a status");
    let status: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
    let alarms = status["alarms"].as_array().cloned().unwrap_or_default();
    let text = |alarm: &serde_json::Value, field: &str| alarm[field].as_str().unwrap_or_default().to_owned();
    let line =
        |alarm| format!("{}: {}; {}", text(alarm, "subject"), text(alarm, "cause"), text(alarm, "remedy"));
    alarms.iter().map(line).collect()
}
