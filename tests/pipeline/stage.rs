//! The stage of a test: one world, as many stand-in cores as it wants, and a configuration for the gate before them.

use crate::{
    support::{gate::Gate, waiting},
    talk::{Answer, Ask},
};
use aws_lc_rs::digest::{SHA256, digest};
use serde_json::{Value, json};
use std::{
    fmt::Write as _,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};
use tempfile::TempDir;
use tidegate::rehearsal::harbor::{
    Core, CoreKey, CoreOptions, Head, KeyForm, SAMPLE_ADMIN_PASSWORD, SAMPLE_ROBOT_SECRET,
    SAMPLE_USER_PASSWORD, Seen, Version, World,
};
use tokio::{
    runtime::{Builder, Runtime},
    sync::mpsc,
};

/// A developer of the private project `priv`.
pub const DEV: (&str, &str) = ("dev", SAMPLE_USER_PASSWORD);
pub const ADMIN: (&str, &str) = ("admin", SAMPLE_ADMIN_PASSWORD);
/// Pulls from and pushes to `priv`.
pub const ROBOT: (&str, &str) = ("robot$ci", SAMPLE_ROBOT_SECRET);
/// Where [`Replica::seed`] puts its image.
pub const MANIFEST: &str = "/v2/priv/seed/manifests/v1";
/// The same in a public project.
pub const PUBLIC_MANIFEST: &str = "/v2/library/seed/manifests/v1";
const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

/// A Harbor without replicas yet.
pub struct Stage {
    pub runtime: Runtime,
    pub world: Arc<World>,
    folder: TempDir,
}

/// A core, its key file and what it was asked.
pub struct Replica {
    pub address: SocketAddr,
    pub key_file: PathBuf,
    core: Option<Core>,
    seen: Mutex<(mpsc::UnboundedReceiver<Seen>, Vec<Head>)>,
}

impl Stage {
    pub fn new() -> Self {
        Self::of(World::sample())
    }

    pub fn of(world: World) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        Self { runtime, world: Arc::new(world), folder: tempfile::tempdir().expect("a folder") }
    }

    /// A file of this test's own.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A core of 2.10.2 that holds the first spare key, unless `change` says otherwise.
    pub fn replica(&self, name: &str, change: impl FnOnce(&mut CoreOptions)) -> Replica {
        self.replica_at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), name, change)
    }

    /// The same on a given address.
    pub fn replica_at(&self, at: SocketAddr, name: &str, change: impl FnOnce(&mut CoreOptions)) -> Replica {
        let key_file = self.path(&format!("{name}.pem"));
        hold(&key_file, 0);
        let (observer, seen) = mpsc::unbounded_channel();
        let mut options =
            CoreOptions::new(Version::V2_10_2, &key_file, Arc::clone(&self.world), "http://harbor.example");
        options.observer = Some(observer);
        change(&mut options);
        let core = self.runtime.block_on(Core::start(at, options)).expect("the core listens");
        let seen = Mutex::new((seen, Vec::new()));
        Replica { address: core.address(), key_file, core: Some(core), seen }
    }

    /// Ends a core as a kill does; its port is free afterwards.
    pub fn kill(&self, mut replica: Replica) {
        if let Some(core) = replica.core.take() {
            self.runtime.block_on(core.kill());
        }
    }
}

impl Replica {
    /// An image of one layer in `priv/seed:v1` and `library/seed:v1`.
    pub fn seed(&self) {
        for repository in ["priv/seed", "library/seed"] {
            let layer = format!("a layer of {repository}").into_bytes();
            let pushed = push(self.address, repository, "v1", &layer, |ask| ask.basic(ADMIN));
            assert_eq!(pushed, Ok(()), "the seed of {repository}");
        }
    }

    /// The requests that it received so far, but for probes.
    pub fn asked(&self) -> Vec<Head> {
        let mut seen = self.seen.lock().expect("no test panics while it looks");
        let (receiver, heads) = &mut *seen;
        while let Ok(next) = receiver.try_recv() {
            heads.push(next.head);
        }
        let probe =
            |head: &&Head| !head.header("user-agent").is_some_and(|agent| agent.starts_with("tidegate/"));
        heads.iter().filter(probe).cloned().collect()
    }

    /// How many of them are for tokens.
    pub fn tokens_asked(&self) -> usize {
        self.asked().iter().filter(|head| head.target.starts_with("/service/token")).count()
    }
}

/// A spare key of 2048 bits, made once in a process.
pub fn spare_key(index: usize) -> &'static CoreKey {
    static KEYS: [OnceLock<CoreKey>; 3] = [const { OnceLock::new() }; 3];
    KEYS[index].get_or_init(|| CoreKey::generate(2048).expect("a key"))
}

/// Puts a spare key into a key file, by rename.
pub fn hold(path: &Path, index: usize) {
    spare_key(index).rename_into(path, KeyForm::Pkcs1).expect("the key file is replaced");
}

/// `kid` of a spare key.
pub fn kid(index: usize) -> String {
    spare_key(index).kid().to_string()
}

/// A token for a scope.
pub fn token(address: SocketAddr, who: (&str, &str), scope: &str) -> String {
    ask_token(scope).basic(who).at(address).token()
}

pub fn ask_token(scope: &str) -> Ask {
    Ask::get(&format!("/service/token?service=harbor-registry&scope={scope}"))
}

/// The scope of the seed.
pub const SCOPE: &str = "repository:priv/seed:pull,push";

/// A request for a manifest.
pub fn pull(path: &str) -> Ask {
    Ask::get(path).header("Accept", MANIFEST_TYPE)
}

/// Pushes an image of one layer; the first answer that a client would give up at is the error.
pub fn push(
    address: SocketAddr,
    repository: &str,
    tag: &str,
    layer: &[u8],
    authorize: impl Fn(Ask) -> Ask,
) -> Result<(), Answer> {
    let config = b"{}";
    for blob in [layer, config] {
        let open =
            authorize(Ask::new("POST", &format!("/v2/{repository}/blobs/uploads/")).body("")).at(address);
        let location = path_of(&expect(open, 202)?);
        let put =
            format!("{location}{}digest={}", if location.contains('?') { '&' } else { '?' }, sha256(blob));
        expect(authorize(Ask::new("PUT", &put).body(blob)).at(address), 201)?;
    }
    let put =
        Ask::new("PUT", &format!("/v2/{repository}/manifests/{tag}")).header("Content-Type", MANIFEST_TYPE);
    expect(authorize(put.body(manifest(config, layer))).at(address), 201).map(|_| ())
}

/// A manifest's text.
pub fn manifest(config: &[u8], layer: &[u8]) -> String {
    let blob = |kind: &str, bytes: &[u8]| json!({"mediaType": format!("application/vnd.oci.image.{kind}"), "digest": sha256(bytes), "size": bytes.len()});
    let layers = [blob("layer.v1.tar", layer)];
    json!({"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": blob("config.v1+json", config), "layers": layers})
        .to_string()
}

/// Path and query of an answer's `Location`.
pub fn path_of(answer: &Answer) -> String {
    let location = answer.header("location").expect("a Location");
    let rest = location.split_once("://").map_or(location, |(_, rest)| rest);
    rest[rest.find('/').expect("a path")..].to_owned()
}

pub fn sha256(bytes: &[u8]) -> String {
    let mut text = "sha256:".to_owned();
    for byte in digest(&SHA256, bytes).as_ref() {
        _ = write!(text, "{byte:02x}");
    }
    text
}

fn expect(answer: Answer, status: u16) -> Result<Answer, Answer> {
    if answer.status == status { Ok(answer) } else { Err(answer) }
}

/// The access log's line about an answer, found by its `X-Request-ID`.
pub fn told(gate: &Gate, answer: &Answer) -> Value {
    let id = answer.header("x-request-id").expect("every answer has an id").to_owned();
    let line = || gate.log().into_iter().find(|line| line["request_id"] == *id);
    waiting::until(Duration::from_secs(5), line).unwrap_or_else(|| panic!("no line of {id}\n{}", gate.tail()))
}

/// Outcome, plan and reason of an answer's line; empty where there is none.
pub fn story(gate: &Gate, answer: &Answer) -> [String; 3] {
    let line = told(gate, answer);
    ["outcome", "plan", "reason"].map(|field| line[field].as_str().unwrap_or_default().to_owned())
}

/// A configuration for [`Gate::start`], in its sections.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    top: String,
    endpoints: Vec<String>,
    sources: Vec<String>,
    upstream: String,
    keys: String,
    rest: String,
}

impl Setup {
    /// Before these cores, with these key files; keys are probed for often.
    pub fn before(cores: &[&Replica], keys: &[&Path]) -> Self {
        let setup = cores
            .iter()
            .fold(Self::default(), |setup, core| setup.endpoint(&format!("http://{}", core.address)));
        keys.iter().fold(setup, |setup, key| setup.source(&format!("{{ file = \"{}\" }}", key.display())))
    }

    pub fn endpoint(mut self, url: &str) -> Self {
        self.endpoints.push(format!("{{ url = \"{url}\" }}"));
        self
    }

    /// The members of a whole entry of `upstream.endpoints`.
    pub fn endpoint_with(mut self, members: &str) -> Self {
        self.endpoints.push(format!("{{ {members} }}"));
        self
    }

    /// A whole entry of `keys.sources`.
    pub fn source(mut self, entry: &str) -> Self {
        self.sources.push(entry.to_owned());
        self
    }

    /// A line before all sections.
    pub fn top(mut self, line: &str) -> Self {
        _ = writeln!(self.top, "{line}");
        self
    }

    pub fn upstream(mut self, line: &str) -> Self {
        _ = writeln!(self.upstream, "{line}");
        self
    }

    pub fn keys(mut self, line: &str) -> Self {
        _ = writeln!(self.keys, "{line}");
        self
    }

    /// A section of its own.
    pub fn rest(mut self, text: &str) -> Self {
        _ = writeln!(self.rest, "{text}");
        self
    }

    /// Requests that no endpoint takes fail at once.
    pub fn without_park(self) -> Self {
        self.rest("[park]\ntimeout = \"0s\"\n")
    }

    pub fn text(&self) -> String {
        let (endpoints, sources) = (self.endpoints.join(", "), self.sources.join(", "));
        format!(
            "{}\n[upstream]\nendpoints = [{endpoints}]\n{}\n[keys]\nsources = [{sources}]\n{}\n{}",
            self.top, self.upstream, self.keys, self.rest
        )
    }

    pub fn start(&self) -> Gate {
        Gate::start(&self.text())
    }
}
