//! `/service/token`: answered from memory, asked once for all, kept apart, forgotten in time.

use crate::{
    stage::{ADMIN, DEV, ROBOT, Replica, SCOPE, Setup, Stage, ask_token, spare_key, story, token},
    support::gate::Gate,
    talk::{Answer, Ask, claims},
};
use std::{
    sync::{Arc, Barrier},
    thread,
    time::Duration,
};
use tidegate::rehearsal::harbor::{Head, KeyForm, Latency, World};

fn scene() -> (Stage, Replica, Gate) {
    let stage = Stage::new();
    let core = stage.replica("core", |_| {});
    let gate = Setup::before(&[&core], &[&core.key_file]).start();
    (stage, core, gate)
}

#[test]
fn the_same_question_again_is_answered_from_memory() {
    let (_stage, core, gate) = scene();
    let ask = ask_token(SCOPE).basic(DEV);
    let (first, second) = (ask.at(gate.address), ask.at(gate.address));
    assert_eq!((core.tokens_asked(), first.token()), (1, second.token()));
    assert_eq!([story(&gate, &first)[1].as_str(), &story(&gate, &second)[1]], ["as_came", "cached"]);
    assert_eq!(gate.metrics().sum("tidegate_token_answers_total", &[("from", "memory")]).round() as u64, 1);
}

#[test]
fn fifty_equal_questions_at_once_are_one() {
    let stage = Stage::new();
    let core = stage.replica("core", |options| {
        options.latency = Latency { token: Duration::from_millis(400), ..Latency::default() };
    });
    let gate = Setup::before(&[&core], &[&core.key_file]).rest("[token]\ncache = \"0s\"").start();
    let (start, ask) = (&Barrier::new(50), &ask_token(SCOPE).basic(DEV));
    let answers: Vec<Answer> = thread::scope(|scope| {
        let asker = |_| {
            scope.spawn(|| {
                start.wait();
                ask.at(gate.address)
            })
        };
        let askers: Vec<_> = (0..50).map(asker).collect();
        askers.into_iter().map(|asker| asker.join().expect("an asker")).collect()
    });
    assert!(answers.iter().all(|answer| answer.subject() == "dev"));
    assert_eq!(core.tokens_asked(), 1);
    ask.at(gate.address).token();
    assert_eq!(core.tokens_asked(), 2, "the cache is off: what has landed is asked for again");
}

#[test]
fn credentials_and_scopes_are_kept_apart() {
    let (_stage, core, gate) = scene();
    for round in 0..2 {
        for who in [DEV, ROBOT] {
            for scope in ["repository:priv/a:pull", "repository:priv/b:pull"] {
                let token = ask_token(scope).basic(who).at(gate.address).token();
                let claims = claims(&token);
                assert_eq!(claims["sub"], who.0, "round {round}");
                assert_eq!(claims["access"][0]["name"], scope.split(':').nth(1).expect("a name"));
            }
        }
    }
    assert_eq!(core.tokens_asked(), 4);
}

#[test]
fn the_order_of_actions_and_the_names_of_docker_make_no_difference() {
    let (_stage, core, gate) = scene();
    let plain = ask_token("repository:priv/a:pull,push").basic(DEV).at(gate.address).token();
    let docker = "repository%3Apriv%2Fa%3Apush%2Cpull&account=dev&client_id=docker&offline_token=true";
    assert_eq!(ask_token(docker).basic(DEV).at(gate.address).token(), plain);
    assert_eq!(core.tokens_asked(), 1);
}

#[test]
fn what_was_granted_in_part_to_nobody_or_to_a_bearer_is_asked_for_each_time() {
    let (_stage, core, gate) = scene();
    let id_token = token(core.address, DEV, SCOPE);
    let rows = [
        ("not every action granted", ask_token("repository:priv/a:pull,push,delete").basic(DEV)),
        ("anonymous", ask_token("repository:library/a:pull")),
        ("a bearer", ask_token(SCOPE).bearer(&id_token)),
        ("a query of another shape", ask_token(&format!("{SCOPE}&more=1")).basic(DEV)),
    ];
    for (what, ask) in rows {
        let before = core.tokens_asked();
        assert_eq!((ask.at(gate.address).status, ask.at(gate.address).status), (200, 200), "{what}");
        assert_eq!(core.tokens_asked() - before, 2, "{what}");
    }
}

#[test]
fn a_write_that_passes_ends_what_was_remembered() {
    type Write = fn(&World) -> (&'static str, String, &'static str);
    let writes: [Write; 3] = [
        |_| ("DELETE", "/api/v2.0/projects/priv".to_owned(), ""),
        |world| {
            let id = world.add_user("other", "Other12345", false);
            ("DELETE", format!("/api/v2.0/users/{id}"), "")
        },
        |world| {
            let id = world.add_robot("robot$other", "Secret12345", &["priv"]);
            ("PATCH", format!("/api/v2.0/robots/{id}"), r#"{"secret":"Another12345"}"#)
        },
    ];
    for write in writes {
        let (stage, core, gate) = scene();
        token(gate.address, DEV, SCOPE);
        let (method, path, body) = write(&stage.world);
        let written = Ask::new(method, &path)
            .basic(ADMIN)
            .header("Content-Type", "application/json")
            .body(body)
            .at(gate.address);
        assert!(
            (200..300).contains(&written.status),
            "{method} {path}: {} {}",
            written.status,
            written.text()
        );
        ask_token(SCOPE).basic(DEV).at(gate.address);
        assert_eq!(core.tokens_asked(), 2, "{method} {path}");
    }
}

#[test]
fn a_password_changed_through_us_ends_the_former_one_at_once() {
    let (stage, _core, gate) = scene();
    assert_eq!(ask_token(SCOPE).basic(DEV).at(gate.address).subject(), "dev");
    let id = stage.world.add_user("dev", DEV.1, false);
    let body = format!(r#"{{"old_password":"{}","new_password":"Another12345"}}"#, DEV.1);
    let change = Ask::new("PUT", &format!("/api/v2.0/%75sers/{id}/password")).basic(DEV);
    let changed = change.header("Content-Type", "application/json").body(body).at(gate.address);
    assert_eq!(changed.status, 200, "{}", changed.text());
    let former = ask_token(SCOPE).basic(DEV).at(gate.address);
    assert_eq!(former.subject(), "", "the former password");
    assert_eq!(story(&gate, &former)[2], "credential_refused");
}

#[test]
fn other_methods_than_get_are_answered_405_by_us() {
    let (_stage, core, gate) = scene();
    for method in ["POST", "HEAD"] {
        let answer = Ask::new(method, "/service/token?service=harbor-registry").basic(DEV);
        let answer =
            if method == "POST" { answer.body("grant_type=password") } else { answer }.at(gate.address);
        assert_eq!((answer.status, story(&gate, &answer)[2].as_str()), (405, "token_method"), "{method}");
    }
    assert_eq!(core.tokens_asked(), 0);
}

#[test]
fn a_core_that_cannot_sign_is_stood_in_for_by_another() {
    for form in [KeyForm::Pkcs8, KeyForm::Ec, KeyForm::Empty] {
        let stage = Stage::new();
        let key_file = stage.path("broken.pem");
        // It breaks under the first question that is no probe's: nobody knows of it before.
        let broken = stage.replica("broken", |options| {
            options.gate = Some(Arc::new(move |_, head: &Head| {
                if head.target.contains("priv/r") {
                    spare_key(0).rename_into(&key_file, form).expect("a broken key file");
                }
                None
            }));
        });
        let sound = stage.replica("sound", |_| {});
        let gate = Setup::before(&[&broken, &sound], &[&sound.key_file]).start();
        let rescued: Vec<_> = (0..6)
            .map(|number| {
                let answer =
                    ask_token(&format!("repository:priv/r{number}:pull")).basic(DEV).at(gate.address);
                assert_eq!(answer.subject(), "dev", "{form:?}");
                story(&gate, &answer)[2].clone()
            })
            .collect();
        assert!(rescued.contains(&"other_endpoint".to_owned()), "{form:?} {rescued:?}");
        assert_eq!(broken.tokens_asked(), 1, "{form:?}: not asked again while it can't sign");
    }
}

#[test]
fn the_realm_is_rewritten_where_it_is_configured_and_never_to_http_behind_our_name() {
    let stage = Stage::new();
    let core = stage.replica("core", |options| "http://internal:8080".clone_into(&mut options.ext_endpoint));
    let kept = Setup::before(&[&core], &[]).start();
    let rewritten = Setup::before(&[&core], &[])
        .top("realm = \"rewrite\"\npublic_url = \"https://harbor.example\"")
        .start();
    let challenge = |gate: &Gate| {
        let answer = Ask::get("/v2/priv/seed/manifests/v1").at(gate.address);
        answer.header("www-authenticate").expect("a challenge").to_owned()
    };
    let rest = r#"/service/token",service="harbor-registry",scope="repository:priv/seed:pull""#;
    assert_eq!(challenge(&kept), format!(r#"Bearer realm="http://internal:8080{rest}"#));
    assert_eq!(challenge(&rewritten), format!(r#"Bearer realm="https://harbor.example{rest}"#));
}
