//! The record of a key's private half, where the configuration wants it kept: gone with the record of its key.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::decisions::key::{Key, KeyFault};

/// The format that this version writes.
const VERSION: u32 = 1;

/// Why a record can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrivateHalfFault {
    #[error("it is no record of a private half")]
    Format,
    #[error("its key can't be used")]
    Key(#[from] KeyFault),
}

#[derive(Deserialize, Serialize)]
struct Written {
    v: u32,
    /// `PrivateKeyInfo` in DER.
    pkcs8: String,
    /// The host that keeps it.
    #[serde(default)]
    by: String,
}

impl Drop for Written {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.pkcs8);
    }
}

/// Kept by this host; `None` where the private half isn't here, or can't be taken from where it is.
pub fn write(key: &Key, by: &str) -> Option<Vec<u8>> {
    let written = Written { v: VERSION, pkcs8: STANDARD.encode(&*key.pkcs8()?), by: by.to_owned() };
    serde_json::to_vec(&written).ok()
}

/// The whole key.
pub fn read(text: &[u8]) -> Result<Key, PrivateHalfFault> {
    let written: Written = serde_json::from_slice(text).map_err(|_| PrivateHalfFault::Format)?;
    let der = Zeroizing::new(STANDARD.decode(&written.pkcs8).map_err(|_| PrivateHalfFault::Format)?);
    Ok(Key::of_pkcs8(&der)?)
}

/// The host that keeps it; empty where the record doesn't say.
pub fn keeper(text: &[u8]) -> String {
    serde_json::from_slice(text)
        .map_or_else(|_| String::new(), |mut written: Written| std::mem::take(&mut written.by))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decisions::key::forge::{ec, rsa};

    #[test]
    fn a_private_half_is_read_as_it_was_written_and_signs() {
        for key in [rsa(0).key(), ec().key()] {
            let written = write(&key, "core-0").expect("a record");
            assert_eq!((&*keeper(&written), &*keeper(b"{}")), ("core-0", ""));
            let read = read(&written).expect("a key");
            assert_eq!((&read, read.can_sign()), (&key, true));
            assert!(key.verifies(b"m", &read.sign(b"m").expect("a signature")));
        }
        assert!(write(&rsa(0).key().without_private(), "").is_none());
        for text in ["", "{}", r#"{"v":1,"pkcs8":"?"}"#, r#"{"v":1,"pkcs8":"AAAA"}"#] {
            assert!(super::read(text.as_bytes()).is_err(), "{text}");
        }
    }
}
