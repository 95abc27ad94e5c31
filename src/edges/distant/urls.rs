//! JWKS at URLs as sources of keys: asked again when their `max-age` is over, and what they gave stays where they fail.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::future::join_all;
use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::{
    PATIENCE,
    fetch::{self, FetchFault, Fetched, Site},
};
use crate::{
    decisions::{
        key::{self, Key, KeyFault},
        ring::{Listing, SourceName},
    },
    edges::{
        alarm::{Alarm, cause},
        key_source::KeyShelf,
    },
    words::clock::Clock,
};

/// Between two questions, where the answer says nothing of it;
const USUAL: Duration = Duration::from_mins(1);
/// at least;
const SHORTEST: Duration = Duration::from_secs(10);
/// and at most, because a key that was taken out must not verify here for long.
const LONGEST: Duration = Duration::from_mins(5);
/// Addresses of one name that are tried.
const ADDRESSES: usize = 4;
/// Keys of one set, as many as a peer may publish: each has a state among the metrics, and all names are compared with all.
const MOST_KEYS: usize = 256;

/// A JWKS at a URL, which is its name.
#[derive(Clone, Debug)]
pub struct Url {
    pub name: SourceName,
    pub site: Site,
    pub target: Arc<str>,
    pub listing: Listing,
}

/// All of them.
pub struct Urls {
    configured: ArcSwap<Configured>,
    seen: Mutex<HashMap<SourceName, Seen>>,
    /// Held while the shelf takes what was read, or another configuration.
    taking: Mutex<()>,
    shelf: Arc<KeyShelf>,
    clock: Clock,
}

/// What is configured, and how often that has changed: what was asked for under a former configuration counts no more.
#[derive(Clone)]
struct Configured {
    generation: u64,
    urls: Arc<Vec<Url>>,
}

/// What one gave last.
struct Seen {
    due: Instant,
    /// Its question is under way.
    is_asked: bool,
    held: Option<(HeaderValue, Bytes)>,
}

impl Urls {
    pub(super) fn new(urls: Vec<Url>, shelf: Arc<KeyShelf>, clock: Clock) -> Self {
        let configured = ArcSwap::from_pointee(Configured { generation: 0, urls: Arc::new(urls) });
        Self { configured, seen: Mutex::default(), taking: Mutex::default(), shelf, clock }
    }

    pub(super) fn is_any(&self) -> bool {
        !self.configured.load().urls.is_empty()
    }

    /// What is wrong with certificates to ask with.
    pub fn alarms(&self) -> Vec<Alarm> {
        let configured = self.configured.load();
        configured
            .urls
            .iter()
            .filter_map(|url| url.site.tls.as_ref())
            .flat_map(|tls| tls.alarms().to_vec())
            .collect()
    }

    /// Takes another configuration: what it lists of a URL counts at once, also while that can't be had, and keys of URLs that
    /// are gone from it count as replaced. Answers that are still under way are dropped. It may block on a look at files.
    pub fn follow(&self, urls: Vec<Url>) {
        let _taking = lock(&self.taking);
        let (before, urls) = (self.configured.load_full(), Arc::new(urls));
        let generation = before.generation + 1;
        self.configured.store(Arc::new(Configured { generation, urls: Arc::clone(&urls) }));
        // They are read anew: what is listed of them may have changed.
        lock(&self.seen).clear();
        let now = self.clock.now();
        for gone in before.urls.iter().filter(|url| urls.iter().all(|other| other.name != url.name)) {
            self.shelf.heard(&gone.name, None, Ok(Vec::new()), now);
        }
        for url in urls.iter() {
            self.shelf.list(&url.name, url.listing.clone(), now);
        }
    }

    /// Asks those whose time has come, or `all`.
    pub(super) async fn round(self: &Arc<Self>, all: bool) {
        let Configured { generation, urls } = Configured::clone(&self.configured.load());
        let due = urls.iter().filter(|url| self.begins(url, generation, all));
        join_all(due.map(|url| self.ask(url, generation))).await;
    }

    fn begins(&self, url: &Url, generation: u64, at_once: bool) -> bool {
        let now = Instant::now();
        let mut seen = lock(&self.seen);
        if !self.is_present(generation) {
            return false;
        }
        let fresh = || Seen { due: now, is_asked: false, held: None };
        let seen = seen.entry(url.name.clone()).or_insert_with(fresh);
        let begins = !seen.is_asked && (at_once || seen.due <= now);
        seen.is_asked |= begins;
        begins
    }

    fn is_present(&self, generation: u64) -> bool {
        self.configured.load().generation == generation
    }

    async fn ask(self: &Arc<Self>, url: &Url, generation: u64) {
        let held = lock(&self.seen).get(&url.name).and_then(|seen| seen.held.clone());
        let fetched = self.fetch(url, held.as_ref().map(|(tag, _)| tag)).await;
        let again = fetched.as_ref().ok().map_or(USUAL.min(2 * SHORTEST), |fetched| pause(&fetched.headers));
        let (read, held) = match fetched {
            Ok(Fetched { status: StatusCode::OK, headers, body }) => {
                let tag = headers.get(header::ETAG).filter(|tag| tag.len() <= 256);
                let tag = tag.and_then(|tag| HeaderValue::from_bytes(tag.as_bytes()).ok());
                (parse(&body), tag.map(|tag| (tag, body)))
            }
            Ok(Fetched { status: StatusCode::NOT_MODIFIED, .. }) if held.is_some() => {
                let read = held.as_ref().map_or(Ok(Vec::new()), |(_, body)| parse(body));
                (read, held)
            }
            Ok(Fetched { status, .. }) => {
                (Err(KeyFault::Fetch(format!("it answered {}", status.as_u16()))), held)
            }
            Err(fault) => (Err(KeyFault::Fetch(cause(&fault))), held),
        };
        if !self.note(url, generation, Seen { due: Instant::now() + again, is_asked: false, held }) {
            return;
        }
        let (all, of) = (Arc::clone(self), url.clone());
        if let Err(error) = tokio::task::spawn_blocking(move || all.take(&of, generation, read)).await {
            tracing::error!(%error, "keys of a URL were not taken; the next answer's are");
        }
    }

    /// Whether its configuration is the present one still.
    fn note(&self, url: &Url, generation: u64, now: Seen) -> bool {
        let mut seen = lock(&self.seen);
        let is_present = self.is_present(generation);
        if is_present {
            seen.insert(url.name.clone(), now);
        }
        is_present
    }

    fn take(&self, url: &Url, generation: u64, read: Result<Vec<Key>, KeyFault>) {
        let _taking = lock(&self.taking);
        if self.is_present(generation) {
            self.shelf.heard(&url.name, Some(url.listing.clone()), read, self.clock.now());
        }
    }

    /// The first answer among the name's addresses.
    async fn fetch(&self, url: &Url, tag: Option<&HeaderValue>) -> Result<Fetched, FetchFault> {
        if let Some(tls) = url.site.tls.clone() {
            let now = self.clock.now();
            // Certificates may have been replaced; files are read off the runtime's thread.
            tokio::task::spawn_blocking(move || tls.reload(now)).await.ok();
        }
        let mut headers = HeaderMap::new();
        headers
            .insert(header::ACCEPT, HeaderValue::from_static("application/jwk-set+json, application/json"));
        headers.extend(tag.map(|tag| (header::IF_NONE_MATCH, tag.clone())));
        let mut fault = FetchFault::Name(std::io::Error::other("the name has no address"));
        for address in url.site.addresses(PATIENCE).await?.into_iter().take(ADDRESSES) {
            match fetch::get(&url.site, address, &url.target, headers.clone(), PATIENCE).await {
                Ok(fetched) => return Ok(fetched),
                Err(failed) => fault = failed,
            }
        }
        Err(fault)
    }
}

fn parse(set: &[u8]) -> Result<Vec<Key>, KeyFault> {
    let keys = key::parse_jwks(set)?;
    if keys.len() > MOST_KEYS { Err(KeyFault::TooManyKeys(MOST_KEYS)) } else { Ok(keys) }
}

/// What these locks guard is whole at every step.
fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What `Cache-Control` says (RFC 9111, 5.2.2.1), within our bounds.
fn pause(headers: &HeaderMap) -> Duration {
    let texts = headers.get_all(header::CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let ages = texts.flat_map(|text| text.split(',')).filter_map(|directive| {
        let (name, value) = directive.trim().split_once('=')?;
        name.eq_ignore_ascii_case("max-age").then(|| value.trim_matches('"').parse().ok()).flatten()
    });
    ages.min().map_or(USUAL, Duration::from_secs).clamp(SHORTEST, LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_asked_again_as_it_says_within_bounds() {
        for (value, seconds) in [
            ("max-age=120", 120),
            ("public, Max-Age=30", 30),
            ("max-age=\"45\"", 45),
            ("max-age=0", 10),
            ("max-age=86400", 300),
            ("max-age=never", 60),
            ("no-store", 60),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(value));
            assert_eq!(pause(&headers), Duration::from_secs(seconds), "{value}");
        }
        assert_eq!(pause(&HeaderMap::new()), USUAL);
    }
}
