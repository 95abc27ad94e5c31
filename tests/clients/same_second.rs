//! Many clients come back in the same second, each with a token of the former key: each token is signed anew once,
//! and nobody waits long.

use crate::support::{
    gate::{self, Gate},
    harbor::{self, Harbor},
    http::Connection,
    image::Image,
    settings,
};
use std::{
    fmt,
    net::SocketAddr,
    path::Path,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

/// What is asked for.
const SEED: &str = "priv/seed:v1";
/// With long durations: how long the slowest but one in a hundred may wait, in the middle one of three rounds. A machine
/// that others share is now and then twice as slow for a second.
const LONGEST: Duration = Duration::from_secs(1);

#[test]
fn tokens_of_the_former_key_in_the_same_second_cost_one_signature_each_and_none_fails() {
    let clients = if settings::long() { 1000 } else { 200 };
    // 1,000 requests cost docker-registry alone some 2.5 s of processor time, whoever sends them.
    let harbor = Harbor::start_in_memory();
    let core = harbor.replica("only");
    core.seed(SEED, &Image::generate(5, 1));
    let gate = Gate::start(&gate::configuration(&[core.address], "auto", &[&core.key_file]));
    let mut slowest: Vec<Duration> = (0..if settings::long() { 3 } else { 1 })
        .map(|_| come_back(&gate, core.address, &core.key_file, clients))
        .collect();
    slowest.sort();
    assert!(!settings::long() || slowest[slowest.len() / 2] < LONGEST, "p99 {slowest:?}");
}

/// One replaced key under so many tokens; how long the slowest but one in a hundred waited.
fn come_back(gate: &Gate, core: SocketAddr, key_file: &Path, clients: usize) -> Duration {
    let tokens: Vec<String> = (0..clients).map(|_| harbor::token(core, SEED)).collect();
    let signing = harbor::replace_key(key_file);
    gate.wait_for("the replaced key file is read", |metrics| {
        metrics.sum("tidegate_key_state", &[("kid", &signing), ("state", "signing")]) > 0.5
    });
    let direct = harbor::use_token(&mut Connection::open(core).expect("core"), &tokens[0], SEED);
    assert_eq!(direct, 401, "directly");
    let before = gate.metrics().sum("tidegate_signatures_total", &[]);
    let first = Burst::of(gate.address, &tokens);
    let signatures = gate.metrics().sum("tidegate_signatures_total", &[]) - before;
    let second = Burst::of(gate.address, &tokens);
    println!(
        "\n{clients} tokens of the former key at once: {first}; the same again, signed by now: {second}"
    );
    assert_eq!((first.failed, second.failed), (0, 0), "{}", gate.refusals());
    assert_eq!(signatures.round() as usize, clients, "one signature a token");
    first.p99
}

/// What came of one use of each token, all at once.
struct Burst {
    failed: usize,
    p50: Duration,
    p99: Duration,
}

impl Burst {
    fn of(gate: SocketAddr, tokens: &[String]) -> Self {
        let mut uses = use_at_once(gate, tokens);
        uses.sort_by_key(|(_, took)| *took);
        let at = |share: usize| uses[uses.len() * share / 100].1;
        let failed = uses.iter().filter(|(status, _)| *status != 200).count();
        Self { failed, p50: at(50), p99: at(99) }
    }
}

impl fmt::Display for Burst {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} failed, p50 {:.0?}, p99 {:.0?}", self.failed, self.p50, self.p99)
    }
}

/// Each client on a connection of its own, all beginning together; status and duration of each.
fn use_at_once(gate: SocketAddr, tokens: &[String]) -> Vec<(u16, Duration)> {
    let start = &Barrier::new(tokens.len());
    let connected = tokens.iter().map(|token| (Connection::open(gate).expect("a connection"), token));
    let connected: Vec<_> = connected.collect();
    thread::scope(|scope| {
        let begin = |(mut connection, token): (Connection, &String)| {
            let token = token.clone();
            scope.spawn(move || {
                start.wait();
                timed(|| harbor::use_token(&mut connection, &token, SEED))
            })
        };
        let clients: Vec<_> = connected.into_iter().map(begin).collect();
        clients.into_iter().map(|client| client.join().expect("a client")).collect()
    })
}

fn timed(act: impl FnOnce() -> u16) -> (u16, Duration) {
    let began = Instant::now();
    (act(), began.elapsed())
}
