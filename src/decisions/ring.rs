//! The key ring: all keys known, each in one state. A ring is a snapshot and never changes; the [`Keeper`]
//! makes the next one from what a source showed, with time as an argument.

mod assemble;
mod ending;
mod jwks;
mod keeper;
mod learned;
mod rules;
mod seen;

use std::{collections::BTreeMap, fmt, sync::Arc};

pub use self::{
    ending::{Ending, Moment},
    keeper::{AddFault, Change, Keeper, RetireFault},
    learned::{Peer, PeerKey},
    rules::{Listed, Listing, Overlap, Policy},
    seen::Restorable,
};
use super::key::{self, Key};
use crate::words::{clock::UnixTime, kid::Kid};

/// Where a key stands: announced → signing → verifying → retired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Known ahead of its time: a token signed by it is refused.
    Announced,
    /// Core signs with it.
    Signing,
    /// It signed until `signed_until`; its last tokens verify before `until`. A token of it with an `iat`
    /// past `signed_until` + leeway is forged (A8).
    Verifying { until: UnixTime, signed_until: UnixTime },
    /// Its tokens are refused.
    Retired,
}

impl State {
    /// The state's name in logs, metrics and status.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Announced => "announced",
            Self::Signing => "signing",
            Self::Verifying { .. } => "verifying",
            Self::Retired => "retired",
        }
    }

    /// Whether a token may be proved by a key in this state.
    pub const fn verifies(self) -> bool {
        matches!(self, Self::Signing | Self::Verifying { .. })
    }

    /// From when on a key in this state can be retired without ending a token that lives: after the last one that it
    /// can have signed, and after the last one that was seen, whose `exp` is `latest_exp`. `None` while it signs.
    pub fn safe_from(self, latest_exp: Option<UnixTime>, policy: &Policy) -> Option<UnixTime> {
        match self {
            Self::Signing => None,
            Self::Verifying { until, signed_until } => {
                let last = signed_until.plus(policy.window());
                let seen = latest_exp.map_or(last, |exp| exp.plus(policy.leeway));
                Some(last.max(seen).min(until))
            }
            Self::Announced | Self::Retired => Some(UnixTime(i64::MIN)),
        }
    }
}

/// What an operator calls a source: its path, or the path of one file in a folder. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceName(Arc<str>);

impl SourceName {
    pub fn new(path: &str) -> Self {
        Self(path.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One key of the ring.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    key: Arc<Key>,
    state: State,
    from: Option<UnixTime>,
    until: Option<UnixTime>,
    since: Option<UnixTime>,
    aliases: Vec<Kid>,
    source: SourceName,
}

impl Entry {
    pub fn key(&self) -> &Arc<Key> {
        &self.key
    }

    /// The state at `now`: a window that ended since the ring was made counts.
    pub fn state(&self, now: UnixTime) -> State {
        if self.state == State::Retired || self.until.is_some_and(|until| until <= now) {
            return State::Retired;
        }
        if self.from.is_some_and(|from| now < from) {
            return State::Announced;
        }
        match self.state {
            State::Announced if self.from.is_some() => State::Signing,
            State::Verifying { until, .. } if until <= now => State::Retired,
            state => state,
        }
    }

    /// The name that the configuration or a JWKS gave the key.
    pub fn alias(&self) -> Option<&Kid> {
        self.aliases.first()
    }

    /// Since when it is retired, where that is known.
    pub fn retired_since(&self) -> Option<UnixTime> {
        self.since.or(self.until).filter(|_| self.state == State::Retired)
    }

    /// The source that the state comes from, where several list the key.
    pub fn source(&self) -> &SourceName {
        &self.source
    }
}

/// An immutable snapshot of all keys, found by any of their names.
#[derive(Clone, Debug, Default)]
pub struct Ring {
    generation: u64,
    as_of: UnixTime,
    entries: Vec<Entry>,
    /// Few and long: found by comparing sooner than by hashing.
    names: BTreeMap<Kid, usize>,
    tombstones: Vec<Arc<Key>>,
}

impl Ring {
    /// Rises whenever a token that verified before may not any more, or one that didn't may: what is
    /// remembered of a token is good for one generation. A window that only grew leaves it.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether any key is known, retired ones included; without one, tokens are routed by their `kid`.
    pub fn has_keys(&self) -> bool {
        !self.entries.is_empty()
    }

    /// The key of this name, whatever its state: by libtrust id, thumbprint or alias. One look-up.
    pub fn find(&self, name: &str) -> Option<&Entry> {
        self.names.get(name).and_then(|at| self.entries.get(*at))
    }

    /// The key that an operator means: by any of its names, else the only one whose id begins so.
    pub fn meant(&self, text: &str) -> Result<&Entry, RetireFault> {
        if let Some(entry) = self.find(text) {
            return Ok(entry);
        }
        let begins = |entry: &&Entry| {
            text.len() >= Self::SHORTEST_BEGINNING && entry.key.kid().as_str().starts_with(text)
        };
        let mut begin = self.entries.iter().filter(begins);
        let first = begin.next().ok_or(RetireFault::Unknown)?;
        if begin.next().is_some() { Err(RetireFault::Several) } else { Ok(first) }
    }

    /// A group of a libtrust id: less is a slip of the finger.
    const SHORTEST_BEGINNING: usize = 4;

    /// The one key that signs now; `None` where several do: a token without a name is never tried by turns.
    pub fn only_signer(&self) -> Option<Kid> {
        let mut signing = self.entries.iter().filter(|e| e.state(self.as_of) == State::Signing);
        let first = signing.next()?;
        signing.next().is_none().then(|| first.key.kid().clone())
    }

    /// The key of this name with its private half, for an endpoint that holds it. Announced keys count (an
    /// endpoint may be ahead of us) and verifying ones (it may be behind); retired ones never do.
    pub fn signer(&self, kid: &str) -> Option<&Arc<Key>> {
        let entry = self.find(kid)?;
        let signs = entry.state(self.as_of) != State::Retired && entry.key.can_sign();
        signs.then_some(&entry.key)
    }

    /// The names of all keys that can be signed with, for an endpoint that doesn't tell which it knows: first the one
    /// that it knew last, then keys in use, former ones and those to come, each by all of its names.
    pub fn signers(&self, first: Option<&Kid>) -> Vec<Kid> {
        let mut entries: Vec<&Entry> =
            self.entries.iter().filter(|entry| self.signer(entry.key.kid().as_str()).is_some()).collect();
        entries.sort_by_key(|entry| match entry.state(self.as_of) {
            State::Signing => 0,
            State::Verifying { .. } => 1,
            State::Announced | State::Retired => 2,
        });
        let own = |entry: &&Entry| {
            let aliases = entry.aliases.iter().filter(|alias| self.find(alias.as_str()).is_some());
            [entry.key.kid(), entry.key.thumbprint()].into_iter().chain(aliases).cloned().collect::<Vec<_>>()
        };
        let mut names: Vec<Kid> = entries.iter().flat_map(own).collect();
        if let Some(at) = names.iter().position(|name| Some(name) == first) {
            names[..=at].rotate_right(1);
        }
        names
    }

    /// All keys: current ones in the order of their sources, then former ones, then retired ones.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    /// A9: what is refused whatever brings it back: what was retired now, here or by others, and what is listed as retired.
    pub fn banned(&self) -> &[Arc<Key>] {
        &self.tombstones
    }

    /// A9: whether a key that was retired now, or listed as retired, made this signature, whatever the
    /// token's `kid` says. One verification a tombstone: for tokens that would go up unverified only.
    pub fn forbids(&self, message: &[u8], signature: &str) -> bool {
        self.tombstones.iter().any(|key| key.verifies(message, signature))
    }

    /// Whether `kid` names the key that Harbor's chart published, which is refused wherever it appears.
    pub fn default_key_named(kid: &str) -> bool {
        key::is_published_default(kid)
    }
}

#[cfg(test)]
mod tests;
