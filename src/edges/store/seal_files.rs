//! The files of the sealing keys: one key each, the first one seals.

use std::{
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use aws_lc_rs::rand;
use zeroize::Zeroizing;

use crate::{
    decisions::record::seal::{self, KEY, NoSealKey, SealKey, SealRing},
    edges::{small_file, whole_file},
    words::file_fault::FileFault,
};

/// Why there is no ring of sealing keys.
#[derive(Debug, thiserror::Error)]
pub enum SealFileFault {
    #[error("no sealing key is configured")]
    None,
    #[error("{}: {fault}", path.display())]
    Unreadable { path: PathBuf, fault: FileFault },
    #[error("{}: {NoSealKey}", .0.display())]
    NoKey(PathBuf),
    #[error("{}: it can't be made: {cause}", path.display())]
    NotMade { path: PathBuf, cause: io::Error },
}

impl SealFileFault {
    /// How to make one.
    pub const REMEDY: &str = "make one and give it to all replicas: (umask 077; openssl rand -base64 32 > FILE), store.seal_key_files = [\"FILE\"]";
}

/// The ring of these files. Where `make` is set and the first one isn't there, it is made (0600).
pub fn seal_ring(files: &[PathBuf], deployment: &str, make: bool) -> Result<SealRing, SealFileFault> {
    let (first, others) = files.split_first().ok_or(SealFileFault::None)?;
    let first = match key(first) {
        Err(SealFileFault::Unreadable { fault: FileFault::Missing, .. }) if make => {
            made(first)?;
            key(first)
        }
        read => read,
    }?;
    let others = others.iter().map(|file| key(file)).collect::<Result<_, _>>()?;
    Ok(SealRing::new(deployment, first, others))
}

fn key(path: &Path) -> Result<SealKey, SealFileFault> {
    let read =
        small_file::read(path).map_err(|fault| SealFileFault::Unreadable { path: path.to_owned(), fault })?;
    SealKey::parse(&read.bytes).map_err(|NoSealKey| SealFileFault::NoKey(path.to_owned()))
}

/// Whole or not at all, and on the disk before anything is sealed by it. Where two begin at once, the one that comes
/// second takes the other's.
fn made(path: &Path) -> Result<(), SealFileFault> {
    let not_made = |cause| SealFileFault::NotMade { path: path.to_owned(), cause };
    let mut bytes = Zeroizing::new([0; KEY]);
    rand::fill(&mut *bytes).map_err(|_| not_made(io::Error::other("no randomness")))?;
    match whole_file::create(path, seal::written(&bytes).as_bytes()) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(not_made(error)),
        _ => Ok(()),
    }
}

/// Whether anybody on the machine may read a file.
pub fn is_open_to_all(path: &Path) -> bool {
    small_file::read(path).is_ok_and(|read| read.mode.is_world_readable())
}
