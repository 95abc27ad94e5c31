//! Grants between memory and the store: what Harbor granted outlives this process and reaches others, and what ended it
//! reaches them within a second, with writes that end answers to token requests. Beside them the secrets that all processes
//! of the deployment share.

use std::{sync::Arc, time::Duration};

use aws_lc_rs::{
    hmac,
    rand::{self, SystemRandom},
};
use tokio::{
    sync::watch,
    time::{self, Instant},
};
use zeroize::Zeroizing;

use super::{context::Shared, own_token::Day};
use crate::{
    decisions::{
        grace::ends::{End, Whose},
        record::{self, Kind, Place, granted::Grant},
    },
    edges::store::{Loaded, Store, StoreFault},
};

/// What grants are found by.
const GRACE: &str = "grace";
/// What tokens of our own are sealed by: this, and the day.
const OWN_TOKEN: &str = "own-token-";
/// The one that was for ever, before there was one for each day.
const BEFORE_DAYS: &str = "own-token";

/// How long the start waits for grants: few are there by then, many come while it serves.
const FIRST: Duration = Duration::from_millis(300);
/// Between two looks for grants of other processes, at least; and so many times as long as the last one took.
const EVERY: Duration = Duration::from_secs(5);
const REST: u32 = 20;
/// Until a store that couldn't be read is tried again.
const RETRY: Duration = Duration::from_millis(400);
/// How often what has long ended is forgotten.
const TIDY: Duration = Duration::from_hours(1);

/// Keeps memory and the store together.
pub struct KeptGraces {
    store: Arc<Store>,
    shared: Arc<Shared>,
    changes: watch::Receiver<u64>,
}

/// Where nothing is kept, grace is on from the start.
pub fn without_a_store(shared: &Shared) {
    if let Ok(key) = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()) {
        shared.graces.open(key, None);
    }
}

impl KeptGraces {
    pub fn new(store: Arc<Store>, shared: Arc<Shared>) -> Self {
        let changes = store.changes();
        Self { store, shared, changes }
    }

    /// Reads what is kept. Grace is off until what has ended could be read (A20).
    pub async fn begin(&self) {
        // A store that isn't there tells when it is.
        if self.open().await.is_ok() && self.shared.graces.is_open() {
            let _ = time::timeout(FIRST, self.read_grants()).await;
        }
    }

    /// Reads what others write; ends only with the process.
    pub async fn run(self) {
        tokio::join!(self.follow_ends(), self.follow_grants());
    }

    async fn follow_ends(&self) {
        let mut changes = self.changes.clone();
        let mut tidy = time::interval(TIDY);
        loop {
            let told = tokio::select! {
                told = changes.changed() => told,
                _ = tidy.tick() => {
                    self.shared.graces.tidy(self.shared.clock.now());
                    // Told by the store, where it fails.
                    let _ = self.share_keys().await;
                    continue;
                }
            };
            if told.is_err() {
                return;
            }
            // Where it fails it is told again when it is back.
            let _ = if self.shared.graces.is_open() { self.read_ends().await } else { self.open().await };
        }
    }

    async fn follow_grants(&self) {
        let mut is_read = false;
        loop {
            let began = Instant::now();
            let moved = !is_read || self.store.has_moved(Kind::Grant).await.unwrap_or(false);
            if moved && self.shared.graces.is_open() {
                is_read |= self.read_grants().await.is_ok();
            }
            if is_read && !self.store.is_shared() {
                return;
            }
            let pause = if is_read { EVERY.max(began.elapsed() * REST) } else { RETRY };
            time::sleep(pause).await;
        }
    }

    async fn open(&self) -> Result<(), StoreFault> {
        self.share_keys().await?;
        match self.secret(GRACE).await? {
            Some(key) => {
                self.read_ends().await?;
                let key = hmac::Key::new(hmac::HMAC_SHA256, &*key);
                self.shared.graces.open(key, Some(self.store.clone()));
            }
            // Nobody else ends anything there.
            None if !self.store.is_shared() => without_a_store(&self.shared),
            None => {}
        }
        Ok(())
    }

    /// The keys of our own tokens: yesterday's, so long as it is there, today's, and tomorrow's, so that all have it when
    /// the day begins, and where another clock is ahead. Former ones go.
    async fn share_keys(&self) -> Result<(), StoreFault> {
        let today = Day::of(self.shared.clock.now());
        let mut keys = Vec::new();
        for record in self.store.load(Kind::Secret).await? {
            let Some(day) = day_of(&record.key) else {
                if record.key == BEFORE_DAYS {
                    self.store.forget(Place::new(Kind::Secret, record.key));
                }
                continue;
            };
            if day < Day(today.0 - 1) {
                self.store.forget(Place::new(Kind::Secret, record.key));
            } else if let (true, Ok(key)) = (day < today, record::secret::read(&record.plain)) {
                keys.push((day, key));
            }
        }
        for day in [today, Day(today.0 + 1)] {
            keys.extend(self.secret(&format!("{OWN_TOKEN}{}", day.0)).await?.map(|key| (day, key)));
        }
        self.shared.own.share(&keys);
        Ok(())
    }

    /// A secret that all processes share; `None` where its record can't be used, which is told.
    async fn secret(&self, name: &str) -> Result<Option<Zeroizing<[u8; record::secret::BYTES]>>, StoreFault> {
        let mut fresh = Zeroizing::new([0; record::secret::BYTES]);
        if rand::fill(&mut *fresh).is_err() {
            return Ok(None);
        }
        let place = Place::new(Kind::Secret, name);
        let Some(plain) = self.store.first(&place, &record::secret::write(&fresh)).await? else {
            return Ok(None);
        };
        Ok(record::secret::read(&plain).inspect_err(|fault| unusable(&place, fault)).ok())
    }

    async fn read_ends(&self) -> Result<(), StoreFault> {
        let learn = |Loaded { key, plain, .. }: Loaded| match record::end::read(&plain) {
            Ok(end) => learn(&self.shared, end),
            Err(fault) => unusable(&Place::new(Kind::End, key), &fault),
        };
        self.store.news(Kind::End, learn).await
    }

    async fn read_grants(&self) -> Result<(), StoreFault> {
        let shared = &self.shared;
        let window = shared.policy.load().grace;
        let recall = |Loaded { key, plain, .. }: Loaded| match Grant::read(&plain) {
            Ok(grant) => shared.graces.recall(&key, grant, (shared.clock.now(), window)),
            Err(fault) => unusable(&Place::new(Kind::Grant, key), &fault),
        };
        self.store.news(Kind::Grant, recall).await
    }
}

/// The day of a key of our own tokens.
fn day_of(name: &str) -> Option<Day> {
    name.strip_prefix(OWN_TOKEN)?.parse().ok().map(Day)
}

/// What another process heard of a write is over here too: answers, and what is under way to become one (A2).
fn learn(shared: &Shared, end: End) {
    let of_answers = if let Whose::Answers { replays } = end.whose { Some(replays) } else { None };
    if let (true, Some(replays)) = (shared.graces.learn(end), of_answers) {
        shared.answers.forget_all();
        if replays {
            shared.replays.forget_all();
        }
    }
}

fn unusable(place: &Place, fault: &dyn std::error::Error) {
    tracing::warn!(store.record = %place, store.cause = %fault, "a record of the store can't be used");
}
