//! Who may ask what (rule A28).

use std::net::IpAddr;

use http::{HeaderMap, header, request::Parts, uri::Authority};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::Peer;
use crate::app::config::{self, Host, Material};

/// Why a request isn't answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("Host is none of this listener's names; admin.hosts adds names")]
    Host,
    #[error("Origin is not this listener's")]
    Origin,
    #[error("the token is missing or wrong")]
    Token,
    #[error("no token is configured: set admin.token_file, or a unix: socket as admin.address")]
    NoToken,
    #[error("the token can't be read: see the log")]
    UnreadableToken,
}

/// The names and the token of the listener.
pub(super) struct Guard {
    hosts: Vec<String>,
    token: Option<Material>,
}

impl Guard {
    pub(super) fn new(settings: &config::Admin) -> Self {
        Self { hosts: settings.hosts.clone(), token: settings.token.clone() }
    }

    /// Does the request mean us, and does no other site's page make it? A name that an attacker's DNS leads
    /// here is none of ours; our address of the connection is.
    pub(super) fn names_us(&self, head: &Parts, peer: Peer) -> Result<(), Refusal> {
        let host = one(&head.headers, header::HOST).ok_or(Refusal::Host)?;
        let named: Authority = host.parse().map_err(|_| Refusal::Host)?;
        let in_target = head.uri.authority();
        if !self.is_ours(&named, peer) || in_target.is_some_and(|authority| *authority != named) {
            return Err(Refusal::Host);
        }
        if !head.headers.contains_key(header::ORIGIN) {
            return Ok(());
        }
        let origin = one(&head.headers, header::ORIGIN).and_then(|origin| origin.split_once("://"));
        match origin {
            Some(("http" | "https", authority)) if authority.eq_ignore_ascii_case(host) => Ok(()),
            _ => Err(Refusal::Origin),
        }
    }

    fn is_ours(&self, named: &Authority, peer: Peer) -> bool {
        match Host::parse(named.host()) {
            Some(Host::Ip(ip)) => match peer {
                Peer::Tcp(ours) => {
                    ip == plain(ours.ip()) || self.hosts.iter().any(|host| *host == Host::Ip(ip).to_string())
                }
                Peer::Unix => false,
            },
            Some(Host::Name(name)) => name == "localhost" || self.hosts.contains(&name),
            None => false,
        }
    }

    /// Does the request carry the token? The file is read at each use, so that a change of it counts at once.
    pub(super) async fn may_operate(&self, head: &Parts, peer: Peer) -> Result<(), Refusal> {
        if matches!(peer, Peer::Unix) {
            return Ok(());
        }
        let token = match &self.token {
            None => return Err(Refusal::NoToken),
            Some(Material::Inline(secret)) => Zeroizing::new(secret.expose().to_owned()),
            Some(Material::File(path)) => match tokio::fs::read_to_string(path).await {
                Ok(text) => Zeroizing::new(text),
                Err(error) => {
                    tracing::error!(file = %path.display(), %error, "the admin listener's token can't be read");
                    return Err(Refusal::UnreadableToken);
                }
            },
        };
        let expected = token.trim().as_bytes();
        if expected.is_empty() {
            return Err(Refusal::NoToken);
        }
        let presented = one(&head.headers, header::AUTHORIZATION).and_then(bearer).ok_or(Refusal::Token)?;
        if bool::from(presented.as_bytes().ct_eq(expected)) { Ok(()) } else { Err(Refusal::Token) }
    }
}

/// `::ffff:127.0.0.1`, as a listener for both families sees it, is `127.0.0.1`.
fn plain(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}

/// The value of a header that stands there exactly once.
fn one(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(first)
}

/// RFC 6750, 2.1; the scheme in any case.
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}
