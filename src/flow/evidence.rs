//! Who uses which key: noted where a token is verified for the first time, or issued; never where memory answers.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;

use crate::{
    decisions::evidence::Evidence,
    words::{clock::UnixTime, kid::Kid},
};

/// How long what was seen of a key is of interest after its last token.
pub const KEPT: Duration = Duration::from_hours(1);

/// What this process saw, and what others did.
#[derive(Debug, Default)]
pub struct Evidences {
    here: Mutex<Evidence>,
    elsewhere: ArcSwap<Evidence>,
}

impl Evidences {
    /// A token of this key, by its libtrust id, was issued or met for the first time.
    pub fn note(&self, kid: &Kid, of: (&str, IpAddr), exp: UnixTime, now: UnixTime) {
        self.lock().note(kid, of, exp, now);
    }

    /// What this process saw, without what is of no interest any more.
    pub fn here(&self, now: UnixTime) -> Evidence {
        let mut here = self.lock();
        here.forget(now, KEPT);
        here.clone()
    }

    /// What others saw, this process before its restart among them.
    pub fn set_elsewhere(&self, all: Evidence) {
        self.elsewhere.store(Arc::new(all));
    }

    /// All of it.
    pub fn all(&self) -> Evidence {
        let mut all = Evidence::clone(&self.elsewhere.load());
        all.join(&self.lock());
        all
    }

    // What it guards is whole at every step.
    fn lock(&self) -> MutexGuard<'_, Evidence> {
        self.here.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
