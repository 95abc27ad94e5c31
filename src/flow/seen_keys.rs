//! Keys between the ring and the store: what sources held outlives this process, and what was retired stays so.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use tokio::time;

use crate::{
    decisions::{
        key::Key,
        record::{
            Kind, Place, private_half,
            revocation::Revocation,
            seen_key::{Life, SeenKey, place_of},
        },
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

/// Keeps the store up to date with the ring, and the ring with the store.
pub struct SeenKeys {
    store: Arc<Store>,
    shelf: Arc<KeyShelf>,
    clock: Clock,
    /// How long a key in use is good after a last look: it is written again well before that.
    window: Duration,
    /// What the store holds by our writes and readings.
    kept: BTreeMap<String, SeenKey>,
    retired: BTreeMap<String, Vec<u8>>,
    /// The keys whose private halves it holds; `None` = it wasn't asked yet.
    private: Option<BTreeSet<String>>,
}

impl SeenKeys {
    /// `window` is a token's lifetime and the leeway.
    pub fn new(store: Arc<Store>, shelf: Arc<KeyShelf>, clock: Clock, window: Duration) -> Self {
        Self { store, shelf, clock, window, kept: BTreeMap::new(), retired: BTreeMap::new(), private: None }
    }

    /// Takes into the ring what the store holds. Until it could be read for the first time, only keys that endpoints
    /// are seen to hold verify (A20).
    pub async fn begin(&mut self) -> bool {
        let is_read = self.recall().await.is_ok();
        if !is_read {
            self.shelf.trust_held_only(true, self.clock.now());
        }
        is_read
    }

    /// First what is retired, which beats everything (A9).
    async fn recall(&mut self) -> Result<(), StoreFault> {
        let revoked = self.store.load(Kind::Revocation).await?;
        let seen = self.store.load(Kind::Key).await?;
        // What another replica keeps is its own, but for what was kept when this one was told to keep none.
        let asks = self.shelf.keeps_private() || self.private.is_none();
        let private = if asks { Some(self.store.load(Kind::Private).await?) } else { None };
        let now = self.clock.now();
        self.retired.clear();
        for record in revoked {
            match Revocation::read(&record.plain).map(|revocation| (revocation.key(), revocation)) {
                Ok((Ok(key), Revocation::Key { spki, .. })) => {
                    self.retired.insert(record.key, spki);
                    self.shelf.ban(Arc::new(key), now);
                }
                Ok((Err(fault), _)) => unusable(Kind::Revocation, &record.key, &fault),
                Err(fault) => unusable(Kind::Revocation, &record.key, &fault),
            }
        }
        self.kept.clear();
        for record in seen {
            match SeenKey::read(&record.plain) {
                Ok(seen) => drop(self.kept.insert(record.key, seen)),
                Err(fault) => unusable(Kind::Key, &record.key, &fault),
            }
        }
        self.shelf.recall(self.kept.values().cloned(), now);
        if let Some(private) = private {
            self.private = Some(private.iter().map(|record| record.key.clone()).collect());
            self.recall_private(private, now);
        }
        Ok(())
    }

    fn recall_private(&self, records: Vec<Loaded>, now: UnixTime) {
        if !self.shelf.keeps_private() {
            return;
        }
        let key = |record: Loaded| match private_half::read(&record.plain) {
            Ok(key) => Some(key),
            Err(fault) => {
                unusable(Kind::Private, &record.key, &fault);
                None
            }
        };
        self.shelf.recall_private(records.into_iter().filter_map(key), now);
    }

    /// Writes what changed in the ring, and reads what changed in the store; never ends.
    pub async fn run(mut self, mut is_read: bool) {
        let ring = self.shelf.clone();
        let mut store = self.store.changes();
        loop {
            if is_read {
                self.write();
            }
            let again = tokio::select! {
                () = ring.changed() => false,
                () = time::sleep(self.window / 4) => false,
                told = store.changed() => told.is_ok(),
            };
            // A store that couldn't be read at the start tells when it is there.
            if again && self.recall().await.is_ok() && !is_read {
                is_read = true;
                ring.trust_held_only(false, self.clock.now());
            }
        }
    }

    /// Queues what the store doesn't hold as it is now.
    fn write(&mut self) {
        let now = self.clock.now();
        let (seen, retired) = self.shelf.to_keep(now);
        for key in retired {
            self.write_retired(&key, now);
        }
        let present: BTreeMap<String, SeenKey> = seen.into_iter().map(|seen| (digest(&seen), seen)).collect();
        for (name, seen) in &present {
            if self.kept.get(name).is_none_or(|kept| outdated(kept.life, seen.life, self.window)) {
                let end = Some(end(seen.life, self.window));
                self.store.keep(Place::new(Kind::Key, name), seen.write(), end);
                self.kept.insert(name.clone(), seen.clone());
            }
        }
        // A key that ended is of no use in the store; what another replica may still hold expires by itself.
        let gone = self.kept.extract_if(.., |name, _| !present.contains_key(name));
        gone.for_each(|(name, _)| self.store.forget(Place::new(Kind::Key, name)));
        self.write_private(now);
    }

    /// Private halves are there as long as their keys, and none where none shall be kept.
    fn write_private(&mut self, now: UnixTime) {
        let halves = self.shelf.private_halves(now);
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

    fn write_retired(&mut self, key: &Key, at: UnixTime) {
        let name = place_of(key.spki_digest());
        if !self.retired.contains_key(&name) {
            let spki = key.spki().to_vec();
            let revocation = Revocation::Key { spki: spki.clone(), at };
            self.store.keep(Place::new(Kind::Revocation, &name), revocation.write(), None);
            self.retired.insert(name, spki);
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

/// Whether what is kept of a key would bring back less than it should.
fn outdated(kept: Life, now: Life, window: Duration) -> bool {
    match (kept, now) {
        (Life::Signing { seen }, Life::Signing { seen: now }) => now.since(seen) >= window / 5,
        (Life::Verifying { until, .. }, Life::Verifying { until: now, .. }) => now.since(until) >= MOVES,
        (Life::Signing { .. }, Life::Verifying { .. }) | (Life::Verifying { .. }, Life::Signing { .. }) => {
            true
        }
    }
}

/// From when on a record can't bring anything back.
fn end(life: Life, window: Duration) -> UnixTime {
    match life {
        Life::Signing { seen } => seen.plus(window).plus(window),
        Life::Verifying { until, .. } => until.plus(MOVES),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_written_again_before_it_would_bring_back_less() {
        let window = Duration::from_secs(1_000);
        let signing = |seen| Life::Signing { seen: UnixTime(seen) };
        let verifying = |until| Life::Verifying { signed_until: UnixTime(0), until: UnixTime(until) };
        let table = [
            (signing(0), signing(0), false),
            (signing(0), signing(199), false),
            (signing(0), signing(200), true),
            (signing(0), verifying(0), true),
            (verifying(0), signing(0), true),
            (verifying(0), verifying(9), false),
            (verifying(0), verifying(10), true),
        ];
        for (kept, now, want) in table {
            assert_eq!(outdated(kept, now, window), want, "{kept:?} {now:?}");
        }
    }
}
