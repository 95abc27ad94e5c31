//! How the ring changes: a source shows its keys or a fault, time passes, an operator retires a key.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use super::{
    Ending, Listed, Listing, Moment, Overlap, Policy, Ring, SourceName, State, assemble,
    ending::Ends,
    learned::{self, Learned},
};
use crate::{
    decisions::{
        key::{Key, KeyFault},
        window::Open,
    },
    words::{clock::UnixTime, kid::Kid},
};

/// What happened, for the log; in the order in which it happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A key is new to the ring, or changed its state.
    Became { kid: Kid, source: SourceName, state: State },
    /// A source can't be used any more; its former keys stay.
    Broke { source: SourceName, fault: KeyFault },
    /// A source that was broken is in use again.
    Mended { source: SourceName },
}

/// Why a key was not retired.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RetireFault {
    #[error("no key of the ring has this name, or an id that begins with it")]
    Unknown,
    #[error("the ids of several keys begin so: give more of the one that is meant")]
    Several,
    #[error(
        "{0} holds it, and core signs with it: give core another key, and it ends by itself (--now ends it at once)"
    )]
    Signs(SourceName),
    #[error("its last tokens live until {} (--now ends it at once)", .0.rfc3339())]
    Lives(UnixTime),
}

/// Why a key was not added.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddFault {
    #[error("{kid} was retired at once, and nothing brings it back")]
    Retired { kid: Kid },
    #[error("{kid} is in the ring already: {source_name} holds it")]
    Held { kid: Kid, source_name: SourceName },
    #[error("the last token of {kid} ended at {}", .over.rfc3339())]
    Over { kid: Kid, over: UnixTime },
    #[error("a key can't have signed until {}, which is yet to come", .0.rfc3339())]
    Future(UnixTime),
    #[error("another key has the name {0}")]
    NameTaken(Kid),
    #[error("keys.overlap lets a key that signs no more verify only where a source lists it")]
    NotAutomatic,
}

impl AddFault {
    /// What mends it, in words for the operator.
    pub const fn remedy(&self) -> &'static str {
        match self {
            Self::Retired { .. } | Self::Held { .. } => "leave it out",
            Self::Over { .. } => {
                "nothing needs it any more; a later --signed-until is for a key that core signed with later"
            }
            Self::Future(_) => "list a key that core signs with, or will, in keys.sources, with `from`",
            Self::NameTaken(_) => "take another --alias, or none",
            Self::NotAutomatic => "list its file in keys.sources, with state = \"verifying\"",
        }
    }
}

/// One source as it was last seen.
#[derive(Debug)]
pub(super) struct Holding {
    pub(super) name: SourceName,
    pub(super) listing: Listing,
    pub(super) current: Vec<Arc<Key>>,
    pub(super) former: Vec<Former>,
    /// When the source was first seen with these keys; a key listed as verifying signs no more since then.
    pub(super) since: UnixTime,
    pub(super) broken: Option<(KeyFault, UnixTime)>,
    /// Whether it is read here, and not only known from others.
    pub(super) is_ours: bool,
}

/// A key that its source replaced. Its private half stays in memory (never in a store) as long as it
/// verifies, so that tokens can be re-signed for an endpoint that still holds it.
#[derive(Debug)]
pub(super) struct Former {
    pub(super) key: Arc<Key>,
    pub(super) ending: Ends,
    /// Whether a file of this process held it (A10).
    pub(super) is_own: bool,
}

/// A key that was retired by time or by replacement: its public half.
#[derive(Clone, Debug)]
pub(super) struct Past {
    pub(super) key: Arc<Key>,
    pub(super) source: SourceName,
    /// How it ended, where its window did: a clock that was ahead and is put right brings it back.
    pub(super) ending: Option<Ends>,
    pub(super) is_own: bool,
}

/// The ring's one owner. All methods are total, and time is an argument.
#[derive(Debug)]
pub struct Keeper {
    pub(super) policy: Policy,
    pub(super) holdings: Vec<Holding>,
    /// Retired now, by the digest of the SPKI; public halves only. Nothing brings them back (A9).
    pub(super) tombstones: Vec<Arc<Key>>,
    /// When each of them was, by its digest.
    pub(super) banned_at: HashMap<[u8; 32], UnixTime>,
    /// Retired by time or replacement, so that a refusal can name the state; the last [`Self::PAST`].
    pub(super) past: Vec<Past>,
    /// Where it isn't known what was retired, only keys that an endpoint was seen to hold verify: those (A20).
    pub(super) held_only: Option<Vec<Kid>>,
    /// Keys of which a record says perhaps that they were retired, by the names of their records.
    pub(super) doubted: BTreeSet<String>,
    /// The upgrade window that was open when last somebody said so.
    window: Option<Open>,
    /// What peers published.
    pub(super) learned: Vec<Learned>,
    /// Whether nobody else writes into the store that gives keys back.
    pub(super) recalls_own: bool,
    /// How long the process has run by a clock that nobody sets.
    steady: Duration,
    /// When a ring was made last.
    last: Option<Moment>,
    /// When a source was read for the first time.
    pub(super) looked: Option<Moment>,
    /// Records of a time to come, by the digests of their keys.
    pub(super) ahead: HashMap<[u8; 32], Ahead>,
    ring: Arc<Ring>,
}

/// What a clock that is ahead of ours wrote of a key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ahead {
    pub(super) evidence: UnixTime,
    /// When it was read first.
    pub(super) noticed: Moment,
    /// Whether it was written again since: somebody holds the key.
    pub(super) moves: bool,
}

impl Keeper {
    /// Retired keys that are still known by name.
    pub const PAST: usize = 64;

    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            holdings: vec![],
            tombstones: vec![],
            banned_at: HashMap::new(),
            past: vec![],
            held_only: None,
            doubted: BTreeSet::new(),
            window: None,
            learned: vec![],
            recalls_own: false,
            steady: Duration::ZERO,
            last: None,
            looked: None,
            ahead: HashMap::new(),
            ring: Arc::default(),
        }
    }

    /// Its rules.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// So long has the process run, by a clock that nobody sets: windows end by it where the wall clock is set back.
    pub fn pass(&mut self, steady: Duration) {
        self.steady = self.steady.max(steady);
    }

    pub(super) fn moment(&self, now: UnixTime) -> Moment {
        Moment::at(now, self.steady, self.last)
    }

    /// The ring as it is.
    pub fn ring(&self) -> &Arc<Ring> {
        &self.ring
    }

    /// Other rules, for what happens from now on; windows that are open keep their end.
    pub fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
    }

    /// An upgrade window was opened, prolonged or closed: see [`Ending::until_with`].
    pub fn set_window(&mut self, open: Option<Open>, now: UnixTime) -> (Arc<Ring>, Vec<Change>) {
        self.window = open;
        self.refresh(now)
    }

    /// The upgrade window, where one is open.
    pub(super) fn open(&self, now: UnixTime) -> Option<Open> {
        self.window.filter(|open| now < open.until)
    }

    /// Nobody else writes into the store: what comes back from it were our own files' keys.
    pub fn recall_as_own(&mut self) {
        self.recalls_own = true;
    }

    /// Says what the configuration says about a source; order of declaration is the order of entries.
    pub fn declare(&mut self, source: &SourceName, listing: Listing) {
        let now = UnixTime::default();
        self.holding(source, now).listing = listing;
    }

    /// Sources that can't be used now: since when, and why.
    pub fn faults(&self) -> impl Iterator<Item = (&SourceName, &KeyFault, UnixTime)> {
        self.holdings.iter().filter_map(|h| h.broken.as_ref().map(|(fault, since)| (&h.name, fault, *since)))
    }

    /// A source was read. Keys replace what it had before (an empty list: it was taken away on purpose); a
    /// fault leaves them as they were.
    pub fn observe(
        &mut self,
        source: &SourceName,
        read: Result<Vec<Key>, KeyFault>,
        now: UnixTime,
    ) -> (Arc<Ring>, Vec<Change>) {
        let read = read.and_then(|keys| self.check(source, keys));
        let mut changes = Vec::new();
        let (policy, at) = (self.policy, self.moment(now));
        self.looked.get_or_insert(at);
        let holding = self.holding(source, now);
        holding.is_ours = true;
        match read {
            Ok(keys) => {
                if holding.broken.take().is_some() {
                    changes.push(Change::Mended { source: source.clone() });
                }
                let dropped = holding.replace(keys, &policy, at);
                let is_own = learned::is_own(holding);
                let past = |key| Past { key, source: source.clone(), ending: None, is_own };
                self.past.extend(dropped.into_iter().map(past));
            }
            Err(fault) => {
                let known = holding.broken.as_ref().is_some_and(|(known, _)| *known == fault);
                if !known {
                    let since = holding.broken.as_ref().map_or(now, |(_, since)| *since);
                    holding.broken = Some((fault.clone(), since));
                    changes.push(Change::Broke { source: source.clone(), fault });
                }
            }
        }
        changes.extend(self.refresh(now).1);
        (Arc::clone(&self.ring), changes)
    }

    /// Endpoints were seen to hold these keys (by a probe whose signature verified, A12): a key that our file
    /// replaced but a replica still signs with hasn't stopped signing, and its window moves on.
    pub fn observe_held<'a>(
        &mut self,
        held: impl IntoIterator<Item = &'a Kid>,
        now: UnixTime,
    ) -> (Arc<Ring>, Vec<Change>) {
        let (policy, open, at) = (self.policy, self.open(now), self.moment(now));
        for kid in held {
            if let Some(known) = self.held_only.as_mut().filter(|known| !known.contains(kid)) {
                known.push(kid.clone());
            }
            for holding in &mut self.holdings {
                for former in holding.former.iter_mut().filter(|f| f.key.kid() == kid) {
                    former.ending = former.ending.held_at(at, &policy, open);
                }
                let verifying = holding.listing.state == Some(Listed::Verifying);
                if verifying && holding.current.iter().any(|key| key.kid() == kid) {
                    holding.since = holding.since.max(now);
                }
            }
        }
        self.refresh(now)
    }

    /// Whether the store, and so what was retired, is unknown: then only keys that endpoints are seen to hold verify
    /// (A20), until it is known.
    pub fn trust_held_only(&mut self, is_unknown: bool, now: UnixTime) -> (Arc<Ring>, Vec<Change>) {
        self.held_only = is_unknown.then(Vec::new);
        self.refresh(now)
    }

    /// These keys, by the names of their records, may have been retired: they aren't trusted until that is known.
    pub fn doubt(&mut self, places: BTreeSet<String>, now: UnixTime) -> (Arc<Ring>, Vec<Change>) {
        self.doubted = places;
        self.refresh(now)
    }

    /// Time passed: windows that ended retire their keys and drop their private halves. Where the clock was ahead and
    /// is put right, those that it ended too early go on, with their public halves.
    pub fn refresh(&mut self, now: UnixTime) -> (Arc<Ring>, Vec<Change>) {
        let (policy, open, at) = (self.policy, self.open(now), self.moment(now));
        self.last = Some(at);
        self.bring_back(now);
        self.forget_learned(now);
        for holding in &mut self.holdings {
            let over = holding.former.extract_if(.., |former| former.ending.is_over(at, &policy, open));
            self.past.extend(over.map(|former| Past {
                key: Arc::new(former.key.without_private()),
                source: holding.name.clone(),
                ending: Some(former.ending),
                is_own: former.is_own,
            }));
        }
        let surplus = self.past.len().saturating_sub(Self::PAST);
        self.past.drain(..surplus);
        let next = assemble::ring(self, &self.policy, now, assemble::View::All);
        let changes = assemble::changes(&self.ring, &next, now);
        self.ring = assemble::succeed(&self.ring, next);
        (Arc::clone(&self.ring), changes)
    }

    fn bring_back(&mut self, now: UnixTime) {
        if self.policy.overlap != Overlap::Auto {
            return;
        }
        let (policy, open, at) = (self.policy, self.open(now), self.moment(now));
        let banned = &self.tombstones;
        let too_early = |past: &mut Past| {
            past.ending.is_some_and(|ending| !ending.is_over(at, &policy, open))
                && !banned.contains(&past.key)
        };
        for Past { key, source, ending, is_own } in self.past.extract_if(.., too_early).collect::<Vec<_>>() {
            let Some(ending) = ending else { continue };
            let is_known = |h: &Holding| h.current.contains(&key) || h.former.iter().any(|f| f.key == key);
            if !self.holdings.iter().any(is_known) {
                self.holding(&source, now).former.push(Former { key, ending, is_own });
            }
        }
    }

    /// Takes public halves of keys that core signed with until `signed_until` and that no source holds, all or none:
    /// each verifies until its last token has ended, here and by the store on all replicas.
    pub fn add(
        &mut self,
        keys: Vec<Key>,
        signed_until: UnixTime,
        now: UnixTime,
    ) -> Result<(Arc<Ring>, Vec<Change>), AddFault> {
        let ending = Ending::after(signed_until, &self.policy, self.moment(now));
        if self.policy.overlap != Overlap::Auto {
            return Err(AddFault::NotAutomatic);
        }
        if now < signed_until {
            return Err(AddFault::Future(signed_until));
        }
        for key in &keys {
            self.may_add(key, ending, now)?;
        }
        let own: Vec<_> = keys.iter().map(|key| (key, key.declared())).collect();
        let entries = self.ring.entries().map(|entry| (&**entry.key(), entry.alias())).collect::<Vec<_>>();
        if let Some(name) = assemble::clash(&own, &entries) {
            return Err(AddFault::NameTaken(name));
        }
        for key in keys {
            self.past.retain(|past| *past.key != key);
            let key = Arc::new(key.without_private());
            let former = Former { key, ending: Ends::own(ending), is_own: false };
            self.holding(&SourceName::new(Self::ADDED), now).former.push(former);
        }
        Ok(self.refresh(now))
    }

    /// The source of keys that an operator added.
    pub const ADDED: &str = "keys add";

    fn may_add(&self, key: &Key, ending: Ending, now: UnixTime) -> Result<(), AddFault> {
        let kid = key.kid().clone();
        if self.tombstones.iter().any(|banned| **banned == *key) {
            return Err(AddFault::Retired { kid });
        }
        let holds =
            |h: &&Holding| h.current.iter().any(|k| **k == *key) || h.former.iter().any(|f| *f.key == *key);
        if let Some(holding) = self.holdings.iter().find(holds) {
            return Err(AddFault::Held { kid, source_name: holding.name.clone() });
        }
        if ending.is_over(self.moment(now), &self.policy, None) {
            return Err(AddFault::Over { kid, over: ending.until_with(None) });
        }
        Ok(())
    }

    /// Retires a key whose tokens have all ended; one that may have living tokens stays as it is. `latest_exp`: of its
    /// tokens that were seen, by libtrust id.
    pub fn retire(
        &mut self,
        name: &str,
        latest_exp: impl Fn(&Kid) -> Option<UnixTime>,
        now: UnixTime,
    ) -> Result<(Arc<Ring>, Vec<Change>), RetireFault> {
        let entry = self.ring.meant(name)?;
        let safe = entry.state(now).safe_from(latest_exp(entry.key().kid()), &self.policy);
        match safe {
            None => return Err(RetireFault::Signs(entry.source().clone())),
            Some(last) if now < last => return Err(RetireFault::Lives(last)),
            Some(_) => {}
        }
        let key = Arc::new(entry.key().without_private());
        Ok(self.ban(key, now, now))
    }

    /// Retires a key at once, by any of its names or the beginning of its id. Its digest beats every source from now on (A9).
    pub fn retire_now(&mut self, name: &str, now: UnixTime) -> Result<(Arc<Ring>, Vec<Change>), RetireFault> {
        let entry = self.ring.meant(name)?;
        let key = Arc::new(entry.key().without_private());
        Ok(self.ban(key, now, now))
    }

    /// Retires a key at once that another replica or an archive names, and that was retired `at`; it need not be in the
    /// ring. What verified stays known by name, as retired.
    pub fn ban(&mut self, key: Arc<Key>, at: UnixTime, now: UnixTime) -> (Arc<Ring>, Vec<Change>) {
        self.bury(key, at);
        self.refresh(now)
    }

    pub(super) fn bury(&mut self, key: Arc<Key>, at: UnixTime) {
        for holding in &mut self.holdings {
            let over = holding.former.extract_if(.., |former| former.key == key);
            self.past.extend(over.map(|former| Past {
                key: Arc::new(former.key.without_private()),
                source: holding.name.clone(),
                ending: None,
                is_own: former.is_own,
            }));
        }
        let first = self.banned_at.entry(*key.spki_digest()).or_insert(at);
        *first = (*first).min(at);
        if !self.tombstones.contains(&key) {
            self.tombstones.push(key);
        }
    }

    /// When a key was retired at once, as far as is known.
    pub fn banned_at(&self, key: &Key) -> Option<UnixTime> {
        self.banned_at.get(key.spki_digest()).copied()
    }

    pub(super) fn holding(&mut self, source: &SourceName, now: UnixTime) -> &mut Holding {
        let at = self.holdings.iter().position(|h| h.name == *source).unwrap_or_else(|| {
            self.holdings.push(Holding::empty(source.clone(), now));
            self.holdings.len() - 1
        });
        &mut self.holdings[at]
    }

    /// One name, one key: an alias or a JWKS's `kid` must not be any name of another current key.
    fn check(&self, source: &SourceName, keys: Vec<Key>) -> Result<Vec<Key>, KeyFault> {
        let own = self.holdings.iter().find(|h| h.name == *source).map(|h| &h.listing);
        let alias = own.and_then(|listing| listing.alias.as_ref());
        if alias.is_some() && keys.len() > 1 {
            return Err(KeyFault::AliasOfMany);
        }
        let lacks = !keys.is_empty() && !keys.iter().any(Key::can_sign);
        if lacks && own.is_some_and(|listing| listing.needs_private) {
            return Err(KeyFault::PublicOnly);
        }
        let others = self.holdings.iter().filter(|h| h.name != *source);
        let others: Vec<_> = others.flat_map(|h| h.current.iter().map(|k| (&**k, h.alias_of(k)))).collect();
        let own: Vec<_> = keys.iter().map(|key| (key, alias.or(key.declared()))).collect();
        match assemble::clash(&own, &others) {
            Some(name) => Err(KeyFault::NameTaken(name)),
            None => Ok(keys),
        }
    }
}

impl Holding {
    fn empty(name: SourceName, now: UnixTime) -> Self {
        let listing = Listing::default();
        Self { name, listing, current: vec![], former: vec![], since: now, broken: None, is_ours: false }
    }

    pub(super) fn alias_of<'a>(&'a self, key: &'a Key) -> Option<&'a Kid> {
        self.listing.alias.as_ref().or(key.declared())
    }

    /// Takes the keys that were read; gives back the public halves of those that are retired by it.
    fn replace(&mut self, keys: Vec<Key>, policy: &Policy, at: Moment) -> Vec<Arc<Key>> {
        let now = at.now();
        let keys: Vec<_> = keys.into_iter().map(Arc::new).collect();
        if self.current.iter().all(|key| !keys.contains(key)) {
            self.since = now;
        }
        let signed = self.listing.has_begun(now);
        let gone: Vec<_> = self.current.drain(..).filter(|key| !keys.contains(key)).collect();
        self.former.retain(|former| !keys.contains(&former.key));
        self.current = keys;
        if !signed || policy.overlap != Overlap::Auto {
            return gone.iter().map(|key| Arc::new(key.without_private())).collect();
        }
        let ending = Ending::after(now, policy, at);
        let ending = Ends::own(self.listing.until.map_or(ending, |end| ending.cut(end)));
        let is_own = learned::is_own(self);
        self.former.extend(gone.into_iter().map(|key| Former { key, ending, is_own }));
        Vec::new()
    }
}
