//! What stands before a real store. Nobody waits for it but the start: a change is queued and written by a task of
//! its own, and while the store is down, slow or read-only the queue waits and everything goes on with what is known.

mod queue;
mod reading;
mod writing;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::future::join_all;
use tokio::{
    sync::{Notify, watch},
    time,
};
use tracing::{info, warn};
use zeroize::Zeroizing;

use self::{queue::Change, writing::Emptied};
use super::backend::{Backend, Doing, Ear, StoreFault};
use crate::{
    decisions::record::{Kind, Place, seal::SealRing},
    words::clock::{Clock, UnixTime},
};

/// A store that takes longer for one call counts as one that doesn't answer.
const SLOW: Duration = Duration::from_secs(2);
/// Between two tries of a store that failed.
const RETRY: Duration = Duration::from_secs(1);
/// A store is asked so often whether it is there and has changed: what another replica wrote is seen within a
/// second.
const BEAT: Duration = Duration::from_millis(400);
/// Writers that come in between, one after the other, before a change goes back to the queue.
const TRIES: usize = 8;
/// Changes written in one call, and records read in one.
const AT_ONCE: usize = 256;
/// Records that don't open and are named; the others are counted.
const NAMED: usize = 16;
/// What says that something is ended.
const ENDS: [Kind; 2] = [Kind::Revocation, Kind::End];
/// Between two looks whether an operator has removed what doesn't open.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// One store with its seals and its queue.
#[derive(Debug)]
pub struct Store {
    backend: Arc<dyn Backend>,
    seals: SealRing,
    clock: Clock,
    state: Mutex<State>,
    wake: Notify,
    heard: Notify,
    pending: watch::Sender<usize>,
    changed: watch::Sender<u64>,
}

/// How the store is, for readiness, metrics and alarms.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Since when it doesn't do what it is asked, and why; `None` = all is well.
    pub degraded: Option<(UnixTime, String)>,
    /// Changes that aren't written yet.
    pub waiting: usize,
    /// Changes that were given up since the start, for want of room or because their place is taken for good.
    pub dropped: u64,
    /// Records that don't open, by their places, and why: the first ones.
    pub unopened: Vec<(String, String)>,
    /// All of those.
    pub unopened_count: usize,
    /// Those among them that may say that something was ended.
    pub unopened_revocations: usize,
}

/// One record as it was read.
#[derive(Debug)]
pub struct Loaded {
    pub key: String,
    pub plain: Zeroizing<Vec<u8>>,
    /// From then on it means nothing; `None` = never.
    pub expires: Option<UnixTime>,
}

#[derive(Debug, Default)]
struct State {
    /// In the order of their kinds.
    waiting: BTreeMap<Place, Change>,
    bytes: usize,
    writing: usize,
    /// How many changes the next call has: fewer after one that took too long.
    at_once: Option<usize>,
    /// The highest generation seen of each place: one below it was put back (A21).
    generations: HashMap<Place, u64>,
    /// Of places that were emptied here, so that they don't begin again with a generation that was there.
    emptied: Emptied,
    revisions: HashMap<Kind, u64>,
    /// Since when it can't be read, and why.
    unread: Option<(UnixTime, String)>,
    /// Since when it takes no writes, and why. That it can be read says nothing of that.
    unwritten: Option<(UnixTime, String)>,
    dropped: u64,
    /// By their places; why, of those that are named.
    unopened: BTreeMap<Place, String>,
    /// How many of them are named.
    named: usize,
    /// How many of them the log knows of.
    told: usize,
    /// Places whose record doesn't open. It is left alone, and what belongs there is kept beside it.
    shut: HashSet<Place>,
}

/// What a store was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Read,
    Write,
}

impl State {
    /// There is no reason any more to tell of a place.
    fn is_well(&mut self, place: &Place) {
        if self.unopened.remove(place).is_some_and(|why| !why.is_empty()) {
            self.named -= 1;
        }
    }

    /// Since when, and why, of the longer trouble.
    fn degraded(&self) -> Option<&(UnixTime, String)> {
        self.unread.iter().chain(&self.unwritten).min_by_key(|(since, _)| *since)
    }
}

impl Store {
    pub fn new(backend: Arc<dyn Backend>, seals: SealRing, clock: Clock) -> Self {
        Self {
            backend,
            seals,
            clock,
            state: Mutex::default(),
            wake: Notify::new(),
            heard: Notify::new(),
            pending: watch::Sender::new(0),
            changed: watch::Sender::new(0),
        }
    }

    /// What an operator calls it.
    pub fn name(&self) -> &str {
        self.backend.name()
    }

    /// How it is now.
    pub fn health(&self) -> Health {
        let state = self.state();
        Health {
            degraded: state.degraded().cloned(),
            waiting: state.waiting.len() + state.writing,
            dropped: state.dropped,
            unopened: state
                .unopened
                .iter()
                .filter(|(_, why)| !why.is_empty())
                .take(NAMED)
                .map(|(place, why)| (place.to_string(), why.clone()))
                .collect(),
            unopened_count: state.unopened.len(),
            unopened_revocations: state
                .unopened
                .keys()
                .filter(|place| place.kind == Kind::Revocation)
                .count(),
        }
    }

    /// The names of a kind's records that don't open; of what is beside a place, the place's.
    pub fn unopened(&self, kind: Kind) -> BTreeSet<String> {
        let state = self.state();
        let places = state.unopened.keys().filter(|place| place.kind == kind);
        places.map(|place| place.owner().unwrap_or_else(|| place.clone()).key).collect()
    }

    /// Told whenever another process may have written, and whenever a store that failed is back.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Whether other processes write to it too.
    pub fn is_shared(&self) -> bool {
        self.backend.is_shared()
    }

    /// Writes what is queued and looks for what others wrote, until `stop` is true or its sender is gone; then it
    /// tries once more.
    pub async fn run(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let mut beat = time::Instant::now();
        let mut looked = beat;
        let mut listening = std::pin::pin!(self.listen());
        loop {
            let failed = self.state().degraded().is_some();
            let is_due = tokio::select! {
                // An error says that the sender is gone, which is a stop too.
                _ = stop.wait_for(|stop| *stop) => break,
                () = time::sleep_until(beat + if failed { RETRY } else { BEAT }) => true,
                () = self.wake.notified(), if !failed => false,
                () = self.heard.notified(), if !failed => true,
                () = &mut listening => false,
            };
            if is_due {
                self.beat().await;
                beat = time::Instant::now();
            }
            if !failed && looked.elapsed() >= LOOK_AGAIN {
                self.look_for_removed().await;
                looked = time::Instant::now();
            }
            self.write_all().await;
        }
        self.write_all().await;
    }

    /// Listens where the store has it, for ever: what is missed shows at the next beat.
    async fn listen(&self) {
        loop {
            if let Some(beginning) = self.backend.listen()
                && let Ok(mut ear) = in_time(beginning).await
            {
                self.hear(&mut *ear).await;
            }
            time::sleep(RETRY).await;
        }
    }

    async fn hear(&self, ear: &mut dyn Ear) {
        while ear.heard().await.is_ok() {
            self.heard.notify_one();
        }
    }

    /// Asks whether the store is there, and whether others have written. One kind's fault keeps none from being seen.
    async fn beat(&self) {
        let asked =
            Kind::WATCHED.map(|kind| async move { (kind, in_time(self.backend.revision(kind)).await) });
        let (mut fault, mut is_other) = (None, false);
        for (kind, answer) in join_all(asked).await {
            match answer {
                Ok(revision) => {
                    let before = self.state().revisions.insert(kind, revision);
                    is_other |= before.is_some_and(|before| before != revision);
                }
                Err(failed) => drop(fault.get_or_insert(failed)),
            }
        }
        if is_other {
            self.changed.send_modify(|count| *count += 1);
        }
        let is_written = self.state().waiting.is_empty();
        if is_written && fault.is_none() {
            // Otherwise only a write shows that a store which refused one takes them again.
            self.note(Asked::Write, Ok(()));
        }
        self.note(Asked::Read, fault.as_ref().map_or(Ok(()), Err));
    }

    /// What an operator removed is no reason for an alarm any more.
    async fn look_for_removed(&self) {
        // A name with this in it was no text: nothing is found by it.
        let is_name = |place: &&Place| !place.key.contains(char::REPLACEMENT_CHARACTER);
        let places: Vec<_> = self.state().unopened.keys().filter(is_name).take(NAMED).cloned().collect();
        let mut gone = HashSet::new();
        for place in places {
            if matches!(in_time(self.backend.get(&place)).await, Ok(None)) {
                gone.insert(place);
            }
        }
        if !gone.is_empty() {
            self.forget_shut(|place| gone.contains(place));
            self.changed.send_modify(|count| *count += 1);
        }
    }

    fn note(&self, asked: Asked, result: Result<(), &StoreFault>) {
        let mut state = self.state();
        let before = state.degraded().cloned();
        let trouble = match asked {
            Asked::Read => &mut state.unread,
            Asked::Write => &mut state.unwritten,
        };
        let former = trouble.take();
        let is_over = former.is_some() && result.is_ok();
        *trouble = result
            .err()
            .map(|fault| (former.map_or_else(|| self.clock.now(), |(since, _)| since), fault.to_string()));
        let is_well = state.degraded().is_none();
        let waiting = state.waiting.len();
        drop(state);
        match (before, result) {
            (None, Err(fault)) => warn!(
                store.name = self.name(), store.cause = %fault, store.waiting = waiting,
                "the store doesn't do what it is asked; serving goes on, and changes wait"
            ),
            (Some((since, _)), Ok(())) if is_well => {
                let seconds = self.clock.now().since(since).as_secs();
                info!(store.name = self.name(), store.down_seconds = seconds, "the store is back");
            }
            _ => {}
        }
        if is_over {
            self.changed.send_modify(|count| *count += 1);
        }
    }

    // What it guards is whole at every step.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `None` is never.
fn later(a: Option<UnixTime>, b: Option<UnixTime>) -> Option<UnixTime> {
    a.zip(b).map(|(a, b)| a.max(b))
}

async fn in_time<T>(doing: Doing<'_, T>) -> Result<T, StoreFault> {
    time::timeout(SLOW, doing).await.unwrap_or(Err(StoreFault::Slow(SLOW)))
}

#[cfg(test)]
mod tests;
