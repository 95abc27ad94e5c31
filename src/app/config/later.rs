//! Keys whose names are settled and whose work isn't done yet. Nothing may be accepted that does nothing.

/// Paths with `[]` for indices, and what they arrive with.
const LATER: [(&str, &str); 5] = [
    ("grace.on_refusal", "bridges for lost OIDC sessions"),
    ("grace.bridge", "bridges for lost OIDC sessions"),
    ("grace.admin", "bridges for lost OIDC sessions"),
    ("oidc", "OIDC sessions"),
    ("traces", "traces by OTLP"),
];

/// What the key at this path arrives with, if it isn't there yet.
pub fn feature(pattern: &str) -> Option<&'static str> {
    LATER.iter().find(|(path, _)| *path == pattern).map(|(_, feature)| *feature)
}

/// Does a key at or below this path arrive later?
pub fn covers(path: &str) -> bool {
    let below =
        |later: &str| path.strip_prefix(later).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    LATER.iter().any(|(later, _)| below(later))
}
