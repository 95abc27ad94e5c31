//! Requests that have to wait: for a connection that they may have, for their turn to replay.

use crate::{
    stage::{
        ADMIN, DEV, MANIFEST, ROBOT, Replica, SCOPE, Setup, Stage, hold, kid, path_of, pull, spare_key, token,
    },
    support::{gate::Gate, waiting},
    talk::{Answer, Ask, Line, chunks, claims},
};
use std::{
    pin::Pin,
    sync::Arc,
    thread::{self, Scope, ScopedJoinHandle},
    time::Duration,
};
use tidegate::{
    rehearsal::harbor::{CoreOptions, Head, Moment},
    words::clock::{Clock, UnixTime},
};
use tokio::sync::Semaphore;

const SOON: Duration = Duration::from_secs(20);
/// Probed for all the time.
const OFTEN: &str = r#"probe = { every = "200ms", in_window = "200ms", timeout = "3s" }"#;
/// Core answers nothing there before it is told to.
const HELD: &str = "/v2/priv/held/";

/// A core that holds requests for [`HELD`] until the semaphore has room.
fn holding(stage: &Stage, name: &str, change: impl FnOnce(&mut CoreOptions)) -> (Replica, Arc<Semaphore>) {
    let room = Arc::new(Semaphore::new(0));
    let door = room.clone();
    let core = stage.replica(name, |options| {
        options.gate = Some(Arc::new(move |moment, head: &Head| {
            let door = door.clone();
            let wait = async move { drop(door.acquire().await) };
            let holds = moment == Moment::Arrived && head.target.starts_with(HELD);
            holds.then(|| Box::pin(wait) as Pin<Box<dyn Future<Output = ()> + Send>>)
        }));
        change(options);
    });
    core.seed();
    (core, room)
}

/// tidegate has so many workers, each with a pool of its own, and gives them sockets in turn.
fn workers() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// So many connections to an endpoint for each worker.
fn connections(each: usize) -> String {
    format!("pool = {{ per_endpoint = {} }}", each * workers())
}

/// Requests to core that began so.
fn count(core: &Replica, method: &str, path: &str) -> usize {
    core.asked().iter().filter(|head| head.method == method && head.target.starts_with(path)).count()
}

/// Tokens that were judged so far.
fn judged(gate: &Gate) -> f64 {
    let metrics = gate.metrics();
    metrics.sum("tidegate_token_cache_hits_total", &[])
        + metrics.sum("tidegate_token_cache_misses_total", &[])
}

/// Sends a request with a token; returns when its token was judged.
fn asks<'scope>(
    scope: &'scope Scope<'scope, '_>,
    gate: &'scope Gate,
    ask: Ask,
) -> ScopedJoinHandle<'scope, Answer> {
    let before = judged(gate);
    let asks = scope.spawn(move || ask.at(gate.address));
    waiting::holds("its token is judged", SOON, || judged(gate) > before);
    asks
}

/// Replaces core's key where tidegate has none: tokens go by their credential from now on.
fn lose_key(gate: &Gate, core: &Replica) {
    hold(&core.key_file, 1);
    gate.wait_for("the replaced key is probed", |metrics| {
        metrics.sum("tidegate_endpoint_held_key", &[("kid", &kid(1))]) > 0.5
    });
}

#[test]
fn a19_a_key_that_ends_while_a_request_waits_for_a_connection_proves_nothing_any_more() {
    let stage = Stage::new();
    let (core, room) = holding(&stage, "core", |_| {});
    let ours = stage.path("ours.pem");
    hold(&ours, 0);
    let gate = Setup::before(&[&core], &[&ours])
        .upstream(&connections(1))
        .keys("overlap = \"off\"")
        .rest("[replay]\nenabled = false\n")
        .start();
    let token = token(gate.address, DEV, SCOPE);
    let answer = thread::scope(|scope| {
        let held = Ask::get(&format!("{HELD}manifests/v1")).basic(DEV);
        for _ in 0..workers() {
            let held = held.clone();
            let address = gate.address;
            scope.spawn(move || held.at(address));
        }
        waiting::holds("all connections are in use", SOON, || count(&core, "GET", HELD) == workers());
        let waits = asks(scope, &gate, pull(MANIFEST).bearer(&token));
        hold(&ours, 1);
        gate.wait_for("the key is retired", |metrics| {
            metrics.sum("tidegate_key_state", &[("kid", &kid(1)), ("state", "signing")]) > 0.5
        });
        room.add_permits(100);
        waits.join().expect("no panic")
    });
    assert_eq!(answer.status, 401, "{}\n{}", answer.text(), gate.tail());
    let sent = core.asked();
    let sent = sent.iter().filter(|head| head.method == "GET" && head.target == MANIFEST);
    let sent: Vec<_> = sent.filter_map(|head| head.header("authorization")).collect();
    assert!(!sent.iter().any(|value| value.contains(&token)), "{sent:?}");
}

#[test]
fn a4_a_token_that_expires_while_it_waits_for_its_turn_is_not_replayed() {
    let stage = Stage::new();
    let (core, room) = holding(&stage, "core", |options| options.token_expiration = Duration::from_secs(6));
    spare_key(1);
    let gate = Setup::before(&[&core], &[]).upstream(OFTEN).start();
    let token = token(gate.address, DEV, SCOPE);
    let ends = UnixTime(claims(&token)["exp"].as_i64().expect("its end"));
    lose_key(&gate, &core);
    let answer = thread::scope(|scope| {
        let address = gate.address;
        let first = Ask::get(&format!("{HELD}manifests/v1")).bearer(&token);
        scope.spawn(move || first.at(address));
        waiting::holds("the first replay is up", SOON, || count(&core, "GET", HELD) == 1);
        let waits = asks(scope, &gate, pull(MANIFEST).bearer(&token));
        waiting::holds("the token ends", SOON, || Clock::system().now() > ends);
        room.add_permits(100);
        waits.join().expect("no panic")
    });
    assert_eq!(answer.status, 401, "{}\n{}", answer.text(), gate.tail());
    let sent = core.asked();
    let sent = sent.iter().filter(|head| head.method == "GET" && head.target == MANIFEST);
    let sent: Vec<_> = sent.filter_map(|head| head.header("authorization")).collect();
    assert!(!sent.iter().any(|value| value.starts_with("Basic")), "{sent:?}");
}

#[test]
fn uploads_that_are_replayed_run_side_by_side_once_core_has_had_time_to_refuse() {
    let stage = Stage::new();
    let core = stage.replica("core", |_| {});
    core.seed();
    spare_key(1);
    let gate = Setup::before(&[&core], &[]).upstream(OFTEN).start();
    let uploads = "/v2/priv/seed/blobs/uploads/";
    // Opened directly: through tidegate this would prove the credential.
    let open: Vec<_> =
        (0..8).map(|_| path_of(&Ask::new("POST", uploads).body("").basic(ROBOT).at(core.address))).collect();
    let token = token(gate.address, ROBOT, SCOPE);
    lose_key(&gate, &core);
    let mut lines: Vec<_> = open
        .iter()
        .map(|path| {
            let ask = Ask::new("PATCH", path).chunked("").bearer(&token);
            let mut line = Line::open(gate.address);
            line.send(&[ask.head(), chunks(b"the beginning")].concat()).expect("it is read");
            line
        })
        .collect();
    waiting::holds("all are up", SOON, || count(&core, "PATCH", uploads) == open.len());
    for line in &mut lines {
        line.send(b"0\r\n\r\n").expect("it is read");
        let answer = line.answer(false).expect("an answer");
        assert_eq!(answer.status, 202, "{}\n{}", answer.text(), gate.tail());
    }
}

#[test]
fn those_who_wait_for_their_turn_to_replay_hold_no_connection() {
    let stage = Stage::new();
    let (core, room) = holding(&stage, "core", |_| {});
    spare_key(1);
    // Of four connections one address may have two.
    let gate = Setup::before(&[&core], &[]).upstream(OFTEN).upstream(&connections(4)).start();
    let token = token(gate.address, DEV, SCOPE);
    lose_key(&gate, &core);
    thread::scope(|scope| {
        let address = gate.address;
        let first = Ask::get(&format!("{HELD}manifests/v1")).bearer(&token);
        scope.spawn(move || first.at(address));
        waiting::holds("the first replay is up", SOON, || count(&core, "GET", HELD) == 1);
        let line: Vec<_> =
            (1..2 * workers()).map(|_| asks(scope, &gate, pull(MANIFEST).bearer(&token))).collect();
        let other = pull(MANIFEST).basic(ADMIN).at(gate.address);
        assert_eq!(other.status, 200, "{}\n{}", other.text(), gate.tail());
        assert_eq!(count(&core, "GET", MANIFEST), 1, "the others still wait");
        room.add_permits(100);
        for waits in line {
            let answer = waits.join().expect("no panic");
            assert_eq!(answer.status, 200, "{}\n{}", answer.text(), gate.tail());
        }
    });
}

#[test]
fn what_finds_no_connection_at_one_endpoint_goes_to_another() {
    let stage = Stage::new();
    let ((first, room), second) = (holding(&stage, "first", |_| {}), stage.replica("second", |_| {}));
    let gate = Setup::before(&[&first, &second], &[]).upstream(&connections(1)).start();
    thread::scope(|scope| {
        // Turn and turn about: of each worker's two, one goes to either endpoint.
        for _ in 0..2 * workers() {
            let address = gate.address;
            scope.spawn(move || Ask::get(&format!("{HELD}manifests/v1")).basic(DEV).at(address));
        }
        waiting::holds("the first endpoint is full", SOON, || count(&first, "GET", HELD) == workers());
        for _ in 0..4 * workers() {
            let answer = pull(MANIFEST).basic(DEV).at(gate.address);
            assert_eq!(answer.status, 200, "{}\n{}", answer.text(), gate.tail());
        }
        room.add_permits(100);
    });
    assert!(gate.metrics().sum("tidegate_endpoint_up", &[]) > 1.5, "none is ejected for it");
}
