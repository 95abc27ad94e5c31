use std::{fs, net::Ipv4Addr, path::Path};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, date_time_ymd,
};
use tempfile::TempDir;
use tokio::net::TcpListener;

use super::*;
use crate::words::file_fault::FileFault;

/// Late enough for every certificate made here but the expired one.
const NOW: UnixTime = UnixTime(1_900_000_000);

/// An authority whose files lie in a folder of their own.
struct Authority {
    folder: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = TempDir::new().unwrap();
        fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { folder, issuer }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn ca(&self) -> PathBuf {
        self.path("ca.pem")
    }

    /// Writes `NAME.crt` and `NAME.key`.
    fn issue(&self, name: &str, host: &str, change: impl FnOnce(&mut CertificateParams)) -> Certificate {
        let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        fs::write(self.path(&format!("{name}.crt")), certificate.pem()).unwrap();
        fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).unwrap();
        certificate
    }

    fn server_settings(&self, name: &str) -> ServerSettings {
        ServerSettings {
            certificate_file: self.path(&format!("{name}.crt")),
            key_file: self.path(&format!("{name}.key")),
            client_ca_file: None,
            oldest: Oldest::Tls12,
            http2: false,
        }
    }

    fn server(&self, name: &str) -> ServerTls {
        server(self.server_settings(name), NOW).unwrap()
    }

    fn client_settings(&self) -> ClientSettings {
        ClientSettings { ca_file: Some(self.ca()), ..ClientSettings::default() }
    }

    fn client(&self) -> ClientTls {
        client(self.client_settings(), NOW).unwrap()
    }
}

type Shaken = (io::Result<server::TlsStream<TcpStream>>, io::Result<client::TlsStream<TcpStream>>);

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let (theirs, ours) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    (ours.unwrap().0, theirs.unwrap())
}

async fn shake(server: &ServerTls, client: &ClientTls, host: &str) -> Shaken {
    let (ours, theirs) = pair().await;
    tokio::join!(server.accept(ours), client.connect(host, theirs))
}

/// A client that is not ours, with the versions and protocols of a test.
async fn shake_as(
    server: &ServerTls,
    ca: &Path,
    versions: &[&'static SupportedProtocolVersion],
    protocols: &[&[u8]],
) -> io::Result<server::TlsStream<TcpStream>> {
    let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(versions).unwrap();
    let mut config = builder.with_root_certificates(roots(ca).unwrap()).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    let (ours, theirs) = pair().await;
    let connector = TlsConnector::from(Arc::new(config));
    let name = ServerName::try_from("core.test").unwrap();
    tokio::join!(server.accept(ours), connector.connect(name, theirs)).0
}

#[tokio::test]
async fn a_handshake_by_a_private_authority_speaks_http_1_1_upstream() {
    let authority = Authority::new();
    let certificate = authority.issue("core", "core.test", |_| {});
    let settings = ServerSettings { http2: true, ..authority.server_settings("core") };
    let server = server(settings, NOW).unwrap();
    let (ours, theirs) = shake(&server, &authority.client(), "core.test").await;
    assert!(!is_http2(&ours.unwrap()));
    let theirs = theirs.unwrap();
    let session = theirs.get_ref().1;
    assert_eq!(session.alpn_protocol(), Some(&b"http/1.1"[..]));
    assert_eq!(session.peer_certificates().unwrap()[0], *certificate.der());
}

#[tokio::test]
async fn alpn_offers_h2_only_where_it_is_on() {
    let authority = Authority::new();
    authority.issue("core", "core.test", |_| {});
    for http2 in [true, false] {
        let settings = ServerSettings { http2, ..authority.server_settings("core") };
        let server = server(settings, NOW).unwrap();
        let both: &[&[u8]] = &[b"h2", b"http/1.1"];
        let stream = shake_as(&server, &authority.ca(), &[&TLS13], both).await.unwrap();
        assert_eq!(is_http2(&stream), http2);
        let without = shake_as(&server, &authority.ca(), &[&TLS13], &[]).await.unwrap();
        assert!(!is_http2(&without));
        assert_eq!(server.0.current().max_early_data_size, 0, "no early data");
    }
}

#[tokio::test]
async fn the_oldest_version_is_the_configured_one() {
    let authority = Authority::new();
    authority.issue("core", "core.test", |_| {});
    for (oldest, version, is_spoken) in [
        (Oldest::Tls12, &TLS12, true),
        (Oldest::Tls12, &TLS13, true),
        (Oldest::Tls13, &TLS12, false),
        (Oldest::Tls13, &TLS13, true),
    ] {
        let settings = ServerSettings { oldest, ..authority.server_settings("core") };
        let server = server(settings, NOW).unwrap();
        let stream = shake_as(&server, &authority.ca(), &[version], &[]).await;
        assert_eq!(stream.is_ok(), is_spoken, "{oldest:?} {version:?}");
    }
}

#[tokio::test]
async fn a_client_authority_asks_for_a_certificate_of_its_own() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    authority.issue("core", "core.test", |_| {});
    authority.issue("client", "client.test", |_| {});
    stranger.issue("client", "client.test", |_| {});
    let settings =
        ServerSettings { client_ca_file: Some(authority.ca()), ..authority.server_settings("core") };
    let server = server(settings, NOW).unwrap();
    for (of, is_let_in) in [(None, false), (Some(&stranger), false), (Some(&authority), true)] {
        let settings = ClientSettings {
            certificate_file: of.map(|of| of.path("client.crt")),
            key_file: of.map(|of| of.path("client.key")),
            ..authority.client_settings()
        };
        let (ours, _theirs) = shake(&server, &client(settings, NOW).unwrap(), "core.test").await;
        assert_eq!(ours.is_ok(), is_let_in);
    }
}

#[tokio::test]
async fn only_the_right_host_authority_and_time_are_trusted() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    authority.issue("core", "core.test", |_| {});
    authority.issue("address", "127.0.0.1", |_| {});
    authority.issue("expired", "core.test", |params| params.not_after = date_time_ymd(2020, 1, 1));
    let core = authority.server("core");
    assert!(shake(&core, &authority.client(), "core.test").await.1.is_ok());
    assert!(shake(&core, &authority.client(), "other.test").await.1.is_err());
    assert!(shake(&core, &authority.client(), "a name with spaces").await.1.is_err());
    assert!(shake(&core, &stranger.client(), "core.test").await.1.is_err());
    assert!(shake(&authority.server("address"), &authority.client(), "127.0.0.1").await.1.is_ok());
    assert!(shake(&authority.server("address"), &authority.client(), "[::1]").await.1.is_err());
    assert!(shake(&authority.server("expired"), &authority.client(), "core.test").await.1.is_err());

    let settings = ClientSettings { server_name: Some("core.test".into()), ..authority.client_settings() };
    let renamed = client(settings, NOW).unwrap();
    assert!(shake(&core, &renamed, "10-0-0-1.pod").await.1.is_ok());
}

#[tokio::test]
async fn without_an_authority_the_platforms_count() {
    let authority = Authority::new();
    authority.issue("core", "core.test", |_| {});
    match client(ClientSettings::default(), NOW) {
        Ok(client) => {
            assert!(shake(&authority.server("core"), &client, "core.test").await.1.is_err());
        }
        Err(fault) => {
            assert!(matches!(fault, TlsFault::Platform(_)), "a machine without authorities: {fault}");
        }
    }
}

#[tokio::test]
async fn changed_files_are_taken_and_bad_ones_leave_the_running_certificate() {
    let authority = Authority::new();
    let first = authority.issue("core", "core.test", |_| {});
    let now = Clock::system().now();
    let server = server(authority.server_settings("core"), now).unwrap();
    let client = authority.client();
    let shown = async || {
        let (_, theirs) = shake(&server, &client, "core.test").await;
        theirs.unwrap().get_ref().1.peer_certificates().unwrap()[0].to_vec()
    };
    assert_eq!(shown().await, first.der().to_vec());

    let key = fs::read(authority.path("core.key")).unwrap();
    let second = authority.issue("core", "core.test", |_| {});
    let next_key = fs::read(authority.path("core.key")).unwrap();
    fs::write(authority.path("core.key"), key).unwrap();
    server.reload(UnixTime(now.0 + 1));
    assert_eq!(shown().await, first.der().to_vec(), "the certificate came before its key");
    let alarm = server.alarms()[0].clone();
    assert_eq!((alarm.since, alarm.is_warning), (UnixTime(now.0 + 1), false));
    assert!(alarm.path.ends_with("core.key") && alarm.cause.contains("doesn't belong"), "{alarm:?}");

    fs::write(authority.path("core.key"), next_key).unwrap();
    server.reload(UnixTime(now.0 + 2));
    assert_eq!(shown().await, second.der().to_vec());
    assert_eq!(*server.alarms(), []);

    fs::write(authority.path("core.crt"), "").unwrap();
    server.reload(UnixTime(now.0 + 3));
    assert_eq!(shown().await, second.der().to_vec());
    assert_eq!(server.alarms()[0].cause, FileFault::Empty.to_string());
}

#[tokio::test]
async fn files_are_followed_until_the_stop() {
    let authority = Authority::new();
    authority.issue("core", "core.test", |_| {});
    let client = Arc::new(client(authority.client_settings(), NOW).unwrap());
    let (stop, stopped) = watch::channel(false);
    let present = Arc::clone(&client);
    let follow =
        ClientTls::follow(move || Some(present.clone()), Clock::system(), Duration::from_millis(5), stopped);
    let other = Authority::new();
    other.issue("core", "core.test", |_| {});
    let server = other.server("core");
    assert!(shake(&server, &client, "core.test").await.1.is_err());
    let change = async {
        fs::write(authority.ca(), other.issuer.pem()).unwrap();
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while shake(&server, &client, "core.test").await.1.is_err() {
            assert!(std::time::Instant::now() < deadline, "the new authority is not trusted");
        }
        stop.send(true).unwrap();
    };
    tokio::join!(follow, change);
}

#[test]
fn an_expired_certificate_is_a_warning_and_in_use() {
    let authority = Authority::new();
    authority.issue("expired", "core.test", |params| params.not_after = date_time_ymd(2020, 1, 1));
    authority.issue("early", "core.test", |params| params.not_before = date_time_ymd(2090, 1, 1));
    for (name, cause) in [("expired", "has expired"), ("early", "not valid yet")] {
        let alarms = authority.server(name).alarms();
        assert!(alarms[0].is_warning && alarms[0].cause.contains(cause), "{alarms:?}");
    }
}

#[test]
fn every_fault_of_a_file_has_its_name() {
    let authority = Authority::new();
    authority.issue("core", "core.test", |_| {});
    authority.issue("other", "core.test", |_| {});
    let (certificate, key) = (authority.path("core.crt"), authority.path("core.key"));
    let write = |name: &str, text: &str| {
        fs::write(authority.path(name), text).unwrap();
        authority.path(name)
    };
    let pem = fs::read_to_string(&certificate).unwrap();
    let rows = [
        (write("empty", ""), TlsFault::File { path: authority.path("empty"), fault: FileFault::Empty }),
        (authority.path("none"), TlsFault::File { path: authority.path("none"), fault: FileFault::Missing }),
        (
            authority.ca().parent().unwrap().into(),
            TlsFault::File { path: authority.ca().parent().unwrap().into(), fault: FileFault::Directory },
        ),
        (write("text", "hello"), TlsFault::NoCertificate(authority.path("text"))),
        (key.clone(), TlsFault::NoCertificate(key.clone())),
        (write("cut", &pem[..pem.len() / 2]), TlsFault::Pem(authority.path("cut"))),
        (
            write("junk", &pem::encode(&pem::Pem::new("CERTIFICATE", b"junk"))),
            TlsFault::BadCertificate(authority.path("junk")),
        ),
    ];
    for (path, fault) in rows {
        let settings = ServerSettings { certificate_file: path, ..authority.server_settings("core") };
        assert_eq!(server(settings, NOW).unwrap_err(), fault);
        assert!(!fault.remedy().is_empty());
    }
    let rows = [
        (certificate.clone(), TlsFault::NoKey(certificate.clone())),
        (
            write("sealed", &pem::encode(&pem::Pem::new("ENCRYPTED PRIVATE KEY", b"x"))),
            TlsFault::Encrypted(authority.path("sealed")),
        ),
        (
            write("odd", &pem::encode(&pem::Pem::new("PRIVATE KEY", b"x"))),
            TlsFault::BadKey(authority.path("odd")),
        ),
        (
            authority.path("other.key"),
            TlsFault::Mismatch { certificate: certificate.clone(), key: authority.path("other.key") },
        ),
    ];
    for (key_file, fault) in rows {
        let settings = ServerSettings { key_file, ..authority.server_settings("core") };
        assert_eq!(server(settings, NOW).unwrap_err(), fault);
    }
    let settings =
        ServerSettings { client_ca_file: Some(write("nothing", "x")), ..authority.server_settings("core") };
    assert_eq!(server(settings, NOW).unwrap_err(), TlsFault::NoCertificate(authority.path("nothing")));
}

#[test]
fn half_a_client_pair_and_a_bad_name_are_refused() {
    let authority = Authority::new();
    let half = ClientSettings { key_file: Some(authority.ca()), ..authority.client_settings() };
    assert_eq!(client(half, NOW).unwrap_err(), TlsFault::HalfPair(authority.ca()));
    let name = ClientSettings { server_name: Some("a b".into()), ..authority.client_settings() };
    assert_eq!(client(name, NOW).unwrap_err(), TlsFault::ServerName("a b".into()));
}
