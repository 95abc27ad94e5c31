//! What peers tell each other (A10): a JWKS of the keys that their own files held, with a member `tidegate` that says what a
//! JWKS can't: for which deployment, in which state each key is, and which keys were retired at once.

pub mod proof;

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    key::{Key, KeyFault},
    ring::{Keeper, PeerKey, Ring, State},
};
use crate::words::{clock::UnixTime, kid::Kid};

/// The format that this version writes, and the only one that it reads.
const VERSION: u32 = 1;
/// Keys of a document at most.
const MOST_KEYS: usize = 256;
/// Retired keys that are told at most: the latest ones.
const MOST_RETIRED: usize = 256;
/// Members of a JWK that hold what nobody may publish (RFC 7518, 6.2.2, 6.3.2, 6.4.1).
const PRIVATE: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// What a peer's document says.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// The process that says so, by a name of its own for as long as it runs.
    pub process: Arc<str>,
    /// Keys that verify there.
    pub keys: Vec<PeerKey>,
    /// Keys that were retired at once.
    pub retired: Vec<Arc<Key>>,
}

/// Why a document is not taken; nothing of it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DocumentFault {
    #[error("its answer is no document of a tidegate")]
    Format,
    #[error("its document is of version {0}, which this version doesn't know")]
    Version(u32),
    #[error("it belongs to another deployment")]
    Deployment,
    #[error("its document holds a private key")]
    PrivateKey,
    #[error("its document holds more than {MOST_KEYS} keys")]
    TooMany,
    #[error("a key of its document can't be used: {0}")]
    Key(#[from] KeyFault),
}

impl DocumentFault {
    /// What mends it, in words for the operator.
    pub const fn remedy(&self) -> &'static str {
        match self {
            Self::Format => "is it a tidegate, and does the URL lead to its listener of scope cluster?",
            Self::Version(_) => "run the same version on all replicas",
            Self::Deployment => {
                "set the same deployment on all replicas of one Harbor, and list none of another Harbor"
            }
            Self::PrivateKey => {
                "replace that key on all replicas: whoever reads the document can sign with it"
            }
            Self::TooMany | Self::Key(_) => "mend keys.sources there",
        }
    }
}

#[derive(Deserialize, Serialize)]
struct Written {
    v: u32,
    #[serde(default)]
    deployment: String,
    #[serde(default)]
    process: String,
    #[serde(default)]
    keys: Vec<WrittenKey>,
    #[serde(default)]
    retired: Vec<String>,
}

#[derive(Deserialize, Serialize)]
struct WrittenKey {
    /// `SubjectPublicKeyInfo` in DER, in base64.
    spki: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    alias: Option<String>,
    state: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signed_until: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until: Option<i64>,
}

/// What keys that were retired at once can't be told to peers, or taken from them, where there are so many of them here.
pub fn retired_alarm(count: usize) -> Option<String> {
    if count >= Keeper::TOMBSTONES {
        Some(format!("{count} keys were retired at once: what peers retire is not taken any more"))
    } else if count > MOST_RETIRED {
        Some(format!("{count} keys were retired at once: peers are told of {MOST_RETIRED} of them alone"))
    } else {
        None
    }
}

/// What mends it.
pub const RETIRED_REMEDY: &str = "retire a key on each replica: `tidegate keys retire KEY --now`";

/// The document of the keys that verify in `own` at `now`: the same text for as long as nothing changes.
pub fn write(own: &Ring, retired: &[Arc<Key>], (deployment, process): (&str, &str), now: UnixTime) -> String {
    let written = |entry: &super::ring::Entry| {
        let state = entry.state(now);
        let (signed_until, until) = match state {
            State::Verifying { until, signed_until } => (Some(signed_until.0), Some(until.0)),
            State::Announced | State::Signing | State::Retired => (None, None),
        };
        let key = entry.key();
        WrittenKey {
            spki: STANDARD.encode(key.spki()),
            alias: entry.alias().map(ToString::to_string),
            state: state.as_str().to_owned(),
            signed_until,
            until,
        }
    };
    let verifying = own.entries().filter(|entry| entry.state(now).verifies());
    let latest = retired.iter().skip(retired.len().saturating_sub(MOST_RETIRED));
    let member = Written {
        v: VERSION,
        deployment: deployment.to_owned(),
        process: process.to_owned(),
        keys: verifying.take(MOST_KEYS).map(written).collect(),
        retired: latest.map(|key| STANDARD.encode(key.spki())).collect(),
    };
    json!({ "keys": own.jwks_members(now), "tidegate": member }).to_string()
}

/// Reads a document that a peer of this deployment wrote.
pub fn read(text: &[u8], deployment: &str) -> Result<Told, DocumentFault> {
    #[derive(Deserialize)]
    struct Document {
        keys: Vec<Map<String, Value>>,
        tidegate: Written,
    }
    let Document { keys: members, tidegate: written } =
        serde_json::from_slice(text).map_err(|_| DocumentFault::Format)?;
    if written.v != VERSION {
        return Err(DocumentFault::Version(written.v));
    }
    if written.deployment != deployment {
        return Err(DocumentFault::Deployment);
    }
    if members.iter().any(|member| PRIVATE.iter().any(|name| member.contains_key(*name))) {
        return Err(DocumentFault::PrivateKey);
    }
    if written.keys.len() > MOST_KEYS || written.retired.len() > MOST_RETIRED {
        return Err(DocumentFault::TooMany);
    }
    // It tells one process from another, and stands in no log.
    let is_name =
        (8..=64).contains(&written.process.len()) && written.process.bytes().all(|b| b.is_ascii_graphic());
    if !is_name {
        return Err(DocumentFault::Format);
    }
    let keys = written.keys.iter().map(WrittenKey::read).collect::<Result<_, _>>()?;
    let retired =
        written.retired.iter().map(|spki| key(spki, None).map(Arc::new)).collect::<Result<_, _>>()?;
    Ok(Told { process: written.process.into(), keys, retired })
}

fn key(spki: &str, alias: Option<Kid>) -> Result<Key, DocumentFault> {
    let spki = STANDARD.decode(spki).map_err(|_| DocumentFault::Format)?;
    Ok(Key::of_spki(&spki, alias)?)
}

impl WrittenKey {
    fn read(&self) -> Result<PeerKey, DocumentFault> {
        let alias = match &self.alias {
            Some(alias) => Some(Kid::parse(alias).ok_or(DocumentFault::Format)?),
            None => None,
        };
        let state = match (&*self.state, self.signed_until, self.until) {
            ("signing", None, None) => State::Signing,
            ("verifying", Some(signed_until), Some(until)) => {
                State::Verifying { until: UnixTime(until), signed_until: UnixTime(signed_until) }
            }
            _ => return Err(DocumentFault::Format),
        };
        if alias.as_ref().is_some_and(|alias| super::key::is_published_default(alias.as_str())) {
            return Err(KeyFault::PublishedDefault.into());
        }
        Ok(PeerKey { key: Arc::new(key(&self.spki, alias)?), state })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::decisions::{
        key::forge::rsa,
        ring::{Listing, Overlap, Peer, Policy, SourceName},
    };

    const LIFETIME: Duration = Duration::from_mins(30);
    const NOW: UnixTime = UnixTime(1_000_000);
    const WHO: (&str, &str) = ("harbor", "a-process-of-its-own");

    fn keeper() -> Keeper {
        Keeper::new(Policy {
            overlap: Overlap::Auto,
            token_lifetime: LIFETIME,
            leeway: Duration::from_mins(1),
        })
    }

    fn file() -> SourceName {
        SourceName::new("/etc/core/private_key.pem")
    }

    #[test]
    fn a9_what_cannot_be_told_or_taken_of_retired_keys_is_an_alarm() {
        let said = |count| retired_alarm(count).unwrap_or_default();
        assert_eq!(said(MOST_RETIRED), "");
        assert!(said(MOST_RETIRED + 1).ends_with("peers are told of 256 of them alone"));
        assert!(said(Keeper::TOMBSTONES).ends_with("what peers retire is not taken any more"));
    }

    /// Key 0 was replaced by key 1, and key 2 is retired at once.
    fn publisher() -> Keeper {
        let mut keeper = keeper();
        keeper.observe(&file(), Ok(vec![rsa(0).key()]), NOW);
        keeper.observe(&file(), Ok(vec![rsa(1).key()]), NOW.plus(LIFETIME));
        keeper.ban(Arc::new(rsa(2).key().without_private()), NOW, NOW);
        keeper
    }

    fn document() -> String {
        let (keeper, now) = (publisher(), NOW.plus(LIFETIME));
        write(&keeper.own(now), keeper.retired(), WHO, now)
    }

    #[test]
    fn a_document_is_read_as_it_was_written() {
        let told = read(document().as_bytes(), "harbor").expect("a document");
        let signed_until = NOW.plus(LIFETIME);
        let until = signed_until.plus(LIFETIME + Duration::from_mins(1));
        assert_eq!(&*told.process, WHO.1);
        assert_eq!(told.retired, [Arc::new(rsa(2).key())]);
        let of = |which: usize, state| PeerKey { key: Arc::new(rsa(which).key()), state };
        assert_eq!(told.keys, [of(1, State::Signing), of(0, State::Verifying { until, signed_until })]);
        assert!(told.keys.iter().all(|told| !told.key.can_sign()));
        let (keeper, later) = (publisher(), signed_until.plus(Duration::from_secs(9)));
        assert_eq!(
            write(&keeper.own(later), keeper.retired(), WHO, later),
            document(),
            "nothing has changed"
        );
    }

    #[test]
    fn a10_a_document_of_another_deployment_or_with_a_private_key_is_refused_whole() {
        let changed = |change: &dyn Fn(&mut Value)| {
            let mut value: Value = serde_json::from_str(&document()).expect("JSON");
            change(&mut value);
            read(value.to_string().as_bytes(), "harbor").expect_err("no document")
        };
        assert_eq!(read(document().as_bytes(), "another"), Err(DocumentFault::Deployment));
        assert_eq!(changed(&|v| v["tidegate"]["deployment"] = "".into()), DocumentFault::Deployment);
        assert_eq!(changed(&|v| v["keys"][0]["d"] = "AQAB".into()), DocumentFault::PrivateKey);
        assert_eq!(changed(&|v| v["keys"][0]["k"] = "AQAB".into()), DocumentFault::PrivateKey);
        assert_eq!(changed(&|v| v["tidegate"]["v"] = 2.into()), DocumentFault::Version(2));
        assert_eq!(changed(&|v| v["tidegate"]["process"] = "".into()), DocumentFault::Format);
        assert_eq!(
            changed(&|v| v["tidegate"]["keys"][0]["state"] = "announced".into()),
            DocumentFault::Format
        );
        assert_eq!(changed(&|v| v["tidegate"]["keys"][1]["until"] = Value::Null), DocumentFault::Format);
        assert_eq!(changed(&|v| v["tidegate"]["keys"][0]["spki"] = "****".into()), DocumentFault::Format);
        let default =
            |v: &mut Value| v["tidegate"]["keys"][0]["alias"] = super::super::key::PUBLISHED_DEFAULT.into();
        assert_eq!(changed(&default), DocumentFault::Key(KeyFault::PublishedDefault));
        let many = |v: &mut Value| v["tidegate"]["retired"] = vec!["AAAA"; MOST_RETIRED + 1].into();
        assert_eq!(changed(&many), DocumentFault::TooMany);
        for garbage in ["", "{}", "[]", "<html>", r#"{"keys":[]}"#, r#"{"keys":[],"tidegate":7}"#] {
            assert_eq!(read(garbage.as_bytes(), "harbor"), Err(DocumentFault::Format), "{garbage}");
        }
    }

    #[test]
    fn a10_what_was_learned_or_came_from_elsewhere_is_not_in_the_own_document() {
        let mut keeper = keeper();
        keeper.observe(&file(), Ok(vec![rsa(0).key()]), NOW);
        let url = SourceName::new("https://keys.example/jwks.json");
        keeper.declare(&url, Listing { is_remote: true, ..Listing::default() });
        keeper.observe(&url, Ok(vec![rsa(1).key().without_private()]), NOW);
        let peer = Peer { name: SourceName::new("peer 10.0.0.2:8080"), process: "another-process".into() };
        let told = [PeerKey { key: Arc::new(rsa(2).key().without_private()), state: State::Signing }];
        let (ring, _) = keeper.learn(&peer, &told, &[], NOW);
        assert_eq!(ring.entries().filter(|entry| entry.state(NOW).verifies()).count(), 3);
        let own = write(&keeper.own(NOW), &[], WHO, NOW);
        let told = read(own.as_bytes(), "harbor").expect("a document");
        assert_eq!(told.keys.iter().map(|told| &*told.key).collect::<Vec<_>>(), [&rsa(0).key()]);
        assert_eq!(keeper.sourced(NOW).entries().count(), 2, "registries trust those of a URL as well");
    }
}
