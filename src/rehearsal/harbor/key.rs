//! The key file as core uses it: read and parsed at every use (K1), differently for signing and for verifying.

use std::{
    path::Path,
    sync::{Arc, LazyLock},
};

use aws_lc_rs::{
    encoding::{AsDer as _, PublicKeyX509Der},
    rand::SystemRandom,
    rsa::KeyPair,
    signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, UnparsedPublicKey},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use moka::sync::Cache;

use crate::{
    edges::small_file::{CORE, Mode},
    words::kid::Kid,
};

/// What the file gives to the side that signs (libtrust's reader).
#[derive(Debug)]
pub(super) enum SigningKey {
    /// An RSA key in PKCS#1 (K10: whatever follows its block).
    Rsa(KeyPair),
    /// An EC key: libtrust reads it, and signing RS256 with it fails (K8).
    Ec,
    /// Nothing it reads: missing, unreadable, empty, PKCS#8, a public key (K7, K9).
    Unusable,
}

/// The file's bytes, where core's user may read it: by owner and mode, whoever runs this process.
fn read(path: &Path) -> Option<Vec<u8>> {
    let mode = Mode::of(&std::fs::metadata(path).ok()?);
    if mode.lets(CORE) { std::fs::read(path).ok() } else { None }
}

/// Reads the file as libtrust does.
pub(super) fn to_sign(path: &Path) -> SigningKey {
    let Some(block) = read(path).and_then(|bytes| first_block(&bytes)) else {
        return SigningKey::Unusable;
    };
    match block.label.as_str() {
        "RSA PRIVATE KEY" => KeyPair::from_der(&block.der).map_or(SigningKey::Unusable, SigningKey::Rsa),
        "EC PRIVATE KEY" => SigningKey::Ec,
        _ => SigningKey::Unusable,
    }
}

/// Keys parsed to verify, by the file's bytes. Go parses a key in microseconds; aws-lc checks all its parts, which takes
/// a hundred times as long as the use, and would make this core slower than the real one.
static TO_VERIFY: LazyLock<Cache<Vec<u8>, Option<Arc<KeyPair>>>> = LazyLock::new(|| Cache::new(32));

/// Reads the file as golang-jwt does: RSA in PKCS#1 or PKCS#8, whatever its label says.
pub(super) fn to_verify(path: &Path) -> Option<Arc<KeyPair>> {
    let parsed = |bytes: &[u8]| {
        let block = first_block(bytes)?;
        KeyPair::from_der(&block.der).or_else(|_| KeyPair::from_pkcs8(&block.der)).ok().map(Arc::new)
    };
    let bytes = read(path)?;
    TO_VERIFY.get_with_by_ref(&bytes, || parsed(&bytes))
}

/// Harbor's name of a key (K2).
pub(super) fn kid_of(key: &KeyPair) -> Option<Kid> {
    let spki: PublicKeyX509Der<'_> = key.public_key().as_der().ok()?;
    Some(Kid::libtrust(spki.as_ref()))
}

/// RS256 over `signed`.
pub(super) fn sign(key: &KeyPair, signed: &[u8]) -> Option<Vec<u8>> {
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed, &mut signature).ok()?;
    Some(signature)
}

/// Whether `signature` is RS256 of `signed` by this key.
pub(super) fn verifies(key: &KeyPair, signed: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key.public_key().as_ref())
        .verify(signed, signature)
        .is_ok()
}

struct Block {
    label: String,
    der: Vec<u8>,
}

/// The first whole PEM block, as Go's `pem.Decode` finds it.
fn first_block(bytes: &[u8]) -> Option<Block> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (_, from_label) = text.split_once("-----BEGIN ")?;
    let (label, rest) = from_label.split_once("-----")?;
    let (body, _) = rest.split_once(&format!("-----END {label}-----"))?;
    let compact: String = body.split_whitespace().collect();
    Some(Block { label: label.to_owned(), der: STANDARD.decode(compact).ok()? })
}
