//! The move to the next side, for one request: where it should go, what is counted of it, and its way back where the next
//! side fails it.

use std::time::Instant;

use http::{Method, Response, Uri, header};

use super::{Passage, Round, dispatch::Sent};
use crate::{
    decisions::{
        plan::{Fleet as _, Standing},
        ramp::{self, Side},
    },
    edges::{
        fleet::{Endpoint, Group},
        pool::ConnectFault,
    },
    flow::{
        body::DownBody,
        ramps::{self, Way},
        relay::Relay,
        send::{Answered, SendFault},
        uploads::Name,
    },
    words::{
        clock::UnixTime,
        reason::{Reason, Rescue},
        route::Kind,
    },
};

/// What one request has to do with the ramp.
#[derive(Default)]
pub(super) struct Ramped {
    /// The next side has failed it: all that follows goes to the current one.
    leaves: bool,
    /// It was counted as one that the next side should have served.
    told: bool,
    /// Times that the next side has failed it, while nobody else has shown to do better.
    failed: u32,
    /// Where it was sent, and when, while no answer has come.
    awaited: Option<(Side, Instant)>,
    /// The browser's session that it began with, of a log-in.
    session: Option<Box<Name>>,
}

/// Whether it has ended or its client has left meanwhile: what nobody was asked for again, or nobody else has answered.
impl Drop for Passage<'_> {
    fn drop(&mut self) {
        self.settle_failures();
    }
}

impl Passage<'_> {
    /// Where it should go; `None` without a ramp.
    pub(super) fn way(&mut self, now: UnixTime) -> Option<Way> {
        let ramp = self.policy.ramp.as_deref().filter(|_| !self.portal)?;
        let shared = &self.worker.shared;
        let is_for = |project: &str| self.is_for(project);
        let asked = ramps::asked(self.story.client, &self.outgoing.headers, &is_for);
        let mut way = if self.policy.enforce {
            shared.ramps.way(ramp, &shared.deployment, &asked, now)
        } else {
            // Nothing is sent a second time there, and no token is signed for the other side (A27).
            Way { side: Side::Current, may_be_next: false }
        };
        if self.ramped.leaves {
            way.side = Side::Current;
        } else if let Some(side) = self.began_on() {
            way.side = side;
        }
        Some(way)
    }

    fn is_for(&self, project: &str) -> bool {
        match &self.registry {
            Some(registry) => registry.project() == project,
            None => self.outgoing.uri.query().is_some_and(|query| ramps::names_project(query, project)),
        }
    }

    /// The side on which its upload or its log-in began.
    fn began_on(&mut self) -> Option<Side> {
        let ramps = &self.worker.shared.ramps;
        match &self.registry {
            Some(registry) if registry.kind == Kind::Upload => {
                ramps.side_of_upload(registry.repository, &self.outgoing.uri)
            }
            None if ramps::is_login(self.outgoing.uri.path()) => {
                self.ramped.session = ramps::session(&self.outgoing.headers).map(Box::new);
                ramps.side_of_login(&self.outgoing.headers)
            }
            _ => None,
        }
    }

    /// Counts a request that should have gone to the next side and can't, because nothing of it takes requests.
    pub(super) fn tell_unserved(&mut self, group: &Group<'_>, avoid: &[usize], now: UnixTime) {
        let Some(ramp) = self.policy.ramp.as_deref() else { return };
        let next = || (0..group.count()).filter(|index| group.side(*index) == Side::Next);
        let takes = |index: usize| group.standing(index) == Standing::Healthy && !avoid.contains(&index);
        if self.journey.avoid.is_empty()
            && !next().any(takes)
            && !std::mem::replace(&mut self.ramped.told, true)
        {
            self.worker.shared.ramps.unreached(ramp, Side::Next, now);
        }
    }

    /// Counts a connection that could not be had. One that others have is no failure.
    pub(super) fn count_unreached(&self, endpoint: &Endpoint, fault: &ConnectFault) {
        let ramp = self.policy.ramp.as_deref().filter(|_| !self.portal);
        if let (false, Some(ramp)) = (matches!(fault, ConnectFault::Full), ramp) {
            let shared = &self.worker.shared;
            shared.ramps.unreached(ramp, endpoint.side, shared.clock.now());
        }
    }

    /// It is sent now.
    pub(super) fn begins_to_wait(&mut self, endpoint: &Endpoint) {
        if self.policy.ramp.is_some() && !self.portal {
            self.ramped.awaited = Some((endpoint.side, Instant::now()));
        }
    }

    /// Counts a send. Whether it failed (no head of an answer, or 5xx) counts once it is known whether another endpoint
    /// does better: some requests fail everywhere, and anybody may send them.
    pub(super) fn count_sent(&mut self, endpoint: &Endpoint, head: &Result<Answered, SendFault>) {
        self.ramped.awaited = None;
        let Some(ramp) = self.policy.ramp.as_deref().filter(|_| !self.portal) else { return };
        let failed = match head {
            Ok(answered) => answered.response.status().is_server_error(),
            Err(SendFault::ClientGone | SendFault::NotSent(ConnectFault::Full)) => return,
            Err(_) => true,
        };
        let shared = &self.worker.shared;
        shared.ramps.sent(ramp, endpoint.side, self.story.client, shared.clock.now());
        match (failed, endpoint.side) {
            (true, Side::Next) => self.ramped.failed += 1,
            (true, Side::Current) => self.ramped.failed = 0,
            (false, _) => self.settle_failures(),
        }
    }

    /// What has failed counts, and a send that its client has waited for in vain.
    fn settle_failures(&mut self) {
        let failed = std::mem::take(&mut self.ramped.failed);
        let awaited = self.ramped.awaited.take();
        let Some(ramp) = self.policy.ramp.as_deref().filter(|_| failed > 0 || awaited.is_some()) else {
            return;
        };
        // Whose body isn't up yet has no answer to wait for.
        let awaited = awaited.filter(|_| self.outgoing.body.as_ref().is_none_or(Relay::ended));
        let settled = ramp::settled(failed, awaited.map(|(side, since)| (side, since.elapsed())));
        let (ramps, client) = (&self.worker.shared.ramps, self.story.client);
        let now = self.worker.shared.clock.now();
        (0..settled.sends).for_each(|_| ramps.sent(ramp, Side::Next, client, now));
        ramps.failed(ramp, Side::Next, (client, settled.failures), now);
    }

    /// Counts an answer that turned out to be a failure of the endpoint's: it refuses a token that must be good.
    pub(super) fn count_refusal(&self, endpoint: &Endpoint) {
        self.worker.shared.failed_after_all(self.policy, endpoint, self.story.client);
    }

    /// Whether the next side has failed it with an answer, and the current one may still serve it (A22).
    pub(super) fn may_leave_next(&self, sent: &Sent) -> bool {
        if sent.endpoint.side == Side::Current || !sent.answered.response.status().is_server_error() {
            return false;
        }
        let kept = self.push.as_ref().is_some_and(|push| push.kept.borrow().is_whole());
        let again = self.outgoing.harmless_twice(self.registry.as_ref()) || kept && self.is_step();
        let fleet = self.worker.shared.fleet.snapshot();
        let other = |s: &crate::edges::fleet::Status| {
            s.endpoint.side == Side::Current && s.standing == Standing::Healthy
        };
        self.policy.enforce && again && self.may_send_again() && fleet.statuses.iter().any(other)
    }

    /// Whether it is a step of a push that is not the opening of an upload.
    fn is_step(&self) -> bool {
        let kind = self.registry.as_ref().map(|registry| registry.kind);
        let writes = matches!(self.outgoing.method, Method::PATCH | Method::PUT);
        writes && matches!(kind, Some(Kind::Upload | Kind::Manifest))
    }

    /// Has the current side serve it: at once, or as an upload that begins anew, or once it is known that a manifest was
    /// not taken.
    pub(super) async fn leave_next(&mut self, sent: Sent) -> Result<Round, Reason> {
        let answer = self.keep(sent.answered).await;
        self.ramped.leaves = true;
        self.journey.avoid.push(sent.endpoint.id);
        if !self.is_step() {
            self.story.rescued(Rescue::OtherEndpoint);
            return Ok(None);
        }
        if self.stumbles_once() { Err(Reason::UpstreamBroke) } else { Ok(Some(answer)) }
    }

    /// Remembers on which side an upload, or a log-in, goes on.
    pub(super) fn settle_side(&self, response: &Response<DownBody>) {
        if self.policy.ramp.is_none() {
            return;
        }
        let Some(endpoint) = &self.story.endpoint else { return };
        let ramps = &self.worker.shared.ramps;
        match &self.registry {
            Some(registry) if matches!(registry.kind, Kind::UploadOpen | Kind::Upload) => {
                let location =
                    response.headers().get(header::LOCATION).map(|at| Uri::try_from(at.as_bytes()));
                if let (202, Some(Ok(location))) = (response.status().as_u16(), location) {
                    ramps.upload_is_on(registry.repository, &location, endpoint.side);
                }
            }
            None if ramps::is_login(self.outgoing.uri.path()) => {
                ramps.login_is_on(self.ramped.session.as_deref().copied(), response.headers(), endpoint.side);
            }
            _ => {}
        }
    }
}
