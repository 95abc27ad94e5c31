//! What happened to one request: filled in along its way, told once at its end.

use std::{
    net::IpAddr,
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use http::{HeaderValue, Method, StatusCode, Uri};

use super::context::Worker;
use crate::{
    edges::{fleet::Endpoint, telemetry::access_log::Record},
    words::reason::{Outcome, Reason, Rescue},
};

/// One request's story. Told to the log and the counters when it is dropped.
pub struct Story {
    /// The worker that served it.
    pub worker: Rc<Worker>,
    /// Whether it is part of another request's story, and told there.
    pub silent: bool,
    /// Place of its route among the counters'.
    pub route: usize,
    /// When its head had arrived.
    pub began: Instant,
    /// Its `X-Request-ID`.
    pub id: HeaderValue,
    /// The client.
    pub client: IpAddr,
    /// Its address as text, as it also goes up.
    pub client_text: HeaderValue,
    /// Its method.
    pub method: Method,
    /// Its target; the query is never told.
    pub uri: Uri,
    /// Its `User-Agent`.
    pub agent: Option<HeaderValue>,
    /// What went up last.
    pub plan: &'static str,
    /// What rescued it.
    pub rescue: Option<Rescue>,
    /// In observe mode, what would have rescued it.
    pub would_rescue: Option<Rescue>,
    /// Why we refused it, or its token.
    pub refusal: Option<Reason>,
    /// The endpoint that answered.
    pub endpoint: Option<Arc<Endpoint>>,
    /// Whom the token names, where it is verified.
    pub principal: Option<Arc<str>>,
    /// How often it was sent.
    pub sends: u32,
    /// The status that the client got.
    pub status: StatusCode,
    /// What became of it.
    pub outcome: Outcome,
    /// Bytes of its body.
    pub bytes_in: u64,
    /// Bytes of its answer.
    pub bytes_out: u64,
}

impl Story {
    /// The story of a question of our own.
    pub fn silent(worker: &Rc<Worker>, client: IpAddr) -> Self {
        Self {
            worker: worker.clone(),
            silent: true,
            route: 1,
            began: Instant::now(),
            id: HeaderValue::from_static("-"),
            client,
            client_text: HeaderValue::from_static("-"),
            method: Method::GET,
            uri: Uri::from_static("/"),
            agent: None,
            plan: "",
            rescue: None,
            would_rescue: None,
            refusal: None,
            endpoint: None,
            principal: None,
            sends: 0,
            status: StatusCode::OK,
            outcome: Outcome::Forwarded,
            bytes_in: 0,
            bytes_out: 0,
        }
    }

    /// Notes a rescue; the first one is the reason, a later one only replaces what a plan does. Waiting stands above
    /// that: without it no plan would have been tried. An answer that goes on stands above all: it had begun.
    pub fn rescued(&mut self, by: Rescue) {
        let above = |by| matches!(by, Rescue::Park | Rescue::PullResumed);
        let replaced = |was| was == Rescue::Reroute || was == Rescue::Resign || above(by);
        if self.rescue.is_none_or(replaced) {
            self.rescue = Some(by);
        }
    }
}

impl Drop for Story {
    fn drop(&mut self) {
        if self.silent {
            return;
        }
        let took = self.began.elapsed();
        let counters = &self.worker.counters;
        if self.outcome == Outcome::Forwarded && self.rescue.is_some() {
            self.outcome = Outcome::Rescued;
        }
        counters.answered(self.route, self.status, took, self.outcome);
        counters.bytes_up.fetch_add(self.bytes_in, Relaxed);
        counters.bytes_down.fetch_add(self.bytes_out, Relaxed);
        if let (Some(rescue), Outcome::Rescued) = (self.rescue, self.outcome) {
            counters.rescued(rescue);
        }
        if let Some(rescue) = self.would_rescue {
            counters.would_have_rescued(rescue);
        }
        if let Some(reason) = self.refusal {
            counters.refused(reason);
        }
        if let Some(log) = &self.worker.log {
            log.write(&self.record(took));
        }
    }
}

impl Story {
    fn record(&self, took: Duration) -> Record<'_> {
        let rescue = self.rescue.filter(|_| self.outcome == Outcome::Rescued).map(Rescue::name);
        Record {
            at: self.worker.shared.clock.now_precise(),
            request_id: self.id.to_str().unwrap_or_default(),
            client: self.client_text.to_str().unwrap_or_default(),
            method: self.method.as_str(),
            path: self.uri.path(),
            route: crate::edges::telemetry::counters::ROUTES[self.route],
            status: self.status.as_u16(),
            outcome: self.outcome.name(),
            plan: self.plan,
            reason: rescue.or(self.refusal.map(Reason::name)).unwrap_or_default(),
            endpoint: self.endpoint.as_ref().map_or("", |e| &e.name),
            principal: self.principal.as_deref().unwrap_or_default(),
            agent: self.agent.as_ref().map_or(&[], |a| a.as_bytes()),
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            took,
            sends: self.sends,
        }
    }
}
