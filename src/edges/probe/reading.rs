//! What an answer to a probe says. Pure.

use std::time::Duration;

use http::StatusCode;

use crate::{
    decisions::token::claims,
    words::{clock::UnixTime, kid::Kid},
};

/// What a key probe found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// The endpoint signs with this key.
    Holds(Held),
    /// It answered as core does when its key file is broken: 500 or an empty token (K7 to K9).
    CannotSign,
    /// It answered as no Harbor core does.
    Strange,
}

/// The token that a probe was answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its `kid`.
    pub kid: Kid,
    /// Its `iat`.
    pub issued: UnixTime,
    /// Its `exp - iat`: how long this core's tokens live, as far as a token can say.
    pub lifetime: Duration,
    /// The token itself: what its key's public half verifies.
    pub token: String,
}

#[derive(serde::Deserialize)]
struct Body {
    #[serde(default)]
    token: String,
}

/// Reads the answer to [`super::KEY_TARGET`].
pub fn read_key(status: StatusCode, body: &[u8]) -> Finding {
    if status == StatusCode::INTERNAL_SERVER_ERROR {
        return Finding::CannotSign;
    }
    if status != StatusCode::OK {
        return Finding::Strange;
    }
    let Ok(Body { token }) = serde_json::from_slice(body) else { return Finding::Strange };
    if token.is_empty() {
        return Finding::CannotSign;
    }
    held_by(token).map_or(Finding::Strange, Finding::Holds)
}

/// What a token that an endpoint has just issued says of the endpoint.
pub fn held_by(token: String) -> Option<Held> {
    let (kid, issued, lifetime) = {
        let read = claims::read(&token).ok()?;
        let (exp, iat) = (read.unverified_claims.exp, read.unverified_claims.iat);
        (read.unverified_kid?, UnixTime(iat), Duration::from_secs(u64::try_from(exp.checked_sub(iat)?).ok()?))
    };
    Some(Held { kid, issued, lifetime, token })
}

/// Seconds by which core's clock is ahead, from a token issued between `asked` and `answered` (since 1970).
/// `iat` is cut to whole seconds, so the clock may stand anywhere within one: what could be nothing is 0.
pub fn clock_ahead(issued: UnixTime, asked: Duration, answered: Duration) -> i64 {
    let ms = |d: Duration| i64::try_from(d.as_millis()).unwrap_or(i64::MAX);
    let least = issued.0.saturating_mul(1_000).saturating_sub(ms(answered));
    let most = issued.0.saturating_add(1).saturating_mul(1_000).saturating_sub(ms(asked));
    if least > 0 {
        (least + 999) / 1_000
    } else if most < 0 {
        (most - 999) / 1_000
    } else {
        0
    }
}

/// What `/api/v2.0/systeminfo` tells an anonymous asker (F3).
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
pub struct SystemInfo {
    /// `db_auth`, `ldap_auth`, `oidc_auth`, …
    #[serde(default)]
    pub auth_mode: Option<String>,
    /// Up to 2.12; hidden from 2.13 on.
    #[serde(default)]
    pub harbor_version: Option<String>,
}

impl SystemInfo {
    /// Whether this core grants 60 s on the times of a token: from 2.11 on (V7). A version that is hidden is
    /// 2.13 or later; `None` where the answer is no Harbor's.
    pub fn leeway(&self) -> Option<bool> {
        let Some(version) = &self.harbor_version else { return self.auth_mode.as_ref().map(|_| true) };
        let mut numbers = version.trim_start_matches('v').split(['.', '-']).map(str::parse::<u32>);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(major)), Some(Ok(minor))) => Some((major, minor) >= (2, 11)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_key_files_are_told_from_strangers() {
        let table: [(u16, &str, Finding); 6] = [
            (500, "", Finding::CannotSign),
            (200, r#"{"token":"","access_token":""}"#, Finding::CannotSign),
            (200, "<html>", Finding::Strange),
            (200, r#"{"token":"a.b.c"}"#, Finding::Strange),
            (401, "", Finding::Strange),
            (503, "", Finding::Strange),
        ];
        for (status, body, want) in table {
            let status = StatusCode::from_u16(status).expect("a status");
            assert_eq!(read_key(status, body.as_bytes()), want, "{status} {body}");
        }
    }

    #[test]
    fn a_clock_within_a_second_of_ours_is_ours() {
        let at = Duration::from_millis;
        let table = [
            (1_000, at(1_000_200), at(1_000_220), 0),
            (1_000, at(1_000_950), at(1_001_050), 0),
            (1_030, at(1_000_000), at(1_000_100), 30),
            (970, at(1_000_000), at(1_000_100), -29),
        ];
        for (iat, asked, answered, want) in table {
            assert_eq!(clock_ahead(UnixTime(iat), asked, answered), want, "{iat}");
        }
    }

    #[test]
    fn leeway_came_with_2_11() {
        let info = |v: Option<&str>, mode: Option<&str>| SystemInfo {
            auth_mode: mode.map(Into::into),
            harbor_version: v.map(Into::into),
        };
        assert_eq!(info(Some("v2.8.4-abc"), None).leeway(), Some(false));
        assert_eq!(info(Some("v2.10.2"), None).leeway(), Some(false));
        assert_eq!(info(Some("v2.11.0"), None).leeway(), Some(true));
        assert_eq!(info(None, Some("db_auth")).leeway(), Some(true));
        assert_eq!(info(Some("dev"), None).leeway(), None);
        assert_eq!(info(None, None).leeway(), None);
    }
}
