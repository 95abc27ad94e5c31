//! The settings in the words of what is built from them, so that nobody below `app` knows the configuration.

use std::time::Duration;

use zeroize::Zeroizing;

use crate::{
    app::config::{Grace, KeyOrigin, KeySource, KeyState, Keys, Material, Overlap, Pkcs11},
    decisions::{
        ring::{self, Listed, Listing, Policy},
        window::Dates,
    },
    edges::{
        key_source::{Place, Source},
        pkcs11::{Location, Pin},
    },
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
    let every = (keys.reread_every * BETWEEN_LOOKS).max(LEAST_BETWEEN_LOOKS);
    keys.sources.iter().filter_map(|listed| source(listed, every)).collect()
}

/// A token is looked at once where files are looked at so many times: it is slower, and may be busy signing.
const BETWEEN_LOOKS: u32 = 10;
const LEAST_BETWEEN_LOOKS: Duration = Duration::from_secs(1);

fn location(token: &Pkcs11, every: Duration) -> Location {
    let Pkcs11 { module, token, label, id, pin } = token.clone();
    let pin = match pin {
        Material::File(path) => Pin::File(path),
        Material::Inline(pin) => Pin::Value(Zeroizing::new(pin.expose().to_owned())),
    };
    Location { module, token, label, id, pin, every }
}

fn source(source: &KeySource, every: Duration) -> Option<Source> {
    Some(Source {
        place: match &source.origin {
            KeyOrigin::File(path) => Place::File(path.clone()),
            KeyOrigin::Folder(path) => Place::Folder(path.clone()),
            KeyOrigin::JwksFile(path) => Place::Jwks(path.clone()),
            KeyOrigin::Token(token) => Place::Token(Box::new(location(token, every))),
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
