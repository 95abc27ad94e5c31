//! Uploads: POST, PATCH, PUT, their `_state`, and what becomes of one that was cut (U5, U9).

use std::{
    fmt,
    sync::{Arc, Mutex},
};

use aws_lc_rs::{
    digest::{Context, SHA256, digest},
    hmac::{HMAC_SHA256, Key, sign, verify},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE};
use bytes::{Bytes, BytesMut};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::{Blob, MemoryRegistry, base, lock, refusal};
use crate::rehearsal::harbor::{
    random,
    wire::{head::Head, reply::Reply, request_body::RequestBody},
};

/// Bytes are gathered into pieces of that size.
const PIECE: usize = 1 << 20;

/// An open upload.
pub(super) struct Upload {
    repository: String,
    pieces: Vec<Bytes>,
    tail: BytesMut,
    length: u64,
    hash: Context,
    /// U9: its bytes are gone, and nothing goes on with it.
    given_up: bool,
}

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upload").field("length", &self.length).finish_non_exhaustive()
    }
}

impl Upload {
    pub(super) fn is_in(&self, repository: &str) -> bool {
        self.repository == repository
    }

    /// What of the registry's room it takes.
    pub(super) fn held(&self) -> u64 {
        if self.given_up { 0 } else { self.length }
    }

    fn push(&mut self, mut chunk: &[u8]) {
        self.hash.update(chunk);
        self.length += chunk.len() as u64;
        while !chunk.is_empty() {
            // A long upload takes whole pieces at once, a short one grows as it comes.
            if self.tail.is_empty() && !self.pieces.is_empty() {
                self.tail.reserve(PIECE);
            }
            let room = PIECE - self.tail.len();
            let (now, later) = chunk.split_at(room.min(chunk.len()));
            self.tail.extend_from_slice(now);
            if self.tail.len() == PIECE {
                self.pieces.push(self.tail.split().freeze());
            }
            chunk = later;
        }
    }
}

impl MemoryRegistry {
    /// `POST`: a new upload, or a mount where `from` holds the blob.
    pub(super) fn open_upload(&self, head: &Head, repository: &str) -> Reply {
        let first = |name| head.query(name).into_iter().next();
        if let (Some(digest), Some(from)) = (first("mount"), first("from"))
            && self.linked_blob(&from, &digest).is_some()
        {
            self.store().links.insert((repository.to_owned(), digest.clone()));
            return created(head, repository, &digest);
        }
        let id = random::uuid();
        let upload = Upload {
            repository: repository.to_owned(),
            pieces: Vec::new(),
            tail: BytesMut::new(),
            length: 0,
            hash: Context::new(&SHA256),
            given_up: false,
        };
        self.store().uploads.insert(id.clone(), Arc::new(Mutex::new(upload)));
        self.at(202, head, repository, &id, 0)
    }

    /// All that is sent to an open upload.
    pub(super) async fn upload(
        &self,
        head: &Head,
        repository: &str,
        id: &str,
        body: &mut RequestBody<'_>,
    ) -> Reply {
        let stated = head.query("_state").first().and_then(|state| self.offset(state, repository, id));
        let Some(stated) = stated else {
            return refusal(404, "BLOB_UPLOAD_INVALID", "blob upload invalid", Value::Null);
        };
        let found = self.store().uploads.get(id).cloned();
        let Some(upload) = found.filter(|upload| lock(upload).repository == repository) else {
            return refusal(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry", Value::Null);
        };
        // U9: more came than the client knows of. docker-registry keeps such an upload and says the same each time.
        if lock(&upload).length != stated {
            self.give_up(&upload);
        }
        if lock(&upload).given_up {
            return refusal(404, "BLOB_UPLOAD_INVALID", "blob upload invalid", Value::Null);
        }
        match head.method.as_str() {
            "GET" => self.at(204, head, repository, id, stated),
            "DELETE" => {
                self.drop_upload(id);
                Reply::new(204)
            }
            _ => self.receive(head, id, &upload, body).await,
        }
    }

    async fn receive(
        &self,
        head: &Head,
        id: &str,
        upload: &Arc<Mutex<Upload>>,
        body: &mut RequestBody<'_>,
    ) -> Reply {
        loop {
            match body.chunk().await {
                Ok(Some(chunk)) => {
                    if !self.takes(chunk.len() as u64) {
                        return refusal(500, "UNKNOWN", "unknown error", json!("out of space"));
                    }
                    lock(upload).push(&chunk);
                }
                Ok(None) => break,
                // What came stays: the next request finds another offset than it states.
                Err(_) => return refusal(400, "UNKNOWN", "client disconnected", Value::Null),
            }
        }
        let (repository, length) = {
            let upload = lock(upload);
            if upload.given_up {
                return refusal(404, "BLOB_UPLOAD_INVALID", "blob upload invalid", Value::Null);
            }
            (upload.repository.clone(), upload.length)
        };
        if head.is("PATCH") {
            return self.at(202, head, &repository, id, length);
        }
        self.finish(head, &repository, id, upload)
    }

    fn finish(&self, head: &Head, repository: &str, id: &str, upload: &Arc<Mutex<Upload>>) -> Reply {
        let wanted = head.query("digest").into_iter().next().unwrap_or_default();
        let (found, blob) = {
            let mut upload = lock(upload);
            let tail = Bytes::copy_from_slice(&std::mem::take(&mut upload.tail));
            upload.pieces.push(tail);
            let hash = upload.hash.clone().finish();
            let blob = Blob { pieces: std::mem::take(&mut upload.pieces), length: upload.length };
            (format!("sha256:{}", random::to_hex(hash.as_ref())), blob)
        };
        if found != wanted {
            self.drop_upload(id);
            let message = "provided digest did not match uploaded content";
            return refusal(400, "DIGEST_INVALID", message, Value::Null);
        }
        let mut store = self.store();
        store.uploads.remove(id);
        store.links.insert((repository.to_owned(), found.clone()));
        let length = blob.length;
        if store.blobs.insert(found.clone(), blob).is_some() {
            store.used = store.used.saturating_sub(length);
        }
        drop(store);
        created(head, repository, &found)
    }

    /// Reserves space for bytes; false where the registry is full.
    fn takes(&self, bytes: u64) -> bool {
        let mut store = self.store();
        let fits = store.used + bytes <= self.limit;
        if fits {
            store.used += bytes;
        }
        fits
    }

    fn drop_upload(&self, id: &str) {
        let mut store = self.store();
        if let Some(upload) = store.uploads.remove(id) {
            store.used = store.used.saturating_sub(lock(&upload).held());
        }
    }

    /// Forgets an upload's bytes, so that many cut ones take no room.
    fn give_up(&self, upload: &Mutex<Upload>) {
        let mut store = self.store();
        let mut upload = lock(upload);
        store.used = store.used.saturating_sub(upload.held());
        upload.given_up = true;
        upload.pieces = Vec::new();
        upload.tail = BytesMut::new();
    }

    /// Where an upload stands: 202 or 204.
    fn at(&self, status: u16, head: &Head, repository: &str, id: &str, length: u64) -> Reply {
        let state = json!({"Name": repository, "UUID": id, "Offset": length}).to_string();
        let tag = sign(&Key::new(HMAC_SHA256, &self.secret), state.as_bytes());
        let state = URL_SAFE.encode([tag.as_ref(), state.as_bytes()].concat());
        let state = utf8_percent_encode(&state, &UNRESERVED_KEPT);
        let reply = Reply::new(status)
            .with("Docker-Upload-Uuid", id)
            .with("Location", format!("{}/v2/{repository}/blobs/uploads/{id}?_state={state}", base(head)))
            .with("Range", format!("0-{}", length.saturating_sub(1)));
        if status == 204 { reply } else { reply.with("Content-Length", "0") }
    }

    /// The offset in a `_state` of ours for this upload.
    fn offset(&self, state: &str, repository: &str, id: &str) -> Option<u64> {
        let bytes = URL_SAFE.decode(state).ok()?;
        let (tag, state) = bytes.split_at_checked(32)?;
        verify(&Key::new(HMAC_SHA256, &self.secret), state, tag).ok()?;
        let state: Value = serde_json::from_slice(state).ok()?;
        (state["Name"] == repository && state["UUID"] == id).then(|| state["Offset"].as_u64())?
    }
}

/// What base64url needs escaped in a query is `=` alone.
const UNRESERVED_KEPT: percent_encoding::AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'_');

fn created(head: &Head, repository: &str, digest: &str) -> Reply {
    Reply::new(201)
        .with("Content-Length", "0")
        .with("Docker-Content-Digest", digest)
        .with("Location", format!("{}/v2/{repository}/blobs/{digest}", base(head)))
}

/// A digest as registries write it.
pub(super) fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", random::to_hex(digest(&SHA256, bytes).as_ref()))
}
