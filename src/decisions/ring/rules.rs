//! The rules of the ring, and what the configuration says about a source.

use std::time::Duration;

use crate::words::{clock::UnixTime, kid::Kid};

/// How long a replaced key goes on verifying.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Overlap {
    /// Until the last token that it can have signed has expired.
    #[default]
    Auto,
    /// Not at all, unless a source lists it: for those who rotate because a key leaked.
    Listed,
    /// Not at all: only signing keys verify, whatever a source lists.
    Off,
}

/// The rules of the ring.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    pub overlap: Overlap,
    /// Harbor's `token_expiration`, 30 minutes by default (K6).
    pub token_lifetime: Duration,
    /// The skew allowed between our clock and core's, 60 s by default.
    pub leeway: Duration,
}

impl Policy {
    /// From the moment a key stopped signing to the end of its last token.
    pub fn window(&self) -> Duration {
        self.token_lifetime.saturating_add(self.leeway)
    }
}

/// The state that a source's configuration sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listed {
    Announced,
    Signing,
    Verifying,
    /// Banned: a tombstone for as long as it is listed (A9).
    Retired,
}

/// What the configuration says about a source.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// `None` = signing, and verifying once it is replaced.
    pub state: Option<Listed>,
    /// One more name for the source's one key.
    pub alias: Option<Kid>,
    /// Announced before this moment.
    pub from: Option<UnixTime>,
    /// Retired from this moment on.
    pub until: Option<UnixTime>,
    /// Public halves alone are a fault.
    pub needs_private: bool,
    /// Its keys came from another machine: they are not ours to publish (A10).
    pub is_remote: bool,
}

impl Listing {
    /// Whether core may sign with what the source holds, from the first day on that is listed: one that is announced
    /// without a day doesn't sign.
    pub(super) fn has_begun(&self, now: UnixTime) -> bool {
        match (self.state, self.from) {
            (None | Some(Listed::Signing), from) => from.is_none_or(|from| from <= now),
            (Some(Listed::Announced), from) => from.is_some_and(|from| from <= now),
            (Some(Listed::Verifying | Listed::Retired), _) => false,
        }
    }

    /// Whether core may sign with what the source holds now.
    pub(super) fn signs(&self, now: UnixTime) -> bool {
        self.has_begun(now) && self.until.is_none_or(|until| now < until)
    }
}
