//! The record of what Harbor granted a credential for one question: what grace may grant again after a restart, and on
//! other replicas. The credential itself is in it as a keyed hash alone.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use crate::{
    decisions::{
        grace::ends::{ProcessId, Secret, Seen},
        token::claims,
    },
    words::{clock::UnixTime, scope::Access},
};

/// The format that this version writes.
const VERSION: u32 = 1;

/// A grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The token that Harbor issued.
    pub token: Box<str>,
    /// Whom it is for, as the token says.
    pub subject: Box<str>,
    /// What it grants, as the token says.
    pub access: Vec<Access>,
    /// Keyed hash of the credential that it was granted to.
    pub secret: Secret,
    /// When Harbor accepted the credential.
    pub accepted: UnixTime,
    /// What was known to have ended when it was asked for.
    pub seen: Seen,
}

/// It is no grant that this version can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no record of a grant")]
pub struct NoGrant;

#[derive(Deserialize, Serialize)]
struct Written<'a> {
    v: u32,
    token: std::borrow::Cow<'a, str>,
    secret: String,
    accepted: i64,
    seen: Vec<(String, u64)>,
}

impl Grant {
    /// `token` says the rest.
    pub fn write(token: &str, secret: &Secret, accepted: UnixTime, seen: &Seen) -> Vec<u8> {
        let written = Written {
            v: VERSION,
            token: token.into(),
            secret: STANDARD.encode(secret),
            accepted: accepted.0,
            seen: seen.iter().map(|(by, number)| (by.to_string(), number)).collect(),
        };
        // Texts and numbers alone: this can't fail.
        serde_json::to_vec(&written).unwrap_or_default()
    }

    pub fn read(text: &[u8]) -> Result<Self, NoGrant> {
        let written: Written<'_> = serde_json::from_slice(text).map_err(|_| NoGrant)?;
        let secret = STANDARD.decode(&written.secret).map_err(|_| NoGrant)?;
        let of = |(by, number): &(String, u64)| Ok((ProcessId::parse(by).ok_or(NoGrant)?, *number));
        let claims = claims::read(&written.token).map_err(|_| NoGrant)?.unverified_claims;
        Ok(Self {
            subject: claims.sub.unwrap_or_default().into(),
            access: claims.access.unwrap_or_default(),
            token: written.token.into(),
            secret: secret.try_into().map_err(|_| NoGrant)?,
            accepted: UnixTime(written.accepted),
            seen: written.seen.iter().map(of).collect::<Result<_, _>>()?,
        })
    }
}

/// Of two records of one question the later one: whether it is over is for the ends to say.
pub(super) fn merge(present: &[u8], ours: &[u8]) -> Vec<u8> {
    #[derive(Deserialize)]
    struct When {
        accepted: i64,
    }
    let when = |text| serde_json::from_slice::<When>(text).map_or(i64::MIN, |when| when.accepted);
    if when(present) > when(ours) { present.to_vec() } else { ours.to_vec() }
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;

    fn token() -> String {
        let payload = r#"{"iss":"i","sub":"dev","aud":"a","exp":1800,"iat":0,"access":[{"type":"repository","name":"p/r","actions":["pull"]}]}"#;
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        format!("{}.{}.AAAA", part(r#"{"alg":"RS256","kid":"K","typ":"JWT"}"#), part(payload))
    }

    fn written(accepted: i64) -> Vec<u8> {
        let seen = [(ProcessId(7), 3), (ProcessId(u64::MAX), 1)].into_iter().collect();
        Grant::write(&token(), &[9; 32], UnixTime(accepted), &seen)
    }

    #[test]
    fn a_grant_is_read_as_it_was_written_and_later_members_are_passed_over() {
        let grant = Grant::read(&written(5)).expect("a grant");
        assert_eq!((&*grant.token, &*grant.subject), (&*token(), "dev"));
        assert_eq!((grant.secret, grant.accepted), ([9; 32], UnixTime(5)));
        assert_eq!(grant.access[0].name, "p/r");
        assert_eq!(grant.seen.iter().collect::<Vec<_>>(), [(ProcessId(7), 3), (ProcessId(u64::MAX), 1)]);
        let mut later: serde_json::Value = serde_json::from_slice(&written(5)).expect("JSON");
        later["v"] = 2.into();
        later["colour"] = "green".into();
        assert_eq!(Grant::read(later.to_string().as_bytes()), Ok(grant));
        for (member, value) in [("token", "x"), ("secret", "AAAA"), ("seen", "x")] {
            let mut torn: serde_json::Value = serde_json::from_slice(&written(5)).expect("JSON");
            torn[member] = value.into();
            assert_eq!(Grant::read(torn.to_string().as_bytes()), Err(NoGrant), "{member}");
        }
    }

    #[test]
    fn a15_of_two_records_the_one_that_harbor_accepted_later_counts() {
        for (present, ours, want) in [(1, 2, 2), (2, 1, 2), (2, 2, 2)] {
            assert_eq!(merge(&written(present), &written(ours)), written(want), "{present} {ours}");
        }
        assert_eq!(merge(b"torn", &written(1)), written(1));
    }
}
