//! Bytes of uploads that go on after a cut, in files without a name: mode 0600, sealed with a key that lives in memory
//! alone, gone with the process however it ends (A24).

use std::{
    fs::{File, Permissions},
    io,
    os::unix::fs::{FileExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

/// Bytes that sealing adds to a block.
const TAG: u64 = 16;

/// The folder, and how much may lie in it.
#[derive(Debug)]
pub struct Spool {
    folder: PathBuf,
    each: u64,
    total: u64,
    used: AtomicU64,
}

/// One upload's file. Its bytes count as long as it lives.
pub struct SpoolFile {
    spool: Arc<Spool>,
    key: LessSafeKey,
    file: OnceLock<File>,
    used: AtomicU64,
}

/// Where a block lies in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    at: u64,
    sealed: u64,
    number: u64,
}

impl Spool {
    /// A spool in `folder`, for so many bytes of each upload and of all together.
    pub fn new(folder: PathBuf, each: u64, total: u64) -> Self {
        Self { folder, each, total, used: AtomicU64::new(0) }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Makes a file as an upload would.
    pub fn try_out(&self) -> io::Result<()> {
        tempfile::tempfile_in(&self.folder)?.write_all_at(b"tidegate", 0)
    }

    /// Bytes in it now.
    pub fn used(&self) -> u64 {
        self.used.load(Relaxed)
    }

    /// A file for one upload; made on disk with its first block.
    pub fn file(self: &Arc<Self>) -> io::Result<SpoolFile> {
        let mut secret = zeroize::Zeroizing::new([0; 32]);
        aws_lc_rs::rand::fill(&mut *secret).map_err(|_| io::Error::other("no random bytes"))?;
        let key = UnboundKey::new(&AES_256_GCM, &*secret).map_err(|_| io::Error::other("no key"))?;
        let (file, used) = (OnceLock::new(), AtomicU64::new(0));
        Ok(SpoolFile { spool: self.clone(), key: LessSafeKey::new(key), file, used })
    }
}

impl SpoolFile {
    /// Reserves room for a block of so many bytes; `None` where there is none.
    pub fn reserve(&self, bytes: usize, number: u64) -> Option<Place> {
        let sealed = bytes as u64 + TAG;
        let spool = &self.spool;
        let at = self.used.load(Relaxed);
        if at + sealed > spool.each {
            return None;
        }
        if spool.used.fetch_add(sealed, Relaxed) + sealed > spool.total {
            spool.used.fetch_sub(sealed, Relaxed);
            return None;
        }
        self.used.store(at + sealed, Relaxed);
        Some(Place { at, sealed, number })
    }

    /// Seals and writes a block. Blocks the thread.
    pub fn write(&self, place: Place, block: &[u8]) -> io::Result<()> {
        let file = if let Some(file) = self.file.get() {
            file
        } else {
            let made = tempfile::tempfile_in(&self.spool.folder)?;
            made.set_permissions(Permissions::from_mode(0o600))?;
            self.file.get_or_init(|| made)
        };
        let mut sealed = Vec::with_capacity(block.len() + TAG as usize);
        sealed.extend_from_slice(block);
        self.key
            .seal_in_place_append_tag(nonce(place.number), Aad::empty(), &mut sealed)
            .map_err(|_| io::Error::other("a block can't be sealed"))?;
        file.write_all_at(&sealed, place.at)
    }

    /// Reads and opens a block. Blocks the thread.
    pub fn read(&self, place: Place) -> io::Result<Vec<u8>> {
        let file = self.file.get().ok_or_else(|| io::Error::other("nothing was written"))?;
        let mut sealed = vec![0; usize::try_from(place.sealed).map_err(io::Error::other)?];
        file.read_exact_at(&mut sealed, place.at)?;
        let opened = self
            .key
            .open_in_place(nonce(place.number), Aad::empty(), &mut sealed)
            .map_err(|_| io::Error::other("a block of the spool is not what was written"))?;
        let length = opened.len();
        sealed.truncate(length);
        Ok(sealed)
    }
}

impl Drop for SpoolFile {
    fn drop(&mut self) {
        self.spool.used.fetch_sub(self.used.load(Relaxed), Relaxed);
    }
}

/// Each block of a file has its own: no key is used for two files.
fn nonce(number: u64) -> Nonce {
    let mut bytes = [0; NONCE_LEN];
    bytes[NONCE_LEN - 8..].copy_from_slice(&number.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    fn spool(each: u64, total: u64) -> (tempfile::TempDir, Arc<Spool>) {
        let folder = tempfile::tempdir().expect("a folder");
        let spool = Arc::new(Spool::new(folder.path().to_owned(), each, total));
        (folder, spool)
    }

    #[test]
    fn a24_a_file_has_no_name_is_its_owners_alone_and_holds_nothing_readable() {
        let (folder, spool) = spool(1 << 20, 1 << 20);
        let file = spool.file().expect("a file");
        let block = b"a layer that nobody else may read".repeat(100);
        let first = file.reserve(block.len(), 0).expect("room");
        file.write(first, &block).expect("written");
        let second = file.reserve(3, 1).expect("room");
        file.write(second, b"abc").expect("written");
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0, "unlinked at once");
        let on_disk = file.file.get().expect("a file");
        let metadata = on_disk.metadata().expect("metadata");
        assert_eq!((metadata.permissions().mode() & 0o777, metadata.nlink()), (0o600, 0));
        let mut raw = vec![0; block.len()];
        on_disk.read_exact_at(&mut raw, 0).expect("bytes");
        assert!(!raw.windows(7).any(|bytes| bytes == b"a layer"), "sealed");
        assert_eq!(file.read(first).expect("read"), block);
        assert_eq!(file.read(second).expect("read"), b"abc");
        on_disk.write_all_at(b"x", 5).expect("written");
        assert!(file.read(first).is_err(), "what was changed is not given out");
    }

    #[test]
    fn both_bounds_hold_and_room_comes_back() {
        let (_folder, spool) = spool(100, 150);
        let (one, two) = (spool.file().expect("a file"), spool.file().expect("a file"));
        assert!(one.reserve(84, 0).is_some());
        assert!(one.reserve(1, 1).is_none(), "of one upload");
        assert!(two.reserve(50, 0).is_none(), "of all");
        assert!(two.reserve(34, 0).is_some());
        assert_eq!(spool.used(), 150);
        drop(one);
        assert_eq!(spool.used(), 50);
        assert!(two.reserve(20, 1).is_some());
        drop(two);
        assert_eq!(spool.used(), 0);
    }
}
