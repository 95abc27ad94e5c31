//! The backends of one Harbor, PostgreSQL and Redis: how well they are, and how that shows (D, F3).

use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::World;

/// How well a backend is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It answers.
    Up,
    /// Nobody listens: connections are refused.
    Refusing,
    /// It accepts and never answers, as a process that is stopped.
    Hanging,
}

/// How long an outage takes to show, or stays hidden.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutageTimes {
    /// Core looks at its backends that often, and `/health` tells what it saw last (F3; 10 s).
    pub health_check: Duration,
    /// Core keeps its configuration in Redis for that long, and `systeminfo` does without the database until then (D1;
    /// 60 s).
    pub configuration: Duration,
    /// One use of a Redis that hangs fails after that (D4; 12 s, four tries of 3 s).
    pub redis_use: Duration,
}

impl Default for OutageTimes {
    fn default() -> Self {
        Self {
            health_check: Duration::from_secs(10),
            configuration: Duration::from_mins(1),
            redis_use: Duration::from_secs(12),
        }
    }
}

/// One backend.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Backend {
    pub(in super::super) health: Health,
    since: Instant,
    former: Health,
    /// What `/health` said of it when that changed.
    shown: bool,
}

impl Backend {
    fn up(now: Instant) -> Self {
        Self { health: Health::Up, since: now, former: Health::Up, shown: true }
    }

    fn turned(self, health: Health, now: Instant, period: Duration) -> Self {
        if health == self.health {
            return self;
        }
        Self { health, since: now, former: self.health, shown: self.is_shown_healthy(now, period) }
    }

    /// What a check every `period` has found: one that hangs has found nothing yet, and ends well when the backend
    /// goes on.
    pub(in super::super) fn is_shown_healthy(self, now: Instant, period: Duration) -> bool {
        match self.health {
            Health::Hanging => self.shown,
            Health::Up if self.former == Health::Hanging => true,
            _ if self.lasts(now) < period => self.shown,
            health => health == Health::Up,
        }
    }

    /// For how long it has been as it is.
    pub(in super::super) fn lasts(self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since)
    }
}

/// Both backends of a Harbor.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Backends {
    pub(in super::super) database: Backend,
    pub(in super::super) redis: Backend,
    pub(in super::super) times: OutageTimes,
}

impl Backends {
    pub(super) fn up() -> Self {
        let now = Instant::now();
        Self { database: Backend::up(now), redis: Backend::up(now), times: OutageTimes::default() }
    }

    pub(in super::super) fn are_up(&self) -> bool {
        self.database.health == Health::Up && self.redis.health == Health::Up
    }

    /// Whether core can't tell its own configuration: its copy in Redis is out of date, or Redis isn't there either.
    pub(in super::super) fn lost_the_configuration(&self, now: Instant) -> bool {
        let stale = self.database.lasts(now) >= self.times.configuration;
        self.database.health != Health::Up && (stale || self.redis.health != Health::Up)
    }
}

impl World {
    /// Stops PostgreSQL, freezes it, or has it go on (D1, D2).
    pub fn set_database(&self, health: Health) {
        self.backends.send_modify(|all| {
            all.database = all.database.turned(health, Instant::now(), all.times.health_check);
        });
    }

    /// Stops Redis, freezes it, or has it go on with all that it held (D3, D4); [`World::forget_sessions`] empties it (D5).
    pub fn set_redis(&self, health: Health) {
        self.backends.send_modify(|all| {
            all.redis = all.redis.turned(health, Instant::now(), all.times.health_check);
        });
    }

    /// Has outages show sooner or later than in a real Harbor.
    pub fn set_outage_times(&self, times: OutageTimes) {
        self.backends.send_modify(|all| all.times = times);
    }

    pub(in super::super) fn backends(&self) -> Backends {
        *self.backends.borrow()
    }

    pub(in super::super) fn database_answers(&self) -> bool {
        self.backends().database.health == Health::Up
    }

    pub(in super::super) fn redis_answers(&self) -> bool {
        self.backends().redis.health == Health::Up
    }

    /// Waits until a backend hangs no more.
    pub(in super::super) async fn goes_on(&self, which: impl Fn(&Backends) -> Health) {
        let mut changes: watch::Receiver<Backends> = self.backends.subscribe();
        // The sender is ours: it doesn't end before we do.
        _ = changes.wait_for(|all| which(all) != Health::Hanging).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_is_told_as_the_last_check_found_it() {
        use Health::{Hanging, Refusing, Up};
        let period = Duration::from_secs(10);
        // What happens, after how many seconds, and what is shown so many seconds later.
        for (story, later, shown) in [
            (&[][..], 0, true),
            (&[(1, Refusing)], 9, true),
            (&[(1, Refusing)], 10, false),
            (&[(1, Refusing), (16, Up)], 9, false),
            (&[(1, Refusing), (16, Up)], 10, true),
            (&[(1, Hanging)], 300, true),
            (&[(1, Refusing), (16, Hanging)], 300, false),
            (&[(1, Refusing), (16, Hanging), (30, Up)], 0, true),
            (&[(1, Refusing), (5, Refusing)], 6, false),
        ] {
            let began = Instant::now();
            let mut now = began;
            let mut backend = Backend::up(began);
            for (after, health) in story {
                now += Duration::from_secs(*after);
                backend = backend.turned(*health, now, period);
            }
            let at = now + Duration::from_secs(later);
            assert_eq!(backend.is_shown_healthy(at, period), shown, "{story:?}, {later} s later");
        }
    }

    #[test]
    fn the_configuration_outlives_the_database_for_a_minute() {
        let mut backends = Backends::up();
        let down = Instant::now();
        let (soon, late) = (down + Duration::from_secs(59), down + Duration::from_mins(1));
        assert!(!backends.lost_the_configuration(late));
        backends.database = backends.database.turned(Health::Refusing, down, backends.times.health_check);
        assert_eq!([soon, late].map(|now| backends.lost_the_configuration(now)), [false, true]);
        backends.redis = backends.redis.turned(Health::Refusing, down, backends.times.health_check);
        assert!(backends.lost_the_configuration(soon), "no copy without Redis");
    }
}
