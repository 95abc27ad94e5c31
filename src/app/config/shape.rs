//! Is each value of the tree one that its key may hold? What isn't is a fault and taken out, so that its default counts
//! and the rest can still be judged.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::{
    address::{EndpointUrl, url_remedy},
    document::{Document, member},
    faults::{Fault, nearest},
    later,
    reference::{self, Key, Kind, MOST},
    store_url::StoreUrl,
    written::{self, Written as _},
};

/// The faults, and the paths of what was taken out.
#[derive(Default)]
pub struct Shape {
    pub faults: Vec<Fault>,
    pub taken_out: BTreeSet<String>,
}

/// Judges every value of the document by itself.
pub fn check(document: &mut Document) -> Shape {
    let mut tree = std::mem::take(&mut document.tree);
    let keys = reference::keys().into_iter().map(|key| (key.path.clone(), key)).collect();
    let mut checker = Checker { document, keys, shape: Shape::default() };
    if let Value::Object(members) = &mut tree {
        checker.table("", "", members);
    }
    let shape = checker.shape;
    document.tree = tree;
    shape
}

struct Checker<'d> {
    document: &'d Document,
    keys: BTreeMap<String, Key>,
    shape: Shape,
}

impl Checker<'_> {
    /// `pattern` is `path` with `[]` for every index.
    fn table(&mut self, path: &str, pattern: &str, members: &mut Map<String, Value>) {
        members.retain(|name, value| {
            let (path, pattern) = (member(path, name), member(pattern, name));
            if let Some(feature) = later::feature(&pattern) {
                self.later(path, feature)
            } else if let Some(key) = self.keys.get(&pattern).cloned() {
                self.fits(&path, &pattern, &key.kind, value)
            } else {
                self.unknown(path, &pattern, name)
            }
        });
    }

    fn fits(&mut self, path: &str, pattern: &str, kind: &Kind, value: &mut Value) -> bool {
        match (kind, value) {
            (Kind::Table, Value::Object(members)) => self.table(path, pattern, members),
            (Kind::List(inner), Value::Array(elements)) => {
                let pattern = format!("{pattern}[]");
                let mut index = 0..;
                elements.retain_mut(|element| {
                    let path = format!("{path}[{}]", index.next().unwrap_or(usize::MAX));
                    self.fits(&path, &pattern, inner, element)
                });
            }
            (_, scalar) if holds(kind, scalar) => {}
            (_, other) => return self.unfit(path, pattern, kind, other),
        }
        true
    }

    fn unfit(&mut self, path: &str, pattern: &str, kind: &Kind, value: &Value) -> bool {
        let found = match kind {
            Kind::Secret => "a value of another type".to_owned(),
            // Somebody may have written a password into it.
            Kind::Written(format, _) if format == StoreUrl::FORMAT => "no place of a store".to_owned(),
            _ => shown(value),
        };
        let remedy = match (kind, value) {
            (Kind::List(inner), Value::Object(_)) if **inner == Kind::Table => format!("write [[{path}]]"),
            (Kind::Table, Value::String(_)) if pattern == "upstream.endpoints[]" => {
                "write { url = \"http://core:8080\" }".to_owned()
            }
            (Kind::Table, Value::String(_)) if pattern == "keys.sources[]" => {
                "write { file = \"/path\" }".to_owned()
            }
            (Kind::Written(format, _), Value::String(text)) if format == EndpointUrl::FORMAT => {
                url_remedy(text).unwrap_or_else(|| self.default_of(pattern))
            }
            (Kind::OneOf(names), Value::String(text)) => {
                match nearest(text, names.iter().map(String::as_str)) {
                    Some(meant) => format!("did you mean \"{meant}\"?"),
                    None => self.default_of(pattern),
                }
            }
            _ => self.default_of(pattern),
        };
        self.take_out(path.to_owned(), found, kind.expected(), remedy)
    }

    fn default_of(&self, pattern: &str) -> String {
        match self.keys.get(pattern).and_then(|key| key.default.as_ref()) {
            Some(default) if *default != Value::String(String::new()) => {
                format!("mend it, or remove it for the default {default}")
            }
            _ => String::new(),
        }
    }

    fn unknown(&mut self, path: String, pattern: &str, name: &str) -> bool {
        let parent = pattern.rfind('.').map_or("", |end| &pattern[..=end]);
        let sibling = |path: &str| {
            path.strip_prefix(parent).filter(|rest| !rest.contains(['.', '['])).map(str::to_owned)
        };
        let siblings: Vec<String> = self.keys.keys().filter_map(|path| sibling(path)).collect();
        let remedy = match nearest(name, siblings.iter().map(String::as_str)) {
            Some(meant) => format!("did you mean {meant}?"),
            None => format!("known here: {}", siblings.join(", ")),
        };
        self.take_out(path, "a key that nothing reads".to_owned(), String::new(), remedy)
    }

    fn later(&mut self, path: String, feature: &str) -> bool {
        let found = format!("a key that arrives with {feature}; not available in this version");
        self.take_out(path, found, String::new(), "remove it".to_owned())
    }

    fn take_out(&mut self, path: String, found: String, expected: String, remedy: String) -> bool {
        let place = self.document.place(&path);
        self.shape.faults.push(Fault { place, key: path.clone(), found, expected, remedy });
        self.shape.taken_out.insert(path);
        false
    }
}

/// Is this value one of these, where it is neither table nor list?
fn holds(kind: &Kind, value: &Value) -> bool {
    match (kind, value) {
        (Kind::YesNo, Value::Bool(_)) | (Kind::Secret | Kind::Text, Value::String(_)) => true,
        (Kind::Whole(least), Value::Number(n)) => {
            n.as_i64().is_some_and(|n| (*least..=i64::from(MOST)).contains(&n))
        }
        (Kind::OneOf(names), Value::String(text)) => names.contains(text),
        (Kind::Written(format, may_be_empty), Value::String(text)) => {
            (*may_be_empty && text.is_empty()) || written::reads(format, text)
        }
        _ => false,
    }
}

/// The value for a fault's `found`; of long texts the beginning.
pub fn shown(value: &Value) -> String {
    const LONGEST: usize = 60;
    match value {
        Value::Object(_) => "a table".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::String(text) if text.chars().count() > LONGEST => {
            format!("{:?}…", text.chars().take(LONGEST).collect::<String>())
        }
        scalar => scalar.to_string(),
    }
}
