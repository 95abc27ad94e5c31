//! `/v1/ramp`.

use bytes::Bytes;
use http::{Method, Response, StatusCode, request::Parts};
use http_body_util::Full;
use hyper::body::Incoming;

use super::{Operator, answer, body};
use crate::app::ramp::Steer;

/// `{"set":100}` and white space.
const LONGEST: usize = 1024;

/// `None` where the path is not the ramp's. A POST says what to make of it: `{"set":30}`, `"stop"`, `"resume"`.
pub(super) async fn handle<O: Operator>(
    head: &Parts,
    sent: Incoming,
    operator: &O,
) -> Option<Response<Full<Bytes>>> {
    if head.uri.path() != "/v1/ramp" {
        return None;
    }
    if head.method == Method::POST {
        match body::json::<Steer>(sent, LONGEST).await {
            Err(answer) => return Some(answer),
            Ok(Steer::Set(share)) if share > 100 => {
                return Some(answer::error(StatusCode::BAD_REQUEST, "a share is 0 to 100"));
            }
            Ok(how) => {
                if operator.steer(how) {
                    tracing::warn!(how = ?how, "an operator steered the ramp");
                }
            }
        }
    } else if !matches!(head.method, Method::GET | Method::HEAD) {
        return Some(answer::method("GET, HEAD, POST"));
    }
    Some(match operator.status().ramp {
        Some(ramp) => answer::json(StatusCode::OK, &ramp),
        None => answer::error(StatusCode::NOT_FOUND, "there is no ramp: no endpoint has side = \"next\""),
    })
}
