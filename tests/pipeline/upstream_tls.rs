//! Endpoints by `https`: a private authority, a client certificate, and what an operator reads where they are wrong.

use crate::{
    operating::{screen, status, unready_with_token, with_token},
    stage::{DEV, MANIFEST, Replica, Setup, Stage, pull, story},
    support::{gate::Gate, waiting},
    talk::Ask,
    tls::{Authority, NAME, terminate},
};
use rustls::{
    SupportedProtocolVersion,
    version::{TLS12, TLS13},
};
use std::{
    fs,
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(15);
const OFTEN: &str = r#"probe = { every = "200ms", in_window = "200ms", timeout = "1s" }"#;

/// A core behind TLS, by an authority that has issued `core` and `client`.
struct Scene {
    stage: Stage,
    core: Replica,
    authority: Authority,
    address: SocketAddr,
}

impl Scene {
    /// Asks for a client certificate of its own authority where `mutual`.
    fn new(versions: &[&'static SupportedProtocolVersion], mutual: bool) -> Self {
        let (stage, authority) = (Stage::new(), Authority::new());
        let core = stage.replica("core", |_| {});
        core.seed();
        authority.issue("core");
        authority.issue("client");
        let config = authority.server("core", versions, mutual.then_some(&authority));
        let address = terminate(&stage.runtime, core.address, config);
        Self { stage, core, authority, address }
    }

    /// A gate's configuration that trusts `ca` and has these further lines of `upstream.tls`.
    fn setup(&self, ca: &Path, more: &str) -> Setup {
        let tls = format!("tls = {{ ca_file = \"{}\", server_name = \"{NAME}\"{more} }}", ca.display());
        Setup::default().endpoint(&self.url()).upstream(OFTEN).upstream(&tls)
    }

    fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    fn ca(&self) -> std::path::PathBuf {
        self.authority.path("ca.pem")
    }

    fn client(&self) -> String {
        let path = |file| self.authority.path(file).display().to_string();
        format!(", certificate_file = \"{}\", key_file = \"{}\"", path("client.crt"), path("client.key"))
    }
}

/// The client gets 502 or 503 at once; status and log name the endpoint, and `cause` in one of these words.
fn fails_with_cause(scene: &Scene, setup: &Setup, causes: &[&str]) {
    let (gate, token) = unready_with_token(&scene.stage, &setup.clone().without_park());
    let before = scene.core.asked().len();
    for _ in 0..3 {
        let began = Instant::now();
        let answer = pull(MANIFEST).basic(DEV).at(gate.address);
        assert!((502..=503).contains(&answer.status), "{} {}", answer.status, answer.text());
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        assert_eq!(story(&gate, &answer)[0], "upstream_failed");
    }
    assert_eq!(scene.core.asked().len(), before, "core saw nothing of it");
    let names = |text: &str| causes.iter().any(|cause| text.contains(cause));
    let alarms = status(&gate)["alarms"].to_string();
    assert!(alarms.contains(&scene.address.to_string()) && names(&alarms), "{alarms}");
    let shown = screen(&gate, &token).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(shown.contains("DOWN") && shown.contains("ALARMS") && names(&shown), "{shown}");
    assert!(gate.events().iter().any(|event| names(&event.to_string())), "{}", gate.tail());
}

#[test]
fn a_private_authority_and_a_client_certificate_reach_core() {
    for versions in [&[&TLS12][..], &[&TLS13]] {
        let scene = Scene::new(versions, true);
        let gate = scene.setup(&scene.ca(), &scene.client()).start();
        for _ in 0..3 {
            let answer = pull(MANIFEST).basic(DEV).at(gate.address);
            assert_eq!(answer.status, 200, "{}\n{}", answer.text(), gate.tail());
        }
    }
}

#[test]
fn an_authority_that_did_not_issue_cores_certificate_is_named_as_the_cause() {
    let (scene, stranger) = (Scene::new(&[&TLS13], false), Authority::new());
    fails_with_cause(&scene, &scene.setup(&stranger.path("ca.pem"), ""), &["UnknownIssuer", "BadSignature"]);
}

#[test]
fn a_name_that_is_not_in_cores_certificate_is_named_as_the_cause() {
    let scene = Scene::new(&[&TLS13], false);
    let tls = format!("tls = {{ ca_file = \"{}\" }}", scene.ca().display());
    let setup = Setup::default().endpoint(&scene.url()).upstream(OFTEN).upstream(&tls);
    fails_with_cause(&scene, &setup, &["not valid for name"]);
}

#[test]
fn a_missing_client_certificate_is_named_as_the_cause() {
    // TLS 1.3 has the client's side finish before the server looks at its certificate.
    for versions in [&[&TLS12][..], &[&TLS13]] {
        let scene = Scene::new(versions, true);
        fails_with_cause(&scene, &scene.setup(&scene.ca(), ""), &["CertificateRequired"]);
    }
}

#[test]
fn a_plain_endpoint_that_is_reached_by_https_is_no_core_and_does_not_hang() {
    let mut scene = Scene::new(&[&TLS13], false);
    scene.address = scene.core.address;
    fails_with_cause(&scene, &scene.setup(&scene.ca(), ""), &["no TLS"]);
}

#[test]
fn a_renewed_authority_mends_an_endpoint_without_a_restart() {
    let (scene, stranger) = (Scene::new(&[&TLS13], false), Authority::new());
    let file = scene.stage.path("trusted.pem");
    fs::copy(stranger.path("ca.pem"), &file).expect("a copy");
    let (gate, _) = unready_with_token(&scene.stage, &scene.setup(&file, ""));
    assert!(!status(&gate)["alarms"].as_array().expect("alarms").is_empty());
    fs::copy(scene.ca(), &file).expect("a copy");
    waiting::holds("the endpoint is taken up", PATIENCE, || {
        pull(MANIFEST).basic(DEV).at(gate.address).status == 200
    });
    waiting::holds("the alarm goes", PATIENCE, || {
        status(&gate)["alarms"].as_array().is_some_and(Vec::is_empty)
    });
}

#[test]
fn certificates_that_cannot_be_read_anew_raise_an_alarm_until_they_are_mended() {
    let scene = Scene::new(&[&TLS13], true);
    scene.authority.issue("front");
    let front = scene.authority.listener("front", "");
    let listener = format!("[[listener]]\naddress = \"127.0.0.1:0\"\ntls = {front}");
    let setup = scene.setup(&scene.ca(), &scene.client()).rest(&listener);
    let (gate, token) = with_token(&scene.stage, &setup);
    for name in ["front.crt", "client.key", "ca.pem"] {
        let file = scene.authority.path(name);
        let before = fs::read(&file).expect("a file");
        fs::write(&file, "-----BEGIN CERTIFICATE-----\nbroken").expect("a file");
        let path = file.display().to_string();
        let alarm = || status(&gate)["alarms"].as_array().and_then(|all| all.first().cloned());
        let found = waiting::until(PATIENCE, alarm).unwrap_or_else(|| panic!("{name}\n{}", gate.tail()));
        assert_eq!(found["subject"].as_str(), Some(&*path), "{found}");
        assert!(["cause", "remedy"].iter().all(|part| found[part].as_str().is_some_and(|t| !t.is_empty())));
        let shown = screen(&gate, &token);
        let cause = found["cause"].as_str().and_then(|cause| cause.split(' ').next()).expect("a cause");
        assert!(shown.contains("ALARMS") && shown.contains("remedy:") && shown.contains(cause), "{shown}");
        assert_eq!(
            pull(MANIFEST).basic(DEV).at(gate.address).status,
            200,
            "what was read before stays in use"
        );
        fs::write(&file, before).expect("a file");
        waiting::holds("the alarm goes", PATIENCE, || alarm().is_none());
        assert!(!screen(&gate, &token).contains("ALARMS"));
    }
}

#[test]
fn a_reload_to_https_never_reaches_core_in_the_clear() {
    let scene = Scene::new(&[&TLS13], false);
    let gate = Setup::before(&[&scene.core], &[]).start();
    assert_eq!(pull(MANIFEST).basic(DEV).at(gate.address).status, 200);
    // Only what goes through TLS reaches the second core.
    let other = scene.stage.replica("other", |options| "http://secure".clone_into(&mut options.ext_endpoint));
    let config = scene.authority.server("core", &[&TLS13], None);
    let secure = terminate(&scene.stage.runtime, other.address, config);
    let moved = Scene { address: secure, ..scene };
    gate.configure(&moved.setup(&moved.ca(), "").text());
    gate.signal("HUP");
    waiting::holds("requests go through TLS", PATIENCE, || realm(&gate).contains("http://secure"));
    assert!(!gate.output().contains("restart needed\",\"part\":\"upstream.tls"), "{}", gate.tail());
}

#[test]
fn a_reload_from_http_to_https_of_one_address_changes_how_it_is_reached() {
    let scene = Scene::new(&[&TLS13], false);
    let plain = Setup::default().endpoint(&format!("http://{}", scene.address)).upstream(OFTEN);
    let gate = Gate::start_unready(&[], &plain.text());
    let answer = Ask::get("/v2/").at(gate.address);
    assert!((502..=503).contains(&answer.status), "{}", answer.status);
    gate.configure(&scene.setup(&scene.ca(), "").text());
    gate.signal("HUP");
    waiting::holds("core is reached", PATIENCE, || pull(MANIFEST).basic(DEV).at(gate.address).status == 200);
}

fn realm(gate: &Gate) -> String {
    Ask::get("/v2/").at(gate.address).header("www-authenticate").unwrap_or_default().to_owned()
}
