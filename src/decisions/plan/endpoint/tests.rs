//! Which endpoint a request goes to.

use std::cell::Cell;

use super::*;
use crate::decisions::token::{
    forge::{Draft, kid, ring, verified},
    verify::Fault,
};

/// Endpoints of a test, and how often each was looked at.
struct Endpoints {
    all: Vec<(Standing, Held)>,
    looks: Cell<usize>,
}

impl Fleet for Endpoints {
    fn count(&self) -> usize {
        self.all.len()
    }

    fn standing(&self, index: usize) -> Standing {
        self.all[index].0
    }

    fn view(&self, index: usize) -> View<'_> {
        self.looks.set(self.looks.get() + 1);
        View { held: &self.all[index].1, leeway: true, clock_ahead: 0 }
    }

    /// Endpoints from the third on are the next side's.
    fn side(&self, index: usize) -> Side {
        if index < 2 { Side::Current } else { Side::Next }
    }
}

fn one(which: usize) -> Held {
    Held::One(kid(which))
}

fn healthy(held: impl IntoIterator<Item = Held>) -> Endpoints {
    Endpoints { all: held.into_iter().map(|held| (Standing::Healthy, held)).collect(), looks: Cell::new(0) }
}

fn ejected(mut fleet: Endpoints, which: &[usize]) -> Endpoints {
    for index in which {
        fleet.all[*index].0 = Standing::Ejected;
    }
    fleet
}

/// Where a verified token of key 0 goes at each of four turns.
fn of_key_0(fleet: &Endpoints, avoid: &[usize]) -> Vec<(usize, bool)> {
    let ring = ring();
    let claims = verified(&Draft::of(0).signed(0), &ring);
    turns(Judged::Verified(&claims), fleet, avoid)
}

fn turns(judged: Judged<'_>, fleet: &Endpoints, avoid: &[usize]) -> Vec<(usize, bool)> {
    let ring = ring();
    let chosen = (0..4).map(|turn| {
        choose(judged, fleet, &ring, Vain { avoid, tried: &[] }, turn, None).expect("an endpoint")
    });
    chosen.map(|choice| (choice.index, choice.rerouted)).collect()
}

#[test]
fn a_token_goes_to_the_endpoint_that_holds_its_key() {
    let fleet = healthy([one(3), one(0), one(2)]);
    assert_eq!(of_key_0(&fleet, &[]), [(1, true), (1, false), (1, true), (1, true)]);
}

#[test]
fn among_equals_it_is_turn_and_turn_about() {
    let fleet = healthy([one(0), one(0), one(3), one(0)]);
    assert_eq!(of_key_0(&fleet, &[]), [(0, false), (1, false), (3, true), (3, false)]);
    let none = healthy([one(3), Held::Unknown, one(1)]);
    assert_eq!(turns(Judged::Untouched, &none, &[]), [(0, false), (1, false), (2, false), (0, false)]);
    let refused = Judged::Refused(Fault::Signature);
    assert_eq!(turns(refused, &none, &[]), [(0, false), (1, false), (2, false), (0, false)]);
}

#[test]
fn where_no_endpoint_holds_its_key_one_that_can_be_signed_for_comes_first() {
    let fleet = healthy([one(3), one(2), Held::Unknown]);
    assert_eq!(of_key_0(&fleet, &[]), [(1, true), (1, false), (1, true), (1, true)]);
    let opaque = healthy([one(3), Held::Several(vec![kid(3), kid(0)]), Held::CannotSign]);
    assert_eq!(of_key_0(&opaque, &[]), [(1, true), (1, false), (1, true), (1, true)]);
}

#[test]
fn an_unverified_token_is_not_signed_for_anybody() {
    let own = kid(3);
    let fleet = healthy([one(0), one(2), one(3)]);
    assert_eq!(turns(Judged::Unverified(&own), &fleet, &[]), [(2, true), (2, true), (2, false), (2, true)]);
    let nowhere = healthy([one(0), one(2), Held::Unknown]);
    let by_turn = [(0, false), (1, false), (2, false), (0, false)];
    assert_eq!(turns(Judged::Unverified(&own), &nowhere, &[]), by_turn);
}

/// A9: the name that a token gives itself chooses among healthy endpoints only.
#[test]
fn a9_no_kid_sends_a_request_to_an_ejected_endpoint_while_another_is_well() {
    let own = kid(3);
    let fleet = ejected(healthy([one(0), one(3), one(2)]), &[1]);
    let chosen = turns(Judged::Unverified(&own), &fleet, &[]);
    assert!(chosen.iter().all(|(index, _)| *index != 1), "{chosen:?}");
    assert!(of_key_0(&ejected(healthy([one(0), one(2)]), &[0]), &[]).iter().all(|(index, _)| *index == 1));
}

#[test]
fn ejected_endpoints_are_for_when_no_other_is_left() {
    let fleet = ejected(healthy([one(0), one(3)]), &[0, 1]);
    assert_eq!(of_key_0(&fleet, &[])[..2], [(0, false), (0, true)]);
    let half = ejected(healthy([one(3), one(3)]), &[0]);
    assert_eq!(of_key_0(&half, &[])[..2], [(1, false), (1, false)], "no re-route: it was the only one");
}

#[test]
fn where_a_request_failed_it_does_not_go_again_while_another_is_left() {
    let fleet = healthy([one(0), one(3), one(2)]);
    assert_eq!(of_key_0(&fleet, &[0])[0], (2, true));
    assert_eq!(of_key_0(&fleet, &[0, 2])[0], (1, false));
    let last = ejected(healthy([one(0), one(3)]), &[1]);
    assert_eq!(of_key_0(&last, &[0])[0], (1, false), "ejected, but not known to fail this request");
    assert_eq!(of_key_0(&fleet, &[0, 1, 2])[0], (0, false), "all failed: as if none had");
}

#[test]
fn what_has_no_token_keeps_away_from_a_core_that_cannot_sign() {
    let fleet = healthy([Held::CannotSign, one(0), Held::CannotSign]);
    assert!(turns(Judged::Untouched, &fleet, &[]).iter().all(|(index, _)| *index == 1));
    let broken = healthy([Held::CannotSign, Held::CannotSign]);
    assert_eq!(turns(Judged::Untouched, &broken, &[])[..2], [(0, false), (1, false)]);
}

#[test]
fn a_fleet_of_none_has_no_choice() {
    assert_eq!(choose(Judged::Untouched, &healthy([]), &ring(), Vain::default(), 7, None), None);
}

#[test]
fn a_choice_looks_at_each_of_several_endpoints_once_whatever_the_turn() {
    for count in [2, 3, 50] {
        let fleet = healthy((0..count).map(|n| one(n % 4)));
        for turn in [0, 1, usize::MAX] {
            fleet.looks.set(0);
            assert!(
                choose(Judged::Unverified(&kid(3)), &fleet, &ring(), Vain::default(), turn, None).is_some()
            );
            assert_eq!(fleet.looks.get(), count);
        }
    }
}

/// Where a request goes at each of four turns that a ramp would have on this side.
fn on(side: Side, may_be_next: bool, judged: Judged<'_>, fleet: &Endpoints, replay: bool) -> Vec<usize> {
    let ring = ring();
    let wanted = Wanted { side, may_be_next, replay: &|_| replay };
    let chosen =
        (0..4).map(|turn| choose(judged, fleet, &ring, Vain::default(), turn, Some(&wanted)).expect("one"));
    chosen.map(|choice| choice.index).collect()
}

#[test]
fn a_ramp_chooses_the_side_before_the_token_chooses_its_endpoint() {
    let (ring, own) = (ring(), kid(3));
    let claims = verified(&Draft::of(0).signed(0), &ring);
    let fleet = healthy([one(0), one(0), one(2), one(2)]);
    let next = |judged, replay| on(Side::Next, true, judged, &fleet, replay);
    let current = |judged, replay| on(Side::Current, true, judged, &fleet, replay);
    assert_eq!(next(Judged::Untouched, false), [2, 3, 2, 3]);
    assert_eq!(current(Judged::Untouched, false), [0, 1, 0, 1]);
    assert_eq!(next(Judged::Verified(&claims), false), [2, 3, 2, 3], "signed again");
    assert_eq!(next(Judged::Own, true), [2, 3, 2, 3]);
    assert_eq!(current(Judged::Unverified(&own), true), [0, 1, 0, 1], "replayed");
    let mixed = healthy([one(0), one(0), one(2), one(0)]);
    assert_eq!(on(Side::Next, true, Judged::Verified(&claims), &mixed, false), [3; 4], "it holds its key");
}

#[test]
fn no_client_fails_for_the_ramps_sake() {
    let (ring, own) = (ring(), kid(3));
    let claims = verified(&Draft::of(0).signed(0), &ring);
    let foreign = healthy([one(0), one(0), one(3), Held::Unknown]);
    assert_eq!(on(Side::Next, true, Judged::Verified(&claims), &foreign, false), [0; 4], "re-routed");
    assert_eq!(on(Side::Next, true, Judged::Verified(&claims), &foreign, true), [2, 3, 2, 3], "replayed");
    let mine = healthy([one(3), one(0), one(2), one(2)]);
    assert_eq!(on(Side::Next, true, Judged::Unverified(&own), &mine, false), [0; 4]);
    let down = ejected(healthy([one(0), one(0), one(0), one(0)]), &[2, 3]);
    assert_eq!(on(Side::Next, true, Judged::Untouched, &down, false), [0; 4]);
    let other_down = ejected(healthy([one(0), one(0), one(0), one(0)]), &[0, 1]);
    assert_eq!(on(Side::Current, false, Judged::Untouched, &other_down, false), [2; 4]);
    let unsigned = healthy([one(0), one(0), Held::CannotSign, Held::CannotSign]);
    assert_eq!(on(Side::Next, true, Judged::Untouched, &unsigned, false), [0; 4]);
    let opaque = healthy([one(0), one(0), Held::Several(vec![kid(2)]), Held::CannotSign]);
    assert_eq!(
        on(Side::Next, true, Judged::Verified(&claims), &opaque, false),
        [2; 4],
        "signed for one of them"
    );
}

/// A9: the name that a token gives itself does not choose the side.
#[test]
fn a9_an_unverified_kid_chooses_only_among_healthy_endpoints_that_the_ramp_allows() {
    let own = kid(3);
    let fleet = healthy([one(0), one(0), one(3), one(3)]);
    let judged = Judged::Unverified(&own);
    assert_eq!(on(Side::Current, false, judged, &fleet, false), [0, 1, 0, 1], "not for this client");
    assert_eq!(on(Side::Current, true, judged, &fleet, false), [2; 4], "it was there before");
    let ejected = ejected(healthy([one(0), one(0), one(3), one(3)]), &[2, 3]);
    assert_eq!(on(Side::Next, true, judged, &ejected, false), [0; 4]);
}

/// All cores got another key, and it is known of the first one that refused the token.
#[test]
fn a_refused_key_leads_to_where_the_token_can_be_signed_again_and_else_to_where_it_was_held() {
    let (fleet, ring) = (healthy([one(1), one(0)]), ring());
    let claims = verified(&Draft::of(0).signed(0), &ring);
    let chosen = |fleet: &Endpoints, tried: &[Tried]| {
        let vain = Vain { avoid: &[], tried };
        let choose = |turn| choose(Judged::Verified(&claims), fleet, &ring, vain, turn, None);
        (0..2).map(|turn| choose(turn).expect("an endpoint").index).collect::<Vec<_>>()
    };
    assert_eq!(chosen(&fleet, &[]), [1, 1], "as it came");
    assert_eq!(chosen(&fleet, &[Tried::Key(kid(0))]), [0, 0], "signed again");
    assert_eq!(
        chosen(&fleet, &[Tried::Key(kid(0)), Tried::Key(kid(1))]),
        [1, 1],
        "the other one was refused too"
    );
    assert_eq!(chosen(&healthy([Held::Unknown, one(0)]), &[Tried::Key(kid(0))]), [1, 1]);
}
