//! `/v1/window` and `/v1/revoke`: what an operator orders, and all replicas must know.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{Method, Response, StatusCode, request::Parts};
use http_body_util::Full;
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};

use super::{Operator, answer, body};
use crate::{
    decisions::window,
    flow::replicas::{Ordered, Unsettled},
};

/// Of a body.
const LONGEST: usize = 64 * 1024;
/// Of a window; a shorter one is a slip of the finger.
const SHORTEST: Duration = Duration::from_mins(1);

/// What `window open` asks for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenWindow {
    pub for_seconds: u64,
}

/// What `revoke` asks for: one of them.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Revoke {
    /// The name that Harbor's tokens have in `sub`: all that it was given up to now.
    #[serde(rename = "subject")]
    Subject(String),
    /// The SHA-256 of a token, in base64: the token itself stays where it is.
    #[serde(rename = "token_sha256")]
    Token(String),
}

/// What became of an order that has nothing to show.
#[derive(Debug, Serialize, Deserialize)]
pub struct Done {
    pub done: bool,
}

impl Revoke {
    /// Of a token's digest.
    pub fn token(digest: [u8; 32]) -> Self {
        Self::Token(STANDARD.encode(digest))
    }
}

/// `None` where the path is none of these.
pub(super) async fn handle<O: Operator>(
    head: &Parts,
    sent: Incoming,
    operator: &O,
) -> Option<Response<Full<Bytes>>> {
    let reads = head.method == Method::GET || head.method == Method::HEAD;
    let posts = head.method == Method::POST;
    Some(match head.uri.path() {
        "/v1/window" if posts => open(sent, operator).await,
        "/v1/window" if reads => answer::json(StatusCode::OK, &operator.window()),
        "/v1/window" => answer::method("GET, HEAD, POST"),
        "/v1/window/close" if posts => close(operator).await,
        "/v1/revoke" if posts => revoke(sent, operator).await,
        "/v1/window/close" | "/v1/revoke" => answer::method("POST"),
        _ => return None,
    })
}

async fn open<O: Operator>(sent: Incoming, operator: &O) -> Response<Full<Bytes>> {
    let asked: OpenWindow = match body::json(sent, LONGEST).await {
        Ok(asked) => asked,
        Err(answer) => return answer,
    };
    let length = Duration::from_secs(asked.for_seconds);
    if !(SHORTEST..=window::LONGEST).contains(&length) {
        return answer::error(StatusCode::BAD_REQUEST, "a window is open for 1m to 168h");
    }
    let ordered = operator.open_window(length);
    tracing::warn!(window.seconds = asked.for_seconds, "an operator opened the upgrade window");
    if let Some(answer) = unsettled("the window is open here", &[ordered], operator).await {
        return answer;
    }
    answer::json(StatusCode::OK, &operator.window())
}

async fn close<O: Operator>(operator: &O) -> Response<Full<Bytes>> {
    let Some(ordered) = operator.close_window() else {
        return answer::error(StatusCode::CONFLICT, "no window is open by command");
    };
    tracing::warn!("an operator closed the upgrade window");
    if let Some(answer) = unsettled("the window is closed here", &[ordered], operator).await {
        return answer;
    }
    answer::json(StatusCode::OK, &operator.window())
}

async fn revoke<O: Operator>(sent: Incoming, operator: &O) -> Response<Full<Bytes>> {
    let asked: Revoke = match body::json(sent, LONGEST).await {
        Ok(asked) => asked,
        Err(answer) => return answer,
    };
    let Some(ordered) = operator.revoke(&asked) else {
        let said = "a user has a name, and a token a digest of 32 bytes in base64";
        return answer::error(StatusCode::BAD_REQUEST, said);
    };
    match &asked {
        Revoke::Subject(name) => {
            tracing::warn!(revoked.subject = %name.escape_debug(), "an operator revoked what a user was given");
        }
        Revoke::Token(_) => tracing::warn!("an operator revoked a token"),
    }
    match unsettled("it is revoked here", &[ordered], operator).await {
        Some(answer) => answer,
        None => answer::json(StatusCode::OK, &Done { done: true }),
    }
}

/// Waits until all replicas know; the answer that names who doesn't (A20).
pub(super) async fn unsettled<O: Operator>(
    here: &str,
    ordered: &[Ordered],
    operator: &O,
) -> Option<Response<Full<Bytes>>> {
    let unsettled = settle(ordered, operator).await.err()?;
    Some(answer::error(StatusCode::SERVICE_UNAVAILABLE, &format!("{here}, but {unsettled}")))
}

pub(super) async fn settle<O: Operator>(ordered: &[Ordered], operator: &O) -> Result<(), Unsettled> {
    let settled = operator.settled(ordered).await;
    settled.inspect_err(|why| tracing::warn!(store.cause = %why, "an order is not known everywhere yet"))
}
