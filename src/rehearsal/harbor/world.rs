//! What all replicas of one Harbor share: its database (users, robots, projects), its Redis (sessions) and its registry.

mod backends;
pub(super) mod deeds;
mod people;
mod projects;
mod sessions;

use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{memory::MemoryRegistry, registry_client::RegistryAddress, wire::head::Head};
use crate::words::clock::Clock;
pub(super) use backends::{Backend, Backends};
pub use backends::{Health, OutageTimes};
use deeds::{Begun, Place};
pub use deeds::{Deed, Deeds};
pub(super) use people::{Robot, User};
pub use projects::Role;
pub(super) use projects::{Action, DatabaseDown, Member, Project};
use sessions::Sessions;
use tokio::sync::watch;

/// Where images are kept.
#[derive(Clone, Debug)]
pub enum RegistryBackend {
    /// In this process.
    Memory(Arc<MemoryRegistry>),
    /// A docker-registry with htpasswd; core sends it Basic (K5).
    Proxy(Arc<RegistryAddress>),
}

/// The state that replicas share. Cheap to use from many cores by `Arc`.
#[derive(Debug)]
pub struct World {
    pub(super) registry: RegistryBackend,
    tables: Mutex<Tables>,
    sessions: Mutex<Sessions>,
    backends: watch::Sender<Backends>,
    deeds: Arc<Deeds>,
    /// Signs CSRF cookies; the same for all replicas (`CSRF_KEY`).
    pub(super) csrf_key: [u8; 32],
    clock: Clock,
}

/// Users, robots, projects: Harbor's tables.
#[derive(Debug, Default)]
pub(super) struct Tables {
    pub(super) users: Vec<User>,
    pub(super) robots: Vec<Robot>,
    pub(super) projects: Vec<Project>,
    /// Repositories that hold an artifact.
    pub(super) repositories: HashSet<String>,
    last_id: u64,
}

impl Tables {
    /// A fresh id, unlike any other in these tables.
    pub(super) fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }
}

/// The administrator's password in [`World::sample`].
pub const SAMPLE_ADMIN_PASSWORD: &str = "Harbor12345";
/// The password of `dev` in [`World::sample`].
pub const SAMPLE_USER_PASSWORD: &str = "Dev12345";
/// The secret of `robot$ci` in [`World::sample`].
pub const SAMPLE_ROBOT_SECRET: &str = "RobotSecret12345";

impl World {
    /// An administrator `admin` and the public project `library`, as a fresh Harbor has them.
    pub fn fresh(registry: RegistryBackend) -> Self {
        let mut csrf_key = [0; 32];
        csrf_key.copy_from_slice(&super::random::bytes(32));
        let world = Self {
            registry,
            tables: Mutex::default(),
            sessions: Mutex::default(),
            backends: watch::Sender::new(Backends::up()),
            deeds: Arc::default(),
            csrf_key,
            clock: Clock::system(),
        };
        world.add_user("admin", SAMPLE_ADMIN_PASSWORD, true);
        world.add_project("library", true);
        world
    }

    /// The recordings' world: also `dev`, developer in the private project `priv`, and `robot$ci` with pull and push there.
    pub fn sample_with(registry: RegistryBackend) -> Self {
        let world = Self::fresh(registry);
        world.add_project("priv", false);
        world.add_user("dev", SAMPLE_USER_PASSWORD, false);
        world.add_member("priv", "dev", Role::Developer);
        world.add_robot("robot$ci", SAMPLE_ROBOT_SECRET, &["priv"]);
        world
    }

    /// [`World::sample_with`] over an empty registry in memory of at most 1 GiB.
    pub fn sample() -> Self {
        Self::sample_with(RegistryBackend::Memory(Arc::new(MemoryRegistry::new(1 << 30))))
    }

    /// Keeps every change from now on, for as long as this world lives.
    pub fn watch(&self) -> Arc<Deeds> {
        self.deeds.watch();
        Arc::clone(&self.deeds)
    }

    /// What a request to a core may change; `None` where nobody wants to know.
    pub(super) fn begin(&self, head: &Head, core: SocketAddr) -> Option<Begun> {
        self.deeds.begin(head, core)
    }

    /// The answer to what was done went out whole.
    pub(super) fn acknowledge(&self, deed: Option<Place>) {
        if let Some(place) = deed {
            self.deeds.acknowledge(place);
        }
    }

    pub(super) fn tables(&self) -> MutexGuard<'_, Tables> {
        // No holder of the lock panics between two writes that belong together.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.clock.now_precise()
    }

    /// Remembers that a repository holds an artifact.
    pub(super) fn note_repository(&self, repository: &str) {
        self.tables().repositories.insert(repository.to_owned());
    }

    /// Forgets a repository with what it holds; false where it held nothing.
    pub(super) fn forget_repository(&self, repository: &str) -> bool {
        if let RegistryBackend::Memory(memory) = &self.registry {
            memory.forget(repository);
        }
        self.tables().repositories.remove(repository)
    }

    pub(super) fn knows_repository(&self, repository: &str) -> bool {
        self.tables().repositories.contains(repository)
    }
}
