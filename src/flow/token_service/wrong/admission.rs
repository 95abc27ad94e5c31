//! A try on its way.

use std::{
    cell::Cell,
    net::IpAddr,
    sync::{Arc, atomic::Ordering::SeqCst},
    time::{Duration, Instant},
};

use tokio::{
    sync::OwnedSemaphorePermit,
    time::{sleep, timeout},
};

use super::{
    Secret, WrongCredentials, lock,
    name::{LOCK, Name},
    pending::Pending,
};

/// A try that may go to Harbor.
pub struct Admission<'a> {
    owner: &'a WrongCredentials,
    name: Arc<Name>,
    secret: Secret,
    address: IpAddr,
    slot: Option<OwnedSemaphorePermit>,
    outlasts: Cell<bool>,
    doubted: Cell<bool>,
    _pending: Pending<'a>,
}

impl<'a> Admission<'a> {
    /// A try of `secret` from `address`; `slot` where the secret is unknown.
    pub(super) fn new(
        owner: &'a WrongCredentials,
        name: Arc<Name>,
        (secret, address): (Secret, IpAddr),
        slot: Option<OwnedSemaphorePermit>,
        pending: Pending<'a>,
    ) -> Self {
        let (outlasts, doubted) = (Cell::new(false), Cell::new(false));
        Self { owner, name, secret, address, slot, outlasts, doubted, _pending: pending }
    }
}

impl Admission<'_> {
    /// Whether Harbor has accepted this very secret before.
    pub fn was_accepted(&self) -> bool {
        self.slot.is_none()
    }

    /// Waits until core's lock on this name because of somebody else's wrong try is over; `false` where there
    /// is none. A refusal under that lock is evidence of nothing. A secret that was accepted waits once for a
    /// lock that nobody here has seen: the wrong try may have gone by another replica, or past all of them.
    pub async fn outlast_lock(&self) -> bool {
        let landed = self.name.landed.notified();
        if lock(&self.name.trying).is_some_and(|secret| secret != self.secret) {
            self.go_before_others();
            // Core answers a wrong password when its lock ends.
            let _ = timeout(LOCK, landed).await;
            return true;
        }
        let Some(wait) = self.lock_of_another().or_else(|| self.unseen_lock()) else { return false };
        self.go_before_others();
        sleep(wait).await;
        true
    }

    /// Whether a wrong try of somebody else on this name may have locked it just now.
    pub fn sees_a_lock(&self) -> bool {
        lock(&self.name.trying).is_some_and(|secret| secret != self.secret)
            || self.lock_of_another().is_some()
    }

    fn go_before_others(&self) {
        if !self.outlasts.replace(true) {
            self.name.outlasting.fetch_add(1, SeqCst);
        }
    }

    pub(super) fn lock_of_another(&self) -> Option<Duration> {
        self.name.lock_of_another(&self.secret)
    }

    fn unseen_lock(&self) -> Option<Duration> {
        (self.was_accepted() && !self.doubted.replace(true)).then_some(LOCK)
    }

    /// What became of the try: `clear` = it was not refused, `accepted` = Harbor took the secret. A refusal of a
    /// secret that was accepted before neither counts nor makes it unknown: a stranger may be the cause.
    pub fn settle(&self, clear: bool, accepted: bool) {
        if accepted {
            self.owner.accepted.insert(self.secret, ());
        } else if !clear {
            if !self.was_accepted() {
                self.owner.count_wrong(self.address);
            } else if self.lock_of_another().is_some() {
                return;
            }
            *lock(&self.name.last_wrong) = Some((Instant::now(), self.secret));
        }
    }

    /// Nobody could tell whether the secret is right: it may be, but who tries many of them guesses, and grace would tell
    /// him of the right one.
    pub fn untold(&self) {
        if !self.was_accepted() {
            self.owner.count_untold(self.address);
        }
    }
}

impl Drop for Admission<'_> {
    fn drop(&mut self) {
        if self.slot.is_some() {
            *lock(&self.name.trying) = None;
            self.name.landed.notify_waiters();
        }
        if self.outlasts.get() {
            self.name.outlasting.fetch_sub(1, SeqCst);
            self.name.outlasted.notify_waiters();
        }
    }
}
