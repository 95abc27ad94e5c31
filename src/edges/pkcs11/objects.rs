//! A token's keys: what is read of them, and what they sign. Nothing of a private half is ever asked for.

use aws_lc_rs::digest::{SHA256, digest};
use cryptoki::{
    mechanism::Mechanism,
    object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle},
};

use super::{
    Location,
    module::{Failed, Open},
};
use crate::decisions::key::Pkcs11Fault;

/// Keys of one source at most.
const MOST: usize = 64;

/// `DigestInfo` of SHA-256 before its digest (RFC 8017, 9.2, note 1), for tokens that don't hash by themselves.
const SHA256_INFO: [u8; 19] = [
    0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00,
    0x04, 0x20,
];

/// An RSA key's public half, big-endian.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::edges) struct Numbers {
    pub(super) modulus: Vec<u8>,
    pub(super) exponent: Vec<u8>,
}

/// One private key of the token that may sign.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) handle: ObjectHandle,
    pub(super) numbers: Numbers,
    /// The token would give the private half to whoever is logged in.
    pub(super) may_leave: bool,
}

/// The keys that a source means, in the token's order.
pub(super) fn find(open: &Open, location: &Location) -> Result<Vec<Found>, Failed> {
    let session = open.session()?;
    let mut wanted = vec![Attribute::Class(ObjectClass::PRIVATE_KEY), Attribute::KeyType(KeyType::RSA)];
    wanted.extend(location.label.iter().map(|label| Attribute::Label(label.as_bytes().to_vec())));
    wanted.extend(location.id.iter().map(|id| Attribute::Id(id.clone())));
    let mut found = Vec::new();
    for handle in session.find_objects(&wanted)?.into_iter().take(MOST) {
        let about = About::of(open, handle)?;
        if about.may_not_sign {
            continue;
        }
        let Some(modulus) = about.modulus else { return Err(Pkcs11Fault::NoPublicHalf.into()) };
        let exponent = match about.exponent {
            Some(exponent) => exponent,
            None => exponent_beside(open, &modulus)?.ok_or(Pkcs11Fault::NoPublicHalf)?,
        };
        found.push(Found { handle, numbers: Numbers { modulus, exponent }, may_leave: about.may_leave });
    }
    if found.is_empty() { Err(Pkcs11Fault::NoKey.into()) } else { Ok(found) }
}

/// The exponent that the token keeps with the public object alone.
fn exponent_beside(open: &Open, modulus: &[u8]) -> Result<Option<Vec<u8>>, Failed> {
    let wanted = [Attribute::Class(ObjectClass::PUBLIC_KEY), Attribute::KeyType(KeyType::RSA)];
    for handle in open.session()?.find_objects(&wanted)? {
        let about = About::of(open, handle)?;
        if about.modulus.as_deref() == Some(modulus) {
            return Ok(about.exponent);
        }
    }
    Ok(None)
}

/// What an object tells of itself.
#[derive(Default)]
struct About {
    modulus: Option<Vec<u8>>,
    exponent: Option<Vec<u8>>,
    may_not_sign: bool,
    may_leave: bool,
}

impl About {
    fn of(open: &Open, handle: ObjectHandle) -> Result<Self, Failed> {
        let asked = [
            AttributeType::Modulus,
            AttributeType::PublicExponent,
            AttributeType::Sign,
            AttributeType::Sensitive,
            AttributeType::Extractable,
        ];
        let mut about = Self::default();
        for attribute in open.session()?.get_attributes(handle, &asked)? {
            match attribute {
                Attribute::Modulus(modulus) if !modulus.is_empty() => about.modulus = Some(modulus),
                Attribute::PublicExponent(exponent) if !exponent.is_empty() => {
                    about.exponent = Some(exponent);
                }
                Attribute::Sign(may) => about.may_not_sign = !may,
                Attribute::Sensitive(false) | Attribute::Extractable(true) => about.may_leave = true,
                _ => {}
            }
        }
        Ok(about)
    }
}

/// RSASSA-PKCS1-v1_5 over SHA-256, made in the token.
pub(super) fn sign(open: &Open, handle: ObjectHandle, message: &[u8]) -> Result<Vec<u8>, Failed> {
    let session = open.session()?;
    if open.hashes {
        return Ok(session.sign(&Mechanism::Sha256RsaPkcs, handle, message)?);
    }
    let info = [&SHA256_INFO, digest(&SHA256, message).as_ref()].concat();
    Ok(session.sign(&Mechanism::RsaPkcs, handle, &info)?)
}
