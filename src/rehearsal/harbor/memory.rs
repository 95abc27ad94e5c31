//! A registry in memory, as distribution 2.8 answers: enough for every client's pull and push.

mod blobs;
mod manifests;
mod uploads;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use serde_json::{Value, json};

use super::{
    random,
    repository_path::{RepositoryPath, What},
    wire::{head::Head, reply::Reply, request_body::RequestBody},
};
use uploads::Upload;

/// Blobs, manifests, tags and open uploads of all repositories, within a limit of bytes.
#[derive(Debug)]
pub struct MemoryRegistry {
    store: Mutex<Store>,
    /// Bytes of blobs and uploads together; past it uploads fail with 500.
    limit: u64,
    /// Signs `_state` (the registry's http secret).
    secret: Vec<u8>,
}

#[derive(Debug, Default)]
struct Store {
    blobs: HashMap<String, Blob>,
    /// Which repository holds which blob.
    links: HashSet<(String, String)>,
    manifests: HashMap<(String, String), Manifest>,
    tags: BTreeMap<(String, String), String>,
    uploads: HashMap<String, Arc<Mutex<Upload>>>,
    used: u64,
}

#[derive(Clone, Debug)]
struct Blob {
    pieces: Vec<Bytes>,
    length: u64,
}

#[derive(Clone, Debug)]
struct Manifest {
    media_type: String,
    digest: String,
    bytes: Bytes,
}

impl MemoryRegistry {
    /// An empty registry that holds at most `limit` bytes of layers.
    pub fn new(limit: u64) -> Self {
        Self { store: Mutex::default(), limit, secret: random::bytes(32) }
    }

    /// Bytes of layers held, open uploads among them.
    pub fn used(&self) -> u64 {
        self.store().used
    }

    /// The digest that a tag points to.
    pub fn tag(&self, repository: &str, tag: &str) -> Option<String> {
        self.store().tags.get(&(repository.to_owned(), tag.to_owned())).cloned()
    }

    /// Forgets a repository, its uploads that were begun and never ended, and blobs that no other holds: what a long load
    /// needs to stay within the limit.
    pub fn forget(&self, repository: &str) {
        let mut store = self.store();
        store.tags.retain(|(of, _), _| of != repository);
        store.manifests.retain(|(of, _), _| of != repository);
        store.links.retain(|(of, _)| of != repository);
        let linked: HashSet<String> = store.links.iter().map(|(_, digest)| digest.clone()).collect();
        store.blobs.retain(|digest, _| linked.contains(digest));
        store.uploads.retain(|_, upload| !lock(upload).is_in(repository));
        let open: u64 = store.uploads.values().map(|upload| lock(upload).held()).sum();
        store.used = open + store.blobs.values().map(|blob| blob.length).sum::<u64>();
    }

    /// Answers an allowed request.
    pub(super) async fn answer(
        &self,
        head: &Head,
        asked: &RepositoryPath,
        body: &mut RequestBody<'_>,
    ) -> Reply {
        let repository = asked.repository.as_str();
        let reply = match (head.method.as_str(), &asked.what) {
            ("GET" | "HEAD", What::Blob(digest)) => self.blob(head, repository, digest),
            ("DELETE", What::Blob(digest)) => self.delete_blob(repository, digest),
            ("GET" | "HEAD", What::Manifest(reference)) => self.manifest(head, repository, reference),
            ("PUT", What::Manifest(reference)) => self.put_manifest(head, repository, reference, body).await,
            ("DELETE", What::Manifest(reference)) => self.delete_manifest(repository, reference),
            ("GET", What::Tags) => self.tags(head, repository),
            ("GET", What::Referrers(_)) => no_referrers(),
            ("POST", What::Upload(_)) => self.open_upload(head, repository),
            ("PATCH" | "PUT" | "GET" | "DELETE", What::Upload(id)) => {
                self.upload(head, repository, id, body).await
            }
            _ => refusal(405, "UNSUPPORTED", "The operation is unsupported.", Value::Null),
        };
        reply.with("Docker-Distribution-Api-Version", "registry/2.0")
    }

    fn tags(&self, head: &Head, repository: &str) -> Reply {
        let number = head.query("n").first().and_then(|n| n.parse().ok()).unwrap_or(usize::MAX);
        let last = head.query("last").into_iter().next().unwrap_or_default();
        let store = self.store();
        let of_it = store.tags.keys().filter(|(of, _)| of == repository).map(|(_, tag)| tag);
        let mut tags: Vec<&String> = of_it.collect();
        if tags.is_empty() {
            let message = format!("repository {repository} not found");
            return Reply::error(404, "NOT_FOUND", &message);
        }
        tags.retain(|tag| last.is_empty() || **tag > last);
        let more = tags.len() > number;
        tags.truncate(number);
        let body = json!({"name": repository, "tags": tags}).to_string() + "\n";
        let mut reply = Reply::new(200).with("Content-Type", "application/json; charset=utf-8").body(body);
        if let (true, Some(last)) = (more, tags.last()) {
            let next = format!(r#"</v2/{repository}/tags/list?last={last}&n={number}>; rel="next""#);
            reply = reply.with("Link", next);
        }
        reply
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        // No holder of the lock panics between two writes that belong together.
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lock(upload: &Mutex<Upload>) -> MutexGuard<'_, Upload> {
    upload.lock().unwrap_or_else(PoisonError::into_inner)
}

fn no_referrers() -> Reply {
    const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    let body = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": []}).to_string() + "\n";
    Reply::new(200).with("Content-Type", INDEX).body(body)
}

/// distribution's error body, with its detail.
fn refusal(status: u16, code: &str, message: &str, detail: Value) -> Reply {
    let mut error = json!({"code": code, "message": message});
    if !detail.is_null() {
        error["detail"] = detail;
    }
    let body = json!({"errors": [error]}).to_string() + "\n";
    Reply::new(status).with("Content-Type", "application/json; charset=utf-8").body(body)
}

/// Scheme and host of absolute locations, as distribution builds them (U1).
fn base(head: &Head) -> String {
    let host = head.header("host").unwrap_or_default();
    if let Some(forwarded) = head.header("forwarded") {
        let first = forwarded.split(',').next().unwrap_or_default();
        let of = |name: &str| {
            let pairs = first.split(';').filter_map(|pair| pair.trim().split_once('='));
            pairs.filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.trim_matches('"')).next()
        };
        return format!("{}://{}", of("proto").unwrap_or("http"), of("host").unwrap_or(host));
    }
    let proto = head.header("x-forwarded-proto").unwrap_or("http");
    let forwarded_host = head.header("x-forwarded-host").and_then(|list| list.split(',').next());
    format!("{proto}://{}", forwarded_host.map_or(host, str::trim))
}
