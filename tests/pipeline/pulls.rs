//! Pulls that core breaks off (U8): the client gets one unbroken body, or one that visibly ends too soon; never a wrong
//! one (A24).

use crate::{
    cutter::{Cutter, Until},
    stage::{
        ADMIN, DEV, MANIFEST, Replica, SCOPE, Setup, Stage, hold, pull, push, sha256, spare_key, story,
        token, told,
    },
    support::{gate::Gate, ports, waiting},
    talk::{Answer, Ask, Line},
};
use http_body_util::BodyExt;
use std::{
    net::{Shutdown, SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

const SOON: Duration = Duration::from_secs(20);
/// Larger than all buffers between a core and a client that doesn't read.
const LARGE: usize = 48 << 20;

/// A blob of `priv/seed`.
struct Blob {
    path: String,
    bytes: Vec<u8>,
}

impl Blob {
    fn pushed(core: &Replica, length: usize) -> Self {
        let bytes: Vec<u8> =
            (0..length as u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        assert_eq!(push(core.address, "priv/seed", "v1", &bytes, |ask| ask.basic(ADMIN)), Ok(()));
        Self { path: format!("/v2/priv/seed/blobs/{}", sha256(&bytes)), bytes }
    }

    fn ask(&self, bearer: &str) -> Ask {
        Ask::get(&self.path).bearer(bearer)
    }
}

/// An answer, however much of it comes, and whether that is all that its head says.
fn fetch(address: SocketAddr, ask: &Ask) -> (Answer, bool) {
    let mut line = Line::open(address);
    line.send(&ask.clone().header("Connection", "close").head()).expect("it reads");
    let mut answer = line.head().expect("a head");
    answer.body = line.exactly(usize::MAX).expect("a body and its end");
    let length = answer.header("content-length").and_then(|length| length.parse().ok());
    let whole = length == Some(answer.body.len());
    (answer, whole)
}

/// A core behind one or two wires, and a gate before all of them.
struct Scene {
    _stage: Stage,
    core: Replica,
    cutter: Cutter,
    gate: Gate,
    bearer: String,
}

fn scene() -> Scene {
    scene_of(1, |setup| setup)
}

fn scene_of(endpoints: usize, change: impl FnOnce(Setup) -> Setup) -> Scene {
    let stage = Stage::new();
    let core = stage.replica("core", |_| {});
    core.seed();
    let cutter = Cutter::start(core.address);
    let mut setup = Setup::before(&[], &[&core.key_file]).endpoint(&cutter.url());
    for _ in 1..endpoints {
        setup = setup.endpoint(&cutter.beside(core.address).url());
    }
    let gate = change(setup).start();
    let bearer = token(core.address, DEV, SCOPE);
    Scene { _stage: stage, core, cutter, gate, bearer }
}

fn resumed(gate: &Gate, answer: &Answer) -> serde_json::Value {
    let line = told(gate, answer);
    assert_eq!((line["outcome"].as_str(), line["reason"].as_str()), (Some("rescued"), Some("pull_resumed")));
    line
}

/// Waits until so many requests wait.
fn parked(gate: &Gate, count: usize) {
    waiting::holds("the requests wait", SOON, || {
        gate.metrics().sum("tidegate_parked_requests", &[]) >= count as f64
    });
}

#[test]
fn a_pull_goes_on_at_another_endpoint_wherever_it_was_cut() {
    let scene = scene_of(2, |setup| setup);
    let blob = Blob::pushed(&scene.core, 300_000);
    let ask = blob.ask(&scene.bearer);
    let whole = ask.at(scene.core.address);
    for at in [0, 1, 150_000, blob.bytes.len() - 1] {
        scene.cutter.clear();
        scene.cutter.next(move |_| Until::Body(at));
        assert!(!fetch(scene.cutter.address, &ask).1, "directly it is cut");
        scene.cutter.clear();
        scene.cutter.next(move |_| Until::Body(at));
        let (answer, is_whole) = fetch(scene.gate.address, &ask);
        assert!(is_whole && answer.body == blob.bytes, "{at}\n{}", scene.gate.tail());
        assert_eq!(scene.cutter.ranges(), ["", &format!("bytes={at}-")]);
        let asked = scene.cutter.asked();
        assert_ne!(asked[0].0, asked[1].0, "the endpoint that broke is not asked again before its probe");
        for name in ["etag", "docker-content-digest", "content-type", "accept-ranges"] {
            assert_eq!(answer.header(name), whole.header(name), "{name}");
        }
        assert_eq!((answer.status, answer.header("content-range")), (200, None));
        let line = resumed(&scene.gate, &answer);
        assert_eq!((line["status"].as_u64(), line["sends"].as_u64()), (Some(200), Some(2)));
        assert_eq!(line["bytes_out"].as_u64(), Some(blob.bytes.len() as u64));
        assert_eq!(line["endpoint"].as_str(), Some(&*asked[1].0.to_string()));
        let again = &asked[1].1;
        assert_eq!(again.header("x-request-id"), answer.header("x-request-id"));
        assert_eq!(again.header("host"), Some("harbor.example"));
        assert_eq!(again.header("x-real-ip"), Some("127.0.0.1"));
    }
    let rescued = scene.gate.metrics().sum("tidegate_rescued_requests_total", &[("reason", "pull_resumed")]);
    assert!((rescued - 4.0).abs() < 0.5);
}

#[test]
fn a_pull_that_is_cut_again_and_again_goes_on_at_the_only_endpoint() {
    let scene = scene();
    let blob = Blob::pushed(&scene.core, 400_000);
    // The last two with nothing between them.
    for brings in [5, 70_000, 1, 65_536, 0, 100_000, 3, 20_000, 0, 0] {
        scene.cutter.next(move |_| Until::Body(brings));
    }
    let (answer, whole) = fetch(scene.gate.address, &blob.ask(&scene.bearer));
    assert!(whole && answer.body == blob.bytes, "{}", scene.gate.tail());
    assert_eq!(resumed(&scene.gate, &answer)["sends"].as_u64(), Some(11));
    let ranges = scene.cutter.ranges();
    assert_eq!(&ranges[..4], ["", "bytes=5-", "bytes=70005-", "bytes=70006-"]);
}

#[test]
fn a6_a_pull_that_gets_no_further_ends() {
    let scene = scene();
    let blob = Blob::pushed(&scene.core, 100_000);
    for (brings, sends) in [(0, 4), (1, 17)] {
        scene.cutter.clear();
        for _ in 0..99 {
            scene.cutter.next(move |_| Until::Body(brings));
        }
        let (answer, whole) = fetch(scene.gate.address, &blob.ask(&scene.bearer));
        assert!(!whole && blob.bytes.starts_with(&answer.body));
        let line = told(&scene.gate, &answer);
        assert_eq!(
            (line["outcome"].as_str(), line["sends"].as_u64()),
            (Some("upstream_failed"), Some(sends))
        );
    }
}

#[test]
fn a24_nothing_but_the_rest_of_the_same_blob_is_ever_joined() {
    type Change = fn(&mut Answer);
    fn set(answer: &mut Answer, name: &str, value: &str) {
        answer.headers.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
        if !value.is_empty() {
            answer.headers.push((name.to_owned(), value.to_owned()));
        }
    }
    let changes: [(&str, Change); 11] = [
        ("another ETag", |a| set(a, "etag", "\"sha256:00\"")),
        ("a weak ETag", |a| set(a, "etag", "W/\"sha256:00\"")),
        ("no ETag", |a| set(a, "etag", "")),
        ("another digest", |a| set(a, "docker-content-digest", "sha256:00")),
        ("no digest", |a| set(a, "docker-content-digest", "")),
        ("200", |a| a.status = 200),
        ("no range", |a| set(a, "content-range", "")),
        ("a range before", |a| set(a, "content-range", "bytes 39999-99998/100000")),
        ("another whole", |a| set(a, "content-range", "bytes 40000-99999/100001")),
        ("a coding", |a| set(a, "content-encoding", "gzip")),
        ("fewer bytes", |a| {
            a.body.pop();
            set(a, "content-length", "59999");
        }),
    ];
    let scene = scene();
    let blob = Blob::pushed(&scene.core, 100_000);
    for (what, change) in changes {
        scene.cutter.clear();
        scene.cutter.next(|_| Until::Body(40_000));
        scene.cutter.next(move |answer| {
            change(answer);
            Until::End
        });
        let (answer, whole) = fetch(scene.gate.address, &blob.ask(&scene.bearer));
        assert!(!whole && answer.body == blob.bytes[..40_000], "{what}: {} bytes", answer.body.len());
        assert_eq!(scene.cutter.asked().len(), 2, "{what}: asked for once");
        assert_eq!(story(&scene.gate, &answer)[0], "upstream_failed", "{what}");
    }
    scene.cutter.clear();
    scene.cutter.next(|_| Until::Body(40_000));
    assert!(fetch(scene.gate.address, &blob.ask(&scene.bearer)).1, "unchanged it is joined");
}

#[test]
fn what_has_no_name_of_its_own_is_cut() {
    let scene = scene();
    let blob = Blob::pushed(&scene.core, 1_000);
    scene.cutter.next(|answer| {
        answer.headers.retain(|(name, _)| {
            !["etag", "docker-content-digest"].iter().any(|named| name.eq_ignore_ascii_case(named))
        });
        Until::Body(10)
    });
    assert!(!fetch(scene.gate.address, &blob.ask(&scene.bearer)).1);
    assert_eq!(scene.cutter.asked().len(), 1);
}

#[test]
fn a_range_that_the_client_asked_for_goes_on_within_itself() {
    let scene = scene();
    let blob = Blob::pushed(&scene.core, 1_000);
    for (asked, goes_on, from, to) in [
        ("bytes=100-299", "bytes=150-299", 100, 300),
        ("bytes=100-", "bytes=150-", 100, 1_000),
        ("bytes=-300", "bytes=750-", 700, 1_000),
    ] {
        scene.cutter.clear();
        scene.cutter.next(|_| Until::Body(50));
        let ask = blob.ask(&scene.bearer).header("Range", asked);
        let (answer, whole) = fetch(scene.gate.address, &ask);
        assert!(whole && answer.body == blob.bytes[from..to], "{asked}\n{}", scene.gate.tail());
        assert_eq!(answer.status, 206);
        assert_eq!(answer.header("content-range"), Some(&*format!("bytes {from}-{}/1000", to - 1)));
        assert_eq!(scene.cutter.ranges(), [asked, goes_on]);
        resumed(&scene.gate, &answer);
    }
}

#[test]
fn a_manifest_that_was_cut_is_fetched_again() {
    let scene = scene();
    let ask = pull(MANIFEST).bearer(&scene.bearer);
    let whole = ask.at(scene.core.address);
    for at in [0, 1, whole.body.len() - 1] {
        scene.cutter.clear();
        scene.cutter.next(move |_| Until::Body(at));
        let (answer, is_whole) = fetch(scene.gate.address, &ask);
        assert!(is_whole && answer.body == whole.body, "{at}\n{}", scene.gate.tail());
        resumed(&scene.gate, &answer);
        let asked = scene.cutter.asked();
        assert_eq!(asked[1].1.header("accept"), asked[0].1.header("accept"));
        assert_eq!(scene.cutter.ranges(), ["", ""]);
    }
}

#[test]
fn a24_a_tag_that_moved_meanwhile_is_not_joined() {
    let scene = scene();
    let address = scene.core.address;
    scene.cutter.next(move |_| {
        assert_eq!(push(address, "priv/seed", "v1", b"of another image", |ask| ask.basic(ADMIN)), Ok(()));
        Until::Body(20)
    });
    let (answer, whole) = fetch(scene.gate.address, &pull(MANIFEST).bearer(&scene.bearer));
    assert!(!whole && answer.body.len() == 20);
}

#[test]
fn a_safe_request_whose_answer_broke_off_in_its_head_is_sent_again() {
    let scene = scene();
    let asks = [
        Ask::get("/v2/").bearer(&scene.bearer),
        pull(MANIFEST).bearer(&scene.bearer),
        Ask::new("HEAD", MANIFEST)
            .header("Accept", "application/vnd.oci.image.manifest.v1+json")
            .bearer(&scene.bearer),
        Ask::get("/v2/priv/seed/tags/list").bearer(&scene.bearer),
        Ask::get("/api/v2.0/users/current").basic(DEV),
    ];
    for ask in asks {
        let whole = ask.at(scene.core.address);
        assert_eq!(whole.status, 200, "{ask:?}");
        for head in [0, 1, 40] {
            scene.cutter.clear();
            scene.cutter.next(move |_| Until::Head(head));
            let answer = ask.at(scene.gate.address);
            assert_eq!((answer.status, &answer.body), (whole.status, &whole.body), "{head} {ask:?}");
            assert_eq!(scene.cutter.asked().len(), 2);
        }
    }
}

#[test]
fn an_answer_that_stands_still_goes_on_elsewhere() {
    let scene = scene_of(2, |setup| setup.rest("[timeouts]\nstall = \"1s\"\n"));
    let blob = Blob::pushed(&scene.core, 100_000);
    scene.cutter.next(|_| Until::Standing(40_000));
    let (answer, whole) = fetch(scene.gate.address, &blob.ask(&scene.bearer));
    assert!(whole && answer.body == blob.bytes, "{}", scene.gate.tail());
    resumed(&scene.gate, &answer);
}

#[test]
fn a27_observe_mode_continues_nothing() {
    let scene = scene_of(1, |setup| setup.top("mode = \"observe\""));
    let blob = Blob::pushed(&scene.core, 100_000);
    scene.cutter.next(|_| Until::Body(40_000));
    assert!(!fetch(scene.gate.address, &blob.ask(&scene.bearer)).1);
    assert_eq!(scene.cutter.asked().len(), 1);
}

/// A client in the middle of a large pull from a core that was killed: its line, the answer's head, what it read.
struct Halfway {
    stage: Stage,
    gate: Gate,
    blob: Blob,
    address: SocketAddr,
    line: Line<TcpStream>,
    head: Answer,
    read: Vec<u8>,
}

fn halfway(change: impl FnOnce(Setup) -> Setup) -> Halfway {
    let stage = Stage::new();
    spare_key(1);
    let core = stage.replica("core", |_| {});
    let blob = Blob::pushed(&core, LARGE);
    let gate = change(Setup::before(&[&core], &[&core.key_file])).start();
    let bearer = token(gate.address, DEV, SCOPE);
    let ask = blob.ask(&bearer).header("Connection", "close");
    let begin = |address| {
        let mut line = Line::open(address);
        line.send(&ask.head()).expect("it reads");
        let head = line.head().expect("a head");
        let read = line.exactly(1 << 20).expect("its first MiB");
        (line, head, read)
    };
    let (mut direct, ..) = begin(core.address);
    let (line, head, read) = begin(gate.address);
    let address = core.address;
    stage.kill(core);
    let rest = direct.exactly(LARGE - (1 << 20)).map(|rest| rest.len());
    assert!(rest.is_err(), "directly it is cut: {rest:?}");
    Halfway { stage, gate, blob, address, line, head, read }
}

impl Halfway {
    /// Reads on until the gate has found out, while `meanwhile` runs.
    fn finish<T>(
        mut self,
        meanwhile: impl FnOnce(&Stage, &Gate, SocketAddr) -> T,
    ) -> (Gate, T, Answer, bool) {
        let (gate, mut line) = (&self.gate, self.line);
        let (done, rest) = thread::scope(|scope| {
            let reading = scope.spawn(move || line.exactly(usize::MAX).expect("a body and its end"));
            parked(gate, 1);
            (meanwhile(&self.stage, gate, self.address), reading.join().expect("no panic"))
        });
        self.read.extend(rest);
        assert!(self.blob.bytes.starts_with(&self.read), "no wrong byte");
        let whole = self.read.len() == self.blob.bytes.len();
        (self.gate, done, Answer { body: self.read, ..self.head }, whole)
    }
}

#[test]
fn a_pull_waits_for_the_only_core_and_goes_on_under_its_new_key() {
    // It waits for longer than a body may stand still.
    let pull = halfway(|setup| setup.rest("[timeouts]\nstall = \"1s\"\n"));
    let (gate, _back, answer, whole) = pull.finish(|stage, gate, address| {
        let began = Instant::now();
        waiting::holds("that is longer than a stall", SOON, || {
            began.elapsed() > Duration::from_millis(2_500)
        });
        parked(gate, 1);
        stage.replica_at(address, "core", |options| hold(&options.key_file, 1))
    });
    assert!(whole, "{} bytes\n{}", answer.body.len(), gate.tail());
    let line = resumed(&gate, &answer);
    assert_eq!(line["plan"].as_str(), Some("resign"), "{line}");
}

#[test]
fn a_pull_whose_core_does_not_come_back_ends_in_time() {
    let (gate, began, answer, whole) =
        halfway(|setup| setup.rest("[park]\ntimeout = \"2s\"\n")).finish(|_, _, _| Instant::now());
    assert!(!whole && began.elapsed() < Duration::from_secs(10));
    assert_eq!(story(&gate, &answer), ["upstream_failed", "as_came", "no_endpoint"]);
}

#[test]
fn a25_a_pull_that_finds_no_room_to_wait_ends_at_once() {
    let pull = halfway(|setup| setup.rest("[park]\nrequests = 2\n"));
    // One address has half of the places.
    let to = pull.gate.address;
    let waits = thread::spawn(move || Line::open(to).ask(&Ask::get("/v2/x")));
    parked(&pull.gate, 1);
    let (mut line, began) = (pull.line, Instant::now());
    let rest = line.exactly(usize::MAX).expect("a body and its end");
    assert!(began.elapsed() < SOON && rest.len() < LARGE - pull.read.len(), "{}", pull.gate.tail());
    assert_eq!(story(&pull.gate, &pull.head)[2], "busy");
    let _back = pull.stage.replica_at(pull.address, "core", |_| {});
    assert_eq!(waits.join().expect("no panic").expect("an answer").status, 401, "the other one waited on");
}

#[test]
fn a19_a_key_retired_meanwhile_ends_the_pull() {
    let pull = halfway(|setup| setup);
    let key = pull.stage.path("core.pem");
    let retired = pull.stage.path("retired.pem");
    std::fs::copy(&key, &retired).expect("a copy");
    let (gate, _back, answer, whole) = pull.finish(|stage, gate, address| {
        let source = format!("{{ file = \"{}\", state = \"retired\" }}", retired.display());
        let setup = Setup::default().endpoint(&format!("http://{address}")).source(&source);
        gate.reload(&setup.text(), |metrics| {
            metrics.sum("tidegate_key_state", &[("state", "retired")]) > 0.5
        });
        stage.replica_at(address, "core", |_| {})
    });
    assert!(!whole, "{}", gate.tail());
    assert_eq!(story(&gate, &answer)[..2], ["upstream_failed", "as_came"]);
    assert_eq!(told(&gate, &answer)["reason"].as_str(), Some("token_key_retired"));
}

#[test]
fn a19_a_token_that_expired_meanwhile_ends_the_pull() {
    let stage = Stage::new();
    let core = stage.replica("core", |options| options.token_expiration = Duration::from_secs(6));
    let blob = Blob::pushed(&core, LARGE);
    let gate = Setup::before(&[&core], &[&core.key_file]).keys("leeway = \"0s\"").start();
    let bearer = token(gate.address, DEV, SCOPE);
    let issued = Instant::now();
    let mut line = Line::open(gate.address);
    line.send(&blob.ask(&bearer).header("Connection", "close").head()).expect("it reads");
    let head = line.head().expect("a head");
    let address = core.address;
    stage.kill(core);
    let (_back, read) = thread::scope(|scope| {
        let reading = scope.spawn(move || line.exactly(usize::MAX).expect("a body and its end"));
        parked(&gate, 1);
        waiting::holds("the token expires", SOON, || issued.elapsed() > Duration::from_millis(7_500));
        (stage.replica_at(address, "core", |_| {}), reading.join().expect("no panic"))
    });
    assert!(read.len() < LARGE && blob.bytes.starts_with(&read), "{}", gate.tail());
    assert_eq!(story(&gate, &head)[2], "token_expired");
}

#[test]
fn a_client_that_leaves_ends_the_wait_for_its_rest() {
    let pull = halfway(|setup| setup);
    let leaves = pull.line.stream.try_clone().expect("a second handle");
    let mut line = pull.line;
    let reading = thread::spawn(move || line.exactly(usize::MAX).map(|rest| rest.len()));
    parked(&pull.gate, 1);
    leaves.shutdown(Shutdown::Both).expect("it was open");
    waiting::holds("nobody waits", SOON, || pull.gate.metrics().sum("tidegate_parked_requests", &[]) < 0.5);
    drop(reading.join());
    assert_eq!(story(&pull.gate, &pull.head)[0], "client_gone");
}

#[test]
fn an_http_2_stream_goes_on_too() {
    let stage = Stage::new();
    let core = stage.replica("core", |_| {});
    let cutter = Cutter::start(core.address);
    let blob = Blob::pushed(&core, 3 << 20);
    let address = ports::free();
    let listener = format!("[[listener]]\naddress = \"{address}\"\nhttp2 = true\n");
    let setup = Setup::before(&[], &[&core.key_file]).endpoint(&cutter.url()).rest(&listener);
    let gate = setup.start();
    let bearer = token(gate.address, DEV, SCOPE);
    let get = || {
        stage.runtime.block_on(async {
            let stream = tokio::net::TcpStream::connect(address).await.expect("it listens");
            let (io, executor) = (hyper_util::rt::TokioIo::new(stream), hyper_util::rt::TokioExecutor::new());
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(executor, io).await.expect("a preface");
            let request = http::Request::get(format!("http://harbor.example{}", blob.path))
                .header("Authorization", format!("Bearer {bearer}"))
                .body(http_body_util::Empty::<bytes::Bytes>::new())
                .expect("a request");
            let get = async {
                let answer = sender.send_request(request).await.expect("an answer");
                answer.into_body().collect().await.map(http_body_util::Collected::to_bytes)
            };
            tokio::select! {
                body = get => body,
                _ = connection => panic!("the connection ended"),
            }
        })
    };
    cutter.clear();
    for brings in [1 << 20, 0, 70_000] {
        cutter.next(move |_| Until::Body(brings));
    }
    assert!(get().expect("a whole body") == blob.bytes, "{}", gate.tail());
    assert_eq!(cutter.ranges(), ["", "bytes=1048576-", "bytes=1048576-", "bytes=1118576-"]);
    cutter.clear();
    cutter.next(|_| Until::Body(1 << 20));
    cutter.next(|answer| {
        answer.status = 200;
        Until::End
    });
    assert!(get().is_err(), "what can't be joined is reset");
}
