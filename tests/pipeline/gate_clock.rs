//! A clock for tidegate alone that a test puts ahead.

use crate::{stage::Stage, support::settings};
use std::{fs, path::PathBuf};

pub struct GateClock {
    file: PathBuf,
    library: PathBuf,
}

impl GateClock {
    /// As the machine's is, at first.
    pub fn new(stage: &Stage) -> Self {
        let libraries = fs::read_dir("/usr/lib").expect("libraries").map_while(Result::ok);
        let mut libraries = libraries.map(|entry| entry.path().join("faketime/libfaketimeMT.so.1"));
        let library = libraries.find(|path| path.exists()).expect("faketime: run tests/install");
        settings::took_part("faketime", "");
        let clock = Self { file: stage.path("clock"), library };
        clock.is_ahead(0);
        clock
    }

    /// By so many seconds from now on.
    pub fn is_ahead(&self, seconds: u32) {
        let next = self.file.with_extension("next");
        fs::write(&next, format!("+{seconds}\n")).expect("a file");
        fs::rename(next, &self.file).expect("the clock is set");
    }

    /// What starts a process that goes by it.
    pub fn starter(&self) -> Vec<String> {
        let (preload, file) = (
            format!("LD_PRELOAD={}", self.library.display()),
            format!("FAKETIME_TIMESTAMP_FILE={}", self.file.display()),
        );
        ["env", &preload, &file, "FAKETIME_NO_CACHE=1", "FAKETIME_DONT_FAKE_MONOTONIC=1"]
            .map(str::to_owned)
            .into()
    }
}
