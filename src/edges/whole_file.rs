//! Replacing a file whole: a reader sees what was there before or all of what is there after, and so does a crash.

use std::{
    ffi::OsString,
    fs::{File, Permissions},
    io::{self, Write as _},
    os::unix::{
        ffi::OsStringExt as _,
        fs::{MetadataExt as _, PermissionsExt as _, fchown},
    },
    path::{Path, PathBuf},
};

use super::small_file::Mode;

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
    give(beside(path)?.as_file(), mode)
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

/// A dot before its name: whoever reads a folder of keys passes over it.
fn beside(path: &Path) -> io::Result<tempfile::NamedTempFile> {
    tempfile::Builder::new().prefix(".tidegate-").tempfile_in(folder(path))
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
