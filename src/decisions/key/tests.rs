use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use proptest::prelude::*;

use super::{
    forge::{armour, ec, rsa},
    *,
};

const MESSAGE: &[u8] = b"header.claims";

fn fault(bytes: impl AsRef<[u8]>) -> KeyFault {
    parse(bytes.as_ref()).unwrap_err()
}

fn jwk(key: &Key, more: &str) -> String {
    let (first, second) = key.numbers();
    let (first, second) = (URL_SAFE_NO_PAD.encode(first), URL_SAFE_NO_PAD.encode(second));
    match key.algorithm() {
        Algorithm::Rs256 => format!(r#"{{"kty":"RSA","n":"{first}","e":"{second}"{more}}}"#),
        Algorithm::Es256 => format!(r#"{{"kty":"EC","crv":"P-256","x":"{first}","y":"{second}"{more}}}"#),
    }
}

fn certificate(key_pem: &str) -> String {
    let key = rcgen::KeyPair::from_pem(key_pem).unwrap();
    rcgen::CertificateParams::new(vec!["core".into()]).unwrap().self_signed(&key).unwrap().pem()
}

/// `RSAPublicKey` out of the SPKI, whose last bytes it is: 270 for 2048 bits and 65537.
fn rsa_public_key(key: &Key) -> Vec<u8> {
    key.spki()[key.spki().len() - 270..].to_vec()
}

#[test]
fn every_encoding_of_a_key_is_the_same_key() {
    let (a, e) = (rsa(0), ec());
    let pkcs1 = armour("RSA PUBLIC KEY", &rsa_public_key(&a.key()));
    let rows = [
        (a, a.pkcs1_pem(), true),
        (a, a.pkcs8_pem(), true),
        (a, a.public_pem(), false),
        (a, pkcs1, false),
        (a, certificate(&a.pkcs8_pem()), false),
        (a, format!(r#"{{"keys":[{}]}}"#, jwk(&a.key(), "")), false),
        (a, a.pkcs1_pem().replace('\n', "\r\n"), true),
        (e, e.pkcs8_pem(), true),
        (e, e.sec1_pem(), true),
        (e, e.public_pem(), false),
        (e, certificate(&e.pkcs8_pem()), false),
        (e, format!(r#"{{"keys":[{}]}}"#, jwk(&e.key(), "")), false),
    ];
    for (forged, text, can_sign) in rows {
        let keys = parse(text.as_bytes()).unwrap_or_else(|fault| panic!("{fault}: {text}"));
        assert_eq!((keys.len(), keys[0].can_sign()), (1, can_sign), "{text}");
        assert_eq!(keys[0], forged.key());
        assert_eq!(keys[0].thumbprint(), forged.key().thumbprint());
    }
}

#[test]
fn a_private_key_beside_its_certificate_is_one_key_that_signs() {
    let text = certificate(&rsa(0).pkcs8_pem()) + &rsa(0).pkcs1_pem();
    let keys = parse(text.as_bytes()).unwrap();
    assert_eq!(keys.len(), 1);
    assert!(keys[0].can_sign());
}

#[test]
fn several_blocks_are_several_keys_in_their_order() {
    let text = rsa(1).pkcs1_pem() + &rsa(0).public_pem();
    let kids: Vec<_> = parse(text.as_bytes()).unwrap().iter().map(|key| key.kid().clone()).collect();
    assert_eq!(kids, [rsa(1).key().kid().clone(), rsa(0).key().kid().clone()]);
}

#[test]
fn k10_after_a_pkcs1_key_anything_may_follow() {
    for tail in
        ["garbage", "-----BEGIN RSA PRIVATE KEY-----\nhalf", "-----BEGIN X-----\nAA==\n-----END X-----\n"]
    {
        let keys = parse((rsa(0).pkcs1_pem() + tail).as_bytes()).unwrap();
        assert_eq!(keys, [rsa(0).key()]);
    }
    let after_pkcs8 = rsa(0).pkcs8_pem() + "-----BEGIN RSA PRIVATE KEY-----\nhalf";
    assert_eq!(fault(after_pkcs8), KeyFault::Cut);
}

#[test]
fn what_is_signed_verifies_by_that_key_alone() {
    for forged in [rsa(0), ec()] {
        let key = forged.key();
        let signature = key.sign(MESSAGE).unwrap();
        assert!(key.verifies(MESSAGE, &signature));
        assert!(key.without_private().verifies(MESSAGE, &signature));
        assert!(!key.verifies(b"header.other", &signature));
        assert!(!rsa(1).key().verifies(MESSAGE, &signature));
        assert_eq!(key.without_private().sign(MESSAGE), Err(SignFault::NoPrivateHalf));
    }
}

#[test]
fn what_jsonwebtoken_signs_verifies_and_the_other_way_round() {
    use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, crypto};
    let (a, encoding) =
        (rsa(0).key(), EncodingKey::from_rsa_der(::pem::parse(rsa(0).pkcs1_pem()).unwrap().contents()));
    assert!(a.verifies(MESSAGE, &crypto::sign(MESSAGE, &encoding, Algorithm::RS256).unwrap()));
    let decoding = DecodingKey::from_rsa_der(&rsa_public_key(&a));
    assert!(crypto::verify(&a.sign(MESSAGE).unwrap(), MESSAGE, &decoding, Algorithm::RS256).unwrap());
    for other in [Algorithm::RS384, Algorithm::RS512, Algorithm::PS256] {
        assert!(!a.verifies(MESSAGE, &crypto::sign(MESSAGE, &encoding, other).unwrap()), "{other:?}");
    }
}

#[test]
fn a_signature_verifies_in_one_spelling_only() {
    let key = rsa(0).key();
    let signature = key.sign(MESSAGE).unwrap();
    let mut unused_bits_set = signature.clone();
    let last = unused_bits_set.pop().unwrap();
    unused_bits_set.push(successor(last));
    let es256_zero = URL_SAFE_NO_PAD.encode([0; 64]);
    assert!(!ec().key().verifies(MESSAGE, &es256_zero), "all-zero r and s");
    let bad = [
        String::new(),
        "A".into(),
        format!("{signature}=="),
        format!("{signature}\n"),
        format!(" {signature}"),
        signature.replace(['-', '_'], "+"),
        unused_bits_set,
        "A".repeat(64 << 10),
        es256_zero,
    ];
    for bad in bad {
        assert!(bad != signature && !key.verifies(MESSAGE, &bad), "{}", &bad[..bad.len().min(80)]);
    }
}

/// The next letter of the base64url alphabet: after a canonical last letter it sets an unused bit.
fn successor(letter: char) -> char {
    const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    ALPHABET.chars().nth(ALPHABET.find(letter).unwrap() + 1).unwrap()
}

#[test]
fn broken_files_have_a_fault_of_their_own() {
    let pkcs1 = rsa(0).pkcs1_pem();
    let half = &pkcs1[..pkcs1.len() / 2];
    let torn = pkcs1.replacen("\nMII", "\n!!!", 1);
    let encrypted = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n";
    let pkcs8_encrypted = armour("ENCRYPTED PRIVATE KEY", b"whatever");
    let rows: Vec<(Vec<u8>, KeyFault)> = vec![
        (vec![], KeyFault::File(FileFault::Empty)),
        (b" \n\t".into(), KeyFault::File(FileFault::Empty)),
        (half.into(), KeyFault::Cut),
        (pkcs1[..pkcs1.len() - 40].into(), KeyFault::Cut),
        (torn.into(), KeyFault::Malformed("the block is no base64")),
        (
            armour("RSA PRIVATE KEY", b"\x30\x03\x02\x01\x00").into(),
            KeyFault::Malformed("no RSA private key is in it"),
        ),
        (armour("PRIVATE KEY", &[0xff; 40]).into(), KeyFault::Malformed("no PKCS#8 key is in it")),
        (armour("CERTIFICATE", &[0x30; 40]).into(), KeyFault::Malformed("no certificate is in it")),
        ((0..=255).cycle().take(4096).skip(7).collect(), KeyFault::NoKeys),
        (b"<html>not here</html>".into(), KeyFault::NoKeys),
        (encrypted.into(), KeyFault::Encrypted),
        (pkcs8_encrypted.into(), KeyFault::Encrypted),
        (armour("DH PARAMETERS", b"x").into(), KeyFault::OtherBlock("DH PARAMETERS".replace(' ', ""))),
        (vec![b'A'; LONGEST_FILE + 1], KeyFault::File(FileFault::TooLarge)),
    ];
    for (bytes, expected) in rows {
        assert_eq!(fault(&bytes), expected, "{:?}", String::from_utf8_lossy(&bytes[..bytes.len().min(60)]));
        assert!(!expected.remedy().is_empty());
    }
}

#[test]
fn a_key_of_the_right_form_and_the_wrong_numbers_is_refused() {
    let a = rsa(0).key();
    let (n, e) = a.numbers();
    let public = |n: &[u8], e: &[u8]| armour("PUBLIC KEY", &der::rsa_spki(n, e));
    assert_eq!(fault(public(&n[..128], e)), KeyFault::TooShort { bits: 1024 });
    assert_eq!(fault(public(&[0xff; 1025], e)), KeyFault::TooLong { bits: 8200 });
    for weak in [&[1][..], &[2], &[1, 0, 0]] {
        assert_eq!(fault(public(n, weak)), KeyFault::WeakExponent, "{weak:?}");
    }
    let mut mixed = ::pem::parse(rsa(0).pkcs1_pem()).unwrap().into_contents();
    mixed[200] ^= 1;
    assert_eq!(fault(armour("RSA PRIVATE KEY", &mixed)), KeyFault::Inconsistent);
    let mut off_curve = ec().key().spki().to_vec();
    *off_curve.last_mut().unwrap() ^= 1;
    assert_eq!(fault(armour("PUBLIC KEY", &off_curve)), KeyFault::Inconsistent);
}

#[test]
fn core_is_cautioned_about_pkcs8_and_ec() {
    let caution = |pem: String| parse(pem.as_bytes()).unwrap()[0].caution();
    assert_eq!(caution(rsa(0).pkcs1_pem()), None);
    assert_eq!(caution(rsa(0).public_pem()), None);
    assert_eq!(caution(rsa(0).pkcs8_pem()), Some(Caution::Pkcs8));
    assert_eq!(caution(ec().pkcs8_pem()), Some(Caution::Ec));
}

#[test]
fn a_jwks_gives_its_signature_keys_with_their_names() {
    let (a, e) = (rsa(0).key(), ec().key());
    let members = [
        jwk(&a, r#","kid":"first","use":"sig","alg":"RS256""#),
        jwk(&rsa(1).key(), r#","use":"enc""#),
        jwk(&rsa(2).key(), r#","alg":"PS256""#),
        r#"{"kty":"oct","k":"AAAA","kid":"first"}"#.into(),
        r#"{"kty":"OKP","crv":"Ed25519","x":"AAAA"}"#.into(),
        jwk(&e, &format!(r#","kid":"{}""#, e.kid())),
    ];
    let keys = parse(format!(r#"{{"keys":[{}]}}"#, members.join(",")).as_bytes()).unwrap();
    assert_eq!(keys, [a, e]);
    assert_eq!(keys[0].declared().map(Kid::as_str), Some("first"));
    assert_eq!(keys[1].declared(), None, "its own name says nothing new");
}

#[test]
fn a_bad_jwks_is_refused_whole() {
    let (a, b) = (rsa(0).key(), rsa(1).key());
    let set = |members: &[String]| fault(format!(r#"{{"keys":[{}]}}"#, members.join(",")));
    let named = |key: &Key| jwk(key, r#","kid":"x""#);
    assert_eq!(set(&[]), KeyFault::Jwks("no key for signatures is in it"));
    assert_eq!(set(&[named(&a), named(&b)]), KeyFault::NameTaken(Kid::parse("x").unwrap()));
    assert_eq!(set(&[r#"{"kty":"RSA","e":"AQAB"}"#.into()]), KeyFault::Jwks("a key lacks a number"));
    assert_eq!(
        set(&[r#"{"kty":"RSA","n":"a=","e":"AQAB"}"#.into()]),
        KeyFault::Jwks("a number is no base64url")
    );
    assert!(matches!(set(&[jwk(&a, r#","kid":"a b""#)]), KeyFault::Jwks(_)));
    assert!(matches!(fault("{\"keys\":[{\"kty\""), KeyFault::Jwks(_)), "half written");
}

#[test]
fn no_secret_is_in_the_debug_text() {
    let key = rsa(0).key();
    assert_eq!(format!("{key:?}"), format!("Key({}, RS256, private)", key.kid()));
}

proptest! {
    #[test]
    fn parsing_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = parse(&bytes).is_ok();
        for label in ["RSA PRIVATE KEY", "PRIVATE KEY", "EC PRIVATE KEY", "PUBLIC KEY", "CERTIFICATE"] {
            prop_assert!(parse(armour(label, &bytes).as_bytes()).is_err());
        }
    }

    #[test]
    fn a_changed_byte_never_verifies(at in 0usize..342, by in 1u8..=255) {
        let key = rsa(0).key();
        let mut raw = URL_SAFE_NO_PAD.decode(key.sign(MESSAGE).unwrap()).unwrap();
        let at = at % raw.len();
        raw[at] ^= by;
        prop_assert!(!key.verifies(MESSAGE, &URL_SAFE_NO_PAD.encode(raw)));
    }
}
