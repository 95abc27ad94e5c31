//! Secrets of the configuration: given as a value, or as the file that holds them; never both, never shown.

use std::{fmt, path::PathBuf};

use zeroize::Zeroizing;

/// A secret text. `Debug` doesn't show it, and its memory is wiped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text itself, for whoever compares it or hands it to a library.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A secret, a certificate or a key: its value, or the file to read it from (again, when the file changes).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Material {
    Inline(Secret),
    File(PathBuf),
}
