//! tidegate in front of a recorder, with a stand-in that issues the tokens.

use crate::{
    raw::{self, Answer, Raw},
    recorder::{Recorder, Script, plain},
    standin::{Standin, basic_of},
    support::gate::{self, Gate},
};
use std::{net::SocketAddr, path::Path};

/// All that a test needs.
pub struct Bench {
    pub gate: Gate,
    pub recorder: Recorder,
    pub standin: Standin,
}

impl Bench {
    /// A recorder that answers 200, and the default configuration.
    pub fn plain() -> Self {
        Self::with("", plain())
    }

    /// A recorder with a script, and lines before (`top`-level or whole tables) what names endpoint and key.
    pub fn with(configuration: &str, script: Script) -> Self {
        let standin = Standin::start();
        let recorder = Recorder::start(standin.address, script);
        let gate = start(configuration, recorder.address, &standin);
        Self { gate, recorder, standin }
    }

    /// The status of an answer; `None` where the connection ended in its place.
    pub fn ask_quietly(&self, request: &str) -> Option<u16> {
        self.ask(request).map(|answer| answer.status)
    }

    pub fn open(&self) -> Raw {
        Raw::open(self.gate.address)
    }

    pub fn ask(&self, request: impl AsRef<[u8]>) -> Option<Answer> {
        raw::ask(self.gate.address, request)
    }

    pub fn get(&self, target: &str, lines: &str) -> Answer {
        raw::get(self.gate.address, target, lines)
    }

    /// `Bearer …` of the developer for the private project.
    pub fn bearer(&self) -> String {
        format!("Bearer {}", self.standin.token("dev", &["repository:priv/app:pull,push"]))
    }

    /// Fails unless another client is served as ever.
    pub fn serves_others(&self) {
        assert_eq!(self.get("/v2/alive", "").status, 200, "{}", self.gate.tail());
    }
}

/// tidegate in front of one address, with the stand-in's key.
pub fn start(configuration: &str, endpoint: SocketAddr, standin: &Standin) -> Gate {
    start_with(configuration, endpoint, &[&standin.key_file])
}

/// The same, with these key files or none.
pub fn start_with(configuration: &str, endpoint: SocketAddr, keys: &[&Path]) -> Gate {
    start_by(&[], configuration, endpoint, keys)
}

/// The same, started by a command that becomes tidegate.
pub fn start_by(starter: &[&str], configuration: &str, endpoint: SocketAddr, keys: &[&Path]) -> Gate {
    let base = gate::configuration(&[endpoint], "no", keys);
    // Gates end at once: a test has nothing to drain.
    let (before, after) = configuration.split_once("[timeouts]\n").unwrap_or((configuration, ""));
    let times = "[timeouts]\ndrain_delay = \"0s\"\ndrain = \"0s\"\n";
    Gate::start_by(starter, &format!("{before}\n{times}{after}\n{base}"))
}

/// A token that tidegate has seen issued to this user for the private project.
pub fn token_through(gate: &Gate, user: &str) -> String {
    let target = "/service/token?service=harbor-registry&scope=repository:priv/app:pull,push";
    let answer = raw::get(gate.address, target, &format!("Authorization: {}\r\n", basic_of(user)));
    let body: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
    body["token"].as_str().expect("a token").to_owned()
}

/// tidegate in front of the stand-in itself.
pub fn before_the_standin(configuration: &str) -> (Gate, Standin) {
    let standin = Standin::start();
    let gate = start(configuration, standin.address, &standin);
    (gate, standin)
}
