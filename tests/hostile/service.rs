//! `/service/token` under odd and wrong credentials.

use crate::{
    bench::{self, Bench},
    raw::{self, get},
    recorder::{Recorder, Script},
    standin::{Standin, basic, basic_of},
    support::waiting,
};
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};
use tidegate::rehearsal::harbor::SAMPLE_ADMIN_PASSWORD;

const SOON: Duration = Duration::from_secs(10);
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

/// The `sid` of a session that `user` has just opened in Harbor's UI.
fn live_sid(standin: &Standin, user: &str, password: &str) -> String {
    let cookie = |answer: &raw::Answer, name: &str| {
        let all = answer.all("set-cookie");
        let value = all.iter().find_map(|line| line.strip_prefix(&format!("{name}=")).map(str::to_owned));
        value.expect("a cookie").split(';').next().expect("a value").to_owned()
    };
    let sid = cookie(&get(standin.address, "/api/v2.0/ping", ""), "sid");
    let asked = get(standin.address, "/api/v2.0/systeminfo", &format!("Cookie: sid={sid}\r\n"));
    let (csrf, token) =
        (cookie(&asked, "_gorilla_csrf"), asked.header("x-harbor-csrf-token").expect("a token"));
    let form = format!("principal={user}&password={password}");
    let lines = format!(
        "Cookie: _gorilla_csrf={csrf}; sid={sid}\r\nX-Harbor-CSRF-Token: {token}\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n",
        form.len()
    );
    let answer = raw::ask(standin.address, format!("POST /c/login HTTP/1.1\r\nHost: h\r\n{lines}\r\n{form}"));
    cookie(&answer.expect("an answer"), "sid")
}

/// The `sub` of the token in an answer; empty where it is nobody's.
fn subject(answer: &raw::Answer) -> String {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    let body: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
    let payload = body["token"].as_str().and_then(|token| token.split('.').nth(1)).expect("a token");
    let claims: serde_json::Value =
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).expect("base64url")).expect("claims");
    claims["sub"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a1_a_live_sid_alone_or_beside_a_wrong_basic_changes_nothing() {
    let (gate, standin) = bench::before_the_standin("");
    let sid = live_sid(&standin, "admin", SAMPLE_ADMIN_PASSWORD);
    let cookie = format!("Cookie: sid={sid}\r\n");
    assert_eq!(
        subject(&get(standin.address, TARGET, &cookie)),
        "admin",
        "directly the session is enough (T14)"
    );
    let wrong = format!("Authorization: {}\r\n", basic("admin", "wrong"));
    for lines in [cookie.clone(), cookie.clone() + &wrong] {
        for _ in 0..2 {
            let answer = get(gate.address, TARGET, &lines);
            assert_eq!((answer.status, subject(&answer)), (200, String::new()), "as without the cookie");
            assert!(answer.all("set-cookie").is_empty());
        }
    }
    assert_eq!(get(gate.address, "/v2/", &cookie).status, 401);
    let kept = |what: &str| gate.metrics().sum("tidegate_kept", &[("what", what)]);
    assert!(kept("token_answers") + kept("replay_credentials") < 0.5, "nothing of it is recorded");
    let right = format!("Authorization: {}\r\n", basic("admin", SAMPLE_ADMIN_PASSWORD));
    assert_eq!(subject(&get(gate.address, TARGET, &right)), "admin");
    waiting::holds("what is right is recorded", SOON, || kept("replay_credentials") > 0.5);
    let heads = standin.heads();
    let through: Vec<_> = heads.iter().filter(|head| head.header("x-forwarded-for").is_some()).collect();
    assert!(!through.is_empty() && through.iter().all(|head| head.header("cookie").is_none()));
}

#[test]
fn a_thousand_wrong_passwords_from_many_addresses_are_limited_by_their_name() {
    let (gate, standin) = bench::before_the_standin("");
    let (dev, robot) = (basic_of("dev"), basic_of("robot$ci"));
    let right = |credential: &str| {
        // Uncached by its shape, so that Harbor is asked each time.
        let lines = format!("Authorization: {credential}\r\n");
        subject(&get(gate.address, &format!("{TARGET}&x=1"), &lines))
    };
    let both = || (right(&dev), right(&robot));
    let served = ("dev".to_owned(), "robot$ci".to_owned());
    assert_eq!(both(), served);
    let (began, address) = (Instant::now(), gate.address);
    let (taken, limited) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let floods: Vec<_> = (0..20)
        .map(|_| {
            let (taken, limited) = (taken.clone(), limited.clone());
            thread::spawn(move || {
                loop {
                    let n = taken.fetch_add(1, SeqCst);
                    if n >= 1_000 {
                        return;
                    }
                    let lines =
                        format!("Host: h\r\nAuthorization: {}\r\n", basic("dev", &format!("wrong{n}")));
                    let mut client = raw::Raw::open_from([127, 0, 1, 1 + (n % 250) as u8], address);
                    let answer = client.send(format!("GET {TARGET} HTTP/1.1\r\n{lines}\r\n")).last_answer();
                    if answer.is_some_and(|answer| answer.status == 429) {
                        limited.fetch_add(1, SeqCst);
                    }
                }
            })
        })
        .collect();
    let mut slowest = Duration::ZERO;
    // The few that wait for their turn at Harbor would do so for half a minute.
    while limited.load(SeqCst) < 970 || began.elapsed() < Duration::from_secs(6) {
        let asked = Instant::now();
        assert_eq!(both(), served, "neither the name itself nor another is harmed");
        slowest = slowest.max(asked.elapsed());
        assert!(began.elapsed() < Duration::from_mins(1), "{} were limited", limited.load(SeqCst));
    }
    let took = began.elapsed();
    let wrong = |head: &&tidegate::rehearsal::harbor::Head| {
        let value = head.header("authorization");
        value.is_some_and(|value| value.starts_with("Basic") && ![dev.as_str(), &robot].contains(&value))
    };
    let sent = standin.heads().iter().filter(wrong).count();
    println!(
        "1,000 wrong passwords of one name in {took:?}: {sent} reached Harbor, {limited:?} got 429; the slowest right ones took {slowest:?}"
    );
    // One at a time, and core's lock of a name is 1.5 s.
    assert!(sent as u64 <= 2 + took.as_secs(), "{sent} reached Harbor in {took:?}");
    drop(gate);
    for flood in floods {
        flood.join().expect("a flood");
    }
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
fn a2_an_answer_that_was_asked_for_before_a_write_is_not_kept() {
    let standin = Standin::start();
    let core = standin.address;
    let (tell, told) = mpsc::channel();
    let told = Mutex::new(told);
    let script: Script = Arc::new(move |turn| {
        turn.read_body()?;
        if turn.head.starts_with("PUT") {
            turn.answer("200 OK", "", "")?;
            return Ok(true);
        }
        let target = turn.head.split(' ').nth(1).expect("a target").to_owned();
        let authorization = raw::values(&turn.head, "authorization").concat();
        let answer = get(core, &target, &format!("Authorization: {authorization}\r\n"));
        if turn.before == 0 {
            told.lock().unwrap().recv().expect("the write has passed");
        }
        turn.answer("200 OK", "Content-Type: application/json\r\n", &answer.text())?;
        Ok(true)
    });
    let recorder = Recorder::start(core, script);
    let gate = bench::start("", recorder.address, &standin);
    let (address, dev) = (gate.address, format!("Authorization: {}\r\n", basic_of("dev")));
    let questions = || recorder.lines().iter().filter(|line| line.starts_with("GET /service/token")).count();
    let lines = dev.clone();
    let late = thread::spawn(move || get(address, TARGET, &lines).status);
    waiting::holds("Harbor is asked", SOON, || questions() == 1);
    let put = "PUT /api/v2.0/users/3/password HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}";
    assert_eq!(raw::ask(address, put).map(|answer| answer.status), Some(200));
    tell.send(()).expect("the question is open");
    assert_eq!(late.join().expect("an asker"), 200);
    assert_eq!(get(address, TARGET, &dev).status, 200);
    assert_eq!(questions(), 2, "the late answer of the former generation is given once, and not again");
    assert_eq!(get(address, TARGET, &dev).status, 200);
    assert_eq!(questions(), 2, "what was asked for after the write is kept");
}

#[test]
fn a3_a_bearer_on_the_token_service_is_never_kept() {
    let bench = Bench::with("", token_answer());
    for _ in 0..3 {
        assert_eq!(bench.get(TARGET, "Authorization: Bearer id.token.x\r\n").status, 200);
    }
    assert_eq!(bench.recorder.lines().len(), 3);
}

#[test]
fn a7_a_monitor_that_may_not_list_the_catalog_locks_nobody_out() {
    let (gate, standin) = bench::before_the_standin("[limits]\nwrong_credentials = \"5/min\"\n");
    let of = |user: &str| format!("Authorization: {}\r\n", basic_of(user));
    for _ in 0..20 {
        let polled = get(gate.address, "/v2/_catalog", &of("robot$ci"));
        assert_eq!(polled.status, 401, "a right credential that may not (C10)");
    }
    assert_eq!(get(standin.address, "/v2/", &of("robot$ci")).status, 200, "it is right");
    assert_eq!(get(gate.address, TARGET, &of("dev")).status, 200, "another of its address\n{}", gate.tail());
}

#[test]
fn a7_a_thousand_wrong_passwords_past_the_token_service_are_limited_too() {
    for target in ["/v2/", "/api/v2.0/users/3"] {
        let (gate, standin) = bench::before_the_standin("");
        let (address, right) = (gate.address, format!("Authorization: {}\r\n", basic_of("robot$ci")));
        let taken = Arc::new(AtomicUsize::new(0));
        let began = Instant::now();
        let floods: Vec<_> = (0..20)
            .map(|_| {
                let taken = taken.clone();
                thread::spawn(move || {
                    let mut limited = 0;
                    loop {
                        let n = taken.fetch_add(1, SeqCst);
                        if n >= 1_000 {
                            return limited;
                        }
                        let guess = basic("dev", &format!("wrong{n}"));
                        let lines = format!("Host: h\r\nAuthorization: {guess}\r\n");
                        let mut client = raw::Raw::open_from([127, 0, 1, 1 + (n % 250) as u8], address);
                        client.send(format!("GET {target} HTTP/1.1\r\n{lines}\r\n"));
                        limited +=
                            usize::from(client.last_answer().is_some_and(|answer| answer.status == 429));
                    }
                })
            })
            .collect();
        while !floods.iter().all(thread::JoinHandle::is_finished) {
            let seen = get(address, "/v2/", &right).status;
            assert_eq!(seen, 200, "another name that nobody has proved before\n{}", gate.tail());
            assert!(began.elapsed() < Duration::from_mins(1));
        }
        let limited: usize = floods.into_iter().map(|flood| flood.join().expect("a flood")).sum();
        let wrong = |head: &&tidegate::rehearsal::harbor::Head| {
            let value = head.header("authorization");
            value.is_some_and(|value| value.starts_with("Basic") && value != basic_of("robot$ci"))
        };
        let (sent, took) = (standin.heads().iter().filter(wrong).count(), began.elapsed());
        println!("1,000 wrong passwords at {target} in {took:?}: {sent} reached Harbor, {limited} got 429");
        // Those under way before the first were refused, and one in the time of a lock.
        assert!(sent as u64 <= 60 + took.as_secs(), "{target}: {sent} reached Harbor in {took:?}");
        assert_eq!(sent + limited, 1_000, "{target}");
    }
}

#[test]
fn a7_many_right_passwords_behind_one_address_pass_unharmed() {
    let (gate, _standin) = bench::before_the_standin("[limits]\nwrong_credentials = \"5/min\"\n");
    let address = gate.address;
    let clients: Vec<_> = (0..60)
        .map(|n| {
            thread::spawn(move || {
                let user = ["dev", "robot$ci", "admin"][n % 3];
                let target = ["/v2/", "/api/v2.0/projects"][n % 2];
                get(address, target, &format!("Authorization: {}\r\n", basic_of(user))).status
            })
        })
        .collect();
    for client in clients {
        assert_eq!(client.join().expect("a client"), 200, "{}", gate.tail());
    }
}
