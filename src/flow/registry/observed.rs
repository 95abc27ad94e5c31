//! Observe mode (A27): which of Harbor's refusals enforce mode would have kept from the client. Nothing is sent or asked.

use http::{HeaderMap, Method, StatusCode};

use super::{Bearer, judge};
use crate::{
    decisions::{
        plan::{self, Fleet as _, Means, Step, Vain},
        refusal::{self, Reading},
    },
    edges::fleet::{Endpoint, Group},
    flow::context::{Policy, Worker},
    words::{reason::Rescue, route::Registry},
};

/// What the first plan of enforce mode would have rescued a request with that went to `asked` as it came and was
/// refused. Fewer than it would be: there is no replay, because no credential is kept, and no second plan.
pub fn would_rescue(
    worker: &Worker,
    policy: &Policy,
    bearer: &Bearer,
    (registry, method): (&Registry<'_>, &Method),
    asked: Option<&Endpoint>,
    (status, headers): (StatusCode, &HeaderMap),
) -> Option<Rescue> {
    if status != StatusCode::UNAUTHORIZED {
        return None;
    }
    let shared = &worker.shared;
    let (ring, now) = (shared.keys.ring(), shared.clock.now());
    let (judgement, _) = shared.known.judge(bearer.text(), &ring, &shared.rules(policy), now, None);
    let judged = judge::judged(Some(&judgement));
    let fleet = shared.fleet.snapshot();
    let group = Group(&fleet.statuses);
    let asked = *group.places(&[asked?.id]).first()?;
    // The turn is that endpoint's, so that another one is chosen for the token's sake alone.
    let choice = plan::choose(judged, &group, &ring, Vain::default(), asked, None)?;
    let plan = plan::plan(judged, &group.view(choice.index), &ring, Means::default(), &[], now);
    if refusal::read(&plan, registry, method, status, headers) != Reading::Suspect {
        return None;
    }
    match plan.step() {
        Step::AsCame => (choice.index != asked).then_some(Rescue::Reroute),
        Step::Resign { back, .. } if !back.is_zero() => Some(Rescue::Clock),
        Step::Resign { .. } => Some(Rescue::Resign),
        Step::Replay => Some(Rescue::Replay),
        Step::Blank | Step::Hold(_) => None,
    }
}
