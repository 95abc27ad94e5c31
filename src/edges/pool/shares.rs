//! Who may use how many of one endpoint's connections: no client takes them all, and some stay for our own questions.
//! Who finds none waits for the first that is theirs to have.

mod line;

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    net::IpAddr,
    rc::Rc,
    time::Duration,
};

use tokio::{sync::oneshot, time::timeout};

use self::line::Line;

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
    line: RefCell<Line>,
}

/// The right to use one connection, until dropped.
pub(super) struct Share {
    shares: Rc<Shares>,
    client: Option<IpAddr>,
}

impl Shares {
    /// Of so many connections.
    pub(super) fn new(most: usize) -> Rc<Self> {
        let line = RefCell::new(Line::new(most));
        Rc::new(Self { most, used: Cell::new(0), by: RefCell::default(), line })
    }

    /// One, now or within a while; first come is first served among those who may have what comes free. `None` at
    /// once where too many wait.
    pub(super) async fn wait(self: &Rc<Self>, client: Option<IpAddr>, within: Duration) -> Option<Share> {
        // What is free here is nobody's who waits: it is passed on where it comes free.
        if let Some(share) = self.take(client) {
            return Some(share);
        }
        let (turn, told) = oneshot::channel();
        let number = self.line.borrow_mut().enter(client, turn)?;
        let _leaves = Leaves { shares: self, client, number };
        timeout(within, told).await.ok()?.ok()
    }

    fn pass_on(self: &Rc<Self>) {
        let next = || self.line.borrow_mut().next(|client| self.may(client));
        while let Some((client, turn)) = next() {
            let Some(share) = self.take(client) else { return };
            // Gone meanwhile: the share comes back by being dropped, and is passed on again.
            drop(turn.send(share));
        }
    }

    /// One for a client, or for a question of our own; `None` where it isn't theirs to have.
    pub(super) fn take(self: &Rc<Self>, client: Option<IpAddr>) -> Option<Share> {
        if !self.may(client) {
            return None;
        }
        self.used.set(self.used.get() + 1);
        if let Some(client) = client {
            *self.by.borrow_mut().entry(client).or_default() += 1;
        }
        Some(Share { shares: self.clone(), client })
    }

    fn may(&self, client: Option<IpAddr>) -> bool {
        client.map_or(self.used.get() < self.most, |client| self.grants(client))
    }

    fn grants(&self, client: IpAddr) -> bool {
        let for_clients = self.most - (self.most / 8).min(OURS);
        let Some(left) = for_clients.checked_sub(self.used.get() + 1) else { return false };
        self.by.borrow().get(&client).is_none_or(|holds| *holds < left)
    }
}

impl Shares {
    fn give_back(&self, client: Option<IpAddr>) {
        self.used.set(self.used.get() - 1);
        let Some(client) = client else { return };
        let mut by = self.by.borrow_mut();
        if let Some(holds) = by.get_mut(&client) {
            *holds -= 1;
            if *holds == 0 {
                by.remove(&client);
            }
        }
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
        self.shares.give_back(self.client);
        if !self.shares.line.borrow().is_empty() {
            self.shares.pass_on();
        }
    }
}

/// Takes its number out of the line, where it is still in it.
struct Leaves<'a> {
    shares: &'a Shares,
    client: Option<IpAddr>,
    number: u64,
}

impl Drop for Leaves<'_> {
    fn drop(&mut self) {
        self.shares.line.borrow_mut().leave(self.client, self.number);
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

    #[tokio::test]
    async fn who_waits_has_the_first_that_is_theirs_to_have() {
        let shares = Shares::new(16);
        let client = |last: u8| Some(IpAddr::from([192, 0, 2, last]));
        let (mut first, second) = (all(&shares, Some([192, 0, 2, 1])), all(&shares, Some([192, 0, 2, 2])));
        let rest: Vec<_> = (3..100).flat_map(|last| all(&shares, Some([192, 0, 2, last]))).collect();
        assert!(shares.wait(client(200), Duration::from_millis(10)).await.is_none(), "not for ever");
        assert!(shares.line.borrow().is_empty());
        let long = Duration::from_mins(1);
        let (greedy, modest) = (shares.wait(client(1), long), shares.wait(client(200), long));
        tokio::pin!(greedy, modest);
        assert!(futures_util::poll!(&mut greedy).is_pending());
        assert!(futures_util::poll!(&mut modest).is_pending());
        drop(first.pop());
        assert!(futures_util::poll!(&mut greedy).is_pending(), "it holds more than would stay free");
        assert!(futures_util::poll!(&mut modest).is_ready(), "who came later may have it");
        drop((first, second, rest));
        assert!(futures_util::poll!(&mut greedy).is_ready());
    }

    #[tokio::test]
    async fn a_line_that_is_full_is_told_so_at_once() {
        let shares = Shares::new(1);
        let client = |last: u8| Some(IpAddr::from([192, 0, 2, last]));
        let held = shares.take(client(1)).expect("the only one");
        let long = Duration::from_mins(1);
        let mut line = Vec::new();
        for _ in 0..10_000 {
            let mut waits = Box::pin(shares.wait(client(1), long));
            if futures_util::poll!(&mut waits).is_pending() {
                line.push(waits);
            }
        }
        assert!(line.len() < 1_000, "{} wait", line.len());
        let mut other = Box::pin(shares.wait(client(2), long));
        assert!(futures_util::poll!(&mut other).is_pending(), "another client still finds a place");
        drop(line.drain(1..));
        drop(held);
        assert!(futures_util::poll!(&mut line[0]).is_ready(), "first come, first served");
    }

    #[test]
    fn the_only_connection_is_had_by_one() {
        let shares = Shares::new(1);
        let one = all(&shares, Some([192, 0, 2, 1]));
        assert_eq!((one.len(), all(&shares, Some([192, 0, 2, 2])).len()), (1, 0));
    }
}
