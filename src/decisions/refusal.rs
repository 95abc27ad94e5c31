//! Whether an answer of core's may mean that its key has changed, and what follows.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, StatusCode, header::WWW_AUTHENTICATE};

use super::plan::Plan;
use crate::words::{
    challenge::Challenge,
    clock::UnixTime,
    kid::Kid,
    route::{Kind, Registry},
};

/// Sends of one request at most, whatever the number of keys and endpoints (A6).
pub const SENDS: usize = 3;

/// What an answer to a planned bearer says about the endpoint's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Harbor's answer, whatever it is: it goes to the client.
    Answer,
    /// It also proves that the endpoint holds the key that the plan counted on (A12).
    Confirms,
    /// Refused with the words of a changed key (C4): ask before it goes to the client.
    Suspect,
}

/// Reads the head of an answer to `plan`.
pub fn read(
    plan: &Plan,
    registry: &Registry<'_>,
    method: &Method,
    status: StatusCode,
    headers: &HeaderMap,
) -> Reading {
    if plan.counts_on().is_none() {
        return Reading::Answer;
    }
    if status.is_success() {
        return if confirms(registry, method) { Reading::Confirms } else { Reading::Answer };
    }
    if is_by_key(status, headers) { Reading::Suspect } else { Reading::Answer }
}

/// Whether an answer has the words with which core (C4), or a plain registry, refuses a token of a key that it doesn't
/// hold.
pub fn is_by_key(status: StatusCode, headers: &HeaderMap) -> bool {
    status == StatusCode::UNAUTHORIZED && headers.get(WWW_AUTHENTICATE).is_some_and(refuses_token)
}

/// Core's words, and distribution's own (RFC 6750, 3.1); a scope that doesn't suffice is another error.
fn refuses_token(challenge: &HeaderValue) -> bool {
    match Challenge::of(challenge) {
        Challenge::Basic => true,
        Challenge::Bearer { rest, .. } => rest.contains("error=\"invalid_token\""),
        Challenge::Empty | Challenge::Other => false,
    }
}

/// A12: only what an anonymous client can't get proves a key: `/v2/` itself and a write. A read of a public
/// repository is answered to anybody (C5).
fn confirms(registry: &Registry<'_>, method: &Method) -> bool {
    let reads = method == Method::GET || method == Method::HEAD;
    match registry.kind {
        Kind::Base => reads,
        Kind::Other | Kind::Catalog => false,
        _ => [Method::POST, Method::PUT, Method::PATCH, Method::DELETE].contains(method),
    }
}

/// What the endpoint says to the bearer on `/v2/` itself: nobody but the token's key decides there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckAnswer {
    /// 200: the key is held, the refusal was Harbor's judgement.
    Held,
    /// 401: the key is not held any more.
    NotHeld,
    /// Anything else tells nothing.
    Unclear,
}

impl CheckAnswer {
    /// Reads the status of `GET /v2/` with the planned bearer.
    pub fn of(status: StatusCode) -> Self {
        match status {
            StatusCode::OK => Self::Held,
            StatusCode::UNAUTHORIZED => Self::NotHeld,
            _ => Self::Unclear,
        }
    }
}

/// Whether an answer may be a restarting core's, or its balancer's, rather than Harbor's word on the request.
pub fn is_stumble(status: StatusCode) -> bool {
    matches!(status, StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT)
}

/// What to do after a suspect refusal, once the endpoint was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Harbor's refusal goes to the client.
    Stands,
    /// Plan again with what is known now.
    PlanAgain,
}

/// A refusal stands where the key is held after all or none was counted on (A6), or where the budget of sends
/// is spent. `held_now` is what a probe after the refusal found.
pub fn after(plan: &Plan, held_now: Option<&Kid>, sends: usize) -> Next {
    let Some(counted_on) = plan.counts_on() else { return Next::Stands };
    if held_now == Some(counted_on) || sends >= SENDS { Next::Stands } else { Next::PlanAgain }
}

/// How long a request is held whose token may be too new for core: clocks of replicas are told apart by whole
/// seconds only, and a core up to 2.10 refuses an `iat` that lies ahead of its own (V8).
pub const MOMENT: Duration = Duration::from_secs(1);
/// Seconds after its issue in which a token may be too new for a core whose clock is taken to be right.
const NEW: Duration = Duration::from_secs(2);

/// Whether core's clock alone may have refused a bearer that was issued at `unverified_iat`, though the endpoint
/// still holds its key: only where core knows no leeway, and only while the token is new. A refusal about time is
/// no sign of a changed key (A13); it is asked about once more, after [`MOMENT`].
pub fn may_be_too_new(unverified_iat: UnixTime, now: UnixTime, leeway: bool) -> bool {
    !leeway && unverified_iat.plus(NEW) >= now && now.plus(NEW) >= unverified_iat
}

#[cfg(test)]
mod tests;
