//! What waits to be written: bounded, and of two changes of one place the later one.

use std::{sync::MutexGuard, time::Duration};

use tokio::time;
use tracing::error;
use zeroize::Zeroizing;

use super::{super::backend::LONGEST, AT_ONCE, State, Store};
use crate::{
    decisions::record::{Kind, Place},
    words::clock::UnixTime,
};

/// Changes that wait at most, and their bytes: past it new ones are dropped and counted. Grants, of which there are many
/// and each comes again, have a half of it, and aren't counted.
pub(super) const WAITING: usize = 100_000;
const WAITING_BYTES: usize = 64 << 20;

#[derive(Clone, Debug)]
pub(super) enum Change {
    Keep {
        plain: Zeroizing<Vec<u8>>,
        expires: Option<UnixTime>,
    },
    /// Only the generation that was `judged`, where that is given: what somebody wrote since stays.
    Forget {
        judged: Option<u64>,
    },
}

impl Change {
    fn bytes(&self) -> usize {
        match self {
            Self::Keep { plain, .. } => plain.len(),
            Self::Forget { .. } => 0,
        }
    }
}

impl State {
    fn of(&self, kind: Kind) -> impl Iterator<Item = &Place> {
        let begin = Place::new(kind, "");
        self.waiting.range(begin..).map(|(place, _)| place).take_while(move |place| place.kind == kind)
    }
}

impl Store {
    /// Has this written, soon and without anybody waiting. Of two changes of one place the later one counts. Whether
    /// there was room for it.
    pub fn keep(&self, place: Place, plain: Vec<u8>, expires: Option<UnixTime>) -> bool {
        if plain.len() > LONGEST {
            self.give_up(&place, &format!("it has more than {LONGEST} bytes"));
            return false;
        }
        self.queue(place, Change::Keep { plain: Zeroizing::new(plain), expires })
    }

    /// Has this removed.
    pub fn forget(&self, place: Place) {
        self.queue(place, Change::Forget { judged: None });
    }

    pub(super) fn queue(&self, place: Place, change: Change) -> bool {
        self.add(self.state(), place, change)
    }

    pub(super) fn queue_unless_newer(&self, place: Place, change: Change) {
        let state = self.state();
        if !state.waiting.contains_key(&place) {
            self.add(state, place, change);
        }
    }

    fn add(&self, mut state: MutexGuard<'_, State>, place: Place, change: Change) -> bool {
        let before = state.waiting.get(&place).map(Change::bytes);
        let bytes = state.bytes - before.unwrap_or_default() + change.bytes();
        let part = if place.kind == Kind::Grant { 2 } else { 1 };
        if before.is_none() && (state.waiting.len() >= WAITING / part || bytes > WAITING_BYTES / part) {
            state.dropped += u64::from(part == 1);
            return false;
        }
        state.bytes = bytes;
        state.waiting.insert(place, change);
        self.tell_pending(&state);
        drop(state);
        self.wake.notify_one();
        true
    }

    /// Waits until everything is written, at most so long; whether it is.
    pub async fn written_within(&self, most: Duration) -> bool {
        let mut pending = self.pending.subscribe();
        time::timeout(most, pending.wait_for(|pending| *pending == 0))
            .await
            .is_ok_and(|waited| waited.is_ok())
    }

    pub(super) fn take(&self, kind: Kind) -> Vec<(Place, Change)> {
        let mut state = self.state();
        let most = state.at_once.unwrap_or(AT_ONCE);
        let places: Vec<Place> = state.of(kind).take(most).cloned().collect();
        let batch: Vec<_> = places.iter().filter_map(|place| state.waiting.remove_entry(place)).collect();
        state.bytes -= batch.iter().map(|(_, change)| change.bytes()).sum::<usize>();
        state.writing += batch.len();
        batch
    }

    pub(super) fn tell_pending(&self, state: &State) {
        self.pending.send_replace(state.waiting.len() + state.writing);
    }

    /// It can't be kept, now or later.
    pub(super) fn give_up(&self, place: &Place, why: &dyn std::fmt::Display) {
        self.state().dropped += 1;
        error!(store.name = self.name(), store.record = %place, store.cause = %why, "a record is not kept");
    }
}
