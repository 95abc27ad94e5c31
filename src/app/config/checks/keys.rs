//! `[keys]` and `[token]`.

use std::time::Duration;

use super::{Checker, file};
use crate::{
    app::config::{
        address::{JwksUrl, UrlError},
        amounts::Span,
        raw,
        secret::{Material, Secret},
        settings::{KeyOrigin, KeySource, KeyState, Keys, Overlap, Pkcs11, Token},
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
    let origin = origin(c, key, &raw)?;
    if matches!(origin, KeyOrigin::Folder(_) | KeyOrigin::JwksFile(_) | KeyOrigin::JwksUrl(..))
        && raw.alias.0.is_some()
    {
        let remedy = "name the key's file by itself";
        c.fault(
            &[&format!("{key}.alias")],
            "one name for a source of many keys",
            "an alias beside file or pkcs11",
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
    Some(KeySource {
        origin,
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

/// Exactly one place.
fn origin(c: &mut Checker<'_>, key: &str, raw: &raw::KeySource) -> Option<KeyOrigin> {
    let names = ["file", "folder", "jwks", "pkcs11"].map(|name| format!("{key}.{name}"));
    let is_url = raw.jwks.contains("://");
    let path = |text: &String| (!text.is_empty()).then(|| text.into());
    let paths = [
        path(&raw.file).map(KeyOrigin::File),
        path(&raw.folder).map(KeyOrigin::Folder),
        path(&raw.jwks).filter(|_| !is_url).map(KeyOrigin::JwksFile),
    ];
    let url = is_url
        .then(|| jwks_url(c, &names[2], &raw.jwks).map(|url| KeyOrigin::JwksUrl(url, file(&raw.ca_file))));
    if !raw.ca_file.is_empty() && !is_url {
        let ca = format!("{key}.ca_file");
        c.fault(&[&ca], "certificates for a source that is no URL", "jwks = \"https://…\"", "remove it");
    }
    let token = raw.pkcs11.as_ref().map(|pkcs11| token_of(c, &names[3], pkcs11));
    let mut given: Vec<Option<KeyOrigin>> =
        paths.into_iter().flatten().map(Some).chain(url).chain(token).collect();
    if given.len() != 1 {
        let found = if given.is_empty() { "none" } else { "several" };
        c.fault(
            &[key, &names[0], &names[1], &names[2], &names[3]],
            &format!("{found} of file, folder, jwks and pkcs11"),
            "exactly one of them",
            "write { file = \"/path\" }",
        );
        return None;
    }
    given.pop().flatten()
}

fn token_of(c: &mut Checker<'_>, key: &str, raw: &raw::Pkcs11) -> Option<KeyOrigin> {
    let mut is_whole = true;
    for (name, text, remedy) in [
        ("module", &raw.module, "name the vendor's library, such as \"/usr/lib/softhsm/libsofthsm2.so\""),
        ("token", &raw.token, "name the token's label, as `pkcs11-tool -L` shows it"),
    ] {
        if text.is_empty() {
            c.fault(&[&format!("{key}.{name}"), key], "nothing", "", remedy);
            is_whole = false;
        }
    }
    let (label, id) = (format!("{key}.label"), format!("{key}.id"));
    if raw.label.is_empty() && raw.id.is_empty() {
        let remedy = "set label, as `pkcs11-tool --login -O` shows it";
        c.fault(&[&label, &id, key], "neither label nor id", "one of them, or both", remedy);
        is_whole = false;
    }
    let bytes = hexadecimal(&raw.id);
    if bytes.is_none() {
        c.fault(&[&id], &format!("{:?}", raw.id), "pairs of hexadecimal digits, such as \"01ab\"", "");
    }
    let pin = c.material(&format!("{key}.pin"), raw.pin.clone(), raw.pin_file.clone());
    if pin.is_none() && (raw.pin.0.is_none() || raw.pin_file.is_empty()) {
        let remedy = "write it into a file that only this user can read, and name that";
        c.fault(&[&format!("{key}.pin_file"), &format!("{key}.pin"), key], "no PIN", "pin_file", remedy);
    }
    let (pin, bytes) = (pin?, bytes?);
    is_whole.then(|| {
        KeyOrigin::Token(Pkcs11 {
            module: (&raw.module).into(),
            token: raw.token.clone(),
            label: (!raw.label.is_empty()).then(|| raw.label.clone()),
            id: (!bytes.is_empty()).then_some(bytes),
            pin: trimmed(pin),
        })
    })
}

/// A variable made from a file often ends with its line feed.
fn trimmed(pin: Material) -> Material {
    match pin {
        Material::Inline(pin) => {
            Material::Inline(Secret::new(pin.expose().trim_end_matches(['\r', '\n']).to_owned()))
        }
        file @ Material::File(_) => file,
    }
}

fn hexadecimal(text: &str) -> Option<Vec<u8>> {
    let digits = text.bytes().map(|b| char::from(b).to_digit(16)).collect::<Option<Vec<u32>>>()?;
    let (pairs, rest) = digits.as_chunks::<2>();
    rest.is_empty().then(|| pairs.iter().map(|[high, low]| (high * 16 + low) as u8).collect())
}

fn jwks_url(c: &mut Checker<'_>, key: &str, text: &str) -> Option<JwksUrl> {
    let url = text.parse::<JwksUrl>();
    if let Err(error) = &url {
        let found = match error {
            UrlError::Scheme => "a URL that isn't https: whoever answers in its place could sign tokens",
            UrlError::Path => "a URL with a query, a fragment or a character that belongs into none",
            UrlError::UserInfo => "a URL with a user or password",
            UrlError::Host | UrlError::Port => "a URL without a host that a DNS name or an address could be",
        };
        let remedy = "or fetch it into a file, and name that";
        c.fault(&[key], found, "https, host and path", remedy);
    }
    url.ok()
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
