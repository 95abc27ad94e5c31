//! Wrong tries within a time.

use std::time::{Duration, Instant};

/// Wrong tries since it began.
pub(super) struct Window {
    began: Instant,
    wrong: u32,
}

impl Window {
    pub(super) fn new() -> Self {
        Self { began: Instant::now(), wrong: 0 }
    }

    pub(super) fn is_full(&self, most: u32, per: Duration) -> bool {
        self.began.elapsed() < per && self.wrong >= most
    }

    pub(super) fn count(&mut self, per: Duration) {
        if self.began.elapsed() >= per {
            *self = Self::new();
        }
        self.wrong = self.wrong.saturating_add(1);
    }
}
