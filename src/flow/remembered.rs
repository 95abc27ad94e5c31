//! Caches that forget what has ended, and are bounded by count and by bytes.

use std::{
    hash::Hash,
    sync::Arc,
    time::{Duration, Instant},
};

use moka::{
    Expiry,
    notification::RemovalCause,
    sync::{Cache, CacheBuilder},
};

/// What a cache holds for a while.
pub trait Remembered: Send + Sync + 'static {
    /// Its bytes in memory, about.
    fn bytes(&self) -> usize;
    /// How long it is of use from when it was made.
    fn life(&self) -> Duration;
}

/// A cache of so many `entries` and so many `bytes` at most: no entry counts for less than its part of them.
pub fn cache<K, V>(entries: u64, bytes: u64) -> Cache<K, Arc<V>>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Remembered,
{
    bounded(entries, bytes).build()
}

/// The same, and `gone` hears of every entry that leaves it.
pub fn cache_that_tells<K, V>(
    entries: u64,
    bytes: u64,
    gone: impl Fn(Arc<K>, Arc<V>, RemovalCause) + Send + Sync + 'static,
) -> Cache<K, Arc<V>>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Remembered,
{
    bounded(entries, bytes).eviction_listener(gone).build()
}

fn bounded<K, V>(entries: u64, bytes: u64) -> CacheBuilder<K, Arc<V>, Cache<K, Arc<V>>>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Remembered,
{
    let least = u32::try_from(bytes / entries.max(1)).unwrap_or(u32::MAX);
    Cache::builder()
        .max_capacity(if entries == 0 { 0 } else { bytes })
        .weigher(move |_: &K, value: &Arc<V>| u32::try_from(value.bytes()).unwrap_or(u32::MAX).max(least))
        .expire_after(OwnLife)
}

struct OwnLife;

impl<K, V: Remembered> Expiry<K, Arc<V>> for OwnLife {
    fn expire_after_create(&self, _: &K, value: &Arc<V>, _: Instant) -> Option<Duration> {
        Some(value.life())
    }

    fn expire_after_update(
        &self,
        _: &K,
        value: &Arc<V>,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(value.life())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Entry(usize, Duration);

    impl Remembered for Entry {
        fn bytes(&self) -> usize {
            self.0
        }

        fn life(&self) -> Duration {
            self.1
        }
    }

    fn filled(entries: u64, bytes: u64, each: usize, life: Duration) -> u64 {
        let cache = cache(entries, bytes);
        for n in 0..1_000_u32 {
            cache.insert(n, Arc::new(Entry(each, life)));
        }
        cache.run_pending_tasks();
        if life.is_zero() {
            // moka's wheel of timers turns once a second.
            std::thread::sleep(Duration::from_millis(2_300));
            cache.run_pending_tasks();
        }
        cache.entry_count()
    }

    #[test]
    fn both_bounds_hold_and_what_has_ended_is_gone() {
        let long = Duration::from_hours(1);
        assert_eq!(filled(100, 1_000_000, 1, long), 100, "by count");
        assert_eq!(filled(100, 1_000_000, 100_000, long), 10, "by bytes");
        assert_eq!(filled(10_000, 1_000_000, 1, long), 1_000, "there is room");
        assert_eq!(filled(10_000, 1_000_000, 1, Duration::ZERO), 0, "ended");
        assert_eq!(filled(0, 1_000_000, 1, long), 0, "none wanted");
    }
}
