//! Keys between the ring and the store: what sources held outlives this process, and what was retired stays so.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::watch, time};

use super::{replicas::Applied, revocations::Revocations, token_service::Answers, windows::UpgradeWindows};
use crate::{
    decisions::{
        key::Key,
        record::{
            Kind, Place, private_half,
            revocation::Revocation,
            seen_key::{AHEAD, Life, SeenKey, place_of},
            window,
        },
        window::{Open, Order},
    },
    edges::{
        key_source::KeyShelf,
        store::{Loaded, Store, StoreFault},
    },
    words::clock::{Clock, UnixTime},
};

/// A window that moves on is written again when it has moved so far: an endpoint that still signs with a replaced key
/// moves it at every probe.
const MOVES: Duration = Duration::from_secs(10);

/// How long the start waits for the store, whatever that does.
const BEGINS: Duration = Duration::from_secs(10);

/// How long a store that can't be read is asked again before serving begins without what it holds: a Redis that restarts,
/// a Sentinel that knows no master for a moment.
const RETURNS: Duration = Duration::from_secs(5);

/// Between two such questions.
const ASKS_AGAIN: Duration = Duration::from_millis(200);

/// What the store is kept up to date with, and what is kept up to date with the store.
#[derive(Clone)]
pub struct Shelves {
    pub keys: Arc<KeyShelf>,
    pub revocations: Arc<Revocations>,
    pub windows: Arc<UpgradeWindows>,
    /// What a revocation ends.
    pub answers: Arc<Answers>,
}

/// Keeps the store up to date with the ring, and the ring with the store.
pub struct SeenKeys {
    store: Arc<Store>,
    shelves: Shelves,
    clock: Clock,
    /// What the store holds by our writes and readings.
    kept: BTreeMap<String, SeenKey>,
    /// The keys whose private halves it holds; `None` = it wasn't asked yet.
    private: Option<BTreeSet<String>>,
    /// What of it we wrote last, and when.
    written: BTreeMap<String, (UnixTime, Life)>,
    /// Ends of records that an upgrade window made later.
    prolonged: BTreeMap<String, UnixTime>,
    revoked: BTreeMap<String, Revocation>,
    order: Option<Order>,
    applied: watch::Sender<Applied>,
    trust: Trust,
}

/// Whether it is known what was retired (A20).
#[derive(Clone, Copy, Debug, Default)]
struct Trust {
    /// What was known of it is gone: nothing that the store says makes up for that.
    is_lost: bool,
    is_read: bool,
    is_held_only: bool,
}

impl SeenKeys {
    pub fn new(store: Arc<Store>, shelves: Shelves, clock: Clock) -> Self {
        Self {
            store,
            shelves,
            clock,
            kept: BTreeMap::new(),
            private: None,
            written: BTreeMap::new(),
            prolonged: BTreeMap::new(),
            revoked: BTreeMap::new(),
            order: None,
            applied: watch::Sender::default(),
            trust: Trust::default(),
        }
    }

    /// What of the store's revocations and windows counts here.
    pub fn applied(&self) -> watch::Receiver<Applied> {
        self.applied.subscribe()
    }

    /// Takes into the ring what the store holds. Until that could be read for the first time, and says everything that
    /// was retired, only keys that endpoints are seen to hold verify (A20). `is_lost`: what it said before is gone.
    pub async fn begin(&mut self, is_lost: bool) {
        self.trust.is_read = time::timeout(BEGINS, self.first_recall()).await.unwrap_or(false);
        self.trust.is_lost = is_lost;
        if is_lost || !self.trust.is_read || !self.store.unopened(Kind::Revocation).is_empty() {
            self.trust.is_held_only = true;
            self.shelves.keys.trust_held_only(true, self.clock.now());
            tracing::warn!(
                store.name = self.store.name(),
                "not everything that was retired is known; only keys that an endpoint is seen to hold verify"
            );
        }
    }

    async fn first_recall(&mut self) -> bool {
        let until = Instant::now() + RETURNS;
        while self.recall().await.is_err() {
            if Instant::now() >= until {
                return false;
            }
            time::sleep(ASKS_AGAIN).await;
        }
        true
    }

    /// First what is revoked, which beats everything (A9), and whatever becomes of the rest; then windows, which say
    /// how long keys verify.
    async fn recall(&mut self) -> Result<(), StoreFault> {
        let revoked = self.store.load(Kind::Revocation).await?;
        let now = self.clock.now();
        self.revoke(&revoked, now);
        let windows = self.store.load(Kind::Window).await?;
        let applied = Applied::of(&revoked, &windows);
        if let Some(order) = applied.window {
            self.shelves.windows.take(order);
        }
        self.order = applied.window;
        self.shelves.keys.set_window(self.shelves.windows.open(now), now);
        self.applied.send_if_modified(|known| {
            let is_new = *known != applied;
            *known = applied;
            is_new
        });
        let seen = self.store.load(Kind::Key).await?;
        self.kept.clear();
        for record in seen {
            match SeenKey::read(&record.plain) {
                Ok(seen) => drop(self.kept.insert(record.key, seen)),
                Err(fault) => unusable(Kind::Key, &record.key, &fault),
            }
        }
        self.shelves.keys.recall(self.kept.values().cloned(), self.clock.now());
        // What another replica keeps is its own, but for what was kept when this one was told to keep none.
        if self.shelves.keys.keeps_private() || self.private.is_none() {
            let private = self.store.load(Kind::Private).await?;
            self.private = Some(private.iter().map(|record| record.key.clone()).collect());
            self.recall_private(private, self.clock.now());
        }
        Ok(())
    }

    fn revoke(&mut self, records: &[Loaded], now: UnixTime) {
        self.revoked.clear();
        // Of what doesn't open, or can't be read, the name says which key it may be about.
        let mut doubted = self.store.unopened(Kind::Revocation);
        for record in records {
            let name = record.key.clone();
            match Revocation::read(&record.plain).map(|revocation| (revocation.key(), revocation)) {
                Ok((Some(Ok(key)), revocation)) => {
                    self.shelves.keys.ban(Arc::new(key), revocation.at(), now);
                    self.revoked.insert(name, revocation);
                }
                Ok((None, revocation)) => drop(self.revoked.insert(name, revocation)),
                Ok((Some(Err(fault)), _)) => {
                    unusable(Kind::Revocation, &name, &fault);
                    doubted.insert(name);
                }
                Err(fault) => {
                    unusable(Kind::Revocation, &name, &fault);
                    doubted.insert(name);
                }
            }
        }
        self.shelves.keys.doubt(doubted, now);
        if self.shelves.revocations.take(self.revoked.values().cloned()) {
            self.shelves.answers.forget_all();
        }
    }

    fn recall_private(&self, records: Vec<Loaded>, now: UnixTime) {
        if !self.shelves.keys.keeps_private() {
            return;
        }
        let key = |record: Loaded| match private_half::read(&record.plain) {
            Ok(key) => Some(key),
            Err(fault) => {
                unusable(Kind::Private, &record.key, &fault);
                None
            }
        };
        self.shelves.keys.recall_private(records.into_iter().filter_map(key), now);
    }

    /// Writes what changed in the ring, and reads what changed in the store; never ends.
    pub async fn run(mut self) {
        let shelves = self.shelves.clone();
        let (mut store, mut windows) = (self.store.changes(), shelves.windows.changes());
        loop {
            if self.trust.is_read {
                self.write();
            }
            let again = tokio::select! {
                () = shelves.keys.changed() => false,
                () = shelves.revocations.changed() => false,
                _ = windows.changed() => false,
                // Also because the clock may have been set since.
                () = time::sleep(shelves.keys.window() / 10) => true,
                told = store.changed() => told.is_ok(),
            };
            // A store that couldn't be read at the start tells when it is there.
            if again && self.recall().await.is_ok() {
                self.trust.is_read = true;
                self.trust_all_if_known();
            }
        }
    }

    /// Not the other way round: what is known by now isn't forgotten because a record is changed in the store.
    fn trust_all_if_known(&mut self) {
        let is_known = !self.trust.is_lost && self.store.unopened(Kind::Revocation).is_empty();
        if self.trust.is_held_only && is_known {
            self.trust.is_held_only = false;
            self.shelves.keys.trust_held_only(false, self.clock.now());
        }
    }

    /// Queues what the store doesn't hold as it is now.
    fn write(&mut self) {
        let now = self.clock.now();
        let window = self.shelves.keys.window();
        let (seen, retired) = self.shelves.keys.to_keep(now);
        let banned: BTreeSet<String> = retired.iter().map(|(key, _)| place_of(key.spki_digest())).collect();
        for (key, at) in retired {
            self.write_revoked(Revocation::Key { spki: key.spki().to_vec(), at }, now);
        }
        for revocation in self.shelves.revocations.to_keep() {
            self.write_revoked(revocation, now);
        }
        self.write_order(now);
        let open = self.shelves.windows.open(now);
        let present: BTreeMap<String, SeenKey> = seen.into_iter().map(|seen| (digest(&seen), seen)).collect();
        for (name, seen) in &present {
            let kept = self.kept.get(name).map(|kept| kept.life);
            let known = self.prolonged.get(name).copied().unwrap_or(UnixTime(i64::MIN));
            let is_prolonged = kept.zip(open).is_some_and(|(kept, open)| {
                is_ours(kept, seen.life) && known.max(end(kept, window, None)) < open.until.plus(MOVES)
            });
            if is_prolonged || kept.is_none_or(|kept| self.is_due(name, kept, seen.life, (window, now))) {
                let end = end(seen.life, window, open);
                self.store.keep(Place::new(Kind::Key, name), seen.write(), Some(end));
                self.kept.insert(name.clone(), seen.clone());
                self.written.insert(name.clone(), (now, seen.life));
                self.prolonged.insert(name.clone(), end);
            }
        }
        self.prolonged.retain(|name, _| present.contains_key(name));
        self.written.retain(|name, _| present.contains_key(name));
        // A record that is of no use to us may be another replica's: its clock, its rules and its files may be others.
        // It ends by itself, unless its key was retired at once.
        let gone = self.kept.extract_if(.., |name, _| banned.contains(name));
        gone.for_each(|(name, _)| self.store.forget(Place::new(Kind::Key, name)));
        self.write_private(now);
    }

    /// Private halves are there as long as their keys, and none where none shall be kept.
    fn write_private(&mut self, now: UnixTime) {
        let halves = self.shelves.keys.private_halves(now);
        let present: BTreeMap<String, &Arc<Key>> =
            halves.iter().map(|key| (place_of(key.spki_digest()), key)).collect();
        let kept = self.private.get_or_insert_default();
        for (name, key) in &present {
            if !kept.contains(name)
                && let Some(record) = private_half::write(key)
            {
                self.store.keep(Place::new(Kind::Private, name), record, None);
                kept.insert(name.clone());
            }
        }
        let gone = kept.extract_if(.., |name| !present.contains_key(name));
        gone.for_each(|name| self.store.forget(Place::new(Kind::Private, name)));
    }

    /// Whether a key's record is to be written again. Where another replica has other views and writes them over ours,
    /// we don't answer each time.
    fn is_due(&self, name: &str, kept: Life, now: Life, (window, at): (Duration, UnixTime)) -> bool {
        let Some(pause) = outdated(kept, now, window, at) else { return false };
        let is_answer = |(written, life): &&(UnixTime, Life)| *life != kept && *written <= at;
        self.written.get(name).filter(is_answer).is_none_or(|(written, _)| at.since(*written) >= pause)
    }

    /// What is over is not written again: it would be removed, and missed, for ever.
    fn write_revoked(&mut self, revocation: Revocation, now: UnixTime) {
        let place = revocation.place();
        if revocation.expires().is_some_and(|end| end <= now) {
            return;
        }
        if self.revoked.get(&place).is_none_or(|known| revocation.ends_more(known)) {
            self.store.keep(Place::new(Kind::Revocation, &place), revocation.write(), revocation.expires());
            self.revoked.insert(place, revocation);
        }
    }

    fn write_order(&mut self, now: UnixTime) {
        let Some(order) = self.shelves.windows.order().filter(|order| now < order.over()) else { return };
        if self.order.is_none_or(|known| known != order && known.or_later(order) == order) {
            self.store.keep(Place::new(Kind::Window, window::PLACE), order.write(), Some(order.over()));
            self.order = Some(order);
        }
    }
}

fn unusable(kind: Kind, key: &str, fault: &dyn std::error::Error) {
    tracing::warn!(store.record = %Place::new(kind, key), store.cause = %fault, "a record of the store can't be used");
}

fn digest(seen: &SeenKey) -> String {
    use aws_lc_rs::digest::{SHA256, digest};
    let mut of = [0; 32];
    of.copy_from_slice(digest(&SHA256, &seen.spki).as_ref());
    place_of(&of)
}

/// Whether what is kept of a key would bring back less than it should, or more, and after which pause it is written
/// again where somebody else keeps it so. That a key signs for another replica is that one's word, until it is later
/// known here to have ended.
fn outdated(kept: Life, ours: Life, window: Duration, now: UnixTime) -> Option<Duration> {
    let is_ahead = kept.evidence() > now.plus(AHEAD);
    let (is_outdated, pause) = match (kept, ours) {
        (Life::Signing { .. }, _) if is_ahead => (true, window / 5),
        (Life::Signing { seen }, Life::Signing { .. }) => (now.since(seen) >= window / 5, MOVES),
        (Life::Signing { .. }, Life::Verifying { .. }) => (is_ours(kept, ours), MOVES),
        (Life::Verifying { .. }, Life::Signing { .. }) => (true, MOVES),
        // One of a time to come stays: our clock may be the one that is wrong, and nobody lets it count for more.
        (Life::Verifying { until, .. }, Life::Verifying { until: ours, .. }) => {
            (ours.since(until) >= MOVES, MOVES)
        }
    };
    is_outdated.then_some(pause)
}

/// Whether nobody is known to hold a key that no source here holds any more.
fn is_ours(kept: Life, ours: Life) -> bool {
    match (kept, ours) {
        (Life::Signing { seen }, Life::Verifying { signed_until, .. }) => seen <= signed_until,
        _ => true,
    }
}

/// From when on a record can't bring anything back: not before an upgrade window closes that is open.
fn end(life: Life, window: Duration, open: Option<Open>) -> UnixTime {
    let end = match life {
        Life::Signing { seen } => seen.plus(window).plus(window),
        Life::Verifying { until, .. } => until.plus(MOVES),
    };
    open.map_or(end, |open| end.max(open.until.plus(MOVES)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_written_again_before_it_would_bring_back_less() {
        let window = Duration::from_secs(1_000);
        let signing = |seen| Life::Signing { seen: UnixTime(seen) };
        let verifying =
            |signed, until| Life::Verifying { signed_until: UnixTime(signed), until: UnixTime(until) };
        let never = None;
        let table = [
            (signing(0), signing(0), 0, never),
            (signing(0), signing(199), 199, never),
            (signing(0), signing(200), 200, Some(10)),
            (signing(60), signing(0), 0, never),
            (signing(61), signing(0), 0, Some(200)),
            (signing(0), verifying(0, 1_000), 0, Some(10)),
            (signing(1), verifying(0, 1_000), 5, never),
            (signing(90_000), verifying(0, 1_000), 5, Some(200)),
            (verifying(0, 1_000), signing(0), 0, Some(10)),
            (verifying(0, 0), verifying(0, 9), 9, never),
            (verifying(0, 0), verifying(0, 10), 10, Some(10)),
            (verifying(90_000, 91_000), verifying(0, 1_000), 0, never),
        ];
        for (kept, ours, now, want) in table {
            let pause = outdated(kept, ours, window, UnixTime(now));
            assert_eq!(pause.map(|pause| pause.as_secs()), want, "{kept:?} {ours:?}");
        }
    }
}
