//! What we are built of: one crypto provider, one version of what both sides of an interface share, one registry,
//! licences that may be shipped. `cargo deny` would check the same and takes longer to build than we do.

#![expect(clippy::expect_used, reason = "a test that can't read the dependencies has failed")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};

/// A second provider of cryptography: with two of them rustls panics where it is asked for its default.
const BANNED: [&str; 9] = [
    "ring",
    "openssl",
    "openssl-sys",
    "native-tls",
    "tokio-native-tls",
    "tokio-openssl",
    "boring",
    "mbedtls",
    "rustls-graviola",
];

/// What has types in the interfaces of others: two versions of it don't fit together.
const ONCE: [&str; 14] = [
    "aws-lc-rs",
    "aws-lc-sys",
    "bytes",
    "h2",
    "http",
    "http-body",
    "hyper",
    "hyper-util",
    "rustls",
    "rustls-pki-types",
    "rustls-webpki",
    "tokio",
    "tokio-rustls",
    "tower",
];

/// The only place that sources come from.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Licences that ask for nothing but their own text beside the binary.
const LICENCES: [&str; 13] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

fn cargo(arguments: &[&str]) -> Vec<u8> {
    let mut command = Command::new(env!("CARGO"));
    let output =
        command.args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("cargo runs");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Name and licence of each package that is built for this machine, tests included, with the features in use.
fn built() -> Vec<(String, String)> {
    let tree = cargo(&["tree", "--locked", "--prefix", "none", "--format", "{p}|{l}"]);
    let tree = String::from_utf8(tree).expect("text");
    // A package that was listed before is marked so.
    let lines = tree.lines().filter_map(|line| line.trim_end_matches(" (*)").split_once('|'));
    let built: BTreeSet<(&str, &str)> =
        lines.filter_map(|(package, licence)| Some((package.split(' ').next()?, licence))).collect();
    built.into_iter().map(|(name, licence)| (name.to_owned(), licence.to_owned())).collect()
}

/// Every package of `Cargo.lock`.
fn locked() -> Vec<toml::Table> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock");
    let lock: toml::Table = fs::read_to_string(path).expect("Cargo.lock").parse().expect("TOML");
    let packages = lock["package"].as_array().expect("packages").iter();
    packages.map(|package| package.as_table().expect("a table").clone()).collect()
}

fn text<'a>(package: &'a toml::Table, key: &str) -> &'a str {
    package.get(key).and_then(toml::Value::as_str).unwrap_or_default()
}

#[test]
fn aws_lc_is_the_only_provider_of_cryptography() {
    let built = built();
    assert!(built.iter().any(|(name, _)| name == "aws-lc-rs"), "the list is what is built");
    for (name, _) in &built {
        assert!(!BANNED.contains(&&**name), "`cargo tree -i {name}` says who wants it");
    }
}

#[test]
fn what_interfaces_share_is_there_once() {
    let mut versions: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in locked() {
        versions.entry(text(&package, "name").into()).or_default().push(text(&package, "version").into());
    }
    for name in ONCE {
        assert_eq!(versions.get(name).map(Vec::len), Some(1), "{name} {:?}", versions.get(name));
    }
}

#[test]
fn every_source_is_the_registrys_and_has_a_checksum() {
    let locked = locked();
    assert!(locked.len() > 100, "the lock has all of them");
    for package in locked.iter().filter(|package| text(package, "name") != "tidegate") {
        let name = text(package, "name");
        assert_eq!(text(package, "source"), REGISTRY, "{name}: no git, no path, no other registry");
        assert_eq!(text(package, "checksum").len(), 64, "{name}");
    }
}

#[test]
fn every_licence_may_be_shipped() {
    for (name, licence) in built() {
        assert!(allowed(&licence), "{name}: {licence:?}");
    }
}

#[test]
fn licence_expressions_are_read_as_spdx_has_them() {
    for (expression, may) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("", false),
        ("GPL-3.0 OR MIT", true),
        ("MIT/Apache-2.0", true),
        ("Apache-2.0 / MIT", true),
        ("MIT AND GPL-3.0", false),
        ("(MIT OR GPL-3.0) AND ISC", true),
        ("ISC AND (GPL-2.0 OR GPL-3.0)", false),
        ("GPL-3.0 AND MIT OR ISC", true),
        ("Apache-2.0 WITH LLVM-exception", true),
        ("GPL-2.0 WITH Classpath-exception-2.0", false),
    ] {
        assert_eq!(allowed(expression), may, "{expression}");
    }
}

/// Whether one may choose by an SPDX expression; `/` is what older packages write for OR.
fn allowed(expression: &str) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = &words[..];
    any_of(&mut rest) && rest.is_empty()
}

fn any_of(rest: &mut &[&str]) -> bool {
    let mut may = all_of(rest);
    while let ["OR", after @ ..] = rest {
        *rest = after;
        may |= all_of(rest);
    }
    may
}

fn all_of(rest: &mut &[&str]) -> bool {
    let mut may = one(rest);
    while let ["AND", after @ ..] = rest {
        *rest = after;
        may &= one(rest);
    }
    may
}

fn one(rest: &mut &[&str]) -> bool {
    match rest {
        ["(", after @ ..] => {
            *rest = after;
            let may = any_of(rest);
            *rest = rest.strip_prefix(&[")"]).unwrap_or(&[]);
            may
        }
        [licence, "WITH", exception, after @ ..] => {
            let whole = format!("{licence} WITH {exception}");
            *rest = after;
            LICENCES.contains(&&*whole)
        }
        [licence, after @ ..] => {
            *rest = after;
            LICENCES.contains(licence)
        }
        [] => false,
    }
}
