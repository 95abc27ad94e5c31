//! Whether cores reach their database: asked where an answer, or none, makes one doubt it, once a second and endpoint at
//! most, for all who doubt. What would fail with an endpoint goes to another one until that question is answered, and what
//! would hang with all of them does not go up. And the line of those who wait until one is.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicBool, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use tokio::{sync::Notify, time::sleep};

use super::park::{Lot, Turn};
use crate::{
    decisions::{
        outage::{self, Found, Need, Trouble},
        plan::Standing,
    },
    edges::{
        fleet::{Endpoint, Shelf, Snapshot, Status},
        probe::{self, AskFault, KEY_TARGET},
    },
    words::{credential::BLANK, reason::Reason},
};

/// How long a small request may be without an answer before we ask ourselves whether there will be one. Together with
/// [`PATIENCE`] well within what clients give a token (docker: 15 s).
pub const SILENCE: Duration = Duration::from_secs(2);
/// Between two questions to one endpoint.
const BETWEEN: Duration = Duration::from_secs(1);
/// The same where the last one found it well: whoever is refused while all is well waits for no longer.
const BETWEEN_WELL: Duration = Duration::from_millis(200);
/// For one answer.
const PATIENCE: Duration = Duration::from_secs(4);
/// For one answer of a core that was slow or silent before. Where Redis refuses, core's right answers take some 4 s (D3),
/// which is no outage of the database.
const LONG_PATIENCE: Duration = Duration::from_secs(8);
/// An answer that was slow tells so long that the next one may be: it may have been slow because an outage ended.
const SLOW: Duration = Duration::from_secs(10);
/// After so much of it we ask as well what needs no database (K11).
const BESIDE: Duration = Duration::from_secs(1);
/// So long after an outage an answer may still be its doing.
const RECENT: Duration = Duration::from_secs(5);
/// Endpoints that are remembered; those that left are among them.
const REMEMBERED: usize = 256;

/// What is known of cores' databases, and who waits for one.
pub struct Outages {
    lot: Arc<Lot>,
    cores: Mutex<HashMap<u64, Arc<Core>>>,
    /// Endpoints that are passed by.
    troubled: Mutex<HashMap<u64, Trouble>>,
    /// Whether there are any: all that a request looks at while there are none.
    any_troubled: AtomicBool,
    wanting: AtomicUsize,
    wanted: Notify,
}

/// One endpoint's.
#[derive(Default)]
struct Core {
    asked: tokio::sync::Mutex<Option<Question>>,
    out: Mutex<Option<Instant>>,
}

/// A question, and what came of it; `None` = its asker left.
#[derive(Clone, Copy)]
struct Question {
    began: Instant,
    found: Option<(Found, Instant)>,
    /// When the last answer came that was slow, or didn't come.
    slow: Option<Instant>,
}

impl Question {
    /// The next one, begun now.
    fn after(last: Option<Self>, now: Instant) -> Self {
        Self { began: now, found: None, slow: last.and_then(|last| last.slow) }
    }

    /// How long it may take.
    fn patience(&self) -> Duration {
        let is_recent = |slow| self.began.saturating_duration_since(slow) < SLOW;
        if self.slow.is_some_and(is_recent) { LONG_PATIENCE } else { PATIENCE }
    }

    fn answered(self, found: Found, now: Instant) -> Self {
        let is_slow =
            matches!(found, Found::Silent(_)) || now.saturating_duration_since(self.began) > PATIENCE / 2;
        Self { found: Some((found, now)), slow: is_slow.then_some(now), ..self }
    }

    /// What it tells of `since` or later. An answer may be as old as its question; silence lasted to its end.
    fn tells(&self, since: Instant) -> Option<Found> {
        let (found, ended) = self.found?;
        let of = if matches!(found, Found::Silent(_)) { ended } else { self.began };
        (of >= since).then_some(found)
    }

    /// From its begin to the next one's.
    fn pause(&self) -> Duration {
        match self.found {
            Some((Found::Well, _)) => BETWEEN_WELL,
            _ => BETWEEN,
        }
    }
}

impl Outages {
    /// Nothing is known; whoever waits does so in `lot`.
    pub fn new(lot: Lot) -> Self {
        Self {
            lot: Arc::new(lot),
            cores: Mutex::default(),
            troubled: Mutex::default(),
            any_troubled: AtomicBool::new(false),
            wanting: AtomicUsize::new(0),
            wanted: Notify::new(),
        }
    }

    /// Whether the endpoint's database has answered a question that began at `since` or later.
    pub async fn is_well(&self, endpoint: &Endpoint, since: Instant) -> bool {
        self.found(endpoint, since).await == Found::Well
    }

    /// Whether the endpoint hangs, asked because something that it was asked is not answered.
    pub async fn hangs(&self, endpoint: &Endpoint) -> bool {
        if matches!(self.trouble(endpoint.id, Need::Database), Some(Trouble::Hangs(_))) {
            return true;
        }
        let now = Instant::now();
        let since = now.checked_sub(BETWEEN).unwrap_or(now);
        matches!(self.found(endpoint, since).await, Found::Silent(_))
    }

    /// What a request would fail with at this endpoint, as far as is known.
    pub fn trouble(&self, id: u64, need: Need) -> Option<Trouble> {
        if !self.any() {
            return None;
        }
        self.troubled().get(&id).copied().filter(|trouble| need.fails_with(*trouble))
    }

    /// Whether any endpoint is in trouble.
    pub fn any(&self) -> bool {
        self.any_troubled.load(Relaxed)
    }

    /// What a question has found at the endpoint that began at `since` or later; or was not answered then.
    pub async fn found(&self, endpoint: &Endpoint, since: Instant) -> Found {
        let core = self.core(endpoint.id);
        let mut asked = core.asked.lock().await;
        if let Some(found) = asked.and_then(|asked| asked.tells(since)) {
            return found;
        }
        if let Some(last) = *asked {
            tokio::time::sleep_until((last.began + last.pause()).into()).await;
        }
        let question = Question::after(*asked, Instant::now());
        *asked = Some(question);
        let found = ask(endpoint, question.patience()).await;
        *asked = Some(question.answered(found, Instant::now()));
        if found != Found::Well {
            core.is_out();
        }
        self.settle(endpoint, found);
        found
    }

    /// What needs its database passes by the endpoint, or does not any more. Our own questions alone decide that: a
    /// client may have a hand in what its own request is answered.
    fn settle(&self, endpoint: &Endpoint, found: Found) {
        let trouble = found.trouble();
        let mut troubled = self.troubled();
        let before = match trouble {
            Some(trouble) => troubled.insert(endpoint.id, trouble),
            None => troubled.remove(&endpoint.id),
        };
        self.any_troubled.store(!troubled.is_empty(), Relaxed);
        drop(troubled);
        if before == trouble {
            return;
        }
        if trouble.is_some() {
            // The next round of questions opens it where another endpoint is well.
            self.lot.tell(false);
        }
        let endpoint = &endpoint.name;
        match trouble {
            Some(Trouble::Hangs(_)) => {
                tracing::warn!(%endpoint, "core hangs, or its database does: what needs it waits until core answers a question of ours");
            }
            Some(Trouble::Refuses) => tracing::warn!(%endpoint, "core does not reach its database"),
            None if found == Found::Well => tracing::info!(%endpoint, "core reaches its database again"),
            // That it can't be reached is told by whoever sends to it or probes it.
            None => {}
        }
        // To ask until it is well.
        self.wanted.notify_one();
    }

    fn troubled(&self) -> MutexGuard<'_, HashMap<u64, Trouble>> {
        self.troubled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget_left(&self, fleet: &Snapshot) {
        let mut troubled = self.troubled();
        troubled.retain(|id, _| fleet.by_id(*id).is_some());
        self.any_troubled.store(!troubled.is_empty(), Relaxed);
    }

    /// Whether an outage was seen there a moment ago.
    pub fn was_recently(&self, endpoint: &Endpoint) -> bool {
        let out = *self.core(endpoint.id).out.lock().unwrap_or_else(PoisonError::into_inner);
        out.is_some_and(|at| at.elapsed() < RECENT)
    }

    /// Waits until a core reaches its database again and it is this request's turn (A25); `reason` where that takes
    /// longer than `until`. `bytes` = what it holds.
    pub async fn wait(
        &self,
        (client, principal): (IpAddr, Option<&Arc<str>>),
        bytes: usize,
        until: Instant,
        reason: Reason,
    ) -> Result<Turn, Reason> {
        let place = self.lot.enter(client, principal, bytes).ok_or(Reason::Busy)?;
        let _wanting = Wanting::of(self);
        place.turn(until).await.ok_or(reason)
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.lot.waiting()
    }

    /// Asks while anybody waits or any endpoint is in trouble, for ever.
    pub async fn watch(&self, fleet: &Shelf) {
        loop {
            self.wanted.notified().await;
            while self.wanting.load(SeqCst) > 0 || self.any() {
                let now = Instant::now();
                let snapshot = fleet.snapshot();
                self.forget_left(&snapshot);
                let all = healthy(&snapshot).map(async |status| {
                    let well = self.is_well(&status.endpoint, now).await;
                    if well {
                        // Not first when the others have answered, too: one of them may hang.
                        self.lot.tell(true);
                    }
                    well
                });
                // What was told of one that is well may be out of date by now: it is not told again.
                if !join_all(all).await.contains(&true) {
                    self.lot.tell(false);
                }
                sleep((now + BETWEEN).saturating_duration_since(Instant::now())).await;
            }
            // Whoever waits next waits for an answer to a question of its own time.
            self.lot.tell(false);
        }
    }

    fn core(&self, id: u64) -> Arc<Core> {
        let mut cores = self.cores.lock().unwrap_or_else(PoisonError::into_inner);
        if cores.len() >= REMEMBERED && !cores.contains_key(&id) {
            cores.clear();
        }
        cores.entry(id).or_default().clone()
    }
}

impl Core {
    fn is_out(&self) {
        *self.out.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }
}

/// Somebody waits, until dropped.
struct Wanting<'a>(&'a Outages);

impl<'a> Wanting<'a> {
    fn of(outages: &'a Outages) -> Self {
        outages.wanting.fetch_add(1, SeqCst);
        outages.wanted.notify_one();
        Self(outages)
    }
}

impl Drop for Wanting<'_> {
    fn drop(&mut self) {
        self.0.wanting.fetch_sub(1, SeqCst);
    }
}

fn healthy(fleet: &Snapshot) -> impl Iterator<Item = &Status> {
    fleet.statuses.iter().filter(|status| status.standing == Standing::Healthy)
}

async fn ask(endpoint: &Endpoint, patience: Duration) -> Found {
    let question = probe::ask_as(endpoint, outage::QUESTION, BLANK, outage::has_empty_challenge, patience);
    let key = async {
        sleep(BESIDE).await;
        probe::ask(endpoint, KEY_TARGET, None, patience.saturating_sub(BESIDE)).await.is_ok()
    };
    tokio::pin!(question, key);
    let (answer, key) = tokio::select! {
        biased;
        answer = &mut question => match answer {
            // Both at the same time.
            Err(AskFault::Slow) => (Err(AskFault::Slow), key.await),
            answer => (answer, false),
        },
        key = &mut key => (question.await, key),
    };
    match answer {
        Ok(answer) if outage::shows_a_database(answer.status, &answer.headers, &answer.body) => Found::Well,
        Ok(_) => Found::Refusing,
        Err(AskFault::Slow) => Found::no_answer(key),
        // No error of a database has so many words.
        Err(AskFault::TooLong) => Found::Well,
        Err(_) => Found::Gone,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decisions::outage::Silence;

    #[test]
    fn silence_tells_of_its_end_and_an_answer_of_its_question() {
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let asked = |found| Question { began, found, slow: None };
        let tells = |found, since| asked(Some((found, at(5)))).tells(since) == Some(found);
        let silent = Found::Silent(Silence::Database);
        assert_eq!([0, 3, 5, 6].map(|since| tells(silent, at(since))), [true, true, true, false]);
        for found in [Found::Well, Found::Refusing, Found::Gone] {
            assert_eq!([0, 3].map(|since| tells(found, at(since))), [true, false], "{found:?}");
        }
        assert_eq!(asked(None).tells(began), None, "its asker left");
    }

    /// What each question finds, and when.
    type Answers<'a> = &'a [(Option<Found>, u64)];

    #[test]
    fn what_was_well_is_asked_again_soon_and_what_was_slow_has_more_time() {
        let began = Instant::now();
        let after = |millis| began + Duration::from_millis(millis);
        let (well, silent) = (Found::Well, Found::Silent(Silence::Core));
        let table: [(&str, Answers<'_>, _); 9] = [
            ("never asked", &[], None),
            ("well", &[(Some(well), 20)], Some((BETWEEN_WELL, PATIENCE))),
            ("well and slow", &[(Some(well), 3_000)], Some((BETWEEN_WELL, LONG_PATIENCE))),
            ("quick again", &[(Some(silent), 4_000), (Some(well), 20)], Some((BETWEEN_WELL, PATIENCE))),
            ("refuses", &[(Some(Found::Refusing), 20)], Some((BETWEEN, PATIENCE))),
            ("gone", &[(Some(Found::Gone), 20)], Some((BETWEEN, PATIENCE))),
            ("silent", &[(Some(silent), 4_000)], Some((BETWEEN, LONG_PATIENCE))),
            ("its asker left", &[(None, 20)], Some((BETWEEN, PATIENCE))),
            (
                "so did that of a slow one's next",
                &[(Some(silent), 4_000), (None, 20)],
                Some((BETWEEN, LONG_PATIENCE)),
            ),
        ];
        for (name, asked, want) in table {
            let mut now = began;
            let last = asked.iter().fold(None, |last, (found, took)| {
                let question = Question::after(last, now);
                now += Duration::from_millis(*took);
                Some(found.map_or(question, |found| question.answered(found, now)))
            });
            let next = Question::after(last, now);
            assert_eq!(last.map(|last| (last.pause(), next.patience())), want, "{name}");
            if last.is_none() {
                assert_eq!(next.patience(), PATIENCE, "{name}");
            }
        }
        // As at the end of an outage, whoever asked since and left.
        let slow = Question::after(None, began).answered(well, after(3_000));
        let left = Question::after(Some(slow), after(12_000));
        assert_eq!(left.patience(), LONG_PATIENCE, "slow a moment ago");
        assert_eq!(Question::after(Some(left), after(13_001)).patience(), PATIENCE, "slow long ago");
    }

    #[tokio::test]
    async fn who_begins_to_wait_does_not_shut_the_line_for_those_who_wait() {
        let outages = Outages::new(Lot::new(10, 1 << 20));
        outages.lot.tell(true);
        let (client, principal) = (IpAddr::from([127, 0, 0, 1]), Arc::from("dev"));
        let soon = Instant::now() + Duration::from_millis(100);
        let turn = outages.wait((client, Some(&principal)), 1, soon, Reason::Outage).await;
        assert!(turn.is_ok(), "only our own question does");
    }
}
