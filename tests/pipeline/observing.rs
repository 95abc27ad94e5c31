//! Observe mode (A27): with a recorder behind us, the same method, target, headers and body; credentials, cookies and
//! answers untouched. Only what A27 lists may differ.

use crate::{
    operating::{screen, with_token},
    recorder::Recorder,
    stage::{DEV, MANIFEST, SCOPE, Setup, Stage, hold, kid, pull, story, token},
    support::gate::{Gate, Metrics},
    talk::{Answer, Ask},
};

const ANSWER: &str = "HTTP/1.1 401 Unauthorized\r\nDate: Sun, 22 Nov 2026 05:19:33 GMT\r\n\
    Www-Authenticate: Basic realm=\"harbor\"\r\nSet-Cookie: sid=0123; Path=/; HttpOnly\r\n\
    Set-Cookie: _gorilla_csrf=ab; Path=/\r\nX-Harbor-CSRF-Token: abc==\r\nX-Own: \"a, b\"; c\r\n\
    Location: http://other/v2/x?_state=a%2Fb\r\nLink: </v2/_catalog?n=1&last=x>; rel=\"next\"\r\n\
    Content-Type: text/plain\r\nContent-Length: 5\r\nVia: 1.1 other\r\n\r\nno\r\n\u{7}";

/// Set or dropped in every mode: forwarding headers, `X-Request-ID`, hop by hop.
const OURS: [&str; 4] = ["x-forwarded-for", "x-forwarded-proto", "x-real-ip", "x-request-id"];

type Headers = Vec<(String, Vec<u8>)>;

fn scene() -> (Stage, Recorder, Gate) {
    let stage = Stage::new();
    let core = stage.replica("core", |_| {});
    let recorder = Recorder::start(&core, ANSWER);
    let setup = Setup::before(&[], &[&core.key_file]).endpoint(&format!("http://{}", recorder.address));
    let gate = setup.top("mode = \"observe\"").start();
    (stage, recorder, gate)
}

fn requests() -> Vec<Ask> {
    let all = |ask: Ask| {
        ask.header("Accept", "application/vnd.oci.image.manifest.v1+json")
            .header("Accept", "application/vnd.docker.distribution.manifest.v2+json, */*;q=0.1")
            .header("Cookie", "sid=0123; _gorilla_csrf=ab")
            .header("X-Harbor-CSRF-Token", "abc==")
            .header("X-Own", "  a\tb ")
            .header("Range", "bytes=0-9")
            .header("If-Range", "\"sha256:ab\"")
            .header("User-Agent", "client/1 (os; \"q\")")
    };
    vec![
        all(Ask::get("/v2/priv/a%2Fb/manifests/v1?x=%2f&y=a+b&&z")).bearer("dead.dead.dead"),
        all(Ask::get("/v2/priv/x/blobs/sha256:00")).bearer(""),
        all(Ask::new("HEAD", "/v2/priv/x/manifests/v1")).basic(("dev", "x:y")),
        all(Ask::new("PATCH", "/v2/priv/x/blobs/uploads/1?_state=a%3D%3D"))
            .bearer("dead")
            .chunked(vec![0xff; 700_000]),
        all(Ask::new("PUT", "/v2/priv/x/manifests/v1")).body("{}").header("Content-Type", "a/b; c=d"),
        all(Ask::new("POST", "/service/token?service=harbor-registry"))
            .body("grant_type=password&password=x"),
        all(Ask::get("/service/token?scope=b&scope=a&service=x;y")).basic(("robot$ci", "s")),
        all(Ask::new("DELETE", "/api/v2.0/projects/1")),
        all(Ask::get("/c/oidc/callback?code=a&state=b")),
        all(Ask::get("/harbor/projects")),
    ]
}

fn sorted(mut headers: Headers) -> Headers {
    headers.retain(|(name, _)| !OURS.contains(&name.as_str()) && name != "transfer-encoding");
    headers.sort();
    headers
}

#[test]
fn requests_go_up_as_they_came() {
    let (_stage, recorder, gate) = scene();
    for ask in requests() {
        let answer = ask.at(gate.address);
        assert_eq!(answer.status, 401, "{}", answer.text());
        let (received, sent) = (recorder.last(), ask.received());
        assert_eq!((&received.method, &received.target), (&sent.method, &sent.target));
        assert_eq!(sorted(received.headers), sorted(sent.headers), "{} {}", sent.method, sent.target);
        assert_eq!(received.body, sent.body, "{} {}", sent.method, sent.target);
    }
}

#[test]
fn answers_come_down_as_they_were_given() {
    let (_stage, _recorder, gate) = scene();
    let mut given: Vec<(String, String)> =
        ANSWER.lines().skip(1).map_while(|line| line.split_once(": ")).map(own).collect();
    given.sort();
    for ask in requests().into_iter().filter(|ask| ask.received().method != "HEAD") {
        let Answer { status, headers, body } = ask.at(gate.address);
        let mut headers: Vec<_> = headers.iter().map(|(n, v)| own((n.as_str(), v.as_str()))).collect();
        headers.retain(|(name, _)| name != "x-request-id" && name != "connection");
        headers.sort();
        assert_eq!(
            (status, headers, body),
            (401, given.clone(), b"no\r\n\x07".to_vec()),
            "{:?}",
            ask.received().target
        );
    }
}

#[test]
fn what_would_be_refused_is_counted_and_named() {
    let (_stage, _recorder, gate) = scene();
    let answer = Ask::get("/v2/priv/x/manifests/v1").bearer("dead").at(gate.address);
    assert_eq!(story(&gate, &answer), ["forwarded", "as_came", "token_malformed"]);
    gate.wait_for("it is counted", |metrics| {
        metrics.sum("tidegate_rejections_total", &[("reason", "token_malformed")]) > 0.5
    });
}

#[test]
fn a_refusal_that_enforce_mode_would_have_rescued_is_counted_and_passed_on() {
    let stage = Stage::new();
    let core = stage.replica("core", |_| {});
    core.seed();
    let setup = Setup::before(&[&core], &[&core.key_file]).top("mode = \"observe\"");
    let (gate, secret) = with_token(&stage, &setup);
    let token = token(gate.address, DEV, SCOPE);
    let pulled = || pull(MANIFEST).bearer(&token).at(gate.address).status;
    let would = |metrics: &Metrics| metrics.sum("tidegate_would_rescue_total", &[]);
    assert_eq!((pulled(), would(&gate.metrics())), (200, 0.0), "nothing was refused");
    hold(&core.key_file, 1);
    gate.wait_for("both see the new key", |metrics| {
        let held = metrics.sum("tidegate_endpoint_held_key", &[("kid", &kid(1))]);
        held + metrics.sum("tidegate_key_state", &[("kid", &kid(1)), ("state", "signing")]) > 1.5
    });
    assert_eq!(pulled(), 401, "Harbor's refusal goes to the client");
    gate.wait_for("it is counted", |metrics| {
        metrics.sum("tidegate_would_rescue_total", &[("reason", "resign")]) > 0.5
    });
    assert_eq!(pull(MANIFEST).bearer("dead").at(gate.address).status, 401);
    let metrics = gate.metrics();
    let rescued = metrics.sum("tidegate_rescued_requests_total", &[]);
    assert_eq!((would(&metrics), rescued), (1.0, 0.0), "a token that is none isn't rescued");
    assert!(screen(&gate, &secret).contains("\nWOULD HAVE RESCUED  1 of "), "{}", screen(&gate, &secret));
}

fn own((name, value): (&str, &str)) -> (String, String) {
    (name.to_ascii_lowercase(), value.to_owned())
}
