//! Who still uses a key: what is known of the tokens that were signed with it. Of people and addresses it keeps how many
//! there are, about, and nobody's name: a fixed number of bits for each key, whatever the number of clients.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use aws_lc_rs::digest::{SHA256, digest};

use crate::words::{clock::UnixTime, kid::Kid};

/// Words of a count: 4,096 bits are right to some 3 % up to 10,000, and full beyond 30,000.
pub const WORDS: usize = 64;
const BITS: usize = WORDS * 64;
/// Keys that are known at most: the ring has two or three, and forgets them.
const KEYS: usize = 64;

/// How many different things were seen, about (linear counting). Two of them joined count what either saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count([u64; WORDS]);

impl Default for Count {
    fn default() -> Self {
        Self([0; WORDS])
    }
}

impl Count {
    pub(super) const fn of_words(words: &[u64; WORDS]) -> Self {
        Self(*words)
    }

    pub(super) const fn words(&self) -> &[u64; WORDS] {
        &self.0
    }

    fn note(&mut self, thing: &[u8]) {
        let digest = digest(&SHA256, thing);
        let place =
            digest.as_ref().iter().take(2).fold(0, |place, byte| place << 8 | usize::from(*byte)) % BITS;
        if let Some(word) = self.0.get_mut(place / 64) {
            *word |= 1 << (place % 64);
        }
    }

    fn join(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(word, other)| *word |= other);
    }

    /// About how many.
    pub fn about(&self) -> u64 {
        let set: u32 = self.0.iter().map(|word| word.count_ones()).sum();
        let empty = (BITS as f64 - f64::from(set)).max(1.0);
        (BITS as f64 * (BITS as f64 / empty).ln()).round() as u64
    }
}

/// What was seen of one key's tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// When one was last issued through us, or met for the first time.
    pub last: UnixTime,
    /// The latest `exp` of all.
    pub latest_exp: UnixTime,
    /// Users and robots; nobody, where a token has no subject.
    pub principals: Count,
    /// Addresses.
    pub clients: Count,
}

impl Seen {
    fn join(&mut self, other: &Self) {
        self.last = self.last.max(other.last);
        self.latest_exp = self.latest_exp.max(other.latest_exp);
        self.principals.join(&other.principals);
        self.clients.join(&other.clients);
    }
}

/// What was seen of all keys' tokens, by libtrust id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence(BTreeMap<Kid, Seen>);

impl Evidence {
    pub(super) fn of(keys: impl Iterator<Item = (Kid, Seen)>) -> Self {
        Self(keys.collect())
    }

    pub fn keys(&self) -> impl Iterator<Item = (&Kid, &Seen)> {
        self.0.iter()
    }

    pub fn key(&self, kid: &Kid) -> Option<&Seen> {
        self.0.get(kid)
    }

    /// The latest `exp` of all keys' tokens.
    pub fn latest_exp(&self) -> Option<UnixTime> {
        self.0.values().map(|seen| seen.latest_exp).max()
    }

    /// A token of this key was issued, or met for the first time.
    pub fn note(&mut self, kid: &Kid, (principal, client): (&str, IpAddr), exp: UnixTime, now: UnixTime) {
        if !self.0.contains_key(kid) && self.0.len() >= KEYS {
            self.forget(now, Duration::ZERO);
            if self.0.len() >= KEYS {
                return;
            }
        }
        let seen = self.0.entry(kid.clone()).or_default();
        seen.last = seen.last.max(now);
        seen.latest_exp = seen.latest_exp.max(exp);
        seen.principals.note(principal.as_bytes());
        seen.clients.note(client.to_canonical().to_string().as_bytes());
    }

    /// Adds what another replica saw, or this one before its restart.
    pub fn join(&mut self, other: &Self) {
        for (kid, seen) in &other.0 {
            self.0.entry(kid.clone()).or_default().join(seen);
        }
    }

    /// Forgets keys whose last token ended so long ago.
    pub fn forget(&mut self, now: UnixTime, after: Duration) {
        self.0.retain(|_, seen| now < seen.latest_exp.plus(after));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kid(name: &str) -> Kid {
        Kid::parse(name).expect("a name")
    }

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn a_count_is_about_right_and_joins() {
        for (things, from, to) in [(0, 0, 0), (1, 1, 1), (3, 3, 3), (100, 95, 105), (10_000, 9_500, 10_500)] {
            let mut count = Count::default();
            (0..things).for_each(|n: u32| count.note(&n.to_be_bytes()));
            assert!((from..=to).contains(&count.about()), "{things}: {}", count.about());
        }
        let (mut a, mut b) = (Count::default(), Count::default());
        a.note(b"x");
        b.note(b"x");
        b.note(b"y");
        a.join(&b);
        assert_eq!(a.about(), 2);
    }

    #[test]
    fn a_keys_tokens_are_counted_by_user_and_address_and_the_last_to_end_is_known() {
        let mut here = Evidence::default();
        for (name, last, exp) in [("ci", 1, 90), ("dev", 1, 120), ("ci", 2, 100)] {
            here.note(&kid("K"), (name, address(last)), UnixTime(exp), UnixTime(50));
        }
        let mut there = Evidence::default();
        there.note(&kid("K"), ("other", address(1)), UnixTime(80), UnixTime(60));
        there.note(&kid("L"), ("other", address(1)), UnixTime(80), UnixTime(60));
        here.join(&there);
        let seen = here.key(&kid("K")).expect("evidence");
        let counts = (seen.principals.about(), seen.clients.about());
        assert_eq!((seen.last, seen.latest_exp, counts), (UnixTime(60), UnixTime(120), (3, 2)));
        assert_eq!(here.latest_exp(), Some(UnixTime(120)));
        here.forget(UnixTime(100), Duration::from_secs(10));
        assert_eq!(here.keys().map(|(kid, _)| kid.as_str()).collect::<Vec<_>>(), ["K"]);
    }

    #[test]
    fn no_number_of_keys_takes_more_than_its_room() {
        let mut all = Evidence::default();
        for n in 0..2 * KEYS {
            all.note(&kid(&format!("k{n}")), ("ci", address(1)), UnixTime(100), UnixTime(50));
        }
        assert_eq!(all.keys().count(), KEYS);
        all.note(&kid("late"), ("ci", address(1)), UnixTime(300), UnixTime(200));
        assert_eq!(all.keys().count(), 1, "those that are over make room");
    }
}
