//! Counters and the access log: cheap where requests pass, summed and written elsewhere.

pub mod access_log;
pub mod counters;
pub mod exposition;
