//! Records that former versions wrote, which every later one reads. A file in `tests/fixtures/store` is never changed.

use std::{fs, path::PathBuf};

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
            seal::{SealKey, SealRing},
            secret,
            seen_key::{Life, SeenKey},
            window::PLACE,
        },
        window::Order,
    },
    words::clock::UnixTime,
};

fn fixture(version: &str, name: &str) -> Vec<u8> {
    let path =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/store").join(version).join(name);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// `generation` is what each was sealed with.
fn opened(version: &str, place: &Place, name: &str) -> Vec<u8> {
    let key = SealKey::parse(&fixture(version, "seal.key")).expect("a sealing key");
    let seals = SealRing::new("harbor", key, vec![]);
    seals.open(place, 3, None, &fixture(version, name)).expect("it opens").plain.to_vec()
}

#[test]
fn records_of_version_1_are_read() {
    let key = "0f57c6c4bd3ea2a55c1d8dc2c0f8a5a0";
    let signing =
        SeenKey::read(&opened("v1", &Place::new(Kind::Key, key), "key-signing.sealed")).expect("a key");
    assert_eq!(signing.life, Life::Signing { seen: UnixTime(1_760_000_000) });
    assert_eq!(signing.source, "/etc/core/private_key.pem");
    assert_eq!(signing.declared.as_ref().map(ToString::to_string).as_deref(), Some("harbor-2026"));
    let kid = signing.key().expect("its public half").kid().to_string();
    let verifying =
        SeenKey::read(&opened("v1", &Place::new(Kind::Key, key), "key-verifying.sealed")).expect("a key");
    let life = Life::Verifying { signed_until: UnixTime(1_760_000_000), until: UnixTime(1_760_001_860) };
    assert_eq!(verifying.life, life);
    assert!(signing.is_own && verifying.is_own, "their source says it");
    let added = SeenKey::read(&opened("v1", &Place::new(Kind::Key, key), "key-added.sealed")).expect("a key");
    assert_eq!((added.life, &*added.source, added.is_own), (life, "keys add", false));
    let place = Place::new(Kind::Revocation, key);
    let revocation = Revocation::read(&opened("v1", &place, "revocation.sealed")).expect("a revocation");
    assert_eq!(revocation.key().expect("of a key").expect("a key").kid().to_string(), kid);
}

#[test]
fn records_of_orders_replicas_and_evidence_of_version_1_are_read() {
    let at = UnixTime(1_760_000_000);
    let of = |kind, key: &str, name: &str| opened("v1", &Place::new(kind, key), name);
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
fn grants_ends_secrets_and_private_halves_of_version_1_are_read() {
    let place = Place::new(Kind::Grant, NAME);
    let grant = Grant::read(&opened("v1", &place, "grant.sealed")).expect("a grant");
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
        let read = end::read(&opened("v1", &Place::new(Kind::End, NAME), name)).expect("an end");
        assert_eq!(read, End { by: ProcessId(0xabc), number: 5, at: UnixTime(1_760_000_000), whose });
    }
    let place = Place::new(Kind::Secret, "grace");
    let read = secret::read(&opened("v1", &place, "secret.sealed")).expect("a secret");
    assert_eq!(*read, [11; secret::BYTES]);
    let place = Place::new(Kind::Private, NAME);
    let key = private_half::read(&opened("v1", &place, "private.sealed")).expect("a private half");
    let signature = key.sign(b"message").expect("it signs");
    assert!(key.without_private().verifies(b"message", &signature));
}

const NAME: &str = "0f57c6c4bd3ea2a55c1d8dc2c0f8a5a0";
/// Of the shape of Harbor's.
const TOKEN: &str = "eyJhbGciOiJSUzI1NiIsImtpZCI6IksiLCJ0eXAiOiJKV1QifQ.eyJpc3MiOiJoYXJib3ItdG9rZW4taXNzdWVyIiwic3ViIjoiZGV2IiwiYXVkIjoiaGFyYm9yLXJlZ2lzdHJ5IiwiZXhwIjoxNzYwMDAxODAwLCJuYmYiOjE3NjAwMDAwMDAsImlhdCI6MTc2MDAwMDAwMCwianRpIjoieCIsImFjY2VzcyI6W3sidHlwZSI6InJlcG9zaXRvcnkiLCJuYW1lIjoicHJpdi9zZWVkIiwiYWN0aW9ucyI6WyJwdWxsIl19XX0.c2lnbmF0dXJl";

/// Writes those that aren't there; to be run once for a version, or for a kind that it adds, by hand.
#[test]
#[ignore = "fixtures are for ever: see tests/fixtures/store"]
fn write_the_fixtures_of_this_version() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/store/v1");
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        // What is there is for ever.
        if !path.exists() {
            fs::write(path, bytes).expect("it is written");
        }
    };
    fs::create_dir_all(&folder).expect("a folder");
    write("seal.key", tidegate::decisions::record::seal::written(&[7; 32]).as_bytes());
    let key = SealKey::parse(&fixture("v1", "seal.key")).expect("a key");
    let seals = SealRing::new("harbor", key, vec![]);
    let core = tidegate::rehearsal::harbor::CoreKey::generate(2048).expect("a key");
    let pem = core.text(tidegate::rehearsal::harbor::KeyForm::Pkcs1).expect("its text");
    let keys = tidegate::decisions::key::parse(pem.as_bytes()).expect("a key");
    let spki = keys[0].spki().to_vec();
    let name = "0f57c6c4bd3ea2a55c1d8dc2c0f8a5a0";
    let seen = |life| SeenKey {
        spki: spki.clone(),
        declared: tidegate::words::kid::Kid::parse("harbor-2026"),
        source: "/etc/core/private_key.pem".to_owned(),
        life,
        listed_end: None,
        is_own: true,
    };
    let at = UnixTime(1_760_000_000);
    let of_key = Place::new(Kind::Key, name);
    let sealed = |place: &Place, plain: &[u8]| seals.seal(place, 3, None, plain).expect("sealed");
    write("key-signing.sealed", &sealed(&of_key, &seen(Life::Signing { seen: at }).write()));
    let life = Life::Verifying { signed_until: at, until: UnixTime(1_760_001_860) };
    write("key-verifying.sealed", &sealed(&of_key, &seen(life).write()));
    let added = SeenKey { source: "keys add".to_owned(), is_own: false, ..seen(life) };
    write("key-added.sealed", &sealed(&of_key, &added.write()));
    let seen = [(ProcessId(0xabc), 5), (ProcessId(u64::MAX), 1)].into_iter().collect();
    let grant = Grant::write(TOKEN, &[9; 32], at, &seen);
    write("grant.sealed", &sealed(&Place::new(Kind::Grant, NAME), &grant));
    let ends = [
        ("end-all.sealed", Whose::All),
        ("end-project.sealed", Whose::Project("priv".into())),
        ("end-credential.sealed", Whose::Credential([9; 32])),
    ];
    for (name, whose) in ends {
        let end = End { by: ProcessId(0xabc), number: 5, at, whose };
        write(name, &sealed(&Place::new(Kind::End, NAME), &end::write(&end)));
    }
    let of_secret = secret::write(&[11; secret::BYTES]);
    write("secret.sealed", &sealed(&Place::new(Kind::Secret, "grace"), &of_secret));
    let half = private_half::write(&keys[0]).expect("a private half");
    write("private.sealed", &sealed(&Place::new(Kind::Private, NAME), &half));
    let revocation = Revocation::Key { spki: spki.clone(), at };
    write("revocation.sealed", &sealed(&Place::new(Kind::Revocation, name), &revocation.write()));
    write("window.sealed", &sealed(&Place::new(Kind::Window, PLACE), &window().write()));
    for (revocation, name) in revocations() {
        let place = Place::new(Kind::Revocation, revocation.place());
        write(name, &sealed(&place, &revocation.write()));
    }
    let (host, version, applied) = ("tidegate-0".to_owned(), "0.1.0".to_owned(), "00ff".to_owned());
    let replica = Replica { host, version, began: at, seen: at, applied };
    let id = "0011223344556677";
    write("replica.sealed", &sealed(&Place::new(Kind::Replica, id), &replica.write()));
    let mut evidence = Evidence::default();
    let kid = tidegate::words::kid::Kid::parse("K").expect("a name");
    for user in ["dev", "robot$ci"] {
        evidence.note(&kid, (user, [10, 0, 0, 1].into()), at, at);
    }
    write("evidence.sealed", &sealed(&Place::new(Kind::Evidence, id), &evidence.write()));
}
