//! Whether a token is proved by a key of the window. The one judge of tokens.

use std::time::Duration;

use super::claims::{self, Claims, Malformed, UnverifiedToken};
use crate::{
    decisions::ring::{Ring, State},
    words::{clock::UnixTime, kid::Kid, reason::Reason, scope::Access},
};

/// What tokens must look like, beside their signature.
#[derive(Clone, Debug)]
pub struct Rules {
    /// `iss`.
    pub issuer: String,
    /// `aud`.
    pub service: String,
    /// The longest `exp - iat` (K6); a longer one is a forgery by a leaked key (A8).
    pub lifetime: Duration,
    /// What clocks may differ by, 60 s as Harbor has from 2.11 on (V7, V8).
    pub leeway: Duration,
    /// Whether a token without `kid` is tried against the one key that signs.
    pub accept_missing_kid: bool,
    /// Whether endpoints find a token's key by the header's `kid`, as plain registries do; core has one key and looks at
    /// nothing but the signature.
    pub by_name: bool,
}

/// Claims that a key of the ring has signed and that time allows. Comes from [`verify`] alone.
#[derive(Clone, Debug)]
pub struct VerifiedClaims {
    kid: Kid,
    known_as: Option<Kid>,
    claims: Claims,
    plain_audience: bool,
}

impl VerifiedClaims {
    /// The key that signed the token, by its libtrust id.
    pub fn kid(&self) -> &Kid {
        &self.kid
    }

    /// The name under which an endpoint must hold the key to accept the token as it is. `None`: it has no such name.
    pub fn known_as(&self) -> Option<&Kid> {
        self.known_as.as_ref()
    }

    /// All of them.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// The token's expiry.
    pub fn expires(&self) -> UnixTime {
        UnixTime(self.claims.exp)
    }

    /// When the token was issued.
    pub fn issued(&self) -> UnixTime {
        UnixTime(self.claims.iat)
    }

    /// From when on the token counts; `iat` where it says nothing.
    pub fn not_before(&self) -> UnixTime {
        UnixTime(self.claims.nbf.unwrap_or(self.claims.iat))
    }

    /// Who it was issued to; `None` in an anonymous token.
    pub fn subject(&self) -> Option<&str> {
        self.claims.sub.as_deref().filter(|s| !s.is_empty())
    }

    /// What it grants.
    pub fn access(&self) -> &[Access] {
        self.claims.access.as_deref().unwrap_or_default()
    }

    /// Whether `aud` is the plain string that Harbor writes.
    pub fn plain_audience(&self) -> bool {
        self.plain_audience
    }
}

/// Why a token counts as no credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Not a token at all.
    Malformed(Malformed),
    /// No `kid`, and `accept_missing_kid` is off or no single key signs.
    MissingKid,
    /// The key is Harbor's published default one (GHSA-5jw3-3rpx-7p27).
    DefaultKey,
    /// The key was retired now or banned, whatever `kid` says (A9).
    Banned,
    /// The key's time has not come.
    KeyAnnounced,
    /// The key's time is over.
    KeyRetired,
    /// The header names another algorithm than the key has.
    Algorithm,
    /// The signature is not this key's.
    Signature,
    /// `iss` is another one.
    Issuer,
    /// `aud` does not hold ours.
    Audience,
    /// Past `exp` and leeway.
    Expired,
    /// Before `nbf` less leeway.
    NotYetValid,
    /// `iat` after now and leeway.
    IssuedInFuture,
    /// `exp - iat` above the lifetime and leeway (A8).
    LivesTooLong,
    /// `iat` after its key stopped signing (A8).
    IssuedAfterKeyEnded,
    /// An operator revoked it, or all that its user was given before (A20).
    Revoked,
}

impl Fault {
    /// The reason in logs and metrics.
    pub fn reason(self) -> Reason {
        match self {
            Self::Malformed(_) => Reason::TokenMalformed,
            Self::MissingKid => Reason::TokenWithoutKid,
            Self::DefaultKey => Reason::TokenDefaultKey,
            Self::Banned => Reason::TokenKeyBanned,
            Self::KeyAnnounced => Reason::TokenKeyAnnounced,
            Self::KeyRetired => Reason::TokenKeyRetired,
            Self::Algorithm => Reason::TokenAlgorithm,
            Self::Signature => Reason::TokenSignature,
            Self::Issuer => Reason::TokenIssuer,
            Self::Audience => Reason::TokenAudience,
            Self::Expired => Reason::TokenExpired,
            Self::NotYetValid => Reason::TokenNotYetValid,
            Self::IssuedInFuture => Reason::TokenIssuedInFuture,
            Self::LivesTooLong => Reason::TokenLivesTooLong,
            Self::IssuedAfterKeyEnded => Reason::TokenIssuedAfterKeyEnded,
            Self::Revoked => Reason::TokenRevoked,
        }
    }
}

/// What a token proved to be.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// Signed by a key of the window, and in time.
    Verified(VerifiedClaims),
    /// Well formed, but no key of this name is in the ring: only an endpoint that holds it can judge.
    UnknownKey {
        /// The name that the token gives itself.
        unverified_kid: Kid,
    },
    /// Counts as no credential.
    Refused(Fault),
}

/// Judges one token against one snapshot of the ring at `now`.
pub fn verify(text: &str, ring: &Ring, rules: &Rules, now: UnixTime) -> Verdict {
    match claims::read(text) {
        Err(malformed) => Verdict::Refused(Fault::Malformed(malformed)),
        Ok(token) => judge(&token, ring, rules, now).unwrap_or_else(Verdict::Refused),
    }
}

fn judge(token: &UnverifiedToken<'_>, ring: &Ring, rules: &Rules, now: UnixTime) -> Result<Verdict, Fault> {
    let name = match (&token.unverified_kid, rules.accept_missing_kid) {
        (Some(kid), _) => kid.clone(),
        (None, true) => ring.only_signer().ok_or(Fault::MissingKid)?,
        (None, false) => return Err(Fault::MissingKid),
    };
    if Ring::default_key_named(name.as_str()) {
        return Err(Fault::DefaultKey);
    }
    let message = token.unverified_message.as_bytes();
    let Some(entry) = ring.find(name.as_str()) else {
        if ring.forbids(message, token.signature) {
            return Err(Fault::Banned);
        }
        // Only RS256 is ever Harbor's (V1); nothing else may go up unverified.
        if token.unverified_algorithm != "RS256" {
            return Err(Fault::Algorithm);
        }
        claims_fit(&token.unverified_claims, rules, now)?;
        return Ok(Verdict::UnknownKey { unverified_kid: name });
    };
    let last_signature = match entry.state(now) {
        State::Announced => return Err(Fault::KeyAnnounced),
        State::Retired => return Err(Fault::KeyRetired),
        State::Signing => None,
        State::Verifying { signed_until, .. } => Some(signed_until),
    };
    if token.unverified_algorithm != entry.key().algorithm().as_str() {
        return Err(Fault::Algorithm);
    }
    if !entry.key().verifies(message, token.signature) {
        return Err(Fault::Signature);
    }
    claims_fit(&token.unverified_claims, rules, now)?;
    let claims = token.unverified_claims.clone();
    if last_signature.is_some_and(|last| UnixTime(claims.iat) > last.plus(rules.leeway)) {
        return Err(Fault::IssuedAfterKeyEnded);
    }
    let plain_audience = matches!(claims.aud, claims::Audience::One(_));
    let kid = entry.key().kid().clone();
    let known_as = if rules.by_name { token.unverified_kid.clone() } else { Some(kid.clone()) };
    Ok(Verdict::Verified(VerifiedClaims { kid, known_as, claims, plain_audience }))
}

fn claims_fit(claims: &Claims, rules: &Rules, now: UnixTime) -> Result<(), Fault> {
    let (exp, iat) = (UnixTime(claims.exp), UnixTime(claims.iat));
    if claims.iss.as_deref() != Some(&rules.issuer) {
        return Err(Fault::Issuer);
    }
    if !claims.aud.holds(&rules.service) {
        return Err(Fault::Audience);
    }
    if exp.plus(rules.leeway) <= now {
        return Err(Fault::Expired);
    }
    if claims.nbf.is_some_and(|nbf| UnixTime(nbf).minus(rules.leeway) > now) {
        return Err(Fault::NotYetValid);
    }
    if iat.minus(rules.leeway) > now {
        return Err(Fault::IssuedInFuture);
    }
    // Both may be anywhere in i64: a difference past its ends is too long as well.
    let lives = claims.exp.checked_sub(claims.iat);
    if lives.is_none_or(|s| s > (rules.lifetime + rules.leeway).as_secs() as i64) {
        return Err(Fault::LivesTooLong);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
