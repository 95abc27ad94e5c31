//! Counters of one worker: arrays of atomics, indexed by the closed lists, summed at scrape.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use http::StatusCode;

use crate::words::{
    reason::{Outcome, Reason, Rescue},
    route::Route,
};

/// Names of routes, in the order of their indices.
pub const ROUTES: [&str; 7] = ["registry", "token", "ui_login", "api", "portal", "components", "own"];

/// Statuses 100 to 599.
pub const STATUSES: usize = 500;

/// Upper bounds of the duration histogram, seconds.
pub const BOUNDS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0];

/// The counters of one worker.
pub struct Counters {
    requests: Vec<AtomicU64>,
    durations: Vec<Histogram>,
    rescues: [AtomicU64; Rescue::ALL.len()],
    would_rescue: [AtomicU64; Rescue::ALL.len()],
    reasons: [AtomicU64; Reason::ALL.len()],
    outcomes: [AtomicU64; Outcome::ALL.len()],
    /// Connections from clients that are open.
    pub connections: AtomicU64,
    /// Bytes of request bodies that went up.
    pub bytes_up: AtomicU64,
    /// Bytes of answers that went down.
    pub bytes_down: AtomicU64,
    /// Verified tokens found in memory.
    pub token_hits: AtomicU64,
    /// Tokens that had to be verified.
    pub token_misses: AtomicU64,
    /// Token answers found in memory.
    pub answer_hits: AtomicU64,
    /// Token requests that went to Harbor.
    pub answer_misses: AtomicU64,
    /// Log lines dropped because the writer was behind.
    pub log_dropped: AtomicU64,
}

struct Histogram {
    buckets: [AtomicU64; BOUNDS.len() + 1],
    micros: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: std::array::from_fn(|_| AtomicU64::new(0)), micros: AtomicU64::new(0) }
    }
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            requests: (0..ROUTES.len() * STATUSES).map(|_| AtomicU64::new(0)).collect(),
            durations: (0..ROUTES.len()).map(|_| Histogram::default()).collect(),
            rescues: std::array::from_fn(|_| AtomicU64::new(0)),
            would_rescue: std::array::from_fn(|_| AtomicU64::new(0)),
            reasons: std::array::from_fn(|_| AtomicU64::new(0)),
            outcomes: std::array::from_fn(|_| AtomicU64::new(0)),
            connections: AtomicU64::new(0),
            bytes_up: AtomicU64::new(0),
            bytes_down: AtomicU64::new(0),
            token_hits: AtomicU64::new(0),
            token_misses: AtomicU64::new(0),
            answer_hits: AtomicU64::new(0),
            answer_misses: AtomicU64::new(0),
            log_dropped: AtomicU64::new(0),
        }
    }
}

/// The index of a route in [`ROUTES`].
pub fn route_index(route: &Route<'_>) -> usize {
    match route {
        Route::Registry(_) => 0,
        Route::Token => 1,
        Route::UiLogin => 2,
        Route::Api => 3,
        Route::Portal => 4,
        Route::Components => 5,
        Route::Own => 6,
    }
}

impl Counters {
    /// One answered request of the route at `route`.
    pub fn answered(&self, route: usize, status: StatusCode, took: Duration, outcome: Outcome) {
        let place = usize::from(status.as_u16()).saturating_sub(100).min(STATUSES - 1);
        self.requests[route * STATUSES + place].fetch_add(1, Relaxed);
        self.outcomes[outcome.index()].fetch_add(1, Relaxed);
        let histogram = &self.durations[route];
        let seconds = took.as_secs_f64();
        let bucket = BOUNDS.iter().position(|b| seconds <= *b).unwrap_or(BOUNDS.len());
        histogram.buckets[bucket].fetch_add(1, Relaxed);
        histogram.micros.fetch_add(took.as_micros() as u64, Relaxed);
    }

    /// One request rescued.
    pub fn rescued(&self, by: Rescue) {
        self.rescues[by.index()].fetch_add(1, Relaxed);
    }

    /// One refusal that observe mode let pass and enforce mode would have rescued.
    pub fn would_have_rescued(&self, by: Rescue) {
        self.would_rescue[by.index()].fetch_add(1, Relaxed);
    }

    /// One refusal of ours.
    pub fn refused(&self, reason: Reason) {
        self.reasons[reason.index()].fetch_add(1, Relaxed);
    }

    /// Requests of a route with a status (place = status − 100).
    pub fn requests(&self, route: usize, place: usize) -> u64 {
        self.requests[route * STATUSES + place].load(Relaxed)
    }

    /// Rescues so far.
    pub fn rescues(&self, by: Rescue) -> u64 {
        self.rescues[by.index()].load(Relaxed)
    }

    /// Refusals so far that enforce mode would have rescued.
    pub fn would_rescues(&self, by: Rescue) -> u64 {
        self.would_rescue[by.index()].load(Relaxed)
    }

    /// Refusals so far.
    pub fn reasons(&self, reason: Reason) -> u64 {
        self.reasons[reason.index()].load(Relaxed)
    }

    /// Requests by what became of them.
    pub fn outcomes(&self, outcome: Outcome) -> u64 {
        self.outcomes[outcome.index()].load(Relaxed)
    }

    /// A route's durations: counts by bucket (not cumulative), and their sum in seconds.
    pub fn durations(&self, route: usize) -> ([u64; BOUNDS.len() + 1], f64) {
        let histogram = &self.durations[route];
        let counts = std::array::from_fn(|i| histogram.buckets[i].load(Relaxed));
        (counts, histogram.micros.load(Relaxed) as f64 / 1e6)
    }
}
