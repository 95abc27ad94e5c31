//! A stand-in core over a registry in memory, whose key file tidegate reads too, as a sidecar does.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tempfile::TempDir;
use tidegate::rehearsal::harbor::{
    Core, CoreKey, CoreOptions, KeyForm, SAMPLE_USER_PASSWORD, Version, World,
};
use tokio::runtime::{Builder, Runtime};

use crate::{
    bearer::{Bearer, basic},
    support::{gate::Gate, harbor::KEY_BITS, http},
};

/// A private repository that holds nothing: 404 says that the request was authorised, 401 that it wasn't.
const MANIFEST: &str = "/v2/priv/nothing/manifests/latest";
const TOKEN: &str = "/service/token?service=harbor-registry&scope=repository:priv/nothing:pull";

/// A core and its key file.
#[derive(Debug)]
pub struct Harbor {
    pub address: SocketAddr,
    pub folder: TempDir,
    pub key_file: PathBuf,
    _core: Core,
    _runtime: Runtime,
}

impl Harbor {
    /// Core signs with `key`, from `private_key.pem` in a folder of its own.
    pub fn start(key: &CoreKey) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let key_file = folder.path().join("private_key.pem");
        key.rename_into(&key_file, KeyForm::Pkcs1).expect("the key is written");
        Self::of(folder, key_file)
    }

    /// Core signs with what is at `key_file`.
    pub fn of(folder: TempDir, key_file: PathBuf) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let options = CoreOptions::new(Version::V2_15_2, &key_file, Arc::new(World::sample()), "");
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let core = runtime.block_on(Core::start(any, options)).expect("the core listens");
        Self { address: core.address(), folder, key_file, _core: core, _runtime: runtime }
    }

    /// tidegate before it, with nothing but keys to rescue by (no replay, no remembered token), and these
    /// lines about keys.
    pub fn gate(&self, keys: &str) -> Gate {
        let address = self.address;
        Gate::start(&format!(
            "[upstream]\nendpoints = [{{ url = \"http://{address}\" }}]\n\n\
             [timeouts]\ndrain_delay = \"0s\"\n\n[replay]\nenabled = false\n\n[token]\ncache = \"0s\"\n\n[keys]\n{keys}\n"
        ))
    }

    /// The line of a configuration for core's own key file.
    pub fn source(&self) -> String {
        format!("{{ file = \"{}\" }}", self.key_file.display())
    }

    /// Writes a file beside core's key.
    pub fn write(&self, name: &str, key: &CoreKey, form: KeyForm) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, key.text(form).expect("a key")).expect("it is written");
        path
    }
}

/// A fresh key.
pub fn key() -> CoreKey {
    CoreKey::generate(KEY_BITS).expect("a key")
}

/// A token for the repository, asked of tidegate.
pub fn token(gate: &Gate) -> Bearer {
    let credential = basic("dev", SAMPLE_USER_PASSWORD);
    let answer = http::get(gate.address, TOKEN, &[("Authorization", &credential)]).expect("an answer");
    assert_eq!(answer.status, 200, "{}\n{}", answer.body, gate.tail());
    let body: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
    Bearer::parse(body["token"].as_str().expect("a token"))
}

/// The status that the repository answers with to this token.
pub fn status(gate: &Gate, bearer: &Bearer) -> u16 {
    judged(gate, bearer).0
}

/// The status, and the reason in the access log.
pub fn judged(gate: &Gate, bearer: &Bearer) -> (u16, String) {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    // Workers write their lines when they like: this one is told by its agent.
    let agent = format!("pipeline/{}", COUNT.fetch_add(1, Ordering::Relaxed));
    let value = format!("Bearer {}", bearer.text());
    let headers = [("Authorization", value.as_str()), ("User-Agent", &agent)];
    let answer = http::get(gate.address, MANIFEST, &headers).expect("an answer");
    let line = || gate.log().into_iter().find(|line| line["agent"] == agent.as_str());
    gate.wait_for("the access log is written", |_| line().is_some());
    let reason = line().and_then(|line| line["reason"].as_str().map(str::to_owned));
    (answer.status, reason.unwrap_or_default())
}

/// Says that core, through tidegate, took the token.
pub const AUTHORISED: u16 = 404;
/// Says that the token counts as no credential.
pub const REFUSED: u16 = 401;

/// Waits until the ring holds the key in a state.
pub fn wait_for_state(gate: &Gate, key: &CoreKey, state: &str) {
    let labels = [("kid", key.kid().as_str()), ("state", state)];
    gate.wait_for(&format!("a key is {state}"), |metrics| metrics.sum("tidegate_key_state", &labels) > 0.5);
}

/// Replaces a symbolic link in one step, as Kubernetes does.
pub fn swap_link(target: &str, link: &Path) {
    let beside = link.with_file_name("..draft");
    std::os::unix::fs::symlink(target, &beside).expect("a link");
    fs::rename(beside, link).expect("it takes the place");
}
