//! A token that grants nothing: what a plain registry is shown to learn whether it knows a key.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::json;

use crate::words::clock::UnixTime;

/// Seconds that it lives, and by which the registry's clock may be behind.
const LIFE: i64 = 60;

/// The token, to be signed as one that is signed again: for nobody, with no access at all.
pub fn unsigned(issuer: &str, service: &str, now: UnixTime) -> String {
    let claims = json!({
        "iss": issuer, "sub": "", "aud": service, "exp": now.0 + LIFE, "nbf": now.0 - LIFE, "iat": now.0,
        "jti": "tidegate", "access": [],
    });
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    format!("{}.{}.{}", part(r#"{"alg":"RS256","typ":"JWT"}"#), part(&claims.to_string()), part("none"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::decisions::{
        key::forge::rsa,
        token::{
            claims,
            resign::{Change, Unsigned, resign},
        },
    };

    #[test]
    fn a_question_grants_nobody_nothing_and_can_be_signed() {
        let question = unsigned("an issuer", "a service", UnixTime(1_000));
        let nothing = Change { audience: None, not_before_back: Duration::ZERO, kid: None };
        let signed = resign(&question, &rsa(0).key(), &nothing).and_then(Unsigned::sign).expect("signed");
        let read = claims::read(&signed).expect("a token").unverified_claims;
        assert_eq!((read.iss.as_deref(), read.sub.as_deref()), (Some("an issuer"), Some("")));
        assert_eq!((read.access.map(|access| access.len()), read.exp), (Some(0), 1_060));
    }
}
