//! What goes down as an answer's body. At its end the connection goes back to the pool and the story is told.

use std::{
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::{
    context::Downstream,
    relay::{Relay, UpBody},
    story::Story,
};
use crate::{edges::pool::Lease, words::reason::Outcome};

/// An answer's body: one of ours, or one that streams through.
pub struct DownBody {
    kind: Kind,
    story: Option<Box<Story>>,
    downstream: Option<Rc<Downstream>>,
}

enum Kind {
    Whole(Option<Bytes>),
    Stream { live: Incoming, lease: Option<Lease<UpBody>>, sent: Option<Relay>, failed: bool },
}

impl DownBody {
    /// A body that is here already.
    pub fn whole(bytes: Bytes) -> Self {
        Self { kind: Kind::Whole((!bytes.is_empty()).then_some(bytes)), story: None, downstream: None }
    }

    /// The body of an endpoint's answer; `sent` is the request's body, which must have gone up whole before
    /// the connection may carry another exchange (A23).
    pub fn stream(live: Incoming, lease: Lease<UpBody>, sent: Option<Relay>) -> Self {
        Self {
            kind: Kind::Stream { live, lease: Some(lease), sent, failed: false },
            story: None,
            downstream: None,
        }
    }

    /// Hands over the story, to be told at the body's end, and the client's connection, which may be idle after it.
    pub fn tell(mut self, story: Box<Story>, downstream: Rc<Downstream>) -> Self {
        self.story = Some(story);
        self.downstream = Some(downstream);
        self
    }
}

impl Body for DownBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
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
            Kind::Stream { live, failed, .. } => {
                let frame = std::task::ready!(Pin::new(live).poll_frame(cx));
                *failed |= matches!(frame, Some(Err(_)));
                frame
            }
        };
        if let (Some(story), Some(Ok(frame))) = (&mut this.story, &frame) {
            story.bytes_out += frame.data_ref().map_or(0, |d| d.len() as u64);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Whole(bytes) => bytes.is_none(),
            Kind::Stream { live, .. } => live.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Kind::Stream { live, .. } => live.size_hint(),
        }
    }
}

impl Drop for DownBody {
    fn drop(&mut self) {
        let outcome = match &mut self.kind {
            Kind::Whole(_) => None,
            Kind::Stream { live, lease, sent, failed } => {
                let read = live.is_end_stream();
                let whole = sent.as_ref().is_none_or(Relay::ended);
                if let (true, true, Some(lease)) = (read, whole, lease.take()) {
                    lease.give_back();
                }
                if let (Some(story), Some(sent)) = (&mut self.story, sent) {
                    story.bytes_in = sent.passed();
                }
                match (read, *failed) {
                    (true, _) => None,
                    (false, true) => Some(Outcome::UpstreamFailed),
                    (false, false) => Some(Outcome::ClientGone),
                }
            }
        };
        if let (Some(story), Some(outcome)) = (&mut self.story, outcome) {
            story.outcome = outcome;
        }
        if let Some(downstream) = &self.downstream {
            downstream.end();
        }
    }
}
