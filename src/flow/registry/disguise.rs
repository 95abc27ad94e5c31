//! Answers that hide an outage of core's database (D1): never shown to the client. The request goes to another endpoint,
//! or waits until the database answers again.

use std::time::{Duration, Instant};

use http::{Method, Response, StatusCode, header};

use super::{Passage, Round, dispatch::Sent};
use crate::{
    decisions::outage::{self, Choice, Need},
    edges::fleet::{Endpoint, Group, Status},
    flow::{body::DownBody, park::Turn, relay::Relay, token_service::SLEPT},
    words::{
        challenge::Challenge,
        credential::Credential,
        reason::{Reason, Rescue},
        route::Kind,
    },
};

impl Passage<'_> {
    /// Whether an answer has the looks of an outage; nothing is doubted in observe mode (A27).
    pub(super) fn may_hide_an_outage<B>(&self, answer: &Response<B>) -> bool {
        let Some(registry) =
            self.registry.as_ref().filter(|_| self.policy.enforce && !self.policy.is_plain())
        else {
            return false;
        };
        match answer.status() {
            StatusCode::UNAUTHORIZED => outage::has_empty_challenge(answer.status(), answer.headers()),
            // Core begins a transaction before each write but those of an upload's bytes.
            StatusCode::INTERNAL_SERVER_ERROR => {
                registry.opens_upload(&self.outgoing.method) || self.push.is_some()
            }
            _ => false,
        }
    }

    /// Reads such an answer. Where it is no outage's it stands.
    pub(super) async fn after_disguise(&mut self, sent: Sent) -> Result<Round, Reason> {
        let Sent { answered, endpoint, .. } = sent;
        let refused = answered.response.status() == StatusCode::UNAUTHORIZED;
        let (head, body) = self.keep_whole(answered).await;
        let outages = &self.worker.shared.outages;
        let told = if refused { outage::told_by(&body) } else { None };
        let outage = if let Some(told) = told {
            // It hides this answer alone: what holds for other requests, our own question finds.
            if told && outages.trouble(endpoint.id, Need::Database).is_none() {
                outages.is_well(&endpoint, Instant::now()).await;
            }
            told
        } else {
            let before = outages.was_recently(&endpoint);
            // It may have ended since.
            !outages.is_well(&endpoint, Instant::now()).await || (before && !refused && self.doubts_once())
        };
        if outage {
            return self.leave_outage(&endpoint, refused).map(|()| None);
        }
        self.story.rescue = None;
        Ok(Some(Response::from_parts(head, DownBody::whole(body))))
    }

    /// Whether core refuses a password on `/v2/` itself, where nothing shows that it could not look it up (D1), or below
    /// it after it has slept over it (C6); `took` = from the send to the answer's head.
    pub(super) fn is_refused_password(&self, sent: &Sent, took: Option<Duration>) -> bool {
        let kind = self.registry.as_ref().map(|registry| registry.kind);
        let tells = kind == Some(Kind::Base) || kind.is_some() && took.is_some_and(|took| took >= SLEPT);
        let answer = &sent.answered.response;
        if !tells || !self.policy.enforce || answer.status() != StatusCode::UNAUTHORIZED {
            return false;
        }
        let challenge = answer.headers().get(header::WWW_AUTHENTICATE);
        let basic = || matches!(Credential::of(&self.outgoing.headers), Ok(Credential::Basic(_)));
        challenge.is_some_and(|value| Challenge::of(value) == Challenge::Basic)
            && (sent.replayed.is_some() || basic())
    }

    /// Asks whether it could; [`Reason::Outage`] where it could not, and no wrong password is noted or told.
    pub(super) async fn doubt_refusal(&mut self, sent: &Sent) -> Result<(), Reason> {
        if self.worker.shared.outages.is_well(&sent.endpoint, Instant::now()).await {
            return Ok(());
        }
        self.journey.again = self.outgoing.harmless_twice(self.registry.as_ref());
        Err(Reason::Outage)
    }

    /// Adds the endpoints that this request would fail at to those to avoid; [`Reason::Outage`] where no other takes
    /// it: it waits, and nothing of it has gone up.
    pub(super) fn pass_by_troubled(
        &mut self,
        group: &Group<'_>,
        avoid: &mut Vec<usize>,
    ) -> Result<(), Reason> {
        let outages = &self.worker.shared.outages;
        let see = |(index, status): (usize, &Status)| Choice {
            standing: status.standing,
            trouble: outages.trouble(status.endpoint.id, self.need),
            avoided: avoid.contains(&index),
        };
        let choices: Vec<Choice> = group.0.iter().enumerate().map(see).collect();
        if outage::waits(&choices) {
            self.journey.again = self.outgoing.restartable();
            return Err(Reason::Outage);
        }
        let troubled = choices.iter().enumerate().filter(|(_, choice)| choice.trouble.is_some());
        avoid.extend(troubled.map(|(index, _)| index));
        Ok(())
    }

    /// Ends the grace of a client's own password that was refused while all was well (A15), unless it may be the lock
    /// after somebody else's wrong one that core refused (A7).
    pub(super) fn suspend_refused(&self, took: Option<Duration>) {
        let shared = &self.worker.shared;
        let (Some(took), Ok(Credential::Basic(basic))) = (took, Credential::of(&self.outgoing.headers))
        else {
            return;
        };
        if !shared.wrong.may_come_of_a_lock(basic, took) {
            shared.graces.suspend(basic, shared.clock.now());
        }
    }

    /// Goes to another endpoint, or says [`Reason::Outage`]; `refused`: by a 401, so that nothing was done.
    pub(super) fn leave_outage(&mut self, endpoint: &Endpoint, refused: bool) -> Result<(), Reason> {
        let step = self.registry.as_ref().is_some_and(|registry| registry.kind == Kind::Upload)
            && matches!(self.outgoing.method, Method::PATCH | Method::PUT);
        let restartable = self.outgoing.body.as_ref().is_none_or(Relay::can_restart);
        self.journey.again =
            self.outgoing.harmless_twice(self.registry.as_ref()) || (step && refused && restartable);
        self.journey.avoid.push(endpoint.id);
        if self.journey.again && self.journey.avoid.len() < self.endpoints() && self.may_send_again() {
            self.story.rescued(Rescue::OtherEndpoint);
            return Ok(());
        }
        Err(Reason::Outage)
    }

    /// Waits for the database; what follows is planned anew (A19).
    pub(super) async fn await_database(&mut self) -> Result<Turn, Reason> {
        let until = self.waits_until(Reason::Outage)?;
        let (bytes, principal) = (self.waiting_bytes(), self.story.principal.as_ref());
        let (outages, client) = (&self.worker.shared.outages, self.story.client);
        let turn = outages.wait((client, principal), bytes, until, Reason::Outage).await?;
        self.journey.waits += 1;
        self.start_over();
        Ok(turn)
    }

    fn doubts_once(&mut self) -> bool {
        !std::mem::replace(&mut self.journey.doubted, true)
    }
}
