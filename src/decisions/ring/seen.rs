//! What a store keeps of the ring, and what comes back from it: public halves of keys that sources held, so that their
//! overlap outlives this process (and reaches others), and what was retired at once.

use std::sync::Arc;

use super::{
    Change, Ending, Keeper, Moment, Overlap, Ring, SourceName,
    ending::Ends,
    keeper::{Ahead, Former, Holding},
    learned,
};
use crate::{
    decisions::{
        key::Key,
        record::seen_key::{Life, SeenKey},
    },
    words::{clock::UnixTime, kid::Kid},
};

/// What an archive would add to a ring.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restorable {
    /// Keys that would be retired at once.
    pub retired: Vec<Kid>,
    /// Keys that would verify, and until when.
    pub windows: Vec<(Kid, UnixTime)>,
}

impl Keeper {
    /// What the store should hold now. Only where the overlap is automatic: elsewhere a key that its source doesn't
    /// hold or list any more has ended, and must not come back.
    pub fn seen(&self, now: UnixTime) -> Vec<SeenKey> {
        if self.policy().overlap != Overlap::Auto {
            return Vec::new();
        }
        let at = self.moment(now);
        let current = self.holdings.iter().flat_map(|h| {
            let keys = h.current.iter().filter(|_| h.listing.signs(now));
            keys.map(|key| self.seen_of(h, key, Life::Signing { seen: now }, h.listing.until))
        });
        // What only others hold is theirs to say.
        let former = self.holdings.iter().flat_map(|h| {
            let of = |former: &Former| {
                let own = former.ending.own_word()?;
                let (signed_until, until) = own.times(at, self.policy(), None);
                Some(self.seen_of(h, &former.key, Life::Verifying { signed_until, until }, own.listed()))
            };
            h.former.iter().filter_map(of)
        });
        let is_banned = |seen: &SeenKey| self.tombstones.iter().any(|key| key.spki() == seen.spki);
        current.chain(former).filter(|seen| !is_banned(seen)).collect()
    }

    fn seen_of(&self, holding: &Holding, key: &Key, life: Life, listed_end: Option<UnixTime>) -> SeenKey {
        let has_held = |h: &Holding| {
            let of_file = learned::is_own(h) && h.current.iter().any(|current| **current == *key);
            of_file || h.former.iter().any(|former| former.is_own && *former.key == *key)
        };
        SeenKey {
            spki: key.spki().to_vec(),
            declared: key.declared().cloned(),
            source: holding.name.as_str().to_owned(),
            life,
            listed_end,
            lists_ends: true,
            is_own: self.holdings.iter().any(has_held),
        }
    }

    /// Keys of [`Self::seen`] whose private halves are here.
    pub fn private_halves(&self, now: UnixTime) -> Vec<Arc<Key>> {
        if self.policy().overlap != Overlap::Auto {
            return Vec::new();
        }
        let current = self.holdings.iter().filter(|h| h.listing.signs(now)).flat_map(|h| &h.current);
        let former = self.holdings.iter().flat_map(|h| h.former.iter().map(|former| &former.key));
        let is_kept =
            |key: &&Arc<Key>| key.can_sign() && key.elsewhere().is_none() && !self.tombstones.contains(key);
        current.chain(former).filter(is_kept).cloned().collect()
    }

    /// Gives keys that came back as public halves their private ones.
    pub fn recall_private(
        &mut self,
        keys: impl IntoIterator<Item = Key>,
        now: UnixTime,
    ) -> (Arc<Ring>, Vec<Change>) {
        for key in keys {
            let mut former = self.holdings.iter_mut().flat_map(|h| &mut h.former);
            if let Some(former) = former.find(|former| *former.key == key && !former.key.can_sign()) {
                let declared = former.key.declared().cloned();
                former.key = Arc::new(declared.into_iter().fold(key, Key::with_alias));
            }
        }
        self.refresh(now)
    }

    /// What was retired at once: public halves.
    pub fn retired(&self) -> &[Arc<Key>] {
        &self.tombstones
    }

    /// The sources that hold keys now, in the order of their declaration, and whether a file holds them.
    pub fn sources(&self) -> impl Iterator<Item = (&SourceName, bool)> {
        let is_file = |holding: &Holding| holding.current.iter().all(|key| key.elsewhere().is_none());
        self.holdings.iter().filter(|h| !h.current.is_empty()).map(move |h| (&h.name, is_file(h)))
    }

    /// What [`Self::restore`] would change.
    pub fn restorable(&self, seen: &[SeenKey], retired: &[Key], now: UnixTime) -> Restorable {
        let bans = retired.iter().filter(|key| !self.tombstones.iter().any(|known| **known == **key));
        let (at, open) = (self.moment(now), self.open(now));
        let ends = |seen: &SeenKey| {
            let (key, ending) = (seen.key().ok()?, self.ends(seen, at, (at, false)));
            let is_banned = retired.contains(&key) || self.ring().banned().iter().any(|known| **known == key);
            let is_over = ending.is_over(at, self.policy(), open);
            (!is_over && !self.knows(seen) && !is_banned)
                .then(|| (key.kid().clone(), ending.until_with(open)))
        };
        let windows = if self.policy().overlap == Overlap::Auto { seen } else { &[] };
        Restorable {
            retired: bans.map(|key| key.kid().clone()).collect(),
            windows: windows.iter().filter_map(ends).collect(),
        }
    }

    /// What became of a key here since the archive was made counts, also that it ended.
    fn knows(&self, seen: &SeenKey) -> bool {
        self.ring().entries().any(|entry| entry.key().spki() == seen.spki)
    }

    /// Takes what an archive holds: what it retired first, which beats all else (A9). An archive is an operator's word, and
    /// what it holds no key of our own files (A10).
    pub fn restore(
        &mut self,
        mut seen: Vec<SeenKey>,
        retired: Vec<Key>,
        now: UnixTime,
    ) -> (Arc<Ring>, Vec<Change>) {
        seen.retain(|seen| !self.knows(seen));
        for seen in &mut seen {
            seen.is_own = false;
        }
        let mut changes: Vec<Change> =
            retired.into_iter().flat_map(|key| self.ban(Arc::new(key), now, now).1).collect();
        let (ring, recalled) = self.recall(seen, now);
        changes.extend(recalled);
        (ring, changes)
    }

    /// Takes back what a store holds. What a source holds now, what was retired at once and what is over is left as
    /// it is; nothing verifies for longer than one window from `now`.
    pub fn recall(
        &mut self,
        seen: impl IntoIterator<Item = SeenKey>,
        now: UnixTime,
    ) -> (Arc<Ring>, Vec<Change>) {
        if self.policy().overlap == Overlap::Auto {
            seen.into_iter().for_each(|seen| self.recall_one(&seen, now));
        }
        self.refresh(now)
    }

    fn recall_one(&mut self, seen: &SeenKey, now: UnixTime) {
        // What was sealed by us and can't be read any more is the store's to tell.
        let Ok(key) = seen.key() else { return };
        let at = self.moment(now);
        let noticed = self.noticed(&key, seen.life, at);
        let ending = self.ends(seen, at, noticed);
        let is_current = self.holdings.iter().any(|h| h.current.iter().any(|current| **current == key));
        if is_current
            || self.tombstones.iter().any(|banned| **banned == key)
            || ending.is_over(at, self.policy(), self.open(now))
        {
            return;
        }
        let is_own = self.recalls_own && seen.is_own;
        for holding in &mut self.holdings {
            if let Some(known) = holding.former.iter_mut().find(|former| *former.key == key) {
                known.ending = known.ending.with(ending);
                known.is_own |= is_own;
                return;
            }
        }
        let holding = self.holding(&SourceName::new(&seen.source), now);
        let ending = holding.listing.until.map_or(ending, |end| ending.cut(end));
        holding.former.push(Former { key: Arc::new(key), ending, is_own });
    }

    /// From when on what is kept of a key counts, and whether the clock that is ahead and wrote it writes on: a record
    /// of a time to come counts from the first look at it, and reading it again makes nothing longer.
    fn noticed(&mut self, key: &Key, life: Life, at: Moment) -> (Moment, bool) {
        let (digest, evidence) = (*key.spki_digest(), life.evidence());
        if evidence <= at.now().plus(self.policy().leeway) {
            self.ahead.remove(&digest);
            return (at, false);
        }
        let known = self.ahead.get(&digest).copied();
        let ahead = match known.filter(|known| known.evidence == evidence) {
            Some(same) => same,
            None => Ahead { evidence, noticed: at, moves: known.is_some() },
        };
        self.ahead.insert(digest, ahead);
        (ahead.noticed, ahead.moves)
    }

    /// When a key that no source holds any more signed last, as far as can be known, and when its last token ends. One
    /// that a source of ours held before this process began may have been in use until then, but not for longer than a
    /// window after it was last seen: who was away for longer has no client that waits. Any other that is said to sign
    /// is another process's. An end that was listed counts as the record has it, unless a source of ours held the key
    /// until now: then as that source lists it now, but for an end that is over, which brings nothing back.
    fn ends(&self, seen: &SeenKey, at: Moment, (noticed, moves): (Moment, bool)) -> Ends {
        let policy = self.policy();
        let cut = |ends: Ends, listed: Option<UnixTime>| listed.map_or(ends, |end| ends.cut(end));
        match seen.life {
            Life::Verifying { signed_until, until } => {
                let ending = if seen.lists_ends {
                    Ending::after(signed_until, policy, noticed)
                } else {
                    Ending::inferred(signed_until, until, policy, noticed)
                };
                cut(Ends::own(ending), seen.listed_end)
            }
            Life::Signing { seen: last } => {
                let first = last.min(noticed.called(noticed.now(), at));
                let began = self.looked.map(|looked| looked.called(looked.now(), at));
                let ours = self.holdings.iter().find(|h| h.is_ours && h.name.as_str() == seen.source);
                let began = began.filter(|began| !moves && first <= *began);
                match ours.zip(began) {
                    Some((ours, began)) => {
                        let signed_until = began.min(at.now()).max(last).min(last.plus(policy.window()));
                        let over = seen.listed_end.filter(|end| *end <= at.now());
                        cut(
                            Ends::own(Ending::after(signed_until, policy, noticed)),
                            over.or(ours.listing.until),
                        )
                    }
                    None => Ends::elsewhere(Ending::learned(last, policy, noticed), seen.listed_end),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::decisions::{
        key::forge::rsa,
        ring::{Listed, Policy, State},
    };

    const LIFETIME: Duration = Duration::from_mins(30);
    const WINDOW: i64 = 31 * 60;

    fn at(seconds: i64) -> UnixTime {
        UnixTime(1_000_000 + seconds)
    }

    fn keeper(overlap: Overlap) -> Keeper {
        Keeper::new(Policy { overlap, token_lifetime: LIFETIME, leeway: Duration::from_mins(1) })
    }

    fn file() -> SourceName {
        SourceName::new("/etc/core/private_key.pem")
    }

    /// What a process that held key 0, and then key 1 from 100 s on, kept.
    fn kept(last: i64) -> Vec<SeenKey> {
        let mut keeper = keeper(Overlap::Auto);
        keeper.observe(&file(), Ok(vec![rsa(0).key()]), at(0));
        keeper.observe(&file(), Ok(vec![rsa(1).key()]), at(100));
        keeper.seen(at(last))
    }

    fn state(ring: &Ring, which: usize, seconds: i64) -> Option<State> {
        ring.find(rsa(which).key().kid().as_str()).map(|entry| entry.state(at(seconds)))
    }

    #[expect(clippy::unnecessary_wraps, reason = "what a look-up gives")]
    fn verifying(signed_until: i64, until: i64) -> Option<State> {
        Some(State::Verifying { until: at(until), signed_until: at(signed_until) })
    }

    #[test]
    fn a8_what_was_seen_before_a_restart_verifies_after_it_for_as_long_as_it_would_have() {
        let mut keeper = keeper(Overlap::Auto);
        keeper.observe(&file(), Ok(vec![rsa(2).key()]), at(300));
        let (ring, _) = keeper.recall(kept(200), at(300));
        assert_eq!(state(&ring, 0, 300), verifying(100, 100 + WINDOW), "its window goes on");
        assert_eq!(
            state(&ring, 1, 300),
            verifying(300, 300 + WINDOW),
            "core may have signed with it until now"
        );
        assert_eq!(state(&ring, 2, 300), Some(State::Signing));
        assert!(!ring.find(rsa(1).key().kid().as_str()).is_some_and(|entry| entry.key().can_sign()));
        let (ring, _) = keeper.recall(kept(200), at(400));
        assert_eq!(state(&ring, 0, 400), verifying(100, 100 + WINDOW), "reading again makes nothing longer");
        let (ring, _) = keeper.refresh(at(100 + WINDOW));
        assert_eq!(state(&ring, 0, 100 + WINDOW), Some(State::Retired));
    }

    #[test]
    fn a8_a_key_that_nobody_saw_for_long_does_not_come_back() {
        let recalled = |later: i64| {
            let mut keeper = keeper(Overlap::Auto);
            keeper.observe(&file(), Ok(vec![rsa(2).key()]), at(later));
            let (ring, _) = keeper.recall(kept(200), at(later));
            [0, 1].map(|which| state(&ring, which, later))
        };
        let away = 200 + WINDOW;
        assert_eq!(recalled(away + 100), [None, verifying(away, away + WINDOW)]);
        assert_eq!(recalled(away + WINDOW), [None, None]);
        // A clock that was set back lets none verify for longer than a window.
        assert_eq!(recalled(-5_000), [verifying(-5_000, -5_000 + WINDOW); 2]);
    }

    #[test]
    fn a_clock_that_is_set_right_after_the_start_finds_the_windows_as_they_were() {
        let mut keeper = keeper(Overlap::Auto);
        keeper.observe(&file(), Ok(vec![rsa(2).key()]), at(-90_000));
        keeper.recall(kept(200), at(-90_000));
        let (ring, _) = keeper.refresh(at(300));
        assert_eq!(state(&ring, 0, 300), verifying(100, 100 + WINDOW));
        assert_eq!(state(&ring, 1, 300), verifying(200, 200 + WINDOW));
    }

    /// What another process, whose file is elsewhere, says of key 0.
    fn elsewhere(life: Life) -> Vec<SeenKey> {
        let spki = rsa(0).key().spki().to_vec();
        vec![SeenKey {
            spki,
            declared: None,
            source: "/elsewhere.pem".into(),
            life,
            listed_end: None,
            lists_ends: true,
            is_own: true,
        }]
    }

    fn signing(seen: i64) -> Vec<SeenKey> {
        elsewhere(Life::Signing { seen: at(seen) })
    }

    /// The ring at this time, as much time having passed.
    fn passed(keeper: &mut Keeper, seconds: i64) -> Arc<Ring> {
        keeper.pass(Duration::from_secs(u64::try_from(seconds).unwrap_or_default()));
        keeper.refresh(at(seconds)).0
    }

    /// The ring when the store says this at this time.
    fn said(keeper: &mut Keeper, seen: Vec<SeenKey>, seconds: i64) -> Arc<Ring> {
        passed(keeper, seconds);
        keeper.recall(seen, at(seconds)).0
    }

    #[test]
    fn a10_a_key_that_only_others_hold_signs_while_they_say_so_and_verifies_for_one_window_after_it() {
        let mut keeper = keeper(Overlap::Auto);
        keeper.observe(&file(), Ok(vec![rsa(2).key()]), at(0));
        for seen in [50, 400, 800] {
            said(&mut keeper, signing(seen), seen + 5);
            let last = seen + 300;
            let ring = passed(&mut keeper, last);
            assert_eq!(state(&ring, 0, last), verifying(last, seen + WINDOW), "it signs until now");
        }
        let own: Vec<_> = keeper.seen(at(1_100)).into_iter().map(|seen| seen.spki).collect();
        assert_eq!(own, [rsa(2).key().spki()], "it is theirs to keep");
        let silent = 800 + WINDOW / 2;
        for late in [silent, silent + 300] {
            said(&mut keeper, signing(800), late);
            let ring = passed(&mut keeper, late);
            assert_eq!(state(&ring, 0, late), verifying(silent, 800 + WINDOW), "nobody says so any more");
        }
        let ring = passed(&mut keeper, 800 + WINDOW);
        assert_eq!(state(&ring, 0, 800 + WINDOW), Some(State::Retired));
        let ring = said(&mut keeper, signing(800), 801 + WINDOW);
        assert_eq!(state(&ring, 0, 801 + WINDOW), Some(State::Retired), "reading it again adds nothing");
        said(&mut keeper, signing(3_000), 3_000);
        let replaced = elsewhere(Life::Verifying { signed_until: at(3_010), until: at(3_010 + WINDOW) });
        let ring = said(&mut keeper, replaced, 3_020);
        assert_eq!(state(&ring, 0, 3_020), verifying(3_010, 3_010 + WINDOW), "it was replaced there");
    }

    #[test]
    fn a8_what_a_clock_that_is_ahead_wrote_counts_once_from_when_it_is_read() {
        const DAY: i64 = 86_400;
        for life in [
            Life::Signing { seen: at(DAY) },
            Life::Verifying { signed_until: at(DAY), until: at(DAY + WINDOW) },
        ] {
            let mut keeper = keeper(Overlap::Auto);
            keeper.observe(&file(), Ok(vec![rsa(2).key()]), at(0));
            for now in [0, 600, 1_200] {
                keeper.pass(Duration::from_secs(u64::try_from(now).unwrap_or_default()));
                let (ring, _) = keeper.recall(elsewhere(life), at(now));
                let found = state(&ring, 0, now);
                let is_bounded = matches!(found, Some(State::Verifying { until, .. }) if until == at(WINDOW));
                assert!(is_bounded, "{life:?} {now}: {found:?}");
            }
            for now in [WINDOW, 2 * WINDOW, 3 * WINDOW] {
                keeper.pass(Duration::from_secs(u64::try_from(now).unwrap_or_default()));
                let (ring, _) = keeper.recall(elsewhere(life), at(now));
                assert_eq!(state(&ring, 0, now), Some(State::Retired), "{life:?} {now}");
            }
        }
    }

    #[test]
    fn nothing_from_the_store_moves_an_end_that_was_listed() {
        let until = Some(at(600));
        let listed = || crate::decisions::ring::Listing { until, ..Default::default() };
        let mut keeper = keeper(Overlap::Auto);
        keeper.declare(&file(), listed());
        keeper.observe(&file(), Ok(vec![rsa(0).key()]), at(0));
        assert_eq!(keeper.seen(at(0))[0].listed_end, until, "others know it");
        keeper.observe(&file(), Ok(vec![rsa(1).key()]), at(100));
        let longer = elsewhere(Life::Verifying { signed_until: at(150), until: at(150 + WINDOW) });
        for said in [signing(150), longer] {
            keeper.recall(said, at(200));
            let (ring, _) = keeper.observe_held([rsa(0).key().kid()], at(300));
            assert!(
                matches!(state(&ring, 0, 300), Some(State::Verifying { until, .. }) if until == at(600)),
                "{:?}",
                state(&ring, 0, 300)
            );
        }
        let kept = keeper.seen(at(300));
        let mut next = self::keeper(Overlap::Auto);
        next.observe(&file(), Ok(vec![rsa(2).key()]), at(300));
        let (ring, _) = next.recall(kept, at(300));
        assert_eq!(state(&ring, 0, 300), verifying(300, 600), "nor another process's");
    }

    /// By the lifetime that the next process goes by, whatever the former one did; and the end that another replica with
    /// a shorter one wrote is none that was listed.
    #[test]
    fn a8_another_lifetime_after_a_restart_moves_the_end_and_listed_ends_alone_stay() {
        let short = Policy {
            overlap: Overlap::Auto,
            token_lifetime: Duration::from_mins(1),
            leeway: Duration::from_mins(1),
        };
        let mut before = Keeper::new(short);
        before.observe(&file(), Ok(vec![rsa(0).key()]), at(0));
        before.observe(&file(), Ok(vec![rsa(1).key()]), at(100));
        let kept = before.seen(at(110));
        let of = |kept: &[SeenKey], life: fn(&mut SeenKey)| {
            let mut kept = kept.to_vec();
            kept.iter_mut().for_each(life);
            kept
        };
        for (name, kept, first, last) in [
            ("a longer one", kept.clone(), 100 + WINDOW, 150 + WINDOW),
            ("as listed", of(&kept, |seen| seen.listed_end = Some(at(220))), 220, 220),
            ("a former version's", of(&kept, |seen| seen.lists_ends = false), 220, 220),
        ] {
            let mut keeper = keeper(Overlap::Auto);
            keeper.observe(&file(), Ok(vec![rsa(1).key()]), at(120));
            let (ring, _) = keeper.recall(kept.clone(), at(120));
            assert_eq!(state(&ring, 0, 120), verifying(100, first), "{name}");
            let (ring, _) = keeper.observe_held([rsa(0).key().kid()], at(150));
            assert_eq!(state(&ring, 0, 150), verifying(150, last), "{name}");
            let (ring, _) = keeper.recall(kept, at(160));
            assert_eq!(state(&ring, 0, 160), verifying(150, last), "{name}, again");
            let ours = keeper.seen(at(160)).into_iter().find(|seen| seen.spki == rsa(0).key().spki());
            let listed = ours.and_then(|seen| seen.listed_end);
            assert_eq!(listed, (last == 220).then(|| at(220)), "{name}: as it is told to others");
        }
    }

    /// Ring at 200 s, where a file held key 0 until 100 s, listed with one end, and holds key 1 after a restart, listed with
    /// another.
    fn relisted(before: Option<i64>, after: Option<i64>) -> (Keeper, Arc<Ring>) {
        let listed = |until: Option<i64>| crate::decisions::ring::Listing {
            until: until.map(at),
            ..Default::default()
        };
        let mut former = keeper(Overlap::Auto);
        former.declare(&file(), listed(before));
        former.observe(&file(), Ok(vec![rsa(0).key()]), at(0));
        let kept = former.seen(at(100));
        let mut keeper = keeper(Overlap::Auto);
        keeper.declare(&file(), listed(after));
        keeper.observe(&file(), Ok(vec![rsa(1).key()]), at(200));
        let (ring, _) = keeper.recall(kept, at(200));
        (keeper, ring)
    }

    #[test]
    fn a8_an_end_that_was_postponed_before_the_restart_that_finds_the_file_replaced_counts_as_it_is_now() {
        let end = 200 + WINDOW;
        for (before, after, until) in [
            (Some(300), Some(9_000), end),
            (Some(300), Some(900), 900),
            (Some(900), Some(300), 300),
            (Some(300), None, end),
            (None, Some(300), 300),
        ] {
            let (keeper, ring) = relisted(before, after);
            assert_eq!(state(&ring, 0, 200), verifying(200, until), "{before:?} {after:?}");
            let of_key = keeper.seen(at(200)).into_iter().find(|seen| seen.spki == rsa(0).key().spki());
            assert_eq!(of_key.expect("it is kept").listed_end, after.map(at), "{before:?} {after:?}");
        }
    }

    #[test]
    fn a9_what_was_over_or_retired_does_not_come_back_by_another_list() {
        for after in [None, Some(9_000)] {
            let (_, ring) = relisted(Some(150), after);
            assert_eq!(state(&ring, 0, 200), None, "its end was over: {after:?}");
            let (mut keeper, _) = relisted(Some(300), after);
            keeper.ban(Arc::new(rsa(0).key()), at(200), at(200));
            let (ring, _) = keeper.recall(signing(100), at(210));
            assert_eq!(state(&ring, 0, 210), Some(State::Retired), "{after:?}");
        }
        let mut keeper = keeper(Overlap::Auto);
        let retired = crate::decisions::ring::Listing { state: Some(Listed::Retired), ..Default::default() };
        keeper.declare(&SourceName::new("/leaked.pem"), retired);
        keeper.observe(&SourceName::new("/leaked.pem"), Ok(vec![rsa(0).key()]), at(200));
        keeper.observe(&file(), Ok(vec![rsa(1).key()]), at(200));
        let (ring, _) = keeper.recall(kept(100), at(200));
        assert_eq!(state(&ring, 0, 200), Some(State::Retired));
    }

    /// Once it was replaced, the list is about what the file holds since.
    #[test]
    fn a9_the_end_that_was_listed_when_the_key_was_replaced_stays_after_a_restart() {
        let mut before = keeper(Overlap::Auto);
        let listed = || crate::decisions::ring::Listing { until: Some(at(600)), ..Default::default() };
        before.declare(&file(), listed());
        before.observe(&file(), Ok(vec![rsa(0).key()]), at(0));
        before.observe(&file(), Ok(vec![rsa(1).key()]), at(100));
        let mut next = keeper(Overlap::Auto);
        next.observe(&file(), Ok(vec![rsa(1).key()]), at(200));
        let (ring, _) = next.recall(before.seen(at(100)), at(200));
        assert_eq!(state(&ring, 0, 200), verifying(100, 600));
    }

    #[test]
    fn an_end_that_another_replica_postpones_is_postponed_here() {
        let listed = |seen: i64, end: Option<i64>| {
            signing(seen).into_iter().map(|seen| SeenKey { listed_end: end.map(at), ..seen }).collect()
        };
        let mut keeper = keeper(Overlap::Auto);
        keeper.observe(&file(), Ok(vec![rsa(2).key()]), at(0));
        for (now, end, until) in
            [(10, Some(600), 600), (20, Some(300), 300), (30, Some(900), 900), (40, None, 40 + WINDOW)]
        {
            let ring = said(&mut keeper, listed(now, end), now);
            assert_eq!(state(&ring, 0, now), verifying(now, until), "{end:?}");
        }
    }

    #[test]
    fn a10_only_keys_that_own_files_held_are_own_after_a_restart() {
        let url = SourceName::new("https://keys.example/jwks.json");
        let listing = || crate::decisions::ring::Listing { is_remote: true, ..Default::default() };
        let mut before = keeper(Overlap::Auto);
        before.recall_as_own();
        before.observe(&file(), Ok(vec![rsa(0).key()]), at(0));
        before.observe(&file(), Ok(vec![rsa(1).key()]), at(100));
        before.declare(&url, listing());
        before.observe(&url, Ok(vec![rsa(2).key()]), at(100));
        before.add(vec![rsa(3).key()], at(90), at(100)).expect("it is added");
        let kept = before.seen(at(200));
        let is_published = |keeper: &Keeper| {
            let own = keeper.own(at(300));
            [0, 1, 2, 3].map(|which| own.find(rsa(which).key().kid().as_str()).is_some())
        };
        assert_eq!(is_published(&before), [true, true, false, false]);
        let mut after = keeper(Overlap::Auto);
        after.recall_as_own();
        after.observe(&file(), Ok(vec![rsa(1).key()]), at(300));
        after.recall(kept.clone(), at(300));
        assert_eq!(after.ring().entries().count(), 4);
        assert_eq!(is_published(&after), [true, true, false, false]);
        let again: Vec<_> = after.seen(at(300)).iter().map(|seen| seen.is_own).collect();
        assert_eq!(again.iter().filter(|own| **own).count(), 2, "nor after the next one");
        let mut restored = keeper(Overlap::Auto);
        restored.recall_as_own();
        restored.observe(&file(), Ok(vec![rsa(1).key()]), at(300));
        restored.restore(kept, vec![], at(300));
        assert_eq!(is_published(&restored), [false, true, false, false], "an archive's keys");
    }

    #[test]
    fn what_a_source_holds_stays_as_it_is() {
        let mut keeper = keeper(Overlap::Auto);
        keeper.observe(&file(), Ok(vec![rsa(1).key()]), at(300));
        let (ring, _) = keeper.recall(kept(200), at(300));
        assert_eq!(state(&ring, 1, 300), Some(State::Signing));
        assert_eq!(ring.entries().count(), 2);
    }

    #[test]
    fn a9_what_was_retired_at_once_is_not_kept_and_does_not_come_back() {
        let mut keeper = keeper(Overlap::Auto);
        keeper.ban(Arc::new(rsa(0).key()), at(300), at(300));
        let (ring, _) = keeper.recall(kept(200), at(300));
        assert_eq!(state(&ring, 0, 300), None);
        keeper.observe(&file(), Ok(vec![rsa(0).key()]), at(300));
        let seen = keeper.seen(at(300));
        assert!(seen.iter().all(|seen| seen.spki != rsa(0).key().spki()), "{seen:?}");
        assert_eq!(keeper.retired().len(), 1);
    }

    #[test]
    fn a9_an_archive_adds_its_windows_and_what_it_retired_and_takes_nothing_back() {
        let mut keeper = keeper(Overlap::Auto);
        keeper.observe(&file(), Ok(vec![rsa(2).key()]), at(300));
        keeper.ban(Arc::new(rsa(1).key()), at(300), at(300));
        let retired = || vec![rsa(1).key(), rsa(3).key()];
        let seen = kept(200);
        let kid = |which: usize| rsa(which).key().kid().clone();
        let would = keeper.restorable(&seen, &retired(), at(300));
        let expected = Restorable { retired: vec![kid(3)], windows: vec![(kid(0), at(100 + WINDOW))] };
        assert_eq!(would, expected, "key 1 was retired here: its window doesn't come back");
        assert_eq!(keeper.restorable(&[], &[], at(300)), Restorable::default());
        let (ring, _) = keeper.restore(seen.clone(), retired(), at(300));
        assert_eq!(state(&ring, 0, 300), verifying(100, 100 + WINDOW));
        assert_eq!(state(&ring, 2, 300), Some(State::Signing));
        assert!(
            [1, 3]
                .iter()
                .all(|which| { ring.forbids(b"m", &rsa(*which).key().sign(b"m").expect("a signature")) })
        );
        assert_eq!(keeper.restorable(&seen, &retired(), at(300)), Restorable::default(), "all of it is here");
        keeper.refresh(at(100 + WINDOW));
        let (ring, _) = keeper.restore(seen, vec![], at(100 + WINDOW));
        assert_eq!(state(&ring, 0, 100 + WINDOW), Some(State::Retired), "what ended here has ended");
    }

    #[test]
    fn a_key_that_comes_back_with_its_private_half_signs_as_long_as_it_verifies() {
        let mut before = keeper(Overlap::Auto);
        before.observe(&file(), Ok(vec![rsa(0).key()]), at(0));
        before.observe(&file(), Ok(vec![rsa(1).key()]), at(100));
        let (kept, halves) = (before.seen(at(200)), before.private_halves(at(200)));
        assert_eq!(halves.iter().filter(|key| key.can_sign()).count(), 2);
        let own = |which: usize| rsa(which).key().kid().clone();
        let mut keeper = keeper(Overlap::Auto);
        keeper.observe(&file(), Ok(vec![rsa(1).key()]), at(300));
        let (ring, _) = keeper.recall(kept, at(300));
        assert!(ring.signer(own(0).as_str()).is_none(), "its public half alone");
        let generation = ring.generation();
        let (ring, _) = keeper.recall_private([rsa(0).key(), rsa(2).key()], at(300));
        assert!(ring.signer(own(0).as_str()).is_some());
        assert!(ring.find(own(2).as_str()).is_none(), "a private half alone is nothing");
        assert_ne!(ring.generation(), generation);
        let (ring, _) = keeper.ban(Arc::new(rsa(0).key().without_private()), at(400), at(400));
        assert!(ring.signer(own(0).as_str()).is_none());
        assert_eq!(keeper.private_halves(at(400)).len(), 1, "what was retired at once is not kept");
    }

    #[test]
    fn without_automatic_overlap_nothing_is_kept_and_nothing_comes_back() {
        for overlap in [Overlap::Listed, Overlap::Off] {
            let mut keeper = keeper(overlap);
            keeper.observe(&file(), Ok(vec![rsa(2).key()]), at(300));
            let (ring, _) = keeper.recall(kept(200), at(300));
            assert_eq!(ring.entries().count(), 1);
            assert_eq!(keeper.seen(at(300)), []);
            assert!(keeper.private_halves(at(300)).is_empty());
        }
    }
}
