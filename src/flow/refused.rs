//! After a refusal: did core's key change, or was that Harbor's judgement? One check in flight for an
//! endpoint and key, shared by all requests that were refused before it began.

use std::{
    cell::RefCell,
    collections::HashMap,
    rc::Rc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{
    FutureExt,
    future::{LocalBoxFuture, Shared},
};
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use std::sync::Arc;

use super::{
    context::Worker,
    plain::{self, Known},
    relay::UpBody,
};
use crate::{
    decisions::refusal::CheckAnswer,
    edges::{
        fleet::Endpoint,
        probe::{self, Finding, KEY_TARGET, LONGEST_ANSWER},
    },
    words::kid::Kid,
};

/// What an endpoint says about the key that a plan counted on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It holds it: the refusal was Harbor's judgement.
    Held,
    /// It holds this one now.
    Moved(Kid),
    /// It refuses the key's tokens and names that very key, or gives no sensible answer.
    Unclear,
    /// It can't sign at all.
    CannotSign,
}

type Check = Shared<LocalBoxFuture<'static, Verdict>>;

/// Checks under way.
#[derive(Default)]
pub struct Checks(Rc<RefCell<Running>>);

/// By endpoint and key: when each began.
type Running = HashMap<(u64, Kid), (Instant, Check)>;

/// The longest time for one question of a check.
const PATIENCE: Duration = Duration::from_secs(3);

/// Asks `endpoint` about `kid` with `bearer`, or shares a question that began at `since` or later: one that began
/// before a refusal may have been answered before core's key changed. `anonymous`: the token has no subject, so
/// that `/v2/` refuses it whatever its key (C14).
pub async fn check(
    worker: &Rc<Worker>,
    endpoint: &Arc<Endpoint>,
    kid: &Kid,
    (bearer, anonymous): (&HeaderValue, bool),
    since: Instant,
) -> Verdict {
    let (owner, target) = (worker.clone(), endpoint.clone());
    let (wanted, bearer) = (kid.clone(), bearer.clone());
    let ask = async move { ask_both(&owner, &target, &wanted, (!anonymous).then_some(&bearer)).await };
    worker.checks.share((endpoint.id, kid.clone()), since, ask).await
}

impl Checks {
    /// The check about `place` that began at `since` or later, or `ask` as a new one. It goes on to its end though all
    /// who wait for it leave: nobody else would let go of its connection.
    fn share(
        &self,
        place: (u64, Kid),
        since: Instant,
        ask: impl Future<Output = Verdict> + 'static,
    ) -> Check {
        let running =
            self.0.borrow().get(&place).filter(|(began, _)| *began >= since).map(|(_, c)| c.clone());
        if let Some(check) = running {
            return check;
        }
        let (began, checks, own) = (Instant::now(), self.0.clone(), place.clone());
        let check: Check = async move {
            let verdict = ask.await;
            let mut checks = checks.borrow_mut();
            if checks.get(&own).is_some_and(|(at, _)| *at == began) {
                checks.remove(&own);
            }
            verdict
        }
        .boxed_local()
        .shared();
        self.0.borrow_mut().insert(place, (began, check.clone()));
        let alone = check.clone();
        drop(tokio::task::spawn_local(async move {
            alone.await;
        }));
        check
    }
}

async fn ask_both(
    worker: &Rc<Worker>,
    endpoint: &Arc<Endpoint>,
    kid: &Kid,
    bearer: Option<&HeaderValue>,
) -> Verdict {
    if let Some(bearer) = bearer {
        let answer = ask(worker, endpoint, "/v2/", Some(bearer)).await;
        match answer.map(|(status, _)| CheckAnswer::of(status)) {
            Some(CheckAnswer::Held) => {
                worker.shared.fleet.confirm(endpoint, kid);
                return Verdict::Held;
            }
            Some(CheckAnswer::NotHeld) => {}
            Some(CheckAnswer::Unclear) | None => return Verdict::Unclear,
        }
    }
    if worker.shared.policy.load().is_plain() {
        return match learn_plain(worker, endpoint).await {
            Known::By(known) if known == *kid => Verdict::Unclear,
            Known::By(known) => Verdict::Moved(known),
            Known::Nobody | Known::Strange(_) => Verdict::Unclear,
        };
    }
    let Some((status, body)) = ask(worker, endpoint, KEY_TARGET, None).await else { return Verdict::Unclear };
    match probe::read_key(status, &body) {
        Finding::Holds(held) if held.kid == *kid => {
            if bearer.is_none() {
                Verdict::Held
            } else {
                Verdict::Unclear
            }
        }
        Finding::Holds(held) => {
            worker.shared.fleet.confirm(endpoint, &held.kid);
            worker.shared.probe_now.notify_one();
            Verdict::Moved(held.kid)
        }
        Finding::CannotSign => {
            worker.shared.fleet.cannot_sign(endpoint);
            Verdict::CannotSign
        }
        Finding::Strange => Verdict::Unclear,
    }
}

/// Asks a plain registry which key it knows.
async fn learn_plain(worker: &Rc<Worker>, endpoint: &Endpoint) -> Known {
    let known = plain::known(&worker.shared, endpoint, Instant::now(), PATIENCE).await;
    if let Known::By(kid) = &known {
        worker.shared.fleet.confirm(endpoint, kid);
    }
    known
}

/// Asks an endpoint which key it holds, for a request that needs to know now: whether it signs with any, `None`
/// where its answer tells nothing.
pub async fn learn_held(worker: &Rc<Worker>, endpoint: &Arc<Endpoint>) -> Option<bool> {
    if worker.shared.policy.load().is_plain() {
        return match learn_plain(worker, endpoint).await {
            Known::By(_) => Some(true),
            // It answers: what is known of its key is another matter.
            Known::Nobody => Some(false),
            Known::Strange(_) => None,
        };
    }
    let (status, body) = ask(worker, endpoint, KEY_TARGET, None).await?;
    match probe::read_key(status, &body) {
        Finding::Holds(held) => {
            worker.shared.fleet.confirm(endpoint, &held.kid);
            Some(true)
        }
        Finding::CannotSign => {
            worker.shared.fleet.cannot_sign(endpoint);
            worker.shared.probe_now.notify_one();
            Some(false)
        }
        Finding::Strange => None,
    }
}

/// Whether an endpoint accepts a credential where nothing else decides: on `/v2/` itself. `None` where it says
/// neither.
pub async fn accepts(
    worker: &Rc<Worker>,
    endpoint: &Arc<Endpoint>,
    credential: &HeaderValue,
) -> Option<bool> {
    let (status, _) = ask(worker, endpoint, "/v2/", Some(credential)).await?;
    match CheckAnswer::of(status) {
        CheckAnswer::Held => Some(true),
        CheckAnswer::NotHeld => Some(false),
        CheckAnswer::Unclear => None,
    }
}

/// Probes in a look for several keys: behind a balancer that chooses by chance between two, all of them show
/// the same key once in 2,000 looks.
const LOOKS: usize = 12;
/// Looks of one worker at one endpoint: not more often than this.
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);

/// Whether several replicas with different keys answer behind an address, by probes over connections of
/// their own; at most one such look a second, for every refusal of a wrong user comes by here.
pub async fn shows_several(worker: &Rc<Worker>, endpoint: &Arc<Endpoint>) -> bool {
    let already = || worker.shared.fleet.snapshot().by_id(endpoint.id).is_some_and(|s| s.held.several());
    let last = worker.looks.borrow().get(&endpoint.id).copied();
    if already() || last.is_some_and(|at| at.elapsed() < BETWEEN_LOOKS) {
        return already();
    }
    if worker.shared.policy.load().is_plain() {
        return false;
    }
    worker.looks.borrow_mut().insert(endpoint.id, Instant::now());
    let looks = (0..LOOKS).map(|_| probe::ask(endpoint, KEY_TARGET, None, PATIENCE));
    let mut kids: Vec<Kid> = Vec::new();
    for answer in futures_util::future::join_all(looks).await.into_iter().flatten() {
        if let Finding::Holds(held) = probe::read_key(answer.status, &answer.body)
            && !kids.contains(&held.kid)
        {
            kids.push(held.kid);
        }
    }
    if kids.len() > 1 {
        worker.shared.fleet.change_status(endpoint.id, |status| status.became_opaque(kids));
    }
    already()
}

/// One small GET of our own over the worker's pool.
async fn ask(
    worker: &Rc<Worker>,
    endpoint: &Arc<Endpoint>,
    target: &'static str,
    bearer: Option<&HeaderValue>,
) -> Option<(StatusCode, Bytes)> {
    let exchange = async {
        let mut lease = worker.pool.lease(endpoint, None).await.ok()?;
        let mut answer = lease.send(question(endpoint, target, bearer), None).await;
        if answer.is_err() && lease.reused() && !lease.answered() {
            lease = worker.pool.fresh(endpoint, None).await.ok()?;
            answer = lease.send(question(endpoint, target, bearer), None).await;
        }
        let (head, body) = answer.ok()?.into_parts();
        let body = Limited::new(body, LONGEST_ANSWER).collect().await.ok()?.to_bytes();
        lease.give_back();
        Some((head.status, body))
    };
    tokio::time::timeout(PATIENCE, exchange).await.ok().flatten()
}

fn question(endpoint: &Endpoint, target: &'static str, bearer: Option<&HeaderValue>) -> Request<UpBody> {
    let mut request = Request::new(UpBody::Empty);
    *request.uri_mut() = http::Uri::from_static(target);
    let headers = request.headers_mut();
    if let Ok(host) = HeaderValue::from_str(&endpoint.authority) {
        headers.insert(header::HOST, host);
    }
    headers.insert(
        header::USER_AGENT,
        HeaderValue::from_static(concat!("tidegate/", env!("CARGO_PKG_VERSION"))),
    );
    if let Some(bearer) = bearer {
        headers.insert(header::AUTHORIZATION, bearer.clone());
    }
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_check_ends_though_all_who_waited_for_it_have_left() {
        let checks = Checks::default();
        let kid = Kid::parse("AAAA:BBBB").expect("a kid");
        let (answer, answered) = tokio::sync::oneshot::channel();
        let ask = async { answered.await.unwrap_or(Verdict::Unclear) };
        let run = async {
            let check = checks.share((1, kid), Instant::now(), ask);
            assert_eq!(checks.0.borrow().len(), 1);
            drop(check);
            answer.send(Verdict::Held).expect("somebody still asks");
            for _ in 0..4 {
                tokio::task::yield_now().await;
            }
            assert!(checks.0.borrow().is_empty(), "it is not kept, nor what it holds");
        };
        tokio::task::LocalSet::new().run_until(run).await;
    }
}
