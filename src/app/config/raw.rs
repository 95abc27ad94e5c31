//! The configuration as it is written: one struct a section, doc comments that operators read.
//!
//! The schema, the reference and the commented file of all defaults are made from these types. A default
//! stands in `Default` alone. What a single value can't say about itself is judged in [`super::checks`].

mod credential;
mod keys;
mod listener;
mod peers;
mod process;
mod ramp;
mod store;
mod upstream;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::{
    credential::Credential,
    keys::{KeySource, Keys, Overlap, Pkcs11, State, Token},
    listener::{Listener, ListenerTls, Scope, TlsVersion},
    peers::Peers,
    process::{Admin, Grace, Level, Limits, Log, LogFormat, Park, Replay, Timeouts, UpgradeWindow, Uploads},
    ramp::{Ramp, Step},
    store::{Store, StoreTls},
    upstream::{Endpoint, Kind, Opaque, Probe, Side, Upstream, UpstreamTls},
};
use super::{address::EndpointUrl, written::Text};

/// tidegate's configuration.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Root {
    /// `enforce` verifies, re-signs, re-routes and replays; `observe` changes nothing of what is judged,
    /// and counts what it would have done: tokens refused, and refusals of Harbor's that re-signing or
    /// re-routing would have rescued. Replays are not counted, because it keeps no credential.
    pub mode: Mode,
    /// Name of this Harbor: letters, digits, `.`, `_` and `-`, at most 63. It keeps what belongs to one
    /// Harbor apart from another's.
    pub deployment: String,
    /// Scheme, host and port under which clients reach this proxy. Empty: the scheme as in Harbor's own
    /// realm, the host as the client asked.
    pub public_url: Text<Option<EndpointUrl>>,
    /// `keep` leaves the realm of Harbor's challenges as it is; `rewrite` points it to `public_url`.
    pub realm: Realm,
    /// Where clients connect.
    pub listener: Listeners,
    pub upstream: Upstream,
    pub keys: Keys,
    pub peers: Peers,
    pub token: Token,
    pub replay: Replay,
    pub uploads: Uploads,
    pub park: Park,
    pub grace: Grace,
    pub store: Store,
    pub limits: Limits,
    pub timeouts: Timeouts,
    pub admin: Admin,
    pub log: Log,
    /// Former secrets of robots.
    pub credential: Vec<Credential>,
    pub ramp: Ramp,
}

/// One listener unless any is configured.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Listeners(pub Vec<Listener>);

impl Default for Listeners {
    fn default() -> Self {
        Self(vec![Listener::default()])
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Mode {
    #[default]
    Enforce,
    Observe,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Realm {
    #[default]
    Keep,
    Rewrite,
}
