//! Token answers: kept for a short while, and shared by all who ask the same at once.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use aws_lc_rs::hmac;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};
use moka::sync::Cache;
use tokio::sync::watch;

use super::query::Query;
use crate::{
    decisions::ring::Ring,
    edges::fleet::Endpoint,
    flow::remembered::{self, Remembered},
    words::{
        clock::UnixTime,
        kid::Kid,
        reason::{Reason, Rescue},
    },
};

/// A keyed hash of credential, service and scopes.
pub type Place = [u8; 32];

/// What came of one question to Harbor.
#[derive(Clone, Debug, Default)]
pub struct Flown {
    /// Its status.
    pub status: StatusCode,
    /// The few headers that go down.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
    /// Sends that it took.
    pub sends: u32,
    /// The endpoint that answered.
    pub endpoint: Option<Arc<Endpoint>>,
    /// What rescued it.
    pub rescue: Option<Rescue>,
    /// The failure that its status hides.
    pub refusal: Option<Reason>,
    /// The key that signed the token.
    pub kid: Option<Kid>,
    /// Whom the token is for.
    pub subject: Option<Arc<str>>,
    /// Why there is no answer.
    pub failure: Option<Reason>,
}

impl Flown {
    /// No answer.
    pub fn failed(reason: Reason) -> Self {
        Self { failure: Some(reason), ..Self::default() }
    }

    /// This answer after an earlier send of the same question.
    pub(super) fn after(mut self, earlier: &Self) -> Self {
        self.sends += earlier.sends;
        self.rescue = earlier.rescue.or(self.rescue);
        self
    }
}

/// Answers in memory, and questions under way.
pub struct Answers {
    key: hmac::Key,
    kept: Cache<Place, Arc<Kept>>,
    flights: Mutex<HashMap<Place, watch::Receiver<Option<Arc<Flown>>>>>,
    generation: AtomicU64,
}

struct Kept {
    flown: Flown,
    until: UnixTime,
    life: Duration,
}

/// Bytes of all answers in memory together, at most.
const BYTES: u64 = 64 << 20;
/// What an answer takes beside its body and its headers.
const FRAME: usize = 512;

impl Remembered for Kept {
    fn bytes(&self) -> usize {
        let headers = self.flown.headers.values().map(|value| 64 + value.len());
        FRAME + self.flown.body.len() + headers.sum::<usize>()
    }

    fn life(&self) -> Duration {
        self.life
    }
}

impl Answers {
    /// Room for `capacity` answers, and for 64 MiB of them.
    pub fn new(key: hmac::Key, capacity: u64) -> Self {
        let kept = remembered::cache(capacity, BYTES);
        Self { key, kept, flights: Mutex::default(), generation: AtomicU64::new(0) }
    }

    /// The place of a question: every part with its length before it, so that no two questions share one.
    pub fn place(&self, deployment: &str, credential: Option<&HeaderValue>, query: &Query) -> Place {
        let mut context = hmac::Context::with_key(&self.key);
        let mut part = |bytes: &[u8]| {
            context.update(&(bytes.len() as u64).to_be_bytes());
            context.update(bytes);
        };
        part(deployment.as_bytes());
        part(&[u8::from(credential.is_some())]);
        part(credential.map_or(&[], |c| c.as_bytes()));
        part(query.service.as_bytes());
        for scope in &query.scopes {
            part(scope.kind.as_bytes());
            part(scope.name.as_bytes());
            part(&(scope.actions.len() as u64).to_be_bytes());
            scope.actions.iter().for_each(|action| part(action.as_bytes()));
        }
        let mut place = [0; 32];
        place.copy_from_slice(context.sign().as_ref());
        place
    }

    /// An answer that may be given again: not one whose key is known and does not verify any more.
    pub fn find(&self, place: &Place, ring: &Ring, now: UnixTime) -> Option<Flown> {
        let kept = self.kept.get(place)?;
        let entry = kept.flown.kid.as_ref().and_then(|kid| ring.find(kid.as_str()));
        let ended = entry.is_some_and(|entry| !entry.state(now).verifies());
        (now < kept.until && !ended).then(|| kept.flown.clone())
    }

    /// Keeps an answer until its time, unless a write has raised the generation since it was asked for (A2).
    pub fn keep(&self, place: Place, flown: &Flown, (now, until): (UnixTime, UnixTime), generation: u64) {
        let flown = Flown { sends: 0, rescue: None, ..flown.clone() };
        let kept = Kept { flown, until, life: until.since(now) };
        self.kept.insert(place, Arc::new(kept));
        if self.generation() != generation {
            self.kept.invalidate(&place);
        }
    }

    /// The generation of now: what was asked under an earlier one is not kept.
    pub fn generation(&self) -> u64 {
        self.generation.load(SeqCst)
    }

    /// A write may have changed what any credential may do: nothing that was answered before counts.
    pub fn forget_all(&self) {
        self.generation.fetch_add(1, SeqCst);
        self.kept.invalidate_all();
        self.flights.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Answers kept now.
    pub fn count(&self) -> u64 {
        // moka counts what it has seen to; that happens seldom where little is asked.
        self.kept.run_pending_tasks();
        self.kept.entry_count()
    }

    /// Asks once for all who ask the same at once. The flight is a task of its own: its first asker's leaving
    /// doesn't end it.
    pub async fn share<F: Future<Output = Flown> + 'static>(
        self: &Arc<Self>,
        place: Place,
        flight: impl FnOnce() -> F,
    ) -> Arc<Flown> {
        let (mut landing, take_off) = {
            let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(landing) = flights.get(&place) {
                (landing.clone(), None)
            } else {
                let (land, landing) = watch::channel(None);
                flights.insert(place, landing.clone());
                (landing, Some(land))
            }
        };
        if let Some(land) = take_off {
            let (flight, answers) = (flight(), self.clone());
            drop(tokio::task::spawn_local(async move {
                let _ended = Ended { answers: &answers, place, land: &land };
                let flown = Arc::new(flight.await);
                land.send_replace(Some(flown));
            }));
        }
        // An error means that the flight's worker is gone: the process ends.
        let landed = landing.wait_for(Option::is_some).await.ok().and_then(|flown| flown.clone());
        landed.unwrap_or_else(|| Arc::new(Flown::failed(Reason::UpstreamBroke)))
    }
}

/// Takes a flight off the list when it has landed, or its worker has ended; a later flight of the same
/// place stays.
struct Ended<'a> {
    answers: &'a Answers,
    place: Place,
    land: &'a watch::Sender<Option<Arc<Flown>>>,
}

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        let mut flights = self.answers.flights.lock().unwrap_or_else(PoisonError::into_inner);
        if flights.get(&self.place).is_some_and(|listed| listed.same_channel(&self.land.subscribe())) {
            flights.remove(&self.place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(each: usize, life: i64, count: u8) -> usize {
        let answers = Answers::new(hmac::Key::new(hmac::HMAC_SHA256, b"a test's own"), 100_000);
        let flown = Flown { body: Bytes::from(vec![0; each]), ..Flown::default() };
        for n in 0..count {
            answers.keep([n; 32], &flown, (UnixTime(1_000), UnixTime(1_000 + life)), 0);
        }
        answers.kept.run_pending_tasks();
        answers.kept.iter().count()
    }

    #[test]
    fn answers_are_bounded_in_bytes_and_gone_when_they_have_ended() {
        assert_eq!(kept(1_000, 45, 200), 200);
        assert_eq!(kept(1 << 20, 45, 200), 63, "64 MiB in all");
        assert_eq!(kept(1_000, 0, 200), 0, "of no use any more");
    }
}
