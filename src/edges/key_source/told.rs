//! The kernel's word that something in a key's folder changed. Watching the folder and not the file sees
//! renames over the file and Kubernetes' swap of `..data`.

use std::{collections::BTreeSet, future::pending, path::Path, time::Duration};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode},
    recommended_watcher,
};
use tokio::{
    sync::mpsc::{Receiver, channel},
    time::sleep,
};
use tracing::warn;

use super::{Place, Source};

/// The least time from one of the kernel's messages to the next look: a busy folder must not keep us busy.
const BETWEEN_LOOKS: Duration = Duration::from_millis(2);

/// Watches as long as it lives. Where the kernel can't watch, the look at every tick is all there is.
pub(super) struct Told {
    _watcher: Option<RecommendedWatcher>,
    messages: Receiver<()>,
}

impl Told {
    /// Comes back when something changed since the last call; many changes are one. Where it is dropped
    /// before that, a look must follow.
    pub(super) async fn change(&mut self) {
        if self.messages.recv().await.is_none() {
            pending::<()>().await;
        }
        sleep(BETWEEN_LOOKS).await;
    }
}

pub(super) fn of(sources: &[Source]) -> Told {
    let (tell, messages) = channel(1);
    let watcher = recommended_watcher(move |event: notify::Result<Event>| {
        // A full channel holds a message already; a closed one has nobody left to tell.
        if event.is_ok_and(|event| is_change(event.kind)) {
            tell.try_send(()).ok();
        }
    });
    let watcher = watcher.map(|watcher| watching(watcher, sources)).inspect_err(|error| {
        warn!(error = %error, "key files can't be watched; changes are seen at the next look");
    });
    Told { _watcher: watcher.ok(), messages }
}

fn watching(mut watcher: RecommendedWatcher, sources: &[Source]) -> RecommendedWatcher {
    let folders: BTreeSet<&Path> = sources.iter().filter_map(folder).collect();
    for folder in folders {
        if let Err(error) = watcher.watch(folder, RecursiveMode::NonRecursive) {
            warn!(
                key.path = %folder.display(), error = %error,
                "a key's folder can't be watched; changes are seen at the next look"
            );
        }
    }
    watcher
}

/// Our own reads are events too: looking at those would never end.
fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(access) => access == AccessKind::Close(AccessMode::Write),
        _ => true,
    }
}

fn folder(source: &Source) -> Option<&Path> {
    match &source.place {
        Place::Folder(path) => Some(path),
        // Its thread tells.
        Place::Token(_) => None,
        Place::File(path) | Place::Jwks(path) => {
            path.parent().map(|parent| if parent.as_os_str().is_empty() { Path::new(".") } else { parent })
        }
    }
}
