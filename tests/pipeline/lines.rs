//! Requests that have to wait for a connection that they may have.

use crate::{
    stage::{DEV, MANIFEST, Replica, SCOPE, Setup, Stage, hold, kid, pull, token},
    support::{gate::Gate, waiting},
    talk::{Answer, Ask},
};
use std::{
    pin::Pin,
    sync::Arc,
    thread::{self, Scope, ScopedJoinHandle},
    time::Duration,
};
use tidegate::rehearsal::harbor::{CoreOptions, Head, Moment};
use tokio::sync::Semaphore;

const SOON: Duration = Duration::from_secs(20);
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
