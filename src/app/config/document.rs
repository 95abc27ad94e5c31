//! What was written, before anything is made of it: one tree out of file, environment and flags, and the place of each value.

use std::{collections::BTreeMap, path::Path};

use serde_json::{Map, Value};
use toml::de::{DeTable, DeValue};

use super::faults::{Fault, Place};

/// The tree, and where each of its values was written, by its path such as `listener[0].tls.key_file`.
pub struct Document {
    pub tree: Value,
    places: BTreeMap<String, Place>,
}

/// Nothing was written.
impl Default for Document {
    fn default() -> Self {
        Self { tree: Value::Object(Map::new()), places: BTreeMap::new() }
    }
}

impl Document {
    /// Reads a file as far as its syntax can be read; what can't be is returned.
    pub fn of_file(path: &Path, text: &str) -> (Self, Vec<Fault>) {
        let (table, errors) = DeTable::parse_recoverable(text);
        let place = |offset| place_in(path, text, offset);
        let mut document = Self::default();
        document.tree = document.add_table(&place, "", table.get_ref());
        let fault = |error: toml::de::Error| Fault {
            place: place(error.span().map_or(0, |span| span.start)),
            key: String::new(),
            found: format!("no TOML: {}", error.message()),
            expected: String::new(),
            remedy: "values of text stand in quotes, tables in [brackets]; see tidegate config reference"
                .to_owned(),
        };
        let faults = errors.into_iter().map(fault).collect();
        (document, faults)
    }

    fn add_table(&mut self, place: &dyn Fn(usize) -> Place, path: &str, table: &DeTable<'_>) -> Value {
        let mut members = Map::new();
        for (name, value) in table {
            let path = member(path, name.get_ref());
            self.places.insert(path.clone(), place(name.span().start));
            members.insert(name.get_ref().to_string(), self.add(place, &path, value.get_ref()));
        }
        Value::Object(members)
    }

    fn add(&mut self, place: &dyn Fn(usize) -> Place, path: &str, value: &DeValue<'_>) -> Value {
        match value {
            DeValue::Table(table) => self.add_table(place, path, table),
            DeValue::Array(array) => {
                let element = |(i, value): (usize, &toml::Spanned<DeValue<'_>>)| {
                    let path = format!("{path}[{i}]");
                    self.places.insert(path.clone(), place(value.span().start));
                    self.add(place, &path, value.get_ref())
                };
                Value::Array(array.iter().enumerate().map(element).collect())
            }
            scalar => scalar_value(scalar),
        }
    }

    /// Puts `value` in the place of whatever stood at `path`; tables on its way are made, elements of lists are there.
    pub fn set(&mut self, path: &str, place: &Place, value: Value) {
        self.places.retain(|known, _| !is_within(known, path));
        let mut node = &mut self.tree;
        let mut so_far = String::new();
        for part in path.split('.') {
            if !node.is_object() {
                *node = Value::Object(Map::new());
            }
            let (name, index) = indexed(part);
            so_far = member(&so_far, name);
            self.places.entry(so_far.clone()).or_insert_with(|| place.clone());
            node = &mut node[name];
            if let Some(element) = index.and_then(|index| node.get(index)).and(index) {
                so_far = format!("{so_far}[{element}]");
                node = &mut node[element];
            }
        }
        *node = value;
    }

    /// Whether a list has this element, such as `keys.sources[0]`.
    pub fn has(&self, path: &str) -> bool {
        let mut node = Some(&self.tree);
        for part in path.split('.') {
            let (name, index) = indexed(part);
            node = node.and_then(|node| node.get(name));
            if let Some(index) = index {
                node = node.and_then(|list| list.get(index));
            }
        }
        node.is_some()
    }

    /// Whether anything was written.
    pub fn says_anything(&self) -> bool {
        self.tree.as_object().is_some_and(|members| !members.is_empty())
    }

    /// Whether there is a value at `path`, names with slashes before each.
    pub fn says(&self, path: &str) -> bool {
        self.tree.pointer(path).is_some()
    }

    /// Where the value at `path` was written, or the nearest table around it that was.
    pub fn place(&self, path: &str) -> Place {
        let mut path = path;
        loop {
            if let Some(place) = self.places.get(path) {
                return place.clone();
            }
            match path.rfind(['.', '[']) {
                Some(end) => path = &path[..end],
                None => return Place::Default,
            }
        }
    }
}

/// `sources[0]` as a name and a number.
fn indexed(part: &str) -> (&str, Option<usize>) {
    match part.strip_suffix(']').and_then(|part| part.split_once('[')) {
        Some((name, index)) => (name, index.parse().ok()),
        None => (part, None),
    }
}

/// `name` below `path`.
pub fn member(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// Is `path` this outer one, or below it?
pub fn is_within(path: &str, outer: &str) -> bool {
    path.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// A value of TOML that is neither table nor array. Numbers beyond 64 bits stay text, which no number's check takes.
fn scalar_value(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Boolean(yes) => Value::Bool(*yes),
        DeValue::Integer(n) => i64::from_str_radix(n.as_str(), n.radix())
            .map_or_else(|_| Value::String(n.as_str().to_owned()), Value::from),
        DeValue::Float(n) => n
            .as_str()
            .parse()
            .ok()
            .and_then(serde_json::Number::from_f64)
            .map_or_else(|| Value::String(n.as_str().to_owned()), Value::Number),
        DeValue::Datetime(written) => Value::String(written.to_string()),
        DeValue::Array(_) | DeValue::Table(_) => Value::Null,
    }
}

/// One value in TOML, as an environment variable holds it; `None` where it is none.
pub fn value_of(text: &str) -> Option<Value> {
    let value = DeValue::parse(text).ok()?;
    Some(Document::default().add(&|_| Place::Default, "", value.get_ref()))
}

fn place_in(path: &Path, text: &str, offset: usize) -> Place {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |end| end + 1);
    Place::File {
        path: path.to_owned(),
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
    }
}
