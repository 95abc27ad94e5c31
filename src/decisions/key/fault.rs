//! What can be wrong with a key, each with its cause and its remedy.

use crate::words::{file_fault::FileFault, kid::Kid};

/// Why bytes, or a file, gave no keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyFault {
    #[error(transparent)]
    File(#[from] FileFault),
    #[error(transparent)]
    Pkcs11(#[from] Pkcs11Fault),
    #[error("the file ends in the middle of a PEM block")]
    Cut,
    #[error("the file holds neither PEM blocks nor a JWKS document")]
    NoKeys,
    #[error("a PEM block is not base64 of a key: {0}")]
    Malformed(&'static str),
    #[error("the private key is encrypted with a passphrase")]
    Encrypted,
    #[error("a PEM block `{0}` is no key")]
    OtherBlock(String),
    #[error("the key is neither RSA nor P-256")]
    OtherKind,
    #[error("the RSA key has {bits} bits, fewer than 2048")]
    TooShort { bits: usize },
    #[error("the RSA key has {bits} bits, more than 8192")]
    TooLong { bits: usize },
    #[error("the RSA key's public exponent is even or below 3")]
    WeakExponent,
    #[error("the private half doesn't fit its public half, or has numbers out of range")]
    Inconsistent,
    #[error("the key is the one that Harbor's chart published (GHSA-5jw3-3rpx-7p27)")]
    PublishedDefault,
    #[error("the file holds public keys only, where a private key is needed")]
    PublicOnly,
    #[error("the folder holds no file named *.pem, *.key or *.crt")]
    EmptyFolder,
    #[error("the folder holds more than {0} files")]
    TooMany(usize),
    #[error("the set holds more than {0} keys")]
    TooManyKeys(usize),
    #[error("the JWKS document is not valid: {0}")]
    Jwks(&'static str),
    #[error("two different keys are named `{0}`")]
    NameTaken(Kid),
    #[error("the URL gave no keys: {0}")]
    Fetch(String),
    #[error("the alias is set on a source of several keys")]
    AliasOfMany,
}

impl KeyFault {
    /// What mends it, in words for the operator.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::File(FileFault::Empty)
            | Self::Cut
            | Self::NoKeys
            | Self::Malformed(_)
            | Self::Inconsistent => {
                "write the whole key beside the path and rename it over the path: `openssl genrsa -traditional 4096`"
            }
            Self::Encrypted => {
                "store the key without a passphrase: `openssl rsa -traditional -in KEY -out KEY`"
            }
            Self::OtherBlock(_) | Self::OtherKind => {
                "give an RSA or P-256 key as PEM (PKCS#1, PKCS#8, SEC 1), a certificate, a public key, or a JWKS"
            }
            Self::TooShort { .. } | Self::TooLong { .. } | Self::WeakExponent => {
                "make a new key: `openssl genrsa -traditional 4096`, and give it to core and to tidegate"
            }
            Self::PublishedDefault => {
                "anybody can sign with it: make a new key, set `core.secretName` or `core.tokenKey` in the chart"
            }
            Self::PublicOnly => {
                "give the file that core signs with (TOKEN_PRIVATE_KEY_PATH), not its certificate"
            }
            Self::File(FileFault::Missing) => {
                "check the path and the mount; core's key is at /etc/core/private_key.pem by default"
            }
            Self::File(fault) => fault.remedy(),
            Self::Pkcs11(fault) => fault.remedy(),
            Self::EmptyFolder => "name the keys' files so, or give each as `file`",
            Self::TooMany(_) => "give a folder of keys only",
            Self::TooManyKeys(_) => "publish only keys that sign, or whose tokens still live",
            Self::Jwks(_) => "give a JWKS of RSA or P-256 signature keys, each `kid` once (RFC 7517)",
            Self::NameTaken(_) => "give each key a name of its own, or drop one of the two",
            Self::Fetch(_) => "check the URL, its certificate (ca_file) and the network between",
            Self::AliasOfMany => "set `alias` on a file with one key",
        }
    }
}

/// Why a PKCS#11 token gave no keys. A thing of the configuration is named by its key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Pkcs11Fault {
    #[error("module {0} is not there")]
    NoModule(String),
    #[error("module {0} can't be loaded: {1}")]
    NotLoaded(String, String),
    #[error("the module doesn't answer")]
    Hangs,
    #[error("no token has the label {label:?}; the module shows {}", listed(shown))]
    NoToken { label: String, shown: Vec<String> },
    #[error("{0} tokens have this label")]
    SeveralTokens(usize),
    #[error("the token holds no RSA private key with this label and id that may sign")]
    NoKey,
    #[error("the token doesn't tell the public exponent of the key")]
    NoPublicHalf,
    #[error("pin_file {0}: {1}")]
    PinFile(String, FileFault),
    #[error("the PIN is empty or no text")]
    NoPin,
    #[error("the token refused the PIN, which isn't tried again")]
    WrongPin,
    #[error("one more wrong PIN would lock the token, so none is tried")]
    LastTry,
    #[error("the PIN is locked, or has expired")]
    PinLocked,
    #[error("the token's PIN was never set")]
    PinNeverSet,
    #[error("the module answers {code} to {call}")]
    Refused { call: String, code: String },
}

fn listed(labels: &[String]) -> String {
    let labels: Vec<String> = labels.iter().map(|label| format!("{label:?}")).collect();
    if labels.is_empty() { "none".to_owned() } else { labels.join(", ") }
}

impl Pkcs11Fault {
    /// What mends it, in words for the operator.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::NoModule(_) => "set pkcs11.module to the path of the vendor's library",
            Self::NotLoaded(..) => {
                "pkcs11.module must be a PKCS#11 library for this machine, with all that it needs beside it"
            }
            Self::Hangs => {
                "look at the token, its network and the module's own log; signing goes on when it answers"
            }
            Self::NoToken { .. } => {
                "set pkcs11.token to the label that `pkcs11-tool --module MODULE -L` shows; look at the module's own configuration"
            }
            Self::SeveralTokens(_) => "give each token a label of its own",
            Self::NoKey => {
                "set pkcs11.label or pkcs11.id as `pkcs11-tool --module MODULE --login -O` shows them"
            }
            Self::NoPublicHalf => "write the public key into the token too, with the same id",
            Self::PinFile(_, fault) => fault.remedy(),
            Self::NoPin => "write the PIN into pin_file, and nothing else",
            Self::WrongPin => {
                "write the right PIN into pin_file: a changed one is tried; to have the same one tried again, restart"
            }
            Self::LastTry => {
                "log in to the token once with the right PIN, by `pkcs11-tool --login`, which resets its count"
            }
            Self::PinLocked => "have the token's security officer set a PIN, and write it into pin_file",
            Self::PinNeverSet => "set the token's user PIN: `pkcs11-tool --init-pin`",
            Self::Refused { .. } => {
                "look at the token and at the module's own log; tidegate goes on trying, and logs in again by itself"
            }
        }
    }
}

/// What works for tidegate and not for Harbor core (contract K7, K8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Caution {
    #[error("the key is PKCS#8: core answers token requests with 500 and no body")]
    Pkcs8,
    #[error("the key is EC: core answers token requests with an empty token or 500")]
    Ec,
}

impl Caution {
    /// What mends it, in words for the operator.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::Pkcs8 => "convert it for core: `openssl rsa -traditional -in KEY -out KEY`",
            Self::Ec => "core signs with RSA in PKCS#1 only: `openssl genrsa -traditional 4096`",
        }
    }
}

/// Why there is no signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignFault {
    #[error("the private half of the key is not here")]
    NoPrivateHalf,
    #[error("the key refused to sign")]
    Refused,
    #[error("where the private half is, nobody answers in time")]
    Unanswered,
}
