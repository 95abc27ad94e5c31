//! Keys out of a JWKS document (RFC 7517): public RSA and P-256 keys for signatures.

use std::collections::HashSet;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;

use super::{Key, KeyFault, half::PublicHalf};
use crate::words::kid::Kid;

#[derive(Deserialize)]
struct Document {
    keys: Vec<Member>,
}

/// One key as it is written; private members are never read.
#[derive(Deserialize)]
struct Member {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

/// The keys for signatures. Others (`oct`, `use: enc`, other curves and algorithms) are passed over, as RFC
/// 7517, 5 asks; a set with nothing left, or with one `kid` twice, is a fault.
pub(super) fn parse(bytes: &[u8]) -> Result<Vec<Key>, KeyFault> {
    let document: Document =
        serde_json::from_slice(bytes).map_err(|_| KeyFault::Jwks("it is no object with `keys`"))?;
    let mut names = HashSet::new();
    let mut keys = Vec::new();
    for member in document.keys.iter().filter(|member| member.is_for_signatures()) {
        let name = member.name()?;
        if let Some(name) = name.as_ref().filter(|name| !names.insert((*name).clone())) {
            return Err(KeyFault::NameTaken(name.clone()));
        }
        keys.push(Key::new(member.public_half()?, None).named(name));
    }
    if keys.is_empty() { Err(KeyFault::Jwks("no key for signatures is in it")) } else { Ok(keys) }
}

impl Member {
    fn is_for_signatures(&self) -> bool {
        let kind = match self.kty.as_str() {
            "RSA" => self.alg.as_deref().is_none_or(|alg| alg == "RS256"),
            "EC" => self.crv.as_deref() == Some("P-256") && self.alg.as_deref().is_none_or(|a| a == "ES256"),
            _ => false,
        };
        kind && self.usage.as_deref().is_none_or(|usage| usage == "sig")
    }

    fn name(&self) -> Result<Option<Kid>, KeyFault> {
        let Some(text) = &self.kid else { return Ok(None) };
        Kid::parse(text).map(Some).ok_or(KeyFault::Jwks("a `kid` is empty, too long or not visible ASCII"))
    }

    fn public_half(&self) -> Result<PublicHalf, KeyFault> {
        let number = |text: &Option<String>| {
            let text = text.as_deref().ok_or(KeyFault::Jwks("a key lacks a number"))?;
            URL_SAFE_NO_PAD.decode(text).map_err(|_| KeyFault::Jwks("a number is no base64url"))
        };
        if self.kty == "RSA" {
            return PublicHalf::rsa(&number(&self.n)?, &number(&self.e)?);
        }
        PublicHalf::p256(&[vec![4], number(&self.x)?, number(&self.y)?].concat())
    }
}
