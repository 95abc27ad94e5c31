//! Core's database, or Redis, is in trouble, and Harbor says so in words that mean something else (D1 to D4).

use std::{
    thread,
    time::{Duration, Instant},
};

use tidegate::{
    rehearsal::harbor::{Health, Role, Version},
    words::clock::Clock,
};

use crate::{
    stage::{
        ADMIN, DEV, MANIFEST, Replica, SCOPE, Setup, Stage, ask_token, manifest, path_of, pull, sha256,
        story, token,
    },
    support::{gate::Gate, ports, waiting},
    talk::{Answer, Ask, Line, claims},
};

const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
pub const SOON: Duration = Duration::from_secs(20);
const UPLOADS: &str = "/v2/priv/seed/blobs/uploads/";

fn scene(version: Version, rest: &str) -> (Stage, Replica, Gate) {
    let stage = Stage::new();
    let core = stage.replica("core", |options| options.version = version);
    core.seed();
    let gate = Setup::before(&[&core], &[&core.key_file]).rest("[token]\ncache = \"0s\"").rest(rest).start();
    (stage, core, gate)
}

pub fn parked(gate: &Gate, count: f64) {
    waiting::holds("the requests wait", SOON, || {
        gate.metrics().sum("tidegate_parked_requests", &[]) >= count
    });
}

fn head(path: &str) -> Ask {
    Ask::new("HEAD", path).header("Accept", MANIFEST_TYPE)
}

fn put_manifest(tag: &str) -> Ask {
    let text = manifest(b"{}", b"a layer of priv/seed");
    let put = Ask::new("PUT", &format!("/v2/priv/seed/manifests/{tag}"));
    put.header("Content-Type", MANIFEST_TYPE).body(text)
}

/// Nothing that Harbor says of its database.
fn tells_nothing(answer: &Answer) {
    let whole = format!("{:?} {}", answer.headers, answer.text());
    for part in ["postgres", "5432", "dial", "127.0.0.1"] {
        assert!(!whole.contains(part), "{whole}");
    }
}

fn waits_and_goes_on(version: Version) {
    let (stage, core, gate) = scene(version, "");
    let bearer = token(gate.address, DEV, SCOPE);
    let open = || Ask::new("POST", UPLOADS).body("").bearer(&bearer);
    let (small, large) = (vec![5; 2_000], vec![6; 3 << 20]);
    let [first, second, third] = [(); 3].map(|()| path_of(&open().at(gate.address)));
    let asks = |tag: &str| {
        [
            ("GET", 200, pull(MANIFEST).bearer(&bearer)),
            ("HEAD", 200, head(MANIFEST).bearer(&bearer)),
            ("POST", 202, open()),
            ("PATCH", 202, Ask::new("PATCH", &first).body(small.clone()).bearer(&bearer)),
            ("chunked PATCH", 202, Ask::new("PATCH", &second).chunked(large.clone()).bearer(&bearer)),
            (
                "PUT",
                201,
                Ask::new("PUT", &format!("{third}&digest={}", sha256(&small)))
                    .body(small.clone())
                    .bearer(&bearer),
            ),
            ("manifest", 201, put_manifest(tag).bearer(&bearer)),
            ("Basic on /v2/", 200, Ask::get("/v2/").basic(DEV)),
        ]
    };
    stage.world.set_database(Health::Refusing);
    for (name, wanted, ask) in asks("directly") {
        let status = ask.at(core.address).status;
        assert!([401, 500].contains(&status), "{version} {name}: directly {status}, not {wanted}");
    }
    let to = gate.address;
    let answers = thread::scope(|scope| {
        let waiting: Vec<_> = asks("later")
            .into_iter()
            .map(|(name, status, ask)| (name, status, scope.spawn(move || ask.at(to))))
            .collect();
        parked(&gate, waiting.len() as f64);
        stage.world.set_database(Health::Up);
        waiting
            .into_iter()
            .map(|(name, status, ask)| (name, status, ask.join().expect("no panic")))
            .collect::<Vec<_>>()
    });
    for (name, status, answer) in &answers {
        assert_eq!(answer.status, *status, "{version} {name}: {}\n{}", answer.text(), gate.tail());
        assert_eq!(story(&gate, answer)[0], "rescued", "{version} {name}");
    }
    assert_eq!(story(&gate, &answers[0].2)[2], "park");
    let put = format!("{}&digest={}", path_of(&answers[4].2), sha256(&large));
    assert_eq!(Ask::new("PUT", &put).body("").bearer(&bearer).at(gate.address).status, 201, "no hole");
    assert_eq!(head("/v2/priv/seed/manifests/later").bearer(&bearer).at(gate.address).status, 200);
    assert!(gate.metrics().sum("tidegate_parked_requests", &[]) < 0.5);
}

#[test]
fn requests_wait_while_the_database_of_2_10_refuses() {
    waits_and_goes_on(Version::V2_10_2);
}

#[test]
fn requests_wait_while_the_database_of_2_15_refuses() {
    waits_and_goes_on(Version::V2_15_2);
}

#[test]
fn a22_what_waits_too_long_or_may_not_be_sent_again_gets_503_that_tells_no_address() {
    let (stage, core, gate) = scene(Version::V2_10_2, "[park]\ntimeout = \"2s\"\n");
    let bearer = token(gate.address, DEV, SCOPE);
    stage.world.set_database(Health::Refusing);
    let directly = pull(MANIFEST).bearer(&bearer).at(core.address);
    assert!(directly.status == 401 && directly.text().contains("127.0.0.1:5432"), "{}", directly.text());
    for (name, waits, ask) in [
        ("GET", true, pull(MANIFEST).bearer(&bearer)),
        ("HEAD", true, head(MANIFEST).bearer(&bearer)),
        ("POST", true, Ask::new("POST", UPLOADS).body("").bearer(&bearer)),
        ("Basic", true, Ask::get("/v2/").basic(DEV)),
    ] {
        let began = Instant::now();
        let answer = ask.at(gate.address);
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")), "{name}");
        assert!(name == "HEAD" || answer.text().contains("\"errors\""), "{name}: {}", answer.text());
        assert_eq!(answer.header("www-authenticate"), None, "{name}");
        assert_eq!(began.elapsed() >= Duration::from_secs(2), waits, "{name}: {:?}", began.elapsed());
        assert_eq!(story(&gate, &answer)[0], "upstream_failed", "{name}");
        tells_nothing(&answer);
    }
    let sent = core.asked().len();
    let delete = Ask::new("DELETE", MANIFEST).bearer(&bearer).at(gate.address);
    assert!(delete.status >= 500, "{}", delete.status);
    tells_nothing(&delete);
    assert_eq!(core.asked().len(), sent + 1, "what changes anything is sent once");
    stage.world.set_database(Health::Up);
    assert_eq!(pull(MANIFEST).bearer(&bearer).at(gate.address).status, 200, "at once");
}

#[test]
fn without_a_park_an_outage_is_told_at_once_and_hides_its_address() {
    let (stage, _core, gate) = scene(Version::V2_10_2, "[park]\ntimeout = \"0s\"\n");
    let bearer = token(gate.address, DEV, SCOPE);
    stage.world.set_database(Health::Refusing);
    let answer = pull(MANIFEST).bearer(&bearer).at(gate.address);
    assert_eq!((answer.status, &*story(&gate, &answer)[2]), (503, "outage"), "{}", answer.text());
    tells_nothing(&answer);
}

#[test]
fn harbors_word_on_a_project_that_is_not_there_stands() {
    let (_stage, core, gate) = scene(Version::V2_10_2, "");
    let bearer = token(gate.address, DEV, SCOPE);
    let path = "/v2/dial-tcp/r/manifests/v1";
    let directly = pull(path).bearer(&bearer).at(core.address);
    let answer = pull(path).bearer(&bearer).at(gate.address);
    assert_eq!((answer.status, answer.text()), (401, directly.text()));
    assert_eq!(answer.header("www-authenticate"), Some(""), "C8");
    let bare = head(path).bearer(&bearer).at(gate.address);
    assert_eq!((bare.status, bare.header("www-authenticate")), (401, Some("")), "without words too");
    let wrong = Ask::get("/v2/").basic(("dev", "guessed")).at(gate.address);
    assert_eq!(wrong.header("www-authenticate"), Some(r#"Basic realm="harbor""#), "C6");
    assert_eq!(ask_token(SCOPE).basic(DEV).at(gate.address).subject(), "dev");
}

#[test]
fn requests_wait_while_the_redis_of_2_8_refuses() {
    let (stage, core, gate) = scene(Version::V2_8_4, "");
    let bearer = token(gate.address, DEV, SCOPE);
    stage.world.set_redis(Health::Refusing);
    assert_eq!(pull(MANIFEST).bearer(&bearer).at(core.address).status, 503, "directly");
    let answer = thread::scope(|scope| {
        let pulled = scope.spawn(|| pull(MANIFEST).bearer(&bearer).at(gate.address));
        parked(&gate, 1.0);
        stage.world.set_redis(Health::Up);
        pulled.join().expect("no panic")
    });
    assert_eq!(answer.status, 200, "{}", gate.tail());
    assert_eq!(story(&gate, &answer)[2], "park");
}

pub const OTHER: &str = "repository:priv/other:pull";
pub const PUBLIC: &str = "repository:library/seed:pull";
pub const WRONG: (&str, &str) = ("dev", "guessed");
pub const SHORT_PARK: &str = "[park]\ntimeout = \"1s\"\n";

/// What nobody can tell now: 503, and nothing of a wrong password.
pub fn is_unavailable(gate: &Gate, answer: &Answer, name: &str) {
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")), "{name}: {}", gate.tail());
    assert_eq!(answer.header("www-authenticate"), None, "{name}");
    assert_eq!(story(gate, answer)[2], "outage", "{name}");
    tells_nothing(answer);
}

#[test]
fn token_requests_wait_while_the_database_refuses() {
    let (stage, core, gate) = scene(Version::V2_10_2, "");
    // Secrets that were never accepted go one by one (A7).
    assert_eq!(ask_token(OTHER).basic(DEV).at(gate.address).subject(), "dev");
    stage.world.set_database(Health::Refusing);
    assert_eq!(ask_token(SCOPE).basic(DEV).at(core.address).subject(), "", "directly: a wrong password");
    let asks =
        || [("dev", ask_token(SCOPE).basic(DEV)), ("dev", ask_token("").basic(DEV)), ("", ask_token(PUBLIC))];
    let to = gate.address;
    let answers = thread::scope(|scope| {
        let waiting: Vec<_> =
            asks().into_iter().map(|(name, ask)| (name, scope.spawn(move || ask.at(to)))).collect();
        parked(&gate, waiting.len() as f64);
        stage.world.set_database(Health::Up);
        waiting.into_iter().map(|(name, ask)| (name, ask.join().expect("no panic"))).collect::<Vec<_>>()
    });
    for (name, answer) in &answers {
        assert_eq!(answer.subject(), *name, "{}", gate.tail());
        assert_eq!(story(&gate, answer), ["rescued", "as_came", "park"]);
    }
    assert_eq!(claims(&answers[2].1.token())["access"][0]["actions"], serde_json::json!(["pull"]));
}

#[test]
fn a15_grace_gives_what_was_granted_before_for_exactly_this_scope() {
    let (stage, core, gate) = scene(Version::V2_10_2, SHORT_PARK);
    let before = claims(&token(gate.address, DEV, SCOPE));
    assert_eq!(ask_token("").basic(DEV).at(gate.address).subject(), "dev");
    assert_eq!(ask_token(PUBLIC).at(gate.address).subject(), "");
    stage.world.set_database(Health::Refusing);
    assert_eq!(ask_token(SCOPE).basic(DEV).at(core.address).subject(), "", "directly: a wrong password");
    assert_eq!(ask_token("").basic(DEV).at(core.address).status, 401, "docker login, directly");

    let answer = ask_token(SCOPE).basic(DEV).at(gate.address);
    let after = claims(&answer.token());
    assert_eq!(story(&gate, &answer), ["rescued", "as_came", "grace"]);
    for name in ["iss", "sub", "aud", "iat", "nbf", "jti", "access"] {
        assert_eq!(after[name], before[name], "{name}");
    }
    let lives = |claims: &serde_json::Value| claims["exp"].as_i64().expect("exp");
    assert!(lives(&after) < lives(&before), "{after}");
    let login = ask_token("").basic(DEV).at(gate.address);
    assert_eq!(story(&gate, &login)[2], "grace");
    let ping = Ask::get("/v2/").bearer(&login.token()).at(gate.address);
    assert_eq!(ping.status, 200, "docker login goes on: {}", ping.text());

    for (name, ask) in [
        ("another scope", ask_token(OTHER).basic(DEV)),
        ("a wrong password", ask_token(SCOPE).basic(WRONG)),
        ("nobody", ask_token(PUBLIC)),
        ("a login with a wrong password", ask_token("").basic(WRONG)),
    ] {
        is_unavailable(&gate, &ask.at(gate.address), name);
    }
    stage.world.set_database(Health::Up);
    let pulled = pull(MANIFEST).bearer(&answer.token()).at(gate.address);
    assert_eq!(pulled.status, 200, "{}", gate.tail());
    assert_eq!(story(&gate, &ask_token(SCOPE).basic(DEV).at(gate.address)), ["forwarded", "as_came", ""]);
}

#[test]
fn a15_a_refusal_while_all_was_healthy_suspends_what_was_granted() {
    let (stage, _core, gate) = scene(Version::V2_10_2, SHORT_PARK);
    assert_eq!(ask_token(SCOPE).basic(DEV).at(gate.address).subject(), "dev");
    stage.world.add_user("dev", "Another12345", false);
    let refused = ask_token(OTHER).basic(DEV).at(gate.address);
    assert_eq!((refused.subject().as_str(), &*story(&gate, &refused)[2]), ("", "credential_refused"));
    stage.world.set_database(Health::Refusing);
    is_unavailable(&gate, &ask_token(SCOPE).basic(DEV).at(gate.address), "a former password");
    stage.world.set_database(Health::Up);
    stage.world.add_user("dev", DEV.1, false);
    stage.world.add_member("priv", "dev", Role::Developer);
    assert_eq!(ask_token(SCOPE).basic(DEV).at(gate.address).subject(), "dev", "Harbor accepts it again");
    stage.world.set_database(Health::Refusing);
    let granted = ask_token(SCOPE).basic(DEV).at(gate.address);
    assert_eq!(story(&gate, &granted)[2], "grace", "{}", gate.tail());
}

#[test]
fn a15_grace_moves_its_own_window_never_and_gives_five_minutes_at_most() {
    let (stage, _core, gate) =
        scene(Version::V2_10_2, "[park]\ntimeout = \"1s\"\n[grace]\nwindow = \"9s\"\n");
    let accepted = Instant::now();
    assert_eq!(ask_token(SCOPE).basic(DEV).at(gate.address).subject(), "dev");
    stage.world.set_database(Health::Refusing);
    let granted = ask_token(SCOPE).basic(DEV).at(gate.address);
    assert_eq!(story(&gate, &granted)[2], "grace", "{}", gate.tail());
    let now = Clock::system().now().0;
    let ends = claims(&granted.token())["exp"].as_i64().expect("exp");
    assert!(ends <= now + 300, "{ends} is later than five minutes after {now}");
    thread::sleep(Duration::from_secs(10).saturating_sub(accepted.elapsed()));
    is_unavailable(&gate, &ask_token(SCOPE).basic(DEV).at(gate.address), "after the window");
}

#[test]
fn a15_a_write_through_us_and_a_window_of_nothing_end_grace() {
    let (stage, core, gate) = scene(Version::V2_10_2, SHORT_PARK);
    let write = |method: &str, path: &str, body: &str| {
        let ask = Ask::new(method, &format!("/api/v2.0/{path}")).header("Content-Type", "application/json");
        let answer = ask.body(body).basic(ADMIN).at(gate.address);
        assert!([200, 201].contains(&answer.status), "{method} {path}: {} {}", answer.status, answer.text());
    };
    stage.world.add_project("theirs", false);
    let (theirs, mine) = ("repository:theirs/x:pull", ask_token(SCOPE).basic(DEV));
    stage.world.add_member("theirs", "dev", Role::Developer);
    let other = stage.world.add_user("leaver", "Leaver12345", false);
    let theirs = ask_token(theirs).basic(DEV);
    let known = || {
        for ask in [&mine, &theirs] {
            assert_eq!(ask.at(gate.address).subject(), "dev");
        }
    };
    let of_grace = || {
        stage.world.set_database(Health::Refusing);
        let found = [&mine, &theirs].map(|ask| story(&gate, &ask.at(gate.address))[2].clone());
        stage.world.set_database(Health::Up);
        found
    };
    known();
    write("POST", "projects", "{\"project_name\":\"fresh\"}");
    assert_eq!(of_grace(), ["grace", "grace"], "a new project takes nothing from anybody");
    known();
    write("PUT", "projects/theirs", "{\"metadata\":{\"public\":\"false\"}}");
    assert_eq!(of_grace(), ["grace", "outage"], "what was granted in that project");
    known();
    write("DELETE", &format!("users/{other}"), "");
    assert_eq!(of_grace(), ["outage", "outage"], "nobody can tell whose the number is");
    let off = Setup::before(&[&core], &[&core.key_file])
        .rest(SHORT_PARK)
        .rest("[grace]\nwindow = \"0s\"\n")
        .start();
    assert_eq!(ask_token(SCOPE).basic(DEV).at(off.address).subject(), "dev");
    stage.world.set_database(Health::Refusing);
    is_unavailable(&off, &ask_token(PUBLIC).at(off.address), "without a window");
}

#[test]
fn a8_a_token_of_grace_outlives_the_lifetime_that_harbors_tokens_have_and_no_other_does() {
    let stage = Stage::new();
    let core = stage.replica("core", |options| options.token_expiration = Duration::from_mins(1));
    core.seed();
    let setup = Setup::before(&[&core], &[&core.key_file]).keys("token_lifetime = \"1m\"").rest(SHORT_PARK);
    let (gate, other) = (
        setup.rest("[token]\ncache = \"0s\"").start(),
        Setup::before(&[&core], &[&core.key_file]).keys("token_lifetime = \"1m\"").start(),
    );
    assert_eq!(ask_token(SCOPE).basic(DEV).at(gate.address).subject(), "dev");
    stage.world.set_database(Health::Refusing);
    let answer = ask_token(SCOPE).basic(DEV).at(gate.address);
    assert_eq!(story(&gate, &answer)[2], "grace");
    stage.world.set_database(Health::Up);
    assert_eq!(pull(MANIFEST).bearer(&answer.token()).at(gate.address).status, 200, "{}", gate.tail());
    let elsewhere = pull(MANIFEST).bearer(&answer.token()).at(other.address);
    assert_eq!((elsewhere.status, &*story(&other, &elsewhere)[2]), (401, "token_lives_too_long"));
}

/// More uploads than go up at once after a wait.
const SLOW: usize = 20;

#[test]
fn a25_uploads_whose_clients_are_slow_hold_up_nobody_behind_them() {
    let (stage, core, gate) = scene(Version::V2_10_2, "[park]\ntimeout = \"15s\"\n");
    let bearer = token(gate.address, DEV, SCOPE);
    let open = || path_of(&Ask::new("POST", UPLOADS).body("").bearer(&bearer).at(gate.address));
    let uploads: Vec<_> = (0..SLOW).map(|_| open()).collect();
    let asks = || pull(MANIFEST).bearer(&bearer).at(gate.address);
    stage.world.set_database(Health::Hanging);
    thread::scope(|scope| {
        let first = scope.spawn(asks);
        parked(&gate, 1.0);
        let slow = |path: &String| {
            let patch = Ask::new("PATCH", path).bearer(&bearer).header("Content-Length", "1000000");
            let patch = patch.header("Content-Type", "application/octet-stream");
            let mut line = Line::open(gate.address);
            line.send(&patch.head()).and_then(|()| line.send(&[7; 1_000])).expect("it reads");
            line
        };
        let slow: Vec<_> = uploads.iter().map(slow).collect();
        parked(&gate, (1 + SLOW) as f64);
        let later: Vec<_> = (0..3).map(|_| scope.spawn(asks)).collect();
        parked(&gate, (1 + SLOW + later.len()) as f64);
        stage.world.set_database(Health::Up);
        for answer in [first].into_iter().chain(later).map(|asker| asker.join().expect("no panic")) {
            assert_eq!(answer.status, 200, "{}\n{}", answer.text(), gate.tail());
            assert_eq!(story(&gate, &answer)[2], "park");
        }
        assert_eq!(pull(MANIFEST).bearer(&bearer).at(core.address).status, 200, "as directly");
        drop(slow);
    });
}

#[test]
fn a25_what_one_address_asks_for_nobody_takes_nobody_elses_part() {
    let trusting = ports::free();
    let listener = format!("[[listener]]\naddress = \"{trusting}\"\ntrusted_proxies = [\"127.0.0.0/8\"]\n");
    let park = "[park]\ntimeout = \"15s\"\nrequests = 20\n";
    let (stage, _core, gate) = scene(Version::V2_10_2, &format!("{park}{listener}"));
    let from = |address, ask: Ask| ask.header("X-Forwarded-For", address);
    let (theirs, mine) = ("203.0.113.9", "198.51.100.7");
    assert_eq!(from(mine, ask_token(SCOPE).basic(DEV)).at(trusting).subject(), "dev");
    stage.world.set_database(Health::Refusing);
    let ask = |ask: Ask| move || ask.at(trusting);
    thread::scope(|scope| {
        // dev's name among them: whoever says a name has no part of who has proven it.
        let named = ask_token(SCOPE).basic(WRONG);
        let nobodys = (0..9).map(|n| ask_token(&format!("repository:library/seed{n}:pull")));
        let flood: Vec<_> =
            nobodys.chain([named]).map(|theirs_ask| scope.spawn(ask(from(theirs, theirs_ask)))).collect();
        parked(&gate, 10.0);
        let mine: Vec<_> = [("dev", ask_token(OTHER).basic(DEV)), ("", ask_token(PUBLIC))]
            .map(|(name, of_mine)| (name, scope.spawn(ask(from(mine, of_mine)))))
            .into();
        parked(&gate, 12.0);
        stage.world.set_database(Health::Up);
        for (name, asker) in mine {
            let answer = asker.join().expect("no panic");
            assert_eq!((answer.status, &*answer.subject()), (200, name), "{}", gate.tail());
        }
        for asker in flood {
            asker.join().expect("no panic");
        }
    });
}
