//! The endpoint, a connection to it, and the plan for it.

use std::{sync::Arc, time::Duration};

use super::{
    Passage,
    judge::{self, Moment},
};
use crate::{
    decisions::{
        plan::{
            self, Choice, Fleet as _, Held, Judged, Means, Plan, Step, Tried, Vain, View, Wanted, coverage,
        },
        ramp::Side,
        ring::Ring,
    },
    edges::{
        alarm::cause,
        fleet::{Endpoint, Group},
        pool::{ConnectFault, Lease},
    },
    flow::{
        budget::network_of,
        known::{Digest, Judgement, Own},
        ramps::Way,
        refused,
        relay::UpBody,
        replay::Issued,
    },
    words::{
        kid::Kid,
        reason::{Reason, Rescue},
    },
};

/// A signing queue longer than this sends those who can to replay.
const LONGEST_QUEUE: Duration = Duration::from_millis(200);

/// All that one send needs but its headers.
pub(super) struct Ready {
    pub(super) plan: Plan,
    pub(super) lease: Lease<UpBody>,
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) issued: Option<Arc<Issued>>,
    /// Whether the endpoint's key may change from call to call.
    pub(super) several: bool,
    /// Whether the token has no subject (C14).
    pub(super) anonymous: bool,
    /// Whether the token goes up as it came because the endpoint's key isn't known, or is none of ours.
    pub(super) blind: bool,
}

impl Passage<'_> {
    /// Chooses and plans; `None` where something had to be learned first. Where a connection could be had only after
    /// a while, `moment` is the one after that.
    pub(super) async fn prepare(&mut self, moment: &mut Moment) -> Result<Option<Ready>, Reason> {
        let judged = judge::judged(moment.judgement.as_ref());
        self.tell_judged(moment.judgement.as_ref());
        let mut fleet = self.worker.shared.fleet.snapshot();
        let group = Group(if self.portal { &fleet.portal } else { &fleet.statuses });
        let mut avoid: Vec<usize> = group.places(&self.journey.avoid);
        if self.worker.shared.outages.any() {
            self.pass_by_troubled(&group, &mut avoid)?;
        }
        let turn = self.worker.next_turn();
        let way = self.way(moment.now);
        let choice = match way {
            None => plan::choose(judged, &group, &moment.ring, self.vain(&avoid), turn, None),
            Some(way) => self.choose_by(way, (judged, moment), &group, (&avoid, turn)),
        };
        let choice = choice.ok_or(Reason::NoEndpoint)?;
        let status = &group.0[choice.index];
        if way.is_some_and(|way| way.side != status.endpoint.side && way.side == Side::Next) {
            self.tell_unserved(&group, &avoid, moment.now);
        }
        let has_token = matches!(judged, Judged::Verified(_) | Judged::Unverified(_));
        if has_token && status.held == Held::Unknown && !self.journey.asked.contains(&status.endpoint.id) {
            self.journey.asked.push(status.endpoint.id);
            Box::pin(refused::learn_held(self.worker, &status.endpoint)).await;
            return Ok(None);
        }
        let (pool, client) = (&self.worker.pool, Some(network_of(self.story.client)));
        let lease =
            if may_wait(has_token, self.journey.full, || group.has_healthy_beside(choice.index, &avoid)) {
                pool.lease(&status.endpoint, client).await
            } else {
                pool.lease_at_once(&status.endpoint, client).await
            };
        let lease = match lease {
            Ok(lease) => lease,
            Err(fault) => {
                self.count_unreached(&status.endpoint, &fault);
                self.go_elsewhere(&status.endpoint, &fault, group.0.len())?;
                return Ok(None);
            }
        };
        let endpoint = status.endpoint.clone();
        if lease.took_time() {
            // A key may have been retired meanwhile, a token have expired, the endpoint have another key (A19).
            *moment = self.moment();
            self.tell_judged(moment.judgement.as_ref());
            fleet = self.worker.shared.fleet.snapshot();
        }
        let Moment { ring, now, judgement } = &*moment;
        let judgement = judgement.as_ref();
        let judged = judge::judged(judgement);
        let Some(status) = fleet.by_id(endpoint.id) else { return Ok(None) };
        let by_connection = connection_first(&status.held, &lease);
        let held = by_connection.as_ref().unwrap_or(&status.held);
        let view = View { held, leeway: status.leeway.unwrap_or(false), clock_ahead: status.clock_ahead };
        let mut issued = judgement.and_then(|j| self.replayable(j, &view, ring));
        let means = Means { replay: issued.is_some(), body: self.outgoing.body.is_some() };
        let mut plan = plan::plan(judged, &view, ring, means, &self.journey.tried, *now);
        if let Some((credential, kid)) = self.instead_of_a_queue(&plan, judgement, ring) {
            let tried = [&self.journey.tried[..], &[Tried::Key(kid)]].concat();
            issued = Some(credential);
            plan = plan::plan(judged, &view, ring, Means { replay: true, ..means }, &tried, *now);
        }
        if let Step::Hold(wait) = plan.step() {
            drop((lease, self.journey.turn.take()));
            tokio::time::sleep(*wait).await;
            self.story.rescued(Rescue::Clock);
            return Ok(None);
        }
        if self.journey.full && is_lost(&plan, judged) {
            // Where it would not be is no connection: that is no refusal.
            return Err(Reason::Busy);
        }
        self.tell_plan(&plan, judgement, choice.rerouted);
        let anonymous = matches!(judged, Judged::Verified(claims) if claims.subject().is_none());
        let blind = has_token && *plan.step() == Step::AsCame && plan.counts_on().is_none();
        Ok(Some(Ready { plan, lease, endpoint, issued, several: held.several(), anonymous, blind }))
    }

    fn vain<'a>(&'a self, avoid: &'a [usize]) -> Vain<'a> {
        Vain { avoid, tried: &self.journey.tried }
    }

    /// The endpoint, where a ramp is under way.
    fn choose_by(
        &self,
        way: Way,
        (judged, moment): (Judged<'_>, &Moment),
        group: &Group<'_>,
        (avoid, turn): (&[usize], usize),
    ) -> Option<Choice> {
        let replay = |index: usize| {
            let judgement = moment.judgement.as_ref();
            judgement.is_some_and(|j| self.replayable(j, &group.view(index), &moment.ring).is_some())
        };
        let wanted = Wanted { side: way.side, may_be_next: way.may_be_next, replay: &replay };
        plan::choose(judged, group, &moment.ring, self.vain(avoid), turn, Some(&wanted))
    }

    /// What the token was issued for, where a plan might use it and its access covers the request (A5).
    fn replayable(&self, judgement: &Judgement, view: &View<'_>, ring: &Ring) -> Option<Arc<Issued>> {
        let unlikely =
            self.journey.tried.is_empty() && plan::by_key(judge::judged(Some(judgement)), view, ring);
        if unlikely || !self.policy.replay {
            return None;
        }
        let digest = match judgement {
            Judgement::Known(known) => known.digest,
            Judgement::Unknown { digest, .. } => *digest,
            Judgement::Own(Own::Credential(issued)) => return self.covered(issued).then(|| issued.clone()),
            Judgement::Refused(_) | Judgement::Own(_) => return None,
        };
        self.issued(digest)
    }

    /// The credential, for a plan whose signature would have to wait for long.
    fn instead_of_a_queue(
        &self,
        plan: &Plan,
        judgement: Option<&Judgement>,
        ring: &Ring,
    ) -> Option<(Arc<Issued>, Kid)> {
        let (Step::Resign { kid, back }, Some(Judgement::Known(known))) = (plan.step(), judgement) else {
            return None;
        };
        let delay = self.worker.shared.signer.delay_by(ring.signer(kid.as_str())?);
        let waits = delay > LONGEST_QUEUE && known.signed(kid, *back).is_none();
        let credential = (waits && self.policy.replay).then(|| self.issued(known.digest)).flatten()?;
        Some((credential, kid.clone()))
    }

    /// The credential of a token, where the token's access covers the request.
    fn issued(&self, digest: Digest) -> Option<Arc<Issued>> {
        let issued = self.worker.shared.replays.find(&digest, self.worker.shared.clock.now())?;
        self.covered(&issued).then_some(issued)
    }

    fn covered(&self, issued: &Issued) -> bool {
        let Some(registry) = &self.registry else { return false };
        let mount = coverage::mount(self.outgoing.uri.query());
        let need = coverage::need(registry, &self.outgoing.method, &mount);
        coverage::covers(issued.access(), &need)
    }

    /// Notes that an endpoint could not be used; an error where none is left.
    pub(super) fn go_elsewhere(
        &mut self,
        endpoint: &Endpoint,
        fault: &ConnectFault,
        all: usize,
    ) -> Result<(), Reason> {
        if !matches!(fault, ConnectFault::Full) {
            return self.leave(endpoint, &cause(fault), all);
        }
        // It answers, if only others: nothing is the matter with it, and nobody is rescued from it.
        self.journey.full = true;
        self.avoid(endpoint, all)
    }

    /// Goes to another endpoint; an error where none is left.
    pub(super) fn leave(&mut self, endpoint: &Endpoint, why: &str, all: usize) -> Result<(), Reason> {
        self.eject(endpoint, why);
        self.avoid(endpoint, all)?;
        self.story.rescued(Rescue::OtherEndpoint);
        Ok(())
    }

    fn avoid(&mut self, endpoint: &Endpoint, all: usize) -> Result<(), Reason> {
        self.journey.avoid.push(endpoint.id);
        if self.journey.avoid.len() < all {
            return Ok(());
        }
        Err(if self.journey.full { Reason::Busy } else { Reason::NoEndpoint })
    }

    /// Uses an endpoint no more before it answers a probe.
    pub(super) fn eject(&self, endpoint: &Endpoint, why: &str) {
        self.worker.shared.fleet.eject(endpoint, why);
        self.worker.shared.probe_now.notify_one();
    }

    fn tell_plan(&mut self, plan: &Plan, judgement: Option<&Judgement>, rerouted: bool) {
        let judged = judge::judged(judgement);
        let token = matches!(judged, Judged::Verified(_) | Judged::Unverified(_));
        let reroute = rerouted && token && *plan.step() == Step::AsCame;
        self.story.plan = if reroute { "reroute" } else { plan.name() };
        let rescue = match plan.step() {
            Step::AsCame if reroute => Some(Rescue::Reroute),
            Step::Resign { back, .. } if !back.is_zero() => Some(Rescue::Clock),
            Step::Resign { .. } => Some(Rescue::Resign),
            Step::Replay if matches!(judged, Judged::Own) => Some(Rescue::OwnToken),
            Step::Replay => Some(Rescue::Replay),
            Step::Blank if matches!(judgement, Some(Judgement::Own(Own::Nobody))) => Some(Rescue::OwnToken),
            Step::AsCame | Step::Blank | Step::Hold(_) => None,
        };
        if let Some(rescue) = rescue {
            self.story.rescued(rescue);
        }
        if *plan.step() != Step::Blank {
            return;
        }
        match judgement {
            Some(Judgement::Own(Own::Credential(_))) => self.story.refusal = Some(Reason::OwnTokenScope),
            _ if token => self.tell_unknown(),
            _ => {}
        }
    }
}

/// Whether a request waits at an endpoint whose connections that it may have are all in use, having met one such or
/// not (`full`): a token at the endpoint that can do most with it, and only there; all else where no other endpoint
/// takes requests.
fn may_wait(has_token: bool, full: bool, others: impl FnOnce() -> bool) -> bool {
    if has_token { !full } else { !others() }
}

/// Whether a token goes up for nothing: neither its key nor its credential counts at this endpoint.
fn is_lost(plan: &Plan, judged: Judged<'_>) -> bool {
    let has_token = matches!(judged, Judged::Verified(_) | Judged::Unverified(_));
    has_token && plan.counts_on().is_none() && *plan.step() != Step::Replay
}

/// On an opaque endpoint the key that worked last on this very connection comes first.
fn connection_first(held: &Held, lease: &Lease<UpBody>) -> Option<Held> {
    let (Held::Several(kids), Some(last)) = (held, lease.held()) else { return None };
    let mut first = vec![last.clone()];
    first.extend(kids.iter().filter(|kid| *kid != last).cloned());
    Some(Held::Several(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_waits_where_it_is_best_served_and_all_else_where_no_other_endpoint_is() {
        // Token, met a full one, others are there: waits.
        let rows = [
            (true, false, false, true),
            (true, false, true, true),
            (true, true, true, false),
            (true, true, false, false),
            (false, false, false, true),
            (false, false, true, false),
            (false, true, true, false),
            (false, true, false, true),
        ];
        for (has_token, full, others, waits) in rows {
            assert_eq!(may_wait(has_token, full, || others), waits, "{has_token} {full} {others}");
        }
    }
}
