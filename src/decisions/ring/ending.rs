//! The end of a key that signs no more: when it signed last, and until when its last token lives.

use std::time::Duration;

use super::{Policy, State};
use crate::{decisions::window::Open, words::clock::UnixTime};

/// What the wall clock shows, and what it would have shown when the process's steady clock began: where the latter
/// moves, the wall clock was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    now: UnixTime,
    zero: UnixTime,
}

impl Moment {
    /// A wall clock that is set by less counts as the same one: both clocks aren't read in the same instant.
    const STEP: Duration = Duration::from_secs(30);

    /// `steady`: since the steady clock began. `before`: the last moment, if there was one.
    pub(super) fn at(now: UnixTime, steady: Duration, before: Option<Self>) -> Self {
        let zero = now.minus(steady);
        let before = before.map(|before| before.zero);
        let same = before.filter(|before| zero.since(*before).max(before.since(zero)) <= Self::STEP);
        Self { now, zero: same.unwrap_or(zero) }
    }

    pub(super) const fn now(self) -> UnixTime {
        self.now
    }

    /// What the wall clock at `later` calls the time that it called `then` at this moment.
    pub(super) fn called(self, then: UnixTime, later: Self) -> UnixTime {
        UnixTime(then.0.saturating_add(later.zero.0.saturating_sub(self.zero.0)))
    }
}

/// Made so that a key verifies for a token's whole life after its last signature, unless an operator listed an
/// earlier end. Times are as the clock called them; what counts at another time is [`Ending::state`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    signed_until: UnixTime,
    until: UnixTime,
    /// The end that an operator listed: nothing moves it on.
    listed: Option<UnixTime>,
    /// Nothing of what was known then counts as later than it, by as much time as passes, wherever the clock goes.
    noticed: Moment,
}

impl Ending {
    /// Of a key that signed until then: its last token lives for the longest lifetime and the leeway after it.
    pub fn after(signed_until: UnixTime, policy: &Policy, noticed: Moment) -> Self {
        Self { signed_until, until: signed_until.plus(policy.window()), listed: None, noticed }
    }

    /// As a record has it whose writer said nothing of ends that were listed: one that is sooner than its last signature
    /// asks for was, by these rules at least. One that is later is none.
    pub(super) fn inferred(
        signed_until: UnixTime,
        until: UnixTime,
        policy: &Policy,
        noticed: Moment,
    ) -> Self {
        let ending = Self::after(signed_until, policy, noticed);
        if until < ending.until { ending.cut(until) } else { ending }
    }

    /// Of a key that another process signs with, by its last word (A10). That comes again after a third of a window at
    /// most, and until then it is believed to go on; where it doesn't come, the key ends as if that had been its last
    /// signature.
    pub(super) fn learned(seen: UnixTime, policy: &Policy, noticed: Moment) -> Self {
        let ahead = policy.window() / 2;
        let noticed = Moment { now: noticed.now.plus(ahead), ..noticed };
        Self { signed_until: seen.plus(ahead), until: seen.plus(policy.window()), listed: None, noticed }
    }

    /// The same with the end that an operator listed, where that is sooner.
    #[must_use]
    pub fn cut(self, end: UnixTime) -> Self {
        Self { listed: Some(self.listed.map_or(end, |listed| listed.min(end))), ..self }
    }

    /// Of two views of one key the later times, and the sooner one of the ends that were listed.
    #[must_use]
    pub fn or_later(self, other: Self) -> Self {
        let adds = other.signed_until > self.signed_until || other.until > self.until;
        let both = Self {
            signed_until: self.signed_until.max(other.signed_until),
            until: self.until.max(other.until),
            noticed: if adds { other.noticed } else { self.noticed },
            listed: self.listed,
        };
        other.listed.map_or(both, |end| both.cut(end))
    }

    /// The end that an operator listed.
    pub const fn listed(self) -> Option<UnixTime> {
        self.listed
    }

    /// The end as the clock called it. A key that stopped signing while an upgrade window was open ends no sooner than
    /// that, unless an operator listed an earlier end: whoever backs out finds it as it was. Its tokens gain nothing by
    /// it: none may have been issued after its last signature, nor live longer than Harbor's do (A8).
    pub fn until_with(self, open: Option<Open>) -> UnixTime {
        self.prolonged(self.until, open)
    }

    fn prolonged(self, until: UnixTime, open: Option<Open>) -> UnixTime {
        let until = match open {
            Some(open) if open.since <= self.signed_until => until.max(open.until),
            _ => until,
        };
        self.listed.map_or(until, |end| until.min(end))
    }

    pub fn is_over(self, at: Moment, policy: &Policy, open: Option<Open>) -> bool {
        self.times(at, policy, open).1 <= at.now
    }

    /// What it means at a moment.
    pub fn state(self, at: Moment, policy: &Policy, open: Option<Open>) -> State {
        let (signed_until, until) = self.times(at, policy, open);
        State::Verifying { until, signed_until }
    }

    /// When it signed last, and its end. A clock that was ahead when the key ended, and is put right, lets nothing
    /// verify for longer than one window of time that passes, nor count as signed in that time (A8).
    pub(super) fn times(self, at: Moment, policy: &Policy, open: Option<Open>) -> (UnixTime, UnixTime) {
        let last = self.signed_until.min(self.noticed.now);
        let signed_until = self.signed_until.min(self.noticed.called(last, at)).min(at.now);
        let end = last.plus(self.until.since(self.signed_until));
        let until = self.prolonged(self.until.min(self.noticed.called(end, at)), open);
        let most = open.map_or(at.now, |open| open.until.max(at.now)).max(at.now.plus(policy.window()));
        (signed_until, until.min(most))
    }
}

/// How a key ends by all that is known: by its own sources, and by processes whose sources hold it still.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ends {
    pub(super) own: Option<Ending>,
    pub(super) elsewhere: Option<Ending>,
    /// The end that who holds it still lists for it by their last word. The next one may say another, or none.
    listed_elsewhere: Option<UnixTime>,
}

impl Ends {
    pub(super) fn own(ending: Ending) -> Self {
        Self { own: Some(ending), ..Self::default() }
    }

    pub(super) fn elsewhere(ending: Ending, listed: Option<UnixTime>) -> Self {
        Self { own: None, elsewhere: Some(ending), listed_elsewhere: listed }
    }

    /// With the soonest end that anybody listed.
    fn each(self) -> impl Iterator<Item = Ending> {
        self.own.into_iter().chain(self.elsewhere).map(move |ending| self.as_listed(ending))
    }

    fn as_listed(self, ending: Ending) -> Ending {
        let soonest = self.listed_here().into_iter().chain(self.listed_elsewhere).min();
        soonest.map_or(ending, |end| ending.cut(end))
    }

    /// How it ended by its own sources, for whoever asks this process.
    pub(super) fn own_word(self) -> Option<Ending> {
        self.own.map(|own| self.as_listed(own))
    }

    /// The end that stays, whatever others say next.
    fn listed_here(self) -> Option<UnixTime> {
        self.own.into_iter().chain(self.elsewhere).filter_map(Ending::listed).min()
    }

    fn map(self, change: impl Fn(Ending) -> Ending) -> Self {
        Self { own: self.own.map(&change), elsewhere: self.elsewhere.map(&change), ..self }
    }

    /// With what a store says of the same key now. Who ended it here after another process last said that it signs
    /// knows better.
    #[must_use]
    pub(super) fn with(self, said: Self) -> Self {
        let own = match (self.own, said.own) {
            (Some(own), Some(said)) => Some(own.or_later(said)),
            (own, said) => own.or(said),
        };
        let knows_better = |seen: &Ending| own.is_some_and(|own| own.until >= seen.until);
        let elsewhere = said.elsewhere.filter(|seen| !knows_better(seen));
        Self { own, elsewhere, listed_elsewhere: said.listed_elsewhere }.cut_as(self)
    }

    fn cut_as(self, before: Self) -> Self {
        before.listed_here().map_or(self, |end| self.cut(end))
    }

    #[must_use]
    pub(super) fn cut(self, end: UnixTime) -> Self {
        self.map(|ending| ending.cut(end))
    }

    /// An endpoint was seen to sign with it, where it isn't over yet.
    #[must_use]
    pub(super) fn held_at(self, at: Moment, policy: &Policy, open: Option<Open>) -> Self {
        if self.is_over(at, policy, open) {
            return self;
        }
        let held = Ending::after(at.now, policy, at);
        let own = self.own.map_or(held, |own| own.or_later(held));
        Self { own: Some(own), ..self }.cut_as(self)
    }

    pub(super) fn until_with(self, open: Option<Open>) -> UnixTime {
        self.each().map(|ending| ending.until_with(open)).max().unwrap_or(UnixTime(i64::MIN))
    }

    pub(super) fn is_over(self, at: Moment, policy: &Policy, open: Option<Open>) -> bool {
        self.each().all(|ending| ending.is_over(at, policy, open))
    }

    /// The later times of both.
    pub(super) fn state(self, at: Moment, policy: &Policy, open: Option<Open>) -> State {
        let times = self.each().map(|ending| ending.times(at, policy, open));
        let latest = times.reduce(|a, b| (a.0.max(b.0), a.1.max(b.1)));
        latest.map_or(State::Retired, |(signed_until, until)| State::Verifying { until, signed_until })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decisions::ring::Overlap;

    fn at(seconds: i64) -> UnixTime {
        UnixTime(1_000_000 + seconds)
    }

    /// The clocks `steady` seconds after the beginning, where the wall clock shows this.
    fn moment(seconds: i64, steady: u64) -> Moment {
        Moment::at(at(seconds), Duration::from_secs(steady), None)
    }

    /// A window of 1,000 s.
    const POLICY: Policy = Policy {
        overlap: Overlap::Auto,
        token_lifetime: Duration::from_mins(15),
        leeway: Duration::from_secs(100),
    };

    fn verifying(signed_until: i64, until: i64) -> State {
        State::Verifying { until: at(until), signed_until: at(signed_until) }
    }

    #[test]
    fn a8_a_key_that_stopped_signing_in_an_upgrade_window_ends_no_sooner_and_its_last_signature_stays() {
        let open = |since, until| Some(Open { since: at(since), until: at(until), by_command: true });
        let ending = Ending::after(at(0), &POLICY, moment(0, 0));
        for (name, ending, open, until) in [
            ("no window", ending, None, 1_000),
            ("a long one", ending, open(-10, 7_200), 7_200),
            ("one that closes sooner", ending, open(-10, 500), 1_000),
            ("one that was opened later", ending, open(1, 7_200), 1_000),
            ("an operator listed an earlier end", ending.cut(at(300)), open(-10, 7_200), 300),
            ("or one in between", ending.cut(at(3_000)), open(-10, 7_200), 3_000),
        ] {
            assert_eq!(ending.until_with(open), at(until), "{name}");
            assert_eq!(ending.state(moment(10, 10), &POLICY, open), verifying(0, until), "{name}");
            let over = |seconds: i64| {
                let steady = u64::try_from(seconds).expect("a time to come");
                ending.is_over(moment(seconds, steady), &POLICY, open)
            };
            assert!(over(until) && !over(until - 1), "{name}");
        }
    }

    #[test]
    fn a8_however_the_clock_is_set_a_key_verifies_for_one_window_of_time_that_passes() {
        const DAY: i64 = 86_400;
        // It ends by a clock that is right, or by one that is a day ahead.
        let ending = Ending::after(at(0), &POLICY, moment(0, 500));
        for (now, steady, expected) in [
            (1, 501, Some(verifying(0, 1_000))),
            (1 - DAY, 501, Some(verifying(-DAY, 1_000 - DAY))),
            (600 - DAY, 1_100, Some(verifying(-DAY, 1_000 - DAY))),
            (601, 1_101, Some(verifying(0, 1_000))),
            (1_000 - DAY, 1_500, None),
            (DAY, 1_100, None),
            (700, 1_200, Some(verifying(0, 1_000))),
            (1_001, 1_501, None),
        ] {
            let at = moment(now, steady);
            let state = (!ending.is_over(at, &POLICY, None)).then(|| ending.state(at, &POLICY, None));
            assert_eq!(state, expected, "{now} {steady}");
        }
    }

    #[test]
    fn a8_a_record_of_a_time_to_come_counts_from_when_it_was_read() {
        let ending = Ending::after(at(90_000), &POLICY, moment(0, 5));
        assert_eq!(ending.state(moment(0, 5), &POLICY, None), verifying(0, 1_000));
        assert_eq!(ending.state(moment(999, 1_004), &POLICY, None), verifying(0, 1_000));
        assert!(ending.is_over(moment(1_000, 1_005), &POLICY, None));
        assert_eq!(
            ending.state(moment(90_010, 15), &POLICY, None),
            verifying(90_000, 91_000),
            "it was behind"
        );
    }

    #[test]
    fn a10_a_learned_key_signs_while_it_is_said_to_and_ends_a_window_after_that() {
        let ending = Ending::learned(at(0), &POLICY, moment(0, 0));
        for (now, signed_until) in [(0, 0), (300, 300), (500, 500), (999, 500)] {
            let steady = u64::try_from(now).expect("a time to come");
            let state = ending.state(moment(now, steady), &POLICY, None);
            assert_eq!(state, verifying(signed_until, 1_000), "{now}");
        }
        assert!(ending.is_over(moment(1_000, 1_000), &POLICY, None));
    }

    #[test]
    fn nothing_moves_an_end_that_was_listed() {
        let listed = Ending::after(at(0), &POLICY, moment(0, 0)).cut(at(300));
        let later = Ending::after(at(200), &POLICY, moment(200, 200));
        for ending in [
            listed.or_later(later),
            later.or_later(listed),
            Ending::inferred(at(0), at(300), &POLICY, moment(250, 250)).or_later(later),
        ] {
            assert_eq!(ending.until_with(None), at(300));
        }
        let too_long = Ending::inferred(at(0), at(5_000), &POLICY, moment(0, 0));
        assert_eq!(too_long.until_with(None), at(1_000), "no record says more than a window");
        let learned = Ends::elsewhere(Ending::learned(at(200), &POLICY, moment(200, 200)), None);
        for ends in
            [Ends::own(listed).with(learned), Ends::own(listed).held_at(moment(250, 250), &POLICY, None)]
        {
            assert_eq!(ends.until_with(None), at(300));
        }
    }

    #[test]
    fn what_others_list_for_a_key_that_they_hold_counts_until_they_say_another() {
        let said = |seen: i64, listed: Option<i64>| {
            let steady = u64::try_from(seen).expect("a time to come");
            Ends::elsewhere(Ending::learned(at(seen), &POLICY, moment(seen, steady)), listed.map(at))
        };
        for (next, until) in [(Some(200), 200), (Some(700), 700), (Some(5_000), 1_010), (None, 1_010)] {
            let ends = said(0, Some(300)).with(said(10, next));
            assert_eq!(ends.until_with(None), at(until), "{next:?}");
            let held = said(0, Some(300)).held_at(moment(5, 5), &POLICY, None);
            assert_eq!(held.own_word().map(|own| own.until_with(None)), Some(at(300)), "others are told");
            assert_eq!(held.with(said(10, next)).until_with(None), at(until), "and an endpoint holds it");
        }
        let listed_here = said(0, None).cut(at(400));
        assert_eq!(listed_here.with(said(10, Some(900))).until_with(None), at(400), "ours stays");
        let ended = Ends::own(Ending::after(at(20), &POLICY, moment(20, 20))).cut(at(600));
        assert_eq!(said(0, Some(300)).with(ended).until_with(None), at(600), "so it ended there");
    }
}
