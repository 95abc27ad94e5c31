//! One request from its head to its answer: screened, routed, forwarded or answered by us.

use std::{
    cell::Cell,
    convert::Infallible,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header, request::Parts};
use http_body::Body as _;
use hyper::body::Incoming;

use super::{
    body::DownBody,
    context::{Downstream, InFlight, Policy, Worker},
    formers::Taken,
    headers::{self, Origin, REQUEST_ID},
    own_page,
    pings::Ping,
    registry::{self, Ask, Bearer},
    relay::Relay,
    respond::reject,
    send::{Outgoing, origin_form},
    story::Story,
    token_service,
    writes::{self, Ended},
};
use crate::{
    decisions::outage::Need,
    edges::{fleet::Scheme, telemetry::counters::route_index},
    words::{
        challenge,
        credential::Credential,
        reason::{Outcome, Reason, Rescue},
        route::{self, Kind, Registry, Route},
    },
};

/// Serves one request. Never fails: what goes wrong is an answer.
pub async fn serve(
    worker: Rc<Worker>,
    downstream: Rc<Downstream>,
    request: Request<Incoming>,
) -> Result<Response<DownBody>, Infallible> {
    let in_flight = downstream.begin();
    let policy = worker.shared.policy.load_full();
    let (mut parts, body) = request.into_parts();
    let mut story = Box::new(begin(&worker, &downstream, &parts));
    let result = handle(&worker, &downstream, &policy, &mut parts, (body, &in_flight), &mut story).await;
    let mut response = match result {
        Ok(response) => {
            let is_ours = story.route == route_index(&Route::Own);
            story.outcome = if is_ours { Outcome::Answered } else { Outcome::Forwarded };
            response
        }
        Err(reason) => refuse(reason, &mut story),
    };
    response.headers_mut().insert(REQUEST_ID, story.id.clone());
    story.status = response.status();
    Ok(response.map(|body| body.tell(story, in_flight)))
}

/// What nginx writes for a client that left before its answer.
const GONE: u16 = 499;

fn begin(worker: &Rc<Worker>, downstream: &Downstream, parts: &Parts) -> Story {
    let (client, kept) = if downstream.proxied {
        let client = headers::client_of(&parts.headers, downstream.peer, |a| downstream.trusts(a));
        (client, parts.headers.get(REQUEST_ID).filter(|id| is_id(id)))
    } else {
        (downstream.peer, None)
    };
    Story {
        worker: worker.clone(),
        silent: false,
        route: 4,
        began: Instant::now(),
        id: kept.cloned().unwrap_or_else(|| worker.new_id()),
        client,
        client_text: if client == downstream.peer {
            downstream.peer_text.clone()
        } else {
            address_text(client)
        },
        method: parts.method.clone(),
        uri: parts.uri.clone(),
        agent: parts.headers.get(header::USER_AGENT).cloned(),
        plan: "",
        rescue: None,
        would_rescue: None,
        refusal: None,
        endpoint: None,
        principal: None,
        sends: 0,
        // Until there is an answer: dropped before, the client has left.
        status: StatusCode::from_u16(GONE).unwrap_or(StatusCode::BAD_REQUEST),
        outcome: Outcome::ClientGone,
        bytes_in: 0,
        bytes_out: 0,
    }
}

/// An address as a header's value; there is none that can't be one.
pub fn address_text(address: std::net::IpAddr) -> HeaderValue {
    HeaderValue::try_from(address.to_string()).unwrap_or_else(|_| HeaderValue::from_static("-"))
}

/// `[A-Za-z0-9._-]{1,64}` (A29).
fn is_id(value: &HeaderValue) -> bool {
    let text = value.as_bytes();
    (1..=64).contains(&text.len()) && text.iter().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(b))
}

fn refuse(reason: Reason, story: &mut Story) -> Response<DownBody> {
    story.refusal = Some(reason);
    story.rescue = None;
    story.outcome = match reason {
        Reason::NoEndpoint
        | Reason::Outage
        | Reason::UpstreamBroke
        | Reason::UploadLost
        | Reason::UpstreamSlow
        | Reason::RegistryPassword => Outcome::UpstreamFailed,
        Reason::BodyBroke => Outcome::ClientGone,
        _ => Outcome::Rejected,
    };
    let mut response = reject(reason, &story.id);
    if reason == Reason::TokenMethod {
        token_service::method_not_allowed(&mut response);
    }
    response
}

async fn handle(
    worker: &Rc<Worker>,
    downstream: &Rc<Downstream>,
    policy: &Arc<Policy>,
    parts: &mut Parts,
    (body, in_flight): (Incoming, &InFlight),
    story: &mut Story,
) -> Result<Response<DownBody>, Reason> {
    screen(downstream, parts, &body)?;
    let uri = std::mem::take(&mut parts.uri);
    let path = route::plain(uri.path()).map_err(|_| Reason::AmbiguousPath)?;
    let route = match Route::of(&path) {
        // What stands beside a plain registry is no core's.
        Route::Token | Route::UiLogin | Route::Api if policy.is_plain() => Route::Portal,
        route => route,
    };
    story.route = route_index(&route);
    let asks_who = matches!(&route, Route::Token) || is_base(&route);
    let for_clients = policy.enforce && is_for_clients(&route, &path);
    let takes_former = policy.enforce && matches!(route, Route::Registry(_) | Route::Token);
    let former = if takes_former && worker.shared.formers.any() {
        // Boxed: rare.
        Box::pin(take_former(worker, parts, story)).await?
    } else {
        None
    };
    let credential = Credential::of(&parts.headers).map_err(|_| Reason::SeveralAuthorizations)?;
    let bearer = match (&credential, &route) {
        (Credential::Bearer(token), Route::Registry(_)) => {
            parts.headers.get(header::AUTHORIZATION).map(|value| Bearer::new(value, token))
        }
        // Judged as a token that can't be read.
        (Credential::HiddenBearer(value), Route::Registry(_)) => Some(Bearer::new(value, b"")),
        _ => None,
    };
    let basic = matches!(credential, Credential::Basic(_));
    if let (Credential::Basic(value), true, Route::Registry(_) | Route::Api) =
        (&credential, policy.enforce, &route)
    {
        worker.shared.wrong.pass(value, story.client)?;
    }
    if !downstream.cluster {
        if credential == Credential::HarborSecret {
            parts.headers.remove(header::AUTHORIZATION);
        }
        if route == Route::Components {
            return Err(Reason::ComponentsOnly);
        }
    }
    if route == Route::Own {
        // Boxed: rare.
        return Box::pin(own_page::answer(worker, downstream, policy, (&path, parts))).await;
    }
    let host = policy.rewrite_realm.then(|| parts.headers.get(header::HOST).cloned()).flatten();
    let scheme = scheme_of(worker, downstream, policy, &parts.headers);
    let origin =
        Origin { peer: &downstream.peer_text, trusted: downstream.proxied, scheme, request_id: &story.id };
    headers::prepare(&parts.method, &mut parts.headers, &origin);
    headers::set_real_ip(&mut parts.headers, &story.client_text);
    if for_clients {
        headers::drop_cookies(&mut parts.headers);
    }
    let mut response = match route {
        // Boxed: rare beside the rest, and larger.
        Route::Token if policy.enforce => {
            Box::pin(token_service::answer(worker, policy, (&uri, parts), former.as_ref(), story)).await?
        }
        route => {
            let asked = Asked { uri: &uri, path: &path, route, bearer, basic };
            pass(worker, downstream, policy, parts, (body, in_flight), asked, story).await?
        }
    };
    if let Some(former) = former {
        settle_former(&former, response.status(), asks_who, story);
    }
    headers::settle_answer(response.headers_mut(), for_clients);
    if policy.rewrite_realm {
        rewrite_realm(response.headers_mut(), policy, scheme, host.as_ref());
    }
    Ok(response)
}

/// Puts a robot's present secret in the place of its former one (A29).
async fn take_former(worker: &Worker, parts: &mut Parts, story: &mut Story) -> Result<Option<Taken>, Reason> {
    let shared = &worker.shared;
    let credential = Credential::of(&parts.headers).map_err(|_| Reason::SeveralAuthorizations)?;
    let Credential::Basic(came) = credential else { return Ok(None) };
    let taken = shared.formers.take((came, story.client), &shared.wrong, shared.clock.now()).await?;
    if let Some(taken) = &taken {
        parts.headers.insert(header::AUTHORIZATION, taken.present.clone());
        story.principal = Some(taken.name.clone());
    }
    Ok(taken)
}

/// `/v2/` itself: whoever is known is served (C7).
fn is_base(route: &Route<'_>) -> bool {
    matches!(route, Route::Registry(registry) if registry.kind == Kind::Base)
}

/// Names what became of it, so that operators see who still comes with it. Where core isn't just `asks_who` it is, a 401
/// may say that the robot may not (C10, C11), and a read is served to anybody.
fn settle_former(former: &Taken, status: StatusCode, asks_who: bool, story: &mut Story) {
    let shared = &story.worker.shared;
    let refused = status == StatusCode::UNAUTHORIZED || story.refusal == Some(Reason::CredentialRefused);
    if asks_who && refused {
        // During core's lock after a stranger's guess it says nothing (A7).
        if !shared.wrong.may_come_of_a_lock(&former.present, story.began.elapsed()) {
            former.settle(false, shared.clock.now());
        }
        return;
    }
    if asks_who && status.is_success() {
        former.settle(true, shared.clock.now());
    }
    story.principal = Some(former.name.clone());
    story.rescued(Rescue::FormerSecret);
}

/// What no route may have: too long a head, CONNECT, no host or several, a body that hyper would not send.
fn screen(downstream: &Downstream, parts: &mut Parts, body: &Incoming) -> Result<(), Reason> {
    if downstream.longest_head.is_some_and(|most| head_bytes(parts) > most) {
        return Err(Reason::HeadTooLong);
    }
    if parts.method == Method::CONNECT {
        return Err(Reason::Method);
    }
    if !body.is_end_stream() && codings(&parts.headers) > 1 {
        return Err(Reason::Unreadable);
    }
    let reads = matches!(parts.method, Method::GET | Method::HEAD);
    if reads && !body.is_end_stream() && body.size_hint().exact().is_none() {
        return Err(Reason::Method);
    }
    headers::settle_host(&parts.uri, &mut parts.headers)
}

/// Bytes of a head as HTTP/1 writes it, spare white space left out.
fn head_bytes(parts: &Parts) -> usize {
    let uri = &parts.uri;
    let prefix =
        uri.authority().map_or(0, |a| a.as_str().len()) + uri.scheme_str().map_or(0, |s| s.len() + 3);
    let target = prefix + uri.path_and_query().map_or(0, |target| target.as_str().len());
    let lines: usize = parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    parts.method.as_str().len() + target + "  HTTP/1.1\r\n\r\n".len() + lines
}

/// Transfer codings of a body. hyper undoes `chunked` alone, and what is packed otherwise would go up as if it were not.
fn codings(headers: &HeaderMap) -> usize {
    headers
        .get_all(header::TRANSFER_ENCODING)
        .iter()
        .map(|v| v.as_bytes().split(|b| *b == b',').count())
        .sum()
}

/// `/v2/` and `/service/` are for command-line clients: no cookie there in either direction (A1).
fn is_for_clients(route: &Route<'_>, path: &str) -> bool {
    matches!(route, Route::Registry(_) | Route::Token) || path.starts_with("/service/")
}

/// What was read of a request's head.
struct Asked<'a> {
    uri: &'a Uri,
    /// As core reads it.
    path: &'a str,
    route: Route<'a>,
    bearer: Option<Bearer>,
    /// Whether it carries a Basic that is counted where it is wrong.
    basic: bool,
}

async fn pass(
    worker: &Rc<Worker>,
    downstream: &Rc<Downstream>,
    policy: &Arc<Policy>,
    parts: &mut Parts,
    (body, in_flight): (Incoming, &InFlight),
    asked: Asked<'_>,
    story: &mut Story,
) -> Result<Response<DownBody>, Reason> {
    let Asked { uri, path, route, bearer, basic } = asked;
    let portal = route == Route::Portal && !worker.shared.fleet.snapshot().portal.is_empty();
    let within =
        if matches!(route, Route::Registry(_)) { policy.registry_timeout } else { policy.api_timeout };
    let registry: Option<Registry<'_>> =
        if let Route::Registry(registry) = route { Some(registry) } else { None };
    if !policy.enforce {
        note_unjudged(worker, policy, bearer.as_ref(), story);
    }
    let (bearer, observed) =
        if policy.enforce { (bearer, None) } else { (None, bearer.zip(registry.clone())) };
    let ping = policy.enforce.then(|| Ping::of(&parts.method, path, &parts.headers)).flatten();
    let relay = (!body.is_end_stream())
        .then(|| Relay::new(body, (downstream.pulse.clone(), in_flight.waits.clone())));
    let outgoing = Outgoing {
        method: parts.method.clone(),
        uri: origin_form(uri),
        headers: std::mem::take(&mut parts.headers),
        body: relay.clone(),
        sends: Cell::default(),
        basic_sent: basic.then(|| Cell::new(Instant::now())),
    };
    let pings = &worker.shared.pings;
    let park = if policy.enforce { policy.park } else { Duration::ZERO };
    let answered = ping.as_ref().is_some_and(|ping| pings.know(ping));
    let patience = answered.then_some(token_service::PATIENCE);
    let need = need_of(policy, registry.as_ref(), &outgoing, basic);
    let ask = Ask { outgoing, registry, bearer, within, park, patience, need, portal, of_client: true };
    let result = if writes::ended_by(&parts.method, path) == Ended::Nothing {
        registry::forward(worker, Some(downstream), policy, ask, story).await
    } else {
        // Boxed: rare.
        Box::pin(writes::heard::forward(worker, downstream, policy, (ask, path), story)).await
    };
    if let Some(relay) = relay {
        story.bytes_in = relay.passed();
    }
    let response = match ping {
        Some(ping) => pings.settle(ping, result, story),
        None => result,
    }?;
    if let Some((bearer, registry)) = observed {
        let answer = (response.status(), response.headers());
        let asked = story.endpoint.as_deref();
        let would =
            registry::would_rescue(worker, policy, &bearer, (&registry, &parts.method), asked, answer);
        story.would_rescue = would;
    }
    Ok(response)
}

/// What the registry's requests need of core; all else, and everything in observe mode, goes up whatever hangs.
fn need_of(policy: &Policy, registry: Option<&Registry<'_>>, outgoing: &Outgoing, basic: bool) -> Need {
    let authorized = outgoing.headers.contains_key(header::AUTHORIZATION);
    let of = |registry: &Registry<'_>| Need::of_registry(registry.kind, &outgoing.method, authorized, basic);
    registry.filter(|_| policy.enforce && !policy.is_plain()).map_or(Need::Nothing, of)
}

/// Observe mode counts what enforce mode would refuse, and touches nothing (A27).
fn note_unjudged(worker: &Worker, policy: &Policy, bearer: Option<&Bearer>, story: &mut Story) {
    use super::known::Judgement;
    let Some(token) = bearer.map(Bearer::text) else { return };
    let shared = &worker.shared;
    let ring = shared.keys.ring();
    if let (Judgement::Refused(fault), _) =
        shared.known.judge(token, &ring, &shared.rules(policy), shared.clock.now(), None)
    {
        story.refusal = Some(fault.reason());
    }
}

/// The scheme that goes up as `X-Forwarded-Proto`: what core builds a `Location` of (U1).
fn scheme_of(worker: &Worker, downstream: &Downstream, policy: &Policy, headers: &HeaderMap) -> Scheme {
    let proxied = downstream.proxied.then(|| headers::proxied_scheme(headers)).flatten();
    proxied.unwrap_or_else(|| {
        if downstream.tls {
            Scheme::Https
        } else if let Some((scheme, _)) = &policy.public {
            *scheme
        } else {
            worker.shared.fleet.snapshot().realm_scheme.unwrap_or(Scheme::Http)
        }
    })
}

fn rewrite_realm(headers: &mut HeaderMap, policy: &Policy, scheme: Scheme, host: Option<&HeaderValue>) {
    let asked = host.and_then(|h| h.to_str().ok());
    let (scheme, authority) = match (&policy.public, asked) {
        (Some((scheme, authority)), _) => (*scheme, &**authority),
        (None, Some(asked)) => (scheme, asked),
        (None, None) => return,
    };
    let realm = format!("{}://{authority}/service/token", scheme.as_str());
    let rewritten = headers.get(header::WWW_AUTHENTICATE).and_then(|v| challenge::with_realm(v, &realm));
    if let Some(value) = rewritten {
        headers.insert(header::WWW_AUTHENTICATE, value);
    }
}
