//! The words of the field as types: pure, total, without effects.

pub mod clock;
pub mod kid;
