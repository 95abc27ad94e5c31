//! T: `/service/token`.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidegate::rehearsal::harbor::Version;

use crate::{
    client::Answer,
    target::{MANIFESTS, Target, on_each, skip},
    tokens::Token,
};

/// A wrong password costs 1.5 s.
const FROZEN: Duration = Duration::from_millis(1500);

#[tokio::test]
async fn t1_a_good_credential_and_scope_give_a_token() {
    on_each("T1", &[], async |harbor| {
        let scope = format!("repository:{}:pull,push", harbor.private.repository);
        for credential in [&harbor.admin, &harbor.user, &harbor.robot] {
            let answer = harbor.token(Some(credential), &[&scope]).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert_eq!(answer.header("content-type"), Some("application/json; charset=utf-8"));
            let body = answer.json();
            let names: Vec<&String> = body.as_object().expect("an object").keys().collect();
            assert_eq!(names, ["token", "access_token", "expires_in", "issued_at"]);
            assert_eq!(body["access_token"], json!(""));
            assert!(body["issued_at"].as_str().expect("a time").ends_with('Z'));
            assert_eq!(Token::of(&answer).claims["sub"], json!(credential.0));
        }
        let used = harbor.token(Some(&harbor.user), &[&scope]).await;
        let read = harbor.get(&harbor.private.manifest()).bearer(&Token::of(&used).text);
        assert_eq!(read.header("Accept", MANIFESTS).send().await.status, 200);
    })
    .await;
}

#[tokio::test]
async fn t2_the_header_names_algorithm_kid_and_type() {
    on_each("T2", &[], async |harbor| {
        let header = harbor.user_token().await.header;
        let names: Vec<&String> = header.as_object().expect("an object").keys().collect();
        assert_eq!(names, ["alg", "kid", "typ"]);
        assert_eq!((&header["alg"], &header["typ"]), (&json!("RS256"), &json!("JWT")));
        let kid = header["kid"].as_str().expect("a kid");
        assert_eq!(kid.split(':').map(str::len).collect::<Vec<_>>(), [4; 12]);
    })
    .await;
}

#[tokio::test]
async fn t3_the_claims_hold_all_actions_of_the_user() {
    on_each("T3", &[], async |harbor| {
        let repository = &harbor.private.repository;
        let pull = format!("repository:{repository}:pull");
        let user = Token::of(&harbor.token(Some(&harbor.user), &[&pull]).await);
        let names: Vec<&String> = user.claims.as_object().expect("an object").keys().collect();
        assert_eq!(names, ["iss", "sub", "aud", "exp", "nbf", "iat", "jti", "access"]);
        assert_eq!(user.claims["iss"], json!("harbor-token-issuer"));
        assert_eq!(user.claims["aud"], json!("harbor-registry"));
        assert_eq!(
            user.actions(repository),
            ["pull", "push"],
            "a developer's, though pull alone was asked for"
        );
        let admin = Token::of(&harbor.token(Some(&harbor.admin), &[&pull]).await);
        let all = if harbor.version == Version::V2_8_4 {
            vec!["*", "delete", "pull", "push"]
        } else {
            vec!["delete", "pull", "push"]
        };
        assert_eq!(admin.actions(repository), all);
        let robot = Token::of(&harbor.token(Some(&harbor.robot), &[&pull]).await);
        assert_eq!(robot.claims["sub"], json!(harbor.robot.0));
        assert_eq!(robot.actions(repository), ["pull", "push"]);
    })
    .await;
}

#[tokio::test]
async fn t4_a_good_credential_without_scope_gets_no_access() {
    on_each("T4", &[], async |harbor| {
        for credential in [&harbor.admin, &harbor.user, &harbor.robot] {
            let token = Token::of(&harbor.token(Some(credential), &[]).await);
            assert_eq!(token.claims["access"], Value::Null);
            assert!(harbor.accepts(&token.text).await, "how docker login ends");
        }
    })
    .await;
}

#[tokio::test]
async fn t5_scopes_come_as_several_parameters_or_with_spaces() {
    on_each("T5", &[], async |harbor| {
        let first = format!("repository:{}:pull", harbor.private.repository);
        let second = format!("repository:{}:pull", harbor.public.repository);
        let several = harbor.token(Some(&harbor.user), &[&first, &second]).await;
        let spaced = harbor.token(Some(&harbor.user), &[&format!("{first}%20{second}")]).await;
        for token in [Token::of(&several), Token::of(&spaced)] {
            assert_eq!(token.claims["access"].as_array().map(Vec::len), Some(2));
            assert_eq!(token.actions(&harbor.private.repository), ["pull", "push"]);
            assert!(token.actions(&harbor.public.repository).contains(&"pull".to_owned()));
        }
    })
    .await;
}

/// What anonymous callers get: no subject, and what is public.
fn is_anonymous(answer: &Answer, repository: &str, actions: &[&str]) {
    let token = Token::of(answer);
    assert_eq!(token.claims.get("sub"), None, "no subject");
    assert_eq!(token.actions(repository), actions);
}

#[tokio::test]
async fn t6_no_credential_with_scope_gets_what_is_public() {
    on_each("T6", &[], async |harbor| {
        for (repository, actions) in [
            (harbor.public.repository.as_str(), &["pull"][..]),
            (harbor.private.repository.as_str(), &[]),
            ("no-such-project/x", &[]),
        ] {
            let answer = harbor.token(None, &[&format!("repository:{repository}:pull,push")]).await;
            is_anonymous(&answer, repository, actions);
        }
        let unknown_type = Token::of(&harbor.token(None, &["probe"]).await);
        assert_eq!(unknown_type.claims["access"], json!([{"type": "probe", "name": "", "actions": []}]));
    })
    .await;
}

fn is_401_and_empty(answer: &Answer) {
    assert_eq!((answer.status, answer.text().as_str()), (401, ""));
    assert_eq!(answer.header("www-authenticate"), None);
}

#[tokio::test]
async fn t7_no_credential_and_no_scope_is_refused_without_a_challenge() {
    on_each("T7", &[], async |harbor| is_401_and_empty(&harbor.token(None, &[]).await)).await;
}

#[tokio::test]
async fn t8_a_wrong_credential_with_scope_is_served_as_anonymous_after_a_while() {
    on_each("T8", &[], async |harbor| {
        let wrong = wrong_credential(harbor).await;
        let repository = harbor.private.repository.clone();
        let scope = format!("repository:{repository}:pull");
        let answer = harbor.token(Some(&wrong), &[&scope]).await;
        is_anonymous(&answer, &repository, &[]);
        assert!(answer.took >= FROZEN, "after {:?}", answer.took);
        let robot = (harbor.robot.0.clone(), "wrong".to_owned());
        let answer = harbor.token(Some(&robot), &[&scope]).await;
        is_anonymous(&answer, &repository, &[]);
        assert!(answer.took >= FROZEN, "after {:?}", answer.took);
    })
    .await;
}

#[tokio::test]
async fn t8_a_frozen_name_is_refused_even_with_the_right_password() {
    on_each("T8 (lock)", &[], async |harbor| {
        let wrong = wrong_credential(harbor).await;
        let scope = format!("repository:{}:pull", harbor.private.repository);
        let scopes = [scope.as_str()];
        let (_, during) = tokio::join!(harbor.token(Some(&wrong), &scopes), async {
            tokio::time::sleep(FROZEN / 2).await;
            harbor.token(Some(&harbor.user), &scopes).await
        });
        is_anonymous(&during, &harbor.private.repository, &[]);
        assert!(during.took < FROZEN, "at once, not after {:?}", during.took);
    })
    .await;
}

/// The user's name with a wrong password, once the name is free of former mistakes.
async fn wrong_credential(harbor: &Target) -> (String, String) {
    let since = Instant::now();
    while Token::of(&harbor.token(Some(&harbor.user), &["registry:catalog:*"]).await)
        .claims
        .get("sub")
        .is_none()
    {
        assert!(since.elapsed() < FROZEN * 4, "the name stays frozen");
        tokio::time::sleep(FROZEN / 10).await;
    }
    (harbor.user.0.clone(), "wrong".to_owned())
}

#[tokio::test]
async fn t9_a_wrong_credential_without_scope_is_refused() {
    on_each("T9", &[], async |harbor| {
        let wrong = wrong_credential(harbor).await;
        let answer = harbor.token(Some(&wrong), &[]).await;
        is_401_and_empty(&answer);
        assert!(answer.took >= FROZEN, "after {:?}", answer.took);
    })
    .await;
}

#[tokio::test]
async fn t10_an_unknown_service_is_refused_by_name() {
    on_each("T10", &[], async |harbor| {
        let scope = format!("scope=repository:{}:pull", harbor.public.repository);
        for (query, named) in [(format!("service=nope&{scope}"), "nope"), (scope.clone(), "")] {
            let answer = harbor.get(&format!("/service/token?{query}")).send().await;
            assert_eq!((answer.status, answer.text()), (400, format!("Unable to handle service: {named}")));
            assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
        }
        let notary = harbor.get(&format!("/service/token?service=harbor-notary&{scope}")).send().await;
        if harbor.version == Version::V2_8_4 {
            assert_eq!(Token::of(&notary).claims["aud"], json!("harbor-notary"));
        } else {
            assert_eq!(
                (notary.status, notary.text().as_str()),
                (400, "Unable to handle service: harbor-notary")
            );
        }
    })
    .await;
}

#[tokio::test]
async fn t11_a_registry_token_as_bearer_is_ignored() {
    on_each("T11", &[], async |harbor| {
        let token = harbor.user_token().await;
        let repository = &harbor.private.repository;
        let target = format!("/service/token?service=harbor-registry&scope=repository:{repository}:pull");
        for bearer in [token.text.as_str(), "garbage"] {
            is_anonymous(&harbor.get(&target).bearer(bearer).send().await, repository, &[]);
        }
    })
    .await;
}

#[tokio::test]
async fn t12_account_client_id_and_offline_token_are_ignored() {
    on_each("T12", &[], async |harbor| {
        let target =
            "/service/token?account=else&client_id=docker&offline_token=true&service=harbor-registry";
        let answer = harbor.get(target).basic(&harbor.user).send().await;
        assert_eq!(Token::of(&answer).claims["sub"], json!(harbor.user.0));
        assert_eq!(answer.json().get("refresh_token"), None);
    })
    .await;
}

#[test]
fn t13_an_id_token_as_bearer() {
    skip("T13", "comes with the OIDC issue");
}

#[tokio::test]
async fn t14_a_ui_session_alone_gets_the_users_token() {
    on_each("T14", &[], async |harbor| {
        let sid = harbor.log_in(&harbor.user).await;
        let scope = format!("repository:{}:pull", harbor.private.repository);
        let target = format!("/service/token?service=harbor-registry&scope={scope}");
        let answer = harbor.get(&target).header("Cookie", &format!("sid={sid}")).send().await;
        assert_eq!(Token::of(&answer).claims["sub"], json!(harbor.user.0));
        assert!(answer.cookie("_gorilla_csrf").is_some());
        assert_eq!(answer.cookie("sid"), None, "a known session is kept");
    })
    .await;
}

#[tokio::test]
async fn t15_every_answer_sets_a_session_and_carries_a_request_id() {
    on_each("T15", &[], async |harbor| {
        let scope = format!("repository:{}:pull", harbor.public.repository);
        for answer in [
            harbor.token(None, &[&scope]).await,
            harbor.token(None, &[]).await,
            harbor.token(Some(&harbor.admin), &[]).await,
            harbor.get("/service/token?service=nope").send().await,
            harbor.request("POST", "/service/token").body("").send().await,
        ] {
            let sid = answer.cookie("sid").expect("a session");
            assert!(sid.len() == 32 && sid.bytes().all(|b| b.is_ascii_hexdigit()), "{sid}");
            assert!(answer.header("x-request-id").is_some_and(|id| id.len() == 36));
            let again = harbor.get("/api/v2.0/ping").header("Cookie", &format!("sid={sid}")).send().await;
            assert_eq!(again.cookie("sid"), None, "the same session, sent back, is kept");
        }
    })
    .await;
}

#[tokio::test]
async fn t_only_get_is_served() {
    on_each("T (methods)", &[], async |harbor| {
        let target = format!(
            "/service/token?service=harbor-registry&scope=repository:{}:pull",
            harbor.public.repository
        );
        for method in ["POST", "HEAD"] {
            let answer = harbor.request(method, &target).basic(&harbor.user).body("").send().await;
            assert_eq!(answer.status, 405, "{method}");
            assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
            assert_eq!(answer.header("content-length"), Some("19"));
        }
    })
    .await;
}
