//! What core's answers say about its key, and what follows.

use http::HeaderValue;

use super::*;
use crate::{
    decisions::{
        plan::{Held, Judged, Means, View, plan},
        token::{
            forge::{Draft, NOW, kid, ring, verified},
            verify::Fault,
        },
    },
    words::route::Route,
};

/// The plan for a token of key 0 at an endpoint that holds this.
fn plan_at(held: &Held, means: Means) -> Plan {
    let ring = ring();
    let claims = verified(&Draft::of(0).signed(0), &ring);
    let view = View { held, leeway: true, clock_ahead: 0 };
    plan(Judged::Verified(&claims), &view, &ring, means, &[], NOW)
}

fn by_key() -> Plan {
    plan_at(&Held::One(kid(0)), Means::default())
}

fn resigned() -> Plan {
    plan_at(&Held::One(kid(2)), Means::default())
}

fn replayed() -> Plan {
    plan_at(&Held::One(kid(3)), Means { replay: true, body: false })
}

fn judged_by_core() -> Plan {
    plan_at(&Held::One(kid(3)), Means::default())
}

fn blank() -> Plan {
    let held = Held::One(kid(0));
    let view = View { held: &held, leeway: true, clock_ahead: 0 };
    plan(Judged::Refused(Fault::Signature), &view, &ring(), Means::default(), &[], NOW)
}

const BASIC: &str = "Basic realm=\"harbor\"";
const BEARER: &str = "Bearer realm=\"http://h/service/token\",service=\"harbor-registry\"";
const DEAD: &str =
    "Bearer realm=\"http://h/t\",service=\"r\",scope=\"repository:p/r:pull\",error=\"invalid_token\"";
const NARROW: &str =
    "Bearer realm=\"http://h/t\",service=\"r\",scope=\"repository:p/r:pull\",error=\"insufficient_scope\"";

fn reading(plan: &Plan, method: &str, path: &str, status: u16, challenge: Option<&'static str>) -> Reading {
    let Route::Registry(registry) = Route::of(path) else { panic!("{path}") };
    let method = Method::from_bytes(method.as_bytes()).expect("a method");
    let mut headers = HeaderMap::new();
    if let Some(challenge) = challenge {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    }
    read(plan, &registry, &method, StatusCode::from_u16(status).expect("a status"), &headers)
}

/// A line of the contract; method, path; status and challenge of the answer; what it says.
type Row = (&'static str, &'static str, &'static str, u16, Option<&'static str>, Reading);

#[test]
fn refusals_are_read_by_their_challenge() {
    let manifest = "/v2/p/r/manifests/1";
    let table: [Row; 16] = [
        ("C4: dead bearer", "GET", manifest, 401, Some(BASIC), Reading::Suspect),
        ("C4: on /v2/", "GET", "/v2/", 401, Some(BASIC), Reading::Suspect),
        ("C4: on a push", "POST", "/v2/p/r/blobs/uploads/", 401, Some(BASIC), Reading::Suspect),
        ("C5: served as anonymous", "GET", manifest, 200, None, Reading::Answer),
        ("C5: not found as anonymous", "GET", manifest, 404, None, Reading::Answer),
        ("C8: unknown project", "GET", manifest, 401, Some(""), Reading::Answer),
        ("D1: database down", "PUT", manifest, 401, Some(""), Reading::Answer),
        ("C9: unknown repository", "GET", manifest, 404, None, Reading::Answer),
        ("C10: catalog by bearer", "GET", "/v2/_catalog", 401, Some(BASIC), Reading::Suspect),
        ("C11: mount not covered", "POST", "/v2/p/r/blobs/uploads/", 401, Some(BASIC), Reading::Suspect),
        ("C14: no subject on /v2/", "GET", "/v2/", 401, Some(BASIC), Reading::Suspect),
        ("C1: a bearer challenge", "GET", manifest, 401, Some(BEARER), Reading::Answer),
        ("distribution's own refusal", "GET", manifest, 401, Some(DEAD), Reading::Suspect),
        ("too narrow a scope", "GET", manifest, 401, Some(NARROW), Reading::Answer),
        ("no challenge at all", "GET", manifest, 401, None, Reading::Answer),
        ("C12: CSRF", "PUT", manifest, 403, Some(BASIC), Reading::Answer),
    ];
    for plan in [by_key(), resigned()] {
        for (name, method, path, status, challenge, want) in table {
            assert_eq!(reading(&plan, method, path, status, challenge), want, "{name}");
        }
    }
}

#[test]
fn a12_only_what_an_anonymous_client_cannot_get_confirms_a_key() {
    let (manifest, blob) = ("/v2/p/r/manifests/1", "/v2/p/r/blobs/sha256:ab");
    let (open, upload) = ("/v2/p/r/blobs/uploads/", "/v2/p/r/blobs/uploads/u");
    let confirming = [
        ("GET", "/v2/", 200),
        ("HEAD", "/v2/", 200),
        ("POST", open, 202),
        ("POST", open, 201),
        ("PATCH", upload, 202),
        ("PUT", upload, 201),
        ("PUT", manifest, 201),
        ("DELETE", manifest, 202),
    ];
    let telling_nothing = [
        ("GET", manifest, 200),
        ("HEAD", manifest, 200),
        ("GET", blob, 206),
        ("GET", blob, 307),
        ("GET", upload, 204),
        ("GET", "/v2/p/r/tags/list", 200),
        ("GET", "/v2/_catalog", 200),
        ("GET", "/v2/p/r/unheard/of", 200),
        ("POST", "/v2/p/r/unheard/of", 200),
        ("OPTIONS", manifest, 200),
        ("OPTIONS", "/v2/", 200),
        ("TRACE", manifest, 200),
        ("PUT", manifest, 400),
        ("PUT", manifest, 500),
        ("POST", open, 404),
        ("GET", "/v2/", 503),
    ];
    for (method, path, status) in confirming {
        assert_eq!(reading(&by_key(), method, path, status, None), Reading::Confirms, "{method} {path}");
    }
    for (method, path, status) in telling_nothing {
        assert_eq!(reading(&by_key(), method, path, status, None), Reading::Answer, "{method} {path}");
    }
}

#[test]
fn where_no_key_was_counted_on_every_answer_is_harbors() {
    for plan in [Plan::untouched(), replayed(), judged_by_core(), blank()] {
        for (method, path) in [("GET", "/v2/"), ("PUT", "/v2/p/r/manifests/1")] {
            for (status, challenge) in [(401, Some(BASIC)), (200, None), (201, None), (500, None)] {
                assert_eq!(reading(&plan, method, path, status, challenge), Reading::Answer, "{plan:?}");
            }
        }
    }
}

#[test]
fn a_challenge_is_read_in_any_case() {
    for basic in ["basic realm=\"harbor\"", "BASIC realm=x", "Basic", "  Basic realm=\"harbor\""] {
        assert_eq!(
            reading(&by_key(), "GET", "/v2/p/r/tags/list", 401, Some(basic)),
            Reading::Suspect,
            "{basic}"
        );
    }
}

#[test]
fn a6_a_refusal_stands_while_the_held_key_is_unchanged() {
    let (own, signed, other) = (kid(0), kid(2), kid(3));
    for sends in 1..5 {
        assert_eq!(after(&by_key(), Some(&own), sends), Next::Stands);
        assert_eq!(after(&resigned(), Some(&signed), sends), Next::Stands);
        for plan in [replayed(), judged_by_core(), blank(), Plan::untouched()] {
            assert_eq!(after(&plan, Some(&own), sends), Next::Stands, "{plan:?}");
            assert_eq!(after(&plan, None, sends), Next::Stands, "{plan:?}");
        }
    }
    assert_eq!(after(&by_key(), Some(&other), 1), Next::PlanAgain);
    assert_eq!(after(&resigned(), Some(&other), 1), Next::PlanAgain);
    assert_eq!(after(&resigned(), None, 1), Next::PlanAgain, "core can't sign any more");
}

#[test]
fn a6_every_request_has_one_budget_of_sends() {
    let other = kid(3);
    let next: Vec<_> = (1..=5).map(|sends| after(&by_key(), Some(&other), sends)).collect();
    let (again, stands) = (Next::PlanAgain, Next::Stands);
    assert_eq!(next, [again, again, stands, stands, stands]);
    assert_eq!(SENDS, 3, "one send and two more at most (engineering.md)");
}

#[test]
fn the_check_on_v2_tells_held_from_not_held_and_nothing_else() {
    for (status, want) in [
        (200, CheckAnswer::Held),
        (401, CheckAnswer::NotHeld),
        (204, CheckAnswer::Unclear),
        (302, CheckAnswer::Unclear),
        (403, CheckAnswer::Unclear),
        (404, CheckAnswer::Unclear),
        (500, CheckAnswer::Unclear),
        (503, CheckAnswer::Unclear),
    ] {
        assert_eq!(CheckAnswer::of(StatusCode::from_u16(status).expect("a status")), want, "{status}");
    }
}

#[test]
fn only_a_new_token_at_a_core_without_leeway_may_be_too_new() {
    let table = [
        (100, 100, false, true),
        (100, 102, false, true),
        (100, 103, false, false),
        (102, 100, false, true),
        (103, 100, false, false),
        (100, 100, true, false),
        (i64::MAX, 100, false, false),
    ];
    for (iat, now, leeway, expected) in table {
        assert_eq!(may_be_too_new(UnixTime(iat), UnixTime(now), leeway), expected, "{iat} {now} {leeway}");
    }
}
