//! What stands before a real store. Nobody waits for it but the start: a change is queued and written by a task of
//! its own, and while the store is down, slow or read-only the queue waits and everything goes on with what is known.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::future::join_all;
use tokio::{
    sync::{Notify, watch},
    time,
};
use tracing::{error, info, warn};
use zeroize::Zeroizing;

use super::backend::{Backend, Doing, Ear, Kept, LONGEST, Page, StoreFault, Write, Written};
use crate::{
    decisions::record::{
        Kind, Place,
        seal::{Opened, SealRing},
    },
    words::clock::{Clock, UnixTime},
};

/// A store that takes longer for one call counts as one that doesn't answer.
const SLOW: Duration = Duration::from_secs(2);
/// Nor is a kind's reading waited for any longer, however many pages it has.
const WHOLE: Duration = Duration::from_secs(20);
/// Between two tries of a store that failed.
const RETRY: Duration = Duration::from_secs(1);
/// A store is asked so often whether it is there and has changed: what another replica wrote is seen within a
/// second.
const BEAT: Duration = Duration::from_millis(400);
/// Changes that wait at most, and their bytes: past it new ones are dropped and counted. Grants, of which there are many
/// and each comes again, have a half of it, and aren't counted.
const WAITING: usize = 100_000;
const WAITING_BYTES: usize = 64 << 20;
/// Changes written in one call, and records read in one.
const AT_ONCE: usize = 256;
/// A record is removed when it has been over for so long: this clock, or the one that wrote it, may be ahead.
const SWEPT: Duration = Duration::from_hours(24);
/// Writers that come in between, one after the other, before a change goes back to the queue.
const TRIES: usize = 8;
/// Records that don't open and are named; the others are counted.
const NAMED: usize = 16;
/// What says that something is ended.
const ENDS: [Kind; 2] = [Kind::Revocation, Kind::End];
/// Why a change can't be kept at all.
const TAKEN: &str = "its place, and the one beside it, have records that don't open";
/// Between two looks whether an operator has removed what doesn't open.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// Places whose last generation is remembered after they were emptied here.
const EMPTIED: usize = 10_000;

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

/// One record in a place or beside it.
struct Record {
    at: Place,
    plain: Zeroizing<Vec<u8>>,
    by_first: bool,
    expires: Option<UnixTime>,
}

/// One record as it was read.
#[derive(Debug)]
pub struct Loaded {
    pub key: String,
    pub plain: Zeroizing<Vec<u8>>,
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

#[derive(Clone, Debug)]
enum Change {
    Keep {
        plain: Zeroizing<Vec<u8>>,
        expires: Option<UnixTime>,
    },
    /// Only the generation that was `judged`, where that is given: what somebody wrote since stays.
    Forget {
        judged: Option<u64>,
    },
}

/// Why a record adds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shut {
    /// A higher generation of it was seen.
    PutBack,
    Seal,
}

/// The last ones, by their generations.
#[derive(Debug, Default)]
struct Emptied {
    generations: HashMap<Place, u64>,
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

/// What a store was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Read,
    Write,
}

/// What became of the changes of a kind.
enum Step {
    Nothing,
    Written,
    Failed(StoreFault),
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

    fn of(&self, kind: Kind) -> impl Iterator<Item = &Place> {
        let begin = Place::new(kind, "");
        self.waiting.range(begin..).map(|(place, _)| place).take_while(move |place| place.kind == kind)
    }
}

impl Change {
    fn bytes(&self) -> usize {
        match self {
            Self::Keep { plain, .. } => plain.len(),
            Self::Forget { .. } => 0,
        }
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

    /// All records of a kind that open and aren't over. What was sealed by a former key is sealed again, and what has
    /// long been over is removed, both in the background.
    pub async fn load(&self, kind: Kind) -> Result<Vec<Loaded>, StoreFault> {
        let read = self.read_within(WHOLE, kind).await;
        self.note(Asked::Read, read.as_ref().map(|_| ()));
        let Page { records, junk, .. } = read?;
        let read: BTreeMap<Place, Kept> =
            records.into_iter().map(|(key, kept)| (Place::new(kind, key), kept)).collect();
        let junk: BTreeSet<Place> = junk.into_iter().map(|key| Place::new(kind, key)).collect();
        self.forget_shut(|place| place.kind == kind && !read.contains_key(place) && !junk.contains(place));
        for place in junk {
            self.shut(&place, &StoreFault::Foreign.to_string());
        }
        // In their order: what is beside a place comes after what is in it, and is the later word mostly.
        let mut found: BTreeMap<Place, Vec<Record>> = BTreeMap::new();
        for (at, kept) in read {
            let Some(kept) = self.again_if_doubted(&at, kept).await? else { continue };
            if let Some(Opened { plain, by_first }) = self.take_in(&at, &kept) {
                let owner = at.owner().unwrap_or_else(|| at.clone());
                let record = Record { at, plain, by_first, expires: kept.expires };
                found.entry(owner).or_default().push(record);
            }
        }
        self.tell_more();
        Ok(found.into_iter().filter_map(|(place, records)| self.one_of(place, records)).collect())
    }

    /// What is kept of one place, in it and beside it. What isn't where it should be, or not sealed as it should be, is
    /// written anew.
    fn one_of(&self, place: Place, records: Vec<Record>) -> Option<Loaded> {
        let home = self.home(&place);
        let is_home = records.iter().all(|record| record.at == home && record.by_first);
        let mut records = records.into_iter();
        let mut all = records.next()?;
        for other in records {
            all.plain = Zeroizing::new(place.kind.merge(&all.plain, &other.plain, self.clock.now()));
            all.expires = later(all.expires, other.expires);
            if other.at != home {
                self.queue(other.at, Change::Forget { judged: None });
            }
        }
        if !is_home {
            self.queue_unless_newer(
                place.clone(),
                Change::Keep { plain: all.plain.clone(), expires: all.expires },
            );
            if all.at != home {
                self.queue(all.at, Change::Forget { judged: None });
            }
        }
        Some(Loaded { key: place.key, plain: all.plain })
    }

    /// What an operator removed doesn't stand in anybody's way any more.
    fn forget_shut(&self, is_gone: impl Fn(&Place) -> bool) {
        let mut state = self.state();
        state.shut.retain(|place| !is_gone(place));
        let gone: Vec<Place> = state.unopened.keys().filter(|place| is_gone(place)).cloned().collect();
        for place in gone {
            state.is_well(&place);
        }
    }

    /// Where what belongs to a place is written.
    fn home(&self, place: &Place) -> Place {
        if self.state().shut.contains(place) { place.beside(self.seals.first()) } else { place.clone() }
    }

    /// Where a change of a place goes: what was judged is what stands there.
    fn target(&self, place: &Place, change: &Change) -> Place {
        match change {
            Change::Forget { judged: Some(_) } => place.clone(),
            Change::Forget { judged: None } | Change::Keep { .. } => self.home(place),
        }
    }

    async fn read_within(&self, most: Duration, kind: Kind) -> Result<Page, StoreFault> {
        time::timeout(most, self.read_all(kind)).await.unwrap_or(Err(StoreFault::Slow(most)))
    }

    /// All pages as one.
    async fn read_all(&self, kind: Kind) -> Result<Page, StoreFault> {
        let mut all = Page::default();
        let each = |page: Page| {
            all.records.extend(page.records);
            all.junk.extend(page.junk);
        };
        self.read_pages(kind, each).await?;
        Ok(all)
    }

    async fn read_pages(&self, kind: Kind, mut each: impl FnMut(Page) + Send) -> Result<(), StoreFault> {
        // Asked for before: what is written while we read shows at the next beat.
        let revision = in_time(self.backend.revision(kind)).await?;
        self.state().revisions.insert(kind, revision);
        let mut from = None;
        loop {
            let mut page = in_time(self.backend.page(kind, from.as_ref(), AT_ONCE)).await?;
            from = page.next.take();
            each(page);
            if from.is_none() {
                return Ok(());
            }
        }
    }

    /// The records of a kind that were neither read nor written here as they are now, page by page: `take` has each.
    /// Else as [`Self::load`].
    pub async fn news(&self, kind: Kind, mut take: impl FnMut(Loaded) + Send) -> Result<(), StoreFault> {
        let (mut there, is_shared) = (HashSet::new(), self.is_shared());
        let mut doubted = Vec::new();
        let read = self.read_pages(kind, |page| {
            for key in page.junk {
                self.shut(&Place::new(kind, key), &StoreFault::Foreign.to_string());
            }
            for (key, kept) in page.records {
                let at = Place::new(kind, key);
                if is_shared {
                    there.insert(at.clone());
                }
                let known = self.state().generations.get(&at).copied();
                if self.looks_put_back(&at, &kept) {
                    doubted.push((at, kept));
                } else if known != Some(kept.generation) || self.is_over(&kept) {
                    self.news_at(at, &kept).into_iter().for_each(&mut take);
                }
            }
        });
        let mut read = read.await;
        for (at, kept) in doubted {
            match self.again_if_doubted(&at, kept).await {
                Ok(Some(kept)) => self.news_at(at, &kept).into_iter().for_each(&mut take),
                Ok(None) => {}
                Err(fault) => read = Err(fault),
            }
        }
        self.note(Asked::Read, read.as_ref().copied());
        self.tell_more();
        if is_shared && read.is_ok() {
            // What others removed is remembered no more.
            self.state().generations.retain(|place, _| place.kind != kind || there.contains(place));
        }
        read
    }

    fn looks_put_back(&self, at: &Place, kept: &Kept) -> bool {
        self.state().generations.get(at).is_some_and(|known| kept.generation < *known)
    }

    /// A record of an earlier generation was put back, or written here while it was read: then it is there by now.
    async fn again_if_doubted(&self, at: &Place, kept: Kept) -> Result<Option<Kept>, StoreFault> {
        if self.looks_put_back(at, &kept) { in_time(self.backend.get(at)).await } else { Ok(Some(kept)) }
    }

    /// What is beside a place that isn't shut any more has had its day: what is read so is of use for a while alone.
    fn news_at(&self, at: Place, kept: &Kept) -> Option<Loaded> {
        let Opened { plain, by_first } = self.take_in(&at, kept)?;
        let owner = at.owner().unwrap_or_else(|| at.clone());
        if at == self.home(&owner) {
            return self.one_of(owner, vec![Record { at, plain, by_first, expires: kept.expires }]);
        }
        self.queue(at, Change::Forget { judged: Some(kept.generation) });
        None
    }

    /// Whether anybody, we among them, has written records of this kind since they were last read.
    pub async fn has_moved(&self, kind: Kind) -> Result<bool, StoreFault> {
        let revision = in_time(self.backend.revision(kind)).await?;
        Ok(self.state().revisions.get(&kind) != Some(&revision))
    }

    /// Whether other processes write to it too.
    pub fn is_shared(&self) -> bool {
        self.backend.is_shared()
    }

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
            if let Some(kept) = in_time(self.backend.get(place)).await? {
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

    fn is_over(&self, kept: &Kept) -> bool {
        kept.expires.is_some_and(|at| at <= self.clock.now())
    }

    fn take_in(&self, place: &Place, kept: &Kept) -> Option<Opened> {
        let now = self.clock.now();
        let Some(end) = kept.expires.filter(|end| *end <= now) else { return self.open(place, kept).ok() };
        // That something is ended no more is believed only of what is sealed.
        let is_believed = !ENDS.contains(&place.kind) || self.open(place, kept).is_ok();
        if is_believed && end.plus(SWEPT) <= now {
            self.queue_unless_newer(place.clone(), Change::Forget { judged: Some(kept.generation) });
        }
        None
    }

    /// A record that doesn't open adds nothing, is named once, and stays where it is.
    fn open(&self, place: &Place, kept: &Kept) -> Result<Opened, Shut> {
        let known = self.state().generations.get(place).copied().unwrap_or_default();
        if kept.generation < known {
            let why = format!("it was put back: its generation was {known} and is {}", kept.generation);
            self.tell_shut(place, &why);
            return Err(Shut::PutBack);
        }
        let opened = self.seals.open(place, kept.generation, kept.expires, &kept.sealed);
        let opened = opened.map_err(|fault| {
            self.shut(place, &fault.to_string());
            Shut::Seal
        })?;
        let mut state = self.state();
        state.generations.insert(place.clone(), kept.generation);
        state.is_well(place);
        state.shut.remove(place);
        drop(state);
        Ok(opened)
    }

    /// What is there has the place for good.
    fn shut(&self, place: &Place, why: &str) {
        self.state().shut.insert(place.clone());
        self.tell_shut(place, why);
    }

    fn tell_shut(&self, place: &Place, why: &str) {
        let mut state = self.state();
        let known = state.unopened.get(place).map(|why| !why.is_empty());
        let is_named = known == Some(true) || state.named < NAMED;
        state.unopened.insert(place.clone(), if is_named { why.to_owned() } else { String::new() });
        if is_named && known != Some(true) {
            state.named += 1;
            state.told = state.told.max(state.unopened.len());
            drop(state);
            error!(
                store.name = self.name(), store.record = %place, store.cause = %why,
                "a record of the store doesn't open; it counts as not there and stays where it is, and what belongs there is kept beside it"
            );
        }
    }

    /// Of very many, those that weren't named.
    fn tell_more(&self) {
        let mut state = self.state();
        let (count, told) = (state.unopened.len(), state.told);
        state.told = count;
        drop(state);
        if count > told.max(NAMED) {
            error!(
                store.name = self.name(), store.cause = %format!("{count} records in all"),
                "more records of the store don't open; they count as not there and stay where they are"
            );
        }
    }

    /// It can't be kept, now or later.
    fn give_up(&self, place: &Place, why: &dyn std::fmt::Display) {
        self.state().dropped += 1;
        error!(store.name = self.name(), store.record = %place, store.cause = %why, "a record is not kept");
    }

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

    fn queue(&self, place: Place, change: Change) -> bool {
        let mut state = self.state();
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

    fn queue_unless_newer(&self, place: Place, change: Change) {
        if !self.state().waiting.contains_key(&place) {
            self.queue(place, change);
        }
    }

    /// Waits until everything is written, at most so long; whether it is.
    pub async fn written_within(&self, most: Duration) -> bool {
        let mut pending = self.pending.subscribe();
        time::timeout(most, pending.wait_for(|pending| *pending == 0))
            .await
            .is_ok_and(|waited| waited.is_ok())
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

    /// What is revoked or ended goes first and alone; then each other kind for itself, so that one kind's fault (the node of a
    /// Cluster that has it is lost) keeps no other one from being written.
    async fn write_all(&self) {
        let (mut open, mut fault, mut is_written) = (Kind::ALL.to_vec(), None, false);
        while !open.is_empty() {
            let (first, rest): (Vec<Kind>, Vec<Kind>) = open.iter().partition(|kind| ENDS.contains(kind));
            open.clear();
            for kinds in [first, rest] {
                let steps = join_all(kinds.iter().map(|kind| self.write_kind(*kind))).await;
                for (kind, step) in kinds.into_iter().zip(steps) {
                    match step {
                        Step::Nothing => {}
                        Step::Written => open.push(kind),
                        Step::Failed(failed) => drop(fault.get_or_insert(failed)),
                    }
                }
            }
            is_written |= !open.is_empty();
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
        result.map_or_else(Step::Failed, |()| Step::Written)
    }

    fn take(&self, kind: Kind) -> Vec<(Place, Change)> {
        let mut state = self.state();
        let most = state.at_once.unwrap_or(AT_ONCE);
        let places: Vec<Place> = state.of(kind).take(most).cloned().collect();
        let batch: Vec<_> = places.iter().filter_map(|place| state.waiting.remove_entry(place)).collect();
        state.bytes -= batch.iter().map(|(_, change)| change.bytes()).sum::<usize>();
        state.writing += batch.len();
        batch
    }

    /// What of a batch is left to do, and why: what was done isn't done again.
    async fn write(&self, batch: Vec<(Place, Change)>) -> (Vec<(Place, Change)>, Result<(), StoreFault>) {
        let known = |place: &Place| self.state().generations.get(place).copied();
        let sealed = |(place, change): &(Place, Change)| {
            let home = self.target(place, change);
            self.sealed(&home, change, known(&home))
        };
        let (changes, writes): (Vec<_>, Vec<Write>) =
            batch.into_iter().filter_map(|change| sealed(&change).map(|write| (change, write))).unzip();
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
        (left, fault.map_or(Ok(()), Err))
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

    fn tell_pending(&self, state: &State) {
        self.pending.send_replace(state.waiting.len() + state.writing);
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
