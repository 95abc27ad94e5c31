//! `[upstream]`.

use std::num::NonZeroUsize;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::app::config::{
    address::{EndpointUrl, Host, Scheme},
    amounts::Span,
    written::Text,
};

/// Harbor's side.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Upstream {
    /// `harbor`, or `registry`: plain registries that take tokens, with no core before them. Which of the keys in
    /// `keys.sources` such a registry knows is found out by signing with each of them.
    pub kind: Kind,
    /// Harbor's portal, in the place of Harbor's nginx; with `registry` what serves all but `/v2/`, such as the token
    /// server. Empty: what isn't core's goes to the endpoints as well.
    pub portal: Text<Option<EndpointUrl>>,
    /// Harbor core. Each address of a name is an endpoint of its own. The flag `--harbor` sets one.
    pub endpoints: Vec<Endpoint>,
    /// How often names of endpoints are resolved again.
    pub resolve_every: Text<Span>,
    /// TLS to endpoints and portal with `https`.
    pub tls: UpstreamTls,
    /// Asking an endpoint for an anonymous token shows which key it holds.
    pub probe: Probe,
    /// Connections kept to endpoints.
    pub pool: Pool,
    /// How long an endpoint may take.
    pub timeouts: UpstreamTimeouts,
}

impl Default for Upstream {
    fn default() -> Self {
        let core = EndpointUrl { scheme: Scheme::Http, host: Host::Name("core".to_owned()), port: 8080 };
        Self {
            kind: Kind::default(),
            portal: Text(None),
            endpoints: vec![Endpoint { url: Text(Some(core)), opaque: Opaque::Auto, side: Side::Current }],
            resolve_every: Text(Span::seconds(5)),
            tls: UpstreamTls::default(),
            probe: Probe::default(),
            pool: Pool::default(),
            timeouts: UpstreamTimeouts::default(),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Kind {
    #[default]
    Harbor,
    Registry,
}

/// One endpoint.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Endpoint {
    /// Scheme, host and port.
    pub url: Text<Option<EndpointUrl>>,
    /// Whether several replicas answer behind one address of it (a load balancer), so that its held key
    /// changes from call to call. `auto` finds out.
    pub opaque: Opaque,
    /// `next` where clients shall move to: what `[ramp]` says goes there, and all that would fail elsewhere. Empty: where
    /// they are.
    pub side: Side,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Side {
    #[default]
    #[serde(rename = "")]
    Current,
    Next,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Opaque {
    #[default]
    Auto,
    Yes,
    No,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct UpstreamTls {
    /// Certificates in PEM that sign Harbor's. Empty: the platform's.
    pub ca_file: String,
    /// The certificate chain in PEM that we show to Harbor.
    pub certificate_file: String,
    /// Its private key in PEM.
    pub key_file: String,
    /// The name that Harbor's certificate must have. Empty: the host of the endpoint's URL.
    pub server_name: String,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Probe {
    /// While one key is in use.
    pub every: Text<Span>,
    /// While more than one key verifies; at most `every`.
    pub in_window: Text<Span>,
    /// Of one probe.
    pub timeout: Text<Span>,
}

impl Default for Probe {
    fn default() -> Self {
        Self {
            every: Text(Span::seconds(30)),
            in_window: Text(Span::seconds(2)),
            timeout: Text(Span::seconds(3)),
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Pool {
    /// An idle connection is closed after it.
    pub idle: Text<Span>,
    /// The most connections to one endpoint. One client address (an IPv6 /64 counts as one) has more than one only
    /// while as many stay free as it has: clients behind a load balancer that `listener[].trusted_proxies` doesn't name
    /// count as one address.
    pub per_endpoint: NonZeroUsize,
}

impl Default for Pool {
    fn default() -> Self {
        const CONNECTIONS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(511);
        Self { idle: Text(Span::seconds(30)), per_endpoint: CONNECTIONS }
    }
}

/// Each but `connect` runs until the head of the answer.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct UpstreamTimeouts {
    /// Until the connection stands, TLS included.
    pub connect: Text<Span>,
    /// `/service/token`.
    pub token: Text<Span>,
    /// Everything but the other two.
    pub api: Text<Span>,
    /// `/v2/`; core answers a push only when the registry has stored it.
    pub registry: Text<Span>,
}

impl Default for UpstreamTimeouts {
    fn default() -> Self {
        Self {
            connect: Text(Span::seconds(2)),
            token: Text(Span::seconds(10)),
            api: Text(Span::seconds(60)),
            registry: Text(Span::seconds(900)),
        }
    }
}
