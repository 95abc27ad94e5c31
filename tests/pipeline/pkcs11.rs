//! Keys in a PKCS#11 token: they sign there, roll there, and what is wrong with the token costs nobody else anything.

use std::{
    fs,
    net::SocketAddr,
    process::Command,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use tidegate::rehearsal::harbor::{CoreKey, KeyForm};

use crate::{
    operating::{screen, status},
    softhsm::{self, LABEL, PIN, SoftHsm, TOKEN},
    stage::{
        ADMIN, DEV, MANIFEST, PUBLIC_MANIFEST, Replica, SCOPE, Setup, Stage, ask_token, hold, kid, pull,
        spare_key, story, token,
    },
    support::{gate::Gate, settings, waiting},
    talk::{Ask, Line},
};

/// What operators call the token's keys.
const SOURCE: &str = "pkcs11:token=harbor;object=core";
const PATIENCE: Duration = Duration::from_secs(20);

/// A gate with this environment, and the file of its admin token.
fn started(stage: &Stage, setup: &Setup, environment: &[&str]) -> (Gate, std::path::PathBuf) {
    let secret = stage.path("admin-token");
    fs::write(&secret, "a token of the operator's").expect("the token file");
    let admin = format!("TIDEGATE_ADMIN__TOKEN_FILE={}", secret.display());
    let starter: Vec<&str> = ["env", &admin].into_iter().chain(environment.iter().copied()).collect();
    (Gate::start_by(&starter, &setup.text()), secret)
}

/// Keys alone rescue: no credential, and no answer, is remembered.
fn by_keys_alone(setup: Setup) -> Setup {
    setup.rest("[replay]\nenabled = false\n\n[token]\ncache = \"0s\"\n")
}

fn wait_for_state(gate: &Gate, kid: &str, state: &str) {
    gate.wait_for(&format!("{kid} is {state}"), |metrics| {
        metrics.sum("tidegate_key_state", &[("kid", kid), ("state", state)]) > 0.5
    });
}

/// The cause of the alarm about the token, if there is one.
fn alarm(gate: &Gate) -> Option<String> {
    let status = status(gate);
    let alarm = status["alarms"].as_array()?.iter().find(|alarm| alarm["subject"] == SOURCE)?.clone();
    alarm["cause"].as_str().map(str::to_owned)
}

fn wait_for_alarm(gate: &Gate, words: &str) {
    let seen = waiting::until(PATIENCE, || alarm(gate).filter(|cause| cause.contains(words)));
    assert!(seen.is_some(), "no alarm says {words:?}: {:?}\n{}", alarm(gate), gate.tail());
}

fn signed_in(gate: &Gate, place: &str) -> f64 {
    gate.metrics().sum("tidegate_signature_duration_seconds_count", &[("place", place)])
}

/// Two cores with key 0, before a gate whose keys are in a token alone.
struct Scene {
    stage: Stage,
    cores: [Replica; 2],
    hsm: SoftHsm,
}

impl Scene {
    fn new() -> Self {
        let stage = Stage::new();
        let cores = ["a", "b"].map(|name| stage.replica(name, |_| {}));
        cores[0].seed();
        let hsm = SoftHsm::new();
        hsm.import(spare_key(0), "01");
        Self { stage, cores, hsm }
    }
}

/// The same load by one of two ways: clients that get a token and pull with it again and again, and pull with a token
/// that they have had since the beginning, one after the other.
struct Lane {
    fronts: Vec<SocketAddr>,
    kept: Vec<String>,
    requests: AtomicUsize,
    rounds: AtomicUsize,
    failures: Mutex<Vec<String>>,
}

/// Clients of a lane.
const CLIENTS: usize = 2;
/// Rounds that a lane does in each phase at least.
const ROUNDS: usize = 12;

impl Lane {
    fn new(fronts: Vec<SocketAddr>, tokens: usize) -> Self {
        let kept = (0..tokens).map(|_| token(fronts[0], DEV, SCOPE)).collect();
        let (requests, rounds, failures) = (AtomicUsize::new(0), AtomicUsize::new(0), Mutex::default());
        Self { fronts, kept, requests, rounds, failures }
    }

    /// Each request goes to the next front.
    fn ask(&self, ask: &Ask, expected: u16) -> Option<String> {
        let front = self.fronts[self.requests.fetch_add(1, Relaxed) % self.fronts.len()];
        let answer = Line::open(front).ask(ask).map_err(|error| error.to_string());
        let failure = match answer {
            Ok(answer) if answer.status == expected => return Some(answer.text()),
            Ok(answer) => format!("{} {}", answer.status, answer.text()),
            Err(error) => error,
        };
        self.failures.lock().expect("a list").push(failure);
        None
    }

    fn work(&self, stop: &AtomicBool) {
        while !stop.load(Relaxed) {
            let kept = &self.kept[self.rounds.fetch_add(1, Relaxed) % self.kept.len()];
            self.ask(&pull(MANIFEST).bearer(kept), 200);
            if let Some(answer) = self.ask(&ask_token(SCOPE).basic(DEV), 200) {
                let answer: serde_json::Value = serde_json::from_str(&answer).expect("JSON");
                let fresh = answer["token"].as_str().unwrap_or_default();
                self.ask(&pull(MANIFEST).bearer(fresh), 200);
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn failures(&self) -> Vec<String> {
        self.failures.lock().expect("a list").clone()
    }
}

/// Runs `act` while both lanes work; `act` gets what lets each of them do some more rounds.
fn under_load(lanes: &[Lane; 2], act: impl FnOnce(&dyn Fn())) {
    let stop = AtomicBool::new(false);
    let stop = &stop;
    thread::scope(|scope| {
        struct Stop<'s>(&'s AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Relaxed);
            }
        }
        let _stopped = Stop(stop);
        for lane in lanes {
            (0..CLIENTS).for_each(|_| drop(scope.spawn(move || lane.work(stop))));
        }
        act(&|| {
            for lane in lanes {
                let before = lane.rounds.load(Relaxed);
                let more = || lane.rounds.load(Relaxed) >= before + ROUNDS;
                waiting::holds("the load goes on", Duration::from_mins(1), more);
            }
        });
    });
}

/// Nothing failed through the gate, and the same load failed without it.
fn judge([direct, through]: &[Lane; 2], gate: &Gate) {
    let failures = through.failures();
    assert!(failures.is_empty(), "through tidegate {failures:?}\n{}\n{}", gate.refusals(), gate.tail());
    assert!(!direct.failures().is_empty(), "nothing failed directly, so nothing was shown");
}

/// The row of the plan: a new key is put into the token, core replicas take it one after the other, the former one is
/// removed from the token.
fn rolls_under_load(next: &CoreKey) {
    let Scene { stage, cores: [a, b], hsm } = &Scene::new();
    let source = hsm.source(&softhsm::spy());
    let setup = Setup::before(&[a, b], &[]).source(&source).keys("reread_every = \"100ms\"");
    let spied = hsm.spied();
    let (gate, secret) = started(stage, &by_keys_alone(setup), &spied.each_ref().map(String::as_str));
    wait_for_state(&gate, &kid(0), "signing");
    let (former, next_kid) = (kid(0), next.kid().to_string());
    let lanes = [vec![a.address, b.address], vec![gate.address]].map(|fronts| Lane::new(fronts, 1));
    under_load(&lanes, |go_on| {
        go_on();
        hsm.import(next, "02");
        wait_for_state(&gate, &next_kid, "signing");
        go_on();
        next.rename_into(&b.key_file, KeyForm::Pkcs1).expect("a key");
        go_on();
        next.rename_into(&a.key_file, KeyForm::Pkcs1).expect("a key");
        go_on();
        hsm.delete("01");
        wait_for_state(&gate, &former, "verifying");
        go_on();
    });
    judge(&lanes, &gate);
    assert!(signed_in(&gate, SOURCE) >= 1.0, "the token signed");
    assert!(signed_in(&gate, "memory") < 0.5, "and nobody else");
    let shown = screen(&gate, &secret);
    assert!(shown.contains("SIGNED IN") && shown.contains(SOURCE) && shown.contains("  token  "), "{shown}");

    let kept = hsm.private_keys();
    assert!(kept.contains("sensitive") && !kept.contains(" extractable"), "{kept}");
    let calls = hsm.calls();
    assert!(calls.contains("CKA_MODULUS") && hsm.called("C_Sign") > 0, "the calls are written down");
    for word in
        ["CKA_PRIVATE_EXPONENT", "CKA_PRIME", "CKA_EXPONENT_", "CKA_COEFFICIENT", "C_WrapKey", "C_CopyObject"]
    {
        assert!(!calls.contains(word), "the private half was asked for: {word}");
    }
    assert_eq!(hsm.called("C_Login"), 1, "one log-in is enough");
}

#[test]
fn a_key_rolls_within_its_token_under_load_and_never_leaves_it() {
    rolls_under_load(spare_key(1));
}

#[test]
fn a_key_of_4096_bits_follows_one_of_2048_within_its_token() {
    rolls_under_load(&CoreKey::generate(4096).expect("a key"));
}

#[test]
fn a_key_made_in_the_token_verifies_and_is_found_by_its_id() {
    let Scene { stage, cores: [core, _], hsm } = &Scene::new();
    hsm.tool(&["--keypairgen", "--key-type", "rsa:2048", "--label", "made there", "--id", "0a"]);
    let setup = Setup::before(&[core], &[]).source(&hsm.source_of(&softhsm::module(), "id = \"0A\""));
    let (gate, _) = started(stage, &setup, &[&hsm.environment()]);
    let status = status(&gate);
    let keys = status["keys"].as_array().expect("keys");
    assert_eq!(keys.len(), 1, "{status:#}");
    assert_eq!((&keys[0]["source"], &keys[0]["token"]), (&"pkcs11:token=harbor;id=%0a".into(), &true.into()));
    assert_eq!(keys[0]["state"], "signing");
}

/// `tidegate check` of one source: its exit code, and all that it said in one line.
fn check(stage: &Stage, hsm: &SoftHsm, source: &str, core: &Replica) -> (i32, String) {
    let file = stage.path("check.toml");
    let text = Setup::before(&[core], &[]).source(source).rest("[store]\nurl = \"memory:\"\n").text();
    fs::write(&file, text).expect("a configuration");
    let mut command = Command::new("env");
    command.arg(hsm.environment()).arg(settings::tidegate()).args(["check", "--config"]).arg(&file);
    let output = command.output().expect("tidegate runs");
    let said = String::from_utf8([output.stdout, output.stderr].concat()).expect("text");
    (output.status.code().unwrap_or(-1), said.split_whitespace().collect::<Vec<_>>().join(" "))
}

#[test]
fn check_says_which_of_module_token_key_and_pin_is_wrong() {
    let Scene { stage, cores: [core, _], hsm } = &Scene::new();
    let right = hsm.source(&softhsm::module());
    let module = softhsm::module().display().to_string();
    let no_module = stage.path("text.so");
    fs::write(&no_module, "no library").expect("a file");
    let pin = hsm.path("pin").display().to_string();
    let other_pin = stage.path("wrong-pin");
    fs::write(&other_pin, "wrong").expect("a file");
    let replaced = |from: &str, to: &str| right.replacen(from, to, 1);
    let rows = [
        (replaced(&module, "/nowhere/module.so"), "module /nowhere/module.so is not there"),
        (replaced(&module, &no_module.display().to_string()), "can't be loaded"),
        (
            replaced(&format!("\"{TOKEN}\""), "\"harbour\""),
            "no token has the label \"harbour\"; the module shows \"harbor\"",
        ),
        (replaced(&format!("\"{LABEL}\""), "\"cores\""), "no RSA private key with this label"),
        (replaced(&pin, "/nowhere/pin"), "pin_file /nowhere/pin:"),
        (replaced(&pin, &other_pin.display().to_string()), "the token refused the PIN"),
    ];
    for (source, words) in rows {
        let (exit, said) = check(stage, hsm, &source, core);
        assert!(exit == 64 && said.contains(words), "{words}: {exit} {said}");
        assert!(said.contains("pkcs11:token=") && !said.contains(PIN), "{said}");
    }
    let (exit, said) = check(stage, hsm, &right, core);
    assert_eq!(exit, 0, "{said}");
    assert!(said.contains("token signing"), "{said}");
}

#[test]
fn what_a_source_of_a_token_lacks_is_named_in_the_configuration() {
    let Scene { stage, cores: [core, _], hsm } = &Scene::new();
    for (source, words) in [
        ("{ pkcs11 = { token = \"t\", label = \"l\", pin = \"p\" } }", "pkcs11.module"),
        ("{ pkcs11 = { module = \"/m\", label = \"l\", pin = \"p\" } }", "pkcs11.token"),
        ("{ pkcs11 = { module = \"/m\", token = \"t\", pin = \"p\" } }", "neither label nor id"),
        ("{ pkcs11 = { module = \"/m\", token = \"t\", id = \"abc\", pin = \"p\" } }", "hexadecimal"),
        ("{ pkcs11 = { module = \"/m\", token = \"t\", label = \"l\" } }", "no PIN"),
        (
            "{ pkcs11 = { module = \"/m\", token = \"t\", label = \"l\", pin = \"p\", pin_file = \"/p\" } }",
            "a value and a file",
        ),
        (
            "{ file = \"/f\", pkcs11 = { module = \"/m\", token = \"t\", label = \"l\", pin = \"p\" } }",
            "several of file",
        ),
    ] {
        let (exit, said) = check(stage, hsm, source, core);
        assert!(exit == 64 && said.contains(words), "{words}: {exit} {said}");
    }
}

#[test]
fn a_pin_may_come_by_the_environment() {
    let Scene { stage, cores: [core, _], hsm } = &Scene::new();
    let with_file = hsm.source(&softhsm::module());
    let without = with_file.replacen(&format!(", pin_file = \"{}\"", hsm.path("pin").display()), "", 1);
    let pin = format!("TIDEGATE_KEYS__SOURCES__0__PKCS11__PIN={PIN}\n");
    let setup = Setup::before(&[core], &[]).source(&without);
    let (gate, _) = started(stage, &setup, &[&hsm.environment(), &pin]);
    wait_for_state(&gate, &kid(0), "signing");
    assert!(!gate.output().contains(PIN));
}

/// Tokens lock for good after a few wrong PINs.
#[test]
fn a_wrong_pin_is_tried_once_however_often_the_token_is_looked_at() {
    let Scene { stage, cores: [core, _], hsm } = &Scene::new();
    hsm.pin_file("wrong");
    let setup =
        Setup::before(&[core], &[]).source(&hsm.source(&softhsm::spy())).keys("reread_every = \"100ms\"");
    let spied = hsm.spied();
    let (gate, _) = started(stage, &setup, &spied.each_ref().map(String::as_str));
    wait_for_alarm(&gate, "refused the PIN");
    let before = hsm.called("C_OpenSession");
    let looks = || hsm.called("C_OpenSession") >= before + 3;
    waiting::holds("the token is looked at again", PATIENCE, looks);
    assert_eq!(hsm.called("C_Login"), 1, "a refused PIN is not tried again");
    assert_eq!(pull(MANIFEST).bearer(&token(gate.address, DEV, SCOPE)).at(gate.address).status, 200);
    hsm.pin_file(PIN);
    wait_for_state(&gate, &kid(0), "signing");
    assert_eq!((hsm.called("C_Login"), alarm(&gate)), (2, None), "a changed one is");
}

/// One module, two tokens: what is wrong with one of them is no trouble of the other's.
#[test]
fn a_token_whose_pin_is_wrong_costs_another_token_of_the_module_nothing() {
    let Scene { stage, cores: [core, _], hsm } = &Scene::new();
    hsm.second_token("second", spare_key(1));
    let pin = stage.path("second-pin");
    fs::write(&pin, "wrong").expect("a file");
    let second = format!(
        "{{ pkcs11 = {{ module = \"{}\", token = \"second\", label = \"{LABEL}\", pin_file = \"{}\" }} }}",
        softhsm::module().display(),
        pin.display()
    );
    let setup = by_keys_alone(Setup::before(&[core], &[]).source(&hsm.source(&softhsm::module())));
    let (gate, _) = started(stage, &setup.source(&second), &[&hsm.environment()]);
    wait_for_state(&gate, &kid(0), "signing");
    let refused = || status(&gate)["alarms"].to_string().contains("refused the PIN");
    waiting::holds("the second token refuses", PATIENCE, refused);
    assert_eq!(alarm(&gate), None, "the first one is well");
    // Its one signature is needed for what the second key has signed, once that is known.
    hold(&core.key_file, 1);
    let foreign = token(core.address, DEV, SCOPE);
    hold(&core.key_file, 0);
    fs::write(stage.path("next"), PIN).expect("a file");
    fs::rename(stage.path("next"), &pin).expect("a file");
    wait_for_state(&gate, &kid(1), "signing");
    let held = || gate.metrics().values("tidegate_endpoint_held_key", "kid") == [kid(0)];
    waiting::holds("core holds key 0", PATIENCE, held);
    assert_eq!(pull(MANIFEST).bearer(&foreign).at(core.address).status, 401, "core itself refuses it");
    let answer = pull(MANIFEST).bearer(&foreign).at(gate.address);
    assert_eq!((answer.status, &*story(&gate, &answer)[1]), (200, "resign"), "{}", gate.tail());
    assert!(!gate.output().contains("is not supported"), "the module's own notes are in no log");
}

/// Every call of the module hangs, as with a network that swallows packets. Tokens that were issued through the gate go
/// up by their credential; what needs no signature is not touched; and key files are still followed.
#[test]
fn a_module_that_hangs_costs_no_request_and_nothing_else_waits_for_it() {
    let Scene { stage, cores: [a, b], hsm } = &Scene::new();
    let server = hsm.serve();
    let file = stage.path("known.pem");
    hold(&file, 2);
    let setup = Setup::before(&[a, b], &[&file]).source(&hsm.source(&softhsm::remote()));
    let setup = setup.keys("reread_every = \"100ms\"").rest("[token]\ncache = \"0s\"\n");
    let (gate, _) = started(stage, &setup, &[&server.environment()]);
    wait_for_state(&gate, &kid(0), "signing");
    // Of another key than both endpoints', and issued through the gate: by key or by credential.
    hold(&a.key_file, 1);
    hold(&b.key_file, 1);
    let tokens: Vec<String> = (0..5).map(|_| token(gate.address, DEV, SCOPE)).collect();
    for core in [a, b] {
        hold(&core.key_file, 0);
    }
    let held = || gate.metrics().values("tidegate_endpoint_held_key", "kid") == [kid(0)];
    hsm.import(spare_key(1), "02");
    wait_for_state(&gate, &kid(1), "signing");
    waiting::holds("the endpoints hold key 0", PATIENCE, held);
    let resigned = |token: &str| {
        let answer = pull(MANIFEST).bearer(token).at(gate.address);
        (answer.status, story(&gate, &answer)[1].clone())
    };
    assert_eq!(resigned(&tokens[0]), (200, "resign".to_owned()), "{}", gate.tail());

    server.signal("STOP");
    let began = Instant::now();
    assert_eq!(resigned(&tokens[1]), (200, "replay".to_owned()), "the credential is good for it");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    wait_for_alarm(&gate, "doesn't answer");
    let began = Instant::now();
    assert_eq!(resigned(&tokens[2]), (200, "replay".to_owned()));
    assert!(
        began.elapsed() < Duration::from_millis(1_900),
        "known to hang, it is not asked: {:?}",
        began.elapsed()
    );
    assert_eq!(pull(PUBLIC_MANIFEST).basic(ADMIN).at(gate.address).status, 200);
    assert_eq!(resigned(&tokens[0]), (200, "resign".to_owned()), "signed before");
    hold(&file, 1);
    wait_for_state(&gate, &kid(2), "verifying");

    server.signal("CONT");
    waiting::holds("the alarm ends", PATIENCE, || alarm(&gate).is_none());
    assert_eq!(resigned(&tokens[3]), (200, "resign".to_owned()), "it signs again");
}

/// What the token can't sign core judges as it came, and once: nothing of the next send would be another.
#[test]
fn a_token_whose_signature_cannot_be_made_goes_up_once() {
    let Scene { stage, cores: [core, _], hsm } = &Scene::new();
    hsm.import(spare_key(1), "02");
    let setup = by_keys_alone(Setup::before(&[core], &[]).source(&hsm.source(&softhsm::module())));
    let (gate, _) = started(stage, &setup, &[&hsm.environment()]);
    for key in [0, 1] {
        wait_for_state(&gate, &kid(key), "signing");
    }
    let tokens = [(); 2].map(|()| token(core.address, DEV, SCOPE));
    hold(&core.key_file, 1);
    let held = || gate.metrics().values("tidegate_endpoint_held_key", "kid") == [kid(1)];
    waiting::holds("core holds key 1", PATIENCE, held);
    let pulled = |token: &str| {
        let before = core.asked().len();
        let answer = pull(MANIFEST).bearer(token).at(gate.address);
        (answer.status, core.asked().len() - before, story(&gate, &answer)[1].clone())
    };
    assert_eq!(pulled(&tokens[0]), (200, 1, "resign".to_owned()), "{}", gate.tail());
    hsm.delete("02");
    wait_for_state(&gate, &kid(1), "verifying");
    assert_eq!(pulled(&tokens[1]), (401, 1, "as_came".to_owned()), "{}", gate.tail());
}

/// The device loses its power and comes back, twice, with everything that was open closed and logged out. Meanwhile the
/// credentials that tokens were issued for go up.
#[test]
fn a_token_that_is_reset_under_load_is_logged_in_to_again() {
    let Scene { stage, cores: [core, _], hsm } = &Scene::new();
    hsm.import(spare_key(1), "02");
    let mut server = hsm.serve();
    let setup = Setup::before(&[core], &[]).source(&hsm.source(&softhsm::remote()));
    let setup = setup.keys("reread_every = \"100ms\"").rest("[token]\ncache = \"0s\"\n");
    let (gate, _) = started(stage, &setup, &[&server.environment()]);
    wait_for_state(&gate, &kid(1), "signing");
    // Tokens enough that some are always used for the first time.
    let lanes = [core.address, gate.address].map(|front| Lane::new(vec![front], 400));
    hold(&core.key_file, 1);
    under_load(&lanes, |go_on| {
        let signs = |when: &str| {
            let before = signed_in(&gate, SOURCE);
            let signed = waiting::until(PATIENCE, || (signed_in(&gate, SOURCE) > before).then_some(()));
            assert!(signed.is_some(), "{when}: {:?}\n{}", alarm(&gate), gate.tail());
        };
        signs("the token signs");
        for _ in 0..2 {
            server.kill();
            go_on();
            server.start();
            signs("the token signs again");
        }
    });
    judge(&lanes, &gate);
    waiting::holds("no alarm stands", PATIENCE, || alarm(&gate).is_none());
}

#[test]
fn a_token_and_a_pin_that_change_their_place_are_taken_up_by_a_reload() {
    let Scene { stage, cores: [core, _], hsm } = &Scene::new();
    hsm.import_as(spare_key(1), "next", "02");
    let setup = |label: &str| {
        let source = hsm.source_of(&softhsm::module(), &format!("label = \"{label}\""));
        Setup::before(&[core], &[]).source(&source).keys("reread_every = \"100ms\"")
    };
    let (gate, _) = started(stage, &setup(LABEL), &[&hsm.environment()]);
    wait_for_state(&gate, &kid(0), "signing");
    gate.configure(&setup("next").text());
    gate.signal("HUP");
    wait_for_state(&gate, &kid(1), "signing");
    wait_for_state(&gate, &kid(0), "verifying");
}

#[test]
fn an_archive_of_keys_says_that_a_tokens_key_is_not_in_it() {
    let Scene { stage, cores: [core, _], hsm } = &Scene::new();
    let file = stage.path("file.pem");
    hold(&file, 1);
    let setup = Setup::before(&[core], &[&file]).source(&hsm.source(&softhsm::module()));
    let (gate, secret) = started(stage, &setup, &[&hsm.environment()]);
    wait_for_state(&gate, &kid(0), "signing");
    let (passphrase, archive) = (stage.path("passphrase"), stage.path("archive"));
    fs::write(&passphrase, "a passphrase of many words").expect("a file");
    let mut command = Command::new(settings::tidegate());
    command.args(["keys", "back-up", "--admin", &format!("http://{}", gate.admin), "--admin-token-file"]);
    command.arg(&secret).arg("--passphrase-file").arg(&passphrase).arg(&archive);
    let output = command.output().expect("tidegate runs");
    let said = String::from_utf8([output.stdout, output.stderr].concat()).expect("text");
    assert!(output.status.success(), "{said}");
    assert!(said.contains(&format!("{SOURCE}\n    is not in it")), "{said}");
    assert!(said.contains(&kid(1)) && said.contains("keys seen: 2"), "{said}");
}
