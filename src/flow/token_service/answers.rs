//! Token answers: kept for a short while, and shared by all who ask the same at once.

use std::{
    collections::HashMap,
    net::IpAddr,
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
use tokio::{sync::watch, time::timeout};

use super::query::Query;
use crate::{
    decisions::ring::Ring,
    edges::fleet::Endpoint,
    flow::{
        budget::network_of,
        remembered::{self, Remembered},
    },
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
    /// Whether it grants nobody nothing of some repository: it is private, or core could not look it up.
    pub grants_nothing: bool,
    /// Why there is no answer.
    pub failure: Option<Reason>,
}

impl Flown {
    /// No answer.
    pub fn failed(reason: Reason) -> Self {
        Self { failure: Some(reason), ..Self::default() }
    }

    /// Whether it says something of who asked first, and nothing of who asked the same.
    fn is_its_askers_alone(&self) -> bool {
        matches!(self.failure, Some(Reason::Busy | Reason::WrongCredentials))
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
    flights: Mutex<HashMap<Place, Flying>>,
    generation: AtomicU64,
}

/// A question under way.
#[derive(Clone)]
struct Flying {
    /// The network of who asked first.
    client: IpAddr,
    landing: watch::Receiver<Option<Arc<Flown>>>,
}

impl Flying {
    async fn landed(mut self) -> Arc<Flown> {
        // An error means that the flight's worker is gone: the process ends.
        let landed = self.landing.wait_for(Option::is_some).await.ok().and_then(|flown| flown.clone());
        landed.unwrap_or_else(|| Arc::new(Flown::failed(Reason::UpstreamBroke)))
    }
}

/// How long a question without a secret waits for one of another network: that one may be waiting for what only its
/// own network lacks.
const PATIENCE: Duration = Duration::from_secs(1);

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

    /// The place of a question.
    pub fn place(&self, deployment: &str, credential: Option<&HeaderValue>, query: &Query) -> Place {
        query.place(&self.key, deployment, credential)
    }

    /// The place of the same question by a client with a robot's former secret: what it is given is nobody else's, and
    /// ends with that (A29).
    pub fn place_of_former(&self, place: Place) -> Place {
        self.derived(place, b"former secret")
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
    /// doesn't end it. Whoever shares a flight of another network's shares neither its limits nor, `hurried`, its
    /// waits: they ask for their own network then.
    pub async fn share<F: Future<Output = Flown> + 'static>(
        self: &Arc<Self>,
        place: Place,
        (client, hurried): (IpAddr, bool),
        flight: impl Fn() -> F,
    ) -> Arc<Flown> {
        let client = network_of(client);
        let shared = self.board(place, client, &flight);
        if shared.client == client {
            return shared.landed().await;
        }
        let flown =
            if hurried { timeout(PATIENCE, shared.landed()).await.ok() } else { Some(shared.landed().await) };
        match flown.filter(|flown| !flown.is_its_askers_alone()) {
            Some(flown) => flown,
            None => self.board(self.of_network(place, client), client, &flight).landed().await,
        }
    }

    /// The flight of that place that is under way, or a new one.
    fn board<F: Future<Output = Flown> + 'static>(
        self: &Arc<Self>,
        place: Place,
        client: IpAddr,
        flight: &impl Fn() -> F,
    ) -> Flying {
        let (land, flying) = {
            let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(flying) = flights.get(&place) {
                return flying.clone();
            }
            let (land, landing) = watch::channel(None);
            let flying = Flying { client, landing };
            flights.insert(place, flying.clone());
            (land, flying)
        };
        let (flight, answers) = (flight(), self.clone());
        drop(tokio::task::spawn_local(async move {
            let _ended = Ended { answers: &answers, place, land: &land };
            let flown = Arc::new(flight.await);
            land.send_replace(Some(flown));
        }));
        flying
    }

    /// The place of a question that one network asks for itself.
    fn of_network(&self, place: Place, client: IpAddr) -> Place {
        self.derived(place, client.to_string().as_bytes())
    }

    fn derived(&self, place: Place, of: &[u8]) -> Place {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&place);
        context.update(of);
        let mut own = [0; 32];
        own.copy_from_slice(context.sign().as_ref());
        own
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
        if flights.get(&self.place).is_some_and(|listed| listed.landing.same_channel(&self.land.subscribe()))
        {
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

    /// What the second asker gets who joins the first one's flight, and how often Harbor was asked.
    async fn second(
        first: &str,
        second: &str,
        hurried: bool,
        of_first: Option<Reason>,
    ) -> (Arc<Flown>, usize) {
        let answers = Arc::new(Answers::new(hmac::Key::new(hmac::HMAC_SHA256, b"a test's own"), 10));
        let asked = std::cell::Cell::new(0);
        let flight = || {
            let before = asked.replace(asked.get() + 1);
            async move {
                match of_first.filter(|_| before == 0) {
                    // It waits for what its asker lacks.
                    Some(Reason::NoEndpoint) => std::future::pending().await,
                    Some(reason) => {
                        tokio::task::yield_now().await;
                        Flown::failed(reason)
                    }
                    None => Flown::default(),
                }
            }
        };
        let share = |client: &str, hurried| {
            let client = client.parse().expect("an address");
            answers.share([7; 32], (client, hurried), &flight)
        };
        let both = async {
            let mut one = Box::pin(share(first, false));
            assert!(futures_util::poll!(&mut one).is_pending());
            let other = timeout(5 * PATIENCE, share(second, hurried)).await.expect("an answer in time");
            (other, asked.get())
        };
        tokio::task::LocalSet::new().run_until(both).await
    }

    #[tokio::test]
    async fn who_shares_a_flight_shares_none_of_its_askers_limits() {
        let (first, other) = ("192.0.2.1", "192.0.2.2");
        for limit in [Reason::Busy, Reason::WrongCredentials] {
            let (flown, asked) = second(first, other, false, Some(limit)).await;
            assert_eq!((flown.failure, asked), (None, 2), "{limit:?}: it asks for itself");
            let (flown, asked) = second(first, first, false, Some(limit)).await;
            assert_eq!((flown.failure, asked), (Some(limit), 1), "the same client");
        }
        let (flown, asked) = second(first, other, false, Some(Reason::UpstreamSlow)).await;
        assert_eq!(
            (flown.failure, asked),
            (Some(Reason::UpstreamSlow), 1),
            "Harbor's trouble is everybody's"
        );
        assert_eq!(second(first, other, true, None).await.1, 1, "an answer is shared");
        let (flown, asked) = second(first, other, true, Some(Reason::NoEndpoint)).await;
        assert_eq!((flown.failure, asked), (None, 2), "nor does it wait as long");
    }
}
