//! One ring out of what all sources hold: each key once, each name once.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::{
    Change, Entry, Keeper, Listed, Overlap, Policy, Ring, SourceName, State,
    keeper::{Holding, Past},
    learned,
};
use crate::{
    decisions::{key::Key, record::seen_key::place_of},
    words::{clock::UnixTime, kid::Kid},
};

/// Whose keys a ring is made of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum View {
    All,
    /// All but peers'.
    Sourced,
    /// This process's own files' alone.
    Own,
}

/// The ring at `now`, with the generation left at zero.
pub(super) fn ring(keeper: &Keeper, policy: &Policy, now: UnixTime, view: View) -> Ring {
    let mut tombstones = keeper.tombstones.clone();
    let banned = keeper.holdings.iter().filter(|h| h.listing.state == Some(Listed::Retired));
    for key in banned.flat_map(|h| &h.current) {
        if !tombstones.contains(key) {
            tombstones.push(Arc::new(key.without_private()));
        }
    }
    let is_seen = |is_own| view != View::Own || is_own;
    let sources = keeper.holdings.iter().filter(|h| is_seen(learned::is_own(h)));
    let current = sources.flat_map(|h| h.current.iter().map(|k| current(h, k, policy, now)));
    let (open, at) = (keeper.open(now), keeper.moment(now));
    let former = keeper.holdings.iter().flat_map(|h| {
        let seen = h.former.iter().filter(|former| is_seen(former.is_own));
        seen.map(|f| plain(&f.key, f.ending.state(at, policy, open), &h.name))
    });
    let past = keeper.past.iter().filter(|past| is_seen(past.is_own));
    let past = past.map(|Past { key, source, ending, .. }| Entry {
        since: ending.map(|ending| ending.until_with(open)),
        ..plain(key, State::Retired, source)
    });
    let learned = keeper.learned.iter().filter(|_| view == View::All);
    let learned = learned.filter_map(|l| l.entry(policy, now, listed_end(keeper, l.key())));
    let mut entries = once_each(current.chain(former).chain(past).chain(learned), now);
    let is_held = |entry: &Entry| keeper.held_only.as_ref().is_none_or(|held| held.contains(entry.key.kid()));
    let is_doubted = |entry: &Entry| {
        !keeper.doubted.is_empty() && keeper.doubted.contains(&place_of(entry.key.spki_digest()))
    };
    for entry in &mut entries {
        if entry.state(now).verifies() && (!is_held(entry) || is_doubted(entry)) {
            // Known, and not to be trusted yet.
            (entry.state, entry.from) = (State::Announced, None);
        }
        if tombstones.contains(&entry.key) {
            entry.state = State::Retired;
            entry.since = keeper.banned_at(&entry.key);
        }
        if entry.state(now) == State::Retired && entry.key.can_sign() {
            entry.key = Arc::new(entry.key.without_private());
        }
    }
    let names = names(&entries, now);
    Ring { generation: 0, as_of: now, entries, names, tombstones }
}

/// The end that a source lists for a key that it holds: a peer doesn't move it.
fn listed_end(keeper: &Keeper, key: &Key) -> Option<UnixTime> {
    let holds = |h: &&Holding| h.current.iter().any(|current| **current == *key);
    keeper.holdings.iter().filter(holds).filter_map(|h| h.listing.until).min()
}

fn current(holding: &Holding, key: &Arc<Key>, policy: &Policy, now: UnixTime) -> Entry {
    let Holding { listing, since, name, .. } = holding;
    let state = match listing.state {
        None | Some(Listed::Signing) => State::Signing,
        Some(_) if policy.overlap == Overlap::Off => State::Retired,
        Some(Listed::Announced) => State::Announced,
        Some(Listed::Verifying) => {
            let until = listing.until.unwrap_or(UnixTime(i64::MAX));
            // A clock that was set back: it signs no more now, whatever the time was called when it was listed.
            State::Verifying { until, signed_until: now.min(*since) }
        }
        Some(Listed::Retired) => State::Retired,
    };
    let aliases = holding.alias_of(key).cloned().into_iter().collect();
    let (key, source) = (Arc::clone(key), name.clone());
    Entry { key, state, from: listing.from, until: listing.until, since: None, aliases, source }
}

fn plain(key: &Arc<Key>, state: State, source: &SourceName) -> Entry {
    let (key, source) = (Arc::clone(key), source.clone());
    Entry {
        aliases: key.declared().cloned().into_iter().collect(),
        key,
        state,
        from: None,
        until: None,
        since: None,
        source,
    }
}

/// A key that several sources list is one entry: the widest state counts, but for a ban, which
/// the tombstones see to, and of two windows the later times; a private half from anywhere, best from memory; all
/// aliases.
fn once_each(entries: impl Iterator<Item = Entry>, now: UnixTime) -> Vec<Entry> {
    let mut once: Vec<Entry> = Vec::new();
    let mut places: HashMap<[u8; 32], usize> = HashMap::new();
    for entry in entries {
        let Some(known) = places.get(entry.key.spki_digest()).and_then(|at| once.get_mut(*at)) else {
            places.insert(*entry.key.spki_digest(), once.len());
            once.push(entry);
            continue;
        };
        let mut aliases = std::mem::take(&mut known.aliases);
        aliases.extend(entry.aliases.iter().filter(|a| !aliases.contains(a)).cloned().collect::<Vec<_>>());
        let both = [&known.key, &entry.key];
        let here = both.iter().find(|key| key.can_sign() && key.elsewhere().is_none());
        let signer = here.or_else(|| both.iter().find(|key| key.can_sign())).map(|key| Arc::clone(key));
        let latest = later(known.state, entry.state);
        if width(entry.state(now)) > width(known.state(now)) {
            *known = entry;
        }
        known.state = latest.unwrap_or(known.state);
        known.aliases = aliases;
        known.key = signer.unwrap_or_else(|| Arc::clone(&known.key));
    }
    once
}

/// Of two windows of one key the later times: who saw it sign last knows best.
fn later(one: State, other: State) -> Option<State> {
    match (one, other) {
        (State::Verifying { until: a, signed_until: s }, State::Verifying { until: b, signed_until: t }) => {
            Some(State::Verifying { until: a.max(b), signed_until: s.max(t) })
        }
        _ => None,
    }
}

/// How much a state lets pass, for the comparison of two.
fn width(state: State) -> (u8, UnixTime, UnixTime) {
    match state {
        State::Retired => (0, UnixTime(0), UnixTime(0)),
        State::Announced => (1, UnixTime(0), UnixTime(0)),
        State::Verifying { until, signed_until } => (2, until, signed_until),
        State::Signing => (3, UnixTime(0), UnixTime(0)),
    }
}

/// Own names first, then aliases; where a replaced key and its successor share one, the wider state has it.
fn names(entries: &[Entry], now: UnixTime) -> BTreeMap<Kid, usize> {
    let mut names = BTreeMap::new();
    for (at, entry) in entries.iter().enumerate() {
        names.insert(entry.key.kid().clone(), at);
        names.insert(entry.key.thumbprint().clone(), at);
    }
    let mut order: Vec<_> = entries.iter().enumerate().collect();
    order.sort_by_key(|(_, entry)| std::cmp::Reverse(width(entry.state(now))));
    for (at, entry) in order {
        for alias in &entry.aliases {
            names.entry(alias.clone()).or_insert(at);
        }
    }
    names
}

/// A name that two different keys would have, among a source's own keys or between them and others'.
pub(super) fn clash(own: &[(&Key, Option<&Kid>)], others: &[(&Key, Option<&Kid>)]) -> Option<Kid> {
    let mut owners: HashMap<&Kid, &Key> = HashMap::new();
    for (key, alias) in others.iter().chain(own) {
        for name in [Some(key.kid()), Some(key.thumbprint()), *alias].into_iter().flatten() {
            if owners.insert(name, key).is_some_and(|owner| owner != *key) {
                return Some(name.clone());
            }
        }
    }
    None
}

/// What differs between two rings, key by key.
pub(super) fn changes(before: &Ring, after: &Ring, now: UnixTime) -> Vec<Change> {
    let was = |entry: &Entry| before.find(entry.key.kid().as_str()).map(|e| e.state(before.as_of));
    let changed = after.entries.iter().filter(|entry| {
        let state = entry.state(now);
        was(entry).map_or(state != State::Retired, |was| was.as_str() != state.as_str())
    });
    let became = changed.map(|entry| Change::Became {
        kid: entry.key.kid().clone(),
        source: entry.source.clone(),
        state: entry.state(now),
    });
    became.collect()
}

/// The ring that follows: a new generation where something that was remembered of a token may be wrong.
pub(super) fn succeed(before: &Arc<Ring>, mut after: Ring) -> Arc<Ring> {
    let same = before.names == after.names
        && before.tombstones == after.tombstones
        && before.entries.len() == after.entries.len()
        && before.entries.iter().zip(&after.entries).all(|(b, a)| holds(b, before.as_of, a, after.as_of));
    after.generation = before.generation + u64::from(!same);
    Arc::new(after)
}

/// Whether what verified by `before` verifies by `after`, and nothing more but for a longer window.
fn holds(before: &Entry, then: UnixTime, after: &Entry, now: UnixTime) -> bool {
    let states = match (before.state(then), after.state(now)) {
        (
            State::Verifying { until: b_until, signed_until: b_signed },
            State::Verifying { until: a_until, signed_until: a_signed },
        ) => a_until >= b_until && a_signed >= b_signed,
        (before, after) => before == after,
    };
    states && before.key == after.key && before.key.can_sign() == after.key.can_sign()
}
