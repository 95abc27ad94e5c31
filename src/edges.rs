//! What touches the world: files, sockets, certificates. No `if` about policy here.

pub mod alarm;
pub mod key_source;
pub mod proxy_protocol;
mod small_file;
pub mod tls;
