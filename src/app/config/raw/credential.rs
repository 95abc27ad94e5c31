//! `[[credential]]`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::app::config::moment::Moment;

/// A robot's former secret, which is taken for a while after Harbor has another one: see `docs/gradual.md`. On `/v2/` and
/// `/service/token` only; the present secret goes up in its place.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Credential {
    /// The robot's whole name.
    pub name: String,
    /// Harbor's `robot_name_prefix`, with which the name begins.
    pub prefix: String,
    /// A file with the former secret's hash, as `tidegate hash-secret` writes it: argon2id, never the secret itself.
    pub former_hash_file: String,
    /// A file with the present secret; it is read again when it changes.
    pub present_file: String,
    /// Until when the former secret is taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Moment")]
    pub until: Option<Moment>,
}

impl Default for Credential {
    fn default() -> Self {
        Self {
            name: String::new(),
            prefix: "robot$".to_owned(),
            former_hash_file: String::new(),
            present_file: String::new(),
            until: None,
        }
    }
}
