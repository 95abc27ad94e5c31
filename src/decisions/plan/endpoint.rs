//! What is known of the endpoints, and which one a token goes to.

use super::{Judged, Ring, Tried};
use crate::{decisions::ramp::Side, words::kid::Kid};

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
    /// Whether it is one to move to.
    fn side(&self, index: usize) -> Side;
}

/// Where a ramp would have a request go. It never fails one for that: what the side can do nothing with goes to the
/// other one.
#[derive(Clone, Copy)]
pub struct Wanted<'a> {
    /// The side.
    pub side: Side,
    /// Whether a kid that nobody verified may lead to the next side (A9); to the current one it always may.
    pub may_be_next: bool,
    /// Whether the credential of the request's token is at hand for the endpoint at this place.
    pub replay: &'a dyn Fn(usize) -> bool,
}

impl Wanted<'_> {
    fn forbids(&self, judged: Judged<'_>, side: Side) -> bool {
        matches!(judged, Judged::Unverified(_)) && side == Side::Next && !self.may_be_next
    }
}

/// What a request has tried in vain.
#[derive(Clone, Copy, Debug, Default)]
pub struct Vain<'a> {
    /// Endpoints that it failed at.
    pub avoid: &'a [usize],
    /// Ways that it went, wherever that was.
    pub tried: &'a [Tried],
}

/// An endpoint, and whether the token's key decided it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Position in the fleet.
    pub index: usize,
    /// Whether turn and turn about would have taken another one: then this is a re-route.
    pub rerouted: bool,
}

/// How good an endpoint is for a request; the smaller the better, the first that differs decides.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    by_turn: ByTurn,
    /// Nothing can be done with the token there.
    lost: bool,
    /// It is not the side that the ramp wants.
    off_side: bool,
    fit: Fitness,
}

/// What does not look at the token's key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct ByTurn {
    avoided: bool,
    standing: Standing,
    /// The ramp allows no unverified kid there.
    forbidden: bool,
}

/// The endpoint for a request: a healthy one before an ejected one, then one of the side that is wanted where it can do
/// anything with the token, then the one that can do most with it as it is (holds its key, can be signed for, else any),
/// turn and turn about among equals. `None` only for a fleet of none.
pub fn choose(
    judged: Judged<'_>,
    fleet: &impl Fleet,
    ring: &Ring,
    vain: Vain<'_>,
    turn: usize,
    wanted: Option<&Wanted<'_>>,
) -> Option<Choice> {
    let count = fleet.count();
    if count == 1 {
        return Some(Choice { index: 0, rerouted: false });
    }
    let rank = |index: usize| {
        let held = fleet.view(index).held;
        let fit = fitness(judged, held, ring, vain.tried);
        let side = fleet.side(index);
        Rank {
            by_turn: ByTurn {
                avoided: vain.avoid.contains(&index),
                standing: fleet.standing(index),
                forbidden: wanted.is_some_and(|wanted| wanted.forbids(judged, side)),
            },
            lost: wanted.is_some_and(|wanted| {
                fit == Fitness::Other && !signs_one_of(judged, held, ring) && !(wanted.replay)(index)
            }),
            off_side: wanted.is_some_and(|wanted| wanted.side != side),
            fit,
        }
    };
    let mut best: Option<(usize, Rank)> = None;
    let mut first: Option<(usize, (ByTurn, bool))> = None;
    let begin = wanted.and_then(|wanted| of_side(fleet, wanted.side, turn)).unwrap_or(turn);
    for step in 0..count {
        let index = begin.wrapping_add(step) % count;
        let rank = rank(index);
        if best.is_none_or(|(_, b)| rank < b) {
            best = Some((index, rank));
        }
        let by_turn = (rank.by_turn, rank.off_side);
        if first.is_none_or(|(_, f)| by_turn < f) {
            first = Some((index, by_turn));
        }
    }
    let (index, _) = best?;
    Some(Choice { index, rerouted: first.is_some_and(|(by_turn, _)| by_turn != index) })
}

/// Turn and turn about among the endpoints of one side; `None` where there are none.
fn of_side(fleet: &impl Fleet, side: Side, turn: usize) -> Option<usize> {
    let all = || (0..fleet.count()).filter(|index| fleet.side(*index) == side);
    all().nth(turn.checked_rem(all().count())?)
}

/// Whether a key that an opaque endpoint may hold can sign the token again.
fn signs_one_of(judged: Judged<'_>, held: &Held, ring: &Ring) -> bool {
    matches!(judged, Judged::Verified(_)) && held.kids().any(|kid| ring.signer(kid.as_str()).is_some())
}

/// What an endpoint can do with the token as it is; the smaller the better.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fitness {
    HoldsItsKey,
    SignedFor,
    /// It held its key when that was last looked at; so did the one that has refused it.
    HeldItsKey,
    Other,
}

fn fitness(judged: Judged<'_>, held: &Held, ring: &Ring, tried: &[Tried]) -> Fitness {
    let own = match judged {
        Judged::Verified(claims) => claims.known_as(),
        Judged::Unverified(kid) => Some(kid),
        // A core that can't sign still answers all else, but no token request.
        Judged::Untouched | Judged::Refused(_) if *held == Held::CannotSign => return Fitness::Other,
        Judged::Untouched | Judged::Refused(_) | Judged::Own => return Fitness::HoldsItsKey,
    };
    let verified = matches!(judged, Judged::Verified(_));
    let was_refused = |kid: &Kid| tried.iter().any(|tried| matches!(tried, Tried::Key(by) if by == kid));
    match held {
        Held::One(kid) if Some(kid) == own && was_refused(kid) => Fitness::HeldItsKey,
        Held::One(kid) if Some(kid) == own => Fitness::HoldsItsKey,
        Held::One(kid) if verified && !was_refused(kid) && ring.signer(kid.as_str()).is_some() => {
            Fitness::SignedFor
        }
        Held::Several(kids) if own.is_some_and(|own| kids.contains(own)) => Fitness::SignedFor,
        _ => Fitness::Other,
    }
}

#[cfg(test)]
mod tests;
