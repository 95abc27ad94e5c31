//! Core stops in the middle of a push: another upload session gets all that was sent, and the client notices nothing.

use crate::{
    cutter::{Cutter, Until},
    stage::{DEV, ROBOT, Replica, SCOPE, Setup, Stage, manifest, path_of, push, sha256, story, token},
    support::{gate::Gate, waiting},
    talk::{Answer, Ask, Line, chunks},
};
use std::{io, net::SocketAddr, path::Path, sync::Mutex, time::Duration};

const SOON: Duration = Duration::from_secs(20);
const OPEN: &str = "/v2/priv/seed/blobs/uploads/";
const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

/// Bytes that no two places have alike.
fn layer(bytes: usize) -> Vec<u8> {
    (0_u32..).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).take(bytes).collect()
}

fn open(at: SocketAddr, bearer: &str) -> String {
    let answer = Ask::new("POST", OPEN).body("").bearer(bearer).at(at);
    assert_eq!(answer.status, 202, "{}", answer.text());
    path_of(&answer)
}

fn put(at: SocketAddr, bearer: &str, location: &str, layer: &[u8], body: &[u8]) -> Answer {
    Ask::new("PUT", &format!("{location}&digest={}", sha256(layer))).body(body).bearer(bearer).at(at)
}

fn blob(at: SocketAddr, bearer: &str, layer: &[u8]) -> Vec<u8> {
    let answer = Ask::get(&format!("/v2/priv/seed/blobs/{}", sha256(layer))).bearer(bearer).at(at);
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.body
}

/// A request whose body stops at `half` until `meanwhile` has run.
fn halting(
    ask: &Ask,
    body: &[u8],
    half: usize,
    at: SocketAddr,
    meanwhile: impl FnOnce(),
) -> io::Result<Answer> {
    let mut line = Line::open(at);
    let head = ask.head();
    let chunked = head.windows(7).any(|part| part == b"chunked");
    let framed = |part: &[u8]| if chunked { chunks(part) } else { part.to_vec() };
    line.send(&[head, framed(&body[..half])].concat())?;
    meanwhile();
    let end: &[u8] = if chunked { b"0\r\n\r\n" } else { b"" };
    _ = line.send(&[&framed(&body[half..])[..], end].concat());
    line.answer(false)
}

fn chunked(method: &str, target: &str, bearer: &str) -> Ask {
    Ask::new(method, target).chunked("").bearer(bearer)
}

/// A gate before one core, and the core's way of going away and coming back.
struct Alone {
    stage: Stage,
    core: Mutex<Option<Replica>>,
    gate: Gate,
    bearer: String,
}

impl Alone {
    fn with(rest: &str) -> Self {
        let stage = Stage::new();
        let core = stage.replica("core", |_| {});
        core.seed();
        let gate = Setup::before(&[&core], &[&core.key_file]).rest(rest).start();
        let bearer = token(gate.address, DEV, SCOPE);
        Self { stage, core: Mutex::new(Some(core)), gate, bearer }
    }

    fn address(&self) -> SocketAddr {
        self.core.lock().expect("no panic").as_ref().expect("a core").address
    }

    /// The core has begun to read a request when it is killed, and is back at once.
    fn restart(&self, target: &str) {
        let mut core = self.core.lock().expect("no panic");
        let present = core.as_ref().expect("a core");
        waiting::holds("core reads it", SOON, || present.asked().iter().any(|head| head.target == target));
        let address = core.as_ref().expect("a core").address;
        self.stage.kill(core.take().expect("a core"));
        *core = Some(self.stage.replica_at(address, "core", |_| {}));
    }

    fn ends_well(&self, layer: &[u8], location: &str) {
        let done = put(self.gate.address, &self.bearer, location, layer, b"");
        assert_eq!((done.status, done.header("docker-content-digest")), (201, Some(&*sha256(layer))));
        assert!(blob(self.gate.address, &self.bearer, layer) == layer, "every byte of it");
    }
}

fn is_restarted(gate: &Gate, answer: &Answer) {
    let [outcome, _, reason] = story(gate, answer);
    assert_eq!([&*outcome, &*reason], ["rescued", "push_restarted"], "{}", gate.tail());
}

#[test]
fn an_upload_cut_in_the_middle_of_a_chunked_patch_goes_on() {
    let alone = Alone::with("");
    let layer = layer(6 << 20);
    let direct = open(alone.address(), &alone.bearer);
    let cut = halting(&chunked("PATCH", &direct, &alone.bearer), &layer, 3 << 20, alone.address(), || {
        alone.restart(&direct);
    });
    assert!(cut.as_ref().map_or(true, |answer| answer.status != 202), "directly it is lost: {cut:?}");
    let location = open(alone.gate.address, &alone.bearer);
    let ask = chunked("PATCH", &location, &alone.bearer);
    let patched =
        halting(&ask, &layer, 3 << 20, alone.gate.address, || alone.restart(&location)).expect("an answer");
    assert_eq!(patched.status, 202, "{}\n{}", patched.text(), alone.gate.tail());
    assert_eq!(patched.header("range"), Some(&*format!("0-{}", layer.len() - 1)));
    is_restarted(&alone.gate, &patched);
    alone.ends_well(&layer, &path_of(&patched));
}

#[test]
fn an_upload_of_many_steps_begins_anew_with_all_of_them() {
    let alone = Alone::with("");
    let layer = layer(3 << 20);
    let mut location = open(alone.gate.address, &alone.bearer);
    for (number, step) in layer.chunks(1 << 20).enumerate() {
        let from = number << 20;
        let ask = Ask::new("PATCH", &location)
            .body(step)
            .header("Content-Range", &format!("{from}-{}", from + step.len() - 1))
            .header("Content-Type", "application/octet-stream")
            .bearer(&alone.bearer);
        let patched = halting(&ask, step, step.len() / 2, alone.gate.address, || {
            if number > 0 {
                alone.restart(&location);
            }
        });
        let patched = patched.expect("an answer");
        assert_eq!(patched.status, 202, "step {number}: {}\n{}", patched.text(), alone.gate.tail());
        assert_eq!(patched.header("range"), Some(&*format!("0-{}", from + step.len() - 1)));
        location = path_of(&patched);
    }
    alone.ends_well(&layer, &location);
}

#[test]
fn an_upload_by_one_put_goes_on_at_another_core() {
    let stage = Stage::new();
    let (one, two) = (stage.replica("one", |_| {}), stage.replica("two", |_| {}));
    one.seed();
    let gate = Setup::before(&[&one, &two], &[&one.key_file]).start();
    let bearer = token(gate.address, DEV, SCOPE);
    let layer = layer(4 << 20);
    let location = open(gate.address, &bearer);
    let target = format!("{location}&digest={}", sha256(&layer));
    let ask = Ask::new("PUT", &target).body(&*layer).bearer(&bearer);
    let mut cores = vec![one, two];
    let done = halting(&ask, &layer, 2 << 20, gate.address, || {
        let asked =
            |core: &Replica| core.asked().iter().any(|head| head.method == "PUT" && head.target == target);
        waiting::holds("a core reads it", SOON, || cores.iter().any(asked));
        let place = cores.iter().position(asked).expect("a core");
        stage.kill(cores.swap_remove(place));
    });
    let done = done.expect("an answer");
    assert_eq!(
        (done.status, done.header("docker-content-digest")),
        (201, Some(&*sha256(&layer))),
        "{}",
        gate.tail()
    );
    is_restarted(&gate, &done);
    assert!(blob(gate.address, &bearer, &layer) == layer);
}

#[test]
fn a24_what_memory_does_not_hold_lies_sealed_in_the_spool_and_is_gone_afterwards() {
    let folder = tempfile::tempdir().expect("a folder");
    let spool = format!("[uploads]\nspool = \"{}\"\nmemory_total = \"32MiB\"\n", folder.path().display());
    let alone = Alone::with(&spool);
    let layer = layer(24 << 20);
    let location = open(alone.gate.address, &alone.bearer);
    let ask = chunked("PATCH", &location, &alone.bearer);
    let patched = halting(&ask, &layer, 20 << 20, alone.gate.address, || {
        waiting::holds("the spool is used", SOON, || spooled(&alone.gate) > 8e6);
        assert_eq!(entries(folder.path()), 0, "a file without a name");
        alone.restart(&location);
    });
    let patched = patched.expect("an answer");
    assert_eq!(patched.status, 202, "{}\n{}", patched.text(), alone.gate.tail());
    is_restarted(&alone.gate, &patched);
    alone.ends_well(&layer, &path_of(&patched));
    waiting::holds("the spool is empty", SOON, || spooled(&alone.gate) < 0.5);
}

fn spooled(gate: &Gate) -> f64 {
    gate.metrics().sum("tidegate_spool_bytes", &[])
}

fn entries(folder: &Path) -> usize {
    std::fs::read_dir(folder).expect("a folder").count()
}

#[test]
fn a25_an_upload_that_finds_no_room_streams_on_and_fails_cleanly_when_it_is_cut() {
    let alone = Alone::with("[uploads]\nmemory_total = \"1MiB\"\n");
    let layer = layer(6 << 20);
    let location = open(alone.gate.address, &alone.bearer);
    let ask = chunked("PATCH", &location, &alone.bearer);
    let whole = halting(&ask, &layer, 3 << 20, alone.gate.address, || {}).expect("an answer");
    assert_eq!(whole.status, 202, "{}", whole.text());
    alone.ends_well(&layer, &path_of(&whole));
    let location = open(alone.gate.address, &alone.bearer);
    let ask = chunked("PATCH", &location, &alone.bearer);
    let cut = halting(&ask, &layer, 3 << 20, alone.gate.address, || {
        let lost = || alone.gate.metrics().sum("tidegate_uploads_not_kept_total", &[]);
        waiting::holds("more has passed than is kept", SOON, || lost() >= 2.0);
        alone.restart(&location);
    });
    let cut = cut.expect("an answer");
    assert_eq!(cut.status, 502, "{}", cut.text());
    assert!(cut.text().contains("\"errors\""), "{}", cut.text());
    // What a client does then: all of it again.
    assert_eq!(
        push(alone.gate.address, "priv/seed", "again", &layer, |ask| ask.bearer(&alone.bearer)),
        Ok(())
    );
}

#[test]
fn a24_nobody_else_goes_on_with_an_upload() {
    let alone = Alone::with("");
    let other = token(alone.gate.address, ROBOT, SCOPE);
    let (first, second) = (layer(1 << 20), layer(2 << 20)[1 << 20..].to_vec());
    let whole = [&*first, &*second].concat();
    let location = open(alone.gate.address, &alone.bearer);
    let patch = Ask::new("PATCH", &location).body(&*first).bearer(&alone.bearer).at(alone.gate.address);
    let location = path_of(&patch);
    // Harbor lets another principal with the right to push go on; what the first one sent is not theirs to send again.
    let ask = Ask::new("PATCH", &location).body(&*second).bearer(&other);
    let cut = halting(&ask, &second, second.len() / 2, alone.gate.address, || alone.restart(&location))
        .expect("an answer");
    assert_eq!(cut.status, 502, "{}", cut.text());
    let done = put(alone.gate.address, &other, &location, &whole, b"");
    assert_ne!(done.status, 201, "never a hole");
}

/// A gate before one core, by a wire that can lose answers.
fn behind(cutter: &Cutter, key_file: &Path) -> Gate {
    let source = format!("{{ file = \"{}\" }}", key_file.display());
    Setup::default().endpoint(&cutter.url()).source(&source).start()
}

/// The next answer is lost before its first byte.
fn lose(cutter: &Cutter) {
    cutter.next(|_| Until::Head(0));
}

#[test]
fn a_last_step_whose_answer_is_lost_is_done_again() {
    let stage = Stage::new();
    let core = stage.replica("core", |_| {});
    core.seed();
    let cutter = Cutter::start(core.address);
    let gate = behind(&cutter, &core.key_file);
    let bearer = token(gate.address, DEV, SCOPE);
    let layer = layer(2 << 20);
    let location = open(gate.address, &bearer);
    lose(&cutter);
    let patched = Ask::new("PATCH", &location).body(&*layer).bearer(&bearer).at(gate.address);
    assert_eq!(patched.status, 202, "{}\n{}", patched.text(), gate.tail());
    is_restarted(&gate, &patched);
    lose(&cutter);
    let done = put(gate.address, &bearer, &path_of(&patched), &layer, b"");
    assert_eq!(
        (done.status, done.header("docker-content-digest")),
        (201, Some(&*sha256(&layer))),
        "{}",
        gate.tail()
    );
    is_restarted(&gate, &done);
}

#[test]
fn a22_a_manifest_whose_answer_is_lost_is_looked_for_and_never_put_twice() {
    let stage = Stage::new();
    let core = stage.replica("core", |_| {});
    core.seed();
    let cutter = Cutter::start(core.address);
    let gate = behind(&cutter, &core.key_file);
    let bearer = token(gate.address, DEV, SCOPE);
    let text = manifest(b"{}", b"a layer of priv/seed");
    let ask = |at: SocketAddr| {
        Ask::new("PUT", "/v2/priv/seed/manifests/lost")
            .header("Content-Type", MANIFEST_TYPE)
            .body(text.clone())
            .bearer(&bearer)
            .at(at)
    };
    lose(&cutter);
    let done = ask(gate.address);
    let direct = ask(core.address);
    assert_eq!(done.status, 201, "{}\n{}", done.text(), gate.tail());
    for name in ["docker-content-digest", "location"] {
        assert_eq!(done.header(name), direct.header(name), "as Harbor says it");
    }
    is_restarted(&gate, &done);
    let puts =
        core.asked().iter().filter(|head| head.method == "PUT" && head.target.ends_with("/lost")).count();
    assert_eq!(puts, 2, "one through the gate, one direct");
}
