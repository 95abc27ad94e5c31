//! An archive of keys that was damaged on its way, and commands that are killed at their work.

use crate::{
    key_commands::{Scene, mode, text},
    rolling::Chance,
    stage::{Setup, Stage, hold, kid, spare_key},
    store::{self, PATIENCE},
    support::{settings, waiting},
};
use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::MetadataExt as _,
    path::Path,
    thread,
    time::{Duration, Instant},
};
use tidegate::{
    decisions::{
        archive::envelope::{EnvelopeFault, Passphrase, Secret, open},
        record::{
            Kind,
            seal::{KEY, SealKey},
        },
    },
    edges::store::{Backend as _, Embedded, Kept, NotNow},
    rehearsal::harbor::KeyForm,
    words::clock::UnixTime,
};

const PASSPHRASE: &str = "a passphrase that nobody types";

/// A gate before a core, with its store in a file.
fn scene() -> Scene {
    let (stage, core) = store::scene();
    let setup = Setup::before(&[&core], &[&core.key_file]).rest("[replay]\nenabled = false\n");
    let setup = setup.rest(&format!("[store]\nurl = \"{}\"\n", store::file(&stage)));
    Scene::by(stage, core, &setup)
}

/// Every place of a real one. Whatever was done to it, its reader says one thing, and says it before it tries any
/// secret.
#[test]
fn an_archive_with_any_byte_flipped_cut_or_added_is_refused_with_one_reason() {
    let scene = Scene::new();
    let (key, passphrase) = (scene.seal_key("seal.key", 7), scene.stage.path("passphrase"));
    fs::write(&passphrase, PASSPHRASE).expect("a file");
    let by_key = fs::read(scene.backed_up("by-key.keys", &key)).expect("an archive");
    let path = text(&scene.stage.path("by-passphrase.keys"));
    scene.done(&["back-up", &path, "--passphrase-file", &text(&passphrase)]);
    let by_passphrase = fs::read(path).expect("an archive");
    let opens = [
        (by_key, Secret::Key(SealKey::new(&[7; KEY]).expect("a key"))),
        (by_passphrase, Secret::Passphrase(Passphrase::parse(PASSPHRASE.as_bytes()).expect("one"))),
    ];
    for (whole, secret) in opens {
        assert!(open(&whole, &secret).is_ok());
        let is_damaged = |bytes: &[u8], what: &dyn Fn() -> String| {
            let fault = open(bytes, &secret).err();
            assert_eq!(fault, Some(EnvelopeFault::Damaged), "{}", what());
        };
        let mut flipped = whole.clone();
        for at in 0..whole.len() {
            for bits in [0x01, 0x80, 0xff] {
                flipped[at] ^= bits;
                is_damaged(&flipped, &|| format!("byte {at} of {}, bits {bits:#x}", whole.len()));
                flipped[at] ^= bits;
            }
            is_damaged(&whole[..at], &|| format!("cut at {at} of {}", whole.len()));
        }
        for more in [&[0][..], &[0xff], b"\n", &whole] {
            is_damaged(&[&whole, more].concat(), &|| format!("{} bytes more", more.len()));
        }
    }
}

/// What a restore might change.
#[derive(Debug, PartialEq)]
struct Untouched {
    key: Vec<u8>,
    mode: u32,
    owner: (u32, u32),
    /// The file itself: one in its place has another.
    inode: u64,
    modified: (i64, i64),
    states: Vec<(usize, &'static str)>,
    stored: Vec<(Kind, String, Kept)>,
    extracted: usize,
}

impl Untouched {
    fn of(scene: &Scene, folder: &Path) -> Self {
        let path = &scene.core.key_file;
        let about = path.metadata().expect("core's key");
        let metrics = scene.gate.metrics();
        let is =
            |key: usize, state| metrics.sum("tidegate_key_state", &[("kid", &kid(key)), ("state", state)]);
        let all =
            (0..2).flat_map(|key| ["announced", "signing", "verifying", "retired"].map(|state| (key, state)));
        Self {
            key: fs::read(path).expect("core's key"),
            mode: mode(path),
            owner: (about.uid(), about.gid()),
            inode: about.ino(),
            modified: (about.mtime(), about.mtime_nsec()),
            states: all.filter(|(key, state)| is(*key, *state) > 0.5).collect(),
            stored: stored(scene),
            extracted: folder.read_dir().expect("a folder").count(),
        }
    }
}

/// All records, as a copy of the file has them.
fn stored(scene: &Scene) -> Vec<(Kind, String, Kept)> {
    let copy = tempfile::tempdir().expect("a folder");
    let path = copy.path().join("store.redb");
    fs::copy(scene.stage.path("state/store.redb"), &path).expect("a copy");
    let store = Embedded::open(&path, "", UnixTime(0), NotNow::Fault).expect("it opens");
    // A process's own word of itself is written as time passes.
    let of_keys = [Kind::Key, Kind::Private, Kind::Revocation, Kind::Window];
    let records = |kind| {
        let page = scene.stage.runtime.block_on(store.page(kind, None, 1_000)).expect("its records");
        page.records.into_iter().map(move |(name, kept)| (kind, name, kept))
    };
    of_keys.into_iter().flat_map(records).collect()
}

/// The command, at a place in each part of the archive; and with all of them in the long form.
#[test]
fn a_damaged_archive_is_refused_by_restore_with_one_reason_and_nothing_is_changed() {
    let scene = scene();
    let (key, bad, folder) =
        (scene.seal_key("seal.key", 7), scene.stage.path("bad.keys"), scene.stage.path("extracted"));
    fs::create_dir(&folder).expect("a folder");
    let whole = fs::read(scene.backed_up("before.keys", &key)).expect("an archive");
    scene.upgrade();
    // Both keys, and the second word on the first one.
    waiting::holds("the store has taken all", PATIENCE, || {
        let stored = stored(&scene);
        stored.len() == 2 && stored.iter().any(|(.., kept)| kept.generation > 1)
    });
    let before = Untouched::of(&scene, &folder);
    assert_eq!(before.states, [(0, "verifying"), (1, "signing")]);
    let restore = ["restore", &text(&bad), "--key-file", &key].map(str::to_owned);
    let to = ["--to".to_owned(), text(&folder)];
    let mut reasons = BTreeSet::new();
    for (number, bytes) in damaged(&whole).into_iter().enumerate() {
        fs::write(&bad, &bytes).expect("a file");
        let more = if number % 4 == 0 { &to[..] } else { &[] };
        let words: Vec<&str> = restore.iter().chain(more).map(String::as_str).collect();
        let (code, said) = scene.keys(&words);
        assert_eq!(code, 1, "{number}: {said}");
        reasons.insert(said);
    }
    assert_eq!(reasons.len(), 1, "{reasons:#?}");
    let reason = reasons.first().map_or("", |said| said);
    assert!(
        reason.contains("it is damaged or not whole") && reason.contains("Nothing was changed"),
        "{reason}"
    );
    assert_eq!(Untouched::of(&scene, &folder), before);
    // It was no other reason.
    fs::write(&bad, &whole).expect("a file");
    scene.done(&restore.each_ref().map(String::as_str));
    assert_ne!(Untouched::of(&scene, &folder), before);
}

/// Magic, version, kind, salt, rounds, nonce, what is sealed, its tag, the checksum.
fn damaged(whole: &[u8]) -> Vec<Vec<u8>> {
    let last = whole.len() - 1;
    let parts = [0, 13, 14, 15, 16, 31, 32, 35, 36, 47, 48, last / 2, last - 47, last - 32, last - 31, last];
    let places: Vec<usize> = if settings::long() { (0..=last).collect() } else { parts.to_vec() };
    let flipped = places.iter().flat_map(|at| {
        [0x01, 0xff].map(|bits| {
            let mut flipped = whole.to_vec();
            flipped[*at] ^= bits;
            flipped
        })
    });
    let cut = places.iter().map(|at| whole[..*at].to_vec());
    let longer = [&b"\n"[..], whole].map(|more| [whole, more].concat());
    flipped.chain(cut).chain(longer).collect()
}

/// What isn't whole yet is hidden in the folder of what it is to be.
fn unfinished(scene: &Scene) -> usize {
    let names = scene.stage.path("").read_dir().expect("the folder");
    let names = names.map(|entry| entry.expect("an entry").file_name());
    names.filter(|name| name.to_string_lossy().starts_with(".tidegate-unfinished-")).count()
}

/// As one that was killed leaves it, whatever the luck of those that are.
fn leave_unfinished(scene: &Scene) {
    fs::write(scene.stage.path(".tidegate-unfinished-aB3dE6"), "half a key").expect("a file");
    assert!(unfinished(scene) > 0);
}

/// Ends a command somewhere in its time, or a while after it.
fn kill_within(scene: &Scene, words: &[&str], most: Duration, chance: &mut Chance) {
    let mut running = scene.command(words).spawn().expect("tidegate runs");
    thread::sleep(chance.up_to(most));
    running.kill().expect("it is killed, or was done");
    running.wait().expect("it ends");
}

/// How long it takes, with time to spare.
fn time_of(act: impl FnOnce()) -> Duration {
    let began = Instant::now();
    act();
    began.elapsed() * 2
}

fn turns() -> u32 {
    if settings::long() { 200 } else { 15 }
}

/// A restore that dies leaves each file as it was or as it is to be; another one ends what it began.
#[test]
fn a_restore_that_is_killed_leaves_no_half_a_key() {
    let stage = Stage::new();
    let core = stage.replica("core", |_| {});
    core.seed();
    let files = ["core.pem", "second.pem", "third.pem"].map(|name| stage.path(name));
    let paths = [0, 1, 2].map(|place: usize| files[place].as_path());
    for path in &files {
        hold(path, 0);
    }
    let setup = Setup::before(&[&core], &paths);
    let scene = Scene::by(stage, core, &setup);
    let (key, mut chance) = (scene.seal_key("seal.key", 7), Chance::new());
    let before = files.each_ref().map(|path| fs::read(path).expect("a key"));
    let archive = scene.backed_up("before.keys", &key);
    let upgraded = spare_key(1).text(KeyForm::Pkcs1).expect("a key").into_bytes();
    let restore = ["restore", &archive, "--key-file", &key];
    let most = time_of(|| drop(scene.done(&restore)));
    let (mut left, mut half) = ([0, 0], 0);
    for _ in 0..turns() {
        for path in &files {
            hold(path, 1);
        }
        kill_within(&scene, &restore, most, &mut chance);
        for (path, before) in files.iter().zip(&before) {
            let now = fs::read(path).expect("it is there");
            assert!(
                now == *before || now == upgraded,
                "{}: {}",
                path.display(),
                String::from_utf8_lossy(&now)
            );
            left[usize::from(now == *before)] += 1;
        }
        half += unfinished(&scene);
    }
    println!("{} files as they were, {} restored, {half} not whole", left[0], left[1]);
    leave_unfinished(&scene);
    scene.done(&restore);
    assert_eq!(files.each_ref().map(|path| fs::read(path).expect("a key")), before);
    scene.is_in_state(0, "signing");
    assert_eq!(unfinished(&scene), 0);
    leave_unfinished(&scene);
    assert!(scene.done(&restore).contains("holds the same"));
    assert_eq!(unfinished(&scene), 0, "also where nothing is to be written");
}

/// An archive is there whole or not at all, and nothing else is.
#[test]
fn a_back_up_that_is_killed_leaves_no_half_an_archive() {
    let scene = Scene::new();
    let (key, mut chance) = (scene.seal_key("seal.key", 7), Chance::new());
    let secret = Secret::Key(SealKey::new(&[7; KEY]).expect("a key"));
    let most = time_of(|| drop(scene.backed_up("first.keys", &key)));
    let (mut made, mut half) = (0, 0);
    for turn in 0..turns() {
        let path = scene.stage.path(&format!("{turn}.keys"));
        kill_within(&scene, &["back-up", &text(&path), "--key-file", &key], most, &mut chance);
        if let Ok(archive) = fs::read(&path) {
            assert!(open(&archive, &secret).is_ok(), "{turn}");
            made += 1;
        }
        half += unfinished(&scene);
    }
    println!("{made} archives of {}, {half} not whole", turns());
    leave_unfinished(&scene);
    scene.backed_up("last.keys", &key);
    assert_eq!(unfinished(&scene), 0);
}
