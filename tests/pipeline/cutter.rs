//! A wire to cores that changes and cuts answers where a test says.

use crate::{
    recorder::{Received, receive},
    talk::{Answer, Line},
};
use std::{
    collections::VecDeque,
    fmt::Write as _,
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

/// How much of an answer is written before the connection is closed.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    /// All, and it stays open.
    End,
    /// So many bytes of its head.
    Head(usize),
    /// Its head and so many bytes of its body.
    Body(usize),
    /// The same, and the connection is closed by the other side.
    Standing(usize),
}

/// What is done to one answer.
pub type Act = Box<dyn FnOnce(&mut Answer) -> Until + Send>;

/// What stands before a core; two wires may share what is to be done.
#[derive(Clone)]
pub struct Cutter {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    acts: Mutex<VecDeque<Act>>,
    asked: Mutex<Vec<(SocketAddr, Received)>>,
}

impl Cutter {
    /// Passes on to `core`. Its threads end with their connections.
    pub fn start(core: SocketAddr) -> Self {
        Self::with(core, Arc::default())
    }

    /// Another one, whose answers have the same acts.
    pub fn beside(&self, core: SocketAddr) -> Self {
        Self::with(core, Arc::clone(&self.shared))
    }

    fn with(core: SocketAddr, shared: Arc<Shared>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = listener.local_addr().expect("its address");
        let of_thread = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&of_thread);
                thread::spawn(move || serve(stream, address, core, &shared));
            }
        });
        Self { address, shared }
    }

    /// The URL of its endpoint.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What is done to the next answer that is not a probe's; without one it passes whole.
    pub fn next(&self, act: impl FnOnce(&mut Answer) -> Until + Send + 'static) {
        lock(&self.shared.acts).push_back(Box::new(act));
    }

    /// Forgets what came, and what was to be done.
    pub fn clear(&self) {
        lock(&self.shared.acts).clear();
        lock(&self.shared.asked).clear();
    }

    /// What came, but for probes, and through which address.
    pub fn asked(&self) -> Vec<(SocketAddr, Received)> {
        lock(&self.shared.asked).clone()
    }

    /// `Range` of each request, empty where it has none.
    pub fn ranges(&self) -> Vec<String> {
        let range = |request: &Received| request.header("range").unwrap_or_default().to_owned();
        self.asked().iter().map(|(_, request)| range(request)).collect()
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(stream: TcpStream, address: SocketAddr, core: SocketAddr, shared: &Shared) {
    let mut line = Line::over(stream);
    while let Ok(request) = receive(&mut line) {
        let probe = request.header("user-agent").is_some_and(|agent| agent.starts_with("tidegate/"));
        let Ok(mut answer) = forward(&request, core) else { return };
        let act = if probe { None } else { lock(&shared.acts).pop_front() };
        if !probe {
            lock(&shared.asked).push((address, request));
        }
        let until = act.map_or(Until::End, |act| act(&mut answer));
        if !write(&mut line, &answer, until).unwrap_or(false) {
            return;
        }
    }
}

fn forward(request: &Received, core: SocketAddr) -> io::Result<Answer> {
    let mut up = Line::over(TcpStream::connect(core)?);
    let mut bytes = format!("{} {} HTTP/1.1\r\n", request.method, request.target).into_bytes();
    for (name, value) in &request.headers {
        bytes.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
    }
    bytes.extend(b"\r\n");
    bytes.extend(&request.body);
    up.send(&bytes)?;
    let mut answer = up.answer(request.method == "HEAD")?;
    if answer.header("transfer-encoding").is_some() {
        answer.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("transfer-encoding"));
        answer.headers.push(("Content-Length".to_owned(), answer.body.len().to_string()));
    }
    Ok(answer)
}

/// Whether the connection stays.
fn write(line: &mut Line<TcpStream>, answer: &Answer, until: Until) -> io::Result<bool> {
    let mut head = format!("HTTP/1.1 {} Status\r\n", answer.status);
    for (name, value) in &answer.headers {
        _ = write!(head, "{name}: {value}\r\n");
    }
    head.push_str("\r\n");
    let (head, body) = match until {
        Until::End => (head.as_bytes(), &answer.body[..]),
        Until::Head(bytes) => (&head.as_bytes()[..bytes], &[][..]),
        Until::Body(bytes) | Until::Standing(bytes) => (head.as_bytes(), &answer.body[..bytes]),
    };
    line.send(&[head, body].concat())?;
    if matches!(until, Until::Standing(_)) {
        line.stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        _ = io::Read::read(&mut line.stream, &mut [0; 1]);
    }
    Ok(matches!(until, Until::End))
}
