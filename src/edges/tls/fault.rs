//! What can be wrong with certificates, each with its cause and its remedy.

use std::path::{Path, PathBuf};

use crate::words::file_fault::FileFault;

/// Why TLS can't be set up with these files.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsFault {
    #[error("{fault}")]
    File { path: PathBuf, fault: FileFault },
    #[error("the file holds no certificate in PEM")]
    NoCertificate(PathBuf),
    #[error("a PEM block of the file is cut or no base64")]
    Pem(PathBuf),
    #[error("a certificate of the file can't be read")]
    BadCertificate(PathBuf),
    #[error("the file holds no private key in PEM")]
    NoKey(PathBuf),
    #[error("the private key is encrypted with a passphrase")]
    Encrypted(PathBuf),
    #[error("the private key is of a kind or size that can't be used")]
    BadKey(PathBuf),
    #[error("the private key doesn't belong to the certificate in {}", .certificate.display())]
    Mismatch { certificate: PathBuf, key: PathBuf },
    #[error("the file holds no certificate of an authority that can be used")]
    NoAuthority(PathBuf),
    #[error("a client certificate and its key go together, and only this one is set")]
    HalfPair(PathBuf),
    #[error("`{0}` is neither a DNS name nor an address")]
    ServerName(String),
    #[error("the platform's certificate authorities can't be had: {0}")]
    Platform(String),
    #[error("rustls refuses the settings: {0}")]
    Settings(String),
}

impl From<rustls::Error> for TlsFault {
    fn from(error: rustls::Error) -> Self {
        Self::Settings(error.to_string())
    }
}

impl TlsFault {
    /// The file to mend; empty where none is at fault.
    pub fn path(&self) -> &Path {
        match self {
            Self::File { path, .. }
            | Self::Mismatch { key: path, .. }
            | Self::NoCertificate(path)
            | Self::Pem(path)
            | Self::BadCertificate(path)
            | Self::NoKey(path)
            | Self::Encrypted(path)
            | Self::BadKey(path)
            | Self::NoAuthority(path)
            | Self::HalfPair(path) => path,
            Self::ServerName(_) | Self::Platform(_) | Self::Settings(_) => Path::new(""),
        }
    }

    /// What mends it, in words for the operator.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::File { fault, .. } => fault.remedy(),
            Self::NoCertificate(_) | Self::Pem(_) | Self::BadCertificate(_) => {
                "give the certificate and its chain in PEM, the certificate first; rename it into place"
            }
            Self::NoKey(_) => "give the private key in PEM (PKCS#8, PKCS#1 or SEC 1)",
            Self::Encrypted(_) => "store the key without a passphrase: `openssl pkey -in KEY -out KEY`",
            Self::BadKey(_) => "make a P-256 or RSA key of 2048 to 8192 bits",
            Self::Mismatch { .. } => "give the key that the certificate was made for; replace both together",
            Self::NoAuthority(_) => "give the authority's own certificate in PEM",
            Self::HalfPair(_) => "set both `certificate_file` and `key_file`, or neither",
            Self::ServerName(_) => "set `server_name` to a name in the endpoint's certificate",
            Self::Platform(_) => "install the system's CA certificates, or set `ca_file`",
            Self::Settings(_) => "look at the `tls` section",
        }
    }
}
