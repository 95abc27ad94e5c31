//! Keys out of PEM blocks (RFC 7468), read as leniently as Go's `encoding/pem` reads them for core.

use x509_parser::prelude::{FromDer as _, X509Certificate};
use zeroize::Zeroizing;

use super::{
    Key, KeyFault, der,
    half::{PrivateHalf, PublicHalf},
};

/// Every block's key in order. After a leading PKCS#1 key anything may follow: core reads no further (K10).
pub(super) fn parse(bytes: &[u8]) -> Result<Vec<Key>, KeyFault> {
    let mut keys = Vec::new();
    let mut core_is_served = false;
    for block in blocks(bytes) {
        match decode(block).and_then(|(label, der)| key_of(&label, &der).map(|key| (label, key))) {
            Ok((label, Some(key))) => {
                core_is_served |= keys.is_empty() && label == "RSA PRIVATE KEY";
                keys.push(key);
            }
            Ok((_, None)) => {}
            Err(_) if core_is_served => break,
            Err(fault) => return Err(fault),
        }
    }
    if keys.is_empty() { Err(KeyFault::NoKeys) } else { Ok(keys) }
}

const BEGIN: &[u8] = b"-----BEGIN ";

/// Each block from its BEGIN to just before the next one.
fn blocks(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let starts: Vec<_> = bytes.windows(BEGIN.len()).enumerate().filter(|(_, w)| *w == BEGIN).collect();
    let starts: Vec<_> = starts.into_iter().map(|(at, _)| at).collect();
    let ends: Vec<_> = starts.iter().skip(1).copied().chain([bytes.len()]).collect();
    starts.into_iter().zip(ends).map(move |(start, end)| &bytes[start..end])
}

fn decode(block: &[u8]) -> Result<(String, Zeroizing<Vec<u8>>), KeyFault> {
    let contains = |part: &[u8]| block.windows(part.len()).any(|w| w == part);
    if !contains(b"-----END ") {
        return Err(KeyFault::Cut);
    }
    if contains(b"BEGIN ENCRYPTED PRIVATE KEY") || contains(b"Proc-Type: 4,ENCRYPTED") {
        return Err(KeyFault::Encrypted);
    }
    let pem = pem::parse(block).map_err(|_| KeyFault::Malformed("the block is no base64"))?;
    Ok((pem.tag().to_owned(), Zeroizing::new(pem.into_contents())))
}

/// `None` for EC PARAMETERS, which openssl writes before a SEC 1 key.
fn key_of(label: &str, der: &[u8]) -> Result<Option<Key>, KeyFault> {
    match label {
        "RSA PRIVATE KEY" => pkcs1(der, der, false),
        "PRIVATE KEY" => pkcs8(der),
        "EC PRIVATE KEY" => ec(der),
        "PUBLIC KEY" => spki(der),
        "RSA PUBLIC KEY" => rsa_public(der),
        "CERTIFICATE" => certificate(der),
        "EC PARAMETERS" => return Ok(None),
        other => Err(KeyFault::OtherBlock(other.chars().filter(char::is_ascii_graphic).take(40).collect())),
    }
    .map(Some)
}

/// `inner` is `RSAPrivateKey` (RFC 8017, A.1.2), `whole` what AWS-LC is to parse.
fn pkcs1(inner: &[u8], whole: &[u8], is_pkcs8: bool) -> Result<Key, KeyFault> {
    let numbers = der::expect(der::SEQUENCE, inner)
        .and_then(|(body, _)| der::expect(der::INTEGER, body))
        .and_then(|(_version, rest)| der::positive(rest))
        .and_then(|(n, rest)| der::positive(rest).map(|(e, _)| (n, e)));
    let (n, e) = numbers.ok_or(KeyFault::Malformed("no RSA private key is in it"))?;
    let public = PublicHalf::rsa(n, e)?;
    Ok(Key::new(public, Some(PrivateHalf::rsa(whole, is_pkcs8)?)))
}

/// `PrivateKeyInfo` (RFC 5208, 5): the algorithm says what the octets are.
pub(super) fn pkcs8(whole: &[u8]) -> Result<Key, KeyFault> {
    let parts = der::expect(der::SEQUENCE, whole)
        .and_then(|(body, _)| der::expect(der::INTEGER, body))
        .and_then(|(_version, rest)| der::expect(der::SEQUENCE, rest))
        .and_then(|(algorithm, rest)| {
            Some((der::expect(der::OID, algorithm)?.0, der::expect(der::OCTET_STRING, rest)?.0))
        });
    match parts.ok_or(KeyFault::Malformed("no PKCS#8 key is in it"))? {
        (der::RSA, inner) => pkcs1(inner, whole, true),
        (der::EC, _) => ec(whole),
        _ => Err(KeyFault::OtherKind),
    }
}

fn ec(der: &[u8]) -> Result<Key, KeyFault> {
    let (private, point) = PrivateHalf::p256(der)?;
    Ok(Key::new(PublicHalf::p256(&point)?, Some(private)))
}

/// `SubjectPublicKeyInfo` (RFC 5280, 4.1.2.7).
pub(super) fn spki(der: &[u8]) -> Result<Key, KeyFault> {
    let parts = der::expect(der::SEQUENCE, der).and_then(|(body, _)| {
        let (algorithm, rest) = der::expect(der::SEQUENCE, body)?;
        let (oid, parameters) = der::expect(der::OID, algorithm)?;
        let (bits, _) = der::expect(der::BIT_STRING, rest)?;
        Some((oid, parameters, bits.strip_prefix(&[0])?))
    });
    match parts.ok_or(KeyFault::Malformed("no public key is in it"))? {
        (der::RSA, _, inner) => rsa_public(inner),
        (der::EC, parameters, point) => match der::expect(der::OID, parameters) {
            Some((der::P256, _)) => Ok(Key::new(PublicHalf::p256(point)?, None)),
            _ => Err(KeyFault::OtherKind),
        },
        _ => Err(KeyFault::OtherKind),
    }
}

/// `RSAPublicKey` (RFC 8017, A.1.1).
fn rsa_public(der: &[u8]) -> Result<Key, KeyFault> {
    let numbers = der::expect(der::SEQUENCE, der)
        .and_then(|(body, _)| der::positive(body))
        .and_then(|(n, rest)| der::positive(rest).map(|(e, _)| (n, e)));
    let (n, e) = numbers.ok_or(KeyFault::Malformed("no RSA public key is in it"))?;
    Ok(Key::new(PublicHalf::rsa(n, e)?, None))
}

fn certificate(der: &[u8]) -> Result<Key, KeyFault> {
    let (_, certificate) =
        X509Certificate::from_der(der).map_err(|_| KeyFault::Malformed("no certificate is in it"))?;
    spki(certificate.tbs_certificate.subject_pki.raw)
}
