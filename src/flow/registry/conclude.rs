//! The answer: Harbor's, or a refusal that only means that core's key has changed.

use std::time::Instant;

use http::{HeaderMap, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};

use super::{Passage, Round, dispatch::Sent};
use crate::{
    decisions::{
        plan::{Step, Tried},
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
        send::Answered,
        token_service::Asked,
    },
    words::{
        clock::UnixTime,
        reason::{Reason, Rescue},
    },
};

/// The realm that docker-registry has when core's password for it is wrong (contract L, H21057).
const REGISTRY_REALM: &str = "harbor-registry-basic-realm";

impl Passage<'_> {
    /// Reads the answer's head and decides what becomes of it.
    pub(super) async fn conclude(&mut self, sent: Sent) -> Result<Round, Reason> {
        let head = &sent.answered.response;
        if head.status().is_informational() {
            // 101 to a request whose Upgrade was taken away: nobody speaks that protocol here.
            return Err(Reason::UpstreamBroke);
        }
        if let Some(sent_at) = &self.outgoing.basic_sent {
            let kind = self.registry.as_ref().map(|registry| registry.kind);
            let asked = Asked::of(kind, self.outgoing.uri.path());
            let answer = (head, sent_at.get().elapsed());
            let up = (&self.outgoing.method, &self.outgoing.headers);
            self.worker.shared.wrong.note(answer, up, asked, self.story.client);
        }
        let Some(registry) = &self.registry else { return Ok(Some(self.pass_on(sent.answered))) };
        if head.status() == StatusCode::UNAUTHORIZED && is_registrys_own(head.headers()) {
            return Err(Reason::RegistryPassword);
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
                self.tell_second_plan();
                Ok(Some(self.pass_on(sent.answered)))
            }
            Reading::Confirms => Ok(Some(self.confirmed(sent))),
        }
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
        let Sent { plan, answered, endpoint, bearer, several, anonymous } = sent;
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
        let next = match &verdict {
            Verdict::Moved(now) => refusal::after(&plan, Some(now), self.outgoing.sends.get()),
            Verdict::CannotSign => refusal::after(&plan, None, self.outgoing.sends.get()),
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

    fn pass_on(&self, answered: Answered) -> Response<DownBody> {
        let Answered { response, lease } = answered;
        let (mut head, live) = response.into_parts();
        if head.status == StatusCode::RANGE_NOT_SATISFIABLE {
            // Its length is the blob's and its body is not (U11): a sound one in its place, the connection closed.
            head.headers.remove(header::CONTENT_LENGTH);
            return Response::from_parts(head, DownBody::whole(bytes::Bytes::new()));
        }
        Response::from_parts(head, DownBody::stream(live, lease, self.outgoing.body.clone()))
    }

    /// Reads a refusal whole, so that its connection can be asked again and it can still be handed on.
    async fn keep(&self, answered: Answered) -> Response<DownBody> {
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
        Response::from_parts(head, DownBody::whole(bytes))
    }
}

fn is_registrys_own(headers: &HeaderMap) -> bool {
    let challenge = headers.get(header::WWW_AUTHENTICATE).and_then(|v| v.to_str().ok());
    challenge.is_some_and(|text| text.contains(REGISTRY_REALM))
}
