//! The assembly: the only group that knows every concrete type.

pub mod admin;
pub mod config;
mod log;
pub mod serve;
pub mod status;
