//! Tokens of our own, for the time in which core can't sign any (A11). No JWS and of no key that anybody verifies
//! with: sealed envelopes that the processes of one deployment alone open, good for nothing but to have their credential
//! sent up in their place, so that Harbor judges every use.

use std::time::Duration;

use arc_swap::ArcSwap;
use aws_lc_rs::{
    aead::{AES_256_GCM_SIV, Aad, Nonce, RandomizedNonceKey},
    error::Unspecified,
    rand,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::HeaderValue;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{
    decisions::token::claims,
    words::{clock::UnixTime, scope::Access},
};

/// How long a token of ours is good for (A11).
const LIFE: Duration = Duration::from_mins(5);
/// What clients are told: less, because they count with clocks of their own, and more than docker's least of 60 s.
const TOLD: Duration = Duration::from_mins(4);
/// What every one begins with. It has no point in it, so it is no JWS; the number is the envelope's version.
const PREFIX: &str = "tidegate1_";
/// AES-256-GCM-SIV's.
const NONCE: usize = 12;
/// The keys that seal them. Without a store it is made at the start and in memory only: tokens of another process, and
/// those of before a restart, mean nothing then.
pub struct OwnTokens {
    own: RandomizedNonceKey,
    /// Those of all processes of the deployment, once they are known: one for each day, so that who gets hold of one reads
    /// the tokens of a day.
    shared: ArcSwap<Vec<(Day, RandomizedNonceKey)>>,
    bound_to: Vec<u8>,
}

/// A day of UTC, counted from 1970's first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Day(pub i64);

impl Day {
    /// The one that it is then.
    pub const fn of(now: UnixTime) -> Self {
        Self(now.0.div_euclid(24 * 60 * 60))
    }
}

/// What a token of ours stands for.
pub struct Own {
    /// `Authorization: Basic …` as the client sent it, and the user's name; `None` = nobody's.
    pub credential: Option<(HeaderValue, String)>,
    /// What was asked for.
    pub access: Vec<Access>,
    /// When it ends.
    pub expires: UnixTime,
}

/// One of ours, past its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Over;

impl Own {
    /// When it was given.
    pub fn issued(&self) -> UnixTime {
        self.expires.minus(LIFE)
    }
}

#[derive(Deserialize, Serialize)]
struct Sealed {
    exp: i64,
    sub: Option<String>,
    credential: Option<String>,
    access: Vec<Access>,
}

impl Drop for Sealed {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.credential);
    }
}

impl OwnTokens {
    /// With a fresh key; an error only where there is no randomness. Its tokens are bound to `deployment` (A10).
    pub fn new(deployment: &str) -> Result<Self, Unspecified> {
        let mut key = Zeroizing::new([0; 32]);
        rand::fill(&mut *key)?;
        let bound_to = [PREFIX.as_bytes(), deployment.as_bytes()].concat();
        let own = RandomizedNonceKey::new(&AES_256_GCM_SIV, &*key)?;
        Ok(Self { own, shared: ArcSwap::default(), bound_to })
    }

    /// Seals by the key of the day from now on, as all processes of the deployment do, and opens by any of these; what was
    /// sealed before by our own still opens.
    pub fn share(&self, keys: &[(Day, Zeroizing<[u8; 32]>)]) {
        let key = |(day, key): &(Day, Zeroizing<[u8; 32]>)| {
            RandomizedNonceKey::new(&AES_256_GCM_SIV, &**key).ok().map(|key| (*day, key))
        };
        self.shared.store(keys.iter().filter_map(key).collect::<Vec<_>>().into());
    }

    /// A token for this credential (its `Authorization` and its user's name), or for nobody; `None` where it would
    /// be longer than any token that is read.
    pub fn seal(
        &self,
        credential: Option<(&HeaderValue, &str)>,
        access: Vec<Access>,
        now: UnixTime,
    ) -> Option<String> {
        let sealed = Sealed {
            exp: now.plus(LIFE).0,
            sub: credential.map(|(_, name)| name.to_owned()),
            credential: match credential {
                Some((value, _)) => Some(value.to_str().ok()?.to_owned()),
                None => None,
            },
            access,
        };
        self.envelope(&sealed, now)
    }

    /// The same token with an earlier end, where it is one of ours that lives longer.
    pub fn shortened(&self, token: &str, until: UnixTime, now: UnixTime) -> Option<String> {
        let own = self.open(token.as_bytes(), now)?.ok().filter(|own| until < own.expires)?;
        let (credential, sub) = match &own.credential {
            Some((value, name)) => (Some(value.to_str().ok()?.to_owned()), Some(name.clone())),
            None => (None, None),
        };
        self.envelope(&Sealed { exp: until.0, sub, credential, access: own.access }, now)
    }

    fn envelope(&self, sealed: &Sealed, now: UnixTime) -> Option<String> {
        let mut envelope = Zeroizing::new(Vec::with_capacity(claims::LONGEST));
        serde_json::to_writer(&mut *envelope, sealed).ok()?;
        let (shared, today) = (self.shared.load(), Day::of(now));
        // Where today's isn't known, the last one that is.
        let key = shared.iter().find(|(day, _)| *day == today).or(shared.last());
        let key = key.map_or(&self.own, |(_, key)| key);
        let nonce = key.seal_in_place_append_tag(Aad::from(&self.bound_to), &mut *envelope).ok()?;
        let whole = [nonce.as_ref().as_slice(), &envelope].concat();
        let token = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(whole));
        (token.len() <= claims::LONGEST).then_some(token)
    }

    /// What a token of ours stands for; `None` for anything else, whoever made it.
    pub fn open(&self, token: &[u8], now: UnixTime) -> Option<Result<Own, Over>> {
        let encoded = token.strip_prefix(PREFIX.as_bytes()).filter(|_| token.len() <= claims::LONGEST)?;
        let bytes = URL_SAFE_NO_PAD.decode(encoded).ok()?;
        let shared = self.shared.load();
        let mut sealed = shared.iter().map(|(_, key)| key).chain([&self.own]).find_map(|key| {
            let mut bytes = Zeroizing::new(bytes.clone());
            let (nonce, envelope) = bytes.split_at_mut_checked(NONCE)?;
            let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
            let plain = key.open_in_place(nonce, Aad::from(&self.bound_to), envelope).ok()?;
            serde_json::from_slice::<Sealed>(plain).ok()
        })?;
        let (expires, access) = (UnixTime(sealed.exp), std::mem::take(&mut sealed.access));
        // A clock that was set back makes none live longer.
        if expires <= now || expires > now.plus(LIFE) {
            return Some(Err(Over));
        }
        let credential = match (sealed.credential.as_deref(), sealed.sub.take()) {
            (None, None) => None,
            (Some(value), Some(name)) => Some((credential(value)?, name)),
            _ => return None,
        };
        Some(Ok(Own { credential, access, expires }))
    }
}

fn credential(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Whether a bearer claims to be one of ours; what it is, [`OwnTokens::open`] says.
pub fn claims_to_be_one(token: &[u8]) -> bool {
    token.starts_with(PREFIX.as_bytes())
}

/// The answer to a token request that gives this token, of the same shape as Harbor's own (T1).
pub fn answer(token: &str, now: UnixTime) -> String {
    let (left, at) = (TOLD.as_secs(), now.rfc3339());
    serde_json::json!({"token": token, "access_token": "", "expires_in": left, "issued_at": at}).to_string()
}

#[cfg(test)]
mod tests;
