//! How much of what is scarce each client and each principal may hold (A25): bytes of kept heads and
//! of kept uploads, places and bytes of requests that wait.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// So many bytes, or places, for all together.
///
/// An address, and a principal, may always take once while there is room, and again only while as much stays free
/// as it holds itself: alone it gets half, and whoever comes next finds room.
#[derive(Debug)]
pub struct Budget(Mutex<Held>);

#[derive(Debug)]
struct Held {
    free: usize,
    by: HashMap<Holder, usize>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Holder {
    Address(IpAddr),
    Principal(Arc<str>),
    /// All whose principal nothing proves, together.
    Unproven,
}

/// Part of the budget, until dropped.
#[derive(Debug)]
pub struct Share {
    budget: Arc<Budget>,
    bytes: usize,
    holders: [Holder; 2],
}

impl Budget {
    /// A budget of so many.
    pub fn new(bytes: usize) -> Self {
        Self(Mutex::new(Held { free: bytes, by: HashMap::new() }))
    }

    /// A share of `bytes` for a client and the principal of its token; `None` where it isn't theirs to have.
    pub fn take(self: &Arc<Self>, bytes: usize, client: IpAddr, principal: Arc<str>) -> Option<Share> {
        self.take_as(bytes, [Holder::Address(network_of(client)), Holder::Principal(principal)])
    }

    /// A share of `bytes` for a client whose principal nothing proves. Of these, each address has its own part, and a
    /// quarter of all stays free of all of them.
    pub fn take_unproven(self: &Arc<Self>, bytes: usize, client: IpAddr) -> Option<Share> {
        self.take_as(bytes, [Holder::Address(network_of(client)), Holder::Unproven])
    }

    fn take_as(self: &Arc<Self>, bytes: usize, holders: [Holder; 2]) -> Option<Share> {
        let mut held = self.held();
        if !holders.iter().all(|holder| held.grants(holder, bytes)) {
            return None;
        }
        held.free -= bytes;
        for holder in &holders {
            *held.by.entry(holder.clone()).or_default() += bytes;
        }
        Some(Share { budget: self.clone(), bytes, holders })
    }

    /// Whether three times as much is free as this client, and this principal, hold: alone, up to a quarter of all.
    pub fn is_ample(&self, client: IpAddr, principal: Arc<str>) -> bool {
        let held = self.held();
        let holders = [Holder::Address(network_of(client)), Holder::Principal(principal)];
        holders.iter().all(|holder| held.by.get(holder).is_none_or(|holds| 3 * holds <= held.free))
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn grants(&self, holder: &Holder, bytes: usize) -> bool {
        let Some(left) = self.free.checked_sub(bytes) else { return false };
        let most = if *holder == Holder::Unproven { left.saturating_mul(3) } else { left };
        self.by.get(holder).is_none_or(|holds| holds + bytes <= most)
    }
}

impl Share {
    /// Its bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut held = self.budget.held();
        held.free += self.bytes;
        for holder in &self.holders {
            if let Some(holds) = held.by.get_mut(holder) {
                *holds -= self.bytes;
                if *holds == 0 {
                    held.by.remove(holder);
                }
            }
        }
    }
}

/// One host has 2^64 addresses of IPv6 at least: they count as one.
pub fn network_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(six) => IpAddr::V6(Ipv6Addr::from_bits(six.to_bits() & (!0 << 64))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn took(budget: &Arc<Budget>, client: &str, principal: &str) -> Vec<Share> {
        let client: IpAddr = client.parse().expect("an address");
        std::iter::from_fn(|| budget.take(10, client, principal.into())).collect()
    }

    #[test]
    fn one_address_and_one_principal_leave_room_for_the_next() {
        let budget = Arc::new(Budget::new(100));
        let first = took(&budget, "192.0.2.1", "a");
        assert_eq!(first.len(), 5, "alone it gets half");
        assert_eq!(took(&budget, "192.0.2.1", "b").len(), 0, "the address has its part");
        assert_eq!(took(&budget, "192.0.2.2", "a").len(), 0, "so has the principal");
        let second = took(&budget, "192.0.2.2", "b");
        assert_eq!(second.len(), 2);
        let third = took(&budget, "192.0.2.3", "c");
        assert_eq!(third.len(), 1);
        drop((first, second, third));
        assert_eq!(took(&budget, "192.0.2.4", "a").len(), 5, "what was given back is there again");
        assert!(budget.held().by.is_empty(), "nobody is remembered who holds nothing");
    }

    #[test]
    fn a25_unproven_clients_have_a_part_each_and_leave_a_quarter_to_the_proven() {
        let budget = Arc::new(Budget::new(160));
        let unproven = |client: &str| -> Vec<Share> {
            let client: IpAddr = client.parse().expect("an address");
            std::iter::from_fn(|| budget.take_unproven(10, client)).collect()
        };
        let first = unproven("192.0.2.1");
        assert_eq!(first.len(), 8, "alone it gets half");
        let second = unproven("192.0.2.2");
        assert_eq!(second.len(), 4, "no other's load takes its part");
        assert_eq!(unproven("192.0.2.3").len(), 0, "together they have three quarters");
        let proven = took(&budget, "192.0.2.3", "a");
        assert_eq!(proven.len(), 2);
        drop((first, second, proven));
        assert!(budget.held().by.is_empty(), "nobody is remembered who holds nothing");
    }

    #[test]
    fn it_is_ample_up_to_a_quarter_of_what_others_leave() {
        let budget = Arc::new(Budget::new(100));
        let client: IpAddr = "192.0.2.1".parse().expect("an address");
        let ample = |principal: &str| budget.is_ample(client, principal.into());
        let _some = budget.take(20, client, "a".into());
        assert!(ample("a"));
        let _more = budget.take(10, client, "a".into());
        assert!(!ample("a") && !ample("b"), "nor for another principal there");
        assert!(budget.is_ample("192.0.2.2".parse().expect("an address"), "b".into()));
    }

    #[test]
    fn a_budget_of_one_head_is_had_by_one() {
        let budget = Arc::new(Budget::new(10));
        let one = took(&budget, "192.0.2.1", "a");
        assert_eq!((one.len(), took(&budget, "192.0.2.2", "b").len()), (1, 0));
        drop(one);
        assert_eq!(took(&budget, "192.0.2.2", "b").len(), 1);
    }

    #[test]
    fn a_network_of_ipv6_is_one_client() {
        let budget = Arc::new(Budget::new(100));
        let _first = took(&budget, "2001:db8::1", "a");
        assert_eq!(took(&budget, "2001:db8::ffff:2", "b").len(), 0);
        assert_eq!(took(&budget, "2001:db8:0:1::1", "c").len(), 2);
    }
}
