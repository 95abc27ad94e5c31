//! What is remembered of a token, and for how long it is believed.

use super::*;
use crate::decisions::{
    key::forge::rsa,
    ring::SourceName,
    token::forge::{Draft, NOW, keeper, kid, rules},
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
