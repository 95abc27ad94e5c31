//! What the suite runs on: a stand-in core of each version, or a real Harbor named by the environment.

use std::{
    fmt::Write as _,
    io::Write as _,
    net::SocketAddr,
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use aws_lc_rs::digest::{SHA256, digest};
use futures_util::{FutureExt as _, future::join_all};
use serde_json::json;
use tempfile::TempDir;
use tidegate::rehearsal::harbor::{
    Core, CoreKey, CoreOptions, KeyForm, SAMPLE_ADMIN_PASSWORD, SAMPLE_ROBOT_SECRET, SAMPLE_USER_PASSWORD,
    Version, World,
};

use crate::{
    client::Request,
    parts::{self, Commands},
    support::ports,
};

/// What a line needs beyond a URL and credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// The path of the key file that core reads.
    KeyFile,
    /// A second replica of the same Harbor.
    Replica,
    /// The host of `CORE_URL`.
    CoreHost,
    /// `EXT_ENDPOINT`.
    ExtEndpoint,
    /// Commands that stop, freeze or start Harbor's parts: [`crate::parts`].
    Commands(&'static [&'static str]),
    /// A registry that the suite may watch.
    StandIn,
}

/// An image that is there already.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    pub(crate) project: String,
    pub(crate) repository: String,
    pub(crate) tag: String,
}

impl Image {
    pub(crate) fn parse(text: &str) -> Self {
        let (repository, tag) = text.rsplit_once(':').expect("project/repository:tag");
        let (project, _) = repository.split_once('/').expect("project/repository:tag");
        Self { project: project.into(), repository: repository.into(), tag: tag.into() }
    }

    pub(crate) fn manifest(&self) -> String {
        format!("/v2/{}/manifests/{}", self.repository, self.tag)
    }
}

/// A Harbor to be tested.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) version: Version,
    pub(crate) address: SocketAddr,
    pub(crate) host: String,
    pub(crate) replica: Option<SocketAddr>,
    pub(crate) ext_endpoint: Option<String>,
    pub(crate) core_host: Option<String>,
    pub(crate) admin: (String, String),
    pub(crate) user: (String, String),
    pub(crate) robot: (String, String),
    pub(crate) public: Image,
    pub(crate) private: Image,
    pub(crate) key_file: Option<PathBuf>,
    pub(crate) commands: Commands,
    pub(crate) stand_in: Option<StandIn>,
}

/// What a stand-in target owns.
#[derive(Debug)]
pub(crate) struct StandIn {
    /// None while it is down.
    pub(crate) core: Option<Core>,
    pub(crate) world: Arc<World>,
    _replica: Core,
    _folder: TempDir,
}

/// Runs a line on each target that has what it needs; what is skipped is said by name.
pub(crate) async fn on_each(line: &str, needs: &[Need], test: impl AsyncFn(&mut Target)) {
    /// A real Harbor has one key file and one lock on a name: its tests run one after the other.
    static ONE_AT_A_TIME: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    if let Some(mut target) = Target::by_environment() {
        let _alone = ONE_AT_A_TIME.lock().await;
        match needs.iter().find(|need| !target.has(**need)) {
            Some(missing) => skip(line, &missing.reason()),
            None => run(line, &mut target, &test).await,
        }
        return;
    }
    let of_version = async |version| run(line, &mut Target::stand_in(version).await, &test).await;
    join_all(Version::ALL.map(of_version)).await;
}

/// Says that a line isn't tested here and why.
pub(crate) fn skip(line: &str, reason: &str) {
    say(&format!("contract: {line} skipped: {reason}"));
}

async fn run(line: &str, target: &mut Target, test: &impl AsyncFn(&mut Target)) {
    let kept =
        target.key_file.as_ref().map(|path| (path.clone(), std::fs::read(path).expect("the key file")));
    let (version, real) = (target.version, target.stand_in.is_none());
    let ended = AssertUnwindSafe(test(target)).catch_unwind().await;
    if let (true, Some((path, bytes))) = (real, kept) {
        std::fs::write(path, bytes).expect("the key file is put back");
    }
    target.put_back().await;
    if let Err(panic) = ended {
        let what = if real { "Harbor" } else { "the stand-in" };
        say(&format!("contract: {line} failed on {what} {version}"));
        std::panic::resume_unwind(panic);
    }
}

/// Past the test harness's capture, which hides what passing tests print.
fn say(line: &str) {
    _ = writeln!(std::io::stderr(), "{line}");
}

impl Need {
    fn reason(self) -> String {
        let needed: &[&str] = match self {
            Self::KeyFile => &["KEY_FILE"],
            Self::Replica => &["REPLICA_URL"],
            Self::CoreHost => &["CORE_HOST"],
            Self::ExtEndpoint => &["EXT_ENDPOINT"],
            Self::Commands(names) => names,
            Self::StandIn => return "runs on the stand-in alone: it watches its registry".into(),
        };
        let names: Vec<_> = needed.iter().map(|name| format!("TIDEGATE_CONTRACT_{name}")).collect();
        format!("needs {}", names.join(" and "))
    }
}

impl Target {
    async fn stand_in(version: Version) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let key_file = folder.path().join("private_key.pem");
        spare_key(0).overwrite(&key_file, KeyForm::Pkcs1).expect("a key file");
        let world = Arc::new(World::sample());
        world.set_outage_times(parts::SOON);
        let ext_endpoint = "http://harbor.example.test";
        let options = stand_in_options(version, &key_file, &world);
        // Nobody takes its port while it is down.
        let core = Core::start(ports::free(), options.clone()).await.expect("a core");
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let replica = Core::start(any, options).await.expect("a replica");
        let named = |name: &str, password: &str| (name.to_owned(), password.to_owned());
        let target = Self {
            version,
            address: core.address(),
            host: core.address().to_string(),
            replica: Some(replica.address()),
            ext_endpoint: Some(ext_endpoint.into()),
            core_host: Some("core.example.test:8080".into()),
            admin: named("admin", SAMPLE_ADMIN_PASSWORD),
            user: named("dev", SAMPLE_USER_PASSWORD),
            robot: named("robot$ci", SAMPLE_ROBOT_SECRET),
            public: Image::parse("library/small:latest"),
            private: Image::parse("priv/small:latest"),
            key_file: Some(key_file),
            commands: Commands::default(),
            stand_in: Some(StandIn { core: Some(core), world, _replica: replica, _folder: folder }),
        };
        target.push(&target.public).await;
        target.push(&target.private).await;
        target
    }

    fn has(&self, need: Need) -> bool {
        match need {
            Need::KeyFile => self.key_file.is_some(),
            Need::Replica => self.replica.is_some(),
            Need::CoreHost => self.core_host.is_some(),
            Need::ExtEndpoint => self.ext_endpoint.is_some(),
            Need::Commands(names) => self.stand_in.is_some() || self.commands.name(names),
            Need::StandIn => self.stand_in.is_some(),
        }
    }

    /// The key file, for lines that need one.
    pub(crate) fn key_file(&self) -> &Path {
        self.key_file.as_deref().expect("asked for by Need::KeyFile")
    }

    /// The key that core holds now.
    pub(crate) fn held_key(&self) -> CoreKey {
        CoreKey::read(self.key_file()).expect("a key that verifies")
    }

    /// A request to this Harbor.
    pub(crate) fn request(&self, method: &str, target: &str) -> Request {
        Request::new(self.address, &self.host, method, target)
    }

    pub(crate) fn get(&self, target: &str) -> Request {
        self.request("GET", target)
    }

    /// Pushes a small image as administrator, with a layer of 1 KiB.
    async fn push(&self, image: &Image) {
        let layer = self.push_blob(&image.repository, &vec![b'x'; 1024]).await;
        let config = self.push_blob(&image.repository, b"{}").await;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 2},
            "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer, "size": 1024}],
        });
        let put = self.request("PUT", &image.manifest()).basic(&self.admin);
        let put = put.header("Content-Type", OCI_MANIFEST).body(manifest.to_string()).send().await;
        assert_eq!(put.status, 201, "{}", put.text());
    }

    /// Pushes a blob as administrator; gives its digest.
    pub(crate) async fn push_blob(&self, repository: &str, bytes: &[u8]) -> String {
        let location = self.open_upload(repository).await;
        let digest = sha256(bytes);
        let put = self.request("PUT", &format!("{location}&digest={digest}"));
        let put = put.basic(&self.admin).body(bytes).send().await;
        assert_eq!(put.status, 201, "{}", put.text());
        digest
    }

    /// Opens an upload as administrator; path and query of its location.
    pub(crate) async fn open_upload(&self, repository: &str) -> String {
        let post = self.request("POST", &format!("/v2/{repository}/blobs/uploads/"));
        let post = post.basic(&self.admin).body("").send().await;
        assert_eq!(post.status, 202, "{}", post.text());
        path_of(post.header("location").expect("a location"))
    }
}

/// How a stand-in core of this suite is set up.
pub(crate) fn stand_in_options(version: Version, key_file: &Path, world: &Arc<World>) -> CoreOptions {
    let mut options = CoreOptions::new(version, key_file, Arc::clone(world), "http://harbor.example.test");
    options.core_url_host = Some("core.example.test:8080".into());
    options
}

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// What a client accepts who takes any image.
pub(crate) const MANIFESTS: &str =
    "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json";

/// Path and query of an absolute URL.
pub(crate) fn path_of(url: &str) -> String {
    let (_, after) = url.split_once("://").expect("an absolute URL");
    after[after.find('/').expect("a path")..].to_owned()
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().fold("sha256:".to_owned(), |mut text, b| {
        _ = write!(text, "{b:02x}");
        text
    })
}

/// RSA keys that this run shares, since making one takes a while: 0 is the stand-in's own, 1 and 2 are others.
pub(crate) fn spare_key(number: usize) -> &'static CoreKey {
    static KEYS: OnceLock<[CoreKey; 3]> = OnceLock::new();
    &KEYS.get_or_init(|| std::array::from_fn(|_| CoreKey::generate(2048).expect("a key")))[number]
}
