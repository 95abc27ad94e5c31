//! Tokens that only look like known ones, and credentials that Harbor has refused.

use crate::{
    bench::{self, token_through},
    raw::get,
    standin::{Standin, basic_of},
    support::{gate::Gate, harbor},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use std::{net::SocketAddr, thread};

/// Of a repository that isn't there: 404 from who may read the project, 401 for all others (C9).
const TAGS: &str = "/v2/priv/app/tags/list";
const MAY: u16 = 404;

fn tags(address: SocketAddr, token: &str) -> u16 {
    get(address, TAGS, &format!("Authorization: Bearer {token}\r\n")).status
}

/// What core was sent for [`TAGS`]: the schemes of `Authorization`, `blank` for a bearer that means nothing.
fn sent(standin: &Standin) -> Vec<String> {
    let heads = standin.heads().into_iter().filter(|head| head.target == TAGS);
    let shown = |value: &str| match value.split_once(' ') {
        Some(("Bearer", "blank")) => "blank".to_owned(),
        Some((scheme, _)) => scheme.to_owned(),
        None => value.to_owned(),
    };
    heads.map(|head| head.header("authorization").map(shown).unwrap_or_default()).collect()
}

#[test]
fn a_flood_of_unknown_kids_causes_one_look_for_keys() {
    let standin = Standin::start();
    let limit = "[limits]\nunknown_kids = \"1/min\"\n";
    let gate = bench::start_with(limit, standin.address, &[&standin.key_file]);
    let token = standin.token("dev", &["repository:priv/app:pull"]);
    let rest = token.split_once('.').expect("parts").1.to_owned();
    let (before, address) = (standin.looks(), gate.address);
    let floods: Vec<_> = (0..4)
        .map(|flood| {
            let rest = rest.clone();
            thread::spawn(move || {
                for n in 0..100 {
                    let header = format!(r#"{{"alg":"RS256","kid":"AAAA:{flood}:{n}","typ":"JWT"}}"#);
                    let forged = format!("{}.{rest}", URL_SAFE_NO_PAD.encode(header));
                    assert_eq!(tags(address, &forged), 401);
                }
            })
        })
        .collect();
    for flood in floods {
        flood.join().expect("a flood");
    }
    let looks = standin.looks() - before;
    // Beside the look there may be a probe whose time had come.
    assert!((1..=2).contains(&looks), "{looks} looks for 400 names");
    let unknown = [("reason", "token_key_unknown")];
    gate.wait_for("each is counted", |metrics| metrics.sum("tidegate_rejections_total", &unknown) > 399.5);
    assert!(sent(&standin).iter().all(|shown| shown == "blank"), "none of them reached core");
    assert_eq!(tags(address, &token), MAY);
}

#[test]
fn a4_a_forged_token_with_known_claims_is_sent_once_and_never_replayed() {
    let standin = Standin::start();
    let gate = bench::start_with("", standin.address, &[]);
    let issued = token_through(&gate, "dev");
    assert_eq!(tags(gate.address, &issued), MAY);
    let (signed, signature) = issued.rsplit_once('.').expect("a signature");
    let other = if signature.starts_with('A') { "B" } else { "A" };
    // Its name, subject, `jti` and key are those of a token whose credential is at hand; its bytes are not.
    let forged = format!("{signed}.{other}{}", &signature[1..]);
    let before = sent(&standin).len();
    assert_eq!(tags(gate.address, &forged), 401);
    assert_eq!(sent(&standin)[before..], ["Bearer"]);
    // The same where core has another key, so that a replay is what the real one needs.
    harbor::replace_key(&standin.key_file);
    assert_eq!(tags(gate.address, &issued), MAY, "{}", gate.tail());
    assert_eq!(sent(&standin).last().map(String::as_str), Some("Basic"), "by the credential");
    let before = sent(&standin).len();
    assert_eq!(tags(gate.address, &forged), 401);
    assert!(sent(&standin)[before..].iter().all(|scheme| scheme != "Basic"), "{:?}", sent(&standin));
}

#[test]
fn a4_a_credential_that_harbor_has_refused_once_is_never_sent_again() {
    let standin = Standin::start();
    let gate = bench::start_with("", standin.address, &[]);
    let tokens = [token_through(&gate, "dev"), other_token_through(&gate)];
    // Directly at Harbor, so that nothing tells tidegate.
    assert!(standin.world.set_password("dev", "Changed12345"));
    harbor::replace_key(&standin.key_file);
    assert_eq!(tags(gate.address, &tokens[0]), 401);
    let replays = || sent(&standin).iter().filter(|scheme| *scheme == "Basic").count();
    assert_eq!(replays(), 1, "core was asked: {:?}", sent(&standin));
    for token in [&tokens[0], &tokens[1], &tokens[0]] {
        assert_eq!(tags(gate.address, token), 401);
    }
    assert_eq!(replays(), 1, "neither for that token nor for another of the same credential");
}

/// Another token of the same credential.
fn other_token_through(gate: &Gate) -> String {
    let target = "/service/token?service=harbor-registry&scope=repository:priv/app:pull";
    let answer = get(gate.address, target, &format!("Authorization: {}\r\n", basic_of("dev")));
    let body: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
    body["token"].as_str().expect("a token").to_owned()
}
