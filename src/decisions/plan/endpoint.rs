//! What is known of the endpoints, and which one a token goes to.

use super::{Judged, Ring};
use crate::words::kid::Kid;

/// The key that an endpoint signs and verifies with, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Held {
    /// Not probed yet, or its answers tell nothing.
    #[default]
    Unknown,
    /// This one.
    One(Kid),
    /// An opaque endpoint: these, the one that worked last first.
    Several(Vec<Kid>),
    /// None: core's key file is broken (K7 to K9). It still accepts Basic.
    CannotSign,
}

impl Held {
    /// The keys that the endpoint may hold, likeliest first.
    pub fn kids(&self) -> impl Iterator<Item = &Kid> {
        match self {
            Self::One(kid) => std::slice::from_ref(kid).iter(),
            Self::Several(kids) => kids.iter(),
            Self::Unknown | Self::CannotSign => [].iter(),
        }
    }

    /// Whether the key may change from call to call.
    pub fn several(&self) -> bool {
        matches!(self, Self::Several(_))
    }
}

/// What one plan sees of one endpoint; on an opaque endpoint what the connection knows comes first.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The held key.
    pub held: &'a Held,
    /// Whether its core grants 60 s on `exp`, `nbf`, `iat` (from 2.11 on; V7, V8). Unknown counts as no.
    pub leeway: bool,
    /// Seconds by which its core's clock is ahead of ours.
    pub clock_ahead: i64,
}

/// Whether an endpoint takes requests now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Answers its probes.
    Healthy,
    /// Failed lately; taken only where no other is left.
    Ejected,
}

/// What choosing needs of an endpoint.
pub trait Fleet {
    /// How many endpoints there are.
    fn count(&self) -> usize;
    /// Whether endpoint `index` takes requests.
    fn standing(&self, index: usize) -> Standing;
    /// What a plan would see of it.
    fn view(&self, index: usize) -> View<'_>;
}

/// An endpoint, and whether the token's key decided it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Position in the fleet.
    pub index: usize,
    /// Whether turn and turn about would have taken another one: then this is a re-route.
    pub rerouted: bool,
}

/// The endpoint for a request: a healthy one before an ejected one, then the one that can do most with the
/// token as it is (holds its key, can be signed for, else any), turn and turn about among equals.
/// `avoid` are endpoints that this request failed at. `None` only for a fleet of none.
pub fn choose(
    judged: Judged<'_>,
    fleet: &impl Fleet,
    ring: &Ring,
    avoid: &[usize],
    turn: usize,
) -> Option<Choice> {
    let count = fleet.count();
    if count == 1 {
        return Some(Choice { index: 0, rerouted: false });
    }
    let rank = |index: usize| {
        (avoid.contains(&index), fleet.standing(index), fitness(judged, fleet.view(index).held, ring))
    };
    let mut best: Option<(usize, _)> = None;
    let mut first: Option<(usize, _)> = None;
    for step in 0..count {
        let index = turn.wrapping_add(step) % count;
        let (avoided, standing, fit) = rank(index);
        if best.as_ref().is_none_or(|(_, b)| (avoided, standing, fit) < *b) {
            best = Some((index, (avoided, standing, fit)));
        }
        if first.as_ref().is_none_or(|(_, f)| (avoided, standing) < *f) {
            first = Some((index, (avoided, standing)));
        }
    }
    let (index, _) = best?;
    Some(Choice { index, rerouted: first.is_some_and(|(by_turn, _)| by_turn != index) })
}

/// What an endpoint can do with the token as it is; the smaller the better.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fitness {
    HoldsItsKey,
    SignedFor,
    Other,
}

fn fitness(judged: Judged<'_>, held: &Held, ring: &Ring) -> Fitness {
    let own = match judged {
        Judged::Verified(claims) => claims.kid(),
        Judged::Unverified(kid) => kid,
        // A core that can't sign still answers all else, but no token request.
        Judged::Untouched | Judged::Refused(_) if *held == Held::CannotSign => return Fitness::Other,
        Judged::Untouched | Judged::Refused(_) | Judged::Own => return Fitness::HoldsItsKey,
    };
    let verified = matches!(judged, Judged::Verified(_));
    match held {
        Held::One(kid) if kid == own => Fitness::HoldsItsKey,
        Held::One(kid) if verified && ring.signer(kid.as_str()).is_some() => Fitness::SignedFor,
        Held::Several(kids) if kids.contains(own) => Fitness::SignedFor,
        _ => Fitness::Other,
    }
}

#[cfg(test)]
mod tests;
