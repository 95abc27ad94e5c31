//! The witness itself: it finds nothing wrong at tidegate, and finds each wrong that a front door can do.

use crate::{
    recorder::{Received, receive},
    stage::{ADMIN, DEV, SCOPE, Setup, Stage, manifest, story, token},
    support::{gate, waiting, witness::Witness},
    talk::{Ask, Line},
};
use std::{
    collections::HashMap,
    io::Write as _,
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};
use tidegate::rehearsal::harbor::{RegistryAddress, RegistryBackend, World};

/// How long a slow registry takes for a manifest: longer than a core takes to be back.
const LATE: Duration = Duration::from_millis(800);
/// No load is slower.
const SOON: Duration = Duration::from_secs(40);

#[test]
fn nothing_wrong_is_found_at_tidegate() {
    let stage = Stage::new();
    let core = stage.replica("core", |_| {});
    let gate = Setup::before(&[&core], &[&core.key_file]).rest(&gate::http2_listener()).start();
    assert!(gate.http2().is_some(), "HTTP/2 is asked too");
    let witness = Witness::watch(&stage.world, &gate);
    waiting::holds("there are many answers", SOON, || witness.right() > 300);
    assert_eq!(witness.failures(), (0, vec![]), "{}", gate.tail());
    witness.judge(core.address);
}

#[test]
fn a22_a_manifest_that_the_registry_is_still_at_is_not_put_again() {
    let registry = Stage::new();
    let stored = registry.replica("registry", |_| {});
    let slow = Front::start(stored.address, Wrong::Late("/manifests/late"));
    slow.begin();
    let (name, password) = ADMIN;
    let address = RegistryAddress::new(slow.address, name, password);
    let stage = Stage::of(World::sample_with(RegistryBackend::Proxy(Arc::new(address))));
    let core = stage.replica("core", |_| {});
    core.seed();
    let gate = Setup::before(&[&core], &[&core.key_file]).start();
    let bearer = token(gate.address, DEV, SCOPE);
    let deeds = stage.world.watch();
    let put = Ask::new("PUT", "/v2/priv/seed/manifests/late")
        .header("Content-Type", "application/vnd.oci.image.manifest.v1+json")
        .bearer(&bearer)
        .body(manifest(b"{}", b"a layer of priv/seed"));
    let (_back, answer) = thread::scope(|scope| {
        let putting = scope.spawn(|| put.at(gate.address));
        waiting::holds("the registry has it", SOON, || slow.done() > 0);
        let address = core.address;
        stage.kill(core);
        let back = stage.replica_at(address, "core", |_| {});
        (back, putting.join().expect("no panic"))
    });
    let told = story(&gate, &answer);
    assert_eq!(answer.status, 201, "{told:?} {}\n{}", answer.text(), gate.tail());
    assert_eq!(told, ["rescued", "as_came", "push_restarted"]);
    let done = deeds.all();
    assert_eq!((slow.done(), done.len()), (1, 1), "{done:?}");
    assert!(!done[0].acknowledged, "core had ended when its registry had done it");
}

/// What a front door does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    Nothing,
    /// Sends each change of this method, and with this in its target, twice.
    Repeats(&'static str, &'static str),
    /// Answers a request whose target has this in it with what the same path gave before, or any other one.
    Swaps(&'static str),
    /// Takes its time to pass on a PUT of such a target.
    Late(&'static str),
    /// Acknowledges a push that it dropped.
    Drops(&'static str),
}

#[test]
fn a_wrong_front_is_found_out() {
    use Wrong::{Drops, Nothing, Repeats, Swaps};
    let rows = [
        (Nothing, ""),
        (Repeats("PUT", "/manifests/"), "done 2 times: PUT"),
        (Repeats("POST", "/api/"), "done 2 times: POST"),
        (Swaps("/blobs/sha256"), "/blobs/sha256"),
        (Swaps("/service/token"), "a token"),
        (Swaps("/users/current"), "users/current is"),
        (Drops("/manifests/"), "acknowledged, and found"),
        (Drops("/blobs/uploads/"), "acknowledged, and found"),
    ];
    thread::scope(|scope| {
        for (wrong, said) in rows {
            scope.spawn(move || is_found(wrong, said));
        }
    });
}

fn is_found(wrong: Wrong, said: &str) {
    let stage = Stage::new();
    let core = stage.replica("core", |_| {});
    let front = Front::start(core.address, wrong);
    let witness = Witness::watch_at(&stage.world, front.address, None);
    front.begin();
    waiting::holds(&format!("{wrong:?}: enough is asked for"), SOON, || match wrong {
        Wrong::Nothing => witness.right() > 60,
        _ => front.done() >= 5,
    });
    let findings = witness.findings(core.address);
    let found = findings.wrong.iter().any(|words| words.contains(said));
    assert_eq!(found, wrong != Wrong::Nothing, "{wrong:?}: {findings:?}");
    if wrong == Wrong::Nothing {
        assert!(findings.wrong.is_empty() && findings.failed == 0, "{findings:?}");
    }
}

/// A proxy that does one thing wrong once it was told to begin, and gives each request an id as tidegate does.
struct Front {
    address: SocketAddr,
    inner: Arc<Inner>,
}

struct Inner {
    core: SocketAddr,
    wrong: Wrong,
    begun: AtomicUsize,
    done: AtomicUsize,
    ids: AtomicUsize,
    /// The last answer to each kind of target, by connection.
    answers: Mutex<HashMap<(usize, String), Vec<u8>>>,
}

impl Front {
    fn start(core: SocketAddr, wrong: Wrong) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = listener.local_addr().expect("its address");
        let inner = Arc::new(Inner {
            core,
            wrong,
            begun: AtomicUsize::new(0),
            done: AtomicUsize::new(0),
            ids: AtomicUsize::new(0),
            answers: Mutex::default(),
        });
        let serving = Arc::clone(&inner);
        thread::spawn(move || {
            for (number, stream) in listener.incoming().map_while(Result::ok).enumerate() {
                let inner = Arc::clone(&serving);
                thread::spawn(move || inner.serve(stream, number));
            }
        });
        Self { address, inner }
    }

    fn begin(&self) {
        self.inner.begun.store(1, Ordering::Relaxed);
    }

    /// How often it did wrong.
    fn done(&self) -> usize {
        self.inner.done.load(Ordering::Relaxed)
    }
}

impl Inner {
    /// Until the client leaves.
    fn serve(&self, stream: TcpStream, connection: usize) {
        let mut line = Line::over(stream);
        while let Ok(request) = receive(&mut line) {
            let answer = self.answer(&request, connection);
            if line.stream.write_all(&answer).is_err() {
                return;
            }
        }
    }

    fn answer(&self, request: &Received, connection: usize) -> Vec<u8> {
        let id = format!("front-{}", self.ids.fetch_add(1, Ordering::Relaxed));
        let target = request.target.as_str();
        let begun = self.begun.load(Ordering::Relaxed) > 0;
        match self.wrong {
            Wrong::Repeats(method, part) if begun && request.method == method && target.contains(part) => {
                self.done.fetch_add(1, Ordering::Relaxed);
                self.forward(request, &id);
            }
            Wrong::Drops(part) if begun && request.method == "PUT" && target.contains(part) => {
                self.done.fetch_add(1, Ordering::Relaxed);
                return acknowledged(request, &id);
            }
            Wrong::Late(part) if begun && request.method == "PUT" && target.contains(part) => {
                self.done.fetch_add(1, Ordering::Relaxed);
                thread::sleep(LATE);
            }
            Wrong::Swaps(part) if request.method == "GET" && target.contains(part) => {
                let answer = self.forward(request, &id);
                let mut answers = self.answers.lock().expect("nobody panics with it");
                answers.insert((connection, part.to_owned()), answer.clone());
                let other = answers.iter().find(|((of, _), other)| *of != connection && **other != answer);
                return match other {
                    Some((_, other)) if begun => {
                        self.done.fetch_add(1, Ordering::Relaxed);
                        other.clone()
                    }
                    _ => answer,
                };
            }
            _ => {}
        }
        self.forward(request, &id)
    }

    /// Core's answer as bytes, without the id that would give it away.
    fn forward(&self, request: &Received, id: &str) -> Vec<u8> {
        let mut head =
            format!("{} {} HTTP/1.1\r\nX-Request-ID: {id}\r\n", request.method, request.target).into_bytes();
        for (name, value) in &request.headers {
            head.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
        }
        head.extend(b"\r\n");
        head.extend(&request.body);
        let mut core = Line::open(self.core);
        core.send(&head).expect("core takes it");
        let answer = core.answer(request.method == "HEAD").expect("core answers");
        let mut bytes = format!("HTTP/1.1 {} Front\r\n", answer.status).into_bytes();
        for (name, value) in &answer.headers {
            if !["transfer-encoding", "content-length", "x-request-id", "connection"]
                .contains(&&*name.to_ascii_lowercase())
            {
                bytes.extend(format!("{name}: {value}\r\n").into_bytes());
            }
        }
        bytes.extend(format!("Content-Length: {}\r\n\r\n", answer.body.len()).into_bytes());
        bytes.extend(&answer.body);
        bytes
    }
}

/// 201, with the digest that the client expects.
fn acknowledged(request: &Received, id: &str) -> Vec<u8> {
    let named = request.target.split_once("digest=").map(|(_, digest)| digest.to_owned());
    let digest = named.unwrap_or_else(|| crate::stage::sha256(&request.body));
    format!("HTTP/1.1 201 Created\r\nX-Request-ID: {id}\r\nDocker-Content-Digest: {digest}\r\nContent-Length: 0\r\n\r\n")
        .into_bytes()
}
