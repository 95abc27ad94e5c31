//! The answer: Harbor's, or a refusal that only means that core's key has changed.

use std::time::Instant;

use http::{HeaderMap, Response, StatusCode, header, response};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;

use super::{Passage, Round, dispatch::Sent};
use crate::{
    decisions::{
        plan::{Held, Standing, Step, Tried},
        refusal::{self, Next, Reading},
        token::claims,
    },
    edges::{
        fleet::{Endpoint, Opaque},
        probe::LONGEST_ANSWER,
    },
    flow::{
        body::DownBody,
        refused::{self, Verdict},
        relay::Relay,
        resume::Pull,
        send::Answered,
        token_service::Asked,
    },
    words::{
        challenge::Challenge,
        clock::UnixTime,
        reason::{Reason, Rescue},
        route::Kind,
    },
};

/// The realm that docker-registry has when core's password for it is wrong (contract L, H21057).
const REGISTRY_REALM: &str = "harbor-registry-basic-realm";

/// What is said of an endpoint that answers nothing else.
const STUMBLES: &str = "it answers 502, 503 or 504, also to a question about its key";

impl Passage<'_> {
    /// Reads the answer's head and decides what becomes of it.
    pub(super) async fn conclude(&mut self, sent: Sent) -> Result<Round, Reason> {
        let head = &sent.answered.response;
        if head.status().is_informational() {
            // 101 to a request whose Upgrade was taken away: nobody speaks that protocol here.
            return Err(Reason::UpstreamBroke);
        }
        if self.may_leave_next(&sent) {
            // Boxed: rare.
            return Box::pin(self.leave_next(sent)).await;
        }
        let head = &sent.answered.response;
        if self.may_hide_an_outage(head) {
            return Box::pin(self.after_disguise(sent)).await;
        }
        // Before any question of ours, which takes time as well.
        let took = self.outgoing.basic_sent.as_ref().map(|at| at.get().elapsed());
        if self.is_refused_password(&sent, took) {
            // Boxed: rare.
            Box::pin(self.doubt_refusal(&sent)).await?;
            self.suspend_refused(took);
        }
        let head = &sent.answered.response;
        if let Some(took) = took {
            let kind = self.registry.as_ref().map(|registry| registry.kind);
            let asked = Asked::of(kind, self.outgoing.uri.path());
            let answer = (head, took);
            let up = (&self.outgoing.method, &self.outgoing.headers);
            self.worker.shared.wrong.note(answer, up, asked, self.story.client);
        }
        if refusal::is_stumble(head.status()) && self.may_stumble() {
            return Box::pin(self.after_stumble(sent)).await;
        }
        let Some(registry) = &self.registry else { return Ok(Some(self.pass_on(sent.answered))) };
        if head.status() == StatusCode::UNAUTHORIZED && is_registrys_own(head.headers()) {
            return Err(Reason::RegistryPassword);
        }
        if let Some(issued) = sent.replayed.clone()
            && refuses_credential(head)
        {
            let round = Box::pin(self.after_refused_credential(sent, &issued)).await;
            if matches!(round, Ok(Some(_))) {
                self.story.rescue = None;
            }
            return round;
        }
        if self.story.rescue == Some(Rescue::OwnToken) && head.status() == StatusCode::UNAUTHORIZED {
            // Nobody's token, and what it was for is not for everybody.
            self.story.rescue = None;
        }
        let is_first = !self.journey.learned.contains(&sent.endpoint.id);
        if sent.blind && is_first && refusal::is_by_key(head.status(), head.headers()) {
            return Box::pin(self.after_blind(sent)).await;
        }
        match refusal::read(&sent.plan, registry, &self.outgoing.method, head.status(), head.headers()) {
            Reading::Suspect => {
                let round = Box::pin(self.after_suspect(sent)).await;
                if matches!(round, Ok(Some(_))) {
                    // Whatever was tried: the client is refused, and nothing was rescued.
                    self.story.rescue = None;
                }
                round
            }
            Reading::Answer => {
                if refusal::is_by_key(head.status(), head.headers()) {
                    self.story.rescue = None;
                } else {
                    self.tell_second_plan();
                }
                Ok(Some(self.pass_on(sent.answered)))
            }
            Reading::Confirms => Ok(Some(self.confirmed(sent))),
        }
    }

    /// Whether a 502, 503 or 504 to it may be answered by another send (A22): of what can do no harm twice, and of an
    /// upload's step, which begins anew.
    fn may_stumble(&self) -> bool {
        let step = self.registry.as_ref().is_some_and(|registry| registry.kind == Kind::Upload);
        let again = self.outgoing.harmless_twice(self.registry.as_ref()) || step && self.push.is_some();
        again && !self.park.is_zero() && !self.portal && self.may_send_again()
    }

    /// An endpoint, or the balancer before it, answers 502, 503 or 504: another one may do better. Where none is left
    /// the answer stands if the endpoint is well; else the request waits.
    async fn after_stumble(&mut self, sent: Sent) -> Result<Round, Reason> {
        let endpoint = sent.endpoint;
        let answer = self.keep(sent.answered).await;
        self.journey.avoid.push(endpoint.id);
        if self.registry.as_ref().is_some_and(|registry| registry.kind == Kind::Upload) {
            // Whatever of it was taken, its session can't be trusted any more.
            return if self.stumbles_once() { Err(Reason::UpstreamBroke) } else { Ok(Some(answer)) };
        }
        if self.journey.avoid.len() < self.endpoints() {
            self.story.rescued(Rescue::OtherEndpoint);
            return Ok(None);
        }
        let answers = refused::learn_held(self.worker, &endpoint).await.is_some();
        if !answers {
            // So does core of 2.8 to everything while Redis refuses (D3).
            self.eject(&endpoint, STUMBLES);
        }
        let fleet = self.worker.shared.fleet.snapshot();
        let well = fleet.by_id(endpoint.id).is_some_and(|status| status.standing == Standing::Healthy);
        if well {
            self.story.rescue = None;
            return Ok(Some(answer));
        }
        Err(Reason::NoEndpoint)
    }

    fn confirmed(&mut self, mut sent: Sent) -> Response<DownBody> {
        if let Some(kid) = sent.plan.counts_on() {
            if sent.several {
                sent.answered.lease.hold(Some(kid.clone()));
            } else {
                self.worker.shared.fleet.confirm(&sent.endpoint, kid);
            }
        }
        self.tell_second_plan();
        self.pass_on(sent.answered)
    }

    async fn after_suspect(&mut self, sent: Sent) -> Result<Round, Reason> {
        let restartable = self.outgoing.body.as_ref().is_none_or(Relay::can_restart);
        let Sent { plan, answered, endpoint, bearer, several, anonymous, .. } = sent;
        let refused_at = Instant::now();
        let answer = self.keep(answered).await;
        let (Some(kid), Some(bearer)) = (plan.counts_on(), bearer) else { return Ok(Some(answer)) };
        if !restartable || !matches!(plan.step(), Step::AsCame | Step::Resign { .. }) {
            return Ok(Some(answer));
        }
        self.journey.refused = true;
        if several {
            self.journey.tried.push(Tried::Key(kid.clone()));
            return Ok(if self.may_send_again() { None } else { Some(answer) });
        }
        let verdict = refused::check(self.worker, &endpoint, kid, (&bearer, anonymous), refused_at).await;
        let unchanged = matches!(verdict, Verdict::Held | Verdict::Unclear);
        if unchanged && !anonymous && self.may_be_too_new(&endpoint) {
            self.journey.held = true;
            if verdict == Verdict::Unclear {
                tokio::time::sleep(refusal::MOMENT).await;
            }
            return Ok(None);
        }
        if matches!(verdict, Verdict::Unclear | Verdict::CannotSign) {
            self.count_refusal(&endpoint);
        }
        let next = match &verdict {
            Verdict::Moved(now) => refusal::after(&plan, Some(now), self.sends()),
            Verdict::CannotSign => refusal::after(&plan, None, self.sends()),
            Verdict::Held | Verdict::Unclear => Next::Stands,
        };
        if next == Next::PlanAgain {
            // Not this key again for this request, also where it seems to be held again: behind one address that
            // means several replicas, and the last send belongs to the credential.
            self.journey.tried.push(Tried::Key(kid.clone()));
            return Ok(None);
        }
        if endpoint.opaque == Opaque::Auto
            && self.may_send_again()
            && refused::shows_several(self.worker, &endpoint).await
        {
            self.journey.tried.push(Tried::Key(kid.clone()));
            return Ok(None);
        }
        Ok(Some(answer))
    }

    /// A token went up as it came because we couldn't sign for the endpoint: it hadn't told its key, or its key wasn't
    /// read yet, as when both of us are just starting. Either is asked for once more.
    async fn after_blind(&mut self, sent: Sent) -> Result<Round, Reason> {
        let restartable = self.outgoing.body.as_ref().is_none_or(Relay::can_restart);
        let endpoint = sent.endpoint;
        let answer = self.keep(sent.answered).await;
        self.journey.learned.push(endpoint.id);
        if !restartable || !self.may_send_again() {
            return Ok(Some(answer));
        }
        let held =
            || self.worker.shared.fleet.snapshot().by_id(endpoint.id).map(|status| status.held.clone());
        if held() == Some(Held::Unknown) {
            refused::learn_held(self.worker, &endpoint).await;
        }
        let Some(Held::One(kid)) = held() else { return Ok(Some(answer)) };
        let token = self.bearer.as_ref().and_then(|bearer| claims::read(bearer.text()).ok());
        if token.and_then(|token| token.unverified_kid).as_ref() == Some(&kid) {
            // It was core's word on a token of its own key (A6).
            return Ok(Some(answer));
        }
        if self.journey.tried.contains(&Tried::Key(kid.clone())) {
            // Its signature couldn't be made: the next plan would be the very same one.
            return Ok(Some(answer));
        }
        self.await_signers().await;
        if self.worker.shared.keys.ring().signer(kid.as_str()).is_none() {
            return Ok(Some(answer));
        }
        self.journey.refused = true;
        Ok(None)
    }

    /// Whether core's clock may have refused the token, once for a request: it is then sent again (V8). Where
    /// core has accepted the bearer meanwhile that is done at once.
    fn may_be_too_new(&self, endpoint: &Endpoint) -> bool {
        let shared = &self.worker.shared;
        let leeway = shared.fleet.snapshot().by_id(endpoint.id).and_then(|status| status.leeway);
        let token = self.bearer.as_ref().and_then(|bearer| claims::read(bearer.text()).ok());
        let iat = token.map(|token| UnixTime(token.unverified_claims.iat));
        let too_new = |iat| refusal::may_be_too_new(iat, shared.clock.now(), leeway.unwrap_or(false));
        !self.journey.held && self.may_send_again() && iat.is_some_and(too_new)
    }

    fn tell_second_plan(&mut self) {
        if self.journey.held {
            self.story.rescued(Rescue::Clock);
        } else if self.journey.refused {
            self.story.rescued(Rescue::SecondPlan);
        }
    }

    fn pass_on(&mut self, answered: Answered) -> Response<DownBody> {
        let Answered { response, lease } = answered;
        let (mut head, live) = response.into_parts();
        if head.status == StatusCode::RANGE_NOT_SATISFIABLE {
            // Its length is the blob's and its body is not (U11): a sound one in its place, the connection closed.
            head.headers.remove(header::CONTENT_LENGTH);
            return Response::from_parts(head, DownBody::whole(bytes::Bytes::new()));
        }
        let pull = self.pull((&head, &live));
        Response::from_parts(head, DownBody::stream(live, lease, self.outgoing.body.clone(), pull))
    }

    /// What a client's pull goes on with where its answer breaks off; nothing is continued in observe mode (A27).
    fn pull(&mut self, answer: (&response::Parts, &Incoming)) -> Option<Box<Pull>> {
        if !self.policy.enforce || self.story.silent {
            return None;
        }
        Pull::of(&mut self.outgoing, self.registry.as_ref()?, &mut self.bearer, answer)
    }

    /// Reads a refusal whole, so that its connection can be asked again and it can still be handed on.
    pub(super) async fn keep(&self, answered: Answered) -> Response<DownBody> {
        let (head, body) = self.keep_whole(answered).await;
        Response::from_parts(head, DownBody::whole(body))
    }

    /// The same in its parts.
    pub(super) async fn keep_whole(&self, answered: Answered) -> (response::Parts, bytes::Bytes) {
        let Answered { response, lease } = answered;
        let (mut head, live) = response.into_parts();
        let body = Limited::new(live, LONGEST_ANSWER).collect().await;
        let whole = self.outgoing.body.as_ref().is_none_or(Relay::ended);
        let bytes = if let Ok(collected) = body {
            if whole {
                lease.give_back();
            }
            collected.to_bytes()
        } else {
            // It broke off: the refusal is Harbor's all the same, its length is not.
            head.headers.remove(header::CONTENT_LENGTH);
            bytes::Bytes::new()
        };
        (head, bytes)
    }
}

/// An empty challenge is about an unknown project (C8) or a database that is down (D1).
fn refuses_credential<B>(answer: &Response<B>) -> bool {
    let challenge = answer.headers().get(header::WWW_AUTHENTICATE);
    answer.status() == StatusCode::UNAUTHORIZED
        && challenge.is_some_and(|value| Challenge::of(value) == Challenge::Basic)
}

fn is_registrys_own(headers: &HeaderMap) -> bool {
    let challenge = headers.get(header::WWW_AUTHENTICATE).and_then(|v| v.to_str().ok());
    challenge.is_some_and(|text| text.contains(REGISTRY_REALM))
}
