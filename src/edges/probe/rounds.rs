//! The rounds of probes: at start, every few seconds while keys differ, rarely otherwise.

use std::{
    collections::{HashMap, VecDeque},
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use tokio::sync::Notify;

use super::{Answer, Finding, KEY_TARGET, ask, read_key, reading, sid_of};
use crate::{
    decisions::plan::{Held, Standing},
    edges::{
        alarm::cause,
        fleet::{Endpoint, Opaque, Scheme, Shelf, Status},
    },
    words::{challenge::Challenge, clock::Clock, kid::Kid},
};

/// How often, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Between rounds while all is settled.
    pub every: Duration,
    /// Between rounds while keys differ, an endpoint is ejected or its key is not known.
    pub in_window: Duration,
    /// For one answer.
    pub timeout: Duration,
}

/// What is learned of Harbor as a whole.
pub trait Learn: Send + Sync {
    /// A core issued a token that lives so long.
    fn lifetime(&self, lifetime: Duration);
    /// Harbor's authentication mode, from `systeminfo`.
    fn auth_mode(&self, mode: &str);
    /// An endpoint issued this token just now; it holds the token's key if the signature verifies (A12).
    fn issued(&self, held: &reading::Held);
    /// Harbor sends clients here for tokens; told once.
    fn realm(&self, realm: &str);
    /// Whether more than one key verifies now.
    fn window_open(&self) -> bool;
    /// Whether requests wait for an endpoint.
    fn awaited(&self) -> bool;
    /// Whether the endpoints are plain registries, which are asked in their own way.
    fn is_plain(&self) -> bool;
    /// Asks one.
    fn ask_plain(&self, endpoint: Arc<Endpoint>) -> AskPlain;
}

/// A question to a plain registry: the key that it knows, if any of ours; why it can't take requests, if it can't.
pub type AskPlain = Pin<Box<dyn Future<Output = Result<Option<Kid>, String>> + Send>>;

/// Asks all endpoints, again and again.
pub struct Rounds {
    shelf: Arc<Shelf>,
    pace: Pace,
    clock: Clock,
    learn: Arc<dyn Learn>,
    memory: HashMap<u64, Memory>,
}

/// What the rounds remember of one endpoint.
#[derive(Default)]
struct Memory {
    sid: Option<Arc<str>>,
    seen: VecDeque<Kid>,
    asked_info: Option<(Instant, u64)>,
}

/// What is said of a registry that refuses what we sign.
const KNOWS_NONE: &str =
    "the registry refuses what is signed with each of our keys: tokens go up as they came";
/// Probes of one endpoint that are remembered: an opaque endpoint that showed one key alone in all of them
/// counts as settled again.
const REMEMBERED: usize = 16;
/// Probes in a first round and in a round after a surprise, each over a connection of its own.
const BURST: usize = 6;
/// Between rounds while requests wait for an endpoint.
const AWAITED: Duration = Duration::from_millis(200);
/// `systeminfo` asks the database, so it is asked rarely.
const INFO_EVERY: Duration = Duration::from_mins(5);

impl Rounds {
    /// Rounds over the endpoints of `shelf`.
    pub fn new(shelf: Arc<Shelf>, pace: Pace, clock: Clock, learn: Arc<dyn Learn>) -> Self {
        Self { shelf, pace, clock, learn, memory: HashMap::new() }
    }

    /// Goes round until the task is dropped, after a pause at first; `now` asks for a round at once.
    pub async fn run(mut self, now: Arc<Notify>) {
        loop {
            let snapshot = self.shelf.snapshot();
            let restless = snapshot.unsettled()
                || self.learn.window_open()
                || snapshot.statuses.iter().any(|s| s.standing == Standing::Ejected);
            let pause = if self.learn.awaited() {
                AWAITED
            } else if restless {
                self.pace.in_window
            } else {
                self.pace.every
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = now.notified() => {}
            }
            self.round().await;
        }
    }

    /// One round: every endpoint at once.
    pub async fn round(&mut self) {
        let snapshot = self.shelf.snapshot();
        let mut memories = std::mem::take(&mut self.memory);
        let mut visits = Vec::new();
        for status in &snapshot.statuses {
            let memory = memories.remove(&status.endpoint.id).unwrap_or_default();
            visits.push(self.visit(status.clone(), memory));
        }
        self.memory = join_all(visits).await.into_iter().collect();
        let snapshot = self.shelf.snapshot();
        // A plain registry's realm is somebody else.
        if snapshot.realm_scheme.is_none() && !self.learn.is_plain() {
            self.learn_scheme().await;
        }
    }

    async fn visit(&self, status: Status, mut memory: Memory) -> (u64, Memory) {
        let id = status.endpoint.id;
        if self.learn.is_plain() {
            self.visit_plain(&status.endpoint).await;
            return (id, memory);
        }
        let first = memory.seen.is_empty();
        let count = match status.endpoint.opaque {
            Opaque::No => 1,
            Opaque::Auto | Opaque::Yes if first => BURST,
            Opaque::Auto | Opaque::Yes => 2,
        };
        for _ in 0..count {
            if !self.probe(&status.endpoint, &mut memory).await {
                break;
            }
        }
        self.judge_opacity(&status.endpoint, &memory);
        let due =
            memory.asked_info.is_none_or(|(at, epoch)| at.elapsed() > INFO_EVERY || epoch != status.epoch);
        if due && !memory.seen.is_empty() {
            let epoch = self.shelf.snapshot().by_id(id).map_or(0, |s| s.epoch);
            memory.asked_info = Some((Instant::now(), epoch));
            self.ask_info(&status.endpoint).await;
        }
        (id, memory)
    }

    async fn visit_plain(&self, endpoint: &Arc<Endpoint>) {
        let epoch = self.epoch(endpoint);
        match self.learn.ask_plain(endpoint.clone()).await {
            Ok(Some(kid)) => self.inn(endpoint, &kid, 0, epoch),
            Ok(None) => self.shelf.change_status(endpoint.id, |status| {
                if status.held != Held::Unknown {
                    status.held = Held::Unknown;
                    status.epoch += 1;
                }
                status.standing = Standing::Healthy;
                status.probed = Some(Instant::now());
                status.trouble = Some(KNOWS_NONE.into());
            }),
            Err(why) => self.out(endpoint, &why),
        }
        // distribution grants 60 s on the times of a token.
        self.shelf.change_status(endpoint.id, |status| status.leeway = Some(true));
    }

    /// One probe; `false` where the endpoint can't be reached.
    async fn probe(&self, endpoint: &Arc<Endpoint>, memory: &mut Memory) -> bool {
        let asked = self.clock.now_precise();
        let epoch = self.epoch(endpoint);
        let answer = match ask(endpoint, KEY_TARGET, memory.sid.as_deref(), self.pace.timeout).await {
            Ok(answer) => answer,
            Err(fault) => {
                self.out(endpoint, &cause(&fault));
                return false;
            }
        };
        if let Some(sid) = sid_of(&answer.headers) {
            memory.sid = Some(sid);
        }
        match read_key(answer.status, &answer.body) {
            Finding::Holds(held) => {
                let ahead = reading::clock_ahead(held.issued, asked, self.clock.now_precise());
                self.learn.lifetime(held.lifetime);
                self.learn.issued(&held);
                self.inn(endpoint, &held.kid, ahead, epoch);
                memory.seen.push_back(held.kid);
                if memory.seen.len() > REMEMBERED {
                    memory.seen.pop_front();
                }
                true
            }
            Finding::CannotSign => {
                self.shelf.change_status(endpoint.id, |status| status.standing = Standing::Healthy);
                self.shelf.cannot_sign(endpoint);
                true
            }
            Finding::Strange => {
                self.out(
                    endpoint,
                    &format!("answers {} to a token request, as no Harbor core does", answer.status),
                );
                false
            }
        }
    }

    fn epoch(&self, endpoint: &Endpoint) -> u64 {
        self.shelf.snapshot().by_id(endpoint.id).map_or(0, |status| status.epoch)
    }

    /// The endpoint answered. What a request has learned of its key since the question stands above the answer.
    fn inn(&self, endpoint: &Endpoint, kid: &Kid, ahead: i64, epoch: u64) {
        if self.epoch(endpoint) == epoch {
            self.shelf.confirm(endpoint, kid);
        }
        self.shelf.change_status(endpoint.id, |status| {
            if status.standing == Standing::Ejected {
                tracing::info!(endpoint = %endpoint.name, "the endpoint answers again and takes requests");
            }
            status.standing = Standing::Healthy;
            status.clock_ahead = ahead;
            status.probed = Some(Instant::now());
            status.trouble = None;
        });
    }

    fn out(&self, endpoint: &Endpoint, why: &str) {
        let snapshot = self.shelf.snapshot();
        let already = snapshot.by_id(endpoint.id).is_some_and(|s| s.standing == Standing::Ejected);
        if !already {
            tracing::warn!(endpoint = %endpoint.name, cause = why, "the endpoint takes no requests until a probe succeeds");
        }
        self.shelf.eject(endpoint, why);
    }

    /// A key that came back after another one was seen means replicas behind one address; an upgrade
    /// changes a key once.
    fn judge_opacity(&self, endpoint: &Endpoint, memory: &Memory) {
        if endpoint.opaque == Opaque::No {
            return;
        }
        let snapshot = self.shelf.snapshot();
        let Some(status) = snapshot.by_id(endpoint.id) else { return };
        let kids = by_last_seen(&memory.seen);
        if !status.held.several() && came_back(&memory.seen) {
            tracing::info!(endpoint = %endpoint.name, keys = kids.len(), "several replicas with different keys answer behind this address");
            self.shelf.change_status(endpoint.id, |s| s.became_opaque(kids));
        } else if status.held.several()
            && endpoint.opaque == Opaque::Auto
            && memory.seen.len() == REMEMBERED
            && let [only] = &kids[..]
        {
            let only = only.clone();
            self.shelf.change_status(endpoint.id, |s| {
                s.held = Held::Unknown;
                s.learn(only);
            });
        }
    }

    async fn ask_info(&self, endpoint: &Endpoint) {
        let Ok(answer) = ask(endpoint, "/api/v2.0/systeminfo", None, self.pace.timeout).await else { return };
        let Ok(info) = serde_json::from_slice::<reading::SystemInfo>(&answer.body) else { return };
        if let Some(mode) = &info.auth_mode {
            self.learn.auth_mode(mode);
        }
        let (leeway, version) = (info.leeway(), info.harbor_version.map(Arc::from));
        self.shelf.change_status(endpoint.id, |status| {
            status.leeway = leeway;
            status.version = version;
        });
    }

    async fn learn_scheme(&self) {
        let snapshot = self.shelf.snapshot();
        let Some(status) = snapshot.statuses.iter().find(|s| s.standing == Standing::Healthy) else { return };
        let Ok(answer) = ask(&status.endpoint, "/v2/", None, self.pace.timeout).await else { return };
        let Some(realm) = realm(&answer) else { return };
        if let Some(scheme) = scheme_of(realm) {
            self.shelf.change(|snapshot| snapshot.realm_scheme = Some(scheme));
            self.learn.realm(realm);
        }
    }
}

/// The realm of a `Bearer` challenge: where clients get their tokens.
pub fn realm(answer: &Answer) -> Option<&str> {
    match Challenge::of(answer.headers.get(http::header::WWW_AUTHENTICATE)?) {
        Challenge::Bearer { realm, .. } => Some(realm),
        Challenge::Basic | Challenge::Empty | Challenge::Other => None,
    }
}

fn scheme_of(realm: &str) -> Option<Scheme> {
    match realm.split_once(':') {
        Some(("https", _)) => Some(Scheme::Https),
        Some(("http", _)) => Some(Scheme::Http),
        _ => None,
    }
}

/// Distinct keys, the last seen first.
fn by_last_seen(seen: &VecDeque<Kid>) -> Vec<Kid> {
    let mut kids: Vec<Kid> = Vec::new();
    for kid in seen.iter().rev() {
        if !kids.contains(kid) {
            kids.push(kid.clone());
        }
    }
    kids
}

fn came_back(seen: &VecDeque<Kid>) -> bool {
    let turns = seen.iter().zip(seen.iter().skip(1)).filter(|(a, b)| a != b).count();
    turns > by_last_seen(seen).len().saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(letters: &str) -> VecDeque<Kid> {
        letters.chars().map(|c| Kid::parse(&c.to_string()).expect("a name")).collect()
    }

    #[test]
    fn a_key_that_comes_back_means_several_replicas() {
        for (letters, opaque) in
            [("", false), ("AAAA", false), ("AABB", false), ("ABC", false), ("AABA", true), ("ABCB", true)]
        {
            assert_eq!(came_back(&seen(letters)), opaque, "{letters}");
        }
        let kids: Vec<_> = by_last_seen(&seen("ABAB")).iter().map(ToString::to_string).collect();
        assert_eq!(kids, ["B", "A"]);
    }
}
