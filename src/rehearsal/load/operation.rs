//! Log-ins, pulls and pushes, step by step as the clients take them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http::{Method, StatusCode, header};
use serde_json::Value;
use tokio::sync::watch;

use super::{
    client::{Client, Said, Session},
    image::{Blob, Image, MANIFEST, sha256},
    place::Place,
    said::{self, Step},
    site::{Origin, Site},
    wire::{Answer, Call, Content},
};

/// Keeps an operation in the middle, with its token, until the upgrade is through.
#[derive(Debug)]
pub(super) struct Hold {
    until: watch::Receiver<bool>,
    /// How long that was.
    pub(super) waited: Duration,
}

impl Hold {
    pub(super) fn until(told: watch::Receiver<bool>) -> Self {
        Self { until: told, waited: Duration::ZERO }
    }

    async fn wait(&mut self) -> Result<(), Said> {
        let began = Instant::now();
        self.until.wait_for(|told| *told).await.map_err(|_| "the rehearsal ended before its upgrade")?;
        self.waited = began.elapsed();
        Ok(())
    }
}

/// Logs in: a token without scope, then a look at `/v2/` with it.
pub(super) async fn login(client: Client, site: &Arc<Site>) -> Result<(), Said> {
    let mut session = Session::new(client, site);
    session.begin(String::new()).await?;
    let answer = session.call(Step::Login, &Call::new(Method::GET, "/v2/")).await?;
    expect(&session, Step::Login, "", &answer, StatusCode::OK)
}

/// Pulls an image and checks every digest.
pub(super) async fn pull(client: Client, site: &Arc<Site>, place: &Place) -> Result<(), Said> {
    let Place { repository, tag } = place;
    let mut session = Session::new(client, site);
    session.begin(format!("repository:{repository}:pull")).await?;
    let target = format!("/v2/{repository}/manifests/{tag}");
    let manifest = Call::new(Method::GET, target.clone()).with(header::ACCEPT, MANIFEST);
    if client == Client::Containerd {
        let look = Call::new(Method::HEAD, target).with(header::ACCEPT, MANIFEST);
        let answer = session.call(Step::ReadManifest, &look).await?;
        expect(&session, Step::ReadManifest, repository, &answer, StatusCode::OK)?;
    }
    let answer = session.call(Step::ReadManifest, &manifest).await?;
    expect(&session, Step::ReadManifest, repository, &answer, StatusCode::OK)?;
    if answer.header("docker-content-digest") != sha256(&answer.body) {
        return Err(said::other_bytes(client, Step::ReadManifest));
    }
    for digest in blobs_of(&answer).ok_or("the manifest is none")? {
        let blob = Call::new(Method::GET, format!("/v2/{repository}/blobs/{digest}"));
        let mut answer = session.call(Step::ReadBlob, &blob).await?;
        if answer.status.is_redirection() && site.roams() {
            answer = session.follow(Step::ReadBlob, &answer).await?;
        }
        expect(&session, Step::ReadBlob, repository, &answer, StatusCode::OK)?;
        if sha256(&answer.body) != digest {
            return Err(said::other_bytes(client, Step::ReadBlob));
        }
    }
    Ok(())
}

/// Pushes an image, and looks that the tag leads to it. After the first layer it may hold its token for a while.
pub(super) async fn push(
    client: Client,
    site: &Arc<Site>,
    place: &Place,
    image: &Image,
    mut hold: Option<&mut Hold>,
) -> Result<(), Said> {
    let Place { repository, tag } = place;
    let mut session = Session::new(client, site);
    session.begin(format!("repository:{repository}:pull,push")).await?;
    for blob in &image.blobs {
        push_blob(&mut session, repository, blob).await?;
        if let Some(hold) = hold.take() {
            hold.wait().await?;
        }
    }
    let target = format!("/v2/{repository}/manifests/{tag}");
    let manifest = Call::new(Method::PUT, target.clone())
        .with(header::CONTENT_TYPE, MANIFEST)
        .body(Content::Whole(image.manifest.bytes.clone()));
    let answer = session.call(Step::WriteManifest, &manifest).await?;
    expect(&session, Step::WriteManifest, repository, &answer, StatusCode::CREATED)?;
    let look = Call::new(Method::HEAD, target).with(header::ACCEPT, MANIFEST);
    let answer = session.call(Step::Check, &look).await?;
    expect(&session, Step::Check, repository, &answer, StatusCode::OK)?;
    if answer.header("docker-content-digest") == image.manifest.digest {
        Ok(())
    } else {
        Err(said::other_bytes(client, Step::Check))
    }
}

async fn push_blob(session: &mut Session, repository: &str, blob: &Blob) -> Result<(), Said> {
    let look = Call::new(Method::HEAD, format!("/v2/{repository}/blobs/{}", blob.digest));
    let answer = session.call(Step::LookForBlob, &look).await?;
    if answer.status == StatusCode::OK {
        return Ok(());
    }
    expect(session, Step::LookForBlob, repository, &answer, StatusCode::NOT_FOUND)?;
    let open = Call::new(Method::POST, format!("/v2/{repository}/blobs/uploads/"));
    let answer = session.call(Step::OpenUpload, &open).await?;
    expect(session, Step::OpenUpload, repository, &answer, StatusCode::ACCEPTED)?;
    let mut location = location(session, &answer)?;
    let mut rest = Content::Whole(blob.bytes.clone());
    if session.client != Client::Containerd {
        let patch = Call::new(Method::PATCH, location)
            .with(header::CONTENT_TYPE, "application/octet-stream")
            .body(Content::Chunked(blob.bytes.clone()));
        let answer = session.call(Step::SendUpload, &patch).await?;
        expect(session, Step::SendUpload, repository, &answer, StatusCode::ACCEPTED)?;
        location = self::location(session, &answer)?;
        rest = Content::None;
    }
    let joint = if location.contains('?') { '&' } else { '?' };
    let digest = blob.digest.replace(':', "%3A");
    let close = Call::new(Method::PUT, format!("{location}{joint}digest={digest}"))
        .with(header::CONTENT_TYPE, "application/octet-stream")
        .body(rest);
    let answer = session.call(Step::CloseUpload, &close).await?;
    expect(session, Step::CloseUpload, repository, &answer, StatusCode::CREATED)
}

/// Path and query of where the upload goes on, which must be where the client came in (U1).
fn location(session: &Session, answer: &Answer) -> Result<String, Said> {
    let whole = answer.header("location");
    match Origin::split(whole) {
        Some((origin, target)) if origin == session.site.origin => Ok(target),
        Some((origin, _)) => Err(format!("the upload goes on at {origin}, where this client didn't come in")),
        None if whole.starts_with('/') && session.site.roams() => Ok(whole.to_owned()),
        None => Err("the upload goes on nowhere".to_owned()),
    }
}

fn blobs_of(manifest: &Answer) -> Option<Vec<String>> {
    let manifest: Value = serde_json::from_slice(&manifest.body).ok()?;
    let listed = std::iter::once(&manifest["config"]).chain(manifest["layers"].as_array()?);
    listed.map(|entry| entry["digest"].as_str().map(str::to_owned)).collect()
}

fn expect(
    session: &Session,
    step: Step,
    repository: &str,
    answer: &Answer,
    status: StatusCode,
) -> Result<(), Said> {
    if answer.status == status {
        Ok(())
    } else {
        Err(said::refused(session.client, step, repository, answer))
    }
}
