//! What decides: pure functions over words, time as an argument, no socket, file, clock or `async`.

pub mod key;
pub mod ring;
