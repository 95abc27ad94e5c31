//! V: what core accepts of a token that carries the right signature.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::json;
use tidegate::rehearsal::harbor::Version;

use crate::{
    target::{MANIFESTS, Need, on_each},
    tokens::{in_seconds, with, without},
};

/// From 2.11 on core allows 60 s, knows no issuer and wants `iat`.
fn is_later(version: Version) -> bool {
    version == Version::V2_15_2
}

#[tokio::test]
async fn v1_other_algorithms_are_refused() {
    on_each("V1", &[Need::KeyFile], async |harbor| {
        let (token, key) = (harbor.user_token().await, harbor.held_key());
        for algorithm in ["RS384", "RS512", "PS256", "none", "rs256"] {
            let header = json!({"alg": algorithm, "typ": "JWT", "kid": token.kid()});
            assert!(!harbor.accepts(&token.signed_again(&header, &key)).await, "{algorithm}");
        }
        let unsigned = URL_SAFE_NO_PAD.encode(json!({"alg": "none", "typ": "JWT"}).to_string());
        let payload = token.text.split('.').nth(1).expect("claims");
        assert!(!harbor.accepts(&format!("{unsigned}.{payload}.")).await);
    })
    .await;
}

#[tokio::test]
async fn v2_the_issuer_counts_up_to_2_10() {
    on_each("V2", &[Need::KeyFile], async |harbor| {
        let (token, key) = (harbor.user_token().await, harbor.held_key());
        let expected = is_later(harbor.version);
        let other = token.with_claims(with("iss", json!("else")), &key);
        assert_eq!(harbor.accepts(&other).await, expected);
        assert_eq!(harbor.accepts(&token.with_claims(without("iss"), &key)).await, expected);
    })
    .await;
}

#[tokio::test]
async fn v3_another_audience_is_refused() {
    on_each("V3", &[Need::KeyFile], async |harbor| {
        let (token, key) = (harbor.user_token().await, harbor.held_key());
        assert!(!harbor.accepts(&token.with_claims(with("aud", json!("else")), &key)).await);
        assert!(!harbor.accepts(&token.with_claims(without("aud"), &key)).await);
    })
    .await;
}

#[tokio::test]
async fn v4_a_list_that_holds_the_audience_is_accepted() {
    on_each("V4", &[Need::KeyFile], async |harbor| {
        let (token, key) = (harbor.user_token().await, harbor.held_key());
        for list in [json!(["harbor-registry"]), json!(["else", "harbor-registry"])] {
            assert!(harbor.accepts(&token.with_claims(with("aud", list), &key)).await);
        }
    })
    .await;
}

#[tokio::test]
async fn v5_expiry_and_id_may_be_absent_and_the_subject_is_anybody() {
    on_each("V5", &[Need::KeyFile], async |harbor| {
        let (token, key) = (harbor.user_token().await, harbor.held_key());
        assert!(harbor.accepts(&token.with_claims(without("exp"), &key)).await);
        assert!(harbor.accepts(&token.with_claims(without("jti"), &key)).await);
        assert!(harbor.accepts(&token.with_claims(with("sub", json!("nobody")), &key)).await);
        assert!(!harbor.accepts(&token.with_claims(with("sub", json!("")), &key)).await, "C14");
    })
    .await;
}

#[tokio::test]
async fn v6_iat_may_be_absent_up_to_2_10() {
    on_each("V6", &[Need::KeyFile], async |harbor| {
        let (token, key) = (harbor.user_token().await, harbor.held_key());
        let without_iat = token.with_claims(without("iat"), &key);
        assert_eq!(harbor.accepts(&without_iat).await, !is_later(harbor.version));
    })
    .await;
}

#[tokio::test]
async fn v7_times_have_60_s_of_leeway_from_2_11_on() {
    on_each("V7", &[Need::KeyFile], async |harbor| {
        let (token, key) = (harbor.user_token().await, harbor.held_key());
        let later = is_later(harbor.version);
        for (claim, shift, expected) in
            [("exp", -1, later), ("exp", -70, false), ("nbf", 30, later), ("nbf", 90, false)]
        {
            let moved = token.with_claims(with(claim, in_seconds(shift)), &key);
            assert_eq!(harbor.accepts(&moved).await, expected, "{claim} {shift:+} s");
        }
    })
    .await;
}

#[tokio::test]
async fn v8_an_iat_that_lies_ahead_is_refused_up_to_2_10() {
    on_each("V8", &[Need::KeyFile], async |harbor| {
        let (token, key) = (harbor.user_token().await, harbor.held_key());
        for shift in [30, 90] {
            let moved = token.with_claims(with("iat", in_seconds(shift)), &key);
            assert_eq!(harbor.accepts(&moved).await, is_later(harbor.version), "{shift:+} s");
        }
    })
    .await;
}

#[tokio::test]
async fn v9_a_token_older_than_its_project_is_refused_by_2_15() {
    on_each("V9", &[Need::KeyFile], async |harbor| {
        let (token, key) = (harbor.user_token().await, harbor.held_key());
        let in_2020 = token.with_claims(with("iat", json!(1_577_836_800)), &key);
        let read = harbor.get(&harbor.private.manifest()).bearer(&in_2020).header("Accept", MANIFESTS);
        let answer = read.send().await;
        if is_later(harbor.version) {
            let repository = &harbor.private.repository;
            answer.is_unauthorized(&format!("unauthorized to access repository: {repository}, action: pull"));
        } else {
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
    })
    .await;
}
