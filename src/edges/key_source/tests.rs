use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
    time::Instant,
};

use tempfile::TempDir;
use tokio::task::JoinHandle;

use super::*;
use crate::decisions::{
    key::{
        KeyFault,
        forge::{Forged, ec, rsa},
    },
    ring::{Listed, Overlap, State},
};
use crate::{edges::small_file, words::file_fault::FileFault};

fn policy() -> Policy {
    Policy { overlap: Overlap::Auto, token_lifetime: Duration::from_mins(30), leeway: Duration::from_mins(1) }
}

fn source(place: Place) -> Source {
    Source { place, listing: Listing::default() }
}

fn write(path: &Path, text: impl AsRef<[u8]>) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o640)).unwrap();
}

fn rename_over(path: &Path, text: &str) {
    let beside = path.with_extension("next");
    write(&beside, text);
    fs::rename(beside, path).unwrap();
}

type Breakage = (fn(&Path), KeyFault);

/// A folder with a key file, and a shelf that follows it.
struct Following {
    folder: TempDir,
    shelf: Arc<KeyShelf>,
    clock: Clock,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Following {
    fn file(&self) -> std::path::PathBuf {
        self.folder.path().join("private_key.pem")
    }

    /// `reread_every`: an hour leaves it to the kernel's word alone.
    async fn of(place: impl FnOnce(&Path) -> Place, reread_every: Duration) -> Self {
        let folder = TempDir::new().unwrap();
        write(&folder.path().join("private_key.pem"), rsa(0).pkcs1_pem());
        let sources = vec![source(place(folder.path()))];
        Self::sources(folder, sources, reread_every).await
    }

    async fn sources(folder: TempDir, sources: Vec<Source>, reread_every: Duration) -> Self {
        let shelf = Arc::new(KeyShelf::new(policy(), sources));
        let clock = Clock::shifted(0);
        load_once(&shelf, clock.now());
        let (stop, stopped) = watch::channel(false);
        let task = run(Arc::clone(&shelf), clock.clone(), reread_every, stopped);
        #[expect(clippy::disallowed_methods, reason = "its end is awaited by `Following::end`")]
        let task = tokio::spawn(task);
        let following = Self { folder, shelf, clock, stop, task };
        following.until("it follows", |shelf| shelf.ring().has_keys()).await;
        following
    }

    async fn until(&self, what: &str, met: impl Fn(&KeyShelf) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !met(&self.shelf) {
            assert!(Instant::now() < deadline, "not within 10 s: {what}; {:?}", self.shelf.alarms());
            tokio::task::yield_now().await;
        }
    }

    fn state(&self, forged: &Forged) -> Option<State> {
        let ring = self.shelf.ring();
        ring.find(forged.key().kid().as_str()).map(|entry| entry.state(self.clock.now()))
    }

    async fn until_signing(&self, forged: &Forged) {
        self.until("the key signs", |_| self.state(forged) == Some(State::Signing)).await;
    }

    async fn end(self) {
        self.stop.send(true).unwrap();
        self.task.await.unwrap();
    }
}

const HOUR: Duration = Duration::from_hours(1);

fn file_of(folder: &Path) -> Place {
    Place::File(folder.join("private_key.pem"))
}

fn is_verifying(state: Option<State>) -> bool {
    matches!(state, Some(State::Verifying { .. }))
}

#[tokio::test]
async fn a_file_replaced_in_place_or_by_rename_is_seen_by_the_kernels_word_and_by_looking() {
    for (every, replace) in [
        (HOUR, write as fn(&Path, String)),
        (HOUR, |path: &Path, text: String| rename_over(path, &text)),
        (Duration::from_millis(20), |path: &Path, text: String| rename_over(path, &text)),
    ] {
        let following = Following::of(file_of, every).await;
        replace(&following.file(), rsa(1).pkcs1_pem());
        following.until_signing(rsa(1)).await;
        assert!(is_verifying(following.state(rsa(0))));
        assert!(following.shelf.ring().signer(rsa(0).key().kid().as_str()).is_some());
        following.end().await;
    }
}

#[tokio::test]
async fn a_file_replaced_twice_within_a_second_leaves_both_former_keys_verifying() {
    let following = Following::of(file_of, HOUR).await;
    rename_over(&following.file(), &rsa(1).pkcs1_pem());
    following.until_signing(rsa(1)).await;
    rename_over(&following.file(), &rsa(2).pkcs1_pem());
    following.until_signing(rsa(2)).await;
    assert!(is_verifying(following.state(rsa(0))) && is_verifying(following.state(rsa(1))));
    following.end().await;
}

#[tokio::test]
async fn kubernetes_swaps_its_data_link() {
    let folder = TempDir::new().unwrap();
    let version = |name: &str, text: String| {
        let version = folder.path().join(name);
        fs::create_dir(&version).unwrap();
        write(&version.join("tls.key"), text);
        let next = folder.path().join("..data_tmp");
        symlink(name, &next).unwrap();
        fs::rename(next, folder.path().join("..data")).unwrap();
    };
    version("..2026_01", rsa(0).pkcs1_pem());
    symlink("..data/tls.key", folder.path().join("tls.key")).unwrap();
    for place in [Place::File(folder.path().join("tls.key")), Place::Folder(folder.path().to_owned())] {
        let shelf = KeyShelf::new(policy(), vec![source(place)]);
        assert_eq!(*load_once(&shelf, UnixTime(0)), []);
        assert_eq!(shelf.ring().entries().count(), 1);
    }
    let place = Place::File(folder.path().join("tls.key"));
    let path = folder.path().to_owned();
    let following = Following::sources(TempDir::new().unwrap(), vec![source(place)], HOUR).await;
    version("..2026_02", rsa(1).pkcs1_pem());
    fs::remove_dir_all(path.join("..2026_01")).unwrap();
    following.until_signing(rsa(1)).await;
    assert!(is_verifying(following.state(rsa(0))));
    assert_eq!(*following.shelf.alarms(), []);
    following.end().await;
}

#[tokio::test]
async fn a_mount_whose_inode_changed_is_seen_by_looking() {
    let outer = TempDir::new().unwrap();
    let mount = outer.path().join("mount");
    fs::create_dir(&mount).unwrap();
    write(&mount.join("private_key.pem"), rsa(0).pkcs1_pem());
    let sources = vec![source(file_of(&mount))];
    let following = Following::sources(TempDir::new().unwrap(), sources, Duration::from_millis(20)).await;
    fs::rename(&mount, outer.path().join("unmounted")).unwrap();
    fs::create_dir(&mount).unwrap();
    write(&mount.join("private_key.pem"), rsa(1).pkcs1_pem());
    following.until_signing(rsa(1)).await;
    following.end().await;
}

#[tokio::test]
async fn every_breakage_keeps_the_ring_names_path_cause_and_remedy_and_mends_by_itself() {
    let following = Following::of(file_of, Duration::from_millis(20)).await;
    let (file, pem) = (following.file(), rsa(0).pkcs1_pem());
    let breakages: [Breakage; 6] = [
        (|file| write(file, ""), KeyFault::File(FileFault::Empty)),
        (|file| write(file, &rsa(0).pkcs1_pem()[..800]), KeyFault::Cut),
        (|file| write(file, [0xde, 0xad].repeat(400)), KeyFault::NoKeys),
        (|file| fs::remove_file(file).unwrap(), KeyFault::File(FileFault::Missing)),
        (|file| fs::create_dir(file).unwrap(), KeyFault::File(FileFault::Directory)),
        (
            |file| {
                fs::remove_dir(file).unwrap();
                write(file, vec![b'A'; 100 << 20]);
            },
            KeyFault::File(FileFault::TooLarge),
        ),
    ];
    for (breakage, fault) in breakages {
        breakage(&file);
        let alarmed = |shelf: &KeyShelf| shelf.alarms().iter().any(|alarm| alarm.cause == fault.to_string());
        following.until("the alarm", alarmed).await;
        let alarm = following.shelf.alarms()[0].clone();
        assert_eq!((alarm.path.as_str(), alarm.remedy), (file.to_str().unwrap(), fault.remedy()));
        assert_eq!(following.state(rsa(0)), Some(State::Signing), "{fault}");
    }
    write(&file, pem);
    following.until("the alarm ends", |shelf| shelf.alarms().is_empty()).await;
    write(&file, rsa(1).pkcs1_pem());
    following.until_signing(rsa(1)).await;
    following.end().await;
}

#[tokio::test]
async fn a_half_written_file_completed_later_is_one_change_without_an_alarm() {
    let following = Following::of(file_of, HOUR).await;
    let generation = following.shelf.ring().generation();
    let pem = rsa(1).pkcs1_pem();
    write(&following.file(), &pem[..800]);
    write(&following.file(), &pem);
    following.until_signing(rsa(1)).await;
    assert_eq!(*following.shelf.alarms(), []);
    assert_eq!(following.shelf.ring().generation(), generation + 1);
    following.end().await;
}

#[tokio::test]
async fn a_window_ends_by_itself_when_its_time_has_come() {
    let following = Following::of(file_of, Duration::from_millis(20)).await;
    rename_over(&following.file(), &rsa(1).pkcs1_pem());
    following.until_signing(rsa(1)).await;
    following.clock.shift_to(i64::try_from(policy().window().as_secs()).unwrap() + 1);
    let retired = |shelf: &KeyShelf| {
        let ring = shelf.ring();
        !ring.find(rsa(0).key().kid().as_str()).unwrap().key().can_sign()
    };
    following.until("the former private half is gone", retired).await;
    assert_eq!(following.state(rsa(0)), Some(State::Retired));
    following.end().await;
}

#[test]
fn a_relative_source_is_the_same_file_by_its_absolute_path() {
    let absolute = |path: &str| std::path::absolute(path).unwrap();
    let (file, folder) = (Place::File("keys/a.pem".into()), Place::Folder("keys".into()));
    for path in [Path::new("keys/a.pem").to_owned(), absolute("keys/a.pem")] {
        assert!(file.takes(&path) && folder.takes(&path), "{}", path.display());
    }
    for path in [absolute("a.pem"), absolute("other/a.pem")] {
        assert!(!file.takes(&path) && !folder.takes(&path), "{}", path.display());
    }
}

#[tokio::test]
async fn files_come_to_a_folder_and_leave_it() {
    let following = Following::of(|folder| Place::Folder(folder.to_owned()), HOUR).await;
    write(&following.folder.path().join("second.pem"), rsa(1).public_pem());
    write(&following.folder.path().join(".hidden.pem"), rsa(2).public_pem());
    write(&following.folder.path().join("draft.next"), rsa(2).public_pem());
    following.until_signing(rsa(1)).await;
    assert_eq!(following.state(rsa(2)), None);
    fs::remove_file(following.folder.path().join("second.pem")).unwrap();
    following.until("it verifies", |_| is_verifying(following.state(rsa(1)))).await;
    assert_eq!(following.state(rsa(0)), Some(State::Signing));
    following.end().await;
}

#[tokio::test]
async fn another_configuration_counts_as_a_replacement_and_is_followed() {
    let following = Following::of(file_of, HOUR).await;
    let elsewhere = TempDir::new().unwrap();
    write(&elsewhere.path().join("private_key.pem"), rsa(1).pkcs1_pem());
    following.shelf.reconfigure(policy(), vec![source(file_of(elsewhere.path()))], following.clock.now());
    assert_eq!(following.state(rsa(1)), Some(State::Signing));
    assert!(is_verifying(following.state(rsa(0))));
    following
        .until("the new folder is watched", |_| {
            rename_over(&elsewhere.path().join("private_key.pem"), &rsa(2).pkcs1_pem());
            following.state(rsa(2)) == Some(State::Signing)
        })
        .await;
    following.end().await;
}

#[test]
fn a_fifo_never_blocks_and_is_no_key() {
    let folder = TempDir::new().unwrap();
    let fifo = folder.path().join("private_key.pem");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let shelf = KeyShelf::new(policy(), vec![source(Place::File(fifo))]);
    assert_eq!(load_once(&shelf, UnixTime(0))[0].cause, KeyFault::File(FileFault::NoRegularFile).to_string());
}

#[test]
fn an_unreadable_file_says_so() {
    let denied = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
    assert_eq!(
        small_file::fault(&denied),
        FileFault::Unreadable,
        "root reads mode 000, so the error is made here"
    );
}

#[test]
fn a_key_that_the_world_may_read_or_core_cant_use_is_a_warning_and_in_use() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("private_key.pem");
    for (text, mode, warnings) in [
        (rsa(0).pkcs1_pem(), 0o640, 0),
        (rsa(0).pkcs1_pem(), 0o644, 1),
        (rsa(0).public_pem(), 0o644, 0),
        (rsa(0).pkcs8_pem(), 0o640, 1),
        (ec().pkcs8_pem(), 0o644, 2),
    ] {
        write(&path, text);
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let shelf = KeyShelf::new(policy(), vec![source(Place::File(path.clone()))]);
        let alarms = load_once(&shelf, UnixTime(0));
        assert!(alarms.iter().all(|alarm| alarm.is_warning));
        assert_eq!((alarms.len(), shelf.ring().entries().count()), (warnings, 1), "{alarms:?}");
    }
}

#[test]
fn what_would_keep_core_from_signing_is_known_and_no_alarm_by_itself() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("private_key.pem");
    for (text, mode, state, suspected) in [
        (rsa(0).pkcs1_pem(), 0o600, None, "core's uid 10000 may not read the file"),
        (rsa(0).pkcs1_pem(), 0o604, None, ""),
        (rsa(0).public_pem(), 0o604, None, "public keys only"),
        (rsa(0).public_pem(), 0o604, Some(Listed::Verifying), ""),
        (rsa(0).pkcs1_pem(), 0o600, Some(Listed::Announced), ""),
    ] {
        write(&path, text);
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let listing = Listing { state, ..Listing::default() };
        let shelf = KeyShelf::new(policy(), vec![Source { place: Place::File(path.clone()), listing }]);
        load_once(&shelf, UnixTime(0));
        let causes: Vec<_> = shelf.suspicions().iter().map(|alarm| alarm.cause.clone()).collect();
        let expected = usize::from(!suspected.is_empty());
        assert!(
            causes.len() == expected && causes.iter().all(|c| c.contains(suspected)),
            "{mode:o} {causes:?}"
        );
        assert!(
            shelf.alarms().iter().all(|alarm| alarm.cause.contains("by the world")),
            "{:?}",
            shelf.alarms()
        );
    }
}

#[test]
fn a_file_whose_mode_alone_changes_is_suspected_and_cleared() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("private_key.pem");
    write(&path, rsa(0).pkcs1_pem());
    let shelf = KeyShelf::new(policy(), vec![source(Place::File(path.clone()))]);
    let suspected = |mode| {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        shelf.look(Patience::None, None, UnixTime(0));
        shelf.suspicions().len()
    };
    assert_eq!([0o644, 0o600, 0o644, 0o400].map(suspected), [0, 1, 0, 1]);
}

#[test]
fn a_file_is_core_s_to_read_by_its_user_its_group_or_everybody() {
    let table = [
        (10_000, 0, 0o400, true),
        (10_000, 10_000, 0o044, false),
        (0, 10_000, 0o440, true),
        (0, 10_000, 0o604, false),
        (0, 0, 0o640, false),
        (0, 0, 0o644, true),
    ];
    for (owner, group, bits, may) in table {
        assert_eq!(small_file::Mode { owner, group, bits }.lets(10_000), may, "{owner}:{group} {bits:o}");
    }
}

#[test]
fn a_jwks_source_takes_nothing_else() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("jwks.json");
    write(&path, rsa(0).public_pem());
    let shelf = KeyShelf::new(policy(), vec![source(Place::Jwks(path))]);
    assert_eq!(load_once(&shelf, UnixTime(0)).len(), 1);
    assert!(!shelf.ring().has_keys());
}

#[test]
fn an_empty_folder_keeps_the_keys_that_it_gave() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a.pem");
    write(&path, rsa(0).pkcs1_pem());
    let place = Place::Folder(folder.path().to_owned());
    let listing = Listing { state: Some(Listed::Signing), ..Listing::default() };
    let shelf = KeyShelf::new(policy(), vec![Source { place, listing }]);
    load_once(&shelf, UnixTime(0));
    fs::remove_file(&path).unwrap();
    assert_eq!(load_once(&shelf, UnixTime(1))[0].cause, KeyFault::EmptyFolder.to_string());
    assert_eq!(shelf.ring().entries().next().map(|entry| entry.state(UnixTime(1))), Some(State::Signing));
    write(&path, rsa(0).pkcs1_pem());
    assert_eq!(*load_once(&shelf, UnixTime(2)), []);
}

#[test]
fn a9_a_key_retired_now_stays_so_whatever_the_files_say() {
    let folder = TempDir::new().unwrap();
    let place = file_of(folder.path());
    write(&folder.path().join("private_key.pem"), rsa(0).pkcs1_pem());
    let shelf = KeyShelf::new(policy(), vec![source(place.clone())]);
    load_once(&shelf, UnixTime(0));
    shelf.retire_now(rsa(0).key().kid().as_str(), UnixTime(1)).unwrap();
    rename_over(&folder.path().join("private_key.pem"), &rsa(0).pkcs1_pem());
    load_once(&shelf, UnixTime(2));
    shelf.reconfigure(policy(), vec![source(place)], UnixTime(3));
    assert!(shelf.ring().forbids(b"m", &rsa(0).key().sign(b"m").unwrap()));
    assert!(shelf.ring().signer(rsa(0).key().kid().as_str()).is_none());
}

#[test]
fn a_name_that_becomes_free_is_taken_at_the_next_look() {
    let folder = TempDir::new().unwrap();
    let named = |file: &str| {
        let listing = Listing { alias: Kid::parse("core"), ..Listing::default() };
        Source { place: Place::File(folder.path().join(file)), listing }
    };
    write(&folder.path().join("a.pem"), rsa(0).pkcs1_pem());
    write(&folder.path().join("b.pem"), rsa(1).pkcs1_pem());
    let shelf = KeyShelf::new(policy(), vec![named("a.pem"), named("b.pem")]);
    let now = Clock::system().now();
    let alarms = load_once(&shelf, now);
    assert!(alarms[0].path.ends_with("b.pem") && alarms[0].cause.contains("`core`"), "{alarms:?}");
    write(&folder.path().join("a.pem"), rsa(1).pkcs1_pem());
    load_once(&shelf, now);
    assert_eq!(*load_once(&shelf, now), []);
}
