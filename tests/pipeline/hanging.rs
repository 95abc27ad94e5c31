//! Core hangs, or what it needs does (D2 to D4): tidegate notices by itself, and nobody else has to find out.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use tidegate::rehearsal::harbor::{Head, Health, Moment, Version, World};

use crate::{
    outages::{OTHER, PUBLIC, SHORT_PARK, SOON, WRONG, is_unavailable, parked},
    stage::{DEV, MANIFEST, Replica, SCOPE, Setup, Stage, ask_token, pull, story, token},
    support::{gate::Gate, waiting},
    talk::{Answer, Ask, Line},
};

/// What docker gives a token, its way there and back among them.
const DOCKER: Duration = Duration::from_secs(15);
const NO_CACHE: &str = "[token]\ncache = \"0s\"\n";

/// One core behind a gate.
fn one(version: Version, rest: &str) -> (Stage, Replica, Gate) {
    let stage = Stage::new();
    let core = stage.replica("core", |options| options.version = version);
    core.seed();
    let gate = Setup::before(&[&core], &[&core.key_file]).rest(NO_CACHE).rest(rest).start();
    (stage, core, gate)
}

/// Two cores with a database and a Redis of their own each, behind a gate; the second one's world beside.
struct Two {
    stage: Stage,
    other: Arc<World>,
    cores: [Replica; 2],
    gate: Gate,
}

impl Two {
    fn begin() -> Self {
        let (stage, other) = (Stage::new(), Arc::new(World::sample()));
        let cores = [
            stage.replica("first", |_| {}),
            stage.replica("second", |options| options.world = Arc::clone(&other)),
        ];
        cores.iter().for_each(Replica::seed);
        let gate = Setup::before(&[&cores[0], &cores[1]], &[&cores[0].key_file]).rest(NO_CACHE).start();
        Self { stage, other, cores, gate }
    }
}

/// Whether an answer's head comes within `patience`.
fn answers_within(address: SocketAddr, ask: &Ask, patience: Duration) -> bool {
    let mut line = Line::open(address);
    line.stream.set_read_timeout(Some(patience)).expect("a time-out");
    match line.ask(ask) {
        Ok(_) => true,
        Err(error) if [io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut].contains(&error.kind()) => false,
        Err(error) => panic!("neither an answer nor silence: {error}"),
    }
}

fn timed(ask: &Ask, gate: &Gate) -> (Answer, Duration) {
    let began = Instant::now();
    (ask.at(gate.address), began.elapsed())
}

/// All at once.
fn all(asks: impl IntoIterator<Item = Ask>, gate: &Gate) -> Box<dyn FnOnce() -> Vec<Answer>> {
    let to = gate.address;
    let asked: Vec<_> = asks.into_iter().map(|ask| thread::spawn(move || ask.at(to))).collect();
    Box::new(move || asked.into_iter().map(|ask| ask.join().expect("no panic")).collect())
}

#[test]
fn what_a_hanging_database_holds_waits_here_and_does_not_bury_core() {
    let (stage, core, gate) = one(Version::V2_10_2, "");
    let bearer = token(gate.address, DEV, SCOPE);
    stage.world.set_database(Health::Hanging);
    let directly = pull(MANIFEST).bearer(&bearer);
    assert!(!answers_within(core.address, &directly, Duration::from_secs(1)), "it hangs directly");
    let pulls = |count| (0..count).map(|_| pull(MANIFEST).bearer(&bearer));
    let first = all(pulls(3), &gate);
    parked(&gate, 3.0);
    let sent = core.asked().len();
    let later = all(pulls(40), &gate);
    parked(&gate, 43.0);
    assert_eq!(core.asked().len(), sent, "nothing more goes up than our own question");
    let challenge = Ask::get(MANIFEST).at(gate.address);
    assert_eq!(challenge.status, 401, "what needs no database goes on: {}", gate.tail());
    stage.world.set_database(Health::Up);
    for answer in first().into_iter().chain(later()) {
        assert_eq!(answer.status, 200, "{}", gate.tail());
        assert_eq!(story(&gate, &answer)[2], "park");
    }
    assert_eq!(pull(MANIFEST).bearer(&bearer).at(gate.address).status, 200);
}

#[test]
fn a_slow_answer_is_no_outage() {
    let stage = Stage::new();
    let slow = stage.replica("slow", |options| {
        options.gate = Some(Arc::new(|moment, head: &Head| {
            let waits = moment == Moment::Arrived && head.target == MANIFEST && head.method == "GET";
            waits.then(|| Box::pin(tokio::time::sleep(Duration::from_secs(7))) as _)
        }));
    });
    slow.seed();
    let gate = Setup::before(&[&slow], &[&slow.key_file]).rest(SHORT_PARK).start();
    let bearer = token(gate.address, DEV, SCOPE);
    let (answer, took) = timed(&pull(MANIFEST).bearer(&bearer), &gate);
    assert_eq!(answer.status, 200, "{}", gate.tail());
    assert_eq!(story(&gate, &answer)[0], "forwarded");
    assert!(took >= Duration::from_secs(7), "{took:?}");
}

#[test]
fn a_hanging_core_is_passed_by_where_another_is_well() {
    let Two { stage, other, cores: [_well, hanging], gate } = Two::begin();
    let bearer = token(gate.address, DEV, SCOPE);
    other.set_database(Health::Hanging);
    let directly = pull(MANIFEST).bearer(&bearer);
    assert!(!answers_within(hanging.address, &directly, Duration::from_secs(1)), "it hangs directly");
    let pulls = (0..4).map(|_| pull(MANIFEST).bearer(&bearer));
    let asks = pulls.chain((0..4).map(|_| ask_token(SCOPE).basic(DEV)));
    let (began, answers) = (Instant::now(), all(asks, &gate)());
    for answer in &answers {
        assert_eq!(answer.status, 200, "{}\n{}", answer.text(), gate.tail());
    }
    assert!(began.elapsed() < DOCKER, "{:?}", began.elapsed());
    let sent = hanging.asked().len();
    for _ in 0..20 {
        let (answer, took) = timed(&pull(MANIFEST).bearer(&bearer), &gate);
        assert_eq!(answer.status, 200, "{}", gate.tail());
        assert!(took < Duration::from_secs(2), "at once, not after {took:?}");
        assert_eq!(ask_token(SCOPE).basic(DEV).at(gate.address).subject(), "dev");
    }
    assert_eq!(hanging.asked().len(), sent, "not where it hangs");
    other.set_database(Health::Up);
    waiting::holds("it is used again", SOON, || {
        assert_eq!(pull(MANIFEST).bearer(&bearer).at(gate.address).status, 200);
        hanging.asked().len() > sent
    });
    drop(stage);
}

#[test]
fn a_core_whose_database_refuses_is_passed_by_where_another_is_well() {
    let Two { stage, other: _other, cores: [first, _second], gate } = Two::begin();
    let bearer = token(gate.address, DEV, SCOPE);
    stage.world.set_database(Health::Refusing);
    assert_eq!(ask_token(SCOPE).basic(DEV).at(first.address).subject(), "", "directly: a wrong password");
    for _ in 0..10 {
        assert_eq!(ask_token(SCOPE).basic(DEV).at(gate.address).subject(), "dev", "{}", gate.tail());
        assert_eq!(ask_token("").basic(DEV).at(gate.address).subject(), "dev", "{}", gate.tail());
        assert_eq!(Ask::get("/v2/").basic(DEV).at(gate.address).status, 200, "{}", gate.tail());
        assert_eq!(pull(MANIFEST).bearer(&bearer).at(gate.address).status, 200, "{}", gate.tail());
    }
}

#[test]
fn a15_grace_begins_before_a_client_that_a_hanging_database_keeps_waiting_leaves() {
    let (stage, core, gate) = one(Version::V2_10_2, "");
    assert_eq!(ask_token(SCOPE).basic(DEV).at(gate.address).subject(), "dev");
    stage.world.set_database(Health::Hanging);
    let ask = ask_token(SCOPE).basic(DEV);
    assert!(!answers_within(core.address, &ask, Duration::from_secs(1)), "it hangs directly");
    let (answer, took) = timed(&ask, &gate);
    assert_eq!(story(&gate, &answer)[2], "grace", "{}", gate.tail());
    assert!(took < Duration::from_secs(12), "{took:?}");
    let (answer, took) = timed(&ask, &gate);
    assert_eq!(story(&gate, &answer)[2], "grace", "{}", gate.tail());
    assert!(took < Duration::from_secs(7), "what hangs is known by now: {took:?}");
    let (answer, took) = timed(&ask_token(OTHER).basic(DEV), &gate);
    is_unavailable(&gate, &answer, "another scope");
    assert!(took < DOCKER, "{took:?}");
    stage.world.set_database(Health::Up);
    assert_eq!(ask_token(OTHER).basic(DEV).at(gate.address).subject(), "dev");
}

#[test]
fn a15_grace_goes_on_while_all_of_core_hangs_and_nobody_is_told_of_a_wrong_password() {
    let (stage, core, gate) = one(Version::V2_10_2, "");
    assert_eq!(ask_token(SCOPE).basic(DEV).at(gate.address).subject(), "dev");
    stage.world.set_redis(Health::Hanging);
    let ping = Ask::get("/v2/");
    assert!(!answers_within(core.address, &ping, Duration::from_secs(1)), "even that hangs directly");
    let asks = [
        ("known", ask_token(SCOPE).basic(DEV)),
        ("another scope", ask_token(OTHER).basic(DEV)),
        ("a wrong password", ask_token(SCOPE).basic(WRONG)),
        ("nobody", ask_token(PUBLIC)),
    ];
    let began = Instant::now();
    let answers = all(asks.iter().map(|(_, ask)| ask.clone()), &gate)();
    assert!(began.elapsed() < DOCKER, "{:?}", began.elapsed());
    assert_eq!(story(&gate, &answers[0])[2], "grace", "{}", gate.tail());
    for ((name, _), answer) in asks.iter().zip(&answers).skip(1) {
        is_unavailable(&gate, answer, name);
    }
    gate.wait_for("the endpoint takes no requests", |metrics| metrics.sum("tidegate_endpoint_up", &[]) < 0.5);
    let waits = all([ping, pull(MANIFEST).bearer(&answers[0].token())], &gate);
    parked(&gate, 2.0);
    stage.world.set_redis(Health::Up);
    let statuses: Vec<u16> = waits().iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [401, 200], "{}", gate.tail());
}

#[test]
fn a_core_that_hangs_whole_is_passed_by_where_another_is_well() {
    let Two { stage, other: _other, cores: [first, _second], gate } = Two::begin();
    let bearer = token(gate.address, DEV, SCOPE);
    stage.world.set_redis(Health::Hanging);
    assert!(!answers_within(first.address, &Ask::get("/v2/"), Duration::from_secs(1)), "it hangs directly");
    let asks = (0..8).map(|n| match n % 3 {
        0 => Ask::get("/v2/").bearer(&bearer),
        1 => pull(MANIFEST).bearer(&bearer),
        _ => ask_token(SCOPE).basic(DEV),
    });
    let began = Instant::now();
    for answer in all(asks, &gate)() {
        assert_eq!(answer.status, 200, "{}\n{}", answer.text(), gate.tail());
    }
    assert!(began.elapsed() < DOCKER, "{:?}", began.elapsed());
    gate.wait_for("one is ejected", |metrics| metrics.sum("tidegate_endpoint_up", &[]) < 1.5);
    for _ in 0..10 {
        let (answer, took) = timed(&pull(MANIFEST).bearer(&bearer), &gate);
        assert_eq!(answer.status, 200, "{}", gate.tail());
        assert!(took < Duration::from_secs(2), "{took:?}");
    }
    stage.world.set_redis(Health::Up);
    gate.wait_for("it is back", |metrics| metrics.sum("tidegate_endpoint_up", &[]) > 1.5);
}

#[test]
fn a15_grace_answers_while_2_8_answers_nothing_but_503_without_redis() {
    let (stage, core, gate) = one(Version::V2_8_4, SHORT_PARK);
    assert_eq!(ask_token(SCOPE).basic(DEV).at(gate.address).subject(), "dev");
    stage.world.set_redis(Health::Refusing);
    assert_eq!(ask_token(SCOPE).basic(DEV).at(core.address).status, 503, "directly (D3)");
    let answer = ask_token(SCOPE).basic(DEV).at(gate.address);
    assert_eq!(story(&gate, &answer)[2], "grace", "{}", gate.tail());
    let another = ask_token(OTHER).basic(DEV).at(gate.address);
    assert_eq!(story(&gate, &another)[2], "own_token", "Harbor judges it where it is used: {}", gate.tail());
    let wrong = ask_token(SCOPE).basic(WRONG).at(gate.address);
    assert_eq!((wrong.status, wrong.header("retry-after")), (503, Some("1")), "{}", gate.tail());
    stage.world.set_redis(Health::Up);
    let well = || pull(MANIFEST).bearer(&answer.token()).at(gate.address).status == 200;
    waiting::holds("it serves again", SOON, well);
}

#[test]
fn a_core_that_is_slow_without_redis_is_waited_for() {
    let (stage, _core, gate) = one(Version::V2_10_2, "");
    let bearer = token(gate.address, DEV, SCOPE);
    stage.world.set_redis(Health::Refusing);
    let answers = all(
        [ask_token(SCOPE).basic(DEV), pull(MANIFEST).bearer(&bearer), Ask::get("/v2/").basic(DEV)],
        &gate,
    )();
    for answer in &answers {
        assert_eq!((answer.status, &*story(&gate, answer)[0]), (200, "forwarded"), "{}", gate.tail());
    }
    assert_eq!(answers[0].subject(), "dev");
}

#[test]
fn a_ping_is_answered_before_docker_gives_up_while_all_of_core_hangs() {
    let (stage, core, gate) = one(Version::V2_10_2, "");
    let ping = Ask::get("/v2/");
    let before = ping.at(gate.address);
    assert_eq!(before.status, 401);
    stage.world.set_redis(Health::Hanging);
    assert!(!answers_within(core.address, &ping, Duration::from_secs(1)), "it hangs directly");
    let (answer, took) = timed(&ping, &gate);
    assert_eq!(answer.status, 401, "after {took:?}: {}\n{}", answer.text(), gate.tail());
    assert_eq!(answer.header("www-authenticate"), before.header("www-authenticate"));
    assert_eq!(story(&gate, &answer)[2], "grace");
    assert!(took < DOCKER, "{took:?}");
}
