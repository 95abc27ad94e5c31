//! Expiry, not-before, issued-at; issuer and audience.

use super::*;

/// A change to one claim, and what becomes of the token.
type Row = (&'static str, &'static str, Came);

fn each(rows: impl IntoIterator<Item = Row>) {
    for (name, value, want) in rows {
        assert_eq!(came(&Draft::of(0).set(name, value).signed(0)), want, "{name}: {value}");
    }
}

#[test]
fn the_leeway_is_sixty_seconds_on_either_side() {
    let at = |iat, nbf, exp| came(&Draft::of(0).times(iat, nbf, exp).signed(0));
    let table = [
        ("exp 30 s ago", at(-1_000, -1_000, -30), Came::Verified),
        ("exp 59 s ago", at(-1_000, -1_000, -59), Came::Verified),
        ("exp 60 s ago", at(-1_000, -1_000, -60), refused(Fault::Expired)),
        ("exp 120 s ago", at(-1_000, -1_000, -120), refused(Fault::Expired)),
        ("nbf in 30 s", at(-10, 30, 1_790), Came::Verified),
        ("nbf in 60 s", at(-10, 60, 1_790), Came::Verified),
        ("nbf in 61 s", at(-10, 61, 1_790), refused(Fault::NotYetValid)),
        ("nbf in 120 s", at(-10, 120, 1_790), refused(Fault::NotYetValid)),
        ("iat in 60 s", at(60, 0, 1_790), Came::Verified),
        ("iat in 61 s", at(61, 0, 1_790), refused(Fault::IssuedInFuture)),
    ];
    for (name, got, want) in table {
        assert_eq!(got, want, "{name}");
    }
}

#[test]
fn a_time_that_is_no_whole_number_of_seconds_is_refused() {
    let wrong = [
        r#""1800000000""#,
        "1800000000.5",
        "1.8e9",
        "1e400",
        "9223372036854775808",
        "-9223372036854775809",
        "null",
        "true",
        "[1800000000]",
        "{}",
    ];
    for name in ["exp", "nbf", "iat"] {
        for value in wrong {
            let text = Draft::of(0).set(name, value).signed(0);
            assert_eq!(came(&text), malformed(Malformed::Claims), "{name}: {value}");
        }
    }
}

#[test]
fn times_at_the_ends_of_the_numbers_overflow_nothing() {
    for name in ["exp", "nbf", "iat"] {
        for value in [i64::MIN, -1, 0, i64::MAX] {
            let got = came(&Draft::of(0).set(name, &value.to_string()).signed(0));
            let harmless = name == "nbf" && value <= 0;
            assert_eq!(got == Came::Verified, harmless, "{name}: {value}: {got:?}");
        }
    }
    let both = Draft::of(0).set("iat", &i64::MIN.to_string()).set("exp", &i64::MAX.to_string());
    assert_eq!(came(&both.signed(0)), refused(Fault::LivesTooLong));
}

#[test]
fn expiry_and_issue_must_be_there_and_not_before_may_be_absent() {
    assert_eq!(came(&Draft::of(0).without("exp").signed(0)), malformed(Malformed::Claims));
    assert_eq!(came(&Draft::of(0).without("iat").signed(0)), malformed(Malformed::Claims));
    let text = Draft::of(0).without("nbf").signed(0);
    let claims = forge::verified(&text, &ring());
    assert_eq!(claims.not_before(), claims.issued());
}

#[test]
fn another_issuer_is_refused() {
    each([
        ("iss", r#""harbor""#, refused(Fault::Issuer)),
        ("iss", r#""Harbor-Token-Issuer""#, refused(Fault::Issuer)),
        ("iss", r#""""#, refused(Fault::Issuer)),
        ("iss", "null", refused(Fault::Issuer)),
        ("iss", r#"["harbor-token-issuer"]"#, malformed(Malformed::Claims)),
    ]);
    assert_eq!(came(&Draft::of(0).without("iss").signed(0)), refused(Fault::Issuer));
}

#[test]
fn another_audience_is_refused_and_a_list_may_hold_ours() {
    each([
        ("aud", r#""harbor-notary""#, refused(Fault::Audience)),
        ("aud", r#""Harbor-Registry""#, refused(Fault::Audience)),
        ("aud", "[]", refused(Fault::Audience)),
        ("aud", r#"["a","b"]"#, refused(Fault::Audience)),
        ("aud", r#"["a","harbor-registry"]"#, Came::Verified),
        ("aud", r#"["harbor-registry",1]"#, malformed(Malformed::Claims)),
        ("aud", "1", malformed(Malformed::Claims)),
    ]);
    assert_eq!(came(&Draft::of(0).without("aud").signed(0)), refused(Fault::Audience));
    let listed = Draft::of(0).set("aud", r#"["a","harbor-registry"]"#).signed(0);
    assert!(!forge::verified(&listed, &ring()).plain_audience(), "handed on as Harbor writes it");
    assert!(forge::verified(&Draft::of(0).signed(0), &ring()).plain_audience());
}

#[test]
fn a_token_of_an_unknown_key_is_read_as_strictly_before_it_goes_up_unverified() {
    let table = [
        (Draft::of(3).times(-1_000, -1_000, -120), Fault::Expired),
        (Draft::of(3).times(-10, 120, 1_000), Fault::NotYetValid),
        (Draft::of(3).times(120, 0, 1_000), Fault::IssuedInFuture),
        (Draft::of(3).times(0, 0, 315_360_000), Fault::LivesTooLong),
        (Draft::of(3).set("iss", r#""other""#), Fault::Issuer),
        (Draft::of(3).set("aud", r#""other""#), Fault::Audience),
    ];
    for (draft, fault) in table {
        assert_eq!(came(&draft.signed(3)), refused(fault));
    }
}
