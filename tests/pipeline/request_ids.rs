//! `X-Request-ID`: made or kept, sent up, in the log, in every answer and in every error of ours (A29).

use crate::{
    stage::{DEV, MANIFEST, Setup, Stage, pull, told},
    support::ports,
    talk::{Answer, Ask},
};

fn id(answer: &Answer) -> String {
    answer.header("x-request-id").expect("every answer has an id").to_owned()
}

#[test]
fn an_id_is_made_sent_up_logged_and_given_back() {
    let stage = Stage::new();
    let core = stage.replica("core", |_| {});
    core.seed();
    let gate = Setup::before(&[&core], &[]).start();
    let (first, second) =
        (pull(MANIFEST).basic(DEV).at(gate.address), pull(MANIFEST).basic(DEV).at(gate.address));
    assert_ne!(id(&first), id(&second));
    let asked = core.asked();
    let sent: Vec<_> = asked.iter().filter_map(|head| head.header("x-request-id")).collect();
    assert!(sent.contains(&id(&first).as_str()) && sent.contains(&id(&second).as_str()), "{sent:?}");
    assert_eq!(told(&gate, &first)["status"].as_u64(), Some(200));
}

#[test]
fn an_id_is_kept_from_trusted_proxies_alone_and_only_where_it_is_one() {
    let stage = Stage::new();
    let core = stage.replica("core", |_| {});
    let trusting = ports::free();
    let listener = format!("[[listener]]\naddress = \"{trusting}\"\ntrusted_proxies = [\"127.0.0.1/32\"]");
    let gate = Setup::before(&[&core], &[]).rest(&listener).start();
    let with = |value: &str| Ask::get("/v2/").header("X-Request-ID", value);
    assert_eq!(id(&with("Proxy-1_a.b").at(trusting)), "Proxy-1_a.b");
    assert_ne!(id(&with("Proxy-1_a.b").at(gate.address)), "Proxy-1_a.b", "a stranger's");
    for wrong in ["a b", "a\"b", &"x".repeat(65), "", "\u{e4}"] {
        assert_ne!(id(&with(wrong).at(trusting)), wrong, "{wrong:?}");
    }
    let asked = core.asked();
    assert!(asked.iter().any(|head| head.header("x-request-id") == Some("Proxy-1_a.b")));
}

#[test]
fn the_client_is_the_one_that_trusted_proxies_name() {
    let stage = Stage::new();
    let core = stage.replica("core", |_| {});
    let trusting = ports::free();
    let listener = format!("[[listener]]\naddress = \"{trusting}\"\ntrusted_proxies = [\"127.0.0.0/8\"]");
    let gate = Setup::before(&[&core], &[]).rest(&listener).start();
    let ask =
        Ask::get("/v2/").header("X-Forwarded-For", "6.6.6.6, 7.7.7.7").header("X-Forwarded-Proto", "https");
    let (trusted, not) = (ask.at(trusting), ask.at(gate.address));
    assert_eq!(
        (&told(&gate, &trusted)["client"], &told(&gate, &not)["client"]),
        (&"7.7.7.7".into(), &"127.0.0.1".into())
    );
    let asked = core.asked();
    let of = |answer: &Answer| {
        let head =
            asked.iter().find(|head| head.header("x-request-id") == Some(&id(answer))).expect("it went up");
        ["x-forwarded-for", "x-forwarded-proto", "x-real-ip"]
            .map(|n| head.header(n).unwrap_or_default().to_owned())
    };
    assert_eq!(of(&trusted), ["6.6.6.6, 7.7.7.7, 127.0.0.1", "https", "7.7.7.7"]);
    assert_eq!(of(&not), ["127.0.0.1", "http", "127.0.0.1"]);
}

#[test]
fn our_own_errors_carry_the_id_too() {
    let stage = Stage::new();
    let core = stage.replica("core", |_| {});
    let gate = Setup::before(&[&core], &[]).start();
    let twice = Ask::get("/v2/").bearer("a").bearer("b");
    for (ask, reason) in [
        (Ask::get("/service/notifications"), "components_only"),
        (Ask::new("POST", "/service/token").body(""), "token_method"),
        (twice, "several_authorizations"),
    ] {
        let answer = ask.at(gate.address);
        assert!((400..500).contains(&answer.status), "{reason}");
        let line = told(&gate, &answer);
        assert_eq!((&line["reason"], &line["outcome"]), (&reason.into(), &"rejected".into()));
    }
}
