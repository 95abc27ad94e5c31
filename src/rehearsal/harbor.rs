//! A stand-in for Harbor core, built from recordings of real ones (`Version`), line by line of what clients and a proxy
//! can see: its key is a file read at each use, its users, robots, projects and sessions are shared by all replicas of one
//! [`World`], and `/v2/` ends at a real docker-registry or at a small one in memory.
//!
//! A request's path, one file each:
//!
//! ```text
//! serve     connections               replica  options, counters, the order of the steps
//! wire      HTTP/1.1 as Go's server speaks it
//! outage    database or Redis down  cookies  sid and CSRF
//! who       whose request it is
//! token_service   /service/token    access   who may do what below /v2/, and the challenges
//! registry  /v2/                    -> registry_client (docker-registry) or memory
//! api       /api                    ui       /c
//! ```
//!
//! It guards nothing: passwords are kept as they are, and the world is gone with the process.

mod access;
mod api;
mod cookies;
mod hooks;
mod key;
mod key_file;
mod memory;
mod outage;
mod random;
mod registry;
mod registry_client;
mod replica;
mod repository_path;
mod serve;
mod times;
mod token;
mod token_service;
mod ui;
mod version;
mod who;
mod wire;
mod world;

pub use hooks::{Gate, Latency, Moment, Seen, Served};
pub use key_file::{CoreKey, KeyForm, write_key};
pub use memory::MemoryRegistry;
pub use random::uuid as random_name;
pub use registry_client::RegistryAddress;
pub use replica::{Core, CoreOptions};
pub use version::Version;
pub use wire::head::Head;
pub use world::{
    Deed, Deeds, Health, OutageTimes, RegistryBackend, Role, SAMPLE_ADMIN_PASSWORD, SAMPLE_ROBOT_SECRET,
    SAMPLE_USER_PASSWORD, World,
};
