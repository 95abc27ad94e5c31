//! The only replica is gone for a while: what would have failed waits and is served when it is back.

use crate::{
    crowd::{Crowd, Outcome},
    stage::{
        DEV, MANIFEST, SCOPE, Setup, Stage, ask_token, manifest, path_of, pull, sha256, spare_key, story,
        token,
    },
    support::{gate::Gate, ports, process::peak_memory, waiting},
    talk::Ask,
};
use std::{
    io::Write,
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const SOON: Duration = Duration::from_secs(20);

/// Waits until so many requests wait.
fn parked(gate: &Gate, count: f64) {
    let waiting = || gate.metrics().sum("tidegate_parked_requests", &[]);
    let wait = waiting::until(SOON, || (waiting() >= count).then_some(()));
    assert!(wait.is_some(), "{} of {count} requests wait\n{}", waiting(), gate.tail());
}

#[test]
fn requests_wait_while_the_only_core_restarts() {
    let stage = Stage::new();
    spare_key(1);
    let core = stage.replica("core", |_| {});
    core.seed();
    let gate = Setup::before(&[&core], &[&core.key_file]).start();
    let bearer = token(gate.address, DEV, SCOPE);
    let asks = || {
        let text = manifest(b"{}", b"a layer of priv/seed");
        [
            (200, pull(MANIFEST).bearer(&bearer)),
            (200, Ask::new("HEAD", MANIFEST).header("Accept", MANIFEST_TYPE).bearer(&bearer)),
            (202, Ask::new("POST", "/v2/priv/seed/blobs/uploads/").body("").bearer(&bearer)),
            (
                201,
                Ask::new("PUT", "/v2/priv/seed/manifests/later")
                    .header("Content-Type", MANIFEST_TYPE)
                    .body(text)
                    .bearer(&bearer),
            ),
            // Of another scope than the one above, whose answer is kept.
            (200, ask_token("repository:priv/seed:push").basic(DEV)),
            (200, Ask::get("/api/v2.0/users/current").basic(DEV)),
        ]
    };
    let (address, to) = (core.address, gate.address);
    stage.kill(core);
    assert!(TcpStream::connect(address).is_err(), "directly every one of them fails");
    let (_back, answers) = thread::scope(|scope| {
        let waiting: Vec<_> =
            asks().into_iter().map(|(status, ask)| (status, scope.spawn(move || ask.at(to)))).collect();
        parked(&gate, waiting.len() as f64);
        let back = stage.replica_at(address, "core", |_| {});
        let answers: Vec<_> =
            waiting.into_iter().map(|(status, ask)| (status, ask.join().expect("no panic"))).collect();
        (back, answers)
    });
    for (status, answer) in &answers {
        assert_eq!(answer.status, *status, "{}\n{}", answer.text(), gate.tail());
        let [outcome, _, reason] = story(&gate, answer);
        assert_eq!([&*outcome, &*reason], ["rescued", "park"]);
    }
    assert!(gate.metrics().sum("tidegate_parked_requests", &[]) < 0.5);
}

#[test]
fn an_upload_whose_next_step_meets_a_dead_core_goes_on_when_it_is_back() {
    let stage = Stage::new();
    let core = stage.replica("core", |_| {});
    core.seed();
    let gate = Setup::before(&[&core], &[&core.key_file]).start();
    let bearer = token(gate.address, DEV, SCOPE);
    let open = Ask::new("POST", "/v2/priv/seed/blobs/uploads/").body("").bearer(&bearer).at(gate.address);
    let layer = vec![5; 3 << 20];
    let (address, to) = (core.address, gate.address);
    stage.kill(core);
    let (_back, patched) = thread::scope(|scope| {
        let patch = Ask::new("PATCH", &path_of(&open)).chunked(layer.clone()).bearer(&bearer);
        let patch = scope.spawn(move || patch.at(to));
        parked(&gate, 1.0);
        let back = stage.replica_at(address, "core", |_| {});
        (back, patch.join().expect("no panic"))
    });
    assert_eq!(patched.status, 202, "{}\n{}", patched.text(), gate.tail());
    let put = format!("{}&digest={}", path_of(&patched), sha256(&layer));
    let put = Ask::new("PUT", &put).body("").bearer(&bearer).at(gate.address);
    assert_eq!((put.status, put.header("docker-content-digest")), (201, Some(&*sha256(&layer))));
}

#[test]
fn a25_what_finds_no_room_or_waits_too_long_gets_503_and_says_when_to_come_back() {
    let stage = Stage::new();
    let core = stage.replica("core", |_| {});
    core.seed();
    let gate = Setup::before(&[&core], &[]).rest("[park]\ntimeout = \"4s\"\nrequests = 4\n").start();
    let bearer = token(gate.address, DEV, SCOPE);
    stage.kill(core);
    let began = Instant::now();
    let (refused, waited) = thread::scope(|scope| {
        // One address has half of the places.
        let waiting: Vec<_> =
            (0..2).map(|_| scope.spawn(|| pull(MANIFEST).bearer(&bearer).at(gate.address))).collect();
        parked(&gate, 2.0);
        let refused = pull(MANIFEST).bearer(&bearer).at(gate.address);
        assert!(began.elapsed() < Duration::from_secs(3), "at once");
        (refused, waiting.into_iter().map(|ask| ask.join().expect("no panic")).collect::<Vec<_>>())
    });
    assert!(began.elapsed() >= Duration::from_secs(4));
    for (answer, reason) in waited.iter().map(|answer| (answer, "no_endpoint")).chain([(&refused, "busy")]) {
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")), "{}", answer.text());
        assert!(answer.text().contains("\"errors\""), "{}", answer.text());
        assert_eq!(story(&gate, answer)[2], reason);
    }
}

#[test]
fn a_client_that_leaves_waits_no_more() {
    let stage = Stage::new();
    let core = stage.replica("core", |_| {});
    let gate = Setup::before(&[&core], &[]).start();
    stage.kill(core);
    let mut left = TcpStream::connect(gate.address).expect("the gate");
    left.write_all(b"GET /v2/x HTTP/1.1\r\nHost: h\r\n\r\n").expect("it reads");
    parked(&gate, 1.0);
    drop(left);
    waiting::holds("nobody waits", SOON, || gate.metrics().sum("tidegate_parked_requests", &[]) < 0.5);
}

/// Requests of the crowd, and how many of them find a place: one address has half.
const CROWD: usize = 10_000;
const PLACES: usize = 2_000;
/// So many come at a time, so that their order is known.
const WAVE: usize = 250;
/// `park.bytes`, MiB, and what streams, answers and their connections take beside it.
const PARKED: u64 = 32;
const BESIDE: u64 = 96;

#[test]
fn a25_of_ten_thousand_requests_on_a_dead_core_some_wait_in_order_and_the_rest_get_503_at_once() {
    let stage = Stage::new();
    let core = stage.replica("core", |_| {});
    core.seed();
    let http2 = ports::free();
    let park = format!(
        "[park]\ntimeout = \"60s\"\nrequests = {}\nbytes = \"{PARKED}MiB\"\n\n\
         [[listener]]\naddress = \"{http2}\"\nhttp2 = true\n",
        2 * PLACES
    );
    let gate = Setup::before(&[&core], &[]).rest(&park).start();
    let crowd = Crowd::open(http2, 100, &token(gate.address, DEV, SCOPE));
    let numbered = format!("{MANIFEST}?number=");
    let before = peak_memory(gate.id());
    let address = core.address;
    stage.kill(core);
    assert!(TcpStream::connect(address).is_err(), "directly every one of them fails");

    let waves = (0..PLACES).step_by(WAVE).map(|first| {
        let asked = crowd.ask(&numbered, first..first + WAVE);
        parked(&gate, (first + WAVE) as f64);
        asked
    });
    let waves: Vec<_> = waves.collect();
    let refused = crowd.outcomes(crowd.ask(&numbered, PLACES..CROWD));
    let peak = peak_memory(gate.id());

    let back = stage.replica_at(address, "core", |_| {});
    let listens = Instant::now();
    let fresh = pull(MANIFEST).bearer(&token(gate.address, DEV, SCOPE)).at(gate.address);
    let recovered = listens.elapsed();
    let waves: Vec<_> = waves.into_iter().map(|wave| crowd.outcomes(wave)).collect();
    let since = |outcome: &Outcome| outcome.at.saturating_duration_since(listens);
    let head = waves[0].iter().map(since).min().unwrap_or_default();
    let waited = waves.concat();
    let last = waited.iter().map(since).max().unwrap_or_default();
    in_order(&back.asked().iter().filter_map(|asked| number(&asked.target)).collect::<Vec<_>>());
    // As many at once, with nobody in their way: what gate and core can do here.
    let again = Instant::now();
    let unhindered = crowd.outcomes(crowd.ask(&numbered, 0..PLACES));
    let pace = again.elapsed();
    assert!(unhindered.iter().all(|outcome| outcome.status == 200), "{}", gate.tail());
    let mut slow: Vec<_> = refused.iter().map(|outcome| outcome.took).collect();
    slow.sort();
    println!(
        "503 after {:.0?} (median), {:.0?} (last of {}); {} MiB before, {} MiB at most; core back: a new request served \
         after {recovered:.0?}, the head of the line after {head:.0?}, the last of {} after {last:.0?}; as many take \
         {pace:.0?} when all is well",
        slow[slow.len() / 2],
        slow[slow.len() - 1],
        slow.len(),
        before >> 20,
        peak >> 20,
        waited.len(),
    );
    assert!(waited.iter().all(|outcome| outcome.status == 200), "{}", gate.tail());
    assert!(refused.iter().all(|outcome| outcome.status == 503), "{}", gate.tail());
    assert!(refused.iter().all(|outcome| outcome.retry_after.as_deref() == Some("1")));
    // As fast as they can be read and answered; who waits, waits for a minute.
    assert!(slow[slow.len() - 1] < Duration::from_secs(30), "at once");
    assert!(peak < before + ((PARKED + BESIDE) << 20), "{before} grew to {peak}");
    assert_eq!(fresh.status, 200, "{}", fresh.text());
    assert!(recovered < Duration::from_secs(1), "{recovered:?}");
    assert!(head < Duration::from_secs(1), "{head:?}");
    // They go as fast as core completes them, which begins slowly: see `Lot`.
    assert!(last < Duration::from_secs(2) + 4 * pace, "{last:?}, and {pace:?} when all is well");
}

fn number(target: &str) -> Option<usize> {
    target.split_once("?number=")?.1.parse().ok()
}

/// Those of one wave, and those that are on their way up together, come in any order; nobody else overtakes. A busy
/// machine may keep a thread waiting that has been let go, and what is on it comes late.
fn in_order(numbers: &[usize]) {
    assert_eq!(numbers.len(), PLACES, "each was sent once");
    let waves = |at: usize| at / WAVE;
    let mut late = 0;
    for (place, number) in numbers.iter().enumerate() {
        assert!(waves(*number) <= waves(place) + 2, "number {number} came as {place}: before its turn");
        late += usize::from(waves(*number) + 2 < waves(place));
    }
    assert!(late <= PLACES / 10, "{late} came late");
}
