//! A way to a core that can begin to fail as a broken one does.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

/// What it does with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Its bytes are passed on as they come.
    Passes,
    /// Every request on it is answered with this status, and the connection closed.
    Answers(u16),
    /// The same, but a request whose head has this in it is answered with this status, and the connection closed.
    AnswersTo(&'static str, u16),
    /// The same, but a request whose head has this in it is not answered.
    HangsOn(&'static str),
    /// It is closed at once.
    Closes,
    /// It is taken, and nothing on it is answered.
    Hangs,
}

/// A listener in front of one core.
#[derive(Debug)]
pub struct Failing {
    /// Where it listens.
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    how: How,
    failed: usize,
    open: Vec<TcpStream>,
}

impl Failing {
    /// Passes on to `core` until told otherwise. Its threads end with their connections.
    pub fn before(core: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = listener.local_addr().expect("its address");
        let state = Arc::new(Mutex::new(State { how: How::Passes, failed: 0, open: Vec::new() }));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&shared);
                thread::spawn(move || serve(stream, core, &shared));
            }
        });
        Self { address, state }
    }

    /// From now on; connections that are open break off.
    pub fn now(&self, how: How) {
        let mut state = lock(&self.state);
        state.how = how;
        for stream in state.open.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Connections that it failed.
    pub fn failed(&self) -> usize {
        lock(&self.state).failed
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(stream: TcpStream, core: SocketAddr, state: &Mutex<State>) {
    let how = lock(state).how;
    match how {
        How::Passes | How::AnswersTo(..) | How::HangsOn(_) => pass(&stream, core, state),
        How::Answers(status) => {
            lock(state).failed += 1;
            answer(stream, status);
        }
        How::Closes => lock(state).failed += 1,
        How::Hangs => {
            let mut state = lock(state);
            state.failed += 1;
            state.open.push(stream);
        }
    }
}

fn pass(downstream: &TcpStream, core: SocketAddr, state: &Mutex<State>) {
    let Ok(upstream) = TcpStream::connect(core) else { return };
    let clone = |stream: &TcpStream| stream.try_clone().expect("a second handle");
    {
        let mut state = lock(state);
        if !matches!(state.how, How::Passes | How::AnswersTo(..) | How::HangsOn(_)) {
            return;
        }
        state.open.extend([clone(downstream), clone(&upstream)]);
    }
    let (mut from, mut to) = (clone(&upstream), clone(downstream));
    let down = thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
    let (mut from, mut to, mut chunk) = (clone(downstream), upstream, [0; 16 * 1024]);
    while let Ok(read @ 1..) = from.read(&mut chunk) {
        let read = &chunk[..read];
        let how = lock(state).how;
        if let How::AnswersTo(what, status) = how
            && read.windows(what.len()).any(|part| part == what.as_bytes())
        {
            lock(state).failed += 1;
            let _ = from.write_all(broken(status).as_bytes());
            break;
        }
        if let How::HangsOn(what) = how
            && read.windows(what.len()).any(|part| part == what.as_bytes())
        {
            lock(state).failed += 1;
            continue;
        }
        if to.write_all(read).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
    let _ = down.join();
}

fn broken(status: u16) -> String {
    let body = "it is broken";
    format!(
        "HTTP/1.1 {status} Broken\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// Reads a head, answers, and reads on for a while, so that nobody sees a reset in the place of the answer.
fn answer(mut stream: TcpStream, status: u16) {
    let _ = stream.set_read_timeout(Some(Duration::from_secs(2)));
    let (mut head, mut chunk) = (Vec::new(), [0; 16 * 1024]);
    while !head.windows(4).any(|four| four == b"\r\n\r\n") {
        match stream.read(&mut chunk) {
            Ok(read @ 1..) => head.extend_from_slice(&chunk[..read]),
            _ => return,
        }
    }
    if stream.write_all(broken(status).as_bytes()).is_ok() {
        let _ = stream.shutdown(Shutdown::Write);
        while matches!(stream.read(&mut chunk), Ok(1..)) {}
    }
}
