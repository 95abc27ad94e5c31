//! Everything that is wrong with a configuration, each fault with its place, and what mends it.

use std::{collections::BTreeSet, fmt, path::PathBuf};

use serde::Serialize;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// Line and column count from 1, columns in characters.
    File {
        path: PathBuf,
        line: usize,
        column: usize,
    },
    /// A file as a whole.
    Path(PathBuf),
    Variable(String),
    Flag(String),
    /// What was asked over the network.
    Endpoint(String),
    /// Where we would listen.
    Address(String),
    Default,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line, column } => write!(f, "{}:{line}:{column}", path.display()),
            Self::Path(path) => path.display().fmt(f),
            Self::Variable(name) => write!(f, "environment {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
            Self::Endpoint(name) => write!(f, "endpoint {name}"),
            Self::Address(address) => write!(f, "address {address}"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// One fault. No text of it holds the value of a secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Fault {
    pub place: Place,
    /// The key, such as `listener[0].tls.key_file`; empty where the file as a whole is meant.
    pub key: String,
    pub found: String,
    pub expected: String,
    pub remedy: String,
}

/// All faults of one configuration, in the order of their places. Never empty where it is an error.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(transparent)]
pub struct Faults(pub Vec<Fault>);

impl Faults {
    /// In the order of their places. Where the syntax of a line is broken, what its remains would mean isn't judged.
    pub fn sorted(mut faults: Vec<Fault>) -> Self {
        let broken: BTreeSet<usize> =
            faults.iter().filter(|f| f.key.is_empty()).filter_map(Fault::line).collect();
        faults
            .retain(|fault| fault.key.is_empty() || !fault.line().is_some_and(|line| broken.contains(&line)));
        faults.sort();
        faults.dedup();
        Self(faults)
    }
}

impl Fault {
    fn line(&self) -> Option<usize> {
        match self.place {
            Place::File { line, .. } => Some(line),
            _ => None,
        }
    }
}

/// Columns of a terminal that every operator has.
const WIDTH: usize = 80;

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, fault) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            fault.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.key.is_empty() {
            writeln!(f, "{}", self.place)?;
        } else {
            writeln!(f, "{}: {}", self.place, self.key)?;
        }
        for (name, text) in [("found", &self.found), ("expected", &self.expected), ("remedy", &self.remedy)] {
            if !text.is_empty() {
                labelled(f, name, text)?;
            }
        }
        Ok(())
    }
}

/// `  found     text`, folded to [`WIDTH`]; what can't be folded stays whole.
fn labelled(f: &mut fmt::Formatter<'_>, name: &str, text: &str) -> fmt::Result {
    const INDENT: usize = 12;
    let mut line = format!("  {name:<10}");
    for word in text.split(' ') {
        let used = line.chars().count();
        if used > INDENT && used + 1 + word.chars().count() > WIDTH {
            writeln!(f, "{line}")?;
            line = " ".repeat(INDENT);
        } else if used > INDENT {
            line.push(' ');
        }
        line.push_str(word);
    }
    writeln!(f, "{line}")
}

/// The name among `known` that a mistyped one most likely means.
pub fn nearest<'k>(typed: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let near = |name: &&str| strsim::damerau_levenshtein(typed, name);
    let best = known.into_iter().min_by_key(near)?;
    // A third of its letters may be wrong; more is another word.
    (near(&best) <= (typed.chars().count() / 3).max(1)).then_some(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_folded_at_80_columns() {
        let fault = Fault {
            place: Place::File { path: "tidegate.toml".into(), line: 3, column: 9 },
            key: "upstream.probe.every".to_owned(),
            found: "\"5 sec\"".to_owned(),
            expected: "a time: a whole number and ms, s, m, h or d without a space, such as \"45s\""
                .to_owned(),
            remedy: String::new(),
        };
        assert_eq!(
            Faults(vec![fault]).to_string(),
            "tidegate.toml:3:9: upstream.probe.every\n  found     \"5 sec\"\n  expected  a time: a whole \
             number and ms, s, m, h or d without a space, such as\n            \"45s\"\n"
        );
    }

    #[test]
    fn a_mistyped_name_finds_the_one_that_was_meant() {
        let known = ["endpoints", "portal", "probe", "pool", "tls"];
        assert_eq!(nearest("endpoint", known), Some("endpoints"));
        assert_eq!(nearest("prboe", known), Some("probe"));
        assert_eq!(nearest("sources", known), None);
    }
}
