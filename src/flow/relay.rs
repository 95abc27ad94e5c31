//! A request's body on its way up, which the flow can take back: its head is kept until the endpoint has
//! shown that it accepts the request, and nothing behind the head leaves the client before that. The body of an upload
//! can be kept whole, and with it what its session has sent before.

use std::{
    cell::{Cell, RefCell},
    ops::Range,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
    time::Instant,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::{budget::Share, context::Waits, kept::Kept};
use crate::edges::wire::{Phase, Pulse};

/// What goes up as a request's body.
#[derive(Debug)]
pub enum UpBody {
    /// None.
    Empty,
    /// The client's, through a relay.
    Relay(RelayEnd),
}

/// The flow's hold on a body that is being relayed.
#[derive(Debug, Clone)]
pub struct Relay(Rc<Shared>);

#[derive(Debug)]
struct Shared {
    turn: Cell<u32>,
    ended: Cell<bool>,
    lost: Cell<bool>,
    passed: Cell<u64>,
    inner: RefCell<Inner>,
    pulse: Rc<Pulse>,
    waits: Option<Rc<Waits>>,
    size: SizeHint,
}

/// What an upload session has sent, shared by the bodies that are made of it.
pub type SharedKept = Rc<RefCell<Kept>>;

#[derive(Debug)]
struct Inner {
    live: Live,
    kept: Vec<Bytes>,
    kept_bytes: usize,
    share: Option<Share>,
    waker: Option<Waker>,
    full: bool,
    watcher: Option<Waker>,
    upload: Option<Upload>,
}

/// Where a body comes from when nothing of it is kept.
#[derive(Debug)]
enum Live {
    Client(Incoming),
    /// All of it is kept already.
    Nobody,
}

/// The upload that a body belongs to: its part of what is kept begins at `start`.
#[derive(Debug)]
struct Upload {
    kept: SharedKept,
    start: u64,
    /// Where it ends, if it is a part of what is kept and nothing else.
    end: Option<u64>,
}

/// hyper's end of a relay: one for each time that the request is sent.
#[derive(Debug)]
pub struct RelayEnd {
    shared: Rc<Shared>,
    turn: u32,
    next_kept: usize,
    /// Where it reads in the upload, until it has read all that is kept.
    at: Option<u64>,
}

/// The client went away, or sent what is no body, before the body's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body ended before its end")]
pub struct ClientGone;

/// Bytes of the largest chunk that hyper hands over at once: the head's last one may overrun by it.
pub const CHUNK: usize = 64 * 1024;

/// Bytes that a kept chunk takes beside its own: a handle, and the framing in the buffer that it is a slice of.
const EACH: usize = 64;

impl Relay {
    /// Takes over a client's body. Nothing of it is kept before [`Relay::keep_head`].
    pub fn new(live: Incoming, (pulse, waits): (Rc<Pulse>, Option<Rc<Waits>>)) -> Self {
        let size = live.size_hint();
        Self::made((Live::Client(live), size, None), (pulse, waits))
    }

    /// A part of what an upload has sent before.
    pub fn of_kept(kept: &SharedKept, part: Range<u64>) -> Self {
        let size = SizeHint::with_exact(part.end - part.start);
        let upload = Upload { kept: kept.clone(), start: part.start, end: Some(part.end) };
        Self::made((Live::Nobody, size, Some(upload)), (Rc::new(Pulse::default()), None))
    }

    fn made(
        (live, size, upload): (Live, SizeHint, Option<Upload>),
        (pulse, waits): (Rc<Pulse>, Option<Rc<Waits>>),
    ) -> Self {
        let inner = Inner {
            live,
            kept: Vec::new(),
            kept_bytes: 0,
            share: None,
            waker: None,
            full: false,
            watcher: None,
            upload,
        };
        Self(Rc::new(Shared {
            turn: Cell::new(0),
            ended: Cell::new(false),
            lost: Cell::new(false),
            passed: Cell::new(0),
            inner: RefCell::new(inner),
            pulse,
            waits,
            size,
        }))
    }

    /// Keeps the body's beginning, as much as `share` has room for, and lets no more than that go up before
    /// [`Relay::release`]. Without it nothing is kept and all flows.
    pub fn keep_head(&self, share: Share) {
        self.0.inner.borrow_mut().share = Some(share);
    }

    /// Keeps all of it from now on, behind what its upload has sent before.
    pub fn keep_all(&self, kept: &SharedKept) {
        let start = kept.borrow().length();
        self.0.inner.borrow_mut().upload = Some(Upload { kept: kept.clone(), start, end: None });
    }

    /// Where in its upload it begins.
    pub fn start(&self) -> Option<u64> {
        self.0.inner.borrow().upload.as_ref().map(|upload| upload.start)
    }

    /// Bytes of its head where `head` is the most that is kept of one.
    pub fn head_bytes(&self, head: usize) -> usize {
        self.0.size.exact().map_or(head, |n| head.min(usize::try_from(n).unwrap_or(head)))
    }

    /// Whether its head is kept.
    pub fn keeps_head(&self) -> bool {
        self.0.inner.borrow().share.is_some()
    }

    /// A body for one more send, from the first byte. Ends handed out before never yield again.
    pub fn end(&self) -> RelayEnd {
        let turn = self.0.turn.get() + 1;
        self.0.turn.set(turn);
        self.0.ended.set(false);
        let mut inner = self.0.inner.borrow_mut();
        inner.full = false;
        // A kept head is at hand; only where there is none are the bytes that were read fetched from the upload.
        let whole = inner.upload.as_ref().filter(|upload| upload.kept.borrow().is_whole());
        let at = whole.filter(|_| inner.share.is_none()).map(|upload| upload.start);
        if at.is_some() {
            inner.kept = Vec::new();
        }
        RelayEnd { shared: self.0.clone(), turn, next_kept: 0, at }
    }

    /// Whether all that has been read from the client is still kept, so that the body can be sent again.
    pub fn can_restart(&self) -> bool {
        let inner = self.0.inner.borrow();
        let kept = inner.upload.as_ref().is_some_and(|upload| upload.kept.borrow().is_whole());
        let untouched = self.0.passed.get() == 0 && matches!(inner.live, Live::Client(_));
        inner.share.is_some() || kept || untouched
    }

    /// Whether the whole body is known to fit into its kept head.
    pub fn fits_head(&self, head: usize) -> bool {
        self.0.size.exact().is_some_and(|n| n <= head as u64)
    }

    /// The endpoint has accepted the request: the head is dropped and the rest flows.
    pub fn release(&self) {
        let mut inner = self.0.inner.borrow_mut();
        inner.share = None;
        if let Some(waker) = inner.waker.take() {
            waker.wake();
        }
    }

    /// Completes when the head is up and the rest waits for [`Relay::release`]; never where the body fits.
    pub async fn filled(&self) {
        std::future::poll_fn(|cx| {
            let mut inner = self.0.inner.borrow_mut();
            if inner.full {
                return Poll::Ready(());
            }
            inner.watcher = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Whether the body's end has been handed to hyper.
    pub fn ended(&self) -> bool {
        self.0.ended.get()
    }

    /// Whether the client's side broke off.
    pub fn client_gone(&self) -> bool {
        self.0.lost.get()
    }

    /// Bytes read from the client so far.
    pub fn passed(&self) -> u64 {
        self.0.passed.get()
    }
}

impl RelayEnd {
    fn poll_kept(&mut self, inner: &mut Inner) -> Option<Bytes> {
        let chunk = inner.kept.get(self.next_kept)?.clone();
        self.next_kept += 1;
        if self.next_kept == inner.kept.len() && inner.live.is_end() {
            self.shared.ended.set(true);
        }
        Some(chunk)
    }

    /// What its upload has kept of it; `None` behind that.
    fn poll_upload(
        &mut self,
        inner: &mut Inner,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, ClientGone>>> {
        let (Some(at), Some(upload)) = (self.at, &inner.upload) else { return Poll::Ready(None) };
        if upload.end.is_some_and(|end| at >= end) {
            self.at = None;
            self.shared.ended.set(true);
            return Poll::Ready(None);
        }
        let read = ready!(upload.kept.borrow_mut().poll_read(at, cx));
        match read {
            Ok(Some(mut bytes)) => {
                if let Some(end) = upload.end {
                    bytes.truncate(usize::try_from(end - at).unwrap_or(usize::MAX));
                }
                let at = at + bytes.len() as u64;
                self.at = Some(at);
                let last = upload.end.unwrap_or_else(|| upload.kept.borrow().length());
                if at >= last && inner.live.is_end() {
                    self.at = None;
                    self.shared.ended.set(true);
                }
                Poll::Ready(Some(Ok(bytes)))
            }
            Ok(None) => {
                self.at = None;
                Poll::Ready(None)
            }
            Err(fault) => {
                tracing::warn!(cause = %fault, "uploads.spool: an upload can't be read again");
                upload.kept.borrow_mut().drop_all();
                Poll::Ready(Some(Err(ClientGone)))
            }
        }
    }

    fn poll_live(
        &mut self,
        inner: &mut Inner,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, ClientGone>>> {
        let keeps = inner.share.as_ref().map(Share::bytes);
        if keeps.is_none() && !inner.kept.is_empty() {
            inner.kept = Vec::new();
            self.next_kept = 0;
        }
        let full = |most| inner.kept_bytes > 0 && inner.kept_bytes + CHUNK > most;
        if keeps.is_some_and(|most| self.whole() > most as u64 && full(most)) {
            inner.waker = Some(cx.waker().clone());
            inner.full = true;
            if let Some(watcher) = inner.watcher.take() {
                watcher.wake();
            }
            return Poll::Pending;
        }
        if let Some(upload) = &inner.upload {
            ready!(upload.kept.borrow_mut().poll_room(cx));
        }
        let frame = match inner.live.poll_frame(cx) {
            Poll::Pending => {
                self.wait();
                return Poll::Pending;
            }
            Poll::Ready(frame) => frame,
        };
        self.shared.pulse.enter(Phase::Busy);
        if let Some(waits) = &self.shared.waits {
            waits.body.set(None);
        }
        match frame {
            None => {
                self.shared.ended.set(true);
                Poll::Ready(None)
            }
            Some(Err(_)) => {
                self.shared.lost.set(true);
                Poll::Ready(Some(Err(ClientGone)))
            }
            Some(Ok(frame)) => match frame.into_data() {
                // Trailers of a request mean nothing to Harbor, and names in them could (hostile input).
                Err(_) => self.poll_live(inner, cx),
                Ok(chunk) => {
                    self.shared.passed.set(self.shared.passed.get() + chunk.len() as u64);
                    if keeps.is_some() {
                        inner.kept_bytes += chunk.len() + EACH;
                        inner.kept.push(chunk.clone());
                        self.next_kept = inner.kept.len();
                    }
                    if let Some(upload) = &inner.upload {
                        upload.kept.borrow_mut().push(&chunk);
                    }
                    if inner.live.is_end() {
                        self.shared.ended.set(true);
                    }
                    Poll::Ready(Some(Ok(chunk)))
                }
            },
        }
    }

    fn whole(&self) -> u64 {
        self.shared.size.exact().unwrap_or(u64::MAX)
    }

    fn wait(&self) {
        if let Some(waits) = &self.shared.waits {
            waits.body.set(waits.body.get().or_else(|| Some(Instant::now())));
            return;
        }
        if self.shared.pulse.phase() != Phase::Body {
            self.shared.pulse.enter(Phase::Body);
        }
    }
}

impl Live {
    fn is_end(&self) -> bool {
        match self {
            Self::Client(body) => body.is_end_stream(),
            Self::Nobody => true,
        }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self {
            Self::Client(body) => Pin::new(body).poll_frame(cx),
            Self::Nobody => Poll::Ready(None),
        }
    }
}

impl Body for UpBody {
    type Data = Bytes;
    type Error = ClientGone;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ClientGone>>> {
        let Self::Relay(end) = &mut *self else { return Poll::Ready(None) };
        if end.turn != end.shared.turn.get() {
            // Taken back. An error here would make hyper fail the answer too.
            return Poll::Pending;
        }
        let shared = end.shared.clone();
        let mut inner = shared.inner.borrow_mut();
        if let Some(chunk) = end.poll_kept(&mut inner) {
            return Poll::Ready(Some(Ok(Frame::data(chunk))));
        }
        if let Some(chunk) = ready!(end.poll_upload(&mut inner, cx)) {
            return Poll::Ready(Some(chunk.map(Frame::data)));
        }
        end.poll_live(&mut inner, cx).map_ok(Frame::data)
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Relay(end) => {
                let inner = end.shared.inner.borrow();
                end.turn == end.shared.turn.get()
                    && end.next_kept >= inner.kept.len()
                    && end.at.is_none()
                    && inner.live.is_end()
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Relay(end) => end.shared.size,
        }
    }
}
