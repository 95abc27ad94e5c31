//! A request that no endpoint takes now waits for one.

use std::time::Instant;

use super::Passage;
use crate::{
    decisions::plan::Standing,
    edges::fleet::Snapshot,
    flow::{park::Turn, relay::Relay},
    words::reason::Reason,
};

/// How often one request may wait: an endpoint that breaks with every attempt may be broken by it.
const WAITS: usize = 4;
/// What a request that waits takes, beside its headers.
const EACH: usize = 4 * 1024;

/// Whether any endpoint of core takes requests.
pub fn serves(snapshot: &Snapshot) -> bool {
    snapshot.statuses.iter().any(|status| status.standing == Standing::Healthy)
}

impl Passage<'_> {
    /// Waits for an endpoint where `reason` is that there is none and nothing of the request can have been done
    /// (A22); else gives the reason back. What follows is planned anew (A19).
    pub(super) async fn park(&mut self, reason: Reason) -> Result<Turn, Reason> {
        let restartable = self.outgoing.body.as_ref().is_none_or(Relay::can_restart);
        if reason != Reason::NoEndpoint || !restartable {
            return Err(reason);
        }
        let until = self.waits_until(reason)?;
        let shared = &self.worker.shared;
        let (bytes, principal) = (self.waiting_bytes(), self.story.principal.as_ref());
        let place = shared.lot.enter(self.story.client, principal, bytes).ok_or(Reason::Busy)?;
        shared.lot.tell(serves(&shared.fleet.snapshot()));
        shared.probe_now.notify_one();
        let turn = place.turn(until).await.ok_or(reason)?;
        self.journey.waits += 1;
        self.start_over();
        Ok(turn)
    }

    /// Until when it may wait, all its waits together; `reason` where it may not wait any more.
    pub(super) fn waits_until(&mut self, reason: Reason) -> Result<Instant, Reason> {
        if self.portal || self.park.is_zero() || self.journey.waits >= WAITS {
            return Err(reason);
        }
        self.journey.turn = None;
        let most = self.patience.map(|patience| self.story.began + patience);
        let until = || {
            let until = Instant::now() + self.park;
            most.map_or(until, |most| most.min(until))
        };
        Ok(*self.journey.wait_until.get_or_insert_with(until))
    }

    /// What it takes while it waits.
    pub(super) fn waiting_bytes(&self) -> usize {
        let headers = self.outgoing.headers.iter();
        EACH + headers.map(|(name, value)| name.as_str().len() + value.len()).sum::<usize>()
    }
}
