//! What Harbor last granted each credential, by exact scope: what grace may grant again (A15). In memory, and kept in the
//! store for a restart and for other replicas.

#[cfg(test)]
mod tests;

use std::{
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use aws_lc_rs::{
    aead::{AES_256_GCM_SIV, Aad, Nonce, RandomizedNonceKey},
    hmac,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::HeaderValue;
use moka::{notification::RemovalCause, sync::Cache};
use zeroize::Zeroizing;

use super::{
    known::Digest,
    remembered::{self, Remembered},
};
use crate::{
    decisions::{
        grace::{
            self,
            ends::{End, Ends, ProcessId, Secret, Seen, Whose},
        },
        record::{self, Kind, granted::Grant},
        token::claims::{self, Claims},
    },
    edges::store::Store,
    words::{clock::UnixTime, credential::basic_user, scope::Access},
};

/// A keyed hash of credential, service and scopes.
type Place = [u8; 32];

/// Bytes of all records together, at most.
const BYTES: u64 = 192 << 20;
/// What a record takes beside its token and its access.
const FRAME: usize = 512;
/// Tokens of grace that are known as such: those that live.
const GIVEN: u64 = 100_000;
/// How much longer than it lives a token of grace is known as one: clocks differ.
const SLACK: Duration = Duration::from_mins(1);

/// All of them.
pub struct Graces {
    /// Until then grace is off: what has ended isn't known (A20).
    opened: Arc<OnceLock<Opened>>,
    records: Cache<Place, Arc<Granted>>,
    /// What is known of each credential; one for all its records.
    credentials: Cache<Secret, Arc<Standing>>,
    given: Cache<Digest, Arc<Granted>>,
    ends: Arc<Mutex<Ends>>,
}

/// What records are found by, and where they are kept.
struct Opened {
    key: hmac::Key,
    /// What tokens of grace are shown to be such by.
    proofs: Option<RandomizedNonceKey>,
    store: Option<Arc<Store>>,
}

/// What is sealed in a token of grace, bound to what it says: whose it is, and what was known to have ended when it was
/// asked for. As bytes: headers have their bounds.
struct Proof {
    secret: Secret,
    seen: Seen,
}

/// Processes that a proof may speak of: it has some 800 bytes of the token then.
const PROCESSES: usize = 32;

impl Proof {
    /// The secret, then each process and its last number. `None` where there are too many: such a token is known where it
    /// was given alone, by its bytes.
    fn write(&self) -> Option<Vec<u8>> {
        let pairs: Vec<_> = self.seen.iter().collect();
        if pairs.len() > PROCESSES {
            return None;
        }
        let pairs = pairs.into_iter().flat_map(|(by, number)| [by.0, number]).flat_map(u64::to_be_bytes);
        Some(self.secret.iter().copied().chain(pairs).collect())
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (secret, pairs) = bytes.split_first_chunk::<{ size_of::<Secret>() }>()?;
        let (numbers, []) = pairs.as_chunks::<8>() else { return None };
        let (pairs, []) = numbers.as_chunks::<2>() else { return None };
        let pair =
            |[by, number]: &[[u8; 8]; 2]| (ProcessId(u64::from_be_bytes(*by)), u64::from_be_bytes(*number));
        Some(Self { secret: *secret, seen: pairs.iter().map(pair).collect() })
    }
}

/// AES-256-GCM-SIV's.
const NONCE: usize = 12;

impl Opened {
    fn new(key: hmac::Key, store: Option<Arc<Store>>) -> Self {
        let opened = Self { key, proofs: None, store };
        let of_proofs = Zeroizing::new(opened.keyed([b"tidegate token of grace", b""]));
        Self { proofs: RandomizedNonceKey::new(&AES_256_GCM_SIV, &*of_proofs).ok(), ..opened }
    }

    fn keyed(&self, parts: [&[u8]; 2]) -> Place {
        let mut context = hmac::Context::with_key(&self.key);
        for part in parts {
            context.update(part);
        }
        let mut place = [0; 32];
        place.copy_from_slice(context.sign().as_ref());
        place
    }

    fn secret(&self, credential: &HeaderValue) -> Secret {
        self.keyed([b"tidegate credential ", credential.as_bytes()])
    }

    /// Has it written at once.
    fn keep_end(&self, end: &End) {
        if let Some(store) = &self.store {
            store.keep(self.place_of_end(end.by, &end.whose), record::end::write(end), Some(end.over()));
        }
    }

    fn place_of_end(&self, by: ProcessId, whose: &Whose) -> record::Place {
        let of = match whose {
            Whose::All => "all".to_owned(),
            Whose::Project(name) => {
                URL_SAFE_NO_PAD.encode(self.keyed([b"tidegate project ", name.as_bytes()]))
            }
            Whose::Credential(secret) => URL_SAFE_NO_PAD.encode(secret),
            Whose::Subject(name) => {
                format!(
                    "subject-{}",
                    URL_SAFE_NO_PAD.encode(self.keyed([b"tidegate user ", name.as_bytes()]))
                )
            }
            Whose::Answers { replays: false } => "answers".to_owned(),
            Whose::Answers { replays: true } => "replays".to_owned(),
        };
        record::Place::new(Kind::End, format!("{by}-{of}"))
    }
}

/// What is known of a credential, whatever it asked for: when Harbor last accepted it, and what was known to have ended
/// then.
#[derive(Debug, Default)]
struct Standing(Mutex<(UnixTime, Seen)>);

impl Standing {
    /// Here and now, whatever a clock that was ahead has said before.
    fn accepted(&self, at: UnixTime, seen: &Seen) {
        *lock(&self.0) = (at, seen.clone());
    }

    /// By another process, or another life of this one.
    fn was_accepted(&self, at: UnixTime, seen: &Seen) {
        let mut last = lock(&self.0);
        if last.0 <= at {
            *last = (at, seen.clone());
        }
    }
}

/// What Harbor granted a credential for one question.
pub struct Granted {
    /// The token that Harbor issued.
    pub token: Box<str>,
    /// Whom it is for.
    pub subject: Arc<str>,
    /// What it grants.
    pub access: Vec<Access>,
    accepted: UnixTime,
    seen: Seen,
    secret: Secret,
    standing: Arc<Standing>,
    ends: Arc<Mutex<Ends>>,
    life: Duration,
    /// What the store holds of it.
    kept: Option<(UnixTime, Seen)>,
}

impl Remembered for Granted {
    fn bytes(&self) -> usize {
        let access = self.access.iter().map(|access| {
            let actions = access.actions.iter().map(|action| 32 + action.len());
            96 + access.name.len() + actions.sum::<usize>()
        });
        FRAME + self.token.len() + access.sum::<usize>()
    }

    fn life(&self) -> Duration {
        self.life
    }
}

impl Granted {
    /// What is decided by.
    pub fn record(&self) -> grace::Record {
        grace::Record { accepted: self.accepted, suspended: self.is_over() }
    }

    /// Whether a refusal or a write has ended it, and the tokens that were given for it.
    pub fn is_over(&self) -> bool {
        self.has_ended(&self.seen)
    }

    fn has_ended(&self, seen: &Seen) -> bool {
        lock(&self.ends).has_ended(seen, &self.secret, &self.subject, &self.access)
    }

    /// Of what was known when it was asked for, what concerns it: the rest says nothing of it.
    fn seen_of_it(&self) -> Seen {
        lock(&self.ends).concerning(&self.seen, &self.secret, &self.subject, &self.access)
    }

    /// What the store holds of it, where that would bring back as much as it should.
    fn kept_well(&self, like: &Self, window: Duration) -> Option<(UnixTime, Seen)> {
        let (accepted, seen) = self.kept.as_ref()?;
        let same = self.access == like.access && self.subject == like.subject;
        let good = same && !grace::outdated(*accepted, window, like.accepted) && !self.has_ended(seen);
        good.then(|| (*accepted, seen.clone()))
    }
}

impl Graces {
    /// Room for `capacity` records, and for 192 MiB of them. Off until it is opened; `own` = who says here what has
    /// ended.
    pub fn new(own: ProcessId, capacity: u64) -> Self {
        let opened = Arc::<OnceLock<Opened>>::default();
        let ends = Arc::new(Mutex::new(Ends::new(own)));
        let records = remembered::cache_that_tells(capacity, BYTES, removed(opened.clone()));
        let credentials = Cache::builder()
            .max_capacity(capacity)
            .eviction_listener(forgotten(opened.clone(), ends.clone()))
            .build();
        let given = Cache::builder().max_capacity(GIVEN).time_to_live(grace::LIFE + SLACK).build();
        Self { opened, records, credentials, given, ends }
    }

    /// Grace is on from now: records are found by hashes under this key, and kept in the store where there is one.
    pub fn open(&self, key: hmac::Key, store: Option<Arc<Store>>) {
        // The first one stands: records are found by it.
        let _ = self.opened.set(Opened::new(key, store));
    }

    /// Whether it is.
    pub fn is_open(&self) -> bool {
        self.opened.get().is_some()
    }

    /// The place of a question, which `hash` makes; `None` while grace is off.
    pub fn place(&self, hash: impl FnOnce(&hmac::Key) -> Place) -> Option<Place> {
        self.opened.get().map(|opened| hash(&opened.key))
    }

    /// What is known to have ended now.
    pub fn seen(&self) -> Seen {
        lock(&self.ends).seen()
    }

    /// Harbor has granted this for `credential` at `place`, asked for by who knew as much as `seen`; good for `window`.
    pub fn accepted(
        &self,
        place: Place,
        credential: &HeaderValue,
        (token, subject, access): (&str, &str, &[Access]),
        (now, window): (UnixTime, Duration),
        seen: Seen,
    ) {
        let Some(opened) = self.opened.get().filter(|_| !window.is_zero()) else { return };
        let window = window.min(grace::LONGEST);
        let secret = opened.secret(credential);
        let standing = self.standing(secret);
        standing.accepted(now, &seen);
        let mut granted = Granted {
            token: token.into(),
            subject: subject.into(),
            access: access.to_vec(),
            accepted: now,
            seen,
            secret,
            standing,
            ends: self.ends.clone(),
            life: window,
            kept: None,
        };
        if let Some(store) = &opened.store {
            let before = self.records.get(&place);
            granted.kept = before.and_then(|before| before.kept_well(&granted, window));
            if granted.kept.is_none() && grace::grants(access) {
                granted.keep(store, place, window);
            }
        }
        self.records.insert(place, Arc::new(granted));
    }

    fn standing(&self, secret: Secret) -> Arc<Standing> {
        self.credentials.get_with(secret, Arc::default)
    }

    /// What the store holds at this place, written by another process or another life of this one.
    pub fn recall(&self, place: &str, grant: Grant, (now, window): (UnixTime, Duration)) {
        let place = URL_SAFE_NO_PAD.decode(place).ok().and_then(|place| Place::try_from(place).ok());
        let life = grant.accepted.plus(window.min(grace::LONGEST)).since(now);
        let Some(place) = place.filter(|_| !life.is_zero()) else { return };
        let Grant { token, subject, access, secret, accepted, seen } = grant;
        if self.records.get(&place).is_some_and(|known| known.accepted >= accepted) {
            return;
        }
        let standing = self.standing(secret);
        let (ends, kept) = (self.ends.clone(), Some((accepted, seen.clone())));
        let subject = Arc::from(subject);
        let granted = Granted { token, subject, access, accepted, seen, secret, standing, ends, life, kept };
        if !granted.is_over() {
            granted.standing.was_accepted(accepted, &granted.seen);
            self.records.insert(place, Arc::new(granted));
        }
    }

    /// Another process has ended something; whether it is an end of answers that wasn't known.
    pub fn learn(&self, end: End) -> bool {
        lock(&self.ends).learn(end)
    }

    /// A write may have changed what a credential may do: tells the other processes that share the store.
    pub fn tell_of_answers(&self, replays: bool, now: UnixTime) {
        if let Some(opened) = self.opened.get().filter(|opened| opened.store.is_some()) {
            end(&self.ends, opened, Whose::Answers { replays }, now);
        }
    }

    /// Forgets what ended so long ago that it concerns nothing any more.
    pub fn tidy(&self, now: UnixTime) {
        let gone = lock(&self.ends).forget_over(now);
        let Some(Opened { store: Some(store), .. }) = self.opened.get() else { return };
        let own = lock(&self.ends).own();
        let places = gone.iter().filter_map(|whose| Some(self.opened.get()?.place_of_end(own, whose)));
        places.for_each(|place| store.forget(place));
    }

    /// Harbor has refused this credential, and nothing was the matter with Harbor.
    pub fn suspend(&self, credential: &HeaderValue, now: UnixTime) {
        let Some(opened) = self.opened.get() else { return };
        let secret = opened.secret(credential);
        // Of what Harbor never accepted there is nothing to end.
        if self.known(credential).is_some_and(|known| !known.suspended) {
            end(&self.ends, opened, Whose::Credential(secret), now);
        }
    }

    /// When Harbor last accepted this credential, for whatever it was.
    pub fn known(&self, credential: &HeaderValue) -> Option<grace::Record> {
        let secret = self.opened.get()?.secret(credential);
        let (accepted, seen) = lock(&self.credentials.get(&secret)?.0).clone();
        let name = basic_user(credential).unwrap_or_default();
        let suspended = lock(&self.ends).has_ended(&seen, &secret, &name, &[]);
        Some(grace::Record { accepted, suspended })
    }

    /// What was granted last at `place`, unless it is over.
    pub fn find(&self, place: &Place) -> Option<Arc<Granted>> {
        let granted = self.records.get(place)?;
        // What is no more known of the credential might have been that it is suspended.
        let known = self.credentials.get(&granted.secret)?;
        (Arc::ptr_eq(&known, &granted.standing) && !granted.is_over()).then_some(granted)
    }

    /// What shows all processes of the deployment that a token with these claims is a token of grace, good until
    /// `expires`; nothing where there is no other.
    pub fn proof(&self, granted: &Granted, expires: UnixTime) -> Option<String> {
        let opened = self.opened.get().filter(|opened| opened.store.is_some())?;
        let claims = claims::read(&granted.token).ok()?.unverified_claims;
        let mut sealed = Proof { secret: granted.secret, seen: granted.seen_of_it() }.write()?;
        let bound_to = Aad::from(said(&claims, expires.0)?);
        let nonce = opened.proofs.as_ref()?.seal_in_place_append_tag(bound_to, &mut sealed).ok()?;
        Some(URL_SAFE_NO_PAD.encode([nonce.as_ref().as_slice(), &sealed].concat()))
    }

    /// What a token with these claims was given for, where it is one of grace of this deployment.
    pub fn proved(&self, claims: &Claims) -> Option<Arc<Granted>> {
        let sealed = claims.grace.as_ref()?;
        let opened = self.opened.get()?;
        let mut bytes = URL_SAFE_NO_PAD.decode(sealed).ok()?;
        let (nonce, sealed) = bytes.split_at_mut_checked(NONCE)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let bound_to = Aad::from(said(claims, claims.exp)?);
        let plain = opened.proofs.as_ref()?.open_in_place(nonce, bound_to, sealed).ok()?;
        let Proof { secret, seen } = Proof::read(plain)?;
        Some(Arc::new(Granted {
            token: "".into(),
            subject: claims.sub.as_deref().unwrap_or_default().into(),
            access: claims.access.clone().unwrap_or_default(),
            accepted: UnixTime(claims.iat),
            seen,
            secret,
            standing: Arc::default(),
            ends: self.ends.clone(),
            life: Duration::ZERO,
            kept: None,
        }))
    }

    /// Records in memory now.
    pub fn count(&self) -> u64 {
        // moka counts what it has seen to; that happens seldom where little is asked.
        self.records.run_pending_tasks();
        self.records.entry_count()
    }

    /// Notes a token of grace by its digest.
    pub fn gave(&self, digest: Digest, granted: Arc<Granted>) {
        self.given.insert(digest, granted);
    }

    /// What this token of grace was given for: it may live longer after its `iat` than Harbor's own tokens do, and ends
    /// with that.
    pub fn given(&self, digest: &Digest) -> Option<Arc<Granted>> {
        self.given.get(digest)
    }

    /// A write may have changed what anybody may do in this project.
    pub fn forget_project(&self, project: &str, now: UnixTime) {
        if let Some(opened) = self.opened.get() {
            end(&self.ends, opened, Whose::Project(project.into()), now);
        }
    }

    /// An operator has revoked what this user was given: whatever clocks say, only what is asked for from now on counts.
    pub fn forget_subject(&self, subject: &str, now: UnixTime) {
        if let Some(opened) = self.opened.get() {
            end(&self.ends, opened, Whose::Subject(subject.into()), now);
        }
    }

    /// A write may have changed what any credential may do.
    pub fn forget_all(&self, now: UnixTime) {
        if let Some(opened) = self.opened.get() {
            end(&self.ends, opened, Whose::All, now);
        }
        self.credentials.invalidate_all();
        self.records.invalidate_all();
    }
}

impl Granted {
    /// Has it written, and notes that.
    fn keep(&mut self, store: &Store, place: Place, window: Duration) {
        let record = Grant::write(&self.token, &self.secret, self.accepted, &self.seen_of_it());
        let expires = Some(self.accepted.plus(window));
        if store.keep(place_in_store(&place), record, expires) {
            self.kept = Some((self.accepted, self.seen.clone()));
        }
    }
}

/// What a token says that grace must not change, and its end.
fn said(claims: &Claims, expires: i64) -> Option<Vec<u8>> {
    serde_json::to_vec(&(&claims.sub, expires, claims.iat, &claims.access)).ok()
}

fn place_in_store(place: &Place) -> record::Place {
    record::Place::new(Kind::Grant, URL_SAFE_NO_PAD.encode(place))
}

fn end(ends: &Mutex<Ends>, opened: &Opened, whose: Whose, now: UnixTime) {
    // Written in the order of their numbers.
    let mut ends = lock(ends);
    let end = ends.add(whose, now);
    opened.keep_end(&end);
}

/// The store keeps no more of it than memory does, and forgets what is over where nobody else may have it anew.
fn removed(
    opened: Arc<OnceLock<Opened>>,
) -> impl Fn(Arc<Place>, Arc<Granted>, RemovalCause) + Send + Sync + 'static {
    move |place, granted, cause| {
        let Some(Opened { store: Some(store), .. }) = opened.get() else { return };
        let gone = match cause {
            RemovalCause::Size => true,
            RemovalCause::Expired => !store.is_shared(),
            RemovalCause::Explicit | RemovalCause::Replaced => false,
        };
        if gone && granted.kept.is_some() {
            store.forget(place_in_store(&place));
        }
    }
}

/// A credential that is no more known may be refused unnoticed: what was granted to it ends.
fn forgotten(
    opened: Arc<OnceLock<Opened>>,
    ends: Arc<Mutex<Ends>>,
) -> impl Fn(Arc<Secret>, Arc<Standing>, RemovalCause) + Send + Sync + 'static {
    move |secret, standing, cause| {
        if let (RemovalCause::Size, Some(opened)) = (cause, opened.get()) {
            // Its clock is at hand: what it ends isn't younger.
            let at = lock(&standing.0).0;
            end(&ends, opened, Whose::Credential(*secret), at);
        }
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
