//! Wrong credentials are kept from harming right ones (A7): a secret that Harbor has accepted before goes
//! freely; unknown secrets of one name try one after the other, few at a time, and each address has so many
//! wrong tries a minute.

mod admission;
mod asked;
mod name;
mod pending;
#[cfg(test)]
mod tests;
mod window;

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use aws_lc_rs::hmac;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use moka::sync::Cache;

pub use self::{
    admission::Admission,
    asked::{Asked, SLEPT},
    pending::Pending,
};
use self::{
    name::{LOCK, Name},
    pending::{Kind, Questions},
    window::Window,
};
use crate::{
    flow::budget::network_of,
    words::{
        credential::{Credential, basic_user},
        reason::Reason,
    },
};

/// Names, secrets and addresses that are remembered.
const REMEMBERED: u64 = 100_000;
/// A name that nobody has tried for so long has no try under way.
const NAME_IDLE: Duration = Duration::from_mins(30);
/// An accepted secret is known for so long after Harbor accepted it last: also one that is used once a day.
const ACCEPTED: Duration = Duration::from_hours(48);
/// So many times as many tries that nobody could judge as wrong ones: in an outage a right secret that is not known yet
/// is tried again and again.
const UNTOLD: u32 = 10;

type Secret = [u8; 32];

/// The memory of tries.
pub struct WrongCredentials {
    key: hmac::Key,
    accepted: Cache<Secret, ()>,
    /// By the keyed hash of the name: a name may be as long as a head.
    names: Cache<Secret, Arc<Name>>,
    addresses: Cache<IpAddr, Arc<Mutex<Window>>>,
    /// Tries that an outage left without Harbor's word.
    untold: Cache<IpAddr, Arc<Mutex<Window>>>,
    questions: Questions,
    most: u32,
    per: Duration,
}

impl WrongCredentials {
    /// `most` wrong tries in each `per` from one address.
    pub fn new(key: hmac::Key, most: u32, per: Duration) -> Self {
        Self {
            key,
            accepted: Cache::builder().max_capacity(REMEMBERED).time_to_live(ACCEPTED).build(),
            names: Cache::builder().max_capacity(REMEMBERED).time_to_idle(NAME_IDLE).build(),
            addresses: Cache::builder().max_capacity(REMEMBERED).time_to_idle(per).build(),
            untold: Cache::builder().max_capacity(REMEMBERED).time_to_idle(per).build(),
            questions: Questions::default(),
            most,
            per,
        }
    }

    /// Waits for a try's turn. A secret that was accepted before has it at once. `bytes` = what the try holds.
    pub async fn admit(
        &self,
        name: &str,
        credential: &HeaderValue,
        from: (IpAddr, usize),
    ) -> Result<Admission<'_>, Reason> {
        self.admit_vouched(name, credential, from, || false).await
    }

    /// The same, where a secret that isn't known here may have been accepted by Harbor all the same, as `vouched` says.
    pub async fn admit_vouched(
        &self,
        name: &str,
        credential: &HeaderValue,
        (address, bytes): (IpAddr, usize),
        vouched: impl FnOnce() -> bool,
    ) -> Result<Admission<'_>, Reason> {
        let (secret, address) = (self.keyed(credential.as_bytes()), network_of(address));
        let is_known = self.accepted.contains_key(&secret);
        if is_known || vouched() {
            if !is_known {
                self.accepted.insert(secret, ());
            }
            let pending = self.questions.begin((Kind::Accepted, address), bytes).ok_or(Reason::Busy)?;
            return Ok(Admission::new(self, self.name(name), (secret, address), None, pending));
        }
        if self.over_limit(address) || self.guesses(address) {
            return Err(Reason::WrongCredentials);
        }
        let pending =
            self.questions.begin((Kind::Unknown, address), bytes).ok_or(Reason::WrongCredentials)?;
        let name = self.name(name);
        let _place = name.queue(secret).ok_or(Reason::WrongCredentials)?;
        let slot = name.slot.clone().acquire_owned().await.map_err(|_| Reason::WrongCredentials)?;
        if self.accepted.contains_key(&secret) {
            return Ok(Admission::new(self, name, (secret, address), None, pending));
        }
        if self.over_limit(address) || self.guesses(address) {
            return Err(Reason::WrongCredentials);
        }
        name.let_others_outlast().await;
        *lock(&name.trying) = Some(secret);
        Ok(Admission::new(self, name, (secret, address), Some(slot), pending))
    }

    /// A question without a secret: nothing to try, but it goes on when its client has left. `bytes` = what it holds.
    pub fn admit_anonymous(&self, (address, bytes): (IpAddr, usize)) -> Result<Pending<'_>, Reason> {
        self.questions.begin((Kind::Anonymous, network_of(address)), bytes).ok_or(Reason::Busy)
    }

    fn name(&self, name: &str) -> Arc<Name> {
        self.names.get_with(self.keyed(name.as_bytes()), || Arc::new(Name::new()))
    }

    /// Whether a Basic may go past the token service. A secret that was accepted before goes freely; of others those of
    /// an address over its limit do not, and of a name with as many refusals one goes in the time of one lock.
    pub fn pass(&self, credential: &HeaderValue, client: IpAddr) -> Result<(), Reason> {
        if self.has_accepted(credential) {
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
        if name.may_come_of_a_lock(&secret, took) {
            return;
        }
        self.count_wrong(network_of(client));
        *lock(&name.last_wrong) = Some((Instant::now(), secret));
    }

    /// Whether a refusal of this credential may come of the lock after a stranger's wrong one: evidence of nothing (A7).
    pub fn may_come_of_a_lock(&self, credential: &HeaderValue, took: Duration) -> bool {
        let user = basic_user(credential).unwrap_or_default();
        let name = self.names.get(&self.keyed(user.as_bytes()));
        name.is_some_and(|name| name.may_come_of_a_lock(&self.keyed(credential.as_bytes()), took))
    }

    /// Whether an address has tried too many wrong ones.
    pub fn is_over_limit(&self, client: IpAddr) -> bool {
        self.over_limit(network_of(client))
    }

    /// Counts a wrong one that we found out ourselves.
    pub fn tried_in_vain(&self, client: IpAddr) {
        self.count_wrong(network_of(client));
    }

    /// Whether Harbor has accepted this very credential before.
    pub fn has_accepted(&self, credential: &HeaderValue) -> bool {
        self.accepted.contains_key(&self.keyed(credential.as_bytes()))
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

    /// Whether an address has tried too many secrets that nobody could judge.
    fn guesses(&self, address: IpAddr) -> bool {
        let most = self.most.saturating_mul(UNTOLD);
        self.untold.get(&address).is_some_and(|window| lock(&window).is_full(most, self.per))
    }

    fn count_wrong(&self, address: IpAddr) {
        self.count(&self.addresses, address);
    }

    fn count_untold(&self, address: IpAddr) {
        self.count(&self.untold, address);
    }

    fn count(&self, windows: &Cache<IpAddr, Arc<Mutex<Window>>>, address: IpAddr) {
        let window = windows.get_with(address, || Arc::new(Mutex::new(Window::new())));
        lock(&window).count(self.per);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
