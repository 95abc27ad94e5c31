//! A token's parts as they stand, before anything is proved of them.

use std::{fmt, marker::PhantomData};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
};

use crate::words::{kid::Kid, scope::Access};

/// Bytes of the longest token read; a client's whole head has 32 KiB.
pub const LONGEST: usize = 32 * 1024;

/// A token split and parsed; **nothing in it is verified**.
#[derive(Debug)]
pub struct UnverifiedToken<'a> {
    /// The token as it came.
    pub text: &'a str,
    /// Header and payload with the dot between: what the signature is over (RFC 7515, 5.2).
    pub unverified_message: &'a str,
    /// The payload's base64url text.
    pub unverified_payload: &'a str,
    /// The signature's base64url text.
    pub signature: &'a str,
    /// `alg` of the header.
    pub unverified_algorithm: String,
    /// `kid` of the header; `None` where it is absent.
    pub unverified_kid: Option<Kid>,
    /// The claims that Harbor's tokens have.
    pub unverified_claims: Claims,
}

/// The claims of a registry token (contract T3). Others may stand beside them and are carried along.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Claims {
    /// Issuer, `harbor-token-issuer`.
    #[serde(default)]
    pub iss: Option<String>,
    /// User's name; absent in an anonymous token (T6).
    #[serde(default)]
    pub sub: Option<String>,
    /// Audience: `harbor-registry`, or a list that holds it (V4).
    #[serde(default)]
    pub aud: Audience,
    /// Expiry, seconds since 1970.
    pub exp: i64,
    /// Not before, seconds since 1970.
    #[serde(default, deserialize_with = "present")]
    pub nbf: Option<i64>,
    /// Issued at, seconds since 1970.
    pub iat: i64,
    /// What is granted; `null` in a token without scope (T4).
    #[serde(default, deserialize_with = "entries")]
    pub access: Option<Vec<Access>>,
    /// In a token of grace: what shows that it is one to all processes of the deployment, and to nobody else.
    #[serde(default, rename = "tidegate_grace")]
    pub grace: Option<String>,
}

/// `aud`: a string or a list of strings (RFC 7519, 4.1.3).
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Audience {
    /// Harbor's own form.
    One(String),
    /// The general form.
    Many(Vec<String>),
    /// No `aud`.
    #[default]
    #[serde(skip)]
    Absent,
}

impl Audience {
    /// Whether `service` is among them.
    pub fn holds(&self, service: &str) -> bool {
        match self {
            Self::One(one) => one == service,
            Self::Many(many) => many.iter().any(|a| a == service),
            Self::Absent => false,
        }
    }
}

/// Why a text is no token of the registry's kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Longer than [`LONGEST`].
    #[error("token is longer than 32 KiB")]
    TooLong,
    /// Not three parts with dots between.
    #[error("token has not three parts")]
    Parts,
    /// Not unpadded base64url, or unused last bits set (GHSA-hxm8-2xgr-2p9m).
    #[error("token is not strict base64url")]
    Encoding,
    /// The header is not the JSON object that RFC 7515 describes, or a member stands twice.
    #[error("token's header is not a JOSE header")]
    Header,
    /// A `crit` header: whoever does not understand it must refuse (RFC 7515, 4.1.11).
    #[error("token has critical header members")]
    Critical,
    /// A claim is missing, doubled or of a wrong type.
    #[error("token's claims are missing, doubled or of a wrong type")]
    Claims,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default, deserialize_with = "present")]
    kid: Option<String>,
    #[serde(default, deserialize_with = "present")]
    crit: Option<serde::de::IgnoredAny>,
}

/// A member that may be absent but not `null`.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(d: D) -> Result<Option<T>, D::Error> {
    T::deserialize(d).map(Some)
}

/// A struct of named members only: serde would read a JSON array as one too, and Go does not.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Members<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
            type Value = Object<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }
        d.deserialize_map(Members(PhantomData))
    }
}

fn entries<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Vec<Access>>, D::Error> {
    let entries: Option<Vec<Object<Access>>> = Option::deserialize(d)?;
    Ok(entries.map(|all| all.into_iter().map(|Object(access)| access).collect()))
}

/// Splits and parses a token. Bounded by [`LONGEST`]; nothing descends into members that we don't know.
pub fn read(text: &str) -> Result<UnverifiedToken<'_>, Malformed> {
    if text.len() > LONGEST {
        return Err(Malformed::TooLong);
    }
    let (unverified_message, signature) = text.rsplit_once('.').ok_or(Malformed::Parts)?;
    let (header_text, payload) = unverified_message.split_once('.').ok_or(Malformed::Parts)?;
    if payload.contains('.') {
        return Err(Malformed::Parts);
    }
    // Nothing of it is needed here, but core reads base64 leniently: a signature with spare bits set would
    // verify there and look like nobody's to the tombstones (A9).
    bytes(signature)?;
    let Object::<Header>(header) =
        serde_json::from_slice(&bytes(header_text)?).map_err(|_| Malformed::Header)?;
    if header.crit.is_some() {
        return Err(Malformed::Critical);
    }
    let unverified_kid = match header.kid.as_deref() {
        None => None,
        Some(name) => Some(Kid::parse(name).ok_or(Malformed::Header)?),
    };
    let Object::<Claims>(unverified_claims) =
        serde_json::from_slice(&bytes(payload)?).map_err(|_| Malformed::Claims)?;
    Ok(UnverifiedToken {
        text,
        unverified_message,
        unverified_payload: payload,
        signature,
        unverified_algorithm: header.alg,
        unverified_kid,
        unverified_claims,
    })
}

/// Strict base64url without padding, as RFC 7515 wants it.
pub fn bytes(part: &str) -> Result<Vec<u8>, Malformed> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| Malformed::Encoding)
}
