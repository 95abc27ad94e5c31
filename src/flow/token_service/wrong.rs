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
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use moka::sync::Cache;
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};

use crate::{
    flow::budget::network_of,
    words::{
        credential::{Credential, basic_user},
        reason::Reason,
        route,
    },
};

/// Different unknown secrets of one name that may wait at once.
const QUEUE: usize = 8;
/// Tries of one unknown secret that may wait at once: a whole fleet's jobs begin in the same second.
const TRIES: usize = 1_024;
/// Questions of each kind that one address may have under way, each counted once more for every KiB of it: they go
/// on when who asked has left.
const PENDING: usize = 2_048;
/// Core locks a name for 1.5 s after a wrong password (T8).
const LOCK: Duration = Duration::from_millis(1_600);
/// A refusal so soon after a wrong try on the same name may be the lock's.
const SUSPECT: Duration = Duration::from_secs(2);
/// Names, secrets and addresses that are remembered.
const REMEMBERED: u64 = 100_000;
/// A name that nobody has tried for so long has no try under way.
const NAME_IDLE: Duration = Duration::from_mins(30);
/// An accepted secret is known for so long after Harbor accepted it last: also one that is used once a day.
const ACCEPTED: Duration = Duration::from_hours(48);

/// A refusal that took so long comes of a wrong password: core has slept over it.
const SLEPT: Duration = Duration::from_millis(1_400);

type Secret = [u8; 32];

/// What a Basic past the token service asked for, by what a refusal there means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// `/v2/` itself: whoever is known is served (C7).
    Base,
    /// What else is below `/v2/`: core answers 401 `Basic` also to who is known and may not (C10, C11).
    Registry,
    /// The API: who is known and may not is told so by 403.
    Api,
    /// `users/current`: no CLI secret is accepted there (O2).
    Current,
    /// `users`: where accounts are made, by anybody where Harbor is set so.
    Accounts,
}

impl Asked {
    /// What was asked for, by the registry's endpoint or else by the path.
    pub fn of(registry: Option<route::Kind>, path: &str) -> Self {
        match registry {
            Some(route::Kind::Base) => Self::Base,
            Some(_) => Self::Registry,
            None if path.trim_end_matches('/').ends_with("/users/current") => Self::Current,
            None if path.trim_end_matches('/').ends_with("/users") => Self::Accounts,
            None => Self::Api,
        }
    }

    /// Whether a success shows that the credential was accepted: only what nobody gets without one (A12). A cookie may
    /// have won over it (S4), and whoever likes may make an account.
    fn shows_right(self, method: &Method, up: &HeaderMap) -> bool {
        let writes = !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
        match self {
            Self::Base => true,
            Self::Registry => writes,
            Self::Current => !up.contains_key(header::COOKIE),
            Self::Api => writes && !up.contains_key(header::COOKIE),
            Self::Accounts => false,
        }
    }

    /// Whether a 401 shows by itself that the credential is wrong. On `/v2/` the challenge `Basic` tells it from a
    /// project that is not there (C8).
    fn shows_wrong(self, basic_challenge: bool, took: Duration) -> bool {
        match self {
            Self::Base => basic_challenge,
            Self::Registry => basic_challenge && took >= SLEPT,
            Self::Api | Self::Accounts => true,
            Self::Current => took >= SLEPT,
        }
    }
}

/// The memory of tries.
pub struct WrongCredentials {
    key: hmac::Key,
    accepted: Cache<Secret, ()>,
    /// By the keyed hash of the name: a name may be as long as a head.
    names: Cache<Secret, Arc<Name>>,
    addresses: Cache<IpAddr, Arc<Mutex<Window>>>,
    pending: Mutex<HashMap<(Kind, IpAddr), usize>>,
    most: u32,
    per: Duration,
}

struct Name {
    slot: Arc<Semaphore>,
    waiting: Mutex<HashMap<Secret, usize>>,
    last_wrong: Mutex<Option<(Instant, Secret)>>,
    /// Refusals past the token service, and the last unknown secret that went there since they are too many.
    refused: Mutex<Window>,
    passed: Mutex<Option<Instant>>,
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
    doubted: Cell<bool>,
    _pending: Pending<'a>,
}

/// What questions are counted together: no flood of one kind keeps out another (A7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Anonymous,
    Unknown,
    Accepted,
}

/// A question among those of its kind and address.
pub struct Pending<'a> {
    owner: &'a WrongCredentials,
    of: (Kind, IpAddr),
    cost: usize,
}

impl WrongCredentials {
    /// `most` wrong tries in each `per` from one address.
    pub fn new(key: hmac::Key, most: u32, per: Duration) -> Self {
        Self {
            key,
            accepted: Cache::builder().max_capacity(REMEMBERED).time_to_live(ACCEPTED).build(),
            names: Cache::builder().max_capacity(REMEMBERED).time_to_idle(NAME_IDLE).build(),
            addresses: Cache::builder().max_capacity(REMEMBERED).time_to_idle(per).build(),
            pending: Mutex::default(),
            most,
            per,
        }
    }

    /// Waits for a try's turn. A secret that was accepted before has it at once. `bytes` = what the try holds.
    pub async fn admit(
        &self,
        name: &str,
        credential: &HeaderValue,
        (address, bytes): (IpAddr, usize),
    ) -> Result<Admission<'_>, Reason> {
        let (secret, address) = (self.keyed(credential.as_bytes()), network_of(address));
        if self.accepted.contains_key(&secret) {
            let pending = self.pend((Kind::Accepted, address), bytes).ok_or(Reason::Busy)?;
            return Ok(self.admission(self.name(name), (secret, address), None, pending));
        }
        if self.over_limit(address) {
            return Err(Reason::WrongCredentials);
        }
        let pending = self.pend((Kind::Unknown, address), bytes).ok_or(Reason::WrongCredentials)?;
        let name = self.name(name);
        let _place = name.queue(secret).ok_or(Reason::WrongCredentials)?;
        let slot = name.slot.clone().acquire_owned().await.map_err(|_| Reason::WrongCredentials)?;
        if self.accepted.contains_key(&secret) {
            return Ok(self.admission(name, (secret, address), None, pending));
        }
        if self.over_limit(address) {
            return Err(Reason::WrongCredentials);
        }
        name.let_others_outlast().await;
        *lock(&name.trying) = Some(secret);
        Ok(self.admission(name, (secret, address), Some(slot), pending))
    }

    /// A question without a secret: nothing to try, but it goes on when its client has left. `bytes` = what it holds.
    pub fn admit_anonymous(&self, (address, bytes): (IpAddr, usize)) -> Result<Pending<'_>, Reason> {
        self.pend((Kind::Anonymous, network_of(address)), bytes).ok_or(Reason::Busy)
    }

    fn admission<'a>(
        &'a self,
        name: Arc<Name>,
        (secret, address): (Secret, IpAddr),
        slot: Option<OwnedSemaphorePermit>,
        pending: Pending<'a>,
    ) -> Admission<'a> {
        let (outlasts, doubted) = (Cell::new(false), Cell::new(false));
        Admission { owner: self, name, secret, address, slot, outlasts, doubted, _pending: pending }
    }

    fn name(&self, name: &str) -> Arc<Name> {
        self.names.get_with(self.keyed(name.as_bytes()), || Arc::new(Name::new()))
    }

    /// A question of this address more; `None` where it has too many of the kind under way.
    fn pend(&self, of: (Kind, IpAddr), bytes: usize) -> Option<Pending<'_>> {
        let cost = 1 + bytes / 1_024;
        let mut pending = lock(&self.pending);
        let held = pending.get(&of).copied().unwrap_or_default();
        if held + cost > PENDING {
            return None;
        }
        pending.insert(of, held + cost);
        Some(Pending { owner: self, of, cost })
    }

    /// Whether a Basic may go past the token service. A secret that was accepted before goes freely; of others those of
    /// an address over its limit do not, and of a name with as many refusals one goes in the time of one lock.
    pub fn pass(&self, credential: &HeaderValue, client: IpAddr) -> Result<(), Reason> {
        if self.accepted.contains_key(&self.keyed(credential.as_bytes())) {
            return Ok(());
        }
        if self.over_limit(network_of(client)) {
            return Err(Reason::WrongCredentials);
        }
        let user = basic_user(credential).unwrap_or_default();
        // A name that nobody was refused by is not remembered for this.
        let Some(name) = self.names.get(&self.keyed(user.as_bytes())) else { return Ok(()) };
        if !lock(&name.refused).is_full(self.most, self.per) {
            return Ok(());
        }
        let mut passed = lock(&name.passed);
        if name.slot.available_permits() == 0 || passed.is_some_and(|at| at.elapsed() < LOCK) {
            return Err(Reason::WrongCredentials);
        }
        *passed = Some(Instant::now());
        Ok(())
    }

    /// Notes what the answer to a Basic that went past the token service says of it: core locks the name of a wrong
    /// one all the same (C6). `took` = from the send to the answer's head.
    pub fn note<B>(
        &self,
        (answer, took): (&Response<B>, Duration),
        (method, up): (&Method, &HeaderMap),
        asked: Asked,
        client: IpAddr,
    ) {
        let challenge = answer.headers().get(header::WWW_AUTHENTICATE);
        let basic_challenge = challenge.is_some_and(|c| c.as_bytes().starts_with(b"Basic"));
        let accepted = answer.status().is_success() && asked.shows_right(method, up);
        let refused = answer.status() == StatusCode::UNAUTHORIZED && asked.shows_wrong(basic_challenge, took);
        if !accepted && !refused {
            return;
        }
        let Ok(Credential::Basic(credential)) = Credential::of(up) else { return };
        let secret = self.keyed(credential.as_bytes());
        if accepted {
            self.accepted.insert(secret, ());
            return;
        }
        if self.accepted.contains_key(&secret) {
            return;
        }
        let name = self.name(&basic_user(credential).unwrap_or_default());
        lock(&name.refused).count(self.per);
        // Refused under a stranger's lock: evidence of nothing (A7).
        if took < SLEPT && name.lock_of_another(&secret).is_some() {
            return;
        }
        self.count_wrong(network_of(client));
        *lock(&name.last_wrong) = Some((Instant::now(), secret));
    }

    fn keyed(&self, bytes: &[u8]) -> Secret {
        let tag = hmac::sign(&self.key, bytes);
        let mut secret = [0; 32];
        secret.copy_from_slice(tag.as_ref());
        secret
    }

    fn over_limit(&self, address: IpAddr) -> bool {
        self.addresses.get(&address).is_some_and(|window| lock(&window).is_full(self.most, self.per))
    }

    fn count_wrong(&self, address: IpAddr) {
        let window = self.addresses.get_with(address, || Arc::new(Mutex::new(Window::new())));
        lock(&window).count(self.per);
    }
}

impl Window {
    fn new() -> Self {
        Self { began: Instant::now(), wrong: 0 }
    }

    fn is_full(&self, most: u32, per: Duration) -> bool {
        self.began.elapsed() < per && self.wrong >= most
    }

    fn count(&mut self, per: Duration) {
        if self.began.elapsed() >= per {
            *self = Self::new();
        }
        self.wrong = self.wrong.saturating_add(1);
    }
}

impl Name {
    fn new() -> Self {
        Self {
            slot: Arc::new(Semaphore::new(1)),
            waiting: Mutex::default(),
            last_wrong: Mutex::default(),
            refused: Mutex::new(Window::new()),
            passed: Mutex::default(),
            trying: Mutex::default(),
            landed: Notify::new(),
            outlasting: AtomicUsize::new(0),
            outlasted: Notify::new(),
        }
    }

    /// A try that core's lock has refused goes before the next unknown secret, which would lock the name again.
    /// Whatever number of them there is, they have the time of one lock together: the next may be the right one.
    async fn let_others_outlast(&self) {
        let all_gone = async {
            loop {
                let outlasted = self.outlasted.notified();
                if self.outlasting.load(SeqCst) == 0 {
                    return;
                }
                outlasted.await;
            }
        };
        // In time or not: now it is this one's turn.
        let _ = timeout(LOCK, all_gone).await;
    }

    /// What is left of the lock after a wrong try of another secret than this one.
    fn lock_of_another(&self, own: &Secret) -> Option<Duration> {
        let last = *lock(&self.last_wrong);
        let (at, secret) = last?;
        let ago = at.elapsed();
        (secret != *own && ago < SUSPECT).then(|| LOCK.saturating_sub(ago))
    }

    /// A place in the queue; so many tries of one secret share theirs.
    fn queue(self: &Arc<Self>, secret: Secret) -> Option<InQueue> {
        let mut waiting = lock(&self.waiting);
        let full = match waiting.get(&secret) {
            Some(tries) => *tries >= TRIES,
            None => waiting.len() >= QUEUE,
        };
        if full {
            return None;
        }
        *waiting.entry(secret).or_insert(0) += 1;
        Some(InQueue { name: self.clone(), secret })
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        let mut pending = lock(&self.owner.pending);
        if let Some(held) = pending.get_mut(&self.of) {
            *held -= self.cost;
            if *held == 0 {
                pending.remove(&self.of);
            }
        }
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
    /// is none. A refusal under that lock is evidence of nothing. A secret that was accepted waits once for a
    /// lock that nobody here has seen: the wrong try may have gone by another replica, or past all of them.
    pub async fn outlast_lock(&self) -> bool {
        let landed = self.name.landed.notified();
        if lock(&self.name.trying).is_some_and(|secret| secret != self.secret) {
            self.go_before_others();
            // Core answers a wrong password when its lock ends.
            let _ = timeout(LOCK, landed).await;
            return true;
        }
        let Some(wait) = self.lock_of_another().or_else(|| self.unseen_lock()) else { return false };
        self.go_before_others();
        sleep(wait).await;
        true
    }

    /// Whether a wrong try of somebody else on this name may have locked it just now.
    pub fn sees_a_lock(&self) -> bool {
        lock(&self.name.trying).is_some_and(|secret| secret != self.secret)
            || self.lock_of_another().is_some()
    }

    fn go_before_others(&self) {
        if !self.outlasts.replace(true) {
            self.name.outlasting.fetch_add(1, SeqCst);
        }
    }

    fn lock_of_another(&self) -> Option<Duration> {
        self.name.lock_of_another(&self.secret)
    }

    fn unseen_lock(&self) -> Option<Duration> {
        (self.was_accepted() && !self.doubted.replace(true)).then_some(LOCK)
    }

    /// What became of the try: `clear` = it was not refused, `accepted` = Harbor took the secret. A refusal of a
    /// secret that was accepted before neither counts nor makes it unknown: a stranger may be the cause.
    pub fn settle(&self, clear: bool, accepted: bool) {
        if accepted {
            self.owner.accepted.insert(self.secret, ());
        } else if !clear {
            if !self.was_accepted() {
                self.owner.count_wrong(self.address);
            } else if self.lock_of_another().is_some() {
                return;
            }
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

    const HERE: (IpAddr, usize) = (IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 100);

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
        let name = tries.name("bob");
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
        let elsewhere = tries
            .admit("bob", &HeaderValue::from_static("Basic 9"), (IpAddr::from([10, 0, 0, 1]), 100))
            .await;
        assert!(elsewhere.is_ok());
    }

    #[tokio::test]
    async fn a_try_refused_while_a_wrong_one_is_at_core_waits_for_its_end_and_goes_before_the_next() {
        let tries = tries();
        let value = HeaderValue::from_static;
        let guess = tries.admit("bob", &value("Basic x"), HERE).await.expect("free");
        let known = value("Basic y");
        tries.accepted.insert(tries.keyed(known.as_bytes()), ());
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
    async fn a7_a_new_secret_waits_no_longer_than_one_lock_however_many_outlast_theirs() {
        let tries = tries();
        let name = tries.name("bob");
        name.outlasting.fetch_add(1, SeqCst);
        let value = HeaderValue::from_static("Basic new");
        let never_ending = async {
            loop {
                sleep(LOCK / 4).await;
                name.outlasted.notify_waiters();
            }
        };
        let new = timeout(2 * LOCK, tries.admit("bob", &value, HERE));
        let admitted = tokio::select! { admitted = new => admitted, () = never_ending => unreachable!() };
        assert!(admitted.is_ok(), "it waits for ever");
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

    #[tokio::test]
    async fn names_are_remembered_by_their_hash_and_not_at_all_from_an_address_over_its_limit() {
        let tries = tries();
        let value = HeaderValue::from_static("Basic x");
        for _ in 0..3 {
            tries.admit("bob", &value, HERE).await.expect("within the limit").settle(false, false);
        }
        for n in 0..100 {
            let name = format!("{n}{}", "n".repeat(22_000));
            assert!(tries.admit(&name, &value, HERE).await.is_err());
        }
        tries.names.run_pending_tasks();
        assert_eq!(tries.names.entry_count(), 1, "bob's alone");
        assert!(tries.names.iter().all(|(key, _)| key.len() == 32), "no name is kept");
    }

    #[tokio::test]
    async fn a7_an_accepted_secret_that_is_refused_stays_known_and_counts_against_nobody() {
        let tries = tries();
        let (good, bad) = (HeaderValue::from_static("Basic good"), HeaderValue::from_static("Basic bad"));
        tries.admit("bob", &good, HERE).await.expect("free").settle(true, true);
        for _ in 0..10 {
            let admitted = tries.admit("bob", &good, HERE).await.expect("known");
            assert!(admitted.was_accepted());
            admitted.settle(false, false);
        }
        assert!(tries.admit("bob", &bad, HERE).await.is_ok(), "nothing was counted");
    }

    #[tokio::test]
    async fn a7_an_accepted_secret_waits_once_for_a_lock_that_nobody_has_seen() {
        let tries = tries();
        let (good, bad) = (HeaderValue::from_static("Basic good"), HeaderValue::from_static("Basic bad"));
        tries.admit("bob", &good, HERE).await.expect("free").settle(true, true);
        let right = tries.admit("bob", &good, HERE).await.expect("known");
        assert!(timeout(Duration::from_millis(50), right.outlast_lock()).await.is_err(), "it waits");
        assert!(!right.outlast_lock().await, "once");
        drop(right);
        let unknown = tries.admit("bob", &bad, HERE).await.expect("free");
        assert!(!unknown.outlast_lock().await, "what was never accepted does not");
    }

    #[tokio::test]
    async fn tries_of_one_secret_and_of_one_address_are_bounded() {
        let tries = tries();
        let name = tries.name("bob");
        let places: Vec<_> = (0..=TRIES).map(|_| name.queue([1; 32])).collect();
        assert_eq!(places.iter().filter(|place| place.is_none()).count(), 1, "of one secret");
        let long = (HERE.0, (PENDING - 2) * 1_024);
        let value = HeaderValue::from_static;
        let first = tries.admit("a", &value("Basic a"), long).await.expect("room");
        let second = tries.admit("b", &value("Basic b"), HERE).await.expect("the last of it");
        assert!(tries.admit("c", &value("Basic c"), HERE).await.is_err(), "of one address, over all names");
        second.settle(true, true);
        assert!(
            tries.admit("b", &value("Basic b"), HERE).await.is_ok(),
            "a known secret is not counted with them"
        );
        let known = tries.admit("b", &value("Basic b"), (HERE.0, (PENDING - 2) * 1_024)).await.expect("room");
        assert_eq!(
            tries.admit("b", &value("Basic b"), long).await.err(),
            Some(Reason::Busy),
            "but by itself"
        );
        let nobody = tries.admit_anonymous(long).expect("room");
        assert_eq!(
            tries.admit_anonymous(long).err(),
            Some(Reason::Busy),
            "nor without bounds where it has none"
        );
        drop((known, nobody));
        drop((first, second));
        assert!(lock(&tries.pending).is_empty(), "nobody is remembered who has none");
        assert!(tries.admit("c", &value("Basic c"), HERE).await.is_ok());
    }

    #[tokio::test]
    async fn a_network_of_ipv6_has_one_limit() {
        let tries = tries();
        let at = |text: &str| (text.parse().expect("an address"), 100);
        let value = HeaderValue::from_static("Basic x");
        for host in 1..=3 {
            let from = at(&format!("2001:db8::{host}"));
            tries.admit("bob", &value, from).await.expect("within the limit").settle(false, false);
        }
        assert!(tries.admit("bob", &value, at("2001:db8::9:4")).await.is_err());
        assert!(tries.admit("bob", &value, at("2001:db8:0:1::4")).await.is_ok(), "another network");
    }

    #[tokio::test]
    async fn a_wrong_basic_past_the_token_service_counts_and_explains_a_refusal() {
        use Asked::{Api, Base, Current, Registry};
        let bob = HeaderValue::from_static("Basic Ym9iOng=");
        let up = HeaderMap::from_iter([(header::AUTHORIZATION, bob.clone())]);
        let answer = |status: u16, challenge: &'static str| {
            let built = Response::builder().status(status).header(header::WWW_AUTHENTICATE, challenge);
            built.body(()).expect("an answer")
        };
        let right = HeaderValue::from_static("Basic right");
        let (quick, slept) = (Duration::from_millis(30), Duration::from_millis(1_530));
        let table = [
            (answer(401, "Basic realm=\"harbor\""), Base, quick, true),
            (answer(401, ""), Base, slept, false),
            (answer(200, ""), Base, quick, false),
            (answer(401, "Basic realm=\"harbor\""), Registry, quick, false),
            (answer(401, "Basic realm=\"harbor\""), Registry, slept, true),
            (answer(401, ""), Registry, slept, false),
            (answer(401, ""), Api, quick, true),
            (answer(403, ""), Api, slept, false),
            (answer(401, ""), Current, quick, false),
            (answer(401, ""), Current, slept, true),
        ];
        for (answer, asked, took, wrong) in table {
            let tries = tries();
            tries.note((&answer, took), (&Method::GET, &up), asked, HERE.0);
            let right = tries.admit("bob", &right, HERE).await.expect("free");
            assert_eq!(right.lock_of_another().is_some(), wrong, "{answer:?} {asked:?}");
            drop(right);
            (0..2).for_each(|_| tries.note((&answer, took), (&Method::GET, &up), asked, HERE.0));
            assert_eq!(tries.admit("bob", &bob, HERE).await.is_err(), wrong, "three wrong ones");
        }
        let tries = tries();
        tries.admit("bob", &bob, HERE).await.expect("free").settle(true, true);
        (0..9).for_each(|_| tries.note((&answer(401, "Basic"), slept), (&Method::GET, &up), Base, HERE.0));
        assert!(tries.admit("bob", &right, HERE).await.is_ok(), "a known secret counts against nobody (A7)");
    }

    #[tokio::test]
    async fn a7_past_the_token_service_names_and_addresses_with_many_refusals_are_limited() {
        let tries = tries();
        let of = |secret: &str| {
            use base64::{Engine as _, engine::general_purpose::STANDARD};
            HeaderValue::try_from(format!("Basic {}", STANDARD.encode(format!("bob:{secret}"))))
                .expect("a value")
        };
        let up = |secret: &str| HeaderMap::from_iter([(header::AUTHORIZATION, of(secret))]);
        let answer = |status: u16| {
            let built =
                Response::builder().status(status).header(header::WWW_AUTHENTICATE, "Basic realm=\"harbor\"");
            built.body(()).expect("an answer")
        };
        let note = |secret: &str, status: u16, address: u8| {
            let answered = (&answer(status), Duration::from_millis(1_530));
            tries.note(answered, (&Method::GET, &up(secret)), Asked::Base, IpAddr::from([10, 0, 0, address]));
        };
        let pass =
            |secret: &str, address: u8| tries.pass(&of(secret), IpAddr::from([10, 0, 0, address])).is_ok();
        assert!((0..100).all(|_| pass("right", 9)), "many of one address");
        note("proven", 200, 9);
        for guess in 0..3 {
            assert!(pass(&guess.to_string(), guess), "within the limits");
            note(&guess.to_string(), 401, guess);
        }
        assert!(pass("another", 9) && !pass("yet another", 8), "one in the time of a lock");
        assert!((0..100).all(|_| pass("proven", 8)), "what was accepted before goes freely");
        (0..3).for_each(|_| note("a guess", 401, 7));
        assert!(!pass("for another name", 7) && pass("proven", 7), "an address over its limit");
    }

    #[test]
    fn a12_only_what_nobody_gets_without_a_credential_shows_that_it_is_right() {
        let (none, mut cookie) = (HeaderMap::new(), HeaderMap::new());
        cookie.insert(header::COOKIE, HeaderValue::from_static("sid=1"));
        let table = [
            (Asked::Base, Method::GET, &none, true),
            (Asked::Registry, Method::GET, &none, false),
            (Asked::Registry, Method::POST, &none, true),
            (Asked::Api, Method::GET, &none, false),
            (Asked::Api, Method::PUT, &none, true),
            (Asked::Api, Method::PUT, &cookie, false),
            (Asked::Current, Method::GET, &none, true),
            (Asked::Current, Method::GET, &cookie, false),
            (Asked::Accounts, Method::POST, &none, false),
        ];
        for (asked, method, up, want) in table {
            assert_eq!(asked.shows_right(&method, up), want, "{asked:?} {method}");
        }
    }
}
