//! One request to one endpoint: leased connection, head of the answer in time, sent again only where that is
//! certain to do no harm (A22).

use std::{cell::Cell, rc::Rc, time::Instant};

use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri, header};
use hyper::body::Incoming;

use super::{
    context::Worker,
    relay::{Relay, UpBody},
};
use crate::{
    edges::{
        pool::{ConnectFault, Lease},
        wire::Patience,
    },
    words::route::Registry,
};

/// A request that may have to be sent more than once.
pub struct Outgoing {
    /// Its method.
    pub method: Method,
    /// Its path and query, byte for byte.
    pub uri: Uri,
    /// Its headers, `Authorization` as it came.
    pub headers: HeaderMap,
    /// Its body; `None` where it has none.
    pub body: Option<Relay>,
    /// How often it was sent.
    pub sends: Cell<usize>,
    /// When it was sent last, where it carries a client's Basic: core sleeps over a wrong one (C6).
    pub basic_sent: Option<Cell<Instant>>,
}

/// The head of an answer, and the connection that its body comes over.
pub struct Answered {
    /// The answer.
    pub response: Response<Incoming>,
    /// Its connection.
    pub lease: Lease<UpBody>,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum SendFault {
    /// Nothing was sent: another endpoint may be tried.
    NotSent(ConnectFault),
    /// The connection broke before any byte of an answer; `harmless` where nothing can have happened by it.
    Broke {
        /// Whether it may be sent again (A22).
        harmless: bool,
    },
    /// No head of an answer in time.
    Slow,
    /// None, and the endpoint hangs.
    Hangs,
    /// The client left, or its body broke off.
    ClientGone,
}

impl Outgoing {
    /// The request as it goes up; its `Authorization` is `authorization`, or as it came.
    pub fn request(&self, authorization: Option<&HeaderValue>) -> Request<UpBody> {
        let body = self.body.as_ref().map_or(UpBody::Empty, |relay| UpBody::Relay(relay.end()));
        self.sends.set(self.sends.get() + 1);
        if let Some(sent) = &self.basic_sent {
            sent.set(Instant::now());
        }
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        if let Some(value) = authorization {
            request.headers_mut().insert(header::AUTHORIZATION, value.clone());
        }
        request
    }

    /// Whether a connection that broke before any answer byte can have done nothing by this request: safe
    /// methods, the opening of an upload.
    pub fn harmless_twice(&self, registry: Option<&Registry<'_>>) -> bool {
        let safe = self.method == Method::GET || self.method == Method::HEAD;
        let opens = registry.is_some_and(|r| r.opens_upload(&self.method));
        (safe || opens) && self.restartable()
    }

    /// Whether no answer has come, or of a safe request a part of its head only: nobody was told of it. A head that
    /// is none would come again.
    fn unanswered(&self, lease: &Lease<UpBody>, error: &hyper::Error) -> bool {
        let safe = self.method == Method::GET || self.method == Method::HEAD;
        !lease.answered() || (safe && !error.is_parse())
    }

    /// Whether nothing of its body has been let go.
    pub fn restartable(&self) -> bool {
        self.body.as_ref().is_none_or(Relay::can_restart)
    }
}

/// A request target with nothing but path and query.
pub fn origin_form(uri: &Uri) -> Uri {
    if uri.authority().is_none() && uri.scheme().is_none() {
        return uri.clone();
    }
    uri.path_and_query().cloned().map_or_else(|| Uri::from_static("/"), Uri::from)
}

/// Sends over `lease` with `authorization` in the place of what came; a pooled connection that turns out to be stale
/// is replaced by a new one.
pub async fn exchange(
    (worker, outgoing): (&Rc<Worker>, &Outgoing),
    mut lease: Lease<UpBody>,
    authorization: Option<&HeaderValue>,
    harmless: bool,
    patience: Patience,
) -> Result<Answered, SendFault> {
    let mut fault = match lease.send(outgoing.request(authorization), Some(patience)).await {
        Ok(response) => return Ok(Answered { response, lease }),
        Err(_) if lease.is_given_up() => return Err(SendFault::Hangs),
        Err(_) if lease.is_overdue() => return Err(SendFault::Slow),
        Err(fault) => fault,
    };
    if outgoing.body.as_ref().is_some_and(Relay::client_gone) {
        return Err(SendFault::ClientGone);
    }
    // What was let go meanwhile can't be sent whole again.
    let harmless = harmless && outgoing.restartable() && outgoing.unanswered(&lease, fault.error());
    let unsent = fault.take_message().is_some();
    if unsent {
        outgoing.sends.set(outgoing.sends.get() - 1);
    }
    if !(unsent || harmless && lease.reused()) {
        return Err(SendFault::Broke { harmless });
    }
    // Boxed: rare, and as large as all the rest.
    Box::pin(once_more((worker, outgoing), lease, authorization, harmless, patience)).await
}

async fn once_more(
    (worker, outgoing): (&Rc<Worker>, &Outgoing),
    stale: Lease<UpBody>,
    authorization: Option<&HeaderValue>,
    harmless: bool,
    patience: Patience,
) -> Result<Answered, SendFault> {
    let (endpoint, client) = (stale.endpoint().clone(), stale.client());
    drop(stale);
    let mut lease = worker.pool.fresh(&endpoint, client).await.map_err(SendFault::NotSent)?;
    match lease.send(outgoing.request(authorization), Some(patience)).await {
        Ok(response) => Ok(Answered { response, lease }),
        Err(_) if lease.is_given_up() => Err(SendFault::Hangs),
        Err(_) if lease.is_overdue() => Err(SendFault::Slow),
        Err(_) if outgoing.body.as_ref().is_some_and(Relay::client_gone) => Err(SendFault::ClientGone),
        Err(fault) => {
            let unanswered = outgoing.unanswered(&lease, fault.error());
            Err(SendFault::Broke { harmless: harmless && outgoing.restartable() && unanswered })
        }
    }
}
