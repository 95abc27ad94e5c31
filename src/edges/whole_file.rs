//! Replacing a file whole: a reader sees what was there before or all of what is there after, and so does a crash.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions, Permissions, TryLockError},
    io::{self, Write as _},
    os::unix::{
        ffi::OsStringExt as _,
        fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown},
    },
    path::{Path, PathBuf},
};

use super::small_file::{Mode, NONBLOCK};

/// What a file is called that isn't whole yet, with some letters and digits behind it: nobody gives one of his own such a
/// name. The dot before it: whoever reads a folder of keys passes over it.
const UNFINISHED: &str = ".tidegate-unfinished-";
/// So many letters and digits.
const CHOSEN: usize = 6;
/// Unfinished files that another process removes in the moment between their making and their lock, one after the
/// other, before that is an error.
const TRIES: usize = 8;

/// Puts `bytes` in the place of what `path` names, or makes it; for its owner alone until it is complete. Where `mode`
/// names another owner than this process's, only root can.
pub(crate) fn replace(path: &Path, bytes: &[u8], mode: Mode) -> io::Result<()> {
    let mut file = beside(path)?;
    file.write_all(bytes)?;
    give(file.as_file(), mode)?;
    finish(file.as_file(), mode.bits)?;
    file.persist(path).map_err(|error| error.error)?;
    File::open(folder(path))?.sync_all()
}

/// Whether [`replace`] can do its work, as far as can be told without doing it.
pub(crate) fn can_replace(path: &Path, mode: Mode) -> io::Result<()> {
    // It has no name, so that nothing is left of it whenever we are ended.
    give(&tempfile::tempfile_in(folder(path))?, mode)
}

/// Whether the path is a mount by itself, as where one file is given to a container: no other file can be put in its
/// place.
pub(crate) fn is_mount_point(path: &Path) -> bool {
    let Ok(path) = path.canonicalize() else { return false };
    std::fs::read("/proc/self/mountinfo").is_ok_and(|table| mount_points(&table).any(|point| point == path))
}

/// The fifth member of each line, whose blanks, tabs, line ends and backslashes are three octal digits (proc(5)).
fn mount_points(table: &[u8]) -> impl Iterator<Item = PathBuf> {
    let written =
        table.split(|byte| *byte == b'\n').filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
    written.map(|written| PathBuf::from(OsString::from_vec(unescaped(written))))
}

fn unescaped(written: &[u8]) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::with_capacity(written.len()), written);
    while let [first, after @ ..] = rest {
        if let [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..] = rest {
            bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
            rest = after;
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    bytes
}

fn give(file: &File, mode: Mode) -> io::Result<()> {
    let about = file.metadata()?;
    if (about.uid(), about.gid()) == (mode.owner, mode.group) {
        return Ok(());
    }
    fchown(file, Some(mode.owner), Some(mode.group))
}

/// The same of a file that may belong to whoever runs us.
pub(crate) fn replace_as_ours(path: &Path, bytes: &[u8], bits: u32) -> io::Result<()> {
    let mut file = beside(path)?;
    file.write_all(bytes)?;
    finish(file.as_file(), bits)?;
    file.persist(path).map_err(|error| error.error)?;
    File::open(folder(path))?.sync_all()
}

/// Makes the file for its owner alone; one that is there already is an error.
pub(crate) fn create(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = beside(path)?;
    file.write_all(bytes)?;
    finish(file.as_file(), 0o600)?;
    file.persist_noclobber(path).map_err(|error| error.error)?;
    File::open(folder(path))?.sync_all()
}

/// For its owner alone, and locked as long as this process has it.
fn beside(path: &Path) -> io::Result<tempfile::NamedTempFile> {
    clear_beside(path);
    for _ in 0..TRIES {
        let unfinished =
            tempfile::Builder::new().prefix(UNFINISHED).rand_bytes(CHOSEN).tempfile_in(folder(path))?;
        match unfinished.as_file().try_lock() {
            Err(TryLockError::WouldBlock) => {}
            Ok(()) if unfinished.as_file().metadata()?.nlink() == 0 => {}
            // Where a file system has no locks nobody takes it for one that was left behind.
            Ok(()) | Err(TryLockError::Error(_)) => return Ok(unfinished),
        }
    }
    Err(io::Error::other("other processes remove what is begun in this folder"))
}

/// Removes what a process that was killed at this work has left beside this path: no living one has a lock on it. What
/// can't be removed stays.
pub(crate) fn clear_beside(path: &Path) {
    let Ok(entries) = fs::read_dir(folder(path)) else { return };
    for entry in entries.map_while(Result::ok) {
        if is_unfinished(entry.file_name().as_encoded_bytes())
            && entry.file_type().is_ok_and(|kind| kind.is_file())
        {
            let _ = remove_if_left(&entry.path());
        }
    }
}

fn is_unfinished(name: &[u8]) -> bool {
    let chosen = name.strip_prefix(UNFINISHED.as_bytes());
    chosen.is_some_and(|chosen| chosen.len() == CHOSEN && chosen.iter().all(u8::is_ascii_alphanumeric))
}

fn remove_if_left(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().read(true).custom_flags(NONBLOCK).open(path)?;
    if file.try_lock().is_ok() { fs::remove_file(path) } else { Ok(()) }
}

fn finish(file: &File, bits: u32) -> io::Result<()> {
    file.set_permissions(Permissions::from_mode(bits))?;
    file.sync_all()
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edges::small_file;

    #[test]
    fn a_mount_point_is_known_whatever_its_name() {
        let table =
            b"22 1 8:1 / / rw - ext4 /dev/sda rw\n36 22 8:1 /x /etc/core/a\\040key\\134.pem ro - ext4 a rw\n";
        let points: Vec<_> = mount_points(table).collect();
        assert_eq!(points, [PathBuf::from("/"), PathBuf::from("/etc/core/a key\\.pem")]);
        assert!(is_mount_point(Path::new("/proc")));
        let file = tempfile::NamedTempFile::new().expect("a file");
        assert!(!is_mount_point(file.path()) && !is_mount_point(Path::new("/nowhere/at/all")));
    }

    #[test]
    fn what_a_killed_process_left_is_removed_and_what_a_living_one_writes_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key.pem");
        let left = folder.path().join(format!("{UNFINISHED}aB3dE6"));
        let others = [".tidegate", ".tidegate-passphrase", ".tidegate-unfinished-business", ".other-aB3dE6"];
        let others = others.map(|name| folder.path().join(name));
        for path in others.iter().chain([&left]) {
            fs::write(path, "half a key").expect("a file");
        }
        let being_written = beside(&path).expect("begun");
        assert!(!left.exists(), "a killed one's");
        fs::create_dir(folder.path().join(format!("{UNFINISHED}folder"))).expect("a folder");
        create(&path, b"a key").expect("made");
        assert!(being_written.path().exists(), "a living one's");
        assert!(others.iter().all(|path| path.exists()), "somebody else's");
        being_written.persist(&path).expect("it goes on");
        assert_eq!(fs::read(&path).expect("there"), b"", "what it wrote");
    }

    #[test]
    fn a_file_is_replaced_whole_with_its_mode_and_nothing_is_left_beside_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key.pem");
        create(&path, b"first").expect("made");
        let made = small_file::read(&path).expect("there");
        assert_eq!((&made.bytes[..], made.mode.bits), (&b"first"[..], 0o600));
        assert_eq!(create(&path, b"second").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        can_replace(&path, made.mode).expect("it can be");
        replace(&path, b"second", Mode { bits: 0o440, ..made.mode }).expect("replaced");
        let now = small_file::read(&path).expect("there");
        assert_eq!((&now.bytes[..], now.mode.bits), (&b"second"[..], 0o440));
        replace_as_ours(&path, b"third", 0o644).expect("replaced");
        assert_eq!(small_file::read(&path).expect("there").mode.bits, 0o644);
        assert_eq!(folder.path().read_dir().expect("a folder").count(), 1);
        assert!(can_replace(Path::new("/nowhere/at/all"), made.mode).is_err());
        assert!(replace_as_ours(Path::new("/nowhere/at/all"), b"", 0o600).is_err());
    }
}
