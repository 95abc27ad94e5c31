//! The end of a key that signs no more: when it signed last, and until when its last token lives.

use super::{Policy, State};
use crate::words::clock::UnixTime;

/// Made so that a key verifies for a token's whole life after its last signature, unless an operator listed an
/// earlier end. Times are as the clock called them; what counts at another time is [`Ending::state`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    signed_until: UnixTime,
    until: UnixTime,
}

impl Ending {
    /// Of a key that signed until then: its last token lives for the longest lifetime and the leeway after it.
    pub fn after(signed_until: UnixTime, policy: &Policy) -> Self {
        Self { signed_until, until: signed_until.plus(policy.window()) }
    }

    /// As a record has it, which one of the other constructors made.
    pub(super) const fn kept(signed_until: UnixTime, until: UnixTime) -> Self {
        Self { signed_until, until }
    }

    /// The same with the end that an operator listed, where that is sooner.
    #[must_use]
    pub fn cut(self, end: UnixTime) -> Self {
        Self { until: self.until.min(end), ..self }
    }

    /// An endpoint was seen to sign with it, where it isn't over yet.
    #[must_use]
    pub fn held_at(self, now: UnixTime, policy: &Policy) -> Self {
        if self.is_over(now) { self } else { self.or_later(Self::after(now, policy)) }
    }

    /// Of two views of one key the later times.
    #[must_use]
    pub fn or_later(self, other: Self) -> Self {
        Self { signed_until: self.signed_until.max(other.signed_until), until: self.until.max(other.until) }
    }

    pub const fn signed_until(self) -> UnixTime {
        self.signed_until
    }

    pub const fn until(self) -> UnixTime {
        self.until
    }

    pub fn is_over(self, now: UnixTime) -> bool {
        self.until <= now
    }

    /// What it means at `now`. A clock that was ahead when the key ended, and is put right, lets nothing verify for
    /// longer than one window, nor count as signed in the time to come (A8).
    pub fn state(self, now: UnixTime, policy: &Policy) -> State {
        State::Verifying {
            until: self.until.min(now.plus(policy.window())),
            signed_until: self.signed_until.min(now),
        }
    }
}
