//! An archive of keys as data: the files that sources are (private halves too), what was retired at once, and the
//! windows that were open. It is for one deployment (A10), and in one envelope.

pub mod envelope;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize as _, Zeroizing};

use super::{
    key::{self, Key, KeyFault},
    record::{revocation::Revocation, seen_key::SeenKey},
    window::Order,
};
use crate::words::clock::UnixTime;

/// The format that this version writes. It never loses a member, and never changes one's meaning.
const VERSION: u32 = 1;

/// What an archive holds.
#[derive(Debug)]
pub struct Archive {
    /// Empty where it has no name.
    pub deployment: String,
    pub made: UnixTime,
    pub files: Vec<KeptFile>,
    pub known: Known,
}

/// A key file as it was found.
pub struct KeptFile {
    pub path: String,
    pub bytes: Zeroizing<Vec<u8>>,
    pub owner: u32,
    pub group: u32,
    /// The nine bits of `chmod`.
    pub bits: u32,
}

impl std::fmt::Debug for KeptFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeptFile({}, {} bytes)", self.path, self.bytes.len())
    }
}

impl KeptFile {
    /// The keys in it.
    pub fn keys(&self) -> Result<Vec<Key>, KeyFault> {
        key::parse(&self.bytes)
    }
}

/// What a process knows of keys beside its sources, in the store's own records: public halves alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// Records of keys seen.
    pub seen: Vec<String>,
    /// Records of what was retired at once.
    pub retired: Vec<String>,
    /// Records of what else was revoked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub revoked: Vec<String>,
    /// The record of the upgrade window.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<String>,
}

/// Why an archive can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContentFault {
    #[error("what is in it is of a later version of tidegate")]
    Later,
    #[error("it was made for the deployment \"{found}\", and this one is \"{here}\"")]
    Deployment { found: String, here: String },
}

impl Known {
    pub fn of(seen: &[SeenKey], ended: &[Revocation], window: Option<Order>) -> Self {
        let text = |record: Vec<u8>| String::from_utf8(record).unwrap_or_default();
        let is_key = |ended: &&Revocation| ended.key().is_some();
        Self {
            seen: seen.iter().map(|seen| text(seen.write())).collect(),
            retired: ended.iter().filter(is_key).map(|ended| text(ended.write())).collect(),
            revoked: ended.iter().filter(|ended| !is_key(ended)).map(|ended| text(ended.write())).collect(),
            windows: window.iter().map(|window| text(window.write())).collect(),
        }
    }

    /// The keys seen and the keys retired. One record that says nothing to this version makes all of it unusable: what
    /// it retires must not be passed over.
    pub fn read(&self) -> Result<(Vec<SeenKey>, Vec<Key>), ContentFault> {
        let seen = self.seen.iter().map(|text| {
            let seen = SeenKey::read(text.as_bytes()).ok()?;
            seen.key().ok().map(|_| seen)
        });
        let retired = self.retired.iter().map(|text| Revocation::read(text.as_bytes()).ok()?.key()?.ok());
        let (seen, retired) = (seen.collect::<Option<_>>(), retired.collect::<Option<_>>());
        seen.zip(retired).ok_or(ContentFault::Later)
    }

    /// What else was revoked, and the upgrade window.
    pub fn read_orders(&self) -> Result<(Vec<Revocation>, Option<Order>), ContentFault> {
        let revoked = self.revoked.iter().map(|text| Revocation::read(text.as_bytes()).ok());
        let windows = self.windows.iter().map(|text| Order::read(text.as_bytes()).ok());
        let (revoked, windows) = (revoked.collect::<Option<_>>(), windows.collect::<Option<Vec<_>>>());
        let (revoked, windows) = revoked.zip(windows).ok_or(ContentFault::Later)?;
        Ok((revoked, windows.into_iter().reduce(Order::or_later)))
    }
}

#[derive(Serialize, Deserialize)]
struct Written {
    v: u32,
    deployment: String,
    made: i64,
    files: Vec<WrittenFile>,
    #[serde(flatten)]
    known: Known,
}

#[derive(Serialize, Deserialize)]
struct WrittenFile {
    path: String,
    bytes: String,
    owner: u32,
    group: u32,
    bits: u32,
}

impl Drop for WrittenFile {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

impl Archive {
    /// As it goes into the envelope.
    pub fn write(&self) -> Zeroizing<Vec<u8>> {
        let file = |file: &KeptFile| WrittenFile {
            path: file.path.clone(),
            bytes: STANDARD.encode(&*file.bytes),
            owner: file.owner,
            group: file.group,
            bits: file.bits,
        };
        let written = Written {
            v: VERSION,
            deployment: self.deployment.clone(),
            made: self.made.0,
            files: self.files.iter().map(file).collect(),
            known: self.known.clone(),
        };
        // Room for all of it at once, so that no copy of a secret stays behind.
        let files = written.files.iter().map(|file| file.bytes.len() + file.path.len() + 200).sum::<usize>();
        let Known { seen, retired, revoked, windows } = &written.known;
        let records = seen.iter().chain(retired).chain(revoked).chain(windows).map(|text| 2 * text.len() + 8);
        let mut text = Zeroizing::new(Vec::with_capacity(files + records.sum::<usize>() + 1_000));
        // Texts and numbers alone: this can't fail.
        let _ = serde_json::to_writer(&mut *text, &written);
        text
    }

    /// Members that a later version adds are passed over.
    pub fn read(text: &[u8]) -> Result<Self, ContentFault> {
        let written: Written = serde_json::from_slice(text).map_err(|_| ContentFault::Later)?;
        let file = |file: &WrittenFile| {
            let bytes = Zeroizing::new(STANDARD.decode(&file.bytes).ok()?);
            let path = file.path.clone();
            let kept = KeptFile { path, bytes, owner: file.owner, group: file.group, bits: file.bits };
            kept.keys().ok().map(|_| kept)
        };
        let files = written.files.iter().map(file).collect::<Option<Vec<_>>>();
        let archive = Self {
            deployment: written.deployment,
            made: UnixTime(written.made),
            files: files.ok_or(ContentFault::Later)?,
            known: written.known,
        };
        archive.known.read()?;
        archive.known.read_orders()?;
        Ok(archive)
    }
}

/// A10: keys of one deployment never get into another's ring.
pub fn fits(archived: &str, here: &str) -> Result<(), ContentFault> {
    if archived == here {
        return Ok(());
    }
    Err(ContentFault::Deployment { found: archived.to_owned(), here: here.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decisions::{key::forge::rsa, record::seen_key::Life};

    fn archive() -> Archive {
        let seen = SeenKey {
            spki: rsa(1).key().spki().to_vec(),
            declared: None,
            source: "/etc/core/private_key.pem".to_owned(),
            life: Life::Verifying { signed_until: UnixTime(5), until: UnixTime(9) },
            listed_end: None,
            lists_ends: true,
            is_own: true,
        };
        let retired = Revocation::Key { spki: rsa(2).key().spki().to_vec(), at: UnixTime(7) };
        let name = "dev".to_owned();
        let revoked = Revocation::Subject { name, not_before: UnixTime(7), at: UnixTime(6) };
        let window = Order { opened: UnixTime(3), until: UnixTime(9), said: UnixTime(3) };
        let bytes = Zeroizing::new(rsa(0).pkcs1_pem().into_bytes());
        let path = "/etc/core/private_key.pem".to_owned();
        Archive {
            deployment: "harbor".to_owned(),
            made: UnixTime(8),
            files: vec![KeptFile { path, bytes, owner: 10_000, group: 10_001, bits: 0o640 }],
            known: Known::of(&[seen], &[retired, revoked], Some(window)),
        }
    }

    #[test]
    fn an_archive_is_read_as_it_was_written() {
        let read = Archive::read(&archive().write()).expect("an archive");
        let file = &read.files[0];
        assert_eq!(*file.bytes, rsa(0).pkcs1_pem().into_bytes(), "byte for byte");
        assert_eq!((file.owner, file.group, file.bits), (10_000, 10_001, 0o640));
        assert_eq!((read.made, &read.known), (UnixTime(8), &archive().known));
        let (seen, retired) = read.known.read().expect("records");
        assert_eq!((seen.len(), retired), (1, vec![rsa(2).key()]));
        let (revoked, window) = read.known.read_orders().expect("records");
        assert_eq!((revoked.len(), window.map(|window| window.until)), (1, Some(UnixTime(9))));
        let shown = format!("{read:?}");
        assert!(!shown.contains("PRIVATE") && !shown.contains(&STANDARD.encode(&*file.bytes)[..40]));
    }

    #[test]
    fn members_of_a_later_version_are_passed_over_and_what_is_not_understood_is_refused() {
        let mut later: serde_json::Value = serde_json::from_slice(&archive().write()).expect("JSON");
        later["v"] = 2.into();
        later["colour"] = "green".into();
        assert!(Archive::read(later.to_string().as_bytes()).is_ok());
        for (member, value) in [
            ("retired", serde_json::json!([r#"{"v":9,"of":"moon","at":1}"#])),
            ("seen", serde_json::json!(["{}"])),
            ("revoked", serde_json::json!(["{}"])),
            ("windows", serde_json::json!(["{}"])),
            (
                "files",
                serde_json::json!([{"path": "/k", "bytes": "AAAA", "owner": 0, "group": 0, "bits": 0}]),
            ),
        ] {
            let mut bad = later.clone();
            bad[member] = value;
            let refused = Archive::read(bad.to_string().as_bytes()).map(|_| ());
            assert_eq!(refused, Err(ContentFault::Later), "{member}");
        }
    }

    #[test]
    fn a10_an_archive_is_for_one_deployment() {
        assert_eq!(fits("harbor", "harbor"), Ok(()));
        let fault = fits("harbor", "other").expect_err("another one").to_string();
        assert_eq!(fault, "it was made for the deployment \"harbor\", and this one is \"other\"");
    }
}
