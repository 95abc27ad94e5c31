//! What a client with a robot's former secret is given ends with its window (A29).

use std::{rc::Rc, time::Duration};

use super::{Flown, inspect};
use crate::{
    decisions::token::claims::{self, Claims},
    edges::signer::{Again, Job},
    flow::{
        context::{Policy, Worker},
        formers::Taken,
    },
    words::clock::UnixTime,
};

/// The answer as such a client gets it. A token that would outlive the window is signed again with its end, so that it
/// ends everywhere; where nobody here can sign it, it ends in this process alone, which knows it by its bytes.
pub(super) async fn bounded(worker: &Rc<Worker>, policy: &Policy, former: &Taken, flown: &Flown) -> Flown {
    let mut given = flown.clone();
    let Some(mut token) = inspect::token_of(&flown.body) else { return given };
    let shared = &worker.shared;
    let now = shared.clock.now();
    if let Some(shorter) = shared.own.shortened(&token, former.until, now) {
        given.body = answer(&shorter, now, former.until).into();
        token = shorter;
    } else if let Some((shorter, claims)) = shortened(worker, &token, former.until).await {
        if policy.replay {
            let digest = shared.known.digest(&shorter);
            let life = (now, former.until);
            let principal = (&*former.name, shared.replays_of(policy, &former.name));
            let access = claims.access.unwrap_or_default();
            shared.replays.remember(digest, &former.present, access, life, principal);
        }
        given.body = answer(&shorter, now, former.until).into();
        token = shorter;
    }
    shared.formers.gave(shared.known.digest(&token), &former.name);
    given
}

async fn shortened(worker: &Rc<Worker>, token: &str, until: UnixTime) -> Option<(String, Claims)> {
    let read = claims::read(token).ok()?;
    let (kid, claims) = (read.unverified_kid?, read.unverified_claims);
    if UnixTime(claims.exp) <= until {
        return None;
    }
    let shared = &worker.shared;
    let ring = shared.keys.ring();
    // One of grace stays one, with its new end (A15).
    let granted = shared.graces.given(&shared.known.digest(token));
    let proof = granted.as_ref().and_then(|granted| shared.graces.proof(granted, until));
    let job = Job {
        token: token.into(),
        key: ring.signer(kid.as_str())?.clone(),
        name: None,
        audience: None,
        not_before_back: Duration::ZERO,
        again: Some(Again { until, proof }),
    };
    let shorter = shared.signer.sign(job).await.ok()?;
    if let Some(granted) = granted {
        shared.graces.gave(shared.known.digest(&shorter), granted);
    }
    Some((shorter, claims))
}

/// Of the same shape as Harbor's own (T1).
fn answer(token: &str, now: UnixTime, until: UnixTime) -> String {
    let (left, at) = (until.since(now).as_secs(), now.rfc3339());
    serde_json::json!({"token": token, "access_token": "", "expires_in": left, "issued_at": at}).to_string()
}
