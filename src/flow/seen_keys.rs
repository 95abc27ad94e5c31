//! Keys between the ring and the store: what sources held outlives this process, and what was retired stays so.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::watch, time};

use super::{
    grace::Graces, replicas::Applied, revocations::Revocations, token_service::Answers,
    windows::UpgradeWindows,
};
use crate::{
    decisions::{
        key::Key,
        record::{
            Kind, Place, private_half,
            revocation::Revocation,
            seen_key::{
                SeenKey,
                due::{self, Said, Windows},
                place_of,
            },
            window,
        },
        window::Order,
    },
    edges::{
        key_source::KeyShelf,
        store::{Loaded, Store, StoreFault},
    },
    words::clock::{Clock, UnixTime},
};

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
    pub graces: Arc<Graces>,
}

/// Keeps the store up to date with the ring, and the ring with the store.
pub struct SeenKeys {
    store: Arc<Store>,
    shelves: Shelves,
    clock: Clock,
    /// What we are called beside others.
    host: String,
    /// What the store holds by our writes and readings, and from when on that means nothing.
    kept: BTreeMap<String, (SeenKey, Option<UnixTime>)>,
    /// The private halves that it holds, by their keys' names; `None` = it wasn't asked yet.
    private: Option<BTreeMap<String, Half>>,
    /// Keys that were retired at once, and those of them whose private halves were removed.
    banned: BTreeSet<String>,
    wiped: BTreeSet<String>,
    /// What of it we wrote last, and when.
    written: BTreeMap<String, (UnixTime, Said)>,
    revoked: BTreeMap<String, Revocation>,
    order: Option<Order>,
    applied: watch::Sender<Applied>,
    trust: Trust,
    /// What can't be used and was told of: it is read again and again.
    told: BTreeSet<Place>,
}

/// A private half in the store.
#[derive(Clone, Copy, Debug)]
struct Half {
    /// When its record ends, as we wrote it; the past where somebody else did.
    until: UnixTime,
    /// Whether it is ours to remove.
    is_ours: bool,
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
    /// `host` is what operators call the machine, the container or the pod.
    pub fn new(store: Arc<Store>, shelves: Shelves, clock: Clock, host: String) -> Self {
        Self {
            store,
            shelves,
            clock,
            host,
            kept: BTreeMap::new(),
            private: None,
            banned: BTreeSet::new(),
            wiped: BTreeSet::new(),
            written: BTreeMap::new(),
            revoked: BTreeMap::new(),
            order: None,
            applied: watch::Sender::default(),
            trust: Trust::default(),
            told: BTreeSet::new(),
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
                Ok(seen) => drop(self.kept.insert(record.key, (seen, record.expires))),
                Err(fault) => self.tell_unusable(Kind::Key, &record.key, &fault),
            }
        }
        let kept = self.kept.values().map(|(seen, _)| seen.clone());
        self.shelves.keys.recall(kept, self.clock.now());
        // What another replica keeps is its own, but for what was kept when this one was told to keep none.
        if self.shelves.keys.keeps_private() || self.private.is_none() {
            let private = self.store.load(Kind::Private).await?;
            self.private = Some(self.halves_in(&private));
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
                    self.tell_unusable(Kind::Revocation, &name, &fault);
                    doubted.insert(name);
                }
                Err(fault) => {
                    self.tell_unusable(Kind::Revocation, &name, &fault);
                    doubted.insert(name);
                }
            }
        }
        self.shelves.keys.doubt(doubted, now);
        let new = self.shelves.revocations.take(self.revoked.values().cloned());
        // Before it is acknowledged: what was granted here by a clock that is ahead looks later than the order.
        for revocation in &new {
            if let Revocation::Subject { name, .. } = revocation {
                self.shelves.graces.forget_subject(name, now);
            }
        }
        if !new.is_empty() {
            self.shelves.answers.forget_all();
        }
    }

    /// The halves that are there. Those of a shared store that another host keeps are its own.
    fn halves_in(&self, records: &[Loaded]) -> BTreeMap<String, Half> {
        let half = |record: &Loaded| {
            let keeper = private_half::keeper(&record.plain);
            let is_ours = !self.store.is_shared() || keeper.is_empty() || keeper == self.host;
            let known = self.private.as_ref().and_then(|known| known.get(&record.key));
            let until = known.map_or(UnixTime(i64::MIN), |known| known.until);
            (record.key.clone(), Half { until, is_ours })
        };
        records.iter().map(half).collect()
    }

    fn recall_private(&mut self, records: Vec<Loaded>, now: UnixTime) {
        if !self.shelves.keys.keeps_private() {
            return;
        }
        let mut keys = Vec::new();
        for record in records {
            match private_half::read(&record.plain) {
                Ok(key) => keys.push(key),
                Err(fault) => self.tell_unusable(Kind::Private, &record.key, &fault),
            }
        }
        self.shelves.keys.recall_private(keys, now);
    }

    fn tell_unusable(&mut self, kind: Kind, key: &str, fault: &dyn std::error::Error) {
        let place = Place::new(kind, key);
        if !self.told.contains(&place) {
            tracing::warn!(store.record = %place, store.cause = %fault, "a record of the store can't be used");
            self.told.insert(place);
        }
    }

    /// Writes what changed in the ring, and reads what changed in the store; never ends.
    pub async fn run(mut self) {
        let shelves = self.shelves.clone();
        let (mut store, mut windows) = (self.store.changes(), shelves.windows.changes());
        loop {
            if self.trust.is_read {
                self.write();
                self.wipe().await;
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
        let (seen, retired) = self.shelves.keys.to_keep(now);
        let banned: BTreeSet<String> = retired.iter().map(|(key, _)| place_of(key.spki_digest())).collect();
        for (key, at) in retired {
            self.write_revoked(Revocation::Key { spki: key.spki().to_vec(), at }, now);
        }
        for revocation in self.shelves.revocations.to_keep() {
            self.write_revoked(revocation, now);
        }
        self.write_order(now);
        let windows = Windows { each: self.shelves.keys.window(), open: self.shelves.windows.open(now) };
        let present: BTreeMap<String, SeenKey> = seen.into_iter().map(|seen| (digest(&seen), seen)).collect();
        for (name, seen) in &present {
            if due::is_due(self.known(name), Said::of(seen), windows, now) {
                let end = Some(due::end(seen.life, windows));
                self.store.keep(Place::new(Kind::Key, name), seen.write(), end);
                self.kept.insert(name.clone(), (seen.clone(), end));
                self.written.insert(name.clone(), (now, Said::of(seen)));
            }
        }
        self.written.retain(|name, _| present.contains_key(name));
        // A record that is of no use to us may be another replica's: its clock, its rules and its files may be others.
        // It ends by itself, unless its key was retired at once.
        let gone = self.kept.extract_if(.., |name, _| banned.contains(name));
        gone.for_each(|(name, _)| self.store.forget(Place::new(Kind::Key, name)));
        let ends = present.iter().map(|(name, seen)| (name.clone(), due::end(seen.life, windows))).collect();
        self.write_private(&ends, (now, windows.each));
        self.banned = banned;
    }

    /// The private half of a key that was retired at once goes, whoever kept it: he may be gone himself.
    async fn wipe(&mut self) {
        if self.banned.is_subset(&self.wiped) {
            return;
        }
        let Ok(halves) = self.store.load(Kind::Private).await else { return };
        let is_over = |half: &&Loaded| self.banned.contains(&half.key);
        halves
            .iter()
            .filter(is_over)
            .for_each(|half| self.store.forget(Place::new(Kind::Private, &*half.key)));
        self.wiped.clone_from(&self.banned);
    }

    /// Private halves are there as long as their keys' records, which end then, and none where none shall be kept.
    fn write_private(&mut self, ends: &BTreeMap<String, UnixTime>, (now, window): (UnixTime, Duration)) {
        let halves = self.shelves.keys.private_halves(now);
        let present: BTreeMap<String, &Arc<Key>> =
            halves.iter().map(|key| (place_of(key.spki_digest()), key)).collect();
        let kept = self.private.get_or_insert_default();
        for (name, key) in &present {
            let end = ends.get(name).copied().unwrap_or(now.plus(window).plus(window));
            let is_due = kept.get(name).is_none_or(|known| known.until.plus(window / 5) <= end);
            if is_due && let Some(record) = private_half::write(key, &self.host) {
                self.store.keep(Place::new(Kind::Private, name), record, Some(end));
                kept.insert(name.clone(), Half { until: end, is_ours: true });
            }
        }
        let gone = kept.extract_if(.., |name, _| !present.contains_key(name));
        let ours = gone.filter(|(_, half)| half.is_ours);
        ours.for_each(|(name, _)| self.store.forget(Place::new(Kind::Private, name)));
    }

    fn known(&self, name: &str) -> Option<due::Known> {
        let (seen, end) = self.kept.get(name)?;
        Some(due::Known { said: Said::of(seen), end: *end, written: self.written.get(name).copied() })
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

fn digest(seen: &SeenKey) -> String {
    use aws_lc_rs::digest::{SHA256, digest};
    let mut of = [0; 32];
    of.copy_from_slice(digest(&SHA256, &seen.spki).as_ref());
    place_of(&of)
}
