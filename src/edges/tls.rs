//! TLS on both sides: rustls with aws-lc-rs given explicitly, certificates taken anew when their files change,
//! no early data.

mod fault;
mod material;
mod reload;

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use rustls::{
    ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs},
    server::WebPkiClientVerifier,
    version::{TLS12, TLS13},
};
use rustls_pki_types::ServerName;
use tokio::{net::TcpStream, sync::watch};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

pub use self::fault::TlsFault;
use self::{
    material::{Identity, identity, roots},
    reload::{Built, Reloading},
};
use super::alarm::Alarm;
use crate::words::clock::{Clock, UnixTime};

/// The oldest version of TLS that is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Oldest {
    #[default]
    Tls12,
    Tls13,
}

/// What a listener shows and asks for.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// PEM: the certificate and whatever stands between it and its root.
    pub certificate_file: PathBuf,
    pub key_file: PathBuf,
    /// With it, a client without a certificate of this authority gets no connection.
    pub client_ca_file: Option<PathBuf>,
    pub oldest: Oldest,
    /// Whether ALPN offers `h2` before `http/1.1`.
    pub http2: bool,
}

/// How an endpoint is known and what it is shown.
#[derive(Clone, Debug, Default)]
pub struct ClientSettings {
    /// The one authority that counts; without it the platform's.
    pub ca_file: Option<PathBuf>,
    /// A client certificate, PEM with its chain, and its key: both or neither.
    pub certificate_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
    /// The name in SNI and in the certificate, in place of the endpoint's host.
    pub server_name: Option<String>,
}

/// A listener's side.
#[derive(Debug)]
pub struct ServerTls(Reloading<ServerConfig>);

/// The side towards endpoints.
#[derive(Debug)]
pub struct ClientTls {
    config: Reloading<ClientConfig>,
    server_name: Option<ServerName<'static>>,
}

/// The certificate and key as they are now, all faults named.
pub fn server(settings: ServerSettings, now: UnixTime) -> Result<ServerTls, TlsFault> {
    let mut files = vec![settings.certificate_file.clone(), settings.key_file.clone()];
    files.extend(settings.client_ca_file.clone());
    Ok(ServerTls(Reloading::start(files, Box::new(move || server_config(&settings)), now)?))
}

/// The authorities and the client certificate as they are now, all faults named.
pub fn client(settings: ClientSettings, now: UnixTime) -> Result<ClientTls, TlsFault> {
    let ClientSettings { ca_file, certificate_file, key_file, server_name } = settings;
    let server_name = match server_name {
        Some(name) => Some(ServerName::try_from(name.clone()).map_err(|_| TlsFault::ServerName(name))?),
        None => None,
    };
    let pair = match (certificate_file, key_file) {
        (None, None) => None,
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (Some(alone), None) | (None, Some(alone)) => return Err(TlsFault::HalfPair(alone)),
    };
    let mut files: Vec<_> = ca_file.iter().cloned().collect();
    files.extend(pair.iter().flat_map(|(certificate, key)| [certificate.clone(), key.clone()]));
    let build = move || client_config(ca_file.as_ref(), pair.as_ref());
    Ok(ClientTls { config: Reloading::start(files, Box::new(build), now)?, server_name })
}

impl ServerTls {
    /// The handshake, without a time-out of its own.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<server::TlsStream<TcpStream>> {
        TlsAcceptor::from(self.0.current()).accept(stream).await
    }

    /// Takes changed files; a set that can't be used leaves the running one and raises an alarm.
    pub fn reload(&self, now: UnixTime) {
        self.0.look(now);
    }

    pub fn alarms(&self) -> Arc<Vec<Alarm>> {
        self.0.alarms()
    }

    /// Looks at the files until `stop` is true or its sender is gone.
    pub async fn follow(self: Arc<Self>, clock: Clock, every: Duration, stop: watch::Receiver<bool>) {
        reload::follow(move |now| self.reload(now), clock, every, stop).await;
    }
}

impl ClientTls {
    /// The handshake with the endpoint of this host, without a time-out of its own.
    pub async fn connect(&self, host: &str, stream: TcpStream) -> io::Result<client::TlsStream<TcpStream>> {
        let name = match &self.server_name {
            Some(name) => name.clone(),
            None => ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?,
        };
        TlsConnector::from(self.config.current()).connect(name, stream).await
    }

    /// As [`ServerTls::reload`].
    pub fn reload(&self, now: UnixTime) {
        self.config.look(now);
    }

    pub fn alarms(&self) -> Arc<Vec<Alarm>> {
        self.config.alarms()
    }

    /// As [`ServerTls::follow`], of whatever `present` gives: a reload may bring TLS to a process without.
    pub async fn follow(
        present: impl Fn() -> Option<Arc<Self>> + Send + Sync + 'static,
        clock: Clock,
        every: Duration,
        stop: watch::Receiver<bool>,
    ) {
        let look = move |now| {
            if let Some(client) = present() {
                client.reload(now);
            }
        };
        reload::follow(look, clock, every, stop).await;
    }
}

/// Whether ALPN chose HTTP/2.
pub fn is_http2(stream: &server::TlsStream<TcpStream>) -> bool {
    stream.get_ref().1.alpn_protocol() == Some(b"h2")
}

fn server_config(settings: &ServerSettings) -> Result<Built<ServerConfig>, TlsFault> {
    let Identity { certified, not_before, not_after } =
        identity(&settings.certificate_file, &settings.key_file)?;
    let versions: &[&SupportedProtocolVersion] = match settings.oldest {
        Oldest::Tls12 => &[&TLS13, &TLS12],
        Oldest::Tls13 => &[&TLS13],
    };
    let builder = ServerConfig::builder_with_provider(provider()).with_protocol_versions(versions)?;
    let builder = match &settings.client_ca_file {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(path)?), provider());
            builder
                .with_client_cert_verifier(verifier.build().map_err(|_| TlsFault::NoAuthority(path.clone()))?)
        }
    };
    let resolver = rustls::sign::SingleCertAndKey::from(certified);
    let mut config = builder.with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = if settings.http2 { vec![b"h2".to_vec()] } else { vec![] };
    config.alpn_protocols.push(b"http/1.1".to_vec());
    let validity = Some((settings.certificate_file.clone(), not_before, not_after));
    Ok(Built { config, validity })
}

fn client_config(
    ca_file: Option<&PathBuf>,
    pair: Option<&(PathBuf, PathBuf)>,
) -> Result<Built<ClientConfig>, TlsFault> {
    let builder =
        ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13, &TLS12])?;
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier(ca_file)?);
    let (mut config, validity) = match pair {
        None => (builder.with_no_client_auth(), None),
        Some((certificate, key)) => {
            let Identity { certified, not_before, not_after } = identity(certificate, key)?;
            let resolver = rustls::sign::SingleCertAndKey::from(certified);
            let validity = (certificate.clone(), not_before, not_after);
            (builder.with_client_cert_resolver(Arc::new(resolver)), Some(validity))
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Built { config, validity })
}

/// rustls calls any verifier handed over whole dangerous; both of these are its own, with every check on.
fn verifier(ca_file: Option<&PathBuf>) -> Result<Arc<dyn ServerCertVerifier>, TlsFault> {
    let Some(path) = ca_file else {
        let platform = rustls_platform_verifier::Verifier::new(provider());
        return Ok(Arc::new(platform.map_err(|error| TlsFault::Platform(error.to_string()))?));
    };
    let roots: Arc<RootCertStore> = Arc::new(roots(path)?);
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider()).build();
    Ok(verifier.map_err(|_| TlsFault::NoAuthority(path.clone()))?)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

#[cfg(test)]
mod tests;
