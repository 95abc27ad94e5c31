//! What a store keeps of the ring, and what comes back from it: public halves of keys that sources held, so that their
//! overlap outlives this process (and reaches others), and what was retired at once.

use std::sync::Arc;

use super::{
    Change, Ending, Keeper, Listed, Overlap, Ring, SourceName,
    keeper::{Former, Holding},
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
        let current = self.holdings.iter().flat_map(|h| {
            let keys = h.current.iter().filter(|_| signs(h, now));
            keys.map(|key| seen_of(h, key, Life::Signing { seen: now }))
        });
        let former = self.holdings.iter().flat_map(|h| {
            let of = |former: &Former| {
                let (signed_until, until) = (former.ending.signed_until(), former.ending.until());
                seen_of(h, &former.key, Life::Verifying { signed_until, until })
            };
            h.former.iter().map(of)
        });
        let is_banned = |seen: &SeenKey| self.tombstones.iter().any(|key| key.spki() == seen.spki);
        current.chain(former).filter(|seen| !is_banned(seen)).collect()
    }

    /// Keys of [`Self::seen`] whose private halves are here.
    pub fn private_halves(&self, now: UnixTime) -> Vec<Arc<Key>> {
        if self.policy().overlap != Overlap::Auto {
            return Vec::new();
        }
        let current = self.holdings.iter().filter(|h| signs(h, now)).flat_map(|h| &h.current);
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
        let ends = |seen: &SeenKey| {
            let (key, ending) = (seen.key().ok()?, self.ends(seen.life, now)?);
            let is_banned = retired.contains(&key) || self.tombstones.iter().any(|known| **known == key);
            let until = ending.until_with(self.policy(), self.open(now));
            (!self.knows(seen) && !is_banned).then(|| (key.kid().clone(), until))
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

    /// Takes what an archive holds: what it retired first, which beats all else (A9).
    pub fn restore(
        &mut self,
        mut seen: Vec<SeenKey>,
        retired: Vec<Key>,
        now: UnixTime,
    ) -> (Arc<Ring>, Vec<Change>) {
        seen.retain(|seen| !self.knows(seen));
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
        let Some(ending) = self.ends(seen.life, now) else { return };
        // What was sealed by us and can't be read any more is the store's to tell.
        let Ok(key) = seen.key() else { return };
        let is_current = self.holdings.iter().any(|h| h.current.iter().any(|current| **current == key));
        if is_current || self.tombstones.iter().any(|banned| **banned == key) {
            return;
        }
        for holding in &mut self.holdings {
            if let Some(known) = holding.former.iter_mut().find(|former| *former.key == key) {
                known.ending = known.ending.or_later(ending);
                return;
            }
        }
        let is_own = self.recalls_own;
        let holding = self.holding(&SourceName::new(&seen.source), now);
        let ending = holding.listing.until.map_or(ending, |end| ending.cut(end));
        holding.former.push(Former { key: Arc::new(key), ending, is_own });
    }

    /// When a key that no source holds any more signed last, as far as can be known, and when its last token ends;
    /// `None` where it has ended. A key that was in use when it was last seen may have signed until now, but not for
    /// longer than a window after that: who was away for longer has no client that waits. A clock that is behind is
    /// [`Ending::state`]'s to bound.
    fn ends(&self, life: Life, now: UnixTime) -> Option<Ending> {
        let window = self.policy().window();
        let (signed_until, until) = match life {
            Life::Signing { seen } => {
                let signed_until = now.clamp(seen, seen.plus(window));
                (signed_until, signed_until.plus(window))
            }
            Life::Verifying { signed_until, until } => (signed_until, until),
        };
        let ending = Ending::kept(signed_until, until);
        (!ending.is_over(now, self.policy(), self.open(now))).then_some(ending)
    }
}

/// Whether core may sign with what the source holds.
fn signs(holding: &Holding, now: UnixTime) -> bool {
    let Holding { listing, .. } = holding;
    matches!(listing.state, None | Some(Listed::Signing))
        && listing.from.is_none_or(|from| from <= now)
        && listing.until.is_none_or(|until| now < until)
}

fn seen_of(holding: &Holding, key: &Key, life: Life) -> SeenKey {
    SeenKey {
        spki: key.spki().to_vec(),
        declared: key.declared().cloned(),
        source: holding.name.as_str().to_owned(),
        life,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::decisions::{
        key::forge::rsa,
        ring::{Policy, State},
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
        keeper.recall(kept(200), at(-90_000));
        let (ring, _) = keeper.refresh(at(300));
        assert_eq!(state(&ring, 0, 300), verifying(100, 100 + WINDOW));
        assert_eq!(state(&ring, 1, 300), verifying(200, 200 + WINDOW));
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
