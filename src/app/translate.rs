//! The settings in the words of what is built from them, so that nobody below `app` knows the configuration.

use crate::{
    app::config::{Grace, KeyOrigin, KeySource, KeyState, Keys, Overlap},
    decisions::{
        ring::{self, Listed, Listing, Policy},
        window::Dates,
    },
    edges::key_source::{Place, Source},
};

/// How the ring ages.
pub fn policy(keys: &Keys) -> Policy {
    Policy {
        overlap: match keys.overlap {
            Overlap::Auto => ring::Overlap::Auto,
            Overlap::Listed => ring::Overlap::Listed,
            Overlap::Off => ring::Overlap::Off,
        },
        token_lifetime: keys.token_lifetime,
        leeway: keys.leeway,
    }
}

/// Upgrade windows by date.
pub fn windows(grace: &Grace) -> Vec<Dates> {
    grace.windows.iter().map(|&(from, until)| Dates { from, until }).collect()
}

/// Where keys are read from. Public halves alone are fine: they verify, and their endpoints are re-routed to.
pub fn sources(keys: &Keys) -> Vec<Source> {
    keys.sources.iter().map(source).collect()
}

fn source(source: &KeySource) -> Source {
    Source {
        place: match &source.origin {
            KeyOrigin::File(path) => Place::File(path.clone()),
            KeyOrigin::Folder(path) => Place::Folder(path.clone()),
            KeyOrigin::JwksFile(path) => Place::Jwks(path.clone()),
        },
        listing: Listing {
            state: source.state.map(|state| match state {
                KeyState::Announced => Listed::Announced,
                KeyState::Signing => Listed::Signing,
                KeyState::Verifying => Listed::Verifying,
                KeyState::Retired => Listed::Retired,
            }),
            alias: source.alias.clone(),
            from: source.from,
            until: source.until,
            needs_private: false,
        },
    }
}
