//! Writing: over the generation that is known; where another one is there, both become one record.

use std::collections::{HashMap, VecDeque};

use futures_util::future::join_all;
use zeroize::Zeroizing;

use super::{
    super::backend::{Kept, StoreFault, Write, Written},
    AT_ONCE, Asked, ENDS, Store, TRIES, in_time, later,
    queue::Change,
    reading::Shut,
};
use crate::decisions::record::{Kind, Place, seal::Opened};

/// Why a change can't be kept at all.
const TAKEN: &str = "its place, and the one beside it, have records that don't open";
/// Places whose last generation is remembered after they were emptied here.
const EMPTIED: usize = 10_000;

/// The last ones, by their generations.
#[derive(Debug, Default)]
pub(super) struct Emptied {
    pub(super) generations: HashMap<Place, u64>,
    order: VecDeque<Place>,
}

impl Emptied {
    fn note(&mut self, place: &Place, generation: u64) {
        if self.generations.insert(place.clone(), generation).is_none() {
            self.order.push_back(place.clone());
        }
        if self.order.len() > EMPTIED
            && let Some(first) = self.order.pop_front()
        {
            self.generations.remove(&first);
        }
    }
}

/// What became of the changes of a kind.
enum Step {
    Nothing,
    /// Whether it was asked to write any.
    Written(bool),
    Failed(StoreFault),
}

impl Store {
    /// What this place holds; it is `plain` where it held nothing, written when this comes back. `None` = what it holds
    /// doesn't open.
    pub async fn first(&self, place: &Place, plain: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>, StoreFault> {
        let first = self.try_first(place, plain).await;
        if let Err(fault) = &first {
            // That one place could be read says nothing of writes.
            self.note(Asked::Write, Err(fault));
        }
        first
    }

    async fn try_first(&self, place: &Place, plain: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>, StoreFault> {
        let change = Change::Keep { plain: plain.to_vec().into(), expires: None };
        for _ in 0..TRIES {
            if let Some(kept) = in_time(self.backend.get(place)).await?
                && let Some(kept) = self.again_if_doubted(place, kept).await?
            {
                let Ok(Opened { plain, by_first }) = self.open(place, &kept) else { return Ok(None) };
                if !by_first {
                    let change = Change::Keep { plain: plain.clone(), expires: kept.expires };
                    self.queue_unless_newer(place.clone(), change);
                }
                return Ok(Some(plain));
            }
            let Some(write) = self.sealed(place, &change, None) else { return Ok(None) };
            if in_time(self.backend.put(vec![write.clone()])).await?.first() == Some(&Written::Done) {
                self.done(&write);
                return Ok(Some(plain.to_vec().into()));
            }
        }
        Ok(None)
    }

    /// What is revoked or ended goes first and alone; then each other kind for itself, so that one kind's fault (the node of a
    /// Cluster that has it is lost) keeps no other one from being written.
    pub(super) async fn write_all(&self) {
        let (mut open, mut fault, mut is_written) = (Kind::ALL.to_vec(), None, false);
        while !open.is_empty() {
            let (first, rest): (Vec<Kind>, Vec<Kind>) = open.iter().partition(|kind| ENDS.contains(kind));
            open.clear();
            for kinds in [first, rest] {
                let steps = join_all(kinds.iter().map(|kind| self.write_kind(*kind))).await;
                for (kind, step) in kinds.into_iter().zip(steps) {
                    match step {
                        Step::Nothing => {}
                        Step::Written(any) => {
                            open.push(kind);
                            is_written |= any;
                        }
                        Step::Failed(failed) => drop(fault.get_or_insert(failed)),
                    }
                }
            }
        }
        match fault {
            Some(fault) => self.note(Asked::Write, Err(&fault)),
            None if is_written => self.note(Asked::Write, Ok(())),
            None => {}
        }
    }

    async fn write_kind(&self, kind: Kind) -> Step {
        let batch = self.take(kind);
        if batch.is_empty() {
            return Step::Nothing;
        }
        let count = batch.len();
        let (left, result) = self.write(batch).await;
        let mut state = self.state();
        state.writing -= count;
        // What a store couldn't do in time at once it does in parts.
        let at_once = state.at_once.unwrap_or(AT_ONCE);
        let next = if result.is_ok() { at_once.saturating_mul(2) } else { count / 4 };
        state.at_once = Some(next.clamp(1, AT_ONCE));
        drop(state);
        for (place, change) in left {
            self.queue_unless_newer(place, change);
        }
        self.tell_pending(&self.state());
        result.map_or_else(Step::Failed, Step::Written)
    }

    /// What of a batch is left to do, and why: what was done isn't done again.
    /// Whether there was any: what is to be removed and isn't there is nothing to write, and shows no store that takes
    /// writes.
    async fn write(&self, batch: Vec<(Place, Change)>) -> (Vec<(Place, Change)>, Result<bool, StoreFault>) {
        let known = |place: &Place| self.state().generations.get(place).copied();
        let sealed = |(place, change): &(Place, Change)| {
            let home = self.target(place, change);
            self.sealed(&home, change, known(&home))
        };
        let (changes, writes): (Vec<_>, Vec<Write>) =
            batch.into_iter().filter_map(|change| sealed(&change).map(|write| (change, write))).unzip();
        if writes.is_empty() {
            return (changes, Ok(false));
        }
        let results = match in_time(self.backend.put(writes.clone())).await {
            Ok(results) => results,
            Err(fault) => return (changes, Err(fault)),
        };
        let (mut left, mut fault) = (Vec::new(), None);
        for (((place, change), write), written) in changes.into_iter().zip(&writes).zip(results) {
            let done = match (written, &fault) {
                (Written::Done, _) => {
                    self.done(write);
                    Ok(())
                }
                (Written::Refused(why), _) => Err(StoreFault::Unavailable(why)),
                (Written::Other(_), None) => self.settle(&place, change.clone()).await,
                (Written::Other(_), Some(fault)) => Err(StoreFault::clone(fault)),
            };
            if let Err(failed) = done {
                left.push((place, change));
                fault.get_or_insert(failed);
            }
        }
        (left, fault.map_or(Ok(true), Err))
    }

    /// Somebody else wrote this place: what they wrote and what we want become one record.
    async fn settle(&self, place: &Place, mut change: Change) -> Result<(), StoreFault> {
        for _ in 0..TRIES {
            let home = self.target(place, &change);
            let present = match in_time(self.backend.get(&home)).await {
                Err(StoreFault::Foreign) => {
                    self.shut(&home, &StoreFault::Foreign.to_string());
                    if home == *place {
                        continue;
                    }
                    self.give_up(place, &TAKEN);
                    return Ok(());
                }
                present => present?,
            };
            let present = match present {
                Some(kept) => self.again_if_doubted(&home, kept).await?,
                None => None,
            };
            if let Some(kept) = &present {
                if matches!(change, Change::Forget { judged: Some(judged) } if judged != kept.generation) {
                    return Ok(());
                }
                match (self.open(&home, kept), &mut change) {
                    (Ok(present), Change::Keep { plain: ours, expires }) => {
                        *ours = Zeroizing::new(place.kind.merge(&present.plain, ours, self.clock.now()));
                        *expires = later(*expires, kept.expires);
                    }
                    // What was put back is ours to put right: a server that lost its last writes looks like that too.
                    (Ok(_), Change::Forget { .. })
                    | (Err(Shut::PutBack), _)
                    | (Err(Shut::Seal), Change::Forget { judged: Some(_) }) => {}
                    (Err(Shut::Seal), _) if home == *place => continue,
                    // Nor does what is beside it.
                    (Err(Shut::Seal), _) => {
                        self.give_up(place, &TAKEN);
                        return Ok(());
                    }
                }
            }
            let over = present.as_ref().map(|kept| kept.generation);
            let Some(mut write) = self.sealed(&home, &change, over) else { return Ok(()) };
            write.over = over;
            if in_time(self.backend.put(vec![write.clone()])).await?.first() == Some(&Written::Done) {
                self.done(&write);
                return Ok(());
            }
        }
        self.queue_unless_newer(place.clone(), change);
        Ok(())
    }

    /// The write of a change over this generation; `None` where there is nothing to do.
    fn sealed(&self, place: &Place, change: &Change, over: Option<u64>) -> Option<Write> {
        let place = place.clone();
        match change {
            Change::Forget { judged } => {
                let over = judged.or(over);
                over.map(|_| Write { place, over, kept: None })
            }
            Change::Keep { plain, expires } => {
                let state = self.state();
                let known = state.generations.get(&place).max(state.emptied.generations.get(&place));
                let highest = known.copied().max(over);
                drop(state);
                let generation = highest.unwrap_or_default().saturating_add(1);
                let sealed = self.seals.seal(&place, generation, *expires, plain);
                let sealed = sealed.inspect_err(|fault| self.give_up(&place, fault));
                let kept = Kept { generation, expires: *expires, sealed: sealed.ok()? };
                Some(Write { place, over, kept: Some(kept) })
            }
        }
    }

    fn done(&self, write: &Write) {
        let mut state = self.state();
        if let Some(kept) = &write.kept {
            state.generations.insert(write.place.clone(), kept.generation);
        } else {
            let last = state.generations.remove(&write.place).max(write.over);
            state.emptied.note(&write.place, last.unwrap_or_default());
        }
        state.is_well(&write.place);
    }

    /// Where what belongs to a place is written.
    pub(super) fn home(&self, place: &Place) -> Place {
        if self.state().shut.contains(place) { place.beside(self.seals.first()) } else { place.clone() }
    }

    /// Where a change of a place goes: what was judged is what stands there.
    fn target(&self, place: &Place, change: &Change) -> Place {
        match change {
            Change::Forget { judged: Some(_) } => place.clone(),
            Change::Forget { judged: None } | Change::Keep { .. } => self.home(place),
        }
    }
}
