//! Certificates and keys out of files.

use std::path::Path;

use rustls::{
    Error, InconsistentKeys, RootCertStore,
    crypto::{CryptoProvider, aws_lc_rs},
    sign::CertifiedKey,
};
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{self, PemObject as _},
};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::TlsFault;
use crate::{
    edges::small_file,
    words::{clock::UnixTime, file_fault::FileFault},
};

/// A certificate with its chain and key, and the time in which it is valid.
pub(super) struct Identity {
    pub(super) certified: CertifiedKey,
    pub(super) not_before: UnixTime,
    pub(super) not_after: UnixTime,
}

pub(super) fn identity(certificate: &Path, key: &Path) -> Result<Identity, TlsFault> {
    let chain = certificates(certificate)?;
    let (not_before, not_after) = validity(&chain).ok_or(TlsFault::BadCertificate(certificate.to_owned()))?;
    let private = private_key(key)?;
    let provider: CryptoProvider = aws_lc_rs::default_provider();
    let signing = provider.key_provider.load_private_key(private);
    let certified = CertifiedKey::new(chain, signing.map_err(|_| TlsFault::BadKey(key.to_owned()))?);
    match certified.keys_match() {
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
        Err(Error::InconsistentKeys(_)) => {
            return Err(TlsFault::Mismatch { certificate: certificate.to_owned(), key: key.to_owned() });
        }
        Err(_) => return Err(TlsFault::BadCertificate(certificate.to_owned())),
    }
    Ok(Identity { certified, not_before, not_after })
}

/// The authorities of one file, all of which must be readable.
pub(super) fn roots(path: &Path) -> Result<RootCertStore, TlsFault> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|_| TlsFault::NoAuthority(path.to_owned()))?;
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsFault> {
    let read = bytes(path)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read.bytes).collect();
    let chain = chain.map_err(|_| TlsFault::Pem(path.to_owned()))?;
    if chain.is_empty() { Err(TlsFault::NoCertificate(path.to_owned())) } else { Ok(chain) }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsFault> {
    let read = bytes(path)?;
    let contains = |part: &[u8]| read.bytes.windows(part.len()).any(|w| w == part);
    if contains(b"BEGIN ENCRYPTED PRIVATE KEY") || contains(b"Proc-Type: 4,ENCRYPTED") {
        return Err(TlsFault::Encrypted(path.to_owned()));
    }
    PrivateKeyDer::from_pem_slice(&read.bytes).map_err(|error| match error {
        pem::Error::NoItemsFound => TlsFault::NoKey(path.to_owned()),
        _ => TlsFault::Pem(path.to_owned()),
    })
}

fn bytes(path: &Path) -> Result<small_file::Read, TlsFault> {
    let read = small_file::read(path).and_then(|read| {
        let is_empty = read.bytes.iter().all(u8::is_ascii_whitespace);
        if is_empty { Err(FileFault::Empty) } else { Ok(read) }
    });
    read.map_err(|fault| TlsFault::File { path: path.to_owned(), fault })
}

fn validity(chain: &[CertificateDer<'_>]) -> Option<(UnixTime, UnixTime)> {
    let (_, certificate) = X509Certificate::from_der(chain.first()?).ok()?;
    let validity = certificate.validity();
    Some((UnixTime(validity.not_before.timestamp()), UnixTime(validity.not_after.timestamp())))
}
