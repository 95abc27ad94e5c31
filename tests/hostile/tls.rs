//! What TLS offers to clients.

use crate::{
    bench::Bench,
    recorder::plain,
    support::{ports, waiting},
};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, crypto::aws_lc_rs, pki_types::ServerName,
};
use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

const SOON: Duration = Duration::from_secs(20);

/// One connection, with a request and its answer, so that tickets have arrived; the kind of its handshake,
/// and whether the server would have taken early data.
fn connect(address: SocketAddr, config: &Arc<ClientConfig>) -> (HandshakeKind, bool) {
    let name = ServerName::try_from("localhost").unwrap();
    let mut connection = ClientConnection::new(config.clone(), name).unwrap();
    let early = connection.early_data().is_some();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut tls = rustls::Stream::new(&mut connection, &mut stream);
    tls.write_all(b"GET /v2/tls HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    let _ = tls.read_to_string(&mut answer);
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    (connection.handshake_kind().expect("a handshake"), early)
}

#[test]
fn tls_early_data_is_not_offered_though_sessions_are_resumed() {
    let (address, folder) = (ports::free(), tempfile::tempdir().unwrap());
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (certificate, key) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let listener = format!(
        "[[listener]]\naddress = \"{address}\"\ntls = {{ certificate_file = \"{}\", key_file = \"{}\" }}\n",
        certificate.display(),
        key.display()
    );
    let bench = Bench::with(&listener, plain());
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.enable_early_data = true;
    let config = Arc::new(config);
    assert_eq!(connect(address, &config).0, HandshakeKind::Full);
    // While the certificate's files are fresh they are read anew, and what was begun with them is forgotten.
    waiting::holds("a session is resumed, so that a ticket could carry early data", SOON, || {
        let (kind, early) = connect(address, &config);
        assert!(!early, "no ticket allows it");
        kind == HandshakeKind::Resumed
    });
    for _ in 0..3 {
        assert!(!connect(address, &config).1);
    }
    bench.serves_others();
}
