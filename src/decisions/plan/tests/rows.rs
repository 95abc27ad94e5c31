//! The rows that one should know by heart.

use super::*;

/// A plan in few words: its name, the key that it is signed by or counts on.
fn told(plan: &Plan) -> String {
    let on = plan.counts_on().map_or("nobody", |held| {
        let which = (0..4).find(|n| kid(*n) == *held);
        ["key 0", "key 1", "key 2", "key 3"][which.expect("a key of the tests")]
    });
    match plan.step() {
        Step::Hold(wait) => format!("hold {} s", wait.as_secs()),
        Step::Resign { back, .. } if !back.is_zero() => {
            format!("resign for {on}, nbf {} s back", back.as_secs())
        }
        Step::Resign { .. } => format!("resign for {on}"),
        _ if plan.counts_on().is_some() => format!("{} by {on}", plan.name()),
        _ => plan.name().to_owned(),
    }
}

#[test]
fn a_verified_token_goes_up_as_it_is_or_signed_again_or_by_its_credential() {
    let token = claims(-10, -10, 1_790);
    // Key 0 is the token's own, key 2 has its private half here, key 3 is foreign.
    let table = [
        ("its own key is held", holds(0), NO_MEANS, "as_came by key 0"),
        ("its own key is held, replay at hand", holds(0), BOTH, "as_came by key 0"),
        ("a key is held that we can sign with", holds(2), NO_MEANS, "resign for key 2"),
        ("the same, with replay at hand", holds(2), BOTH, "resign for key 2"),
        ("the same, with a body", holds(2), BODY, "resign for key 2"),
        ("a foreign key is held", holds(3), REPLAY, "replay"),
        ("a foreign key is held, and no replay", holds(3), NO_MEANS, "as_came"),
        ("core can't sign", nothing(Held::CannotSign), BOTH, "replay"),
        ("core can't sign, and no replay", nothing(Held::CannotSign), NO_MEANS, "as_came"),
        ("nothing is known", nothing(Held::Unknown), REPLAY, "replay"),
        ("nothing is known, and no replay", nothing(Held::Unknown), NO_MEANS, "as_came"),
        ("opaque, its own first", several(&[0, 2]), NO_MEANS, "as_came by key 0"),
        ("opaque, its own second", several(&[2, 0]), NO_MEANS, "resign for key 2"),
        ("opaque, foreign before its own", several(&[3, 0]), NO_MEANS, "as_came by key 0"),
        ("opaque, all foreign", several(&[3]), REPLAY, "replay"),
        ("opaque, no body", several(&[0, 2]), REPLAY, "as_came by key 0"),
        ("opaque, with a body", several(&[0, 2]), BOTH, "replay"),
        ("opaque, with a body, and no replay", several(&[0, 2]), BODY, "as_came by key 0"),
    ];
    for (name, endpoint, means, want) in table {
        assert_eq!(told(&of(Judged::Verified(&token), &endpoint, means, &[])), want, "{name}");
    }
}

#[test]
fn a_way_that_core_refused_is_not_gone_again() {
    let token = claims(-10, -10, 1_790);
    let key = |which| Tried::Key(kid(which));
    let table: [(&str, Endpoint, Means, Vec<Tried>, &str); 8] = [
        ("its own was refused", several(&[0, 2]), NO_MEANS, vec![key(0)], "resign for key 2"),
        ("both were refused", several(&[0, 2]), NO_MEANS, vec![key(0), key(2)], "as_came"),
        ("both were refused, replay", several(&[0, 2]), REPLAY, vec![key(0), key(2)], "replay"),
        ("all was refused", several(&[0, 2]), REPLAY, vec![key(0), key(2), Tried::Replay], "as_came"),
        ("replay was refused", several(&[0, 2]), BOTH, vec![Tried::Replay], "as_came by key 0"),
        ("the only key was refused", holds(0), REPLAY, vec![key(0)], "replay"),
        ("the only key was refused, no replay", holds(2), NO_MEANS, vec![key(2)], "as_came"),
        ("another key was refused", holds(2), NO_MEANS, vec![key(0)], "resign for key 2"),
    ];
    for (name, endpoint, means, tried, want) in table {
        assert_eq!(told(&of(Judged::Verified(&token), &endpoint, means, &tried)), want, "{name}");
    }
}

#[test]
fn a9_an_unverified_token_goes_up_only_where_exactly_its_key_was_probed() {
    let own = kid(3);
    let table: [(&str, Endpoint, Means, Vec<Tried>, &str); 10] = [
        ("held here", holds(3), NO_MEANS, vec![], "as_came by key 3"),
        ("held here, replay at hand", holds(3), BOTH, vec![], "as_came by key 3"),
        ("another key is held", holds(0), NO_MEANS, vec![], "blank"),
        ("another key is held, replay", holds(0), REPLAY, vec![], "replay"),
        ("nothing is known", nothing(Held::Unknown), NO_MEANS, vec![], "blank"),
        ("core can't sign", nothing(Held::CannotSign), REPLAY, vec![], "replay"),
        ("one of several", several(&[0, 3]), NO_MEANS, vec![], "as_came by key 3"),
        ("one of several, with a body", several(&[0, 3]), BOTH, vec![], "replay"),
        ("it was refused", holds(3), NO_MEANS, vec![Tried::Key(kid(3))], "blank"),
        ("all was refused", holds(3), REPLAY, vec![Tried::Key(kid(3)), Tried::Replay], "blank"),
    ];
    for (name, endpoint, means, tried, want) in table {
        assert_eq!(told(&of(Judged::Unverified(&own), &endpoint, means, &tried)), want, "{name}");
    }
}

#[test]
fn what_counts_as_no_credential_goes_up_as_a_bearer_that_means_nothing() {
    for endpoint in [holds(0), several(&[0, 2]), nothing(Held::Unknown), nothing(Held::CannotSign)] {
        for fault in [Fault::Signature, Fault::Banned, Fault::Expired, Fault::MissingKid] {
            assert_eq!(told(&of(Judged::Refused(fault), &endpoint, BOTH, &[])), "blank");
        }
        assert_eq!(told(&of(Judged::Untouched, &endpoint, BOTH, &[])), "as_came");
    }
}

/// A name; `iat`, `nbf` and `exp` from now; where it goes; what is at hand; what it gets there.
type TimedRow = (&'static str, (i64, i64, i64), Endpoint, Means, &'static str);

/// Harbor up to 2.10 has no leeway (V7, V8); its clock leads ours by `ahead`.
#[test]
fn a13_times_are_seen_with_cores_clock() {
    let old = |which, ahead| Endpoint { held: Held::One(kid(which)), leeway: false, ahead };
    let fits = (-10, -10, 1_790);
    let table: [TimedRow; 17] = [
        ("fits", fits, old(0, 0), NO_MEANS, "as_came by key 0"),
        ("fits, another key", fits, old(2, 0), NO_MEANS, "resign for key 2"),
        ("core is 15 s behind", fits, old(0, -15), NO_MEANS, "hold 5 s"),
        ("core is 15 s behind, replay", fits, old(0, -15), REPLAY, "replay"),
        ("core is 20 s behind", fits, old(0, -20), NO_MEANS, "hold 10 s"),
        ("core is 21 s behind", fits, old(0, -21), NO_MEANS, "as_came"),
        ("core is a minute behind, replay", fits, old(2, -70), REPLAY, "replay"),
        ("past exp, within our leeway", (-900, -900, -30), old(0, 0), NO_MEANS, "blank"),
        ("past exp, replay", (-900, -900, -30), old(0, 0), REPLAY, "replay"),
        ("the last second", (-900, -900, 1), old(0, 0), NO_MEANS, "as_came by key 0"),
        ("at exp", (-900, -900, 0), old(0, 0), NO_MEANS, "blank"),
        ("core is a minute ahead", (-900, -900, 60), old(2, 60), NO_MEANS, "blank"),
        ("past exp, core with leeway", (-900, -900, -30), holds(0), NO_MEANS, "as_came by key 0"),
        ("past exp, signed for leeway", (-900, -900, -30), holds(2), NO_MEANS, "resign for key 2"),
        ("nbf ahead", (-10, 30, 1_790), old(2, 0), NO_MEANS, "resign for key 2, nbf 30 s back"),
        ("nbf ahead, its own key", (-10, 30, 1_790), old(0, 0), NO_MEANS, "resign for key 0, nbf 30 s back"),
        ("nbf ahead, core with leeway", (-10, 30, 1_790), holds(0), NO_MEANS, "as_came by key 0"),
    ];
    for (name, (iat, nbf, exp), endpoint, means, want) in table {
        let token = claims(iat, nbf, exp);
        assert_eq!(told(&of(Judged::Verified(&token), &endpoint, means, &[])), want, "{name}");
    }
}

/// Whose key is held but not ours to sign with: nothing we can write makes core accept `nbf`.
#[test]
fn a13_a_refusal_about_time_is_no_sign_of_a_changed_key() {
    let token = claims(-10, 30, 1_790);
    let public = {
        let mut keeper = crate::decisions::token::forge::keeper();
        let file = crate::decisions::ring::SourceName::new("public halves");
        let key = crate::decisions::key::forge::rsa(0).key().without_private();
        keeper.observe(&file, Ok(vec![key]), NOW).0
    };
    let old = Endpoint { held: Held::One(kid(0)), leeway: false, ahead: 0 };
    let by = |means| plan(Judged::Verified(&token), &old.view(), &public, means, &[], NOW);
    assert_eq!(told(&by(REPLAY)), "replay");
    assert_eq!(told(&by(NO_MEANS)), "as_came", "core judges, and its answer says nothing of its key");
}

#[test]
fn nbf_goes_back_by_the_leeway_at_most() {
    let token = claims(-3_000 + 1_300, 60, 100);
    let behind = |ahead| Endpoint { held: Held::One(kid(2)), leeway: false, ahead };
    assert_eq!(
        told(&of(Judged::Verified(&token), &behind(0), NO_MEANS, &[])),
        "resign for key 2, nbf 60 s back"
    );
    assert_eq!(told(&of(Judged::Verified(&token), &behind(-5), NO_MEANS, &[])), "hold 5 s");
    assert_eq!(told(&of(Judged::Verified(&token), &behind(-600), NO_MEANS, &[])), "as_came");
}

#[test]
fn a_credential_is_looked_up_only_where_the_held_key_does_not_settle_the_plan() {
    let token = claims(-10, -10, 1_790);
    let (own, judged) = (kid(3), Judged::Verified(&token));
    let old = Endpoint { leeway: false, ..holds(0) };
    let table = [
        (judged, holds(0), true),
        (judged, holds(2), true),
        (judged, holds(3), false),
        (judged, old, false),
        (judged, several(&[0]), false),
        (judged, nothing(Held::CannotSign), false),
        (Judged::Unverified(&own), holds(3), true),
        (Judged::Unverified(&own), holds(0), false),
        (Judged::Refused(Fault::Signature), holds(0), true),
        (Judged::Untouched, holds(0), true),
    ];
    for (judged, endpoint, settled) in table {
        assert_eq!(by_key(judged, &endpoint.view(), &RING), settled, "{judged:?} {endpoint:?}");
        if settled {
            let without = of(judged, &endpoint, NO_MEANS, &[]);
            assert_eq!(without, of(judged, &endpoint, BOTH, &[]), "the credential would have changed it");
        }
    }
}
