//! Key files as operators, charts and accidents write them.

use std::{fs, io, os::unix::fs::PermissionsExt as _, path::Path, sync::Arc};

use aws_lc_rs::{
    encoding::{AsDer as _, EcPrivateKeyRfc5915Der, Pkcs8V1Der, PublicKeyX509Der},
    rsa::{KeyPair, KeySize},
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _},
};

use super::key::kid_of;
use crate::words::kid::Kid;

/// An RSA key of core's, to be written in any of the forms that its file may take.
#[derive(Debug)]
pub struct CoreKey {
    pair: Arc<KeyPair>,
    kid: Kid,
}

/// What stands in the key file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyForm {
    /// PKCS#1, what core wants.
    Pkcs1,
    /// PKCS#1 followed by another block (K10).
    Pkcs1AndMore,
    /// PKCS#8 (K7).
    Pkcs8,
    /// An EC key, unrelated to the RSA one (K8).
    Ec,
    /// The public half (K9).
    Public,
    /// The first half of the PKCS#1 text (K9).
    HalfWritten,
    /// No PEM at all (K9).
    Garbage,
    /// Nothing (K9).
    Empty,
}

impl CoreKey {
    /// A new key of 2048, 3072, 4096 or 8192 bits.
    pub fn generate(bits: u32) -> io::Result<Self> {
        let size = match bits {
            2048 => KeySize::Rsa2048,
            3072 => KeySize::Rsa3072,
            4096 => KeySize::Rsa4096,
            8192 => KeySize::Rsa8192,
            _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "no such RSA size")),
        };
        let pair = KeyPair::generate(size).map_err(|_| io::Error::other("no RSA key could be made"))?;
        let kid = kid_of(&pair).ok_or_else(|| io::Error::other("the public half has no DER"))?;
        Ok(Self { pair: Arc::new(pair), kid })
    }

    /// The key that a core with this file verifies with.
    pub fn read(path: &Path) -> io::Result<Self> {
        let unusable = || io::Error::new(io::ErrorKind::InvalidData, "no RSA private key");
        let pair = super::key::to_verify(path).ok_or_else(unusable)?;
        let kid = kid_of(&pair).ok_or_else(unusable)?;
        Ok(Self { pair, kid })
    }

    /// Harbor's name of this key (K2).
    pub fn kid(&self) -> &Kid {
        &self.kid
    }

    /// The key file's text in a form.
    pub fn text(&self, form: KeyForm) -> io::Result<String> {
        let pkcs8 = self.pkcs8()?;
        let pkcs1 = || Ok::<_, io::Error>(block("RSA PRIVATE KEY", pkcs1_within(&pkcs8)?));
        Ok(match form {
            KeyForm::Pkcs1 => pkcs1()?,
            KeyForm::Pkcs1AndMore => pkcs1()? + &block("CERTIFICATE", b"not read"),
            KeyForm::Pkcs8 => block("PRIVATE KEY", &pkcs8),
            KeyForm::Ec => block("EC PRIVATE KEY", &ec_key()?),
            KeyForm::Public => block("PUBLIC KEY", &self.spki()?),
            KeyForm::HalfWritten => {
                let whole = pkcs1()?;
                whole[..whole.len() / 2].to_owned()
            }
            KeyForm::Garbage => "this is no key\n".to_owned(),
            KeyForm::Empty => String::new(),
        })
    }

    /// Writes the key beside `path` and renames it into place: a new inode.
    pub fn rename_into(&self, path: &Path, form: KeyForm) -> io::Result<()> {
        let beside = path.with_extension("next");
        fs::write(&beside, self.text(form)?)?;
        readable(&beside)?;
        fs::rename(&beside, path)
    }

    /// Overwrites the file in place: the same inode, as a bind mount needs it.
    pub fn overwrite(&self, path: &Path, form: KeyForm) -> io::Result<()> {
        fs::write(path, self.text(form)?)?;
        readable(path)
    }

    /// RS256 over `signed`, for tests that make tokens of their own (K4).
    pub fn sign(&self, signed: &[u8]) -> io::Result<Vec<u8>> {
        super::key::sign(&self.pair, signed).ok_or_else(|| io::Error::other("signing failed"))
    }

    fn pkcs8(&self) -> io::Result<Vec<u8>> {
        let der: Pkcs8V1Der<'_> = self.pair.as_der().map_err(|_| io::Error::other("no PKCS#8"))?;
        Ok(der.as_ref().to_vec())
    }

    fn spki(&self) -> io::Result<Vec<u8>> {
        let public = self.pair.public_key();
        let der: PublicKeyX509Der<'_> = public.as_der().map_err(|_| io::Error::other("no SPKI"))?;
        Ok(der.as_ref().to_vec())
    }
}

/// Core, whose user isn't ours, may read it whatever our umask.
fn readable(path: &Path) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o644))
}

/// Makes an RSA key and puts it at `path` as core wants it, by rename; gives its name.
pub fn write_key(path: &Path, bits: u32) -> io::Result<Kid> {
    let key = CoreKey::generate(bits)?;
    key.rename_into(path, KeyForm::Pkcs1)?;
    Ok(key.kid)
}

fn ec_key() -> io::Result<Vec<u8>> {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING)
        .map_err(|_| io::Error::other("no EC key could be made"))?;
    let der: EcPrivateKeyRfc5915Der<'_> =
        pair.private_key().as_der().map_err(|_| io::Error::other("no RFC 5915 DER"))?;
    Ok(der.as_ref().to_vec())
}

fn block(label: &str, der: &[u8]) -> String {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new(label, der), config)
}

/// The PKCS#1 key within a PKCS#8 one (RFC 5208, 5): the octet string after version and algorithm.
fn pkcs1_within(pkcs8: &[u8]) -> io::Result<&[u8]> {
    let (_, inside, _) = element(pkcs8)?;
    let (_, _, after_version) = element(inside)?;
    let (_, _, after_algorithm) = element(after_version)?;
    let (tag, key, _) = element(after_algorithm)?;
    if tag == 0x04 { Ok(key) } else { Err(io::Error::other("no octet string in PKCS#8")) }
}

/// Tag, content and what follows of the first DER element.
fn element(der: &[u8]) -> io::Result<(u8, &[u8], &[u8])> {
    let short = || io::Error::new(io::ErrorKind::UnexpectedEof, "short DER");
    let (&tag, rest) = der.split_first().ok_or_else(short)?;
    let (&first, rest) = rest.split_first().ok_or_else(short)?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f)).ok_or_else(short)?;
        (digits.iter().fold(0usize, |acc, &b| acc << 8 | usize::from(b)), rest)
    };
    let (content, after) = rest.split_at_checked(length).ok_or_else(short)?;
    Ok((tag, content, after))
}
