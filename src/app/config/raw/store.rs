//! `[store]`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::app::config::{secret::SecretText, store_url::StoreUrl, written::Text};

/// What outlives the process: public halves of keys that were seen, what was retired, and what Harbor granted, for grace.
/// All of it is sealed.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Store {
    /// `auto`: a file in `/var/lib/tidegate` where that folder is there and can be written, else memory, which a restart
    /// empties. `file:` is for one process; several replicas share a Redis or Valkey, alone, behind Sentinel or as a
    /// Cluster.
    pub url: Text<StoreUrl>,
    /// Before every name in a server, so that one may be shared.
    pub prefix: String,
    /// The server's password.
    pub password: SecretText,
    /// A file with it.
    pub password_file: String,
    /// TLS to servers.
    pub tls: StoreTls,
    /// Keys that seal the records: the first one seals, any opens. A new one comes second, then first, then alone
    /// (`docs/store.md`). With a file and none named, `seal.key` beside it is made at the first start; with a server
    /// all replicas need the same: `(umask 077; openssl rand -base64 32 > FILE)`.
    pub seal_key_files: Vec<String>,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            url: Text(StoreUrl::default()),
            prefix: "tidegate:".to_owned(),
            password: SecretText::default(),
            password_file: String::new(),
            tls: StoreTls::default(),
            seal_key_files: Vec::new(),
        }
    }
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StoreTls {
    /// Certificates in PEM that sign the server's. Empty: the platform's.
    pub ca_file: String,
    /// The certificate chain in PEM that we show to the server.
    pub certificate_file: String,
    /// Its private key in PEM.
    pub key_file: String,
}
