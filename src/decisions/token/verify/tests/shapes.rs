//! Texts that are no tokens, or tokens of strange shapes.

use super::*;
use crate::words::scope::Access;

#[test]
fn a_token_has_three_parts() {
    let good = Draft::of(0).signed(0);
    let table = [
        (String::new(), Malformed::Parts),
        (".".to_owned(), Malformed::Parts),
        ("..".to_owned(), Malformed::Header),
        ("a".to_owned(), Malformed::Parts),
        ("a.b".to_owned(), Malformed::Parts),
        (format!("{good}."), Malformed::Parts),
        (format!("{good}.e30"), Malformed::Parts),
        (format!("{good}.e30.e30"), Malformed::Parts),
        (format!(".{good}"), Malformed::Parts),
        (format!("{good}, Bearer {good}"), Malformed::Parts),
        (".".repeat(32 * 1024), Malformed::Parts),
        (".".repeat(64 * 1024), Malformed::TooLong),
        ("a".repeat(1024 * 1024), Malformed::TooLong),
    ];
    for (text, fault) in table {
        assert_eq!(came(&text), malformed(fault), "{text:.40}");
    }
}

/// RFC 7516: five parts, the payload deflated to a thousandth of its size. Nothing is inflated.
#[test]
fn an_encrypted_token_is_refused_unread() {
    let header = r#"{"alg":"RSA-OAEP","enc":"A256GCM","zip":"DEF","kid":"K"}"#;
    let text = format!("{}.AA.AA", Draft::of(0).header(header).message());
    assert_eq!(text.split('.').count(), 4);
    assert_eq!(came(&text), malformed(Malformed::Parts));
    assert_eq!(came(&format!("{text}.AA")), malformed(Malformed::Parts));
}

#[test]
fn a_part_is_strict_base64url() {
    let good = Draft::of(0).signed(0);
    let parts: Vec<_> = good.split('.').collect();
    for place in 0..3 {
        for spoil in ["=", "==", " ", "\n", "\t", "+", "/", "%", "\u{e9}"] {
            let mut spoilt: Vec<_> = parts.iter().map(|part| (*part).to_owned()).collect();
            spoilt[place].push_str(spoil);
            assert_eq!(came(&spoilt.join(".")), malformed(Malformed::Encoding), "{place} {spoil:?}");
        }
    }
    let spare = Draft::of(0).header(r#"{"alg":"RS256","kid":"KK"}"#);
    let (head, rest) = spare.signed(0).split_once('.').map(|(h, r)| (h.to_owned(), r.to_owned())).unwrap();
    let (kept, last) = head.split_at(head.len() - 1);
    let next = char::from(last.as_bytes()[0] + 1);
    assert_eq!(
        came(&format!("{kept}{next}.{rest}")),
        malformed(Malformed::Encoding),
        "spare bits of a header"
    );
}

#[test]
fn a_header_is_one_json_object_without_critical_members() {
    let k = kid(0);
    let table = [
        (format!(r#"{{"alg":"RS256","kid":"{k}","crit":["exp"]}}"#), Malformed::Critical),
        (format!(r#"{{"alg":"RS256","kid":"{k}","crit":["b64"],"b64":false}}"#), Malformed::Critical),
        (format!(r#"{{"alg":"RS256","kid":"{k}","crit":[]}}"#), Malformed::Critical),
        (format!(r#"{{"alg":"RS256","kid":"{k}","crit":null}}"#), Malformed::Critical),
        (format!(r#"["RS256","{k}"]"#), Malformed::Header),
        (format!(r#"{{"alg":"RS256","kid":"{k}","kid":"{k}"}}"#), Malformed::Header),
        (format!(r#"{{"alg":"RS256","kid":"{k}"}}{{}}"#), Malformed::Header),
        (r#"{"alg":"RS256","kid":7}"#.to_owned(), Malformed::Header),
        (r#"{"alg":"RS256","kid":null}"#.to_owned(), Malformed::Header),
        (r#"{"alg":"RS256","kid":["a"]}"#.to_owned(), Malformed::Header),
        (r#"{"alg":"RS256","kid":{}}"#.to_owned(), Malformed::Header),
        (r#"{"alg":"RS256","kid":""}"#.to_owned(), Malformed::Header),
        (r#"{"alg":"RS256","kid":"a\u0000b"}"#.to_owned(), Malformed::Header),
        (r#"{"alg":"RS256","kid":"a\r\nb"}"#.to_owned(), Malformed::Header),
        (r#"{"alg":"RS256","kid":"x' OR '1'='1"}"#.to_owned(), Malformed::Header),
        (format!(r#"{{"alg":"RS256","kid":"{}"}}"#, "k".repeat(10_240)), Malformed::Header),
        ("null".to_owned(), Malformed::Header),
        ("\"RS256\"".to_owned(), Malformed::Header),
        (String::new(), Malformed::Header),
    ];
    for (header, fault) in table {
        assert_eq!(came(&Draft::of(0).header(&header).signed(0)), malformed(fault), "{header:.60}");
    }
}

#[test]
fn a_kid_that_is_a_path_or_an_address_is_a_name_of_nobody() {
    for name in ["/dev/null", "../../key.pem", "http://127.0.0.1:9/key", "file:///etc/passwd", "|id"] {
        let text = Draft::of(0).header(&format!(r#"{{"alg":"RS256","kid":"{name}"}}"#)).signed(0);
        assert!(matches!(came(&text), Came::Unknown(kid) if kid.as_str() == name), "{name}");
    }
}

#[test]
fn claims_are_one_json_object_each_once_and_of_their_type() {
    let doubled = |name: &str, value: &str| Draft::of(0).also(name, value);
    let drafts = [
        doubled("exp", "1800001000"),
        doubled("iat", "1799999000"),
        doubled("nbf", "1799999000"),
        doubled("iss", r#""harbor-token-issuer""#),
        doubled("aud", r#""harbor-registry""#),
        doubled("sub", r#""admin""#),
        doubled("access", "[]"),
        doubled("acc\\u0065ss", "[]"),
        Draft::of(0).set("sub", "7"),
        Draft::of(0).set("sub", r#"["admin"]"#),
        Draft::of(0).set("access", "{}"),
        Draft::of(0).set("access", r#""*""#),
        Draft::of(0).set("access", "[null]"),
        Draft::of(0).set("access", "[[]]"),
        Draft::of(0).set("access", r#"[["repository","p/r",["pull"]]]"#),
        Draft::of(0).set("access", r#"[{"type":"repository","actions":["pull"]}]"#),
        Draft::of(0).set("access", r#"[{"type":"repository","name":7,"actions":["pull"]}]"#),
        Draft::of(0).set("access", r#"[{"type":"repository","name":"p/r","actions":"pull"}]"#),
        Draft::of(0).set("access", r#"[{"type":"repository","name":"p/r","name":"q/r","actions":[]}]"#),
    ];
    for draft in drafts {
        assert_eq!(came(&draft.signed(0)), malformed(Malformed::Claims), "{}", draft.payload());
    }
}

/// serde reads an array as a struct's members in their order; Go does not, and neither do we.
#[test]
fn arrays_in_the_place_of_objects_are_refused() {
    let encode = |text: &str| base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, text);
    let claims = format!(
        r#"["harbor-token-issuer","a","harbor-registry",{},{},{},[]]"#,
        NOW.0 + 1_000,
        NOW.0 - 10,
        NOW.0 - 10
    );
    let message = format!("{}.{}", Draft::of(0).message().split_once('.').unwrap().0, encode(&claims));
    let signature = crate::decisions::key::forge::rsa(0).key().sign(message.as_bytes()).unwrap();
    assert_eq!(came(&format!("{message}.{signature}")), malformed(Malformed::Claims));
}

#[test]
fn nesting_and_length_are_bounded() {
    let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    for levels in [1_000, 10_000] {
        let unread = Draft::of(0).also("x", &deep(levels)).signed(0);
        assert_eq!(came(&unread), Came::Verified, "{levels} levels that nobody descends into");
        assert_eq!(came(&Draft::of(0).set("sub", &deep(levels)).signed(0)), malformed(Malformed::Claims));
    }
    let long = format!("\"{}\"", "x".repeat(1024 * 1024));
    assert_eq!(came(&Draft::of(0).also("x", &long).signed(0)), malformed(Malformed::TooLong));
    let entry = r#"{"type":"repository","name":"p/r","actions":["pull"]},"#;
    let many = format!("[{}]", entry.repeat(10_000).trim_end_matches(','));
    assert_eq!(came(&Draft::of(0).set("access", &many).signed(0)), malformed(Malformed::TooLong));
}

#[test]
fn claims_that_we_do_not_know_are_no_reason_to_refuse() {
    let access = r#"[{"type":"repository","class":"image","name":"p/r","actions":null,"x":{"y":[1]}}]"#;
    let text = Draft::of(0).set("access", access).also("azp", r#"{"a":1,"a":2}"#).signed(0);
    let claims = forge::verified(&text, &ring());
    let want = Access { kind: "repository".into(), name: "p/r".into(), actions: vec![] };
    assert_eq!((claims.access(), claims.subject()), (&[want][..], Some("alice")));
}

#[test]
fn a_token_for_nobody_verifies_and_names_nobody() {
    for draft in [Draft::of(0).without("sub"), Draft::of(0).set("sub", r#""""#)] {
        let text = draft.set("access", "null").signed(0);
        let claims = forge::verified(&text, &ring());
        assert_eq!((claims.subject(), claims.access()), (None, &[][..]));
    }
}

proptest::proptest! {
    #[test]
    fn judging_is_total(text in "[A-Za-z0-9_.=-]{0,400}") {
        let judged = verify(&text, &Ring::default(), &rules(), NOW);
        proptest::prop_assert!(!matches!(judged, Verdict::Verified(_)));
    }
}
