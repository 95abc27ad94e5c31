//! Re-signing: the same claims under another key (contract K4). Never a wider access, a later `exp` or another `iat`.

use std::{fmt, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, Visitor},
    ser::SerializeMap,
};
use serde_json::value::RawValue;

use super::claims;
use crate::{
    decisions::key::{Key, SignFault},
    words::{clock::UnixTime, kid::Kid},
};

/// The claim that holds the proof of a token of grace.
const GRACE: &str = "tidegate_grace";

/// What of the payload may change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change<'a> {
    /// `aud` becomes this plain string, as Harbor writes it; `None` leaves it.
    pub audience: Option<&'a str>,
    /// `nbf` goes back by this, for a core whose clock is behind and that has no leeway (V7).
    pub not_before_back: Duration,
    /// How the endpoint calls the held key: distribution 2.8 by its libtrust id, 3 by its thumbprint or by the name in
    /// its JWKS. `None` = the libtrust id; Harbor itself looks at no name.
    pub kid: Option<&'a Kid>,
}

/// A token could not be signed again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResignFault {
    /// Not a token; can't happen to one that was verified.
    #[error("not a token")]
    Malformed,
    /// The key can't sign.
    #[error("the held key can't sign")]
    Key,
}

impl From<SignFault> for ResignFault {
    fn from(_: SignFault) -> Self {
        Self::Key
    }
}

/// A token for a held key that lacks its signature.
#[derive(Debug)]
pub struct Unsigned<'k> {
    held: &'k Key,
    message: String,
}

impl Unsigned<'_> {
    /// What is to be signed.
    pub fn message(&self) -> &[u8] {
        self.message.as_bytes()
    }

    /// Signs it. Takes 0.7 ms with RSA-2048: off the async workers.
    pub fn sign(self) -> Result<String, ResignFault> {
        let signature = self.held.sign(self.message())?;
        Ok(self.with(&signature))
    }

    /// Takes a signature that was made elsewhere, if it is the held key's: what is not would look like a changed key of
    /// core's.
    pub fn signed_elsewhere(self, signature: &[u8]) -> Result<String, ResignFault> {
        let signature = URL_SAFE_NO_PAD.encode(signature);
        if self.held.verifies(self.message(), &signature) {
            Ok(self.with(&signature))
        } else {
            Err(ResignFault::Key)
        }
    }

    fn with(self, signature: &str) -> String {
        let mut token = self.message;
        token.push('.');
        token.push_str(signature);
        token
    }
}

/// A **verified** token's claims for the key that an endpoint holds. Without a change the payload is the former one
/// byte for byte.
pub fn resign<'k>(verified: &str, held: &'k Key, change: &Change<'_>) -> Result<Unsigned<'k>, ResignFault> {
    let token = claims::read(verified).map_err(|_| ResignFault::Malformed)?;
    if change.audience.is_none() && change.not_before_back.is_zero() {
        return Ok(unsigned(held, change.kid, token.unverified_payload));
    }
    let payload = claims::bytes(token.unverified_payload).map_err(|_| ResignFault::Malformed)?;
    Ok(unsigned(held, change.kid, &URL_SAFE_NO_PAD.encode(changed(&payload, change)?)))
}

/// What Harbor granted before once more, to end at `expires`: the same claims otherwise, `iat` too (A15, V9). Not for a
/// token that a client sent: only what Harbor itself issued may get another end. `proof` shows to other processes that it
/// is a token of grace, in the place of one for another end; core passes over claims that it doesn't know.
pub fn grant_again<'k>(
    issued: &str,
    held: &'k Key,
    expires: UnixTime,
    proof: Option<&str>,
) -> Result<Unsigned<'k>, ResignFault> {
    let token = claims::read(issued).map_err(|_| ResignFault::Malformed)?;
    let payload = claims::bytes(token.unverified_payload).map_err(|_| ResignFault::Malformed)?;
    let mut members: Members = serde_json::from_slice(&payload).map_err(|_| ResignFault::Malformed)?;
    for (_, value) in members.0.iter_mut().filter(|(name, _)| name == "exp") {
        *value = RawValue::from_string(expires.0.to_string()).map_err(|_| ResignFault::Malformed)?;
    }
    members.0.retain(|(name, _)| name != GRACE);
    if let Some(proof) = proof {
        let value = serde_json::value::to_raw_value(proof).map_err(|_| ResignFault::Malformed)?;
        members.0.push((GRACE.to_owned(), value));
    }
    let payload = serde_json::to_vec(&members).map_err(|_| ResignFault::Malformed)?;
    Ok(unsigned(held, None, &URL_SAFE_NO_PAD.encode(payload)))
}

fn unsigned<'k>(held: &'k Key, kid: Option<&Kid>, payload: &str) -> Unsigned<'k> {
    let kid = kid.unwrap_or_else(|| held.kid());
    let header = format!(r#"{{"alg":"{}","kid":"{kid}","typ":"JWT"}}"#, held.algorithm().as_str());
    Unsigned { held, message: format!("{}.{payload}", URL_SAFE_NO_PAD.encode(header)) }
}

fn changed(payload: &[u8], change: &Change<'_>) -> Result<Vec<u8>, ResignFault> {
    let mut members: Members = serde_json::from_slice(payload).map_err(|_| ResignFault::Malformed)?;
    for (name, value) in &mut members.0 {
        let replacement = match (name.as_str(), change.audience) {
            ("aud", Some(plain)) => serde_json::to_string(plain),
            ("nbf", _) if !change.not_before_back.is_zero() => {
                let nbf: i64 = serde_json::from_str(value.get()).map_err(|_| ResignFault::Malformed)?;
                Ok(nbf.saturating_sub(change.not_before_back.as_secs() as i64).to_string())
            }
            _ => continue,
        };
        let text = replacement.map_err(|_| ResignFault::Malformed)?;
        *value = RawValue::from_string(text).map_err(|_| ResignFault::Malformed)?;
    }
    serde_json::to_vec(&members).map_err(|_| ResignFault::Malformed)
}

/// An object's members in their order, each value as it was written.
struct Members(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Members;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        d.deserialize_map(InOrder)
    }
}

impl Serialize for Members {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut map = s.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests;
