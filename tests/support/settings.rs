//! What the tests are told by their runner (`tests/run`).

use std::{
    collections::HashSet,
    fs::OpenOptions,
    io::Write,
    path::{Path, PathBuf},
    sync::{Mutex, OnceLock, PoisonError},
};

/// Whether the long durations were asked for (`tests/run --long`).
pub fn long() -> bool {
    variable("TIDEGATE_TESTS_LONG").is_some_and(|v| v == "1")
}

/// The tidegate under test: the release binary that the runner built, else the one of this build.
pub fn tidegate() -> PathBuf {
    variable("TIDEGATE_BIN").map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_tidegate")), PathBuf::from)
}

/// A program that `tests/install` built into the cache, by its name there.
///
/// # Panics
/// Where it isn't there: nothing that can be installed is skipped.
pub fn built(name: &str) -> PathBuf {
    let path = cache().join("bin").join(name);
    assert!(path.exists(), "{name} is not installed: run tests/install");
    path
}

/// A Debian program.
///
/// # Panics
/// Where it isn't there.
pub fn packaged(name: &str) -> PathBuf {
    ["/usr/bin", "/usr/sbin", "/usr/local/bin"]
        .iter()
        .map(|folder| Path::new(folder).join(name))
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("{name} is not installed: run tests/install"))
}

/// Notes that a real program takes part, once for each name and version; the runner prints the list at its end.
pub fn took_part(name: &str, version: &str) {
    static NOTED: OnceLock<Mutex<HashSet<String>>> = OnceLock::new();
    let line = format!("{name} {}", version.trim());
    let mut noted = NOTED.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    if !noted.insert(line.clone()) {
        return;
    }
    if let Some(path) = variable("TIDEGATE_TESTS_RECORD") {
        let mut file =
            OpenOptions::new().create(true).append(true).open(path).expect("the runner's record opens");
        writeln!(file, "{line}").expect("the runner's record is written");
    }
}

fn cache() -> PathBuf {
    if let Some(cache) = variable("TIDEGATE_TEST_CACHE") {
        return PathBuf::from(cache);
    }
    let base = variable("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || PathBuf::from(variable("HOME").expect("HOME is set")).join(".cache");
    base.unwrap_or_else(home).join("tidegate-tests")
}

#[expect(clippy::disallowed_methods, reason = "the tests' own switches, not the program's configuration")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
