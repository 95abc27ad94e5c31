//! C: challenges and answers below `/v2/`.

use std::time::Duration;

use serde_json::json;

use crate::{
    sessions::csrf_refusal,
    target::{MANIFESTS, Target, on_each, skip},
    tokens::Token,
};

const BASIC: &str = r#"Basic realm="harbor""#;

/// A token that core can't verify: the user's own, with its signature spoilt.
async fn dead_token(harbor: &Target) -> String {
    let token = harbor.user_token().await.text;
    let (signed, signature) = token.rsplit_once('.').expect("a signature");
    let spoilt: String = signature.chars().rev().collect();
    format!("{signed}.{spoilt}")
}

fn pull_refused(repository: &str) -> String {
    format!("unauthorized to access repository: {repository}, action: pull")
}

#[tokio::test]
async fn c1_the_ping_without_credential_gets_a_bearer_challenge() {
    on_each("C1", &[], async |harbor| {
        let answer = harbor.get("/v2/").send().await;
        answer.is_unauthorized("unauthorized");
        let challenge = answer.challenge();
        assert!(challenge.starts_with(r#"Bearer realm="http"#), "{challenge}");
        assert!(challenge.ends_with(r#"/service/token",service="harbor-registry""#), "{challenge}");
        assert_eq!(answer.header("content-type"), Some("application/json; charset=utf-8"));
    })
    .await;
}

#[tokio::test]
async fn c2_every_read_without_credential_is_challenged() {
    on_each("C2", &[], async |harbor| {
        let unknown = "no-such-project/x".to_owned();
        for repository in [&harbor.public.repository, &harbor.private.repository, &unknown] {
            let target = format!("/v2/{repository}/manifests/latest");
            let scope = format!(r#",scope="repository:{repository}:pull""#);
            let get = harbor.get(&target).send().await;
            get.is_unauthorized("authorize header needed to send HEAD to repository");
            assert!(get.challenge().ends_with(&scope), "{}", get.challenge());
            let head = harbor.request("HEAD", &target).send().await;
            assert_eq!((head.status, head.header("content-length")), (401, Some("152")));
            assert!(head.challenge().ends_with(&scope), "{}", head.challenge());
        }
    })
    .await;
}

#[tokio::test]
async fn c3_v2_without_its_slash_is_not_recognised() {
    on_each("C3", &[], async |harbor| {
        for request in [harbor.get("/v2"), harbor.get("/v2").basic(&harbor.admin)] {
            let answer = request.send().await;
            answer.is_unauthorized("un-recognized request: GET /v2");
            assert_eq!(answer.challenge(), "");
            assert!(answer.cookie("_gorilla_csrf").is_some());
            assert!(answer.header("x-harbor-csrf-token").is_some_and(|token| token.len() == 88));
        }
    })
    .await;
}

#[tokio::test]
async fn c4_a_dead_bearer_is_challenged_with_basic() {
    on_each("C4", &[], async |harbor| {
        let dead = dead_token(harbor).await;
        for bearer in [dead.as_str(), "garbage", ""] {
            let ping = harbor.get("/v2/").bearer(bearer).send().await;
            ping.is_unauthorized("unauthorized");
            assert_eq!(ping.challenge(), BASIC, "{bearer:?}");
            let read = harbor.get(&harbor.private.manifest()).bearer(bearer).send().await;
            read.is_unauthorized(&pull_refused(&harbor.private.repository));
            assert_eq!(read.challenge(), BASIC, "{bearer:?}");
        }
        let repository = &harbor.public.repository;
        let push = harbor.request("POST", &format!("/v2/{repository}/blobs/uploads/"));
        let push = push.bearer(&dead).body("").send().await;
        push.is_unauthorized(&format!("unauthorized to access repository: {repository}, action: push"));
        assert_eq!(push.challenge(), BASIC);
    })
    .await;
}

#[tokio::test]
async fn c5_a_dead_bearer_on_a_public_read_is_served_as_anonymous() {
    on_each("C5", &[], async |harbor| {
        let dead = dead_token(harbor).await;
        let read = harbor.get(&harbor.public.manifest()).bearer(&dead).header("Accept", MANIFESTS);
        assert_eq!(read.send().await.status, 200);
        let absent = format!("/v2/{}/never-pushed/manifests/v1", harbor.public.project);
        assert_eq!(harbor.get(&absent).bearer(&dead).send().await.status, 404);
    })
    .await;
}

#[tokio::test]
async fn c6_wrong_basic_is_refused_or_anonymous_after_a_while() {
    on_each("C6", &[], async |harbor| {
        // A name that exists nowhere is frozen as any other.
        let nobody = ("no-such-user".to_owned(), "wrong".to_owned());
        let private = harbor.get(&harbor.private.manifest()).basic(&nobody).send().await;
        private.is_unauthorized(&pull_refused(&harbor.private.repository));
        assert_eq!(private.challenge(), BASIC);
        assert!(private.took >= Duration::from_millis(1500), "after {:?}", private.took);
        let public = harbor.get(&harbor.public.manifest()).basic(&nobody).header("Accept", MANIFESTS);
        assert_eq!(public.send().await.status, 200);
    })
    .await;
}

#[tokio::test]
async fn c7_good_basic_needs_no_token() {
    on_each("C7", &[], async |harbor| {
        for credential in [&harbor.admin, &harbor.user, &harbor.robot] {
            let ping = harbor.get("/v2/").basic(credential).send().await;
            assert_eq!((ping.status, ping.text().as_str()), (200, "{}"));
            assert_eq!(ping.header("docker-distribution-api-version"), Some("registry/2.0"));
            let read = harbor.get(&harbor.private.manifest()).basic(credential);
            assert_eq!(read.header("Accept", MANIFESTS).send().await.status, 200);
        }
    })
    .await;
}

#[tokio::test]
async fn c8_an_unknown_project_has_an_empty_challenge() {
    on_each("C8", &[], async |harbor| {
        let bearer = harbor.user_token().await.text;
        let answer = harbor.get("/v2/no-such-project/x/manifests/latest").bearer(&bearer).send().await;
        answer.is_unauthorized("project no-such-project not found");
        assert_eq!(answer.challenge(), "");
    })
    .await;
}

#[tokio::test]
async fn c9_an_unknown_repository_is_not_found() {
    on_each("C9", &[], async |harbor| {
        let bearer = harbor.user_token().await.text;
        let repository = format!("{}/never-pushed", harbor.private.project);
        let answer = harbor.get(&format!("/v2/{repository}/manifests/latest")).bearer(&bearer).send().await;
        assert_eq!(answer.status, 404);
        assert_eq!(answer.error(), ("NOT_FOUND".into(), format!("repository {repository} not found")));
        assert_eq!(answer.header("docker-distribution-api-version"), None, "core's own answer");
    })
    .await;
}

#[tokio::test]
async fn c10_the_catalog_is_for_an_administrators_basic_alone() {
    on_each("C10", &[], async |harbor| {
        let token = Token::of(&harbor.token(Some(&harbor.admin), &["registry:catalog:*"]).await);
        assert_eq!(
            token.claims["access"],
            json!([{"type": "registry", "name": "catalog", "actions": ["*"]}])
        );
        for request in [harbor.get("/v2/_catalog"), harbor.get("/v2/_catalog").bearer(&token.text)] {
            let answer = request.send().await;
            answer.is_unauthorized("unauthorized to list catalog");
            assert_eq!(answer.challenge(), BASIC);
        }
        let answer = harbor.get("/v2/_catalog").basic(&harbor.admin).send().await;
        assert_eq!(answer.status, 200);
        let listed = answer.json()["repositories"].as_array().cloned().expect("a list");
        assert!(listed.contains(&json!(harbor.private.repository)), "{listed:?}");
    })
    .await;
}

#[tokio::test]
async fn c11_a_mount_from_what_the_token_does_not_cover_is_refused() {
    on_each("C11", &[], async |harbor| {
        let bearer = harbor.user_token().await.text;
        let (to, from) = (&harbor.private.repository, &harbor.public.repository);
        let digest = format!("sha256:{}", "0".repeat(64));
        let target = format!("/v2/{to}/blobs/uploads/?mount={digest}&from={from}");
        let answer = harbor.request("POST", &target).bearer(&bearer).body("").send().await;
        answer.is_unauthorized(&pull_refused(from));
        assert_eq!(answer.challenge(), BASIC);
    })
    .await;
}

#[tokio::test]
async fn c12_a_session_cookie_beside_a_bearer_brings_csrf_checks() {
    on_each("C12", &[], async |harbor| {
        let bearer = harbor.user_token().await.text;
        let target = format!("/v2/{}/blobs/uploads/", harbor.private.repository);
        let answer =
            harbor.request("POST", &target).bearer(&bearer).header("Cookie", "sid=anything").body("");
        let answer = answer.send().await;
        assert_eq!(answer.status, 403);
        assert_eq!(answer.error(), ("FORBIDDEN".into(), csrf_refusal(harbor.version).into()));
    })
    .await;
}

#[test]
fn c13_an_id_token_as_bearer() {
    skip("C13", "comes with the OIDC issue");
}

#[tokio::test]
async fn c14_a_token_without_subject_reads_what_is_public_and_no_more() {
    on_each("C14", &[], async |harbor| {
        let scope = |repository: &str| format!("repository:{repository}:pull");
        let scopes = [scope(&harbor.public.repository), scope(&harbor.private.repository)];
        let answer = harbor.token(None, &[&scopes[0], &scopes[1]]).await;
        let bearer = Token::of(&answer).text;
        assert!(!harbor.accepts(&bearer).await, "nobody's");
        let read = harbor.get(&harbor.public.manifest()).bearer(&bearer).header("Accept", MANIFESTS);
        assert_eq!(read.send().await.status, 200);
        let private = harbor.get(&harbor.private.manifest()).bearer(&bearer).send().await;
        private.is_unauthorized(&pull_refused(&harbor.private.repository));
    })
    .await;
}
