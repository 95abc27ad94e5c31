//! Time as data. Decisions take `now` as an argument; only this file reads the wall clock.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// A point in time in whole seconds since 1970-01-01T00:00:00Z, as JWT's `NumericDate` (RFC 7519, 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct UnixTime(pub i64);

impl UnixTime {
    /// `self + d`, saturating; fractions of a second are dropped.
    pub fn plus(self, d: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(d.as_secs()).unwrap_or(i64::MAX)))
    }

    /// `self - d`, saturating; fractions of a second are dropped.
    pub fn minus(self, d: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(d.as_secs()).unwrap_or(i64::MAX)))
    }

    /// `2026-11-22T05:19:33Z` (RFC 3339); a time before 1970 is written as 1970.
    pub fn rfc3339(self) -> String {
        let (year, month, day, hour, minute, second) = civil(u64::try_from(self.0).unwrap_or(0));
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }

    /// The time from `earlier` to `self`; zero where `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_secs(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

/// Year, month, day, hour, minute, second in UTC of seconds since 1970, after Howard Hinnant's `civil_from_days`.
pub fn civil(seconds: u64) -> (u64, u64, u64, u64, u64, u64) {
    let shifted = seconds / 86_400 + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day, seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60)
}

/// Where `now` comes from: the wall clock, or the wall clock shifted by a test or a stand-in (seconds).
#[derive(Clone, Debug, Default)]
pub struct Clock {
    shift: Option<Arc<AtomicI64>>,
}

impl Clock {
    /// The machine's wall clock.
    pub fn system() -> Self {
        Self::default()
    }

    /// The wall clock plus `seconds`, which [`Clock::shift_to`] changes later.
    pub fn shifted(seconds: i64) -> Self {
        Self { shift: Some(Arc::new(AtomicI64::new(seconds))) }
    }

    /// Sets the shift in seconds; without effect on [`Clock::system`].
    pub fn shift_to(&self, seconds: i64) {
        if let Some(shift) = &self.shift {
            shift.store(seconds, Ordering::Relaxed);
        }
    }

    /// Whole seconds since 1970.
    pub fn now(&self) -> UnixTime {
        UnixTime(i64::try_from(self.now_precise().as_secs()).unwrap_or(i64::MAX))
    }

    /// Time since 1970 with fractions, for log lines and for the middle of a probe's call.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    pub fn now_precise(&self) -> Duration {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let Some(shift) = &self.shift else { return wall };
        let seconds = shift.load(Ordering::Relaxed);
        let by = Duration::from_secs(seconds.unsigned_abs());
        if seconds < 0 { wall.saturating_sub(by) } else { wall.saturating_add(by) }
    }
}
