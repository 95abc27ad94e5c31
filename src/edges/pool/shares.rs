//! Who may use how many of one endpoint's connections: no client takes them all, and some stay for our own questions.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    net::IpAddr,
    rc::Rc,
};

/// Connections that clients leave to our own questions, at most; fewer where there are few.
const OURS: usize = 4;

/// The connections in use of one worker to one endpoint.
///
/// A client may always have one while there is room, and further ones only while as much stays free as it holds
/// itself: alone it gets half, and whoever comes next finds room.
pub(super) struct Shares {
    most: usize,
    used: Cell<usize>,
    by: RefCell<HashMap<IpAddr, usize>>,
}

/// The right to use one connection, until dropped.
pub(super) struct Share {
    shares: Rc<Shares>,
    client: Option<IpAddr>,
}

impl Shares {
    /// Of so many connections.
    pub(super) fn new(most: usize) -> Rc<Self> {
        Rc::new(Self { most, used: Cell::new(0), by: RefCell::default() })
    }

    /// One for a client, or for a question of our own; `None` where it isn't theirs to have.
    pub(super) fn take(self: &Rc<Self>, client: Option<IpAddr>) -> Option<Share> {
        if !client.map_or(self.used.get() < self.most, |client| self.grants(client)) {
            return None;
        }
        self.used.set(self.used.get() + 1);
        if let Some(client) = client {
            *self.by.borrow_mut().entry(client).or_default() += 1;
        }
        Some(Share { shares: self.clone(), client })
    }

    fn grants(&self, client: IpAddr) -> bool {
        let for_clients = self.most - (self.most / 8).min(OURS);
        let Some(left) = for_clients.checked_sub(self.used.get() + 1) else { return false };
        self.by.borrow().get(&client).is_none_or(|holds| *holds < left)
    }
}

impl Share {
    /// Whose it is; `None` = our own.
    pub(super) fn client(&self) -> Option<IpAddr> {
        self.client
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.shares.used.set(self.shares.used.get() - 1);
        let Some(client) = self.client else { return };
        let mut by = self.shares.by.borrow_mut();
        if let Some(holds) = by.get_mut(&client) {
            *holds -= 1;
            if *holds == 0 {
                by.remove(&client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(shares: &Rc<Shares>, client: Option<[u8; 4]>) -> Vec<Share> {
        std::iter::from_fn(|| shares.take(client.map(IpAddr::from))).collect()
    }

    #[test]
    fn no_client_takes_all_and_some_stay_for_our_own() {
        let shares = Shares::new(64);
        let first = all(&shares, Some([192, 0, 2, 1]));
        let second = all(&shares, Some([192, 0, 2, 2]));
        assert_eq!((first.len(), second.len()), (30, 15));
        let others: Vec<_> = (3..100).flat_map(|last| all(&shares, Some([192, 0, 2, last]))).collect();
        assert_eq!(first.len() + second.len() + others.len(), 60);
        let ours = all(&shares, None);
        assert_eq!(ours.len(), 4);
        drop((first, second, others, ours));
        assert!(shares.by.borrow().is_empty() && shares.used.get() == 0, "nobody is remembered");
        assert_eq!(all(&shares, Some([192, 0, 2, 4])).len(), 30, "what was given back is there again");
    }

    #[test]
    fn the_only_connection_is_had_by_one() {
        let shares = Shares::new(1);
        let one = all(&shares, Some([192, 0, 2, 1]));
        assert_eq!((one.len(), all(&shares, Some([192, 0, 2, 2])).len()), (1, 0));
    }
}
