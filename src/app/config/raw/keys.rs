//! `[keys]` and `[token]`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    app::config::{amounts::Span, moment::Moment, secret::SecretText, written::Text},
    words::kid::Kid,
};

/// The keys that sign and verify registry tokens.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Keys {
    /// Where keys come from; the flag `--key` names files in their place. None: tokens are re-routed and replayed, never re-signed.
    pub sources: Vec<KeySource>,
    /// What becomes of a key that its file no longer holds: `auto` lets it verify until the last token that it
    /// can have signed has expired; `listed` keeps only what the sources list as verifying; `off` lets only signing
    /// keys verify, for a key that leaked.
    pub overlap: Overlap,
    /// Harbor's `token_expiration`.
    pub token_lifetime: Text<Span>,
    /// How far clocks may differ; at most `5m`.
    pub leeway: Text<Span>,
    /// How often files are looked at, beside being watched; `100ms` to `1m`. PKCS#11 tokens are looked at ten times as
    /// seldom, a second apart at least, and at once when a key is met that nobody knows.
    pub reread_every: Text<Span>,
    /// Keep private halves in the store too, sealed, for as long as their keys verify: after a restart, or on another
    /// replica, tokens can be signed for a core that still holds a key which no file holds any more. Needs
    /// `overlap = "auto"`.
    pub keep_private: bool,
    /// Take tokens that name no key, where one key alone could have signed them.
    pub accept_missing_kid: bool,
}

impl Default for Keys {
    fn default() -> Self {
        Self {
            sources: Vec::new(),
            overlap: Overlap::default(),
            token_lifetime: Text(Span::minutes(30)),
            leeway: Text(Span::seconds(60)),
            reread_every: Text(Span::millis(500)),
            keep_private: false,
            accept_missing_kid: false,
        }
    }
}

/// One of `file`, `folder`, `jwks` and `pkcs11`, and what is known of its keys.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KeySource {
    /// A PEM file: a private key (PKCS#1, PKCS#8), a public key or a certificate. Best the very file that core reads.
    pub file: String,
    /// A folder of such files: `*.pem`, `*.key` and `*.crt`; names that begin with a dot don't count, as in a
    /// mounted Secret.
    pub folder: String,
    /// A file with a JWKS, or its `https` URL: asked again every minute or as its `max-age` says (10 s to 5 min), and at
    /// once when a token names an unknown key. While it can't be had, what it held stays.
    pub jwks: String,
    /// Keys in a PKCS#11 token, which sign there.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Pkcs11")]
    pub pkcs11: Option<Pkcs11>,
    /// Certificates in PEM that sign the URL's. Empty: the platform's.
    pub ca_file: String,
    /// One more name by which tokens may name the key of `file` or `pkcs11`.
    pub alias: Text<Option<Kid>>,
    /// The state of its keys. Absent: by the file's history and by `from` and `until`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "State")]
    pub state: Option<State>,
    /// Its keys are announced before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Moment")]
    pub from: Option<Moment>,
    /// Its keys are retired after it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Moment")]
    pub until: Option<Moment>,
}

/// RSA keys in a PKCS#11 token: all that have the label, or the id, or both. A key that is gone from it goes on verifying
/// as one that is gone from a file.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Pkcs11 {
    /// The vendor's library, which is loaded into this process.
    pub module: String,
    /// The token's label.
    pub token: String,
    /// The label of the private keys.
    pub label: String,
    /// Their id, in hexadecimal.
    pub id: String,
    /// A file with the PIN of the token's user. One that the token refused is not tried again.
    pub pin_file: String,
    /// The PIN itself, for a variable: `TIDEGATE_KEYS__SOURCES__0__PKCS11__PIN` sets that of the first source.
    pub pin: SecretText,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Overlap {
    #[default]
    Auto,
    Listed,
    Off,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum State {
    Announced,
    Signing,
    Verifying,
    Retired,
}

/// Registry tokens as Harbor issues them.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Token {
    /// The claim `iss`.
    pub issuer: String,
    /// The claim `aud`, and `service` of a token request.
    pub service: String,
    /// How long an answer of `/service/token` is given again to the same credential and scopes, never past half
    /// its life. `0s` = off.
    pub cache: Text<Span>,
}

impl Default for Token {
    fn default() -> Self {
        Self {
            issuer: "harbor-token-issuer".to_owned(),
            service: "harbor-registry".to_owned(),
            cache: Text(Span::seconds(45)),
        }
    }
}
