//! A registry of its own, which reads the keys that it trusts at its start, and a token server that has other plans.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use tidegate::{decisions::key, rehearsal::harbor::KeyForm};

use crate::{
    operating::{status, with_token},
    stage::{DEV, Replica, Setup, Stage, ask_token, hold, kid, spare_key, story, token},
    support::{
        client::{Client, skopeo::Skopeo},
        gate::Gate,
        harbor::account,
        image::Image,
        ports,
        registry::Registry,
    },
    talk::{Answer, Ask},
};

/// Operations of each kind in a phase.
const EACH: usize = 3;
const SCOPE: &str = "repository:priv/image:pull,push";

/// A registry that trusts key 0, a token server that signs with it, and a gate before the registry.
struct Scene {
    stage: Stage,
    server: Replica,
    registry: Registry,
}

impl Scene {
    fn new() -> Self {
        let stage = Stage::new();
        // Core's token service alone: its registry is asked for nothing.
        let server = stage.replica("token-server", |_| {});
        let registry = Registry::with_bundle_of(&bundle(&stage, 0), &realm(server.address), ports::free());
        Self { stage, server, registry }
    }

    /// With the token server's key file, and the key `known` to the registry as one that is to sign for it alone.
    fn setup(&self, known: usize) -> Setup {
        let file = self.stage.path("known.pem");
        hold(&file, known);
        let setup = Setup::default().endpoint(&format!("http://{}", self.registry.address));
        let setup = setup.source(&format!("{{ file = \"{}\" }}", self.server.key_file.display()));
        let known = format!("{{ file = \"{}\", state = \"announced\" }}", file.display());
        setup.source(&known).upstream("kind = \"registry\"").keys("reread_every = \"100ms\"")
    }
}

fn realm(server: SocketAddr) -> String {
    format!("http://{server}/service/token")
}

/// What a registry is started with that trusts this key.
fn bundle(stage: &Stage, index: usize) -> PathBuf {
    let path = stage.path(&format!("bundle-{index}.pem"));
    let text = spare_key(index).text(KeyForm::Public).expect("a key");
    let keys = key::parse(text.as_bytes()).expect("its public half");
    fs::write(&path, keys[0].certificate_pem()).expect("a bundle");
    path
}

fn wait_for_held(gate: &Gate, name: &str) {
    gate.wait_for(&format!("the registry knows {name}"), |metrics| {
        metrics.values("tidegate_endpoint_held_key", "kid") == [name]
    });
}

/// One lane's client.
struct Lane {
    skopeo: Skopeo,
    front: SocketAddr,
    pushed: usize,
}

impl Lane {
    fn new(front: SocketAddr) -> Self {
        let skopeo = Skopeo::new();
        skopeo.login(&account(front)).unwrap_or_else(|failure| panic!("{failure}"));
        Self { skopeo, front, pushed: 0 }
    }

    /// Pushes of images of their own, and pulls; how many failed, with what was said.
    fn work(&mut self) -> Vec<String> {
        let at = account(self.front);
        let mut failures = Vec::new();
        for _ in 0..EACH {
            self.pushed += 1;
            let repository = format!("priv/image:{}-{}", self.front.port(), self.pushed);
            let image = Image::generate(u64::from(self.front.port()) * 100 + self.pushed as u64, 1);
            let pushed = self.skopeo.push(&at, &image, &repository);
            let pulled = self.skopeo.pull(&at, "priv/image:first");
            failures.extend([pushed, pulled].into_iter().filter_map(Result::err).map(|f| f.to_string()));
        }
        failures
    }
}

/// Two lanes, and an image that both pull.
fn lanes(scene: &Scene, gate: &Gate) -> [Lane; 2] {
    let lanes = [scene.registry.address, gate.address].map(Lane::new);
    let first = Image::generate(7, 1);
    let through = &lanes[1];
    let pushed = through.skopeo.push(&account(gate.address), &first, "priv/image:first");
    pushed.unwrap_or_else(|failure| panic!("{failure}\n{}", gate.tail()));
    lanes
}

/// Nothing fails through the gate, and the same fails without it.
fn judge([direct, through]: &mut [Lane; 2], gate: &Gate) {
    let failures = through.work();
    assert!(failures.is_empty(), "through tidegate {failures:#?}\n{}\n{}", gate.refusals(), gate.tail());
    assert_eq!(direct.work().len(), 2 * EACH, "directly everything fails");
}

#[test]
fn a_token_server_changes_its_key_and_the_registry_does_not() {
    let scene = Scene::new();
    let gate = scene.setup(0).start();
    wait_for_held(&gate, &kid(0));
    let mut both = lanes(&scene, &gate);
    assert_eq!(both[0].work(), [""; 0], "all is well before it");
    hold(&scene.server.key_file, 1);
    gate.wait_for("the next key is there", |metrics| {
        metrics.sum("tidegate_key_state", &[("kid", &kid(1)), ("state", "signing")]) > 0.5
    });
    judge(&mut both, &gate);
    assert!(gate.metrics().sum("tidegate_rescued_requests_total", &[("reason", "resign")]) >= 1.0);
}

#[test]
fn a_registry_is_started_with_another_key_and_the_token_server_keeps_its_own() {
    let Scene { stage, server, registry } = Scene::new();
    let realm = realm(server.address);
    let scene = Scene { stage, server, registry };
    let gate = scene.setup(1).start();
    wait_for_held(&gate, &kid(0));
    let mut both = lanes(&scene, &gate);
    assert_eq!(both[0].work(), [""; 0], "all is well before it");
    let Scene { stage, server: _server, registry } = scene;
    let _registry = registry.again(&bundle(&stage, 1), &realm);
    // Not told by anybody: the first refusal shows it, or a probe.
    judge(&mut both, &gate);
    wait_for_held(&gate, &kid(1));
}

/// Whoever asks one registry about its key waits for no other one's answer.
#[test]
fn a_registry_that_hangs_delays_no_question_to_another() {
    let Scene { stage, server, registry } = Scene::new();
    let (realm, silent) = (realm(server.address), ports::free());
    let scene = Scene { stage, server, registry };
    let setup = scene.setup(1).endpoint(&format!("http://{silent}"));
    let gate = setup.upstream("probe = { timeout = \"30s\" }").start();
    wait_for_held(&gate, &kid(0));
    let token = token(scene.server.address, DEV, SCOPE);
    let Scene { stage, server: _server, registry } = scene;
    // It takes connections, and says nothing.
    let hangs = TcpListener::bind(silent).expect("a listener");
    let _asked = hangs.accept().expect("it is asked about its key");
    let registry = registry.again(&bundle(&stage, 1), &realm);
    let tags = Ask::get("/v2/priv/image/tags/list").bearer(&token);
    assert_eq!(tags.at(registry.address).status, 401, "{}", registry.log());
    let began = Instant::now();
    let (answer, plan) = asked(&gate, &tags);
    assert_eq!((answer.status, plan.as_str()), (404, "resign"), "{}", gate.tail());
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

fn asked(gate: &Gate, ask: &Ask) -> (Answer, String) {
    let answer = ask.at(gate.address);
    let plan = story(gate, &answer)[1].clone();
    (answer, plan)
}

/// A29: it would be read as a token, and refused as one; without any the registry says where tokens are had.
#[test]
fn a29_a_plain_registry_gets_no_authorization_in_the_place_of_a_dead_one() {
    let scene = Scene::new();
    let gate = scene.setup(0).start();
    let tags = Ask::get("/v2/priv/image/tags/list");
    let live = token(scene.server.address, DEV, SCOPE);
    assert_eq!(asked(&gate, &tags.clone().bearer(&live)).0.status, 404, "allowed, and nothing is there");
    // Of a key that nobody here knows.
    let other = scene.stage.replica("other", |_| {});
    hold(&other.key_file, 2);
    let foreign = token(other.address, DEV, SCOPE);
    // Within the signature: the last letter has bits that don't count.
    let (before, after) = live.split_at(live.len() - 20);
    let letter = if after.starts_with('A') { 'B' } else { 'A' };
    let forged = format!("{before}{letter}{}", &after[1..]);
    for dead in ["rubbish", &forged, &foreign] {
        let direct = tags.clone().bearer(dead).at(scene.registry.address);
        assert!(direct.header("www-authenticate").is_some_and(|c| c.contains("invalid_token")), "{direct:?}");
        let (answer, plan) = asked(&gate, &tags.clone().bearer(dead));
        assert_eq!((answer.status, plan.as_str()), (401, "blank"), "{dead:.20}");
        let challenge = answer.header("www-authenticate").expect("a challenge");
        assert!(
            challenge.contains(&realm(scene.server.address)) && !challenge.contains("invalid_token"),
            "{challenge}"
        );
    }
}

/// The registry's own judgement of an access stands, and nothing is tried again for it.
#[test]
fn a_scope_that_does_not_suffice_is_the_registrys_word() {
    let scene = Scene::new();
    hold(&scene.server.key_file, 1);
    let gate = scene.setup(0).start();
    wait_for_held(&gate, &kid(0));
    let other = token(scene.server.address, DEV, "repository:priv/other:pull");
    let (answer, plan) = asked(&gate, &Ask::get("/v2/priv/image/tags/list").bearer(&other));
    assert_eq!((answer.status, plan.as_str()), (401, "resign"));
    assert!(
        answer.header("www-authenticate").is_some_and(|c| c.contains("insufficient_scope")),
        "{answer:?}"
    );
}

#[test]
fn a_token_server_behind_the_gate_is_reached_by_the_registrys_own_realm() {
    let stage = Stage::new();
    let server = stage.replica("token-server", |_| {});
    let address = ports::free();
    let setup = Setup::default().endpoint(&format!("http://{address}"));
    let setup = setup.source(&format!("{{ file = \"{}\" }}", server.key_file.display()));
    let setup = setup.upstream(&format!("kind = \"registry\"\nportal = \"http://{}\"", server.address));
    let gate = Gate::start_unready(&[], &setup.text());
    let _registry = Registry::with_bundle_of(&bundle(&stage, 0), &realm(gate.address), address);
    wait_for_held(&gate, &kid(0));
    let token = ask_token(SCOPE).basic(DEV).at(gate.address).token();
    let (answer, plan) = asked(&gate, &Ask::get("/v2/priv/image/tags/list").bearer(&token));
    assert_eq!((answer.status, plan.as_str()), (404, "as_came"));
    let lane = Lane::new(gate.address);
    let pushed = lane.skopeo.push(&account(gate.address), &Image::generate(9, 1), "priv/image:first");
    pushed.unwrap_or_else(|failure| panic!("{failure}\n{}", gate.tail()));
}

#[test]
fn a_registry_that_knows_none_of_our_keys_is_told_of_and_gets_tokens_as_they_came() {
    let scene = Scene::new();
    let (public, private) = (scene.stage.path("public.pem"), scene.stage.path("other.pem"));
    fs::write(&public, spare_key(0).text(KeyForm::Public).expect("a key")).expect("a file");
    hold(&private, 2);
    let source = |path: &PathBuf| format!("{{ file = \"{}\" }}", path.display());
    let setup = Setup::default().endpoint(&format!("http://{}", scene.registry.address));
    let setup = setup.source(&source(&public)).source(&source(&private)).upstream("kind = \"registry\"");
    let (gate, _) = with_token(&scene.stage, &setup);
    let alarms = status(&gate)["alarms"].to_string();
    assert!(alarms.contains("refuses what is signed with each of our keys"), "{alarms}");
    let token = token(scene.server.address, DEV, SCOPE);
    let (answer, plan) = asked(&gate, &Ask::get("/v2/priv/image/tags/list").bearer(&token));
    assert_eq!((answer.status, plan.as_str()), (404, "as_came"), "the registry knows it all the same");
}

/// distribution 3 knows the keys of a bundle by their thumbprints, and Harbor names its key by the libtrust id.
#[test]
fn a_key_is_named_in_the_dialect_of_the_registry() {
    let stage = Stage::new();
    let server = stage.replica("token-server", |_| {});
    let registry = Registry::third_with_bundle(&bundle(&stage, 0));
    let setup = Setup::default().endpoint(&format!("http://{}", registry.address));
    let setup = setup.source(&format!("{{ file = \"{}\" }}", server.key_file.display()));
    let gate = setup.upstream("kind = \"registry\"").start();
    let public = spare_key(0).text(KeyForm::Public).expect("a key");
    let thumbprint = key::parse(public.as_bytes()).expect("a key")[0].thumbprint().to_string();
    wait_for_held(&gate, &thumbprint);
    let token = token(server.address, DEV, SCOPE);
    let tags = |token: &str| Ask::get("/v2/priv/image/tags/list").bearer(token);
    assert_eq!(tags(&token).at(registry.address).status, 401, "{}", registry.log());
    let (answer, plan) = asked(&gate, &tags(&token));
    assert_eq!((answer.status, plan.as_str()), (404, "resign"), "{}", gate.tail());
    let (answer, plan) = asked(&gate, &tags(&named(&token, Some(&thumbprint))));
    assert_eq!((answer.status, plan.as_str()), (404, "as_came"), "{}", gate.tail());
}

/// The same claims as another token server would sign them with key 0, which gives the key this name, or none.
fn named(token: &str, name: Option<&str>) -> String {
    let mut header = serde_json::json!({"typ": "JWT", "alg": "RS256"});
    if let Some(name) = name {
        header["kid"] = name.into();
    }
    let claims = token.split('.').nth(1).expect("claims");
    let message = format!("{}.{claims}", URL_SAFE_NO_PAD.encode(header.to_string()));
    let text = spare_key(0).text(KeyForm::Pkcs1).expect("a key");
    let signature = key::parse(text.as_bytes()).expect("a key")[0].sign(message.as_bytes());
    format!("{message}.{}", signature.expect("a signature"))
}

/// distribution 2.8 knows the keys of a bundle by their libtrust ids, and token servers name theirs as they like.
#[test]
fn a_token_that_names_the_registrys_key_otherwise_is_signed_again_in_its_dialect() {
    let stage = Stage::new();
    let server = stage.replica("token-server", |_| {});
    let registry = Registry::with_bundle_of(&bundle(&stage, 0), &realm(server.address), ports::free());
    let source = format!("{{ file = \"{}\", alias = \"the-token-servers\" }}", server.key_file.display());
    let setup = Setup::default().endpoint(&format!("http://{}", registry.address)).source(&source);
    let gate = setup.upstream("kind = \"registry\"").keys("accept_missing_kid = true").start();
    wait_for_held(&gate, &kid(0));
    let public = spare_key(0).text(KeyForm::Public).expect("a key");
    let thumbprint = key::parse(public.as_bytes()).expect("a key")[0].thumbprint().to_string();
    let token = token(server.address, DEV, SCOPE);
    for (name, direct, plan) in [
        (Some(&*kid(0)), 404, "as_came"),
        (Some(&*thumbprint), 401, "resign"),
        (Some("the-token-servers"), 401, "resign"),
        (None, 401, "resign"),
    ] {
        let tags = Ask::get("/v2/priv/image/tags/list").bearer(&named(&token, name));
        assert_eq!(tags.at(registry.address).status, direct, "{name:?} {}", registry.log());
        let (answer, planned) = asked(&gate, &tags);
        assert_eq!((answer.status, planned.as_str()), (404, plan), "{name:?}\n{}", gate.tail());
    }
}
