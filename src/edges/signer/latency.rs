//! How long signatures take, by where they are made.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// Upper bounds of the histogram, seconds: from RSA-2048 in memory to a token that is given up.
pub const BOUNDS: [f64; 12] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, f64::INFINITY];

/// One place's signatures since the start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Latency {
    /// Counts by [`BOUNDS`], not cumulative.
    pub buckets: [u64; BOUNDS.len()],
    /// All of them together.
    pub total: Duration,
}

impl Latency {
    /// Signatures.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// How long one takes, on average.
    pub fn mean(&self) -> Duration {
        self.total.checked_div(self.count().try_into().unwrap_or(u32::MAX)).unwrap_or_default()
    }

    fn note(&mut self, took: Duration) {
        let seconds = took.as_secs_f64();
        let reached = self.buckets.iter_mut().zip(BOUNDS).find(|(_, bound)| seconds <= *bound);
        if let Some((bucket, _)) = reached {
            *bucket += 1;
        }
        self.total += took;
    }
}

/// All places that signed. Its lock is held for a look-up; a signature takes a thousand times as long.
#[derive(Debug, Default)]
pub(super) struct Latencies(Mutex<BTreeMap<Arc<str>, Latency>>);

impl Latencies {
    pub(super) fn note(&self, place: &str, took: Duration) {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match places.get_mut(place) {
            Some(latency) => latency.note(took),
            None => places.entry(place.into()).or_default().note(took),
        }
    }

    pub(super) fn all(&self) -> Vec<(String, Latency)> {
        let places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        places.iter().map(|(place, latency)| (place.to_string(), latency.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_counted_by_place_and_time() {
        let latencies = Latencies::default();
        for (place, millis) in [("memory", 1), ("pkcs11:token=a", 7), ("pkcs11:token=a", 3_000)] {
            latencies.note(place, Duration::from_millis(millis));
        }
        let all = latencies.all();
        let counts = |at: usize| all[at].1.buckets;
        assert_eq!(
            all.iter().map(|(place, _)| place.as_str()).collect::<Vec<_>>(),
            ["memory", "pkcs11:token=a"]
        );
        assert_eq!(counts(0), [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(counts(1), [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!((all[1].1.count(), all[1].1.mean()), (2, Duration::from_micros(1_503_500)));
        assert_eq!(Latency::default().mean(), Duration::ZERO);
    }
}
