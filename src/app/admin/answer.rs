//! Answers of the admin listener.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use serde::Serialize;

use super::guard::Refusal;
use crate::app::status::Readiness;

pub(super) fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    of(status, "text/plain; charset=utf-8", body)
}

pub(super) fn metrics(body: String) -> Response<Full<Bytes>> {
    of(StatusCode::OK, "application/openmetrics-text; version=1.0.0; charset=utf-8", body)
}

/// 503 takes us out of a load balancer; the body says why.
pub(super) fn readiness(readiness: &Readiness) -> Response<Full<Bytes>> {
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let title = if readiness.ready { "ready" } else { "not ready" };
    let degraded = readiness.degraded.iter().map(|part| format!("degraded: {part}"));
    let lines: Vec<String> =
        std::iter::once(title.to_owned()).chain(readiness.reasons.iter().cloned()).chain(degraded).collect();
    text(status, lines.join("\n") + "\n")
}

pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response<Full<Bytes>> {
    match serde_json::to_string(value) {
        Ok(body) => of(status, "application/json", body + "\n"),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("no JSON: {error}\n")),
    }
}

pub(super) fn error(status: StatusCode, message: &str) -> Response<Full<Bytes>> {
    json(status, &serde_json::json!({ "error": message }))
}

pub(super) fn method(allowed: &'static str) -> Response<Full<Bytes>> {
    let mut response = error(StatusCode::METHOD_NOT_ALLOWED, "this path has other methods");
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    response
}

pub(super) fn refusal(refusal: Refusal) -> Response<Full<Bytes>> {
    let status = match refusal {
        Refusal::Host | Refusal::Origin | Refusal::NoToken | Refusal::UnreadableToken => {
            StatusCode::FORBIDDEN
        }
        Refusal::Token => StatusCode::UNAUTHORIZED,
    };
    let mut response = error(status, &refusal.to_string());
    if status == StatusCode::UNAUTHORIZED {
        let challenge = HeaderValue::from_static("Bearer realm=\"tidegate\"");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    response
}

pub(super) fn of(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
