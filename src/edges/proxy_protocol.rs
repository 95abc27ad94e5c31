//! The PROXY protocol, versions 1 and 2 (haproxy.org, doc/proxy-protocol.txt), before TLS: exactly the header
//! is read, never a byte of what follows it.
//!
//! The parser is our own because the exact reads frame the header anyway, and because `proxy-header` takes
//! what the specification doesn't write: any byte after `PROXY`, ports like `+5`, `UNKNOWNX`. Tests hold
//! ours against it.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use ipnet::IpNet;
use tokio::{io::AsyncReadExt as _, net::TcpStream, time::timeout};

/// Bytes of the longest version 1 line, CRLF included (specification, 2.1).
const LONGEST_LINE: usize = 107;
/// Bytes of the longest version 2 block after its 16 fixed ones: addresses, and as many TLVs as any proxy sends.
const LONGEST_BLOCK: usize = 4096;
/// Bytes that both versions have at least, and by which they are told apart.
const START: usize = 12;
const SIGNATURE: &[u8; START] = b"\r\n\r\n\0\r\nQUIT\n";

/// Why a connection is closed before its first byte was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyFault {
    #[error("the peer is not among the listener's trusted proxies")]
    Unlisted,
    #[error("the header was not there in time")]
    TimedOut,
    #[error("the connection ended within the header")]
    Truncated,
    #[error("the connection doesn't begin with a PROXY header")]
    Absent,
    #[error("the PROXY header is malformed")]
    Malformed,
    #[error("the PROXY header is longer than may be")]
    Oversized,
    #[error("reading failed: {0}")]
    Read(io::ErrorKind),
}

/// Reads the header that a listed peer must send, within `within`. The client's address as that peer says it;
/// `None` where it speaks for itself (LOCAL, UNKNOWN) or for what has no address.
pub async fn read_header(
    stream: &mut TcpStream,
    peer: SocketAddr,
    trusted: &[IpNet],
    within: Duration,
) -> Result<Option<SocketAddr>, ProxyFault> {
    // A listener for both families sees IPv4 peers as mapped addresses.
    let ip = peer.ip().to_canonical();
    if !trusted.iter().any(|network| network.contains(&ip)) {
        return Err(ProxyFault::Unlisted);
    }
    timeout(within, read(stream)).await.unwrap_or(Err(ProxyFault::TimedOut))
}

async fn read(stream: &mut TcpStream) -> Result<Option<SocketAddr>, ProxyFault> {
    let mut start = [0; START];
    stream.read_exact(&mut start).await?;
    if start == *SIGNATURE {
        return read_block(stream).await;
    }
    if start.starts_with(b"PROXY ") {
        return line(&read_line(stream, &start).await?);
    }
    Err(ProxyFault::Absent)
}

/// The rest of a version 1 line. What was peeked without a line feed in it is of the line, so that taking it
/// takes no byte too much, and nothing is peeked twice.
async fn read_line(stream: &mut TcpStream, start: &[u8]) -> Result<Vec<u8>, ProxyFault> {
    let mut line = start.to_vec();
    let mut ahead = [0; LONGEST_LINE];
    while !line.ends_with(b"\n") {
        let room = LONGEST_LINE - line.len();
        if room == 0 {
            return Err(ProxyFault::Oversized);
        }
        let seen = stream.peek(&mut ahead[..room]).await?;
        if seen == 0 {
            return Err(ProxyFault::Truncated);
        }
        let of_line = ahead[..seen].iter().position(|b| *b == b'\n').map_or(seen, |at| at + 1);
        stream.read_exact(&mut ahead[..of_line]).await?;
        line.extend_from_slice(&ahead[..of_line]);
    }
    Ok(line)
}

async fn read_block(stream: &mut TcpStream) -> Result<Option<SocketAddr>, ProxyFault> {
    let mut fixed = [0; 4];
    stream.read_exact(&mut fixed).await?;
    let [version_and_command, family, high, low] = fixed;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if version_and_command >> 4 != 2 {
        return Err(ProxyFault::Malformed);
    }
    if length > LONGEST_BLOCK {
        return Err(ProxyFault::Oversized);
    }
    let mut block = vec![0; length];
    stream.read_exact(&mut block).await?;
    match version_and_command & 0xf {
        0 => Ok(None),
        1 => addresses(family, &block),
        _ => Err(ProxyFault::Malformed),
    }
}

/// Version 1: `PROXY TCP4 SOURCE DESTINATION PORT PORT CRLF`, one space between.
fn line(bytes: &[u8]) -> Result<Option<SocketAddr>, ProxyFault> {
    let text = bytes.strip_suffix(b"\r\n").and_then(|line| std::str::from_utf8(line).ok());
    let fields: Vec<&str> = text.ok_or(ProxyFault::Malformed)?.split(' ').collect();
    let source = match fields[..] {
        // Whatever follows UNKNOWN counts for nothing (2.1).
        ["PROXY", "UNKNOWN", ..] => return Ok(None),
        ["PROXY", "TCP4", from, to, from_port, to_port] => pair::<Ipv4Addr>([from, to, from_port, to_port]),
        ["PROXY", "TCP6", from, to, from_port, to_port] => pair::<Ipv6Addr>([from, to, from_port, to_port]),
        _ => None,
    };
    source.map(Some).ok_or(ProxyFault::Malformed)
}

/// The source, where the destination is sound too.
fn pair<A: std::str::FromStr + Into<IpAddr>>(fields: [&str; 4]) -> Option<SocketAddr> {
    let [from, to, from_port, to_port] = fields;
    let from: A = from.parse().ok()?;
    let _to: A = to.parse().ok()?;
    port(to_port)?;
    Some(SocketAddr::new(from.into().to_canonical(), port(from_port)?))
}

/// Digits without a sign or leading zeros.
fn port(text: &str) -> Option<u16> {
    let is_plain = text == "0" || !text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| is_plain)
}

/// Version 2: the source address of the block (2.2).
fn addresses(family: u8, block: &[u8]) -> Result<Option<SocketAddr>, ProxyFault> {
    let source = match (family >> 4, family & 0xf) {
        // Unspecified families and Unix sockets have no address of a client.
        (0 | 3, 0..=2) => return Ok(None),
        (1, 1) => block.first_chunk::<12>().map(|b| (IpAddr::from([b[0], b[1], b[2], b[3]]), [b[8], b[9]])),
        (2, 1) => block
            .first_chunk::<36>()
            .and_then(|b| Some((IpAddr::from(*b.first_chunk::<16>()?).to_canonical(), [b[32], b[33]]))),
        _ => None,
    };
    let (ip, port) = source.ok_or(ProxyFault::Malformed)?;
    Ok(Some(SocketAddr::new(ip, u16::from_be_bytes(port))))
}

impl From<io::Error> for ProxyFault {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Truncated,
            kind => Self::Read(kind),
        }
    }
}

#[cfg(test)]
mod tests;
