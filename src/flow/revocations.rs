//! What was revoked beside keys: asked after every cache, free where there is nothing (A20).

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use crate::{
    decisions::{record::revocation::Revocation, revoked::Revoked},
    words::clock::UnixTime,
};

/// All that is known of; what was said once stays.
#[derive(Debug, Default)]
pub struct Revocations {
    any: AtomicBool,
    revoked: ArcSwap<Revoked>,
    /// By the names of their records.
    known: Mutex<BTreeMap<String, Revocation>>,
    changed: Notify,
}

impl Revocations {
    /// Whether anything is revoked at all: one load of an atomic, for the path of every request.
    pub fn any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// All of it, to ask more than once.
    pub fn revoked(&self) -> Arc<Revoked> {
        self.revoked.load_full()
    }

    /// Whether what this user was given at `issued` has ended.
    pub fn ends_subject(&self, subject: &str, issued: UnixTime) -> bool {
        self.any() && self.revoked.load().ends_subject(subject, issued)
    }

    /// Takes these, whoever says so; those that are new.
    pub fn take(&self, all: impl IntoIterator<Item = Revocation>) -> Vec<Revocation> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut revoked = Revoked::clone(&self.revoked.load());
        let mut new = Vec::new();
        for revocation in all {
            if revoked.add(&revocation) {
                known.insert(revocation.place(), revocation.clone());
                new.push(revocation);
            }
        }
        if !new.is_empty() {
            // The lock is held, so that a set never follows its successor.
            self.revoked.store(Arc::new(revoked));
            self.any.store(true, Ordering::Release);
            self.changed.notify_one();
        }
        new
    }

    /// What a store or an archive should hold.
    pub fn to_keep(&self) -> Vec<Revocation> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Waits until something was added since the last call.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(not_before: i64) -> Revocation {
        let not_before = UnixTime(not_before);
        Revocation::Subject { name: "dev".to_owned(), not_before, at: not_before }
    }

    #[test]
    fn a20_a_revocation_counts_at_once_and_is_kept() {
        let all = Revocations::default();
        assert!(!all.any() && !all.ends_subject("dev", UnixTime(1)));
        assert_eq!((all.take([of(5)]), all.take([of(5), of(4)])), (vec![of(5)], vec![]));
        assert!(all.any() && all.ends_subject("dev", UnixTime(4)) && !all.ends_subject("dev", UnixTime(5)));
        assert_eq!(all.take([of(9)]), [of(9)]);
        assert_eq!(all.to_keep(), [of(9)]);
    }
}
