//! The words of the field as types: pure, total, without effects.

pub mod challenge;
pub mod clock;
pub mod credential;
pub mod error_body;
pub mod file_fault;
pub mod kid;
pub mod reason;
pub mod route;
pub mod scope;
