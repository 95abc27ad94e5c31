//! K: the signing key.

use serde_json::{Value, json};
use tidegate::rehearsal::harbor::{KeyForm, Version};

use crate::{
    client::Answer,
    registry_double,
    target::{MANIFESTS, Need, OCI_MANIFEST, Target, on_each, sha256, skip, spare_key},
    tokens::Token,
};

#[tokio::test]
async fn k1_the_key_is_read_at_every_use() {
    on_each("K1", &[Need::KeyFile], async |harbor| {
        let token = harbor.user_token().await;
        assert!(harbor.accepts(&token.text).await);
        spare_key(1).overwrite(harbor.key_file(), KeyForm::Pkcs1).expect("replaced in place");
        assert_eq!(harbor.probed_kid().await, spare_key(1).kid().as_str());
        assert!(!harbor.accepts(&token.text).await, "a token of the former key");
        spare_key(2).rename_into(harbor.key_file(), KeyForm::Pkcs1).expect("replaced by rename");
        assert_eq!(harbor.probed_kid().await, spare_key(2).kid().as_str());
        assert!(harbor.accepts(&harbor.user_token().await.text).await);
    })
    .await;
}

#[tokio::test]
async fn k2_the_kid_is_the_libtrust_id_of_the_public_half() {
    skip("K2's vector", "the key that it was made of isn't among the recordings");
    on_each("K2", &[Need::KeyFile], async |harbor| {
        assert_eq!(harbor.user_token().await.kid(), harbor.held_key().kid().as_str());
    })
    .await;
}

#[tokio::test]
async fn k3_the_header_is_ignored_but_for_its_algorithm() {
    on_each("K3", &[Need::KeyFile], async |harbor| {
        let (token, key) = (harbor.user_token().await, harbor.held_key());
        for header in [
            json!({"alg": "RS256", "typ": "JWT"}),
            json!({"alg": "RS256", "typ": "JWT", "kid": "junk"}),
            json!({"alg": "RS256", "typ": "JWT", "kid": spare_key(1).kid().as_str()}),
            json!({"alg": "RS256", "typ": "JWT", "kid": 7}),
            json!({"alg": "RS256"}),
            json!({"alg": "RS256", "typ": "JWT", "x5c": ["junk"]}),
            json!({"alg": "RS256", "typ": "JWT", "crit": ["unknown"]}),
        ] {
            assert!(harbor.accepts(&token.signed_again(&header, &key)).await, "{header}");
        }
        let extra = token.with_claims(|claims| claims["extra"] = json!("claim"), &key);
        assert!(harbor.accepts(&extra).await);
    })
    .await;
}

#[tokio::test]
async fn k4_same_claims_signed_with_the_held_key_are_accepted() {
    on_each("K4", &[Need::KeyFile], async |harbor| {
        let token = harbor.user_token().await;
        let foreign = token.signed_again(&token.header, spare_key(1));
        refused_everywhere(harbor, &foreign).await;
        spare_key(1).overwrite(harbor.key_file(), KeyForm::Pkcs1).expect("replaced in place");
        refused_everywhere(harbor, &token.text).await;
        let mut header = token.header.clone();
        served_everywhere(harbor, &token.signed_again(&header, spare_key(1))).await;
        header["kid"] = json!(spare_key(1).kid().as_str());
        served_everywhere(harbor, &token.signed_again(&header, spare_key(1))).await;
    })
    .await;
}

async fn refused_everywhere(harbor: &Target, bearer: &str) {
    assert!(!harbor.accepts(bearer).await);
    let repository = &harbor.private.repository;
    let read = harbor.get(&harbor.private.manifest()).bearer(bearer).send().await;
    read.is_unauthorized(&format!("unauthorized to access repository: {repository}, action: pull"));
    let target = format!("/v2/{repository}/blobs/uploads/");
    let write = harbor.request("POST", &target).bearer(bearer).body("").send().await;
    write.is_unauthorized(&format!("unauthorized to access repository: {repository}, action: push"));
}

async fn served_everywhere(harbor: &Target, bearer: &str) {
    assert!(harbor.accepts(bearer).await);
    let read = harbor.get(&harbor.private.manifest()).bearer(bearer).header("Accept", MANIFESTS);
    let read = read.send().await;
    assert_eq!(read.status, 200, "{}", read.text());
    let target = format!("/v2/{}/blobs/uploads/", harbor.private.repository);
    let write = harbor.request("POST", &target).bearer(bearer).body("").send().await;
    assert_eq!(write.status, 202, "{}", write.text());
}

#[tokio::test]
async fn k5_the_registry_behind_core_sees_basic() {
    on_each("K5", &[Need::StandIn], async |harbor| {
        let seen = registry_double::request_behind_a_core(harbor.version).await;
        let authorization = seen.lines().find(|line| line.starts_with("Authorization:"));
        assert_eq!(authorization, Some("Authorization: Basic dXNlcjpwYXNzd29yZA=="));
        assert!(seen.starts_with("GET /v2/priv/small/blobs/sha256:00 HTTP/1.1\r\n"), "{seen}");
    })
    .await;
}

#[tokio::test]
async fn k6_a_token_lives_as_long_as_its_answer_says() {
    on_each("K6", &[], async |harbor| {
        let answer = harbor.token(Some(&harbor.user), &[]).await;
        let (lifetime, token) = (answer.json()["expires_in"].clone(), Token::of(&answer));
        let time = |name: &str| token.claims[name].as_i64().expect("a time");
        assert_eq!(json!(time("exp") - time("iat")), lifetime);
        assert_eq!(time("nbf"), time("iat"));
    })
    .await;
}

/// What core does with a key file that it can't sign with: tokens fail, Basic goes on.
async fn tokens_fail_and_basic_goes_on(harbor: &Target, token_answer: impl Fn(&Answer)) {
    for credential in [None, Some(&harbor.admin)] {
        let scope = format!("repository:{}:pull", harbor.public.repository);
        token_answer(&harbor.token(credential, &[&scope]).await);
    }
    let unscoped = harbor.token(None, &[]).await;
    assert_eq!((unscoped.status, unscoped.body.len()), (401, 0));
    let anonymous = harbor.get("/v2/").send().await;
    assert!(anonymous.challenge().starts_with("Bearer realm="), "{}", anonymous.challenge());
    assert_eq!(harbor.get("/v2/").basic(&harbor.admin).send().await.status, 200);
}

fn is_500_and_empty(answer: &Answer) {
    assert_eq!((answer.status, answer.text().as_str()), (500, ""));
}

#[tokio::test]
async fn k7_a_pkcs8_key_verifies_and_does_not_sign() {
    on_each("K7", &[Need::KeyFile], async |harbor| {
        let token = harbor.user_token().await;
        harbor.held_key().overwrite(harbor.key_file(), KeyForm::Pkcs8).expect("written");
        tokens_fail_and_basic_goes_on(harbor, is_500_and_empty).await;
        assert!(harbor.accepts(&token.text).await, "the same key in another form still verifies");
        spare_key(1).overwrite(harbor.key_file(), KeyForm::Pkcs8).expect("written");
        assert!(!harbor.accepts(&token.text).await);
    })
    .await;
}

#[tokio::test]
async fn k8_an_ec_key_gives_an_empty_token_or_none() {
    on_each("K8", &[Need::KeyFile], async |harbor| {
        let token = harbor.user_token().await;
        spare_key(1).overwrite(harbor.key_file(), KeyForm::Ec).expect("written");
        let empty = harbor.version < Version::V2_15_2;
        tokens_fail_and_basic_goes_on(harbor, |answer| {
            if empty {
                assert_eq!(answer.status, 200);
                assert_eq!(answer.json()["token"], json!(""));
            } else {
                is_500_and_empty(answer);
            }
        })
        .await;
        assert!(!harbor.accepts(&token.text).await);
    })
    .await;
}

#[tokio::test]
async fn k9_without_a_usable_key_no_token_is_made_and_none_accepted() {
    on_each("K9", &[Need::KeyFile], async |harbor| {
        let token = harbor.user_token().await;
        let key = harbor.held_key();
        for form in [KeyForm::Empty, KeyForm::Garbage, KeyForm::HalfWritten, KeyForm::Public] {
            key.overwrite(harbor.key_file(), form).expect("written");
            tokens_fail_and_basic_goes_on(harbor, is_500_and_empty).await;
            assert!(!harbor.accepts(&token.text).await, "{form:?}");
        }
        std::fs::remove_file(harbor.key_file()).expect("removed");
        tokens_fail_and_basic_goes_on(harbor, is_500_and_empty).await;
        assert!(!harbor.accepts(&token.text).await, "missing");
    })
    .await;
}

#[tokio::test]
async fn k10_what_follows_a_pkcs1_key_is_not_read() {
    on_each("K10", &[Need::KeyFile], async |harbor| {
        let (token, key) = (harbor.user_token().await, harbor.held_key());
        key.overwrite(harbor.key_file(), KeyForm::Pkcs1AndMore).expect("written");
        assert!(harbor.accepts(&token.text).await);
        assert_eq!(harbor.probed_kid().await, key.kid().as_str());
    })
    .await;
}

#[tokio::test]
async fn k11_an_anonymous_catalog_token_names_the_held_key() {
    on_each("K11", &[], async |harbor| {
        let token = Token::of(&harbor.token(None, &["registry:catalog:*"]).await);
        assert_eq!(token.claims["access"], json!([{"type": "registry", "name": "catalog", "actions": []}]));
        assert_eq!(token.claims.get("sub"), None::<&Value>);
        assert_eq!(token.kid(), harbor.user_token().await.kid());
    })
    .await;
}

#[tokio::test]
async fn k12_with_the_key_missing_a_push_by_basic_works() {
    on_each("K12", &[Need::KeyFile], async |harbor| {
        std::fs::remove_file(harbor.key_file()).expect("removed");
        let repository = format!("{}/k12", harbor.private.project);
        let location = harbor.open_upload(&repository).await;
        let patch = harbor.request("PATCH", &location).basic(&harbor.admin).body("{}").send().await;
        assert_eq!(patch.status, 202, "{}", patch.text());
        let location = crate::target::path_of(patch.header("location").expect("a location"));
        let digest = sha256(b"{}");
        let put = harbor.request("PUT", &format!("{location}&digest={digest}")).basic(&harbor.admin);
        assert_eq!(put.body("").send().await.status, 201);
        let manifest = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": [],
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest, "size": 2}});
        let put = harbor.request("PUT", &format!("/v2/{repository}/manifests/v1")).basic(&harbor.admin);
        let put = put.header("Content-Type", OCI_MANIFEST).body(manifest.to_string()).send().await;
        assert_eq!(put.status, 201, "{}", put.text());

        let read = |image: &str| harbor.get(image).bearer("means.no.thing").header("Accept", MANIFESTS);
        assert_eq!(read(&harbor.public.manifest()).send().await.status, 200);
        let private = read(&harbor.private.manifest()).send().await;
        assert_eq!((private.status, private.challenge()), (401, r#"Basic realm="harbor""#));
    })
    .await;
}
