//! Registry tokens: read, verified, signed again.

pub mod claims;
pub mod resign;
pub mod verify;
