//! Requests whose token names a key that is known nowhere here: each waits a little while others are asked for it, few at a time
//! and never twice for one name in a short while.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use crate::words::kid::Kid;

/// Requests that wait at once.
const PLACES: usize = 256;
/// Names that are remembered.
const NAMES: usize = 256;
/// For so long nobody waits again for a name that nobody knew.
const IN_VAIN: Duration = Duration::from_secs(2);

/// Who waits, and for whom it was in vain.
#[derive(Default)]
pub struct Strangers {
    waiting: AtomicUsize,
    in_vain: Mutex<VecDeque<(Kid, Instant)>>,
}

/// A request that waits.
pub struct Waiting<'a>(&'a Strangers);

impl Strangers {
    /// A place to wait for this name; `None` where it was in vain lately, or too many wait.
    pub fn wait_for(&self, kid: &Kid, now: Instant) -> Option<Waiting<'_>> {
        let is_lately =
            |(name, at): &(Kid, Instant)| name == kid && now.saturating_duration_since(*at) < IN_VAIN;
        if self.lock().iter().any(is_lately) {
            return None;
        }
        let waiting = Waiting(self);
        (self.waiting.fetch_add(1, Ordering::Relaxed) < PLACES).then_some(waiting)
    }

    /// Nobody knew the name.
    pub fn was_in_vain(&self, kid: &Kid, now: Instant) {
        let mut names = self.lock();
        names.retain(|(name, at)| name != kid && now.saturating_duration_since(*at) < IN_VAIN);
        names.push_back((kid.clone(), now));
        if names.len() > NAMES {
            names.pop_front();
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(Kid, Instant)>> {
        self.in_vain.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kid(number: usize) -> Kid {
        Kid::parse(&format!("key-{number}")).expect("a name")
    }

    #[test]
    fn nobody_waits_twice_for_a_name_in_a_short_while() {
        let (strangers, now) = (Strangers::default(), Instant::now());
        assert!(strangers.wait_for(&kid(0), now).is_some());
        strangers.was_in_vain(&kid(0), now);
        assert!(strangers.wait_for(&kid(0), now).is_none());
        assert!(strangers.wait_for(&kid(1), now).is_some());
        assert!(strangers.wait_for(&kid(0), now + IN_VAIN).is_some());
        (0..3 * NAMES).for_each(|number| strangers.was_in_vain(&kid(number), now));
        assert_eq!(strangers.lock().len(), NAMES);
    }

    #[test]
    fn a_flood_of_names_finds_no_more_places_and_gives_its_places_back() {
        let (strangers, now) = (Strangers::default(), Instant::now());
        let waiting: Vec<_> = (0..2 * PLACES).filter_map(|n| strangers.wait_for(&kid(n), now)).collect();
        assert_eq!(waiting.len(), PLACES);
        drop(waiting);
        assert_eq!(strangers.waiting.load(Ordering::Relaxed), 0);
    }
}
