//! Signed again: the same claims, to the byte.

use super::*;
use crate::decisions::{
    key::forge::{ec, rsa},
    token::forge::{Draft, NOW, kid, verified},
};

const NOTHING: Change<'_> = Change { audience: None, not_before_back: Duration::ZERO, kid: None };

fn resigned(token: &str, held: &Key, change: &Change<'_>) -> Result<String, ResignFault> {
    resign(token, held, change).and_then(Unsigned::sign)
}

fn parts(token: &str) -> (String, String) {
    let mut parts = token.split('.').map(|part| URL_SAFE_NO_PAD.decode(part).expect("base64url"));
    let mut next = || String::from_utf8(parts.next().expect("a part")).expect("text");
    (next(), next())
}

fn payload_after(draft: &Draft, change: &Change<'_>) -> String {
    parts(&resigned(&draft.signed(0), &rsa(2).key(), change).expect("signed")).1
}

#[test]
fn k4_the_payload_goes_on_byte_for_byte_under_the_held_key() {
    let draft = Draft::of(0)
        .set("access", r#"[ {"type":"repository", "name":"p/r","actions":["pull","*"],"class":"image"} ]"#)
        .also("odd", r#"{"b":1.50,"a":"\u00e9\/","b":-0}"#);
    let came = draft.signed(0);
    let signed = resigned(&came, &rsa(2).key(), &NOTHING).expect("signed");
    let middle = |token: &str| token.split('.').nth(1).expect("a payload").to_owned();
    assert_eq!(middle(&signed), middle(&came), "not even decoded");
    let (header, payload) = parts(&signed);
    assert_eq!(
        header,
        format!(r#"{{"alg":"RS256","kid":"{}","typ":"JWT"}}"#, kid(2)),
        "as Harbor writes it (T2)"
    );
    assert_eq!(payload, draft.payload());
    let (message, signature) = signed.rsplit_once('.').expect("three parts");
    assert!(rsa(2).key().verifies(message.as_bytes(), signature));
    assert!(!rsa(0).key().verifies(message.as_bytes(), signature));
}

#[test]
fn what_verified_before_verifies_after_and_says_the_same() {
    let ring = {
        let mut keeper = crate::decisions::token::forge::keeper();
        let file = crate::decisions::ring::SourceName::new("both");
        keeper.observe(&file, Ok(vec![rsa(0).key(), rsa(2).key()]), NOW).0
    };
    let came = Draft::of(0).set("aud", r#"["x","harbor-registry"]"#).signed(0);
    let change =
        Change { audience: Some("harbor-registry"), not_before_back: Duration::from_secs(7), kid: None };
    let signed = resigned(&came, &rsa(2).key(), &change).expect("signed");
    let (before, after) = (verified(&came, &ring), verified(&signed, &ring));
    assert_eq!(after.kid(), &kid(2));
    assert_eq!((after.access(), after.subject()), (before.access(), before.subject()));
    assert_eq!(
        (after.issued(), after.expires()),
        (before.issued(), before.expires()),
        "never iat or exp (V9)"
    );
    assert_eq!(after.not_before(), before.not_before().minus(Duration::from_secs(7)));
    assert!(after.plain_audience() && !before.plain_audience());
}

#[test]
fn v9_only_nbf_goes_back_and_every_other_member_keeps_its_bytes_and_place() {
    let odd = r#"{"z":1.50,"a":"\u00e9\/","z":-0, "deep":[[[{}]]]}"#;
    let draft = Draft::of(0).also("odd", odd).also("zero", "0e0");
    let change = Change { not_before_back: Duration::from_mins(1), ..NOTHING };
    let want = draft.clone().set("nbf", &(NOW.0 - 70).to_string()).payload();
    assert_eq!(payload_after(&draft, &change), want);
}

#[test]
fn a_list_of_audiences_becomes_harbors_plain_string() {
    let draft = Draft::of(0).set("aud", r#"["other", "harbor-registry"]"#);
    let change = Change { audience: Some("harbor-registry"), not_before_back: Duration::ZERO, kid: None };
    let want = draft.clone().set("aud", r#""harbor-registry""#).payload();
    assert_eq!(payload_after(&draft, &change), want);
}

#[test]
fn what_is_not_there_is_not_added() {
    let draft = Draft::of(0).without("nbf").without("jti");
    let change = Change { not_before_back: Duration::from_mins(1), ..NOTHING };
    assert_eq!(payload_after(&draft, &change), draft.payload());
}

#[test]
fn a_name_of_the_service_is_written_as_json() {
    let draft = Draft::of(0).set("aud", r#"["a"]"#);
    let change = Change { audience: Some("a\"b\\c"), not_before_back: Duration::ZERO, kid: None };
    assert!(payload_after(&draft, &change).contains(r#""aud":"a\"b\\c","#));
}

#[test]
fn nbf_at_the_end_of_the_numbers_goes_no_further() {
    let draft = Draft::of(0).set("nbf", &i64::MIN.to_string());
    let change = Change { not_before_back: Duration::from_mins(1), ..NOTHING };
    assert_eq!(payload_after(&draft, &change), draft.payload());
}

#[test]
fn a_public_half_signs_nothing_and_no_token_is_no_token() {
    let public = rsa(2).key().without_private();
    assert_eq!(resigned(&Draft::of(0).signed(0), &public, &NOTHING), Err(ResignFault::Key));
    for text in ["", "a.b.c", "..", &"x".repeat(100_000)] {
        assert_eq!(resigned(text, &rsa(2).key(), &NOTHING), Err(ResignFault::Malformed), "{text:.20}");
    }
}

#[test]
fn the_algorithm_is_the_held_keys() {
    let signed = resigned(&Draft::of(0).signed(0), &ec().key(), &NOTHING).expect("signed");
    assert!(parts(&signed).0.starts_with(r#"{"alg":"ES256","#));
    let (message, signature) = signed.rsplit_once('.').expect("three parts");
    assert!(ec().key().verifies(message.as_bytes(), signature));
}

#[test]
fn a_signature_made_elsewhere_is_taken_only_if_it_is_the_held_keys() {
    let (came, held) = (Draft::of(0).signed(0), rsa(2).key());
    let unsigned = || resign(&came, &held, &NOTHING).expect("a message");
    let by = |which: usize| {
        let text = rsa(which).key().sign(unsigned().message()).expect("a signature");
        URL_SAFE_NO_PAD.decode(text).expect("base64url")
    };
    let signed = unsigned().signed_elsewhere(&by(2)).expect("it is the key's");
    assert_eq!(signed, resigned(&came, &held, &NOTHING).expect("signed"), "the same as here");
    for wrong in [by(1), by(2)[1..].to_vec(), Vec::new()] {
        assert_eq!(unsigned().signed_elsewhere(&wrong), Err(ResignFault::Key));
    }
}

#[test]
fn a_key_is_named_as_its_endpoint_calls_it() {
    let (came, held) = (Draft::of(0).signed(0), rsa(2).key());
    for name in [held.kid(), held.thumbprint()] {
        let signed = resigned(&came, &held, &Change { kid: Some(name), ..NOTHING }).expect("signed");
        assert_eq!(parts(&signed).0, format!(r#"{{"alg":"RS256","kid":"{name}","typ":"JWT"}}"#));
        let (message, signature) = signed.rsplit_once('.').expect("three parts");
        assert!(held.verifies(message.as_bytes(), signature));
    }
}
