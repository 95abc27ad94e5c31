//! The record of what an operator ended at once (A9, A20).

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use super::seen_key::place_of;
use crate::{
    decisions::{
        key::{Key, KeyFault},
        revoked::digest_of,
    },
    words::clock::UnixTime,
};

/// The format that this version writes.
const VERSION: u32 = 1;

/// Harbor's tokens live for minutes, or hours where somebody configured it.
const TOKEN_KEPT: Duration = Duration::from_hours(7 * 24);

/// Something that means nothing any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Revocation {
    /// A key, by its `SubjectPublicKeyInfo` in DER: whatever name a token gives, its signature is looked for.
    Key { spki: Vec<u8>, at: UnixTime },
    /// All that this user, by the name that Harbor's tokens have in `sub`, was given before `not_before`.
    Subject { name: String, not_before: UnixTime, at: UnixTime },
    /// One token, by the SHA-256 of its bytes.
    Token { digest: [u8; 32], at: UnixTime },
}

/// It is no revocation that this version knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no record of a revocation that this version knows")]
pub struct NoRevocation;

#[derive(Default, Deserialize, Serialize)]
#[serde(default)]
struct Written {
    v: u32,
    of: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    spki: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_before: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    at: Option<i64>,
}

impl Revocation {
    pub fn write(&self) -> Vec<u8> {
        let common = |of: &str, at: UnixTime| Written {
            v: VERSION,
            of: of.to_owned(),
            at: Some(at.0),
            ..Written::default()
        };
        let written = match self {
            Self::Key { spki, at } => Written { spki: Some(STANDARD.encode(spki)), ..common("key", *at) },
            Self::Subject { name, not_before, at } => Written {
                subject: Some(name.clone()),
                not_before: Some(not_before.0),
                ..common("subject", *at)
            },
            Self::Token { digest, at } => {
                Written { token: Some(STANDARD.encode(digest)), ..common("token", *at) }
            }
        };
        // Texts and numbers alone: this can't fail.
        serde_json::to_vec(&written).unwrap_or_default()
    }

    pub fn read(text: &[u8]) -> Result<Self, NoRevocation> {
        Self::parse(text).ok_or(NoRevocation)
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let written: Written = serde_json::from_slice(text).ok()?;
        let at = UnixTime(written.at?);
        match &*written.of {
            "key" => Some(Self::Key { spki: STANDARD.decode(written.spki?).ok()?, at }),
            "subject" => {
                let (name, not_before) = (written.subject?, UnixTime(written.not_before?));
                Some(Self::Subject { name, not_before, at })
            }
            "token" => {
                let digest = STANDARD.decode(written.token?).ok()?.try_into().ok()?;
                Some(Self::Token { digest, at })
            }
            _ => None,
        }
    }

    /// When it was ordered.
    pub const fn at(&self) -> UnixTime {
        match self {
            Self::Key { at, .. } | Self::Subject { at, .. } | Self::Token { at, .. } => *at,
        }
    }

    /// The key that it ends; `None` where it ends something else.
    pub fn key(&self) -> Option<Result<Key, KeyFault>> {
        match self {
            Self::Key { spki, .. } => Some(Key::of_spki(spki, None)),
            Self::Subject { .. } | Self::Token { .. } => None,
        }
    }

    /// Whether it ends something that the other one of the same name doesn't.
    pub fn ends_more(&self, than: &Self) -> bool {
        match (self, than) {
            (Self::Subject { not_before, .. }, Self::Subject { not_before: known, .. }) => not_before > known,
            _ => false,
        }
    }

    /// From when on its record is of no use: no token lives so long. Keys and users may come back at any time.
    pub fn expires(&self) -> Option<UnixTime> {
        match self {
            Self::Key { .. } | Self::Subject { .. } => None,
            Self::Token { at, .. } => Some(at.plus(TOKEN_KEPT)),
        }
    }

    /// The name of its record: a digest, of a key the same as that of the key's own record.
    pub fn place(&self) -> String {
        match self {
            Self::Key { spki, .. } => place_of(&digest_of(spki)),
            Self::Subject { name, .. } => format!("subject-{}", place_of(&digest_of(name.as_bytes()))),
            Self::Token { digest, .. } => format!("token-{}", place_of(digest)),
        }
    }
}

/// What is ended stays ended, whoever said so first; of one user the later revocation ends more.
pub(super) fn merge(present: &[u8], ours: &[u8]) -> Vec<u8> {
    match (Revocation::read(present), Revocation::read(ours)) {
        (Ok(theirs), Ok(mine)) if mine.ends_more(&theirs) => ours.to_vec(),
        _ => present.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decisions::key::forge::rsa;

    fn of_subject(not_before: i64) -> Revocation {
        Revocation::Subject { name: "dev".to_owned(), not_before: UnixTime(not_before), at: UnixTime(7) }
    }

    #[test]
    fn a_revocation_is_read_as_it_was_written_and_unknown_ones_are_refused() {
        let of_key = Revocation::Key { spki: rsa(0).key().spki().to_vec(), at: UnixTime(7) };
        let of_token = Revocation::Token { digest: [9; 32], at: UnixTime(7) };
        for revocation in [of_key.clone(), of_subject(8), of_token] {
            assert_eq!(Revocation::read(&revocation.write()), Ok(revocation.clone()));
            assert_eq!(revocation.at(), UnixTime(7));
        }
        assert_eq!(of_key.key(), Some(Ok(rsa(0).key())));
        assert_eq!(of_key.place(), place_of(rsa(0).key().spki_digest()));
        assert!(!of_subject(8).place().contains("dev"));
        for text in ["", "{}", r#"{"v":1,"of":"moon","spki":"","at":1}"#, r#"{"v":1,"of":"key","spki":""}"#] {
            assert_eq!(Revocation::read(text.as_bytes()), Err(NoRevocation), "{text}");
        }
    }

    #[test]
    fn a20_of_two_revocations_of_one_user_the_later_one_stays() {
        for (present, ours, want) in [(8, 9, 9), (9, 8, 9)] {
            let merged = merge(&of_subject(present).write(), &of_subject(ours).write());
            assert_eq!(Revocation::read(&merged), Ok(of_subject(want)));
        }
    }
}
