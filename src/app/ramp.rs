//! The move to the next side, as operators see it and steer it.

use serde::{Deserialize, Serialize};

use super::status::{Alarm, Ramp};
use crate::{
    decisions::{self, ramp::Tally},
    edges::telemetry::exposition::RampGauges,
    flow::{
        context::Shared,
        ramps::{REMEDY, Stopped, Why},
    },
    words::clock::UnixTime,
};

/// What an operator has made of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Steer {
    /// So many percent in the place of the plan.
    Set(u8),
    /// All to the current side.
    Stop,
    /// As planned again.
    Resume,
}

/// How it stands; `None` where there is none.
pub fn of(shared: &Shared, now: UnixTime) -> Option<Ramp> {
    let policy = shared.policy.load();
    let ramp = policy.ramp.as_deref()?;
    let (steered, minute) = (shared.ramps.steered(), shared.ramps.minute(now));
    let ([current, next], failed) = shared.ramps.counts();
    Some(Ramp {
        share: share(shared, ramp, now),
        planned: ramp.planned(now),
        set: steered.set,
        by: ramp.by.iter().map(ToString::to_string).collect(),
        stop_at: ramp.stop_at.to_string(),
        next_step: ramp.next_step(now).map(|step| format!("{} % from {}", step.share, step.at.rfc3339())),
        stopped: steered.stopped.as_ref().map(why),
        requests_current: current,
        requests_next: next,
        failed_next: failed,
        minute_requests_next: minute.sends,
        minute_failed_next: minute.failures,
    })
}

/// In observe mode nobody is sent to the next side.
fn share(shared: &Shared, ramp: &decisions::ramp::Ramp, now: UnixTime) -> u8 {
    if shared.policy.load().enforce { shared.ramps.share(ramp, now) } else { 0 }
}

fn why(Stopped { why, since }: &Stopped) -> String {
    let since = since.rfc3339();
    match why {
        Why::Operator => format!("by an operator, at {since}"),
        Why::Failures(Tally { sends, failures }) => {
            format!("{failures} of {sends} requests of the next side had failed within a minute, at {since}")
        }
    }
}

/// What an operator should do something about.
pub fn alarm(shared: &Shared) -> Option<Alarm> {
    shared.policy.load().ramp.as_ref()?;
    let stopped = shared.ramps.steered().stopped.filter(|stopped| stopped.why != Why::Operator)?;
    let cause = format!("it stopped by itself, all go to the current side: {}", why(&stopped));
    Some(Alarm { subject: "ramp".to_owned(), cause, remedy: REMEDY.to_owned() })
}

/// The same for metrics.
pub fn gauges(shared: &Shared, now: UnixTime) -> Option<RampGauges> {
    let policy = shared.policy.load();
    let ramp = policy.ramp.as_deref()?;
    let ([current, next], failed) = shared.ramps.counts();
    let stopped = shared.ramps.steered().stopped.is_some();
    Some(RampGauges { share: share(shared, ramp, now), stopped, requests: [current, next], failed })
}

/// `false` where there is none.
pub fn steer(shared: &Shared, how: Steer, now: UnixTime) -> bool {
    if shared.policy.load().ramp.is_none() {
        return false;
    }
    match how {
        Steer::Set(share) => shared.ramps.set(share),
        Steer::Stop => shared.ramps.stop(now),
        Steer::Resume => shared.ramps.resume(),
    }
    true
}
