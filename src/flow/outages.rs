//! Whether cores reach their database: asked where an answer makes one doubt it, once a second and endpoint at most,
//! for all who doubt. And the line of those who wait until one does again.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use tokio::{sync::Notify, time::sleep};

use super::park::{Lot, Turn};
use crate::{
    decisions::{outage, plan::Standing},
    edges::{
        fleet::{Endpoint, Shelf},
        probe,
    },
    words::{credential::BLANK, reason::Reason},
};

/// Between two questions to one endpoint.
const BETWEEN: Duration = Duration::from_secs(1);
/// For one answer. Core takes up to 4 s where Redis refuses (D3), which is no outage of the database.
const PATIENCE: Duration = Duration::from_secs(5);
/// So long after an outage an answer may still be its doing.
const RECENT: Duration = Duration::from_secs(5);
/// Endpoints that are remembered; those that left are among them.
const REMEMBERED: usize = 256;

/// What is known of cores' databases, and who waits for one.
pub struct Outages {
    lot: Arc<Lot>,
    cores: Mutex<HashMap<u64, Arc<Core>>>,
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
    well: Option<bool>,
}

impl Outages {
    /// Nothing is known; whoever waits does so in `lot`.
    pub fn new(lot: Lot) -> Self {
        Self {
            lot: Arc::new(lot),
            cores: Mutex::default(),
            wanting: AtomicUsize::new(0),
            wanted: Notify::new(),
        }
    }

    /// Whether the endpoint's database has answered a question that began at `since` or later.
    pub async fn is_well(&self, endpoint: &Endpoint, since: Instant) -> bool {
        let core = self.core(endpoint.id);
        let mut asked = core.asked.lock().await;
        if let Some(Asked { began, well: Some(well) }) = *asked
            && began >= since
        {
            return well;
        }
        if let Some(Asked { began, .. }) = *asked {
            tokio::time::sleep_until((began + BETWEEN).into()).await;
        }
        let began = Instant::now();
        *asked = Some(Asked { began, well: None });
        let well = ask(endpoint).await;
        *asked = Some(Asked { began, well: Some(well) });
        if !well {
            core.is_out();
        }
        well
    }

    /// An answer has told of an outage.
    pub fn note(&self, endpoint: &Endpoint) {
        self.core(endpoint.id).is_out();
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
        (client, principal): (IpAddr, &Arc<str>),
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

    /// Asks while anybody waits, for ever.
    pub async fn watch(&self, fleet: &Shelf) {
        loop {
            self.wanted.notified().await;
            while self.wanting.load(SeqCst) > 0 {
                let now = Instant::now();
                let snapshot = fleet.snapshot();
                let healthy = snapshot.statuses.iter().filter(|s| s.standing == Standing::Healthy);
                let all = healthy.map(|status| self.is_well(&status.endpoint, now));
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

async fn ask(endpoint: &Endpoint) -> bool {
    let answer = probe::ask_as(endpoint, outage::QUESTION, (Some(&BLANK), None), PATIENCE).await;
    answer.is_ok_and(|answer| outage::shows_a_database(answer.status, &answer.headers, &answer.body))
}
