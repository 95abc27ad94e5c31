//! The record of a secret that all processes of a deployment share: made once, by whoever comes first.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// The format that this version writes.
const VERSION: u32 = 1;
/// Bytes of a secret.
pub const BYTES: usize = 32;

/// It is no secret that this version knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no record of a secret that this version knows")]
pub struct NoSecret;

#[derive(Deserialize, Serialize)]
struct Written {
    v: u32,
    secret: String,
}

impl Drop for Written {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.secret);
    }
}

pub fn write(secret: &[u8; BYTES]) -> Zeroizing<Vec<u8>> {
    let written = Written { v: VERSION, secret: STANDARD.encode(secret) };
    // Texts and numbers alone: this can't fail.
    serde_json::to_vec(&written).unwrap_or_default().into()
}

pub fn read(text: &[u8]) -> Result<Zeroizing<[u8; BYTES]>, NoSecret> {
    let written: Written = serde_json::from_slice(text).map_err(|_| NoSecret)?;
    let bytes = Zeroizing::new(STANDARD.decode(&written.secret).map_err(|_| NoSecret)?);
    <[u8; BYTES]>::try_from(bytes.as_slice()).map(Zeroizing::new).map_err(|_| NoSecret)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_read_as_it_was_written() {
        assert_eq!(read(&write(&[5; BYTES])).as_deref(), Ok(&[5; BYTES]));
        for text in ["", "{}", r#"{"v":1,"secret":"AAAA"}"#, r#"{"v":1,"secret":"?"}"#] {
            assert_eq!(read(text.as_bytes()), Err(NoSecret), "{text}");
        }
    }
}
