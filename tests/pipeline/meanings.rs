//! Refusals keep their meaning: status, challenge and body are those of core itself (C1 to C14).

use crate::{
    stage::{
        ADMIN, DEV, MANIFEST, PUBLIC_MANIFEST, Replica, SCOPE, Setup, Stage, ask_token, hold, pull, token,
    },
    talk::{Answer, Ask},
};
use tidegate::rehearsal::harbor::Version;

type Rows = Vec<(&'static str, u16, Ask)>;

fn push_to(project: &str) -> Ask {
    Ask::new("POST", &format!("/v2/{project}/x/blobs/uploads/")).body("")
}

fn without_credential() -> Rows {
    vec![
        ("C1", 401, Ask::get("/v2/")),
        ("C2 private", 401, pull(MANIFEST)),
        ("C2 public", 401, pull(PUBLIC_MANIFEST)),
        ("C2 HEAD", 401, Ask::new("HEAD", MANIFEST)),
        ("C3", 401, Ask::get("/v2")),
        ("C10 anonymous", 401, Ask::get("/v2/_catalog")),
    ]
}

fn with_a_dead_token(what: &'static str, token: &str) -> Rows {
    let rows = [
        (401, Ask::get("/v2/")),
        (401, pull(MANIFEST)),
        (401, Ask::new("HEAD", MANIFEST)),
        (200, pull(PUBLIC_MANIFEST)),
        (404, pull("/v2/library/nothing/manifests/v1")),
        (401, push_to("priv")),
        (401, push_to("library")),
        (401, Ask::get("/v2/_catalog")),
    ];
    rows.into_iter().map(|(status, ask)| (what, status, ask.bearer(token))).collect()
}

fn with_a_good_token(core: &Replica) -> Rows {
    let (good, admin) = (token(core.address, DEV, SCOPE), token(core.address, ADMIN, "registry:catalog:*"));
    let nobody = ask_token("repository:library/seed:pull").at(core.address).token();
    let mount = "/v2/priv/seed/blobs/uploads/?mount=sha256:00&from=library/seed";
    vec![
        ("C8", 401, pull("/v2/nowhere/x/manifests/v1").bearer(&good)),
        ("C9", 404, pull("/v2/priv/nothing/manifests/v1").bearer(&good)),
        ("C10 bearer", 401, Ask::get("/v2/_catalog").bearer(&admin)),
        ("C11", 401, Ask::new("POST", mount).body("").bearer(&good)),
        ("beyond its access", 401, push_to("library").bearer(&good)),
        ("C14", 401, Ask::get("/v2/").bearer(&nobody)),
        ("C14 private", 401, pull(MANIFEST).bearer(&nobody)),
        ("C14 public", 200, pull(PUBLIC_MANIFEST).bearer(&nobody)),
    ]
}

#[test]
fn what_core_refuses_it_refuses_in_the_same_words_through_us() {
    for version in Version::ALL {
        let stage = Stage::new();
        let core = stage.replica("core", |options| options.version = version);
        core.seed();
        let stranger = stage.replica("stranger", |_| {});
        hold(&stranger.key_file, 2);
        let gate = Setup::before(&[&core], &[&core.key_file]).start();
        let rows = [
            without_credential(),
            with_a_dead_token("garbage", "a.b.c"),
            with_a_dead_token("empty", ""),
            with_a_dead_token("of an unknown key", &token(stranger.address, DEV, SCOPE)),
            with_a_good_token(&core),
        ];
        for (what, status, ask) in rows.into_iter().flatten() {
            let (direct, through) = (ask.at(core.address), ask.at(gate.address));
            assert_eq!(direct.status, status, "{version} {what} directly: {ask:?}");
            assert_eq!(meaning(&through), meaning(&direct), "{version} {what}: {ask:?}\n{}", gate.tail());
        }
    }
}

fn meaning(answer: &Answer) -> (u16, Vec<String>, String, Option<String>) {
    let challenges = answer.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("www-authenticate"));
    let challenges = challenges.map(|(_, value)| value.clone()).collect();
    let version = answer.header("docker-distribution-api-version").map(str::to_owned);
    (answer.status, challenges, answer.text(), version)
}

#[test]
fn good_basic_is_served_without_a_token_and_brings_no_cookie_down() {
    let stage = Stage::new();
    let core = stage.replica("core", |_| {});
    core.seed();
    let gate = Setup::before(&[&core], &[&core.key_file]).start();
    assert!(pull(MANIFEST).basic(DEV).at(core.address).header("set-cookie").is_some(), "directly");
    for ask in [pull(MANIFEST).basic(DEV), Ask::get("/v2/"), ask_token(SCOPE).basic(DEV)] {
        let answer = ask.clone().header("Cookie", "sid=0123").at(gate.address);
        assert!(answer.status == 200 || answer.status == 401);
        assert_eq!(answer.header("set-cookie"), None, "A1: {ask:?}");
        assert_eq!(answer.header("x-harbor-csrf-token"), None, "A1: {ask:?}");
    }
    assert!(core.asked().iter().filter(|head| head.header("cookie").is_some()).count() == 0, "A1, C12");
    let api = Ask::get("/api/v2.0/systeminfo").header("Cookie", "sid=0123").at(gate.address);
    assert!(api.header("set-cookie").is_some(), "browsers keep their session");
}
