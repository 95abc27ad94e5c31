//! Tokens taken apart and made anew with any key.

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use serde_json::Value;
use tidegate::rehearsal::harbor::CoreKey;

/// A registry token.
#[derive(Clone, Debug)]
pub struct Bearer {
    text: String,
    pub header: Value,
    pub claims: Value,
}

impl Bearer {
    pub fn parse(text: &str) -> Self {
        let parts: Vec<&str> = text.split('.').collect();
        let part = |text: &str| -> Value {
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).expect("base64url")).expect("JSON")
        };
        Self { text: text.to_owned(), header: part(parts[0]), claims: part(parts[1]) }
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// The name of the key that it says it was signed with.
    pub fn kid(&self) -> &str {
        self.header["kid"].as_str().expect("a kid")
    }

    /// The same claims under this name, signed by `key`.
    pub fn signed(&self, kid: &str, key: &CoreKey) -> Self {
        self.changed(|header, _| header["kid"] = kid.into(), key)
    }

    /// With header and claims changed, signed by `key`.
    pub fn changed(&self, change: impl FnOnce(&mut Value, &mut Value), key: &CoreKey) -> Self {
        let (mut header, mut claims) = (self.header.clone(), self.claims.clone());
        change(&mut header, &mut claims);
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(&header), part(&claims));
        let signature = URL_SAFE_NO_PAD.encode(key.sign(message.as_bytes()).expect("a signature"));
        Self { text: format!("{message}.{signature}"), header, claims }
    }
}

/// The value of `Authorization` for a name and a secret.
pub fn basic(name: &str, secret: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{name}:{secret}")))
}
