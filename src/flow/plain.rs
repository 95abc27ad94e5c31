//! Plain registries: which key one knows, and by which name, is found out by showing it tokens without any access.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use http::{HeaderValue, StatusCode};
use tokio::time;

use super::context::Shared;
use crate::{
    decisions::token::question,
    edges::{
        alarm::cause,
        fleet::{Endpoint, Snapshot},
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

/// What was found out, by endpoint: one question to it at a time, whose answer is shared by all who asked before it began. One
/// that hangs holds up nobody who asks another.
#[derive(Debug, Default)]
pub struct Plain(Mutex<HashMap<u64, Place>>);

type Place = Arc<tokio::sync::Mutex<Option<Found>>>;

impl Plain {
    /// Where the answers of this endpoint are; those of endpoints that have left are forgotten.
    fn place(&self, id: u64, fleet: &Snapshot) -> Place {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|known, _| *known == id || fleet.by_id(*known).is_some());
        Arc::clone(all.entry(id).or_default())
    }
}

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
/// answers comes `within` that time, and so does the turn to ask.
pub async fn known(shared: &Shared, endpoint: &Endpoint, since: Instant, within: Duration) -> Known {
    let place = shared.plain.place(endpoint.id, &shared.fleet.snapshot());
    let Ok(mut last) = time::timeout(within, place.lock()).await else {
        return Known::Strange("gives no answer in time to a question that somebody else asks".to_owned());
    };
    let generation = shared.keys.ring().generation();
    if let Some(found) = last.as_ref().filter(|found| found.tells(since, generation)) {
        return found.known.clone();
    }
    let began = Instant::now();
    let known = ask(shared, endpoint, within).await;
    *last = Some(Found { began, generation, known: known.clone() });
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
