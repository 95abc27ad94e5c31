//! `[keys]` and `[token]`.

use std::time::Duration;

use super::Checker;
use crate::{
    app::config::{
        amounts::Span,
        raw,
        settings::{KeyOrigin, KeySource, KeyState, Keys, Overlap, Token},
        written::Written as _,
    },
    decisions::key::is_published_default,
};

/// More would let a token live on long after Harbor ended it.
const LONGEST_LEEWAY: Span = Span::minutes(5);

pub(super) fn keys(c: &mut Checker<'_>, raw: raw::Keys) -> Keys {
    let token_lifetime = c.at_least("keys.token_lifetime", &raw.token_lifetime, Span::minutes(1));
    let leeway = at_most(c, "keys.leeway", raw.leeway.0, LONGEST_LEEWAY);
    c.at_least("keys.reread_every", &raw.reread_every, Span::millis(100));
    let reread_every = at_most(c, "keys.reread_every", raw.reread_every.0, Span::minutes(1));
    let sources = sources(c, raw.sources);
    if raw.keep_private && !matches!(raw.overlap, raw::Overlap::Auto) {
        let keys = ["keys.keep_private", "keys.overlap"];
        c.fault(&keys, "true", "false, or overlap = \"auto\"", "no other keeps keys that no source holds");
    }
    // With `off` the operator wants those tokens to die.
    if !matches!(raw.overlap, raw::Overlap::Off) {
        window_holds_every_token(c, &sources, token_lifetime + leeway);
    }
    Keys {
        sources,
        overlap: match raw.overlap {
            raw::Overlap::Auto => Overlap::Auto,
            raw::Overlap::Listed => Overlap::Listed,
            raw::Overlap::Off => Overlap::Off,
        },
        token_lifetime,
        leeway,
        reread_every,
        keep_private: raw.keep_private,
        accept_missing_kid: raw.accept_missing_kid,
    }
}

pub(super) fn at_most(c: &mut Checker<'_>, key: &str, span: Span, most: Span) -> Duration {
    if span.duration() > most.duration() {
        c.fault(&[key], &format!("\"{}\"", span.write()), &format!("at most {}", most.write()), "");
    }
    span.duration()
}

fn sources(c: &mut Checker<'_>, raw: Vec<raw::KeySource>) -> Vec<KeySource> {
    let mut sources: Vec<KeySource> = Vec::new();
    for (i, raw) in raw.into_iter().enumerate() {
        let key = format!("keys.sources[{i}]");
        let Some(source) = source(c, &key, raw) else { continue };
        if sources.iter().any(|earlier| earlier.origin == source.origin) {
            c.fault(&[&key], "a source that stands above already", "each source once", "remove one of them");
        }
        let same_alias = |earlier: &KeySource| source.alias.is_some() && earlier.alias == source.alias;
        if sources.iter().any(same_alias) {
            let alias = format!("{key}.alias");
            c.fault(&[&alias], "a name that another source has", "one name for each key", "");
        }
        if source.alias.as_ref().is_some_and(|alias| is_published_default(alias.as_str())) {
            let alias = format!("{key}.alias");
            c.fault(&[&alias], "the name of Harbor's published default key", "another name, or none", "");
        }
        sources.push(source);
    }
    sources
}

fn source(c: &mut Checker<'_>, key: &str, raw: raw::KeySource) -> Option<KeySource> {
    let names = ["file", "folder", "jwks"].map(|name| format!("{key}.{name}"));
    let given: Vec<(usize, &String)> =
        [&raw.file, &raw.folder, &raw.jwks].into_iter().enumerate().filter(|(_, v)| !v.is_empty()).collect();
    let [(which, path)] = given[..] else {
        let found = if given.is_empty() {
            "none of file, folder and jwks"
        } else {
            "several of file, folder and jwks"
        };
        c.fault(
            &[key, &names[0], &names[1], &names[2]],
            found,
            "exactly one of them",
            "write { file = \"/path\" }",
        );
        return None;
    };
    if which == 2 && path.contains("://") {
        let remedy = "fetch it into a file, and name that";
        c.fault(
            &[&names[2]],
            "a URL, which arrives with the shared store; not available in this version",
            "",
            remedy,
        );
    }
    if which != 0 && raw.alias.0.is_some() {
        let remedy = "name the key's file by itself";
        c.fault(
            &[&format!("{key}.alias")],
            "one name for a source of many keys",
            "an alias beside file",
            remedy,
        );
    }
    let (from, until) = (raw.from.map(|m| m.0), raw.until.map(|m| m.0));
    if matches!((from, until), (Some(from), Some(until)) if until <= from) {
        c.fault(
            &[&format!("{key}.until"), &format!("{key}.from")],
            "an end before its beginning",
            "until after from",
            "",
        );
    }
    if matches!(raw.state, Some(raw::State::Retired)) && (from.is_some() || until.is_some()) {
        c.fault(
            &[&format!("{key}.state")],
            "\"retired\" beside from or until",
            "\"retired\" alone: such a key is banned for as long as it is listed",
            "remove from and until, or state",
        );
    }
    let path = path.into();
    Some(KeySource {
        origin: [KeyOrigin::File, KeyOrigin::Folder, KeyOrigin::JwksFile][which](path),
        alias: raw.alias.0,
        state: raw.state.map(|state| match state {
            raw::State::Announced => KeyState::Announced,
            raw::State::Signing => KeyState::Signing,
            raw::State::Verifying => KeyState::Verifying,
            raw::State::Retired => KeyState::Retired,
        }),
        from,
        until,
    })
}

/// A key that ends by the list must verify for a token's whole life after the next one begins to sign.
fn window_holds_every_token(c: &mut Checker<'_>, sources: &[KeySource], needed: Duration) {
    let next = |until| {
        let began = sources.iter().filter_map(|source| source.from).filter(move |from| *from <= until);
        began.max()
    };
    for (i, until) in sources.iter().enumerate().filter_map(|(i, source)| Some((i, source.until?))) {
        let Some(from) = next(until).filter(|from| sources[i].from.is_none_or(|own| own < *from)) else {
            continue;
        };
        if until < from.plus(needed) {
            let short = from.plus(needed).since(until).as_secs();
            c.fault(
                &[&format!("keys.sources[{i}].until"), "keys.token_lifetime", "keys.leeway"],
                &format!("an end {} s after the next key begins to sign", until.since(from).as_secs()),
                &format!(
                    "{} s: keys.token_lifetime and keys.leeway; tokens issued in the last {short} s before the next key would die",
                    needed.as_secs()
                ),
                "set until later, or keys.token_lifetime to Harbor's token_expiration",
            );
        }
    }
}

pub(super) fn token(c: &mut Checker<'_>, raw: raw::Token) -> Token {
    for (key, text, harbor) in [
        ("token.issuer", &raw.issuer, "harbor-token-issuer"),
        ("token.service", &raw.service, "harbor-registry"),
    ] {
        if text.is_empty() {
            c.fault(&[key], "nothing", "what Harbor's tokens say", &format!("remove it for \"{harbor}\""));
        }
    }
    Token { issuer: raw.issuer, service: raw.service, cache: raw.cache.0.duration() }
}
