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

use super::{
    known::Digest,
    remembered::{self, Remembered},
};
use crate::words::{clock::UnixTime, scope::Access};

/// A token that Harbor issued through us, and the credential that it was issued for.
pub struct Issued {
    credential: Arc<Credential>,
    access: Vec<Access>,
    expires: UnixTime,
    principal: Arc<Principal>,
    life: Duration,
}

/// Bytes of all tokens' accesses in memory together, at most.
const BYTES: u64 = 256 << 20;
/// What a token takes beside its access.
const FRAME: usize = 256;
/// A credential, and a principal, that nobody got a token for in so long has no token: none lives longer.
const IDLE: Duration = Duration::from_hours(48);

impl Remembered for Issued {
    fn bytes(&self) -> usize {
        let access = self.access.iter().map(|access| {
            let actions = access.actions.iter().map(|action| 32 + action.len());
            96 + access.name.len() + actions.sum::<usize>()
        });
        FRAME + self.credential.value.len() + access.sum::<usize>()
    }

    fn life(&self) -> Duration {
        self.life
    }
}

/// A credential that Harbor accepted: one for all tokens that were issued for it, so that it ends for all at
/// once (A4).
struct Credential {
    /// The whole `Authorization: Basic …`; kept out of logs by being marked sensitive.
    value: HeaderValue,
    over: AtomicBool,
}

/// How many replays of one principal run at once.
struct Principal {
    name: Arc<str>,
    first: Arc<Semaphore>,
    proven: AtomicBool,
    slots: Arc<Semaphore>,
}

/// All of them, by the digest of the exact token bytes.
pub struct Replays {
    issued: Cache<Digest, Arc<Issued>>,
    credentials: Cache<Box<[u8]>, Arc<Credential>>,
    principals: Cache<Box<str>, Arc<Principal>>,
}

/// The longest time that a replay waits for its turn.
const PATIENCE: Duration = Duration::from_secs(10);

impl Replays {
    /// Room for `entries` tokens, and for 256 MiB of them, their credentials counted with each.
    pub fn new(entries: u64) -> Self {
        let credentials = Cache::builder()
            .max_capacity(BYTES.min(entries.saturating_mul(2_048)))
            .weigher(|_, credential: &Arc<Credential>| {
                u32::try_from(FRAME + 2 * credential.value.len()).unwrap_or(u32::MAX)
            })
            .time_to_idle(IDLE)
            .build();
        let principals = Cache::builder().max_capacity(entries).time_to_idle(IDLE).build();
        Self { issued: remembered::cache(entries, BYTES), credentials, principals }
    }

    /// Remembers that Harbor issued the token of this digest for `credential`. `at_once` replays of this
    /// principal may run side by side. It ends with the token.
    pub fn remember(
        &self,
        digest: Digest,
        credential: &HeaderValue,
        access: Vec<Access>,
        (now, expires): (UnixTime, UnixTime),
        (name, at_once): (&str, usize),
    ) {
        let credential = self.credential(credential);
        let principal = self.principal(name, at_once);
        let issued = Issued { credential, access, expires, principal, life: expires.since(now) };
        self.issued.insert(digest, Arc::new(issued));
    }

    /// Notes that Harbor has just accepted this credential: what was said of it before is over.
    pub fn accepted(&self, credential: &HeaderValue) {
        self.credential(credential);
    }

    /// What a token of our own stands for (A11): its credential and its bounds are those of every other token of
    /// the same principal. `None` where Harbor has refused the credential and not accepted it since (A4).
    pub fn of_own(
        &self,
        credential: &HeaderValue,
        access: Vec<Access>,
        (now, expires): (UnixTime, UnixTime),
        (name, at_once): (&str, usize),
    ) -> Option<Arc<Issued>> {
        let known = self.credentials.get(credential.as_bytes());
        if known.is_some_and(|known| known.over.load(Ordering::Acquire)) {
            return None;
        }
        let (credential, principal) = (self.credential(credential), self.principal(name, at_once));
        Some(Arc::new(Issued { credential, access, expires, principal, life: expires.since(now) }))
    }

    fn principal(&self, name: &str, at_once: usize) -> Arc<Principal> {
        self.principals.get_with(name.into(), || {
            Arc::new(Principal {
                name: name.into(),
                first: Arc::new(Semaphore::new(1)),
                proven: AtomicBool::new(false),
                slots: Arc::new(Semaphore::new(at_once.max(1))),
            })
        })
    }

    /// The one entry of a credential; a new one where it was over and Harbor has accepted it again.
    fn credential(&self, value: &HeaderValue) -> Arc<Credential> {
        if let Some(known) = self.credentials.get(value.as_bytes())
            && !known.over.load(Ordering::Acquire)
        {
            return known;
        }
        let (place, mut value) = (value.as_bytes().into(), value.clone());
        value.set_sensitive(true);
        let fresh = Arc::new(Credential { value, over: AtomicBool::new(false) });
        self.credentials.insert(place, fresh.clone());
        fresh
    }

    /// What the token of this digest was issued for, while it may be used.
    pub fn find(&self, digest: &Digest, now: UnixTime) -> Option<Arc<Issued>> {
        let issued = self.issued.get(digest)?;
        (now < issued.expires && !issued.is_over()).then_some(issued)
    }

    /// A write through us may have changed what any credential may do (A2).
    pub fn forget_all(&self) {
        self.credentials.iter().for_each(|(_, credential)| credential.over.store(true, Ordering::Release));
        self.credentials.invalidate_all();
        self.issued.invalidate_all();
        self.principals.invalidate_all();
    }

    /// Tokens whose credential is at hand.
    pub fn count(&self) -> u64 {
        // moka counts what it has seen to; that happens seldom where little is asked.
        self.issued.run_pending_tasks();
        self.issued.entry_count()
    }
}

impl Issued {
    /// The credential.
    pub fn credential(&self) -> &HeaderValue {
        &self.credential.value
    }

    /// Harbor refused the credential: it is over for every token, and for those who wait for their turn with it.
    pub fn end(&self) {
        self.credential.over.store(true, Ordering::Release);
    }

    /// Whether Harbor has refused the credential, or a write may have changed it.
    pub fn is_over(&self) -> bool {
        self.credential.over.load(Ordering::Acquire)
    }

    /// Whose it is.
    pub fn principal(&self) -> Arc<str> {
        self.principal.name.clone()
    }

    /// What the token grants, as Harbor wrote it.
    pub fn access(&self) -> &[Access] {
        &self.access
    }

    /// A turn to replay, where nobody is before this one: the first of a principal runs alone, because parallel uses
    /// of a CLI secret race at the provider (O7).
    pub fn turn_at_once(&self) -> Option<Turn> {
        let principal = &self.principal;
        let first = if principal.is_proven() {
            None
        } else {
            Some(principal.first.clone().try_acquire_owned().ok()?)
        };
        let slot = principal.slots.clone().try_acquire_owned().ok()?;
        Some(Turn { principal: principal.clone(), _first: first, _slot: slot })
    }

    /// The same after those who are before this one. `None` where none comes in time, or the credential is over when
    /// it comes.
    pub async fn turn(&self) -> Option<Turn> {
        let principal = &self.principal;
        let turn = async {
            let mut first = None;
            if !principal.is_proven() {
                let alone = principal.first.clone().acquire_owned().await.ok()?;
                // Who was before this one may have proved the principal: then those behind it need not wait either.
                first = (!principal.is_proven()).then_some(alone);
            }
            let slot = principal.slots.clone().acquire_owned().await.ok()?;
            Some(Turn { principal: principal.clone(), _first: first, _slot: slot })
        };
        tokio::time::timeout(PATIENCE, turn).await.ok().flatten().filter(|_| !self.is_over())
    }
}

impl Principal {
    fn is_proven(&self) -> bool {
        self.proven.load(Ordering::Acquire)
    }
}

/// One replay's turn.
pub struct Turn {
    principal: Arc<Principal>,
    _first: Option<OwnedSemaphorePermit>,
    _slot: OwnedSemaphorePermit,
}

impl Turn {
    /// Harbor accepted the credential: others of this principal may follow side by side.
    pub fn accepted(&self) {
        self.principal.proven.store(true, Ordering::Release);
    }

    /// Whether it is a turn of this token's principal.
    pub fn is_for(&self, issued: &Issued) -> bool {
        Arc::ptr_eq(&self.principal, &issued.principal)
    }
}

#[cfg(test)]
mod tests;
