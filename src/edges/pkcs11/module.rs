//! A loaded module with its sessions. Whatever is called here blocks for as long as the module likes.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError},
    thread,
    time::{Duration, Instant},
};

use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    error::{Error, RvError},
    mechanism::MechanismType,
    session::Session,
    slot::Slot,
};

use super::{
    Location,
    login::Logins,
    trouble::{Trouble, fault},
};
use crate::decisions::key::Pkcs11Fault;

/// The least time between two beginnings of a module whose token fails.
const BETWEEN_BEGINNINGS: Duration = Duration::from_secs(1);
/// The same where other tokens are there, and may be at work.
const BESIDE_OTHER_TOKENS: Duration = Duration::from_mins(1);
/// The same where a call hung and kept it from beginning.
const AFTER_A_HANG: Duration = Duration::from_secs(10);

/// How long the end, and a new beginning, wait for calls that run.
const LAST_CALLS: Duration = Duration::from_secs(1);
/// How often they look whether those are through.
const LOOK: Duration = Duration::from_millis(5);

/// Modules by their path: `C_Initialize` is of a whole process. None is ever unloaded, because foreign code has threads
/// and destructors of its own.
#[derive(Debug, Default)]
pub(in crate::edges) struct Modules(Mutex<BTreeMap<PathBuf, &'static Module>>);

impl Modules {
    pub(super) fn get(&self, path: &Path) -> &'static Module {
        lock(&self.0).entry(path.to_owned()).or_insert_with(|| Box::leak(Box::new(Module::new(path))))
    }

    /// Logs out everywhere; no call begins any more, and none runs, but for those that hang. To be called at the
    /// process' end, whose destructors a call must not meet.
    pub(in crate::edges) fn end(&self) {
        let until = Instant::now() + LAST_CALLS;
        let modules = std::mem::take(&mut *lock(&self.0));
        for module in modules.into_values() {
            module.end(until);
        }
    }
}

/// One module. A session is used, and closed, only while `live` is held for reading, so that none outlives the
/// initialization that it belongs to: its handle may be another's after the next one.
#[derive(Debug)]
pub(super) struct Module {
    path: PathBuf,
    /// Never waited for to write where calls may hang: that would keep every call of other tokens from beginning, too.
    live: RwLock<Live>,
    /// Who calls passes it; who begins anew holds it, for a bounded while, so that the calls come to an end. And when that was in
    /// vain last.
    gate: Mutex<Option<Instant>>,
    /// Sessions that nobody uses, by their token's label. As long as one is open its token stays logged in.
    idle: Mutex<BTreeMap<String, Vec<Open>>>,
    logins: Logins,
}

#[derive(Debug, Default)]
struct Live {
    pkcs11: Option<Pkcs11>,
    /// Which initialization this is.
    epoch: u64,
    began: Option<Instant>,
}

/// A session of a token that we are logged in to.
#[derive(Debug)]
pub(super) struct Open {
    session: Option<Session>,
    /// What handles of objects are good for.
    pub(super) epoch: u64,
    /// Whether the token hashes by itself what it signs.
    pub(super) hashes: bool,
}

impl Drop for Open {
    fn drop(&mut self) {
        // A session whose token is gone can't be closed, and needn't.
        let _ = self.session.take().map(Session::close);
    }
}

/// Why something wasn't done with a session.
#[derive(Debug)]
pub(super) enum Failed {
    Call(Error),
    Fault(Pkcs11Fault),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Call(error)
    }
}

impl From<Pkcs11Fault> for Failed {
    fn from(fault: Pkcs11Fault) -> Self {
        Self::Fault(fault)
    }
}

impl Failed {
    fn trouble(&self) -> Trouble {
        match self {
            Self::Call(error) => Trouble::of(error),
            Self::Fault(Pkcs11Fault::NoToken { .. }) => Trouble::Module,
            Self::Fault(_) => Trouble::Lasting,
        }
    }

    /// How long the module must have been there before it begins anew for this.
    fn least_between(&self) -> Duration {
        match self {
            Self::Fault(Pkcs11Fault::NoToken { shown, .. }) if !shown.is_empty() => BESIDE_OTHER_TOKENS,
            _ => BETWEEN_BEGINNINGS,
        }
    }

    fn into_fault(self) -> Pkcs11Fault {
        match self {
            Self::Call(error) => fault(&error),
            Self::Fault(fault) => fault,
        }
    }
}

impl Open {
    pub(super) fn session(&self) -> Result<&Session, Failed> {
        self.session.as_ref().ok_or(Failed::Call(Error::InvalidValue))
    }
}

impl Module {
    fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            live: RwLock::default(),
            gate: Mutex::default(),
            idle: Mutex::default(),
            logins: Logins::default(),
        }
    }

    /// Does something with a session of the token, logged in; a second time, where another session or a module that
    /// begins anew may help.
    pub(super) fn with_session<T>(
        &self,
        location: &Location,
        act: impl Fn(&Open) -> Result<T, Failed>,
    ) -> Result<T, Pkcs11Fault> {
        let (failed, epoch) = match self.once(location, &act) {
            Ok(done) => return Ok(done),
            Err(failed) => failed,
        };
        let may_help = match failed.trouble() {
            Trouble::Session => {
                self.close_idle(&location.token);
                true
            }
            Trouble::Module => self.begin_anew(epoch, failed.least_between()),
            Trouble::Object | Trouble::Lasting => false,
        };
        if !may_help {
            return Err(failed.into_fault());
        }
        self.once(location, &act).map_err(|(failed, _)| failed.into_fault())
    }

    fn once<T>(
        &self,
        location: &Location,
        act: &impl Fn(&Open) -> Result<T, Failed>,
    ) -> Result<T, (Failed, u64)> {
        let live = self.live().map_err(|fault| (Failed::Fault(fault), 0))?;
        let idle = lock(&self.idle).get_mut(&location.token).and_then(Vec::pop);
        let done = idle.map_or_else(|| self.open(&live, location), Ok).and_then(|open| {
            let done = act(&open)?;
            lock(&self.idle).entry(location.token.clone()).or_default().push(open);
            Ok(done)
        });
        done.map_err(|failed| (failed, live.epoch))
    }

    /// The module, loaded and begun.
    fn live(&self) -> Result<RwLockReadGuard<'_, Live>, Pkcs11Fault> {
        drop(lock(&self.gate));
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        if live.pkcs11.is_some() {
            return Ok(live);
        }
        drop(live);
        let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
        if live.pkcs11.is_none() {
            let pkcs11 = load(&self.path)?;
            initialize(&pkcs11).map_err(|error| fault(&error))?;
            *live = Live { pkcs11: Some(pkcs11), epoch: live.epoch + 1, began: Some(Instant::now()) };
        }
        drop(live);
        Ok(self.live.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Ends the initialization of `epoch` and begins the next one; whether one has begun since. A call that hangs, of another
    /// token perhaps, keeps the module as it is: then nothing is tried again for a while, because calls wait meanwhile.
    fn begin_anew(&self, epoch: u64, least: Duration) -> bool {
        let mut in_vain = lock(&self.gate);
        if in_vain.is_some_and(|at| at.elapsed() < AFTER_A_HANG) {
            return false;
        }
        let Some(mut live) = self.alone(Instant::now() + LAST_CALLS) else {
            *in_vain = Some(Instant::now());
            return false;
        };
        *in_vain = None;
        if live.epoch != epoch {
            return true;
        }
        let Some(pkcs11) = live.pkcs11.clone() else { return true };
        if live.began.is_some_and(|began| began.elapsed() < least) {
            return false;
        }
        lock(&self.idle).clear();
        // It may have ended by itself.
        let _ = pkcs11.clone().finalize();
        live.epoch += 1;
        live.began = Some(Instant::now());
        initialize(&pkcs11).is_ok()
    }

    /// The module while no call runs; `None` where some hang.
    fn alone(&self, until: Instant) -> Option<RwLockWriteGuard<'_, Live>> {
        loop {
            match self.live.try_write() {
                Ok(live) => return Some(live),
                Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) if Instant::now() >= until => return None,
                Err(TryLockError::WouldBlock) => thread::sleep(LOOK),
            }
        }
    }

    fn end(&'static self, until: Instant) {
        if let Some(mut live) = self.alone(until) {
            lock(&self.idle).clear();
            // It may have ended by itself.
            let _ = live.pkcs11.take().map(Pkcs11::finalize);
            // Held for ever: who calls now waits for the process' end.
            std::mem::forget(live);
        }
    }

    fn close_idle(&self, token: &str) {
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        let idle = lock(&self.idle).remove(token);
        drop((idle, live));
    }

    fn open(&self, live: &Live, location: &Location) -> Result<Open, Failed> {
        let pkcs11 = live.pkcs11.as_ref().ok_or(Failed::Call(Error::InvalidValue))?;
        let slot = slot(pkcs11, &location.token)?;
        let session = pkcs11.open_ro_session_no_drop(slot)?;
        let mut open = Open { session: Some(session), epoch: live.epoch, hashes: true };
        self.logins.log_in(pkcs11, slot, open.session()?, location)?;
        open.hashes = pkcs11.get_mechanism_list(slot)?.contains(&MechanismType::SHA256_RSA_PKCS);
        Ok(open)
    }
}

fn load(path: &Path) -> Result<Pkcs11, Pkcs11Fault> {
    let shown = path.display().to_string();
    // A name without a folder is looked for as the dynamic linker does.
    if path.components().count() > 1 && !path.exists() {
        return Err(Pkcs11Fault::NoModule(shown));
    }
    Pkcs11::new(path).map_err(|error| match error {
        Error::LibraryLoading(why) => Pkcs11Fault::NotLoaded(shown, why.to_string()),
        Error::MissingSymbol(symbol) => Pkcs11Fault::NotLoaded(shown, format!("it has no {symbol}")),
        other => fault(&other),
    })
}

/// Another part of the process may have begun with it.
fn initialize(pkcs11: &Pkcs11) -> Result<(), Error> {
    match pkcs11.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => Ok(()),
        other => other,
    }
}

/// Where the token is.
fn slot(pkcs11: &Pkcs11, label: &str) -> Result<Slot, Failed> {
    let mut shown = Vec::new();
    let mut slots = Vec::new();
    for slot in pkcs11.get_slots_with_token()? {
        // A slot whose token was pulled out meanwhile is another's trouble.
        let Ok(info) = pkcs11.get_token_info(slot) else { continue };
        if info.label() == label {
            slots.push(slot);
        } else if !info.label().is_empty() {
            shown.push(info.label().to_owned());
        }
    }
    match slots[..] {
        [slot] => Ok(slot),
        [] => Err(Pkcs11Fault::NoToken { label: label.to_owned(), shown }.into()),
        ref several => Err(Pkcs11Fault::SeveralTokens(several.len()).into()),
    }
}

/// What these locks guard is whole at every step.
fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_hangs_keeps_the_module_as_it_is_and_no_other_call_from_beginning() {
        let module = Module::new(Path::new("module.so"));
        let hangs = module.live.read().expect("a lock");
        let began = Instant::now();
        assert!(!module.begin_anew(0, Duration::ZERO));
        assert!(began.elapsed() >= LAST_CALLS, "calls that end were waited for");
        let other = lock(&module.gate);
        assert!(module.live.try_read().is_ok(), "another token's calls go on");
        drop(other);
        drop(hangs);
        assert!(!module.begin_anew(0, Duration::ZERO), "not again at once: calls wait meanwhile");
        *lock(&module.gate) = None;
        assert!(module.begin_anew(0, Duration::ZERO));
    }
}
