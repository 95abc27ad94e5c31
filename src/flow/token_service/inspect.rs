//! What Harbor's answer to a token request really says. Pure.

use std::time::Duration;

use http::StatusCode;

use crate::{
    decisions::token::claims,
    words::{clock::UnixTime, kid::Kid, reason::Reason, scope::Access},
};

/// What an answer is, whatever its status looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inspected {
    /// A token for who asked.
    Granted,
    /// A token for nobody, and no credential was sent (T6).
    Anonymous,
    /// A token for nobody though a credential was sent (T8), or 401 (T9): the credential was not accepted.
    Refused,
    /// An empty token, or 500 without a body: core's key file is broken (K7 to K9).
    CannotSign,
    /// A token longer than any that is read: nobody can use it here.
    TooLong,
    /// Anything else.
    Other,
}

impl Inspected {
    /// The name of a failure that its status hides.
    pub fn reason(self) -> Option<Reason> {
        match self {
            Self::Refused => Some(Reason::CredentialRefused),
            Self::CannotSign => Some(Reason::CannotSign),
            Self::Granted | Self::Anonymous | Self::TooLong | Self::Other => None,
        }
    }
}

/// A token that Harbor has just issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// Its exact bytes.
    pub token: String,
    /// The key that signed it.
    pub kid: Kid,
    /// Whom it is for.
    pub subject: Option<String>,
    /// What it grants.
    pub access: Vec<Access>,
    /// Its `iat`.
    pub at: UnixTime,
    /// Its `exp`.
    pub expires: UnixTime,
}

impl Issued {
    /// `exp - iat`.
    pub fn lifetime(&self) -> Duration {
        self.expires.since(self.at)
    }

    /// Whether some repository was asked for of which nothing is granted.
    pub fn grants_nothing(&self) -> bool {
        self.access.iter().any(|access| access.kind == "repository" && access.actions.is_empty())
    }

    /// Until when the answer may be given again: `most` from now, never past half the token's life.
    pub fn cached_until(&self, now: UnixTime, most: Duration) -> UnixTime {
        now.plus(most).min(self.at.plus(self.lifetime() / 2))
    }
}

#[derive(serde::Deserialize)]
struct Body {
    #[serde(default)]
    token: String,
}

/// The token in an answer, whoever made it.
pub fn token_of(body: &[u8]) -> Option<String> {
    serde_json::from_slice::<Body>(body).ok().map(|body| body.token).filter(|token| !token.is_empty())
}

/// Reads an answer.
pub fn read(status: StatusCode, body: &[u8], credential: bool) -> (Inspected, Option<Issued>) {
    match status {
        StatusCode::OK => {}
        StatusCode::UNAUTHORIZED if credential => return (Inspected::Refused, None),
        StatusCode::INTERNAL_SERVER_ERROR if body.is_empty() => return (Inspected::CannotSign, None),
        _ => return (Inspected::Other, None),
    }
    let Ok(Body { token }) = serde_json::from_slice(body) else { return (Inspected::Other, None) };
    if token.is_empty() {
        return (Inspected::CannotSign, None);
    }
    if token.len() > claims::LONGEST {
        return (Inspected::TooLong, None);
    }
    let Some(issued) = issued(token) else { return (Inspected::Other, None) };
    let inspected = match (&issued.subject, credential) {
        (Some(_), true) => Inspected::Granted,
        (None, true) => Inspected::Refused,
        (None, false) => Inspected::Anonymous,
        (Some(_), false) => Inspected::Other,
    };
    (inspected, Some(issued))
}

fn issued(token: String) -> Option<Issued> {
    let (kid, claims) = {
        let read = claims::read(&token).ok()?;
        (read.unverified_kid?, read.unverified_claims)
    };
    Some(Issued {
        token,
        kid,
        subject: claims.sub.filter(|s| !s.is_empty()),
        access: claims.access.unwrap_or_default(),
        at: UnixTime(claims.iat),
        expires: UnixTime(claims.exp),
    })
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

    use super::*;

    fn answer(payload: &str) -> String {
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let token = format!("{}.{}.AAAA", part(r#"{"alg":"RS256","kid":"K","typ":"JWT"}"#), part(payload));
        format!(r#"{{"token":"{token}","access_token":""}}"#)
    }

    #[test]
    fn failures_that_look_like_answers_have_names() {
        let alice = answer(r#"{"iss":"i","sub":"alice","aud":"a","exp":1800,"iat":0,"access":null}"#);
        let nobody = answer(r#"{"iss":"i","aud":"a","exp":1800,"iat":0,"access":[]}"#);
        let long = format!(r#"{{"token":"{}"}}"#, "t".repeat(claims::LONGEST + 1));
        let table: [(u16, &str, bool, Inspected); 9] = [
            (200, &long, true, Inspected::TooLong),
            (200, &alice, true, Inspected::Granted),
            (200, &nobody, true, Inspected::Refused),
            (200, &nobody, false, Inspected::Anonymous),
            (200, r#"{"token":""}"#, true, Inspected::CannotSign),
            (500, "", true, Inspected::CannotSign),
            (500, "<html>", true, Inspected::Other),
            (401, "", true, Inspected::Refused),
            (401, "", false, Inspected::Other),
        ];
        for (status, body, credential, want) in table {
            let status = StatusCode::from_u16(status).expect("a status");
            assert_eq!(read(status, body.as_bytes(), credential).0, want, "{status} {body:.60}");
        }
    }

    #[test]
    fn an_answer_is_kept_for_half_a_life_at_most() {
        let body = answer(r#"{"iss":"i","sub":"a","aud":"a","exp":160,"iat":100,"access":null}"#);
        let issued = read(StatusCode::OK, body.as_bytes(), true).1.expect("a token");
        let until = |now| issued.cached_until(UnixTime(now), Duration::from_secs(45)).0;
        assert_eq!((until(100), until(84)), (130, 129));
    }
}
