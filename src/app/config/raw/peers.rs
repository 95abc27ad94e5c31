//! `[peers]`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::app::config::{address::EndpointUrl, amounts::Span, secret::SecretText, written::Text};

/// Other tidegates before the same Harbor, each beside a replica of its own: they learn each other's public keys, and what was
/// retired at once. They prove to be of one `deployment` by mutual TLS or by a shared secret.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Peers {
    /// Their listeners of scope `cluster`. Each address of a name is a peer, this process itself left out: in Kubernetes a
    /// headless Service.
    pub urls: Vec<Text<EndpointUrl>>,
    /// Certificates in PEM that sign peers'. Empty: the platform's.
    pub ca_file: String,
    /// The certificate chain in PEM that we show to peers, whose listeners ask for one by `client_ca_file`.
    pub certificate_file: String,
    /// Its private key in PEM.
    pub key_file: String,
    /// The name that peers' certificates must have. Empty: the host of the URL.
    pub server_name: String,
    /// A secret that all peers have, 32 characters or more; it is proved and never sent.
    pub secret: SecretText,
    /// A file with it. One a line: the first proves, any is accepted, so that it can be changed without a gap.
    pub secret_file: String,
    /// Neither: whoever can answer in a peer's place can let its own keys verify here.
    pub insecure: bool,
    /// How often they are asked, beside at once when a token names an unknown key.
    pub every: Text<Span>,
}

impl Default for Peers {
    fn default() -> Self {
        Self {
            urls: Vec::new(),
            ca_file: String::new(),
            certificate_file: String::new(),
            key_file: String::new(),
            server_name: String::new(),
            secret: SecretText::default(),
            secret_file: String::new(),
            insecure: false,
            every: Text(Span::seconds(10)),
        }
    }
}
