//! Plans: a table that can be read, and every combination held against the rules of `safety.md`.

mod every;
mod rows;

use std::sync::{Arc, LazyLock};

use super::*;
use crate::decisions::token::{
    forge::{Draft, NOW, kid, verified},
    verify::VerifiedClaims,
};

/// The ring of every plan here: private halves of keys 0 and 2, and key 1's that has just stopped signing.
static RING: LazyLock<Arc<Ring>> = LazyLock::new(crate::decisions::token::forge::ring);

/// A verified token of key 0, with these times in seconds from now.
fn claims(iat: i64, nbf: i64, exp: i64) -> VerifiedClaims {
    verified(&Draft::of(0).times(iat, nbf, exp).signed(0), &RING)
}

/// What an endpoint is seen as: its key, its leeway, its clock's lead.
#[derive(Clone, Debug)]
struct Endpoint {
    held: Held,
    leeway: bool,
    ahead: i64,
}

impl Endpoint {
    fn view(&self) -> View<'_> {
        View { held: &self.held, leeway: self.leeway, clock_ahead: self.ahead }
    }
}

/// Harbor from 2.11 on, holding this key.
fn holds(which: usize) -> Endpoint {
    Endpoint { held: Held::One(kid(which)), leeway: true, ahead: 0 }
}

/// An opaque endpoint with these keys behind it.
fn several(which: &[usize]) -> Endpoint {
    Endpoint { held: Held::Several(which.iter().map(|n| kid(*n)).collect()), leeway: true, ahead: 0 }
}

fn nothing(held: Held) -> Endpoint {
    Endpoint { held, leeway: true, ahead: 0 }
}

const NO_MEANS: Means = Means { replay: false, body: false };
const REPLAY: Means = Means { replay: true, body: false };
const BODY: Means = Means { replay: false, body: true };
const BOTH: Means = Means { replay: true, body: true };

fn of(judged: Judged<'_>, endpoint: &Endpoint, means: Means, tried: &[Tried]) -> Plan {
    plan(judged, &endpoint.view(), &RING, means, tried, NOW)
}
