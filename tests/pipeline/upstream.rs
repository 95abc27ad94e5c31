//! Where requests go: endpoints that are late, die, have several addresses, and a portal beside them.

use crate::{
    recorder::Recorder,
    stage::{DEV, MANIFEST, Setup, Stage, pull, story},
    support::{http, ports, waiting},
    talk::Ask,
};
use std::{net::SocketAddr, time::Duration};

const PATIENCE: Duration = Duration::from_secs(15);
const OFTEN: &str = r#"probe = { every = "200ms", in_window = "200ms", timeout = "1s" }"#;

#[test]
fn an_endpoint_that_is_down_at_the_start_is_taken_up_when_it_comes() {
    let stage = Stage::new();
    let (first, late) = (stage.replica("first", |_| {}), ports::free());
    first.seed();
    let gate = Setup::before(&[&first], &[]).endpoint(&format!("http://{late}")).upstream(OFTEN).start();
    for _ in 0..6 {
        assert_eq!(pull(MANIFEST).basic(DEV).at(gate.address).status, 200, "while it is down");
    }
    let late = stage.replica_at(late, "late", |_| {});
    waiting::holds("it gets requests", PATIENCE, || {
        assert_eq!(pull(MANIFEST).basic(DEV).at(gate.address).status, 200);
        !late.asked().is_empty()
    });
}

#[test]
fn an_endpoint_that_dies_is_left_at_once_and_no_request_fails() {
    let stage = Stage::new();
    let (first, second) = (stage.replica("first", |_| {}), stage.replica("second", |_| {}));
    first.seed();
    let gate = Setup::before(&[&first, &second], &[]).start();
    for _ in 0..4 {
        assert_eq!(pull(MANIFEST).basic(DEV).at(gate.address).status, 200);
    }
    let dead = second.address.to_string();
    stage.kill(second);
    for turn in 0..12 {
        let answer = pull(MANIFEST).basic(DEV).at(gate.address);
        assert_eq!(answer.status, 200, "{turn} {:?}", story(&gate, &answer));
    }
    gate.wait_for("it is ejected", |metrics| {
        metrics.sum("tidegate_endpoint_up", &[("endpoint", &dead)]) < 0.5
    });
}

#[test]
fn without_any_endpoint_the_answer_is_honest_and_readiness_off() {
    let stage = Stage::new();
    let core = stage.replica("core", |_| {});
    let gate = Setup::before(&[&core], &[]).upstream(OFTEN).without_park().start();
    stage.kill(core);
    let answer = Ask::get("/v2/").at(gate.address);
    assert!((502..=503).contains(&answer.status), "{}", answer.status);
    assert_eq!(story(&gate, &answer)[0], "upstream_failed");
    let unready = || http::get(gate.admin, "/readyz", &[]).is_ok_and(|answer| answer.status == 503);
    waiting::holds("readiness is off", PATIENCE, unready);
}

#[test]
fn each_address_of_a_name_is_an_endpoint() {
    let stage = Stage::new();
    let port = ports::free().port();
    let at = |ip: &str| -> SocketAddr { format!("{ip}:{port}").parse().expect("an address") };
    let core = stage.replica_at(at("127.0.0.1"), "core", |_| {});
    let gate = Setup::default().endpoint(&format!("http://localhost:{port}")).start();
    assert_eq!(Ask::get("/v2/").basic(DEV).at(gate.address).status, 200);
    let heads = core.asked();
    assert_eq!(heads.last().and_then(|head| head.header("host")), Some("harbor.example"));
    let names = gate.metrics().values("tidegate_endpoint_up", "endpoint");
    assert!(names.contains(&format!("localhost:{port}@127.0.0.1")), "{names:?}");
}

#[test]
fn the_portal_gets_what_is_not_cores() {
    let stage = Stage::new();
    let core = stage.replica("core", |_| {});
    let page = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\nportal";
    let portal = Recorder::start(&core, page);
    let gate =
        Setup::before(&[&core], &[]).upstream(&format!("portal = \"http://{}\"", portal.address)).start();
    for path in ["/", "/harbor/projects", "/favicon.ico"] {
        assert_eq!(Ask::get(path).at(gate.address).text(), "portal", "{path}");
        assert_eq!(portal.last().target, path);
    }
    for path in ["/v2/", "/api/v2.0/ping", "/c/log_out", "/service/token"] {
        assert_ne!(Ask::get(path).at(gate.address).text(), "portal", "{path}");
    }
}
