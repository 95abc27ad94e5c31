//! The configuration: a file, the environment and flags become checked [`Settings`], or every fault at once.
//!
//! ```text
//! file -> document        one tree, with the place of every value
//! environment, flags      laid over it (overlay); flag > environment > file > default
//! shape                   each value by itself, against the keys that the raw types declare (reference)
//! raw -> checks           the types, and what doesn't fit together
//! Settings | Faults       nothing in between: no part of a faulty configuration is used
//! ```

pub mod address;
pub mod amounts;
pub mod checks;
pub mod document;
pub mod documents;
pub mod faults;
pub mod later;
pub mod moment;
pub mod overlay;
pub mod raw;
pub mod reference;
pub mod secret;
pub mod settings;
pub mod shape;
pub mod store_url;
pub mod written;

use std::path::{Path, PathBuf};

use self::document::Document;
pub use self::{
    faults::{Fault, Faults, Place},
    overlay::Flags,
    settings::*,
};

/// Everything that a configuration is made of. It can be loaded again, when the file has changed.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file, where there is one; it must exist.
    pub file: Option<PathBuf>,
    /// Names and values; those that don't begin with `TIDEGATE_` don't count.
    pub environment: Vec<(String, String)>,
    pub flags: Flags,
}

impl Sources {
    /// The process' own environment, and the file: the one that is named, else that of `TIDEGATE_CONFIG`, else
    /// `tidegate.toml` here, else the one in `/etc/tidegate`, else none.
    pub fn of_process(named: Option<PathBuf>, flags: Flags) -> Self {
        // Variables that are no Unicode can't be ours; the names of ours are ASCII, and a broken value is seen as such.
        let environment: Vec<(String, String)> = std::env::vars_os()
            .filter_map(|(name, value)| {
                Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
            })
            .collect();
        let by_variable =
            environment.iter().find(|(name, _)| name == overlay::FILE).map(|(_, path)| path.into());
        let usual = || {
            ["tidegate.toml", "/etc/tidegate/tidegate.toml"]
                .map(PathBuf::from)
                .into_iter()
                .find(|p| p.exists())
        };
        Self { file: named.or(by_variable).or_else(usual), environment, flags }
    }
}

/// Reads, lays over, checks. Opens no file but the one named, and no socket.
pub fn load(sources: &Sources) -> Result<Settings, Faults> {
    match load_in_part(sources) {
        (Some(settings), faults) if faults.is_empty() => Ok(settings),
        (_, faults) => Err(Faults::sorted(faults)),
    }
}

/// As [`load`], with what a faulty configuration still says: what is wrong in it stands at its default. For
/// `tidegate check` alone, which looks at the files that it names all the same.
pub fn load_in_part(sources: &Sources) -> (Option<Settings>, Vec<Fault>) {
    let (mut document, mut faults) = match &sources.file {
        None => (Document::default(), Vec::new()),
        Some(path) => match std::fs::read_to_string(path) {
            Ok(text) => Document::of_file(path, &text),
            Err(error) => return (None, vec![unreadable(path, &error)]),
        },
    };
    let file = document.says_anything();
    faults.extend(overlay::environment(&mut document, &sources.environment));
    overlay::flags(&mut document, &sources.flags);
    let stated = Stated {
        file,
        endpoints: document.says("/upstream/endpoints"),
        key_sources: document.says("/keys/sources"),
    };
    let shape = shape::check(&mut document);
    faults.extend(shape.faults);
    let raw = match serde_json::from_value(document.tree.clone()) {
        Ok(raw) => raw,
        Err(error) => {
            faults.push(contradiction(&error));
            return (None, faults);
        }
    };
    let (settings, wrong) = checks::settings(raw, &document, &shape.taken_out);
    faults.extend(wrong);
    (Some(Settings { stated, ..settings }), faults)
}

fn unreadable(path: &Path, error: &std::io::Error) -> Fault {
    Fault {
        place: Place::Path(path.to_owned()),
        key: String::new(),
        found: error.to_string(),
        expected: "a file in UTF-8 that this user can read".to_owned(),
        remedy: "give --config a file that is there, or none for all defaults".to_owned(),
    }
}

/// The shape was right and the types refused it all the same: a fault of ours, said rather than hidden.
fn contradiction(error: &serde_json::Error) -> Fault {
    Fault {
        place: Place::Default,
        key: String::new(),
        found: format!("a value that the schema takes and its type refuses: {error}"),
        expected: String::new(),
        remedy: "please report this with the key's name".to_owned(),
    }
}

#[cfg(test)]
mod tests;
