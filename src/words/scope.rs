//! Access as a token grants it and as a request asks for it.

use serde::{Deserialize, Serialize};

/// One entry of a token's `access` (distribution token specification, *access*; contract T3).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Access {
    /// `repository`, `registry`, or a type that Harbor does not know.
    #[serde(rename = "type")]
    pub kind: String,
    /// The resource's name, project first.
    pub name: String,
    /// Granted actions in Harbor's order; `null` counts as none.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub actions: Vec<String>,
}

fn null_is_empty<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(d)?.unwrap_or_default())
}

impl Access {
    /// Whether this entry grants `action` by its name. Up to Harbor 2.8 `*` is written beside the others (T3);
    /// core reads it as all three, but nothing that we decide on grants may lean on more than is written.
    pub fn grants(&self, action: &str) -> bool {
        self.actions.iter().any(|a| a == action)
    }
}

/// A scope as a client asks for it: `type:name:action,action` (T5), the name may hold colons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// Resource type, `repository` mostly.
    pub kind: String,
    /// Resource name.
    pub name: String,
    /// Asked-for actions, sorted, each once.
    pub actions: Vec<String>,
}

impl Scope {
    /// Reads one scope as Harbor does: fewer than three parts leave the rest empty.
    pub fn parse(text: &str) -> Self {
        let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
        let (name, actions) = rest.rsplit_once(':').unwrap_or((rest, ""));
        let mut actions: Vec<String> =
            actions.split(',').filter(|a| !a.is_empty()).map(str::to_owned).collect();
        actions.sort_unstable();
        actions.dedup();
        Self { kind: kind.to_owned(), name: name.to_owned(), actions }
    }

    /// Whether a token's access grants all that this scope asks for.
    pub fn granted_by(&self, access: &[Access]) -> bool {
        let entry = access.iter().find(|a| a.kind == self.kind && a.name == self.name);
        entry.is_some_and(|a| self.actions.iter().all(|wanted| a.grants(wanted)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_read_as_harbor_reads_them() {
        let table = [
            ("repository:p/r:push,pull", "repository", "p/r", vec!["pull", "push"]),
            ("repository:host:5000/p/r:pull", "repository", "host:5000/p/r", vec!["pull"]),
            ("registry:catalog:*", "registry", "catalog", vec!["*"]),
            ("probe", "probe", "", vec![]),
            ("a:b", "a", "b", vec![]),
            ("repository:p/r:pull,,pull", "repository", "p/r", vec!["pull"]),
        ];
        for (text, kind, name, actions) in table {
            let scope = Scope::parse(text);
            assert_eq!((scope.kind.as_str(), scope.name.as_str()), (kind, name), "{text}");
            assert_eq!(scope.actions, actions, "{text}");
        }
    }

    #[test]
    fn granted_means_every_action_of_the_same_resource() {
        let access = |actions: &[&str]| {
            vec![Access {
                kind: "repository".into(),
                name: "p/r".into(),
                actions: actions.iter().map(|a| (*a).into()).collect(),
            }]
        };
        let asked = Scope::parse("repository:p/r:pull,push");
        assert!(asked.granted_by(&access(&["push", "delete", "pull"])));
        assert!(!asked.granted_by(&access(&["pull"])));
        assert!(!asked.granted_by(&[]));
        assert!(!Scope::parse("repository:p/other:pull").granted_by(&access(&["pull"])));
    }
}
