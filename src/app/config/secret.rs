//! Secrets of the configuration: given as a value, or as the file that holds them; never both, never shown.

use std::{borrow::Cow, fmt, path::PathBuf};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
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

/// A field of the raw configuration with a secret's value. It serialises as empty, so that nothing can write it.
#[derive(Clone, Default)]
pub struct SecretText(pub Option<Secret>);

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for SecretText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("")
    }
}

impl<'de> Deserialize<'de> for SecretText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Ok(Self::of(text))
    }
}

/// `writeOnly` is how a JSON schema marks a secret; [`super::faults`] shows no value of such a key.
impl JsonSchema for SecretText {
    fn schema_name() -> Cow<'static, str> {
        "secret".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "secret", "writeOnly": true })
    }
}

impl SecretText {
    /// Empty is none.
    pub fn of(text: String) -> Self {
        Self((!text.is_empty()).then(|| Secret::new(text)))
    }
}
