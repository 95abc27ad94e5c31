//! The two halves of a key, parsed once and kept. jsonwebtoken parses the key at each use, which for RSA-2048
//! makes a signature 1.9 ms in place of 0.85 ms and a verification 28 µs in place of 21 µs.

use std::sync::Arc;

use aws_lc_rs::{
    encoding::AsDer as _,
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _,
        ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RsaKeyPair,
    },
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use zeroize::Zeroizing;

use super::{Algorithm, Caution, Elsewhere, KeyFault, SignFault, der};
use crate::words::kid::Kid;

/// Bits of the shortest and longest RSA modulus taken.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

#[derive(Clone)]
pub(super) struct PublicHalf {
    spki: Vec<u8>,
    numbers: Numbers,
    verifier: ParsedPublicKey,
}

#[derive(Clone)]
enum Numbers {
    Rsa { modulus: Vec<u8>, exponent: Vec<u8> },
    P256 { point: [u8; 65] },
}

impl PublicHalf {
    /// From big-endian numbers; leading zeros don't count.
    pub(super) fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<Self, KeyFault> {
        let (modulus, exponent) = (trimmed(modulus), trimmed(exponent));
        check_rsa(modulus, exponent)?;
        let spki = der::rsa_spki(modulus, exponent);
        let verifier = ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &spki);
        let numbers = Numbers::Rsa { modulus: modulus.to_vec(), exponent: exponent.to_vec() };
        Ok(Self { spki, numbers, verifier: verifier.map_err(|_| KeyFault::Inconsistent)? })
    }

    /// From an uncompressed point; a point off the curve is refused.
    pub(super) fn p256(point: &[u8]) -> Result<Self, KeyFault> {
        let point: [u8; 65] = point.try_into().map_err(|_| KeyFault::OtherKind)?;
        let verifier = ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
        let verifier = verifier.map_err(|_| KeyFault::Inconsistent)?;
        Ok(Self { spki: der::p256_spki(&point), numbers: Numbers::P256 { point }, verifier })
    }

    pub(super) fn algorithm(&self) -> Algorithm {
        match self.numbers {
            Numbers::Rsa { .. } => Algorithm::Rs256,
            Numbers::P256 { .. } => Algorithm::Es256,
        }
    }

    pub(super) fn spki(&self) -> &[u8] {
        &self.spki
    }

    pub(super) fn numbers(&self) -> (&[u8], &[u8]) {
        match &self.numbers {
            Numbers::Rsa { modulus, exponent } => (modulus, exponent),
            Numbers::P256 { point } => (&point[1..33], &point[33..]),
        }
    }

    pub(super) fn thumbprint(&self) -> Kid {
        let (first, second) = self.numbers();
        match self.algorithm() {
            Algorithm::Rs256 => Kid::thumbprint_rsa(first, second),
            Algorithm::Es256 => Kid::thumbprint_p256(first, second),
        }
    }

    pub(super) fn verifies(&self, message: &[u8], signature: &str) -> bool {
        let bytes = match &self.numbers {
            Numbers::Rsa { modulus, .. } => modulus.len(),
            Numbers::P256 { .. } => 64,
        };
        // Before decoding: a signature of 64 kB costs nothing.
        if signature.len() != bytes.div_ceil(3) * 4 - (3 - bytes % 3) % 3 {
            return false;
        }
        URL_SAFE_NO_PAD.decode(signature).is_ok_and(|raw| self.verifier.verify_sig(message, &raw).is_ok())
    }
}

/// The private half: in AWS-LC's own memory, which it wipes when freed, or not with us at all.
pub(super) enum PrivateHalf {
    Rsa { pair: RsaKeyPair, pkcs8: bool },
    P256(EcdsaKeyPair),
    Elsewhere(Arc<dyn Elsewhere>),
}

impl PrivateHalf {
    /// RSA from `RSAPrivateKey` (PKCS#1), or from `PrivateKeyInfo` where `pkcs8`.
    pub(super) fn rsa(der: &[u8], pkcs8: bool) -> Result<Self, KeyFault> {
        let pair = if pkcs8 { RsaKeyPair::from_pkcs8(der) } else { RsaKeyPair::from_der(der) };
        Ok(Self::Rsa { pair: pair.map_err(|_| KeyFault::Inconsistent)?, pkcs8 })
    }

    /// P-256 from `ECPrivateKey` (SEC 1) or `PrivateKeyInfo`, with its point.
    pub(super) fn p256(der: &[u8]) -> Result<(Self, Vec<u8>), KeyFault> {
        let pair = EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_FIXED_SIGNING, der);
        let pair = pair.map_err(|_| KeyFault::OtherKind)?;
        let point = pair.public_key().as_ref().to_vec();
        Ok((Self::P256(pair), point))
    }

    pub(super) fn caution(&self) -> Option<Caution> {
        match self {
            Self::Rsa { pkcs8: false, .. } | Self::Elsewhere(_) => None,
            Self::Rsa { pkcs8: true, .. } => Some(Caution::Pkcs8),
            Self::P256(_) => Some(Caution::Ec),
        }
    }

    /// `PrivateKeyInfo` in DER; `None` where it isn't with us.
    pub(super) fn pkcs8(&self) -> Option<Zeroizing<Vec<u8>>> {
        let der = match self {
            Self::Rsa { pair, .. } => pair.as_der().ok()?.as_ref().to_vec(),
            Self::P256(pair) => pair.to_pkcs8v1().ok()?.as_ref().to_vec(),
            Self::Elsewhere(_) => return None,
        };
        Some(der.into())
    }

    pub(super) fn sign(&self, message: &[u8]) -> Result<String, SignFault> {
        let random = SystemRandom::new();
        match self {
            Self::Rsa { pair, .. } => {
                let mut signature = vec![0; pair.public_modulus_len()];
                let signed = pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature);
                signed.map(|()| URL_SAFE_NO_PAD.encode(signature))
            }
            Self::P256(pair) => pair.sign(&random, message).map(|s| URL_SAFE_NO_PAD.encode(s)),
            Self::Elsewhere(_) => return Err(SignFault::NoPrivateHalf),
        }
        .map_err(|_| SignFault::Refused)
    }
}

fn trimmed(number: &[u8]) -> &[u8] {
    &number[number.iter().take_while(|b| **b == 0).count()..]
}

fn check_rsa(modulus: &[u8], exponent: &[u8]) -> Result<(), KeyFault> {
    let bits = modulus.first().map_or(0, |b| modulus.len() * 8 - b.leading_zeros() as usize);
    if bits < *RSA_BITS.start() {
        return Err(KeyFault::TooShort { bits });
    }
    if bits > *RSA_BITS.end() {
        return Err(KeyFault::TooLong { bits });
    }
    match exponent {
        [] | [1 | 2] => Err(KeyFault::WeakExponent),
        [.., last] if last % 2 == 0 => Err(KeyFault::WeakExponent),
        _ => Ok(()),
    }
}
