//! Upload sessions that may have to begin again: what each has sent, under the last `Location` that its client was
//! given (A24).

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use aws_lc_rs::digest::{self, SHA256};
use http::Uri;
use moka::sync::Cache;
use percent_encoding::percent_decode_str;

use super::kept::{Kept, Stores};

/// An upload that stands still for so long is forgotten: its client may go on, and a cut then ends it.
const IDLE: Duration = Duration::from_mins(10);
/// Uploads between two steps at most.
const ENTRIES: u64 = 20_000;

/// The uploads that are between two steps.
pub struct Uploads {
    /// Where their bytes are.
    pub stores: Arc<Stores>,
    between: Cache<Name, Arc<Mutex<Option<Kept>>>>,
}

/// Names one upload: by principal, repository and exact `Location`.
pub type Name = [u8; 32];

impl Uploads {
    /// None yet.
    pub fn new(stores: Stores) -> Self {
        let between = Cache::builder().max_capacity(ENTRIES).time_to_idle(IDLE).build();
        Self { stores: Arc::new(stores), between }
    }

    /// Takes the upload of this name: nobody else has it until it is put back.
    pub fn take(&self, name: &Name) -> Option<Kept> {
        let entry = self.between.remove(name)?;
        entry.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Puts an upload under the name of its next step.
    pub fn put(&self, name: Name, kept: Kept) {
        self.between.insert(name, Arc::new(Mutex::new(Some(kept))));
    }

    /// How many are between two steps, about.
    pub fn waiting(&self) -> u64 {
        self.between.entry_count()
    }
}

/// The name of an upload step's target, or of a `Location`; clients add `digest` to the query, and may write it anew.
pub fn name(principal: &str, repository: &str, target: &Uri) -> Name {
    let mut query: Vec<_> = target
        .query()
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty() && !pair.starts_with(DIGEST))
        .map(|pair| percent_decode_str(pair).collect::<Vec<_>>())
        .collect();
    query.sort_unstable();
    let mut context = digest::Context::new(&SHA256);
    let mut add = |part: &[u8]| {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    };
    add(principal.as_bytes());
    add(repository.as_bytes());
    add(&percent_decode_str(target.path()).collect::<Vec<_>>());
    for pair in &query {
        add(pair);
    }
    let mut name = [0; 32];
    name.copy_from_slice(context.finish().as_ref());
    name
}

/// The query parameter that a client adds to the last step's target.
const DIGEST: &str = "digest=";

/// The target of a step at another upload session: its `Location`, and what the client added to the former one.
pub fn moved(location: &Uri, step: &Uri) -> Option<Uri> {
    let added = step.query().unwrap_or_default().split('&').find(|pair| pair.starts_with(DIGEST));
    let at = location.path_and_query()?.as_str();
    let joint = if location.query().is_some() { '&' } else { '?' };
    match added {
        None => at.parse().ok(),
        Some(added) => format!("{at}{joint}{added}").parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(text: &str) -> Uri {
        text.parse().expect("a target")
    }

    #[test]
    fn a24_only_the_same_principal_repository_and_location_name_the_same_upload() {
        let of = |principal, repository, target| name(principal, repository, &uri(target));
        let given = of("robot$ci", "p/r", "http://h/v2/p/r/blobs/uploads/u?_state=a%3D%3D&x=1");
        let asked = "/v2/p/r/blobs/uploads/u?digest=sha256%3Aaa&x=1&_state=a==";
        assert_eq!(given, of("robot$ci", "p/r", asked), "written anew, with a digest");
        for (principal, repository, target) in [
            ("robot$c", "p/r", asked),
            ("robot$ci", "p/s", asked),
            ("robot$ci", "p/r", "/v2/p/r/blobs/uploads/u?x=1&_state=a="),
            ("robot$ci", "p/r", "/v2/p/r/blobs/uploads/v?x=1&_state=a=="),
            ("robot$ci", "p/r", "/v2/p/r/blobs/uploads/u"),
        ] {
            assert_ne!(given, of(principal, repository, target), "{principal} {repository} {target}");
        }
    }

    #[test]
    fn a_step_moves_to_the_new_location_with_its_digest() {
        for (location, step, moved_to) in [
            (
                "http://h/v2/r/blobs/uploads/n?_state=n",
                "/v2/r/blobs/uploads/o?_state=o",
                "/v2/r/blobs/uploads/n?_state=n",
            ),
            (
                "/v2/r/blobs/uploads/n?_state=n",
                "/v2/r/blobs/uploads/o?digest=sha256%3Aab&_state=o",
                "/v2/r/blobs/uploads/n?_state=n&digest=sha256%3Aab",
            ),
            (
                "/v2/r/blobs/uploads/n",
                "/v2/r/blobs/uploads/o?digest=sha256:ab",
                "/v2/r/blobs/uploads/n?digest=sha256:ab",
            ),
        ] {
            assert_eq!(moved(&uri(location), &uri(step)), Some(uri(moved_to)), "{location} {step}");
        }
    }
}
