//! What was revoked beside keys: tokens, and all that belongs to a user and is older than the revocation (A20).

use std::collections::{HashMap, HashSet};

use aws_lc_rs::digest::{SHA256, digest};

use super::record::revocation::Revocation;
use crate::words::clock::UnixTime;

/// All of it, as it is asked for. It only ever denies: an unverified claim may be asked by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revoked {
    subjects: HashMap<Box<str>, UnixTime>,
    tokens: HashSet<[u8; 32]>,
}

impl Revoked {
    pub fn is_empty(&self) -> bool {
        self.subjects.is_empty() && self.tokens.is_empty()
    }

    /// How many users, and how many tokens.
    pub fn counts(&self) -> (usize, usize) {
        (self.subjects.len(), self.tokens.len())
    }

    /// Adds one; whether it says anything new. Keys are the ring's to end.
    pub fn add(&mut self, revocation: &Revocation) -> bool {
        match revocation {
            Revocation::Key { .. } => false,
            Revocation::Subject { name, not_before, .. } => {
                let known = self.subjects.entry(name.as_str().into()).or_insert(UnixTime(i64::MIN));
                let later = *known < *not_before;
                *known = (*known).max(*not_before);
                later
            }
            Revocation::Token { digest, .. } => self.tokens.insert(*digest),
        }
    }

    /// Whether what this user was given at `issued` has ended.
    pub fn ends_subject(&self, subject: &str, issued: UnixTime) -> bool {
        self.subjects.get(subject).is_some_and(|not_before| issued < *not_before)
    }

    /// Whether this very token has.
    pub fn ends_token(&self, token: &[u8]) -> bool {
        !self.tokens.is_empty() && self.tokens.contains(&digest_of(token))
    }
}

/// The digest by which a token is revoked. A token can't be guessed: it needs no key.
pub fn digest_of(token: &[u8]) -> [u8; 32] {
    let mut of = [0; 32];
    of.copy_from_slice(digest(&SHA256, token).as_ref());
    of
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a20_what_is_older_than_a_users_revocation_has_ended_and_what_is_younger_has_not() {
        let mut revoked = Revoked::default();
        assert!(revoked.is_empty() && !revoked.ends_subject("dev", UnixTime(0)));
        let of = |not_before| Revocation::Subject {
            name: "dev".to_owned(),
            not_before: UnixTime(not_before),
            at: UnixTime(not_before),
        };
        assert!(revoked.add(&of(100)));
        assert!(!revoked.add(&of(50)), "an earlier one takes nothing back");
        for (subject, issued, ended) in [
            ("dev", 99, true),
            ("dev", 100, false),
            ("dev", 101, false),
            ("Dev", 99, false),
            ("ci", 99, false),
        ] {
            assert_eq!(revoked.ends_subject(subject, UnixTime(issued)), ended, "{subject} {issued}");
        }
    }

    #[test]
    fn a20_a_token_is_ended_by_its_bytes() {
        let mut revoked = Revoked::default();
        let token = Revocation::Token { digest: digest_of(b"a.b.c"), at: UnixTime(1) };
        assert!(revoked.add(&token) && !revoked.add(&token));
        assert!(revoked.ends_token(b"a.b.c") && !revoked.ends_token(b"a.b.d"));
        assert_eq!(revoked.counts(), (0, 1));
    }
}
