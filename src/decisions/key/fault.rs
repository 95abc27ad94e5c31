//! What can be wrong with a key, each with its cause and its remedy.

use crate::words::{file_fault::FileFault, kid::Kid};

/// Why bytes, or a file, gave no keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyFault {
    #[error(transparent)]
    File(#[from] FileFault),
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
            Self::EmptyFolder => "name the keys' files so, or give each as `file`",
            Self::TooMany(_) => "give a folder of keys only",
            Self::Jwks(_) => "give a JWKS of RSA or P-256 signature keys, each `kid` once (RFC 7517)",
            Self::NameTaken(_) => "give each key a name of its own, or drop one of the two",
            Self::Fetch(_) => "check the URL, its certificate (ca_file) and the network between",
            Self::AliasOfMany => "set `alias` on a file with one key",
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
}
