//! Asking endpoints which key they hold (contract K11), how their clock stands and which Harbor they are.
//! No secret, no database look-up, no log line at core; one session in Redis, whose `sid` we send back.

pub mod reading;
pub mod rounds;

use std::{error::Error, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Collected, Empty, LengthLimitError, Limited};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;

use super::{fleet::Endpoint, pool};
pub use reading::{Finding, read_key};

/// The anonymous token request whose answer names the held key (K11).
pub const KEY_TARGET: &str = "/service/token?service=harbor-registry&scope=registry:catalog:*";
/// Bytes of an answer to us at most.
pub const LONGEST_ANSWER: usize = 64 * 1024;

/// An answer to one of our own questions.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskFault {
    /// Not within the time that was given.
    #[error("no answer in time")]
    Slow,
    /// No connection.
    #[error(transparent)]
    Connect(#[from] pool::ConnectFault),
    /// The connection broke, or the answer was none.
    #[error("the connection broke")]
    Http(#[source] hyper::Error),
    /// Longer than [`LONGEST_ANSWER`].
    #[error("the answer is too long")]
    TooLong,
    /// Cut.
    #[error("the answer broke off")]
    Cut,
}

/// Whether anything in an answer's body matters, by its head; a body that is not read is empty.
pub type Reads = fn(StatusCode, &HeaderMap) -> bool;

/// One anonymous GET over a connection of its own, on any runtime.
pub async fn ask(
    endpoint: &Endpoint,
    target: &str,
    sid: Option<&str>,
    within: Duration,
) -> Result<Answer, AskFault> {
    send(endpoint, question(endpoint, target, sid), |_, _| true, within).await
}

/// The same with an `Authorization`, judged by the head: its body is not waited for unless it `reads` it.
pub async fn ask_as(
    endpoint: &Endpoint,
    target: &str,
    authorization: HeaderValue,
    reads: Reads,
    within: Duration,
) -> Result<Answer, AskFault> {
    let mut request = question(endpoint, target, None);
    request.headers_mut().insert(header::AUTHORIZATION, authorization);
    send(endpoint, request, reads, within).await
}

async fn send(
    endpoint: &Endpoint,
    request: Request<Empty<Bytes>>,
    reads: Reads,
    within: Duration,
) -> Result<Answer, AskFault> {
    tokio::time::timeout(within, exchange(endpoint, request, reads)).await.map_err(|_| AskFault::Slow)?
}

async fn exchange(
    endpoint: &Endpoint,
    request: Request<Empty<Bytes>>,
    reads: Reads,
) -> Result<Answer, AskFault> {
    let stream = pool::connect(endpoint).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(AskFault::Http)?;
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(AskFault::Http)?;
        let (head, body) = answer.into_parts();
        let body = if reads(head.status, &head.headers) { whole(body).await? } else { Bytes::new() };
        Ok(Answer { status: head.status, headers: head.headers, body })
    };
    tokio::pin!(exchange);
    tokio::select! {
        biased;
        // The connection may end with its answer already read; the exchange then has it. Where it has none, the
        // connection knows why: in TLS 1.3 a missing client certificate is told after the handshake.
        ended = connection => match (exchange.await, ended) {
            (Err(AskFault::Http(_)), Err(why)) => Err(AskFault::Http(why)),
            (answer, _) => answer,
        },
        answer = &mut exchange => answer,
    }
}

async fn whole(body: Incoming) -> Result<Bytes, AskFault> {
    let body = Limited::new(body, LONGEST_ANSWER).collect().await;
    let fault = |error: Box<dyn Error + Send + Sync>| {
        if error.is::<LengthLimitError>() { AskFault::TooLong } else { AskFault::Cut }
    };
    body.map(Collected::to_bytes).map_err(fault)
}

fn question(endpoint: &Endpoint, target: &str, sid: Option<&str>) -> Request<Empty<Bytes>> {
    let mut request = Request::new(Empty::new());
    if let Ok(uri) = target.parse() {
        *request.uri_mut() = uri;
    }
    let headers = request.headers_mut();
    if let Ok(host) = HeaderValue::from_str(&endpoint.authority) {
        headers.insert(header::HOST, host);
    }
    headers.insert(
        header::USER_AGENT,
        HeaderValue::from_static(concat!("tidegate/", env!("CARGO_PKG_VERSION"))),
    );
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    if let Some(cookie) = sid.and_then(|sid| HeaderValue::from_str(&format!("sid={sid}")).ok()) {
        headers.insert(header::COOKIE, cookie);
    }
    request
}

/// The `sid` that an answer set, to be sent back with the next question (T15).
pub fn sid_of(headers: &HeaderMap) -> Option<Arc<str>> {
    headers.get_all(header::SET_COOKIE).iter().find_map(|value| {
        let text = value.to_str().ok()?.strip_prefix("sid=")?;
        text.split(';').next().map(Arc::from)
    })
}
