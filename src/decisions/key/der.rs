//! As much DER as keys need: reading elements in a row, writing the two SPKI forms (RFC 5280, RFC 8017, RFC 5480).

pub(super) const INTEGER: u8 = 0x02;
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const OID: u8 = 0x06;
pub(super) const SEQUENCE: u8 = 0x30;

/// 1.2.840.113549.1.1.1, `rsaEncryption`.
pub(super) const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
/// 1.2.840.10045.2.1, `id-ecPublicKey`.
pub(super) const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
/// 1.2.840.10045.3.1.7, `secp256r1`.
pub(super) const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];

/// The next element: its tag, its content, and what follows. Definite lengths below 16 MiB only.
pub(super) fn element(input: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = input.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x83 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (digits.iter().fold(0, |sum, d| sum << 8 | usize::from(*d)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// The next element's content where its tag is `tag`, and what follows.
pub(super) fn expect(tag: u8, input: &[u8]) -> Option<(&[u8], &[u8])> {
    element(input).filter(|(found, ..)| *found == tag).map(|(_, content, rest)| (content, rest))
}

/// A positive INTEGER without its leading zeros; `None` for zero, for negatives, for other tags.
pub(super) fn positive(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (content, rest) = expect(INTEGER, input)?;
    if content.first().is_none_or(|b| b & 0x80 != 0) {
        return None;
    }
    let zeros = content.iter().take_while(|b| **b == 0).count();
    Some((&content[zeros..], rest)).filter(|(number, _)| !number.is_empty())
}

/// `SubjectPublicKeyInfo` of an RSA key: `rsaEncryption` with NULL, as every writer has it.
pub(super) fn rsa_spki(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
    let numbers = [integer(modulus), integer(exponent)].concat();
    let bits = [&[0][..], &wrap(SEQUENCE, &numbers)].concat();
    let algorithm = wrap(SEQUENCE, &[wrap(OID, RSA), vec![0x05, 0x00]].concat());
    wrap(SEQUENCE, &[algorithm, wrap(BIT_STRING, &bits)].concat())
}

/// `SubjectPublicKeyInfo` of a P-256 key from its uncompressed point (65 bytes).
pub(super) fn p256_spki(point: &[u8]) -> Vec<u8> {
    let algorithm = wrap(SEQUENCE, &[wrap(OID, EC), wrap(OID, P256)].concat());
    let bits = wrap(BIT_STRING, &[&[0][..], point].concat());
    wrap(SEQUENCE, &[algorithm, bits].concat())
}

pub(super) fn integer(number: &[u8]) -> Vec<u8> {
    let sign: &[u8] = if number.first().is_some_and(|b| b & 0x80 != 0) { &[0] } else { &[] };
    wrap(INTEGER, &[sign, number].concat())
}

pub(super) fn wrap(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match content.len() {
        n @ 0..=0x7f => out.push(n as u8),
        n @ 0x80..=0xff => out.extend([0x81, n as u8]),
        n @ 0x100..=0xffff => out.extend([0x82, (n >> 8) as u8, n as u8]),
        n => out.extend([0x83, (n >> 16) as u8, (n >> 8) as u8, n as u8]),
    }
    out.extend_from_slice(content);
    out
}
