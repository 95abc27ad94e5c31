//! The stand-in of Harbor, over a real docker-registry or in memory: as many replicas as a test wants, each with a key file.

use super::{
    client::{Account, Client, skopeo::Skopeo},
    http::{self, Connection},
    image::Image,
    ports,
    registry::{self, Registry},
    waiting,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use std::{
    fs,
    io::ErrorKind,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tempfile::TempDir;
use tidegate::rehearsal::harbor::{
    Core, CoreOptions, RegistryAddress, RegistryBackend, SAMPLE_USER_PASSWORD, Version, World, write_key,
};
use tokio::runtime::{Builder, Handle, Runtime};

/// A developer of the private project `priv`.
pub const USER: &str = "dev";
/// How long the port of a core that ended may be taken.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bits of the keys, as Harbor's chart makes them.
pub const KEY_BITS: u32 = 2048;

/// What all replicas of one Harbor share.
#[derive(Debug)]
pub struct Harbor {
    runtime: Runtime,
    world: Arc<World>,
    /// Ends with us.
    registry: Option<Registry>,
    folder: TempDir,
}

impl Harbor {
    /// An empty docker-registry, a user and a private project; no replica yet.
    pub fn start() -> Self {
        let registry = Registry::start();
        let address = RegistryAddress::new(registry.address, registry::USER, registry::PASSWORD);
        Self::over(World::sample_with(RegistryBackend::Proxy(Arc::new(address))), Some(registry))
    }

    /// The same over the stand-in's registry in memory, where docker-registry's own work (bcrypt at each request)
    /// would be what is measured.
    pub fn start_in_memory() -> Self {
        Self::over(World::sample(), None)
    }

    fn over(world: World, registry: Option<Registry>) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self { runtime, world: Arc::new(world), registry, folder }
    }

    /// One more core, with a fresh key in a file of its own.
    pub fn replica(&self, name: &str) -> Replica {
        let key_file = self.key_path(name);
        replace_key(&key_file);
        let replica = Replica {
            // Nobody takes its port while it is down.
            address: ports::free(),
            key_file,
            start_delay: Duration::ZERO,
            version: Version::V2_15_2,
            ext_endpoint: String::new(),
            core: Mutex::default(),
            world: Arc::clone(&self.world),
            runtime: self.runtime.handle().clone(),
        };
        replica.start_again();
        replica
    }

    /// Bytes that the docker-registry has on disk of an open upload.
    pub fn stored_of_upload(&self, repository: &str, id: &str) -> u64 {
        self.registry.as_ref().map_or(0, |registry| registry.stored_of_upload(repository, id))
    }

    /// Removes what the docker-registry has on disk of a repository's open uploads, which it never does by itself;
    /// while no core runs, nobody goes on with them.
    pub fn forget_uploads(&self, repository: &str) {
        self.registry.iter().for_each(|registry| registry.forget_uploads(repository));
    }

    /// What the replicas share, to have their database or Redis fail.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Where a key file of that name lies, or will.
    pub fn key_path(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.pem"))
    }
}

/// One core.
#[derive(Debug)]
pub struct Replica {
    pub address: SocketAddr,
    /// Read by core at each use.
    pub key_file: PathBuf,
    /// How long it takes until it listens when it is started again; 1 to 2 s in a real one. Zero at first.
    pub start_delay: Duration,
    /// What it plays from its next start on. From 2.14 on the realm follows `Host`, so that each lane's clients get their
    /// tokens through that lane.
    pub version: Version,
    /// Where the realm of a version before that points; empty for its own address.
    pub ext_endpoint: String,
    /// None while it is down.
    core: Mutex<Option<Core>>,
    world: Arc<World>,
    runtime: Handle,
}

impl Replica {
    /// Takes over another one's key.
    pub fn hold_the_key_of(&self, other: &Self) {
        copy_key(&other.key_file, &self.key_file);
    }

    /// Takes a fresh key.
    pub fn take_a_key_of_its_own(&self) {
        replace_key(&self.key_file);
    }

    /// Pushes an image through this replica alone, for tests to pull.
    pub fn seed(&self, repository: &str, image: &Image) {
        let (skopeo, account) = (Skopeo::new(), account(self.address));
        let pushed = skopeo.login(&account).and_then(|()| skopeo.push(&account, image, repository));
        pushed.unwrap_or_else(|failure| panic!("the seed is pushed: {failure}"));
    }

    /// The same for docker's command line, see [`Skopeo::push_for_docker`].
    pub fn seed_for_docker(&self, repository: &str, image: &Image) {
        let (skopeo, account) = (Skopeo::new(), account(self.address));
        let pushed =
            skopeo.login(&account).and_then(|()| skopeo.push_for_docker(&account, image, repository));
        pushed.unwrap_or_else(|failure| panic!("the seed is pushed: {failure}"));
    }

    /// Accepts nothing more, and returns when the last request in flight has ended.
    pub fn stop_when_idle(self) {
        self.runtime.block_on(self.running().stop());
    }

    /// Ends as a real core does on SIGTERM: within 100 ms, in the middle of whatever it does.
    pub fn terminate(&self) {
        self.runtime.block_on(self.running().terminate());
    }

    /// Ends as on SIGKILL: at once.
    pub fn kill(&self) {
        self.runtime.block_on(self.running().kill());
    }

    /// Starts it on its address with its key file, after its start delay, and returns when it listens.
    ///
    /// # Panics
    /// Where it runs.
    pub fn start_again(&self) {
        let start = || {
            let mut options =
                CoreOptions::new(self.version, &self.key_file, Arc::clone(&self.world), &self.ext_endpoint);
            options.start_delay = self.start_delay;
            match self.runtime.block_on(Core::start(self.address, options)) {
                // A program that another thread is just starting has its listener too, until it is what it is to be.
                Err(error) if error.kind() == ErrorKind::AddrInUse => None,
                started => Some(started.expect("the core listens")),
            }
        };
        let core = waiting::until(PATIENCE, start).expect("its port is free");
        *self.core.lock().unwrap_or_else(PoisonError::into_inner) = Some(core);
    }

    fn running(&self) -> Core {
        self.core.lock().unwrap_or_else(PoisonError::into_inner).take().expect("the core runs")
    }
}

/// The developer's account at a front door.
pub fn account(front: SocketAddr) -> Account {
    Account::new(front, USER, SAMPLE_USER_PASSWORD)
}

/// A token of the developer to pull `repository` (`project/name:tag`), from a core or through a gate.
pub fn token(front: SocketAddr, repository: &str) -> String {
    let account = account(front);
    let basic = format!("Basic {}", STANDARD.encode(format!("{}:{}", account.user, account.password)));
    let name = repository.split(':').next().unwrap_or(repository);
    let path = format!("/service/token?service=harbor-registry&scope=repository:{name}:pull");
    let answer = http::get(front, &path, &[("Authorization", &basic)]).expect("the token service answers");
    let body: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
    body["token"].as_str().expect("a token").to_owned()
}

/// The status of the image's manifest with that token; 0 where the connection failed.
pub fn use_token(connection: &mut Connection, token: &str, repository: &str) -> u16 {
    let (name, tag) = repository.split_once(':').expect("a repository with a tag");
    let (accept, bearer) = ("application/vnd.oci.image.manifest.v1+json", format!("Bearer {token}"));
    let headers = [("Authorization", bearer.as_str()), ("Accept", accept)];
    let asked = connection.ask("GET", &format!("/v2/{name}/manifests/{tag}"), &headers);
    asked.map_or(0, |answer| answer.status)
}

/// Puts the key of one file into another one, by rename.
pub fn copy_key(from: &Path, to: &Path) {
    let beside = to.with_extension("copy");
    fs::copy(from, &beside).expect("the key is copied");
    fs::rename(beside, to).expect("it takes the place");
}

/// Replaces a key file by a fresh key, by rename; its `kid`.
pub fn replace_key(path: &Path) -> String {
    write_key(path, KEY_BITS).expect("a fresh key is written").to_string()
}
