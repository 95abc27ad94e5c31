//! Addresses of the configuration as types.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    str::FromStr,
};

/// `http://name:port` or `https://…`, without user, path, query or fragment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EndpointUrl {
    pub scheme: Scheme,
    pub host: Host,
    /// The scheme's own where the url names none.
    pub port: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    Http,
    Https,
}

/// A DNS name in lower case, or an address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    Name(String),
    Ip(IpAddr),
}

impl Scheme {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// Why a text is no [`EndpointUrl`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    #[error("no http:// or https:// at its beginning")]
    Scheme,
    #[error("a user or password in it")]
    UserInfo,
    #[error("a path, query or fragment after the host")]
    Path,
    #[error("no host that a DNS name or an address could be")]
    Host,
    #[error("a port outside 1 to 65535")]
    Port,
}

impl FromStr for EndpointUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let (scheme, rest) = match text.split_once("://") {
            Some((s, rest)) if s.eq_ignore_ascii_case("http") => (Scheme::Http, rest),
            Some((s, rest)) if s.eq_ignore_ascii_case("https") => (Scheme::Https, rest),
            _ => return Err(UrlError::Scheme),
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains('@') {
            return Err(UrlError::UserInfo);
        }
        if authority.contains(['/', '?', '#']) {
            return Err(UrlError::Path);
        }
        let (host, port) = split_port(authority)?;
        let port = match port {
            None => scheme.default_port(),
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
                digits.parse().ok().filter(|&p| p != 0).ok_or(UrlError::Port)?
            }
            Some(_) => return Err(UrlError::Port),
        };
        Ok(Self { scheme, host: Host::parse(host).ok_or(UrlError::Host)?, port })
    }
}

/// What mends a text that is no [`EndpointUrl`], where that can be guessed.
pub fn url_remedy(text: &str) -> Option<String> {
    let url = |text: &str| text.parse::<EndpointUrl>().ok();
    match text.parse::<EndpointUrl>().err()? {
        UrlError::Scheme if text.contains("://") => None,
        UrlError::Scheme => {
            let root = text.split(['/', '?', '#']).next()?;
            let scheme = if root.ends_with(":443") { "https" } else { "http" };
            Some(format!("did you mean \"{}\"?", url(&format!("{scheme}://{root}"))?))
        }
        UrlError::Path => {
            let (scheme, rest) = text.split_once("://")?;
            let root = url(&format!("{scheme}://{}", rest.split(['/', '?', '#']).next()?))?;
            Some(format!("remove the path: \"{root}\""))
        }
        UrlError::UserInfo => Some("remove user and password".to_owned()),
        UrlError::Host | UrlError::Port => None,
    }
}

/// `[::1]:80` → `[::1]` and `80`; an IPv6 address must stand in brackets (RFC 3986, 3.2.2).
fn split_port(authority: &str) -> Result<(&str, Option<&str>), UrlError> {
    let name_end = match authority.rfind(']') {
        Some(bracket) => bracket + 1,
        None if authority.matches(':').count() > 1 => return Err(UrlError::Host),
        None => authority.find(':').unwrap_or(authority.len()),
    };
    let (host, rest) = authority.split_at(name_end);
    match rest.strip_prefix(':') {
        Some(port) => Ok((host, Some(port))),
        None if rest.is_empty() => Ok((host, None)),
        None => Err(UrlError::Host),
    }
}

impl Host {
    /// A name of DNS (letters, digits, `-`, `_` for compose's names, dots), an IPv4 address or `[IPv6]`.
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(inner) = text.strip_prefix('[') {
            return inner.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(|ip| Self::Ip(ip.into()));
        }
        if let Ok(ip) = text.parse() {
            return (!text.contains(':')).then_some(Self::Ip(ip));
        }
        let letter = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        let label = |l: &str| (1..=63).contains(&l.len()) && l.bytes().all(letter);
        let name = text.strip_suffix('.').unwrap_or(text);
        // A last label of digits alone is a mistyped address (RFC 3696, 2), such as 10.0.0.300.
        let numeric = name.rsplit('.').next().is_some_and(|l| l.bytes().all(|b| b.is_ascii_digit()));
        (name.len() <= 253 && !numeric && name.split('.').all(label))
            .then(|| Self::Name(name.to_ascii_lowercase()))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Ip(IpAddr::V4(ip)) => ip.fmt(f),
            Self::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
        }
    }
}

/// As it was written, the scheme's own port left out.
impl fmt::Display for EndpointUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.as_str(), self.host)?;
        if self.port == self.scheme.default_port() { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

/// `https://name:port/path`, without user, query or fragment. `http` only of a loopback address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct JwksUrl {
    pub endpoint: EndpointUrl,
    /// Begins with a slash.
    pub path: String,
}

impl FromStr for JwksUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let after_scheme = text.find("://").map_or(0, |at| at + 3);
        let slash = text.get(after_scheme..).and_then(|rest| rest.find('/')).map(|at| after_scheme + at);
        let (root, path) = slash.map_or((text, "/"), |at| text.split_at(at));
        let endpoint: EndpointUrl = root.parse()?;
        let fits = |b: u8| b.is_ascii_graphic() && !matches!(b, b'?' | b'#' | b'"' | b'\\' | b'<' | b'>');
        if !path.bytes().all(fits) {
            return Err(UrlError::Path);
        }
        let is_here = matches!(endpoint.host, Host::Ip(ip) if ip.is_loopback());
        if endpoint.scheme == Scheme::Http && !is_here {
            return Err(UrlError::Scheme);
        }
        Ok(Self { endpoint, path: path.to_owned() })
    }
}

impl fmt::Display for JwksUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.endpoint, self.path)
    }
}

/// Where the admin listener listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminAddress {
    Tcp(SocketAddr),
    /// A socket of mode 0600.
    Unix(PathBuf),
}

/// `address:port`, or `:port` for all addresses of both families.
pub fn parse_socket(text: &str) -> Option<SocketAddr> {
    match text.strip_prefix(':') {
        Some(port) => port.parse().ok().map(|port| SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))),
        None => text.parse().ok(),
    }
}

/// [`parse_socket`], or `unix:/path` with an absolute path.
pub fn parse_admin(text: &str) -> Option<AdminAddress> {
    match text.strip_prefix("unix:") {
        Some(path) => path.starts_with('/').then(|| AdminAddress::Unix(path.into())),
        None => parse_socket(text).map(AdminAddress::Tcp),
    }
}

impl fmt::Display for AdminAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_come_back_as_they_were_written() {
        for url in ["http://core:8080", "https://harbor.example", "http://[::1]:8080", "http://10.0.0.1"] {
            assert_eq!(url.parse::<EndpointUrl>().map(|u| u.to_string()).as_deref(), Ok(url));
        }
        let tidy = "HTTP://Core.:80/".parse::<EndpointUrl>().map(|u| u.to_string());
        assert_eq!(tidy.as_deref(), Ok("http://core"));
    }

    #[test]
    fn what_is_no_endpoint_says_why() {
        use UrlError::{Host, Path, Port, Scheme, UserInfo};
        for (url, why) in [
            ("core:8080", Scheme),
            ("ftp://core", Scheme),
            ("http://admin:x@core", UserInfo),
            ("http://core/v2", Path),
            ("http://core?x", Path),
            ("http://", Host),
            ("http://a b", Host),
            ("http://10.0.0.300", Host),
            ("http://[::1", Host),
            ("http://::1", Host),
            ("http://core:0", Port),
            ("http://core:99999", Port),
            ("http://core:+80", Port),
        ] {
            assert_eq!(url.parse::<EndpointUrl>(), Err(why), "{url}");
        }
    }

    #[test]
    fn a_jwks_is_fetched_by_https_or_from_this_machine_alone() {
        for url in
            ["https://keys.example/a/jwks.json", "https://keys.example:8443/", "http://127.0.0.1:8080/k"]
        {
            assert_eq!(url.parse::<JwksUrl>().map(|u| u.to_string()).as_deref(), Ok(url));
        }
        for (url, why) in [
            ("http://keys.example/jwks.json", UrlError::Scheme),
            ("ftp://keys.example/jwks.json", UrlError::Scheme),
            ("https://keys.example/jwks.json?token=x", UrlError::Path),
            ("https://keys.example/a b", UrlError::Path),
            ("https://user:x@keys.example/", UrlError::UserInfo),
            ("https:///jwks.json", UrlError::Host),
        ] {
            assert_eq!(url.parse::<JwksUrl>(), Err(why), "{url}");
        }
    }

    #[test]
    fn what_was_meant_by_a_url_is_guessed() {
        for (text, remedy) in [
            ("core:8080", Some("did you mean \"http://core:8080\"?")),
            ("core:8080/v2/", Some("did you mean \"http://core:8080\"?")),
            ("harbor.example:443", Some("did you mean \"https://harbor.example\"?")),
            ("https://harbor.example/v2/", Some("remove the path: \"https://harbor.example\"")),
            ("http://core:8080?x", Some("remove the path: \"http://core:8080\"")),
            ("http://admin:x@core", Some("remove user and password")),
            ("ftp://core", None),
            ("http://core:0", None),
            ("a b", None),
            ("http://core", None),
        ] {
            assert_eq!(url_remedy(text).as_deref(), remedy, "{text}");
        }
    }

    #[test]
    fn a_port_alone_means_all_addresses() {
        assert_eq!(parse_socket(":8080"), "[::]:8080".parse().ok());
        assert_eq!(parse_socket("localhost:8080"), None);
        assert_eq!(parse_admin("unix:admin.sock"), None);
        assert_eq!(parse_admin("unix:/run/a.sock"), Some(AdminAddress::Unix("/run/a.sock".into())));
    }
}
