//! What requests changed in a Harbor, for a test that watches: each change by the request that it came of. It outlives the
//! cores, and holds also what a core did, or its registry did for it, and never lived to tell.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::rehearsal::harbor::wire::head::Head;

/// The changes so far, while somebody watches; nothing is kept before.
#[derive(Debug, Default)]
pub struct Deeds(Mutex<Option<Vec<Deed>>>);

/// One request that changed something: its method is none of the safe ones, and it was answered with less than 400.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deed {
    /// The core that did it.
    pub core: SocketAddr,
    pub method: String,
    /// Path and query as they came.
    pub target: String,
    /// `X-Request-ID` as it came; empty where none did.
    pub request_id: String,
    /// Status of the answer.
    pub status: u16,
    /// The upload session that the answer names; empty where it names none.
    pub upload: String,
    /// The whole answer was written to whoever asked.
    pub acknowledged: bool,
}

/// The place of a deed among all.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Place(usize);

/// A request that may become a deed.
#[derive(Debug)]
pub(in super::super) struct Begun {
    deeds: Arc<Deeds>,
    deed: Deed,
}

impl Deeds {
    /// Everything since the first call of [`super::World::watch`], in the order in which it was done.
    pub fn all(&self) -> Vec<Deed> {
        self.kept().clone().unwrap_or_default()
    }

    pub(super) fn watch(&self) {
        self.kept().get_or_insert_default();
    }

    /// What a request to this core may do; `None` where it can change nothing, or nobody watches.
    pub(super) fn begin(self: &Arc<Self>, head: &Head, core: SocketAddr) -> Option<Begun> {
        if is_safe(&head.method) || self.kept().is_none() {
            return None;
        }
        let deed = Deed {
            core,
            method: head.method.clone(),
            target: head.target.clone(),
            request_id: head.header("x-request-id").unwrap_or_default().to_owned(),
            status: 0,
            upload: String::new(),
            acknowledged: false,
        };
        Some(Begun { deeds: Arc::clone(self), deed })
    }

    pub(in super::super) fn acknowledge(&self, place: Place) {
        if let Some(deed) = self.kept().as_mut().and_then(|deeds| deeds.get_mut(place.0)) {
            deed.acknowledged = true;
        }
    }

    fn kept(&self) -> MutexGuard<'_, Option<Vec<Deed>>> {
        // No holder of the lock panics.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Begun {
    /// It was answered so. To be called before anything else is awaited: a core may end at any point.
    pub(in super::super) fn answered(self, status: u16, headers: &[(String, String)]) -> Option<Place> {
        if status >= 400 {
            return None;
        }
        let upload = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("docker-upload-uuid"));
        let upload = upload.map(|(_, value)| value.clone()).unwrap_or_default();
        let mut kept = self.deeds.kept();
        let deeds = kept.as_mut()?;
        deeds.push(Deed { status, upload, ..self.deed });
        Some(Place(deeds.len() - 1))
    }
}

/// Whether requests of this method change nothing (RFC 9110, 9.2.1).
pub(in super::super) fn is_safe(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE")
}
