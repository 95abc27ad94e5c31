//! The move to the endpoints with `side = "next"`: who goes there, what stays where it began, and how it ends by itself.

use std::{collections::BTreeSet, net::SocketAddr, path::PathBuf, process::Command, time::Duration};

use tidegate::words::clock::Clock;

use crate::{
    operating::{screen, status, with_token},
    stage::{
        ADMIN, DEV, MANIFEST, PUBLIC_MANIFEST, Replica, SCOPE, Setup, Stage, ask_token, hold, path_of, pull,
        push, sha256, story,
    },
    support::{
        failing::{Failing, How},
        gate::Gate,
        ports, settings, waiting,
    },
    talk::{Answer, Ask, Line},
};

const ANONYMOUS: &str = "repository:library/seed:pull";
/// Clients of the row, each with an address of its own.
const CLIENTS: u8 = 40;

/// Two sides with a key each, and a listener behind which clients have many addresses.
struct Scene {
    current: Replica,
    next: Replica,
    broken: Failing,
    steady: Failing,
    gate: Gate,
    /// Where clients' addresses are what they say.
    door: SocketAddr,
    secret: PathBuf,
    _stage: Stage,
}

impl Scene {
    fn new(ramp: &str, known: bool) -> Self {
        Self::with(ramp, known, |setup| setup)
    }

    fn with(ramp: &str, known: bool, more: impl Fn(Setup) -> Setup) -> Self {
        let stage = Stage::new();
        let current = stage.replica("current", |_| {});
        let next = stage.replica("next", |_| {});
        hold(&next.key_file, 1);
        current.seed();
        let (steady, broken) = (Failing::before(current.address), Failing::before(next.address));
        let door = ports::free();
        let keys: &[&std::path::Path] = if known { &[&current.key_file, &next.key_file] } else { &[] };
        let setup = Setup::before(&[], keys)
            .endpoint(&format!("http://{}", steady.address))
            .endpoint_with(&format!("url = \"http://{}\", side = \"next\"", broken.address))
            .upstream("probe = { every = \"300ms\", in_window = \"300ms\" }")
            .rest(&format!("[[listener]]\naddress = \"{door}\"\ntrusted_proxies = [\"127.0.0.1\"]"))
            .rest("[token]\ncache = \"0s\"")
            .rest(&format!("[ramp]\n{ramp}"));
        let (gate, secret) = with_token(&stage, &more(setup));
        Self { current, next, broken, steady, gate, door, secret, _stage: stage }
    }

    /// What a client at `10.0.0.n` is answered.
    fn of(&self, n: u8, ask: Ask) -> Answer {
        ask.header("X-Forwarded-For", &address(n)).at(self.door)
    }

    /// The operator steers; what the command prints.
    fn ramp(&self, arguments: &[&str]) -> String {
        let admin = format!("http://{}", self.gate.admin);
        let mut command = Command::new(settings::tidegate());
        command.arg("ramp").args(arguments).args(["--admin", &admin, "--admin-token-file"]);
        let output = command.arg(&self.secret).output().expect("tidegate runs");
        let text = String::from_utf8([output.stdout, output.stderr].concat()).expect("text");
        assert!(output.status.success(), "{arguments:?}\n{text}");
        text
    }

    /// The clients that the next side has seen since it was last looked at.
    fn seen_by_next(&self, before: usize) -> BTreeSet<String> {
        let heads = self.next.asked();
        heads[before..].iter().filter_map(|head| head.header("x-real-ip").map(str::to_owned)).collect()
    }

    fn is_stopped(&self) -> bool {
        self.gate.metrics().sum("tidegate_ramp_stopped", &[]) > 0.5
    }
}

fn address(n: u8) -> String {
    format!("10.0.0.{n}")
}

/// A client's pull: ping, token, manifest. The first answer that it would give up at is the error.
fn pulls(scene: &Scene, n: u8) -> Result<(), Answer> {
    let expect = |answer: Answer, status: u16| if answer.status == status { Ok(answer) } else { Err(answer) };
    expect(scene.of(n, Ask::get("/v2/")), 401)?;
    let token = expect(scene.of(n, ask_token(SCOPE).basic(DEV)), 200)?.token();
    expect(scene.of(n, pull(MANIFEST).bearer(&token)), 200)?;
    let token = expect(scene.of(n, ask_token(ANONYMOUS)), 200)?.token();
    expect(scene.of(n, pull(PUBLIC_MANIFEST).bearer(&token)), 200).map(|_| ())
}

/// All clients pull, some push; what failed.
fn round(scene: &Scene, number: u8) -> Vec<(u8, Answer)> {
    let mut failed = Vec::new();
    for n in 1..=CLIENTS {
        failed.extend(pulls(scene, n).err().map(|answer| (n, answer)));
        if n % 8 == 0 {
            let token = scene.of(n, ask_token("repository:priv/pushed:pull,push").basic(DEV)).token();
            let layer = format!("layer of {n} in round {number}").into_bytes();
            let tag = format!("{n}-{number}");
            let authorize = |ask: Ask| ask.bearer(&token).header("X-Forwarded-For", &address(n));
            let pushed = push(scene.door, "priv/pushed", &tag, &layer, authorize);
            failed.extend(pushed.err().map(|answer| (n, answer)));
        }
    }
    failed
}

#[test]
fn a_ramp_to_a_side_that_begins_to_fail_at_30_percent_stops_falls_back_and_no_client_fails() {
    let all = [How::Answers(500), How::Closes, How::Answers(503), How::Hangs];
    for how in &all[..if settings::long() { 4 } else { 2 }] {
        let how = *how;
        let scene = Scene::new("share = 0\nstop_at = \"1%\"", true);
        let mut failed = Vec::new();
        let mut number = 0;
        let mut play = |scene: &Scene| {
            number += 1;
            let before = scene.next.asked().len();
            failed.extend(round(scene, number));
            assert!(failed.is_empty(), "{how:?}: {failed:?}\n{}", scene.gate.tail());
            scene.seen_by_next(before)
        };
        assert_eq!(play(&scene).len(), 0, "{how:?}: nobody is sent there yet");
        scene.ramp(&["set", "10"]);
        let tenth = play(&scene);
        scene.ramp(&["set", "30"]);
        let third = play(&scene);
        assert!(tenth.is_subset(&third) && third.len() > tenth.len(), "{tenth:?} {third:?}");
        assert!((4..25).contains(&third.len()), "about 12 of 40: {third:?}");
        assert!(!scene.is_stopped(), "{}", scene.gate.tail());

        scene.broken.now(how);
        play(&scene);
        assert!(scene.broken.failed() > 0, "{how:?}: it was asked while it failed");
        scene.gate.wait_for("the ramp stops", |metrics| metrics.sum("tidegate_ramp_stopped", &[]) > 0.5);
        let ramp = &status(&scene.gate)["ramp"];
        assert_eq!(ramp["share"], 0, "{ramp}");
        let shown = screen(&scene.gate, &scene.secret);
        assert!(shown.contains("STOPPED") && shown.contains("tidegate ramp resume"), "{shown}");
        assert_eq!(play(&scene).len(), 0, "{how:?}: all went back");

        // The same share, sent by what knows nothing of sides; of those that hang, one will do.
        let most = if how == How::Hangs { 1 } else { CLIENTS.into() };
        let mut moved = (1..=CLIENTS).filter(|n| third.contains(&address(*n))).take(most);
        assert!(moved.all(|_| fails_directly(scene.broken.address)), "directly");
        assert!(!fails_directly(scene.current.address));

        scene.broken.now(How::Passes);
        waiting::holds("the next side answers again", Duration::from_secs(10), || {
            let endpoints = status(&scene.gate)["endpoints"].clone();
            endpoints.as_array().is_some_and(|all| all.iter().all(|one| one["healthy"] == true))
        });
        scene.ramp(&["resume"]);
        assert_eq!(play(&scene).len(), 0, "as planned: {}", scene.ramp(&["show"]));
        scene.ramp(&["set", "100"]);
        assert_eq!(play(&scene).len(), usize::from(CLIENTS), "{how:?}: all are there");
        assert!(!scene.is_stopped(), "{}", scene.gate.tail());
    }
}

/// A request that fails whoever serves it says nothing of the next side: anybody may send some.
#[test]
fn what_fails_at_both_sides_stops_no_ramp_and_what_fails_at_the_next_one_alone_does() {
    let scene = Scene::new("share = 100\nstop_at = \"1%\"", true);
    let status = |n: u8| scene.of(n, Ask::get("/api/v2.0/projects").basic(DEV)).status;
    assert_eq!(status(1), 200);
    let sides = [&scene.steady, &scene.broken];
    for side in sides {
        side.now(How::AnswersTo("GET /api/v2.0/projects", 500));
    }
    for n in 1..=20 {
        assert_eq!(status(n), 500, "{}", scene.gate.tail());
    }
    let asked = sides.map(Failing::failed);
    assert!(asked.iter().all(|asked| *asked >= 20), "both were asked: {asked:?}");
    assert!(!scene.is_stopped(), "{}", scene.gate.tail());
    scene.steady.now(How::Passes);
    for n in 1..=5 {
        assert_eq!(status(n), 200, "the current side does better");
    }
    assert!(scene.is_stopped(), "{}", scene.gate.tail());
}

/// What can't be sent twice gets Harbor's answer, and nobody else is asked: behind one address may be all clients there are.
#[test]
fn writes_that_the_next_side_fails_stop_the_ramp_though_all_come_from_one_address() {
    let scene = Scene::new("share = 100", true);
    let write = || Ask::new("POST", "/api/v2.0/projects").basic(DEV).body("{}");
    scene.broken.now(How::AnswersTo("POST /api/v2.0/projects", 500));
    for n in 1..=5 {
        assert!(!scene.is_stopped(), "after {} writes: {}", n - 1, scene.gate.tail());
        assert_eq!(scene.of(1, write()).status, 500, "{}", scene.gate.tail());
    }
    assert!(scene.is_stopped(), "{}", scene.gate.tail());
    assert_eq!(write().at(scene.broken.address).status, 500, "directly");
    assert_ne!(scene.of(1, write()).status, 500, "the current side serves it");
}

#[test]
fn a_busy_good_minute_before_the_next_side_fails_does_not_keep_the_ramp_from_stopping() {
    let clients = 4;
    let scene = Scene::new("share = 100", true);
    let asks = |n: u8| scene.of(n, Ask::get("/api/v2.0/projects").basic(DEV)).status;
    let good = if settings::long() { 270 } else { 50 };
    for n in (1..=clients).cycle().take(good * usize::from(clients)) {
        assert_eq!(asks(n), 200, "{}", scene.gate.tail());
    }
    assert!(!scene.is_stopped(), "{}", scene.gate.tail());
    scene.broken.now(How::AnswersTo("GET /api/v2.0/projects", 500));
    for n in (1..=clients).cycle().take(16) {
        assert_eq!(asks(n), 200, "the current side does better: {}", scene.gate.tail());
    }
    assert!(scene.is_stopped(), "{}", scene.gate.tail());
    let directly = Ask::get("/api/v2.0/projects").basic(DEV).at(scene.broken.address);
    assert_eq!(directly.status, 500, "directly");
}

#[test]
fn clients_that_leave_before_they_are_served_elsewhere_stop_the_ramp() {
    let scene = Scene::new("share = 100", true);
    scene.broken.now(How::AnswersTo("GET /api/v2.0/projects", 500));
    scene.steady.now(How::HangsOn("GET /api/v2.0/projects"));
    for n in 1..=5 {
        let mut line = Line::open(scene.door);
        line.send(&Ask::get("/api/v2.0/projects").basic(DEV).head()).expect("it is sent");
        waiting::holds("the current side has it", Duration::from_secs(20), || scene.steady.failed() >= n);
    }
    assert_eq!(scene.broken.failed(), 5, "{}", scene.gate.tail());
    scene.gate.wait_for("the ramp stops", |metrics| metrics.sum("tidegate_ramp_stopped", &[]) > 0.5);
}

#[test]
fn a_next_side_that_hangs_past_its_clients_patience_stops_the_ramp() {
    let scene = Scene::new("share = 100", true);
    // A write that changes what a credential may do is heard to its end, whoever leaves; this one isn't.
    scene.broken.now(How::HangsOn("/artifacts"));
    let target = "/api/v2.0/projects/priv/repositories/app/artifacts?from=library/seed:1";
    let write = || Ask::new("POST", target).basic(DEV).body("");
    let waits = |at: SocketAddr| {
        let mut line = Line::open(at);
        line.send(&write().head()).expect("it is sent");
        line
    };
    let lines: Vec<_> = (0..5).map(|_| waits(scene.door)).collect();
    waiting::holds("the next side has all", Duration::from_secs(20), || scene.broken.failed() == 5);
    let directly = waits(scene.broken.address);
    // The clients' own patience, which is a little longer than what is taken for the least of it.
    std::thread::sleep(Duration::from_millis(4_500));
    assert!(!scene.is_stopped(), "nobody has left yet: {}", scene.gate.tail());
    drop((lines, directly));
    scene.gate.wait_for("the ramp stops", |metrics| metrics.sum("tidegate_ramp_stopped", &[]) > 0.5);
    assert_eq!(scene.broken.failed(), 6, "directly as well");
}

/// In observe mode nothing is sent twice, so that no client may meet what fails. The same load in enforce mode goes there.
#[test]
fn a27_in_observe_mode_nobody_is_sent_to_the_next_side() {
    for (mode, goes) in [("enforce", true), ("observe", false)] {
        let scene = Scene::with("share = 100", true, |setup| setup.top(&format!("mode = \"{mode}\"")));
        scene.broken.now(How::Answers(500));
        for n in 1..=8 {
            let answer = scene.of(n, Ask::get("/v2/"));
            assert_eq!(answer.status, 401, "{mode}: {}", scene.gate.tail());
        }
        let asked = crate::talk::Line::open(scene.broken.address).ask(&Ask::get("/v2/"));
        assert!(asked.is_ok_and(|answer| answer.status == 500), "directly");
        let sent = scene.gate.metrics().sum("tidegate_ramp_requests_total", &[("side", "next")]);
        assert_eq!(sent > 0.5, goes, "{mode}: {sent}");
        let share = status(&scene.gate)["ramp"]["share"].as_u64();
        assert_eq!(share == Some(0), !goes || scene.is_stopped(), "{mode}: {share:?}");
    }
}

/// Whether a token can't be had there.
fn fails_directly(at: SocketAddr) -> bool {
    let asked = crate::talk::Line::open(at).ask(&ask_token(SCOPE).basic(DEV));
    !asked.is_ok_and(|answer| answer.status == 200)
}

#[test]
fn traffic_that_is_named_goes_to_the_next_side_and_nothing_else_does() {
    let by = "by = [\"project:priv\", \"agent:skopeo/1\", \"source:10.0.0.7\"]";
    let scene = Scene::new(by, true);
    let goes = |n: u8, ask: Ask| {
        let before = scene.next.asked().len();
        let answer = scene.of(n, ask);
        assert!([200, 401].contains(&answer.status), "{answer:?}");
        scene.next.asked().len() > before
    };
    let private = || ask_token(SCOPE).basic(DEV);
    let token = private().at(scene.gate.address).token();
    assert!(goes(1, private()) && goes(1, pull(MANIFEST).bearer(&token)), "by project");
    assert!(!goes(1, ask_token(ANONYMOUS)) && !goes(1, Ask::get("/v2/")));
    assert!(goes(1, Ask::get("/v2/").header("User-Agent", "a skopeo/1.18")), "by agent");
    assert!(!goes(1, Ask::get("/v2/").header("User-Agent", "skopeo/2")));
    assert!(goes(7, Ask::get("/v2/")) && goes(7, ask_token(ANONYMOUS)), "by source");
    let shown = scene.ramp(&["show"]);
    assert!(shown.contains("project:priv, agent:skopeo/1, source:10.0.0.7/32"), "{shown}");
    scene.ramp(&["stop"]);
    assert!(!goes(7, Ask::get("/v2/")), "stopped by the operator");
    let shown = screen(&scene.gate, &scene.secret);
    assert!(shown.contains("stopped: by an operator") && !shown.contains("by itself"), "no alarm: {shown}");
}

#[test]
fn uploads_and_log_ins_stay_with_the_side_that_they_began_on() {
    let scene = Scene::new("share = 100", true);
    let goes = |ask: Ask| {
        let before = scene.next.asked().len();
        let answer = scene.of(1, ask);
        (answer, scene.next.asked().len() > before)
    };
    let (token, _) = goes(ask_token("repository:priv/pushed:pull,push").basic(DEV));
    let token = token.token();
    let open = || Ask::new("POST", "/v2/priv/pushed/blobs/uploads/").bearer(&token).body("");
    let (opened, on_next) = goes(open());
    assert!(on_next && opened.status == 202, "{opened:?}");
    let credentials = "principal=dev&password=".to_owned() + DEV.1;
    let (before, _) = goes(Ask::get("/c/oidc/login"));
    let form = Ask::new("POST", "/c/login")
        .header("Content-Type", "application/x-www-form-urlencoded")
        .header("Cookie", &cookie_of(&before, "_gorilla_csrf"))
        .header("X-Harbor-CSRF-Token", before.header("x-harbor-csrf-token").expect("a token"));
    let (logged_in, on_next) = goes(form.body(credentials));
    let cookie = &cookie_of(&logged_in, "sid");
    assert!(on_next && cookie.starts_with("sid="), "{logged_in:?}");

    scene.ramp(&["stop"]);
    let (fresh, on_next) = goes(open());
    assert!(!on_next && fresh.status == 202, "what begins now begins on the current side");
    let (patched, on_next) = goes(Ask::new("PATCH", &path_of(&opened)).bearer(&token).body("bytes"));
    assert!(on_next && patched.status == 202, "{patched:?}");
    let at = path_of(&patched);
    let end = format!("{at}{}digest={}", if at.contains('?') { '&' } else { '?' }, sha256(b"bytes"));
    let (put, on_next) = goes(Ask::new("PUT", &end).bearer(&token).body(""));
    assert!(on_next && put.status == 201, "{put:?}");
    assert!(goes(Ask::get("/c/oidc/callback?state=s").header("Cookie", cookie)).1);
    assert!(!goes(Ask::get("/c/oidc/callback?state=s").header("Cookie", "sid=another")).1);
    assert!(!goes(Ask::get("/api/v2.0/ping").header("Cookie", cookie)).1, "only the log-in");
}

/// Name and value of a cookie that an answer sets.
fn cookie_of(answer: &Answer, name: &str) -> String {
    let set = answer.headers.iter().filter(|(header, _)| header.eq_ignore_ascii_case("set-cookie"));
    let pairs = set.filter_map(|(_, value)| value.split(';').next());
    let found = pairs.into_iter().find(|pair| pair.starts_with(&format!("{name}=")));
    found.unwrap_or_else(|| panic!("{name} in {answer:?}")).to_owned()
}

#[test]
fn a9_an_unverified_kid_leads_nobody_to_the_next_side_and_no_client_fails_for_the_ramps_sake() {
    let scene = Scene::new("share = 0", false);
    // Of tokens that it did not see issued, tidegate knows nothing but their kids.
    let of = |at: SocketAddr| ask_token(SCOPE).basic(DEV).at(at).token();
    let (of_current, of_next) = (of(scene.current.address), of(scene.next.address));
    let before = scene.next.asked().len();
    let refused = scene.of(1, pull(MANIFEST).bearer(&of_next));
    assert_eq!((refused.status, scene.next.asked().len()), (401, before), "{}", scene.gate.tail());
    assert_eq!(story(&scene.gate, &refused)[1], "blank");

    scene.ramp(&["set", "100"]);
    let there = scene.of(1, pull(MANIFEST).bearer(&of_next));
    assert_eq!(there.status, 200);
    let back = scene.of(1, pull(MANIFEST).bearer(&of_current));
    assert_eq!((back.status, story(&scene.gate, &back)[1].as_str()), (200, "reroute"), "where it works");
    let issued = scene.of(1, ask_token(SCOPE).basic(DEV)).token();
    scene.ramp(&["stop"]);
    let before = scene.next.asked().len();
    let replayed = scene.of(1, pull(MANIFEST).bearer(&issued));
    assert_eq!((replayed.status, story(&scene.gate, &replayed)[1].as_str()), (200, "replay"));
    assert_eq!(scene.next.asked().len(), before, "the ramp's side comes before the token's key");
    let held = scene.of(1, pull(MANIFEST).bearer(&of_next));
    assert_eq!(held.status, 200, "its client was there before");
}

#[test]
fn a_plan_takes_effect_by_itself_and_another_configuration_ends_what_an_operator_set() {
    let now = Clock::system().now();
    let past = now.minus(Duration::from_hours(1)).rfc3339();
    let soon = now.plus(Duration::from_secs(if settings::long() { 20 } else { 12 }));
    let later = now.plus(Duration::from_hours(1)).rfc3339();
    let steps = [(past, 0), (soon.rfc3339(), 100), (later.clone(), 50)];
    let steps = steps.map(|(at, share)| format!("{{ at = {at}, share = {share} }}"));
    let scene = Scene::new(&format!("plan = [{}]", steps.join(", ")), true);
    let share = |metrics: &crate::support::gate::Metrics| metrics.sum("tidegate_ramp_share_ratio", &[]);
    let before = (share(&scene.gate.metrics()), scene.seen_by_next(0).len());
    // A machine that took so long to start has nothing to show of the time before.
    if Clock::system().now() < soon {
        assert_eq!(before, (0.0, 0), "{}", scene.gate.tail());
    }
    scene.gate.wait_for("the step is reached", |metrics| share(metrics) > 0.99);
    assert!(Clock::system().now() >= soon, "not before its time");
    assert_eq!(pulls(&scene, 1), Ok(()));
    assert!(scene.seen_by_next(0).contains(&address(1)), "{}", scene.gate.tail());
    let shown = scene.ramp(&["show"]);
    assert!(shown.contains("100 % of clients") && shown.contains(&format!("50 % from {later}")), "{shown}");
    scene.ramp(&["set", "7"]);
    assert!((share(&scene.gate.metrics()) - 0.07).abs() < 0.001);
    assert_eq!(scene.of(1, ask_token(SCOPE).basic(ADMIN)).status, 200);
}
