//! What the headers of a request and of its answer become on the other side.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header, uri::Authority};

use crate::{edges::fleet::Scheme, words::reason::Reason};

/// What forwarding needs to know of the client's side.
#[derive(Clone, Debug)]
pub struct Origin<'a> {
    /// The address at the other end of the connection, or in its PROXY header, as text.
    pub peer: &'a HeaderValue,
    /// Whether the peer is a configured trusted proxy.
    pub trusted: bool,
    /// The scheme that the client used, as far as we can tell; a trusted proxy's word comes first.
    pub scheme: Scheme,
    /// `X-Request-ID` that goes up.
    pub request_id: &'a HeaderValue,
}

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
/// Known to core, registry and clients alike.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const CSRF_TOKEN: HeaderName = HeaderName::from_static("x-harbor-csrf-token");

/// Hop by hop (RFC 9110, 7.6.1), and `Expect`, which makes core answer nonsense (U6): we answer it ourselves.
fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authorization"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "expect"
    )
}

/// End-to-end names that a `Connection` header must not take away (GHSA-w9mr-28mw-j8hg).
fn end_to_end(name: &HeaderName) -> bool {
    *name == header::AUTHORIZATION
        || *name == header::COOKIE
        || *name == header::HOST
        || *name == header::CONTENT_LENGTH
        || *name == header::CONTENT_TYPE
        || *name == header::CONTENT_RANGE
        || *name == header::RANGE
        || *name == header::IF_RANGE
        || *name == header::ACCEPT
        || *name == REQUEST_ID
        || *name == CSRF_TOKEN
        || name.as_str().starts_with("x-forwarded")
}

/// Names by which a proxy tells who a client is; from anybody else they are a lie, however they are spelled.
fn claims_identity(name: &str) -> bool {
    if name.bytes().any(|b| b == b'_' || b == b'.') {
        return claims_identity(&name.replace(['_', '.'], "-"));
    }
    match name {
        "forwarded"
        | "x-real-ip"
        | "x-client-ip"
        | "true-client-ip"
        | "x-cluster-client-ip"
        | "cf-connecting-ip"
        | "fastly-client-ip"
        | "x-remote-user"
        | "x-remote-addr"
        | "remote-user"
        | "x-webauth-user"
        | "x-original-url"
        | "x-rewrite-url"
        | "x-original-host"
        | "x-host"
        | "x-http-method-override"
        | "x-scheme"
        | "front-end-https" => true,
        other => other.starts_with("x-forwarded") || other.starts_with("x-auth-request-"),
    }
}

/// The host that a request is for: HTTP/2's `:authority` or HTTP/1's target and `Host`, which must be one and
/// the same. The header is left as the client wrote it, or made of the authority.
pub fn settle_host(uri: &Uri, headers: &mut HeaderMap) -> Result<(), Reason> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (_, Some(_)) => return Err(Reason::Host),
        (host, None) => host,
    };
    match (uri.authority(), host) {
        (None, None) => Err(Reason::Host),
        (None, Some(host)) => readable_host(host).then_some(()).ok_or(Reason::Host),
        (Some(authority), Some(host)) => same_host(authority, host).then_some(()).ok_or(Reason::Host),
        (Some(authority), None) => {
            let value = HeaderValue::from_str(authority.as_str()).map_err(|_| Reason::Host)?;
            if !readable_host(&value) {
                return Err(Reason::Host);
            }
            headers.insert(header::HOST, value);
            Ok(())
        }
    }
}

fn readable_host(host: &HeaderValue) -> bool {
    let text = host.as_bytes();
    let strange = |b: u8| matches!(b, b'/' | b'\\' | b'@' | b'?' | b'#' | b',' | b'"' | b'<' | b'>');
    !text.is_empty() && text.iter().all(|b| b.is_ascii_graphic() && !strange(*b))
}

fn same_host(authority: &Authority, host: &HeaderValue) -> bool {
    readable_host(host)
        && !authority.as_str().contains('@')
        && authority.as_str().as_bytes().eq_ignore_ascii_case(host.as_bytes())
}

/// Makes a client's headers those that go up.
pub fn prepare(method: &Method, headers: &mut HeaderMap, origin: &Origin<'_>) {
    let expects_body = !matches!(*method, Method::GET | Method::HEAD);
    if !expects_body && headers.get(header::CONTENT_LENGTH).is_some_and(|v| v == "0") {
        headers.remove(header::CONTENT_LENGTH);
    }
    let chain = origin.trusted.then(|| joined(headers, &FORWARDED_FOR)).flatten();
    let host = origin.trusted.then(|| headers.get(FORWARDED_HOST).cloned()).flatten();
    strip(headers, |name| is_hop_by_hop(name) || claims_identity(name));
    let chain = chain.and_then(|before| appended(&before, origin.peer));
    headers.insert(FORWARDED_FOR, chain.unwrap_or_else(|| origin.peer.clone()));
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static(origin.scheme.as_str()));
    if let Some(host) = host {
        headers.insert(FORWARDED_HOST, host);
    }
    headers.insert(REQUEST_ID, origin.request_id.clone());
    join_crumbs(headers);
}

fn appended(before: &str, peer: &HeaderValue) -> Option<HeaderValue> {
    HeaderValue::from_bytes(&[before.as_bytes(), b", ", peer.as_bytes()].concat()).ok()
}

/// All lines of a header as one list (RFC 9110, 5.3); `None` where there is none that can be read.
fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let lines: Vec<&str> = headers.get_all(name).iter().filter_map(|line| line.to_str().ok()).collect();
    (!lines.is_empty()).then(|| lines.join(", "))
}

/// Takes away what `Connection` names, and every header that `goes`.
fn strip(headers: &mut HeaderMap, goes: impl Fn(&str) -> bool) {
    let mut going: Vec<HeaderName> = headers.keys().filter(|name| goes(name.as_str())).cloned().collect();
    if going.contains(&header::CONNECTION) {
        let named = headers.get_all(header::CONNECTION).iter().filter_map(|v| v.to_str().ok());
        let named = named.flat_map(|v| v.split(',')).filter_map(|name| name.trim().parse().ok());
        going.extend(named.filter(|name| !end_to_end(name)));
    }
    for name in going {
        headers.remove(name);
    }
}

/// HTTP/2 may send a cookie in pieces (RFC 9113, 8.2.3); HTTP/1 has one line.
fn join_crumbs(headers: &mut HeaderMap) {
    let crumbs = headers.get_all(header::COOKIE);
    if crumbs.iter().nth(1).is_none() {
        return;
    }
    let joined: Vec<&[u8]> = crumbs.iter().map(HeaderValue::as_bytes).collect();
    let joined = HeaderValue::from_bytes(&joined.join(&b"; "[..]));
    if let Ok(value) = joined {
        headers.insert(header::COOKIE, value);
    }
}

/// No cookie goes up where command-line clients speak (A1, C12).
pub fn drop_cookies(headers: &mut HeaderMap) {
    headers.remove(header::COOKIE);
}

/// Makes an answer's headers those that go down. `for_clients`: no session and no CSRF token of the
/// browser's kind comes down where command-line clients speak (A1).
pub fn settle_answer(headers: &mut HeaderMap, for_clients: bool) {
    strip(headers, |name| {
        is_hop_by_hop(name) || (for_clients && (name == "set-cookie" || name == CSRF_TOKEN.as_str()))
    });
}

/// `X-Real-IP` as Harbor's nginx sends it (F2): the rightmost hop that is no trusted proxy of ours.
pub fn set_real_ip(headers: &mut HeaderMap, client: &HeaderValue) {
    headers.insert(REAL_IP, client.clone());
}

/// The client behind trusted proxies: the rightmost hop of `X-Forwarded-For` that `trusts` denies.
pub fn client_of(headers: &HeaderMap, peer: IpAddr, trusts: impl Fn(IpAddr) -> bool) -> IpAddr {
    if !trusts(peer) {
        return peer;
    }
    let hops =
        headers.get_all(FORWARDED_FOR).iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(','));
    let mut client = peer;
    for hop in hops.collect::<Vec<_>>().into_iter().rev() {
        let Some(address) = address_of(hop.trim()) else { break };
        client = address;
        if !trusts(address) {
            break;
        }
    }
    client
}

/// The address of a hop, which some proxies write with its port and IPv6 in brackets.
fn address_of(hop: &str) -> Option<IpAddr> {
    let bracketed = || hop.strip_prefix('[')?.strip_suffix(']')?.parse().ok().map(IpAddr::V6);
    let with_port = || hop.parse::<SocketAddr>().ok().map(|address| address.ip());
    Some(hop.parse().ok().or_else(bracketed).or_else(with_port)?.to_canonical())
}

/// The scheme that a trusted proxy says its client used.
pub fn proxied_scheme(headers: &HeaderMap) -> Option<Scheme> {
    let text = headers.get(FORWARDED_PROTO)?.to_str().ok()?;
    let first = text.split(',').next()?.trim();
    match first {
        "https" => Some(Scheme::Https),
        "http" => Some(Scheme::Http),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers
    }

    fn prepared(pairs: &[(&'static str, &'static str)], trusted: bool) -> HeaderMap {
        let mut headers = map(pairs);
        let id = HeaderValue::from_static("id-1");
        let peer = HeaderValue::from_static("10.0.0.9");
        let origin = Origin { peer: &peer, trusted, scheme: Scheme::Https, request_id: &id };
        prepare(&Method::PATCH, &mut headers, &origin);
        headers
    }

    #[test]
    fn connection_takes_away_hop_names_only() {
        let headers = prepared(
            &[
                ("connection", "authorization, x-forwarded-for, x-own, cookie"),
                ("authorization", "Bearer x"),
                ("cookie", "a=b"),
                ("x-own", "1"),
                ("te", "trailers"),
                ("expect", "100-continue"),
                ("upgrade", "h2c"),
            ],
            false,
        );
        assert_eq!(headers["authorization"], "Bearer x");
        assert_eq!(headers["cookie"], "a=b");
        assert_eq!(headers["x-forwarded-for"], "10.0.0.9");
        for gone in ["x-own", "te", "expect", "upgrade", "connection"] {
            assert!(!headers.contains_key(gone), "{gone}");
        }
    }

    #[test]
    fn identities_from_strangers_are_dropped() {
        let lies = [
            ("x-forwarded-for", "1.2.3.4"),
            ("x_forwarded_for", "1.2.3.4"),
            ("x.forwarded.for", "1.2.3.4"),
            ("x-forwarded-host", "evil"),
            ("x-forwarded-proto", "http"),
            ("forwarded", "for=1.2.3.4"),
            ("x-real-ip", "1.2.3.4"),
            ("x-remote-user", "admin"),
            ("x-original-url", "/admin"),
        ];
        let headers = prepared(&lies, false);
        assert_eq!(headers["x-forwarded-for"], "10.0.0.9");
        assert_eq!(headers["x-forwarded-proto"], "https");
        assert_eq!(headers.len(), 3, "{headers:?}");
        let headers = prepared(&lies[..4], true);
        assert_eq!(headers["x-forwarded-for"], "1.2.3.4, 10.0.0.9");
        assert_eq!(headers["x-forwarded-host"], "evil");
    }

    #[test]
    fn the_rightmost_hop_that_is_not_ours_is_the_client() {
        let ours = |ip: IpAddr| ip == IpAddr::from([10, 0, 0, 9]) || ip == IpAddr::from([10, 0, 0, 8]);
        let headers = map(&[("x-forwarded-for", "6.6.6.6, 7.7.7.7, 10.0.0.8")]);
        let client = |peer| client_of(&headers, peer, ours).to_string();
        assert_eq!(client(IpAddr::from([10, 0, 0, 9])), "7.7.7.7");
        assert_eq!(client(IpAddr::from([9, 9, 9, 9])), "9.9.9.9");
    }

    #[test]
    fn a_hop_is_read_however_a_proxy_writes_it() {
        let peer = IpAddr::from([10, 0, 0, 9]);
        for (hop, want) in [
            ("203.0.113.5:52812", "203.0.113.5"),
            ("::ffff:203.0.113.5", "203.0.113.5"),
            ("[::ffff:203.0.113.5]:1", "203.0.113.5"),
            ("2001:db8::5", "2001:db8::5"),
            ("[2001:db8::5]", "2001:db8::5"),
            ("[2001:db8::5]:443", "2001:db8::5"),
            ("unknown", "10.0.0.9"),
            ("[203.0.113.5]", "10.0.0.9"),
            ("", "10.0.0.9"),
        ] {
            let mut headers = HeaderMap::new();
            headers.append(FORWARDED_FOR, HeaderValue::from_static(hop));
            assert_eq!(client_of(&headers, peer, |ip| ip == peer).to_string(), want, "{hop}");
        }
    }

    #[test]
    fn a_host_is_one_or_none() {
        let settle = |uri: &'static str, hosts: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for host in hosts {
                headers.append(header::HOST, HeaderValue::from_static(host));
            }
            settle_host(&Uri::from_static(uri), &mut headers).map(|()| headers[header::HOST].clone())
        };
        assert_eq!(settle("/v2/", &["h:8080"]).expect("one"), "h:8080");
        assert_eq!(settle("http://H/v2/", &["h"]).expect("the same"), "h");
        assert_eq!(settle("http://h/v2/", &[]).expect("from the authority"), "h");
        for (uri, hosts) in [
            ("/v2/", &[][..]),
            ("/v2/", &["a", "a"]),
            ("/v2/", &[""]),
            ("/v2/", &["a/b"]),
            ("http://a/v2/", &["b"]),
            ("http://u:p@h/v2/", &[]),
            ("http://u:p@h/v2/", &["u:p@h"]),
        ] {
            assert_eq!(settle(uri, hosts), Err(Reason::Host), "{uri} {hosts:?}");
        }
    }

    #[test]
    fn cookie_crumbs_become_one_line() {
        let headers = prepared(&[("cookie", "a=1"), ("cookie", "b=2")], false);
        assert_eq!(headers.get_all("cookie").iter().collect::<Vec<_>>(), ["a=1; b=2"]);
    }
}
