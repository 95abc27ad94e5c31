//! Keys: bytes in, keys out. The algorithm belongs to the key, never to a token's header.

mod certificate;
mod der;
mod elsewhere;
mod fault;
mod half;
mod jwks;
mod pem;

use std::{fmt, sync::Arc};

use aws_lc_rs::digest::{SHA256, digest};
use zeroize::Zeroizing;

use self::half::{PrivateHalf, PublicHalf};
pub use self::{
    elsewhere::{Done, Elsewhere},
    fault::{Caution, KeyFault, Pkcs11Fault, SignFault},
};
use crate::words::{file_fault::FileFault, kid::Kid};

/// Bytes of the longest key file or JWKS that is read: a ring of 200 RSA-4096 keys fits.
pub const LONGEST_FILE: usize = 1 << 20;

/// The one signature algorithm of a key (RFC 7518, 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// RSA with PKCS#1 v1.5 padding over SHA-256: what Harbor core signs with.
    Rs256,
    /// ECDSA over P-256 with SHA-256: plain registries only, core can't sign with it (K8).
    Es256,
}

impl Algorithm {
    /// As it stands in a token's header.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
        }
    }
}

/// A key with its public half and perhaps its private one. Two keys are the same when their SPKI is.
pub struct Key {
    kid: Kid,
    thumbprint: Kid,
    declared: Option<Kid>,
    spki_digest: [u8; 32],
    public: PublicHalf,
    private: Option<PrivateHalf>,
}

impl Key {
    fn new(public: PublicHalf, private: Option<PrivateHalf>) -> Self {
        let mut spki_digest = [0; 32];
        spki_digest.copy_from_slice(digest(&SHA256, public.spki()).as_ref());
        let kid = Kid::libtrust(public.spki());
        Self { kid, thumbprint: public.thumbprint(), declared: None, spki_digest, public, private }
    }

    /// The libtrust id, Harbor's own name of the key (contract K2).
    pub fn kid(&self) -> &Kid {
        &self.kid
    }

    /// The RFC 7638 thumbprint, distribution 3's name of the key.
    pub fn thumbprint(&self) -> &Kid {
        &self.thumbprint
    }

    /// The `kid` that a JWKS document gave the key, where it is neither of the names above.
    pub fn declared(&self) -> Option<&Kid> {
        self.declared.as_ref()
    }

    /// The one algorithm that this key verifies and signs with.
    pub fn algorithm(&self) -> Algorithm {
        self.public.algorithm()
    }

    /// The key's identity: SHA-256 of its SubjectPublicKeyInfo in DER, written anew from the numbers, so
    /// that no odd encoding makes a second identity (A9).
    pub fn spki_digest(&self) -> &[u8; 32] {
        &self.spki_digest
    }

    /// SubjectPublicKeyInfo in DER, for the JWKS and archives.
    pub fn spki(&self) -> &[u8] {
        self.public.spki()
    }

    /// An unsigned certificate (RFC 9925) around the public half, for readers that take keys only so: always the same
    /// text for the same key.
    pub fn certificate_pem(&self) -> String {
        certificate::pem(self)
    }

    /// The public numbers, big-endian: RSA modulus and exponent, or P-256 x and y.
    pub fn numbers(&self) -> (&[u8], &[u8]) {
        self.public.numbers()
    }

    /// Whether the private half is here, or signs for us elsewhere.
    pub fn can_sign(&self) -> bool {
        self.private.is_some()
    }

    /// Which half is here, as operators read it.
    pub fn half(&self) -> &'static str {
        match &self.private {
            Some(PrivateHalf::Elsewhere(_)) => "token",
            Some(PrivateHalf::Rsa { .. } | PrivateHalf::P256(_)) => "private",
            None => "public",
        }
    }

    /// What Harbor core itself can't do with this key; `None` for PKCS#1 RSA and for public halves.
    pub fn caution(&self) -> Option<Caution> {
        self.private.as_ref().and_then(PrivateHalf::caution)
    }

    /// Whether `signature` (base64url without padding, RFC 7515, 2) over `message` is this key's. Padding,
    /// white space, another alphabet, changed unused bits or a wrong length verify nothing.
    pub fn verifies(&self, message: &[u8], signature: &str) -> bool {
        self.public.verifies(message, signature)
    }

    /// The base64url signature over `message`, by a private half that is here. RSA-2048 takes about a millisecond: not
    /// on a worker.
    pub fn sign(&self, message: &[u8]) -> Result<String, SignFault> {
        self.private.as_ref().ok_or(SignFault::NoPrivateHalf)?.sign(message)
    }

    /// Who signs where the private half is not in our memory.
    pub fn elsewhere(&self) -> Option<&Arc<dyn Elsewhere>> {
        match &self.private {
            Some(PrivateHalf::Elsewhere(signs)) => Some(signs),
            Some(PrivateHalf::Rsa { .. } | PrivateHalf::P256(_)) | None => None,
        }
    }

    /// An RSA key's public half by its big-endian numbers.
    pub fn of_numbers(modulus: &[u8], exponent: &[u8]) -> Result<Self, KeyFault> {
        let key = Self::new(PublicHalf::rsa(modulus, exponent)?, None);
        if is_published_default(key.kid.as_str()) { Err(KeyFault::PublishedDefault) } else { Ok(key) }
    }

    /// The same with a private half that stays where it is.
    pub fn rsa_elsewhere(
        modulus: &[u8],
        exponent: &[u8],
        signs: Arc<dyn Elsewhere>,
    ) -> Result<Self, KeyFault> {
        let key = Self::of_numbers(modulus, exponent)?;
        Ok(Self { private: Some(PrivateHalf::Elsewhere(signs)), ..key })
    }

    /// A public half that was kept as `SubjectPublicKeyInfo` in DER, with the name that a JWKS once gave it. The key
    /// that Harbor's chart published is refused here too.
    pub fn of_spki(spki: &[u8], declared: Option<Kid>) -> Result<Self, KeyFault> {
        let key = pem::spki(spki)?;
        if is_published_default(key.kid.as_str()) {
            return Err(KeyFault::PublishedDefault);
        }
        Ok(key.named(declared))
    }

    /// A whole key that was kept as `PrivateKeyInfo` in DER (RFC 5208).
    pub fn of_pkcs8(der: &[u8]) -> Result<Self, KeyFault> {
        let key = pem::pkcs8(der)?;
        if is_published_default(key.kid.as_str()) {
            return Err(KeyFault::PublishedDefault);
        }
        Ok(key)
    }

    /// The whole key as `PrivateKeyInfo` in DER, for the sealed store alone; `None` where the private half isn't here.
    pub fn pkcs8(&self) -> Option<Zeroizing<Vec<u8>>> {
        self.private.as_ref()?.pkcs8()
    }

    /// The same key without its private half.
    pub fn without_private(&self) -> Self {
        Self {
            kid: self.kid.clone(),
            thumbprint: self.thumbprint.clone(),
            declared: self.declared.clone(),
            spki_digest: self.spki_digest,
            public: self.public.clone(),
            private: None,
        }
    }

    /// The same key with one more name.
    #[must_use]
    pub fn with_alias(self, alias: Kid) -> Self {
        self.named(Some(alias))
    }

    /// The same public half under its own names alone.
    #[must_use]
    pub fn without_alias(&self) -> Self {
        self.without_private().named(None)
    }

    /// The name that a document gave it; dropped where it is one of the key's own names.
    fn named(mut self, declared: Option<Kid>) -> Self {
        self.declared = declared.filter(|name| *name != self.kid && *name != self.thumbprint);
        self
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.spki_digest == other.spki_digest
    }
}

impl Eq for Key {}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({}, {}, {})", self.kid, self.algorithm().as_str(), self.half())
    }
}

/// The keys of one file: PEM blocks (PKCS#1, PKCS#8, SEC 1, certificates, SPKI or PKCS#1 public keys) in
/// their order, or a JWKS document. A key that comes twice (a private key beside its certificate) is one.
pub fn parse(bytes: &[u8]) -> Result<Vec<Key>, KeyFault> {
    if bytes.len() > LONGEST_FILE {
        return Err(KeyFault::File(FileFault::TooLarge));
    }
    let Some(first) = bytes.iter().find(|b| !b.is_ascii_whitespace()) else {
        return Err(KeyFault::File(FileFault::Empty));
    };
    let keys = if *first == b'{' { jwks::parse(bytes)? } else { pem::parse(bytes)? };
    let names = keys.iter().flat_map(|key| [Some(key.kid()), key.declared()]).flatten();
    if names.into_iter().any(|name| is_published_default(name.as_str())) {
        return Err(KeyFault::PublishedDefault);
    }
    Ok(once_each(keys))
}

/// The keys of a JWKS document and of nothing else.
pub fn parse_jwks(bytes: &[u8]) -> Result<Vec<Key>, KeyFault> {
    match bytes.iter().find(|b| !b.is_ascii_whitespace()) {
        Some(b'{') | None => parse(bytes),
        Some(_) => Err(KeyFault::Jwks("it is no JSON object")),
    }
}

/// The libtrust id of the key that Harbor's chart once shipped to everyone (GHSA-5jw3-3rpx-7p27): whoever
/// read the chart can sign with it, so nobody may verify with it.
pub const PUBLISHED_DEFAULT: &str = "7WMA:KVXO:KF25:35NA:GJ35:ZGKY:PGYT:I5UT:TGWY:UUI4:PT7Z:X3KW";

/// Whether `kid` names [`PUBLISHED_DEFAULT`].
pub fn is_published_default(kid: &str) -> bool {
    kid == PUBLISHED_DEFAULT
}

fn once_each(keys: Vec<Key>) -> Vec<Key> {
    let mut once: Vec<Key> = Vec::with_capacity(keys.len());
    for key in keys {
        match once.iter_mut().find(|known| **known == key) {
            Some(known) if !known.can_sign() && key.can_sign() => *known = key,
            Some(_) => {}
            None => once.push(key),
        }
    }
    once
}

#[cfg(test)]
pub(crate) mod forge;
#[cfg(test)]
mod tests;
