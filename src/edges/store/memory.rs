//! No store: what is kept in memory alone, and gone with the process.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::backend::{Backend, Cursor, Doing, Kept, Page, Write, Written};
use crate::decisions::record::{Kind, Place};

/// One in memory.
#[derive(Debug, Default)]
pub struct Memory(Mutex<BTreeMap<Place, Kept>>);

impl Memory {
    // What it guards is whole at every step.
    fn records(&self) -> MutexGuard<'_, BTreeMap<Place, Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, write: Write) -> Written {
        let mut records = self.records();
        let met = write.meets(records.get(&write.place).map(|kept| kept.generation));
        if met == Written::Done {
            match write.kept {
                Some(kept) => records.insert(write.place, kept),
                None => records.remove(&write.place),
            };
        }
        met
    }

    fn read(&self, kind: Kind, from: Option<&Cursor>, about: usize) -> Page {
        let begin = Place::new(kind, from.map_or("", |cursor| &cursor.0));
        let records = self.records();
        let below = records.range((Bound::Excluded(begin), Bound::Unbounded));
        let below = below.take_while(|(place, _)| place.kind == kind).take(about);
        let records: Vec<_> = below.map(|(place, kept)| (place.key.clone(), kept.clone())).collect();
        let next = records.last().filter(|_| records.len() == about).map(|(key, _)| Cursor(key.clone()));
        Page { records, next, ..Page::default() }
    }
}

impl Backend for Memory {
    fn get<'a>(&'a self, place: &'a Place) -> Doing<'a, Option<Kept>> {
        Box::pin(async { Ok(self.records().get(place).cloned()) })
    }

    fn put(&self, writes: Vec<Write>) -> Doing<'_, Vec<Written>> {
        Box::pin(async { Ok(writes.into_iter().map(|write| self.write(write)).collect()) })
    }

    fn page<'a>(&'a self, kind: Kind, from: Option<&'a Cursor>, about: usize) -> Doing<'a, Page> {
        Box::pin(async move { Ok(self.read(kind, from, about)) })
    }

    fn revision(&self, _: Kind) -> Doing<'_, u64> {
        Box::pin(async { Ok(0) })
    }

    fn is_shared(&self) -> bool {
        false
    }

    fn name(&self) -> &'static str {
        "memory"
    }
}
