//! A step of a push whose endpoint stopped: a new upload session is begun, all that was sent before goes up again, and
//! the step goes on there as if nothing had happened (U8, U9, A22, A24).

use std::{cell::RefCell, rc::Rc, sync::Arc};

use http::{HeaderName, HeaderValue, Method, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Limited};

use super::{Ask, Passage, forward, judge::Owner};
use crate::{
    edges::probe::LONGEST_ANSWER,
    flow::{
        body::DownBody,
        kept::Kept,
        known::Judgement,
        relay::{Relay, SharedKept},
        send::Outgoing,
        story::Story,
        uploads,
    },
    words::{
        credential::basic_user,
        reason::{Reason, Rescue},
        route::{Kind, Registry},
    },
};

/// What a step of a push needs to be sent anew.
pub(super) struct Push {
    /// All that its upload has sent, or the whole of a manifest.
    pub(super) kept: SharedKept,
    principal: Arc<str>,
    restarts: usize,
    stumbles: usize,
}

/// Upload sessions that one step may begin: a core that stops so often has another fault.
const RESTARTS: usize = 32;
/// Of them, after answers 502, 503 or 504: bytes of the body may be what an endpoint stumbles over.
const STUMBLES: usize = 3;

/// What is said of a body, and is not true of one that begins elsewhere.
const OF_THE_BODY: [HeaderName; 5] = [
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    header::CONTENT_TYPE,
    header::TRANSFER_ENCODING,
    header::CONTENT_ENCODING,
];

impl Passage<'_> {
    /// Takes up what the upload has sent before, and keeps what comes; to be called once, before the first send.
    pub(super) fn take_up(&mut self, judgement: Option<&Judgement>) {
        let Some(registry) = &self.registry else { return };
        let (method, body) = (&self.outgoing.method, &self.outgoing.body);
        let opens = registry.opens_upload(method);
        let manifest = registry.kind == Kind::Manifest && *method == Method::PUT;
        let step = registry.kind == Kind::Upload && matches!(*method, Method::PATCH | Method::PUT);
        if !(opens || step || manifest) || !self.of_client || self.park.is_zero() {
            return;
        }
        let proved = self.proved(judgement);
        // Nobody's uploads are kept, nor what a stranger could have written.
        let principal = match &proved {
            Some(Owner::Principal(name)) => Some(name.clone()),
            Some(Owner::Nobody) => None,
            None => self.basic_user(),
        };
        let Some(principal) = principal else { return };
        let uploads = &self.worker.shared.uploads;
        let kept = if step {
            uploads.take(&uploads::name(&principal, registry.repository, &self.outgoing.uri))
        } else if proved.is_some() || body.is_none() {
            Some(Kept::new(uploads.stores.clone(), self.story.client, principal.clone()))
        } else {
            None
        };
        let Some(kept) = kept else { return };
        let kept = Rc::new(RefCell::new(kept));
        if let Some(relay) = body {
            relay.keep_all(&kept);
        }
        self.push = Some(Box::new(Push { kept, principal, restarts: 0, stumbles: 0 }));
    }

    /// The name in a Basic credential. Harbor opened the upload that it goes on with, or refuses it.
    fn basic_user(&self) -> Option<Arc<str>> {
        let value = self.outgoing.headers.get(header::AUTHORIZATION)?;
        self.bearer.is_none().then(|| basic_user(value)).flatten().map(|name| Arc::from(&*name))
    }

    /// Puts the upload under the `Location` that its client goes on with.
    pub(super) fn settle_push(&mut self, response: &Response<DownBody>) {
        let (Some(push), Some(registry)) = (self.push.take(), &self.registry) else { return };
        let whole = self.outgoing.body.as_ref().is_none_or(Relay::ended);
        let goes_on = response.status() == StatusCode::ACCEPTED && whole && registry.kind != Kind::Manifest;
        let Some(location) = goes_on.then(|| location_of(response)).flatten() else { return };
        let handed_on = push.kept.borrow().handed_on();
        let kept = push.kept.replace(handed_on);
        if kept.is_whole() {
            let name = uploads::name(&push.principal, registry.repository, &location);
            self.worker.shared.uploads.put(name, kept);
        }
    }

    /// Counts an answer 502, 503 or 504; `false` where there were enough.
    pub(super) fn stumbles_once(&mut self) -> bool {
        let Some(push) = &mut self.push else { return false };
        push.stumbles += 1;
        push.stumbles <= STUMBLES
    }

    /// Begins another upload session with all that was sent before this request; what follows sends this one to it.
    /// `reason` where that can't be done.
    pub(super) async fn begin_again(&mut self, reason: Reason) -> Result<(), Reason> {
        while let Some(push) = self.push.as_mut().filter(|push| push.restarts < RESTARTS) {
            push.restarts += 1;
            let kept = push.kept.clone();
            if !kept.borrow().is_whole() {
                return Err(reason);
            }
            let opens = self.registry.as_ref().is_some_and(|r| r.opens_upload(&self.outgoing.method));
            let moved = if opens {
                // Nothing was before it: it is sent as it came.
                Some(self.outgoing.uri.clone())
            } else {
                match self.session(&kept).await {
                    Ok(location) => uploads::moved(&location, &self.outgoing.uri),
                    Err(Reason::UpstreamBroke) => continue,
                    Err(fault) => return Err(fault),
                }
            };
            self.outgoing.uri = moved.ok_or(reason)?;
            self.journey.waits = 0;
            self.journey.wait_until = None;
            self.start_over();
            self.story.rescued(Rescue::PushRestarted);
            return Ok(());
        }
        Err(reason)
    }

    /// A new upload session that has what was sent before this request; where it goes on.
    async fn session(&mut self, kept: &SharedKept) -> Result<Uri, Reason> {
        let before = self.outgoing.body.as_ref().and_then(Relay::start);
        let before = before.unwrap_or_else(|| kept.borrow().length());
        let path = self.outgoing.uri.path();
        let (repository, _) = path.rsplit_once(UPLOADS).ok_or(Reason::UpstreamBroke)?;
        let open = format!("{repository}{UPLOADS}").parse().map_err(|_| Reason::UpstreamBroke)?;
        let mut location = self.step(Kind::UploadOpen, open, None).await?;
        if before > 0 {
            let relay = Relay::of_kept(kept, 0..before);
            location = self.step(Kind::Upload, location, Some((relay, before))).await?;
        }
        Ok(location)
    }

    /// One step of our own, with the client's credential, planned by itself (A19, A24); where the upload goes on.
    async fn step(&mut self, kind: Kind, at: Uri, body: Option<(Relay, u64)>) -> Result<Uri, Reason> {
        let mut headers = self.outgoing.headers.clone();
        for name in &OF_THE_BODY {
            headers.remove(name);
        }
        let length = body.as_ref().map_or(0, |(_, length)| *length);
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        if body.is_some() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        }
        let method = if kind == Kind::UploadOpen { Method::POST } else { Method::PATCH };
        let uri = at.path_and_query().and_then(|at| at.as_str().parse().ok()).ok_or(Reason::UpstreamBroke)?;
        let answer = self.aside((kind, method, uri), headers, body.map(|(relay, _)| relay)).await?;
        match answer.status() {
            StatusCode::ACCEPTED => location_of(&answer).ok_or(Reason::UpstreamBroke),
            status => {
                tracing::warn!(%status, "an upload can't begin anew: Harbor refuses the step");
                Err(Reason::UploadLost)
            }
        }
    }

    /// Sends a request of our own for this one, as its client could; the answer is read whole.
    pub(super) async fn aside(
        &mut self,
        (kind, method, uri): (Kind, Method, Uri),
        headers: http::HeaderMap,
        body: Option<Relay>,
    ) -> Result<Response<DownBody>, Reason> {
        let registry =
            self.registry.as_ref().map(|registry| Registry { kind, repository: registry.repository });
        let ask = Ask {
            outgoing: Outgoing {
                method,
                uri,
                headers,
                body,
                sends: std::cell::Cell::default(),
                basic_sent: None,
            },
            registry,
            bearer: self.bearer.clone(),
            within: self.within,
            park: self.park,
            patience: self.patience,
            need: self.need,
            portal: false,
            of_client: false,
        };
        let mut story = Story::silent(self.worker, self.story.client);
        let answer = Box::pin(forward(self.worker, self.downstream, self.policy, ask, &mut story)).await?;
        let (head, body) = answer.into_parts();
        // Read to its end, so that its connection can carry the next step.
        drop(Limited::new(body, LONGEST_ANSWER).collect().await);
        Ok(Response::from_parts(head, DownBody::whole(bytes::Bytes::new())))
    }
}

/// What an upload's targets have in common, behind the repository.
const UPLOADS: &str = "/blobs/uploads/";

fn location_of(response: &Response<DownBody>) -> Option<Uri> {
    Uri::try_from(response.headers().get(header::LOCATION)?.as_bytes()).ok()
}
