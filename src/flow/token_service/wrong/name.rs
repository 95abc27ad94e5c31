//! The unknown secrets of one name: one at a time at core, few that wait, and those first that core's lock refused.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use tokio::{
    sync::{Notify, Semaphore},
    time::timeout,
};

use super::{Secret, asked::SLEPT, lock, window::Window};

/// Different unknown secrets of one name that may wait at once.
pub(super) const QUEUE: usize = 8;
/// Tries of one unknown secret that may wait at once: a whole fleet's jobs begin in the same second.
pub(super) const TRIES: usize = 1_024;
/// Core locks a name for 1.5 s after a wrong password (T8).
pub(super) const LOCK: Duration = Duration::from_millis(1_600);
/// A refusal so soon after a wrong try on the same name may be the lock's.
const SUSPECT: Duration = Duration::from_secs(2);

/// The tries of one name.
pub(super) struct Name {
    pub(super) slot: Arc<Semaphore>,
    pub(super) waiting: Mutex<HashMap<Secret, usize>>,
    pub(super) last_wrong: Mutex<Option<(Instant, Secret)>>,
    /// Refusals past the token service, and the last unknown secret that went there since they are too many.
    pub(super) refused: Mutex<Window>,
    pub(super) passed: Mutex<Option<Instant>>,
    /// The unknown secret that is at core now, and the news of its end.
    pub(super) trying: Mutex<Option<Secret>>,
    pub(super) landed: Notify,
    /// Tries that wait for core's lock to end; unknown secrets let them go first.
    pub(super) outlasting: AtomicUsize,
    pub(super) outlasted: Notify,
}

impl Name {
    pub(super) fn new() -> Self {
        Self {
            slot: Arc::new(Semaphore::new(1)),
            waiting: Mutex::default(),
            last_wrong: Mutex::default(),
            refused: Mutex::new(Window::new()),
            passed: Mutex::default(),
            trying: Mutex::default(),
            landed: Notify::new(),
            outlasting: AtomicUsize::new(0),
            outlasted: Notify::new(),
        }
    }

    /// A try that core's lock has refused goes before the next unknown secret, which would lock the name again.
    /// Whatever number of them there is, they have the time of one lock together: the next may be the right one.
    pub(super) async fn let_others_outlast(&self) {
        let all_gone = async {
            loop {
                let outlasted = self.outlasted.notified();
                if self.outlasting.load(SeqCst) == 0 {
                    return;
                }
                outlasted.await;
            }
        };
        // In time or not: now it is this one's turn.
        let _ = timeout(LOCK, all_gone).await;
    }

    /// What is left of the lock after a wrong try of another secret than this one.
    pub(super) fn lock_of_another(&self, own: &Secret) -> Option<Duration> {
        let last = *lock(&self.last_wrong);
        let (at, secret) = last?;
        let ago = at.elapsed();
        (secret != *own && ago < SUSPECT).then(|| LOCK.saturating_sub(ago))
    }

    /// Whether a refusal of this secret that took so long may come of the lock after a wrong try of another (A7).
    pub(super) fn may_come_of_a_lock(&self, secret: &Secret, took: Duration) -> bool {
        took < SLEPT && self.lock_of_another(secret).is_some()
    }

    /// A place in the queue; so many tries of one secret share theirs.
    pub(super) fn queue(self: &Arc<Self>, secret: Secret) -> Option<InQueue> {
        let mut waiting = lock(&self.waiting);
        let full = match waiting.get(&secret) {
            Some(tries) => *tries >= TRIES,
            None => waiting.len() >= QUEUE,
        };
        if full {
            return None;
        }
        *waiting.entry(secret).or_insert(0) += 1;
        Some(InQueue { name: self.clone(), secret })
    }
}

/// A place in the queue, until dropped.
pub(super) struct InQueue {
    name: Arc<Name>,
    secret: Secret,
}

impl Drop for InQueue {
    fn drop(&mut self) {
        let mut waiting = lock(&self.name.waiting);
        if let Some(count) = waiting.get_mut(&self.secret) {
            *count -= 1;
            if *count == 0 {
                waiting.remove(&self.secret);
            }
        }
    }
}
