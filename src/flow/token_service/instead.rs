//! What a token request gets that Harbor could not answer: whether core really can't sign, whether another endpoint
//! can, and the ways to answer it ourselves, in their order.

use std::{sync::Arc, time::Instant};

use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};

use super::{Flight, Flown, inspect::Inspected};
use crate::{
    decisions::plan::{Held, Standing, coverage},
    edges::fleet::Endpoint,
    flow::{own_token, refused},
    words::{
        credential::basic_user,
        reason::{Reason, Rescue},
    },
};

/// Questions to an address behind which several replicas may answer, some of which sign.
const LOOKS: usize = 4;

/// What an endpoint shows of its key, asked for no one's scope: core also answers 500 where it can't read a scope.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Shown {
    signs: bool,
    broken: bool,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// Another endpoint, or replica, may sign.
    Elsewhere,
    /// It was broken for a moment only.
    Again,
    /// Nobody signs.
    Instead,
    /// Core's failure is about the request.
    Stands,
}

/// `another`: another endpoint may sign. `left` sends are left. `doubted`: it was asked again already.
fn next(shown: Shown, another: bool, left: usize, doubted: bool) -> Next {
    match shown {
        Shown { broken: true, signs } if left > 0 && (another || signs) => Next::Elsewhere,
        Shown { broken: true, .. } => Next::Instead,
        Shown { broken: false, .. } if left > 0 && !doubted => Next::Again,
        Shown { broken: false, .. } => Next::Stands,
    }
}

impl Flight {
    /// After an answer that core gives when it can't sign: what it really is, or `None` to send again.
    pub(super) async fn unsigned(
        &self,
        flown: &mut Flown,
        left: usize,
        doubted: &mut bool,
    ) -> Option<Inspected> {
        let Some(endpoint) = flown.endpoint.clone() else { return Some(Inspected::Other) };
        let shown = self.look(&endpoint).await;
        match next(shown, self.another_signs(&endpoint), left, *doubted) {
            Next::Elsewhere => {
                flown.rescue = Some(Rescue::OtherEndpoint);
                None
            }
            Next::Again => {
                *doubted = true;
                None
            }
            Next::Instead => Some(Inspected::CannotSign),
            Next::Stands => {
                flown.refusal = None;
                Some(Inspected::Other)
            }
        }
    }

    async fn look(&self, endpoint: &Arc<Endpoint>) -> Shown {
        let held = || {
            let fleet = self.worker.shared.fleet.snapshot();
            fleet.by_id(endpoint.id).map(|status| status.held.clone()).unwrap_or_default()
        };
        let mut shown = Shown::default();
        if held() == Held::CannotSign {
            return Shown { broken: true, ..shown };
        }
        for _ in 0..if held().several() { LOOKS } else { 1 } {
            match refused::learn_held(&self.worker, endpoint).await {
                Some(true) => shown.signs = true,
                Some(false) => shown.broken = true,
                None => {}
            }
            if shown.signs && shown.broken {
                break;
            }
        }
        shown
    }

    fn another_signs(&self, than: &Endpoint) -> bool {
        let fleet = self.worker.shared.fleet.snapshot();
        fleet.statuses.iter().any(|status| {
            let signs = status.held != Held::CannotSign && status.standing == Standing::Healthy;
            signs && status.endpoint.id != than.id
        })
    }

    /// The first of our ways that has an answer takes the place of Harbor's; gives back what the answer then is.
    pub(super) async fn instead(&self, flown: &mut Flown, inspected: Inspected, until: Instant) -> Inspected {
        match inspected {
            Inspected::CannotSign => self.own_token(flown, until).await,
            other => other,
        }
    }

    /// A token of our own (A11): for a credential that core accepts where it need not sign, or for nobody. Where we
    /// can't read the scopes as core does, or another kind of credential was sent, Harbor's failure stands (A3).
    async fn own_token(&self, flown: &mut Flown, until: Instant) -> Inspected {
        let Some(query) = &self.query else { return Inspected::CannotSign };
        let Some(basic) = &self.basic else {
            let nobody = self.is_nobodys() && !query.scopes.is_empty();
            let given = nobody && self.give(flown, None);
            return if given { Inspected::Anonymous } else { Inspected::CannotSign };
        };
        let name = basic_user(basic).filter(|name| !name.is_empty());
        let (Some(name), true) = (name, self.policy.replay) else { return Inspected::CannotSign };
        let asked = match self.ask(Uri::from_static("/v2/"), until).await {
            Ok(asked) => asked,
            Err(reason) => {
                flown.failure = Some(reason);
                return Inspected::Other;
            }
        };
        flown.sends += asked.sends;
        match asked.status {
            StatusCode::OK if self.give(flown, Some((basic, &name))) => {
                self.worker.shared.replays.accepted(basic);
                Inspected::Granted
            }
            StatusCode::UNAUTHORIZED => self.refuse(flown, query.scopes.is_empty()),
            _ => Inspected::CannotSign,
        }
    }

    /// While there is no core: a token of our own for a credential that Harbor accepted within grace's window, for
    /// whatever scope, or for nobody. It grants nothing; Harbor judges it where it is used (A11), which may wait longer
    /// than this request. An unknown credential gets none: nobody can tell whether it is right.
    pub(super) fn for_later(&self, flown: &mut Flown) {
        let Some(query) = &self.query else { return };
        let given = match &self.basic {
            Some(basic) => {
                let name = basic_user(basic).filter(|name| !name.is_empty() && self.policy.replay);
                self.was_granted(basic) && name.is_some_and(|name| self.give(flown, Some((basic, &name))))
            }
            None => self.is_nobodys() && !query.scopes.is_empty() && self.give(flown, None),
        };
        if given {
            flown.failure = None;
        }
    }

    fn is_nobodys(&self) -> bool {
        !self.headers.contains_key(header::AUTHORIZATION)
    }

    /// A wrong credential gets nobody's token, or 401 where it asks for no scope (T8, T9).
    fn refuse(&self, flown: &mut Flown, scopeless: bool) -> Inspected {
        if scopeless {
            flown.body = bytes::Bytes::new();
            flown.status = StatusCode::UNAUTHORIZED;
        } else if !self.give(flown, None) {
            return Inspected::CannotSign;
        }
        (flown.rescue, flown.refusal) = (None, Some(Reason::CredentialRefused));
        Inspected::Refused
    }

    /// Puts an answer with a token of ours into the place of Harbor's. It is shared by those who ask the same at
    /// once and never kept: as soon as core signs again, its own tokens are given.
    fn give(&self, flown: &mut Flown, credential: Option<(&HeaderValue, &str)>) -> bool {
        let (shared, query) = (&self.worker.shared, self.query.as_ref());
        let (now, scopes) = (shared.clock.now(), query.map(|query| &*query.scopes).unwrap_or_default());
        // What nobody may do needs no bound: it goes up as nobody's.
        let access = if credential.is_some() { coverage::asked(scopes) } else { Vec::new() };
        let Some(token) = shared.own.seal(credential, access, now) else { return false };
        let json = HeaderValue::from_static("application/json; charset=utf-8");
        flown.headers = HeaderMap::from_iter([(header::CONTENT_TYPE, json)]);
        flown.status = StatusCode::OK;
        flown.body = own_token::answer(&token, now).into();
        flown.subject = credential.map(|(_, name)| Arc::from(name));
        (flown.rescue, flown.refusal) = (Some(Rescue::OwnToken), None);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn core_that_cannot_sign_is_told_from_a_scope_that_it_cannot_read() {
        let (broken, signs) = (Shown { broken: true, signs: false }, Shown { broken: false, signs: true });
        let (mixed, nothing) = (Shown { broken: true, signs: true }, Shown::default());
        let table = [
            ("another endpoint signs", broken, true, 3, Next::Elsewhere),
            ("no send is left for it", broken, true, 0, Next::Instead),
            ("nobody signs", broken, false, 3, Next::Instead),
            ("some replicas behind the address sign", mixed, false, 1, Next::Elsewhere),
            ("none of them was met", mixed, false, 0, Next::Instead),
            ("its key is sound", signs, true, 3, Next::Again),
            ("no send is left to make sure", signs, true, 0, Next::Stands),
            ("it says nothing", nothing, false, 3, Next::Again),
        ];
        for (name, shown, another, left, want) in table {
            assert_eq!(next(shown, another, left, false), want, "{name}");
        }
        for shown in [signs, nothing] {
            assert_eq!(next(shown, true, 3, true), Next::Stands, "asked twice: {shown:?}");
        }
    }
}
