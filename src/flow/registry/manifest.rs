//! A manifest whose PUT got no answer: looked for, and sent again only where it was not taken (A22).

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use aws_lc_rs::digest::{self, SHA256};
use http::{HeaderValue, Method, Response, StatusCode, Uri, header};
use tokio::time::sleep;

use super::{Passage, Recovered};
use crate::{
    decisions::manifest::{self, Fate, Seen},
    flow::{body::DownBody, relay::Relay},
    words::{
        reason::{Reason, Rescue},
        route::Kind,
    },
};

/// From a cut on, the longest time that a registry goes on with what it was sent whole: it stores a manifest within
/// milliseconds, and is given the time of a busy machine or of slow object storage.
const SETTLED: Duration = Duration::from_secs(2);
/// Between two looks meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The digest that Harbor gives a manifest.
const DIGEST: &str = "docker-content-digest";

impl Passage<'_> {
    /// What becomes of a manifest whose endpoint stopped; `reason` where nobody can tell.
    pub(super) async fn manifest_again(&mut self, reason: Reason) -> Result<Recovered, Reason> {
        let whole = self.outgoing.body.as_ref().is_some_and(Relay::ended);
        let kept = self.push.as_ref().map(|push| push.kept.clone()).ok_or(reason)?;
        if !kept.borrow().is_whole() || !self.may_send_again() {
            return Err(reason);
        }
        if whole {
            let own = digest_of(&kept).await.ok_or(reason)?;
            let path = self.outgoing.uri.path().to_owned();
            let (repository, reference) = path.rsplit_once('/').ok_or(reason)?;
            match self.fate(repository, reference, &own).await? {
                Fate::Taken => {
                    self.story.rescued(Rescue::PushRestarted);
                    return self
                        .taken(&format!("{repository}/{own}"), &own)
                        .map(|answer| Recovered::Done(Box::new(answer)))
                        .ok_or(reason);
                }
                Fate::NotTaken => {}
                Fate::Unclear => return Err(reason),
            }
        }
        let before = self.journey.sent_before;
        self.start_over();
        // It has one budget of sends, whatever comes between (A6).
        self.journey.sent_before = before;
        self.story.rescued(Rescue::PushRestarted);
        Ok(Recovered::Again)
    }

    /// What became of a manifest that was sent whole. The registry behind a core that died under it may be at it still:
    /// only what it has not taken after a while it never got.
    async fn fate(&mut self, repository: &str, reference: &str, own: &str) -> Result<Fate, Reason> {
        let settled = Instant::now() + SETTLED;
        loop {
            let last = Instant::now() >= settled;
            let by_reference = self.look(&format!("{repository}/{reference}")).await?;
            let by_digest = self.look(&format!("{repository}/{own}")).await?;
            let fate = manifest::fate(own, &by_reference, &by_digest);
            if last || fate != Fate::NotTaken {
                return Ok(fate);
            }
            sleep(LOOK_EVERY).await;
        }
    }

    async fn look(&mut self, target: &str) -> Result<Seen, Reason> {
        let mut headers = self.outgoing.headers.clone();
        let media = headers.remove(header::CONTENT_TYPE);
        headers.remove(header::CONTENT_LENGTH);
        headers.remove(header::TRANSFER_ENCODING);
        headers.insert(header::ACCEPT, media.unwrap_or_else(|| HeaderValue::from_static("*/*")));
        headers.append(header::ACCEPT, HeaderValue::from_static("*/*"));
        let uri: Uri = target.parse().map_err(|_| Reason::UpstreamBroke)?;
        let answer = self.aside((Kind::Manifest, Method::HEAD, uri), headers, None).await?;
        Ok(match answer.status() {
            StatusCode::NOT_FOUND => Seen::Absent,
            StatusCode::OK => {
                let digest = answer.headers().get(DIGEST).and_then(|value| value.to_str().ok());
                digest.map_or(Seen::Unclear, |digest| Seen::Digest(digest.into()))
            }
            _ => Seen::Unclear,
        })
    }

    /// Harbor's answer to a manifest that it took.
    fn taken(&self, target: &str, own: &str) -> Option<Response<DownBody>> {
        let headers = &self.outgoing.headers;
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let host = text("x-forwarded-host").or_else(|| text("host"))?;
        let scheme = text("x-forwarded-proto").unwrap_or("http");
        let mut response = Response::new(DownBody::whole(bytes::Bytes::new()));
        *response.status_mut() = StatusCode::CREATED;
        let location = HeaderValue::try_from(format!("{scheme}://{host}{target}")).ok()?;
        let headers = response.headers_mut();
        headers.insert(header::LOCATION, location);
        headers.insert(DIGEST, HeaderValue::try_from(own).ok()?);
        headers.insert("docker-distribution-api-version", HeaderValue::from_static("registry/2.0"));
        Some(response)
    }
}

async fn digest_of(kept: &crate::flow::relay::SharedKept) -> Option<String> {
    let mut context = digest::Context::new(&SHA256);
    let mut at = 0;
    while let Some(bytes) = std::future::poll_fn(|cx| kept.borrow_mut().poll_read(at, cx)).await.ok()? {
        at += bytes.len() as u64;
        context.update(&bytes);
    }
    let mut text = "sha256:".to_owned();
    for byte in context.finish().as_ref() {
        _ = write!(text, "{byte:02x}");
    }
    Some(text)
}
