//! Wrong credentials are kept from harming right ones (A7): a secret that Harbor has accepted before goes
//! freely; unknown secrets of one name try one after the other, few at a time, and each address has so many
//! wrong tries a minute.

use std::{
    cell::Cell,
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use aws_lc_rs::hmac;
use http::HeaderValue;
use moka::sync::Cache;
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};

use crate::words::reason::Reason;

/// Different unknown secrets of one name that may wait at once.
const QUEUE: usize = 8;
/// Core locks a name for 1.5 s after a wrong password (T8).
const LOCK: Duration = Duration::from_millis(1_600);
/// A refusal so soon after a wrong try on the same name may be the lock's.
const SUSPECT: Duration = Duration::from_secs(2);
/// Names, secrets and addresses that are remembered.
const REMEMBERED: u64 = 100_000;

type Secret = [u8; 32];

/// The memory of tries.
pub struct WrongCredentials {
    key: hmac::Key,
    accepted: Cache<Secret, ()>,
    names: Cache<Box<str>, Arc<Name>>,
    addresses: Cache<IpAddr, Arc<Mutex<Window>>>,
    most: u32,
    per: Duration,
}

struct Name {
    slot: Arc<Semaphore>,
    waiting: Mutex<HashMap<Secret, usize>>,
    last_wrong: Mutex<Option<(Instant, Secret)>>,
    /// The unknown secret that is at core now, and the news of its end.
    trying: Mutex<Option<Secret>>,
    landed: Notify,
    /// Tries that wait for core's lock to end; unknown secrets let them go first.
    outlasting: AtomicUsize,
    outlasted: Notify,
}

struct Window {
    began: Instant,
    wrong: u32,
}

/// A try that may go to Harbor.
pub struct Admission<'a> {
    owner: &'a WrongCredentials,
    name: Arc<Name>,
    secret: Secret,
    address: IpAddr,
    slot: Option<OwnedSemaphorePermit>,
    outlasts: Cell<bool>,
}

impl WrongCredentials {
    /// `most` wrong tries in each `per` from one address.
    pub fn new(key: hmac::Key, most: u32, per: Duration) -> Self {
        Self {
            key,
            accepted: Cache::new(REMEMBERED),
            names: Cache::new(REMEMBERED),
            addresses: Cache::new(REMEMBERED),
            most,
            per,
        }
    }

    /// Waits for a try's turn. A secret that was accepted before has it at once.
    pub async fn admit(
        &self,
        name: &str,
        credential: &HeaderValue,
        address: IpAddr,
    ) -> Result<Admission<'_>, Reason> {
        let secret = self.secret(credential);
        let name = self.names.get_with(name.into(), || Arc::new(Name::new()));
        let admission = |slot| {
            let outlasts = Cell::new(false);
            Admission { owner: self, name: name.clone(), secret, address, slot, outlasts }
        };
        if self.accepted.contains_key(&secret) {
            return Ok(admission(None));
        }
        if self.over_limit(address) {
            return Err(Reason::WrongCredentials);
        }
        let _place = name.queue(secret).ok_or(Reason::WrongCredentials)?;
        let slot = name.slot.clone().acquire_owned().await.map_err(|_| Reason::WrongCredentials)?;
        if self.accepted.contains_key(&secret) {
            return Ok(admission(None));
        }
        if self.over_limit(address) {
            return Err(Reason::WrongCredentials);
        }
        name.let_others_outlast().await;
        *lock(&name.trying) = Some(secret);
        Ok(admission(Some(slot)))
    }

    /// A write may have changed any credential: all are unknown again.
    pub fn forget_all(&self) {
        self.accepted.invalidate_all();
    }

    fn secret(&self, credential: &HeaderValue) -> Secret {
        let tag = hmac::sign(&self.key, credential.as_bytes());
        let mut secret = [0; 32];
        secret.copy_from_slice(tag.as_ref());
        secret
    }

    fn over_limit(&self, address: IpAddr) -> bool {
        self.addresses.get(&address).is_some_and(|window| {
            let window = lock(&window);
            window.began.elapsed() < self.per && window.wrong >= self.most
        })
    }

    fn count_wrong(&self, address: IpAddr) {
        let fresh = || Arc::new(Mutex::new(Window { began: Instant::now(), wrong: 0 }));
        let window = self.addresses.get_with(address, fresh);
        let mut window = lock(&window);
        if window.began.elapsed() >= self.per {
            *window = Window { began: Instant::now(), wrong: 0 };
        }
        window.wrong += 1;
    }
}

impl Name {
    fn new() -> Self {
        Self {
            slot: Arc::new(Semaphore::new(1)),
            waiting: Mutex::default(),
            last_wrong: Mutex::default(),
            trying: Mutex::default(),
            landed: Notify::new(),
            outlasting: AtomicUsize::new(0),
            outlasted: Notify::new(),
        }
    }

    /// A try that core's lock has refused goes before the next unknown secret, which would lock the name again.
    async fn let_others_outlast(&self) {
        while self.outlasting.load(SeqCst) > 0 {
            if timeout(LOCK, self.outlasted.notified()).await.is_err() {
                return;
            }
        }
    }

    /// A place in the queue; all tries of one secret share theirs.
    fn queue(self: &Arc<Self>, secret: Secret) -> Option<InQueue> {
        let mut waiting = lock(&self.waiting);
        if !waiting.contains_key(&secret) && waiting.len() >= QUEUE {
            return None;
        }
        *waiting.entry(secret).or_insert(0) += 1;
        Some(InQueue { name: self.clone(), secret })
    }
}

struct InQueue {
    name: Arc<Name>,
    secret: Secret,
}

impl Drop for InQueue {
    fn drop(&mut self) {
        let mut waiting = lock(&self.name.waiting);
        if let Some(count) = waiting.get_mut(&self.secret) {
            *count -= 1;
            if *count == 0 {
                waiting.remove(&self.secret);
            }
        }
    }
}

impl Admission<'_> {
    /// Whether Harbor has accepted this very secret before.
    pub fn was_accepted(&self) -> bool {
        self.slot.is_none()
    }

    /// Waits until core's lock on this name because of somebody else's wrong try is over; `false` where there
    /// is none. A refusal under that lock is evidence of nothing.
    pub async fn outlast_lock(&self) -> bool {
        let landed = self.name.landed.notified();
        if lock(&self.name.trying).is_some_and(|secret| secret != self.secret) {
            self.go_before_others();
            // Core answers a wrong password when its lock ends.
            let _ = timeout(LOCK, landed).await;
            return true;
        }
        let Some(wait) = self.lock_of_another() else { return false };
        self.go_before_others();
        sleep(wait).await;
        true
    }

    fn go_before_others(&self) {
        if !self.outlasts.replace(true) {
            self.name.outlasting.fetch_add(1, SeqCst);
        }
    }

    fn lock_of_another(&self) -> Option<Duration> {
        let last = *lock(&self.name.last_wrong);
        let (at, secret) = last?;
        let ago = at.elapsed();
        (secret != self.secret && ago < SUSPECT).then(|| LOCK.saturating_sub(ago))
    }

    /// What became of the try: `clear` = it was not refused, `accepted` = Harbor took the secret.
    pub fn settle(&self, clear: bool, accepted: bool) {
        if accepted {
            self.owner.accepted.insert(self.secret, ());
        } else if !clear {
            self.owner.accepted.invalidate(&self.secret);
            self.owner.count_wrong(self.address);
            *lock(&self.name.last_wrong) = Some((Instant::now(), self.secret));
        }
    }
}

impl Drop for Admission<'_> {
    fn drop(&mut self) {
        if self.slot.is_some() {
            *lock(&self.name.trying) = None;
            self.name.landed.notify_waiters();
        }
        if self.outlasts.get() {
            self.name.outlasting.fetch_sub(1, SeqCst);
            self.name.outlasted.notify_waiters();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tries() -> WrongCredentials {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"a test's own");
        WrongCredentials::new(key, 3, Duration::from_mins(1))
    }

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[tokio::test]
    async fn an_accepted_secret_never_waits_behind_unknown_ones() {
        let tries = tries();
        let good = HeaderValue::from_static("Basic good");
        tries.admit("robot$ci", &good, HERE).await.expect("free").settle(true, true);
        let unknown =
            tries.admit("robot$ci", &HeaderValue::from_static("Basic bad"), HERE).await.expect("first");
        let known = tries.admit("robot$ci", &good, HERE);
        let admitted = tokio::time::timeout(Duration::from_millis(200), known).await;
        assert!(admitted.is_ok(), "waited behind an unknown secret");
        drop(unknown);
    }

    #[tokio::test]
    async fn unknown_secrets_of_a_name_queue_shortly_and_addresses_are_limited() {
        let tries = tries();
        let held = tries.admit("bob", &HeaderValue::from_static("Basic 0"), HERE).await.expect("first");
        let name = tries.names.get("bob").expect("named");
        let places: Vec<_> = (0..=QUEUE as u8).map(|n| name.queue([n; 32])).collect();
        assert_eq!(places.iter().filter(|p| p.is_none()).count(), 1);
        drop(places);
        drop(held);
        for n in 0..3 {
            let value = HeaderValue::from_str(&format!("Basic {n}")).expect("a header");
            tries.admit("bob", &value, HERE).await.expect("within the limit").settle(false, false);
        }
        let over = tries.admit("bob", &HeaderValue::from_static("Basic 9"), HERE).await;
        assert_eq!(over.err(), Some(Reason::WrongCredentials));
        let elsewhere =
            tries.admit("bob", &HeaderValue::from_static("Basic 9"), IpAddr::from([10, 0, 0, 1])).await;
        assert!(elsewhere.is_ok());
    }

    #[tokio::test]
    async fn a_try_refused_while_a_wrong_one_is_at_core_waits_for_its_end_and_goes_before_the_next() {
        let tries = tries();
        let value = HeaderValue::from_static;
        let guess = tries.admit("bob", &value("Basic x"), HERE).await.expect("free");
        let known = value("Basic y");
        tries.accepted.insert(tries.secret(&known), ());
        let right = tries.admit("bob", &known, HERE).await.expect("free");
        let (second, bad) = (value("Basic z"), Duration::from_millis(50));
        let outlast = async {
            assert!(right.outlast_lock().await);
            assert!(
                timeout(bad, tries.admit("bob", &second, HERE)).await.is_err(),
                "the right one goes first"
            );
        };
        let land = async {
            guess.settle(false, false);
            drop(guess);
        };
        tokio::join!(outlast, land);
        drop(right);
        assert!(timeout(bad, tries.admit("bob", &second, HERE)).await.is_ok(), "then the next guess");
    }

    #[tokio::test]
    async fn a_refusal_under_anothers_lock_is_evidence_of_nothing() {
        let tries = tries();
        let wrong = tries.admit("bob", &HeaderValue::from_static("Basic x"), HERE).await.expect("free");
        wrong.settle(false, false);
        assert_eq!(wrong.lock_of_another(), None, "its own wrong try");
        drop(wrong);
        let right = tries.admit("bob", &HeaderValue::from_static("Basic y"), HERE).await.expect("free");
        assert!(right.lock_of_another().is_some_and(|wait| wait <= LOCK));
    }
}
