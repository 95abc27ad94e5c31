//! Keys that peers publish (A10). Whatever a peer says of a key, it verifies here for one token lifetime at most after it was
//! last published, and nothing that ended here by a list or at once comes back by it.

use std::sync::Arc;

use super::{Change, Entry, Keeper, Overlap, Policy, Ring, SourceName, State, assemble, keeper::Holding};
use crate::{decisions::key::Key, words::clock::UnixTime};

/// What a peer says of a key that its own files held.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerKey {
    /// The public half.
    pub key: Arc<Key>,
    /// Signing or verifying; a key in another state is not taken.
    pub state: State,
}

/// Who says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// What an operator reads as the key's source.
    pub name: SourceName,
    /// The process: behind one address there may be several, each with keys of its own.
    pub process: Arc<str>,
}

/// A key as a peer published it last.
#[derive(Debug)]
pub(super) struct Learned {
    key: Arc<Key>,
    peer: Peer,
    state: State,
    heard: UnixTime,
}

impl Learned {
    /// From then on it doesn't verify. A clock that was ahead lets nothing verify for longer than one lifetime from now.
    fn end(&self, policy: &Policy, now: UnixTime) -> UnixTime {
        self.heard.min(now).plus(policy.token_lifetime)
    }

    /// What it means here; `None` where it means nothing any more.
    fn state(&self, policy: &Policy, now: UnixTime) -> Option<State> {
        let end = self.end(policy, now);
        let (until, signed_until) = match self.state {
            // Its core may sign until we hear otherwise.
            State::Signing => (end, end),
            State::Verifying { until, signed_until } if policy.overlap == Overlap::Auto => {
                (until.min(end), signed_until.min(now))
            }
            State::Verifying { .. } | State::Announced | State::Retired => return None,
        };
        (now < until).then_some(State::Verifying { until, signed_until })
    }

    /// `cut` is the end that an own source lists for the same key.
    pub(super) fn entry(&self, policy: &Policy, now: UnixTime, cut: Option<UnixTime>) -> Option<Entry> {
        let state = self.state(policy, now)?;
        Some(Entry {
            aliases: self.key.declared().cloned().into_iter().collect(),
            key: Arc::clone(&self.key),
            state,
            from: None,
            until: cut,
            since: None,
            source: self.peer.name.clone(),
        })
    }

    pub(super) fn key(&self) -> &Key {
        &self.key
    }
}

impl Keeper {
    /// Keys that were retired at once are taken from peers until so many are known: each costs a verification for a token
    /// of an unknown key.
    pub const TOMBSTONES: usize = 1_024;

    /// A peer published these keys, and named these as retired at once, which ends them here as well (A9). What it
    /// published before and doesn't any more has stopped signing.
    pub fn learn(
        &mut self,
        peer: &Peer,
        published: &[PeerKey],
        retired: &[Arc<Key>],
        now: UnixTime,
    ) -> (Arc<Ring>, Vec<Change>) {
        for key in retired {
            let is_known = self.tombstones.contains(key);
            if !is_known && self.tombstones.len() < Self::TOMBSTONES {
                self.bury(Arc::clone(key), now);
            }
        }
        let is_published = |key: &Key| published.iter().any(|published| *published.key == *key);
        for learned in self.learned.iter_mut().filter(|l| l.peer == *peer && !is_published(&l.key)) {
            if learned.state == State::Signing {
                learned.state =
                    State::Verifying { signed_until: now, until: learned.heard.plus(self.policy.window()) };
            }
        }
        for PeerKey { key, state } in published.iter().filter(|published| published.state.verifies()) {
            let key = self.without_a_taken_name(key);
            let known = self.learned.iter_mut().find(|l| l.peer == *peer && l.key == key);
            match known {
                Some(known) => (known.state, known.heard) = (*state, now),
                None => self.learned.push(Learned { key, peer: peer.clone(), state: *state, heard: now }),
            }
        }
        self.refresh(now)
    }

    /// A name that another key has here is not given to a peer's.
    fn without_a_taken_name(&self, key: &Arc<Key>) -> Arc<Key> {
        let others: Vec<_> = self.ring().entries().map(|entry| (&**entry.key(), entry.alias())).collect();
        match key.declared() {
            Some(_) if assemble::clash(&[(key, key.declared())], &others).is_some() => {
                Arc::new(key.without_alias())
            }
            _ => Arc::clone(key),
        }
    }

    /// What is over is forgotten: a token of it may then ask for it again.
    pub(super) fn forget_learned(&mut self, now: UnixTime) {
        let policy = self.policy;
        self.learned.retain(|learned| learned.state(&policy, now).is_some());
    }

    /// The ring of what this process's own files held, as peers may read it: nothing that was learned from others, by a
    /// store that they share, by a URL or by an operator's word (A10).
    pub fn own(&self, now: UnixTime) -> Ring {
        assemble::ring(self, &self.policy, now, assemble::View::Own)
    }

    /// The ring without what peers published, for registries that trust its keys (A10).
    pub fn sourced(&self, now: UnixTime) -> Ring {
        assemble::ring(self, &self.policy, now, assemble::View::Sourced)
    }
}

/// Whether core or its operator, and nobody else, gave this process the keys of the source.
pub(super) fn is_own(holding: &Holding) -> bool {
    !holding.listing.is_remote
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::decisions::{
        key::forge::rsa,
        ring::{Listed, Listing},
    };

    const LIFETIME: i64 = 30 * 60;
    const LEEWAY: i64 = 60;

    fn at(seconds: i64) -> UnixTime {
        UnixTime(1_000_000 + seconds)
    }

    fn keeper(overlap: Overlap) -> Keeper {
        let (token_lifetime, leeway) = (Duration::from_mins(30), Duration::from_mins(1));
        let mut keeper = Keeper::new(Policy { overlap, token_lifetime, leeway });
        keeper.observe(&file(), Ok(vec![rsa(0).key()]), at(0));
        keeper
    }

    fn file() -> SourceName {
        SourceName::new("/etc/core/private_key.pem")
    }

    fn peer(process: &str) -> Peer {
        Peer { name: SourceName::new("peer 10.0.0.2:8080"), process: process.into() }
    }

    fn public(which: usize) -> Arc<Key> {
        Arc::new(rsa(which).key().without_private())
    }

    fn signing(which: usize) -> PeerKey {
        PeerKey { key: public(which), state: State::Signing }
    }

    fn verifying(which: usize, signed_until: i64, until: i64) -> PeerKey {
        let state = State::Verifying { signed_until: at(signed_until), until: at(until) };
        PeerKey { key: public(which), state }
    }

    fn state(ring: &Ring, which: usize, now: i64) -> Option<State> {
        ring.find(rsa(which).key().kid().as_str()).map(|entry| entry.state(at(now)))
    }

    fn window(signed_until: i64, until: i64) -> State {
        State::Verifying { until: at(until), signed_until: at(signed_until) }
    }

    #[test]
    fn a10_a_learned_key_verifies_for_one_lifetime_after_it_was_last_published() {
        let mut keeper = keeper(Overlap::Auto);
        let (ring, changes) = keeper.learn(&peer("a"), &[signing(1)], &[], at(10));
        assert_eq!(state(&ring, 1, 10), Some(window(10 + LIFETIME, 10 + LIFETIME)));
        assert_eq!(changes.len(), 1);
        let generation = ring.generation();
        let (ring, changes) = keeper.learn(&peer("a"), &[signing(1)], &[], at(20));
        assert_eq!(state(&ring, 1, 20), Some(window(20 + LIFETIME, 20 + LIFETIME)));
        assert_eq!((ring.generation(), changes.len()), (generation, 0), "a window that only grew");
        let (ring, _) = keeper.refresh(at(19 + LIFETIME));
        assert!(state(&ring, 1, 19 + LIFETIME).is_some_and(State::verifies));
        let (ring, _) = keeper.refresh(at(20 + LIFETIME));
        assert_eq!(state(&ring, 1, 20 + LIFETIME), None, "it may be asked for again");
        assert_eq!(ring.only_signer().as_ref(), Some(rsa(0).key().kid()), "nobody here signs with it");
    }

    #[test]
    fn a8_a_learned_key_that_signs_no_more_proves_nothing_that_was_issued_after() {
        let mut keeper = keeper(Overlap::Auto);
        keeper.learn(&peer("a"), &[signing(1)], &[], at(10));
        let before = keeper.ring().generation();
        let (ring, _) = keeper.learn(&peer("a"), &[verifying(1, 15, 15 + LIFETIME + LEEWAY)], &[], at(20));
        assert_eq!(state(&ring, 1, 20), Some(window(15, 20 + LIFETIME)), "as it says, for one lifetime");
        assert!(ring.generation() > before, "what was remembered is judged again");
        keeper.learn(&peer("b"), &[signing(2)], &[], at(30));
        let (ring, _) = keeper.learn(&peer("b"), &[], &[], at(40));
        assert_eq!(
            state(&ring, 2, 40),
            Some(window(40, 30 + LIFETIME)),
            "what is published no more has stopped"
        );
    }

    #[test]
    fn a8_a_peer_widens_no_window_past_a_lifetime_and_no_signature_into_the_time_to_come() {
        let mut keeper = keeper(Overlap::Auto);
        let far = 1_000_000_000;
        let (ring, _) = keeper.learn(&peer("a"), &[verifying(1, far, far)], &[], at(10));
        assert_eq!(state(&ring, 1, 10), Some(window(10, 10 + LIFETIME)));
        let (ring, _) = keeper.learn(&peer("a"), &[verifying(2, 0, 5)], &[], at(10));
        assert_eq!(state(&ring, 2, 10), None, "it is over already");
        // The clock was ahead when it was heard, and is put right.
        keeper.learn(&peer("a"), &[signing(2)], &[], at(far));
        let (ring, _) = keeper.refresh(at(20));
        assert_eq!(state(&ring, 2, 20), Some(window(20 + LIFETIME, 20 + LIFETIME)));
    }

    #[test]
    fn processes_behind_one_address_do_not_end_each_others_keys() {
        let mut keeper = keeper(Overlap::Auto);
        keeper.learn(&peer("a"), &[signing(1)], &[], at(10));
        let (ring, _) = keeper.learn(&peer("b"), &[signing(2)], &[], at(20));
        assert_eq!(state(&ring, 1, 20), Some(window(10 + LIFETIME, 10 + LIFETIME)));
        assert_eq!(state(&ring, 2, 20), Some(window(20 + LIFETIME, 20 + LIFETIME)));
    }

    #[test]
    fn a9_what_is_retired_at_once_is_never_learned_and_a_peer_may_retire_it() {
        let mut keeper = keeper(Overlap::Auto);
        keeper.learn(&peer("a"), &[signing(1)], &[], at(10));
        keeper.ban(public(1), at(11), at(11));
        let (ring, _) = keeper.learn(&peer("a"), &[signing(1)], &[], at(12));
        assert_eq!(state(&ring, 1, 12), Some(State::Retired));
        let (ring, _) = keeper.learn(&peer("a"), &[signing(2)], &[public(2)], at(13));
        assert_eq!(state(&ring, 2, 13), Some(State::Retired));
        let (ring, _) = keeper.learn(&peer("b"), &[], &[public(0)], at(14));
        assert_eq!(state(&ring, 0, 14), Some(State::Retired), "our own too");
        assert_eq!(keeper.retired().len(), 3);
    }

    #[test]
    fn of_a_key_that_is_ours_too_the_later_times_count() {
        let mut keeper = keeper(Overlap::Auto);
        keeper.observe(&file(), Ok(vec![rsa(1).key()]), at(100));
        // Our core signs no more with key 0 and the peer's does.
        let (ring, _) = keeper.learn(&peer("a"), &[signing(0)], &[], at(101));
        assert_eq!(state(&ring, 0, 101), Some(window(101 + LIFETIME, 100 + LIFETIME + LEEWAY)));
        assert!(ring.signer(rsa(0).key().kid().as_str()).is_some(), "our private half is still of use");
        let own = keeper.own(at(101));
        assert_eq!(
            state(&own, 0, 101),
            Some(window(100, 100 + LIFETIME + LEEWAY)),
            "what we publish is what we held"
        );
    }

    #[test]
    fn what_an_operator_has_ended_is_not_widened_by_a_peer() {
        let mut ended = Keeper::new(keeper(Overlap::Auto).policy);
        ended.declare(&file(), Listing { until: Some(at(50)), ..Listing::default() });
        ended.observe(&file(), Ok(vec![rsa(0).key()]), at(0));
        let (ring, _) = ended.learn(&peer("a"), &[signing(0)], &[], at(60));
        assert_eq!(state(&ring, 0, 60), Some(State::Retired));
        let mut banned = Keeper::new(keeper(Overlap::Auto).policy);
        banned.declare(&file(), Listing { state: Some(Listed::Retired), ..Listing::default() });
        banned.observe(&file(), Ok(vec![rsa(0).key()]), at(0));
        let (ring, _) = banned.learn(&peer("a"), &[signing(0)], &[], at(60));
        assert_eq!(state(&ring, 0, 60), Some(State::Retired));
        for overlap in [Overlap::Listed, Overlap::Off] {
            let mut keeper = keeper(overlap);
            let published = [signing(1), verifying(2, 5, 5 + LIFETIME)];
            let (ring, _) = keeper.learn(&peer("a"), &published, &[], at(10));
            assert_eq!((state(&ring, 1, 10).is_some(), state(&ring, 2, 10)), (true, None), "{overlap:?}");
            let (ring, _) = keeper.learn(&peer("a"), &[], &[], at(20));
            assert_eq!(state(&ring, 1, 20), None, "{overlap:?}: it ends with its last publication");
        }
    }

    #[test]
    fn a_peer_gives_its_key_no_name_that_another_key_has() {
        let mut keeper = keeper(Overlap::Auto);
        let ours = rsa(0).key();
        let named = |which: usize, name: &crate::words::kid::Kid| PeerKey {
            key: Arc::new(rsa(which).key().without_private().with_alias(name.clone())),
            state: State::Signing,
        };
        let alias = crate::words::kid::Kid::parse("key-of-2026").expect("a name");
        let (ring, _) = keeper.learn(&peer("a"), &[named(1, ours.kid()), named(2, &alias)], &[], at(10));
        assert_eq!(ring.find(ours.kid().as_str()).map(|entry| &**entry.key()), Some(&ours));
        assert_eq!(ring.find("key-of-2026").map(|entry| &**entry.key()), Some(&rsa(2).key()));
        let (ring, _) = keeper.learn(&peer("b"), &[named(1, &alias)], &[], at(20));
        assert_eq!(ring.find("key-of-2026").map(|entry| &**entry.key()), Some(&rsa(2).key()));
    }
}
