//! D: what core answers while PostgreSQL or Redis is down, and how its health tells of it (F3).

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};
use tidegate::rehearsal::harbor::{Health, Version};

use crate::{
    client::{Answer, Request, Wire},
    parts::{DATABASE_HANGS, DATABASE_REFUSES, REDIS_HANGS, REDIS_IS_EMPTIED, REDIS_REFUSES},
    target::{Image, MANIFESTS, Target, on_each},
    tokens::Token,
};

/// A core freezes a name that long after a wrong password.
const FROZEN: Duration = Duration::from_millis(1500);
/// What is silent for that long hangs: core's slowest answer of its own is a wrong password's.
const A_WHILE: Duration = Duration::from_secs(2);
/// What a test waits beyond the time that a line names.
const SLACK: Duration = Duration::from_secs(15);

const HEALTH: &str = "/api/v2.0/health";
const SYSTEM_INFO: &str = "/api/v2.0/systeminfo";

fn manifest(harbor: &Target) -> Request {
    harbor.get(&harbor.private.manifest()).header("Accept", MANIFESTS)
}

fn probe(harbor: &Target) -> Request {
    harbor.token_request(None, &["registry:catalog:*"])
}

fn pull_token(harbor: &Target, image: &Image, credential: Option<&(String, String)>) -> Request {
    harbor.token_request(credential, &[&format!("repository:{}:pull", image.repository)])
}

fn open_upload(harbor: &Target) -> Request {
    harbor.request("POST", &format!("/v2/{}/blobs/uploads/", harbor.private.repository)).body("")
}

/// A token without subject that grants nothing.
fn is_nobodys(answer: &Answer) {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let claims = Token::of(answer).claims;
    assert_eq!((claims.get("sub"), &claims["access"][0]["actions"]), (None, &json!([])));
}

/// What `/health` says of a component.
async fn component(harbor: &Target, name: &str) -> Value {
    let answer = harbor.get(HEALTH).send().await;
    assert_eq!(answer.status, 200, "whatever it says");
    let components = answer.json()["components"].as_array().cloned().expect("components");
    components.into_iter().find(|component| component["name"] == name).expect("the component")
}

/// Asks for a component's health until it is this.
async fn becomes(harbor: &Target, name: &str, status: &str) -> Value {
    let (began, patience) = (Instant::now(), harbor.outage_times().health_check + SLACK);
    loop {
        let found = component(harbor, name).await;
        if found["status"] == status {
            return found;
        }
        assert!(began.elapsed() < patience, "not {status} within {patience:?}: {found}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn d1_without_database_much_looks_healthy() {
    on_each("D1 (healthy)", &[DATABASE_REFUSES], async |harbor| {
        let bearer = harbor.user_token().await;
        harbor.database(Health::Refusing).await;
        let ping = harbor.get("/v2/").bearer(&bearer.text).send().await;
        assert_eq!((ping.status, ping.text().as_str()), (200, "{}"));
        let anonymous = harbor.get("/v2/").send().await;
        anonymous.is_unauthorized("unauthorized");
        assert!(anonymous.challenge().starts_with("Bearer realm="), "{}", anonymous.challenge());
        let dead = harbor.get("/v2/").bearer("means.no.thing").send().await;
        assert_eq!((dead.status, dead.challenge()), (401, r#"Basic realm="harbor""#));
        assert_eq!(harbor.get("/api/v2.0/ping").send().await.text(), "Pong");
        let read = harbor.get(&harbor.public.manifest()).send().await;
        assert!(read.challenge().contains("scope="), "C2 asks for nothing: {}", read.challenge());

        assert_eq!(Token::of(&probe(harbor).send().await).kid(), bearer.kid(), "K11");
        is_nobodys(&pull_token(harbor, &harbor.public, None).send().await);
        let unscoped = harbor.token(None, &[]).await;
        assert_eq!((unscoped.status, unscoped.body.len()), (401, 0));
    })
    .await;
}

#[tokio::test]
async fn d1_without_database_a_good_credential_looks_wrong() {
    on_each("D1 (credentials)", &[DATABASE_REFUSES], async |harbor| {
        harbor.database(Health::Refusing).await;
        for credential in [&harbor.admin, &harbor.user, &harbor.robot] {
            is_nobodys(&pull_token(harbor, &harbor.private, Some(credential)).send().await);
            let unscoped = harbor.token(Some(credential), &[]).await;
            assert_eq!((unscoped.status, unscoped.body.len()), (401, 0), "docker login fails");
            let ping = harbor.get("/v2/").basic(credential).send().await;
            ping.is_unauthorized("unauthorized");
            assert_eq!(ping.challenge(), r#"Basic realm="harbor""#);
            assert!(ping.took < FROZEN, "no password was wrong, and none is frozen");
        }
        harbor.database(Health::Up).await;
        assert_eq!(harbor.get("/v2/").basic(&harbor.user).send().await.status, 200);
    })
    .await;
}

#[tokio::test]
async fn d1_without_database_a_repository_is_refused_with_an_empty_challenge() {
    on_each("D1 (repositories)", &[DATABASE_REFUSES], async |harbor| {
        let good = harbor.user_token().await.text;
        harbor.database(Health::Refusing).await;
        for read in [manifest(harbor).bearer(&good), manifest(harbor).bearer("means.no.thing")] {
            let answer = read.send().await;
            assert_eq!((answer.status, answer.challenge()), (401, ""));
            let (code, message) = answer.error();
            assert_eq!(code, "UNAUTHORIZED");
            assert!(message.starts_with("failed to connect to `"), "{message}");
            assert!(message.contains("user=postgres") && message.contains("dial"), "{message}");
        }
        let upload = open_upload(harbor).bearer(&good).send().await;
        assert_eq!(upload.status, 500, "{}", upload.text());
        assert_eq!(upload.error(), ("UNKNOWN".into(), "internal server error".into()));
        assert_eq!(upload.cookie("sid"), None, "nothing of the answer is left");

        harbor.database(Health::Up).await;
        assert_eq!(manifest(harbor).bearer(&good).send().await.status, 200);
        assert_eq!(open_upload(harbor).bearer(&good).send().await.status, 202);
    })
    .await;
}

#[tokio::test]
async fn d1_without_database_the_system_info_lasts_as_long_as_cores_copy() {
    on_each("D1 (systeminfo)", &[DATABASE_REFUSES], async |harbor| {
        let fresh = harbor.get(SYSTEM_INFO).send().await;
        assert_eq!(fresh.status, 200);
        let (began, times) = (Instant::now(), harbor.outage_times());
        harbor.database(Health::Refusing).await;
        loop {
            let answer = harbor.get(SYSTEM_INFO).send().await;
            if answer.status == 500 {
                break;
            }
            assert_eq!((answer.status, answer.text()), (200, fresh.text()));
            assert!(began.elapsed() < times.configuration + SLACK, "it doesn't end");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        harbor.database(Health::Up).await;
        assert_eq!(harbor.get(SYSTEM_INFO).send().await.status, 200);
    })
    .await;
}

#[tokio::test]
async fn f3_health_names_a_database_that_refuses_after_a_while() {
    on_each("F3 (database)", &[DATABASE_REFUSES], async |harbor| {
        becomes(harbor, "database", "healthy").await;
        let down = Instant::now();
        harbor.database(Health::Refusing).await;
        let at_once = component(harbor, "database").await;
        if harbor.stand_in.is_some() && down.elapsed() < harbor.outage_times().health_check {
            assert_eq!(at_once["status"], "healthy", "the last look was before");
        }
        let dead = becomes(harbor, "database", "unhealthy").await;
        let error = dead["error"].as_str().unwrap_or_default();
        assert!(error.starts_with("failed to run SQL \"SELECT 1\": failed to connect to `"), "{dead}");
        assert_eq!(harbor.get(HEALTH).send().await.json()["status"], "unhealthy");
        harbor.database(Health::Up).await;
        becomes(harbor, "database", "healthy").await;
    })
    .await;
}

/// Sends each request on a connection of its own; none is answered for a while.
async fn all_hang(requests: Vec<Request>) -> Vec<Wire> {
    let hang = async |request: Request| {
        let mut wire = Wire::connect(request.address()).await;
        wire.write(&request.bytes()).await.expect("a small request");
        assert!(wire.is_silent_for(A_WHILE).await, "{request:?} is answered");
        wire
    };
    join_all(requests.into_iter().map(hang)).await
}

async fn statuses(wires: Vec<Wire>) -> Vec<u16> {
    let status = async |mut wire: Wire| wire.answer(false).await.expect("an answer").status;
    join_all(wires.into_iter().map(status)).await
}

#[tokio::test]
async fn d2_with_a_database_that_hangs_so_does_what_needs_it() {
    on_each("D2", &[DATABASE_HANGS], async |harbor| {
        let bearer = harbor.user_token().await;
        harbor.database(Health::Hanging).await;
        let hanging = all_hang(vec![
            harbor.get("/v2/").basic(&harbor.admin),
            pull_token(harbor, &harbor.public, None),
            pull_token(harbor, &harbor.private, Some(&harbor.admin)),
            pull_token(harbor, &harbor.private, Some(&harbor.robot)),
            manifest(harbor).bearer(&bearer.text),
            manifest(harbor).bearer("means.no.thing"),
            open_upload(harbor).bearer(&bearer.text),
        ]);
        let answered = async {
            assert_eq!(harbor.get("/v2/").bearer(&bearer.text).send().await.status, 200);
            assert_eq!(harbor.get("/v2/").bearer("means.no.thing").send().await.status, 401);
            assert_eq!(harbor.get("/v2/").send().await.status, 401);
            assert_eq!(harbor.token(None, &[]).await.status, 401);
            assert_eq!(Token::of(&probe(harbor).send().await).kid(), bearer.kid(), "K11");
            assert_eq!(harbor.get("/api/v2.0/ping").send().await.text(), "Pong");
            assert_eq!(harbor.get(HEALTH).send().await.status, 200);
            assert_eq!(harbor.get(SYSTEM_INFO).send().await.status, 200);
        };
        let (hanging, ()) = tokio::join!(hanging, answered);
        harbor.database(Health::Up).await;
        assert_eq!(statuses(hanging).await, [200, 200, 200, 200, 200, 401, 202]);
    })
    .await;
}

#[tokio::test]
async fn d3_without_redis_core_is_slow_or_says_503() {
    on_each("D3", &[REDIS_REFUSES], async |harbor| {
        let bearer = harbor.user_token().await;
        harbor.redis(Health::Refusing).await;
        let requests = [
            (200, harbor.get("/api/v2.0/ping")),
            (401, harbor.get("/v2/")),
            (200, harbor.get("/v2/").bearer(&bearer.text)),
            (200, harbor.get("/v2/").basic(&harbor.admin)),
            (200, probe(harbor)),
            (200, pull_token(harbor, &harbor.private, Some(&harbor.admin))),
            (200, pull_token(harbor, &harbor.private, Some(&harbor.robot))),
            (200, manifest(harbor).bearer(&bearer.text)),
            (202, open_upload(harbor).bearer(&bearer.text)),
            (200, harbor.get(HEALTH)),
            (200, harbor.get(SYSTEM_INFO)),
        ];
        let ask = async |(status, request): (u16, Request)| {
            let answer = request.clone().send().await;
            assert!(answer.took >= Duration::from_millis(50), "{request:?} after {:?}", answer.took);
            assert!(answer.took < Duration::from_secs(10), "{request:?} after {:?}", answer.took);
            if harbor.version == Version::V2_8_4 {
                assert_eq!(answer.status, 503, "{request:?}");
                assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"));
                assert!(answer.text().contains("<title>Service Unavailable</title>"), "{}", answer.text());
                assert_eq!(answer.cookie("sid"), None);
            } else {
                assert_eq!(answer.status, status, "{request:?}: {}", answer.text());
                assert!(answer.cookie("sid").is_some(), "a session that nobody keeps");
            }
        };
        join_all(requests.map(ask)).await;
        harbor.redis(Health::Up).await;
        let answer = harbor.get("/api/v2.0/ping").send().await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "Pong"));
    })
    .await;
}

#[tokio::test]
async fn d4_with_a_redis_that_hangs_so_does_everything() {
    on_each("D4", &[REDIS_HANGS], async |harbor| {
        let bearer = harbor.user_token().await;
        let one_use = harbor.outage_times().redis_use;
        harbor.redis(Health::Hanging).await;
        let hanging = all_hang(vec![
            harbor.get("/v2/"),
            harbor.get("/v2/").basic(&harbor.admin),
            probe(harbor),
            harbor.token_request(None, &[]),
            pull_token(harbor, &harbor.private, Some(&harbor.robot)),
            manifest(harbor).bearer(&bearer.text),
            open_upload(harbor).bearer(&bearer.text),
            harbor.get(HEALTH),
            harbor.get(SYSTEM_INFO),
        ]);
        // It asks Redis once, or twice, and then does without.
        let ping = harbor.get("/api/v2.0/ping").send();
        let (hanging, ping) = tokio::join!(hanging, ping);
        let expected = if harbor.version == Version::V2_8_4 { 503 } else { 200 };
        assert_eq!(ping.status, expected);
        assert!(ping.took >= one_use, "after {:?}", ping.took);
        harbor.redis(Health::Up).await;
        assert_eq!(statuses(hanging).await, [401, 200, 200, 401, 200, 200, 202, 200, 200]);
    })
    .await;
}

#[tokio::test]
async fn d5_an_empty_redis_logs_out_of_the_ui_and_nothing_more() {
    on_each("D5", &[REDIS_IS_EMPTIED], async |harbor| {
        let bearer = harbor.user_token().await;
        let cookie = format!("sid={}", harbor.log_in(&harbor.user).await);
        let current = harbor.get("/api/v2.0/users/current").header("Cookie", &cookie);
        assert_eq!(current.clone().send().await.status, 200);
        harbor.empty_redis().await;
        let logged_out = current.send().await;
        assert_eq!(logged_out.status, 401);
        assert!(logged_out.cookie("sid").is_some(), "an unknown session is replaced (S1)");
        assert!(harbor.accepts(&bearer.text).await);
        assert_eq!(manifest(harbor).bearer(&bearer.text).send().await.status, 200);
        for credential in [&harbor.admin, &harbor.user, &harbor.robot] {
            assert_eq!(harbor.get("/v2/").basic(credential).send().await.status, 200);
        }
    })
    .await;
}
