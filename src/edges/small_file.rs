//! Reading one small file of keys or certificates without ever blocking on it or taking more than 1 MiB.

use std::{
    fs::{File, Metadata, OpenOptions, metadata},
    io::{self, ErrorKind, Read as _},
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

use aws_lc_rs::digest::{SHA256, digest};
use zeroize::Zeroizing;

use crate::words::file_fault::FileFault;

/// Bytes of the longest file that is read.
const LONGEST: usize = 1 << 20;

/// `O_NONBLOCK` of Linux on the architectures that we build for: a FIFO without a writer opens at once.
pub(super) const NONBLOCK: i32 = 0o4000;

/// What tells one content of a path from the next, without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// A file as it was read.
pub(crate) struct Read {
    pub(crate) bytes: Zeroizing<Vec<u8>>,
    pub(crate) digest: [u8; 32],
    pub(crate) stamp: Stamp,
    pub(crate) mode: Mode,
}

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mode {
    pub(crate) owner: u32,
    pub(crate) group: u32,
    /// The nine bits of `chmod`.
    pub(crate) bits: u32,
}

/// The user and the group that Harbor's core runs as.
pub(crate) const CORE: u32 = 10_000;

impl Mode {
    pub(crate) fn of(meta: &Metadata) -> Self {
        Self { owner: meta.uid(), group: meta.gid(), bits: meta.mode() & 0o777 }
    }

    pub(crate) fn is_world_readable(self) -> bool {
        self.bits & 0o004 != 0
    }

    /// Whether a process of this user, and of the group of the same number alone, may read it.
    pub(crate) fn lets(self, id: u32) -> bool {
        let bit = if self.owner == id {
            0o400
        } else if self.group == id {
            0o040
        } else {
            0o004
        };
        self.bits & bit != 0
    }
}

impl Stamp {
    /// The stamp of what the path leads to now, through symbolic links; `None` where it can't be had.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        metadata(path).ok().as_ref().map(Self::from)
    }

    /// Whether the file was changed in the two seconds before `now` (or later), so that another change could
    /// have left the same stamp: clocks of file systems tick in steps.
    pub(crate) fn is_fresh(&self, now: i64) -> bool {
        self.modified.0.max(self.changed.0) > now - 2
    }
}

impl From<&Metadata> for Stamp {
    fn from(of: &Metadata) -> Self {
        Self {
            device: of.dev(),
            inode: of.ino(),
            size: of.size(),
            modified: (of.mtime(), of.mtime_nsec()),
            changed: (of.ctime(), of.ctime_nsec()),
        }
    }
}

/// The bytes of a regular file.
pub(crate) fn read(path: &Path) -> Result<Read, FileFault> {
    let (file, meta) = open(path, LONGEST as u64)?;
    let bytes = contents(&file).map_err(|error| fault(&error))?;
    if bytes.len() > LONGEST {
        return Err(FileFault::TooLarge);
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, &bytes).as_ref());
    Ok(Read { bytes, digest: hash, stamp: Stamp::from(&meta), mode: Mode::of(&meta) })
}

/// A regular file of at most so many bytes, without waiting for anything.
pub(crate) fn open(path: &Path, longest: u64) -> Result<(File, Metadata), FileFault> {
    // Looked at before it is opened, because opening a device may do something; and after, because the path
    // may lead elsewhere by then.
    check(&metadata(path).map_err(|error| fault(&error))?, longest)?;
    let file =
        OpenOptions::new().read(true).custom_flags(NONBLOCK).open(path).map_err(|error| fault(&error))?;
    let meta = file.metadata().map_err(|error| fault(&error))?;
    check(&meta, longest)?;
    Ok((file, meta))
}

fn check(meta: &Metadata, longest: u64) -> Result<(), FileFault> {
    let kind = meta.file_type();
    match () {
        () if kind.is_dir() => Err(FileFault::Directory),
        () if kind.is_fifo() || kind.is_socket() || !kind.is_file() => Err(FileFault::NoRegularFile),
        () if meta.len() > longest => Err(FileFault::TooLarge),
        () => Ok(()),
    }
}

/// One byte more than may be, to see that there is more; in one allocation, so that no copy of a secret
/// stays behind.
fn contents(file: &File) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(LONGEST + 2));
    file.take(LONGEST as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

pub(crate) fn fault(error: &io::Error) -> FileFault {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => FileFault::Missing,
        ErrorKind::PermissionDenied => FileFault::Unreadable,
        ErrorKind::IsADirectory => FileFault::Directory,
        kind => FileFault::Read(kind.to_string()),
    }
}
