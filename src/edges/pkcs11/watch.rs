//! Looking at a token, on a thread of its own: what keys it holds, and what keeps it from telling.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use crossbeam_channel::{Receiver, Sender, bounded};

use super::{
    Location,
    lane::{Lane, TokenKey},
    module::{Failed, Module, Modules, Open},
    objects::{self, Found, Numbers},
};
use crate::decisions::{
    key::{Key, KeyFault, Pkcs11Fault},
    ring::SourceName,
};

/// A look that takes longer counts as none: the module hangs.
const LONGEST_LOOK: Duration = Duration::from_secs(5);
/// The least time between looks that failed signatures ask for.
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);
/// What a key signs when it is first seen: no token of a registry begins so.
const TRIAL: &[u8] = b"tidegate looks at this key";

/// Who wants a look.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    /// Somebody who waits for it.
    Now,
    /// A signature failed.
    Failed,
}

/// One source that is watched until it is dropped.
#[derive(Debug)]
pub(in crate::edges) struct Watched {
    location: Arc<Location>,
    name: Arc<str>,
    lane: Arc<Lane>,
    looks: Arc<Looks>,
    asks: Sender<Ask>,
}

/// What a look found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::edges) struct Reading {
    keys: Vec<Numbers>,
    /// The token would give some private half away.
    pub(in crate::edges) may_leave: bool,
}

#[derive(Debug, Default)]
struct Looks {
    seen: Mutex<Seen>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct Seen {
    /// Looks that have ended.
    count: u64,
    /// Since when one runs.
    runs: Option<Instant>,
    last: Option<Result<Reading, KeyFault>>,
}

impl Watched {
    /// Begins to look at once.
    pub(in crate::edges) fn start(location: Location, modules: &Modules) -> Self {
        let (asks, asked) = bounded(1);
        let (module, location) = (modules.get(&location.module), Arc::new(location));
        let lane = Arc::new(Lane::start(module, &location, &asks));
        let watched = Self {
            name: location.name().as_str().into(),
            location: location.clone(),
            lane: lane.clone(),
            looks: Arc::default(),
            asks,
        };
        // A lane lives as long as a key that signs by it, not as long as somebody looks.
        let watch = Watch {
            module,
            location,
            looks: watched.looks.clone(),
            lane: Arc::downgrade(&lane),
            proved: Vec::new(),
        };
        watched.looks.begin();
        if let Err(error) =
            thread::Builder::new().name("pkcs11-look".to_owned()).spawn(move || watch.run(&asked))
        {
            tracing::error!(%error, key.path = %watched.name, "the thread that looks at a token did not start");
        }
        watched
    }

    pub(in crate::edges) fn location(&self) -> &Location {
        &self.location
    }

    pub(in crate::edges) fn name(&self) -> SourceName {
        SourceName::new(&self.name)
    }

    /// Has the token looked at; what [`Self::wait`] waits for.
    pub(in crate::edges) fn ask(&self) -> u64 {
        let seen = self.looks.lock();
        // One that runs may have passed by what is new, but for the first one.
        let next = seen.count + 1 + u64::from(seen.runs.is_some() && seen.count > 0);
        drop(seen);
        // One that is asked for already will do.
        let _ = self.asks.try_send(Ask::Now);
        next
    }

    /// Waits for the end of that look, at most until then, and not at all where the module doesn't answer.
    pub(in crate::edges) fn wait(&self, look: u64, until: Instant) {
        let mut seen = self.looks.lock();
        while seen.count < look && !self.hangs(&seen) {
            let Some(left) = until.checked_duration_since(Instant::now()) else { return };
            let waited = self.looks.ended.wait_timeout(seen, left.min(BETWEEN_LOOKS));
            seen = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// What is known of the token now; `None` before the first look has ended.
    pub(in crate::edges) fn reading(&self) -> Option<Result<Reading, KeyFault>> {
        let seen = self.looks.lock();
        if self.hangs(&seen) {
            return Some(Err(Pkcs11Fault::Hangs.into()));
        }
        seen.last.clone()
    }

    fn hangs(&self, seen: &Seen) -> bool {
        self.lane.is_stuck() || seen.runs.is_some_and(|since| since.elapsed() > LONGEST_LOOK)
    }

    /// The keys of a reading, which sign in the token.
    pub(in crate::edges) fn keys(&self, reading: &Reading) -> Result<Vec<Key>, KeyFault> {
        let key = |numbers: &Numbers| {
            let signs = Arc::new(TokenKey::new(self.name.clone(), self.lane.clone(), numbers));
            Key::rsa_elsewhere(&numbers.modulus, &numbers.exponent, signs)
        };
        reading.keys.iter().map(key).collect()
    }
}

impl Looks {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self) {
        self.lock().runs = Some(Instant::now());
    }

    fn end(&self, read: Result<Reading, KeyFault>) {
        let mut seen = self.lock();
        *seen = Seen { count: seen.count + 1, runs: None, last: Some(read) };
        self.ended.notify_all();
    }
}

/// What the looking thread has.
struct Watch {
    module: &'static Module,
    location: Arc<Location>,
    looks: Arc<Looks>,
    lane: std::sync::Weak<Lane>,
    /// Keys whose private half was seen to fit.
    proved: Vec<Numbers>,
}

impl Watch {
    fn run(mut self, asked: &Receiver<Ask>) {
        loop {
            self.looks.begin();
            let read = self.look();
            if let Some(lane) = self.lane.upgrade() {
                lane.answered();
            }
            self.looks.end(read);
            let ended = Instant::now();
            loop {
                match asked.recv_timeout(self.location.every) {
                    Ok(Ask::Failed) if ended.elapsed() < BETWEEN_LOOKS => {}
                    Ok(_) | Err(crossbeam_channel::RecvTimeoutError::Timeout) => break,
                    Err(crossbeam_channel::RecvTimeoutError::Disconnected) => return,
                }
            }
        }
    }

    fn look(&mut self) -> Result<Reading, KeyFault> {
        let proved = &self.proved;
        let found = self.module.with_session(&self.location, |open| {
            let found = objects::find(open, &self.location)?;
            let fits = |found: &Found| -> Result<bool, Failed> {
                Ok(proved.contains(&found.numbers) || fits(open, found)?)
            };
            let fit = found.iter().map(fits).collect::<Result<Vec<bool>, Failed>>()?;
            Ok((found, fit))
        });
        let (found, fit) = found?;
        if fit.contains(&false) {
            return Err(KeyFault::Inconsistent);
        }
        let may_leave = found.iter().any(|found| found.may_leave);
        self.proved = found.into_iter().map(|found| found.numbers).collect();
        Ok(Reading { keys: self.proved.clone(), may_leave })
    }
}

/// Whether the private half signs for the public one. What is no key at all is told of when it is made one.
fn fits(open: &Open, found: &Found) -> Result<bool, Failed> {
    let Ok(key) = Key::of_numbers(&found.numbers.modulus, &found.numbers.exponent) else { return Ok(true) };
    let signature = objects::sign(open, found.handle, TRIAL)?;
    Ok(key.verifies(TRIAL, &URL_SAFE_NO_PAD.encode(signature)))
}
