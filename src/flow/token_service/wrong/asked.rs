//! What an answer past the token service says of the credential that asked.

use std::time::Duration;

use http::{HeaderMap, Method, header};

use crate::words::route;

/// A refusal that took so long comes of a wrong password: core has slept over it.
pub const SLEPT: Duration = Duration::from_millis(1_400);

/// What a Basic past the token service asked for, by what a refusal there means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// `/v2/` itself: whoever is known is served (C7).
    Base,
    /// What else is below `/v2/`: core answers 401 `Basic` also to who is known and may not (C10, C11).
    Registry,
    /// The API: who is known and may not is told so by 403.
    Api,
    /// `users/current`: no CLI secret is accepted there (O2).
    Current,
    /// `users`: where accounts are made, by anybody where Harbor is set so.
    Accounts,
}

impl Asked {
    /// What was asked for, by the registry's endpoint or else by the path.
    pub fn of(registry: Option<route::Kind>, path: &str) -> Self {
        match registry {
            Some(route::Kind::Base) => Self::Base,
            Some(_) => Self::Registry,
            None if path.trim_end_matches('/').ends_with("/users/current") => Self::Current,
            None if path.trim_end_matches('/').ends_with("/users") => Self::Accounts,
            None => Self::Api,
        }
    }

    /// Whether a success shows that the credential was accepted: only what nobody gets without one (A12). A cookie may
    /// have won over it (S4), and whoever likes may make an account.
    pub(super) fn shows_right(self, method: &Method, up: &HeaderMap) -> bool {
        let writes = !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
        match self {
            Self::Base => true,
            Self::Registry => writes,
            Self::Current => !up.contains_key(header::COOKIE),
            Self::Api => writes && !up.contains_key(header::COOKIE),
            Self::Accounts => false,
        }
    }

    /// Whether a 401 shows by itself that the credential is wrong. On `/v2/` the challenge `Basic` tells it from a
    /// project that is not there (C8).
    pub(super) fn shows_wrong(self, basic_challenge: bool, took: Duration) -> bool {
        match self {
            Self::Base => basic_challenge,
            Self::Registry => basic_challenge && took >= SLEPT,
            Self::Api | Self::Accounts => true,
            Self::Current => took >= SLEPT,
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a12_only_what_nobody_gets_without_a_credential_shows_that_it_is_right() {
        let (none, mut cookie) = (HeaderMap::new(), HeaderMap::new());
        cookie.insert(header::COOKIE, HeaderValue::from_static("sid=1"));
        let table = [
            (Asked::Base, Method::GET, &none, true),
            (Asked::Registry, Method::GET, &none, false),
            (Asked::Registry, Method::POST, &none, true),
            (Asked::Api, Method::GET, &none, false),
            (Asked::Api, Method::PUT, &none, true),
            (Asked::Api, Method::PUT, &cookie, false),
            (Asked::Current, Method::GET, &none, true),
            (Asked::Current, Method::GET, &cookie, false),
            (Asked::Accounts, Method::POST, &none, false),
        ];
        for (asked, method, up, want) in table {
            assert_eq!(asked.shows_right(&method, up), want, "{asked:?} {method}");
        }
    }
}
