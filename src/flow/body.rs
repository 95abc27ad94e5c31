//! What goes down as an answer's body. At its end the connection goes back to the pool and the story is told.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Instant,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::{
    context::InFlight,
    relay::{Relay, UpBody},
    resume::{Pull, Rest},
    story::Story,
};
use crate::{edges::pool::Lease, words::reason::Outcome};

/// An answer's body: one of ours, or one that streams through.
pub struct DownBody {
    kind: Kind,
    story: Option<Box<Story>>,
    in_flight: Option<InFlight>,
}

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Whole,
    Broken,
}

enum Kind {
    Whole(Option<Bytes>),
    Stream(Stream),
}

struct Stream {
    live: Incoming,
    lease: Option<Lease<UpBody>>,
    sent: Option<Relay>,
    end: Option<End>,
    pull: Option<Box<Pull>>,
}

impl DownBody {
    /// A body that is here already.
    pub fn whole(bytes: Bytes) -> Self {
        Self { kind: Kind::Whole((!bytes.is_empty()).then_some(bytes)), story: None, in_flight: None }
    }

    /// The body of an endpoint's answer; `sent` is the request's body, which must have gone up whole before
    /// the connection may carry another exchange (A23). With a `pull` it goes on where it breaks off.
    pub fn stream(
        live: Incoming,
        lease: Lease<UpBody>,
        sent: Option<Relay>,
        pull: Option<Box<Pull>>,
    ) -> Self {
        let stream = Stream { live, lease: Some(lease), sent, end: None, pull };
        Self { kind: Kind::Stream(stream), story: None, in_flight: None }
    }

    /// What another stream can go on with; `None` where it is a body of ours.
    pub fn into_rest(mut self) -> Option<Rest> {
        match std::mem::replace(&mut self.kind, Kind::Whole(None)) {
            Kind::Stream(stream) => Some((stream.live, stream.lease?)),
            Kind::Whole(_) => None,
        }
    }

    /// Hands over the story, to be told at the body's end, and the request's hold on the client's connection, which
    /// may be idle after it.
    pub fn tell(mut self, story: Box<Story>, in_flight: InFlight) -> Self {
        self.story = Some(story);
        self.in_flight = Some(in_flight);
        self.wait_for_client();
        self
    }
}

impl DownBody {
    /// hyper asks for more when the client has taken what it has: until then the client keeps us waiting.
    fn wait_for_client(&self) {
        if let Some(waits) = self.in_flight.as_ref().and_then(|f| f.waits.as_ref()) {
            waits.answer.set(Some(Instant::now()));
        }
    }

    fn client_asks(&self) {
        if let Some(waits) = self.in_flight.as_ref().and_then(|f| f.waits.as_ref()) {
            waits.answer.set(None);
        }
    }
}

impl Stream {
    /// The next frame. An answer that broke off goes on as soon as its rest is there; until then the client, which
    /// has asked for more, waits.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        mut story: Option<&mut Story>,
        in_flight: Option<&InFlight>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        loop {
            if let (Some(pull), Some(story)) = (&mut self.pull, story.as_deref_mut()) {
                match ready!(pull.poll(cx, story)) {
                    None => {}
                    Some(Ok((live, lease))) => (self.live, self.lease) = (live, Some(lease)),
                    Some(Err(error)) => return Poll::Ready(Some(Err(self.broke(error)))),
                }
            }
            let frame = match ready!(Pin::new(&mut self.live).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => {
                    if let Err(error) = self.go_on(error, story.as_deref(), in_flight) {
                        return Poll::Ready(Some(Err(self.broke(error))));
                    }
                    continue;
                }
                None => {
                    self.end = Some(End::Whole);
                    return Poll::Ready(None);
                }
            };
            let new = match &mut self.pull {
                Some(pull) => pull.pass(frame),
                None => Some(frame),
            };
            if new.is_some() {
                return Poll::Ready(new.map(Ok));
            }
        }
    }

    /// Asks for the rest; the error comes back where that can't be.
    fn go_on(
        &mut self,
        broke: hyper::Error,
        story: Option<&Story>,
        in_flight: Option<&InFlight>,
    ) -> Result<(), hyper::Error> {
        // The connection is closed here, before another is asked for.
        let endpoint = self.lease.take().map(|lease| lease.endpoint().clone());
        match (&mut self.pull, endpoint, story, in_flight) {
            (Some(pull), Some(endpoint), Some(story), Some(in_flight)) => {
                pull.begin(broke, &endpoint, story, in_flight)
            }
            _ => Err(broke),
        }
    }

    fn broke(&mut self, error: hyper::Error) -> hyper::Error {
        self.pull = None;
        self.end = Some(End::Broken);
        error
    }
}

impl Body for DownBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.client_asks();
        let this = &mut *self;
        let frame = match &mut this.kind {
            Kind::Whole(bytes) => {
                return Poll::Ready(bytes.take().map(|b| {
                    if let Some(story) = &mut this.story {
                        story.bytes_out += b.len() as u64;
                    }
                    Ok(Frame::data(b))
                }));
            }
            Kind::Stream(stream) => {
                ready!(stream.poll(cx, this.story.as_deref_mut(), this.in_flight.as_ref()))
            }
        };
        if let (Some(story), Some(Ok(frame))) = (&mut this.story, &frame) {
            story.bytes_out += frame.data_ref().map_or(0, |d| d.len() as u64);
        }
        if frame.is_some() {
            this.wait_for_client();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Whole(bytes) => bytes.is_none(),
            Kind::Stream(stream) => stream.live.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Kind::Stream(Stream { pull: Some(pull), .. }) => SizeHint::with_exact(pull.left()),
            Kind::Stream(stream) => stream.live.size_hint(),
        }
    }
}

impl Drop for DownBody {
    fn drop(&mut self) {
        let outcome = match &mut self.kind {
            Kind::Whole(_) => None,
            Kind::Stream(Stream { live, lease, sent, end, .. }) => {
                // A chunked body's end shows only in its last frame.
                let read = live.is_end_stream() || *end == Some(End::Whole);
                let whole = sent.as_ref().is_none_or(Relay::ended);
                if let (true, true, Some(lease)) = (read, whole, lease.take()) {
                    lease.give_back();
                }
                if let (Some(story), Some(sent)) = (&mut self.story, sent) {
                    story.bytes_in = sent.passed();
                }
                match (read, *end) {
                    (true, _) => None,
                    (false, Some(_)) => Some(Outcome::UpstreamFailed),
                    (false, None) => Some(Outcome::ClientGone),
                }
            }
        };
        if let (Some(story), Some(outcome)) = (&mut self.story, outcome) {
            story.outcome = outcome;
        }
    }
}
