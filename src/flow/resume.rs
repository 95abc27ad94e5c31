//! A pull that core broke off goes on: the rest is asked for by a plan of its own, wherever an endpoint answers, and
//! joined to what the client has.

use std::{
    cell::Cell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Instant,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Uri, header, response};
use http_body::{Body as _, Frame};
use hyper::body::Incoming;

use super::{
    body::DownBody,
    context::{Downstream, InFlight, Worker},
    headers,
    registry::{self, Ask, Bearer},
    relay::UpBody,
    send::{Outgoing, origin_form},
    story::Story,
};
use crate::{
    decisions::{
        outage::Need,
        plan::Standing,
        resume::{Misfit, Promise, Tries, Way},
    },
    edges::{fleet::Endpoint, pool::Lease},
    words::{
        reason::{Reason, Rescue},
        route::{self, Kind, Registry, Route},
    },
};

/// What is said of an endpoint that ended a connection in the middle of an answer.
const CUT: &str = "it closed the connection in the middle of an answer";

/// What the rest of an answer can be asked for with, should it break off. Every pull has one: it holds no byte of
/// the body, and of the request what an endpoint needs to know again.
pub struct Pull {
    promise: Promise,
    tries: Tries,
    /// Bytes of the present connection's body that the client has.
    skip: u64,
    /// When the endpoint's last bytes came.
    heard: Instant,
    asked: AskedWith,
    bearer: Option<Bearer>,
    under_way: Option<UnderWay>,
}

/// The headers that an answer was asked for with.
enum AskedWith {
    /// All of them, while it may come at once.
    Whole(HeaderMap),
    /// What its continuation needs.
    Needed(Box<[(HeaderName, HeaderValue)]>),
}

/// The answer to a continuation, and its story.
type Continued = (Result<Response<DownBody>, Reason>, Story);

/// Why a pull ends where it broke off.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("there is no answer to the request for its rest")]
    Unanswered(Reason),
    #[error("{0} is not its rest: {1}")]
    Misfit(StatusCode, Misfit),
    #[error("its rest is not Harbor's")]
    Ours,
}

impl Lost {
    fn reason(&self) -> Option<Reason> {
        match self {
            Self::Unanswered(reason) => Some(*reason),
            Self::Misfit(..) | Self::Ours => None,
        }
    }
}

struct UnderWay {
    broke: hyper::Error,
    asking: Pin<Box<dyn Future<Output = Continued>>>,
}

/// What a stream goes on with.
pub type Rest = (Incoming, Lease<UpBody>);

impl Pull {
    /// For an answer with this head to `outgoing`, whose headers and bearer it takes over; `None` where its rest could
    /// not be told from another's.
    pub fn of(
        outgoing: &mut Outgoing,
        registry: &Registry<'_>,
        bearer: &mut Option<Bearer>,
        (head, live): (&response::Parts, &Incoming),
    ) -> Option<Box<Self>> {
        let way = match registry.kind {
            Kind::Blob => Way::Range,
            Kind::Manifest => Way::Again,
            _ => return None,
        };
        if outgoing.method != Method::GET || outgoing.body.is_some() {
            return None;
        }
        let length = live.size_hint().exact()?;
        let ranged = || outgoing.headers.contains_key(header::RANGE);
        let promise = Promise::of(way, ranged, length, (head.status, &head.headers))?;
        Some(Box::new(Self {
            promise,
            tries: Tries::default(),
            skip: 0,
            heard: Instant::now(),
            asked: AskedWith::Whole(std::mem::take(&mut outgoing.headers)),
            bearer: bearer.take(),
            under_way: None,
        }))
    }

    /// Bytes that the client still has to get.
    pub fn left(&self) -> u64 {
        self.promise.left()
    }

    /// What of a frame the client does not have yet; `None` where it has all of it.
    pub fn pass(&mut self, frame: Frame<Bytes>) -> Option<Frame<Bytes>> {
        let mut chunk = match frame.into_data() {
            Ok(chunk) => chunk,
            Err(trailers) => return Some(trailers),
        };
        self.heard = Instant::now();
        let had = usize::try_from(self.skip).unwrap_or(usize::MAX).min(chunk.len());
        self.skip -= had as u64;
        let new = chunk.split_off(had);
        if new.is_empty() {
            return None;
        }
        self.promise.kept(new.len() as u64);
        self.tries.brought();
        if self.left() > 0 {
            self.asked.settle(self.promise.way());
        }
        Some(Frame::data(new))
    }

    /// Asks for the rest of an answer that `broke` off at `endpoint`; the error comes back where that is no use.
    pub fn begin(
        &mut self,
        broke: hyper::Error,
        endpoint: &Endpoint,
        story: &Story,
        in_flight: &InFlight,
    ) -> Result<(), hyper::Error> {
        if !self.tries.take() {
            return Err(broke);
        }
        let pause = self.tries.pause();
        if pause.is_zero() {
            // What breaks again and again without a byte is the blob's fault, not the endpoint's.
            self.eject(endpoint, story);
        }
        self.asked.settle(self.promise.way());
        let uri = origin_form(&story.uri);
        let outgoing = Outgoing {
            method: Method::GET,
            uri: uri.clone(),
            headers: self.headers(story),
            body: None,
            sends: Cell::default(),
            basic_sent: None,
        };
        let owners = (story.worker.clone(), in_flight.downstream.clone());
        let mut told = Story::silent(&story.worker, story.client);
        told.client_text = story.client_text.clone();
        let bearer = self.bearer.clone();
        let asking = Box::pin(async move {
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            ask(owners, uri, outgoing, bearer, told).await
        });
        self.under_way = Some(UnderWay { broke, asking });
        Ok(())
    }

    /// A core that stops does not drain: it is not used again before it answers a probe (U8). A client that reads
    /// slowly finds out late: an endpoint that has answered a probe since its last byte is left alone.
    fn eject(&self, endpoint: &Endpoint, story: &Story) {
        let worker = &story.worker;
        let fleet = &worker.shared.fleet;
        let snapshot = fleet.snapshot();
        let Some(status) = snapshot.by_id(endpoint.id) else { return };
        if status.probed.is_some_and(|probed| probed > self.heard) {
            return;
        }
        worker.shared.failed_after_all(&worker.shared.policy.load(), endpoint, story.client);
        if status.standing == Standing::Healthy {
            fleet.eject(endpoint, CUT);
            worker.shared.probe_now.notify_one();
        }
    }

    /// What the stream goes on with, once it is there; `None` where nothing is under way. The error is the one that
    /// the answer broke off with.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        story: &mut Story,
    ) -> Poll<Option<Result<Rest, hyper::Error>>> {
        let Some(under_way) = &mut self.under_way else { return Poll::Ready(None) };
        let (answer, told) = ready!(under_way.asking.as_mut().poll(cx));
        let Some(UnderWay { broke, .. }) = self.under_way.take() else { return Poll::Ready(None) };
        story.sends += told.sends;
        Poll::Ready(Some(match answer.map_err(Lost::Unanswered).and_then(|answer| self.join(answer)) {
            Ok(rest) => {
                story.endpoint.clone_from(&told.endpoint);
                story.plan = told.plan;
                story.rescued(Rescue::PullResumed);
                Ok(rest)
            }
            Err(lost) => {
                let reason = lost.reason().or(told.refusal).unwrap_or(Reason::UpstreamBroke);
                story.refusal = Some(reason);
                let id = story.id.to_str().unwrap_or_default();
                tracing::info!(request_id = id, reason = reason.name(), cause = %lost, "a pull broke off and could not be continued");
                Err(broke)
            }
        }))
    }

    fn join(&mut self, answer: Response<DownBody>) -> Result<Rest, Lost> {
        let (head, body) = answer.into_parts();
        let joined = self.promise.join(head.status, &head.headers);
        self.skip = joined.map_err(|misfit| Lost::Misfit(head.status, misfit))?;
        self.heard = Instant::now();
        body.into_rest().ok_or(Lost::Ours)
    }

    fn headers(&self, story: &Story) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if let AskedWith::Needed(needed) = &self.asked {
            for (name, value) in needed {
                headers.append(name, value.clone());
            }
        }
        headers.insert(headers::REQUEST_ID, story.id.clone());
        headers::set_real_ip(&mut headers, &story.client_text);
        headers.extend(self.promise.range().map(|range| (header::RANGE, range)));
        headers
    }
}

impl AskedWith {
    /// Lets go of what no continuation needs. Most answers come whole with their first bytes and never pay for this.
    fn settle(&mut self, way: Way) {
        if let Self::Whole(headers) = self {
            *self = Self::Needed(needed(std::mem::take(headers), way));
        }
    }
}

/// Sends a continuation as any request is sent: under the policy, keys and endpoints of now (A19), waiting where
/// there is no endpoint.
async fn ask(
    (worker, downstream): (Rc<Worker>, Rc<Downstream>),
    uri: Uri,
    outgoing: Outgoing,
    bearer: Option<Bearer>,
    mut told: Story,
) -> Continued {
    let policy = worker.shared.policy.load_full();
    let path = route::plain(uri.path());
    let registry = match path.as_deref().map(Route::of) {
        Ok(Route::Registry(registry)) if policy.enforce => registry,
        // Observe mode began meanwhile (A27).
        _ => return (Err(Reason::UpstreamBroke), told),
    };
    let (within, park) = (policy.registry_timeout, policy.park);
    let need = Need::Database;
    let ask = Ask {
        outgoing,
        registry: Some(registry),
        bearer,
        within,
        park,
        patience: None,
        need,
        portal: false,
        of_client: false,
    };
    let answer = registry::forward(&worker, Some(&downstream), &policy, ask, &mut told).await;
    (answer, told)
}

/// What of a request's headers its continuation needs; the rest of them would ask for something else, or for nothing.
fn needed(headers: HeaderMap, way: Way) -> Box<[(HeaderName, HeaderValue)]> {
    let goes_on = |name: &HeaderName| {
        *name == header::HOST
            || *name == header::AUTHORIZATION
            || *name == header::USER_AGENT
            // Without it a manifest is another one (F5).
            || (*name == header::ACCEPT && way == Way::Again)
            || name.as_str().starts_with("x-forwarded-")
    };
    let mut last = None;
    let all = headers.into_iter().filter_map(|(name, value)| {
        // A name comes with the first of its values.
        last = name.or_else(|| last.take());
        last.clone().filter(goes_on).map(|name| (name, value))
    });
    all.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pull_holds_little_beside_its_headers() {
        assert!(size_of::<Pull>() <= 288, "{}", size_of::<Pull>());
    }

    #[test]
    fn a_continuation_asks_for_the_same_and_for_nothing_else() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("host", "h"),
            ("accept", "a/b"),
            ("accept", "c/d"),
            ("authorization", "Bearer x"),
            ("x-forwarded-for", "192.0.2.1"),
            ("x-real-ip", "192.0.2.1"),
            ("range", "bytes=0-"),
            ("if-none-match", "\"x\""),
            ("accept-encoding", "gzip"),
        ] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let names = |way| {
            let mut names: Vec<_> =
                needed(headers.clone(), way).iter().map(|(name, _)| name.to_string()).collect();
            names.sort_unstable();
            names.join(" ")
        };
        assert_eq!(names(Way::Range), "authorization host x-forwarded-for");
        assert_eq!(names(Way::Again), "accept accept authorization host x-forwarded-for");
    }
}
