//! What Harbor last granted each credential, by exact scope, in memory: what grace may grant again (A15).

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI64, Ordering::SeqCst},
    },
    time::Duration,
};

use aws_lc_rs::hmac;
use http::HeaderValue;
use moka::sync::Cache;

use super::{
    known::Digest,
    remembered::{self, Remembered},
};
use crate::{
    decisions::grace,
    words::{clock::UnixTime, route::project_of, scope::Access},
};

/// A keyed hash of credential, service and scopes; one of a credential alone.
type Place = [u8; 32];

/// Bytes of all records together, at most.
const BYTES: u64 = 128 << 20;
/// What a record takes beside its token and its access.
const FRAME: usize = 512;
/// Tokens of grace that are known as such: those that live.
const GIVEN: u64 = 100_000;
/// How much longer than it lives a token of grace is known as one: clocks differ.
const SLACK: Duration = Duration::from_mins(1);

/// All of them.
pub struct Graces {
    key: hmac::Key,
    records: Cache<Place, Arc<Granted>>,
    /// What is known of each credential; one for all its records.
    credentials: Cache<Place, Arc<Standing>>,
    given: Cache<Digest, Arc<Granted>>,
    ends: Arc<Mutex<Ends>>,
}

/// Which records writes have ended, by the number of the write: a record counts if it is of the last write that
/// concerns it, or later.
#[derive(Debug, Default)]
struct Ends {
    writes: u64,
    of_all: u64,
    of_project: HashMap<Box<str>, u64>,
}

/// Projects whose last write is remembered; with one more, all records end.
const PROJECTS: usize = 4_096;

impl Ends {
    fn write(&mut self, project: Option<&str>) {
        self.writes += 1;
        match project {
            Some(project) if self.of_project.len() < PROJECTS || self.of_project.contains_key(project) => {
                self.of_project.insert(project.into(), self.writes);
            }
            _ => {
                self.of_all = self.writes;
                self.of_project.clear();
            }
        }
    }

    /// Whether what `subject` asked for after `since` writes has ended. What names no repository is a log-in: of a
    /// project's writes only those to its own robots concern one.
    fn has_ended(&self, since: u64, subject: &str, access: &[Access]) -> bool {
        let ended = |project: &str| self.of_project.get(project).is_some_and(|write| since < *write);
        let mut projects = access.iter().filter(|it| it.kind == "repository").map(|it| project_of(&it.name));
        since < self.of_all || projects.any(ended) || owners_of(subject).any(ended)
    }
}

/// What may be the project of a robot: Harbor calls it `robot$project+name`, with any prefix in the place of `robot$`.
fn owners_of(subject: &str) -> impl Iterator<Item = &str> {
    let owner = subject.split_once('+').map_or("", |(owner, _)| owner);
    owner.char_indices().map(|(at, _)| &owner[at..])
}

/// What is known of a credential, whatever it asked for.
#[derive(Debug, Default)]
struct Standing {
    suspended: AtomicBool,
    /// When Harbor last accepted it, Unix seconds.
    accepted: AtomicI64,
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
    since: u64,
    secret: Place,
    standing: Arc<Standing>,
    ends: Arc<Mutex<Ends>>,
    life: Duration,
}

impl Remembered for Granted {
    fn bytes(&self) -> usize {
        FRAME + 2 * self.token.len()
    }

    fn life(&self) -> Duration {
        self.life
    }
}

impl Granted {
    /// What is decided by.
    pub fn record(&self) -> grace::Record {
        grace::Record { accepted: self.accepted, suspended: self.standing.suspended.load(SeqCst) }
    }

    /// Whether a refusal or a write has ended it, and the tokens that were given for it.
    pub fn is_over(&self) -> bool {
        self.record().suspended || lock(&self.ends).has_ended(self.since, &self.subject, &self.access)
    }
}

impl Graces {
    /// Room for `capacity` records, and for 128 MiB of them.
    pub fn new(key: hmac::Key, capacity: u64) -> Self {
        let life = grace::LIFE + SLACK;
        Self {
            key,
            records: remembered::cache(capacity, BYTES),
            credentials: Cache::builder().max_capacity(capacity).build(),
            given: Cache::builder().max_capacity(GIVEN).time_to_live(life).build(),
            ends: Arc::default(),
        }
    }

    /// The number of the last write that ended records.
    pub fn writes(&self) -> u64 {
        lock(&self.ends).writes
    }

    /// Harbor has granted this for `credential` at `place`, asked for after so many `writes`; kept for `window`.
    pub fn accepted(
        &self,
        place: Place,
        credential: &HeaderValue,
        (token, subject, access): (&str, &str, &[Access]),
        (now, window): (UnixTime, Duration),
        writes: u64,
    ) {
        if window.is_zero() {
            return;
        }
        let secret = self.keyed(credential);
        let standing = match self.credentials.get(&secret) {
            Some(known) if !known.suspended.load(SeqCst) => known,
            // What was granted before it was refused stays over.
            _ => {
                let fresh = Arc::<Standing>::default();
                self.credentials.insert(secret, fresh.clone());
                fresh
            }
        };
        standing.accepted.store(now.0, SeqCst);
        let (token, subject, access) = (token.into(), subject.into(), access.to_vec());
        let (since, life, ends) = (writes, window, self.ends.clone());
        let granted = Granted { token, subject, access, accepted: now, since, secret, standing, ends, life };
        self.records.insert(place, Arc::new(granted));
    }

    /// Harbor has refused this credential, and nothing was the matter with Harbor.
    pub fn suspend(&self, credential: &HeaderValue) {
        if let Some(known) = self.credentials.get(&self.keyed(credential)) {
            known.suspended.store(true, SeqCst);
        }
    }

    /// When Harbor last accepted this credential, for whatever it was.
    pub fn known(&self, credential: &HeaderValue) -> Option<grace::Record> {
        let standing = self.credentials.get(&self.keyed(credential))?;
        let accepted = UnixTime(standing.accepted.load(SeqCst));
        Some(grace::Record { accepted, suspended: standing.suspended.load(SeqCst) })
    }

    /// What was granted last at `place`, unless it is over.
    pub fn find(&self, place: &Place) -> Option<Arc<Granted>> {
        let granted = self.records.get(place)?;
        // What is no more known of the credential might have been that it is suspended.
        let known = self.credentials.get(&granted.secret)?;
        (Arc::ptr_eq(&known, &granted.standing) && !granted.is_over()).then_some(granted)
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
    pub fn forget_project(&self, project: &str) {
        lock(&self.ends).write(Some(project));
    }

    /// A write may have changed what any credential may do.
    pub fn forget_all(&self) {
        lock(&self.ends).write(None);
        self.credentials.invalidate_all();
        self.records.invalidate_all();
    }

    fn keyed(&self, credential: &HeaderValue) -> Place {
        let tag = hmac::sign(&self.key, credential.as_bytes());
        let mut place = [0; 32];
        place.copy_from_slice(tag.as_ref());
        place
    }
}

fn lock(ends: &Mutex<Ends>) -> MutexGuard<'_, Ends> {
    ends.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASIC: HeaderValue = HeaderValue::from_static("Basic ZGV2OnNlY3JldA==");
    const NOW: UnixTime = UnixTime(1_000_000);
    const WINDOW: Duration = Duration::from_hours(12);

    fn graces() -> Graces {
        Graces::new(hmac::Key::new(hmac::HMAC_SHA256, b"a test's own"), 100)
    }

    fn accept(graces: &Graces, place: u8, window: Duration) {
        grant(graces, place, &[], window);
    }

    fn grant(graces: &Graces, place: u8, names: &[&str], window: Duration) {
        let access = |name: &&str| Access {
            kind: "repository".into(),
            name: (*name).into(),
            actions: vec!["pull".into()],
        };
        let access: Vec<_> = names.iter().map(access).collect();
        graces.accepted([place; 32], &BASIC, ("a.b.c", "dev", &access), (NOW, window), graces.writes());
    }

    fn suspended(graces: &Graces, place: u8) -> Option<bool> {
        graces.find(&[place; 32]).map(|granted| granted.record().suspended)
    }

    #[test]
    fn a15_a_refusal_suspends_every_scope_until_harbor_accepts_that_one_again() {
        let graces = graces();
        accept(&graces, 1, WINDOW);
        accept(&graces, 2, WINDOW);
        graces.suspend(&HeaderValue::from_static("Basic other"));
        assert_eq!([1, 2].map(|place| suspended(&graces, place)), [Some(false); 2], "another's refusal");
        graces.suspend(&BASIC);
        assert_eq!([1, 2].map(|place| suspended(&graces, place)), [None; 2]);
        assert_eq!(graces.known(&BASIC).map(|record| record.suspended), Some(true));
        accept(&graces, 2, WINDOW);
        assert_eq!([1, 2].map(|place| suspended(&graces, place)), [None, Some(false)]);
        let record = grace::Record { accepted: NOW, suspended: false };
        assert_eq!(graces.known(&BASIC), Some(record), "whatever it asked for");
        assert_eq!(graces.known(&HeaderValue::from_static("Basic other")), None);
    }

    #[test]
    fn a_write_to_a_project_ends_what_was_granted_there_and_log_ins_of_its_robots() {
        let graces = graces();
        let grants: [&[&str]; 4] = [&["mine/a", "other/b"], &["other/b"], &[], &["mine/a"]];
        let all = || [0, 1, 2, 3].map(|place| graces.find(&[place; 32]).is_some());
        for (place, names) in grants.iter().enumerate().take(3) {
            grant(&graces, place as u8, names, WINDOW);
        }
        let robots = ["robot$mine+ci", "bot-mine+ci", "robot$other+ci", "robot$ci"];
        for (place, name) in (10..).zip(robots) {
            graces.accepted([place; 32], &BASIC, ("a.b.c", name, &[]), (NOW, WINDOW), graces.writes());
        }
        let given = graces.find(&[0; 32]).expect("a record");
        graces.gave([7; 32], given);
        graces.forget_project("mine");
        grant(&graces, 3, grants[3], WINDOW);
        assert_eq!(all(), [false, true, true, true]);
        assert!(
            graces.given(&[7; 32]).is_some_and(|granted| granted.is_over()),
            "tokens in somebody's hands"
        );
        let kept = [10, 11, 12, 13].map(|place| graces.find(&[place; 32]).is_some());
        assert_eq!(kept, [false, false, true, true]);
        let asked_before = graces.writes();
        graces.forget_project("other");
        let access = graces.find(&[3; 32]).expect("a record").access.clone();
        let others = Access { name: "other/b".into(), ..access[0].clone() };
        graces.accepted([1; 32], &BASIC, ("a.b.c", "dev", &[others]), (NOW, WINDOW), asked_before);
        assert_eq!(all(), [false, false, true, true], "an answer that was asked for before the write");
        (0..=PROJECTS).for_each(|n| graces.forget_project(&n.to_string()));
        assert_eq!(all(), [false; 4], "what is not remembered of each counts for all");
    }

    #[test]
    fn a_write_ends_them_and_nothing_is_kept_where_grace_is_off() {
        let graces = graces();
        accept(&graces, 1, WINDOW);
        let held = graces.find(&[1; 32]).expect("a record");
        graces.gave([7; 32], held);
        graces.forget_all();
        assert!(graces.find(&[1; 32]).is_none());
        assert!(graces.given(&[7; 32]).is_some_and(|granted| granted.is_over()));
        accept(&graces, 3, Duration::ZERO);
        assert!(graces.find(&[3; 32]).is_none());
    }
}
