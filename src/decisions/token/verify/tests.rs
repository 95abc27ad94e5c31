//! What the one judge of tokens lets pass, and what it does not.

mod keys;
mod shapes;
mod signatures;
mod times;

use super::*;
use crate::decisions::token::forge::{self, Draft, NOW, kid, ring, rules};

/// What became of a token.
#[derive(Debug, PartialEq, Eq)]
enum Came {
    Verified,
    Unknown(Kid),
    Refused(Fault),
}

fn judged(text: &str, ring: &Ring, rules: &Rules) -> Came {
    match verify(text, ring, rules, NOW) {
        Verdict::Verified(_) => Came::Verified,
        Verdict::UnknownKey { unverified_kid } => Came::Unknown(unverified_kid),
        Verdict::Refused(fault) => Came::Refused(fault),
    }
}

/// Under Harbor's usual rules and the usual ring.
fn came(text: &str) -> Came {
    judged(text, &ring(), &rules())
}

fn refused(fault: Fault) -> Came {
    Came::Refused(fault)
}

fn malformed(fault: Malformed) -> Came {
    Came::Refused(Fault::Malformed(fault))
}
