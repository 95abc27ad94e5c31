//! One principal that asks for what it knows: its own tokens, name, blobs and manifests; what it pushes is unlike anything
//! else.

use super::{
    seen::{Fault, Seen, Stored},
    wire::{Ask, Reply, Wire},
};
use aws_lc_rs::digest::{SHA256, digest};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use bytes::Bytes;
use serde_json::{Value, json};
use std::{fmt::Write as _, sync::Arc, time::Duration};

/// Between two requests of one asker: enough to meet whatever happens, little enough to leave the machine to others.
const PAUSE: Duration = Duration::from_millis(60);
/// Every so many turns something is pushed.
const PUSH_EVERY: u64 = 3;
/// Every so many pushes the body is one that core refuses before it has read it (U2).
const LARGE_EVERY: u64 = 4;
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

#[derive(Clone, Debug)]
pub struct Who {
    /// Empty for nobody.
    pub name: String,
    pub secret: &'static str,
    pub project: String,
    /// Users have a name at the API; robots and nobody don't.
    pub is_user: bool,
}

/// What a repository has to be pulled.
#[derive(Clone, Debug)]
pub struct Seed {
    repository: String,
    blobs: Vec<Bytes>,
    manifest: String,
}

pub struct Asker {
    who: Who,
    wire: Wire,
    seen: Arc<Seen>,
    basic: Option<String>,
}

type Turn<T = ()> = Result<T, Fault>;

impl Asker {
    pub fn new(who: Who, wire: Wire, seen: &Arc<Seen>) -> Self {
        let basic = format!("Basic {}", STANDARD.encode(format!("{}:{}", who.name, who.secret)));
        let basic = (!who.name.is_empty()).then_some(basic);
        Self { who, wire, seen: Arc::clone(seen), basic }
    }

    /// Pushes what is to be pulled, while all is well.
    pub async fn seed(&self, repository: String) -> Seed {
        let authorization = self.basic.clone();
        let blobs: Vec<Bytes> = [700, 9_000, 70_000].map(random).to_vec();
        for blob in &blobs {
            let pushed = self.push_blob(&repository, blob, authorization.as_ref(), true).await;
            pushed.unwrap_or_else(|fault| panic!("a seed is pushed: {fault:?}"));
        }
        let manifest = manifest(&blobs, &repository);
        let pushed = self.push_manifest(&repository, "v1", &manifest, authorization.as_ref()).await;
        pushed.unwrap_or_else(|fault| panic!("a seed is pushed: {fault:?}"));
        Seed { repository, blobs, manifest }
    }

    /// Turn after turn, until the witness has seen enough.
    pub async fn ask(self, seed: Seed) {
        let mut turns = 0_u64..;
        while let (false, Some(turn)) = (self.seen.is_stopped(), turns.next()) {
            if let Err(fault) = self.turn(&seed, turn).await {
                self.seen.note(&self.who.to_string(), fault);
            }
        }
    }

    async fn turn(&self, seed: &Seed, turn: u64) -> Turn {
        let bearer = Some(format!("Bearer {}", self.token(&seed.repository).await?));
        self.pull_manifest(&seed.repository, "v1", &seed.manifest, bearer.as_ref()).await?;
        let blob = &seed.blobs[turn as usize % seed.blobs.len()];
        self.pull_blob(&seed.repository, blob, bearer.as_ref()).await?;
        if self.who.is_user {
            self.own_name().await?;
        }
        if self.basic.is_some() && turn.is_multiple_of(PUSH_EVERY) {
            self.push(seed, turn / PUSH_EVERY, bearer.as_ref()).await?;
        }
        Ok(())
    }

    /// Asks, and sees that no other answer had this one's id.
    async fn tell(&self, ask: Ask<'_>) -> Turn<Reply> {
        tokio::time::sleep(PAUSE).await;
        let what = format!("{} {}", ask.method, ask.target.split('?').next().unwrap_or_default());
        let reply = self.wire.ask(ask).await.map_err(|fault| Fault::Failed(format!("{what}: {fault}")))?;
        let id = reply.header("x-request-id");
        if !id.is_empty() && !self.seen.is_first(format!("request {id}")) {
            return Err(Fault::Wrong(format!("{what}: the answer to {id} came before")));
        }
        Ok(reply)
    }

    async fn request(
        &self,
        (method, target): (&str, &str),
        authorization: Option<&String>,
        body: Bytes,
    ) -> Turn<Reply> {
        let mut headers = vec![("Accept", MANIFEST.to_owned())];
        headers.extend(authorization.map(|value| ("Authorization", value.clone())));
        if method == "PUT" && target.contains("/manifests/") {
            headers.push(("Content-Type", MANIFEST.to_owned()));
        }
        if target.starts_with("/api/") && !body.is_empty() {
            headers.push(("Content-Type", "application/json".to_owned()));
        }
        self.tell(Ask { method, target, headers, body }).await
    }

    async fn get(&self, target: &str, authorization: Option<&String>) -> Turn<Reply> {
        let reply = self.request(("GET", target), authorization, Bytes::new()).await?;
        expect(&reply, 200, target)?;
        Ok(reply)
    }

    /// A token for the repository, which says of its own who asked, and for what.
    async fn token(&self, repository: &str) -> Turn<String> {
        let target =
            format!("/service/token?service=harbor-registry&scope=repository:{repository}:pull,push,delete");
        let reply = self.get(&target, self.basic.as_ref()).await?;
        let answer: Value = serde_json::from_slice(&reply.body)
            .map_err(|_| Fault::Wrong(format!("a token's answer: {}", shown(&reply.body))))?;
        let token = answer["token"].as_str().filter(|token| !token.is_empty());
        let token = token.ok_or_else(|| Fault::Failed(format!("no token in {answer}")))?;
        // A token of tidegate's own says nothing to anybody: what it pulls and pushes tells whose it is.
        if let Some(claims) = claims(token) {
            let (subject, name) = (claims["sub"].as_str().unwrap_or_default(), self.who.name.as_str());
            let mut others = claims["access"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(|access| access["name"] != repository);
            if let Some(other) = others.next() {
                return Err(Fault::Wrong(format!("a token for {repository} has {other}")));
            }
            if subject.is_empty() && !name.is_empty() {
                return Err(Fault::Failed("a token of nobody".to_owned()));
            }
            if subject != name {
                return Err(Fault::Wrong(format!("a token of {subject}")));
            }
        }
        self.seen.count("token");
        Ok(token.to_owned())
    }

    async fn own_name(&self) -> Turn {
        let reply = self.get("/api/v2.0/users/current", self.basic.as_ref()).await?;
        let answer: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
        if answer["username"] != self.who.name {
            return Err(Fault::Wrong(format!("users/current is {}", shown(&reply.body))));
        }
        self.seen.count("users/current");
        Ok(())
    }

    async fn pull_manifest(
        &self,
        repository: &str,
        reference: &str,
        text: &str,
        bearer: Option<&String>,
    ) -> Turn {
        let target = format!("/v2/{repository}/manifests/{reference}");
        let reply = self.get(&target, bearer).await?;
        is(&reply, text.as_bytes(), &target)?;
        self.seen.count("manifest");
        Ok(())
    }

    async fn pull_blob(&self, repository: &str, blob: &[u8], bearer: Option<&String>) -> Turn {
        let target = format!("/v2/{repository}/blobs/{}", sha256(blob));
        let reply = self.get(&target, bearer).await?;
        is(&reply, blob, &target)?;
        self.seen.count("blob");
        Ok(())
    }

    /// A blob and a manifest that no other push has; users remove every second manifest, and make a label.
    async fn push(&self, seed: &Seed, count: u64, bearer: Option<&String>) -> Turn {
        let large = count % LARGE_EVERY == LARGE_EVERY - 1;
        let blob = random(if large { 300_000 } else { 1_000 + 7_919 * (count as usize % 8) });
        self.push_blob(&seed.repository, &blob, bearer, count.is_multiple_of(2)).await?;
        let text = manifest(&[seed.blobs[0].clone(), blob], &format!("{} {count}", self.who));
        let tag = format!("t{}", hex(&random(8)));
        self.push_manifest(&seed.repository, &tag, &text, bearer).await?;
        self.pull_manifest(&seed.repository, &tag, &text, bearer).await?;
        if !self.who.is_user {
            return Ok(());
        }
        if count.is_multiple_of(2) {
            self.remove(&seed.repository, &text, bearer).await?;
        }
        self.label().await
    }

    async fn push_blob(
        &self,
        repository: &str,
        blob: &Bytes,
        authorization: Option<&String>,
        patched: bool,
    ) -> Turn {
        let open = format!("/v2/{repository}/blobs/uploads/");
        let reply = self.request(("POST", &open), authorization, Bytes::new()).await?;
        expect(&reply, 202, &open)?;
        let mut upload = path_of(&reply);
        if !upload.starts_with(&open)
            || !self.seen.is_first(format!("upload {}", reply.header("docker-upload-uuid")))
        {
            return Err(Fault::Wrong(format!("POST {open} gave {upload}")));
        }
        let mut rest = blob.clone();
        if patched {
            let sent = std::mem::take(&mut rest);
            let reply = self.request(("PATCH", &upload), authorization, sent).await?;
            expect(&reply, 202, "PATCH of an upload")?;
            upload = path_of(&reply);
        }
        let put = format!("{upload}{}digest={}", if upload.contains('?') { '&' } else { '?' }, sha256(blob));
        let reply = self.request(("PUT", &put), authorization, rest).await?;
        expect(&reply, 201, "PUT of an upload")?;
        self.keep("pushed blob", &reply, format!("/v2/{repository}/blobs/"), sha256(blob))
    }

    async fn push_manifest(
        &self,
        repository: &str,
        tag: &str,
        text: &str,
        authorization: Option<&String>,
    ) -> Turn {
        let target = format!("/v2/{repository}/manifests/{tag}");
        let reply = self.request(("PUT", &target), authorization, text.to_owned().into()).await?;
        expect(&reply, 201, &target)?;
        self.keep("pushed manifest", &reply, format!("/v2/{repository}/manifests/"), sha256(text.as_bytes()))
    }

    /// What was acknowledged must be there at the end.
    fn keep(&self, kind: &'static str, reply: &Reply, folder: String, digest: String) -> Turn {
        let told = reply.header("docker-content-digest");
        if told != digest {
            return Err(Fault::Wrong(format!("{kind} {digest} is told to be {told}")));
        }
        self.seen.stored(Stored { path: folder + &digest, digest });
        self.seen.count(kind);
        Ok(())
    }

    async fn remove(&self, repository: &str, text: &str, bearer: Option<&String>) -> Turn {
        let digest = sha256(text.as_bytes());
        let stored = Stored { path: format!("/v2/{repository}/manifests/{digest}"), digest };
        self.seen.forget(&stored);
        let reply = self.request(("DELETE", &stored.path), bearer, Bytes::new()).await?;
        expect(&reply, 202, &format!("DELETE {}", stored.path))?;
        self.seen.removed(stored);
        self.seen.count("removed manifest");
        Ok(())
    }

    async fn label(&self) -> Turn {
        let body = json!({"name": hex(&random(8)), "scope": "p"}).to_string();
        let reply = self.request(("POST", "/api/v2.0/labels"), self.basic.as_ref(), body.into()).await?;
        expect(&reply, 201, "POST of a label")?;
        let place = reply.header("location");
        if !place.contains("/labels/") || !self.seen.is_first(format!("label {place}")) {
            return Err(Fault::Wrong(format!("a new label is at {place:?}")));
        }
        self.seen.count("label");
        Ok(())
    }

    /// What others were told is there and isn't, or is gone and isn't.
    pub async fn missing(&self, seen: &Seen) -> Vec<String> {
        let (stored, removed) = seen.acknowledged();
        let mut wrong = Vec::new();
        let expected = stored.iter().map(|what| (what, true)).chain(removed.iter().map(|what| (what, false)));
        for (Stored { path, digest }, is_there) in expected {
            let mut headers = vec![("Accept", MANIFEST.to_owned())];
            headers.extend(self.basic.clone().map(|basic| ("Authorization", basic)));
            let ask = Ask { method: "GET", target: path, headers, body: Bytes::new() };
            let found = match self.wire.ask(ask).await {
                Ok(reply) if reply.status == 404 && !is_there => continue,
                Ok(reply) if reply.status == 200 && is_there && sha256(&reply.body) == *digest => continue,
                Ok(reply) => format!("{} {}", reply.status, shown(&reply.body)),
                Err(fault) => fault,
            };
            let what = if is_there { "acknowledged" } else { "removed" };
            wrong.push(format!("{what}, and found at the end of {path}: {found}"));
        }
        wrong
    }
}

impl std::fmt::Display for Who {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.name.is_empty() { "nobody" } else { &self.name })
    }
}

fn expect(reply: &Reply, status: u16, what: &str) -> Turn {
    if reply.status == status {
        return Ok(());
    }
    let (challenge, id) = (reply.header("www-authenticate"), reply.header("x-request-id"));
    Err(Fault::Failed(format!("{what}: {} {challenge} {} ({id})", reply.status, shown(&reply.body))))
}

/// The answer's body is this one, and so say its headers.
fn is(reply: &Reply, body: &[u8], what: &str) -> Turn {
    let (told, length) = (reply.header("docker-content-digest"), reply.header("content-length"));
    if reply.body != body {
        return Err(Fault::Wrong(format!(
            "{what} is {} of {} bytes: {}",
            sha256(&reply.body),
            reply.body.len(),
            shown(&reply.body)
        )));
    }
    let tells =
        (told.is_empty() || told == sha256(body)) && (length.is_empty() || length == body.len().to_string());
    if tells { Ok(()) } else { Err(Fault::Wrong(format!("{what} is told to be {told} of {length} bytes"))) }
}

/// What a JWS claims; `None` for a token of another kind.
fn claims(token: &str) -> Option<Value> {
    let bytes = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    serde_json::from_slice(&bytes).ok()
}

fn manifest(blobs: &[Bytes], by: &str) -> String {
    let blob = |kind: &str, bytes: &[u8]| json!({"mediaType": format!("application/vnd.oci.image.{kind}"), "digest": sha256(bytes), "size": bytes.len()});
    let layers: Vec<Value> = blobs[1..].iter().map(|bytes| blob("layer.v1.tar", bytes)).collect();
    let config = blob("config.v1+json", &blobs[0]);
    let annotations = json!({"by": by, "one": hex(&random(8))});
    json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers, "annotations": annotations})
        .to_string()
}

/// Path and query of an answer's `Location`.
fn path_of(reply: &Reply) -> String {
    let location = reply.header("location");
    let rest = location.split_once("://").map_or(location, |(_, rest)| rest);
    rest.find('/').map_or_else(String::new, |at| rest[at..].to_owned())
}

fn shown(body: &[u8]) -> String {
    String::from_utf8_lossy(&body[..body.len().min(160)]).trim().to_owned()
}

fn random(length: usize) -> Bytes {
    let mut bytes = vec![0; length];
    aws_lc_rs::rand::fill(&mut bytes).expect("random bytes");
    bytes.into()
}

fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(digest(&SHA256, bytes).as_ref()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        _ = write!(text, "{byte:02x}");
        text
    })
}
