//! Plans: a table that can be read, and every combination held against the rules of `safety.md`.

mod every;
mod rows;

use std::sync::{Arc, LazyLock};

use super::*;
use crate::decisions::token::{
    forge::{Draft, NOW, kid, rules, verified},
    verify::{Rules, Verdict, VerifiedClaims, verify},
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

/// A plain registry finds a token's key by its header; core has one key and looks at nothing but the signature.
#[test]
fn a_token_that_names_its_key_otherwise_is_signed_again_where_keys_are_found_by_name() {
    let text = |name: &str| {
        let header = format!(r#"{{"alg":"RS256","typ":"JWT","kid":"{name}"}}"#);
        Draft::of(0).header(&header).signed(0)
    };
    let thumbprint = crate::decisions::key::forge::rsa(0).key().thumbprint().clone();
    let other = Endpoint { held: Held::One(thumbprint.clone()), leeway: true, ahead: 0 };
    let resign = |kid: &Kid| Step::Resign { kid: kid.clone(), back: Duration::ZERO };
    for (by_name, name, endpoint, step) in [
        (false, kid(0), holds(0), Step::AsCame),
        (false, thumbprint.clone(), holds(0), Step::AsCame),
        (true, kid(0), holds(0), Step::AsCame),
        (true, thumbprint.clone(), holds(0), resign(&kid(0))),
        (true, kid(0), other.clone(), resign(&thumbprint)),
        (true, thumbprint.clone(), other, Step::AsCame),
    ] {
        let rules = Rules { by_name, ..rules() };
        let Verdict::Verified(claims) = verify(&text(name.as_str()), &RING, &rules, NOW) else {
            panic!("{name} verifies")
        };
        let plan = of(Judged::Verified(&claims), &endpoint, NO_MEANS, &[]);
        assert_eq!(plan.step(), &step, "{by_name} {name} {endpoint:?}");
        let held = endpoint.held.kids().next();
        assert_eq!(plan.counts_on(), held, "{by_name} {name}");
    }
}
