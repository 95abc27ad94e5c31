//! Tokens that were verified before: one RSA verification in a token's life, one signature for each held key.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use aws_lc_rs::hmac;
use http::HeaderValue;
use moka::sync::Cache;
use tokio::sync::OnceCell;

use super::{
    grace::{Graces, Granted},
    replay::Issued,
};
use crate::{
    decisions::{
        grace,
        ring::Ring,
        token::{
            claims,
            verify::{Fault, Rules, Verdict, VerifiedClaims, verify},
        },
    },
    edges::signer::{Job, Signer, SignerFault},
    flow::remembered::{self, Remembered},
    words::{clock::UnixTime, kid::Kid},
};

/// The keyed digest of a token's exact bytes. Its key lives as long as the process.
pub type Digest = [u8; 32];

/// Verified tokens in memory.
pub struct KnownTokens {
    key: hmac::Key,
    tokens: Cache<Digest, Arc<Known>>,
}

/// One verified token.
pub struct Known {
    /// See [`Digest`].
    pub digest: Digest,
    generation: u64,
    claims: VerifiedClaims,
    principal: Option<Arc<str>>,
    resigned: Mutex<Vec<Resigned>>,
    /// What it was given for, where it is a token of grace.
    grace: Option<Arc<Granted>>,
    bytes: usize,
    life: Duration,
}

/// Bytes of all verified tokens in memory together, at most.
const BYTES: u64 = 256 << 20;
/// What a token takes beside its claims.
const FRAME: usize = 512;

impl Remembered for Known {
    fn bytes(&self) -> usize {
        self.bytes
    }

    fn life(&self) -> Duration {
        self.life
    }
}

struct Resigned {
    kid: Kid,
    back: Duration,
    value: Arc<OnceCell<HeaderValue>>,
}

/// A token's verdict, kept where it is verified.
pub enum Judgement {
    /// Verified, now or before.
    Known(Arc<Known>),
    /// Of a key that the ring does not know.
    Unknown {
        /// The name that the token gives itself.
        unverified_kid: Kid,
        /// See [`Digest`].
        digest: Digest,
    },
    /// Counts as no credential.
    Refused(Fault),
    /// Our own, from while core couldn't sign (A11).
    Own(Own),
}

/// What a token of our own stands for.
pub enum Own {
    /// Nobody.
    Nobody,
    /// A credential.
    Credential(Arc<Issued>),
    /// A credential that Harbor has refused since.
    Ended,
}

impl KnownTokens {
    /// Room for `capacity` tokens, and for 256 MiB of them; an entry takes some 2 KiB.
    pub fn new(key: hmac::Key, capacity: u64) -> Self {
        Self { key, tokens: remembered::cache(capacity, BYTES) }
    }

    /// The digest of a token.
    pub fn digest(&self, token: &str) -> Digest {
        let tag = hmac::sign(&self.key, token.as_bytes());
        let mut digest = [0; 32];
        digest.copy_from_slice(tag.as_ref());
        digest
    }

    /// Judges a token, by memory where its verdict still stands. The flag says whether memory answered. A token of grace
    /// ends long after Harbor's `iat`, which it keeps (V9): for `graces` and the time they last it is known by its bytes,
    /// and nobody else's may live so long (A8). One that another
    /// process gave shows it by itself.
    pub fn judge(
        &self,
        token: &str,
        ring: &Ring,
        rules: &Rules,
        now: UnixTime,
        graces: Option<(&Graces, Duration)>,
    ) -> (Judgement, bool) {
        let digest = self.digest(token);
        if let Some(known) = self.tokens.get(&digest)
            && known.stands(ring, rules, now)
        {
            return (Judgement::Known(known), true);
        }
        let given = graces.and_then(|(graces, window)| Some((graces.given(&digest)?, window)));
        let longer = |window| Rules { lifetime: rules.lifetime + window + grace::LIFE, ..rules.clone() };
        let of_grace = given.as_ref().map(|(_, window)| longer(*window));
        let mut verdict = verify(token, ring, of_grace.as_ref().unwrap_or(rules), now);
        let mut given = given.map(|(granted, _)| granted);
        if given.is_none() {
            given = given_elsewhere(token, &verdict, graces);
            if let (Verdict::Refused(Fault::LivesTooLong), Some(_), Some((_, window))) =
                (&verdict, &given, graces)
            {
                verdict = verify(token, ring, &longer(window), now);
            }
        }
        if given.as_ref().is_some_and(|granted| granted.is_over()) {
            return (Judgement::Refused(Fault::Expired), false);
        }
        let judgement = match verdict {
            Verdict::Verified(claims) => {
                let principal = claims.subject().map(Arc::from);
                let generation = ring.generation();
                let life = claims.expires().plus(rules.leeway).since(now);
                // Its claims, and itself under another key: rarely under more than one.
                let (resigned, bytes) = (Mutex::default(), FRAME + 2 * token.len());
                let known =
                    Known { digest, generation, claims, principal, resigned, grace: given, bytes, life };
                let known = Arc::new(known);
                self.tokens.insert(digest, known.clone());
                Judgement::Known(known)
            }
            Verdict::UnknownKey { unverified_kid } => Judgement::Unknown { unverified_kid, digest },
            Verdict::Refused(fault) => Judgement::Refused(fault),
        };
        (judgement, false)
    }
}

/// What a token of grace was given for by another process, or by this one in another life; of a token without proof
/// nothing. Those that Harbor's own rules let pass end with it as well.
fn given_elsewhere(
    token: &str,
    verdict: &Verdict,
    graces: Option<(&Graces, Duration)>,
) -> Option<Arc<Granted>> {
    let (graces, _) = graces?;
    match verdict {
        Verdict::Verified(claims) => graces.proved(claims.claims()),
        Verdict::Refused(Fault::LivesTooLong) => graces.proved(&claims::read(token).ok()?.unverified_claims),
        Verdict::Refused(_) | Verdict::UnknownKey { .. } => None,
    }
}

/// Held keys that a token was signed again with, at most: endpoints hold two for a while, rarely three.
const SIGNATURES_EACH: usize = 4;

impl Known {
    /// What the token was verified to say.
    pub fn claims(&self) -> &VerifiedClaims {
        &self.claims
    }

    /// Whom the token names.
    pub fn principal(&self) -> Option<Arc<str>> {
        self.principal.clone()
    }

    /// Whether the verdict still stands: another generation of the ring must judge for itself, and a window
    /// may have ended since the ring was made.
    pub fn stands(&self, ring: &Ring, rules: &Rules, now: UnixTime) -> bool {
        self.generation == ring.generation()
            && now < self.claims.expires().plus(rules.leeway)
            && self.grace.as_ref().is_none_or(|granted| !granted.is_over())
            && ring.find(self.claims.kid().as_str()).is_some_and(|entry| entry.state(now).verifies())
    }

    /// The token under another key, as an `Authorization`; signed once, others wait for it.
    pub async fn resigned(
        &self,
        token: &str,
        ring: &Ring,
        (kid, back): (&Kid, Duration),
        audience: &Arc<str>,
        signer: &Signer,
    ) -> Result<HeaderValue, SignerFault> {
        let value = self.slot(kid, back);
        let value = value.get_or_try_init(|| async {
            let key = ring.signer(kid.as_str()).ok_or(SignerFault::NoKey)?.clone();
            let audience = (!self.claims.plain_audience()).then(|| audience.clone());
            let job = Job {
                token: token.into(),
                key,
                name: Some(kid.clone()),
                audience,
                not_before_back: back,
                again: None,
            };
            let text = signer.sign(job).await?;
            HeaderValue::try_from(format!("Bearer {text}")).map_err(|_| SignerFault::NoKey)
        });
        value.await.cloned()
    }

    /// The token under another key, where it is signed already and nobody has to wait.
    pub fn signed(&self, kid: &Kid, back: Duration) -> Option<HeaderValue> {
        let list = self.resigned.lock().unwrap_or_else(PoisonError::into_inner);
        list.iter().find(|r| r.kid == *kid && r.back == back)?.value.get().cloned()
    }

    fn slot(&self, kid: &Kid, back: Duration) -> Arc<OnceCell<HeaderValue>> {
        let mut list = self.resigned.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = list.iter().find(|r| r.kid == *kid && r.back == back) {
            return found.value.clone();
        }
        if list.len() >= SIGNATURES_EACH {
            list.remove(0);
        }
        let value = Arc::new(OnceCell::new());
        list.push(Resigned { kid: kid.clone(), back, value: value.clone() });
        value
    }
}

#[cfg(test)]
mod tests;
