//! Harbor's challenge to a ping without a credential (C1), kept for when no endpoint answers one: there is none, or all
//! of them hang (D4).
//!
//! docker gives a ping 15 s, as it does a token request, and what follows it may wait by itself. The challenge grants
//! nothing: it says where tokens are had, and only to who asked for the same host before.

use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use moka::sync::Cache;

use super::{body::DownBody, respond::challenge, story::Story};
use crate::words::{
    challenge::Challenge,
    reason::{Reason, Rescue},
};

/// Hosts whose challenge is kept.
const HOSTS: u64 = 1_000;
/// Bytes of what a challenge is known by, and of the challenge, at most: a host and a URL.
const LONGEST: usize = 1_024;
/// What core may make its realm of.
const OF_REALM: [&str; 3] = ["host", "x-forwarded-proto", "x-forwarded-host"];

/// The last challenge for each host.
pub struct Pings(Cache<Box<[u8]>, HeaderValue>);

/// A ping without a credential, by all that its challenge may follow.
#[derive(Debug, PartialEq, Eq)]
pub struct Ping(Box<[u8]>);

impl Ping {
    /// `None` where the request is none. `headers` as they go up.
    pub fn of(method: &Method, path: &str, headers: &HeaderMap) -> Option<Self> {
        if path != "/v2/" || *method != Method::GET || headers.contains_key(header::AUTHORIZATION) {
            return None;
        }
        let mut place = Vec::new();
        for name in OF_REALM {
            place.extend_from_slice(headers.get(name).map_or(&[], HeaderValue::as_bytes));
            // In no header's value.
            place.push(b'\n');
        }
        (place.len() <= LONGEST).then(|| Self(place.into()))
    }
}

impl Default for Pings {
    fn default() -> Self {
        Self(Cache::new(HOSTS))
    }
}

impl Pings {
    /// Whether there is an answer to it without an endpoint.
    pub fn know(&self, ping: &Ping) -> bool {
        self.0.contains_key(&ping.0)
    }

    /// Keeps what Harbor answered; where no endpoint did, gives what it answered last.
    pub fn settle(
        &self,
        ping: Ping,
        result: Result<Response<DownBody>, Reason>,
        story: &mut Story,
    ) -> Result<Response<DownBody>, Reason> {
        match result {
            Ok(response) => {
                self.keep(ping, response.status(), response.headers());
                Ok(response)
            }
            Err(reason @ (Reason::NoEndpoint | Reason::Outage)) => {
                let known = self.0.get(&ping.0).ok_or(reason)?;
                story.rescued(Rescue::Grace);
                Ok(challenge(known))
            }
            Err(reason) => Err(reason),
        }
    }

    fn keep(&self, ping: Ping, status: StatusCode, headers: &HeaderMap) {
        let Some(value) = headers.get(header::WWW_AUTHENTICATE) else { return };
        let bearer = matches!(Challenge::of(value), Challenge::Bearer { .. });
        let kept = status == StatusCode::UNAUTHORIZED && bearer && value.len() <= LONGEST;
        if kept && self.0.get(&ping.0).as_ref() != Some(value) {
            // A copy: what is kept holds no part of what was read from a connection.
            let copied = HeaderValue::from_bytes(value.as_bytes()).unwrap_or_else(|_| value.clone());
            self.0.insert(ping.0, copied);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ping(host: &'static str, proto: &'static str) -> Ping {
        let headers = [("host", host), ("x-forwarded-proto", proto)];
        let headers = headers
            .map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value)));
        Ping::of(&Method::GET, "/v2/", &headers.into_iter().collect()).expect("a ping")
    }

    #[test]
    fn a_ping_is_a_get_of_v2_with_no_credential() {
        let bare = HeaderMap::new();
        let basic = HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_static("Basic eA=="))]);
        let host = HeaderValue::from_str(&"h".repeat(LONGEST)).expect("a value");
        let long = HeaderMap::from_iter([(header::HOST, host)]);
        let is = |method, path, headers| Ping::of(&method, path, headers).is_some();
        assert!(is(Method::GET, "/v2/", &bare));
        assert!(!is(Method::HEAD, "/v2/", &bare) && !is(Method::GET, "/v2", &bare));
        assert!(!is(Method::GET, "/v2/p/r/tags/list", &bare));
        assert!(!is(Method::GET, "/v2/", &basic) && !is(Method::GET, "/v2/", &long));
    }

    #[test]
    fn only_a_bearer_challenge_is_kept_and_only_for_its_host_and_scheme() {
        let pings = Pings::default();
        let bearer = "Bearer realm=\"http://h/service/token\",service=\"harbor-registry\"";
        for (status, value) in [(200, bearer), (401, "Basic realm=\"harbor\""), (401, "")] {
            let headers = HeaderMap::from_iter([(header::WWW_AUTHENTICATE, HeaderValue::from_static(value))]);
            pings.keep(ping("h", "http"), StatusCode::from_u16(status).expect("a status"), &headers);
            assert!(!pings.know(&ping("h", "http")), "{status} {value}");
        }
        let headers = HeaderMap::from_iter([(header::WWW_AUTHENTICATE, HeaderValue::from_static(bearer))]);
        pings.keep(ping("h", "http"), StatusCode::UNAUTHORIZED, &headers);
        assert!(pings.know(&ping("h", "http")));
        assert!(!pings.know(&ping("other", "http")) && !pings.know(&ping("h", "https")));
    }
}
