//! The environment and the flags, laid over what the file says.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{
    document::{Document, member, value_of},
    faults::{Fault, Place, nearest},
    later,
    reference::{self, Key, Kind},
};

/// What the command line says about the configuration. Where anything is given, it replaces what the file says.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// `--harbor`: the one endpoint.
    pub harbor: Option<String>,
    /// `--listen`: the addresses of plain listeners.
    pub listen: Vec<String>,
    /// `--key`: files, or folders where they end with `/`.
    pub keys: Vec<PathBuf>,
    /// `--observe`.
    pub observe: bool,
}

/// What an environment variable of ours begins with.
pub const PREFIX: &str = "TIDEGATE_";
/// It names the file, and is no key.
pub const FILE: &str = "TIDEGATE_CONFIG";

/// Lays the variables over the document. `TIDEGATE_UPSTREAM__PROBE__EVERY` replaces `upstream.probe.every`: texts as
/// they are, everything else as TOML. A number names one of a list that the file has:
/// `TIDEGATE_KEYS__SOURCES__0__PKCS11__PIN`.
pub fn environment(document: &mut Document, variables: &[(String, String)]) -> Vec<Fault> {
    let keys = reference::keys();
    let mut faults = Vec::new();
    for (name, text) in variables {
        let Some(rest) = name.strip_prefix(PREFIX).filter(|_| name != FILE) else { continue };
        let path = path_of(rest, document);
        let pattern = pattern(&path);
        let key = keys.iter().find(|key| key.path == pattern);
        match key.map(|key| &key.kind) {
            None if later::covers(&path) => document.set(&path, &place(name), Value::Null),
            None => faults.extend(unknown(name, &path, &keys)),
            Some(Kind::OneOf(_) | Kind::Written(..) | Kind::Secret | Kind::Text) => {
                document.set(&path, &place(name), text.clone().into());
            }
            Some(kind) => match value_of(text) {
                Some(value) => document.set(&path, &place(name), value),
                None => faults.push(Fault {
                    place: place(name),
                    key: path,
                    found: "a text that is no value in TOML".to_owned(),
                    expected: kind.expected(),
                    remedy: "write it as in the file, such as true, 512 or [\"10.0.0.0/8\"]".to_owned(),
                }),
            },
        }
    }
    faults
}

/// `KEYS__SOURCES__0__FILE` as `keys.sources[0].file`, if there is such a source.
fn path_of(name: &str, document: &Document) -> String {
    let mut path = String::new();
    for part in name.to_ascii_lowercase().split("__") {
        let element = format!("{path}[{part}]");
        let is_number = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        path = if is_number && document.has(&element) { element } else { member(&path, part) };
    }
    path
}

/// The same for any of the list.
fn pattern(path: &str) -> String {
    let mut parts = path.split('[');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |pattern, rest| {
        format!("{pattern}[{}", rest.trim_start_matches(|c: char| c.is_ascii_digit()))
    })
}

fn place(variable: &str) -> Place {
    Place::Variable(variable.to_owned())
}

/// A variable that names no key. Kubernetes sets some of its own in the pods of a Service named tidegate
/// (`TIDEGATE_PORT`, `TIDEGATE_SERVICE_HOST`): without `__`, only what is nearly a key is taken for one.
fn unknown(name: &str, path: &str, keys: &[Key]) -> Option<Fault> {
    let meant = nearest(path, keys.iter().map(|key| key.path.as_str()).filter(|path| !path.contains('[')));
    if meant.is_none() && !path.contains('.') {
        return None;
    }
    let variable = |path: &str| format!("{PREFIX}{}", path.to_ascii_uppercase().replace('.', "__"));
    Some(Fault {
        place: place(name),
        key: path.to_owned(),
        found: "a key that nothing reads".to_owned(),
        expected: String::new(),
        remedy: match meant {
            Some(meant) => format!("did you mean {}?", variable(meant)),
            None => "see tidegate config reference for all keys".to_owned(),
        },
    })
}

/// Lays the flags over the document.
pub fn flags(document: &mut Document, flags: &Flags) {
    let place = |name: &str| Place::Flag(name.to_owned());
    if let Some(url) = &flags.harbor {
        document.set("upstream.endpoints", &place("--harbor"), json!([{ "url": url }]));
    }
    if !flags.listen.is_empty() {
        let listeners = flags.listen.iter().map(|address| json!({ "address": address })).collect();
        document.set("listener", &place("--listen"), Value::Array(listeners));
    }
    if !flags.keys.is_empty() {
        let sources = flags.keys.iter().map(|path| key_source(path)).collect();
        document.set("keys.sources", &place("--key"), Value::Array(sources));
    }
    if flags.observe {
        document.set("mode", &place("--observe"), "observe".into());
    }
}

fn key_source(path: &Path) -> Value {
    let text = path.to_string_lossy();
    if text.ends_with('/') { json!({ "folder": text }) } else { json!({ "file": text }) }
}
