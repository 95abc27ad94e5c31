//! Requests that wait for an endpoint instead of failing: bounded in number and bytes, shared fairly, first come
//! first served, and let go no faster than endpoints answer (A25).

use std::{
    collections::VecDeque,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::budget::{Budget, Share};

/// Where requests wait.
pub struct Lot {
    places: Arc<Budget>,
    bytes: Arc<Budget>,
    line: Mutex<Line>,
}

/// Those who wait, and those who are on their way up after waiting.
#[derive(Debug, Default)]
struct Line {
    open: bool,
    waiting: VecDeque<(u64, oneshot::Sender<()>)>,
    next: u64,
    up: usize,
    width: usize,
}

/// How many go up at once when an endpoint is back: a core that has just started is not buried.
const FIRST: usize = 8;
/// How many at most, when it answers.
const MOST: usize = 256;

impl Line {
    /// Lets go who may go.
    fn advance(&mut self) {
        while self.open && self.up < self.width {
            let Some((_, turn)) = self.waiting.pop_front() else { return };
            if turn.send(()).is_ok() {
                self.up += 1;
            }
        }
    }
}

/// Room for one request that waits, until dropped.
pub struct Place {
    lot: Arc<Lot>,
    _shares: [Share; 2],
}

/// A parked request on its way up, until dropped.
pub struct Turn {
    lot: Arc<Lot>,
    answered: bool,
}

impl Lot {
    /// Room for so many requests and bytes.
    pub fn new(requests: usize, bytes: usize) -> Self {
        let line = Line { width: FIRST, ..Line::default() };
        Self {
            places: Arc::new(Budget::new(requests)),
            bytes: Arc::new(Budget::new(bytes)),
            line: Mutex::new(line),
        }
    }

    /// Another line for other waits, in the same room.
    pub fn beside(other: &Self) -> Self {
        let line = Line { width: FIRST, ..Line::default() };
        Self { places: other.places.clone(), bytes: other.bytes.clone(), line: Mutex::new(line) }
    }

    /// Room for a request of so many bytes; `None` where there is none left for its client.
    /// `principal` where it is proven; what a client only says takes nobody's part.
    pub fn enter(
        self: &Arc<Self>,
        client: IpAddr,
        principal: Option<&Arc<str>>,
        bytes: usize,
    ) -> Option<Place> {
        let take = |budget: &Arc<Budget>, many| match principal.filter(|name| !name.is_empty()) {
            Some(name) => budget.take(many, client, name.clone()),
            None => budget.take_unproven(many, client),
        };
        let (place, room) = (take(&self.places, 1)?, take(&self.bytes, bytes)?);
        Some(Place { lot: self.clone(), _shares: [place, room] })
    }

    /// Whether any endpoint takes requests now.
    pub fn tell(&self, open: bool) {
        let mut line = self.line();
        if line.open != open {
            line.open = open;
            line.width = FIRST;
        }
        line.advance();
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.line().waiting.len()
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Waits until it is this request's turn; `None` where that takes longer than `until`.
    pub async fn turn(&self, until: Instant) -> Option<Turn> {
        let mut waiting = {
            let mut line = self.lot.line();
            let number = line.next;
            line.next += 1;
            let (turn, told) = oneshot::channel();
            line.waiting.push_back((number, turn));
            line.advance();
            Waiting { lot: &self.lot, number, told }
        };
        tokio::time::timeout_at(until.into(), &mut waiting.told).await.ok()?.ok()?;
        Some(Turn { lot: self.lot.clone(), answered: false })
    }
}

/// A number in the line; dropped, it leaves no gap and takes nobody's turn.
struct Waiting<'a> {
    lot: &'a Lot,
    number: u64,
    told: oneshot::Receiver<()>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut line = self.lot.line();
        if self.told.try_recv().is_ok() {
            // It was let go and is not there any more.
            line.up -= 1;
            line.advance();
        } else {
            let number = self.number;
            line.waiting.retain(|(other, _)| *other != number);
        }
    }
}

/// How long a turn is kept without an answer. What takes longer than that is no sign of a core that is buried: what
/// is asked is slow, or core is not back, and then nobody follows.
const KEPT: Duration = Duration::from_secs(2);
/// How long where a body goes up: its end is as far away as its client likes, and core's word comes after it.
const KEPT_FOR_BODY: Duration = Duration::from_millis(250);

/// Gives the turn back where no answer has come in time, so that one slow request does not hold up those behind it.
pub async fn hold<T>(answer: impl Future<Output = T>, turn: &mut Option<Turn>, body: bool) -> T {
    tokio::pin!(answer);
    tokio::select! {
        biased;
        answer = &mut answer => return answer,
        () = tokio::time::sleep(if body { KEPT_FOR_BODY } else { KEPT }) => drop(turn.take()),
    }
    answer.await
}

impl Turn {
    /// An endpoint has answered: two may follow.
    pub fn answered(mut self) {
        self.answered = true;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut line = self.lot.line();
        line.up -= 1;
        if self.answered && line.open {
            line.width = (line.width + 1).min(MOST);
        }
        line.advance();
    }
}

#[cfg(test)]
mod tests;
