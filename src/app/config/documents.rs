//! What is written from the keys: the schema, the file with all defaults, the page of the documentation.

use std::fmt::Write as _;

use serde_json::Value;

use super::reference::{self, Key, Kind};

/// `config/schema.json`.
pub fn schema() -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(&reference::schema())? + "\n")
}

/// `config/tidegate.toml`: every key with its meaning; set to its default, or commented out where it has none.
pub fn defaults() -> String {
    let mut text = String::from(
        "#:schema schema.json\n# Every key of tidegate with its default. All of it may be left out.\n\
         # Times are written \"45s\", sizes \"64KiB\". The environment overlays it: TIDEGATE_UPSTREAM__PROBE__EVERY=5s.\n",
    );
    let keys = reference::keys();
    let top: Vec<&Key> = keys.iter().filter(|key| !key.path.contains('.') && !is_table(&key.kind)).collect();
    for key in top {
        entry(&mut text, &key.path, key, false);
    }
    for table in keys.iter().filter(|key| is_table(&key.kind) && !is_inline(&key.path)) {
        section(&mut text, table, &keys);
    }
    text
}

/// Lists of tables that are written as one value rather than as `[[sections]]`.
fn is_inline(path: &str) -> bool {
    matches!(path, "upstream.endpoints" | "keys.sources" | "grace.windows" | "ramp.plan")
}

fn is_table(kind: &Kind) -> bool {
    match kind {
        Kind::Table => true,
        Kind::List(inner) => is_table(inner),
        _ => false,
    }
}

fn section(text: &mut String, table: &Key, keys: &[Key]) {
    // A table within the elements of a list has no defaults, nor has a list without any: they may be absent.
    let none = || table.default.as_ref().and_then(Value::as_array).is_some_and(Vec::is_empty);
    let optional = table.path.contains("[]") || none();
    let mark = if optional { "# " } else { "" };
    let name = table.path.replace("[]", "");
    text.push('\n');
    comment(text, &table.meaning);
    let (open, close) = if table.kind == Kind::Table { ("[", "]") } else { ("[[", "]]") };
    let _ = writeln!(text, "{mark}{open}{name}{close}");
    let prefix =
        if table.kind == Kind::Table { format!("{}.", table.path) } else { format!("{}[].", table.path) };
    for key in keys {
        let Some(own) = key.path.strip_prefix(&prefix).filter(|rest| !rest.contains(['.', '['])) else {
            continue;
        };
        if is_inline(&key.path) {
            inline(text, own, key, keys);
        } else if !is_table(&key.kind) {
            entry(text, own, key, optional);
        }
    }
}

fn entry(text: &mut String, name: &str, key: &Key, optional: bool) {
    text.push('\n');
    comment(text, &key.meaning);
    let default = key.default.as_ref().map(toml);
    let mark = if optional || default.is_none() { "# " } else { "" };
    let value = default.unwrap_or_else(|| format!("# {}", key.kind.name()));
    let _ = writeln!(text, "{mark}{name} = {value}");
}

fn inline(text: &mut String, name: &str, key: &Key, keys: &[Key]) {
    text.push('\n');
    comment(text, &key.meaning);
    let prefix = format!("{}[].", key.path);
    for member in keys {
        if let Some(own) = member.path.strip_prefix(&prefix) {
            comment(text, &format!("- {own} ({}): {}", member.kind.name(), member.meaning));
        }
    }
    let default = key.default.as_ref().map_or_else(|| "[]".to_owned(), toml);
    let _ = writeln!(text, "{name} = {default}");
}

/// `# ` before every line of at most 100 columns.
fn comment(text: &mut String, meaning: &str) {
    const WIDTH: usize = 100;
    let mut line = String::from("#");
    for word in meaning.split_whitespace() {
        if line.chars().count() + 1 + word.chars().count() > WIDTH {
            let _ = writeln!(text, "{line}");
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    let _ = writeln!(text, "{line}");
}

/// A default in TOML.
fn toml(value: &Value) -> String {
    match value {
        Value::Array(elements) => format!("[{}]", elements.iter().map(toml).collect::<Vec<_>>().join(", ")),
        Value::Object(members) => {
            let members: Vec<_> =
                members.iter().map(|(name, value)| format!("{name} = {}", toml(value))).collect();
            format!("{{ {} }}", members.join(", "))
        }
        scalar => scalar.to_string(),
    }
}

/// `docs/configuration.md`.
pub fn page() -> String {
    let mut text = String::from(
        "<!-- Made from the types of src/app/config/raw; UPDATE_DOCS=1 cargo test up_to_date writes it anew. -->\n\
         # Configuration\n\n\
         A configuration is a TOML file (`--config`, else the file that `TIDEGATE_CONFIG` names, else `./tidegate.toml`,\n\
         else `/etc/tidegate/tidegate.toml`), and may be absent: every key has a default. Flags come before the environment,\n\
         the environment before the file. A variable replaces the key that it names: `TIDEGATE_UPSTREAM__PROBE__EVERY=5s`\n\
         stands for `every` in `[upstream.probe]`; lists and tables are written as in the file:\n\
         `TIDEGATE_KEYS__SOURCES='[{ file = \"/k.pem\" }]'`. `tidegate check` lists every fault with its place and remedy.\n\
         \nA secret is written as a value or as the file that holds it (`token` or `token_file`), never both.\n\
         A running tidegate takes up a changed file, and what files it names hold. Sockets, threads and memory stay as they\n\
         are until a restart: `listener`, `admin`, `limits`, `timeouts`, `uploads`, `log`, `store`, `peers`, `deployment`, `replay.entries`, `park.requests`,\n\
         `park.bytes` and, in `upstream`, `tls`, `probe` and `pool`; the log says so when one of them has changed.\n\n\
         | written | is |\n| --- | --- |\n",
    );
    for (format, looks) in reference::FORMATS {
        let _ = writeln!(text, "| {format} | {looks} |");
    }
    let keys = reference::keys();
    let of = |text: &mut String, keys: &[&Key]| {
        text.push_str("\n| key | type | default | meaning |\n| --- | --- | --- | --- |\n");
        for key in keys {
            let default = key.default.as_ref().map_or_else(String::new, |value| format!("`{}`", toml(value)));
            let kind = key.kind.name();
            let _ = writeln!(text, "| `{}` | {kind} | {default} | {} |", key.path, key.meaning);
        }
    };
    let is_section = |key: &&Key| is_table(&key.kind) && !key.path.contains(['.', '[']);
    let top: Vec<&Key> = keys.iter().filter(|key| !key.path.contains('.') && !is_section(key)).collect();
    text.push_str("\n## Top level\n");
    of(&mut text, &top);
    for section in keys.iter().filter(is_section) {
        let _ = write!(text, "\n## {}\n\n{}\n", section.path, section.meaning);
        let below = |key: &&Key| {
            key.path.strip_prefix(&section.path).is_some_and(|rest| rest.starts_with(['.', '[']))
        };
        of(&mut text, &keys.iter().filter(below).collect::<Vec<_>>());
    }
    text
}

#[cfg(test)]
pub(in crate::app) mod tests;
