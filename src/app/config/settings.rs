//! What the process runs with: checked, plain data, nothing left to parse.
//!
//! Only [`super::load`] makes these values, so what their comments promise holds for whoever reads them.

use std::{net::SocketAddr, num::NonZeroU32, path::PathBuf, time::Duration};

use ipnet::IpNet;

pub use super::{
    address::{AdminAddress, EndpointUrl, Host, JwksUrl, Scheme},
    secret::{Material, Secret},
    store_url::{Server, Servers, StoreUrl},
};
pub use crate::decisions::ramp::{Ramp, Side};
use crate::words::{clock::UnixTime, kid::Kid};

/// The whole configuration of one process.
#[derive(Clone, Debug)]
pub struct Settings {
    pub mode: Mode,
    /// Name of the Harbor in front of which we stand; empty where it has none.
    pub deployment: String,
    /// Scheme, host and port under which clients reach us; `None` = scheme as Harbor's realm says, host as asked.
    pub public_url: Option<EndpointUrl>,
    /// [`Realm::Rewrite`] only together with `public_url`.
    pub realm: Realm,
    /// At least one; no address twice.
    pub listeners: Vec<Listener>,
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
    /// Names differ.
    pub credentials: Vec<FormerSecret>,
    /// `None` = no endpoint is one to move to.
    pub ramp: Option<Ramp>,
    pub stated: Stated,
}

/// What was written rather than left to its default, of that whose absence at a reload looks like a mishap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stated {
    /// The file says anything at all.
    pub file: bool,
    /// `upstream.endpoints`, by file, environment or flag.
    pub endpoints: bool,
    /// `keys.sources`, likewise.
    pub key_sources: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Enforce,
    /// Judges nothing and counts (rule A27).
    Observe,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Realm {
    Keep,
    Rewrite,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    pub address: SocketAddr,
    pub scope: Scope,
    /// HTTP/2 by prior knowledge on a plain address, by ALPN with TLS.
    pub http2: bool,
    /// A PROXY header is required, and only `trusted_proxies` (then not empty) may send it.
    pub proxy_protocol: bool,
    pub trusted_proxies: Vec<IpNet>,
    pub tls: Option<ListenerTls>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    Public,
    /// `/v1/`, `/service/notifications` and `Harbor-Secret` pass (rule A26).
    Cluster,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerTls {
    pub certificate: Material,
    pub key: Material,
    /// Certificates of clients are asked for and must be signed by it.
    pub client_ca: Option<Material>,
    pub min: TlsVersion,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    V1_2,
    V1_3,
}

#[derive(Clone, Debug)]
pub struct Upstream {
    pub kind: Kind,
    /// Where everything but the paths of core goes; `None` = to the endpoints too.
    pub portal: Option<EndpointUrl>,
    /// At least one; no url twice.
    pub endpoints: Vec<Endpoint>,
    pub tls: UpstreamTls,
    pub resolve_every: Duration,
    pub probe: Probe,
    pub pool: Pool,
    pub timeouts: UpstreamTimeouts,
}

/// What stands behind us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Harbor,
    /// Registries with token authentication; there are keys, and the realm is theirs.
    Registry,
}

#[derive(Clone, Debug)]
pub struct Endpoint {
    pub url: EndpointUrl,
    pub opaque: Opaque,
    /// Not all are the next side's.
    pub side: Side,
}

/// A robot's former secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormerSecret {
    /// Exactly as Harbor has it.
    pub name: String,
    pub former_hash: PathBuf,
    pub present: PathBuf,
    pub until: UnixTime,
}

/// Whether several replicas, and so several keys, may answer behind one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opaque {
    Auto,
    Yes,
    No,
}

/// TLS to every endpoint and to the portal with `https`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamTls {
    /// `None` = the platform's certificates.
    pub ca: Option<Material>,
    /// Certificate and private key that we show.
    pub client: Option<(Material, Material)>,
    /// `None` = the host of the endpoint's url.
    pub server_name: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    pub every: Duration,
    /// At most `every`.
    pub in_window: Duration,
    pub timeout: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    pub idle: Duration,
    /// Connections of one endpoint over all workers; at least 1.
    pub per_endpoint: usize,
}

/// Each but `connect` runs until the head of the answer.
#[derive(Clone, Copy, Debug)]
pub struct UpstreamTimeouts {
    pub connect: Duration,
    pub token: Duration,
    pub api: Duration,
    pub registry: Duration,
}

#[derive(Clone, Debug)]
pub struct Keys {
    /// May be empty: tokens are then re-routed and replayed, never re-signed.
    pub sources: Vec<KeySource>,
    pub overlap: Overlap,
    /// Harbor's `token_expiration`; at least a minute.
    pub token_lifetime: Duration,
    /// At most five minutes.
    pub leeway: Duration,
    pub reread_every: Duration,
    /// Private halves are kept in the store.
    pub keep_private: bool,
    pub accept_missing_kid: bool,
}

#[derive(Clone, Debug)]
pub struct KeySource {
    pub origin: KeyOrigin,
    /// One more name under which tokens may name the key.
    pub alias: Option<Kid>,
    /// `None` = by the file's history and by `from` and `until`.
    pub state: Option<KeyState>,
    /// Before it the key is announced.
    pub from: Option<UnixTime>,
    /// After it the key is retired; later than `from`.
    pub until: Option<UnixTime>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyOrigin {
    File(PathBuf),
    /// Every `*.pem`, `*.key` and `*.crt` in it whose name doesn't begin with a dot.
    Folder(PathBuf),
    JwksFile(PathBuf),
    /// With the authority that signs its certificate; `None` = the platform's.
    JwksUrl(JwksUrl, Option<Material>),
    Token(Pkcs11),
}

/// Keys of a PKCS#11 token; a label or an id, or both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pkcs11 {
    pub module: PathBuf,
    pub token: String,
    pub label: Option<String>,
    pub id: Option<Vec<u8>>,
    pub pin: Material,
}

/// With `urls`, a secret or `insecure` there is a deployment's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peers {
    /// No url twice; without a secret and `insecure` all are https.
    pub urls: Vec<EndpointUrl>,
    /// `None` = the platform's certificates.
    pub ca: Option<Material>,
    pub client: Option<(Material, Material)>,
    /// `None` = the host of the url.
    pub server_name: Option<String>,
    pub secret: Option<Material>,
    /// Nobody proves anything.
    pub insecure: bool,
    pub every: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    Announced,
    Signing,
    Verifying,
    Retired,
}

/// What becomes of a key that its file no longer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overlap {
    /// It verifies until the last token that it can have signed has expired.
    Auto,
    /// Only what the sources list verifies.
    Listed,
    /// It ends at once.
    Off,
}

#[derive(Clone, Debug)]
pub struct Token {
    pub issuer: String,
    pub service: String,
    /// Zero = off.
    pub cache: Duration,
}

#[derive(Clone, Copy, Debug)]
pub struct Replay {
    pub enabled: bool,
    /// Credentials in memory, at least 1.
    pub entries: usize,
    /// Replays of one principal side by side, at least 1.
    pub per_principal: usize,
}

/// In bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uploads {
    pub head: usize,
    /// At least `head`.
    pub heads_total: usize,
    /// Zero = nothing is kept.
    pub memory_total: usize,
    /// `None` = nothing beyond memory.
    pub spool: Option<PathBuf>,
    pub spool_each: u64,
    /// At least `spool_each`.
    pub spool_total: u64,
}

#[derive(Clone, Copy, Debug)]
pub struct Park {
    /// Zero = none waits.
    pub timeout: Duration,
    /// At least 1.
    pub requests: usize,
    pub bytes: usize,
}

#[derive(Clone, Debug)]
pub struct Grace {
    /// Zero = off.
    pub window: Duration,
    /// Upgrade windows: from, until.
    pub windows: Vec<(UnixTime, UnixTime)>,
}

/// Where what outlives the process is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    pub url: StoreUrl,
    /// Before every name in a server.
    pub prefix: String,
    pub password: Option<Material>,
    /// `None` = the platform's certificates; of a server with TLS alone, as the client's.
    pub ca: Option<Material>,
    pub client: Option<(Material, Material)>,
    /// The first seals, any opens. Not empty with a server.
    pub seal_keys: Vec<PathBuf>,
}

/// Sizes in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub connections: usize,
    /// At most `buffer`.
    pub head: usize,
    pub buffer: usize,
    pub http2_streams: u32,
    pub wrong_credentials: Rate,
    pub unknown_kids: Rate,
}

/// So many in each `per`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    pub count: NonZeroU32,
    pub per: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    pub handshake: Duration,
    pub head: Duration,
    pub idle: Duration,
    /// A body that stands still, in either direction.
    pub stall: Duration,
    pub drain_delay: Duration,
    pub drain: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    pub address: AdminAddress,
    /// Names, lower case and without port, by which the listener may be asked beside its own address.
    pub hosts: Vec<String>,
    /// Without it a TCP address changes nothing and shows no user (rule A28).
    pub token: Option<Material>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    pub level: Level,
    pub format: LogFormat,
    /// One line a request.
    pub access: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Json,
    Text,
}
