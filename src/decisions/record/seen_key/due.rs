//! When the record of a key is written again: before it would bring back less than is known here, or more.

use std::time::Duration;

use super::{AHEAD, Life, SeenKey};
use crate::{decisions::window::Open, words::clock::UnixTime};

/// A window that moves on is written again when it has moved so far: an endpoint that still signs with a replaced key
/// moves it at every probe.
const MOVES: Duration = Duration::from_secs(10);

/// What a record says that other processes go by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Said {
    pub life: Life,
    /// The end that an operator listed for the key.
    pub listed_end: Option<UnixTime>,
}

impl Said {
    pub fn of(seen: &SeenKey) -> Self {
        Self { life: seen.life, listed_end: seen.listed_end }
    }
}

/// What is known of the record of a key.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// What it says, whoever wrote it.
    pub said: Said,
    /// From when on it means nothing; `None` = never.
    pub end: Option<UnixTime>,
    /// When this process last wrote it, and what.
    pub written: Option<(UnixTime, Said)>,
}

/// What an end depends on.
#[derive(Clone, Copy, Debug)]
pub struct Windows {
    /// How long a key verifies after its last signature.
    pub each: Duration,
    /// The upgrade window, while it is open: no record ends before it closes.
    pub open: Option<Open>,
}

/// Whether the record is to be written, as what this process says of the key. Where another replica has other views
/// and writes them over ours, we don't answer each time.
pub fn is_due(known: Option<Known>, ours: Said, windows: Windows, now: UnixTime) -> bool {
    let Some(Known { said, end, written }) = known else { return true };
    let is_too_short = windows.open.zip(end).is_some_and(|(open, end)| end < after(open));
    if is_too_short && is_ours(said.life, ours.life) {
        return true;
    }
    let written = written.filter(|(at, _)| *at <= now);
    let has_rested =
        |answered: Option<(UnixTime, Said)>, pause| answered.is_none_or(|(at, _)| now.since(at) >= pause);
    let of_life = outdated(said.life, ours.life, windows.each, now);
    let of_listing = relisted(said, ours, windows.each);
    of_life.is_some_and(|pause| has_rested(written.filter(|(_, what)| what.life != said.life), pause))
        || of_listing.is_some_and(|pause| {
            has_rested(written.filter(|(_, what)| what.listed_end != said.listed_end), pause)
        })
}

/// From when on a record can't bring anything back.
pub fn end(life: Life, windows: Windows) -> UnixTime {
    let end = match life {
        Life::Signing { seen } => seen.plus(windows.each).plus(windows.each),
        Life::Verifying { until, .. } => until.plus(MOVES),
    };
    windows.open.map_or(end, |open| end.max(after(open)))
}

fn after(open: Open) -> UnixTime {
    open.until.plus(MOVES)
}

/// Whether what is kept of a key would bring back less than it should, or more, and after which pause it is written
/// again where somebody else keeps it so. That a key signs for another replica is that one's word, until it is later
/// known here to have ended: where an endpoint here still signs with it after its file was replaced, that is at every
/// probe, and who holds it answers each time.
fn outdated(kept: Life, ours: Life, window: Duration, now: UnixTime) -> Option<Duration> {
    let is_ahead = kept.evidence() > now.plus(AHEAD);
    let (is_outdated, pause) = match (kept, ours) {
        (Life::Signing { .. }, _) if is_ahead => (true, seldom(window)),
        (Life::Signing { seen }, Life::Signing { .. }) => (now.since(seen) >= window / 5, MOVES),
        (Life::Signing { .. }, Life::Verifying { .. }) => (is_ours(kept, ours), seldom(window)),
        (Life::Verifying { .. }, Life::Signing { .. }) => (true, MOVES),
        // One of a time to come stays: our clock may be the one that is wrong, and nobody lets it count for more.
        (Life::Verifying { until, .. }, Life::Verifying { until: ours, .. }) => {
            (ours.since(until) >= MOVES, MOVES)
        }
    };
    is_outdated.then_some(pause)
}

/// So long two replicas that go on to differ let each other's word stand.
fn seldom(window: Duration) -> Duration {
    (window / 5).max(MOVES)
}

/// Whether another end is listed for the key here than its record says, and after which pause it is written again where
/// somebody else keeps it so: he may list a sooner one for a file of his. Of a key that ended the sooner end stays.
fn relisted(kept: Said, ours: Said, window: Duration) -> Option<Duration> {
    let is_sooner = ours.listed_end.is_some_and(|end| kept.listed_end.is_none_or(|kept| end < kept));
    match (kept.life, ours.life) {
        _ if kept.listed_end == ours.listed_end => None,
        (Life::Signing { .. }, Life::Signing { .. }) if !is_sooner => Some(seldom(window)),
        (Life::Signing { .. }, Life::Signing { .. }) | (Life::Verifying { .. }, Life::Verifying { .. }) => {
            is_sooner.then_some(MOVES)
        }
        _ => None,
    }
}

/// Whether nobody is known to hold a key that no source here holds any more.
fn is_ours(kept: Life, ours: Life) -> bool {
    match (kept, ours) {
        (Life::Signing { seen }, Life::Verifying { signed_until, .. }) => seen <= signed_until,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(1_000);

    fn signing(seen: i64) -> Life {
        Life::Signing { seen: UnixTime(seen) }
    }

    fn verifying(signed: i64, until: i64) -> Life {
        Life::Verifying { signed_until: UnixTime(signed), until: UnixTime(until) }
    }

    fn windows(open_until: Option<i64>) -> Windows {
        let open = |until| Open { since: UnixTime(0), until: UnixTime(until), by_command: true };
        Windows { each: WINDOW, open: open_until.map(open) }
    }

    #[test]
    fn a_record_is_written_again_before_it_would_bring_back_less() {
        let never = None;
        let table = [
            (signing(0), signing(0), 0, never),
            (signing(0), signing(199), 199, never),
            (signing(0), signing(200), 200, Some(10)),
            (signing(60), signing(0), 0, never),
            (signing(61), signing(0), 0, Some(200)),
            (signing(0), verifying(0, 1_000), 0, Some(200)),
            (signing(1), verifying(0, 1_000), 5, never),
            (signing(90_000), verifying(0, 1_000), 5, Some(200)),
            (verifying(0, 1_000), signing(0), 0, Some(10)),
            (verifying(0, 0), verifying(0, 9), 9, never),
            (verifying(0, 0), verifying(0, 10), 10, Some(10)),
            (verifying(90_000, 91_000), verifying(0, 1_000), 0, never),
        ];
        for (kept, ours, now, want) in table {
            let pause = outdated(kept, ours, WINDOW, UnixTime(now));
            assert_eq!(pause.map(|pause| pause.as_secs()), want, "{kept:?} {ours:?}");
        }
    }

    #[test]
    fn a_record_is_written_where_there_is_none_and_where_it_would_end_before_the_upgrade_window() {
        let known = |life, end: Option<i64>| {
            Some(Known { said: unlisted(life), end: end.map(UnixTime), written: None })
        };
        let ours = verifying(0, 1_000);
        let table = [
            (None, ours, None, true, "nothing is kept"),
            (known(ours, Some(1_010)), ours, None, false, "no window is open"),
            (known(ours, Some(1_010)), ours, Some(1_000), false, "it ends with the window"),
            (known(ours, Some(1_010)), ours, Some(1_001), true, "the window is longer"),
            (known(ours, None), ours, Some(9_000), false, "it never ends"),
            (known(signing(1), Some(2_001)), ours, Some(9_000), false, "another replica's"),
            (known(signing(0), Some(2_000)), signing(1), Some(9_000), true, "a key that signs"),
            (known(signing(0), Some(9_010)), signing(1), Some(9_000), false, "it is long enough"),
        ];
        for (known, ours, open, want, why) in table {
            assert_eq!(is_due(known, unlisted(ours), windows(open), UnixTime(1)), want, "{why}");
        }
        // What is written ends late enough not to be written again.
        for (life, open) in
            [(ours, None), (ours, Some(9_000)), (signing(0), Some(9_000)), (signing(0), Some(5))]
        {
            let end = end(life, windows(open));
            let said = unlisted(life);
            let known = Some(Known { said, end: Some(end), written: None });
            assert!(!is_due(known, said, windows(open), UnixTime(1)), "{life:?} {open:?}");
        }
    }

    #[test]
    fn who_is_answered_is_not_answered_again_at_once() {
        let (theirs, ours) = (unlisted(verifying(0, 1_000)), unlisted(signing(0)));
        let due = |written, now| {
            let known = Known { said: theirs, end: None, written };
            is_due(Some(known), ours, windows(None), UnixTime(now))
        };
        assert!(due(None, 0));
        for (now, want) in [(100, false), (109, false), (110, true)] {
            assert_eq!(due(Some((UnixTime(100), ours)), now), want, "{now}");
        }
        assert!(due(Some((UnixTime(100), theirs)), 101), "we said so ourselves, and know better now");
        assert!(due(Some((UnixTime(100), ours)), 50), "the clock was set back");
    }

    fn unlisted(life: Life) -> Said {
        Said { life, listed_end: None }
    }

    fn listed(life: Life, end: i64) -> Said {
        Said { life, listed_end: Some(UnixTime(end)) }
    }

    /// One whose file was replaced sees at each probe that an endpoint signs with the key yet, and one holds it.
    #[test]
    fn two_that_go_on_to_differ_about_a_key_write_twice_in_a_fifth_of_a_window() {
        let (mut kept, mut writes) = (unlisted(signing(0)), 0);
        let mut written = [None, Some((UnixTime(0), kept))];
        for now in 1..=1_000 {
            let ours = [unlisted(verifying(now, now + 1_000)), unlisted(signing(now))];
            for (written, ours) in written.iter_mut().zip(ours) {
                let known = Known { said: kept, end: None, written: *written };
                if is_due(Some(known), ours, windows(None), UnixTime(now)) {
                    (kept, *written, writes) = (ours, Some((UnixTime(now), ours)), writes + 1);
                }
            }
        }
        assert!((2..=12).contains(&writes), "{writes} writes");
    }

    #[test]
    fn an_end_that_is_listed_anew_is_written_at_once() {
        let (early, late) = (listed(signing(0), 500), listed(signing(0), 900));
        let ended = |end| listed(verifying(0, 1_000), end);
        let table = [
            ("the same", early, early, None, false),
            ("a later one, after a restart", early, late, None, true),
            ("none, after a restart", early, unlisted(signing(0)), None, true),
            ("one where there was none", unlisted(signing(0)), early, None, true),
            ("a later one than ours was", early, late, Some(early), true),
            ("the same one that another wrote too", listed(signing(2), 500), late, Some(early), true),
            ("a later one than another's, who answered", early, late, Some(late), false),
            ("a sooner one than another's, who answered", late, early, Some(early), false),
            ("it ended, and the sooner one stays", ended(500), ended(900), None, false),
            ("it ended, and ours is sooner", ended(900), ended(500), None, true),
            ("another holds it", early, unlisted(verifying(-1, 999)), None, false),
        ];
        for (name, kept, ours, written, want) in table {
            let known = Known { said: kept, end: None, written: written.map(|what| (UnixTime(0), what)) };
            assert_eq!(is_due(Some(known), ours, windows(None), UnixTime(3)), want, "{name}");
        }
        for (kept, ours, want) in [(late, early, 10), (early, late, 200)] {
            let known = Known { said: kept, end: None, written: Some((UnixTime(0), ours)) };
            let due = |now| is_due(Some(known), ours, windows(None), UnixTime(now));
            assert_eq!((due(want - 1), due(want)), (false, true), "who differs is answered seldom: {want}");
        }
    }
}
