//! Decisions: pure functions on data, `now` as an argument, tested by tables.

pub mod archive;
pub mod evidence;
pub mod former;
pub mod grace;
pub mod key;
pub mod manifest;
pub mod outage;
pub mod peer;
pub mod plan;
pub mod ramp;
pub mod record;
pub mod refusal;
pub mod resume;
pub mod revoked;
pub mod ring;
pub mod token;
pub mod window;
