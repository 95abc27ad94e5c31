//! Instants as Go writes them in headers and JSON.

use std::time::Duration;

use crate::words::clock::{UnixTime, civil};

const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// `Sun, 22 Nov 2026 05:19:33 GMT` (RFC 9110, 5.6.7) of the time since 1970.
pub(super) fn http_date(since_epoch: Duration) -> String {
    let (year, month, day, hour, minute, second) = civil(since_epoch.as_secs());
    let weekday = DAYS[(since_epoch.as_secs() / 86_400 % 7) as usize];
    let month = MONTHS[month as usize - 1];
    format!("{weekday}, {day:02} {month} {year} {hour:02}:{minute:02}:{second:02} GMT")
}

/// `2026-11-22T05:19:33Z` (RFC 3339), whole seconds.
pub(super) fn rfc3339(since_epoch: Duration) -> String {
    UnixTime(i64::try_from(since_epoch.as_secs()).unwrap_or(i64::MAX)).rfc3339()
}

/// `2026-11-22T05:19:33.123Z`, as Harbor's API writes times.
pub(super) fn rfc3339_millis(since_epoch: Duration) -> String {
    let whole = rfc3339(since_epoch);
    format!("{}.{:03}Z", whole.trim_end_matches('Z'), since_epoch.subsec_millis())
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
