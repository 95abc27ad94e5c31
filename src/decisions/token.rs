//! Registry tokens: read, verified, signed again.

pub mod claims;
#[cfg(test)]
pub(crate) mod forge;
pub mod question;
pub mod resign;
pub mod verify;
