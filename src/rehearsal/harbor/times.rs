//! Instants as Go writes them in headers and JSON.

use std::time::Duration;

const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// `Sun, 22 Nov 2026 05:19:33 GMT` (RFC 9110, 5.6.7) of the time since 1970.
pub(super) fn http_date(since_epoch: Duration) -> String {
    let (year, month, day, hour, minute, second) = civil(since_epoch);
    let weekday = DAYS[(since_epoch.as_secs() / 86_400 % 7) as usize];
    let month = MONTHS[month as usize - 1];
    format!("{weekday}, {day:02} {month} {year} {hour:02}:{minute:02}:{second:02} GMT")
}

/// `2026-11-22T05:19:33Z` (RFC 3339), whole seconds.
pub(super) fn rfc3339(since_epoch: Duration) -> String {
    let (year, month, day, hour, minute, second) = civil(since_epoch);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// `2026-11-22T05:19:33.123Z`, as Harbor's API writes times.
pub(super) fn rfc3339_millis(since_epoch: Duration) -> String {
    let whole = rfc3339(since_epoch);
    format!("{}.{:03}Z", whole.trim_end_matches('Z'), since_epoch.subsec_millis())
}

/// Year, month, day, hour, minute, second in UTC, after Howard Hinnant's `civil_from_days`.
fn civil(since_epoch: Duration) -> (u64, u64, u64, u64, u64, u64) {
    let seconds = since_epoch.as_secs();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_as_recorded() {
        let at = Duration::from_millis(1_795_324_773_548);
        assert_eq!(http_date(at), "Sun, 22 Nov 2026 05:19:33 GMT");
        assert_eq!(rfc3339(at), "2026-11-22T05:19:33Z");
        assert_eq!(rfc3339_millis(at), "2026-11-22T05:19:33.548Z");
        assert_eq!(rfc3339(Duration::from_hours(264_384)), "2000-02-29T00:00:00Z");
    }
}
