//! Sidecars that are peers: each beside a core with a key of its own, they learn each other's public keys, and nothing from
//! anybody else. Replay is off: nothing rescues a token here but the keys that are known.

use crate::{
    operating::{screen, status, with_token},
    recorder::{Received, receive},
    stage::{DEV, MANIFEST, Replica, SCOPE, Setup, Stage, hold, kid, pull, story, token},
    support::{gate::Gate, ports, settings, tap::Tap, waiting},
    talk::{Answer, Ask, Line},
    tls::{Authority, NAME, terminate},
};
use serde_json::Value;
use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};
use tidegate::rehearsal::harbor::{CoreKey, KeyForm};

const PATIENCE: Duration = Duration::from_secs(20);
const SECRET: &str = "a-secret-that-all-peers-of-this-test-have";
/// Peers are asked when somebody needs it.
const SELDOM: &str = "every = \"1h\"";
const OFTEN: &str = "every = \"200ms\"";
const PAGE: &str = "/.tidegate/jwks.json";

/// Two cores of one Harbor with keys of their own, and where their sidecars are for each other.
struct Scene {
    stage: Stage,
    cores: [Replica; 2],
    doors: [SocketAddr; 2],
}

impl Scene {
    fn new() -> Self {
        let stage = Stage::new();
        let cores = ["first", "second"].map(|name| stage.replica(name, |_| {}));
        cores[0].seed();
        hold(&cores[1].key_file, 1);
        Self { stage, cores, doors: [ports::free(), ports::free()] }
    }

    /// A file with a secret of 32 characters or more.
    fn secret(&self, name: &str, text: &str) -> PathBuf {
        let path = self.stage.path(name);
        fs::write(&path, text).expect("a secret");
        path
    }

    fn by_secret(&self) -> String {
        format!("secret_file = \"{}\"", self.secret("peers-secret", SECRET).display())
    }

    fn urls(&self) -> String {
        format!("urls = [\"http://{}\", \"http://{}\"]", self.doors[0], self.doors[1])
    }

    /// The sidecar beside one of the cores, with these lines of `[peers]`.
    fn setup(&self, which: usize, peers: &[&str]) -> Setup {
        let door = self.doors[which];
        beside(&self.cores[which], "harbor", peers)
            .rest(&format!("[[listener]]\naddress = \"{door}\"\nscope = \"cluster\"\n"))
    }

    /// Both sidecars, peers of each other by a shared secret.
    fn peers(&self, every: &str) -> [(Gate, PathBuf); 2] {
        let (secret, urls) = (self.by_secret(), self.urls());
        [0, 1].map(|which| with_token(&self.stage, &self.setup(which, &[&urls, &secret, every])))
    }
}

fn beside(core: &Replica, deployment: &str, peers: &[&str]) -> Setup {
    Setup::before(&[core], &[&core.key_file])
        .top(&format!("deployment = \"{deployment}\""))
        .rest("[replay]\nenabled = false\n")
        .rest(&format!("[peers]\n{}\n", peers.join("\n")))
}

fn pulled(gate: &Gate, token: &str) -> Answer {
    pull(MANIFEST).bearer(token).at(gate.address)
}

fn verifies(gate: &Gate, key: usize) {
    gate.wait_for(&format!("key {key} verifies"), |metrics| {
        metrics.sum("tidegate_key_state", &[("kid", &kid(key)), ("state", "verifying")]) > 0.5
    });
}

fn knows(gate: &Gate, key: usize) -> bool {
    gate.metrics().values("tidegate_key_state", "kid").contains(&kid(key))
}

/// Waits for an alarm that says so, in the log, in the status and on its screen.
fn alarmed(gate: &Gate, token: &Path, words: &str) {
    let alarms = || status(gate)["alarms"].to_string();
    let said = waiting::until(PATIENCE, || alarms().contains(words).then_some(()));
    assert!(said.is_some(), "{words}: {}\n{}", alarms(), gate.tail());
    let shown = screen(gate, token).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(shown.contains(words), "{words}: {shown}");
}

/// Retires a key at once.
fn retire(gate: &Gate, kid: &str) {
    let path = format!("/v1/keys/{}/retire", kid.replace(':', "%3A"));
    let ask = Ask::new("POST", &path).on(&gate.admin.to_string()).bearer("a token of the operator's");
    let answer = ask.body("").at(gate.admin);
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// Names of the keys in a JWKS, each once.
fn names(document: &Value) -> Vec<String> {
    let mut names: Vec<String> = document["keys"]
        .as_array()
        .expect("keys")
        .iter()
        .map(|key| key["kid"].as_str().expect("a name").to_owned())
        .filter(|name| name.contains(':'))
        .collect();
    names.sort();
    names.dedup();
    names
}

#[test]
fn a_token_of_one_side_is_good_at_the_other_at_once() {
    let scene = Scene::new();
    let gates = scene.peers(SELDOM);
    for (here, there) in [(0, 1), (1, 0)] {
        let token = token(gates[here].0.address, DEV, SCOPE);
        let direct = pull(MANIFEST).bearer(&token).at(scene.cores[there].address);
        assert_eq!(direct.status, 401, "the other core itself refuses it");
        let gate = &gates[there].0;
        let answer = pulled(gate, &token);
        assert_eq!(answer.status, 200, "{here} at {there}\n{}", gate.tail());
        assert_eq!(story(gate, &answer), ["rescued", "resign", "resign"]);
    }
}

#[test]
fn peers_learn_each_others_keys_before_anybody_needs_them() {
    let scene = Scene::new();
    let gates = scene.peers(OFTEN);
    for (which, other) in [(0, 1), (1, 0)] {
        let (gate, secret) = &gates[which];
        verifies(gate, other);
        let peers = status(gate)["peers"].clone();
        assert_eq!(peers.as_array().map(Vec::len), Some(1), "itself is left out: {peers}");
        assert_eq!(peers[0]["address"].as_str(), Some(&*scene.doors[other].to_string()), "{peers}");
        assert_eq!(peers[0]["keys"], serde_json::json!([kid(other)]), "{peers}");
        assert!(peers[0]["heard_seconds_ago"].is_u64() && peers[0]["fault"].is_null(), "{peers}");
        assert!(screen(gate, secret).contains("PEER "));
        gate.wait_for("the peer is up", |metrics| {
            metrics.sum("tidegate_peer_up", &[("peer", &scene.doors[other].to_string())]) > 0.5
        });
        assert!(!status(gate)["alarms"].to_string().contains("peer"));
    }
    assert!(!gates[0].0.output().contains(SECRET) && !gates[1].0.output().contains(SECRET));
}

/// Core reads its key file at each use: its sidecar may not know the key yet that a token was signed with.
#[test]
fn a_key_that_core_has_just_taken_is_learned_by_all_who_ask_together() {
    const TOGETHER: usize = 16;
    let scene = Scene::new();
    let gates = scene.peers(SELDOM);
    let first = &gates[0].0;
    for (turn, key) in [2, 1, 0].into_iter().enumerate() {
        hold(&scene.cores[1].key_file, key);
        let token = token(scene.cores[1].address, DEV, SCOPE);
        let began = Instant::now();
        let start = Barrier::new(TOGETHER);
        let statuses: Vec<u16> = thread::scope(|scope| {
            let ask = || {
                start.wait();
                pulled(first, &token).status
            };
            let asked: Vec<_> = (0..TOGETHER).map(|_| scope.spawn(ask)).collect();
            asked.into_iter().map(|asked| asked.join().expect("an answer")).collect()
        });
        assert_eq!(statuses, [200; TOGETHER], "turn {turn}, {:?}\n{}", began.elapsed(), first.tail());
    }
}

#[test]
fn what_is_retired_at_once_on_one_side_ends_at_the_other() {
    let scene = Scene::new();
    let gates = scene.peers(OFTEN);
    let [(first, _), (second, _)] = &gates;
    let token = token(second.address, DEV, SCOPE);
    assert_eq!(pulled(first, &token).status, 200);
    retire(second, &kid(1));
    first.wait_for("the key is retired here too", |metrics| {
        metrics.sum("tidegate_key_state", &[("kid", &kid(1)), ("state", "retired")]) > 0.5
    });
    assert_eq!(pulled(first, &token).status, 401);
}

#[test]
fn a9_a_peer_brings_no_key_back_that_was_retired_here() {
    let scene = Scene::new();
    let secret = scene.by_secret();
    let publisher = scene.setup(1, &[&secret]).start();
    let asks = format!("urls = [\"http://{}\"]", scene.doors[1]);
    let (gate, _) = with_token(&scene.stage, &scene.setup(0, &[&secret, &asks, OFTEN]));
    let token = token(publisher.address, DEV, SCOPE);
    assert_eq!(pulled(&gate, &token).status, 200);
    retire(&gate, &kid(1));
    // Its peer, which asks nobody, goes on publishing it.
    for key in [2, 1] {
        hold(&scene.cores[1].key_file, key);
        publisher.wait_for("the publisher holds it", |metrics| {
            metrics.sum("tidegate_key_state", &[("kid", &kid(key)), ("state", "signing")]) > 0.5
        });
        if key == 2 {
            verifies(&gate, 2);
        }
        assert_eq!(pulled(&gate, &token).status, 401, "{}", gate.tail());
    }
}

#[test]
fn a10_a_learned_key_is_not_handed_on() {
    let scene = Scene::new();
    let (secret, first, second) = (scene.by_secret(), scene.doors[0], scene.doors[1]);
    let asks = |url: SocketAddr| format!("urls = [\"http://{url}\"]");
    let publisher = scene.setup(1, &[&secret]).start();
    let (between, _) = with_token(&scene.stage, &scene.setup(0, &[&secret, &asks(second), OFTEN]));
    let other = scene.stage.replica("third", |_| {});
    hold(&other.key_file, 2);
    let far = beside(&other, "harbor", &[&secret, &asks(first), OFTEN]).start();
    verifies(&between, 1);
    verifies(&far, 0);
    let token = token(publisher.address, DEV, SCOPE);
    assert_eq!(pulled(&between, &token).status, 200);
    assert_eq!(pulled(&far, &token).status, 401, "{}", far.tail());
    assert!(!knows(&far, 1), "who asks the one between learns that one's own keys");
    let open = Ask::get(PAGE).on(&between.admin.to_string()).at(between.admin).json();
    assert_eq!(names(&open), [kid(0)], "nor is it on the admin listener");
}

#[test]
fn a10_only_a_peer_of_this_deployment_is_heard_and_shown_anything() {
    let other = "another-secret-that-is-as-long-as-the-first";
    for (what, deployment, text, cause) in [
        ("another secret", "harbor", other, "it answered 403"),
        ("another deployment", "elsewhere", SECRET, "it answered 403"),
    ] {
        let scene = Scene::new();
        let (urls, ours) = (scene.urls(), scene.by_secret());
        let theirs = format!("secret_file = \"{}\"", scene.secret("theirs", text).display());
        let (first, file) = with_token(&scene.stage, &scene.setup(0, &[&urls, &ours, OFTEN]));
        let second = beside(&scene.cores[1], deployment, &[&urls, &theirs, OFTEN])
            .rest(&format!("[[listener]]\naddress = \"{}\"\nscope = \"cluster\"\n", scene.doors[1]))
            .start();
        alarmed(&first, &file, cause);
        let token = token(second.address, DEV, SCOPE);
        assert_eq!(pulled(&first, &token).status, 401, "{what}\n{}", first.tail());
        assert!(!knows(&first, 1) && !knows(&second, 0), "{what}");
    }
}

#[test]
fn a10_the_keys_are_shown_for_a_proof_on_listeners_for_the_cluster_alone() {
    let scene = Scene::new();
    let secret = scene.by_secret();
    let gate = scene.setup(0, &[&secret]).start();
    let ask = |ask: Ask, at| ask.at(at);
    let refused = ask(Ask::get(PAGE), scene.doors[0]);
    assert_eq!(refused.status, 403, "{}", refused.text());
    assert_eq!(story(&gate, &refused)[2], "peer_unproved");
    let nonce = "0123456789abcdefghijklmnop";
    for (nonce, proof) in [(nonce, "AAAA"), (nonce, ""), ("short", "AAAA"), ("", "")] {
        let answer = Ask::get(PAGE).header("tidegate-nonce", nonce).header("tidegate-proof", proof);
        assert_eq!(ask(answer, scene.doors[0]).status, 403, "{nonce} {proof}");
    }
    assert_eq!(ask(Ask::get(PAGE), gate.address).status, 404, "a public listener has no such page");
    assert_eq!(ask(Ask::new("POST", PAGE).body(""), scene.doors[0]).status, 404);
    assert_eq!(ask(Ask::get("/.tidegate/other"), scene.doors[0]).status, 404);
    // Without anything that says who may read it there is no page.
    let plain = ports::free();
    let silent = beside(&scene.cores[1], "harbor", &[])
        .rest(&format!("[[listener]]\naddress = \"{plain}\"\nscope = \"cluster\"\n"))
        .start();
    assert_eq!(ask(Ask::get(PAGE), plain).status, 404, "{}", silent.tail());
}

#[test]
fn a10_what_is_shown_is_what_own_files_held_with_a_tag_for_the_next_question() {
    let scene = Scene::new();
    let setup = scene.setup(0, &["insecure = true"]);
    let (gate, file) = with_token(&scene.stage, &setup);
    alarmed(&gate, &file, "peers prove nothing to each other");
    let answer = Ask::get(PAGE).at(scene.doors[0]);
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/jwk-set+json")));
    assert_eq!(answer.header("cache-control"), Some("private, no-cache"));
    assert_eq!(story(&gate, &answer)[0], "answered");
    let document = answer.json();
    assert_eq!((names(&document), &document["tidegate"]["deployment"]), (vec![kid(0)], &"harbor".into()));
    assert_eq!(document["tidegate"]["keys"][0]["state"], "signing");
    let tag = answer.header("etag").expect("a tag").to_owned();
    let again = Ask::get(PAGE).header("If-None-Match", &tag).at(scene.doors[0]);
    assert_eq!((again.status, again.body.len(), again.header("etag")), (304, 0, Some(&*tag)));
    hold(&scene.cores[0].key_file, 2);
    let changed = waiting::until(PATIENCE, || {
        let answer = Ask::get(PAGE).header("If-None-Match", &tag).at(scene.doors[0]);
        (answer.status == 200).then(|| answer.json())
    });
    let keys = changed.expect("another document")["tidegate"]["keys"].clone();
    let states: Vec<_> = keys.as_array().expect("keys").iter().map(|key| key["state"].clone()).collect();
    assert_eq!(states, ["signing", "verifying"], "{keys}");
    assert!(keys[1]["signed_until"].is_i64() && keys[1]["until"].is_i64(), "{keys}");
}

/// What comes back from the store after a restart is told by whose it was before.
#[test]
fn a10_what_an_operator_added_is_shown_to_no_peer_after_a_restart_either() {
    let scene = Scene::new();
    let store = format!("[store]\nurl = \"file:{}\"\n", scene.stage.path("state/store.redb").display());
    let (mut gate, secret) = with_token(&scene.stage, &scene.setup(0, &["insecure = true"]).rest(&store));
    hold(&scene.cores[0].key_file, 1);
    verifies(&gate, 0);
    let added = scene.stage.path("added.pem");
    hold(&added, 2);
    add(&gate, &added, &secret);
    verifies(&gate, 2);
    let shown = || names(&Ask::get(PAGE).at(scene.doors[0]).json());
    let mut own = vec![kid(0), kid(1)];
    own.sort();
    assert_eq!(shown(), own);
    gate.wait_for("the store has taken all", |metrics| {
        metrics.sum("tidegate_store_waiting_changes", &[]) == 0.0
    });
    gate.kill();
    gate.begin_again();
    gate.becomes_ready();
    (0..3).step_by(2).for_each(|key| verifies(&gate, key));
    assert_eq!(shown(), own, "{}", gate.tail());
}

/// `tidegate keys add` of a file.
fn add(gate: &Gate, file: &Path, secret: &Path) {
    let mut command = Command::new(settings::tidegate());
    command.args(["keys", "add"]).arg(file).arg("--admin").arg(format!("http://{}", gate.admin));
    let output = command.arg("--admin-token-file").arg(secret).output().expect("tidegate runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Both sides by mutual TLS.
#[test]
fn a10_peers_prove_themselves_by_certificates_and_a_stranger_is_refused() {
    let (scene, authority, stranger) = (Scene::new(), Authority::new(), Authority::new());
    for name in ["first", "second"] {
        authority.issue(name);
        stranger.issue(name);
    }
    let urls = format!("urls = [\"https://{}\", \"https://{}\"]", scene.doors[0], scene.doors[1]);
    let setup = |which: usize, shows: &Authority| {
        let name = ["first", "second"][which];
        let path = |of: &Authority, file: &str| of.path(file).display().to_string();
        let tls = authority.listener(name, &format!(", client_ca_file = \"{}\"", path(&authority, "ca.pem")));
        let client = format!(
            "ca_file = \"{}\"\nserver_name = \"{NAME}\"\ncertificate_file = \"{}\"\nkey_file = \"{}\"",
            path(&authority, "ca.pem"),
            path(shows, &format!("{name}.crt")),
            path(shows, &format!("{name}.key")),
        );
        let door = scene.doors[which];
        beside(&scene.cores[which], "harbor", &[&urls, &client, OFTEN])
            .rest(&format!("[[listener]]\naddress = \"{door}\"\nscope = \"cluster\"\ntls = {tls}\n"))
    };
    let (first, file) = with_token(&scene.stage, &setup(0, &authority));
    let mut second = setup(1, &authority).start();
    verifies(&first, 1);
    verifies(&second, 0);
    let token = token(second.address, DEV, SCOPE);
    assert_eq!(pulled(&first, &token).status, 200);
    second.signal("KILL");
    second.ends(PATIENCE);
    let second = setup(1, &stranger).start();
    // A10: whom we don't trust may read nothing; what it says is proved by its listener's certificate.
    second.wait_for("its peer is down", |metrics| {
        let peer = [("peer", &*scene.doors[0].to_string())];
        metrics.values("tidegate_peer_up", "peer").is_empty() && metrics.sum("tidegate_peer_up", &peer) < 0.5
    });
    assert!(!knows(&second, 0), "{}", second.tail());
    drop(second);
    alarmed(&first, &file, &format!("peer {}", scene.doors[1]));
}

/// What somebody in a peer's place may answer; each is asked for in turn.
struct Impostor {
    address: SocketAddr,
    answer: Arc<Mutex<Vec<u8>>>,
    asked: Arc<Mutex<Vec<Received>>>,
}

impl Impostor {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = listener.local_addr().expect("its address");
        let impostor = Self { address, answer: Arc::default(), asked: Arc::default() };
        let (present, kept) = (Arc::clone(&impostor.answer), Arc::clone(&impostor.asked));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (present, kept) = (Arc::clone(&present), Arc::clone(&kept));
                thread::spawn(move || {
                    let mut line = Line::over(stream);
                    let Ok(request) = receive(&mut line) else { return };
                    kept.lock().expect("no thread of it panics").push(request);
                    let answer = present.lock().expect("no thread of it panics").clone();
                    // Who was told enough has left; one that says nothing more keeps the line open.
                    if line.send(&answer).is_ok() {
                        line.exactly(1).ok();
                    }
                });
            }
        });
        impostor
    }

    fn says(&self, head: &str, body: &[u8]) {
        let head = format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\n\r\n", body.len());
        *self.answer.lock().expect("no thread of it panics") = [head.as_bytes(), body].concat();
    }

    fn says_bytes(&self, bytes: &[u8]) {
        bytes.clone_into(&mut self.answer.lock().expect("no thread of it panics"));
    }

    fn asked(&self) -> usize {
        self.asked.lock().expect("no thread of it panics").len()
    }
}

#[test]
fn a10_nothing_of_a_hostile_answer_is_taken_and_what_was_told_before_stays() {
    let scene = Scene::new();
    // What a right answer looks like.
    let publisher = scene.setup(1, &["insecure = true"]).start();
    let right = Ask::get(PAGE).at(scene.doors[1]).text();
    drop(publisher);
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut document: Value = serde_json::from_str(&right).expect("JSON");
        change(&mut document);
        document.to_string().into_bytes()
    };
    let impostor = Impostor::start();
    impostor.says("200 OK", right.as_bytes());
    let urls = format!("urls = [\"http://{}\"]", impostor.address);
    let (gate, file) =
        with_token(&scene.stage, &beside(&scene.cores[0], "harbor", &[&urls, "insecure = true", OFTEN]));
    verifies(&gate, 1);
    let token = token(scene.cores[1].address, DEV, SCOPE);
    let spare = crate::stage::spare_key(2);
    let huge = vec![b' '; 3 << 20];
    let nested = "[".repeat(100_000).into_bytes();
    let secret = changed(&|d| d["keys"][0]["d"] = "AQAB".into());
    let foreign = changed(&|d| d["tidegate"]["deployment"] = "elsewhere".into());
    let later = changed(&|d| d["tidegate"]["v"] = 99.into());
    let confused = changed(&|d| d["tidegate"]["keys"][0]["spki"] = "c2VjcmV0".into());
    let symmetric = br#"{"keys":[{"kty":"oct","alg":"HS256","k":"AQAB"}]}"#.to_vec();
    let moved = format!("302 Found\r\nLocation: http://{}{PAGE}", scene.doors[1]);
    let told: [(&str, &[u8], &str); 10] = [
        ("200 OK", b"<html>", "no document of a tidegate"),
        ("200 OK", b"", "no document of a tidegate"),
        ("200 OK", &nested, "no document of a tidegate"),
        ("200 OK", &symmetric, "no document of a tidegate"),
        ("200 OK", &huge, "longer than 1 MiB"),
        ("200 OK", &secret, "holds a private key"),
        ("200 OK", &foreign, "belongs to another deployment"),
        ("200 OK", &later, "of version 99"),
        ("200 OK", &confused, "can't be used"),
        (&moved, b"", "it answered 302"),
    ];
    for (head, body, cause) in told {
        impostor.says(head, body);
        alarmed(&gate, &file, cause);
        assert_eq!(pulled(&gate, &token).status, 200, "{cause}: what it told before counts");
    }
    for (bytes, cause) in [
        (&b"HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\n{"[..], "no answer in time"),
        (b"HTTP/1.1 200", "no answer in time"),
        (b"\x16\x03\x01", "the connection broke"),
    ] {
        impostor.says_bytes(bytes);
        alarmed(&gate, &file, cause);
        assert_eq!(pulled(&gate, &token).status, 200, "{cause}");
    }
    assert!(!knows(&gate, 2), "{} was never told", spare.kid());
    impostor.says("200 OK", right.as_bytes());
    waiting::holds("the alarm goes", PATIENCE, || {
        !status(&gate)["alarms"].to_string().contains(&format!("peer {}", impostor.address))
    });
}

/// A peer that hangs costs a request with an unknown key a bounded while, and others nothing.
#[test]
fn a_peer_that_hangs_holds_nobody_up_for_long() {
    let scene = Scene::new();
    let silent = Impostor::start();
    let (secret, second) = (scene.by_secret(), scene.doors[1]);
    let urls = format!("urls = [\"http://{}\", \"http://{second}\"]", silent.address);
    let publisher = scene.setup(1, &[&secret]).start();
    let gate = beside(&scene.cores[0], "harbor", &[&urls, &secret, SELDOM]).start();
    hold(&scene.cores[1].key_file, 2);
    let known = token(gate.address, DEV, SCOPE);
    let strange = token(publisher.address, DEV, SCOPE);
    let began = Instant::now();
    assert_eq!(pulled(&gate, &strange).status, 200, "{}", gate.tail());
    // Three seconds as docs/peers.md says, and what a busy machine takes for the rest.
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let before = silent.asked();
    for _ in 0..20 {
        assert_eq!(pulled(&gate, &known).status, 200);
    }
    // The question for the strange one may have been on its way.
    assert!(silent.asked() <= before + 1, "a known key makes nobody ask");
}

/// A name that doesn't lead to others' own addresses: behind one address of a Service there may be this process itself.
#[test]
fn peers_urls_that_lead_back_to_oneself_alone_are_an_alarm() {
    let scene = Scene::new();
    let back = Tap::counting(scene.doors[0]);
    let urls = format!("urls = [\"http://{}\"]", back.address);
    let (gate, file) = with_token(&scene.stage, &scene.setup(0, &[&urls, &scene.by_secret(), OFTEN]));
    alarmed(&gate, &file, "leads back to this process");
}

/// A flood of names that nobody knows: one question in each `limits.unknown_kids`, and no request waits for long.
#[test]
fn a_flood_of_unknown_names_asks_peers_now_and_then_alone() {
    let scene = Scene::new();
    let impostor = Impostor::start();
    impostor.says("503 Service Unavailable", b"");
    let urls = format!("urls = [\"http://{}\"]", impostor.address);
    let gate = beside(&scene.cores[0], "harbor", &[&urls, "insecure = true", SELDOM])
        .rest("[limits]\nunknown_kids = \"1/min\"\n")
        .start();
    let token = token(scene.cores[1].address, DEV, SCOPE);
    let (head, rest) = token.split_once('.').expect("a token");
    let strange = |number: usize| {
        let head: Value = decoded(head);
        let named = head.to_string().replace(&kid(1), &format!("AAAA:{number}"));
        format!("{}.{rest}", encoded(&named))
    };
    let before = impostor.asked();
    let began = Instant::now();
    thread::scope(|scope| {
        for number in 0..32 {
            let (gate, strange) = (&gate, &strange);
            scope.spawn(move || {
                let answer = pulled(gate, &strange(number));
                assert_eq!(answer.status, 401);
            });
        }
    });
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    // One for the flood; the two of the start may have been on their way.
    assert!(impostor.asked() <= before + 3, "{} questions", impostor.asked() - before);
}

/// Places to wait for a key are shared by address (A25): whoever makes up names takes none from another's clients.
#[test]
fn a25_a_flood_of_unknown_names_from_one_address_keeps_no_other_client_from_a_new_key() {
    const FLOOD: usize = 300;
    let scene = Scene::new();
    let (secret, door) = (scene.by_secret(), ports::free());
    let asks = format!("urls = [\"http://{}\"]", scene.doors[1]);
    let publisher = scene.setup(1, &[&secret]).start();
    let gate = beside(&scene.cores[0], "harbor", &[&asks, &secret, SELDOM])
        .rest(&format!("[[listener]]\naddress = \"{door}\"\ntrusted_proxies = [\"127.0.0.0/8\"]\n"))
        .start();
    let token = token(scene.cores[1].address, DEV, SCOPE);
    let (head, rest) = token.split_once('.').expect("a token");
    let from = |address: &str, token: &str| {
        pull(MANIFEST).bearer(token).header("X-Forwarded-For", address).at(door).status
    };
    let strange = |number: usize| {
        let named = decoded(head).to_string().replace(&kid(1), &format!("AAAA:{number}"));
        format!("{}.{rest}", encoded(&named))
    };
    let (number, goes_on) = (AtomicUsize::new(0), AtomicBool::new(true));
    thread::scope(|scope| {
        let floods = || {
            while goes_on.load(Relaxed) {
                let began = Instant::now();
                let status = from("192.0.2.66", &strange(number.fetch_add(1, Relaxed)));
                assert_eq!(status, 401);
                if began.elapsed() < Duration::from_millis(100) {
                    // It found no place: the machine is left to those who have one.
                    thread::sleep(Duration::from_millis(500));
                }
            }
        };
        (0..FLOOD).for_each(|_| drop(scope.spawn(floods)));
        let _ends = Ends(&goes_on);
        waiting::holds("the flood is there", PATIENCE, || number.load(Relaxed) > FLOOD);
        for turn in 1..=3 {
            let key = CoreKey::generate(2048).expect("a key");
            key.rename_into(&scene.cores[1].key_file, KeyForm::Pkcs1).expect("the key file is replaced");
            let token = crate::stage::token(publisher.address, DEV, SCOPE);
            let direct = pull(MANIFEST).bearer(&token).at(scene.cores[0].address);
            assert_eq!(direct.status, 401, "the other core itself refuses it");
            let status = from(&format!("198.51.100.{turn}"), &token);
            assert_eq!(status, 200, "turn {turn}\n{}", gate.tail());
        }
    });
}

/// Ends what others do until then, also where a test fails.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(false, Relaxed);
    }
}

fn decoded(part: &str) -> Value {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).expect("base64url")).expect("JSON")
}

fn encoded(text: &str) -> String {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    URL_SAFE_NO_PAD.encode(text)
}

/// A JWKS at a URL is a source like a file: over TLS of its own authority, with a tag, asked at once for an unknown key, and kept
/// while it can't be had.
#[test]
fn a_jwks_url_is_a_source_of_keys() {
    let (scene, authority) = (Scene::new(), Authority::new());
    authority.issue("keys");
    let set = |key: usize, tag: &str| {
        hold(&scene.cores[1].key_file, key);
        let publisher = scene.setup(1, &["insecure = true"]).start();
        let mut document: Value = Ask::get(PAGE).at(scene.doors[1]).json();
        document.as_object_mut().expect("an object").remove("tidegate");
        drop(publisher);
        (format!("200 OK\r\nETag: {tag}\r\nCache-Control: max-age=3600"), document.to_string())
    };
    let server = Impostor::start();
    let (head, body) = set(1, "\"one\"");
    server.says(&head, body.as_bytes());
    let config = authority.server("keys", &[&rustls::version::TLS13], None);
    let secure = terminate(&scene.stage.runtime, server.address, config);
    let url = format!("https://localhost:{}/keys.json", secure.port());
    let beside = |more: &str| {
        let source = format!("{{ jwks = \"{url}\"{more} }}");
        with_token(&scene.stage, &beside(&scene.cores[0], "", &[]).source(&source))
    };
    let (stranger, file) = beside("");
    alarmed(&stranger, &file, "UnknownIssuer");
    let (gate, file) = beside(&format!(", ca_file = \"{}\"", authority.path("ca.pem").display()));
    let former = token(scene.cores[1].address, DEV, SCOPE);
    let answer = pulled(&gate, &former);
    assert_eq!((answer.status, &*story(&gate, &answer)[1]), (200, "resign"), "{}", gate.tail());
    assert_eq!(pulled(&stranger, &former).status, 401, "{}", stranger.tail());

    let (head, body) = set(2, "\"two\"");
    server.says(&head, body.as_bytes());
    let token = token(scene.cores[1].address, DEV, SCOPE);
    assert_eq!(pulled(&gate, &token).status, 200, "asked at once\n{}", gate.tail());
    let tags = |server: &Impostor| {
        let asked = server.asked.lock().expect("no thread of it panics");
        asked.last().and_then(|asked| asked.header("if-none-match").map(str::to_owned))
    };
    assert_eq!(tags(&server).as_deref(), Some("\"one\""));
    assert_eq!(pulled(&gate, &former).status, 200, "the overlap of what the set held before");
    assert_eq!(
        server.asked.lock().expect("no thread of it panics").last().expect("one").target,
        "/keys.json"
    );

    let symmetric = br#"{"keys":[{"kty":"oct","alg":"HS256","k":"AQAB"},{"kty":"RSA","alg":"HS256","n":"AQAB","e":"AQAB"}]}"#;
    let twice = body.replace("\"keys\":[", "\"keys\":[{\"kty\":\"EC\",\"crv\":\"P-256\",\"kid\":\"k\"},");
    let strange = |number: usize| {
        let (head, rest) = token.split_once('.').expect("a token");
        format!("{}.{rest}", encoded(&decoded(head).to_string().replace(&kid(2), &format!("AAAA:{number}"))))
    };
    let moved = format!("302 Found\r\nLocation: http://{}/", scene.doors[1]);
    let huge = vec![b' '; 10 << 20];
    let many = many_keys();
    let told: [(&str, &[u8], &str); 8] = [
        ("200 OK", &huge, "longer than 1 MiB"),
        ("500 Internal Server Error", b"", "it answered 500"),
        (&moved, b"", "it answered 302"),
        ("200 OK", b"<html>", "no JSON object"),
        ("200 OK", br#"{"keys":[]}"#, "no key for signatures"),
        ("200 OK", symmetric, "no key for signatures"),
        ("200 OK", twice.as_bytes(), "a key lacks a number"),
        ("200 OK", many.as_bytes(), "more than 256 keys"),
    ];
    for (number, (head, body, cause)) in told.into_iter().enumerate() {
        server.says(head, body);
        // A name that nobody knows has it asked, once in a while.
        let asked = waiting::until(PATIENCE, || {
            pulled(&gate, &strange(number));
            status(&gate)["alarms"].to_string().contains(cause).then_some(())
        });
        assert!(asked.is_some(), "{cause}\n{}", gate.tail());
        assert_eq!(pulled(&gate, &token).status, 200, "{cause}: what it gave before stays");
    }
    assert!(screen(&gate, &file).contains("ALARMS"));
}

/// A set of more keys than one may have; no key of it is anybody's.
fn many_keys() -> String {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    let key = |number: u16| {
        let modulus = [&[0xc0][..], &[0xaa; 252], &number.to_be_bytes(), &[1]].concat();
        let n = URL_SAFE_NO_PAD.encode(modulus);
        serde_json::json!({"kty": "RSA", "kid": format!("key-{number}"), "n": n, "e": "AQAB"})
    };
    serde_json::json!({"keys": (0..257).map(key).collect::<Vec<_>>()}).to_string()
}

/// What an operator lists of a URL counts from the reload on, whatever a question that began before it brings.
#[test]
fn a9_an_answer_to_a_question_from_before_a_reload_brings_no_key_of_a_url_back() {
    for (what, after) in [("retired", Some(", state = \"retired\"")), ("removed", None)] {
        let scene = Scene::new();
        let publisher = scene.setup(1, &["insecure = true"]).start();
        let set = Ask::get(PAGE).at(scene.doors[1]).text();
        drop(publisher);
        let server = Impostor::start();
        server.says("200 OK\r\nCache-Control: max-age=300", set.as_bytes());
        let url = format!("http://{}/keys.json", server.address);
        let setup = |listed: Option<&str>| {
            let setup = beside(&scene.cores[0], "", &[]).keys("overlap = \"off\"");
            listed
                .into_iter()
                .fold(setup, |setup, more| setup.source(&format!("{{ jwks = \"{url}\"{more} }}")))
        };
        let gate = setup(Some("")).start();
        let of = |state: &str| {
            let labels = [("kid", &*kid(1)), ("state", state)];
            gate.metrics().sum("tidegate_key_state", &labels) > 0.5
        };
        waiting::holds("the key is there", PATIENCE, || of("signing"));
        let former = token(scene.cores[1].address, DEV, SCOPE);
        assert_eq!(pulled(&gate, &former).status, 200, "{what}\n{}", gate.tail());
        // The next question is answered when the reload is over.
        let before = server.asked();
        let answer = Arc::clone(&server.answer);
        let held_back = answer.lock().expect("no thread of it panics");
        hold(&scene.cores[1].key_file, 2);
        let strange = token(scene.cores[1].address, DEV, SCOPE);
        thread::scope(|scope| {
            scope.spawn(|| pulled(&gate, &strange));
            waiting::holds("it is asked", PATIENCE, || server.asked() > before);
            gate.configure(&setup(after).text());
            gate.signal("HUP");
            let reloaded = || gate.output().contains("the configuration was reloaded").then_some(());
            assert!(waiting::until(PATIENCE, reloaded).is_some(), "{what}\n{}", gate.tail());
            drop(held_back);
        });
        let ended = waiting::until(Duration::from_secs(2), || of("signing").then_some(()));
        assert!(ended.is_none(), "{what}: it signs again\n{}", gate.tail());
        assert_eq!(pulled(&gate, &former).status, 401, "{what}\n{}", gate.tail());
    }
}
