//! Questions under way, counted by address and kind.

use std::{collections::HashMap, net::IpAddr, sync::Mutex};

use super::lock;

/// Questions of each kind that one address may have under way, each counted once more for every KiB of it: they go
/// on when who asked has left.
pub(super) const PENDING: usize = 2_048;

/// What questions are counted together: no flood of one kind keeps out another (A7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Anonymous,
    Unknown,
    Accepted,
}

/// All that are under way.
#[derive(Default)]
pub(super) struct Questions(Mutex<HashMap<(Kind, IpAddr), usize>>);

impl Questions {
    /// One more of this kind and address; `None` where there are too many. `bytes` = what it holds.
    pub(super) fn begin(&self, of: (Kind, IpAddr), bytes: usize) -> Option<Pending<'_>> {
        let cost = 1 + bytes / 1_024;
        let mut pending = lock(&self.0);
        let held = pending.get(&of).copied().unwrap_or_default();
        if held + cost > PENDING {
            return None;
        }
        pending.insert(of, held + cost);
        Some(Pending { questions: self, of, cost })
    }

    #[cfg(test)]
    pub(super) fn are_none(&self) -> bool {
        lock(&self.0).is_empty()
    }
}

/// A question among those of its kind and address, until dropped.
pub struct Pending<'a> {
    questions: &'a Questions,
    of: (Kind, IpAddr),
    cost: usize,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        let mut pending = lock(&self.questions.0);
        if let Some(held) = pending.get_mut(&self.of) {
            *held -= self.cost;
            if *held == 0 {
                pending.remove(&self.of);
            }
        }
    }
}
