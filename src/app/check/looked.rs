//! What `tidegate check` looked at, so that its reader sees whether it is what `serve` shall run with.

use std::{fmt, path::PathBuf};

use serde::Serialize;

use crate::app::{
    config::Settings,
    status::{
        Held, Key,
        render::{cut, held, short},
    },
};

/// What was looked at. Of a faulty configuration only what is sound.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Looked {
    /// The file; `None` = flags, environment and defaults alone.
    pub configuration: Option<PathBuf>,
    pub listeners: Vec<Listener>,
    /// The admin listener's address.
    pub admin: String,
    pub endpoints: Vec<Endpoint>,
    pub keys: Vec<Key>,
}

/// Where clients would connect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listener {
    pub address: String,
    pub tls: bool,
}

/// Where requests would go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Endpoint {
    pub name: String,
    /// `None` = it was not asked.
    pub up: Option<bool>,
    pub held: Held,
}

impl Looked {
    /// Takes over what sound settings name; the endpoints as not asked.
    pub fn at(&mut self, settings: &Settings) {
        let listener = |l: &crate::app::config::Listener| Listener {
            address: l.address.to_string(),
            tls: l.tls.is_some(),
        };
        self.listeners = settings.listeners.iter().map(listener).collect();
        self.admin = settings.admin.address.to_string();
        let unasked = |url: String| Endpoint { name: url, up: None, held: Held::Unknown };
        self.endpoints = settings.upstream.endpoints.iter().map(|e| unasked(e.url.to_string())).collect();
    }
}

/// At most 80 columns, but for a path that is longer by itself.
impl fmt::Display for Looked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.configuration {
            Some(path) => writeln!(f, "CONFIGURATION\n  {}", path.display())?,
            None => writeln!(f, "CONFIGURATION\n  flags and defaults (no file found)")?,
        }
        if !self.listeners.is_empty() {
            writeln!(f, "\nLISTENERS")?;
        }
        for listener in &self.listeners {
            writeln!(f, "  {:<44}  {}", listener.address, if listener.tls { "TLS" } else { "plain" })?;
        }
        if !self.admin.is_empty() {
            writeln!(f, "  {:<44}  admin", self.admin)?;
        }
        if !self.endpoints.is_empty() {
            writeln!(f, "\n{:<46}  {:<4}  HELD KEY", "ENDPOINTS", "")?;
        }
        for endpoint in &self.endpoints {
            let (up, held) = match endpoint.up {
                Some(true) => ("up", held(&endpoint.held)),
                Some(false) => ("DOWN", held(&endpoint.held)),
                None => ("", "not asked".to_owned()),
            };
            writeln!(f, "  {:<44}  {up:<4}  {held}", cut(&endpoint.name, 44))?;
        }
        writeln!(f, "\nKEYS")?;
        if self.keys.is_empty() {
            writeln!(f, "  none: tokens are re-routed and replayed, never re-signed")?;
        }
        let mut source = "";
        for key in &self.keys {
            if key.source != source {
                source = &key.source;
                writeln!(f, "  {source}")?;
            }
            writeln!(f, "    {:<24}  {:<7}  {}", short(&key.kid), key.half(), key.state)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_looked_at_fits_eighty_columns() {
        let kid = "TYTU:KVXO:KF25:35NA:GJ35:ZGKY:PGYT:I5UT:TGWY:UUI4:PT7Z:X3KW";
        let endpoint = |name: &str, up, held| Endpoint { name: name.to_owned(), up, held };
        let key = |private| Key {
            kid: kid.to_owned(),
            state: "signing".to_owned(),
            private,
            token: false,
            ends_in_seconds: None,
            source: "/etc/core/private_key.pem".to_owned(),
            ..Key::default()
        };
        let looked = Looked {
            configuration: None,
            listeners: vec![Listener { address: "[::]:8443".to_owned(), tls: true }],
            admin: "unix:/run/tidegate/admin.sock".to_owned(),
            endpoints: vec![
                endpoint("core:8080 10.0.0.5:8080", Some(true), Held::One(kid.to_owned())),
                endpoint(&"long.".repeat(20), Some(false), Held::Unknown),
                endpoint("http://core:8080", None, Held::Unknown),
            ],
            keys: vec![key(true), key(false)],
        };
        insta::assert_snapshot!(looked.to_string(), @r"
        CONFIGURATION
          flags and defaults (no file found)

        LISTENERS
          [::]:8443                                     TLS
          unix:/run/tidegate/admin.sock                 admin

        ENDPOINTS                                             HELD KEY
          core:8080 10.0.0.5:8080                       up    TYTU:KVXO:KF25:35NA:GJ3…
          long.long.long.long.long.long.long.long.lon…  DOWN  unknown
          http://core:8080                                    not asked

        KEYS
          /etc/core/private_key.pem
            TYTU:KVXO:KF25:35NA:GJ3…  private  signing
            TYTU:KVXO:KF25:35NA:GJ3…  public   signing
        ");
        assert!(looked.to_string().lines().all(|line| line.chars().count() <= 80), "{looked}");
    }
}
