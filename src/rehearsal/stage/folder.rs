//! A folder for keys and configurations, gone with its value.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

/// How long a killed program may take to be gone.
const LAST_WRITES: Duration = Duration::from_millis(200);

/// A new folder, for this user alone, below the system's one for temporary files.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> io::Result<Self> {
        let name = format!("tidegate-rehearsal-{}", super::super::harbor::random_name());
        let path = std::env::temp_dir().join(name);
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A program that was just killed may still write there.
        let removed = || fs::remove_dir_all(&self.0).is_ok();
        if !removed() {
            std::thread::sleep(LAST_WRITES);
            // What is left holds keys that nobody uses.
            _ = removed();
        }
    }
}
