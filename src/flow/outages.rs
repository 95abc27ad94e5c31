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
        fleet::{Endpoint, Shelf, Snapshot},
        probe::{self, AskFault, KEY_TARGET},
    },
    words::{credential::BLANK, reason::Reason},
};

/// How long a small request may be without an answer before we ask ourselves whether there will be one. Together with
/// [`PATIENCE`] well within what clients give a token (docker: 15 s).
pub const SILENCE: Duration = Duration::from_secs(2);
/// Between two questions to one endpoint.
const BETWEEN: Duration = Duration::from_secs(1);
/// For one answer. Core takes up to 4 s for the first ones where Redis refuses (D3), which is no outage of the database;
/// where one is taken for it, the next question mends that.
const PATIENCE: Duration = Duration::from_secs(4);
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
    asked: tokio::sync::Mutex<Option<Asked>>,
    out: Mutex<Option<Instant>>,
}

/// A question, and what came of it; `None` = its asker left.
#[derive(Clone, Copy)]
struct Asked {
    began: Instant,
    found: Option<(Found, Instant)>,
}

impl Asked {
    /// What it tells of `since` or later. An answer may be as old as its question; silence lasted to its end.
    fn tells(&self, since: Instant) -> Option<Found> {
        let (found, ended) = self.found?;
        let of = if matches!(found, Found::Silent(_)) { ended } else { self.began };
        (of >= since).then_some(found)
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

    async fn found(&self, endpoint: &Endpoint, since: Instant) -> Found {
        let core = self.core(endpoint.id);
        let mut asked = core.asked.lock().await;
        if let Some(found) = asked.and_then(|asked| asked.tells(since)) {
            return found;
        }
        if let Some(Asked { began, .. }) = *asked {
            tokio::time::sleep_until((began + BETWEEN).into()).await;
        }
        let began = Instant::now();
        *asked = Some(Asked { began, found: None });
        let found = ask(endpoint).await;
        *asked = Some(Asked { began, found: Some((found, Instant::now())) });
        if found != Found::Well {
            core.is_out();
        }
        self.settle(endpoint, found.trouble());
        found
    }

    /// What needs its database passes by the endpoint, or does not any more.
    fn settle(&self, endpoint: &Endpoint, trouble: Option<Trouble>) {
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
        let endpoint = &endpoint.name;
        match trouble {
            Some(Trouble::Hangs(_)) => {
                tracing::warn!(%endpoint, "core hangs, or its database does: what needs it waits until core answers a question of ours");
            }
            Some(Trouble::Refuses) => tracing::warn!(%endpoint, "core does not reach its database"),
            None => tracing::info!(%endpoint, "core reaches its database again"),
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

    /// An answer has told of an outage.
    pub fn note(&self, endpoint: &Endpoint) {
        self.core(endpoint.id).is_out();
        if self.trouble(endpoint.id, Need::Database).is_none() {
            self.settle(endpoint, Some(Trouble::Refuses));
        }
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
        self.lot.tell(false);
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
                let healthy = snapshot.statuses.iter().filter(|s| s.standing == Standing::Healthy);
                let all = healthy.map(async |status| {
                    let well = self.is_well(&status.endpoint, now).await;
                    if well {
                        // Not first when the others have answered, too: one of them may hang.
                        self.lot.tell(true);
                    }
                    well
                });
                let well = join_all(all).await.contains(&true);
                self.lot.tell(well);
                sleep((now + BETWEEN).saturating_duration_since(Instant::now())).await;
            }
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

async fn ask(endpoint: &Endpoint) -> Found {
    let blank = BLANK;
    let question = probe::ask_as(endpoint, outage::QUESTION, (Some(&blank), None), PATIENCE);
    let key = async {
        sleep(BESIDE).await;
        probe::ask(endpoint, KEY_TARGET, None, PATIENCE.saturating_sub(BESIDE)).await.is_ok()
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
        let tells = |found, since| Asked { began, found: Some((found, at(5))) }.tells(since) == Some(found);
        let silent = Found::Silent(Silence::Database);
        assert_eq!([0, 3, 5, 6].map(|since| tells(silent, at(since))), [true, true, true, false]);
        for found in [Found::Well, Found::Refusing, Found::Gone] {
            assert_eq!([0, 3].map(|since| tells(found, at(since))), [true, false], "{found:?}");
        }
        assert_eq!(Asked { began, found: None }.tells(began), None, "its asker left");
    }
}
