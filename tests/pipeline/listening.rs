//! How clients reach us: TLS versions, ALPN, HTTP/2, PROXY protocol, IPv6, certificates replaced while we serve.

use crate::{
    stage::{DEV, MANIFEST, Replica, Setup, Stage, pull, told},
    support::{gate::Gate, ports, waiting},
    talk::{Ask, Line},
    tls::{Authority, Secure, connect},
};
use rustls::version::{TLS12, TLS13};
use std::{fs, net::SocketAddr, time::Duration};

/// A gate with one more listener, which has these lines.
fn scene(lines: &str) -> (Stage, Replica, SocketAddr, Gate) {
    let stage = Stage::new();
    let core = stage.replica("core", |_| {});
    core.seed();
    let address = ports::free();
    let gate =
        Setup::before(&[&core], &[]).rest(&format!("[[listener]]\naddress = \"{address}\"\n{lines}")).start();
    (stage, core, address, gate)
}

fn certificate(line: &Secure) -> Vec<u8> {
    line.stream.conn.peer_certificates().expect("a certificate")[0].to_vec()
}

#[test]
fn tls_1_2_and_1_3_are_spoken_and_the_oldest_is_honoured() {
    for (min, old_passes) in [("1.2", true), ("1.3", false)] {
        let authority = Authority::new();
        authority.issue("front");
        let tls = authority.listener("front", &format!(", min = \"{min}\""));
        let (_stage, _core, address, _gate) = scene(&format!("tls = {tls}"));
        let (old, new) = (authority.client(&[&TLS12], &[], None), authority.client(&[&TLS13], &[], None));
        assert_eq!(connect(address, &old).is_ok(), old_passes, "{min}");
        let mut line = connect(address, &new).expect("TLS 1.3");
        assert_eq!(line.ask(&pull(MANIFEST).basic(DEV)).expect("an answer").status, 200);
    }
}

#[test]
fn alpn_chooses_between_http_2_and_http_1_1() {
    let authority = Authority::new();
    authority.issue("front");
    let tls = authority.listener("front", "");
    let (_stage, core, address, _gate) = scene(&format!("http2 = true\ntls = {tls}"));
    for (offered, chosen) in
        [(vec!["h2", "http/1.1"], Some(&b"h2"[..])), (vec!["http/1.1"], Some(b"http/1.1"))]
    {
        let line = connect(address, &authority.client(&[&TLS13], &offered, None)).expect("a handshake");
        assert_eq!(line.stream.conn.alpn_protocol(), chosen);
    }
    let mut line = connect(address, &authority.client(&[&TLS13], &["http/1.1"], None)).expect("a handshake");
    assert_eq!(line.ask(&pull(MANIFEST).basic(DEV)).expect("an answer").status, 200);
    let asked = core.asked();
    assert_eq!(asked.last().and_then(|head| head.header("x-forwarded-proto")), Some("https"));
}

#[test]
fn http_2_by_prior_knowledge_is_served_on_a_plain_address() {
    let (stage, _core, address, _gate) = scene("http2 = true");
    let status = stage.runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(address).await.expect("it listens");
        let io = hyper_util::rt::TokioIo::new(stream);
        let executor = hyper_util::rt::TokioExecutor::new();
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(executor, io).await.expect("a preface");
        let request = http::Request::get(format!("http://harbor.example{MANIFEST}"))
            .body(http_body_util::Empty::<bytes::Bytes>::new())
            .expect("a request");
        tokio::select! {
            answer = sender.send_request(request) => answer.expect("an answer").status(),
            _ = connection => panic!("the connection ended"),
        }
    });
    assert_eq!(status, 401, "the challenge of core");
}

#[test]
fn a_client_certificate_is_asked_for_where_an_authority_is_configured() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    authority.issue("front");
    authority.issue("client");
    stranger.issue("client");
    let ca = format!(", client_ca_file = \"{}\"", authority.path("ca.pem").display());
    let (_stage, _core, address, _gate) = scene(&format!("tls = {}", authority.listener("front", &ca)));
    let ask = |shows| {
        let mut line = connect(address, &authority.client(&[&TLS13], &[], shows)).ok()?;
        line.ask(&Ask::get("/v2/")).ok().map(|answer| answer.status)
    };
    assert_eq!((ask(Some("client")), ask(None)), (Some(401), None));
    fs::copy(stranger.path("client.crt"), authority.path("other.crt")).expect("a copy");
    fs::copy(stranger.path("client.key"), authority.path("other.key")).expect("a copy");
    assert_eq!(ask(Some("other")), None, "another authority's");
}

#[test]
fn replaced_certificates_are_shown_and_broken_ones_keep_the_running_ones() {
    let authority = Authority::new();
    let first = authority.issue("front");
    let (_stage, _core, address, gate) = scene(&format!("tls = {}", authority.listener("front", "")));
    let client = authority.client(&[&TLS13], &[], None);
    let shown = || certificate(&connect(address, &client).expect("a handshake"));
    assert!(shown() == first);
    let second = authority.issue("front");
    waiting::holds("the new certificate is shown", Duration::from_secs(10), || shown() == second);
    let file = authority.path("front.crt");
    fs::write(&file, "-----BEGIN CERTIFICATE-----\nbroken").expect("a file");
    gate.wait_for("the alarm", |metrics| metrics.sum("tidegate_alarms", &[]) > 0.5);
    assert!(!gate.alarms(&file).is_empty(), "{}", gate.tail());
    assert!(shown() == second, "the one before stays");
    let third = authority.issue("front");
    waiting::holds("the mended one is shown", Duration::from_secs(10), || shown() == third);
}

#[test]
fn the_proxy_protocol_tells_the_client() {
    let (_stage, core, address, gate) = scene("proxy_protocol = true\ntrusted_proxies = [\"127.0.0.1/32\"]");
    let mut second = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    second.extend([198, 51, 100, 7, 192, 0, 2, 1, 0x30, 0x39, 0x01, 0xbb]);
    for (header, client) in [
        (b"PROXY TCP4 198.51.100.6 192.0.2.1 12345 443\r\n".to_vec(), "198.51.100.6"),
        (b"PROXY TCP6 2001:db8::1 2001:db8::2 12345 443\r\n".to_vec(), "2001:db8::1"),
        (second, "198.51.100.7"),
    ] {
        let mut line = Line::open(address);
        line.send(&header).expect("a header");
        let answer = line.ask(&pull(MANIFEST).basic(DEV)).expect("an answer");
        assert_eq!((answer.status, &told(&gate, &answer)["client"]), (200, &client.into()));
        let asked = core.asked();
        assert_eq!(asked.last().and_then(|head| head.header("x-real-ip")), Some(client));
    }
    assert!(Line::open(address).ask(&Ask::get("/v2/")).is_err(), "without a header nothing is served");
}

#[test]
fn ipv6_clients_are_served_and_named() {
    let stage = Stage::new();
    let core = stage.replica("core", |_| {});
    let port = ports::free().port();
    let gate = Setup::before(&[&core], &[]).rest(&format!("[[listener]]\naddress = \"[::]:{port}\"")).start();
    for (address, client) in [("[::1]", "::1"), ("127.0.0.1", "127.0.0.1")] {
        let answer = Ask::get("/v2/").at(format!("{address}:{port}").parse().expect("an address"));
        assert_eq!((answer.status, &told(&gate, &answer)["client"]), (401, &client.into()));
    }
}
