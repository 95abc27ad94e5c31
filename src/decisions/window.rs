//! Upgrade windows: times in which an operator is at work on Harbor. Endpoints are asked often while one is open, and a
//! key that stops signing in it goes on verifying at least until it closes, so that the work can be backed out.

use std::time::Duration;

use crate::words::clock::UnixTime;

/// The longest window that a command opens: it is for one piece of work.
pub const LONGEST: Duration = Duration::from_hours(7 * 24);

/// A window of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dates {
    pub from: UnixTime,
    /// Closed from then on.
    pub until: UnixTime,
}

/// What an operator said last by command: a window from `opened` to `until`. One that was closed ended when that was
/// said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    pub opened: UnixTime,
    pub until: UnixTime,
    /// Of two orders the later one counts.
    pub said: UnixTime,
}

/// The window that is open now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open {
    pub since: UnixTime,
    pub until: UnixTime,
    /// Whether a command keeps it open for longest, not `grace.windows`.
    pub by_command: bool,
}

impl Order {
    /// A window for so long from now on; one that is open goes on, with another end.
    pub fn open(last: Option<Self>, length: Duration, now: UnixTime) -> Self {
        let opened = last.filter(|last| last.is_open(now)).map_or(now, |last| last.opened.min(now));
        Self { opened, until: now.plus(length.min(LONGEST)), said: after(last, now) }
    }

    /// The end of what was opened by command; `None` where nothing is open.
    pub fn close(last: Option<Self>, now: UnixTime) -> Option<Self> {
        let last = last.filter(|last| last.is_open(now))?;
        Some(Self { opened: last.opened, until: now.min(last.until), said: after(Some(last), now) })
    }

    /// Another replica's clock may be ahead: its window is open here at once.
    pub fn is_open(self, now: UnixTime) -> bool {
        now < self.until
    }

    /// From when on its record is of no use.
    pub fn over(self) -> UnixTime {
        self.until.max(self.said).plus(LONGEST)
    }

    /// Of two orders the one that was given later; at the same time the one that closes sooner.
    #[must_use]
    pub fn or_later(self, other: Self) -> Self {
        if (other.said, self.until) > (self.said, other.until) { other } else { self }
    }
}

/// Clocks of replicas differ: an order that answers another one is later than it.
fn after(last: Option<Order>, now: UnixTime) -> UnixTime {
    last.map_or(now, |last| now.max(last.said.plus(Duration::from_secs(1))))
}

/// What is open at `now`: of several the one that closes last, from the beginning of the first.
pub fn open(listed: &[Dates], order: Option<Order>, now: UnixTime) -> Option<Open> {
    let order = order.filter(|order| order.is_open(now));
    let order = order.map(|o| Open { since: o.opened.min(now), until: o.until, by_command: true });
    let listed = listed.iter().filter(|dates| dates.from <= now && now < dates.until);
    let listed = listed.map(|d| Open { since: d.from, until: d.until, by_command: false });
    listed.chain(order).reduce(|a, b| {
        let last = if b.until >= a.until { b } else { a };
        Open { since: a.since.min(b.since), ..last }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> UnixTime {
        UnixTime(1_000_000 + seconds)
    }

    fn order(opened: i64, until: i64, said: i64) -> Order {
        Order { opened: at(opened), until: at(until), said: at(said) }
    }

    const HOUR: Duration = Duration::from_hours(1);

    #[test]
    fn a_window_is_opened_prolonged_and_closed() {
        let first = Order::open(None, HOUR, at(0));
        assert_eq!(first, order(0, 3_600, 0));
        let longer = Order::open(Some(first), HOUR, at(600));
        assert_eq!(longer, order(0, 4_200, 600));
        let closed = Order::close(Some(longer), at(700)).expect("it was open");
        assert_eq!(closed, order(0, 700, 700));
        assert!(!closed.is_open(at(700)));
        assert_eq!(Order::close(Some(closed), at(701)), None);
        assert_eq!(Order::open(Some(closed), HOUR, at(800)), order(800, 4_400, 800), "a new one");
        let endless = Order::open(None, Duration::from_hours(10_000), at(0));
        assert_eq!(endless.until, at(0).plus(LONGEST));
    }

    #[test]
    fn of_two_orders_the_later_one_counts_whoever_has_it_first() {
        let (opened, closed) = (order(0, 3_600, 0), order(0, 100, 100));
        let (open_too, close_too) = (order(0, 3_600, 5), order(0, 5, 5));
        for (a, b, want) in
            [(opened, closed, closed), (open_too, close_too, close_too), (opened, opened, opened)]
        {
            assert_eq!((a.or_later(b), b.or_later(a)), (want, want));
        }
        let behind = Order::close(Some(order(0, 3_600, 50)), at(10)).expect("it was open");
        assert!(behind.said > at(50), "a clock that is behind closes it all the same");
    }

    #[test]
    fn what_is_open_closes_with_the_last_of_all_windows() {
        let listed = [Dates { from: at(0), until: at(100) }, Dates { from: at(50), until: at(200) }];
        let open_at = |order, now| open(&listed, order, at(now));
        let is = |since, until, by_command| Some(Open { since: at(since), until: at(until), by_command });
        assert_eq!(open_at(None, -1), None);
        assert_eq!(open_at(None, 0), is(0, 100, false));
        assert_eq!(open_at(None, 60), is(0, 200, false));
        assert_eq!(open_at(None, 200), None);
        assert_eq!(open_at(Some(order(10, 150, 10)), 60), is(0, 200, false));
        assert_eq!(open_at(Some(order(10, 300, 10)), 60), is(0, 300, true));
        assert_eq!(open_at(Some(order(10, 300, 10)), 250), is(10, 300, true));
        assert_eq!(open(&[], Some(order(20, 300, 10)), at(0)), is(0, 300, true), "another clock is ahead");
    }
}
