//! The arrows hold: words <- decisions <- edges <- flow <- app, and the two pure groups do nothing but think.

#![expect(clippy::expect_used, reason = "a test that can't read the sources has failed")]

use std::path::{Path, PathBuf};

/// Each group, and the groups that it may import beside itself.
const GROUPS: [(&str, &[&str]); 6] = [
    ("words", &[]),
    ("decisions", &["words"]),
    ("edges", &["words", "decisions"]),
    ("flow", &["words", "decisions", "edges"]),
    ("rehearsal", &["words", "decisions", "edges"]),
    ("app", &["words", "decisions", "edges", "flow", "rehearsal"]),
];

/// What words and decisions never touch: suspension, sockets, clocks,
const EFFECTS: [&str; 9] = [
    "async",
    "await",
    "tokio",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "SystemTime",
    "Instant",
];
/// and of the standard library files, processes, threads, the environment, standard streams.
const MODULES: [&str; 5] = ["fs", "process", "thread", "env", "io"];

/// The one file of the pure groups that reads the wall clock, and says so.
const CLOCK: &str = "words/clock.rs";

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Every source: its path below `src`, its group, its text without comments.
fn files() -> Vec<(String, String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    sources(&root, &mut paths);
    let mut files: Vec<_> = paths
        .into_iter()
        .map(|path| {
            let name = path.strip_prefix(&root).expect("below").to_string_lossy().into_owned();
            let group = name.split(['/', '.']).next().unwrap_or_default().to_owned();
            let text = std::fs::read_to_string(&path).expect("text");
            let code = text.lines().map(|line| line.split("//").next().unwrap_or_default());
            (name, group, code.collect::<Vec<_>>().join("\n"))
        })
        .collect();
    files.sort();
    files
}

/// The names that follow a path's first part, also where they stand in braces: `crate::{a::b, c::{d}}` has a and c.
fn first_names(code: &str, root: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (at, _) in code.match_indices(root) {
        let whole_word = !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let rest = code[at + root.len()..].trim_start();
        if whole_word {
            match rest.strip_prefix('{') {
                Some(inner) => in_braces(inner, &mut names),
                None => names.push(word(rest)),
            }
        }
    }
    names
}

fn in_braces(text: &str, names: &mut Vec<String>) {
    let (mut depth, mut fresh) = (0, true);
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => return,
            '}' => depth -= 1,
            ',' if depth == 0 => fresh = true,
            c if fresh && depth == 0 && !c.is_whitespace() => {
                names.push(word(&text[at..]));
                fresh = false;
            }
            _ => {}
        }
    }
}

fn word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

#[test]
fn imports_are_read_in_every_form() {
    let code = "use crate::words::kid::Kid;\nuse crate::{\n    decisions::{plan::{A, B}, ring},\n    edges::pool,\n};\n\
                fn f() -> crate::flow::X {}\npub(in crate::app) fn g() {}\nuse other_crate::no;";
    assert_eq!(first_names(code, "crate::"), ["words", "decisions", "edges", "flow", "app"]);
}

#[test]
fn every_source_belongs_to_a_group() {
    for (name, group, _) in files() {
        let known = GROUPS.iter().any(|(known, _)| *known == group);
        assert!(
            known || matches!(name.as_str(), "lib.rs" | "main.rs"),
            "{name}: which arrow does it stand at?"
        );
    }
}

#[test]
fn groups_import_only_what_stands_before_them() {
    let files = files();
    for (group, before) in GROUPS {
        let own: Vec<_> = files.iter().filter(|(_, of, _)| of == group).collect();
        assert!(own.len() > 1, "{group} has no sources");
        for (name, _, code) in own {
            let depth = name.trim_end_matches(".rs").split('/').count();
            assert!(!code.contains(&"super::".repeat(depth + 1)), "{name} climbs out of its group");
            for (import, _) in GROUPS {
                let imports = first_names(code, "crate::").iter().any(|found| found == import);
                let may = import == group || before.contains(&import);
                assert!(may || !imports, "{name}: {group} must not import {import}");
            }
        }
    }
}

#[test]
fn words_and_decisions_have_no_effects() {
    let files = files();
    let pure = files.iter().filter(|(_, group, _)| matches!(group.as_str(), "words" | "decisions"));
    for (name, _, code) in pure {
        let words = code.split(|c: char| !c.is_alphanumeric() && c != '_');
        let found: Vec<_> = words.filter(|word| EFFECTS.contains(word)).collect();
        let allowed: &[&str] = if name == CLOCK { &["SystemTime"] } else { &[] };
        assert!(found.iter().all(|word| allowed.contains(word)), "{name} uses {found:?}");
        let modules = first_names(code, "std::");
        assert!(
            MODULES.iter().all(|module| !modules.iter().any(|used| used == module)),
            "{name}: {modules:?}"
        );
    }
}
