//! Names of keys: libtrust ids as Harbor and distribution 2.8 write them, RFC 7638 thumbprints as distribution 3 does.

use std::{fmt, sync::Arc};

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

/// The name of a key as it stands in a token's header. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Kid(Arc<str>);

impl Kid {
    /// A name as it was read, at most [`Kid::LONGEST`] bytes of visible ASCII; `None` for anything else,
    /// so that a name can go to a log, a metric's label or a header as it is.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = !text.is_empty() && text.len() <= Self::LONGEST;
        (fits && text.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\'))
            .then(|| Self(text.into()))
    }

    /// Bytes of the longest name taken: a libtrust id has 59, a thumbprint 43.
    pub const LONGEST: usize = 128;

    /// Harbor's own name of a key (contract K2): base32 of the first 30 bytes of SHA-256 over the
    /// SubjectPublicKeyInfo in DER, twelve groups of four with colons between.
    pub fn libtrust(spki_der: &[u8]) -> Self {
        const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
        let hash = digest(&SHA256, spki_der);
        let mut text = String::with_capacity(59);
        for (i, five) in hash.as_ref()[..30].chunks_exact(5).enumerate() {
            let bits = five.iter().fold(0u64, |acc, b| acc << 8 | u64::from(*b));
            for place in 0..8 {
                if place % 4 == 0 && (i, place) != (0, 0) {
                    text.push(':');
                }
                text.push(char::from(ALPHABET[(bits >> (35 - 5 * place) & 31) as usize]));
            }
        }
        Self(text.into())
    }

    /// RFC 7638 thumbprint of an RSA key from its big-endian modulus and exponent without leading zeros.
    pub fn thumbprint_rsa(modulus: &[u8], exponent: &[u8]) -> Self {
        let (n, e) = (URL_SAFE_NO_PAD.encode(modulus), URL_SAFE_NO_PAD.encode(exponent));
        Self::thumbprint(&format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#))
    }

    /// RFC 7638 thumbprint of a P-256 key from its coordinates, 32 bytes each.
    pub fn thumbprint_p256(x: &[u8], y: &[u8]) -> Self {
        let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        Self::thumbprint(&format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#))
    }

    fn thumbprint(required_members: &str) -> Self {
        Self(URL_SAFE_NO_PAD.encode(digest(&SHA256, required_members.as_bytes())).into())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Kid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Kid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::borrow::Borrow<str> for Kid {
    fn borrow(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libtrust_ids_have_twelve_groups_of_four() {
        let kid = Kid::libtrust(b"any bytes");
        let groups: Vec<_> = kid.as_str().split(':').collect();
        assert_eq!(groups.len(), 12);
        assert!(groups.iter().all(|g| g.len() == 4));
    }

    #[test]
    fn the_thumbprint_of_rfc_7638_section_3_1() {
        let n = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";
        let n = URL_SAFE_NO_PAD.decode(n).expect("a vector");
        assert_eq!(
            Kid::thumbprint_rsa(&n, &[1, 0, 1]).as_str(),
            "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
        );
    }

    #[test]
    fn names_that_could_harm_a_log_are_no_names() {
        for bad in ["", "a b", "a\nb", "a\"b", "a\\b", "\u{e9}", &"x".repeat(129)] {
            assert!(Kid::parse(bad).is_none(), "{bad:?}");
        }
        assert!(Kid::parse("../../etc/passwd").is_some(), "a name opens nothing, whatever it looks like");
    }
}
