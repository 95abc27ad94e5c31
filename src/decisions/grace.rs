//! Grace: what Harbor granted a credential before is granted again while Harbor can't answer, for a while (A15).

use std::time::Duration;

use crate::words::clock::UnixTime;

/// How long a token of grace lives at most (A15).
pub const LIFE: Duration = Duration::from_mins(5);

/// What is known of a credential and exactly this scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// When Harbor last accepted it; nothing else moves it.
    pub accepted: UnixTime,
    /// Whether Harbor has refused the credential since, while all was healthy.
    pub suspended: bool,
}

/// What becomes of a token request that an outage has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// What was granted is granted until then.
    Grace {
        /// The token's end.
        expires: UnixTime,
    },
    /// Nobody can tell who it is: 503, never "wrong password".
    Unavailable,
}

/// Decides where there is evidence of an outage; without it Harbor's word stands, and nobody asks here.
pub fn decide(record: Option<Record>, window: Duration, now: UnixTime) -> Decision {
    let Some(Record { accepted, suspended: false }) = record else { return Decision::Unavailable };
    // A clock that was set back makes no record older than it is, and none younger.
    if now < accepted || now >= accepted.plus(window) {
        return Decision::Unavailable;
    }
    Decision::Grace { expires: now.plus(LIFE) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a15_grace_is_for_what_harbor_accepted_within_the_window_and_has_not_refused_since() {
        let hours = Duration::from_hours;
        let at = |hours: i64| UnixTime(1_000_000 + hours * 3_600);
        let record = |accepted, suspended| Some(Record { accepted, suspended });
        let grace = |now: UnixTime| Decision::Grace { expires: now.plus(Duration::from_mins(5)) };
        let table = [
            ("accepted a while ago", record(at(0), false), hours(12), at(1), grace(at(1))),
            (
                "in the window's last second",
                record(at(0), false),
                hours(12),
                UnixTime(at(12).0 - 1),
                grace(UnixTime(at(12).0 - 1)),
            ),
            ("the window is over", record(at(0), false), hours(12), at(12), Decision::Unavailable),
            ("grace is off", record(at(0), false), hours(0), at(0), Decision::Unavailable),
            ("refused since", record(at(0), true), hours(12), at(1), Decision::Unavailable),
            ("never accepted", None, hours(12), at(1), Decision::Unavailable),
            ("the clock was set back", record(at(2), false), hours(12), at(1), Decision::Unavailable),
        ];
        for (name, record, window, now, want) in table {
            assert_eq!(decide(record, window, now), want, "{name}");
        }
    }
}
