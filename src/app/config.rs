//! The configuration: a file, the environment and flags become checked [`Settings`], or every fault at once.

pub mod address;
mod secret;
mod settings;

pub use settings::*;
