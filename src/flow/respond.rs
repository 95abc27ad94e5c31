//! Answers of our own: one table from reasons to what a client reads.

use http::{HeaderValue, Response, StatusCode, header};

use super::{body::DownBody, headers::REQUEST_ID};
use crate::words::{error_body, reason::Reason};

/// What a client reads for a reason: status, code and message of the registry's error body. What the log says
/// is the reason's own name.
fn answer_to(reason: Reason) -> (StatusCode, &'static str, &'static str) {
    use StatusCode as S;
    match reason {
        Reason::TokenMalformed
        | Reason::TokenWithoutKid
        | Reason::TokenDefaultKey
        | Reason::TokenKeyBanned
        | Reason::TokenKeyAnnounced
        | Reason::TokenKeyRetired
        | Reason::TokenKeyUnknown
        | Reason::TokenAlgorithm
        | Reason::TokenSignature
        | Reason::TokenIssuer
        | Reason::TokenAudience
        | Reason::TokenExpired
        | Reason::TokenNotYetValid
        | Reason::TokenIssuedInFuture
        | Reason::TokenLivesTooLong
        | Reason::TokenIssuedAfterKeyEnded
        | Reason::TokenRevoked
        | Reason::OwnTokenScope
        | Reason::CredentialRefused => (S::UNAUTHORIZED, "UNAUTHORIZED", "unauthorized: unauthorized"),
        Reason::SeveralAuthorizations => {
            (S::BAD_REQUEST, "UNSUPPORTED", "more than one Authorization header")
        }
        Reason::AmbiguousPath => (S::BAD_REQUEST, "UNSUPPORTED", "the path can be read in more than one way"),
        Reason::Host => (S::BAD_REQUEST, "UNSUPPORTED", "the request names no host, or more than one"),
        Reason::Method | Reason::Unreadable => {
            (S::BAD_REQUEST, "UNSUPPORTED", "the request's method and body don't fit together")
        }
        Reason::HeadTooLong => {
            (S::REQUEST_HEADER_FIELDS_TOO_LARGE, "UNSUPPORTED", "the request's head is too long")
        }
        Reason::PeerUnproved => (S::FORBIDDEN, "DENIED", "the shared secret of peers is not proved"),
        Reason::ComponentsOnly | Reason::NoSuchPage => (S::NOT_FOUND, "NOT_FOUND", "not found"),
        Reason::TokenMethod => (S::METHOD_NOT_ALLOWED, "UNSUPPORTED", "Method Not Allowed"),
        Reason::WrongCredentials => {
            (S::TOO_MANY_REQUESTS, "TOOMANYREQUESTS", "too many wrong credentials; try again later")
        }
        Reason::NoEndpoint => {
            (S::SERVICE_UNAVAILABLE, "UNAVAILABLE", "the registry can't be reached; try again")
        }
        Reason::Outage => {
            (S::SERVICE_UNAVAILABLE, "UNAVAILABLE", "the registry's database can't be reached; try again")
        }
        Reason::CannotSign => {
            (S::SERVICE_UNAVAILABLE, "UNAVAILABLE", "the registry can't issue tokens; tell the operator")
        }
        Reason::Busy => (S::SERVICE_UNAVAILABLE, "UNAVAILABLE", "the registry is busy; try again"),
        Reason::UpstreamBroke => {
            (S::BAD_GATEWAY, "UNAVAILABLE", "the registry broke off its answer; try again")
        }
        Reason::UploadLost => (
            S::BAD_GATEWAY,
            "BLOB_UPLOAD_INVALID",
            "the registry broke off the upload, and did not let it begin anew; push again",
        ),
        Reason::UpstreamSlow => {
            (S::GATEWAY_TIMEOUT, "UNAVAILABLE", "the registry did not answer in time; try again")
        }
        Reason::BodyBroke => (S::BAD_REQUEST, "BLOB_UPLOAD_INVALID", "the request's body broke off"),
        Reason::RegistryPassword => (
            S::BAD_GATEWAY,
            "UNAVAILABLE",
            "Harbor and its registry disagree about the registry's password; tell the operator",
        ),
    }
}

/// Harbor's own answer to a ping without a credential (C1).
pub fn challenge(value: HeaderValue) -> Response<DownBody> {
    let body = error_body::registry("UNAUTHORIZED", "unauthorized: unauthorized");
    let mut response = Response::new(DownBody::whole(body));
    *response.status_mut() = StatusCode::UNAUTHORIZED;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    headers.insert("docker-distribution-api-version", HeaderValue::from_static("registry/2.0"));
    headers.insert(header::WWW_AUTHENTICATE, value);
    response
}

/// The answer for a reason.
pub fn reject(reason: Reason, request_id: &HeaderValue) -> Response<DownBody> {
    let (status, code, message) = answer_to(reason);
    let mut response = Response::new(DownBody::whole(error_body::registry(code, message)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    headers.insert("docker-distribution-api-version", HeaderValue::from_static("registry/2.0"));
    headers.insert(REQUEST_ID, request_id.clone());
    if matches!(reason, Reason::Unreadable | Reason::HeadTooLong) {
        // Where the body ends is not certain, or the client minds no limits: nothing after it is read.
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    match status {
        StatusCode::SERVICE_UNAVAILABLE => {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        StatusCode::TOO_MANY_REQUESTS => {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("10"));
        }
        StatusCode::UNAUTHORIZED => {
            headers.insert(header::WWW_AUTHENTICATE, crate::words::challenge::BASIC);
        }
        StatusCode::METHOD_NOT_ALLOWED => {
            headers.insert(header::ALLOW, HeaderValue::from_static("GET"));
        }
        _ => {}
    }
    response
}
