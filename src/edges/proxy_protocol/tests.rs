use proptest::prelude::*;
use proxy_header::{ParseConfig, ProxiedAddress, ProxyHeader};
use tokio::{io::AsyncWriteExt as _, net::TcpListener};

use super::*;

const WITHIN: Duration = Duration::from_secs(5);

fn loopback() -> Vec<IpNet> {
    vec!["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()]
}

async fn connection() -> (TcpStream, TcpStream, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (server, peer) = listener.accept().await.unwrap();
    (client, server, peer)
}

/// What comes of these bytes and an end, and what is left to read after the header.
async fn read_of(bytes: &[u8]) -> (Result<Option<SocketAddr>, ProxyFault>, Vec<u8>) {
    let (mut client, mut server, peer) = connection().await;
    // A reader that refuses early may reset the connection under the rest of a write.
    client.write_all(bytes).await.unwrap();
    client.shutdown().await.unwrap();
    let read = read_header(&mut server, peer, &loopback(), WITHIN).await;
    let mut rest = Vec::new();
    server.read_to_end(&mut rest).await.unwrap();
    (read, rest)
}

#[expect(clippy::unnecessary_wraps, reason = "what a read gives")]
fn source(text: &str) -> Result<Option<SocketAddr>, ProxyFault> {
    Ok(Some(text.parse().unwrap()))
}

fn v2(version_and_command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let length = u16::try_from(block.len()).unwrap().to_be_bytes();
    [SIGNATURE, &[version_and_command, family][..], &length, block].concat()
}

/// A version 1 line of so many bytes.
fn unknown_of(bytes: usize) -> Vec<u8> {
    [&b"PROXY UNKNOWN "[..], &vec![b'x'; bytes - 16], b"\r\n"].concat()
}

/// 10.0.0.1:1 to 10.0.0.2:443.
const V4: [u8; 12] = [10, 0, 0, 1, 10, 0, 0, 2, 0, 1, 1, 187];

fn v6() -> [u8; 36] {
    let mut block = [0; 36];
    block[..16].copy_from_slice(&"2001:db8::7".parse::<Ipv6Addr>().unwrap().octets());
    block[16..32].copy_from_slice(&Ipv6Addr::LOCALHOST.octets());
    block[32..].copy_from_slice(&[0xff, 0xff, 1, 187]);
    block
}

fn with_tlvs(block: &[u8], bytes: usize) -> Vec<u8> {
    [block, &vec![0xee; bytes]].concat()
}

#[tokio::test]
async fn headers_say_the_client_and_leave_what_follows() {
    let rows: Vec<(Vec<u8>, _)> = vec![
        (b"PROXY TCP4 10.0.0.1 10.0.0.2 1 443\r\n".into(), source("10.0.0.1:1")),
        (b"PROXY TCP4 10.0.0.1 10.0.0.2 0 65535\r\n".into(), source("10.0.0.1:0")),
        (b"PROXY TCP6 2001:db8::7 ::1 65535 443\r\n".into(), source("[2001:db8::7]:65535")),
        (b"PROXY TCP6 ::ffff:10.0.0.1 ::1 1 443\r\n".into(), source("10.0.0.1:1")),
        (b"PROXY UNKNOWN\r\n".into(), Ok(None)),
        (b"PROXY UNKNOWN whatever it says\r\n".into(), Ok(None)),
        (unknown_of(LONGEST_LINE), Ok(None)),
        (v2(0x21, 0x11, &V4), source("10.0.0.1:1")),
        (v2(0x21, 0x21, &v6()), source("[2001:db8::7]:65535")),
        (v2(0x21, 0x11, &with_tlvs(&V4, 1000)), source("10.0.0.1:1")),
        (v2(0x20, 0x00, &[]), Ok(None)),
        (v2(0x20, 0x11, &V4), Ok(None)),
        (v2(0x21, 0x00, &[]), Ok(None)),
        (v2(0x21, 0x31, &[0; 216]), Ok(None)),
    ];
    for (header, expected) in rows {
        for rest in [&b""[..], b"\x16\x03\x01 hello", b"GET / HTTP/1.1\r\n\r\n", b"PROXY UNKNOWN\r\n"] {
            let bytes = [&header, rest].concat();
            assert_eq!(read_of(&bytes).await, (expected, rest.to_vec()), "{}", bytes.escape_ascii());
        }
    }
}

#[tokio::test]
async fn what_is_no_header_is_a_fault() {
    let long = [&b"PROXY TCP4 "[..], &[b'1'; 200], b"\r\n"].concat();
    let rows: Vec<(Vec<u8>, ProxyFault)> = vec![
        (b"GET /v2/ HTTP/1.1\r\n\r\n".into(), ProxyFault::Absent),
        (b"proxy TCP4 10.0.0.1 10.0.0.2 1 443\r\n".into(), ProxyFault::Absent),
        (b"PROXY\tTCP4 10.0.0.1 10.0.0.2 1 443\r\n".into(), ProxyFault::Absent),
        (b"PROXY TCP4 10.0.0.1 10.0.0.2 1 443\n".into(), ProxyFault::Malformed),
        (b"PROXY TCP4  10.0.0.1 10.0.0.2 1 443\r\n".into(), ProxyFault::Malformed),
        (b"PROXY TCP4 10.0.0.1 10.0.0.2 1 443 \r\n".into(), ProxyFault::Malformed),
        (b"PROXY TCP4 10.0.0.1 10.0.0.2 +1 443\r\n".into(), ProxyFault::Malformed),
        (b"PROXY TCP4 10.0.0.1 10.0.0.2 01 443\r\n".into(), ProxyFault::Malformed),
        (b"PROXY TCP4 10.0.0.1 10.0.0.2 1 65536\r\n".into(), ProxyFault::Malformed),
        (b"PROXY TCP4 10.0.0.01 10.0.0.2 1 443\r\n".into(), ProxyFault::Malformed),
        (b"PROXY TCP4 2001:db8::7 ::1 1 443\r\n".into(), ProxyFault::Malformed),
        (b"PROXY TCP5 10.0.0.1 10.0.0.2 1 443\r\n".into(), ProxyFault::Malformed),
        (b"PROXY TCP4 10.0.0.1 10.0.0.2 1\r\n".into(), ProxyFault::Malformed),
        (b"PROXY UNKNOWNX\r\n".into(), ProxyFault::Malformed),
        (b"PROXY \xff\xff\xff\xff\xff\xff\xff\r\n".into(), ProxyFault::Malformed),
        (long, ProxyFault::Oversized),
        (unknown_of(LONGEST_LINE + 1), ProxyFault::Oversized),
        (b"PROXY TCP4 10.0.0.1 10.0".into(), ProxyFault::Truncated),
        (b"PROXY".into(), ProxyFault::Truncated),
        (vec![], ProxyFault::Truncated),
        (SIGNATURE.to_vec(), ProxyFault::Truncated),
        (v2(0x21, 0x11, &V4)[..20].into(), ProxyFault::Truncated),
        (v2(0x21, 0x11, &V4[..11]), ProxyFault::Malformed),
        (v2(0x21, 0x21, &v6()[..35]), ProxyFault::Malformed),
        (v2(0x21, 0x12, &V4), ProxyFault::Malformed),
        (v2(0x21, 0x41, &V4), ProxyFault::Malformed),
        (v2(0x22, 0x11, &V4), ProxyFault::Malformed),
        (v2(0x11, 0x11, &V4), ProxyFault::Malformed),
        (v2(0x21, 0x11, &with_tlvs(&V4, LONGEST_BLOCK)), ProxyFault::Oversized),
    ];
    for (bytes, fault) in rows {
        assert_eq!(read_of(&bytes).await.0, Err(fault), "{}", bytes.escape_ascii());
    }
}

#[tokio::test]
async fn an_unlisted_peer_is_refused_before_a_byte_is_read() {
    let (mut client, mut server, peer) = connection().await;
    client.write_all(b"PROXY UNKNOWN\r\n").await.unwrap();
    let elsewhere = ["10.0.0.0/8".parse().unwrap()];
    for trusted in [&[][..], &elsewhere] {
        let read = read_header(&mut server, peer, trusted, WITHIN).await;
        assert_eq!(read, Err(ProxyFault::Unlisted));
    }
    let mapped = SocketAddr::new(Ipv4Addr::LOCALHOST.to_ipv6_mapped().into(), peer.port());
    assert_eq!(read_header(&mut server, mapped, &loopback(), WITHIN).await, Ok(None));
}

#[tokio::test]
async fn a_header_that_drips_is_read_and_one_that_never_ends_times_out() {
    let (mut client, mut server, peer) = connection().await;
    client.set_nodelay(true).unwrap();
    let drip = async {
        for byte in b"PROXY TCP4 10.0.0.1 10.0.0.2 1 443\r\nTLS" {
            client.write_all(&[*byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    let networks = loopback();
    let (read, ()) = tokio::join!(read_header(&mut server, peer, &networks, WITHIN), drip);
    assert_eq!(read, source("10.0.0.1:1"));
    let mut rest = [0; 3];
    server.read_exact(&mut rest).await.unwrap();
    assert_eq!(&rest, b"TLS");
    let silent = read_header(&mut server, peer, &networks, Duration::from_millis(30)).await;
    assert_eq!(silent, Err(ProxyFault::TimedOut));
}

/// The address that our parser finds in a whole header, without a socket.
fn parsed(bytes: &[u8]) -> Option<SocketAddr> {
    if bytes.starts_with(SIGNATURE) && bytes.len() >= 16 {
        let command = bytes[12];
        let length = usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
        let block = bytes.get(16..16 + length)?;
        return (command == 0x21).then(|| addresses(bytes[13], block).ok())??;
    }
    let end = bytes.iter().position(|b| *b == b'\n')?;
    line(&bytes[..=end]).ok()?
}

fn any_address() -> impl Strategy<Value = (SocketAddr, SocketAddr)> {
    let v4 = any::<([u8; 4], [u8; 4], u16, u16)>().prop_map(|(a, b, p, q)| ((a, p).into(), (b, q).into()));
    let v6 = any::<([u8; 16], [u8; 16], u16, u16)>().prop_map(|(a, b, p, q)| ((a, p).into(), (b, q).into()));
    prop_oneof![v4, v6]
}

proptest! {
    #[test]
    fn what_another_implementation_writes_is_read_the_same(pair in any_address()) {
        let header = ProxyHeader::with_address(ProxiedAddress::stream(pair.0, pair.1));
        let mut buffer = [0; 256];
        let expected = SocketAddr::new(pair.0.ip().to_canonical(), pair.0.port());
        let length = header.encode_to_slice_v1(&mut buffer).unwrap();
        prop_assert_eq!(parsed(&buffer[..length]), Some(expected));
        let length = header.encode_to_slice_v2(&mut buffer).unwrap();
        prop_assert_eq!(parsed(&buffer[..length]), Some(expected));
    }

    #[test]
    fn what_we_read_another_implementation_reads_the_same(
        start in prop_oneof![
            Just(&b"PROXY TCP4 10.0.0.1 10.0.0.2 "[..]), Just(&b"PROXY TCP6 ::1 ::2 1 "[..]),
            Just(&b"PROXY "[..]), Just(&b"\r\n\r\n\0\r\nQUIT\n\x21"[..]), Just(&b""[..]),
        ],
        rest in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..80),
            proptest::collection::vec(proptest::sample::select(&b"0123456789:. \r\n"[..]), 0..40),
        ],
    ) {
        let bytes = [start, &rest].concat();
        if let Some(ours) = parsed(&bytes) {
            let (theirs, _) = ProxyHeader::parse(&bytes, ParseConfig::default()).unwrap();
            let source = theirs.proxied_address().unwrap().source;
            prop_assert_eq!(ours, SocketAddr::new(source.ip().to_canonical(), source.port()));
        }
    }

    #[test]
    fn any_bytes_end_in_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (read, _) = runtime.block_on(read_of(&bytes));
        prop_assert!(read != Err(ProxyFault::TimedOut));
    }
}
