//! Every combination of what is judged, held, at hand, tried and told by clocks, against rules that are stated
//! here once more, independently: each is a sentence of `safety.md` or `design.md`.

use super::*;

/// One combination.
struct Case<'a> {
    judged: Judged<'a>,
    endpoint: &'a Endpoint,
    means: Means,
    tried: &'a [Tried],
}

impl Case<'_> {
    fn replay_is_left(&self) -> bool {
        self.means.replay && !self.tried.contains(&Tried::Replay)
    }

    fn key_is_left(&self, key: &Kid) -> bool {
        self.endpoint.held.kids().any(|held| held == key) && !self.tried.contains(&Tried::Key(key.clone()))
    }

    fn opaque_with_body_and_replay(&self) -> bool {
        matches!(self.endpoint.held, Held::Several(_)) && self.means.body && self.replay_is_left()
    }

    /// Core's clock, or ours as far as leeway goes.
    fn expired_for_core(&self, claims: &VerifiedClaims) -> bool {
        !self.endpoint.leeway && claims.expires().0 <= NOW.0 + self.endpoint.ahead
    }

    fn seconds_too_new(&self, claims: &VerifiedClaims) -> i64 {
        let early = claims.issued().0 - (NOW.0 + self.endpoint.ahead);
        if self.endpoint.leeway { 0 } else { early.max(0) }
    }

    fn seconds_before_nbf(&self, claims: &VerifiedClaims) -> i64 {
        let early = claims.not_before().0 - (NOW.0 + self.endpoint.ahead);
        if self.endpoint.leeway { 0 } else { early.max(0) }
    }
}

fn endpoints() -> Vec<Endpoint> {
    let one = |which| Held::One(kid(which));
    let many = |which: &[usize]| Held::Several(which.iter().map(|n| kid(*n)).collect());
    let held = [
        Held::Unknown,
        Held::CannotSign,
        one(0),
        one(2),
        one(3),
        many(&[0, 2]),
        many(&[2, 0]),
        many(&[3, 0]),
        many(&[3, 2]),
        many(&[3]),
        many(&[]),
    ];
    let mut all = Vec::new();
    for held in held {
        for leeway in [true, false] {
            for ahead in [0, -15, -70, 45] {
                all.push(Endpoint { held: held.clone(), leeway, ahead });
            }
        }
    }
    all
}

/// Fits, too new by 5 s and by 60 s, past `exp` for a core without leeway, `nbf` alone ahead.
fn tokens() -> Vec<VerifiedClaims> {
    vec![
        claims(-10, -10, 1_790),
        claims(5, 5, 1_800),
        claims(60, 60, 1_800),
        claims(-900, -900, -30),
        claims(-10, 30, 1_790),
    ]
}

fn tried() -> Vec<Vec<Tried>> {
    let key = |which| Tried::Key(kid(which));
    vec![
        vec![],
        vec![key(0)],
        vec![key(2)],
        vec![key(3)],
        vec![Tried::Replay],
        vec![key(0), key(2)],
        vec![key(0), key(2), key(3), Tried::Replay],
    ]
}

/// Calls `check` with every case and gives back their number.
fn each(check: impl Fn(&Case<'_>, &Plan)) -> usize {
    let (tokens, foreign, known_name) = (tokens(), kid(3), kid(0));
    let mut judged: Vec<Judged<'_>> = tokens.iter().map(Judged::Verified).collect();
    judged.extend([Judged::Untouched, Judged::Own]);
    judged.extend([Judged::Refused(Fault::Signature), Judged::Refused(Fault::Expired)]);
    judged.extend([Judged::Unverified(&foreign), Judged::Unverified(&known_name)]);
    let mut count = 0;
    for endpoint in &endpoints() {
        for tried in &tried() {
            for judged in &judged {
                for means in [NO_MEANS, REPLAY, BODY, BOTH] {
                    let case = Case { judged: *judged, endpoint, means, tried };
                    check(&case, &of(*judged, endpoint, means, tried));
                    count += 1;
                }
            }
        }
    }
    count
}

/// Fails with the whole case.
macro_rules! rule {
    ($case:ident, $plan:ident, $holds:expr, $rule:literal) => {
        assert!(
            $holds,
            "{}: {:?} {:?} {:?} tried {:?} gave {:?}",
            $rule, $case.judged, $case.endpoint, $case.means, $case.tried, $plan
        )
    };
}

#[test]
fn all_combinations_are_there() {
    assert_eq!(each(|_, _| ()), 11 * 2 * 4 * 7 * 11 * 4);
}

#[test]
fn replay_needs_a_credential_and_is_not_repeated() {
    each(|case, plan| {
        let replays = *plan.step() == Step::Replay;
        rule!(case, plan, !replays || case.means.replay, "replay needs what the token was issued for (A4)");
        rule!(
            case,
            plan,
            !replays || !case.tried.contains(&Tried::Replay),
            "a refused credential is not sent again"
        );
        rule!(case, plan, !replays || plan.counts_on().is_none(), "replay proves no key");
        let token = matches!(case.judged, Judged::Verified(_) | Judged::Unverified(_) | Judged::Own);
        rule!(case, plan, !replays || token, "only a token is replaced");
    });
}

#[test]
fn what_has_no_token_is_left_alone_and_what_is_refused_means_nothing() {
    each(|case, plan| match case.judged {
        Judged::Untouched => {
            rule!(case, plan, *plan == Plan::untouched(), "nothing is touched");
        }
        Judged::Refused(_) => {
            let blank = *plan.step() == Step::Blank && plan.counts_on().is_none();
            rule!(case, plan, blank, "a refused token never reaches core");
        }
        _ => {}
    });
}

#[test]
fn a11_a_token_of_our_own_never_goes_up_itself() {
    each(|case, plan| {
        let Judged::Own = case.judged else { return };
        let step = if case.replay_is_left() { Step::Replay } else { Step::Blank };
        rule!(case, plan, *plan.step() == step, "the credential, or a bearer that means nothing");
        rule!(case, plan, plan.counts_on().is_none(), "whatever core answers is its judgement");
    });
}

#[test]
fn a9_nothing_unverified_goes_where_its_key_was_not_probed() {
    each(|case, plan| {
        let Judged::Unverified(own) = case.judged else { return };
        let here = case.key_is_left(own);
        match plan.step() {
            Step::AsCame => {
                rule!(case, plan, here, "its kid is exactly a probed one, and was not refused");
                rule!(case, plan, plan.counts_on() == Some(own), "core must accept it by that key");
            }
            Step::Replay => {
                rule!(
                    case,
                    plan,
                    !here || case.opaque_with_body_and_replay(),
                    "the token comes first where it is held"
                );
            }
            Step::Blank => {
                rule!(case, plan, !here && !case.replay_is_left(), "blank only where nothing else is left");
            }
            Step::Resign { .. } | Step::Hold(_) => {
                rule!(case, plan, false, "nobody signs what nobody verified");
            }
        }
    });
}

#[test]
fn a_token_is_signed_again_only_for_a_held_key_whose_private_half_is_here() {
    each(|case, plan| {
        let Step::Resign { kid, back } = plan.step() else { return };
        let Judged::Verified(claims) = case.judged else {
            return rule!(case, plan, false, "only what is verified is signed again");
        };
        rule!(case, plan, RING.signer(kid.as_str()).is_some(), "the private half is here");
        rule!(case, plan, case.key_is_left(kid), "the endpoint may hold it, and did not refuse it");
        rule!(case, plan, plan.counts_on() == Some(kid), "core must accept it by that key");
        let early = case.seconds_before_nbf(claims);
        rule!(
            case,
            plan,
            i64::try_from(back.as_secs()) == Ok(early),
            "nbf goes back by what core lacks, no more"
        );
        rule!(case, plan, back.as_secs() <= 60, "and by the leeway at most");
        rule!(case, plan, kid != claims.kid() || !back.is_zero(), "its own key needs no second signature");
    });
}

#[test]
fn a13_past_its_end_or_before_its_beginning_a_token_goes_to_no_core_that_would_refuse_it() {
    each(|case, plan| {
        let Judged::Verified(claims) = case.judged else { return };
        let (over, new) = (case.expired_for_core(claims), case.seconds_too_new(claims));
        match plan.step() {
            Step::Blank => rule!(case, plan, over && !case.replay_is_left(), "blank is for what has ended"),
            Step::Hold(wait) => {
                let early = new.max(case.seconds_before_nbf(claims) - 60);
                rule!(
                    case,
                    plan,
                    !over && i64::try_from(wait.as_secs()) == Ok(early),
                    "held until core's clock"
                );
                rule!(case, plan, *wait <= LONGEST_HOLD && !wait.is_zero(), "for a bounded time");
                rule!(case, plan, !case.replay_is_left(), "replay does not wait");
            }
            Step::AsCame | Step::Resign { .. } => {
                rule!(case, plan, !over, "what has ended for core goes up no more");
                rule!(case, plan, new == 0 || plan.counts_on().is_none(), "core's no is about time");
            }
            Step::Replay => {}
        }
    });
}

#[test]
fn a_verified_token_uses_the_best_way_that_is_left() {
    each(|case, plan| {
        let Judged::Verified(claims) = case.judged else { return };
        let clocks_agree = !case.expired_for_core(claims)
            && case.seconds_too_new(claims) == 0
            && case.seconds_before_nbf(claims) == 0;
        if !clocks_agree {
            return;
        }
        let can = |key: &Kid| key == claims.kid() || RING.signer(key.as_str()).is_some();
        let first = case.endpoint.held.kids().find(|key| case.key_is_left(key) && can(key));
        if case.opaque_with_body_and_replay() {
            rule!(case, plan, *plan.step() == Step::Replay, "a body at an opaque endpoint goes by replay");
        } else if let Some(first) = first {
            rule!(case, plan, plan.counts_on() == Some(first), "the likeliest key that we can serve");
            let own = first == claims.kid();
            rule!(case, plan, own == (*plan.step() == Step::AsCame), "its own key: nothing to sign");
        } else if case.replay_is_left() {
            rule!(case, plan, *plan.step() == Step::Replay, "then the credential");
        } else {
            let judge = *plan.step() == Step::AsCame && plan.counts_on().is_none();
            rule!(case, plan, judge, "then Harbor's own judgement");
        }
    });
}

/// Each refusal takes a way from the list, so that a request ends within as many plans as there are ways.
#[test]
fn planning_again_after_each_refusal_comes_to_an_end() {
    each(|case, first| {
        let (mut plan, mut tried) = (first.clone(), case.tried.to_vec());
        for _ in 0..5 {
            match (plan.step(), plan.counts_on()) {
                (Step::Replay, _) => tried.push(Tried::Replay),
                (_, Some(key)) => tried.push(Tried::Key(key.clone())),
                (_, None) => return,
            }
            plan = of(case.judged, case.endpoint, case.means, &tried);
        }
        rule!(case, plan, false, "still planning");
    });
}
