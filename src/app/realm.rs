//! Whether the realm of Harbor's challenges, where it sends clients for tokens, leads past us. Pure.

use std::net::{IpAddr, SocketAddr};

use super::config::{EndpointUrl, Host, Realm, Settings};

/// What mends it.
pub const REMEDY: &str = "point that name here and set public_url to it; or set public_url to a URL that leads here, \
                          and realm = \"rewrite\"";

/// What is known of where clients reach us.
#[derive(Clone, Debug)]
pub struct Reached {
    rewrites: bool,
    public: Option<EndpointUrl>,
    listens: Vec<SocketAddr>,
    own: Vec<IpAddr>,
}

impl Reached {
    /// `own` are this machine's addresses.
    pub fn new(settings: &Settings, own: Vec<IpAddr>) -> Self {
        Self {
            rewrites: settings.realm == Realm::Rewrite,
            public: settings.public_url.clone(),
            listens: settings.listeners.iter().map(|listener| listener.address).collect(),
            own,
        }
    }

    /// A sentence where clients that follow `realm` may never come to us.
    pub fn passed_by(&self, realm: &str) -> Option<String> {
        let url = root(realm).filter(|url| !self.rewrites && !self.is_ours(url))?;
        Some(format!(
            "Harbor sends clients to {url} for tokens: if that name doesn't lead to tidegate, they go past it"
        ))
    }

    /// A name is ours only where `public_url` says so: where names lead is known to the clients' DNS alone.
    fn is_ours(&self, url: &EndpointUrl) -> bool {
        if let Some(public) = &self.public {
            return (&public.host, public.port) == (&url.host, url.port);
        }
        let ip = match &url.host {
            Host::Ip(ip) => Some(*ip),
            Host::Name(_) => None,
        };
        let loops = ip.map_or_else(|| url.host == Host::Name("localhost".to_owned()), |ip| ip.is_loopback());
        self.listens.iter().any(|at| {
            let any = at.ip().is_unspecified() && ip.is_some_and(|ip| self.own.contains(&ip));
            let looped = loops && (at.ip().is_loopback() || at.ip().is_unspecified());
            at.port() == url.port && (any || looped || ip == Some(at.ip()))
        })
    }
}

/// Scheme, host and port of a URL.
fn root(realm: &str) -> Option<EndpointUrl> {
    let (scheme, rest) = realm.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    format!("{scheme}://{authority}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_realm_that_is_not_known_to_lead_here_is_said() {
        let reached = |public: &str, rewrites| Reached {
            rewrites,
            public: (!public.is_empty()).then(|| public.parse().expect("a URL")),
            listens: vec!["[::]:8080".parse().expect("an address"), "10.0.0.9:443".parse().expect("one")],
            own: vec!["10.0.0.8".parse().expect("an address")],
        };
        let table = [
            ("https://harbor.example/service/token", "", false, Some("https://harbor.example ")),
            ("https://harbor.example/service/token", "https://harbor.example", false, None),
            (
                "http://harbor.example:80/service/token",
                "https://harbor.example",
                false,
                Some("http://harbor.example "),
            ),
            ("https://core/service/token", "https://harbor.example", false, Some("https://core ")),
            ("https://core/service/token", "https://harbor.example", true, None),
            ("http://localhost:8080/service/token", "", false, None),
            ("http://localhost:8081/service/token", "", false, Some("http://localhost:8081 ")),
            ("http://127.0.0.1:8080/service/token", "", false, None),
            ("http://10.0.0.8:8080/service/token", "", false, None),
            ("http://10.0.0.7:8080/service/token", "", false, Some("http://10.0.0.7:8080 ")),
            ("https://10.0.0.9/service/token", "", false, None),
            ("https://localhost/service/token", "", false, Some("https://localhost ")),
            ("/service/token", "", false, None),
        ];
        for (realm, public, rewrites, past) in table {
            let found = reached(public, rewrites).passed_by(realm);
            let as_expected = match past {
                None => found.is_none(),
                Some(words) => found.as_ref().is_some_and(|text| text.contains(words)),
            };
            assert!(as_expected, "{realm} {public}: {found:?}");
        }
    }
}
