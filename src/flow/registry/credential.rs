//! A replayed credential was refused: is it over, or may it not do this? Core tells both in the same words (C4, C6).

use std::{sync::Arc, time::Instant};

use super::{Passage, Round, dispatch::Sent};
use crate::{
    edges::fleet::Endpoint,
    flow::{refused, relay::Relay, replay::Issued},
    words::{credential::basic_user, reason::Reason},
};

/// What core says to a credential where nothing but the credential decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It accepts it; `outlasted`: it refused it before, under the lock of somebody else's wrong try.
    Accepted { outlasted: bool },
    /// It refuses it.
    Refused,
    /// It says neither.
    Unclear,
}

/// Questions about one refusal at most: a wrong password is tried twice where core can't sign, and locks each time.
const QUESTIONS: usize = 4;

impl Passage<'_> {
    /// Asks `/v2/` itself with the credential. Where it is refused there too it is never sent again (A4); where a
    /// wrong try of somebody else was the cause, the request is sent once more (A7).
    pub(super) async fn after_refused_credential(
        &mut self,
        sent: Sent,
        issued: &Arc<Issued>,
    ) -> Result<Round, Reason> {
        let restartable = self.outgoing.body.as_ref().is_none_or(Relay::can_restart);
        let Sent { answered, endpoint, .. } = sent;
        let answer = self.keep(answered).await;
        match self.standing(&endpoint, issued).await {
            Standing::Refused => {
                let shared = &self.worker.shared;
                shared.graces.suspend(issued.credential(), shared.clock.now());
                issued.end();
            }
            Standing::Accepted { outlasted: true }
                if restartable && !self.journey.outlasted && self.may_send_again() =>
            {
                self.journey.outlasted = true;
                return Ok(None);
            }
            Standing::Accepted { .. } | Standing::Unclear => {}
        }
        Ok(Some(answer))
    }

    async fn standing(&self, endpoint: &Arc<Endpoint>, issued: &Issued) -> Standing {
        let (credential, client) = (issued.credential(), self.story.client);
        let name = basic_user(credential).unwrap_or_default();
        let wrong = &self.worker.shared.wrong;
        let Some(_turn) = issued.turn().await else { return Standing::Unclear };
        let Ok(admission) = wrong.admit(&name, credential, (client, credential.len())).await else {
            return Standing::Unclear;
        };
        let mut outlasted = admission.sees_a_lock();
        for left in (0..QUESTIONS).rev() {
            match refused::accepts(self.worker, endpoint, credential).await {
                None => return Standing::Unclear,
                Some(true) => {
                    admission.settle(true, true);
                    return Standing::Accepted { outlasted };
                }
                Some(false) if left > 0 && admission.outlast_lock().await => outlasted = true,
                Some(false) => break,
            }
        }
        // Core refuses every password that it can't look up (D1).
        if !self.worker.shared.outages.is_well(endpoint, Instant::now()).await {
            return Standing::Unclear;
        }
        admission.settle(false, false);
        Standing::Refused
    }
}
