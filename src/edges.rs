//! What touches the world: files, sockets, certificates. No `if` about policy here.

pub mod key_source;
