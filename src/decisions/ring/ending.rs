//! The end of a key that signs no more: when it signed last, and until when its last token lives.

use super::{Policy, State};
use crate::{decisions::window::Open, words::clock::UnixTime};

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
    pub fn held_at(self, now: UnixTime, policy: &Policy, open: Option<Open>) -> Self {
        if self.is_over(now, policy, open) { self } else { self.or_later(Self::after(now, policy)) }
    }

    /// Of two views of one key the later times.
    #[must_use]
    pub fn or_later(self, other: Self) -> Self {
        Self { signed_until: self.signed_until.max(other.signed_until), until: self.until.max(other.until) }
    }

    pub const fn signed_until(self) -> UnixTime {
        self.signed_until
    }

    /// The end, where no upgrade window is open.
    pub const fn until(self) -> UnixTime {
        self.until
    }

    /// The end. A key that stopped signing while an upgrade window was open ends no sooner than that, unless an operator
    /// listed an earlier end: whoever backs out finds it as it was. Its tokens gain nothing by it: none may have been
    /// issued after its last signature, nor live longer than Harbor's do (A8).
    pub fn until_with(self, policy: &Policy, open: Option<Open>) -> UnixTime {
        let is_cut = self.until < self.signed_until.plus(policy.window());
        match open {
            Some(open) if open.since <= self.signed_until && !is_cut => self.until.max(open.until),
            _ => self.until,
        }
    }

    pub fn is_over(self, now: UnixTime, policy: &Policy, open: Option<Open>) -> bool {
        self.until_with(policy, open) <= now
    }

    /// What it means at `now`. A clock that was ahead when the key ended, and is put right, lets nothing verify for
    /// longer than one window, nor count as signed in the time to come (A8).
    pub fn state(self, now: UnixTime, policy: &Policy, open: Option<Open>) -> State {
        let most = open.map_or(now, |open| open.until.max(now)).max(now.plus(policy.window()));
        State::Verifying {
            until: self.until_with(policy, open).min(most),
            signed_until: self.signed_until.min(now),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::decisions::ring::Overlap;

    fn at(seconds: i64) -> UnixTime {
        UnixTime(1_000_000 + seconds)
    }

    #[test]
    fn a8_a_key_that_stopped_signing_in_an_upgrade_window_ends_no_sooner_and_its_last_signature_stays() {
        let (token_lifetime, leeway) = (Duration::from_mins(15), Duration::from_secs(100));
        let policy = Policy { overlap: Overlap::Auto, token_lifetime, leeway };
        let open = |since, until| Some(Open { since: at(since), until: at(until), by_command: true });
        let ending = Ending::after(at(0), &policy);
        for (name, ending, open, until) in [
            ("no window", ending, None, 1_000),
            ("a long one", ending, open(-10, 7_200), 7_200),
            ("one that closes sooner", ending, open(-10, 500), 1_000),
            ("one that was opened later", ending, open(1, 7_200), 1_000),
            ("an operator listed an earlier end", ending.cut(at(300)), open(-10, 7_200), 300),
        ] {
            assert_eq!(ending.until_with(&policy, open), at(until), "{name}");
            let state = ending.state(at(10), &policy, open);
            assert_eq!(state, State::Verifying { until: at(until), signed_until: at(0) }, "{name}");
            assert!(ending.is_over(at(until), &policy, open), "{name}");
            assert!(!ending.is_over(at(until - 1), &policy, open), "{name}");
        }
    }
}
