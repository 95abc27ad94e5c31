//! A source's signing threads: a bounded queue before them, and the knowledge of whether the module answers.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender, bounded};
use cryptoki::object::ObjectHandle;

use super::{
    Location,
    module::{Failed, Module, Open},
    objects::{self, Numbers},
    trouble::Trouble,
    watch::Ask,
};
use crate::{
    decisions::key::{Done, Elsewhere, Pkcs11Fault, SignFault},
    edges::signer::PATIENCE,
};

/// Threads of a source, and so its sessions that sign at a time: a token behind a network takes some 10 ms.
const THREADS: usize = 4;
/// Signatures that wait at most: more would be given up before their turn.
const QUEUE: usize = 256;
/// How many of the last signatures the expected time of the next one is made of.
const SMOOTHING: u64 = 8;

/// One source's signing threads. They end with the last key that signs by them, or when their call comes back.
pub(super) struct Lane {
    tasks: Sender<Task>,
    state: Arc<State>,
}

struct State {
    began: Instant,
    /// Since when each thread is in the module: µs since `began`, and one; 0 = it isn't.
    busy: [AtomicU64; THREADS],
    /// When the module last answered anything, likewise.
    answered: AtomicU64,
    waiting: AtomicUsize,
    /// µs that a signature takes.
    one_takes: AtomicU64,
}

struct Task {
    object: Arc<Object>,
    message: Box<[u8]>,
    asked: Instant,
    done: Done,
}

/// Where a key is in its token.
#[derive(Debug)]
struct Object {
    modulus: Vec<u8>,
    /// Its handle, and the module's initialization that this is good for.
    handle: Mutex<Option<(u64, ObjectHandle)>>,
}

/// The private half of a key, in its token.
#[derive(Debug)]
pub(super) struct TokenKey {
    name: Arc<str>,
    lane: Arc<Lane>,
    object: Arc<Object>,
}

impl TokenKey {
    pub(super) fn new(name: Arc<str>, lane: Arc<Lane>, numbers: &Numbers) -> Self {
        let object = Object { modulus: numbers.modulus.clone(), handle: Mutex::default() };
        Self { name, lane, object: Arc::new(object) }
    }
}

impl Elsewhere for TokenKey {
    fn name(&self) -> &str {
        &self.name
    }

    fn sign(&self, message: &[u8], done: Done) {
        let object = self.object.clone();
        self.lane.ask(Task { object, message: message.into(), asked: Instant::now(), done });
    }

    fn delay(&self) -> Duration {
        self.lane.state.delay()
    }
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lane").finish_non_exhaustive()
    }
}

impl Lane {
    /// Starts the threads. `asks` has the token looked at where a signature failed.
    pub(super) fn start(module: &'static Module, location: &Arc<Location>, asks: &Sender<Ask>) -> Self {
        let (tasks, queue) = bounded::<Task>(QUEUE);
        let state = Arc::new(State {
            began: Instant::now(),
            busy: [const { AtomicU64::new(0) }; THREADS],
            answered: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            one_takes: AtomicU64::new(1_000),
        });
        for n in 0..THREADS {
            let thread = Thread {
                n,
                module,
                location: location.clone(),
                queue: queue.clone(),
                state: state.clone(),
                asks: asks.clone(),
            };
            let started = thread::Builder::new().name(format!("pkcs11-{n}")).spawn(move || thread.run());
            if let Err(error) = started {
                tracing::error!(%error, key.path = %location.name(), "a signing thread of a token did not start");
            }
        }
        Self { tasks, state }
    }

    /// Never blocks. Where the module doesn't answer nobody is made to wait for it.
    fn ask(&self, task: Task) {
        if self.state.is_stuck() {
            return (task.done)(Err(SignFault::Unanswered));
        }
        self.state.waiting.fetch_add(1, Relaxed);
        if let Err(refused) = self.tasks.try_send(task) {
            self.state.waiting.fetch_sub(1, Relaxed);
            (refused.into_inner().done)(Err(SignFault::Unanswered));
        }
    }

    /// Whether calls don't come back.
    pub(super) fn is_stuck(&self) -> bool {
        self.state.is_stuck()
    }

    /// The module answered something else.
    pub(super) fn answered(&self) {
        self.state.answered.store(self.state.now(), Relaxed);
    }
}

struct Thread {
    n: usize,
    module: &'static Module,
    location: Arc<Location>,
    queue: Receiver<Task>,
    state: Arc<State>,
    asks: Sender<Ask>,
}

impl Thread {
    fn run(self) {
        while let Ok(task) = self.queue.recv() {
            self.state.waiting.fetch_sub(1, Relaxed);
            // Nobody waits for it any more.
            if task.asked.elapsed() >= PATIENCE {
                continue;
            }
            let signed = self.state.in_module(self.n, || self.sign(&task.object, &task.message));
            let failed = signed.is_err();
            (task.done)(signed.map_err(|_| SignFault::Refused));
            if failed {
                // The look says what is wrong; one that is asked for already will do.
                let _ = self.asks.try_send(Ask::Failed);
            }
        }
    }

    fn sign(&self, object: &Object, message: &[u8]) -> Result<Vec<u8>, Pkcs11Fault> {
        self.module.with_session(&self.location, |open| {
            let handle = object.handle(open, &self.location)?;
            match objects::sign(open, handle, message) {
                Err(Failed::Call(error)) if Trouble::of(&error) == Trouble::Object => {
                    object.forget();
                    objects::sign(open, object.handle(open, &self.location)?, message)
                }
                signed => signed,
            }
        })
    }
}

impl Object {
    /// By its public half: labels and ids are used again.
    fn handle(&self, open: &Open, location: &Location) -> Result<ObjectHandle, Failed> {
        let mut known = self.handle.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, handle)) = known.filter(|(epoch, _)| *epoch == open.epoch) {
            return Ok(handle);
        }
        let found = objects::find(open, location)?;
        let own = found.into_iter().find(|found| found.numbers.modulus == self.modulus);
        let handle = own.ok_or(Pkcs11Fault::NoKey)?.handle;
        *known = Some((open.epoch, handle));
        Ok(handle)
    }

    fn forget(&self) {
        *self.handle.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl State {
    fn now(&self) -> u64 {
        self.began.elapsed().as_micros() as u64 + 1
    }

    fn in_module<T>(&self, thread: usize, call: impl FnOnce() -> T) -> T {
        let began = self.now();
        self.busy[thread].store(began, Relaxed);
        let done = call();
        let now = self.now();
        self.busy[thread].store(0, Relaxed);
        self.answered.store(now, Relaxed);
        let before = self.one_takes.load(Relaxed);
        self.one_takes.store((before * (SMOOTHING - 1) + (now - began)) / SMOOTHING, Relaxed);
        done
    }

    fn is_stuck(&self) -> bool {
        let busy = self.busy.each_ref().map(|since| since.load(Relaxed));
        is_stuck(&busy, self.answered.load(Relaxed), self.now())
    }

    fn delay(&self) -> Duration {
        if self.is_stuck() {
            return Duration::MAX;
        }
        let waiting = self.waiting.load(Relaxed) as u64;
        Duration::from_micros(waiting.saturating_mul(self.one_takes.load(Relaxed)) / THREADS as u64)
    }
}

/// Whether a module that threads called at these times (0 = isn't called), and that last answered at `answered`, gives
/// no signature: all of them wait for longer than anybody would, or one does and nothing came back since. Times in µs.
fn is_stuck(busy: &[u64], answered: u64, now: u64) -> bool {
    let long = |since: u64| since > 0 && now.saturating_sub(since) > PATIENCE.as_micros() as u64;
    busy.iter().all(|since| long(*since)) || busy.iter().any(|since| long(*since) && answered < *since)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_is_stuck_where_no_call_comes_back() {
        let second = |n: u64| n * 1_000_000 + 1;
        let rows = [
            ([0, 0, 0, 0], 0, false, "nothing was asked"),
            ([0, 0, 0, 0], second(1), false, "all came back"),
            ([second(9), 0, 0, 0], second(1), false, "just asked"),
            ([second(7), 0, 0, 0], second(6), true, "nothing came since"),
            ([second(7), 0, 0, 0], second(8), false, "one thread hangs, others work"),
            ([second(7), second(9), 0, 0], second(6), true, "the second will hang too"),
            ([second(7); 4], second(8), true, "all hang, though a look came back"),
            ([second(9); 4], second(1), false, "all busy, not for long"),
        ];
        for (busy, answered, stuck, why) in rows {
            assert_eq!(is_stuck(&busy, answered, second(10)), stuck, "{why}");
        }
    }
}
