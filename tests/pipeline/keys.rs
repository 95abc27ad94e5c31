//! Keys end when their operator says so: retired now, listed no more, or by time (A19).

use crate::{
    gate_clock::GateClock,
    operating::{status, with_token},
    stage::{DEV, MANIFEST, Replica, SCOPE, Setup, Stage, hold, kid, pull, story, token},
    support::{gate::Gate, waiting},
    talk::{Answer, Ask},
};
use std::time::Duration;
use tidegate::words::clock::Clock;

fn scene() -> (Stage, Replica) {
    let stage = Stage::new();
    let core = stage.replica("core", |_| {});
    core.seed();
    (stage, core)
}

fn state(gate: &Gate, kid: &str, state: &str) {
    gate.wait_for(&format!("{kid} is {state}"), |metrics| {
        metrics.sum("tidegate_key_state", &[("kid", kid), ("state", state)]) > 0.5
    });
}

fn retire(gate: &Gate, kid: &str, token: Option<&str>) -> Answer {
    let kid = kid.replace(':', "%3A");
    let ask = Ask::new("POST", &format!("/v1/keys/{kid}/retire")).on(&gate.admin.to_string()).body("");
    token.map_or(ask.clone(), |token| ask.bearer(token)).at(gate.admin)
}

#[test]
fn tokens_of_a_retired_key_are_refused_from_the_next_request_on() {
    let (stage, core) = scene();
    let (gate, _) = with_token(&stage, &Setup::before(&[&core], &[&core.key_file]));
    let token = token(gate.address, DEV, SCOPE);
    assert_eq!(pull(MANIFEST).bearer(&token).at(gate.address).status, 200);
    for wrong in [None, Some("guessed")] {
        let refused = retire(&gate, &kid(0), wrong).status;
        assert!([401, 403].contains(&refused), "A28: {refused}");
    }
    assert_eq!(retire(&gate, "AAAA:BBBB", Some("a token of the operator's")).status, 404);
    assert_eq!(pull(MANIFEST).bearer(&token).at(gate.address).status, 200, "nothing has ended yet");
    let retired = retire(&gate, &kid(0), Some("a token of the operator's"));
    assert_eq!(retired.status, 200, "{}", retired.text());
    let answer = pull(MANIFEST).bearer(&token).at(gate.address);
    assert_eq!((answer.status, story(&gate, &answer)[1].as_str()), (401, "blank"));
    assert_eq!(story(&gate, &answer)[2], "token_key_retired");
    assert_eq!(pull(MANIFEST).bearer(&token).at(core.address).status, 200, "core itself would take it");
    // Core takes what follows the word, whatever stands before it.
    for scheme in ["Bearer", "X Bearer ", "Basic YTpiBearer "] {
        let hidden = pull(MANIFEST).header("Authorization", &format!("{scheme}{token}"));
        assert_eq!(hidden.at(core.address).status, 200, "core itself would take {scheme:?}");
        let answer = hidden.at(gate.address);
        assert_eq!((answer.status, story(&gate, &answer)[1].as_str()), (401, "blank"), "{scheme:?}");
    }
}

#[test]
fn a_replaced_key_verifies_on_only_where_the_overlap_is_automatic() {
    for (overlap, expected) in [("auto", 200), ("listed", 401), ("off", 401)] {
        let (_stage, core) = scene();
        let setup = Setup::before(&[&core], &[&core.key_file]).keys(&format!("overlap = \"{overlap}\""));
        let gate = setup.start();
        let token = token(core.address, DEV, SCOPE);
        assert_eq!(pull(MANIFEST).bearer(&token).at(gate.address).status, 200, "{overlap}");
        hold(&core.key_file, 1);
        state(&gate, &kid(1), "signing");
        let answer = pull(MANIFEST).bearer(&token).at(gate.address);
        assert_eq!(answer.status, expected, "{overlap}: {:?}", story(&gate, &answer));
    }
}

#[test]
fn a_listed_former_key_verifies_until_its_time_is_over() {
    let (stage, core) = scene();
    let former = stage.path("former.pem");
    hold(&former, 0);
    let token = token(core.address, DEV, SCOPE);
    hold(&core.key_file, 1);
    let until = utc(Clock::system().now().0 + 4);
    let listed = format!("{{ file = \"{}\", state = \"verifying\", until = {until} }}", former.display());
    let gate =
        Setup::before(&[&core], &[&core.key_file]).keys("overlap = \"listed\"").source(&listed).start();
    let answer = pull(MANIFEST).bearer(&token).at(gate.address);
    assert_eq!((answer.status, story(&gate, &answer)[1].as_str()), (200, "resign"));
    let refused = waiting::until(Duration::from_secs(10), || {
        let answer = pull(MANIFEST).bearer(&token).at(gate.address);
        (answer.status == 401).then_some(answer)
    });
    let refused = refused.expect("the key's time ends");
    assert_eq!(story(&gate, &refused)[1..], ["blank".to_owned(), "token_key_retired".to_owned()]);
}

/// The overlap that nobody has listed ends by itself: the gate's clock is put past `token_lifetime` and `leeway`.
#[test]
fn a_replaced_key_verifies_for_a_tokens_lifetime_and_no_longer() {
    let stage = Stage::new();
    let core = stage.replica("core", |options| options.token_expiration = Duration::from_mins(1));
    core.seed();
    let clock = GateClock::new(&stage);
    let setup = Setup::before(&[&core], &[&core.key_file]);
    let setup = setup.keys("token_lifetime = \"1m\"\nleeway = \"5s\"").rest("[replay]\nenabled = false");
    let starter = clock.starter();
    let words: Vec<&str> = starter.iter().map(String::as_str).collect();
    let gate = Gate::start_by(&words, &setup.text());
    let former = token(gate.address, DEV, SCOPE);
    hold(&core.key_file, 1);
    state(&gate, &kid(0), "verifying");
    for (seconds, expected) in [(0, "verifying"), (45, "verifying"), (66, "retired")] {
        clock.is_ahead(seconds);
        state(&gate, &kid(0), expected);
        let answer = pull(MANIFEST).bearer(&former).at(gate.address);
        let told = if expected == "retired" { (401, "token_key_retired") } else { (200, "resign") };
        assert_eq!((answer.status, &*story(&gate, &answer)[2]), told, "{seconds}\n{}", gate.tail());
    }
    state(&gate, &kid(1), "signing");
}

#[test]
fn keys_are_listed_for_the_operator_with_their_states() {
    let (stage, core) = scene();
    let (gate, _) = with_token(&stage, &Setup::before(&[&core], &[&core.key_file]));
    hold(&core.key_file, 1);
    state(&gate, &kid(0), "verifying");
    let shown = status(&gate);
    let listed = shown["keys"].as_array().expect("keys").iter();
    let states: Vec<_> = listed.map(|key| (key["kid"].clone(), key["state"].clone())).collect();
    assert!(states.contains(&(kid(0).into(), "verifying".into())), "{states:?}");
    assert!(states.contains(&(kid(1).into(), "signing".into())), "{states:?}");
}

/// RFC 3339 in UTC of seconds since 1970.
pub fn utc(seconds: i64) -> String {
    let at = std::process::Command::new("date")
        .args(["-u", "-d", &format!("@{seconds}"), "+%Y-%m-%dT%H:%M:%SZ"])
        .output();
    String::from_utf8_lossy(&at.expect("date runs").stdout).trim().to_owned()
}
