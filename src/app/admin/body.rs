//! The body of a request that changes something: JSON, of a length that its path allows.

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use serde::de::DeserializeOwned;

use super::answer;

/// What it says, or the answer that tells what is wrong with it.
pub(super) async fn json<T: DeserializeOwned>(
    body: Incoming,
    longest: usize,
) -> Result<T, Response<Full<Bytes>>> {
    let read = Limited::new(body, longest).collect().await;
    let read = read.map_err(|_| {
        let said = format!("the body didn't come whole, or is longer than {longest} bytes");
        answer::error(StatusCode::BAD_REQUEST, &said)
    })?;
    serde_json::from_slice(&read.to_bytes())
        .map_err(|error| answer::error(StatusCode::BAD_REQUEST, &format!("the body can't be read: {error}")))
}
