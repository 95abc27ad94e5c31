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
        let nothing_done = reason == Reason::NoEndpoint && restartable;
        if !nothing_done || self.portal || self.park.is_zero() || self.journey.waits >= WAITS {
            return Err(reason);
        }
        self.journey.turn = None;
        let shared = &self.worker.shared;
        let until = *self.journey.wait_until.get_or_insert_with(|| Instant::now() + self.park);
        let headers = &self.outgoing.headers;
        let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        let principal = self.story.principal.clone().unwrap_or_default();
        let place = shared.lot.enter(self.story.client, &principal, EACH + bytes).ok_or(Reason::Busy)?;
        shared.lot.tell(serves(&shared.fleet.snapshot()));
        shared.probe_now.notify_one();
        let turn = place.turn(until).await.ok_or(reason)?;
        self.journey.waits += 1;
        self.start_over();
        Ok(turn)
    }
}
