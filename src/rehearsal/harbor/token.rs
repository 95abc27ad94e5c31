//! Registry tokens: how core makes them (T2, T3) and what it accepts of them (K3, V).

use std::{path::Path, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    key::{self, SigningKey},
    random,
    version::Version,
};

/// The issuer and the one audience of Harbor's registry tokens.
const ISSUER: &str = "harbor-token-issuer";
/// The token service's own name.
pub(super) const REGISTRY: &str = "harbor-registry";

/// One entry of a token's `access`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Access {
    #[serde(rename = "type", default)]
    pub(super) kind: String,
    #[serde(default)]
    pub(super) name: String,
    #[serde(default)]
    pub(super) actions: Vec<String>,
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    sub: &'a str,
    aud: &'a str,
    exp: u64,
    nbf: u64,
    iat: u64,
    jti: String,
    access: Option<&'a [Access]>,
}

/// What a token is to say.
pub(super) struct Order<'a> {
    pub(super) subject: &'a str,
    pub(super) service: &'a str,
    /// `None` where no scope was asked for (T4).
    pub(super) access: Option<&'a [Access]>,
    pub(super) now: Duration,
    pub(super) lifetime: Duration,
}

/// Signs a token with the key in the file now; `Some("")` is K8, `None` K7 and K9.
pub(super) fn issue(order: &Order<'_>, key_file: &Path, version: Version) -> Option<String> {
    let key = match key::to_sign(key_file) {
        SigningKey::Rsa(key) => key,
        SigningKey::Ec => return version.ec_key_gives_an_empty_token().then(String::new),
        SigningKey::Unusable => return None,
    };
    let iat = order.now.as_secs();
    let claims = Claims {
        iss: ISSUER,
        sub: order.subject,
        aud: order.service,
        exp: iat + order.lifetime.as_secs(),
        nbf: iat,
        iat,
        jti: random::alphanumeric(16),
        access: order.access,
    };
    let header = json!({"alg": "RS256", "kid": key::kid_of(&key)?.as_str(), "typ": "JWT"}).to_string();
    let claims = serde_json::to_string(&claims).ok()?;
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = key::sign(&key, signed.as_bytes())?;
    Some(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

/// What core takes from a token that it accepts.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) subject: String,
    pub(super) access: Vec<Access>,
    /// `iat`, for V9.
    pub(super) issued_at: Option<f64>,
}

/// Verifies a token with the key in the file now, by the rules of the version.
pub(super) fn accept(token: &str, key_file: &Path, version: Version, now: Duration) -> Option<Accepted> {
    let (signed, signature) = token.rsplit_once('.')?;
    let (header, claims) = signed.split_once('.')?;
    if claims.contains('.') {
        return None;
    }
    let header: Value = part(header)?;
    if header.get("alg").and_then(Value::as_str) != Some("RS256") {
        return None;
    }
    let key = key::to_verify(key_file)?;
    if !key::verifies(&key, signed.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).ok()?) {
        return None;
    }
    let claims: Value = part(claims)?;
    (timely(&claims, version, now)? && addressed(&claims, version)).then_some(())?;
    let access = match claims.get("access") {
        None | Some(Value::Null) => Vec::new(),
        Some(list) => serde_json::from_value(list.clone()).ok()?,
    };
    let subject = claims.get("sub").and_then(Value::as_str).unwrap_or_default().to_owned();
    Some(Accepted { subject, access, issued_at: number(&claims, "iat")? })
}

fn part(text: &str) -> Option<Value> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()
}

/// A numeric claim: `None` where it is of another type, `Some(None)` where it is absent.
#[expect(clippy::option_option, reason = "absent and of a wrong type are different answers")]
fn number(claims: &Value, name: &str) -> Option<Option<f64>> {
    match claims.get(name) {
        None | Some(Value::Null) => Some(None),
        Some(value) => value.as_f64().map(Some),
    }
}

/// V5 to V8; `None` where a time is of a wrong type.
fn timely(claims: &Value, version: Version, now: Duration) -> Option<bool> {
    let (now, leeway) = (now.as_secs_f64(), version.leeway().as_secs_f64());
    let expired = number(claims, "exp")?.is_some_and(|exp| now >= exp + leeway);
    let early = number(claims, "nbf")?.is_some_and(|nbf| now < nbf - leeway);
    let iat = number(claims, "iat")?;
    let future = version.refuses_future_iat() && iat.is_some_and(|iat| now < iat);
    let missing = version.requires_iat() && iat.is_none();
    Some(!(expired || early || future || missing))
}

/// V2 to V4.
fn addressed(claims: &Value, version: Version) -> bool {
    let audience = match claims.get("aud") {
        Some(Value::String(one)) => one == REGISTRY,
        Some(Value::Array(list)) => list.iter().any(|one| one == REGISTRY),
        _ => false,
    };
    let issuer = !version.checks_issuer() || claims.get("iss").and_then(Value::as_str) == Some(ISSUER);
    audience && issuer
}
