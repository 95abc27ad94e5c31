//! Tokens made on the spot for tests, well formed or not, signed by the keys of [`key::forge`].

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::verify::{Rules, Verdict, VerifiedClaims, verify};
use crate::{
    decisions::{
        key::forge::rsa,
        ring::{Keeper, Listed, Listing, Overlap, Policy, Ring, SourceName},
    },
    words::{clock::UnixTime, kid::Kid},
};

/// The present of every test here.
pub(crate) const NOW: UnixTime = UnixTime(1_800_000_000);
/// Harbor's lifetime of a token (K6).
pub(crate) const LIFETIME: Duration = Duration::from_mins(30);
/// What clocks may differ by.
pub(crate) const LEEWAY: Duration = Duration::from_mins(1);

/// A token in the making: every member is text, so that anything can stand there.
#[derive(Clone)]
pub(crate) struct Draft {
    header: String,
    claims: Vec<(String, String)>,
}

impl Draft {
    /// What Harbor issues now under key `which`, by its own name (T2, T3).
    pub(crate) fn of(which: usize) -> Self {
        let access = r#"[{"type":"repository","name":"p/r","actions":["pull","push"]}]"#;
        let claims = [
            ("iss", r#""harbor-token-issuer""#.to_owned()),
            ("sub", r#""alice""#.to_owned()),
            ("aud", r#""harbor-registry""#.to_owned()),
            ("exp", (NOW.0 + 1_790).to_string()),
            ("nbf", (NOW.0 - 10).to_string()),
            ("iat", (NOW.0 - 10).to_string()),
            ("jti", r#""Mv3kHQ2J""#.to_owned()),
            ("access", access.to_owned()),
        ];
        let claims = claims.map(|(name, value)| (name.to_owned(), value)).to_vec();
        Self { header: format!(r#"{{"alg":"RS256","kid":"{}","typ":"JWT"}}"#, kid(which)), claims }
    }

    /// Another header.
    pub(crate) fn header(mut self, text: &str) -> Self {
        text.clone_into(&mut self.header);
        self
    }

    /// The header that names `alg` and, under key `which`, more members.
    pub(crate) fn alg(self, alg: &str, which: usize, more: &str) -> Self {
        let header = format!(r#"{{"alg":{alg},"kid":"{}"{more}}}"#, kid(which));
        self.header(&header)
    }

    /// A claim's value as JSON, in its place or at the end.
    pub(crate) fn set(mut self, name: &str, value: &str) -> Self {
        match self.claims.iter_mut().find(|(known, _)| known == name) {
            Some(claim) => value.clone_into(&mut claim.1),
            None => self.claims.push((name.to_owned(), value.to_owned())),
        }
        self
    }

    /// One more member, even of a name that is there.
    pub(crate) fn also(mut self, name: &str, value: &str) -> Self {
        self.claims.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Without a claim.
    pub(crate) fn without(mut self, name: &str) -> Self {
        self.claims.retain(|(known, _)| known != name);
        self
    }

    /// `iat`, `nbf` and `exp` in seconds from [`NOW`].
    pub(crate) fn times(self, iat: i64, nbf: i64, exp: i64) -> Self {
        let at = |seconds: i64| (NOW.0 + seconds).to_string();
        self.set("iat", &at(iat)).set("nbf", &at(nbf)).set("exp", &at(exp))
    }

    /// The payload's bytes.
    pub(crate) fn payload(&self) -> String {
        let members: Vec<_> =
            self.claims.iter().map(|(name, value)| format!(r#""{name}":{value}"#)).collect();
        format!("{{{}}}", members.join(","))
    }

    /// Header and payload, encoded.
    pub(crate) fn message(&self) -> String {
        format!("{}.{}", URL_SAFE_NO_PAD.encode(&self.header), URL_SAFE_NO_PAD.encode(self.payload()))
    }

    /// Signed by RSA key `which`, whatever the header says.
    pub(crate) fn signed(&self, which: usize) -> String {
        let message = self.message();
        let signature = rsa(which).key().sign(message.as_bytes()).unwrap();
        format!("{message}.{signature}")
    }

    /// With these bytes for a signature.
    pub(crate) fn with_signature(&self, make: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
        let message = self.message();
        let signature = URL_SAFE_NO_PAD.encode(make(message.as_bytes()));
        format!("{message}.{signature}")
    }
}

/// Harbor's name of key `which`.
pub(crate) fn kid(which: usize) -> Kid {
    rsa(which).key().kid().clone()
}

/// A keeper of Harbor's usual times.
pub(crate) fn keeper() -> Keeper {
    Keeper::new(Policy { overlap: Overlap::Auto, token_lifetime: LIFETIME, leeway: LEEWAY })
}

/// Key 0 signs; key 1 did until 100 s ago and verifies; key 2 is announced; key 3 is nobody's.
pub(crate) fn ring() -> Arc<Ring> {
    let mut keeper = keeper();
    let file = SourceName::new("/etc/core/private_key.pem");
    let announced = SourceName::new("/etc/tidegate/next.pem");
    keeper.observe(&file, Ok(vec![rsa(1).key()]), UnixTime(NOW.0 - 5_000));
    keeper.observe(&file, Ok(vec![rsa(0).key()]), UnixTime(NOW.0 - 100));
    keeper.declare(&announced, Listing { state: Some(Listed::Announced), ..Listing::default() });
    keeper.observe(&announced, Ok(vec![rsa(2).key()]), UnixTime(NOW.0 - 50));
    keeper.refresh(NOW).0
}

/// Harbor's usual rules.
pub(crate) fn rules() -> Rules {
    Rules {
        issuer: "harbor-token-issuer".into(),
        service: "harbor-registry".into(),
        lifetime: LIFETIME,
        leeway: LEEWAY,
        accept_missing_kid: false,
        by_name: false,
    }
}

/// The claims of a token that must verify.
pub(crate) fn verified(text: &str, ring: &Ring) -> VerifiedClaims {
    match verify(text, ring, &rules(), NOW) {
        Verdict::Verified(claims) => claims,
        other => panic!("{other:?}"),
    }
}
