//! Waiting for a condition, never for a time.

use std::{
    thread,
    time::{Duration, Instant},
};

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Looks until `condition` gives something, at most for `deadline`; `None` when that has passed.
pub fn until<T>(deadline: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let began = Instant::now();
    loop {
        if let Some(found) = condition() {
            return Some(found);
        }
        if began.elapsed() >= deadline {
            return None;
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// As [`until`], for a condition that holds or doesn't.
///
/// # Panics
/// When the deadline has passed; `what` says what was waited for.
pub fn holds(what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) {
    assert!(until(deadline, || condition().then_some(())).is_some(), "not within {deadline:?}: {what}");
}
