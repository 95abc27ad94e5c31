//! Keys that come over the network: from peers and from JWKS URLs. Asked for now and then, and at once when a token names a key
//! that nobody here knows. A request never waits for more than its own part of that.

pub mod fetch;
pub mod peers;
pub mod urls;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
    time,
};

use self::{
    peers::Peers,
    urls::{Url, Urls},
};
use super::key_source::KeyShelf;
use crate::words::{clock::Clock, kid::Kid};

/// How often is looked whether a URL's time has come.
const LOOK: Duration = Duration::from_secs(1);
/// Rounds at once; one more begins when one of them has ended.
const ROUNDS: usize = 8;
/// From a connection's beginning to an answer's end.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between two periodic rounds where there are no peers to ask.
const SELDOM: Duration = Duration::from_hours(1);

/// All that may tell of keys from afar.
pub struct Distant {
    peers: Option<Arc<Peers>>,
    urls: Arc<Urls>,
    wanted: Mutex<Option<Kid>>,
    wake: Notify,
    asked: AtomicU64,
    answered: watch::Sender<u64>,
}

impl Distant {
    /// Nothing is asked yet: see [`Distant::run`].
    pub fn new(peers: Option<Peers>, urls: Vec<Url>, shelf: Arc<KeyShelf>, clock: Clock) -> Self {
        let urls = Arc::new(Urls::new(urls, shelf, clock));
        let (wanted, wake, asked, answered) = Default::default();
        Self { peers: peers.map(Arc::new), urls, wanted, wake, asked, answered }
    }

    /// Whether anybody can be asked.
    pub fn is_any(&self) -> bool {
        self.peers.as_ref().is_some_and(|peers| peers.asks()) || self.urls.is_any()
    }

    /// What this process shows to peers, and knows of them.
    pub fn peers(&self) -> Option<&Peers> {
        self.peers.as_deref()
    }

    /// The JWKS URLs.
    pub fn urls(&self) -> &Urls {
        &self.urls
    }

    /// How many rounds were asked for so far.
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::Acquire)
    }

    /// Asks for a round at once, for a key of this name; the round's number. How often that may be is the caller's to bound.
    pub fn ask(&self, kid: Option<Kid>) -> u64 {
        *self.wanted.lock().unwrap_or_else(PoisonError::into_inner) = kid;
        let number = self.asked.fetch_add(1, Ordering::AcqRel) + 1;
        self.wake.notify_one();
        number
    }

    /// Whether everybody has answered in the round of this number, or a later one, or let his time pass.
    pub fn has_answered(&self, number: u64) -> bool {
        *self.answered.borrow() >= number
    }

    /// Waits for that, at most so long.
    pub async fn answered_within(&self, number: u64, most: Duration) {
        let mut answered = self.answered.subscribe();
        time::timeout(most, answered.wait_for(|answered| *answered >= number)).await.ok();
    }

    /// Asks until `stop` is true or its sender is gone.
    pub async fn run(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let mut rounds = JoinSet::new();
        let mut peers = interval(self.peers.as_ref().map_or(SELDOM, |peers| peers.every()));
        let mut urls = interval(LOOK);
        loop {
            let all = Arc::clone(&self);
            tokio::select! {
                _ = peers.tick() => drop(rounds.spawn(async move { all.ask_peers().await })),
                _ = urls.tick() => drop(rounds.spawn(async move { all.urls.round(false).await })),
                () = self.wake.notified(), if rounds.len() < ROUNDS => {
                    let number = self.asked();
                    drop(rounds.spawn(async move { all.ask_all(number).await }));
                }
                Some(_) = rounds.join_next(), if !rounds.is_empty() => {}
                // An error says that the sender is gone, which is a stop too.
                _ = stop.wait_for(|stop| *stop) => return,
            }
        }
    }

    async fn ask_peers(&self) {
        if let Some(peers) = &self.peers {
            peers.periodic_round().await;
        }
    }

    async fn ask_all(&self, number: u64) {
        let wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let peers = async {
            if let Some(peers) = &self.peers {
                peers.round(wanted.as_ref()).await;
            }
        };
        tokio::join!(peers, self.urls.round(true));
        self.tell_answered(number);
    }

    fn tell_answered(&self, number: u64) {
        self.answered.send_if_modified(|answered| {
            let is_later = *answered < number;
            *answered = number.max(*answered);
            is_later
        });
    }
}

fn interval(every: Duration) -> time::Interval {
    let mut interval = time::interval(every.max(Duration::from_millis(1)));
    interval.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    interval
}
