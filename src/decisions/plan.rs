//! Which endpoint a request goes to, and what it gets there. Pure: one snapshot in, one plan out.

pub mod coverage;
pub mod endpoint;

use std::time::Duration;

use super::{
    ring::Ring,
    token::verify::{Fault, VerifiedClaims},
};
use crate::words::{clock::UnixTime, kid::Kid};
pub use endpoint::{Choice, Fleet, Held, Standing, Vain, View, Wanted, choose};

/// What a request's bearer proved to be.
#[derive(Clone, Copy, Debug)]
pub enum Judged<'a> {
    /// No registry token: no credential, Basic, another scheme, or a route that is not the registry's.
    Untouched,
    /// Signed by a key of the window.
    Verified(&'a VerifiedClaims),
    /// Well formed, of a key that the ring does not know.
    Unverified(&'a Kid),
    /// Counts as no credential.
    Refused(Fault),
    /// Our own, issued while core couldn't sign (A11): good for replay alone.
    Own,
}

/// What we could send in a token's place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Means {
    /// The Basic credential that this very token was issued for is at hand, and the token's access covers
    /// what the request needs (A4, A5).
    pub replay: bool,
    /// The request has a body, which only its kept head can send twice.
    pub body: bool,
}

/// A way that was tried for this request and refused because of the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tried {
    /// As it came, or signed again with this key.
    Key(Kid),
    /// By the credential.
    Replay,
}

/// What goes up in the place of the client's `Authorization`. Private fields: only [`plan`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    step: Step,
    counts_on: Option<Kid>,
}

/// The kinds of plan, by the names that logs and metrics use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Unchanged.
    AsCame,
    /// The same claims under the endpoint's held key; `nbf` back by so much for its clock.
    Resign {
        /// The held key.
        kid: Kid,
        /// How far `nbf` goes back; zero mostly.
        back: Duration,
    },
    /// The Basic credential that the token was issued for.
    Replay,
    /// A bearer that means nothing.
    Blank,
    /// Nothing yet: the token is too new for core, for so long.
    Hold(Duration),
}

impl Plan {
    /// What to do.
    pub fn step(&self) -> &Step {
        &self.step
    }

    /// The held key that core must accept the request by; a refusal then says that its key has changed
    /// (A6). `None`: whatever core answers is its judgement.
    pub fn counts_on(&self) -> Option<&Kid> {
        self.counts_on.as_ref()
    }

    /// The name in logs and metrics.
    pub fn name(&self) -> &'static str {
        match self.step {
            Step::AsCame | Step::Hold(_) => "as_came",
            Step::Resign { .. } => "resign",
            Step::Replay => "replay",
            Step::Blank => "blank",
        }
    }

    fn new(step: Step, counts_on: Option<Kid>) -> Self {
        Self { step, counts_on }
    }

    /// The plan of observe mode and of requests without a registry token: nothing is touched (A27).
    pub fn untouched() -> Self {
        Self::new(Step::AsCame, None)
    }
}

/// The longest time that a token from the future is held for core's clock (A13).
pub const LONGEST_HOLD: Duration = Duration::from_secs(10);
/// How far `nbf` goes back at most: the leeway that Harbor itself has from 2.11 on (V7).
pub const MOST_BACK: Duration = Duration::from_mins(1);

/// What a request gets at the endpoint that `view` describes, as known at `now`.
///
/// Order of preference: the token as it came where the endpoint holds its key, signed again with the held
/// key, the credential it was issued for, Harbor's refusal. `tried` are the ways that this request has
/// already gone in vain.
pub fn plan(
    judged: Judged<'_>,
    view: &View<'_>,
    ring: &Ring,
    means: Means,
    tried: &[Tried],
    now: UnixTime,
) -> Plan {
    match judged {
        Judged::Untouched => Plan::untouched(),
        Judged::Refused(_) => Plan::new(Step::Blank, None),
        Judged::Own => own(means, tried),
        Judged::Unverified(kid) => unverified(kid, view, means, tried),
        Judged::Verified(claims) => verified(claims, view, ring, means, tried, now),
    }
}

/// Whether the endpoint's held key alone settles the plan, so that no credential need be looked up for it.
pub fn by_key(judged: Judged<'_>, view: &View<'_>, ring: &Ring) -> bool {
    match (judged, view.held) {
        (Judged::Verified(claims), Held::One(kid)) => {
            view.leeway && (Some(kid) == claims.known_as() || ring.signer(kid.as_str()).is_some())
        }
        (Judged::Unverified(own), Held::One(kid)) => own == kid,
        (Judged::Untouched | Judged::Refused(_), _) => true,
        _ => false,
    }
}

/// It never goes up itself; nobody's, and where the credential is not good for the request, it means nothing.
fn own(means: Means, tried: &[Tried]) -> Plan {
    let replay = means.replay && !tried.contains(&Tried::Replay);
    Plan::new(if replay { Step::Replay } else { Step::Blank }, None)
}

/// A9: a token goes up unverified only where its `kid` is exactly the one that this endpoint holds.
fn unverified(kid: &Kid, view: &View<'_>, means: Means, tried: &[Tried]) -> Plan {
    let held_here = view.held.kids().any(|held| held == kid);
    let replay = means.replay && !tried.contains(&Tried::Replay);
    let unsure = view.held.several() && means.body && replay;
    if held_here && !unsure && !tried.contains(&Tried::Key(kid.clone())) {
        return Plan::new(Step::AsCame, Some(kid.clone()));
    }
    Plan::new(if replay { Step::Replay } else { Step::Blank }, None)
}

fn verified(
    claims: &VerifiedClaims,
    view: &View<'_>,
    ring: &Ring,
    means: Means,
    tried: &[Tried],
    now: UnixTime,
) -> Plan {
    let replay = means.replay && !tried.contains(&Tried::Replay);
    let timing = timing(claims, view, now);
    match timing {
        Timing::Fits | Timing::NotBeforeBack(_) => {}
        _ if replay => return Plan::new(Step::Replay, None),
        Timing::TooNew(wait) if wait <= LONGEST_HOLD => return Plan::new(Step::Hold(wait), None),
        Timing::TooNew(_) => return Plan::new(Step::AsCame, None),
        Timing::Expired => return Plan::new(Step::Blank, None),
    }
    let back = if let Timing::NotBeforeBack(back) = timing { back } else { Duration::ZERO };
    if view.held.several() && means.body && replay {
        return Plan::new(Step::Replay, None);
    }
    let by_key =
        view.held.kids().filter(|kid| !tried.contains(&Tried::Key((*kid).clone()))).find_map(|kid| {
            let own = Some(kid) == claims.known_as();
            let signer = ring.signer(kid.as_str()).is_some();
            let step = if own && back.is_zero() {
                Some(Step::AsCame)
            } else {
                signer.then(|| Step::Resign { kid: kid.clone(), back })
            };
            step.map(|step| Plan::new(step, Some(kid.clone())))
        });
    match by_key {
        Some(plan) => plan,
        None if replay => Plan::new(Step::Replay, None),
        // Verified, so it may go up; core judges, and where its key can't be known it may well accept (K7).
        None => Plan::new(Step::AsCame, None),
    }
}

enum Timing {
    Fits,
    NotBeforeBack(Duration),
    TooNew(Duration),
    Expired,
}

/// How core's clock and leeway see the token (V7, V8, A13).
fn timing(claims: &VerifiedClaims, view: &View<'_>, now: UnixTime) -> Timing {
    if view.leeway {
        return Timing::Fits;
    }
    let core_now = UnixTime(now.0.saturating_add(view.clock_ahead));
    if claims.expires() <= core_now {
        return Timing::Expired;
    }
    let back = claims.not_before().since(core_now);
    let early = claims.issued().since(core_now).max(back.saturating_sub(MOST_BACK));
    if !early.is_zero() {
        return Timing::TooNew(early);
    }
    if back.is_zero() { Timing::Fits } else { Timing::NotBeforeBack(back) }
}

#[cfg(test)]
mod tests;
