//! `WWW-Authenticate` as Harbor writes it, and its realm.

use http::HeaderValue;

/// Harbor's challenge to a bearer that it refuses (C4), and the one that most clients recover from (contract P).
pub const BASIC: HeaderValue = HeaderValue::from_static("Basic realm=\"harbor\"");

/// What a `WWW-Authenticate` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Challenge<'a> {
    /// `Basic …`: Harbor refuses what was sent (C4).
    Basic,
    /// `Bearer realm="…",service="…"[,scope="…"]` (C1, C2).
    Bearer {
        /// Where tokens are had.
        realm: &'a str,
        /// What follows the realm's closing quote, as it came.
        rest: &'a str,
    },
    /// Present and empty: Harbor's judgement on something else than the token (C3, C8, D1).
    Empty,
    /// Anything else.
    Other,
}

impl<'a> Challenge<'a> {
    /// Reads one header value.
    pub fn of(value: &'a HeaderValue) -> Self {
        let Ok(text) = value.to_str() else { return Self::Other };
        let text = text.trim();
        if text.is_empty() {
            return Self::Empty;
        }
        let (scheme, rest) = text.split_once(' ').unwrap_or((text, ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Self::Basic;
        }
        let realm = rest.trim_start().strip_prefix("realm=\"").and_then(|r| r.split_once('"'));
        match realm {
            Some((realm, rest)) if scheme.eq_ignore_ascii_case("bearer") => Self::Bearer { realm, rest },
            _ => Self::Other,
        }
    }
}

/// The same `Bearer` challenge with another realm, or `None` where `value` is no `Bearer` challenge.
pub fn with_realm(value: &HeaderValue, realm: &str) -> Option<HeaderValue> {
    let Challenge::Bearer { rest, .. } = Challenge::of(value) else { return None };
    HeaderValue::from_str(&format!("Bearer realm=\"{realm}\"{rest}")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_of_harbor_are_told_apart() {
        let bearer =
            Challenge::Bearer { realm: "http://h/service/token", rest: ",service=\"harbor-registry\"" };
        let table = [
            ("Basic realm=\"harbor\"", Challenge::Basic),
            ("", Challenge::Empty),
            ("Bearer realm=\"http://h/service/token\",service=\"harbor-registry\"", bearer),
            ("Bearer error=\"x\"", Challenge::Other),
            ("Negotiate", Challenge::Other),
        ];
        for (text, want) in table {
            assert_eq!(Challenge::of(&HeaderValue::from_static(text)), want, "{text}");
        }
    }

    #[test]
    fn only_the_realm_is_rewritten() {
        let value = HeaderValue::from_static(
            "Bearer realm=\"http://core/service/token\",service=\"harbor-registry\",scope=\"repository:p/r:pull\"",
        );
        let rewritten = with_realm(&value, "https://h/service/token").expect("a bearer challenge");
        assert_eq!(
            rewritten,
            "Bearer realm=\"https://h/service/token\",service=\"harbor-registry\",scope=\"repository:p/r:pull\""
        );
        assert_eq!(with_realm(&BASIC, "https://h"), None);
    }
}
