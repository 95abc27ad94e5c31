//! `[[listener]]`.

use std::net::{Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::app::config::written::Text;

/// Where clients connect. Without any there is one with these defaults; the flag `--listen` makes one.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Listener {
    /// Address and port; `:8080` is every address of both families.
    pub address: Text<SocketAddr>,
    /// `public` hides what only Harbor's own components may reach (`/v1/`, `/service/notifications`,
    /// `Harbor-Secret`); `cluster` lets it pass, for a sidecar through whose port they come.
    pub scope: Scope,
    /// HTTP/2 beside HTTP/1.1: by ALPN with TLS, by prior knowledge on a plain address.
    pub http2: bool,
    /// Connections begin with a PROXY header (version 1 or 2), and only `trusted_proxies` may connect.
    pub proxy_protocol: bool,
    /// Networks whose `X-Forwarded-*` and `Forwarded` headers count.
    pub trusted_proxies: Vec<Text<IpNet>>,
    /// TLS 1.2 and 1.3. Absent: plain.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ListenerTls")]
    pub tls: Option<ListenerTls>,
}

impl Default for Listener {
    fn default() -> Self {
        Self {
            address: Text(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 8080))),
            scope: Scope::default(),
            http2: false,
            proxy_protocol: false,
            trusted_proxies: Vec::new(),
            tls: None,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Scope {
    #[default]
    Public,
    Cluster,
}

/// TLS of a listener; a change of the files is taken up by itself.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ListenerTls {
    /// The certificate chain in PEM, ours first.
    pub certificate_file: String,
    /// Its private key in PEM.
    pub key_file: String,
    /// Certificates in PEM: a client must then show one that they signed.
    pub client_ca_file: String,
    /// The lowest version of TLS.
    pub min: TlsVersion,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum TlsVersion {
    #[default]
    #[serde(rename = "1.2")]
    V1_2,
    #[serde(rename = "1.3")]
    V1_3,
}
