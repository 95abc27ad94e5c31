//! The rehearsal: an upgrade of Harbor in a box.

pub mod harbor;
