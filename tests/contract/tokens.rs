//! Tokens: asked of the target, taken apart, and made by the suite with the target's own key.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tidegate::{rehearsal::harbor::CoreKey, words::clock::Clock};

use crate::{
    client::{Answer, Request},
    target::Target,
};

/// A registry token, taken apart.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) header: Value,
    pub(crate) claims: Value,
}

impl Token {
    pub(crate) fn parse(text: &str) -> Self {
        let parts: Vec<&str> = text.split('.').collect();
        let [header, claims, _] = parts.as_slice() else { panic!("three parts, not {text:?}") };
        let part = |text: &str| {
            let bytes = URL_SAFE_NO_PAD.decode(text).expect("base64url");
            serde_json::from_slice(&bytes).expect("JSON")
        };
        Self { text: text.to_owned(), header: part(header), claims: part(claims) }
    }

    pub(crate) fn of(answer: &Answer) -> Self {
        assert_eq!(answer.status, 200, "{}", answer.text());
        Self::parse(answer.json()["token"].as_str().expect("a token"))
    }

    pub(crate) fn kid(&self) -> &str {
        self.header["kid"].as_str().expect("a kid")
    }

    /// The actions of the entry with this name, sorted.
    pub(crate) fn actions(&self, name: &str) -> Vec<String> {
        let access = self.claims["access"].as_array().expect("access");
        let entry = access.iter().find(|entry| entry["name"] == name).expect("an entry of that name");
        let mut actions: Vec<String> =
            serde_json::from_value(entry["actions"].clone()).expect("a list of actions");
        actions.sort_unstable();
        actions
    }

    /// The same claims byte for byte under another header, signed by `key`.
    pub(crate) fn signed_again(&self, header: &Value, key: &CoreKey) -> String {
        let payload = self.text.split('.').nth(1).expect("claims");
        sign(&URL_SAFE_NO_PAD.encode(header.to_string()), payload, key)
    }

    /// The token with claims changed, signed by `key`.
    pub(crate) fn with_claims(&self, change: impl FnOnce(&mut Value), key: &CoreKey) -> String {
        let mut claims = self.claims.clone();
        change(&mut claims);
        let header = URL_SAFE_NO_PAD.encode(self.header.to_string());
        sign(&header, &URL_SAFE_NO_PAD.encode(claims.to_string()), key)
    }
}

fn sign(header: &str, payload: &str, key: &CoreKey) -> String {
    let signed = format!("{header}.{payload}");
    let signature = key.sign(signed.as_bytes()).expect("a signature");
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// Takes a claim away.
pub(crate) fn without(name: &'static str) -> impl FnOnce(&mut Value) {
    move |claims| {
        claims.as_object_mut().expect("claims").remove(name);
    }
}

/// Sets a claim.
pub(crate) fn with(name: &'static str, value: Value) -> impl FnOnce(&mut Value) {
    move |claims| claims[name] = value
}

/// Seconds since 1970, moved.
pub(crate) fn in_seconds(shift: i64) -> Value {
    json!(Clock::system().now().0 + shift)
}

impl Target {
    /// `/service/token` with a credential and scopes.
    pub(crate) async fn token(&self, credential: Option<&(String, String)>, scopes: &[&str]) -> Answer {
        self.token_request(credential, scopes).send().await
    }

    /// The request for that token.
    pub(crate) fn token_request(&self, credential: Option<&(String, String)>, scopes: &[&str]) -> Request {
        let scopes: Vec<String> = scopes.iter().map(|scope| format!("&scope={scope}")).collect();
        let request = self.get(&format!("/service/token?service=harbor-registry{}", scopes.concat()));
        match credential {
            Some(credential) => request.basic(credential),
            None => request,
        }
    }

    /// The user's token for pull and push in the private repository.
    pub(crate) async fn user_token(&self) -> Token {
        let scope = format!("repository:{}:pull,push", self.private.repository);
        Token::of(&self.token(Some(&self.user), &[&scope]).await)
    }

    /// The `kid` of the key that core holds, by the probe of K11.
    pub(crate) async fn probed_kid(&self) -> String {
        Token::of(&self.token(None, &["registry:catalog:*"]).await).kid().to_owned()
    }

    /// Whether a bearer is accepted on `/v2/`.
    pub(crate) async fn accepts(&self, bearer: &str) -> bool {
        let answer = self.get("/v2/").bearer(bearer).send().await;
        match answer.status {
            200 => true,
            401 => {
                assert_eq!(answer.challenge(), r#"Basic realm="harbor""#);
                answer.is_unauthorized("unauthorized");
                false
            }
            other => panic!("{other} on /v2/: {}", answer.text()),
        }
    }
}
