//! Keys in PKCS#11 tokens: their public halves are read, and what they sign is signed in the token.
//!
//! A module is foreign code within this process, and may hang for as long as it likes. So each source calls it on
//! threads of its own, with a bounded queue; nobody waits for them without a limit, and a call that doesn't come back
//! costs that source, and other sources of the same module a new beginning of it, which no call may run beside.

mod lane;
mod login;
mod module;
mod objects;
mod trouble;
mod watch;

use std::{
    fmt::{self, Write as _},
    path::PathBuf,
    time::Duration,
};

use zeroize::Zeroizing;

pub(super) use self::{
    module::Modules,
    watch::{Reading, Watched},
};
use crate::decisions::ring::SourceName;

/// Where keys lie, and what opens it.
#[derive(Clone, PartialEq, Eq)]
pub struct Location {
    /// The vendor's library.
    pub module: PathBuf,
    /// The token's label.
    pub token: String,
    /// The objects' label; `None` = any.
    pub label: Option<String>,
    /// The objects' id; `None` = any.
    pub id: Option<Vec<u8>>,
    pub pin: Pin,
    /// How often the token is looked at, beside when somebody asks.
    pub every: Duration,
}

/// What logs in to a token.
#[derive(Clone, PartialEq, Eq)]
pub enum Pin {
    /// Read at each log-in.
    File(PathBuf),
    Value(Zeroizing<String>),
}

impl Location {
    /// Its URI (RFC 7512), without what opens it: what operators read.
    pub fn name(&self) -> SourceName {
        let mut text = format!("pkcs11:token={}", escaped(self.token.as_bytes()));
        if let Some(label) = &self.label {
            let _ = write!(text, ";object={}", escaped(label.as_bytes()));
        }
        if let Some(id) = &self.id {
            text.push_str(";id=");
            for byte in id {
                let _ = write!(text, "%{byte:02x}");
            }
        }
        SourceName::new(&text)
    }
}

/// What a URI's attribute may hold as it is; the rest in percent.
fn escaped(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~[]@!$'()*+,=&:".contains(byte) {
            text.push(char::from(*byte));
        } else {
            let _ = write!(text, "%{byte:02x}");
        }
    }
    text
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Location({}, {})", self.module.display(), self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_named_by_its_uri_and_never_by_its_pin() {
        let location = |label: Option<&str>, id: Option<&[u8]>| Location {
            module: "/usr/lib/module.so".into(),
            token: "harbor; 1".to_owned(),
            label: label.map(str::to_owned),
            id: id.map(<[u8]>::to_vec),
            pin: Pin::Value(Zeroizing::new("hush".to_owned())),
            every: Duration::from_secs(5),
        };
        for (location, name) in [
            (location(Some("core"), None), "pkcs11:token=harbor%3b%201;object=core"),
            (location(None, Some(&[1, 0xab])), "pkcs11:token=harbor%3b%201;id=%01%ab"),
            (location(Some("ä"), Some(&[1])), "pkcs11:token=harbor%3b%201;object=%c3%a4;id=%01"),
        ] {
            assert_eq!(location.name().as_str(), name);
            assert!(!format!("{location:?}").contains("hush"));
        }
    }
}
