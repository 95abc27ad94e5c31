//! What is remembered of a token, and for how long it is believed.

use std::sync::Arc;

use super::*;
use crate::{
    decisions::{
        grace::ends::{Ends, ProcessId, Whose},
        key::forge::rsa,
        record::seal::{KEY, SealKey, SealRing},
        ring::SourceName,
        token::{
            claims,
            forge::{Draft, NOW, keeper, kid, rules},
            resign,
        },
    },
    edges::store::{Memory, Store},
    words::clock::Clock,
};

fn tokens() -> KnownTokens {
    KnownTokens::new(hmac::Key::new(hmac::HMAC_SHA256, b"a test's own"), 100)
}

fn file() -> SourceName {
    SourceName::new("/etc/core/private_key.pem")
}

/// The fault, or whether memory answered.
fn judged(tokens: &KnownTokens, text: &str, ring: &Ring, now: UnixTime) -> Result<bool, Fault> {
    match tokens.judge(text, ring, &rules(), now, None) {
        (Judgement::Known(_), by_memory) => Ok(by_memory),
        (Judgement::Refused(fault), by_memory) => {
            assert!(!by_memory, "a refusal is never remembered");
            Err(fault)
        }
        (Judgement::Unknown { .. } | Judgement::Own(_), _) => panic!("a known key"),
    }
}

#[test]
fn a9_what_was_verified_once_is_refused_as_soon_as_its_key_is_retired() {
    let (tokens, mut keeper) = (tokens(), keeper());
    let (ring, _) = keeper.observe(&file(), Ok(vec![rsa(0).key()]), NOW);
    let text = Draft::of(0).signed(0);
    assert_eq!(judged(&tokens, &text, &ring, NOW), Ok(false));
    assert_eq!(judged(&tokens, &text, &ring, NOW), Ok(true));
    let (ring, _) = keeper.retire_now(kid(0).as_str(), NOW).expect("a known key");
    assert_eq!(judged(&tokens, &text, &ring, NOW), Err(Fault::KeyRetired));
}

#[test]
fn a_window_that_ends_between_two_rings_ends_what_was_remembered() {
    let (tokens, mut keeper) = (tokens(), keeper());
    keeper.observe(&file(), Ok(vec![rsa(1).key()]), UnixTime(NOW.0 - 1_860));
    let (ring, _) = keeper.observe(&file(), Ok(vec![rsa(0).key()]), UnixTime(NOW.0 - 1_850));
    let text = Draft::of(1).times(-1_800, -1_800, 0).signed(1);
    assert_eq!(judged(&tokens, &text, &ring, NOW), Ok(false));
    assert_eq!(judged(&tokens, &text, &ring, UnixTime(NOW.0 + 9)), Ok(true));
    assert_eq!(judged(&tokens, &text, &ring, UnixTime(NOW.0 + 10)), Err(Fault::KeyRetired));
}

#[test]
fn memory_does_not_outlive_the_token() {
    let (tokens, mut keeper) = (tokens(), keeper());
    let (ring, _) = keeper.observe(&file(), Ok(vec![rsa(0).key()]), NOW);
    let text = Draft::of(0).times(-10, -10, 10).signed(0);
    assert_eq!(judged(&tokens, &text, &ring, NOW), Ok(false));
    assert_eq!(judged(&tokens, &text, &ring, UnixTime(NOW.0 + 69)), Ok(true));
    assert_eq!(judged(&tokens, &text, &ring, UnixTime(NOW.0 + 70)), Err(Fault::Expired));
}

#[test]
fn memory_is_of_exact_bytes() {
    let (tokens, mut keeper) = (tokens(), keeper());
    let (ring, _) = keeper.observe(&file(), Ok(vec![rsa(0).key()]), NOW);
    let text = Draft::of(0).signed(0);
    assert_eq!(judged(&tokens, &text, &ring, NOW), Ok(false));
    assert!(judged(&tokens, &format!("{text}="), &ring, NOW).is_err());
    assert_ne!(tokens.digest(&text), tokens.digest(&format!("{text}=")));
    let other = KnownTokens::new(hmac::Key::new(hmac::HMAC_SHA256, b"another"), 100);
    assert_ne!(tokens.digest(&text), other.digest(&text), "keyed: a digest tells nothing outside");
}

#[test]
fn what_has_ended_is_gone_from_memory() {
    let (tokens, mut keeper) = (tokens(), keeper());
    let (ring, _) = keeper.observe(&file(), Ok(vec![rsa(0).key()]), NOW);
    let ends_now = Draft::of(0).times(-59, -59, -59).signed(0);
    assert_eq!(judged(&tokens, &ends_now, &ring, NOW), Ok(false));
    assert_eq!(judged(&tokens, &Draft::of(0).signed(0), &ring, NOW), Ok(false));
    let lives = tokens.tokens.iter().map(|(_, known)| known.life).max();
    assert!(lives.is_some_and(|life| life >= Duration::from_mins(1)), "until exp and leeway: {lives:?}");
    std::thread::sleep(Duration::from_millis(1_100));
    assert_eq!(tokens.tokens.iter().count(), 1);
}

const WINDOW: Duration = Duration::from_hours(12);

/// One process of a deployment.
fn graces(id: u64, key: &[u8]) -> Graces {
    let seals = SealRing::new("d", SealKey::new(&[1; KEY]).expect("a key"), vec![]);
    let store = Store::new(Arc::<Memory>::default(), seals, Clock::system());
    let graces = Graces::new(ProcessId(id), 100);
    graces.open(hmac::Key::new(hmac::HMAC_SHA256, key), Some(Arc::new(store)));
    graces
}

/// What Harbor granted hours ago, granted again by `graces` for five minutes.
fn granted_again(graces: &Graces) -> String {
    let basic = HeaderValue::from_static("Basic YWxpY2U6c2VjcmV0");
    let issued = Draft::of(0).times(-10_000, -10_000, -8_200).signed(0);
    let claims = claims::read(&issued).expect("a token").unverified_claims;
    let what = (&*issued, "alice", &*claims.access.expect("an access"));
    graces.accepted([1; 32], &basic, what, (UnixTime(NOW.0 - 10_000), WINDOW), graces.seen());
    let granted = graces.find(&[1; 32]).expect("a grant");
    let expires = NOW.plus(grace::LIFE);
    let proof = graces.proof(&granted, expires).expect("a proof");
    let key = rsa(0).key();
    let unsigned = resign::grant_again(&issued, &key, expires, Some(&proof)).expect("a token");
    unsigned.sign().expect("signed")
}

#[test]
fn a8_a_token_of_grace_shows_itself_to_all_processes_and_nobody_else_can_make_one() {
    let (tokens, mut keeper) = (tokens(), keeper());
    let (ring, _) = keeper.observe(&file(), Ok(vec![rsa(0).key()]), NOW);
    let (one, two, stranger) = (graces(1, b"theirs"), graces(2, b"theirs"), graces(3, b"another's"));
    let token = granted_again(&one);
    let judged = |text: &str, graces: &Graces| match tokens.judge(
        text,
        &ring,
        &rules(),
        NOW,
        Some((graces, WINDOW)),
    ) {
        (Judgement::Refused(fault), _) => Err(fault),
        (Judgement::Known(known), _) => Ok(known.grace.is_some()),
        _ => panic!("a known key"),
    };
    assert_eq!(judged(&token, &stranger), Err(Fault::LivesTooLong), "another deployment");
    let claims = claims::read(&token).expect("a token").unverified_claims;
    let proof = format!("\"{}\"", claims.grace.expect("a proof"));
    let forged = |draft: Draft| draft.set("tidegate_grace", &proof).signed(0);
    let times = |exp| Draft::of(0).times(-10_000, -10_000, exp);
    for (name, draft) in [
        ("a later end", times(301)),
        ("another's", times(300).set("sub", "\"admin\"")),
        ("more", times(300).set("access", r#"[{"type":"repository","name":"q/r","actions":["push"]}]"#)),
        ("another iat", Draft::of(0).times(-9_999, -10_000, 300)),
    ] {
        assert_eq!(judged(&forged(draft), &two), Err(Fault::LivesTooLong), "{name}: by a key that leaked");
    }
    assert_eq!(judged(&token, &two), Ok(true));
    let mut ends = Ends::new(ProcessId(4));
    two.learn(ends.add(Whose::Project("p".into()), NOW));
    assert_eq!(judged(&token, &two), Err(Fault::Expired), "a write has ended it");
    assert_eq!(judged(&Draft::of(0).signed(0), &two), Ok(false), "not Harbor's own");
}
