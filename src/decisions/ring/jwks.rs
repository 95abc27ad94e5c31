//! The ring as others may read it.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::Ring;
use crate::{
    decisions::key::{Algorithm, Key},
    words::clock::UnixTime,
};

impl Ring {
    /// The public halves of the keys that verify at `now`, as a JWKS (RFC 7517) with libtrust ids, for
    /// `/.tidegate/jwks.json`. Announced keys are left out: whoever reads this would let them verify.
    pub fn jwks(&self, now: UnixTime) -> String {
        let keys = self.entries().filter(|entry| entry.state(now).verifies());
        let keys: Vec<Value> = keys.map(|entry| member(entry.key())).collect();
        json!({ "keys": keys }).to_string()
    }
}

fn member(key: &Key) -> Value {
    let (first, second) = key.numbers();
    let (first, second) = (URL_SAFE_NO_PAD.encode(first), URL_SAFE_NO_PAD.encode(second));
    let (kid, alg) = (key.kid().as_str(), key.algorithm().as_str());
    match key.algorithm() {
        Algorithm::Rs256 => {
            json!({ "kty": "RSA", "use": "sig", "alg": alg, "kid": kid, "n": first, "e": second })
        }
        Algorithm::Es256 => {
            json!({ "kty": "EC", "use": "sig", "alg": alg, "kid": kid, "crv": "P-256", "x": first, "y": second })
        }
    }
}
