//! The send itself: the plan's `Authorization`, and a body that can be taken back until the endpoint has
//! shown that it accepts the request.

use std::{
    cell::RefCell,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderValue, StatusCode, header};

use super::{Passage, judge::Moment, prepare::Ready};
use crate::{
    decisions::{
        outage::Need,
        plan::{Plan, Step, Tried},
        refusal,
    },
    edges::{fleet::Endpoint, pool::Lease, wire::Patience},
    flow::{
        known::Judgement,
        refused::{self, Verdict},
        relay::{Relay, UpBody},
        replay::{Issued, Turn},
        send::{self, Answered, SendFault},
    },
    words::{credential::BLANK, kid::Kid, reason::Reason},
};

/// An answer, and what led to it.
pub(super) struct Sent {
    pub(super) plan: Plan,
    pub(super) answered: Answered,
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) bearer: Option<HeaderValue>,
    pub(super) several: bool,
    pub(super) anonymous: bool,
    pub(super) blind: bool,
    /// The credential that went up.
    pub(super) replayed: Option<Arc<Issued>>,
}

/// Why a plan's `Authorization` was not made.
enum Unmade {
    /// The key is gone from the ring, or nobody signs with it now: there may be another way.
    NotThisWay,
    /// It was, and the ring moved on meanwhile: the next plan sees it as it is.
    Outdated,
}

/// A refusal of a credential has come by then: core's lock after a wrong password, 1.5 s, among it.
const REFUSED_BY_THEN: Duration = Duration::from_secs(2);
/// How long a body's rest waits for a refusal at least: recorded ones took 3 to 98 ms.
const REFUSAL: Duration = Duration::from_millis(100);
/// How long it waits for one at least where the endpoint has said that it holds another key now, or none: a refusal is
/// likely then, and one that comes after the rest was let go costs the upload.
const LIKELY_REFUSAL: Duration = Duration::from_secs(1);
/// An endpoint that is slow to answer a question may be as slow to refuse: the wait is so many times its answer's.
const SLOWER: u32 = 4;
/// Questions about one body, where the answers say neither yes nor no.
const QUESTIONS: usize = 3;
/// How long a body's rest waits for a refusal where no question can tell (opaque endpoints): recorded
/// refusals took 3 to 98 ms.
const BLIND_PAUSE: Duration = Duration::from_millis(300);

/// What is said of an endpoint that ended a connection in the place of an answer.
const BROKE: &str = "it closed the connection instead of answering";

impl Passage<'_> {
    /// Sends by the plan; `None` where the next plan must be another one.
    pub(super) async fn dispatch(&mut self, ready: Ready, moment: &Moment) -> Result<Option<Sent>, Reason> {
        let Ready { plan, lease, endpoint, issued, several, anonymous, blind } = ready;
        let authorization = match self.authorization(&plan, moment, issued.as_ref()).await {
            Ok(authorization) => authorization,
            Err(Unmade::Outdated) => return Ok(None),
            Err(Unmade::NotThisWay) => {
                self.journey.tried.extend(plan.counts_on().cloned().map(Tried::Key));
                return Ok(None);
            }
        };
        if self.policy.is_plain() && *plan.step() == Step::Blank {
            // A registry of its own challenges whoever brings nothing, and reads whatever is brought (A29).
            self.outgoing.headers.remove(header::AUTHORIZATION);
        }
        let mut turn = self.journey.turn.take();
        if let (Step::Replay, Some(issued)) = (plan.step(), &issued) {
            turn = turn.filter(|turn| turn.is_for(issued)).or_else(|| issued.turn_at_once());
            if turn.is_none() {
                // Boxed: rare.
                return Box::pin(self.wait_in_line(lease, issued)).await.map(|()| None);
            }
        } else {
            turn = None;
        }
        let turn = RefCell::new(turn);
        let bearer =
            authorization.clone().or_else(|| self.outgoing.headers.get(header::AUTHORIZATION).cloned());
        if self.asks_first(&plan, several)
            && Box::pin(self.refuses_already(&plan, &endpoint, bearer.as_ref(), anonymous)).await
        {
            return self.after_refused_head(&plan, several).map(|()| None);
        }
        self.story.endpoint = Some(endpoint.clone());
        let harmless = self.outgoing.harmless_twice(self.registry.as_ref());
        let asks = Asks { plan: &plan, bearer: bearer.as_ref(), anonymous, several };
        self.begins_to_wait(&endpoint);
        let head = {
            let up = (self.worker, &self.outgoing);
            let patience = Patience { most: self.within, doubts: harmless && self.need != Need::Nothing };
            let exchange = send::exchange(up, lease, authorization.as_ref(), harmless, patience);
            match &self.outgoing.body {
                None => exchange.await,
                // Boxed: most requests have no body, and this is larger than all the rest.
                Some(relay) => {
                    let exchange = let_others_follow(exchange, &turn);
                    Box::pin(self.watch(&endpoint, relay, exchange, &asks)).await
                }
            }
        };
        self.story.sends = self.outgoing.sends.get() as u32;
        self.count_sent(&endpoint, &head);
        let answered = match head {
            Ok(answered) => answered,
            Err(fault) => return self.after_fault(&endpoint, fault).map(|()| None),
        };
        if let Some(turn) = turn.into_inner()
            && answered.response.status() != StatusCode::UNAUTHORIZED
        {
            turn.accepted();
        }
        let replayed = issued.filter(|_| *plan.step() == Step::Replay);
        Ok(Some(Sent { plan, answered, endpoint, bearer, several, anonymous, blind, replayed }))
    }

    /// Waits for a turn to replay without a connection, which those whose turn it is may need. Then all is planned
    /// anew: the wait is long enough for a token to expire in it (A4, A19).
    async fn wait_in_line(&mut self, lease: Lease<UpBody>, issued: &Issued) -> Result<(), Reason> {
        lease.give_back();
        match issued.turn().await {
            Some(turn) => self.journey.turn = Some(turn),
            None if issued.is_over() => self.journey.tried.push(Tried::Replay),
            None => return Err(Reason::Busy),
        }
        Ok(())
    }

    /// The `Authorization` of a plan: `None` leaves the client's own.
    async fn authorization(
        &self,
        plan: &Plan,
        moment: &Moment,
        issued: Option<&Arc<Issued>>,
    ) -> Result<Option<HeaderValue>, Unmade> {
        match plan.step() {
            Step::AsCame | Step::Hold(_) => Ok(self.normal_bearer(plan)),
            Step::Blank => Ok((!self.policy.is_plain()).then_some(BLANK)),
            Step::Replay => Ok(Some(issued.ok_or(Unmade::NotThisWay)?.credential().clone())),
            Step::Resign { kid, back } => {
                let (Some(Judgement::Known(known)), Some(token)) = (&moment.judgement, &self.bearer) else {
                    return Err(Unmade::NotThisWay);
                };
                if let Some(signed) = known.signed(kid, *back) {
                    return Ok(Some(signed));
                }
                let (shared, place) = (&self.worker.shared, (kid, *back));
                let signed =
                    known.resigned(token.text(), &moment.ring, place, &self.policy.service, &shared.signer);
                let signed = signed.await.map_err(|_| Unmade::NotThisWay)?;
                // A token of keys takes its time, in which a key may have been retired (A19).
                if shared.keys.ring().generation() != moment.ring.generation() {
                    return Err(Unmade::Outdated);
                }
                Ok(Some(signed))
            }
        }
    }

    /// core knows the scheme by its exact spelling; a token that goes up as it came is written as it wants it, also where
    /// a former round took it away.
    fn normal_bearer(&self, plan: &Plan) -> Option<HeaderValue> {
        let token = self.bearer.as_ref()?;
        if let Some(came) = self.outgoing.headers.get(header::AUTHORIZATION) {
            let exact = came.as_bytes().strip_prefix(b"Bearer ").is_some_and(|rest| rest == token.bytes());
            if exact || plan.counts_on().is_none() {
                return None;
            }
        }
        HeaderValue::try_from(format!("Bearer {}", token.text())).ok()
    }

    /// Whether the question about the key must go first: nothing of the body will be kept (A25), or it is the last send
    /// after others in vain, as where all cores are replaced at once and what is known of their keys grows old.
    fn asks_first(&mut self, plan: &Plan, several: bool) -> bool {
        if several || plan.counts_on().is_none() || !self.may_send_again() {
            return false;
        }
        let unkept = self.outgoing.body.as_ref().is_some_and(|relay| !relay.keeps_head());
        let is_last = self.sends() + 1 == refusal::SENDS;
        unkept || (is_last && !std::mem::replace(&mut self.journey.asked_last, true))
    }

    /// Asks the endpoint before anything is sent; whether it says that it does not hold the key any more.
    async fn refuses_already(
        &self,
        plan: &Plan,
        endpoint: &Arc<Endpoint>,
        bearer: Option<&HeaderValue>,
        anonymous: bool,
    ) -> bool {
        let (Some(kid), Some(bearer)) = (plan.counts_on(), bearer) else { return false };
        let verdict = refused::check(self.worker, endpoint, kid, (bearer, anonymous), Instant::now()).await;
        matches!(verdict, Verdict::Moved(_) | Verdict::CannotSign)
    }

    /// Waits for the answer's head. Where the body's head is up and more is to come, the endpoint is asked
    /// about the key meanwhile: the rest flows when core has had time to refuse what it has read.
    async fn watch(
        &self,
        endpoint: &Arc<Endpoint>,
        relay: &Relay,
        exchange: impl Future<Output = Result<Answered, SendFault>>,
        asks: &Asks<'_>,
    ) -> Result<Answered, SendFault> {
        let (Some(kid), Some(bearer), true) = (asks.plan.counts_on(), asks.bearer, relay.keeps_head()) else {
            relay.release();
            return exchange.await;
        };
        tokio::pin!(exchange);
        tokio::select! {
            biased;
            result = &mut exchange => return result,
            () = relay.filled() => {}
        }
        if asks.several {
            let pause = tokio::time::sleep(BLIND_PAUSE);
            tokio::select! {
                biased;
                result = &mut exchange => return result,
                () = pause => {}
            }
        } else {
            tokio::select! {
                biased;
                result = &mut exchange => return result,
                () = self.question(endpoint, kid, (bearer, asks.anonymous)) => {}
            }
        }
        relay.release();
        exchange.await
    }

    /// Asks an endpoint about a key beside a body, and takes its time over it: the answer may be older than core's
    /// look at the request itself. No answer takes the body back: core looks at a token once, at the request's start
    /// (U7), and may have accepted it before its key changed. Only core's own 401 says that nothing was done (A22).
    async fn question(&self, endpoint: &Arc<Endpoint>, kid: &Kid, bearer: (&HeaderValue, bool)) {
        for _ in 0..QUESTIONS {
            let asked = Instant::now();
            let verdict = refused::check(self.worker, endpoint, kid, bearer, asked).await;
            let least = match verdict {
                Verdict::Moved(_) | Verdict::CannotSign => LIKELY_REFUSAL,
                Verdict::Held | Verdict::Unclear => REFUSAL,
            };
            let until = asked + least.max(asked.elapsed() * SLOWER);
            tokio::time::sleep_until(until.into()).await;
            if verdict != Verdict::Unclear {
                return;
            }
        }
    }

    fn after_fault(&mut self, endpoint: &Endpoint, fault: SendFault) -> Result<(), Reason> {
        let restartable = self.outgoing.body.as_ref().is_none_or(Relay::can_restart);
        let all = self.endpoints();
        match fault {
            SendFault::NotSent(fault) if restartable => self.go_elsewhere(endpoint, &fault, all),
            SendFault::Broke { harmless: true } if self.may_send_again() => self.leave(endpoint, BROKE, all),
            SendFault::Broke { .. } => {
                // A core that stops does not drain: it is not used again before it answers a probe (U8).
                self.eject(endpoint, BROKE);
                Err(Reason::UpstreamBroke)
            }
            SendFault::NotSent(_) => Err(Reason::UpstreamBroke),
            SendFault::Slow => Err(Reason::UpstreamSlow),
            SendFault::Hangs => self.leave_outage(endpoint, false),
            SendFault::ClientGone => Err(Reason::BodyBroke),
        }
    }

    fn after_refused_head(&mut self, plan: &Plan, several: bool) -> Result<(), Reason> {
        self.journey.refused = true;
        if several {
            self.journey.tried.extend(plan.counts_on().cloned().map(Tried::Key));
        }
        if self.may_send_again() { Ok(()) } else { Err(Reason::UpstreamBroke) }
    }

    pub(super) fn endpoints(&self) -> usize {
        let fleet = self.worker.shared.fleet.snapshot();
        if self.portal { fleet.portal.len() } else { fleet.statuses.len() }
    }
}

/// Ends a replay's turn when core has had time to refuse it: an upload takes as long as its client likes, and those
/// of its principal who wait need not wait for that. Not refused by then is accepted.
async fn let_others_follow<T>(exchange: impl Future<Output = T>, turn: &RefCell<Option<Turn>>) -> T {
    tokio::pin!(exchange);
    tokio::select! {
        biased;
        result = &mut exchange => return result,
        () = tokio::time::sleep(REFUSED_BY_THEN) => {
            if let Some(turn) = turn.take() {
                turn.accepted();
            }
        }
    }
    exchange.await
}

/// What a question to the endpoint needs of the send that it is about.
pub(super) struct Asks<'a> {
    pub(super) plan: &'a Plan,
    pub(super) bearer: Option<&'a HeaderValue>,
    pub(super) anonymous: bool,
    pub(super) several: bool,
}
