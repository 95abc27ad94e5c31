//! What the access log says of each plan: what went up in the token's place, what that rescued.

use crate::{
    stage::{
        ADMIN, DEV, MANIFEST, PUBLIC_MANIFEST, SCOPE, Setup, Stage, hold, kid, pull, story, token, told,
    },
    talk::Ask,
};
use std::{
    future::pending,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};
use tidegate::rehearsal::harbor::{Head, KeyForm};

/// Keys are probed for all the time.
const OFTEN: &str = r#"probe = { every = "200ms", in_window = "200ms", timeout = "3s" }"#;

#[test]
fn a_token_of_the_held_key_goes_up_as_it_came() {
    let stage = Stage::new();
    let core = stage.replica("core", |_| {});
    core.seed();
    let gate = Setup::before(&[&core], &[&core.key_file]).start();
    let token = token(core.address, DEV, SCOPE);
    let answer =
        pull(&format!("{MANIFEST}?a=b")).bearer(&token).header("User-Agent", "a \"client\"").at(gate.address);
    assert_eq!(answer.status, 200);
    assert_eq!(story(&gate, &answer), ["forwarded", "as_came", ""]);
    let line = told(&gate, &answer);
    let expected = [
        ("method", "GET"),
        ("path", MANIFEST),
        ("route", "registry"),
        ("client", "127.0.0.1"),
        ("principal", "dev"),
        ("agent", "a \"client\""),
        ("endpoint", &core.address.to_string()),
    ];
    for (field, value) in expected {
        assert_eq!(line[field], value, "{field}");
    }
    assert_eq!((line["status"].as_u64(), line["sends"].as_u64()), (Some(200), Some(1)));
    assert_eq!(line["bytes_out"].as_u64(), Some(answer.body.len() as u64));
    assert!(!line.to_string().contains(&token), "no token in the log");
}

#[test]
fn a_token_of_another_replicas_key_goes_to_that_replica() {
    let stage = Stage::new();
    let (first, second) = (stage.replica("first", |_| {}), stage.replica("second", |_| {}));
    hold(&second.key_file, 1);
    first.seed();
    let gate = Setup::before(&[&first, &second], &[]).start();
    let token = token(second.address, DEV, SCOPE);
    let mut stories: Vec<_> = (0..8)
        .map(|_| {
            let answer = pull(MANIFEST).bearer(&token).at(gate.address);
            assert_eq!(answer.status, 200, "{}", answer.text());
            story(&gate, &answer).join(" ")
        })
        .collect();
    stories.sort();
    stories.dedup();
    assert_eq!(stories, ["forwarded as_came ", "rescued reroute reroute"]);
    let refused = first.asked().iter().filter(|head| head.method == "GET" && head.target == MANIFEST).count();
    assert_eq!(refused, 0, "the replica with the other key is not asked");
}

#[test]
fn a_token_of_a_former_key_is_signed_again() {
    let stage = Stage::new();
    let core = stage.replica("core", |_| {});
    core.seed();
    let (token, former) = (token(core.address, DEV, SCOPE), stage.path("former.pem"));
    hold(&former, 0);
    hold(&core.key_file, 1);
    let gate = Setup::before(&[&core], &[&former, &core.key_file]).start();
    let answer = pull(MANIFEST).bearer(&token).at(gate.address);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(story(&gate, &answer), ["rescued", "resign", "resign"]);
    assert_eq!(pull(MANIFEST).bearer(&token).at(core.address).status, 401, "directly");
}

#[test]
fn without_any_key_the_credential_of_the_token_goes_up() {
    let stage = Stage::new();
    let core = stage.replica("core", |_| {});
    core.seed();
    let gate = Setup::before(&[&core], &[]).upstream(OFTEN).start();
    let token = token(gate.address, DEV, SCOPE);
    hold(&core.key_file, 1);
    gate.wait_for("the replaced key is probed", |metrics| {
        metrics.sum("tidegate_endpoint_held_key", &[("kid", &kid(1))]) > 0.5
    });
    let answer = pull(MANIFEST).bearer(&token).at(gate.address);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(story(&gate, &answer), ["rescued", "replay", "replay"]);
    let beyond = pull("/v2/other/x/manifests/v1").bearer(&token).at(gate.address);
    assert_eq!(beyond.status, 401, "the credential is not used for what the token doesn't cover");
    assert_eq!(story(&gate, &beyond)[1], "blank");
}

#[test]
fn a_core_that_cannot_sign_serves_by_the_credential_and_says_so() {
    let stage = Stage::new();
    let core = stage.replica("core", |_| {});
    core.seed();
    let gate = Setup::before(&[&core], &[]).upstream(OFTEN).start();
    let token = token(gate.address, DEV, SCOPE);
    crate::stage::spare_key(0).overwrite(&core.key_file, KeyForm::Empty).expect("an emptied file");
    gate.wait_for("the broken key is probed", |metrics| metrics.sum("tidegate_alarms", &[]) > 0.5);
    let answer = pull(MANIFEST).bearer(&token).at(gate.address);
    assert_eq!(
        (answer.status, story(&gate, &answer)),
        (200, ["rescued", "replay", "replay"].map(str::to_owned))
    );
    assert_eq!(
        pull(PUBLIC_MANIFEST).bearer("dead").at(gate.address).status,
        200,
        "K12: anonymous reads go on"
    );
}

#[test]
fn a_bearer_that_proves_nothing_never_reaches_core() {
    let stage = Stage::new();
    let core = stage.replica("core", |_| {});
    core.seed();
    let gate = Setup::before(&[&core], &[&core.key_file]).start();
    for (bearer, reason) in [("not.a.token", "token_malformed"), ("x", "token_malformed")] {
        let answer = pull(MANIFEST).bearer(bearer).at(gate.address);
        assert_eq!(
            (answer.status, answer.header("www-authenticate")),
            (401, Some(r#"Basic realm="harbor""#))
        );
        assert_eq!(story(&gate, &answer), ["forwarded", "blank", reason]);
        assert_eq!(pull(PUBLIC_MANIFEST).bearer(bearer).at(gate.address).status, 200, "C5");
    }
    let sent = core.asked();
    let told: Vec<_> = sent.iter().filter_map(|head| head.header("authorization")).collect();
    assert!(!told.iter().any(|value| value.contains("not.a.token")), "{told:?}");
}

#[test]
fn what_is_no_registry_token_is_not_judged() {
    let stage = Stage::new();
    let core = stage.replica("core", |_| {});
    core.seed();
    let gate = Setup::before(&[&core], &[&core.key_file]).start();
    let by_basic = pull(MANIFEST).basic(DEV).at(gate.address);
    assert_eq!(
        (by_basic.status, story(&gate, &by_basic)),
        (200, ["forwarded", "as_came", ""].map(str::to_owned))
    );
    let api = Ask::get("/api/v2.0/projects").bearer("an.id.token").at(gate.address);
    assert_eq!(story(&gate, &api)[1], "as_came");
    let asked = core.asked();
    let sent = asked.iter().find(|head| head.target.starts_with("/api/")).expect("it reached core");
    assert_eq!(sent.header("authorization"), Some("Bearer an.id.token"));
}

#[test]
fn a19_a_token_that_waited_for_a_look_is_planned_and_signed_by_the_keys_that_the_look_found() {
    let stage = Stage::new();
    let no_more_probes = Arc::new(AtomicBool::new(false));
    let hold_probes = no_more_probes.clone();
    let core = stage.replica("core", |options| {
        options.gate = Some(Arc::new(move |_, head: &Head| {
            let probe = head.header("user-agent").is_some_and(|agent| agent.starts_with("tidegate/"));
            let holds = probe && hold_probes.load(SeqCst);
            holds.then(|| Box::pin(pending()) as Pin<Box<dyn Future<Output = ()> + Send>>)
        }));
    });
    core.seed();
    hold(&core.key_file, 1);
    let other = stage.replica("other", |_| {});
    hold(&other.key_file, 2);
    // By a link, of whose target's change the kernel tells us nothing: only a look finds it.
    let (folder, link) = (stage.path("elsewhere"), stage.path("keys.pem"));
    std::fs::create_dir(&folder).expect("a folder");
    let file = folder.join("keys.pem");
    hold(&file, 0);
    std::os::unix::fs::symlink(&file, &link).expect("a link");
    let gate = Setup::before(&[&core], &[&link]).start();
    gate.wait_for("the held key is known", |metrics| {
        metrics.sum("tidegate_endpoint_held_key", &[("kid", &kid(1))]) > 0.5
    });
    let token = token(other.address, DEV, SCOPE);
    // What a probe finds meanwhile would end the wait too.
    no_more_probes.store(true, SeqCst);
    let keys = [2, 1].map(|index| crate::stage::spare_key(index).text(KeyForm::Pkcs1).expect("a key"));
    std::fs::write(&file, keys.concat()).expect("the keys are replaced");
    let answer = pull(MANIFEST).bearer(&token).at(gate.address);
    assert_eq!(answer.status, 200, "{}\n{}", answer.text(), gate.tail());
    assert_eq!(story(&gate, &answer), ["rescued", "resign", "resign"]);
}

#[test]
fn a4_a_project_of_somebodys_own_ends_no_replay_and_a_changed_password_does() {
    let stage = Stage::new();
    let core = stage.replica("core", |_| {});
    core.seed();
    let gate = Setup::before(&[&core], &[]).upstream(OFTEN).start();
    let token = token(gate.address, DEV, SCOPE);
    hold(&core.key_file, 1);
    gate.wait_for("the replaced key is probed", |metrics| {
        metrics.sum("tidegate_endpoint_held_key", &[("kid", &kid(1))]) > 0.5
    });
    let write = |method: &str, path: &str, body: &str| {
        let ask = Ask::new(method, path).basic(ADMIN).header("Content-Type", "application/json").body(body);
        let answer = ask.at(gate.address);
        assert!((200..300).contains(&answer.status), "{method} {path}: {}", answer.text());
    };
    write("POST", "/api/v2.0/projects", r#"{"project_name":"of-my-own"}"#);
    write("DELETE", "/api/v2.0/projects/of-my-own", "");
    let answer = pull(MANIFEST).bearer(&token).at(gate.address);
    assert_eq!((answer.status, story(&gate, &answer)[1].as_str()), (200, "replay"), "{}", gate.tail());
    let id = stage.world.add_user("other", "Other12345", false);
    write("PUT", &format!("/api/v2.0/users/{id}/password"), r#"{"new_password":"Another12345"}"#);
    let answer = pull(MANIFEST).bearer(&token).at(gate.address);
    assert_eq!((answer.status, story(&gate, &answer)[1].as_str()), (401, "blank"), "{}", gate.tail());
}
