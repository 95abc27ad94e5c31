//! Core's key file is broken (K7 to K9): core signs nothing and still takes passwords. Robots, users and everybody
//! go on, by tokens of ours that mean nothing to anybody else (A11).

use std::{
    fs,
    path::Path,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use tidegate::rehearsal::harbor::{KeyForm, Moment, Version};

use crate::{
    operating::{status, with_token},
    stage::{
        DEV, MANIFEST, PUBLIC_MANIFEST, ROBOT, Replica, SCOPE, Setup, Stage, ask_token, hold, pull, push,
        sha256, spare_key, story, token, told,
    },
    support::{gate::Gate, waiting},
    talk::{Answer, Ask},
};

/// A name, and what it does to the key file.
type Breakage = (&'static str, fn(&Path));

fn overwrite(path: &Path, form: KeyForm) {
    spare_key(1).rename_into(path, form).expect("a broken key file");
}

const BREAKAGES: [Breakage; 7] = [
    ("PKCS#8", |path| overwrite(path, KeyForm::Pkcs8)),
    ("EC", |path| overwrite(path, KeyForm::Ec)),
    ("empty", |path| overwrite(path, KeyForm::Empty)),
    ("garbage", |path| overwrite(path, KeyForm::Garbage)),
    ("half written", |path| overwrite(path, KeyForm::HalfWritten)),
    ("public", |path| overwrite(path, KeyForm::Public)),
    ("missing", |path| fs::remove_file(path).expect("no key file")),
];

const WRONG: (&str, &str) = ("dev", "guessed");
const PUBLIC: &str = "repository:library/seed:pull";

fn scene(version: Version) -> (Stage, Replica, Gate) {
    let stage = Stage::new();
    let core = stage.replica("core", |options| options.version = version);
    core.seed();
    // Every question reaches core.
    let gate = Setup::before(&[&core], &[]).rest("[token]\ncache = \"0s\"").start();
    (stage, core, gate)
}

/// The same with an empty key file, before anybody knows of it.
fn broken() -> (Stage, Replica, Gate) {
    let (stage, core, gate) = scene(Version::V2_10_2);
    overwrite(&core.key_file, KeyForm::Empty);
    (stage, core, gate)
}

fn is_ours(token: &str) -> bool {
    token.starts_with("tidegate1_") && !token.contains('.')
}

fn own(gate: &Gate, ask: &Ask) -> String {
    let answer = ask.at(gate.address);
    let token = answer.token();
    assert!(is_ours(&token), "{token}");
    assert_eq!(story(gate, &answer), ["rescued", "as_came", "own_token"]);
    token
}

/// The flow of docker: ping, token, push, pull.
fn docker(address: std::net::SocketAddr, who: (&str, &str), tag: &str) -> Result<(), Answer> {
    let ping = Ask::get("/v2/").at(address);
    assert!(ping.header("www-authenticate").is_some_and(|c| c.starts_with("Bearer ")), "{ping:?}");
    let scope = "repository:priv/seed:pull,push&account=x&client_id=docker&offline_token=true";
    let answer = ask_token(scope).basic(who).at(address);
    if answer.status != 200 || answer.token().is_empty() {
        return Err(answer);
    }
    let token = answer.token();
    let layer = format!("{tag} of {}", who.0).into_bytes();
    push(address, "priv/seed", tag, &layer, |ask| ask.bearer(&token))?;
    let paths = [format!("/v2/priv/seed/manifests/{tag}"), format!("/v2/priv/seed/blobs/{}", sha256(&layer))];
    for path in paths {
        let pulled = pull(&path).bearer(&token).at(address);
        if pulled.status != 200 {
            return Err(pulled);
        }
    }
    Ok(())
}

/// Everybody's requests in one state of the key file; `known` is a token from before.
fn all_goes_on(gate: &Gate, core: &Replica, known: &str, state: &str) {
    for (number, who) in [ROBOT, DEV].into_iter().enumerate() {
        let tag = format!("{}{number}", state.replace([' ', '#'], "-").to_lowercase());
        assert!(docker(core.address, who, &tag).is_err(), "{state}: directly");
        assert_eq!(docker(gate.address, who, &tag), Ok(()), "{state}: {who:?}\n{}", gate.tail());
    }
    let before = pull(MANIFEST).bearer(known).at(gate.address);
    assert_eq!((before.status, &*story(gate, &before)[1]), (200, "replay"), "{state}: a token from before");
    // docker login: no scope, then a ping with the token.
    let login = own(gate, &ask_token("").basic(DEV));
    let pinged = Ask::get("/v2/").bearer(&login).at(gate.address);
    assert_eq!(
        (pinged.status, story(gate, &pinged)),
        (200, ["rescued", "replay", "own_token"].map(str::to_owned))
    );
    let beyond = pull(MANIFEST).bearer(&login).at(gate.address);
    assert_eq!((beyond.status, &*story(gate, &beyond)[2]), (401, "own_token_scope"), "{state}: A5");
    // Everybody.
    assert!(
        !matches!(ask_token(PUBLIC).at(core.address), answer if answer.status == 200 && !answer.token().is_empty())
    );
    let nobody = own(gate, &ask_token(PUBLIC));
    let public = pull(PUBLIC_MANIFEST).bearer(&nobody).at(gate.address);
    assert_eq!(
        (public.status, story(gate, &public)),
        (200, ["rescued", "blank", "own_token"].map(str::to_owned))
    );
    let private = pull(MANIFEST).bearer(&nobody).at(gate.address);
    assert_eq!(private.header("www-authenticate"), Some(r#"Basic realm="harbor""#), "{state}: C4");
    let push = Ask::new("POST", "/v2/library/seed/blobs/uploads/").body("").bearer(&nobody).at(gate.address);
    assert_eq!((private.status, push.status), (401, 401), "{state}");
    assert_eq!(ask_token("").at(gate.address).status, 401, "{state}: T7");
}

fn goes_on_in_every_state(version: Version) {
    let (_stage, core, gate) = scene(version);
    for (state, break_it) in BREAKAGES {
        let state = format!("{version} {state}");
        let known = token(gate.address, DEV, SCOPE);
        assert!(!is_ours(&known), "{state}: Harbor's own, at once");
        break_it(&core.key_file);
        all_goes_on(&gate, &core, &known, &state);
        let ours = own(&gate, &ask_token("repository:priv/seed:pull").basic(DEV));
        hold(&core.key_file, 0);
        let mended = token(gate.address, DEV, "repository:priv/seed:push");
        assert!(!is_ours(&mended), "{state}: the first question after the mend is answered by Harbor");
        for token in [&ours, &mended, &known] {
            let answer = pull(MANIFEST).bearer(token).at(gate.address);
            assert_eq!(answer.status, 200, "{state}: all go on\n{}", gate.tail());
        }
        let last = pull(MANIFEST).bearer(&mended).at(gate.address);
        assert_eq!(story(&gate, &last), ["forwarded", "as_came", ""], "{state}: normal again");
    }
}

#[test]
fn all_goes_on_in_every_state_of_the_key_file_of_2_8() {
    goes_on_in_every_state(Version::V2_8_4);
}

#[test]
fn all_goes_on_in_every_state_of_the_key_file_of_2_10() {
    goes_on_in_every_state(Version::V2_10_2);
}

#[test]
fn all_goes_on_in_every_state_of_the_key_file_of_2_15() {
    goes_on_in_every_state(Version::V2_15_2);
}

#[test]
fn with_the_same_key_file_at_hand_all_goes_on_too() {
    let stage = Stage::new();
    let core = stage.replica("core", |_| {});
    core.seed();
    let gate = Setup::before(&[&core], &[&core.key_file]).start();
    for (state, break_it) in BREAKAGES {
        hold(&core.key_file, 0);
        let known = token(gate.address, DEV, SCOPE);
        break_it(&core.key_file);
        all_goes_on(&gate, &core, &known, state);
        let status = pull(MANIFEST).bearer(&known).at(gate.address).status;
        assert_eq!(status, 200, "{state}");
    }
}

#[test]
fn a_wrong_password_gets_what_harbor_gives_it() {
    let (_stage, core, gate) = broken();
    let answer = ask_token(SCOPE).basic(WRONG).at(gate.address);
    assert!(is_ours(&answer.token()));
    assert_eq!(story(&gate, &answer), ["forwarded", "as_came", "credential_refused"], "nobody's token (T8)");
    let private = pull(MANIFEST).bearer(&answer.token()).at(gate.address);
    assert_eq!(private.status, 401, "it is nobody's");
    assert_eq!(pull(PUBLIC_MANIFEST).bearer(&answer.token()).at(gate.address).status, 200);
    let login = ask_token("").basic(WRONG).at(gate.address);
    assert_eq!((login.status, login.body.len()), (401, 0), "T9");
    assert_eq!(ask_token("").basic(WRONG).at(core.address).status, 401, "directly");
}

#[test]
fn a7_a_strangers_guesses_take_nobodys_token_away() {
    let (_stage, core, gate) = broken();
    let ours = own(&gate, &ask_token(SCOPE).basic(DEV));
    let asked = core.asked().len();
    thread::scope(|scope| {
        let guess = scope.spawn(|| ask_token("repository:priv/b:pull").basic(WRONG).at(gate.address));
        waiting::holds("core has the guess", Duration::from_secs(5), || core.asked().len() > asked);
        let directly = pull(MANIFEST).basic(DEV).at(core.address);
        assert_eq!(directly.status, 401, "directly: the name is locked");
        let pulled = pull(MANIFEST).bearer(&ours).at(gate.address);
        assert_eq!(pulled.status, 200, "{}", gate.tail());
        let again = own(&gate, &ask_token("repository:priv/c:pull").basic(DEV));
        assert_eq!(pull(MANIFEST).bearer(&again).at(gate.address).status, 200);
        guess.join().expect("an asker");
    });
}

#[test]
fn a4_a_changed_password_ends_the_token_and_is_not_tried_again() {
    let (stage, core, gate) = broken();
    let ours = own(&gate, &ask_token(SCOPE).basic(DEV));
    stage.world.add_user("dev", "Another12345", false);
    let refused = pull(MANIFEST).bearer(&ours).at(gate.address);
    assert_eq!(refused.status, 401);
    assert_eq!(told(&gate, &refused)["outcome"], "forwarded");
    let sent = core.asked().len();
    let again = pull(MANIFEST).bearer(&ours).at(gate.address);
    assert_eq!((again.status, &*story(&gate, &again)[2]), (401, "credential_refused"));
    let since = core.asked().split_off(sent);
    let basic = |value: &str| value.starts_with("Basic");
    assert!(!since.iter().any(|head| head.header("authorization").is_some_and(basic)), "{since:?}");
    let other = ("dev", "Another12345");
    let next = own(&gate, &ask_token(SCOPE).basic(other));
    assert_eq!(pull(MANIFEST).bearer(&next).at(gate.address).status, 200);
}

#[test]
fn what_a_user_may_not_do_ends_nothing_of_what_they_may() {
    let (stage, _core, gate) = broken();
    stage.world.add_user("guest", "Guest12345", false);
    let guest = ("guest", "Guest12345");
    let ours = own(&gate, &ask_token(&format!("{SCOPE}&scope={PUBLIC}")).basic(guest));
    let forbidden = pull(MANIFEST).bearer(&ours).at(gate.address);
    assert_eq!((forbidden.status, &*story(&gate, &forbidden)[0]), (401, "forwarded"), "Harbor judges");
    let public = pull(PUBLIC_MANIFEST).bearer(&ours).at(gate.address);
    assert_eq!((public.status, &*story(&gate, &public)[1]), (200, "replay"));
}

#[test]
fn a5_a_token_of_ours_is_good_for_what_was_asked_for() {
    let (_stage, core, gate) = broken();
    let pulls = own(&gate, &ask_token("repository:priv/seed:pull").basic(DEV));
    let rows = [
        (200, pull(MANIFEST)),
        (401, Ask::new("POST", "/v2/priv/seed/blobs/uploads/").body("")),
        (401, Ask::new("DELETE", MANIFEST)),
        (401, Ask::get("/v2/_catalog")),
        (401, pull("/v2/other/x/manifests/v1")),
    ];
    for (status, ask) in rows {
        assert_eq!(ask.clone().bearer(&pulls).at(gate.address).status, status, "{ask:?}");
    }
    let basic = Ask::new("POST", "/v2/priv/seed/blobs/uploads/").body("").basic(DEV).at(core.address);
    assert_eq!(basic.status, 202, "the credential itself could");
}

#[test]
fn a11_nothing_but_the_whole_token_of_this_process_is_worth_anything() {
    let (_stage, core, gate) = broken();
    let other = Setup::before(&[&core], &[]).start();
    let ours = own(&gate, &ask_token(SCOPE).basic(DEV));
    let foreign = own(&other, &ask_token(SCOPE).basic(DEV));
    assert_eq!(pull(MANIFEST).bearer(&ours).at(gate.address).status, 200);
    let mut tampered = ours.clone().into_bytes();
    let middle = tampered.len() / 2;
    tampered[middle] = if tampered[middle] == b'A' { b'B' } else { b'A' };
    let tampered = String::from_utf8(tampered).expect("text");
    for (what, token) in [
        ("foreign", foreign.as_str()),
        ("tampered", &tampered),
        ("cut", &ours[..ours.len() - 1]),
        ("empty", "tidegate1_"),
        ("longer", &format!("{ours}A")),
        ("a JWS of it", &format!("{ours}.{ours}.{ours}")),
    ] {
        let answer = pull(MANIFEST).bearer(token).at(gate.address);
        assert_eq!(answer.header("www-authenticate"), Some(r#"Basic realm="harbor""#), "{what}");
        assert_eq!((answer.status, &*story(&gate, &answer)[1]), (401, "blank"), "{what}");
    }
    for head in core.asked() {
        let sent = head.header("authorization").unwrap_or_default();
        assert!(!sent.contains("tidegate1_"), "it never goes up itself: {sent}");
    }
    // Core signs again: its key knows nothing of our tokens.
    hold(&core.key_file, 0);
    assert_eq!(pull(MANIFEST).bearer(&ours).at(core.address).status, 401, "core knows nothing of it");
    let log = gate.events().into_iter().map(|line| line.to_string()).collect::<String>();
    for secret in [ours.as_str(), &ours[..40], DEV.1] {
        assert!(!log.contains(secret), "nothing of it in the log");
    }
}

#[test]
fn observe_mode_answers_nothing_in_harbors_place() {
    let (_stage, core, gate) = scene(Version::V2_10_2);
    drop(gate);
    let gate = Setup::before(&[&core], &[]).top("mode = \"observe\"").start();
    overwrite(&core.key_file, KeyForm::Empty);
    for ask in [ask_token(SCOPE).basic(DEV), ask_token(PUBLIC)] {
        assert_eq!(ask.at(gate.address).status, 500, "A27");
    }
}

#[test]
fn a_scope_that_core_cannot_read_is_no_broken_key() {
    let (_stage, core, gate) = scene(Version::V2_10_2);
    for ask in [ask_token("repository:seed:pull"), ask_token("repository:seed:pull").basic(DEV)] {
        assert_eq!(ask.at(core.address).status, 500, "directly");
        let answer = ask.at(gate.address);
        assert_eq!(
            (answer.status, story(&gate, &answer)),
            (500, ["forwarded", "as_came", ""].map(str::to_owned))
        );
    }
    let held = gate.metrics().sum("tidegate_endpoint_held_key", &[]);
    assert!(held > 0.5, "the key is still known");
    assert_eq!(gate.metrics().sum("tidegate_alarms", &[]).round() as u64, 0);
    let token = token(gate.address, DEV, SCOPE);
    let answer = pull(MANIFEST).bearer(&token).at(gate.address);
    assert_eq!(story(&gate, &answer), ["forwarded", "as_came", ""]);
}

/// Requests of one principal that core has at once, at most, where `per_principal` is so many and nobody could learn
/// Harbor's mode: then every user's may be a CLI secret.
fn most_at_once(who: (&str, &str), allowed: usize, wanted: usize) -> usize {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&most);
    let stage = Stage::new();
    let core = stage.replica("core", |options| {
        options.gate = Some(Arc::new(move |moment, head| {
            if head.target.starts_with("/api/v2.0/systeminfo") {
                return Some(Box::pin(std::future::pending()));
            }
            let waits = moment == Moment::Allowed && head.header("user-agent") == Some("many");
            waits.then(|| {
                let (now, most) = (Arc::clone(&now), Arc::clone(&most));
                Box::pin(async move {
                    most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    // All that may come are there before one goes; then any that may not has time to come too.
                    let full = async {
                        while most.load(Ordering::SeqCst) < wanted {
                            tokio::time::sleep(Duration::from_millis(5)).await;
                        }
                    };
                    tokio::time::timeout(Duration::from_secs(5), full).await.ok();
                    tokio::time::sleep(HELD).await;
                    now.fetch_sub(1, Ordering::SeqCst);
                }) as Pin<Box<dyn Future<Output = ()> + Send>>
            })
        }));
    });
    core.seed();
    let replay = format!("[replay]\nper_principal = {allowed}");
    let gate = Setup::before(&[&core], &[]).upstream("probe = { timeout = \"1s\" }").rest(&replay).start();
    overwrite(&core.key_file, KeyForm::Empty);
    let ours = own(&gate, &ask_token(SCOPE).basic(who));
    let ask = |agent| pull(MANIFEST).header("User-Agent", agent).bearer(&ours).at(gate.address).status;
    // The first of a principal runs alone.
    assert_eq!(ask("first"), 200, "{}", gate.tail());
    thread::scope(|scope| {
        let asked: Vec<_> = (0..12).map(|_| scope.spawn(|| ask("many"))).collect();
        for asked in asked {
            assert_eq!(asked.join().expect("an asker"), 200, "{}", gate.tail());
        }
    });
    counted.load(Ordering::SeqCst)
}

/// How long core holds each of them then.
const HELD: Duration = Duration::from_millis(100);

#[test]
fn no_more_replays_of_a_principal_run_at_once_than_are_configured() {
    assert_eq!([1, 3].map(|allowed| most_at_once(DEV, allowed, allowed)), [1, 3]);
    assert_eq!(most_at_once(ROBOT, 1, 8), 8, "a robot's secret never reaches an identity provider");
}

/// Alarms now, as `subject: cause; remedy`.
fn alarms(gate: &Gate) -> Vec<String> {
    let shown = status(gate);
    let alarms = shown["alarms"].as_array().cloned().unwrap_or_default();
    let text = |alarm: &serde_json::Value, field: &str| alarm[field].as_str().unwrap_or_default().to_owned();
    let line =
        |alarm| format!("{}: {}; {}", text(alarm, "subject"), text(alarm, "cause"), text(alarm, "remedy"));
    alarms.iter().map(line).collect()
}

#[test]
fn the_alarm_names_the_endpoint_and_what_is_wrong_with_the_file() {
    let causes = [
        ("PKCS#8", "the key is PKCS#8", "openssl rsa -traditional"),
        ("EC", "the key is EC", "openssl genrsa -traditional"),
        ("empty", "the file is empty", "rename it over the path"),
        ("garbage", "neither PEM blocks nor", "rename it over the path"),
        ("half written", "ends in the middle", "rename it over the path"),
        ("public", "public keys only", "TOKEN_PRIVATE_KEY_PATH"),
        ("missing", "the file is not there", "/etc/core/private_key.pem"),
    ];
    let stage = Stage::new();
    let core = stage.replica("core", |_| {});
    let setup = Setup::before(&[&core], &[&core.key_file]);
    let (gate, _) = with_token(&stage, &setup);
    let (file, endpoint) = (core.key_file.display().to_string(), core.address.to_string());
    for ((state, break_it), (name, cause, remedy)) in BREAKAGES.into_iter().zip(causes) {
        assert_eq!(state, name);
        break_it(&core.key_file);
        token_of_ours(&gate);
        waiting::holds(&format!("{state}: {:?}", alarms(&gate)), Duration::from_secs(20), || {
            let alarms = alarms(&gate);
            let of_file = |a: &String| a.starts_with(&file) && a.contains(cause) && a.contains(remedy);
            let of_core = |a: &String| {
                a.starts_with(&endpoint)
                    && a.contains("answers token requests with 500")
                    && a.contains("uid 10000")
            };
            alarms.iter().any(of_file) && alarms.iter().any(of_core)
        });
        hold(&core.key_file, 0);
        assert!(!is_ours(&token(gate.address, DEV, SCOPE)));
        waiting::holds("the alarms end", Duration::from_secs(20), || {
            alarms(&gate).iter().all(|alarm| !alarm.starts_with(&endpoint) && !alarm.contains(cause))
        });
    }
    let told = |message: &str| {
        let events = gate.events().into_iter();
        events.filter(|event| event["message"].as_str().is_some_and(|m| m.contains(message))).count()
    };
    assert!(told("core can't sign tokens") >= BREAKAGES.len(), "each time in the log");
    assert!(told("core signs tokens again") >= BREAKAGES.len());
}

fn token_of_ours(gate: &Gate) {
    assert!(is_ours(&ask_token(PUBLIC).at(gate.address).token()));
}

#[test]
fn a_key_file_that_only_its_owner_may_read_is_suspected_while_core_cannot_sign() {
    use std::os::unix::fs::PermissionsExt as _;
    let stage = Stage::new();
    let core = stage.replica("core", |_| {});
    let ours = stage.path("ours.pem");
    hold(&ours, 0);
    fs::set_permissions(&ours, fs::Permissions::from_mode(0o600)).expect("its mode");
    let (gate, _) = with_token(&stage, &Setup::before(&[&core], &[&ours]));
    assert_eq!(alarms(&gate), Vec::<String>::new());
    overwrite(&core.key_file, KeyForm::Empty);
    token_of_ours(&gate);
    let alarms = alarms(&gate);
    assert!(
        alarms.iter().any(|alarm| alarm.contains("core's uid 10000 may not read the file")),
        "{alarms:?}"
    );
}
