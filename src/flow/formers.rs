//! Former secrets of robots (A29): a client that still has one gets in until its window ends, on `/v2/` and
//! `/service/token` alone, and the present secret goes up in its place. Harbor judges that as it judges every credential.

mod files;

use std::{
    collections::HashSet,
    net::IpAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicBool, AtomicI64, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use aws_lc_rs::hmac;
use http::HeaderValue;
use moka::sync::Cache;
use subtle::ConstantTimeEq as _;
use tokio::sync::{Semaphore, watch};
use zeroize::Zeroizing;

use self::files::{Held, Looked};
pub use self::files::{read_hash, read_present};
use super::{context::Shared, known::Digest, token_service::WrongCredentials};
use crate::{
    decisions::former::FormerHash,
    edges::alarm::Alarm,
    words::{clock::UnixTime, credential::basic_pair, reason::Reason},
};

/// A robot's former secret, as it is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configured {
    /// The robot, exactly as Harbor has it.
    pub name: String,
    /// The hash of its former secret.
    pub hash_file: PathBuf,
    /// Its present secret.
    pub present_file: PathBuf,
    /// Until when the former one is taken.
    pub until: UnixTime,
}

/// All of them.
pub struct Formers {
    key: hmac::Key,
    all: ArcSwap<Vec<Arc<Former>>>,
    /// Whether there is any: all that a request looks at where there is none.
    any: AtomicBool,
    /// Secrets that were found right, and wrong, by a keyed hash with the hash that they were held against. Apart, so that
    /// guesses drive out no right one.
    right: Cache<[u8; 32], ()>,
    wrong: Cache<[u8; 32], ()>,
    /// Other secrets of such a robot that Harbor has accepted: no guesses drive them out.
    others: Cache<[u8; 32], ()>,
    /// Tokens that were given for a former secret, and whose it is.
    tokens: Cache<Digest, Arc<str>>,
    gave_any: AtomicBool,
    /// When the first window ends, or the past where one was taken out of the configuration.
    first_end: AtomicI64,
    at_once: Semaphore,
    /// The same for secrets that Harbor accepted before: they don't wait behind guesses (A7).
    of_accepted: Semaphore,
    waiting: AtomicUsize,
}

/// Verdicts of each kind in memory, and for how long: right ones as long as they are used every other day.
const VERDICTS: u64 = 10_000;
const RIGHT: Duration = Duration::from_hours(48);
const WRONG: Duration = Duration::from_mins(10);
/// Tokens that are known as given for a former secret, and for how long: none lives longer.
const TOKENS: u64 = 100_000;
const TOKEN: Duration = Duration::from_hours(24);
/// Hashes that are made at once: each takes a core, and 64 MiB at most.
const AT_ONCE: usize = 2;
/// Secrets that may wait for one, and for how long.
const WAITING: usize = 64;
const PATIENCE: Duration = Duration::from_secs(8);
/// Addresses of one robot that are told apart.
const ADDRESSES: usize = 1_000;

/// One robot's.
struct Former {
    configured: Configured,
    held: ArcSwap<Held>,
    looked: Mutex<Looked>,
    used: Mutex<Used>,
}

/// Who still uses it.
#[derive(Clone, Debug, Default)]
struct Used {
    requests: u64,
    last: Option<UnixTime>,
    addresses: HashSet<IpAddr>,
    /// When Harbor refused the present secret, and has not accepted it since.
    refused: Option<UnixTime>,
}

/// What operators see of one.
#[derive(Clone, Debug)]
pub struct Use {
    /// The robot.
    pub name: String,
    /// Until when its former secret is taken.
    pub until: UnixTime,
    /// Requests with it since the start.
    pub requests: u64,
    /// The last one.
    pub last: Option<UnixTime>,
    /// Addresses that they came from; 1,000 are told apart.
    pub addresses: usize,
}

/// A former secret that was taken.
pub struct Taken {
    /// The `Authorization` that goes up.
    pub present: HeaderValue,
    /// The robot.
    pub name: Arc<str>,
    /// When its window ends.
    pub until: UnixTime,
    former: Arc<Former>,
}

impl Formers {
    /// None yet.
    pub fn new(key: hmac::Key) -> Self {
        Self {
            key,
            all: ArcSwap::default(),
            any: AtomicBool::new(false),
            right: Cache::builder().max_capacity(VERDICTS).time_to_idle(RIGHT).build(),
            wrong: Cache::builder().max_capacity(VERDICTS).time_to_live(WRONG).build(),
            others: Cache::builder().max_capacity(VERDICTS).time_to_idle(RIGHT).build(),
            tokens: Cache::builder().max_capacity(TOKENS).time_to_live(TOKEN).build(),
            gave_any: AtomicBool::new(false),
            first_end: AtomicI64::new(i64::MAX),
            at_once: Semaphore::new(AT_ONCE),
            of_accepted: Semaphore::new(1),
            waiting: AtomicUsize::new(0),
        }
    }

    /// Takes these in the place of what was configured before, and reads their files: it may block.
    pub fn configure(&self, configured: Vec<Configured>, now: UnixTime) {
        let before = self.all.load_full();
        let former = |configured: Configured| {
            let same = before.iter().find(|former| former.configured == configured).cloned();
            same.unwrap_or_else(|| {
                Arc::new(Former {
                    configured,
                    held: ArcSwap::default(),
                    looked: Mutex::default(),
                    used: Mutex::default(),
                })
            })
        };
        let all: Vec<_> = configured.into_iter().map(former).collect();
        for former in &all {
            former.look(now);
        }
        let stays = |gone: &Arc<Former>| all.iter().any(|one| one.configured.name == gone.configured.name);
        if before.iter().all(stays) {
            let first = all.iter().map(|former| former.configured.until.0).min();
            let kept = self.first_end.load(SeqCst) == i64::MIN;
            self.first_end.store(if kept { i64::MIN } else { first.unwrap_or(i64::MAX) }, SeqCst);
        } else {
            self.first_end.store(i64::MIN, SeqCst);
        }
        self.any.store(!all.is_empty(), Relaxed);
        self.all.store(Arc::new(all));
    }

    /// Whether any is configured.
    pub fn any(&self) -> bool {
        self.any.load(Relaxed)
    }

    /// Reads files that have changed: it may block.
    pub fn look(&self, now: UnixTime) {
        self.all.load().iter().for_each(|former| former.look(now));
        if self.tokens.iter().next().is_none() {
            self.gave_any.store(false, SeqCst);
            // One may have been given since the look.
            if self.tokens.iter().next().is_some() {
                self.gave_any.store(true, SeqCst);
            }
        }
    }

    /// What the credential stands for, where it is a former secret whose window is open. Whoever tries others is limited
    /// as with every wrong credential.
    pub async fn take(
        &self,
        (came, client): (&HeaderValue, IpAddr),
        wrong: &WrongCredentials,
        now: UnixTime,
    ) -> Result<Option<Taken>, Reason> {
        let Some((name, secret)) = basic_pair(came) else { return Ok(None) };
        let all = self.all.load_full();
        let open = |former: &&Arc<Former>| {
            *former.configured.name.as_bytes() == **name && now < former.configured.until
        };
        let Some(former) = all.iter().find(open) else { return Ok(None) };
        let held = former.held.load_full();
        let (Some(hash), Some((present, header))) = (&held.hash, &held.present) else { return Ok(None) };
        if secret.len() == present.len() && bool::from(secret.ct_eq(present)) {
            return Ok(None);
        }
        let is_former = if wrong.has_accepted(came) {
            self.is_former_after_all(hash, (&name, secret)).await
        } else {
            self.is_former(hash, (&name, secret), (client, wrong)).await?
        };
        if !is_former {
            return Ok(None);
        }
        former.is_used(client, now);
        Ok(Some(Taken {
            present: header.clone(),
            name: former.configured.name.as_str().into(),
            until: former.configured.until,
            former: former.clone(),
        }))
    }

    /// Of a secret that Harbor accepted before, which it may accept still: it is limited together with no other one (A7),
    /// and where nobody can tell in time it goes up as it came.
    async fn is_former_after_all(
        &self,
        hash: &Arc<FormerHash>,
        (name, secret): (&[u8], Zeroizing<Vec<u8>>),
    ) -> bool {
        let place = self.place(hash, name, &secret);
        let known = || if self.others.get(&place).is_some() { Some(false) } else { self.verdict(&place) };
        if let Some(known) = known() {
            return known;
        }
        let turn = tokio::time::timeout(PATIENCE, self.of_accepted.acquire()).await;
        let Ok(Ok(_turn)) = turn else { return false };
        if let Some(known) = known() {
            return known;
        }
        let is_former = is_of(hash, secret).await;
        if is_former {
            self.right.insert(place, ());
        } else {
            self.others.insert(place, ());
        }
        is_former
    }

    async fn is_former(
        &self,
        hash: &Arc<FormerHash>,
        (name, secret): (&[u8], Zeroizing<Vec<u8>>),
        (client, wrong): (IpAddr, &WrongCredentials),
    ) -> Result<bool, Reason> {
        let place = self.place(hash, name, &secret);
        if let Some(known) = self.verdict(&place) {
            return Ok(known);
        }
        if wrong.is_over_limit(client) {
            return Err(Reason::WrongCredentials);
        }
        let _waiting = Waiting::enter(&self.waiting).ok_or(Reason::Busy)?;
        let turn = tokio::time::timeout(PATIENCE, self.at_once.acquire()).await;
        let _turn = turn.map_err(|_| Reason::Busy)?.map_err(|_| Reason::Busy)?;
        if let Some(known) = self.verdict(&place) {
            return Ok(known);
        }
        if wrong.is_over_limit(client) {
            return Err(Reason::WrongCredentials);
        }
        let is_former = is_of(hash, secret).await;
        if is_former {
            self.right.insert(place, ());
        } else {
            self.wrong.insert(place, ());
            wrong.tried_in_vain(client);
        }
        Ok(is_former)
    }

    fn verdict(&self, place: &[u8; 32]) -> Option<bool> {
        if self.right.get(place).is_some() { Some(true) } else { self.wrong.get(place).map(|()| false) }
    }

    fn place(&self, hash: &FormerHash, name: &[u8], secret: &[u8]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.key);
        for part in [hash.bytes(), name, secret] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut place = [0; 32];
        place.iter_mut().zip(context.sign().as_ref()).for_each(|(to, from)| *to = *from);
        place
    }

    /// A token was given for a robot's former secret: it ends with its window.
    pub fn gave(&self, token: Digest, robot: &Arc<str>) {
        self.tokens.insert(token, robot.clone());
        self.gave_any.store(true, SeqCst);
    }

    /// Whether any such token may have ended: all that is asked while none has.
    pub fn may_have_ended(&self, now: UnixTime) -> bool {
        self.gave_any.load(Relaxed) && self.first_end.load(Relaxed) <= now.0
    }

    /// Whether this one has: its window is over, or was taken out of the configuration.
    pub fn has_ended(&self, token: &Digest, now: UnixTime) -> bool {
        let Some(robot) = self.tokens.get(token) else { return false };
        let open = |former: &Arc<Former>| former.configured.name == *robot && now < former.configured.until;
        !self.all.load().iter().any(open)
    }

    /// Who still uses which.
    pub fn uses(&self) -> Vec<Use> {
        let of = |former: &Arc<Former>| {
            let used = lock(&former.used);
            Use {
                name: former.configured.name.clone(),
                until: former.configured.until,
                requests: used.requests,
                last: used.last,
                addresses: used.addresses.len(),
            }
        };
        self.all.load().iter().map(of).collect()
    }

    /// What an operator should mend.
    pub fn alarms(&self) -> Vec<Alarm> {
        self.all.load().iter().flat_map(|former| former.alarms()).collect()
    }
}

impl Former {
    fn is_used(&self, client: IpAddr, now: UnixTime) {
        let mut used = lock(&self.used);
        used.requests += 1;
        used.last = Some(now);
        if used.addresses.len() < ADDRESSES {
            used.addresses.insert(client);
        }
    }

    fn alarms(&self) -> Vec<Alarm> {
        let mut alarms = self.held.load().alarms.clone();
        if let Some(since) = lock(&self.used).refused {
            alarms.push(Alarm {
                path: self.configured.present_file.display().to_string(),
                cause: format!("Harbor refuses the present secret of {}", self.configured.name),
                remedy: "write the robot's present secret into the file",
                since,
                is_warning: false,
                forbids_start: false,
            });
        }
        alarms
    }
}

impl Taken {
    /// Whether Harbor took the present secret; for operators.
    pub fn settle(&self, accepted: bool, now: UnixTime) {
        let mut used = lock(&self.former.used);
        used.refused = if accepted { None } else { Some(used.refused.unwrap_or(now)) };
    }
}

/// Off the worker, which serves others meanwhile.
async fn is_of(hash: &Arc<FormerHash>, secret: Zeroizing<Vec<u8>>) -> bool {
    let hash = hash.clone();
    tokio::task::spawn_blocking(move || hash.is_of(&secret)).await.unwrap_or(false)
}

/// One that waits for its turn, until dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn enter(waiting: &'a AtomicUsize) -> Option<Self> {
        let entered = Self(waiting);
        (waiting.fetch_add(1, SeqCst) < WAITING).then_some(entered)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

/// Reads files that have changed, until `stop`.
pub async fn follow(shared: Arc<Shared>, every: Duration, mut stop: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        if !shared.formers.any() {
            continue;
        }
        let shared = shared.clone();
        let looked = tokio::task::spawn_blocking(move || shared.formers.look(shared.clock.now()));
        if let Err(error) = looked.await {
            tracing::error!(%error, "a look at the files of former secrets failed; the next one tries again");
        }
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
