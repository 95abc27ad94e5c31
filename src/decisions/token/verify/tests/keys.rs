//! Which key proves a token, and until when.

use super::*;
use crate::decisions::{
    key::{PUBLISHED_DEFAULT, forge::rsa},
    ring::{Keeper, Listed, Listing, SourceName},
};

fn file() -> SourceName {
    SourceName::new("/etc/core/private_key.pem")
}

fn keeper_of(which: usize) -> Keeper {
    let mut keeper = forge::keeper();
    keeper.observe(&file(), Ok(vec![rsa(which).key()]), NOW);
    keeper
}

#[test]
fn a_key_that_signs_or_verifies_proves_its_tokens() {
    assert_eq!(came(&Draft::of(0).signed(0)), Came::Verified);
    assert_eq!(came(&Draft::of(1).times(-200, -200, 1_600).signed(1)), Came::Verified);
}

#[test]
fn a_token_is_found_by_the_thumbprint_of_its_key_as_well() {
    let key = rsa(0).key();
    let header = format!(r#"{{"alg":"RS256","kid":"{}"}}"#, key.thumbprint());
    let text = Draft::of(0).header(&header).signed(0);
    assert_eq!(came(&text), Came::Verified);
    assert_eq!(forge::verified(&text, &ring()).kid(), key.kid(), "named as Harbor names it");
}

#[test]
fn an_announced_or_retired_key_proves_nothing_and_the_reason_names_its_state() {
    assert_eq!(came(&Draft::of(2).signed(2)), refused(Fault::KeyAnnounced));
    let mut keeper = forge::keeper();
    keeper.declare(&file(), Listing { state: Some(Listed::Retired), ..Listing::default() });
    let (ring, _) = keeper.observe(&file(), Ok(vec![rsa(0).key()]), NOW);
    let retired = judged(&Draft::of(0).signed(0), &ring, &rules());
    assert_eq!(retired, refused(Fault::KeyRetired));
    assert_eq!(Fault::KeyRetired.reason().name(), "token_key_retired");
    assert_eq!(Fault::KeyAnnounced.reason().name(), "token_key_announced");
}

#[test]
fn a_key_whose_window_has_ended_is_retired_without_anyone_saying_so() {
    let mut keeper = keeper_of(1);
    let (ring, _) = keeper.observe(&file(), Ok(vec![rsa(0).key()]), UnixTime(NOW.0 - 1_860));
    assert_eq!(judged(&Draft::of(1).signed(1), &ring, &rules()), refused(Fault::KeyRetired));
}

#[test]
fn a_known_name_with_another_keys_signature_is_refused() {
    for signer in [1, 2, 3] {
        assert_eq!(came(&Draft::of(0).signed(signer)), refused(Fault::Signature));
    }
}

#[test]
fn a_name_of_nobody_is_not_tried_against_known_keys() {
    assert_eq!(came(&Draft::of(3).signed(0)), Came::Unknown(kid(3)));
    assert_eq!(came(&Draft::of(3).signed(3)), Came::Unknown(kid(3)), "a token of another Harbor (A10)");
    let strange = Draft::of(0).header(r#"{"alg":"RS256","kid":"../../../etc/passwd"}"#).signed(0);
    let Came::Unknown(kid) = came(&strange) else { panic!("a name opens nothing") };
    assert_eq!(kid.as_str(), "../../../etc/passwd");
}

#[test]
fn a_token_without_kid_is_refused_unless_that_is_configured_and_one_key_signs() {
    let text = Draft::of(0).header(r#"{"alg":"RS256","typ":"JWT"}"#).signed(0);
    assert_eq!(came(&text), refused(Fault::MissingKid));
    let lenient = Rules { accept_missing_kid: true, ..rules() };
    assert_eq!(judged(&text, &ring(), &lenient), Came::Verified);
    let by_other = Draft::of(1).header(r#"{"alg":"RS256"}"#).times(-200, -200, 1_600).signed(1);
    assert_eq!(judged(&by_other, &ring(), &lenient), refused(Fault::Signature), "no loop over keys");
    let mut keeper = keeper_of(0);
    let (two, _) = keeper.observe(&SourceName::new("second"), Ok(vec![rsa(1).key()]), NOW);
    assert_eq!(judged(&text, &two, &lenient), refused(Fault::MissingKid), "two keys sign");
}

#[test]
fn the_published_default_key_is_refused_by_its_name() {
    let header = format!(r#"{{"alg":"RS256","kid":"{PUBLISHED_DEFAULT}"}}"#);
    assert_eq!(came(&Draft::of(0).header(&header).signed(0)), refused(Fault::DefaultKey));
    assert_eq!(
        judged(&Draft::of(0).header(&header).signed(3), &Ring::default(), &rules()),
        refused(Fault::DefaultKey)
    );
}

#[test]
fn a9_a_key_retired_now_is_refused_from_the_next_judgement_on() {
    let mut keeper = keeper_of(0);
    let text = Draft::of(0).signed(0);
    let before = keeper.ring().clone();
    assert_eq!(judged(&text, &before, &rules()), Came::Verified);
    let (after, _) = keeper.retire_now(kid(0).as_str(), NOW).expect("a known key");
    assert_eq!(judged(&text, &after, &rules()), refused(Fault::KeyRetired));
    assert!(after.generation() > before.generation(), "what was remembered is not believed");
    let (again, _) = keeper.observe(&file(), Ok(vec![rsa(0).key()]), NOW);
    assert_eq!(judged(&text, &again, &rules()), refused(Fault::KeyRetired), "no source brings it back");
}

/// A key that another replica banned: this one never had it, so only its signature can tell.
#[test]
fn a9_a_banned_key_is_known_by_its_signature_under_any_kid() {
    let mut keeper = keeper_of(0);
    let (ring, _) = keeper.ban(std::sync::Arc::new(rsa(3).key()), NOW, NOW);
    let probed_elsewhere = r#"{"alg":"RS256","kid":"AAAA:BBBB"}"#;
    let banned = Draft::of(3).header(probed_elsewhere);
    assert_eq!(judged(&banned.signed(3), &ring, &rules()), refused(Fault::Banned));
    assert_eq!(judged(&Draft::of(3).signed(3), &ring, &rules()), refused(Fault::Banned));
    assert!(matches!(judged(&banned.signed(2), &ring, &rules()), Came::Unknown(_)));
}

/// core reads base64 leniently: were the spare bits of a signature let pass here, one banned signature would
/// be 16 texts of which 15 look like nobody's.
#[test]
fn a9_a_banned_signature_written_another_way_does_not_go_up_unverified() {
    let mut keeper = keeper_of(0);
    let (ring, _) = keeper.ban(std::sync::Arc::new(rsa(3).key()), NOW, NOW);
    for text in signatures::other_spellings(&Draft::of(3).signed(3)) {
        assert!(matches!(judged(&text, &ring, &rules()), Came::Refused(_)), "{text}");
    }
}

#[test]
fn a8_a_leaked_keys_forgeries_end_with_its_window() {
    let ten_years = Draft::of(0).times(-10, -10, 315_360_000).signed(0);
    assert_eq!(came(&ten_years), refused(Fault::LivesTooLong));
    // Key 1 stopped signing 100 s ago, the leeway is 60 s.
    let at = |iat| came(&Draft::of(1).times(iat, iat, iat + 1_800).signed(1));
    assert_eq!(at(-41), Came::Verified);
    assert_eq!(at(-40), Came::Verified, "the leeway's last second");
    assert_eq!(at(-39), refused(Fault::IssuedAfterKeyEnded));
    assert_eq!(at(0), refused(Fault::IssuedAfterKeyEnded));
}

#[test]
fn a8_a_life_may_have_harbors_length_and_the_leeway() {
    let living = |seconds: i64| came(&Draft::of(0).times(-10, -10, seconds - 10).signed(0));
    assert_eq!(living(1_860), Came::Verified);
    assert_eq!(living(1_861), refused(Fault::LivesTooLong));
}
