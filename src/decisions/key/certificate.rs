//! A certificate as the envelope of a public key. Who reads one from a bundle of trusted keys looks at the key alone,
//! so that none needs the private half, which we may not have: it is unsigned (RFC 9925).

use pem::{EncodeConfig, LineEnding, Pem};

use super::{Key, der};

const SET: u8 = 0x31;
const UTF8_STRING: u8 = 0x0c;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// 1.3.6.1.5.5.7.6.36, `id-alg-unsigned`.
const UNSIGNED: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x06, 0x24];
/// 2.5.4.3, `id-at-commonName`.
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
/// A key has no dates of its own here: the bundle is made anew without it when it ends. The second is RFC 5280's
/// way (4.1.2.5) to say that there is no end.
const NOT_BEFORE: &[u8] = b"000101000000Z";
const NOT_AFTER: &[u8] = b"99991231235959Z";

pub(super) fn pem(key: &Key) -> String {
    let config = EncodeConfig::new().set_line_ending(LineEnding::LF);
    pem::encode_config(&Pem::new("CERTIFICATE", der_of(key)), config)
}

/// `Certificate` (RFC 5280, 4.1) of version 1, whose name is the libtrust id.
fn der_of(key: &Key) -> Vec<u8> {
    let algorithm = der::wrap(der::SEQUENCE, &der::wrap(der::OID, UNSIGNED));
    let dates = [der::wrap(UTC_TIME, NOT_BEFORE), der::wrap(GENERALIZED_TIME, NOT_AFTER)].concat();
    let name = name(key.kid.as_str());
    let tbs = [
        serial(&key.spki_digest),
        algorithm.clone(),
        name.clone(),
        der::wrap(der::SEQUENCE, &dates),
        name,
        key.spki().to_vec(),
    ];
    let tbs = der::wrap(der::SEQUENCE, &tbs.concat());
    let no_signature = der::wrap(der::BIT_STRING, &[0]);
    der::wrap(der::SEQUENCE, &[tbs, algorithm, no_signature].concat())
}

/// Positive, and another one for each key.
fn serial(digest: &[u8; 32]) -> Vec<u8> {
    let mut number = digest[..8].to_vec();
    if let Some(first) = number.first_mut() {
        *first = (*first & 0x3f) | 0x40;
    }
    der::integer(&number)
}

fn name(text: &str) -> Vec<u8> {
    let value = [der::wrap(der::OID, COMMON_NAME), der::wrap(UTF8_STRING, text.as_bytes())].concat();
    der::wrap(der::SEQUENCE, &der::wrap(SET, &der::wrap(der::SEQUENCE, &value)))
}

#[cfg(test)]
mod tests {
    use crate::decisions::key::{
        forge::{ec, rsa},
        parse,
    };

    #[test]
    fn a_certificate_of_a_public_half_is_read_as_that_key() {
        for key in [rsa(0).key(), ec().key()] {
            let text = key.without_private().certificate_pem();
            assert_eq!(parse(text.as_bytes()).as_deref(), Ok(&[key][..]), "{text}");
            assert!(text.lines().all(|line| line.len() <= 64), "{text}");
        }
    }
}
