//! The only core is gone for longer than a client's patience with a token request or a ping: docker gives each 15 s.

use std::{
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use crate::{
    stage::{ADMIN, DEV, MANIFEST, PUBLIC_MANIFEST, Replica, SCOPE, Setup, Stage, ask_token, pull, story},
    support::gate::Gate,
    talk::{Answer, Ask, claims},
};

/// Harbor granted nothing of it before.
const PART: &str = "repository:priv/seed:pull";
const PUBLIC: &str = "repository:library/seed:pull";
const WRONG: (&str, &str) = ("dev", "guessed");

fn scene(rest: &str) -> (Stage, Replica, Gate) {
    let stage = Stage::new();
    let core = stage.replica("core", |_| {});
    core.seed();
    let gate = Setup::before(&[&core], &[&core.key_file]).rest("[token]\ncache = \"0s\"").rest(rest).start();
    (stage, core, gate)
}

fn ping() -> Ask {
    Ask::get("/v2/")
}

/// A clean error: to be tried again, and nothing of a wrong password.
fn is_unavailable(gate: &Gate, answer: &Answer, name: &str) {
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")), "{name}: {}", gate.tail());
    assert!(answer.text().contains("\"errors\""), "{name}: {}", answer.text());
    assert_eq!(answer.header("www-authenticate"), None, "{name}");
    assert_eq!(story(gate, answer)[2], "no_endpoint", "{name}");
}

#[test]
fn a15_a_credential_that_harbor_knew_gets_what_it_was_granted_before_and_an_unknown_one_503() {
    let (stage, core, gate) = scene("[park]\ntimeout = \"1s\"\n");
    let before = claims(&ask_token(SCOPE).basic(DEV).at(gate.address).token());
    let challenge = ping().at(gate.address);
    let address = core.address;
    stage.kill(core);
    assert!(TcpStream::connect(address).is_err(), "directly everything fails");

    let same = ask_token(SCOPE).basic(DEV).at(gate.address);
    assert_eq!(story(&gate, &same), ["rescued", "as_came", "grace"], "{}", gate.tail());
    let after = claims(&same.token());
    for name in ["iss", "sub", "aud", "iat", "nbf", "jti", "access"] {
        assert_eq!(after[name], before[name], "{name}");
    }
    let lives = |claims: &serde_json::Value| claims["exp"].as_i64().expect("exp");
    assert!(lives(&after) < lives(&before), "five minutes at most: {after}");

    for (name, ask) in [
        ("a wrong password", ask_token(SCOPE).basic(WRONG)),
        ("a login with a wrong password", ask_token("").basic(WRONG)),
        ("a user whom nobody has seen", ask_token(PART).basic(ADMIN)),
        ("a ping with a credential", ping().basic(DEV)),
        ("a ping for another host", ping().on("other.example")),
    ] {
        is_unavailable(&gate, &ask.at(gate.address), name);
    }
    let again = ping().at(gate.address);
    assert_eq!((again.status, again.header("www-authenticate")), (401, challenge.header("www-authenticate")));
    assert!(again.header("www-authenticate").is_some_and(|value| value.starts_with("Bearer ")));
    let [outcome, _, reason] = story(&gate, &again);
    assert_eq!([&*outcome, &*reason], ["rescued", "grace"]);

    let _back = stage.replica_at(address, "core", |_| {});
    assert_eq!(pull(MANIFEST).bearer(&same.token()).at(gate.address).status, 200, "{}", gate.tail());
}

#[test]
fn a11_for_another_scope_it_gets_a_token_that_harbor_judges_where_it_is_used() {
    let (stage, core, gate) = scene("[park]\ntimeout = \"1s\"\n");
    assert_eq!(ask_token(SCOPE).basic(DEV).at(gate.address).subject(), "dev");
    let address = core.address;
    stage.kill(core);
    let [part, foreign, nobodys, login] = [
        ask_token(PART).basic(DEV),
        ask_token("repository:other/r:pull").basic(DEV),
        ask_token(PUBLIC),
        ask_token("").basic(DEV),
    ]
    .map(|ask| {
        let answer = ask.at(gate.address);
        assert_eq!(story(&gate, &answer), ["rescued", "as_came", "own_token"], "{}", gate.tail());
        answer.token()
    });
    assert!(!part.contains('.'), "no JWS");
    let back = stage.replica_at(address, "core", |_| {});
    let use_it = |path: &str, token: &str| pull(path).bearer(token).at(gate.address).status;
    assert_eq!(use_it(MANIFEST, &part), 200, "{}", gate.tail());
    assert_eq!(use_it(PUBLIC_MANIFEST, &nobodys), 200, "C5: {}", gate.tail());
    assert_eq!(use_it(MANIFEST, &nobodys), 401, "nobody may do what is not for everybody");
    assert_eq!(ping().bearer(&login).at(gate.address).status, 200, "docker login goes on");
    let directly = pull("/v2/other/r/manifests/v1").basic(DEV).at(back.address).status;
    assert_eq!(use_it("/v2/other/r/manifests/v1", &foreign), directly, "Harbor's word");
    let push = Ask::new("POST", "/v2/priv/seed/blobs/uploads/").body("").bearer(&part).at(gate.address);
    assert_eq!(push.status, 401, "not asked for: {}", gate.tail());
}

#[test]
fn a15_a_refusal_while_all_was_healthy_ends_that_too() {
    let (stage, core, gate) = scene("[park]\ntimeout = \"1s\"\n");
    assert_eq!(ask_token(SCOPE).basic(DEV).at(gate.address).subject(), "dev");
    stage.world.add_user("dev", "Another12345", false);
    let refused = ask_token(PART).basic(DEV).at(gate.address);
    assert_eq!((refused.subject().as_str(), &*story(&gate, &refused)[2]), ("", "credential_refused"));
    stage.kill(core);
    for scope in [SCOPE, PART] {
        is_unavailable(&gate, &ask_token(scope).basic(DEV).at(gate.address), scope);
    }
}

#[test]
fn what_has_less_patience_than_the_park_is_answered_within_it() {
    let (stage, core, gate) = scene("");
    assert_eq!(ask_token(SCOPE).basic(DEV).at(gate.address).subject(), "dev");
    assert_eq!(ping().at(gate.address).status, 401);
    stage.kill(core);
    // Harbor's own word comes first, for a shorter time where grace has an answer.
    let asks = [
        ("grace", ask_token(SCOPE).basic(DEV), 3),
        ("own_token", ask_token(PART).basic(DEV), 10),
        ("grace", ping(), 10),
    ];
    thread::scope(|scope| {
        for (reason, ask, least) in asks {
            let gate = &gate;
            scope.spawn(move || {
                let began = Instant::now();
                let answer = ask.at(gate.address);
                let took = began.elapsed();
                assert_eq!(story(gate, &answer)[2], reason, "{}", gate.tail());
                assert!(took > Duration::from_secs(least), "{reason}: {took:?}");
                assert!(took < Duration::from_secs(15), "docker waits no longer: {took:?}");
            });
        }
    });
}
