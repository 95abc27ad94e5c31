//! The settings in the words of what is built from them, so that nobody below `app` knows the configuration.

use crate::{
    app::config::{KeyOrigin, KeySource, KeyState, Keys, Overlap},
    decisions::ring::{self, Listed, Listing, Policy},
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

/// Where keys are read from. Public halves alone are fine: they verify, and their endpoints are re-routed to.
pub fn sources(keys: &Keys) -> Vec<Source> {
    keys.sources.iter().filter_map(source).collect()
}

fn source(source: &KeySource) -> Option<Source> {
    Some(Source {
        place: match &source.origin {
            KeyOrigin::File(path) => Place::File(path.clone()),
            KeyOrigin::Folder(path) => Place::Folder(path.clone()),
            KeyOrigin::JwksFile(path) => Place::Jwks(path.clone()),
            KeyOrigin::JwksUrl(..) => return None,
        },
        listing: listing(source),
    })
}

/// What is listed of a source.
pub fn listing(source: &KeySource) -> Listing {
    Listing {
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
        is_remote: matches!(source.origin, KeyOrigin::JwksUrl(..)),
    }
}
