use super::*;
use crate::decisions::key::{
    KeyFault,
    forge::{ec, rsa},
};
use crate::decisions::window::Open;
use crate::words::file_fault::FileFault;

const MINUTE: i64 = 60;
/// Token lifetime and leeway of [`keeper`].
const WINDOW: i64 = 31 * MINUTE;
const T0: UnixTime = UnixTime(1_000_000);

fn at(seconds: i64) -> UnixTime {
    UnixTime(T0.0 + seconds)
}

fn keeper(overlap: Overlap) -> Keeper {
    let (token_lifetime, leeway) = (std::time::Duration::from_mins(30), std::time::Duration::from_mins(1));
    Keeper::new(Policy { overlap, token_lifetime, leeway })
}

fn file() -> SourceName {
    SourceName::new("/etc/core/private_key.pem")
}

fn other() -> SourceName {
    SourceName::new("/etc/tidegate/other.pem")
}

#[expect(clippy::unnecessary_wraps, reason = "what the keeper takes")]
fn keys<const N: usize>(which: [usize; N]) -> Result<Vec<Key>, KeyFault> {
    Ok(which.into_iter().map(|n| rsa(n).key()).collect())
}

fn kid(which: usize) -> Kid {
    rsa(which).key().kid().clone()
}

fn state(ring: &Ring, which: usize, seconds: i64) -> Option<State> {
    ring.find(kid(which).as_str()).map(|entry| entry.state(at(seconds)))
}

#[expect(clippy::unnecessary_wraps, reason = "what a look-up gives")]
fn verifying(signed_until: i64) -> Option<State> {
    Some(State::Verifying { until: at(signed_until + WINDOW), signed_until: at(signed_until) })
}

fn listing(state: Option<Listed>) -> Listing {
    Listing { state, ..Listing::default() }
}

#[test]
fn a_replaced_key_verifies_until_its_last_token_expired() {
    let mut keeper = keeper(Overlap::Auto);
    keeper.observe(&file(), keys([0]), at(0));
    let (ring, changes) = keeper.observe(&file(), keys([1]), at(100));
    assert_eq!(state(&ring, 1, 100), Some(State::Signing));
    assert_eq!(state(&ring, 0, 100), verifying(100));
    assert_eq!(changes.len(), 2);
    assert!(ring.signer(kid(0).as_str()).is_some(), "an endpoint that still holds it gets its signature");

    let (ring, changes) = keeper.refresh(at(100 + WINDOW - 1));
    assert_eq!((state(&ring, 0, 100 + WINDOW - 1), changes), (verifying(100), vec![]));
    assert_eq!(state(&ring, 0, 100 + WINDOW), Some(State::Retired), "a ring read late retires it by itself");

    let (later, changes) = keeper.refresh(at(100 + WINDOW));
    assert_eq!(changes, [Change::Became { kid: kid(0), source: file(), state: State::Retired }]);
    assert!(later.generation() > ring.generation());
    let retired = later.find(kid(0).as_str()).unwrap();
    assert!(!retired.key().can_sign(), "its private half is gone from memory");
    assert!(later.signer(kid(0).as_str()).is_none());
    assert!(!later.forbids(b"m", &rsa(0).key().sign(b"m").unwrap()), "time makes no tombstone");
}

#[test]
fn overlap_listed_and_off_end_a_replaced_key_at_once() {
    for overlap in [Overlap::Listed, Overlap::Off] {
        let mut keeper = keeper(overlap);
        keeper.observe(&file(), keys([0]), at(0));
        let (ring, _) = keeper.observe(&file(), keys([1]), at(1));
        assert_eq!(state(&ring, 0, 1), Some(State::Retired), "{overlap:?}");
    }
}

#[test]
fn a_listed_key_verifies_unless_overlap_is_off() {
    for (overlap, expected) in [
        (Overlap::Auto, State::Verifying { until: UnixTime(i64::MAX), signed_until: at(5) }),
        (Overlap::Listed, State::Verifying { until: UnixTime(i64::MAX), signed_until: at(5) }),
        (Overlap::Off, State::Retired),
    ] {
        let mut keeper = keeper(overlap);
        keeper.declare(&other(), listing(Some(Listed::Verifying)));
        let (ring, _) = keeper.observe(&other(), keys([0]), at(5));
        assert_eq!(state(&ring, 0, 5), Some(expected), "{overlap:?}");
    }
}

#[test]
fn replaced_twice_within_a_second_keeps_every_key() {
    let mut keeper = keeper(Overlap::Auto);
    for which in [0, 1, 2] {
        keeper.observe(&file(), keys([which]), at(0));
    }
    let ring = keeper.ring();
    assert_eq!([0, 1, 2].map(|n| state(ring, n, 0)), [verifying(0), verifying(0), Some(State::Signing)]);
}

#[test]
fn a_key_that_comes_back_signs_again() {
    let mut keeper = keeper(Overlap::Auto);
    keeper.observe(&file(), keys([0]), at(0));
    keeper.observe(&file(), keys([1]), at(10));
    let (ring, _) = keeper.observe(&file(), keys([0]), at(20));
    assert_eq!(state(&ring, 0, 20), Some(State::Signing));
    assert_eq!(state(&ring, 1, 20), verifying(20));
    assert_eq!(ring.entries().count(), 2);
}

#[test]
fn a_broken_source_keeps_the_ring_that_worked() {
    let mut keeper = keeper(Overlap::Auto);
    let (before, _) = keeper.observe(&file(), keys([0]), at(0));
    let (ring, changes) = keeper.observe(&file(), Err(KeyFault::File(FileFault::Empty)), at(10));
    assert_eq!(changes, [Change::Broke { source: file(), fault: KeyFault::File(FileFault::Empty) }]);
    assert_eq!(state(&ring, 0, 10), Some(State::Signing));
    assert_eq!(ring.generation(), before.generation());
    assert_eq!(keeper.observe(&file(), Err(KeyFault::File(FileFault::Empty)), at(11)).1, [], "logged once");
    keeper.observe(&file(), Err(KeyFault::File(FileFault::Missing)), at(12));
    assert_eq!(keeper.faults().collect::<Vec<_>>(), [(&file(), &KeyFault::File(FileFault::Missing), at(10))]);
    assert_eq!(keeper.refresh(at(10 * WINDOW)).1, [], "a signing key has no end");

    let (ring, changes) = keeper.observe(&file(), keys([0]), at(20));
    assert_eq!(changes, [Change::Mended { source: file() }]);
    assert_eq!(ring.generation(), before.generation(), "remembered tokens stay good");
    assert_eq!(keeper.faults().count(), 0);
}

#[test]
fn from_and_until_move_the_state_by_time() {
    let mut keeper = keeper(Overlap::Auto);
    let times = |from: i64, until: i64| Listing {
        from: Some(at(from)),
        until: Some(at(until)),
        ..Listing::default()
    };
    keeper.declare(&file(), times(100, 200));
    keeper.declare(&other(), Listing { state: Some(Listed::Announced), ..times(150, 300) });
    keeper.observe(&file(), keys([0]), at(0));
    keeper.observe(&other(), keys([1]), at(0));
    for (now, first, second) in [
        (99, State::Announced, State::Announced),
        (100, State::Signing, State::Announced),
        (199, State::Signing, State::Signing),
        (200, State::Retired, State::Signing),
        (300, State::Retired, State::Retired),
    ] {
        assert_eq!(
            [0, 1].map(|n| state(keeper.ring(), n, now).unwrap()),
            [first, second],
            "at {now}, read late"
        );
        let (ring, _) = keeper.refresh(at(now));
        assert_eq!([0, 1].map(|n| state(&ring, n, now).unwrap()), [first, second], "at {now}");
        let can_sign = [0, 1].map(|n| ring.signer(kid(n).as_str()).is_some());
        assert_eq!(can_sign, [first, second].map(|s| s != State::Retired));
    }
}

#[test]
fn a9_a_key_retired_now_is_forbidden_whatever_source_brings_it_back() {
    let mut keeper = keeper(Overlap::Auto);
    keeper.observe(&file(), keys([0]), at(0));
    let alarm = keeper.retire_now("no such key", at(1)).unwrap_err();
    assert_eq!(alarm, RetireFault::Unknown);
    let before = keeper.ring().generation();
    let (ring, changes) = keeper.retire_now(rsa(0).key().thumbprint().as_str(), at(1)).unwrap();
    assert_eq!(changes, [Change::Became { kid: kid(0), source: file(), state: State::Retired }]);
    assert!(ring.generation() > before);

    keeper.observe(&file(), keys([1]), at(2));
    keeper.observe(&file(), keys([0]), at(3));
    let (ring, _) = keeper.observe(&other(), keys([0]), at(4));
    assert_eq!(state(&ring, 0, 4), Some(State::Retired));
    assert!(ring.signer(kid(0).as_str()).is_none());
    assert!(ring.forbids(b"m", &rsa(0).key().sign(b"m").unwrap()));
    assert!(!ring.forbids(b"m", &rsa(1).key().sign(b"m").unwrap()));
    assert!(ring.has_keys());
}

#[test]
fn a9_a_key_listed_as_retired_is_banned_while_it_is_listed() {
    let mut keeper = keeper(Overlap::Auto);
    keeper.declare(&other(), listing(Some(Listed::Retired)));
    keeper.observe(&file(), keys([0]), at(0));
    let (ring, _) = keeper.observe(&other(), keys([0]), at(1));
    assert_eq!(state(&ring, 0, 1), Some(State::Retired));
    assert!(ring.forbids(b"m", &rsa(0).key().sign(b"m").unwrap()));
}

#[test]
fn a9_a_key_banned_by_others_needs_no_entry() {
    let mut keeper = keeper(Overlap::Auto);
    let (ring, _) = keeper.ban(Arc::new(rsa(0).key().without_private()), at(0), at(0));
    assert!(ring.forbids(b"m", &rsa(0).key().sign(b"m").unwrap()));
    let (ring, _) = keeper.observe(&file(), keys([0]), at(1));
    assert_eq!(state(&ring, 0, 1), Some(State::Retired));
}

#[test]
fn the_same_key_from_two_sources_is_one_entry_with_its_private_half() {
    let mut keeper = keeper(Overlap::Auto);
    let public = Ok(vec![rsa(0).key().without_private()]);
    keeper.declare(&other(), listing(Some(Listed::Announced)));
    keeper.observe(&other(), public, at(0));
    assert!(keeper.ring().signer(kid(0).as_str()).is_none());
    let (ring, _) = keeper.observe(&file(), keys([0]), at(0));
    assert_eq!(ring.entries().count(), 1);
    assert_eq!(state(&ring, 0, 0), Some(State::Signing), "the widest state counts");
    assert!(ring.signer(kid(0).as_str()).is_some());
    let (ring, _) = keeper.observe(&file(), keys([1]), at(1));
    assert_eq!(state(&ring, 0, 1), verifying(1), "still listed, and still within its window");
}

#[test]
fn every_name_finds_the_key() {
    let mut keeper = keeper(Overlap::Auto);
    keeper.declare(&file(), Listing { alias: Kid::parse("core-2026"), ..Listing::default() });
    let (ring, _) = keeper.observe(&file(), keys([0]), at(0));
    let key = rsa(0).key();
    for name in [key.kid().as_str(), key.thumbprint().as_str(), "core-2026"] {
        assert_eq!(**ring.find(name).unwrap().key(), key, "{name}");
    }
    for stranger in ["", "core-2027", "../core-2026", &"x".repeat(10_000)] {
        assert!(ring.find(stranger).is_none());
    }
    assert_eq!(ring.find("core-2026").unwrap().alias().map(Kid::as_str), Some("core-2026"));
    let (ring, _) = keeper.observe(&file(), keys([1]), at(1));
    assert_eq!(**ring.find("core-2026").unwrap().key(), rsa(1).key(), "the alias goes to the successor");
}

#[test]
fn two_keys_under_one_name_are_a_fault_that_changes_nothing() {
    let mut keeper = keeper(Overlap::Auto);
    let alias = |name: &str| Listing { alias: Kid::parse(name), ..Listing::default() };
    keeper.declare(&file(), alias("core"));
    keeper.observe(&file(), keys([0]), at(0));
    for name in ["core", kid(0).as_str()] {
        keeper.declare(&other(), alias(name));
        let (ring, changes) = keeper.observe(&other(), keys([1]), at(1));
        let fault = KeyFault::NameTaken(Kid::parse(name).unwrap());
        assert_eq!(changes, [Change::Broke { source: other(), fault }]);
        assert_eq!(ring.entries().count(), 1);
    }
    keeper.declare(&other(), alias("two"));
    let (_, changes) = keeper.observe(&other(), keys([1, 2]), at(2));
    assert_eq!(changes, [Change::Broke { source: other(), fault: KeyFault::AliasOfMany }]);
    let (ring, _) = keeper.observe(&other(), keys([0]), at(3));
    assert_eq!(ring.entries().count(), 1, "one key with two aliases is no clash");
    assert!(ring.find("two").is_some() && ring.find("core").is_some());
}

#[test]
fn a_public_key_where_a_private_one_is_needed_is_a_fault() {
    let mut keeper = keeper(Overlap::Auto);
    keeper.declare(&file(), Listing { needs_private: true, ..Listing::default() });
    let (_, changes) = keeper.observe(&file(), Ok(vec![rsa(0).key().without_private()]), at(0));
    assert_eq!(changes, [Change::Broke { source: file(), fault: KeyFault::PublicOnly }]);
}

#[test]
fn a_key_that_a_replica_still_holds_goes_on_signing() {
    let mut keeper = keeper(Overlap::Auto);
    keeper.observe(&file(), keys([0]), at(0));
    let (ring, _) = keeper.observe(&file(), keys([1]), at(10));
    keeper.observe_held([&kid(0), &kid(1), &kid(3)], at(500));
    assert_eq!(state(keeper.ring(), 0, 500), verifying(500));
    assert_eq!(keeper.ring().generation(), ring.generation(), "a window that grew forgets no token");
    keeper.refresh(at(500 + WINDOW));
    keeper.observe_held([&kid(0)], at(500 + WINDOW));
    assert_eq!(state(keeper.ring(), 0, 500 + WINDOW), Some(State::Retired), "what ended doesn't come back");
}

#[test]
fn a_key_that_never_signed_has_no_window() {
    for listed in [Listed::Announced, Listed::Verifying] {
        let mut keeper = keeper(Overlap::Auto);
        keeper.declare(&file(), listing(Some(listed)));
        keeper.observe(&file(), keys([0]), at(0));
        let (ring, _) = keeper.observe(&file(), keys([1]), at(1));
        assert_eq!(state(&ring, 0, 1), Some(State::Retired), "{listed:?}");
    }
}

#[test]
fn a_key_that_was_announced_for_a_day_has_its_window_once_it_has_come() {
    for (replaced, expected) in [(60, Some(State::Retired)), (200, verifying(200))] {
        let mut keeper = keeper(Overlap::Auto);
        keeper.declare(&file(), Listing { from: Some(at(100)), ..listing(Some(Listed::Announced)) });
        keeper.observe(&file(), keys([0]), at(0));
        assert_eq!(keeper.seen(at(replaced)).len(), usize::from(replaced > 100));
        let (ring, _) = keeper.observe(&file(), keys([1]), at(replaced));
        assert_eq!(state(&ring, 0, replaced), expected, "{replaced}");
    }
}

#[test]
fn a_file_taken_out_of_a_folder_counts_as_replaced() {
    let mut keeper = keeper(Overlap::Auto);
    keeper.observe(&file(), keys([0]), at(0));
    let (ring, _) = keeper.observe(&file(), Ok(vec![]), at(10));
    assert_eq!(state(&ring, 0, 10), verifying(10));
}

#[test]
fn an_explicit_end_bounds_the_window_of_a_replaced_key() {
    let mut keeper = keeper(Overlap::Auto);
    keeper.declare(&file(), Listing { until: Some(at(60)), ..Listing::default() });
    keeper.observe(&file(), keys([0]), at(0));
    let (ring, _) = keeper.observe(&file(), keys([1]), at(10));
    assert_eq!(state(&ring, 0, 10), Some(State::Verifying { until: at(60), signed_until: at(10) }));
}

#[test]
fn only_the_last_retired_keys_are_remembered() {
    let mut keeper = keeper(Overlap::Off);
    let key = Arc::new(rsa(0).key());
    let past = keeper::Past { key, source: file(), ending: None, is_own: true };
    keeper.past = vec![past; 3 * Keeper::PAST];
    keeper.refresh(at(0));
    assert_eq!(keeper.past.len(), Keeper::PAST);
}

#[test]
fn an_empty_ring_finds_and_signs_nothing() {
    let ring = Ring::default();
    assert!(!ring.has_keys() && ring.find("x").is_none() && ring.signer("x").is_none());
    assert!(!ring.forbids(b"m", &ec().key().sign(b"m").unwrap()));
    assert!(Ring::default_key_named("7WMA:KVXO:KF25:35NA:GJ35:ZGKY:PGYT:I5UT:TGWY:UUI4:PT7Z:X3KW"));
}

#[test]
fn the_jwks_holds_the_public_halves_of_what_verifies() {
    let mut keeper = keeper(Overlap::Auto);
    keeper.observe(&file(), keys([0]), at(0));
    keeper.observe(&file(), Ok(vec![ec().key()]), at(10));
    keeper.declare(&other(), listing(Some(Listed::Announced)));
    let (ring, _) = keeper.observe(&other(), keys([2]), at(10));
    let of = |now: i64| crate::decisions::key::parse(ring.jwks(at(now)).as_bytes()).unwrap();
    assert_eq!(of(10), [ec().key(), rsa(0).key()]);
    assert!(of(10).iter().all(|key| !key.can_sign() && key.declared().is_none()));
    let document: serde_json::Value = serde_json::from_str(&ring.jwks(at(10))).unwrap();
    let named = |name: &Kid| {
        document["keys"].as_array().unwrap().iter().filter(|key| key["kid"] == name.as_str()).count()
    };
    let (key, ahead) = (rsa(0).key(), rsa(2).key());
    let of_both = [key.kid(), key.thumbprint(), ahead.kid(), ahead.thumbprint()];
    assert_eq!(of_both.map(named), [1, 1, 0, 0], "by both names");
    assert_eq!(of(10 + WINDOW), [ec().key()]);
}

#[test]
fn a_key_is_meant_by_its_names_or_by_what_no_other_id_begins_with() {
    let mut keeper = keeper(Overlap::Auto);
    let ring = keeper.observe(&file(), keys([0, 1]), at(0)).0;
    let (id, other) = (kid(0).to_string(), kid(1).to_string());
    assert_ne!(id[..4], other[..4], "of the two forged keys");
    let meant = |text: &str| ring.meant(text).map(|entry| entry.key().kid().clone());
    for text in [&id[..], &id[..4], &id[..9], rsa(0).key().thumbprint().as_str()] {
        assert_eq!(meant(text), Ok(kid(0)), "{text}");
    }
    for text in ["", &id[..3], "ZZZZ", &format!("{id}:")] {
        assert_eq!(meant(text), Err(RetireFault::Unknown), "{text}");
    }
    let twins = Ring { entries: [&ring.entries[..], &ring.entries[..]].concat(), ..Ring::default() };
    assert_eq!(twins.meant(&id[..4]).err(), Some(RetireFault::Several));
}

#[test]
fn a20_while_it_is_unknown_what_was_retired_only_held_keys_verify() {
    let mut keeper = keeper(Overlap::Auto);
    keeper.trust_held_only(true, at(0));
    keeper.observe(&file(), keys([0]), at(0));
    keeper.declare(&other(), Listing { from: Some(at(-5)), ..listing(None) });
    let (ring, _) = keeper.observe(&other(), keys([1]), at(0));
    assert_eq!([0, 1].map(|which| state(&ring, which, 0)), [Some(State::Announced); 2]);
    let (ring, _) = keeper.observe_held([&kid(0)], at(1));
    let states = [0, 1].map(|which| state(&ring, which, 1));
    assert_eq!(states, [Some(State::Signing), Some(State::Announced)]);
    assert!(ring.signer(kid(1).as_str()).is_some(), "it may be signed with for an endpoint that holds it");
    let (ring, _) = keeper.trust_held_only(false, at(2));
    assert_eq!([0, 1].map(|which| state(&ring, which, 2)), [Some(State::Signing); 2]);
}

#[test]
fn a8_a_clock_that_jumps_neither_ends_a_window_for_good_nor_makes_it_longer() {
    let table = [
        (50, verifying(10), "as it should"),
        (9 * WINDOW, Some(State::Retired), "far ahead"),
        (60, verifying(10), "put right"),
        (-5 * WINDOW, verifying(-5 * WINDOW), "far behind"),
        (-5 * WINDOW + 7, verifying(-5 * WINDOW + 7), "and going on there"),
        (70, verifying(10), "put right"),
        (10 + WINDOW, Some(State::Retired), "over"),
    ];
    let mut keeper = keeper(Overlap::Auto);
    keeper.observe(&file(), keys([0]), at(0));
    keeper.observe(&file(), keys([1]), at(10));
    for (now, expected, when) in table {
        let (ring, _) = keeper.refresh(at(now));
        assert_eq!(state(&ring, 0, now), expected, "{when}");
        assert_eq!(state(&ring, 1, now), Some(State::Signing), "{when}");
    }
}

#[test]
fn a8_a_clock_that_is_set_back_ends_a_window_when_its_time_has_passed() {
    const DAY: i64 = 86_400;
    let mut keeper = keeper(Overlap::Auto);
    keeper.observe(&file(), keys([0]), at(0));
    keeper.pass(std::time::Duration::from_secs(10));
    keeper.observe(&file(), keys([1]), at(10));
    let mut read = |passed: i64, now: i64| {
        keeper.pass(std::time::Duration::from_secs(u64::try_from(passed).unwrap()));
        state(&keeper.refresh(at(now)).0, 0, now)
    };
    for passed in [20, 600, 9 + WINDOW] {
        assert_eq!(read(passed, passed - DAY), verifying(10 - DAY), "{passed} s after the start");
        assert_eq!(read(passed, passed), verifying(10), "put right");
    }
    for passed in [10 + WINDOW, 5 * WINDOW] {
        assert_eq!(read(passed, passed - DAY), Some(State::Retired), "{passed} s after the start");
    }
}

#[test]
fn a9_a_key_that_was_retired_at_once_stays_so_wherever_the_clock_goes() {
    let mut keeper = keeper(Overlap::Auto);
    keeper.observe(&file(), keys([0]), at(0));
    keeper.observe(&file(), keys([1]), at(10));
    keeper.refresh(at(9 * WINDOW));
    keeper.retire_now(kid(0).as_str(), at(9 * WINDOW)).unwrap();
    for now in [60, -9 * WINDOW] {
        assert_eq!(state(&keeper.refresh(at(now)).0, 0, now), Some(State::Retired), "{now}");
    }
}

#[test]
fn a8_a_listed_key_signs_no_more_from_now_on_wherever_the_clock_was() {
    let mut keeper = keeper(Overlap::Auto);
    keeper.declare(&file(), listing(Some(Listed::Verifying)));
    keeper.observe(&file(), keys([0]), at(1_000));
    for (now, signed_until) in [(2_000, 1_000), (400, 400), (3_000, 1_000)] {
        let expected = State::Verifying { until: UnixTime(i64::MAX), signed_until: at(signed_until) };
        assert_eq!(state(&keeper.refresh(at(now)).0, 0, now), Some(expected), "{now}");
    }
}

#[test]
fn dates_in_the_past_count_from_the_first_look() {
    use {Listed as L, State as S};
    let verifies = |until| S::Verifying { until: at(until), signed_until: at(0) };
    for (listed, from, until, expected) in [
        (None, Some(-50), None, S::Signing),
        (None, None, Some(-50), S::Retired),
        (None, Some(-50), Some(-40), S::Retired),
        (None, Some(-50), Some(50), S::Signing),
        (None, Some(50), None, S::Announced),
        (Some(L::Announced), None, None, S::Announced),
        (Some(L::Announced), Some(-50), None, S::Signing),
        (Some(L::Announced), None, Some(-50), S::Retired),
        (Some(L::Signing), Some(50), None, S::Announced),
        (Some(L::Verifying), None, Some(50), verifies(50)),
        (Some(L::Verifying), Some(50), Some(90), S::Announced),
        (Some(L::Verifying), None, Some(0), S::Retired),
        (Some(L::Retired), Some(-50), Some(50), S::Retired),
    ] {
        let mut keeper = keeper(Overlap::Auto);
        let dates = Listing { from: from.map(at), until: until.map(at), ..listing(listed) };
        keeper.declare(&file(), dates);
        let (ring, _) = keeper.observe(&file(), keys([0]), at(0));
        assert_eq!(state(&ring, 0, 0), Some(expected), "{listed:?} {from:?} {until:?}");
    }
}

#[test]
fn a8_a_key_that_is_added_verifies_for_one_window_after_its_last_signature() {
    let added = |signed_until, now| {
        let mut keeper = keeper(Overlap::Auto);
        keeper.observe(&file(), keys([1]), at(0));
        keeper.add(vec![rsa(0).key()], at(signed_until), at(now)).map(|(ring, _)| {
            let entry = ring.find(kid(0).as_str()).unwrap();
            assert!(!entry.key().can_sign(), "public halves alone");
            (entry.state(at(now)), keeper.seen(at(now)).len())
        })
    };
    let verifying = |signed| (State::Verifying { until: at(signed + WINDOW), signed_until: at(signed) }, 2);
    let over = |until| Err(AddFault::Over { kid: kid(0), over: at(until) });
    assert_eq!(added(100, 100), Ok(verifying(100)), "and the store keeps it");
    assert_eq!(added(-100, 100), Ok(verifying(-100)));
    assert_eq!(added(100 - WINDOW, 100), over(100));
    assert_eq!(added(101, 100), Err(AddFault::Future(at(101))));
}

#[test]
fn a9_what_is_held_retired_or_named_already_is_not_added_and_nothing_of_its_file_is() {
    let mut keeper = keeper(Overlap::Auto);
    keeper.declare(&file(), Listing { alias: Kid::parse("core"), ..Listing::default() });
    keeper.observe(&file(), keys([0]), at(0));
    keeper.ban(Arc::new(rsa(1).key()), at(0), at(0));
    let named = |key: Key, name: &str| Key::of_spki(key.spki(), Kid::parse(name)).unwrap();
    let held = AddFault::Held { kid: kid(0), source_name: file() };
    for (added, fault) in [
        (vec![rsa(2).key(), rsa(0).key()], held),
        (vec![rsa(2).key(), rsa(1).key()], AddFault::Retired { kid: kid(1) }),
        (vec![named(rsa(2).key(), "core")], AddFault::NameTaken(Kid::parse("core").unwrap())),
        (vec![named(rsa(2).key(), kid(0).as_str())], AddFault::NameTaken(kid(0))),
    ] {
        assert_eq!(keeper.add(added, at(0), at(0)).err(), Some(fault));
        assert!(keeper.ring().find(kid(2).as_str()).is_none());
    }
    keeper.add(vec![named(rsa(2).key(), "former")], at(0), at(0)).unwrap();
    assert!(keeper.ring().find("former").is_some());
    let policy = *keeper.policy();
    keeper.set_policy(Policy { overlap: Overlap::Listed, ..policy });
    assert_eq!(keeper.add(vec![rsa(3).key()], at(0), at(0)).err(), Some(AddFault::NotAutomatic));
}

#[test]
fn a_key_whose_tokens_may_live_is_not_retired_but_at_once() {
    let mut keeper = keeper(Overlap::Auto);
    keeper.declare(&other(), listing(Some(Listed::Verifying)));
    keeper.observe(&other(), keys([2]), at(5));
    keeper.observe(&file(), keys([0]), at(0));
    keeper.observe(&file(), keys([1]), at(10));
    for (which, now, expected) in [
        (0, 20, Some(RetireFault::Lives(at(10 + WINDOW)))),
        (1, 20, Some(RetireFault::Signs(file()))),
        (2, 20, Some(RetireFault::Lives(at(5 + WINDOW)))),
        (3, 20, Some(RetireFault::Unknown)),
        (2, 5 + WINDOW, None),
        (0, 10 + WINDOW, None),
    ] {
        keeper.refresh(at(now));
        let before = keeper.retired().len();
        assert_eq!(keeper.retire(kid(which).as_str(), |_| None, at(now)).err(), expected, "{which} at {now}");
        assert_eq!(keeper.retired().len() > before, expected.is_none());
    }
}

/// Harbor issues tokens that live longer than the configuration says, or a learned key's window is shorter.
#[test]
fn a_key_is_not_retired_while_a_token_that_was_seen_lives() {
    let mut keeper = keeper(Overlap::Auto);
    keeper.declare(&other(), listing(Some(Listed::Verifying)));
    keeper.observe(&other(), keys([0]), at(0));
    let seen = |exp| move |of: &Kid| (*of == kid(0)).then_some(at(exp));
    let lives = |exp| keeper_lives(exp + MINUTE);
    keeper.refresh(at(WINDOW));
    assert_eq!(keeper.retire(kid(0).as_str(), seen(2 * WINDOW), at(WINDOW)).err(), lives(2 * WINDOW));
    assert!(keeper.retire(kid(0).as_str(), seen(WINDOW - MINUTE), at(WINDOW)).is_ok());
}

#[expect(clippy::unnecessary_wraps, reason = "what an attempt gives")]
fn keeper_lives(until: i64) -> Option<RetireFault> {
    Some(RetireFault::Lives(at(until)))
}

#[test]
fn a_key_that_was_retired_at_once_stays_in_the_list_with_the_time() {
    let mut keeper = keeper(Overlap::Auto);
    keeper.observe(&file(), keys([0]), at(0));
    keeper.observe(&file(), keys([1]), at(10));
    let (ring, _) = keeper.retire_now(kid(0).as_str(), at(20)).unwrap();
    let entry = ring.find(kid(0).as_str()).expect("it is known by name");
    assert_eq!((entry.state(at(20)), entry.retired_since()), (State::Retired, Some(at(20))));
    assert!(!entry.key().can_sign());
    assert!(keeper.retire_now(kid(0).as_str(), at(30)).is_ok(), "as often as one likes");
    let (ring, _) = keeper.ban(Arc::new(rsa(0).key()), at(15), at(40));
    assert_eq!(
        ring.find(kid(0).as_str()).unwrap().retired_since(),
        Some(at(15)),
        "another replica was first"
    );
    let (ring, _) = keeper.refresh(at(10 + 2 * WINDOW));
    assert_eq!(ring.find(kid(0).as_str()).unwrap().retired_since(), Some(at(15)));
}

#[test]
fn a8_what_stops_signing_in_an_upgrade_window_can_be_gone_back_to_until_it_closes() {
    let open = |until| Some(Open { since: at(0), until: at(until), by_command: true });
    let mut keeper = keeper(Overlap::Auto);
    keeper.observe(&other(), keys([2]), at(-20));
    keeper.observe(&other(), Ok(vec![]), at(-10));
    keeper.set_window(open(5 * WINDOW), at(0));
    keeper.observe(&file(), keys([0]), at(0));
    keeper.observe(&file(), keys([1]), at(10));
    let (ring, _) = keeper.refresh(at(3 * WINDOW));
    assert_eq!(
        state(&ring, 0, 3 * WINDOW),
        Some(State::Verifying { until: at(5 * WINDOW), signed_until: at(10) }),
        "no token that it signs now is taken"
    );
    assert!(ring.signer(kid(0).as_str()).is_some(), "for an endpoint that goes back to it");
    assert_eq!(state(&ring, 2, 3 * WINDOW), Some(State::Retired), "it stopped before the window");
    let seen = keeper.seen(at(3 * WINDOW));
    let mut after = self::keeper(Overlap::Auto);
    after.set_window(open(5 * WINDOW), at(3 * WINDOW));
    let (ring, _) = after.recall(seen, at(3 * WINDOW));
    assert!(state(&ring, 0, 3 * WINDOW).is_some_and(State::verifies), "after a restart as well");
    let (ring, _) = keeper.observe_held([&kid(0)], at(4 * WINDOW));
    assert_eq!(
        state(&ring, 0, 4 * WINDOW),
        Some(State::Verifying { until: at(5 * WINDOW), signed_until: at(4 * WINDOW) }),
        "core has gone back to it"
    );
    let (ring, _) = keeper.set_window(None, at(4 * WINDOW + 1));
    assert_eq!(state(&ring, 0, 4 * WINDOW + 1), verifying(4 * WINDOW), "closed: its last tokens count");
    let (ring, _) = keeper.set_window(None, at(5 * WINDOW));
    assert_eq!(state(&ring, 0, 5 * WINDOW), Some(State::Retired));
}

#[test]
fn the_bundle_holds_a_certificate_of_each_key_that_verifies_and_their_names() {
    let mut keeper = keeper(Overlap::Auto);
    keeper.observe(&file(), keys([0]), at(0));
    keeper.observe(&file(), Ok(vec![ec().key()]), at(10));
    keeper.declare(&other(), listing(Some(Listed::Announced)));
    let (ring, _) = keeper.observe(&other(), keys([2]), at(10));
    let bundle = ring.bundle(at(10));
    assert_eq!(crate::decisions::key::parse(bundle.as_bytes()), Ok(vec![ec().key(), rsa(0).key()]));
    assert_eq!(bundle.matches("BEGIN CERTIFICATE").count(), 2);
    for key in [ec().key(), rsa(0).key()] {
        assert!(
            bundle.contains(key.kid().as_str()) && bundle.contains(key.thumbprint().as_str()),
            "{bundle}"
        );
    }
    assert_eq!(bundle, ring.bundle(at(11)), "the same keys make the same text");
}

#[test]
fn an_endpoint_that_does_not_tell_its_key_is_offered_all_that_can_sign() {
    let mut keeper = keeper(Overlap::Auto);
    let announced = SourceName::new("announced");
    keeper.declare(&announced, Listing { state: Some(Listed::Announced), ..Listing::default() });
    keeper.observe(&announced, Ok(vec![rsa(3).key()]), at(0));
    let public = key::parse(rsa(2).public_pem().as_bytes()).expect("a key");
    keeper.observe(&SourceName::new("public"), Ok(public), at(0));
    keeper.observe(&SourceName::new("file"), Ok(vec![rsa(0).key()]), at(0));
    let (ring, _) = keeper.observe(&SourceName::new("file"), Ok(vec![rsa(1).key()]), at(1));
    let names = |which: usize| {
        let key = rsa(which).key();
        [key.kid().clone(), key.thumbprint().clone()]
    };
    assert_eq!(ring.signers(None), [names(1), names(0), names(3)].concat(), "in use, former, to come");
    let known = rsa(3).key().thumbprint().clone();
    let mut expected = [names(1), names(0), names(3)].concat();
    expected.rotate_right(1);
    assert_eq!(ring.signers(Some(&known)), expected, "what it knew last comes first");
}
