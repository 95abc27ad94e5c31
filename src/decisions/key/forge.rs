//! Keys made on the spot for tests, each once a process; none is committed.

use std::sync::LazyLock;

use aws_lc_rs::{
    encoding::{AsDer as _, Pkcs8V1Der},
    rsa::KeySize,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, RsaKeyPair},
};

use super::{Key, der, parse};

/// A private key in PKCS#8, with its other encodings on demand.
pub(crate) struct Forged {
    pkcs8: Vec<u8>,
}

static RSA: [LazyLock<Forged>; 4] = [const { LazyLock::new(forge_rsa) }; 4];
static EC: LazyLock<Forged> = LazyLock::new(forge_ec);

fn forge_rsa() -> Forged {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
    Forged { pkcs8: der.as_ref().to_vec() }
}

fn forge_ec() -> Forged {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    Forged { pkcs8: pair.to_pkcs8v1().unwrap().as_ref().to_vec() }
}

/// One of four RSA-2048 keys, the same at each call.
pub(crate) fn rsa(which: usize) -> &'static Forged {
    &RSA[which]
}

/// The P-256 key.
pub(crate) fn ec() -> &'static Forged {
    &EC
}

impl Forged {
    /// As core needs it (for RSA).
    pub(crate) fn pkcs1_pem(&self) -> String {
        armour("RSA PRIVATE KEY", self.inner())
    }

    pub(crate) fn pkcs8_pem(&self) -> String {
        armour("PRIVATE KEY", &self.pkcs8)
    }

    pub(crate) fn sec1_pem(&self) -> String {
        armour("EC PRIVATE KEY", self.inner())
    }

    pub(crate) fn public_pem(&self) -> String {
        armour("PUBLIC KEY", self.key().spki())
    }

    pub(crate) fn key(&self) -> Key {
        let pem = if self.pkcs8.len() > 1000 { self.pkcs1_pem() } else { self.pkcs8_pem() };
        parse(pem.as_bytes()).unwrap().remove(0)
    }

    fn inner(&self) -> &[u8] {
        let (body, _) = der::expect(der::SEQUENCE, &self.pkcs8).unwrap();
        let (_, rest) = der::expect(der::INTEGER, body).unwrap();
        let (_, rest) = der::expect(der::SEQUENCE, rest).unwrap();
        der::expect(der::OCTET_STRING, rest).unwrap().0
    }
}

pub(crate) fn armour(label: &str, der: &[u8]) -> String {
    pem::encode(&pem::Pem::new(label, der))
}
