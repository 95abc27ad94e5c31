//! The stand-in of Harbor with a registry in memory, and what it received.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};
use tempfile::TempDir;
use tidegate::rehearsal::harbor::{
    Core, CoreOptions, Head, SAMPLE_ADMIN_PASSWORD, SAMPLE_ROBOT_SECRET, SAMPLE_USER_PASSWORD, Seen, Served,
    Version, World, write_key,
};
use tokio::{
    runtime::{Builder, Runtime},
    sync::mpsc,
};

use crate::support::http;

/// One core and its key.
pub struct Standin {
    pub address: SocketAddr,
    pub key_file: PathBuf,
    pub world: Arc<World>,
    core: Core,
    seen: Mutex<(mpsc::UnboundedReceiver<Seen>, Vec<Head>)>,
    runtime: Runtime,
    folder: TempDir,
}

impl Standin {
    /// The sample world behind one core of the newest version.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let key_file = folder.path().join("private_key.pem");
        write_key(&key_file, 2048).expect("a key");
        let world = Arc::new(World::sample());
        let (observer, seen) = mpsc::unbounded_channel();
        let mut options = CoreOptions::new(Version::V2_15_2, &key_file, Arc::clone(&world), "");
        options.observer = Some(observer);
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let core = runtime.block_on(Core::start(any, options)).expect("the core listens");
        Self {
            address: core.address(),
            key_file,
            world,
            core,
            seen: Mutex::new((seen, Vec::new())),
            runtime,
            folder,
        }
    }

    /// Counts of what it served.
    pub fn served(&self) -> Served {
        self.core.served()
    }

    /// Heads of requests other than tidegate's own questions.
    pub fn heads(&self) -> Vec<Head> {
        self.all().into_iter().filter(|head| !is_our_own(head)).collect()
    }

    /// How often tidegate has asked on its own behalf with this `Authorization`.
    pub fn asked_with(&self, authorization: &str) -> usize {
        let with = |head: &Head| head.header("authorization") == Some(authorization);
        self.all().iter().filter(|head| is_our_own(head) && with(head)).count()
    }

    /// How often tidegate has asked which key core holds.
    pub fn looks(&self) -> usize {
        let key = |head: &Head| head.target.contains("scope=registry:catalog:");
        self.all().iter().filter(|head| is_our_own(head) && key(head)).count()
    }

    fn all(&self) -> Vec<Head> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        while let Ok(one) = seen.0.try_recv() {
            seen.1.push(one.head);
        }
        seen.1.clone()
    }

    /// A token that core gives `user` for these scopes.
    pub fn token(&self, user: &str, scopes: &[&str]) -> String {
        let scopes = scopes.iter().map(|scope| format!("&scope={scope}")).collect::<Vec<_>>().concat();
        let path = format!("/service/token?service=harbor-registry{scopes}");
        let answer =
            http::get(self.address, &path, &[("Authorization", &basic_of(user))]).expect("core answers");
        let body: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
        body["token"].as_str().expect("a token").to_owned()
    }
}

fn is_our_own(head: &Head) -> bool {
    head.header("user-agent").is_some_and(|agent| agent.starts_with("tidegate/"))
}

/// `Basic …` of a sample user with the right secret.
pub fn basic_of(user: &str) -> String {
    let secret = match user {
        "admin" => SAMPLE_ADMIN_PASSWORD,
        "robot$ci" => SAMPLE_ROBOT_SECRET,
        _ => SAMPLE_USER_PASSWORD,
    };
    basic(user, secret)
}

/// `Basic …` of any credential.
pub fn basic(user: &str, secret: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{secret}")))
}
