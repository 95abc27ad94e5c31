//! Requests whose token names a key that is known nowhere here: each waits a little while others are asked for it, few at a time
//! and never twice for one name in a short while.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::budget::network_of;
use crate::words::kid::Kid;

/// Requests that wait at once.
const PLACES: usize = 256;
/// Names that are remembered.
const NAMES: usize = 256;
/// For so long nobody waits again for a name that was looked for in vain.
const IN_VAIN: Duration = Duration::from_secs(2);

/// Who waits, and for whom it was in vain.
#[derive(Default)]
pub struct Strangers {
    places: Mutex<Places>,
    in_vain: InVain,
}

/// Names that were looked for in vain lately.
#[derive(Default)]
pub struct InVain(Mutex<VecDeque<(Kid, Instant)>>);

/// Who waits. Anybody can make up names, so an address may always wait once while there is room, and again only while as much
/// stays free as it holds itself (A25): alone it gets half, and whoever comes next finds room.
#[derive(Default)]
struct Places {
    taken: usize,
    by: HashMap<IpAddr, usize>,
}

/// A request that waits.
pub struct Waiting<'a> {
    strangers: &'a Strangers,
    network: IpAddr,
}

impl Strangers {
    /// A place for a client to wait for this name; `None` where it was in vain lately, or where too many wait.
    pub fn wait_for(&self, kid: &Kid, client: IpAddr, now: Instant) -> Option<Waiting<'_>> {
        if self.in_vain.is_lately(kid, now) {
            return None;
        }
        let network = network_of(client);
        let is_theirs = lock(&self.places).take(network);
        is_theirs.then(|| Waiting { strangers: self, network })
    }

    /// Nobody knew the name.
    pub fn was_in_vain(&self, kid: &Kid, now: Instant) {
        self.in_vain.note(kid, now);
    }
}

impl InVain {
    /// Whether this one was, within two seconds.
    pub fn is_lately(&self, kid: &Kid, now: Instant) -> bool {
        let is_it = |(name, at): &(Kid, Instant)| name == kid && now.saturating_duration_since(*at) < IN_VAIN;
        lock(&self.0).iter().any(is_it)
    }

    /// This one was, just now.
    pub fn note(&self, kid: &Kid, now: Instant) {
        let mut names = lock(&self.0);
        names.retain(|(name, at)| name != kid && now.saturating_duration_since(*at) < IN_VAIN);
        names.push_back((kid.clone(), now));
        if names.len() > NAMES {
            names.pop_front();
        }
    }
}

impl Places {
    fn take(&mut self, network: IpAddr) -> bool {
        let left = PLACES.saturating_sub(self.taken);
        let holds = self.by.get(&network).copied().unwrap_or_default();
        let is_theirs = left > 0 && (holds == 0 || holds + 1 < left);
        if is_theirs {
            self.taken += 1;
            self.by.insert(network, holds + 1);
        }
        is_theirs
    }

    fn give_back(&mut self, network: IpAddr) {
        self.taken = self.taken.saturating_sub(1);
        if let Some(holds) = self.by.get_mut(&network) {
            *holds = holds.saturating_sub(1);
            if *holds == 0 {
                self.by.remove(&network);
            }
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        lock(&self.strangers.places).give_back(self.network);
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kid(number: usize) -> Kid {
        Kid::parse(&format!("key-{number}")).expect("a name")
    }

    fn client(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn nobody_waits_twice_for_a_name_in_a_short_while() {
        let (strangers, now) = (Strangers::default(), Instant::now());
        let waits = |number, now| strangers.wait_for(&kid(number), client("192.0.2.1"), now).is_some();
        assert!(waits(0, now));
        strangers.was_in_vain(&kid(0), now);
        assert!(!waits(0, now));
        assert!(waits(1, now));
        assert!(waits(0, now + IN_VAIN));
        (0..3 * NAMES).for_each(|number| strangers.was_in_vain(&kid(number), now));
        assert_eq!(lock(&strangers.in_vain.0).len(), NAMES);
    }

    #[test]
    fn a25_a_flood_of_names_leaves_places_to_other_addresses_and_gives_its_own_back() {
        let (strangers, now) = (Strangers::default(), Instant::now());
        let flood = |from: &str| -> Vec<_> {
            let from = client(from);
            (0..2 * PLACES).filter_map(|n| strangers.wait_for(&kid(n), from, now)).collect()
        };
        let first = flood("192.0.2.1");
        assert_eq!(first.len(), PLACES / 2, "alone it gets half");
        let second = flood("2001:db8::1");
        assert_eq!(second.len(), PLACES / 4);
        assert_eq!(flood("2001:db8::2").len(), 0, "the same network");
        assert_eq!(flood("192.0.2.3").len(), PLACES / 8);
        let third = strangers.wait_for(&kid(0), client("192.0.2.4"), now);
        assert!(third.is_some(), "whoever comes next");
        drop((first, second, third));
        let places = lock(&strangers.places);
        assert_eq!((places.taken, places.by.len()), (0, 0));
    }
}
