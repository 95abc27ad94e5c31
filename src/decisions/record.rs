//! What the store keeps, as data: kinds of records, their places, their formats and their seals.
//!
//! A format never loses a member and never changes one's meaning: this version reads what any former one wrote, and
//! a former one passes over the members that it doesn't know (`tests/fixtures/store` holds what each has written).

pub mod end;
pub mod evidence;
pub mod granted;
pub mod private_half;
pub mod replica;
pub mod revocation;
pub mod seal;
pub mod secret;
pub mod seen_key;
pub mod window;

use std::fmt;

use seal::SealId;

use crate::words::clock::UnixTime;

/// What a record is about. Where many changes wait, those of an earlier kind are written first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// The public half of a key that a source held.
    Key,
    /// Its private half, where the configuration wants it kept.
    Private,
    /// What an operator ended at once. It is never removed.
    Revocation,
    /// What a process ended, and with it grants of before (A2, A15).
    End,
    /// A secret that all processes of the deployment share.
    Secret,
    /// The upgrade window that an operator opened.
    Window,
    /// That a replica lives, and what it has taken.
    Replica,
    /// A user's session at the identity provider.
    Session,
    /// What Harbor last granted a credential, by keyed hash.
    Grant,
    /// What a process saw of keys' tokens.
    Evidence,
}

impl Kind {
    pub const ALL: [Self; 10] = [
        Self::Key,
        Self::Private,
        Self::Revocation,
        Self::End,
        Self::Secret,
        Self::Window,
        Self::Replica,
        Self::Session,
        Self::Grant,
        Self::Evidence,
    ];

    /// The kinds whose every change all replicas must know at once.
    pub const WATCHED: [Self; 4] = [Self::Key, Self::Revocation, Self::End, Self::Window];

    /// The kind's name in the store and in the log. It never changes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Private => "private",
            Self::Revocation => "revocation",
            Self::End => "end",
            Self::Secret => "secret",
            Self::Window => "window",
            Self::Session => "session",
            Self::Grant => "grant",
            Self::Replica => "replica",
            Self::Evidence => "evidence",
        }
    }

    /// One record out of two of the same place, where another process wrote in between; both as they were before
    /// sealing. A text that can't be read loses.
    pub fn merge(self, present: &[u8], ours: &[u8], now: UnixTime) -> Vec<u8> {
        match self {
            Self::Key => seen_key::merge(present, ours, now),
            Self::Revocation => revocation::merge(present, ours),
            Self::Window => window::merge(present, ours),
            // What is shared is whoever's came first.
            Self::Secret => present.to_vec(),
            Self::End => end::merge(present, ours),
            Self::Grant => granted::merge(present, ours),
            Self::Private | Self::Session | Self::Replica | Self::Evidence => ours.to_vec(),
        }
    }
}

/// Where a record is: its kind, and a name among its kind that tells nobody a secret.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    pub kind: Kind,
    pub key: String,
}

impl Place {
    pub fn new(kind: Kind, key: impl Into<String>) -> Self {
        Self { kind, key: key.into() }
    }

    /// Where what belongs here is kept while a record that doesn't open has the place: beside it, by the key that
    /// seals now.
    #[must_use]
    pub fn beside(&self, sealed_by: SealId) -> Self {
        Self { kind: self.kind, key: format!("{}{BESIDE}{sealed_by}", self.key) }
    }

    /// The place that this one is beside, if it is.
    pub fn owner(&self) -> Option<Self> {
        let (key, id) = self.key.rsplit_once(BESIDE)?;
        SealId::is_written(id).then(|| Self { kind: self.kind, key: key.to_owned() })
    }
}

/// Between a place's name and the sealing key's, in a place beside it.
const BESIDE: char = '~';

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind.name(), self.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_beside_another_one_is_told_from_any_other() {
        let id = seal::SealKey::new(&[1; seal::KEY]).expect("a key").id();
        let place = Place::new(Kind::Grant, "a~b");
        assert_eq!(place.beside(id).owner(), Some(place.clone()));
        assert_eq!(place.beside(id).beside(id).owner(), Some(place.beside(id)));
        for key in ["", "a", "a~b", "a~0123456789abcde", "a~0123456789abcdeg", "a~0123456789ABCDEF"] {
            assert_eq!(Place::new(Kind::Grant, key).owner(), None, "{key}");
        }
    }
}
