//! Those who wait for a connection: each client's in their order, and not more of them than can be served in time.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use tokio::sync::oneshot;

use super::Share;

/// So many may wait for each connection that there is. Some of them are nobody's any more: a question about a token
/// goes on when who asked it has left.
const FOR_EACH: usize = 16;
/// That many may wait at least, however few connections there are.
const LEAST: usize = 128;

/// The line of one endpoint.
///
/// A client may wait while as many places stay free as it has itself: alone it gets half. To enter, to leave and to
/// be next takes steps by the number of clients that wait at most, not by the length of their lines.
pub(super) struct Line {
    room: usize,
    next: u64,
    /// Those of a client by their numbers; never empty. `None` = our own questions.
    of: HashMap<Option<IpAddr>, BTreeMap<u64, oneshot::Sender<Share>>>,
    /// Clients by the first of their numbers.
    first: BTreeMap<u64, Option<IpAddr>>,
}

impl Line {
    /// Before so many connections.
    pub(super) fn new(most: usize) -> Self {
        let room = most.saturating_mul(FOR_EACH).max(LEAST);
        Self { room, next: 0, of: HashMap::new(), first: BTreeMap::new() }
    }

    /// Whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_empty()
    }

    /// A place at the end; its number. `None` where the client has its part of the line.
    pub(super) fn enter(&mut self, client: Option<IpAddr>, turn: oneshot::Sender<Share>) -> Option<u64> {
        let waits = self.of.get(&client).map_or(0, BTreeMap::len);
        // What we ask ourselves depends on no client's room.
        if client.is_some() && waits >= self.room {
            return None;
        }
        let number = self.next;
        self.next += 1;
        self.room = self.room.saturating_sub(usize::from(client.is_some()));
        let own = self.of.entry(client).or_default();
        if own.is_empty() {
            self.first.insert(number, client);
        }
        own.insert(number, turn);
        Some(number)
    }

    /// Gives a place up; nothing where its turn has come before.
    pub(super) fn leave(&mut self, client: Option<IpAddr>, number: u64) {
        self.remove(client, number);
    }

    /// The first whose client may have a connection now.
    pub(super) fn next(
        &mut self,
        may: impl Fn(Option<IpAddr>) -> bool,
    ) -> Option<(Option<IpAddr>, oneshot::Sender<Share>)> {
        let (&number, &client) = self.first.iter().find(|(_, client)| may(**client))?;
        Some((client, self.remove(client, number)?))
    }

    fn remove(&mut self, client: Option<IpAddr>, number: u64) -> Option<oneshot::Sender<Share>> {
        let own = self.of.get_mut(&client)?;
        let turn = own.remove(&number)?;
        self.room += usize::from(client.is_some());
        if self.first.remove(&number).is_some()
            && let Some((&next, _)) = own.first_key_value()
        {
            self.first.insert(next, client);
        }
        if own.is_empty() {
            self.of.remove(&client);
        }
        Some(turn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::unnecessary_wraps, reason = "as the line knows a client")]
    fn client(last: u8) -> Option<IpAddr> {
        Some(IpAddr::from([192, 0, 2, last]))
    }

    /// Enters as often as it may, to `most`.
    fn fill(line: &mut Line, client: Option<IpAddr>, most: usize) -> Vec<u64> {
        (0..most).map_while(|_| line.enter(client, oneshot::channel().0)).collect()
    }

    #[test]
    fn no_client_has_the_whole_line() {
        let mut line = Line::new(10);
        let first = fill(&mut line, client(1), 1_000);
        let second = fill(&mut line, client(2), 1_000);
        assert_eq!((first.len(), second.len()), (80, 40));
        let others: usize = (3..200).map(|last| fill(&mut line, client(last), 1_000).len()).sum();
        assert_eq!(first.len() + second.len() + others, 160, "bounded in all");
        assert_eq!(fill(&mut line, None, 10).len(), 10, "our own questions wait all the same");
        for number in first {
            line.leave(client(1), number);
        }
        assert_eq!(fill(&mut line, client(201), 1_000).len(), 40, "what was given up is there again");
    }

    #[test]
    fn the_first_of_those_who_may_is_next() {
        let mut line = Line::new(10);
        for last in [1, 2, 1, 3] {
            line.enter(client(last), oneshot::channel().0).expect("room");
        }
        let mut next = |not: u8| line.next(|one| one != client(not)).map(|(client, _)| client);
        assert_eq!(next(1), Some(client(2)));
        assert_eq!(next(0), Some(client(1)));
        assert_eq!(next(0), Some(client(1)), "came before the third");
        assert_eq!(next(0), Some(client(3)));
        assert_eq!(next(0), None);
        assert!(line.is_empty() && line.of.is_empty() && line.room == 160, "nobody is remembered");
    }

    #[test]
    fn who_leaves_is_followed_by_the_next_of_the_client() {
        let mut line = Line::new(10);
        let numbers: Vec<_> = fill(&mut line, client(1), 3);
        line.enter(client(2), oneshot::channel().0).expect("room");
        line.leave(client(1), numbers[1]);
        line.leave(client(1), numbers[0]);
        line.leave(client(1), numbers[0]);
        let mut next = || line.next(|_| true).map(|(client, _)| client);
        assert_eq!([next(), next(), next()], [Some(client(1)), Some(client(2)), None]);
    }
}
