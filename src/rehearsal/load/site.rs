//! Where a lane's clients come in, and as whom.

use std::{fmt, net::SocketAddr, sync::Arc};

use zeroize::Zeroizing;

use crate::edges::tls::ClientTls;

/// Scheme, host and port, as a browser compares them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Whether it speaks TLS.
    pub secure: bool,
    /// A name in lower case, an IPv4 address, or an IPv6 one in brackets.
    pub host: String,
    /// The scheme's own where a URL names none.
    pub port: u16,
}

/// A front door.
#[derive(Clone, Debug)]
pub struct Site {
    pub origin: Origin,
    /// Where anything may be reached by https.
    pub tls: Option<Arc<ClientTls>>,
    /// `None` stands for the stand-in's sample accounts. There nothing may lead to another origin: that would be past
    /// the lane.
    pub account: Option<Account>,
}

/// Whose credential is used.
#[derive(Clone)]
pub struct Account {
    pub name: String,
    pub password: Zeroizing<String>,
}

impl Origin {
    /// An address without TLS.
    pub fn plain(address: SocketAddr) -> Self {
        let host = match address {
            SocketAddr::V4(v4) => v4.ip().to_string(),
            SocketAddr::V6(v6) => format!("[{}]", v6.ip()),
        };
        Self { secure: false, host, port: address.port() }
    }

    /// An absolute URL's origin, and its path with the query; `None` for all else.
    pub(super) fn split(url: &str) -> Option<(Self, String)> {
        let uri: http::Uri = url.parse().ok()?;
        let secure = match uri.scheme_str()? {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let origin = Self { secure, host: uri.host()?.to_ascii_lowercase(), port };
        let path = uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string);
        Some((origin, path))
    }

    /// Host and port as clients name a registry: the scheme's own port is left out.
    pub fn authority(&self) -> String {
        let usual = if self.secure { 443 } else { 80 };
        if self.port == usual { self.host.clone() } else { format!("{}:{}", self.host, self.port) }
    }

    /// The host as it is looked up.
    pub(super) fn name(&self) -> &str {
        self.host.trim_matches(['[', ']'])
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.secure { "https" } else { "http" }, self.authority())
    }
}

impl Site {
    /// A front of the rehearsal's own.
    pub fn own(front: SocketAddr) -> Self {
        Self { origin: Origin::plain(front), tls: None, account: None }
    }

    /// Whether what an answer names is followed to another origin, as clients of a real Harbor must.
    pub(super) fn roams(&self) -> bool {
        self.account.is_some()
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account").field("name", &self.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_an_origin_and_a_path() {
        let table = [
            ("http://Harbor.example/service/token", Some(("http://harbor.example", "/service/token"))),
            ("https://h:443/v2/?a=b", Some(("https://h", "/v2/?a=b"))),
            ("http://h:443", Some(("http://h:443", "/"))),
            ("http://[::1]:80/x", Some(("http://[::1]", "/x"))),
            ("/v2/p/r/blobs/uploads/u", None),
            ("ftp://h/x", None),
        ];
        for (url, want) in table {
            let split = Origin::split(url).map(|(origin, path)| (origin.to_string(), path));
            let split = split.as_ref().map(|(origin, path)| (origin.as_str(), path.as_str()));
            assert_eq!(split, want, "{url}");
        }
    }

    #[test]
    fn a_password_is_not_shown() {
        let account = Account { name: "ci".to_owned(), password: Zeroizing::new("hidden".to_owned()) };
        assert!(!format!("{account:?}").contains("hidden"));
    }
}
