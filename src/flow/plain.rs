//! Plain registries: which key one knows, and by which name, is found out by showing it tokens without any access.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use http::{HeaderValue, StatusCode};
use tokio::sync::Mutex;

use super::context::Shared;
use crate::{
    decisions::token::question,
    edges::{
        alarm::cause,
        fleet::Endpoint,
        probe::{self, rounds::realm},
        signer::Job,
    },
    words::kid::Kid,
};

/// An answer that none of the keys is known is good for so long, where the keys are the same.
const BETWEEN: Duration = Duration::from_secs(1);

/// What an endpoint said of its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// It knows this one by this name.
    By(Kid),
    /// None of those that we can sign with.
    Nobody,
    /// It is no registry that takes tokens, or doesn't answer; why.
    Strange(String),
}

/// What was found out: one question to an endpoint at a time, whose answer is shared by all who asked before it began.
#[derive(Debug, Default)]
pub struct Plain(Mutex<HashMap<u64, Found>>);

#[derive(Debug)]
struct Found {
    began: Instant,
    generation: u64,
    known: Known,
}

impl Found {
    fn tells(&self, since: Instant, generation: u64) -> bool {
        let tried_in_vain = self.known == Known::Nobody && self.began.elapsed() < BETWEEN;
        self.began >= since || (tried_in_vain && self.generation == generation)
    }
}

/// Asks an endpoint which key it knows, or takes the answer to a question that began at `since` or later. Each of its
/// answers comes `within` that time.
pub async fn known(shared: &Shared, endpoint: &Endpoint, since: Instant, within: Duration) -> Known {
    let mut all = shared.plain.0.lock().await;
    let generation = shared.keys.ring().generation();
    if let Some(found) = all.get(&endpoint.id).filter(|found| found.tells(since, generation)) {
        return found.known.clone();
    }
    let began = Instant::now();
    let known = ask(shared, endpoint, within).await;
    let fleet = shared.fleet.snapshot();
    all.retain(|id, _| fleet.by_id(*id).is_some());
    all.insert(endpoint.id, Found { began, generation, known: known.clone() });
    known
}

async fn ask(shared: &Shared, endpoint: &Endpoint, within: Duration) -> Known {
    match probe::ask(endpoint, "/v2/", None, within).await {
        Err(fault) => return Known::Strange(cause(&fault)),
        // What anybody gets would prove nothing (A12).
        Ok(answer) if answer.status != StatusCode::UNAUTHORIZED || realm(&answer).is_none() => {
            return Known::Strange(format!(
                "answers {} without a Bearer challenge, as no registry that takes tokens does",
                answer.status
            ));
        }
        Ok(_) => {}
    }
    let (ring, policy) = (shared.keys.ring(), shared.policy.load_full());
    let question = question::unsigned(&policy.rules.issuer, &policy.rules.service, shared.clock.now());
    let last = shared.fleet.snapshot().by_id(endpoint.id).and_then(|s| s.held.kids().next().cloned());
    for name in ring.signers(last.as_ref()) {
        let Some(key) = ring.signer(name.as_str()).cloned() else { continue };
        let job = Job {
            token: question.as_str().into(),
            key,
            name: Some(name.clone()),
            audience: None,
            not_before_back: Duration::ZERO,
            again: None,
        };
        let signed = shared.signer.sign(job).await.ok();
        let bearer = signed.and_then(|token| HeaderValue::try_from(format!("Bearer {token}")).ok());
        let Some(bearer) = bearer else { continue };
        match probe::ask_as(endpoint, "/v2/", bearer, |_, _| false, within).await {
            Ok(answer) if answer.status == StatusCode::OK => return Known::By(name),
            Ok(_) => {}
            Err(fault) => return Known::Strange(cause(&fault)),
        }
    }
    Known::Nobody
}
