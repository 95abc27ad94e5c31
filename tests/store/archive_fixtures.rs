//! Archives that former versions wrote, which every later one reads: a folder for each version of the envelope. A file
//! in `tests/fixtures/archive` is never changed.

use std::{fs, path::PathBuf};

use tidegate::{
    decisions::{
        archive::{
            Archive, KeptFile, Known,
            envelope::{self, Passphrase, SALT, Secret, open, seal},
        },
        record::{
            revocation::Revocation,
            seal::SealKey,
            seen_key::{Life, SeenKey},
        },
        window::Order,
    },
    rehearsal::harbor::{CoreKey, KeyForm},
    words::clock::UnixTime,
};
use zeroize::Zeroizing;

use crate::fixtures::shape_of;

fn folder(version: u8) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/archive").join(format!("v{version}"))
}

fn fixture(version: u8, name: &str) -> Vec<u8> {
    let path = folder(version).join(name);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn key() -> Secret {
    Secret::Key(SealKey::parse(&fixture(1, "seal.key")).expect("a key"))
}

fn passphrase() -> Secret {
    Secret::Passphrase(Passphrase::parse(&fixture(1, "passphrase")).expect("a passphrase"))
}

fn read(version: u8, name: &str, secret: &Secret) -> Archive {
    let plain = open(&fixture(version, name), secret).expect("it opens");
    Archive::read(&plain).expect("it is read")
}

#[test]
fn archives_of_version_1_are_read() {
    for (name, secret) in [("by-key.archive", key()), ("by-passphrase.archive", passphrase())] {
        let archive = read(1, name, &secret);
        let file = &archive.files[0];
        assert_eq!((&*archive.deployment, &*file.path, file.bits), ("harbor", "core.pem", 0o640));
        assert_eq!(file.keys().map(|keys| keys.len()), Ok(1));
        let (seen, retired) = archive.known.read().expect("records");
        let sources: Vec<_> = seen.iter().map(|seen| &*seen.source).collect();
        assert_eq!((sources, retired.len()), (vec!["core.pem", "keys add"], 1));
        assert_eq!(archive.known.read_orders(), Ok((vec![], None)));
    }
}

#[test]
fn an_archive_with_what_else_was_ordered_is_read() {
    let archive = read(1, "with-orders.archive", &key());
    let (seen, retired) = archive.known.read().expect("records");
    assert_eq!((archive.files.len(), seen.len(), retired.len()), (1, 1, 1));
    assert_eq!(archive.known.read_orders(), Ok((vec![revoked()], Some(window()))));
}

fn revoked() -> Revocation {
    let at = UnixTime(1_760_000_000);
    Revocation::Subject { name: "dev".to_owned(), not_before: at, at }
}

fn window() -> Order {
    let at = UnixTime(1_760_000_000);
    Order { opened: at, until: UnixTime(1_760_007_200), said: at }
}

/// All that an archive may hold.
fn whole() -> Archive {
    let at = UnixTime(1_760_000_000);
    let core = CoreKey::generate(2048).expect("a key");
    let bytes = Zeroizing::new(core.text(KeyForm::Pkcs1).expect("its text").into_bytes());
    let file = KeptFile { path: "core.pem".to_owned(), bytes, owner: 10_000, group: 10_000, bits: 0o640 };
    let spki = file.keys().expect("a key")[0].spki().to_vec();
    let seen = SeenKey {
        spki: spki.clone(),
        declared: None,
        source: "core.pem".to_owned(),
        life: Life::Signing { seen: at },
        listed_end: None,
        lists_ends: true,
        is_own: true,
    };
    let known = Known::of(&[seen], &[Revocation::Key { spki, at }, revoked()], Some(window()));
    Archive { deployment: "harbor".to_owned(), made: at, files: vec![file], known }
}

/// It fails where the envelope or a member is new and no fixture of it was written yet
/// (`write_the_archive_of_this_version`).
#[test]
fn the_archive_that_this_version_writes_has_a_fixture() {
    let found = open(&fixture(envelope::VERSION, "with-orders.archive"), &key()).expect("it opens");
    assert_eq!(shape_of(&found), shape_of(&whole().write()), "give the new form a fixture of its own");
}

#[test]
#[ignore = "fixtures are for ever: see tests/fixtures/archive"]
fn write_the_archive_of_this_version() {
    let folder = folder(envelope::VERSION);
    fs::create_dir_all(&folder).expect("a folder");
    let path = folder.join("with-orders.archive");
    // What is there is for ever.
    if !path.exists() {
        let sealed = seal(&whole().write(), &key(), [0; SALT], 0).expect("sealed");
        fs::write(path, sealed).expect("it is written");
    }
}
