//! Algorithms and signatures: the algorithm belongs to the key.

use aws_lc_rs::{
    hmac,
    rand::SystemRandom,
    signature::{
        RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RsaEncoding, RsaKeyPair,
    },
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::*;
use crate::decisions::{
    key::forge::{ec, rsa},
    ring::SourceName,
};

fn by_rsa(which: usize, encoding: &'static dyn RsaEncoding, message: &[u8]) -> Vec<u8> {
    let pem = pem::parse(rsa(which).pkcs8_pem()).unwrap();
    let pair = RsaKeyPair::from_pkcs8(pem.contents()).unwrap();
    let mut signature = vec![0; pair.public_modulus_len()];
    pair.sign(encoding, &SystemRandom::new(), message, &mut signature).unwrap();
    signature
}

/// The token with its signature's spare bits set in each way, padded, in the other alphabet, with a space.
pub(super) fn other_spellings(text: &str) -> Vec<String> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let (head, last) = text.split_at(text.len() - 1);
    let bits = ALPHABET.iter().position(|c| *c == last.as_bytes()[0]).unwrap();
    let spare = (0..16).filter(|n| n + (bits & 0x30) != bits);
    let mut all: Vec<_> =
        spare.map(|n| format!("{head}{}", char::from(ALPHABET[(bits & 0x30) + n]))).collect();
    all.extend([format!("{text}="), format!("{text}=="), format!("{text} "), format!("{text}\n")]);
    let (message, signature) = text.rsplit_once('.').unwrap();
    let other = signature.replace('-', "+").replace('_', "/");
    assert_ne!(other, signature, "342 characters without one of 2 in 64");
    all.push(format!("{message}.{other}"));
    all.push(format!("{message}.{}\r\n{}", &signature[..76], &signature[76..]));
    all
}

#[test]
fn the_one_algorithm_of_harbors_key_is_rs256() {
    let sign = |alg: &str, encoding| {
        let draft = Draft::of(0).alg(&format!("\"{alg}\""), 0, "");
        came(&draft.with_signature(|message| by_rsa(0, encoding, message)))
    };
    assert_eq!(sign("RS256", &RSA_PKCS1_SHA256), Came::Verified);
    assert_eq!(sign("RS384", &RSA_PKCS1_SHA384), refused(Fault::Algorithm));
    assert_eq!(sign("RS512", &RSA_PKCS1_SHA512), refused(Fault::Algorithm));
    assert_eq!(sign("PS256", &RSA_PSS_SHA256), refused(Fault::Algorithm));
    assert_eq!(sign("RS256", &RSA_PKCS1_SHA512), refused(Fault::Signature), "another hash under its name");
    assert_eq!(sign("RS256", &RSA_PSS_SHA256), refused(Fault::Signature), "another padding under its name");
}

#[test]
fn a_public_key_is_no_shared_secret() {
    let key = rsa(0).key();
    let (modulus, exponent) = key.numbers();
    let jwk = format!(
        r#"{{"kty":"RSA","n":"{}","e":"{}"}}"#,
        URL_SAFE_NO_PAD.encode(modulus),
        URL_SAFE_NO_PAD.encode(exponent)
    );
    let pem = rsa(0).public_pem();
    let secrets =
        [pem.as_bytes(), pem.trim_end().as_bytes(), key.spki(), modulus, jwk.as_bytes(), b"", b"\0"];
    for secret in secrets {
        for (alg, hash) in
            [("HS256", hmac::HMAC_SHA256), ("HS384", hmac::HMAC_SHA384), ("HS512", hmac::HMAC_SHA512)]
        {
            let mac = |message: &[u8]| hmac::sign(&hmac::Key::new(hash, secret), message).as_ref().to_vec();
            for which in [0, 3] {
                let draft = Draft::of(which).alg(&format!("\"{alg}\""), which, "");
                assert_eq!(came(&draft.with_signature(mac)), refused(Fault::Algorithm), "{alg} {which}");
            }
        }
    }
}

#[test]
fn no_algorithm_is_no_algorithm_in_any_spelling() {
    for alg in ["none", "None", "NoNe", "NONE", "", "rs256", "RS256 ", " RS256", "RS256\\u0000", "ES256"] {
        for signature in [Vec::new(), vec![0], by_rsa(0, &RSA_PKCS1_SHA256, b"x")] {
            for which in [0, 3] {
                let draft = Draft::of(which).alg(&format!("\"{alg}\""), which, "");
                let got = came(&draft.with_signature(|_| signature.clone()));
                assert_eq!(got, refused(Fault::Algorithm), "{alg:?} {which}");
            }
        }
    }
    for header in [
        r#"{"kid":"K"}"#,
        r#"{"alg":null,"kid":"K"}"#,
        r#"{"alg":["RS256"],"kid":"K"}"#,
        r#"{"alg":256,"kid":"K"}"#,
        r#"{"alg":"RS256","alg":"none","kid":"K"}"#,
        r#"{"alg":"none","kid":"K","alg":"RS256"}"#,
        r#"{"alg":"RS256","a\u006cg":"none","kid":"K"}"#,
    ] {
        assert_eq!(came(&Draft::of(0).header(header).signed(0)), malformed(Malformed::Header), "{header}");
    }
}

#[test]
fn signatures_of_no_key_are_refused() {
    let lengths = [0, 1, 64, 255, 256, 257, 4_096];
    for length in lengths {
        let zeros = Draft::of(0).with_signature(|_| vec![0; length]);
        assert_eq!(came(&zeros), refused(Fault::Signature), "{length} zeros");
    }
    let long = Draft::of(0).with_signature(|_| vec![0; 64 * 1024]);
    assert_eq!(came(&long), malformed(Malformed::TooLong));
}

#[test]
fn zeros_are_no_signature_of_an_elliptic_key() {
    let mut keeper = forge::keeper();
    let (ring, _) = keeper.observe(&SourceName::new("plain registry"), Ok(vec![ec().key()]), NOW);
    let key = ec().key();
    let header = format!(r#"{{"alg":"ES256","kid":"{}"}}"#, key.kid());
    let draft = Draft::of(0).header(&header);
    let good = draft.with_signature(|m| URL_SAFE_NO_PAD.decode(key.sign(m).unwrap()).unwrap());
    assert_eq!(judged(&good, &ring, &rules()), Came::Verified);
    let zeros = draft.with_signature(|_| vec![0; 64]);
    assert_eq!(judged(&zeros, &ring, &rules()), refused(Fault::Signature));
    let as_rsa = draft.header(&header.replace("ES256", "RS256")).signed(0);
    assert_eq!(judged(&as_rsa, &ring, &rules()), refused(Fault::Algorithm));
}

#[test]
fn one_signature_has_one_spelling() {
    for text in other_spellings(&Draft::of(0).signed(0)) {
        assert_eq!(came(&text), malformed(Malformed::Encoding), "{text}");
    }
}

#[test]
fn key_material_in_the_header_is_not_looked_at() {
    let (modulus, exponent) = (rsa(3).key(), "AQAB");
    let n = URL_SAFE_NO_PAD.encode(modulus.numbers().0);
    let members = [
        format!(r#","jwk":{{"kty":"RSA","n":"{n}","e":"{exponent}"}}"#),
        r#","jku":"http://127.0.0.1:9/jwks.json""#.to_owned(),
        r#","x5c":["MIIB"]"#.to_owned(),
        r#","x5u":"http://127.0.0.1:9/x5u.pem""#.to_owned(),
        r#","x5t":"AAAA""#.to_owned(),
    ];
    for member in members {
        let trusted = Draft::of(0).alg(r#""RS256""#, 0, &member);
        assert_eq!(came(&trusted.signed(3)), refused(Fault::Signature), "{member}");
        assert_eq!(came(&trusted.signed(0)), Came::Verified, "{member}: its own key still proves it");
        let nameless = Draft::of(0).header(&format!(r#"{{"alg":"RS256"{member}}}"#));
        assert_eq!(came(&nameless.signed(3)), refused(Fault::MissingKid), "{member}");
    }
}
