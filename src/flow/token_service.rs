//! `/service/token`: answers inspected, shared among those who ask the same at once, and given again for a
//! short while. Harbor stays the judge of every credential and every scope.

mod answers;
mod former;
mod grace;
mod inspect;
mod instead;
mod query;
mod wrong;

use std::{
    cell::{Cell, OnceCell},
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Uri, header, request::Parts};
use http_body_util::{BodyExt, Limited};

pub use self::{
    answers::{Answers, Flown},
    wrong::{Asked, SLEPT, WrongCredentials},
};
use self::{inspect::Inspected, query::Query, wrong::Admission};
use super::{
    body::DownBody,
    context::{Policy, Worker},
    formers::Taken,
    park::{self, Turn},
    registry::{self, Ask},
    send::{Outgoing, origin_form},
    story::Story,
};
use crate::{
    decisions::{grace::ends::Seen, outage::Need, token::claims},
    words::{
        credential::{Credential, basic_user},
        reason::{Outcome, Reason, Rescue},
    },
};

/// Bytes of a token answer at most: a token for many scopes grows with each.
const LONGEST: usize = 1024 * 1024;
/// docker gives a token, and a ping, 15 s, their way there and back among them.
pub const PATIENCE: Duration = Duration::from_secs(12);
/// How long a question waits for Harbor whose answer grace may give: other clients wait for less than docker, and one
/// operation asks more than once.
const BEFORE_GRACE: Duration = Duration::from_secs(4);

/// Answers a token request in enforce mode.
pub async fn answer(
    worker: &Rc<Worker>,
    policy: &Arc<Policy>,
    (uri, parts): (&Uri, &mut Parts),
    former: Option<&Taken>,
    story: &mut Story,
) -> Result<Response<DownBody>, Reason> {
    if parts.method != Method::GET {
        return Err(Reason::TokenMethod);
    }
    let credential = Credential::of(&parts.headers).map_err(|_| Reason::SeveralAuthorizations)?;
    let basic = if let Credential::Basic(value) = credential { Some(value.clone()) } else { None };
    let query = Query::read(uri.query().unwrap_or_default());
    let place = match (&query, credential) {
        (Some(query), Credential::Basic(_) | Credential::None) => {
            let answers = &worker.shared.answers;
            let place = answers.place(&worker.shared.deployment, basic.as_ref(), query);
            Some(former.map_or(place, |_| answers.place_of_former(place)))
        }
        _ => None,
    };
    if let Some(flown) = place.and_then(|place| {
        worker.shared.answers.find(&place, &worker.shared.keys.ring(), worker.shared.clock.now())
    }) {
        worker.counters.answer_hits.fetch_add(1, Relaxed);
        story.plan = "cached";
        let flown = match former {
            None => flown,
            Some(former) => former::bounded(worker, policy, former, &flown).await,
        };
        return Ok(response(&flown, story));
    }
    worker.counters.answer_misses.fetch_add(1, Relaxed);
    let asks = &parts.headers;
    let (generation, client) = (worker.shared.answers.generation(), story.client);
    let seen = worker.shared.graces.seen();
    let flight = || {
        let headers = going_up(asks);
        let granted = |basic, query: &Query| {
            let shared = &worker.shared;
            shared.graces.place(|key| query.place(key, &shared.deployment, Some(basic)))
        };
        let flight = Flight {
            worker: worker.clone(),
            policy: policy.clone(),
            basic: basic.as_ref().and_then(|_| headers.get(header::AUTHORIZATION).cloned()),
            headers,
            uri: copied_uri(uri),
            query: query.clone(),
            place,
            granted: basic.as_ref().zip(query.as_ref()).and_then(|(basic, query)| granted(basic, query)),
            client,
            generation,
            seen: seen.clone(),
            unexplained: Cell::default(),
            principal: OnceCell::new(),
        };
        flight.fly()
    };
    let flown = match place {
        Some(place) => worker.shared.answers.share(place, (client, basic.is_none()), flight).await,
        None => Arc::new(flight().await),
    };
    story.sends = flown.sends;
    story.endpoint.clone_from(&flown.endpoint);
    story.plan = "as_came";
    story.principal.clone_from(&flown.subject);
    story.rescue = flown.rescue;
    story.refusal = flown.refusal;
    match (flown.failure, former) {
        (Some(reason), _) => Err(reason),
        (None, None) => Ok(response(&flown, story)),
        (None, Some(former)) => Ok(response(&former::bounded(worker, policy, former, &flown).await, story)),
    }
}

/// Headers of a token request that Harbor has a use for. A flight may wait long after its asker has left: it
/// holds copies of these alone, no part of what was read from the connection.
const GOING_UP: [&str; 12] = [
    "host",
    "authorization",
    "user-agent",
    "accept",
    "accept-language",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-real-ip",
    "x-request-id",
    "traceparent",
    "tracestate",
];

fn going_up(headers: &HeaderMap) -> HeaderMap {
    let going = GOING_UP.into_iter().map(HeaderName::from_static);
    going.filter_map(|name| headers.get(&name).map(|value| (name, copied(value)))).collect()
}

fn copied(value: &HeaderValue) -> HeaderValue {
    HeaderValue::from_bytes(value.as_bytes()).unwrap_or_else(|_| value.clone())
}

fn copied_uri(uri: &Uri) -> Uri {
    let uri = origin_form(uri);
    uri.to_string().parse().unwrap_or(uri)
}

fn response(flown: &Flown, story: &mut Story) -> Response<DownBody> {
    story.outcome = Outcome::Forwarded;
    let mut response = Response::new(DownBody::whole(flown.body.clone()));
    *response.status_mut() = flown.status;
    response.headers_mut().clone_from(&flown.headers);
    response
}

/// One question to Harbor on behalf of all who ask it at once.
struct Flight {
    worker: Rc<Worker>,
    policy: Arc<Policy>,
    headers: HeaderMap,
    uri: Uri,
    basic: Option<HeaderValue>,
    query: Option<Query>,
    place: Option<[u8; 32]>,
    /// Where what it is granted is found again; `None` where grace is off or nobody's.
    granted: Option<[u8; 32]>,
    client: std::net::IpAddr,
    generation: u64,
    /// What was known to have ended grace when it was asked.
    seen: Seen,
    /// Whether core's last answer was a refusal that nothing but silence speaks against: no grace then.
    unexplained: Cell<bool>,
    /// Whose secret it is, where Harbor has accepted it before: a name alone is anybody's to say.
    principal: OnceCell<Arc<str>>,
}

/// Sends of one flight at most: an endpoint that can't sign is followed by another, a lock by one more try.
const SENDS: usize = 4;

impl Flight {
    async fn fly(self) -> Flown {
        let until = Instant::now() + if self.may_have_grace() { BEFORE_GRACE } else { PATIENCE };
        let name = self.basic.as_ref().and_then(basic_user).unwrap_or_default();
        let wrong = &self.worker.shared.wrong;
        let from = (self.client, self.bytes());
        let admitted = match &self.basic {
            Some(basic) => wrong
                .admit_vouched(&name, basic, from, || self.was_granted(basic))
                .await
                .map(|admission| (Some(admission), None)),
            None => wrong.admit_anonymous(from).map(|pending| (None, Some(pending))),
        };
        let (admission, _pending) = match admitted {
            Ok(admitted) => admitted,
            Err(reason) => return Flown::failed(reason),
        };
        if admission.as_ref().is_some_and(Admission::was_accepted) {
            let _ = self.principal.set(name.into());
        }
        let mut flown = Flown::failed(Reason::NoEndpoint);
        let (mut waited, mut doubted) = (false, false);
        let mut turn = None;
        for left in (0..SENDS).rev() {
            let sent = match &turn {
                None => self.send(until).await,
                // Boxed: rare.
                Some(_) => Box::pin(park::hold(self.send(until), &mut turn, false)).await,
            };
            flown = sent.unwrap_or_else(Flown::failed).after(&flown);
            if let Some(turn) = turn.take().filter(|_| flown.failure.is_none()) {
                Turn::answered(turn);
            }
            let mut inspected = self.inspect(&mut flown);
            if inspected == Inspected::CannotSign {
                inspected = match self.unsigned(&mut flown, left, &mut doubted).await {
                    Some(inspected) => self.instead(&mut flown, inspected, until).await,
                    None => continue,
                };
            }
            if self.finds_an_outage(&flown, inspected, until).await {
                // What no endpoint took has waited already.
                if left > 0 && flown.failure != Some(Reason::NoEndpoint) {
                    turn = self.await_database(until).await;
                }
                if turn.is_some() {
                    flown.rescue = Some(Rescue::Park);
                    continue;
                }
                // Boxed: rare.
                Box::pin(self.in_grace(&mut flown)).await;
                if let Some(admission) = admission.as_ref().filter(|_| flown.failure.is_some()) {
                    admission.untold();
                }
                break;
            }
            if inspected == Inspected::Refused {
                // Once for an unknown secret. One that was accepted before is not given up to a stranger's
                // locks: where they never end, its refusals are evidence of nothing (A7).
                if let Some(admission) = &admission
                    && (!waited || admission.was_accepted())
                    && admission.outlast_lock().await
                {
                    waited = true;
                    continue;
                }
                flown.rescue = None;
                if let Some(basic) = &self.basic {
                    let shared = &self.worker.shared;
                    shared.graces.suspend(basic, shared.clock.now());
                }
            }
            if let Some(admission) = &admission {
                admission.settle(inspected != Inspected::Refused, inspected == Inspected::Granted);
            }
            break;
        }
        flown
    }

    /// What core can't answer it without; where we can't read its query, that is everything.
    fn need(&self) -> Need {
        let authorized = self.headers.contains_key(header::AUTHORIZATION);
        let names = |query: &Query| query.scopes.iter().any(|scope| scope.kind == "repository");
        Need::of_token(authorized, self.query.as_ref().is_none_or(names))
    }

    /// What it holds while it waits: its credential, and what the client wrote beside it.
    fn bytes(&self) -> usize {
        let target = self.uri.path_and_query().map_or(0, |target| target.as_str().len());
        target + self.headers.values().map(HeaderValue::len).sum::<usize>()
    }

    /// Asks Harbor the client's own question.
    async fn send(&self, until: Instant) -> Result<Flown, Reason> {
        self.ask(self.uri.clone(), until).await
    }

    /// Asks Harbor with the client's credential, where it takes requests by `until`.
    async fn ask(&self, uri: Uri, until: Instant) -> Result<Flown, Reason> {
        let mut story = Story::silent(&self.worker, self.client);
        story.principal = self.principal.get().cloned();
        let outgoing = Outgoing {
            method: Method::GET,
            uri,
            headers: self.headers.clone(),
            body: None,
            sends: Cell::default(),
            basic_sent: None,
        };
        let ask = Ask {
            outgoing,
            registry: None,
            bearer: None,
            within: self.policy.token_timeout,
            park: self.policy.park,
            patience: Some(until.saturating_duration_since(story.began)),
            need: self.need(),
            portal: false,
            of_client: false,
        };
        let answer = registry::forward(&self.worker, None, &self.policy, ask, &mut story).await?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, LONGEST).collect().await.map_err(|_| Reason::UpstreamBroke)?.to_bytes();
        let mut headers = HeaderMap::new();
        for name in [header::CONTENT_TYPE, header::WWW_AUTHENTICATE, header::DATE] {
            if let Some(value) = head.headers.get(&name) {
                headers.insert(name, copied(value));
            }
        }
        Ok(Flown {
            status: head.status,
            headers,
            // A copy: what is kept does not hold the buffer that it was read into.
            body: bytes::Bytes::copy_from_slice(&body),
            sends: story.sends,
            endpoint: story.endpoint.clone(),
            rescue: story.rescue,
            ..Flown::default()
        })
    }

    /// Reads Harbor's answer and keeps what may be kept of it.
    fn inspect(&self, flown: &mut Flown) -> Inspected {
        let shared = &self.worker.shared;
        if flown.failure.is_some() {
            return Inspected::Other;
        }
        let (inspected, issued) = inspect::read(flown.status, &flown.body, self.basic.is_some());
        flown.refusal = inspected.reason();
        if let (Inspected::CannotSign, Some(endpoint)) = (inspected, &flown.endpoint)
            && flown.status.is_success()
        {
            shared.failed_after_all(&self.policy, endpoint, self.client);
        }
        if inspected == Inspected::TooLong {
            tracing::warn!(
                client = %self.client,
                answer.bytes = flown.body.len(),
                token.bytes.most = claims::LONGEST,
                "Harbor issued a token that is too long to be used: its user has access to too many projects, or asked for too many scopes at once"
            );
        }
        let Some(issued) = issued else { return inspected };
        if let Some(endpoint) = &flown.endpoint {
            shared.fleet.confirm(endpoint, &issued.kid);
        }
        shared.lifetime_seen.fetch_max(issued.lifetime().as_secs(), Relaxed);
        self.note_use(&issued);
        flown.subject = issued.subject.as_deref().map(Arc::from);
        flown.kid = Some(issued.kid.clone());
        flown.grants_nothing = inspected == Inspected::Anonymous && issued.grants_nothing();
        if let (Inspected::Granted, Some(basic)) = (inspected, &self.basic) {
            self.remember(&issued, basic);
            let all_granted = self.query.as_ref().is_some_and(|q| q.granted_by(&issued.access));
            // Issued in the second of a revocation, it is refused: nobody is to get it again.
            let subject = issued.subject.as_deref().unwrap_or_default();
            let is_good = all_granted && !shared.revocations.ends_subject(subject, issued.at);
            if let (Some(place), true) = (self.place, is_good) {
                let now = shared.clock.now();
                let until = issued.cached_until(now, self.policy.answer_cache);
                shared.answers.keep(place, flown, (now, until), self.generation);
            }
        }
        inspected
    }

    /// Harbor signed one with this key: until it ends, the key is in use.
    fn note_use(&self, issued: &inspect::Issued) {
        let shared = &self.worker.shared;
        if let Some(entry) = shared.keys.ring().find(issued.kid.as_str()) {
            let of = (issued.subject.as_deref().unwrap_or_default(), self.client);
            shared.evidence.note(entry.key().kid(), of, issued.expires, shared.clock.now());
        }
    }

    fn remember(&self, issued: &inspect::Issued, basic: &HeaderValue) {
        let shared = &self.worker.shared;
        let name = issued.subject.as_deref().unwrap_or_default();
        if shared.answers.generation() != self.generation {
            return;
        }
        if let Some(place) = self.granted {
            let granted = (&*issued.token, name, &*issued.access);
            let now = (shared.clock.now(), self.policy.grace);
            shared.graces.accepted(place, basic, granted, now, self.seen.clone());
        }
        if !self.policy.replay {
            return;
        }
        let at_once = shared.replays_of(&self.policy, name);
        let digest = shared.known.digest(&issued.token);
        let life = (shared.clock.now(), issued.expires);
        shared.replays.remember(digest, basic, issued.access.clone(), life, (name, at_once));
    }
}

/// Harbor's own words for another method than GET (contract T).
pub fn method_not_allowed(response: &mut Response<DownBody>) {
    *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    *response.body_mut() = DownBody::whole(bytes::Bytes::from_static(b"Method Not Allowed\n"));
    let text = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, text);
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn a_flight_holds_no_part_of_what_was_read() {
        let read = Bytes::from(b"Basic YTpi".repeat(100));
        let mut came = HeaderMap::new();
        let value = HeaderValue::from_maybe_shared(read.slice(..10)).expect("a value");
        came.insert(header::AUTHORIZATION, value.clone());
        came.insert("x-of-the-clients-own", value.clone());
        let target = Bytes::from_static(b"/service/token?service=s");
        let uri = Uri::from_maybe_shared(target).expect("a target");
        let up = going_up(&came);
        assert_eq!((up.len(), &up[header::AUTHORIZATION]), (1, &value));
        let place = up[header::AUTHORIZATION].as_bytes().as_ptr();
        assert!(!read.as_ptr_range().contains(&place), "a slice of the connection's buffer");
        assert_eq!(copied_uri(&uri), uri);
        assert_ne!(copied_uri(&uri).path().as_ptr(), uri.path().as_ptr());
    }
}
