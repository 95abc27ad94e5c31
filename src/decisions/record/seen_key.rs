//! The record of a key that a source held: what brings it back after a restart, and to other replicas. Public halves
//! alone.

pub mod due;

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use crate::{
    decisions::{
        key::{Key, KeyFault},
        ring::Keeper,
    },
    words::{clock::UnixTime, kid::Kid},
};

/// The format that this version writes.
const VERSION: u32 = 1;

/// A key that was in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenKey {
    /// `SubjectPublicKeyInfo` in DER.
    pub spki: Vec<u8>,
    /// The name that a JWKS gave it beside its own ones.
    pub declared: Option<Kid>,
    /// The source that held it last.
    pub source: String,
    pub life: Life,
    /// The end that an operator listed for it.
    pub listed_end: Option<UnixTime>,
    /// Whether its writer says what was listed. One of a former version didn't: the end of a window alone says it.
    pub lists_ends: bool,
    /// Whether a file or a token of keys of the process that wrote it held the key: peers are told of no other (A10).
    pub is_own: bool,
}

/// How far the key has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// Its source held it when it was last seen.
    Signing { seen: UnixTime },
    /// It signed until then, and its last tokens verify before `until`.
    Verifying { signed_until: UnixTime, until: UnixTime },
}

impl Life {
    /// The last moment at which it is known that the key may have signed: of two records the later one counts.
    pub fn evidence(self) -> UnixTime {
        match self {
            Self::Signing { seen } => seen,
            Self::Verifying { signed_until, .. } => signed_until,
        }
    }
}

/// Why a record can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SeenKeyFault {
    #[error("it is no record of a key")]
    Format,
    #[error("its key can't be used")]
    Key(#[from] KeyFault),
}

#[derive(Deserialize, Serialize)]
struct Written {
    v: u32,
    spki: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    declared: Option<String>,
    source: String,
    state: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seen: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signed_until: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    listed_end: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    is_own: Option<bool>,
}

impl SeenKey {
    pub fn write(&self) -> Vec<u8> {
        let (state, seen, signed_until, until) = match self.life {
            Life::Signing { seen } => ("signing", Some(seen.0), None, None),
            Life::Verifying { signed_until, until } => {
                ("verifying", None, Some(signed_until.0), Some(until.0))
            }
        };
        let written = Written {
            v: VERSION,
            spki: STANDARD.encode(&self.spki),
            declared: self.declared.as_ref().map(ToString::to_string),
            source: self.source.clone(),
            state: state.to_owned(),
            seen,
            signed_until,
            until,
            listed_end: self.listed_end.map(|end| end.0),
            is_own: Some(self.is_own),
        };
        // Texts and numbers alone: this can't fail.
        serde_json::to_vec(&written).unwrap_or_default()
    }

    pub fn read(text: &[u8]) -> Result<Self, SeenKeyFault> {
        Self::parse(text).ok_or(SeenKeyFault::Format)
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let written: Written = serde_json::from_slice(text).ok()?;
        let life = match &*written.state {
            "signing" => Life::Signing { seen: UnixTime(written.seen?) },
            "verifying" => Life::Verifying {
                signed_until: UnixTime(written.signed_until?),
                until: UnixTime(written.until?),
            },
            _ => return None,
        };
        let lists_ends = written.is_own.is_some() || written.listed_end.is_some();
        let is_own = written.is_own.unwrap_or_else(|| names_own_source(&written.source));
        Some(Self {
            is_own,
            spki: STANDARD.decode(&written.spki).ok()?,
            declared: written.declared.as_deref().and_then(Kid::parse),
            source: written.source,
            life,
            listed_end: written.listed_end.map(UnixTime),
            lists_ends,
        })
    }

    /// The public half itself.
    pub fn key(&self) -> Result<Key, SeenKeyFault> {
        Ok(Key::of_spki(&self.spki, self.declared.clone())?)
    }
}

/// Of records whose writer didn't say it.
fn names_own_source(source: &str) -> bool {
    source != Keeper::ADDED && !["https://", "http://"].iter().any(|scheme| source.starts_with(scheme))
}

/// The name of a key's record: the digest of its SPKI.
pub fn place_of(spki_digest: &[u8; 32]) -> String {
    use std::fmt::Write as _;
    spki_digest.iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a text can't fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A record of a later time was written by a clock that is ahead.
pub const AHEAD: Duration = Duration::from_mins(1);

/// Of two records of one key the one that saw it in use later; of two windows the longer one. Who holds the key says
/// what is listed for it, and of two that hold it who saw it later; once it ended, the sooner end that was listed. What
/// a clock that is ahead wrote never counts for more than what we say at `now`.
pub(super) fn merge(present: &[u8], ours: &[u8], now: UnixTime) -> Vec<u8> {
    let (Ok(theirs), Ok(mine)) = (SeenKey::read(present), SeenKey::read(ours)) else { return ours.to_vec() };
    let is_ahead = theirs.life.evidence() > now.plus(AHEAD);
    let listed_end = match (theirs.life, mine.life) {
        (Life::Signing { seen: a }, Life::Signing { seen: b }) if !is_ahead => {
            if a > b {
                theirs.listed_end
            } else {
                mine.listed_end
            }
        }
        _ => [theirs.listed_end, mine.listed_end].into_iter().flatten().min(),
    };
    let life = match (theirs.life, mine.life) {
        (_, mine) if is_ahead => mine,
        (
            Life::Verifying { signed_until: a, until: a_until },
            Life::Verifying { signed_until: b, until: b_until },
        ) => Life::Verifying { signed_until: a.max(b), until: a_until.max(b_until) },
        (theirs, mine) if theirs.evidence() > mine.evidence() => theirs,
        (Life::Verifying { .. }, Life::Signing { .. }) if theirs.life.evidence() == mine.life.evidence() => {
            theirs.life
        }
        (_, mine) => mine,
    };
    SeenKey { life, listed_end, is_own: theirs.is_own || mine.is_own, ..mine }.write()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decisions::key::forge::rsa;

    fn signing(seen: i64) -> Life {
        Life::Signing { seen: UnixTime(seen) }
    }

    fn verifying(signed_until: i64, until: i64) -> Life {
        Life::Verifying { signed_until: UnixTime(signed_until), until: UnixTime(until) }
    }

    fn seen(life: Life) -> SeenKey {
        let spki = rsa(0).key().spki().to_vec();
        SeenKey {
            spki,
            declared: Kid::parse("name"),
            source: "/etc/core/private_key.pem".into(),
            life,
            listed_end: None,
            lists_ends: true,
            is_own: true,
        }
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        for life in [signing(7), verifying(7, 9)] {
            assert_eq!(SeenKey::read(&seen(life).write()), Ok(seen(life)));
        }
        let key = seen(signing(7)).key().expect("a key");
        assert_eq!((&key, key.can_sign()), (&rsa(0).key(), false));
    }

    #[test]
    fn a10_a_record_says_whether_own_files_held_the_key_and_one_of_before_by_its_source() {
        for is_own in [true, false] {
            let seen = SeenKey { is_own, ..seen(signing(7)) };
            assert_eq!(SeenKey::read(&seen.write()), Ok(seen));
        }
        for (source, is_own) in [
            ("/etc/core/private_key.pem", true),
            ("pkcs11:token=harbor;object=core", true),
            ("keys add", false),
            ("https://keys.example/jwks.json", false),
            ("http://127.0.0.1:8000/jwks.json", false),
        ] {
            let mut before: serde_json::Value =
                serde_json::from_slice(&seen(signing(7)).write()).expect("JSON");
            before["source"] = source.into();
            before.as_object_mut().expect("an object").remove("is_own");
            let read = SeenKey::read(before.to_string().as_bytes()).expect("a record");
            assert_eq!((read.is_own, read.lists_ends), (is_own, false), "{source}");
            let again = SeenKey::read(&read.write()).expect("a record");
            assert!(again.lists_ends, "what this version says");
        }
        let other = SeenKey { is_own: false, ..seen(signing(8)) };
        for (present, ours) in [(seen(signing(7)), other.clone()), (other, seen(signing(7)))] {
            let merged =
                SeenKey::read(&merge(&present.write(), &ours.write(), UnixTime(9))).expect("a record");
            assert!(merged.is_own, "once it was held by a file it was");
        }
    }

    #[test]
    fn members_that_a_later_version_adds_are_passed_over() {
        let mut later: serde_json::Value = serde_json::from_slice(&seen(signing(7)).write()).expect("JSON");
        later["v"] = 2.into();
        later["colour"] = "green".into();
        assert_eq!(SeenKey::read(later.to_string().as_bytes()), Ok(seen(signing(7))));
        later["state"] = "unheard of".into();
        assert_eq!(SeenKey::read(later.to_string().as_bytes()), Err(SeenKeyFault::Format));
    }

    #[test]
    fn of_two_records_the_one_that_saw_the_key_in_use_later_counts() {
        let table = [
            (signing(1), signing(2), signing(2)),
            (signing(2), signing(1), signing(2)),
            (signing(2), verifying(1, 9), signing(2)),
            (verifying(1, 9), signing(2), signing(2)),
            (signing(1), verifying(2, 9), verifying(2, 9)),
            (signing(2), verifying(2, 9), verifying(2, 9)),
            (verifying(2, 9), signing(2), verifying(2, 9)),
            (verifying(2, 9), verifying(3, 8), verifying(3, 9)),
        ];
        for (present, ours, want) in table {
            let merged = merge(&seen(present).write(), &seen(ours).write(), UnixTime(3));
            assert_eq!(SeenKey::read(&merged), Ok(seen(want)), "{present:?} {ours:?}");
        }
        let torn = merge(b"torn", &seen(signing(1)).write(), UnixTime(3));
        assert_eq!(torn, seen(signing(1)).write());
    }

    #[test]
    fn a8_what_a_clock_that_is_ahead_wrote_never_wins_and_a_listed_end_always_does() {
        for ahead in [signing(1_000), verifying(1_000, 9_000)] {
            for ours in [signing(2), verifying(1, 9)] {
                let merged = merge(&seen(ahead).write(), &seen(ours).write(), UnixTime(3));
                assert_eq!(SeenKey::read(&merged), Ok(seen(ours)), "{ahead:?} {ours:?}");
            }
        }
        let listed = |end: Option<i64>| SeenKey { listed_end: end.map(UnixTime), ..seen(verifying(1, 9)) };
        for (present, ours, want) in [(Some(5), None, 5), (None, Some(5), 5), (Some(6), Some(5), 5)] {
            let merged = merge(&listed(present).write(), &listed(ours).write(), UnixTime(3));
            assert_eq!(SeenKey::read(&merged), Ok(listed(Some(want))));
        }
    }

    #[test]
    fn who_saw_a_key_sign_later_says_what_is_listed_for_it() {
        let listed = |life, end: Option<i64>| SeenKey { listed_end: end.map(UnixTime), ..seen(life) };
        for (present, ours, want) in [
            (listed(signing(1), Some(5)), listed(signing(2), Some(9)), Some(9)),
            (listed(signing(1), Some(5)), listed(signing(2), None), None),
            (listed(signing(2), Some(9)), listed(signing(1), Some(5)), Some(9)),
            (listed(signing(2), Some(5)), listed(verifying(2, 9), Some(9)), Some(5)),
            (listed(verifying(1, 9), Some(5)), listed(signing(2), None), Some(5)),
            (listed(signing(1_000), Some(5)), listed(signing(2), None), Some(5)),
        ] {
            let merged = SeenKey::read(&merge(&present.write(), &ours.write(), UnixTime(3)));
            assert_eq!(
                merged.map(|merged| merged.listed_end),
                Ok(want.map(UnixTime)),
                "{present:?} {ours:?}"
            );
        }
    }
}
