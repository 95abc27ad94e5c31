//! Former secrets of robots (A29): taken until their end, named, and nothing of them lasts longer.

use std::{collections::BTreeSet, fs, path::PathBuf, process::Command, time::Duration};

use tidegate::{
    decisions::record::seal,
    rehearsal::harbor::{Health, KeyForm},
    words::clock::{Clock, UnixTime},
};

use crate::{
    operating::{self, screen, status, with_token},
    outages::{SHORT_PARK, SOON},
    stage::{
        ADMIN, MANIFEST, ROBOT, Replica, SCOPE, Setup, Stage, ask_token, pull, push, spare_key, story, told,
    },
    store::redis,
    support::{gate::Gate, ports, process::Program, settings, waiting},
    talk::{Ask, claims},
};

const PRESENT: &str = "the-robots-secret-of-today";
const NOW: (&str, &str) = (ROBOT.0, PRESENT);

struct Scene {
    stage: Stage,
    core: Replica,
    gate: Gate,
    secret: PathBuf,
}

/// Until so long from now.
fn setup(stage: &Stage, core: &Replica, until: Duration) -> Setup {
    let until = Clock::system().now().plus(until).rfc3339();
    Setup::before(&[core], &[&core.key_file]).rest(&format!(
        "[[credential]]\nname = \"{}\"\nformer_hash_file = \"{}\"\npresent_file = \"{}\"\nuntil = {until}\n",
        ROBOT.0,
        stage.path("former").display(),
        stage.path("present").display()
    ))
}

/// What `tidegate hash-secret` makes of a text on its standard input.
fn hashed(stage: &Stage, secret: &str) -> String {
    let file = stage.path("secret");
    fs::write(&file, secret).expect("the secret");
    let mut command = Command::new(settings::tidegate());
    let input = fs::File::open(&file).expect("the secret");
    let output = command.arg("hash-secret").stdin(input).output().expect("tidegate runs");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(text.starts_with("$argon2id$") && !text.contains(secret.trim()), "{text}");
    text
}

impl Scene {
    /// The robot's secret has changed, and an hour is left of the former one.
    fn new() -> Self {
        Self::with("")
    }

    fn with(rest: &str) -> Self {
        let stage = Stage::new();
        let core = stage.replica("core", |_| {});
        core.seed();
        fs::write(stage.path("former"), hashed(&stage, &format!("{}\n", ROBOT.1))).expect("the hash");
        fs::write(stage.path("present"), format!("{PRESENT}\n")).expect("the secret");
        let (gate, secret) = with_token(&stage, &setup(&stage, &core, Duration::from_hours(1)).rest(rest));
        assert!(stage.world.set_robot_secret(ROBOT.0, PRESENT));
        Self { stage, core, gate, secret }
    }
}

#[test]
fn a29_clients_with_a_former_secret_get_in_until_its_end_and_nothing_of_it_lasts_longer() {
    let scene = Scene::new();
    let Scene { stage, core, gate, secret } = &scene;
    assert_eq!(ask_token(SCOPE).basic(ROBOT).at(core.address).subject(), "", "directly it is refused");
    assert_eq!(Ask::get("/v2/").basic(ROBOT).at(core.address).status, 401);

    let granted = ask_token(SCOPE).basic(ROBOT).at(gate.address);
    assert_eq!(granted.subject(), ROBOT.0, "{}", gate.tail());
    assert_eq!(story(gate, &granted), ["rescued", "as_came", "former_secret"]);
    assert_eq!(told(gate, &granted)["principal"], ROBOT.0);
    let token = granted.token();
    assert_eq!(pull(MANIFEST).bearer(&token).at(gate.address).status, 200);
    let basic = pull(MANIFEST).basic(ROBOT).at(gate.address);
    assert_eq!((basic.status, story(gate, &basic)[2].as_str()), (200, "former_secret"));
    for n in 0..5 {
        let layer = format!("layer {n}").into_bytes();
        let authorize = |ask: Ask| if n % 2 == 0 { ask.basic(ROBOT) } else { ask.bearer(&token) };
        assert_eq!(push(gate.address, "priv/seed", &format!("t{n}"), &layer, authorize), Ok(()));
    }
    let own = ask_token(SCOPE).basic(NOW).at(gate.address);
    assert_eq!((own.subject().as_str(), story(gate, &own)[2].as_str()), (ROBOT.0, ""), "the present one");
    let own = own.token();
    assert_ne!(own, token, "what is given for one is not given for the other");
    let seen = status(gate)["former_secrets"][0].clone();
    assert_eq!((&seen["name"], &seen["addresses"]), (&ROBOT.0.into(), &1.into()), "{seen}");
    let counted =
        |gate: &Gate| gate.metrics().sum("tidegate_former_secret_requests_total", &[("robot", ROBOT.0)]);
    assert!(counted(gate) > 10.0, "{}", counted(gate));
    let shown = screen(gate, secret);
    assert!(shown.contains("FORMER SECRET OF") && shown.contains("\nrobot$ci  "), "{shown}");

    let until = Duration::from_secs(2);
    gate.configure(&setup(stage, core, until).text());
    gate.signal("HUP");
    waiting::holds("the window's end", Duration::from_secs(20), || {
        status(gate)["former_secrets"][0]["ends_in_seconds"].is_null()
    });
    let refused = ask_token(SCOPE).basic(ROBOT).at(gate.address);
    assert_eq!(refused.subject(), "", "no answer is given again\n{}", gate.tail());
    assert_eq!(pull(MANIFEST).basic(ROBOT).at(gate.address).status, 401);
    let ended = pull(MANIFEST).bearer(&token).at(gate.address);
    assert_eq!((ended.status, story(gate, &ended)[2].as_str()), (401, "token_expired"), "{}", gate.tail());
    assert_eq!(pull(MANIFEST).bearer(&own).at(gate.address).status, 200, "the present secret's goes on");
    let all = gate.output();
    assert!(!all.contains(PRESENT) && !all.contains(ROBOT.1), "no secret is told");
}

#[test]
fn a29_a_token_for_a_former_secret_never_outlives_the_window_wherever_it_is_used() {
    let Scene { stage, core, gate, .. } = &Scene::with("[token]\ncache = \"0s\"");
    let whole = claims(&ask_token(SCOPE).basic(ROBOT).at(gate.address).token());
    let life = |claims: &serde_json::Value| claims["exp"].as_i64().zip(claims["iat"].as_i64());
    assert_eq!(life(&whole).map(|(exp, iat)| exp - iat), Some(1_800), "an hour is left: as Harbor issued it");
    let setup = setup(stage, core, Duration::from_mins(5));
    gate.configure(&setup.text());
    gate.signal("HUP");
    let ask = || ask_token(SCOPE).basic(ROBOT).at(gate.address);
    waiting::holds("the new end counts", Duration::from_secs(20), || {
        status(gate)["former_secrets"][0]["ends_in_seconds"].as_u64().is_some_and(|left| left <= 300)
    });
    let (answer, end) = (ask(), Clock::system().now().plus(Duration::from_mins(5)).0);
    let shorter = claims(&answer.token());
    assert!(life(&shorter).is_some_and(|(exp, _)| exp <= end), "{shorter}");
    assert!(answer.json()["expires_in"].as_u64().is_some_and(|left| left <= 300), "{}", answer.text());
    for name in ["iss", "sub", "aud"] {
        assert_eq!(shorter[name], whole[name], "{name}");
    }
    assert_eq!(actions(&shorter), actions(&whole), "{shorter} {whole}");
    for address in [gate.address, core.address] {
        assert_eq!(pull(MANIFEST).bearer(&answer.token()).at(address).status, 200, "Harbor takes it as well");
    }
    let own = claims(&ask_token(SCOPE).basic(NOW).at(gate.address).token());
    assert_eq!(life(&own).map(|(exp, iat)| exp - iat), Some(1_800), "the present secret's is as ever");
}

/// Harbor names them in any order.
fn actions(claims: &serde_json::Value) -> BTreeSet<String> {
    let of = claims["access"][0]["actions"].as_array().expect("actions");
    of.iter().map(ToString::to_string).collect()
}

/// Two replicas, tokens of Harbor's that live for a minute, and four minutes left.
struct Both {
    stage: Stage,
    core: Replica,
    until: UnixTime,
    one: Gate,
    two: Gate,
    secret: PathBuf,
    without: String,
    _redis: Program,
}

impl Both {
    fn new() -> Self {
        let stage = Stage::new();
        let core = stage.replica("core", |options| options.token_expiration = Duration::from_mins(1));
        core.seed();
        let address = ports::free();
        let server = redis(&stage, address);
        fs::write(stage.path("former"), hashed(&stage, &format!("{}\n", ROBOT.1))).expect("the hash");
        fs::write(stage.path("present"), format!("{PRESENT}\n")).expect("the secret");
        fs::write(stage.path("seal.key"), seal::written(&[7; seal::KEY]).as_bytes())
            .expect("the sealing key");
        let (left, store) = (Duration::from_mins(4), format!("[store]\nurl = \"redis://{address}\"\n"));
        let more = |setup: Setup| {
            let setup = setup.top("deployment = \"harbor\"").keys("token_lifetime = \"1m\"");
            let seal = format!("seal_key_files = [\"{}\"]\n", stage.path("seal.key").display());
            setup.rest("[token]\ncache = \"0s\"").rest(SHORT_PARK).rest(&(store.clone() + &seal))
        };
        let with = more(setup(&stage, &core, left));
        let until = Clock::system().now().plus(left);
        let without = more(Setup::before(&[&core], &[&core.key_file])).text();
        let ((one, secret), (two, _)) = (with_token(&stage, &with), with_token(&stage, &with));
        assert!(stage.world.set_robot_secret(ROBOT.0, PRESENT));
        Self { stage, core, until, one, two, secret, without, _redis: server }
    }

    fn pulled(&self, token: &str) -> [u16; 2] {
        [&self.one, &self.two].map(|gate| pull(MANIFEST).bearer(token).at(gate.address).status)
    }
}

/// That a token ends when its window is taken away isn't in it; the operator's word is everywhere.
#[test]
fn a29_an_entry_that_is_removed_ends_its_tokens_where_they_were_given_and_a_revocation_on_all() {
    let both = Both::new();
    let given = ask_token(SCOPE).basic(ROBOT).at(both.one.address).token();
    assert_eq!(both.pulled(&given), [200, 200]);
    for gate in [&both.one, &both.two] {
        gate.configure(&both.without);
        gate.signal("HUP");
        waiting::holds("it is taken out", Duration::from_secs(20), || {
            status(gate)["former_secrets"].as_array().is_none_or(Vec::is_empty)
        });
        assert_eq!(ask_token(SCOPE).basic(ROBOT).at(gate.address).subject(), "", "{}", gate.tail());
    }
    assert_eq!(both.pulled(&given), [401, 200], "{}", both.two.tail());
    operating::told(&both.one, &both.secret, &["revoke", "--subject", ROBOT.0]);
    assert_eq!(both.pulled(&given), [401, 401], "{}", both.two.tail());
    waiting::holds("the present secret gets in", Duration::from_secs(20), || {
        both.pulled(&ask_token(SCOPE).basic(NOW).at(both.two.address).token()) == [200, 200]
    });
}

/// What it is given by grace, or by tidegate's own hand, ends with its window, is good on all replicas, and ends with a
/// write (A15). Of the token's times nothing but its proof tells the other replica that it isn't a forgery (A8).
#[test]
fn a29_a_former_secret_in_an_outage_is_given_what_ends_with_it_on_all_replicas() {
    let both = Both::new();
    let Both { stage, one, two, .. } = &both;
    let ask = || ask_token(SCOPE).basic(ROBOT).at(one.address);
    assert_eq!(ask().subject(), ROBOT.0, "{}", one.tail());
    stage.world.set_database(Health::Refusing);
    assert_eq!(ask_token(SCOPE).basic(NOW).at(both.core.address).subject(), "", "directly");
    let granted = ask();
    assert_eq!(granted.status, 200, "{}", one.tail());
    stage.world.set_database(Health::Up);
    let said = claims(&granted.token());
    let (issued, end) = (said["iat"].as_i64().expect("iat"), said["exp"].as_i64().expect("exp"));
    assert!(end > issued + 60 && end <= both.until.0, "of grace, and bounded: {said}");
    assert_eq!(both.pulled(&granted.token()), [200, 200], "{}", two.tail());
    let write = Ask::new("PUT", "/api/v2.0/projects/priv").header("Content-Type", "application/json");
    let write = write.body("{\"metadata\":{\"public\":\"false\"}}").basic(ADMIN);
    assert_eq!(write.at(one.address).status, 200);
    waiting::holds("it is over", SOON, || both.pulled(&granted.token()) == [401, 401]);

    spare_key(1).rename_into(&both.core.key_file, KeyForm::Empty).expect("a broken key file");
    let own = ask().token();
    assert!(own.starts_with("tidegate1_"), "{own}\n{}", one.tail());
    assert_eq!(both.pulled(&own), [200, 200], "{}", two.tail());
}

#[test]
fn a29_a_former_secret_opens_the_registry_alone() {
    let Scene { gate, core, .. } = &Scene::new();
    for path in ["/api/v2.0/users/current", "/api/v2.0/projects", "/c/log_out", "/service/tokens"] {
        let (through, direct) =
            (Ask::get(path).basic(ROBOT).at(gate.address), Ask::get(path).basic(ROBOT).at(core.address));
        assert_eq!(through.status, direct.status, "{path}");
    }
    let seen = core.asked();
    let sent: Vec<_> = seen.iter().filter(|head| !head.target.starts_with("/v2/")).collect();
    let values: Vec<_> = sent.iter().filter_map(|head| head.header("authorization")).collect();
    assert!(values.iter().all(|value| *value == values[0]), "as it came: {values:?}");
    let another = (ROBOT.0, "neither");
    assert_eq!(ask_token(SCOPE).basic(another).at(gate.address).subject(), "");
    assert_eq!(ask_token(SCOPE).basic(("robot$other", ROBOT.1)).at(gate.address).subject(), "");
    let counted = gate.metrics().sum("tidegate_former_secret_requests_total", &[]);
    assert!(counted < 0.5, "{counted}");
}

#[test]
fn a_present_secret_that_harbor_refuses_is_an_alarm_until_its_file_is_mended() {
    let Scene { stage, gate, secret, .. } = &Scene::with("[token]\ncache = \"0s\"");
    fs::write(stage.path("present"), "not-the-robots-secret\n").expect("the secret");
    let refused = || ask_token(SCOPE).basic(ROBOT).at(gate.address).subject().is_empty();
    waiting::holds("the file is read again", Duration::from_secs(20), refused);
    let shown = screen(gate, secret);
    assert!(shown.contains("Harbor refuses the present secret of robot$ci"), "{shown}");
    fs::write(stage.path("present"), PRESENT).expect("the secret");
    waiting::holds("and again", Duration::from_secs(30), || !refused());
    assert!(!screen(gate, secret).contains("refuses the present secret"));
}

#[test]
fn check_says_what_is_wrong_with_the_files_of_a_former_secret() {
    let stage = Stage::new();
    let core = stage.replica("core", |_| {});
    fs::write(stage.path("former"), "Plain-Secret-12345").expect("a plain secret");
    let file = stage.path("tidegate.toml");
    let text = setup(&stage, &core, Duration::from_hours(1)).text();
    let checked = |text: &str| {
        fs::write(&file, format!("{text}\n[store]\nurl = \"memory:\"\n")).expect("the configuration");
        let mut command = Command::new(settings::tidegate());
        let output = command.args(["check", "--offline", "--config"]).arg(&file).output().expect("it runs");
        (output.status.code(), String::from_utf8(output.stdout).expect("text"))
    };
    let (exit, said) = checked(&text);
    assert_eq!(exit, Some(64), "{said}");
    assert!(said.contains("is it the secret itself?") && !said.contains("Plain-Secret"), "{said}");
    assert!(said.contains("credential[0].present_file") && said.contains("the file is not there"), "{said}");
    fs::write(stage.path("former"), hashed(&stage, "former")).expect("the hash");
    fs::write(stage.path("present"), PRESENT).expect("the secret");
    let (exit, said) = checked(&text);
    assert_eq!(exit, Some(0), "{said}");
    assert!(said.contains("readable by the world"), "{said}");
    let over = text.replace(&until_of(&text), "2020-01-01T00:00:00Z");
    assert!(checked(&over).1.contains("is taken no more"), "{}", checked(&over).1);
}

fn until_of(text: &str) -> String {
    let line = text.lines().find_map(|line| line.strip_prefix("until = ")).expect("a line");
    line.to_owned()
}
