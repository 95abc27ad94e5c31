//! The ring as others may read it.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::{Entry, Ring};
use crate::{
    decisions::key::{Algorithm, Key},
    words::{clock::UnixTime, kid::Kid},
};

impl Ring {
    /// The public halves of the keys that verify at `now`, as a JWKS (RFC 7517): each under all its names, as
    /// tokens for Harbor name it by its libtrust id, tokens for distribution 3 by its thumbprint, others by its alias.
    /// Announced keys are left out: whoever reads this would let them verify.
    pub fn jwks(&self, now: UnixTime) -> String {
        json!({ "keys": self.jwks_members(now) }).to_string()
    }

    /// The members of that set.
    pub fn jwks_members(&self, now: UnixTime) -> Vec<Value> {
        let keys = self.verifying(now).flat_map(|entry| {
            let key = entry.key();
            let names = [key.kid(), key.thumbprint()].into_iter().chain(&entry.aliases);
            names.map(|name| member(key, name)).collect::<Vec<_>>()
        });
        keys.collect()
    }

    /// The same keys as certificates for `rootcertbundle` of distribution, which makes their names itself: 2.8 libtrust
    /// ids, 3 thumbprints. The text around them names both.
    pub fn bundle(&self, now: UnixTime) -> String {
        let part = |entry: &Entry| {
            let key = entry.key();
            format!("{}\n{}\n{}", key.kid(), key.thumbprint(), key.certificate_pem())
        };
        self.verifying(now).map(part).collect::<Vec<_>>().join("\n")
    }

    fn verifying(&self, now: UnixTime) -> impl Iterator<Item = &Entry> {
        self.entries().filter(move |entry| entry.state(now).verifies())
    }
}

fn member(key: &Key, name: &Kid) -> Value {
    let (first, second) = key.numbers();
    let (first, second) = (URL_SAFE_NO_PAD.encode(first), URL_SAFE_NO_PAD.encode(second));
    let (kid, alg) = (name.as_str(), key.algorithm().as_str());
    match key.algorithm() {
        Algorithm::Rs256 => {
            json!({ "kty": "RSA", "use": "sig", "alg": alg, "kid": kid, "n": first, "e": second })
        }
        Algorithm::Es256 => {
            json!({ "kty": "EC", "use": "sig", "alg": alg, "kid": kid, "crv": "P-256", "x": first, "y": second })
        }
    }
}
