//! tidegate in front of a recorder, with a stand-in that issues the tokens.

use crate::{
    raw::{self, Answer, Raw},
    recorder::{Recorder, Script, plain},
    standin::Standin,
    support::gate::{self, Gate},
};
use std::net::SocketAddr;

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
    let base = gate::configuration(&[endpoint], "no", &[&standin.key_file]);
    // Gates end at once: a test has nothing to drain.
    let (before, after) = configuration.split_once("[timeouts]\n").unwrap_or((configuration, ""));
    Gate::start(&format!("{before}\n[timeouts]\ndrain_delay = \"0s\"\ndrain = \"0s\"\n{after}\n{base}"))
}

/// tidegate in front of the stand-in itself.
pub fn before_the_standin(configuration: &str) -> (Gate, Standin) {
    let standin = Standin::start();
    let gate = start(configuration, standin.address, &standin);
    (gate, standin)
}
