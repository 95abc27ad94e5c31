//! `/service/token` under odd and wrong credentials.

use crate::{
    bench::{self, Bench},
    raw::{self, get},
    recorder::Script,
    standin::{basic, basic_of},
};
use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

const TARGET: &str = "/service/token?service=harbor-registry&scope=repository:priv/app:pull";

fn token_answer() -> Script {
    Arc::new(|turn| {
        turn.read_body()?;
        turn.answer("200 OK", "Content-Type: application/json\r\n", "{\"token\":\"a.b.c\"}")?;
        Ok(true)
    })
}

#[test]
fn odd_credentials_and_queries_go_up_as_they_came_and_are_never_kept() {
    let bench = Bench::with("", token_answer());
    let odd = [
        "Basic",
        "Basic ",
        "Basic !!!!",
        "Basic YWI=",
        "Basic YTpi=",
        "Basic /////w==",
        "basic YTpi:c",
        "Basic YTpiOmM6ZA==",
        "Digest x",
        "Bearer",
        "Bearer a.b.c",
    ];
    for (number, value) in odd.into_iter().enumerate() {
        let target = format!("{TARGET}&account={number}");
        for _ in 0..2 {
            assert_eq!(
                get(bench.gate.address, &target, &format!("Authorization: {value}\r\n")).status,
                200,
                "{value}"
            );
        }
        let heads = bench.recorder.heads();
        let sent: Vec<_> = heads.iter().filter(|head| head.contains(&format!("account={number} "))).collect();
        assert_eq!(sent.len(), 2, "{value}: each goes up for itself");
        assert_eq!(raw::values(sent[0], "authorization"), [value.trim()]);
    }
    let scopes = "&scope=repository:priv/app:pull".repeat(500);
    for query in [
        "service=harbor-registry&service=other&scope=repository:a/b:pull",
        "service=a;b",
        "service=harbor-registry&scope=%00",
        "service=harbor-registry&scope=%ff",
        "service=harbor-registry&unheard=1",
        "scope=repository:a/b:pull",
        "",
        &format!("service=harbor-registry{scopes}"),
    ] {
        let before = bench.recorder.lines().len();
        for _ in 0..2 {
            let status = get(
                bench.gate.address,
                &format!("/service/token?{query}"),
                &format!("Authorization: {}\r\n", basic_of("dev")),
            )
            .status;
            assert_eq!(status, 200, "{query:.60}");
        }
        assert_eq!(bench.recorder.lines().len() - before, 2, "{query:.60}: not kept");
        assert_eq!(bench.recorder.lines().last(), Some(&format!("GET /service/token?{query} HTTP/1.1")));
    }
    let long = |kib: usize| format!("Authorization: Basic {}\r\n", "A".repeat(kib * 1024));
    assert_eq!(get(bench.gate.address, TARGET, &long(30)).status, 200, "within limits.head");
    assert_eq!(get(bench.gate.address, TARGET, &long(64)).status, 431);
    assert_eq!(get(bench.gate.address, TARGET, &long(256)).status, 431);
}

#[test]
fn other_methods_than_get_are_405_and_never_go_up() {
    let bench = Bench::with("", token_answer());
    for method in ["POST", "PUT", "HEAD", "DELETE", "OPTIONS"] {
        let request = format!("{method} {TARGET} HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n");
        let answer = raw::Raw::open(bench.gate.address).send(request).answer_to(method).expect("an answer");
        assert_eq!((answer.status, answer.header("allow").as_deref()), (405, Some("GET")), "{method}");
    }
    assert_eq!(bench.recorder.lines(), Vec::<String>::new());
}

#[test]
fn a1_a_live_sid_beside_a_wrong_basic_changes_nothing() {
    let (gate, standin) = bench::before_the_standin("");
    for lines in [
        format!("Cookie: sid=anything\r\nAuthorization: {}\r\n", basic("admin", "wrong")),
        "Cookie: sid=anything\r\n".to_owned(),
    ] {
        let answer = get(gate.address, TARGET, &lines);
        assert!(answer.all("set-cookie").is_empty());
    }
    let heads = standin.heads();
    let through: Vec<_> = heads.iter().filter(|head| head.header("x-forwarded-for").is_some()).collect();
    assert!(!through.is_empty() && through.iter().all(|head| head.header("cookie").is_none()));
}

#[test]
fn a_flood_of_wrong_passwords_reaches_harbor_a_bounded_number_of_times() {
    let (gate, standin) = bench::before_the_standin("[limits]\nwrong_credentials = \"5/min\"\n");
    assert_eq!(get(gate.address, TARGET, &format!("Authorization: {}\r\n", basic_of("dev"))).status, 200);
    let before = standin.served().tokens;
    let address = gate.address;
    let floods: Vec<_> = (0..8)
        .map(|flood| {
            thread::spawn(move || {
                let tried = (0..40).map(|n| {
                    let lines = format!(
                        "Authorization: {}\r\n",
                        basic(&format!("user{}", flood % 3), &format!("wrong{flood}-{n}"))
                    );
                    get(address, "/service/token?service=harbor-registry", &lines).status
                });
                tried.collect::<Vec<_>>()
            })
        })
        .collect();
    let began = Instant::now();
    let mut slowest = Duration::ZERO;
    while !floods.iter().all(thread::JoinHandle::is_finished) {
        let asked = Instant::now();
        // Uncached by its shape, so that Harbor is asked each time; accepted before, so that it waits for nobody.
        let status =
            get(address, &format!("{TARGET}&x=1"), &format!("Authorization: {}\r\n", basic_of("dev"))).status;
        assert_eq!(status, 200, "a credential that Harbor has accepted is unharmed");
        slowest = slowest.max(asked.elapsed());
        assert!(began.elapsed() < Duration::from_mins(2));
    }
    let statuses: Vec<u16> = floods.into_iter().flat_map(|flood| flood.join().expect("a flood")).collect();
    let limited = statuses.iter().filter(|status| **status == 429).count();
    let wrong = statuses.iter().filter(|status| **status == 401).count();
    assert_eq!(limited + wrong, statuses.len(), "{statuses:?}");
    let users = |head: &&tidegate::rehearsal::harbor::Head| {
        head.header("authorization").is_some_and(|value| value != basic_of("dev"))
    };
    let sent = standin.heads().iter().filter(users).count();
    println!(
        "{} wrong passwords: {sent} reached Harbor, {limited} got 429; the slowest right one took {slowest:?}",
        statuses.len()
    );
    assert!(sent <= 24, "{sent} of {} reached Harbor", statuses.len());
    assert!(standin.served().tokens > before);
}

#[test]
fn a7_a_strangers_wrong_passwords_leave_a_robot_in_use_unharmed() {
    let (gate, _standin) = bench::before_the_standin("[limits]\nwrong_credentials = \"1000/min\"\n");
    let robot = format!("Authorization: {}\r\n", basic_of("robot$ci"));
    assert_eq!(get(gate.address, TARGET, &robot).status, 200);
    let address = gate.address;
    let stranger = thread::spawn(move || {
        for n in 0..4 {
            let lines = format!("Authorization: {}\r\n", basic("robot$ci", &format!("wrong{n}")));
            let _ = get(address, TARGET, &lines);
        }
    });
    let mut slowest = Duration::ZERO;
    while !stranger.is_finished() {
        let began = Instant::now();
        let answer = get(address, &format!("{TARGET}&x=1"), &robot);
        assert_eq!(answer.status, 200);
        let body: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
        let token = body["token"].as_str().expect("a token");
        let used = get(address, "/v2/", &format!("Authorization: Bearer {token}\r\n"));
        assert_eq!(used.status, 200, "the robot's own token, with a subject");
        slowest = slowest.max(began.elapsed());
    }
    stranger.join().expect("the stranger");
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
}

#[test]
fn a2_answers_are_kept_by_credential_service_and_scope_and_emptied_by_writes() {
    let (gate, standin) = bench::before_the_standin("");
    let dev = format!("Authorization: {}\r\n", basic_of("dev"));
    // tidegate's own questions about the held key don't count.
    let asked = || standin.heads().iter().filter(|head| head.target.starts_with("/service/token")).count();
    let tokens = |lines: &str, target: &str| {
        let before = asked();
        assert_eq!(get(gate.address, target, lines).status, 200);
        asked() - before
    };
    assert_eq!(tokens(&dev, TARGET), 1);
    assert_eq!(tokens(&dev, TARGET), 0, "kept");
    assert_eq!(
        tokens(&format!("Authorization: {}\r\n", basic_of("robot$ci")), TARGET),
        1,
        "another credential"
    );
    assert_eq!(tokens("", TARGET), 1, "no credential");
    assert_eq!(
        tokens(&dev, "/service/token?service=harbor-registry&scope=repository:priv/ap:ppull"),
        1,
        "another split"
    );
    assert_eq!(tokens(&dev, &TARGET.replace("pull", "pull,push")), 1, "another action");
    let put = format!(
        "PUT /api/v2.0/users/999/password HTTP/1.1\r\nHost: h\r\nAuthorization: {}\r\nContent-Length: 2\r\n\r\n{{}}",
        basic_of("admin")
    );
    let refused = raw::ask(gate.address, &put).expect("an answer").status;
    assert!(refused >= 400);
    assert_eq!(tokens(&dev, TARGET), 0, "a write that Harbor refuses changes nothing");
}

#[test]
fn a3_a_bearer_on_the_token_service_is_never_kept() {
    let bench = Bench::with("", token_answer());
    for _ in 0..3 {
        assert_eq!(bench.get(TARGET, "Authorization: Bearer id.token.x\r\n").status, 200);
    }
    assert_eq!(bench.recorder.lines().len(), 3);
}
