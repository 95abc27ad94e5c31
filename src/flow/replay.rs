//! Credentials that tokens were issued for, in memory only: what replay sends (A4, A5).

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::HeaderValue;
use moka::sync::Cache;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::known::Digest;
use crate::words::{clock::UnixTime, scope::Access};

/// A token that Harbor issued through us, and the credential that it was issued for.
pub struct Issued {
    /// The whole `Authorization: Basic …`; wiped from logs by being marked sensitive.
    credential: HeaderValue,
    access: Vec<Access>,
    expires: UnixTime,
    revoked: AtomicBool,
    principal: Arc<Principal>,
}

/// How many replays of one principal run at once.
struct Principal {
    first: Semaphore,
    proven: AtomicBool,
    slots: Arc<Semaphore>,
}

/// All of them, by the digest of the exact token bytes.
pub struct Replays {
    issued: Cache<Digest, Arc<Issued>>,
    principals: Cache<Box<str>, Arc<Principal>>,
}

/// The longest time that a replay waits for its turn.
const PATIENCE: Duration = Duration::from_secs(10);

impl Replays {
    /// Room for `entries` tokens.
    pub fn new(entries: u64) -> Self {
        Self { issued: Cache::new(entries), principals: Cache::new(entries) }
    }

    /// Remembers that Harbor issued the token of this digest for `credential`. `at_once` replays of this
    /// principal may run side by side.
    pub fn remember(
        &self,
        digest: Digest,
        credential: &HeaderValue,
        access: Vec<Access>,
        expires: UnixTime,
        (name, at_once): (&str, usize),
    ) {
        let mut credential = credential.clone();
        credential.set_sensitive(true);
        let principal = self.principals.get_with(name.into(), || {
            Arc::new(Principal {
                first: Semaphore::new(1),
                proven: AtomicBool::new(false),
                slots: Arc::new(Semaphore::new(at_once.max(1))),
            })
        });
        let issued = Issued { credential, access, expires, revoked: AtomicBool::new(false), principal };
        self.issued.insert(digest, Arc::new(issued));
    }

    /// What the token of this digest was issued for, while it may be used.
    pub fn find(&self, digest: &Digest, now: UnixTime) -> Option<Arc<Issued>> {
        let issued = self.issued.get(digest)?;
        (now < issued.expires && !issued.revoked.load(Ordering::Relaxed)).then_some(issued)
    }

    /// Harbor refused the credential of this token, or a write may have changed it.
    pub fn forget(&self, digest: &Digest) {
        if let Some(issued) = self.issued.remove(digest) {
            issued.revoked.store(true, Ordering::Relaxed);
        }
    }

    /// A write through us may have changed what any credential may do (A2).
    pub fn forget_all(&self) {
        self.issued.invalidate_all();
        self.principals.invalidate_all();
    }

    /// Tokens whose credential is at hand.
    pub fn count(&self) -> u64 {
        self.issued.entry_count()
    }
}

impl Issued {
    /// The credential.
    pub fn credential(&self) -> &HeaderValue {
        &self.credential
    }

    /// What the token grants, as Harbor wrote it.
    pub fn access(&self) -> &[Access] {
        &self.access
    }

    /// A turn to replay: the first of a principal runs alone, because parallel uses of a CLI secret race at
    /// the provider (O7). `None` where none comes in time.
    pub async fn turn(&self) -> Option<Turn<'_>> {
        let turn = async {
            let first = if self.principal.proven.load(Ordering::Acquire) {
                None
            } else {
                Some(self.principal.first.acquire().await.ok()?)
            };
            let slot = self.principal.slots.clone().acquire_owned().await.ok()?;
            Some(Turn { principal: &self.principal, _first: first, _slot: slot })
        };
        tokio::time::timeout(PATIENCE, turn).await.ok().flatten()
    }
}

/// One replay's turn.
pub struct Turn<'a> {
    principal: &'a Principal,
    _first: Option<tokio::sync::SemaphorePermit<'a>>,
    _slot: OwnedSemaphorePermit,
}

impl Turn<'_> {
    /// Harbor accepted the credential: others of this principal may follow side by side.
    pub fn accepted(&self) {
        self.principal.proven.store(true, Ordering::Release);
    }
}
