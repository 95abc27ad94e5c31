//! The assembly: the only group that knows every concrete type.

pub mod admin;
pub mod config;
pub mod status;
