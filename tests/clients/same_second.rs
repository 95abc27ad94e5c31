//! Many clients come back in the same second, each with a token of the former key: each token is signed anew once,
//! and nobody waits long.

use crate::support::{
    gate::{self, Gate},
    harbor::{self, Harbor},
    http::{self, Connection},
    image::Image,
    settings,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use std::{
    net::SocketAddr,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

/// How often each client uses its token.
const USES: usize = 3;
/// With long durations: how long the slowest but one in a hundred may wait.
const LONGEST: Duration = Duration::from_secs(1);

#[test]
fn tokens_of_the_former_key_in_the_same_second_cost_one_signature_each_and_none_fails() {
    let clients = if settings::long() { 1000 } else { 200 };
    let harbor = Harbor::start();
    let core = harbor.replica("only");
    core.seed("priv/seed:v1", &Image::generate(5, 1));
    let gate = Gate::start(&gate::configuration(&[core.address], "auto", &[&core.key_file]));
    let tokens: Vec<String> = (0..clients).map(|_| token(core.address)).collect();
    let signing = harbor::replace_key(&core.key_file);
    gate.wait_for("the replaced key file is read", |metrics| {
        metrics.sum("tidegate_key_state", &[("kid", &signing), ("state", "signing")]) > 0.5
    });
    assert_eq!(use_token(&mut Connection::open(core.address).expect("core"), &tokens[0]), 401, "directly");
    let before = gate.metrics().sum("tidegate_signatures_total", &[]);
    let mut uses = use_at_once(gate.address, &tokens);
    uses.sort_by_key(|(_, took)| *took);
    let failed = uses.iter().filter(|(status, _)| *status != 200).count();
    let at = |share: usize| uses[uses.len() * share / 100].1;
    println!(
        "\n{clients} tokens of the former key at once: {failed} failed, p50 {:?}, p99 {:?}",
        at(50),
        at(99)
    );
    assert_eq!(failed, 0, "{}", gate.tail());
    let signatures = gate.metrics().sum("tidegate_signatures_total", &[]) - before;
    assert_eq!(signatures.round() as usize, clients, "one signature a token");
    assert!(!settings::long() || at(99) < LONGEST, "p99 {:?}", at(99));
}

/// Each client on a connection of its own, all beginning together; status and duration of each use.
fn use_at_once(gate: SocketAddr, tokens: &[String]) -> Vec<(u16, Duration)> {
    let start = &Barrier::new(tokens.len());
    let connected = tokens.iter().map(|token| (Connection::open(gate).expect("a connection"), token));
    let connected: Vec<_> = connected.collect();
    thread::scope(|scope| {
        let begin = |(mut connection, token): (Connection, &String)| {
            let token = token.clone();
            scope.spawn(move || {
                start.wait();
                [(); USES].map(|()| timed(|| use_token(&mut connection, &token)))
            })
        };
        let clients: Vec<_> = connected.into_iter().map(begin).collect();
        clients.into_iter().flat_map(|client| client.join().expect("a client")).collect()
    })
}

fn timed(act: impl FnOnce() -> u16) -> (u16, Duration) {
    let began = Instant::now();
    (act(), began.elapsed())
}

/// A token of the developer for the seed, straight from core.
fn token(core: SocketAddr) -> String {
    let account = harbor::account(core);
    let basic = format!("Basic {}", STANDARD.encode(format!("{}:{}", account.user, account.password)));
    let path = "/service/token?service=harbor-registry&scope=repository:priv/seed:pull";
    let answer = http::get(core, path, &[("Authorization", &basic)]).expect("core answers");
    let body: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
    body["token"].as_str().expect("a token").to_owned()
}

fn use_token(connection: &mut Connection, token: &str) -> u16 {
    let accept = ("Accept", "application/vnd.oci.image.manifest.v1+json");
    let bearer = format!("Bearer {token}");
    let headers = [("Authorization", bearer.as_str()), accept];
    connection.ask("GET", "/v2/priv/seed/manifests/v1", &headers).map_or(0, |answer| answer.status)
}
