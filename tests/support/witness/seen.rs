//! What all askers of a witness saw.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

/// Words that are kept of failures, and of what was wrong.
const WORDS: usize = 40;

/// Why a turn ended early.
#[derive(Debug)]
pub enum Fault {
    /// No answer, or a refusal.
    Failed(String),
    /// An answer that nobody asked for.
    Wrong(String),
}

#[derive(Debug, Default)]
pub struct Seen {
    kept: Mutex<Kept>,
    stopped: AtomicBool,
}

#[derive(Debug, Default)]
struct Kept {
    right: BTreeMap<&'static str, usize>,
    failures: usize,
    failed: Vec<String>,
    wrong: Vec<String>,
    /// `X-Request-ID`s and what else no two answers may share.
    unique: HashSet<String>,
    stored: HashSet<Stored>,
    removed: HashSet<Stored>,
}

/// A blob or manifest by its digest.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Stored {
    pub path: String,
    pub digest: String,
}

impl Seen {
    /// An answer of this kind was as it must be.
    pub fn count(&self, kind: &'static str) {
        *self.kept().right.entry(kind).or_default() += 1;
    }

    pub fn note(&self, who: &str, fault: Fault) {
        let mut kept = self.kept();
        let words = match fault {
            Fault::Failed(words) => {
                kept.failures += 1;
                (&mut kept.failed, words)
            }
            Fault::Wrong(words) => (&mut kept.wrong, words),
        };
        if words.0.len() < WORDS {
            words.0.push(format!("{who}: {}", words.1));
        }
    }

    /// Whether no other answer said so before.
    pub fn is_first(&self, what: String) -> bool {
        self.kept().unique.insert(what)
    }

    /// It was acknowledged.
    pub fn stored(&self, what: Stored) {
        self.kept().stored.insert(what);
    }

    /// It may be there or not from now on.
    pub fn forget(&self, what: &Stored) {
        self.kept().stored.remove(what);
    }

    /// Its removal was acknowledged.
    pub fn removed(&self, what: Stored) {
        self.kept().removed.insert(what);
    }

    pub fn acknowledged(&self) -> (Vec<Stored>, Vec<Stored>) {
        let kept = self.kept();
        (kept.stored.iter().cloned().collect(), kept.removed.iter().cloned().collect())
    }

    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    pub fn right(&self) -> usize {
        self.kept().right.values().sum()
    }

    pub fn failures(&self) -> (usize, Vec<String>) {
        let kept = self.kept();
        (kept.failures, kept.failed.clone())
    }

    pub fn wrong(&self) -> Vec<String> {
        self.kept().wrong.clone()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `blob 20, token 31 right`.
impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept = self.kept();
        let counted = kept.right.iter().map(|(kind, count)| format!("{kind} {count}"));
        write!(f, "{} right, {} wrong", counted.collect::<Vec<_>>().join(", "), kept.wrong.len())
    }
}
