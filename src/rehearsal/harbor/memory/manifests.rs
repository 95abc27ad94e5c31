//! Manifests by tag and digest.

use serde_json::{Value, json};

use super::{Manifest, MemoryRegistry, Store, base, refusal, uploads::sha256};
use crate::rehearsal::harbor::wire::{head::Head, reply::Reply, request_body::RequestBody};

/// distribution's limit of a manifest.
const LONGEST_MANIFEST: usize = 4 << 20;
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

impl MemoryRegistry {
    pub(super) fn manifest(&self, head: &Head, repository: &str, reference: &str) -> Reply {
        let Some(manifest) = self.store().manifest(repository, reference).cloned() else {
            return refusal(404, "MANIFEST_UNKNOWN", "manifest unknown", Value::Null);
        };
        if let Some(message) = unacceptable(head, &manifest.media_type) {
            return refusal(404, "MANIFEST_UNKNOWN", message, Value::Null);
        }
        let etag = format!("\"{}\"", manifest.digest);
        if head.header("if-none-match").is_some_and(|sent| sent == etag || sent == manifest.digest) {
            return Reply::new(304).with("Docker-Content-Digest", manifest.digest).with("Etag", etag);
        }
        Reply::new(200)
            .with("Content-Length", manifest.bytes.len().to_string())
            .with("Content-Type", manifest.media_type)
            .with("Docker-Content-Digest", manifest.digest)
            .with("Etag", etag)
            .body(manifest.bytes)
    }

    pub(super) async fn put_manifest(
        &self,
        head: &Head,
        repository: &str,
        reference: &str,
        body: &mut RequestBody<'_>,
    ) -> Reply {
        let Ok(Some(bytes)) = body.whole(LONGEST_MANIFEST).await else {
            return refusal(400, "MANIFEST_INVALID", "manifest invalid", Value::Null);
        };
        let Ok(parsed) = serde_json::from_slice::<Value>(&bytes) else {
            return refusal(400, "MANIFEST_INVALID", "manifest invalid", Value::Null);
        };
        let digest = sha256(&bytes);
        if reference.contains(':') && reference != digest {
            let message = "provided digest did not match uploaded content";
            return refusal(400, "DIGEST_INVALID", message, Value::Null);
        }
        let sent_type = head.header("content-type").unwrap_or_default();
        let media_type = parsed.get("mediaType").and_then(Value::as_str).unwrap_or(sent_type).to_owned();
        let manifest = Manifest { media_type, digest: digest.clone(), bytes: bytes.into() };
        if let Some(missing) = self.store().take(repository, reference, manifest, &parsed) {
            let message = "blob unknown to registry";
            return refusal(400, "MANIFEST_BLOB_UNKNOWN", message, json!({"digest": missing}));
        }
        Reply::new(201)
            .with("Location", format!("{}/v2/{repository}/manifests/{digest}", base(head)))
            .with("Content-Length", "0")
            .with("Docker-Content-Digest", digest)
    }

    pub(super) fn delete_manifest(&self, repository: &str, reference: &str) -> Reply {
        let mut store = self.store();
        let Some(digest) = store.manifest(repository, reference).map(|manifest| manifest.digest.clone())
        else {
            return refusal(404, "MANIFEST_UNKNOWN", "manifest unknown", Value::Null);
        };
        store.manifests.remove(&(repository.to_owned(), digest.clone()));
        store.tags.retain(|(of, _), to| of != repository || *to != digest);
        Reply::new(202)
    }
}

impl Store {
    fn manifest(&self, repository: &str, reference: &str) -> Option<&Manifest> {
        let repository = repository.to_owned();
        if reference.contains(':') {
            return self.manifests.get(&(repository, reference.to_owned()));
        }
        let digest = self.tags.get(&(repository.clone(), reference.to_owned()))?;
        self.manifests.get(&(repository, digest.clone()))
    }

    /// Keeps a manifest, by tag too where `reference` is one; what it refers to and isn't there keeps it out.
    fn take(
        &mut self,
        repository: &str,
        reference: &str,
        manifest: Manifest,
        parsed: &Value,
    ) -> Option<String> {
        let missing = self.missing(repository, parsed);
        if missing.is_none() {
            let digest = manifest.digest.clone();
            if !reference.contains(':') {
                self.tags.insert((repository.to_owned(), reference.to_owned()), digest.clone());
            }
            self.manifests.insert((repository.to_owned(), digest), manifest);
        }
        missing
    }

    /// The first blob or manifest that one refers to and the repository doesn't hold.
    fn missing(&self, repository: &str, manifest: &Value) -> Option<String> {
        let digests = |value: Option<&Value>| -> Vec<String> {
            let list = value.map(|v| v.as_array().cloned().unwrap_or_else(|| vec![v.clone()]));
            let list = list.unwrap_or_default();
            list.iter().filter_map(|one| one.get("digest")?.as_str().map(str::to_owned)).collect()
        };
        let held = |digest: &String| self.links.contains(&(repository.to_owned(), digest.clone()));
        let known = |digest: &String| self.manifests.contains_key(&(repository.to_owned(), digest.clone()));
        let blobs = [digests(manifest.get("config")), digests(manifest.get("layers"))].concat();
        let missing = blobs.into_iter().find(|digest| !held(digest));
        missing.or_else(|| digests(manifest.get("manifests")).into_iter().find(|digest| !known(digest)))
    }
}

/// F5: an OCI manifest is only for those who say that they take it.
fn unacceptable(head: &Head, media_type: &str) -> Option<&'static str> {
    let message = match media_type {
        OCI_MANIFEST => "OCI manifest found, but accept header does not support OCI manifests",
        OCI_INDEX => "OCI index found, but accept header does not support OCI indexes",
        _ => return None,
    };
    let mut accepted = head.all("accept").flat_map(|line| line.split(','));
    let takes = |one: &str| one.split(';').next().is_some_and(|kind| kind.trim() == media_type);
    (!accepted.any(takes)).then_some(message)
}
