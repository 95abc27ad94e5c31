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
    let chosen = (0..4).map(|turn| choose(judged, fleet, &ring, avoid, turn).expect("an endpoint"));
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
    assert_eq!(choose(Judged::Untouched, &healthy([]), &ring(), &[], 7), None);
}

#[test]
fn a_choice_looks_at_each_of_several_endpoints_once_whatever_the_turn() {
    for count in [2, 3, 50] {
        let fleet = healthy((0..count).map(|n| one(n % 4)));
        for turn in [0, 1, usize::MAX] {
            fleet.looks.set(0);
            assert!(choose(Judged::Unverified(&kid(3)), &fleet, &ring(), &[], turn).is_some());
            assert_eq!(fleet.looks.get(), count);
        }
    }
}
