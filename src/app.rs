//! The assembly: the only group that knows every concrete type.

pub mod config;
