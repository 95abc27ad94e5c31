//! Certificates of a test's own authority, and clients that know it.

use crate::talk::Line;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned, SupportedProtocolVersion,
    crypto::aws_lc_rs, server::WebPkiClientVerifier,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use std::{
    fs, io,
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    sync::Arc,
};
use tempfile::TempDir;
use tokio::{io::copy_bidirectional, net::TcpListener, runtime::Runtime, task::JoinSet};
use tokio_rustls::TlsAcceptor;

/// The name in every certificate.
pub const NAME: &str = "harbor.test";

/// An authority whose files lie in a folder of their own.
pub struct Authority {
    folder: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A connection over TLS.
pub type Secure = Line<StreamOwned<ClientConnection, TcpStream>>;

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(vec![]).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("an authority");
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("ca.pem"), issuer.pem()).expect("a file");
        Self { folder, issuer }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes `FILE.crt` and `FILE.key`; gives the certificate's DER.
    pub fn issue(&self, file: &str) -> Vec<u8> {
        let mut params =
            CertificateParams::new(vec![NAME.to_owned(), "localhost".to_owned()]).expect("parameters");
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        fs::write(self.path(&format!("{file}.key")), key.serialize_pem()).expect("a file");
        fs::write(self.path(&format!("{file}.crt")), certificate.pem()).expect("a file");
        certificate.der().to_vec()
    }

    /// The value of a listener's `tls`.
    pub fn listener(&self, file: &str, more: &str) -> String {
        let (crt, key) = (self.path(&format!("{file}.crt")), self.path(&format!("{file}.key")));
        format!("{{ certificate_file = \"{}\", key_file = \"{}\"{more} }}", crt.display(), key.display())
    }

    /// A server's side with the certificate of that name; with `trusted` no client is served without one of its.
    pub fn server(
        &self,
        file: &str,
        versions: &[&'static SupportedProtocolVersion],
        trusted: Option<&Authority>,
    ) -> Arc<ServerConfig> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_protocol_versions(versions).expect("versions");
        let builder = match trusted {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let roots = Arc::new(authority.roots());
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
                builder.with_client_cert_verifier(verifier.expect("a verifier"))
            }
        };
        let (chain, key) = self.identity(file);
        Arc::new(builder.with_single_cert(chain, key).expect("an identity"))
    }

    fn identity(&self, file: &str) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let certificate = CertificateDer::from_pem_file(self.path(&format!("{file}.crt")));
        let key = PrivateKeyDer::from_pem_file(self.path(&format!("{file}.key"))).expect("a key");
        (vec![certificate.expect("a certificate")], key)
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_file(self.path("ca.pem")).expect("a certificate");
        roots.add(authority).expect("an authority");
        roots
    }

    /// A client's side; `shows` names the certificate that it has.
    pub fn client(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        protocols: &[&str],
        shows: Option<&str>,
    ) -> Arc<ClientConfig> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions);
        let builder = builder.expect("versions").with_root_certificates(self.roots());
        let mut config = match shows {
            None => builder.with_no_client_auth(),
            Some(file) => {
                let (chain, key) = self.identity(file);
                builder.with_client_auth_cert(chain, key).expect("an identity")
            }
        };
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

/// Shakes hands, to the end.
pub fn connect(address: SocketAddr, config: &Arc<ClientConfig>) -> io::Result<Secure> {
    let name = ServerName::try_from(NAME).map_err(io::Error::other)?;
    let mut connection = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(std::time::Duration::from_secs(20)))?;
    while connection.is_handshaking() {
        connection.complete_io(&mut stream)?;
    }
    Ok(Line::over(StreamOwned::new(connection, stream)))
}

/// TLS before `behind`, on an address of its own, for as long as the runtime lives.
pub fn terminate(runtime: &Runtime, behind: SocketAddr, config: Arc<ServerConfig>) -> SocketAddr {
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a listener");
    let address = listener.local_addr().expect("its address");
    let acceptor = TlsAcceptor::from(config);
    runtime.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            connections.spawn(async move {
                // Whoever fails here is told by TLS; the test looks at what is said of it on the other side.
                let mut secure = acceptor.accept(stream).await?;
                let mut plain = tokio::net::TcpStream::connect(behind).await?;
                copy_bidirectional(&mut secure, &mut plain).await
            });
        }
    });
    address
}
