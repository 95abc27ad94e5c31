//! A request's way through us: each step a plain function call, no step calling back.

pub mod body;
pub mod budget;
pub mod connection;
pub mod context;
pub mod grace;
pub mod headers;
pub mod kept;
pub mod known;
pub mod outages;
pub mod own_token;
pub mod park;
pub mod pings;
pub mod refused;
pub mod registry;
pub mod relay;
pub mod remembered;
pub mod replay;
pub mod respond;
pub mod resume;
pub mod seen_keys;
pub mod send;
pub mod service;
pub mod story;
pub mod token_service;
pub mod uploads;
pub mod writes;
