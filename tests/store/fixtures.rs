//! Records that former versions wrote, which every later one reads: a folder for each version of the seal. A file in
//! `tests/fixtures/store` is never changed.

use std::{collections::BTreeSet, fs, path::PathBuf};

use serde_json::Value;

use tidegate::{
    decisions::{
        evidence::Evidence,
        grace::ends::{End, ProcessId, Whose},
        record::{
            Kind, Place, end,
            granted::Grant,
            private_half,
            replica::Replica,
            revocation::Revocation,
            seal::{self, SealKey, SealRing},
            secret,
            seen_key::{Life, SeenKey},
            window::PLACE,
        },
        window::Order,
    },
    words::clock::UnixTime,
};

fn folder(version: u8) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/store").join(format!("v{version}"))
}

fn fixture(version: u8, name: &str) -> Vec<u8> {
    let path = folder(version).join(name);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// One key for all versions.
fn seals() -> SealRing {
    SealRing::new("harbor", SealKey::parse(&fixture(1, "seal.key")).expect("a sealing key"), vec![])
}

/// What each was sealed with.
const GENERATION: u64 = 3;

/// The end that its seal holds; the first version's held none.
fn end_of(version: u8) -> Option<UnixTime> {
    (version > 1).then_some(UnixTime(4_000_000_000))
}

fn opened(version: u8, place: &Place, name: &str) -> Vec<u8> {
    let sealed = fixture(version, name);
    assert_eq!(sealed.first(), Some(&version), "{name}: its first byte is the version of its seal");
    let opened = seals().open(place, GENERATION, end_of(version), &sealed);
    opened.unwrap_or_else(|fault| panic!("v{version}/{name}: {fault}")).plain.to_vec()
}

#[test]
fn records_of_keys_of_every_version_are_read() {
    seal::VERSIONS.into_iter().for_each(keys_are_read);
}

fn keys_are_read(version: u8) {
    let key = NAME;
    let signing =
        SeenKey::read(&opened(version, &Place::new(Kind::Key, key), "key-signing.sealed")).expect("a key");
    assert_eq!(signing.life, Life::Signing { seen: UnixTime(1_760_000_000) });
    assert_eq!(signing.source, "/etc/core/private_key.pem");
    assert_eq!(signing.declared.as_ref().map(ToString::to_string).as_deref(), Some("harbor-2026"));
    let kid = signing.key().expect("its public half").kid().to_string();
    let verifying =
        SeenKey::read(&opened(version, &Place::new(Kind::Key, key), "key-verifying.sealed")).expect("a key");
    let life = Life::Verifying { signed_until: UnixTime(1_760_000_000), until: UnixTime(1_760_001_860) };
    assert_eq!(verifying.life, life);
    if version > 1 {
        let place = Place::new(Kind::Key, key);
        let listed = SeenKey::read(&opened(version, &place, "key-listed.sealed")).expect("a key");
        assert_eq!(listed.listed_end, Some(UnixTime(1_760_000_000)));
        let added = SeenKey::read(&opened(version, &place, "key-added.sealed")).expect("a key");
        assert_eq!((added.life, &*added.source, added.is_own), (life, "keys add", false));
    }
    assert!(signing.is_own && verifying.is_own, "it says so, or its source does");
    let place = Place::new(Kind::Revocation, key);
    let revocation = Revocation::read(&opened(version, &place, "revocation.sealed")).expect("a revocation");
    assert_eq!(revocation.key().expect("of a key").expect("a key").kid().to_string(), kid);
}

#[test]
fn records_of_orders_replicas_and_evidence_of_every_version_are_read() {
    seal::VERSIONS.into_iter().for_each(orders_replicas_and_evidence_are_read);
}

fn orders_replicas_and_evidence_are_read(version: u8) {
    let at = UnixTime(1_760_000_000);
    let of = |kind, key: &str, name: &str| opened(version, &Place::new(kind, key), name);
    let order = Order::read(&of(Kind::Window, PLACE, "window.sealed")).expect("a window");
    assert_eq!(order, window());
    for (revocation, name) in revocations() {
        let text = of(Kind::Revocation, &revocation.place(), name);
        assert_eq!(Revocation::read(&text), Ok(revocation), "{name}");
    }
    let replica = Replica::read(&of(Kind::Replica, "0011223344556677", "replica.sealed")).expect("a replica");
    assert_eq!((&*replica.host, replica.seen, &*replica.applied), ("tidegate-0", at, "00ff"));
    let text = of(Kind::Evidence, "0011223344556677", "evidence.sealed");
    let evidence = Evidence::read(&text).expect("evidence");
    let (kid, seen) = evidence.keys().next().expect("a key");
    let counts = (seen.principals.about(), seen.clients.about());
    assert_eq!((kid.as_str(), seen.latest_exp, counts), ("K", at, (2, 1)));
}

fn window() -> Order {
    let at = 1_760_000_000;
    Order { opened: UnixTime(at), until: UnixTime(at + 7_200), said: UnixTime(at + 60) }
}

fn revocations() -> [(Revocation, &'static str); 2] {
    let at = UnixTime(1_760_000_000);
    let subject = Revocation::Subject { name: "dev".to_owned(), not_before: UnixTime(1_760_000_001), at };
    let token = Revocation::Token { digest: [3; 32], at };
    [(subject, "revocation-subject.sealed"), (token, "revocation-token.sealed")]
}

#[test]
fn grants_ends_secrets_and_private_halves_of_every_version_are_read() {
    seal::VERSIONS.into_iter().for_each(grants_ends_secrets_and_private_halves_are_read);
}

fn grants_ends_secrets_and_private_halves_are_read(version: u8) {
    let place = Place::new(Kind::Grant, NAME);
    let grant = Grant::read(&opened(version, &place, "grant.sealed")).expect("a grant");
    assert_eq!((&*grant.subject, grant.secret, grant.accepted), ("dev", [9; 32], UnixTime(1_760_000_000)));
    assert_eq!((&*grant.access[0].name, &*grant.access[0].actions), ("priv/seed", &["pull".to_owned()][..]));
    assert!(grant.token.ends_with(".c2lnbmF0dXJl"));
    assert_eq!(grant.seen.iter().collect::<Vec<_>>(), [(ProcessId(0xabc), 5), (ProcessId(u64::MAX), 1)]);
    let whose = [
        ("end-all.sealed", Whose::All),
        ("end-project.sealed", Whose::Project("priv".into())),
        ("end-credential.sealed", Whose::Credential([9; 32])),
    ];
    for (name, whose) in whose {
        let read = end::read(&opened(version, &Place::new(Kind::End, NAME), name)).expect("an end");
        assert_eq!(read, End { by: ProcessId(0xabc), number: 5, at: UnixTime(1_760_000_000), whose });
    }
    let later = if version > 1 { later_ends().to_vec() } else { Vec::new() };
    for (name, whose) in later {
        let name = format!("{name}{SEALED}");
        let read = end::read(&opened(version, &Place::new(Kind::End, NAME), &name)).expect("an end");
        assert_eq!(read.whose, whose);
    }
    let place = Place::new(Kind::Secret, "grace");
    let read = secret::read(&opened(version, &place, "secret.sealed")).expect("a secret");
    assert_eq!(*read, [11; secret::BYTES]);
    let place = Place::new(Kind::Private, NAME);
    let half = opened(version, &place, "private.sealed");
    assert_eq!(private_half::keeper(&half), if version > 1 { "tidegate-0" } else { "" });
    let key = private_half::read(&half).expect("a private half");
    let signature = key.sign(b"message").expect("it signs");
    assert!(key.without_private().verifies(b"message", &signature));
}

const NAME: &str = "0f57c6c4bd3ea2a55c1d8dc2c0f8a5a0";
/// Of the shape of Harbor's.
const TOKEN: &str = "eyJhbGciOiJSUzI1NiIsImtpZCI6IksiLCJ0eXAiOiJKV1QifQ.eyJpc3MiOiJoYXJib3ItdG9rZW4taXNzdWVyIiwic3ViIjoiZGV2IiwiYXVkIjoiaGFyYm9yLXJlZ2lzdHJ5IiwiZXhwIjoxNzYwMDAxODAwLCJuYmYiOjE3NjAwMDAwMDAsImlhdCI6MTc2MDAwMDAwMCwianRpIjoieCIsImFjY2VzcyI6W3sidHlwZSI6InJlcG9zaXRvcnkiLCJuYW1lIjoicHJpdi9zZWVkIiwiYWN0aW9ucyI6WyJwdWxsIl19XX0.c2lnbmF0dXJl";

/// All that this version writes, by the names of their fixtures. Whoever gives a record another member adds one under a
/// name of its own, and a test that reads it: those that are there stay.
fn written() -> Vec<(&'static str, Place, Vec<u8>)> {
    let at = UnixTime(1_760_000_000);
    let key = private_half::read(&opened(1, &Place::new(Kind::Private, NAME), "private.sealed"));
    let key = key.expect("the key of all fixtures");
    let seen = |life, listed_end| SeenKey {
        spki: key.spki().to_vec(),
        declared: tidegate::words::kid::Kid::parse("harbor-2026"),
        source: "/etc/core/private_key.pem".to_owned(),
        life,
        listed_end,
        lists_ends: true,
        is_own: true,
    };
    let added = |life| SeenKey { source: "keys add".to_owned(), is_own: false, ..seen(life, None) };
    let verifying = Life::Verifying { signed_until: at, until: UnixTime(1_760_001_860) };
    let revoked = Revocation::Key { spki: key.spki().to_vec(), at };
    let processes = [(ProcessId(0xabc), 5), (ProcessId(u64::MAX), 1)].into_iter().collect();
    let half = private_half::write(&key, "tidegate-0").expect("a private half");
    let mut all = [
        ("key-signing", Kind::Key, NAME, seen(Life::Signing { seen: at }, None).write()),
        ("key-verifying", Kind::Key, NAME, seen(verifying, None).write()),
        ("key-listed", Kind::Key, NAME, seen(verifying, Some(at)).write()),
        ("key-added", Kind::Key, NAME, added(verifying).write()),
        ("private", Kind::Private, NAME, half),
        ("revocation", Kind::Revocation, NAME, revoked.write()),
        ("secret", Kind::Secret, "grace", secret::write(&[11; secret::BYTES]).to_vec()),
        ("window", Kind::Window, PLACE, window().write()),
        ("replica", Kind::Replica, REPLICA, replica().write()),
        ("grant", Kind::Grant, NAME, Grant::write(TOKEN, &[9; 32], at, &processes)),
        ("evidence", Kind::Evidence, REPLICA, evidence().write()),
    ]
    .map(|(name, kind, key, plain)| (name, Place::new(kind, key), plain))
    .to_vec();
    let ends = [
        ("end-all", Whose::All),
        ("end-project", Whose::Project("priv".into())),
        ("end-credential", Whose::Credential([9; 32])),
    ];
    all.extend(ends.into_iter().chain(later_ends()).map(|(name, whose)| {
        let end = End { by: ProcessId(0xabc), number: 5, at, whose };
        (name, Place::new(Kind::End, NAME), end::write(&end))
    }));
    all.extend(revocations().map(|(revocation, name)| {
        let place = Place::new(Kind::Revocation, revocation.place());
        (name.trim_end_matches(SEALED), place, revocation.write())
    }));
    all
}

/// Those that the seal's first version had no record of.
fn later_ends() -> [(&'static str, Whose); 3] {
    [
        ("end-subject", Whose::Subject("dev".into())),
        ("end-answers", Whose::Answers { replays: false }),
        ("end-replays", Whose::Answers { replays: true }),
    ]
}

const SEALED: &str = ".sealed";
const REPLICA: &str = "0011223344556677";

fn replica() -> Replica {
    let (host, version, applied) = ("tidegate-0".to_owned(), "0.1.0".to_owned(), "00ff".to_owned());
    let at = UnixTime(1_760_000_000);
    Replica { host, version, began: at, seen: at, applied }
}

fn evidence() -> Evidence {
    let (mut evidence, at) = (Evidence::default(), UnixTime(1_760_000_000));
    let kid = tidegate::words::kid::Kid::parse("K").expect("a name");
    for user in ["dev", "robot$ci"] {
        evidence.note(&kid, (user, [10, 0, 0, 1].into()), at, at);
    }
    evidence
}

/// The members of a record and what they are, and its version.
fn shape(record: &Value) -> Value {
    match record {
        Value::Object(members) => {
            let member = |(name, value): (&String, &Value)| {
                let shape = if name == "v" { value.clone() } else { shape(value) };
                (name.clone(), shape)
            };
            members.iter().map(member).collect()
        }
        Value::Array(all) => all.iter().take(1).map(shape).collect(),
        Value::Null => Value::Null,
        Value::Bool(_) => true.into(),
        Value::Number(_) => 0.into(),
        Value::String(_) => "".into(),
    }
}

pub fn shape_of(plain: &[u8]) -> Value {
    shape(&serde_json::from_slice(plain).expect("a record in JSON"))
}

/// It fails where a seal, a kind or a member is new and no fixture of it was written yet
/// (`write_the_fixtures_of_this_version`).
#[test]
fn all_that_this_version_writes_has_a_fixture() {
    let mut kinds = BTreeSet::from([Kind::Session]);
    for (name, place, plain) in written() {
        let found = opened(seal::VERSION, &place, &format!("{name}{SEALED}"));
        assert_eq!(shape_of(&found), shape_of(&plain), "{name}: give the new form a fixture of its own");
        kinds.insert(place.kind);
    }
    // A kind that nothing is written of yet has none.
    assert_eq!(kinds, BTreeSet::from(Kind::ALL), "a kind without a fixture");
}

/// No file there is without a use: what is read is all of them.
#[test]
fn every_fixture_is_one_that_some_version_wrote() {
    let known: BTreeSet<String> = written().into_iter().map(|(name, ..)| format!("{name}{SEALED}")).collect();
    for version in seal::VERSIONS {
        for entry in folder(version).read_dir().expect("a folder for each version") {
            let name = entry.expect("an entry").file_name().to_string_lossy().into_owned();
            assert!(known.contains(&name) || name == "seal.key", "v{version}/{name}");
        }
    }
}

/// Writes those that aren't there; to be run once for a version, or for a kind that it adds, by hand.
#[test]
#[ignore = "fixtures are for ever: see tests/fixtures/store"]
fn write_the_fixtures_of_this_version() {
    let folder = folder(seal::VERSION);
    fs::create_dir_all(&folder).expect("a folder");
    for (name, place, plain) in written() {
        let path = folder.join(format!("{name}{SEALED}"));
        let sealed = seals().seal(&place, GENERATION, end_of(seal::VERSION), &plain).expect("sealed");
        // What is there is for ever.
        if !path.exists() {
            fs::write(path, sealed).expect("it is written");
        }
    }
}
