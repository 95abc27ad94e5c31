//! Reading: what opens and counts, what doesn't open and stays where it is, and what has long been over.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    time::Duration,
};

use tokio::time;
use tracing::error;
use zeroize::Zeroizing;

use super::{
    super::backend::{Kept, Page, StoreFault},
    AT_ONCE, Asked, ENDS, Loaded, NAMED, Store, TRIES, in_time, later,
    queue::Change,
};
use crate::{
    decisions::record::{Kind, Place, seal::Opened},
    words::clock::UnixTime,
};

/// Nor is a kind's reading waited for any longer, however many pages it has.
const WHOLE: Duration = Duration::from_secs(20);
/// A record is removed when it has been over for so long: this clock, or the one that wrote it, may be ahead.
const SWEPT: Duration = Duration::from_hours(24);

/// One record in a place or beside it.
struct Record {
    at: Place,
    plain: Zeroizing<Vec<u8>>,
    by_first: bool,
    expires: Option<UnixTime>,
}

/// Why a record adds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shut {
    /// A higher generation of it was seen.
    PutBack,
    Seal,
}

impl Store {
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
            let again = self.again_if_doubted(&at, kept).await;
            let Some(kept) = again.inspect_err(|fault| self.note(Asked::Read, Err(fault)))? else { continue };
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
        Some(Loaded { key: place.key, plain: all.plain, expires: all.expires })
    }

    /// What an operator removed doesn't stand in anybody's way any more.
    pub(super) fn forget_shut(&self, is_gone: impl Fn(&Place) -> bool) {
        let mut state = self.state();
        state.shut.retain(|place| !is_gone(place));
        let gone: Vec<Place> = state.unopened.keys().filter(|place| is_gone(place)).cloned().collect();
        for place in gone {
            state.is_well(&place);
        }
    }

    pub(super) async fn read_within(&self, most: Duration, kind: Kind) -> Result<Page, StoreFault> {
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
                if known.is_some_and(|known| kept.generation < known) {
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

    /// A record of an earlier generation than is known was put back; or a later one was written here while it was read,
    /// and is there by now.
    pub(super) async fn again_if_doubted(&self, at: &Place, kept: Kept) -> Result<Option<Kept>, StoreFault> {
        let known = || self.state().generations.get(at).copied().unwrap_or_default();
        let (mut before, mut there) = (0, kept);
        for _ in 0..TRIES {
            let now = known();
            // What was asked for when a later one was known already is what is there.
            if there.generation >= now || there.generation < before {
                break;
            }
            before = now;
            let Some(again) = in_time(self.backend.get(at)).await? else { return Ok(None) };
            there = again;
        }
        Ok(Some(there))
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
    pub(super) fn open(&self, place: &Place, kept: &Kept) -> Result<Opened, Shut> {
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
    pub(super) fn shut(&self, place: &Place, why: &str) {
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
}
