//! Grace: what Harbor granted a credential before is granted again while Harbor can't answer, for a while (A15).

pub mod ends;

use std::time::Duration;

use crate::words::{clock::UnixTime, scope::Access};

/// How long a token of grace lives at most (A15).
pub const LIFE: Duration = Duration::from_mins(5);

/// The longest window of grace. What ended a grant is remembered for so long: no grant is older.
pub const LONGEST: Duration = Duration::from_hours(7 * 24);

/// What is kept of a grant is as old as the grant by this part of the window at most: so much sooner grace ends after a
/// restart, and so much less often than Harbor grants it a grant is written.
const BEHIND: u32 = 12;

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

/// Whether what is kept of a grant, which was `kept` then, would bring back noticeably less than it should
/// `now`.
pub fn outdated(kept: UnixTime, window: Duration, now: UnixTime) -> bool {
    now < kept || now.since(kept) >= window / BEHIND
}

/// Whether a grant is worth keeping: a log-in, or one that grants something. Whoever may log in may ask for any name.
pub fn grants(access: &[Access]) -> bool {
    access.is_empty() || access.iter().any(|access| !access.actions.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_is_written_again_when_a_part_of_the_window_is_over() {
        let window = Duration::from_hours(12);
        for (kept, now, want) in [(0, 0, false), (0, 3_599, false), (0, 3_600, true), (1, 0, true)] {
            assert_eq!(outdated(UnixTime(kept), window, UnixTime(now)), want, "{kept} {now}");
        }
    }

    #[test]
    fn what_grants_nothing_of_what_was_asked_for_is_not_kept() {
        let access = |actions: &[&str]| Access {
            kind: "repository".into(),
            name: "p/r".into(),
            actions: actions.iter().map(|action| (*action).into()).collect(),
        };
        assert!(grants(&[]), "a log-in");
        assert!(grants(&[access(&[]), access(&["pull"])]));
        assert!(!grants(&[access(&[]), access(&[])]));
    }

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
