//! What touches the world: files, sockets, certificates. No `if` about policy here.

pub mod alarm;
pub mod distant;
pub mod fleet;
pub mod key_source;
pub mod listener;
pub mod pkcs11;
pub mod pool;
pub mod probe;
pub mod proxy_protocol;
pub mod resolve;
pub mod signer;
pub(crate) mod small_file;
pub mod spool;
pub mod store;
pub mod task;
pub mod telemetry;
pub mod tls;
pub(crate) mod whole_file;
pub mod wire;
