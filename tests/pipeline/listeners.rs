//! TLS and the PROXY protocol on the way in.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::Arc,
    time::Duration,
};

use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, ServerName};

use crate::{
    core::{Harbor, key},
    support::{gate::Gate, ports, waiting},
};

type Stream = StreamOwned<ClientConnection, TcpStream>;

fn connect(
    address: std::net::SocketAddr,
    before: &[u8],
    authority: &CertificateDer<'static>,
) -> std::io::Result<Stream> {
    let mut tcp = TcpStream::connect(address)?;
    tcp.set_read_timeout(Some(Duration::from_secs(20)))?;
    tcp.write_all(before)?;
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone()).expect("an authority");
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("tidegate.test").expect("a name");
    let mut session = ClientConnection::new(Arc::new(config), name).expect("a session");
    session.complete_io(&mut tcp)?;
    Ok(StreamOwned::new(session, tcp))
}

fn ask(stream: &mut Stream) -> String {
    let request = b"GET /v2/ HTTP/1.1\r\nHost: tidegate.test\r\nConnection: close\r\n\r\n";
    stream.write_all(request).expect("the request is sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok();
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn a_tls_listener_behind_a_load_balancer_knows_its_client_and_renews_its_certificate() {
    let harbor = Harbor::start(&key());
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (certificate_file, key_file) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
    let renew = || {
        let made = rcgen::generate_simple_self_signed(vec!["tidegate.test".into()]).expect("a certificate");
        fs::write(&key_file, made.signing_key.serialize_pem()).expect("its key");
        fs::write(&certificate_file, made.cert.pem()).expect("the certificate");
        made.cert.der().clone()
    };
    let first = renew();
    let address = ports::free();
    let gate = Gate::start(&format!(
        "[upstream]\nendpoints = [{{ url = \"http://{}\" }}]\n\n[timeouts]\ndrain_delay = \"0s\"\n\n\
         [[listener]]\naddress = \"{address}\"\nproxy_protocol = true\n\
         trusted_proxies = [\"127.0.0.0/8\"]\ntls = {{ certificate_file = \"{}\", key_file = \"{}\" }}\n",
        harbor.address,
        certificate_file.display(),
        key_file.display()
    ));
    let header = b"PROXY TCP4 203.0.113.7 10.0.0.2 4711 443\r\n";
    let answer = ask(&mut connect(address, header, &first).expect("a handshake"));
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}\n{}", gate.tail());
    gate.wait_for("the request is logged", |_| gate.log().iter().any(|line| line["client"] == "203.0.113.7"));
    assert!(connect(address, b"", &first).is_err(), "the header is required");
    assert!(connect(address, b"PROXY TCP4 203.0.113.7\r\n", &first).is_err());

    let second = renew();
    let renewed = waiting::until(Duration::from_secs(20), || connect(address, header, &second).ok());
    let answer = ask(&mut renewed.unwrap_or_else(|| panic!("no new certificate\n{}", gate.tail())));
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
}
