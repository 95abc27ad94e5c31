//! What a running process tells its operator: the answer of `/v1/status`, as it is shown by `tidegate status`.
//!
//! The names of the fields are an interface: scripts read them. A field may be added; none changes its meaning.

pub mod render;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    decisions::{
        plan,
        ring::{self, State},
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

/// One key of the ring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
