//! The record of what an operator ended at once (A9, A20).

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use crate::{
    decisions::key::{Key, KeyFault},
    words::clock::UnixTime,
};

/// The format that this version writes.
const VERSION: u32 = 1;

/// Something that means nothing any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Revocation {
    /// A key, by its `SubjectPublicKeyInfo` in DER: whatever name a token gives, its signature is looked for.
    Key { spki: Vec<u8>, at: UnixTime },
}

/// It is no revocation that this version knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no record of a revocation that this version knows")]
pub struct NoRevocation;

#[derive(Deserialize, Serialize)]
struct Written {
    v: u32,
    of: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    spki: Option<String>,
    at: i64,
}

impl Revocation {
    pub fn write(&self) -> Vec<u8> {
        let Self::Key { spki, at } = self;
        let written =
            Written { v: VERSION, of: "key".to_owned(), spki: Some(STANDARD.encode(spki)), at: at.0 };
        // Texts and numbers alone: this can't fail.
        serde_json::to_vec(&written).unwrap_or_default()
    }

    pub fn read(text: &[u8]) -> Result<Self, NoRevocation> {
        let written: Written = serde_json::from_slice(text).map_err(|_| NoRevocation)?;
        let spki = written.spki.filter(|_| written.of == "key").ok_or(NoRevocation)?;
        let spki = STANDARD.decode(spki).map_err(|_| NoRevocation)?;
        Ok(Self::Key { spki, at: UnixTime(written.at) })
    }

    /// The key that it ends.
    pub fn key(&self) -> Result<Key, KeyFault> {
        let Self::Key { spki, .. } = self;
        Key::of_spki(spki, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decisions::key::forge::rsa;

    #[test]
    fn a_revocation_is_read_as_it_was_written_and_unknown_ones_are_refused() {
        let revocation = Revocation::Key { spki: rsa(0).key().spki().to_vec(), at: UnixTime(7) };
        assert_eq!(Revocation::read(&revocation.write()), Ok(revocation.clone()));
        assert_eq!(revocation.key().as_ref(), Ok(&rsa(0).key()));
        for text in ["", "{}", r#"{"v":1,"of":"moon","spki":"","at":1}"#] {
            assert_eq!(Revocation::read(text.as_bytes()), Err(NoRevocation), "{text}");
        }
    }
}
