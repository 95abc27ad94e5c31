//! Nothing but what was sealed here, whole and in its time, opens.

use base64::engine::general_purpose::STANDARD;

use super::*;
use crate::decisions::token::claims;

const NOW: UnixTime = UnixTime(1_000_000);
const BASIC: HeaderValue = HeaderValue::from_static("Basic cm9ib3QkY2k6c2VjcmV0");

fn tokens(deployment: &str) -> OwnTokens {
    OwnTokens::new(deployment).expect("randomness")
}

/// A key of so many days after `NOW`'s.
fn of_day(after: i64, byte: u8) -> (Day, Zeroizing<[u8; 32]>) {
    (Day(Day::of(NOW).0 + after), Zeroizing::new([byte; 32]))
}

fn access() -> Vec<Access> {
    vec![Access { kind: "repository".into(), name: "p/r".into(), actions: vec!["pull".into()] }]
}

fn sealed(tokens: &OwnTokens) -> String {
    tokens.seal(Some((&BASIC, "robot$ci")), access(), NOW).expect("a token")
}

fn open(tokens: &OwnTokens, token: &str, now: UnixTime) -> Option<Result<Own, Over>> {
    tokens.open(token.as_bytes(), now)
}

#[test]
fn a11_what_was_sealed_opens_until_its_end_and_is_for_five_minutes_at_most() {
    let tokens = tokens("default");
    let token = sealed(&tokens);
    let own = open(&tokens, &token, NOW.plus(Duration::from_secs(299))).expect("ours").expect("in its time");
    let (value, name) = own.credential.expect("somebody's");
    assert_eq!((value, name.as_str(), own.access), (BASIC, "robot$ci", access()));
    assert_eq!(own.expires, NOW.plus(Duration::from_mins(5)));
    for over in [NOW.plus(Duration::from_mins(5)), NOW.minus(Duration::from_secs(1))] {
        assert_eq!(open(&tokens, &token, over).expect("ours").err(), Some(Over), "{over:?}");
    }
    let nobodys = tokens.seal(None, Vec::new(), NOW).expect("a token");
    assert!(open(&tokens, &nobodys, NOW).expect("ours").is_ok_and(|own| own.credential.is_none()));
}

#[test]
fn a11_no_other_process_and_no_other_deployment_opens_it() {
    let (here, elsewhere) = (tokens("one"), tokens("one"));
    assert!(open(&elsewhere, &sealed(&here), NOW).is_none(), "another process");
    let other = OwnTokens { bound_to: tokens("two").bound_to, ..here };
    let token = sealed(&other);
    assert!(open(&other, &token, NOW).is_some());
    let back = OwnTokens { bound_to: elsewhere.bound_to, ..other };
    assert!(open(&back, &token, NOW).is_none(), "another deployment, the same key");
}

#[test]
fn a11_processes_that_share_a_key_open_each_others_and_what_they_sealed_before() {
    let (one, two) = (tokens("one"), tokens("one"));
    let before = sealed(&one);
    for process in [&one, &two] {
        process.share(&[of_day(0, 7)]);
    }
    assert!(open(&two, &sealed(&one), NOW).is_some());
    assert!(open(&one, &before, NOW).is_some(), "from before it was shared");
    assert!(open(&two, &before, NOW).is_none());
    let other = tokens("two");
    other.share(&[of_day(0, 7)]);
    assert!(open(&other, &sealed(&one), NOW).is_none(), "another deployment with the same key");
    let back = tokens("one");
    back.share(&[of_day(0, 7)]);
    assert!(open(&back, &sealed(&one), NOW).is_some(), "after a restart");
}

#[test]
fn a11_whatever_is_changed_or_cut_gives_nothing() {
    let tokens = tokens("default");
    let token = sealed(&tokens);
    for place in 0..token.len() {
        let mut forged = token.clone().into_bytes();
        forged[place] = if forged[place] == b'A' { b'B' } else { b'A' };
        assert!(tokens.open(&forged, NOW).is_none(), "byte {place}");
        assert!(tokens.open(&token.as_bytes()[..place], NOW).is_none(), "cut at {place}");
    }
    for other in ["", "tidegate1_", "tidegate1_AAAA", "tidegate2_AAAA", "a.b.c", "blank"] {
        assert!(open(&tokens, other, NOW).is_none(), "{other}");
    }
    assert!(open(&tokens, &format!("{PREFIX}{}", "A".repeat(claims::LONGEST)), NOW).is_none());
}

#[test]
fn a11_it_is_no_jws_fits_a_header_and_shows_nothing_of_what_is_in_it() {
    let tokens = tokens("default");
    let (one, two) = (sealed(&tokens), sealed(&tokens));
    assert_ne!(one, two, "each has a nonce of its own");
    assert!(claims::read(&one).is_err(), "no JWS");
    assert!(one.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-'), "{one}");
    let bytes = URL_SAFE_NO_PAD.decode(one.strip_prefix(PREFIX).expect("ours")).expect("base64url");
    let basic = BASIC;
    let secret = basic.to_str().expect("text").strip_prefix("Basic ").expect("Basic");
    let plain = STANDARD.decode(secret).expect("base64");
    for shown in [&b"robot"[..], secret.as_bytes(), &plain] {
        assert!(!bytes.windows(shown.len()).any(|part| part == shown));
    }
}

#[test]
fn a_credential_that_no_token_can_hold_gets_none() {
    let long = HeaderValue::from_str(&format!("Basic {}", "A".repeat(claims::LONGEST))).expect("a header");
    assert!(tokens("default").seal(Some((&long, "a")), Vec::new(), NOW).is_none());
}

#[test]
fn its_answer_has_the_shape_of_harbors() {
    let answer: serde_json::Value = serde_json::from_str(&answer("tidegate1_x", NOW)).expect("JSON");
    let expected = serde_json::json!({
        "token": "tidegate1_x", "access_token": "", "expires_in": 240, "issued_at": "1970-01-12T13:46:40Z"
    });
    assert_eq!(answer, expected);
}

#[test]
fn a11_tokens_of_a_day_are_sealed_by_its_own_key_and_open_beside_the_next_days() {
    let (one, two, late) = (tokens("one"), tokens("one"), tokens("one"));
    one.share(&[of_day(0, 7), of_day(1, 8)]);
    two.share(&[of_day(-1, 6), of_day(0, 7)]);
    late.share(&[of_day(1, 8), of_day(2, 9)]);
    let token = sealed(&one);
    assert!(open(&two, &token, NOW).is_some());
    assert!(open(&late, &token, NOW).is_none(), "its key is gone");
    let tomorrow = NOW.plus(Duration::from_hours(24));
    let next = one.seal(None, Vec::new(), tomorrow).expect("a token");
    assert!(open(&late, &next, tomorrow).is_some_and(|own| own.is_ok()));
    assert!(open(&two, &next, tomorrow).is_none(), "another key");
    let without = two.seal(None, Vec::new(), tomorrow).expect("a token");
    assert!(open(&one, &without, tomorrow).is_some(), "the last one that is known");
}

#[test]
fn a29_a_token_of_ours_can_be_given_an_earlier_end_and_no_later_one() {
    let tokens = tokens("one");
    let token = sealed(&tokens);
    let after = |seconds| NOW.plus(Duration::from_secs(seconds));
    let shorter = tokens.shortened(&token, after(60), NOW).expect("a shorter one");
    let own = open(&tokens, &shorter, NOW).expect("ours").expect("in its time");
    assert_eq!((own.expires, own.access), (after(60), access()));
    assert!(own.credential.is_some_and(|(value, name)| value == BASIC && name == "robot$ci"));
    assert!(open(&tokens, &shorter, after(60)).expect("ours").is_err());
    assert_eq!(tokens.shortened(&token, after(300), NOW), None);
    assert_eq!(tokens.shortened("a.b.c", after(1), NOW), None);
}
