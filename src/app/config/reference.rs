//! The configuration's keys as data, out of the schema that the raw types give: what the checks, the documentation and the
//! file of defaults are made from.

use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::raw;

/// One key of the configuration.
#[derive(Clone, Debug)]
pub struct Key {
    /// Names with dots between; `[]` after a name whose elements are meant.
    pub path: String,
    pub kind: Kind,
    /// As JSON; `None` for tables, and where the key may be absent.
    pub default: Option<Value>,
    /// What it does, in words for operators.
    pub meaning: String,
}

/// What a key may hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    Table,
    /// A list of this.
    List(Box<Kind>),
    YesNo,
    /// A whole number from this one to [`MOST`].
    Whole(i64),
    OneOf(Vec<String>),
    /// A text of a format that [`super::written::Written`] names; may it be empty.
    Written(String, bool),
    /// A text of which nothing is to be shown.
    Secret,
    Text,
}

/// The largest number that any key takes.
pub const MOST: u32 = u32::MAX;

/// The JSON schema, draft 2020-12, without references. Defaults of tables are left to their members.
pub fn schema() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<raw::Root>().to_value();
    tidy(&mut schema);
    schema["title"] = "tidegate".into();
    schema
}

/// Removes defaults that repeat a table's members, and joins the lines of descriptions.
fn tidy(schema: &mut Value) {
    let Some(object) = schema.as_object_mut() else { return };
    if object.get("default").is_some_and(Value::is_object) {
        object.shift_remove("default");
    }
    if let Some(Value::String(text)) = object.get_mut("description") {
        *text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    }
    for (name, inner) in object.iter_mut() {
        match inner {
            Value::Object(properties) if name == "properties" => properties.values_mut().for_each(tidy),
            _ if name == "items" => tidy(inner),
            _ => {}
        }
    }
}

/// Every key, tables before their members, in the order in which the types declare them.
pub fn keys() -> Vec<Key> {
    let mut keys = Vec::new();
    members("", &schema(), &mut keys);
    keys
}

fn members(path: &str, schema: &Value, keys: &mut Vec<Key>) {
    let Some(properties) = schema["properties"].as_object() else { return };
    for (name, property) in properties {
        let path = super::document::member(path, name);
        let kind = kind_of(property);
        let is_table = kind == Kind::Table;
        keys.push(Key {
            path: path.clone(),
            default: if is_table { None } else { property.get("default").cloned() },
            meaning: property["description"].as_str().unwrap_or_default().to_owned(),
            kind: kind.clone(),
        });
        match kind {
            Kind::Table => members(&path, property, keys),
            Kind::List(inner) if *inner == Kind::Table => {
                members(&format!("{path}[]"), &property["items"], keys);
            }
            _ => {}
        }
    }
}

fn kind_of(schema: &Value) -> Kind {
    if let Some(names) = schema["enum"].as_array() {
        return Kind::OneOf(names.iter().filter_map(Value::as_str).map(str::to_owned).collect());
    }
    match (schema["type"].as_str(), schema["format"].as_str()) {
        (Some("object"), _) => Kind::Table,
        (Some("array"), _) => Kind::List(Box::new(kind_of(&schema["items"]))),
        (Some("boolean"), _) => Kind::YesNo,
        (Some("integer"), _) => Kind::Whole(schema["minimum"].as_i64().unwrap_or(0)),
        (_, Some("secret")) => Kind::Secret,
        (_, Some(format)) => Kind::Written(format.to_owned(), schema["minLength"].is_null()),
        _ => Kind::Text,
    }
}

impl Kind {
    /// What an operator may write, as the end of "expected …".
    pub fn expected(&self) -> String {
        let text = match self {
            Self::Table => "a table",
            Self::List(inner) if **inner == Self::Table => "a list of tables",
            Self::List(inner) => return format!("a list of texts in [ ], each {}", inner.expected()),
            Self::YesNo => "true or false",
            Self::Whole(least) => return format!("a whole number from {least} to {MOST}, without quotes"),
            Self::OneOf(names) => return one_of(names),
            Self::Secret | Self::Text => "a text in quotes",
            Self::Written(format, _) => expected_of_format(format),
        };
        text.to_owned()
    }

    /// Its name in the table of all keys.
    pub fn name(&self) -> String {
        match self {
            Self::Table => "table".to_owned(),
            Self::List(inner) => format!("list of {}", inner.name()),
            Self::YesNo => "true or false".to_owned(),
            Self::Whole(_) => "whole number".to_owned(),
            Self::OneOf(names) => one_of(names),
            Self::Secret => "secret text".to_owned(),
            Self::Text => "text".to_owned(),
            Self::Written(format, _) => format.clone(),
        }
    }
}

fn one_of(names: &[String]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.join(""),
    }
}

/// Formats and what they look like.
pub const FORMATS: [(&str, &str); 12] = [
    ("time", "a time: a whole number and ms, s, m, h or d without a space, such as \"45s\""),
    ("size", "a size: a whole number and B, KiB, MiB, GiB or TiB without a space, such as \"64KiB\""),
    ("rate", "a rate: so many in each s, min or h, such as \"10/min\""),
    (
        "address",
        "an IP address and port such as \"[::]:8080\" or \"127.0.0.1:8080\", or \":8080\" for all addresses",
    ),
    ("address or unix socket", "an IP address and port such as \"127.0.0.1:9180\", or \"unix:/path\""),
    ("url", "scheme, host and port alone, such as \"http://core:8080\""),
    ("network", "a network or an address such as \"10.0.0.0/8\""),
    ("key id", "up to 128 visible ASCII characters without quotes and backslashes"),
    (
        "store",
        "\"auto\", \"memory:\", \"file:/path\", or servers without a password: \"redis://user@host:6379/0\", \"redis-sentinel://host:26379,host:26379/name\", \"redis-cluster://host:6379,host:6379\"; \"rediss…\" for TLS",
    ),
    ("traffic", "\"project:p\", \"agent:x\" (a part of User-Agent) or \"source:10.0.0.0/8\""),
    ("part", "a part in percent from 0% to 100%, such as \"1%\" or \"0.5%\""),
    ("date-time", "a point in time with its zone, such as 2026-12-01T20:00:00Z"),
];

fn expected_of_format(format: &str) -> &'static str {
    FORMATS.iter().find(|known| known.0 == format).map_or("a text in quotes", |known| known.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_says_what_it_does() {
        for key in keys() {
            assert!(!key.meaning.is_empty(), "{} has no doc comment", key.path);
            let tableless = !matches!(key.kind, Kind::Table | Kind::List(_));
            assert!(!tableless || key.meaning.ends_with(['.', '!']), "{}: {}", key.path, key.meaning);
        }
    }

    #[test]
    fn every_format_is_explained() {
        for key in keys() {
            if let Kind::Written(format, _) = &key.kind {
                assert!(FORMATS.iter().any(|known| known.0 == format), "{format}");
            }
        }
    }

    #[test]
    fn keys_carry_kind_and_default() {
        let all = keys();
        let find = |path: &str| all.iter().find(|key| key.path == path).cloned();
        let every = find("upstream.probe.every").map(|key| (key.kind, key.default));
        assert_eq!(every, Some((Kind::Written("time".into(), false), Some("30s".into()))));
        let key = find("admin.token").map(|key| key.kind);
        assert_eq!(key, Some(Kind::Secret));
    }
}
