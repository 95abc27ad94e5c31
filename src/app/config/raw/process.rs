//! `[replay]`, `[uploads]`, `[limits]`, `[timeouts]`, `[admin]` and `[log]`.

use std::{
    net::{Ipv4Addr, SocketAddr},
    num::{NonZeroU32, NonZeroUsize},
    time::Duration,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::app::config::{
    address::AdminAddress,
    amounts::{Size, Span},
    moment::Moment,
    secret::SecretText,
    settings::Rate,
    written::Text,
};

/// Sending the credential that a token was issued for, where no key can help.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Replay {
    /// Whether credentials are held and sent at all.
    pub enabled: bool,
    /// Credentials held, in memory only.
    pub entries: NonZeroUsize,
    /// Replays of one principal side by side. Robots and local users may have `8`; a user's CLI secret makes Harbor
    /// ask the identity provider each time.
    pub per_principal: NonZeroUsize,
}

impl Default for Replay {
    fn default() -> Self {
        const ENTRIES: NonZeroUsize = NonZeroUsize::MIN.saturating_add(99_999);
        Self { enabled: true, entries: ENTRIES, per_principal: NonZeroUsize::MIN }
    }
}

/// Bodies on their way up.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Uploads {
    /// The beginning of a body that is kept for a second send; core refuses after reading up to 256 KiB.
    pub head: Text<Size>,
    /// All of them together, shared fairly by address and principal; a body without a share is sent after a question
    /// to its endpoint and can't be taken back.
    pub heads_total: Text<Size>,
    /// What uploads have sent so far, kept so that they can begin anew when core stops in the middle of one: so much of
    /// all of them in memory, shared fairly by address and principal. `0B` = nothing is kept.
    pub memory_total: Text<Size>,
    /// A folder for more of it: files without a name, mode 0600, sealed, gone with the process. Empty = none; an upload
    /// that finds no room then fails when core stops.
    pub spool: String,
    /// The most of one upload in the folder.
    pub spool_each: Text<Size>,
    /// The most of all uploads in the folder.
    pub spool_total: Text<Size>,
}

impl Default for Uploads {
    fn default() -> Self {
        Self {
            head: Text(Size::kib(320)),
            heads_total: Text(Size::mib(64)),
            memory_total: Text(Size::mib(256)),
            spool: String::new(),
            spool_each: Text(Size::gib(20)),
            spool_total: Text(Size::gib(100)),
        }
    }
}

/// Requests that wait for an endpoint instead of failing: while Harbor's core restarts, say.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Park {
    /// The longest time that a request waits; a request for a token, or a ping without a credential, at most
    /// 12 s, because docker waits for 15. `0s` = none waits.
    pub timeout: Text<Span>,
    /// Requests that wait side by side, shared fairly by address and principal; what finds no room gets 503.
    pub requests: NonZeroUsize,
    /// Bytes of all that wait: their heads, and what is kept of their bodies.
    pub bytes: Text<Size>,
}

impl Default for Park {
    fn default() -> Self {
        const REQUESTS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1_999);
        Self { timeout: Text(Span::seconds(30)), requests: REQUESTS, bytes: Text(Size::mib(256)) }
    }
}

/// Tokens while Harbor can't answer: what it granted a credential before, for exactly the same scope, once more; while
/// there is no core at all, for another scope a token that Harbor judges where it is used.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Grace {
    /// How long after Harbor last accepted the credential, at most `7d`. Each such token lives five minutes at most; `0s`
    /// switches grace off.
    pub window: Text<Span>,
    /// Upgrade windows by date, beside those of `tidegate window open`: while one is open, endpoints are asked for
    /// their keys every `upstream.probe.in_window`, and a key that stops signing verifies at least until it closes.
    pub windows: Vec<UpgradeWindow>,
}

impl Default for Grace {
    fn default() -> Self {
        Self { window: Text(Span::hours(12)), windows: Vec::new() }
    }
}

/// A time in which Harbor is worked on.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct UpgradeWindow {
    /// It is open from then on.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Moment")]
    pub from: Option<Moment>,
    /// It is closed from then on.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Moment")]
    pub until: Option<Moment>,
}

/// What one client, and all of them, may use.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// The most connections of clients.
    pub connections: NonZeroUsize,
    /// The longest head of a request; at most `buffer`.
    pub head: Text<Size>,
    /// The buffer of a connection; `8KiB` to `1MiB`.
    pub buffer: Text<Size>,
    /// Streams of one HTTP/2 connection.
    pub http2_streams: NonZeroU32,
    /// Wrong credentials that reach Harbor, for each principal and address.
    pub wrong_credentials: Text<Rate>,
    /// Looks for new keys when tokens name unknown ones.
    pub unknown_kids: Text<Rate>,
}

impl Default for Limits {
    fn default() -> Self {
        const TEN: NonZeroU32 = NonZeroU32::MIN.saturating_add(9);
        Self {
            connections: NonZeroUsize::MIN.saturating_add(8_191),
            head: Text(Size::kib(32)),
            buffer: Text(Size::kib(64)),
            http2_streams: NonZeroU32::MIN.saturating_add(127),
            wrong_credentials: Text(Rate { count: TEN, per: Duration::from_mins(1) }),
            unknown_kids: Text(Rate { count: NonZeroU32::MIN, per: Duration::from_secs(1) }),
        }
    }
}

/// How long clients may take, and how we stop.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Timeouts {
    /// TLS and PROXY header.
    pub handshake: Text<Span>,
    /// The head of a request, from its first byte.
    pub head: Text<Span>,
    /// A connection between requests.
    pub idle: Text<Span>,
    /// A body that stands still, in either direction. One that moves may take as long as it takes.
    pub stall: Text<Span>,
    /// On SIGTERM, how long we still accept while readiness is off already. `0s` = not at all.
    pub drain_delay: Text<Span>,
    /// On SIGTERM, how long requests may still run after that. `0s` = not at all.
    pub drain: Text<Span>,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            handshake: Text(Span::seconds(10)),
            head: Text(Span::seconds(10)),
            idle: Text(Span::seconds(75)),
            stall: Text(Span::seconds(60)),
            drain_delay: Text(Span::seconds(5)),
            drain: Text(Span::seconds(300)),
        }
    }
}

/// The listener for operators: health, metrics, status, keys.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// Address and port, or `unix:/path` for a socket of mode 0600.
    pub address: Text<AdminAddress>,
    /// Names by which it may be asked beside `localhost` and its own address.
    pub hosts: Vec<String>,
    /// The bearer token for whatever changes state or shows users. Empty: a TCP address refuses that.
    pub token: SecretText,
    /// The file that holds it.
    pub token_file: String,
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            address: Text(AdminAddress::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 9180)))),
            hosts: Vec::new(),
            token: SecretText::default(),
            token_file: String::new(),
        }
    }
}

/// What is written to standard output.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// The least important events that are written.
    pub level: Level,
    /// How lines are written.
    pub format: LogFormat,
    /// One line a request.
    pub access: bool,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: Level::Info, format: LogFormat::Json, access: true }
    }
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum LogFormat {
    Json,
    Text,
}
