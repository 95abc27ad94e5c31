//! A core whose key can't be learned when a request needs it, as when both it and tidegate are just starting.

use crate::{
    stage::{DEV, MANIFEST, Replica, SCOPE, Setup, Stage, hold, pull, story, token},
    support::gate::Gate,
};
use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

/// The probes of a gate that asks only when it has to.
const RARE: &str = r#"probe = { every = "60s", in_window = "60s", timeout = "3s" }"#;

/// A core with its next key since before tidegate began, and a token of its former one.
fn upgraded(stage: &Stage) -> (Replica, String) {
    let core = stage.replica("core", |_| {});
    core.seed();
    let former = token(core.address, DEV, SCOPE);
    hold(&core.key_file, 1);
    assert_eq!(pull(MANIFEST).bearer(&former).at(core.address).status, 401, "directly");
    (core, former)
}

fn is_signed_again(setup: &Setup, token: &str) {
    let gate = Gate::start_unready(&[], &setup.clone().upstream(RARE).text());
    let answer = pull(MANIFEST).bearer(token).at(gate.address);
    let told = ["rescued", "resign", "second_plan"].map(str::to_owned);
    assert_eq!((answer.status, story(&gate, &answer)), (200, told), "{}", gate.tail());
}

#[test]
fn a_token_that_went_up_while_the_held_key_was_unknown_is_signed_again_once_it_is_known() {
    let stage = Stage::new();
    let (core, former) = upgraded(&stage);
    let listed = stage.path("former.pem");
    hold(&listed, 0);
    let source = format!("{{ file = \"{}\", state = \"verifying\" }}", listed.display());
    let wire = wire(core.address, false, || {});
    let setup = Setup::before(&[], &[&core.key_file]).endpoint(&format!("http://{wire}")).source(&source);
    is_signed_again(&setup, &former);
}

#[test]
fn a_token_that_went_up_before_the_held_key_was_read_is_signed_again_once_it_is() {
    let stage = Stage::new();
    let (core, former) = upgraded(&stage);
    let ours = stage.path("ours.pem");
    hold(&ours, 0);
    let next = ours.clone();
    let wire = wire(core.address, true, move || hold(&next, 1));
    let setup = Setup::before(&[], &[&ours]).endpoint(&format!("http://{wire}"));
    is_signed_again(&setup, &former);
}

/// A wire to a core, which does something when the first manifest is asked for. Where it doesn't `speak`, the core
/// answers no token request before that.
fn wire(core: SocketAddr, speaks: bool, act: impl Fn() + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = listener.local_addr().expect("its address");
    let first = Arc::new(First { speaks: AtomicBool::new(speaks), came: AtomicBool::new(false), act });
    thread::spawn(move || {
        for downstream in listener.incoming().map_while(Result::ok) {
            let first = Arc::clone(&first);
            thread::spawn(move || {
                // The connection ends with either side.
                let _ = pass(&downstream, core, &first);
                let _ = downstream.shutdown(Shutdown::Both);
            });
        }
    });
    address
}

struct First<F> {
    speaks: AtomicBool,
    came: AtomicBool,
    act: F,
}

/// Requests here have no bodies and fit into one read.
fn pass(mut downstream: &TcpStream, core: SocketAddr, first: &First<impl Fn()>) -> std::io::Result<()> {
    let upstream = TcpStream::connect(core)?;
    let (mut from, mut to) = (upstream.try_clone()?, downstream.try_clone()?);
    thread::spawn(move || std::io::copy(&mut from, &mut to));
    let mut chunk = vec![0; 64 * 1024];
    loop {
        let read = downstream.read(&mut chunk)?;
        if read == 0 {
            return upstream.shutdown(Shutdown::Both);
        }
        if chunk.starts_with(b"GET /v2/priv/") && !first.came.swap(true, Ordering::SeqCst) {
            (first.act)();
            first.speaks.store(true, Ordering::SeqCst);
        }
        if chunk.starts_with(b"GET /service/token") && !first.speaks.load(Ordering::SeqCst) {
            return upstream.shutdown(Shutdown::Both);
        }
        (&upstream).write_all(&chunk[..read])?;
    }
}
