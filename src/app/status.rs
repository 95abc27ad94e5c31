//! What a running process tells its operator: the answer of `/v1/status`, as it is shown by `tidegate status`.
//!
//! The names of the fields are an interface: scripts read them. A field may be added; none changes its meaning.

pub mod render;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    decisions::{
        evidence, plan,
        ring::{self, Policy, State},
        window::Open,
    },
    words::clock::UnixTime,
};

/// One process at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    /// `enforce` or `observe`.
    pub mode: String,
    /// Empty where it has no name.
    pub deployment: String,
    pub uptime_seconds: u64,
    pub readiness: Readiness,
    pub endpoints: Vec<Endpoint>,
    /// The upgrade window, where one is open.
    #[serde(default)]
    pub window: Option<Window>,
    /// Other processes that share the store and live.
    #[serde(default)]
    pub replicas: Vec<Replica>,
    pub keys: Vec<Key>,
    /// Other tidegates that are asked for their keys.
    #[serde(default)]
    pub peers: Vec<Peer>,
    /// Requests since the start, of all routes.
    pub requests: u64,
    /// Rescued requests since the start, by reason.
    pub rescues: BTreeMap<String, u64>,
    /// In observe mode, refusals of Harbor's that enforce mode would have rescued, by reason.
    #[serde(default)]
    pub would_have_rescued: BTreeMap<String, u64>,
    /// Answers of ours in place of Harbor's since the start, by reason.
    pub rejections: BTreeMap<String, u64>,
    /// Requests that wait now until Harbor can answer them.
    #[serde(default)]
    pub waiting: usize,
    /// Where tokens were signed again since the start.
    #[serde(default)]
    pub signatures: Vec<Signatures>,
    pub alarms: Vec<Alarm>,
    /// The move to the next side, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ramp: Option<Ramp>,
    /// Former secrets of robots, and who still uses them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former_secrets: Vec<FormerSecret>,
}

/// A robot's former secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormerSecret {
    /// The robot.
    pub name: String,
    /// Until it is taken no more; `None` where that has come.
    pub ends_in_seconds: Option<u64>,
    /// Requests with it since the start.
    pub requests: u64,
    /// Since the last one.
    pub last_used_seconds_ago: Option<u64>,
    /// Addresses that they came from; 1,000 are told apart.
    pub addresses: usize,
}

/// The move to the next side, as it goes on in this process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ramp {
    /// Percent of clients that go to the next side now.
    pub share: u8,
    /// The same by plan.
    pub planned: u8,
    /// The same as an operator has set it.
    pub set: Option<u8>,
    /// What goes there whatever the share.
    pub by: Vec<String>,
    /// The part of its requests in a minute that may fail.
    pub stop_at: String,
    /// What the plan has next.
    pub next_step: Option<String>,
    /// Why all go to the current side, where they do.
    pub stopped: Option<String>,
    /// Requests to the current side since the start.
    pub requests_current: u64,
    /// Requests to the next side since the start.
    pub requests_next: u64,
    /// Those of them that failed there.
    pub failed_next: u64,
    /// The same in the last minute.
    pub minute_requests_next: u32,
    /// Those of them that failed there.
    pub minute_failed_next: u32,
}

/// Whether new connections should come here; why not, where not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readiness {
    pub ready: bool,
    pub reasons: Vec<String>,
    /// What doesn't work as it should while serving goes on.
    #[serde(default)]
    pub degraded: Vec<String>,
}

/// One address of Harbor core.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// As it is configured.
    pub url: String,
    /// Address and port that the name led to.
    pub address: String,
    pub healthy: bool,
    pub held: Held,
    /// Seconds since the last probe that was answered.
    pub probed_seconds_ago: Option<u64>,
    /// `next`, or empty.
    #[serde(default)]
    pub side: String,
}

/// The key that an endpoint signs and verifies with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Held {
    Unknown,
    One(String),
    /// Several replicas answer behind the address.
    Several(Vec<String>),
    CannotSign,
}

/// One place where signatures are made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signatures {
    /// `memory`, or the source of a key that stays in its token.
    pub place: String,
    pub count: u64,
    /// How long one was waited for, on average.
    pub mean_micros: u64,
}

/// An upgrade window that is open; seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    pub since: i64,
    pub until: i64,
    pub closes_in_seconds: u64,
    /// `command` or `grace.windows`.
    pub by: String,
}

/// All that there is to say of upgrade windows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowReport {
    pub open: Option<Window>,
    /// Those of the configuration that aren't over.
    pub listed: Vec<ListedWindow>,
    /// Keys that verify.
    pub keys: Vec<Key>,
}

/// A window of the configuration; seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedWindow {
    pub from: i64,
    pub until: i64,
}

/// Another process that shares the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replica {
    pub id: String,
    pub host: String,
    pub version: String,
    pub heard_seconds_ago: u64,
    /// Whether it goes by the same revocations and windows as this one.
    pub agrees: bool,
}

/// Who uses a key, on all replicas: what is known of tokens that were issued or met. Counts are about right.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// Users and robots.
    pub principals: u64,
    /// Addresses.
    pub clients: u64,
    /// Since a token of it was last issued, or met for the first time.
    pub last_seen_seconds_ago: u64,
    /// Until the last token that was seen ends; 0 where it has.
    pub latest_token_ends_in_seconds: u64,
}

/// One key of the ring.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    pub kid: String,
    /// `announced`, `signing`, `verifying` or `retired`.
    pub state: String,
    /// Whether we hold its private half or a token signs for us, and so can re-sign with it.
    pub private: bool,
    /// The private half is in a PKCS#11 token.
    #[serde(default)]
    pub token: bool,
    /// Seconds until its state ends; `None` where nothing ends it.
    pub ends_in_seconds: Option<u64>,
    /// The file or endpoint that it came from.
    pub source: String,
    /// Since when it is retired (seconds since 1970), where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<i64>,
    /// `None` where no token of it was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
    /// Of a key that verifies and signs no more: when `keys retire` ends no living token; 0 = now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub safe_to_retire_in_seconds: Option<u64>,
}

impl Evidence {
    /// As it is at `now`.
    pub fn of(seen: &evidence::Seen, now: UnixTime) -> Self {
        Self {
            principals: seen.principals.about(),
            clients: seen.clients.about(),
            last_seen_seconds_ago: now.since(seen.last).as_secs(),
            latest_token_ends_in_seconds: seen.latest_exp.since(now).as_secs(),
        }
    }
}

impl Window {
    /// As it is at `now`.
    pub fn of(open: Open, now: UnixTime) -> Self {
        Self {
            since: open.since.0,
            until: open.until.0,
            closes_in_seconds: open.until.since(now).as_secs(),
            by: if open.by_command { "command" } else { "grace.windows" }.to_owned(),
        }
    }
}

/// Another tidegate before the same Harbor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// As it is configured.
    pub url: String,
    /// Address and port that the name led to; empty where it led nowhere.
    pub address: String,
    /// Seconds since its last good answer.
    pub heard_seconds_ago: Option<u64>,
    /// The keys that it published then.
    pub keys: Vec<String>,
    /// What was wrong with its last answer.
    pub fault: Option<String>,
}

impl Peer {
    /// Its address, else its URL.
    pub fn name(&self) -> &str {
        if self.address.is_empty() { &self.url } else { &self.address }
    }
}

impl From<&plan::Held> for Held {
    fn from(held: &plan::Held) -> Self {
        match held {
            plan::Held::Unknown => Self::Unknown,
            plan::Held::One(kid) => Self::One(kid.to_string()),
            plan::Held::Several(kids) => Self::Several(kids.iter().map(ToString::to_string).collect()),
            plan::Held::CannotSign => Self::CannotSign,
        }
    }
}

impl Key {
    /// An entry of the ring as it is at `now`.
    pub fn of(entry: &ring::Entry, now: UnixTime) -> Self {
        let state = entry.state(now);
        let ends =
            if let State::Verifying { until, .. } = state { Some(until.since(now).as_secs()) } else { None };
        Self {
            kid: entry.key().kid().to_string(),
            state: state.as_str().to_owned(),
            private: entry.key().can_sign(),
            token: entry.key().elsewhere().is_some(),
            ends_in_seconds: ends,
            source: entry.source().to_string(),
            since: entry.retired_since().map(|since| since.0),
            evidence: None,
            safe_to_retire_in_seconds: None,
        }
    }

    /// The same with what is known of its use.
    pub fn with_use(entry: &ring::Entry, seen: &evidence::Evidence, policy: &Policy, now: UnixTime) -> Self {
        let (state, seen) = (entry.state(now), seen.key(entry.key().kid()));
        let safe = state.safe_from(seen.map(|seen| seen.latest_exp), policy);
        let verifies = matches!(state, State::Verifying { .. });
        Self {
            evidence: seen.map(|seen| Evidence::of(seen, now)),
            safe_to_retire_in_seconds: safe.filter(|_| verifies).map(|safe| safe.since(now).as_secs()),
            ..Self::of(entry, now)
        }
    }

    /// Which half is here.
    pub fn half(&self) -> &'static str {
        match (self.token, self.private) {
            (true, _) => "token",
            (false, true) => "private",
            (false, false) => "public",
        }
    }
}

/// Something that an operator should mend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alarm {
    /// A path or an endpoint.
    pub subject: String,
    pub cause: String,
    pub remedy: String,
}
