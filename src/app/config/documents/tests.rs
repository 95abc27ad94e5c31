//! What is shipped is what the code says.

use std::path::Path;

use super::*;
use crate::app::config::{Sources, load};

/// The file in the repository is what the types say; `UPDATE_DOCS=1` writes it anew.
pub(in crate::app) fn is_up_to_date(path: &str, made: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, made).expect("a file");
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == made, "{} is out of date: UPDATE_DOCS=1 cargo test up_to_date", path.display());
}

#[test]
fn the_schema_is_up_to_date() {
    is_up_to_date("config/schema.json", &schema().expect("a schema"));
}

#[test]
fn the_page_is_up_to_date() {
    is_up_to_date("docs/configuration.md", &page());
}

#[test]
fn the_commented_file_is_up_to_date() {
    is_up_to_date("config/tidegate.toml", &defaults());
}

fn load_file(path: &Path) -> Result<crate::app::config::Settings, crate::app::config::Faults> {
    load(&Sources { file: Some(path.to_owned()), ..Sources::default() })
}

#[test]
fn the_commented_file_says_what_the_code_does() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/tidegate.toml");
    let written = load_file(&path).expect("settings");
    let code = load(&Sources::default()).expect("settings");
    let written = crate::app::config::Settings { stated: code.stated, ..written };
    assert_eq!(format!("{written:?}"), format!("{code:?}"));
}

#[test]
fn every_commented_key_may_be_uncommented() {
    let text = defaults();
    let names = |line: &str| {
        line.strip_prefix("# ").and_then(|rest| rest.split_once(" = ")).map(|(n, _)| n.to_owned())
    };
    let commented: Vec<_> = text.lines().filter_map(names).filter(|name| !name.contains(' ')).collect();
    assert!(commented.contains(&"certificate_file".to_owned()), "{commented:?}");
    let all = reference::keys();
    for name in commented {
        assert!(all.iter().any(|key| key.path.ends_with(&format!(".{name}"))), "{name}");
    }
}

/// The TOML in a `ConfigMap`: the lines below `tidegate.toml: |`, by their indentation.
fn embedded(yaml: &str) -> String {
    let below = yaml.lines().skip_while(|line| line.trim() != "tidegate.toml: |").skip(1);
    let own = below.take_while(|line| line.is_empty() || line.starts_with("    "));
    own.map(|line| line.strip_prefix("    ").unwrap_or("").to_owned() + "\n").collect()
}

#[test]
fn every_configuration_in_a_kubernetes_manifest_is_right() {
    let folder = tempfile::tempdir().expect("a folder");
    for manifest in ["deploy/kubernetes/front.yaml", "deploy/kubernetes/sidecar/tidegate.yaml"] {
        let yaml = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(manifest));
        let text = embedded(&yaml.expect("a manifest"));
        assert!(text.contains("[keys]"), "{manifest}: {text}");
        let path = folder.path().join("tidegate.toml");
        std::fs::write(&path, text).expect("a file");
        load_file(&path).unwrap_or_else(|faults| panic!("{manifest}\n{faults}"));
    }
}

#[test]
fn every_shipped_configuration_is_right() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            load_file(&path).unwrap_or_else(|faults| panic!("{faults}"));
            seen += 1;
        }
    }
    assert!(seen >= 5, "{seen} files");
}
