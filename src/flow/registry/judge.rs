//! What the request's bearer proved to be.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use super::{Bearer, Passage};
use crate::{
    decisions::{
        plan::Judged,
        ring::Ring,
        token::{claims, verify::Fault},
    },
    flow::{
        known::{Judgement, Own},
        own_token::{self, Over},
    },
    words::{clock::UnixTime, kid::Kid, reason::Reason},
};

/// The longest time that a request with an unknown `kid` waits for a look for new keys.
const LOOK: Duration = Duration::from_millis(250);
/// Within it such a request sees what it was not told of, because it came just before the request listened.
const GLANCE: Duration = Duration::from_millis(50);

/// The longest time that such a request waits for answers from afar;
const FAR: Duration = Duration::from_secs(2);
/// and before that for the pause that `limits.unknown_kids` asks for.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// One snapshot of keys and time, and the bearer as judged by it: what one plan, and its signature, go by (A19).
pub(super) struct Moment {
    /// The keys.
    pub(super) ring: Arc<Ring>,
    /// The time.
    pub(super) now: UnixTime,
    /// What the bearer proved to be; `None` without one.
    pub(super) judgement: Option<Judgement>,
}

impl Passage<'_> {
    /// Judges the bearer: by the connection's last token, by memory, by its signature.
    pub(super) async fn judge(&mut self) -> Moment {
        let moment = self.moment();
        let Some(name) = self.strange_name(&moment).cloned().filter(|_| self.journey.rounds == 0) else {
            return moment;
        };
        let shared = &self.worker.shared;
        if shared.distant.is_any() {
            // Boxed: rare.
            Box::pin(self.await_distant(&name)).await;
            return self.moment();
        }
        let Some(until) = self.look_for_keys() else { return moment };
        // Looks and probes that had begun before end too, and tell nothing of this key.
        let learned = async {
            while self.is_unknown(&name) {
                tokio::select! {
                    () = shared.fleet.changed_within(GLANCE) => {}
                    () = shared.keys.looked_within(GLANCE) => {}
                }
            }
        };
        tokio::time::timeout_at(until.into(), learned).await.ok();
        self.moment()
    }

    /// Has keys looked for, at most once in `limits.unknown_kids` whatever the flood; until when to wait for what the
    /// last look brings, if that isn't over.
    fn look_for_keys(&self) -> Option<Instant> {
        let shared = &self.worker.shared;
        if shared.may_look(self.policy.between_looks) {
            shared.keys.look_soon();
            shared.probe_now.notify_one();
        }
        shared.last_look().map(|began| began + LOOK).filter(|until| *until > Instant::now())
    }

    /// Others may know the key: everybody is asked, once for all requests that came before. One that came right after such a
    /// round waits for the next.
    async fn await_distant(&self, unverified_kid: &Kid) {
        let (shared, client) = (&self.worker.shared, self.story.client);
        let Some(_waiting) = shared.strangers.wait_for(unverified_kid, client, Instant::now()) else {
            return;
        };
        let (distant, between) = (&shared.distant, self.policy.between_looks);
        // A round that has begun by now may have been answered before the key was there.
        let enough = distant.asked() + 1;
        let learned = async {
            while self.is_unknown(unverified_kid) && !distant.has_answered(enough) {
                if distant.asked() < enough && shared.may_look(between) {
                    shared.keys.look_soon();
                    shared.probe_now.notify_one();
                    distant.ask(Some(unverified_kid.clone()));
                }
                tokio::select! {
                    () = distant.answered_within(enough, GLANCE) => {}
                    () = shared.fleet.changed_within(GLANCE) => {}
                    () = shared.keys.looked_within(GLANCE) => {}
                }
            }
        };
        tokio::time::timeout(between.min(LONGEST_PAUSE) + FAR, learned).await.ok();
        if self.is_unknown(unverified_kid) {
            shared.strangers.was_in_vain(unverified_kid, Instant::now());
        }
    }

    /// The name of the bearer's key, where that is neither in the ring nor held by an endpoint.
    fn strange_name<'m>(&self, moment: &'m Moment) -> Option<&'m Kid> {
        let Some(Judgement::Unknown { unverified_kid, .. }) = &moment.judgement else { return None };
        self.is_unknown(unverified_kid).then_some(unverified_kid)
    }

    /// Whether the ring has no key of this name, and no endpoint holds one. It is asked at each wake of each request that
    /// waits, which a judgement, with a verification for each key that was retired at once, would make a burden.
    fn is_unknown(&self, unverified_kid: &Kid) -> bool {
        let shared = &self.worker.shared;
        let fleet = shared.fleet.snapshot();
        shared.keys.ring().find(unverified_kid.as_str()).is_none()
            && !fleet.statuses.iter().any(|status| status.held.kids().any(|kid| kid == unverified_kid))
    }

    /// Keys and time as they are now, and the bearer judged by them.
    pub(super) fn moment(&self) -> Moment {
        let (ring, now) = (self.worker.shared.keys.ring(), self.worker.shared.clock.now());
        let mut judgement = self.judge_now(&ring, now);
        let formers = &self.worker.shared.formers;
        if formers.may_have_ended(now) && self.is_of_ended_secret(now) {
            judgement = Some(Judgement::Refused(Fault::Expired));
        }
        Moment { ring, now, judgement }
    }

    /// Whether the bearer was given for a former secret whose window has ended (A29).
    fn is_of_ended_secret(&self, now: UnixTime) -> bool {
        let Some(bearer) = &self.bearer else { return false };
        let shared = &self.worker.shared;
        shared.formers.has_ended(&shared.known.digest(bearer.text()), now)
    }

    /// Core reads its key file at each use and we only when we are told of a change: after a refusal the key that
    /// it has just taken may lie in a source of ours that is not read yet. For a key that wasn't found there lately nobody
    /// has sources looked at, because whoever has a token can be refused as often as they like; what looks by itself may
    /// still find it.
    pub(super) async fn await_signers(&self) {
        let shared = &self.worker.shared;
        let mut missing = self.held_unsigned();
        let is_new = |kid: &Kid| !shared.unsigned.is_lately(kid, Instant::now());
        let looks = missing.iter().any(is_new);
        // The first look to end may have begun before the file changed.
        for _ in 0..2 {
            if missing.is_empty() {
                return;
            }
            if looks {
                shared.keys.look_soon();
            }
            shared.keys.looked_within(LOOK).await;
            let ring = shared.keys.ring();
            missing.retain(|kid| ring.signer(kid.as_str()).is_none());
        }
        for kid in missing.iter().filter(|_| looks) {
            shared.unsigned.note(kid, Instant::now());
        }
    }

    /// Keys that endpoints hold and that we can't sign with.
    fn held_unsigned(&self) -> Vec<Kid> {
        let (ring, fleet) = (self.worker.shared.keys.ring(), self.worker.shared.fleet.snapshot());
        let held = fleet.statuses.iter().flat_map(|status| status.held.kids());
        let has_keys = ring.entries().next().is_some();
        held.filter(|kid| has_keys && ring.signer(kid.as_str()).is_none()).cloned().collect()
    }

    /// What the bearer is by memory or by its signature, unless it was revoked since (A20).
    fn judge_now(&self, ring: &Ring, now: UnixTime) -> Option<Judgement> {
        let bearer = self.bearer.as_ref()?;
        let judgement = self.judge_bearer(bearer, ring, now)?;
        let is_revoked = self.worker.shared.revocations.any() && self.is_revoked(bearer, &judgement);
        Some(if is_revoked { Judgement::Refused(Fault::Revoked) } else { judgement })
    }

    /// Where nothing is verified, what the token says of itself may deny and never allows.
    fn is_revoked(&self, bearer: &Bearer, judgement: &Judgement) -> bool {
        let revoked = self.worker.shared.revocations.revoked();
        let of = |subject: Option<&str>, issued| subject.is_some_and(|of| revoked.ends_subject(of, issued));
        revoked.ends_token(bearer.bytes())
            || match judgement {
                Judgement::Known(known) => of(known.claims().subject(), known.claims().issued()),
                Judgement::Unknown { .. } => claims::read(bearer.text()).is_ok_and(|token| {
                    let claims = &token.unverified_claims;
                    of(claims.sub.as_deref(), UnixTime(claims.iat))
                }),
                Judgement::Refused(_) | Judgement::Own(_) => false,
            }
    }

    fn judge_bearer(&self, bearer: &Bearer, ring: &Ring, now: UnixTime) -> Option<Judgement> {
        let shared = &self.worker.shared;
        let rules = shared.rules(self.policy);
        let downstream = self.downstream?;
        if let Some((text, known)) = &*downstream.last.borrow()
            && **text == *bearer.bytes()
            && known.stands(ring, &rules, now)
        {
            self.worker.counters.token_hits.fetch_add(1, Relaxed);
            return Some(Judgement::Known(known.clone()));
        }
        if own_token::claims_to_be_one(bearer.bytes())
            && let Some(judgement) = self.judge_own(bearer.bytes(), now)
        {
            return Some(judgement);
        }
        let graces = Some((&*shared.graces, self.policy.grace));
        let (judgement, by_memory) = shared.known.judge(bearer.text(), ring, &rules, now, graces);
        let counter =
            if by_memory { &self.worker.counters.token_hits } else { &self.worker.counters.token_misses };
        counter.fetch_add(1, Relaxed);
        if let (Judgement::Known(known), false) = (&judgement, by_memory) {
            let (claims, client) = (known.claims(), self.story.client);
            shared.evidence.note(
                claims.kid(),
                (claims.subject().unwrap_or_default(), client),
                claims.expires(),
                now,
            );
        }
        if let Judgement::Known(known) = &judgement {
            *downstream.last.borrow_mut() = Some((bearer.bytes().into(), known.clone()));
        }
        Some(judgement)
    }

    /// What a token of our own stands for; `None` where it is none of this process's.
    fn judge_own(&self, token: &[u8], now: UnixTime) -> Option<Judgement> {
        let shared = &self.worker.shared;
        let own = match shared.own.open(token, now)? {
            Ok(own) => own,
            Err(Over) => return Some(Judgement::Refused(Fault::Expired)),
        };
        let issued = own.issued();
        let Some((credential, name)) = own.credential else { return Some(Judgement::Own(Own::Nobody)) };
        if shared.revocations.ends_subject(&name, issued) {
            return Some(Judgement::Refused(Fault::Revoked));
        }
        let principal = (name.as_str(), shared.replays_of(self.policy, &name));
        let issued = self
            .policy
            .replay
            .then(|| shared.replays.of_own(&credential, own.access, (now, own.expires), principal));
        Some(Judgement::Own(issued.flatten().map_or(Own::Ended, Own::Credential)))
    }

    /// Keeps the head of the body for a second send, where its token is proved: by a key of the ring, or
    /// because Harbor issued these very bytes through us. What anybody could have written gets no memory (A25).
    pub(super) fn keep_head(&self, judgement: Option<&Judgement>) {
        // A step of our own is kept already.
        let Some(relay) = self.outgoing.body.as_ref().filter(|_| self.of_client) else { return };
        let Some(principal) = self.proved(judgement) else { return };
        let shared = &self.worker.shared;
        let bytes = relay.head_bytes(self.policy.head);
        // Tokens without a subject are all nobody's.
        let share = shared.heads.take(bytes, self.story.client, principal.name());
        if let Some(share) = share {
            relay.keep_head(share);
        }
    }

    /// Whose token it is, where that is proved; one without a subject is nobody's.
    pub(super) fn proved(&self, judgement: Option<&Judgement>) -> Option<Owner> {
        let shared = &self.worker.shared;
        match judgement? {
            Judgement::Known(known) => Some(known.principal().map_or(Owner::Nobody, Owner::Principal)),
            Judgement::Unknown { digest, .. } => shared
                .replays
                .find(digest, shared.clock.now())
                .map(|issued| Owner::Principal(issued.principal())),
            Judgement::Own(Own::Credential(issued)) => Some(Owner::Principal(issued.principal())),
            Judgement::Refused(_) | Judgement::Own(_) => None,
        }
    }

    /// Tells the story who the token is, or why it counts as none.
    pub(super) fn tell_judged(&mut self, judgement: Option<&Judgement>) {
        match judgement {
            Some(Judgement::Known(known)) => self.story.principal = known.principal(),
            Some(Judgement::Refused(fault)) => self.story.refusal = Some(fault.reason()),
            Some(Judgement::Own(Own::Credential(issued))) => self.story.principal = Some(issued.principal()),
            Some(Judgement::Own(Own::Ended)) => self.story.refusal = Some(Reason::CredentialRefused),
            Some(Judgement::Unknown { .. } | Judgement::Own(Own::Nobody)) | None => {}
        }
    }

    /// A token of a key that neither ring nor endpoints know.
    pub(super) fn tell_unknown(&mut self) {
        self.story.refusal = Some(Reason::TokenKeyUnknown);
    }
}

/// Whose a proved token is.
#[derive(Clone, Debug)]
pub(super) enum Owner {
    /// It has no subject.
    Nobody,
    /// This principal's.
    Principal(Arc<str>),
}

impl Owner {
    /// The principal's name; empty for nobody.
    pub(super) fn name(self) -> Arc<str> {
        match self {
            Self::Nobody => Arc::default(),
            Self::Principal(name) => name,
        }
    }
}

/// What a plan sees of a judgement.
pub(super) fn judged(judgement: Option<&Judgement>) -> Judged<'_> {
    match judgement {
        None => Judged::Untouched,
        Some(Judgement::Known(known)) => Judged::Verified(known.claims()),
        Some(Judgement::Unknown { unverified_kid, .. }) => Judged::Unverified(unverified_kid),
        Some(Judgement::Refused(fault)) => Judged::Refused(*fault),
        Some(Judgement::Own(_)) => Judged::Own,
    }
}
