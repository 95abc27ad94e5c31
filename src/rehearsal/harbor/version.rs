//! What differs between the versions of Harbor that the stand-in plays.

use std::{fmt, time::Duration};

/// A version of Harbor core that was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// 2.8.4: Notary still there, `*` among an administrator's actions.
    V2_8_4,
    /// 2.10.2: as 2.8.4 for tokens, without Notary.
    V2_10_2,
    /// 2.15.2: 60 s of leeway, the realm follows `Host`, tokens older than their project are refused.
    V2_15_2,
}

impl Version {
    /// All of them, oldest first.
    pub const ALL: [Self; 3] = [Self::V2_8_4, Self::V2_10_2, Self::V2_15_2];

    /// The version that a text names, as `2.10.2` or `v2.10.2`.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.strip_prefix('v').unwrap_or(text);
        Self::ALL.into_iter().find(|version| version.number() == text)
    }

    /// The bare number, as `2.10.2`.
    pub fn number(self) -> &'static str {
        match self {
            Self::V2_8_4 => "2.8.4",
            Self::V2_10_2 => "2.10.2",
            Self::V2_15_2 => "2.15.2",
        }
    }

    /// V2, V6: up to 2.10 `iss` is checked and `iat` may be absent; later the other way round.
    pub fn checks_issuer(self) -> bool {
        self < Self::V2_15_2
    }

    /// V6.
    pub fn requires_iat(self) -> bool {
        self >= Self::V2_15_2
    }

    /// V7, V8: how far `exp` and `nbf` may be off (golang-jwt 4 knew no leeway).
    pub fn leeway(self) -> Duration {
        if self < Self::V2_15_2 { Duration::ZERO } else { Duration::from_mins(1) }
    }

    /// V8: golang-jwt 4 refuses a token whose `iat` lies ahead.
    pub fn refuses_future_iat(self) -> bool {
        self < Self::V2_15_2
    }

    /// V9: a token may not be older than the project that it is used on (less 60 s).
    pub fn judges_iat_by_project(self) -> bool {
        self >= Self::V2_15_2
    }

    /// T3: up to 2.8 who may pull, push and delete also gets `*`.
    pub fn grants_star(self) -> bool {
        self <= Self::V2_8_4
    }

    /// T10.
    pub fn serves_notary(self) -> bool {
        self <= Self::V2_8_4
    }

    /// K8: with an EC key up to 2.10 the token is an empty string, later the request fails.
    pub fn ec_key_gives_an_empty_token(self) -> bool {
        self < Self::V2_15_2
    }

    /// F1: whether the realm's host is that of the request.
    pub fn realm_follows_host(self) -> bool {
        self >= Self::V2_15_2
    }

    /// S2: the words of a failed CSRF check.
    pub fn csrf_refusal(self) -> &'static str {
        if self < Self::V2_15_2 { "CSRF token invalid" } else { "CSRF token not found in request" }
    }

    /// D3: whether each answer needs the session in Redis.
    pub fn needs_redis(self) -> bool {
        self <= Self::V2_8_4
    }

    /// D1: what a database that refuses says through core, with its address.
    pub fn database_refusal(self) -> &'static str {
        if self < Self::V2_15_2 {
            "failed to connect to `host=127.0.0.1 user=postgres database=registry`: dial error (dial tcp 127.0.0.1:5432: connect: connection refused)"
        } else {
            "failed to connect to `user=postgres database=registry`: 127.0.0.1:5432 (127.0.0.1): dial error: dial tcp 127.0.0.1:5432: connect: connection refused"
        }
    }

    /// F3: whether anonymous callers read `harbor_version` in the system info.
    pub fn tells_its_number_to_anyone(self) -> bool {
        self < Self::V2_15_2
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.number())
    }
}
