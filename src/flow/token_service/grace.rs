//! Token requests that an outage of core's database has failed, in words that mean something else (D1), or with none at
//! all (D2), or that no core can take: they wait, and then get what was granted before, or 503; never "wrong password".

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::{Flight, Flown, inspect::Inspected};
use crate::{
    decisions::{
        grace::{Decision, decide},
        outage::Found,
        plan::Standing,
    },
    edges::{
        fleet::Endpoint,
        signer::{Again, Job},
    },
    flow::{grace::Granted, own_token, park::Turn},
    words::{
        clock::UnixTime,
        credential::basic_user,
        reason::{Reason, Rescue},
    },
};

/// What a question takes that waits, beside its headers.
const EACH: usize = 4 * 1024;

/// For our own question at least: a request that has waited for its turn for long is no evidence.
const LEAST: Duration = Duration::from_secs(2);

impl Flight {
    /// Whether core could not look up what it was asked for: a refusal, a token that grants nobody nothing, or silence,
    /// while our own question finds no database. A time-out is evidence only together with that; that there is no core
    /// at all, only where our probes find none either. A refusal that core did answer stays one for grace where our own
    /// question gets no answer: whoever makes core slow must not gain by it.
    pub(super) async fn finds_an_outage(&self, flown: &Flown, inspected: Inspected, until: Instant) -> bool {
        match flown.failure {
            // It was asked already.
            Some(Reason::Outage) => return true,
            // Nor do probes reach any, and the wait for one is over.
            Some(Reason::NoEndpoint) => return self.any_endpoint().is_none(),
            _ => {}
        }
        let doubtful = match inspected {
            Inspected::Refused => true,
            Inspected::Anonymous => flown.grants_nothing,
            Inspected::Other => {
                flown.failure == Some(Reason::UpstreamSlow)
                    || flown.failure.is_none() && flown.status.is_server_error()
            }
            Inspected::Granted | Inspected::CannotSign | Inspected::TooLong => false,
        };
        if !doubtful {
            return false;
        }
        let Some(endpoint) = flown.endpoint.clone().or_else(|| self.any_endpoint()) else { return false };
        let now = Instant::now();
        let asked = self.worker.shared.outages.found(&endpoint, now);
        let found = tokio::time::timeout_at(until.max(now + LEAST).into(), asked).await.ok();
        let silent = matches!(found, None | Some(Found::Silent(_)));
        let refused = matches!(inspected, Inspected::Refused | Inspected::Anonymous);
        self.unexplained.set(refused && silent);
        found != Some(Found::Well)
    }

    fn any_endpoint(&self) -> Option<Arc<Endpoint>> {
        let fleet = self.worker.shared.fleet.snapshot();
        let healthy = fleet.statuses.iter().find(|status| status.standing == Standing::Healthy);
        healthy.map(|status| status.endpoint.clone())
    }

    /// Waits for the database, for as long as the client has patience.
    pub(super) async fn await_database(&self, until: Instant) -> Option<Turn> {
        let until = until.min(Instant::now() + self.policy.park);
        let outages = &self.worker.shared.outages;
        let client = (self.client, self.principal.get());
        outages.wait(client, EACH + self.bytes(), until, Reason::Outage).await.ok()
    }

    /// Whether Harbor has accepted this credential within grace's window, in another life of this process perhaps, and
    /// not refused it since.
    pub(super) fn was_granted(&self, basic: &HeaderValue) -> bool {
        let (shared, now) = (&self.worker.shared, self.worker.shared.clock.now());
        let (known, name) = (shared.graces.known(basic), basic_user(basic).unwrap_or_default());
        let is_revoked = known.is_some_and(|record| shared.revocations.ends_subject(&name, record.accepted));
        !is_revoked && matches!(decide(known, self.policy.grace, now), Decision::Grace { .. })
    }

    /// Whether grace could answer, were this an outage.
    pub(super) fn may_have_grace(&self) -> bool {
        self.granted(self.worker.shared.clock.now()).is_some()
    }

    /// What Harbor granted this credential for exactly this scope, and until when that may be granted again.
    fn granted(&self, now: UnixTime) -> Option<(Arc<Granted>, UnixTime)> {
        let place = self.granted.filter(|_| !self.unexplained.get())?;
        let shared = &self.worker.shared;
        let granted = shared.graces.find(&place)?;
        if shared.revocations.ends_subject(&granted.subject, granted.record().accepted) {
            return None;
        }
        match decide(Some(granted.record()), self.policy.grace, now) {
            Decision::Grace { expires } => Some((granted, expires)),
            Decision::Unavailable => None,
        }
    }

    /// Grants that again, or says that nobody can tell now.
    pub(super) async fn in_grace(&self, flown: &mut Flown) {
        let now = self.worker.shared.clock.now();
        if let Some((granted, expires)) = self.granted(now)
            && let Some(token) = self.grant_again(&granted, flown.endpoint.as_deref(), (now, expires)).await
        {
            let json = HeaderValue::from_static("application/json; charset=utf-8");
            flown.headers = HeaderMap::from_iter([(header::CONTENT_TYPE, json)]);
            flown.status = StatusCode::OK;
            flown.body = own_token::answer(&token, now).into();
            flown.subject = Some(granted.subject.clone());
            (flown.rescue, flown.refusal, flown.failure) = (Some(Rescue::Grace), None, None);
            return;
        }
        let (sends, endpoint) = (flown.sends, flown.endpoint.clone());
        if flown.failure == Some(Reason::NoEndpoint) {
            self.for_later(flown);
            return;
        }
        *flown = Flown { sends, endpoint, ..Flown::failed(Reason::Outage) };
    }

    /// A token with the same claims and another end, by the key that the endpoint holds; where nobody can sign with that
    /// now, one of our own for the same access, which Harbor judges at each use (A11).
    async fn grant_again(
        &self,
        granted: &Arc<Granted>,
        endpoint: Option<&Endpoint>,
        (now, expires): (UnixTime, UnixTime),
    ) -> Option<String> {
        let shared = &self.worker.shared;
        let (ring, fleet) = (shared.keys.ring(), shared.fleet.snapshot());
        let one = endpoint.and_then(|endpoint| fleet.by_id(endpoint.id));
        let mut held = one.into_iter().chain(&fleet.statuses).flat_map(|status| status.held.kids());
        let basic = self.basic.as_ref()?;
        let signed = match held.find_map(|kid| ring.signer(kid.as_str())) {
            Some(key) => {
                let job = Job {
                    token: granted.token.clone(),
                    key: key.clone(),
                    name: None,
                    audience: None,
                    not_before_back: Duration::ZERO,
                    again: Some(Again { until: expires, proof: shared.graces.proof(granted, expires) }),
                };
                shared.signer.sign(job).await.ok()
            }
            None => None,
        };
        let Some(token) = signed else {
            let access = granted.access.clone();
            return shared
                .own
                .seal(Some((basic, &granted.subject)), access, now)
                .filter(|_| self.policy.replay);
        };
        let digest = shared.known.digest(&token);
        shared.graces.gave(digest, granted.clone());
        if self.policy.replay {
            let principal = (&*granted.subject, shared.replays_of(&self.policy, &granted.subject));
            shared.replays.remember(digest, basic, granted.access.clone(), (now, expires), principal);
        }
        Some(token)
    }
}
