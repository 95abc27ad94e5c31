//! What counts as evidence of an outage: core's own words and silence, not what a client can bring about.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use tidegate::{
    decisions::outage::QUESTION,
    edges::probe::LONGEST_ANSWER,
    rehearsal::harbor::{Head, Health, Moment},
};

use crate::{
    cutter::{Cutter, Until},
    operating::{status, with_token},
    outages::{SHORT_PARK, SOON, is_unavailable},
    stage::{
        ADMIN, DEV, MANIFEST, Replica, SCOPE, Setup, Stage, ask_token, hold, manifest, pull, push, story,
        token,
    },
    support::{gate::Gate, waiting},
    talk::{Answer, Ask},
};

const NO_CACHE: &str = "[token]\ncache = \"0s\"\n";
const REFUSES: &str = "core does not reach its database";
const AGAIN: &str = "core reaches its database again";

/// How often the gate's log says this.
fn said(gate: &Gate, message: &str) -> usize {
    gate.events().iter().filter(|event| event.to_string().contains(message)).count()
}

/// A core that takes `so long` for each of our own questions.
fn slow_to_be_asked(stage: &Stage, so_long: Duration) -> Replica {
    let core = stage.replica("core", |options| {
        options.gate = Some(Arc::new(move |moment, head: &Head| {
            let waits = moment == Moment::Arrived && head.target == QUESTION;
            waits.then(|| Box::pin(tokio::time::sleep(so_long)) as _)
        }));
    });
    core.seed();
    core
}

#[test]
fn a15_whatever_answers_our_question_but_an_outage_no_grace_follows() {
    let stage = Stage::new();
    let core = stage.replica("core", |_| {});
    core.seed();
    let gate = Setup::before(&[&core], &[&core.key_file]).rest(NO_CACHE).rest(SHORT_PARK).start();
    assert_eq!(ask_token(SCOPE).basic(DEV).at(gate.address).subject(), "dev");
    // Were there such a project all the same.
    let repository = QUESTION.trim_start_matches("/v2/").split("/manifests/").next().expect("a repository");
    stage.world.add_project(repository.split('/').next().expect("a project"), true);
    let layer = b"x";
    assert_eq!(push(core.address, repository, "small", layer, |ask| ask.basic(ADMIN)), Ok(()));
    let docker = "application/vnd.docker.distribution.manifest.v2+json";
    let long = manifest(b"{}", layer)
        .replace("vnd.oci.image.manifest.v1+json", "vnd.docker.distribution.manifest.v2+json")
        .replacen('{', &format!("{{\"annotations\":{{\"a\":\"{}\"}},", "x".repeat(LONGEST_ANSWER)), 1);
    let put = Ask::new("PUT", QUESTION).header("Content-Type", docker).body(long).basic(ADMIN);
    assert_eq!(put.at(core.address).status, 201);
    let directly = Ask::get(QUESTION).bearer("blank").at(core.address);
    assert!(directly.status == 200 && directly.body.len() > LONGEST_ANSWER, "{}", directly.status);

    stage.world.set_password("dev", "Another12345");
    let refused = ask_token(SCOPE).basic(DEV).at(gate.address);
    assert_eq!(&*story(&gate, &refused)[2], "credential_refused", "{}", gate.tail());
    let wrong = Ask::get("/v2/").basic(DEV).at(gate.address);
    assert_eq!((wrong.status, wrong.header("www-authenticate")), (401, Some(r#"Basic realm="harbor""#)));
}

#[test]
fn a15_no_grace_for_what_core_refused_while_our_question_is_not_answered() {
    let stage = Stage::new();
    let core = slow_to_be_asked(&stage, Duration::from_mins(1));
    let gate = Setup::before(&[&core], &[&core.key_file]).rest(NO_CACHE).rest(SHORT_PARK).start();
    for scope in [SCOPE, ""] {
        assert_eq!(ask_token(scope).basic(DEV).at(gate.address).subject(), "dev");
    }
    stage.world.set_password("dev", "Another12345");
    assert_eq!(ask_token(SCOPE).basic(DEV).at(core.address).subject(), "", "core answers: a wrong password");
    is_unavailable(&gate, &ask_token(SCOPE).basic(DEV).at(gate.address), "a former password");
}

/// A replay of the former password, refused while our own question is not answered, or is; then the password is right
/// again. Where nothing was doubted it is over for good (A4).
#[test]
fn a4_a_refusal_of_a_replay_is_doubted_while_our_question_finds_an_outage() {
    for (answers, expected) in [(true, 401), (false, 200)] {
        let stage = Stage::new();
        let silent = Arc::new(AtomicBool::new(false));
        let hears = silent.clone();
        let core = stage.replica("core", |options| {
            options.gate = Some(Arc::new(move |moment, head: &Head| {
                let waits = moment == Moment::Arrived && head.target == QUESTION && hears.load(SeqCst);
                waits.then(|| Box::pin(tokio::time::sleep(Duration::from_mins(1))) as _)
            }));
        });
        core.seed();
        // No key but core's own: tokens of the former one are replayed.
        let gate = Setup::before(&[&core], &[]).rest(NO_CACHE).rest(SHORT_PARK).start();
        let bearer = token(gate.address, DEV, SCOPE);
        hold(&core.key_file, 1);
        let replayed = pull(MANIFEST).bearer(&bearer).at(gate.address);
        assert_eq!((replayed.status, &*story(&gate, &replayed)[1]), (200, "replay"), "{}", gate.tail());
        silent.store(!answers, SeqCst);
        stage.world.set_password("dev", "Another12345");
        assert_eq!(pull(MANIFEST).basic(DEV).at(core.address).status, 401, "directly");
        assert_ne!(pull(MANIFEST).bearer(&bearer).at(gate.address).status, 200, "{}", gate.tail());
        stage.world.set_password("dev", DEV.1);
        silent.store(false, SeqCst);
        // What waits for core's lock, or for the end of the outage, comes through in the end.
        let pulled = || pull(MANIFEST).bearer(&bearer).at(gate.address).status;
        waiting::holds("core answers again", SOON, || pulled() != 503);
        assert_eq!(pulled(), expected, "our question is answered: {answers}\n{}", gate.tail());
    }
}

/// A core behind a wire that changes one answer to a client into a 401 with these words and an empty challenge.
fn told_once(message: &'static str) -> (Stage, Replica, Gate, Answer) {
    let stage = Stage::new();
    let core = stage.replica("core", |_| {});
    core.seed();
    let wire = Cutter::start(core.address);
    let key = format!("{{ file = \"{}\" }}", core.key_file.display());
    let gate = Setup::default().endpoint(&wire.url()).source(&key).rest(NO_CACHE).start();
    let bearer = token(gate.address, DEV, SCOPE);
    wire.next(move |answer| {
        answer.status = 401;
        let body = serde_json::json!({"errors": [{"code": "UNAUTHORIZED", "message": message}]}).to_string();
        answer.body = body.into_bytes();
        answer.headers = vec![
            ("Content-Length".to_owned(), answer.body.len().to_string()),
            ("Www-Authenticate".to_owned(), String::new()),
        ];
        Until::End
    });
    let answer = pull(MANIFEST).bearer(&bearer).at(gate.address);
    (stage, core, gate, answer)
}

#[test]
fn what_a_client_makes_the_database_say_is_no_outage() {
    let (_stage, _core, gate, answer) =
        told_once("ERROR: invalid byte sequence for encoding \"UTF8\": 0x00 (SQLSTATE 22021)");
    assert_eq!((answer.status, &*story(&gate, &answer)[0]), (401, "forwarded"), "{}", gate.tail());
    assert_eq!(said(&gate, REFUSES), 0, "{}", gate.tail());
}

#[test]
fn one_answer_that_tells_of_an_outage_is_hidden_and_says_nothing_of_others() {
    let (_stage, _core, gate, answer) = told_once("dial tcp 10.0.0.5:5432: connect: connection refused");
    assert_eq!((answer.status, &*story(&gate, &answer)[2]), (200, "park"), "{}", gate.tail());
    assert_eq!(said(&gate, REFUSES), 0, "our own question finds it well: {}", gate.tail());
}

#[test]
fn a_core_that_needs_long_for_our_question_is_used_again() {
    let stage = Stage::new();
    let hung = Arc::new(AtomicBool::new(false));
    let core = stage.replica("core", |options| {
        options.gate = Some(Arc::new(move |moment, head: &Head| {
            if moment != Moment::Arrived {
                return None;
            }
            let long = if head.target == QUESTION {
                Duration::from_millis(4_500)
            } else if head.target == MANIFEST && head.method == "GET" && !hung.swap(true, SeqCst) {
                Duration::from_mins(1)
            } else {
                return None;
            };
            Some(Box::pin(tokio::time::sleep(long)) as _)
        }));
    });
    core.seed();
    let gate = Setup::before(&[&core], &[&core.key_file]).start();
    let bearer = token(gate.address, DEV, SCOPE);
    let answer = pull(MANIFEST).bearer(&bearer).at(gate.address);
    assert_eq!((answer.status, &*story(&gate, &answer)[2]), (200, "park"), "{}", gate.tail());
}

#[test]
fn a_core_that_is_gone_is_not_said_to_reach_its_database() {
    let stage = Stage::new();
    let core = stage.replica("core", |_| {});
    core.seed();
    let setup = Setup::before(&[&core], &[&core.key_file])
        .upstream("probe = { every = \"60s\", in_window = \"60s\" }")
        .rest(SHORT_PARK);
    let (gate, _) = with_token(&stage, &setup);
    let bearer = token(gate.address, DEV, SCOPE);
    stage.world.set_database(Health::Refusing);
    assert_eq!(pull(MANIFEST).bearer(&bearer).at(gate.address).status, 503);
    waiting::holds("it is told", SOON, || said(&gate, REFUSES) == 1);
    let is_troubled = || status(&gate)["alarms"].to_string().contains("it fails what needs its database");
    waiting::holds("an alarm", SOON, is_troubled);
    stage.kill(core);
    // What is troubled is asked once a second, until it is well or gone.
    waiting::holds("it was asked again", SOON, || !is_troubled());
    assert_eq!(said(&gate, AGAIN), 0, "{}", gate.tail());
}
