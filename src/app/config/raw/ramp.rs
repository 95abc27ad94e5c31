//! `[ramp]`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    app::config::{moment::Moment, written::Text},
    decisions::ramp::{Matcher, Part},
};

/// The move to the endpoints with `side = "next"`, step by step: see `docs/gradual.md`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Ramp {
    /// Percent of clients that go to the next side, by address: 0 to 100.
    pub share: u32,
    /// Later shares, each from its moment on, in their order: `[{ at = 2026-12-01T20:00:00Z, share = 10 }]`.
    pub plan: Vec<Step>,
    /// What goes to the next side whatever the share: `project:p`, `agent:x` (a part of `User-Agent`),
    /// `source:10.0.0.0/8`.
    pub by: Vec<Text<Matcher>>,
    /// Where more of the next side's requests in a minute fail than this part (and five at least), the move stops and all
    /// go back to the current side.
    pub stop_at: Text<Part>,
}

impl Default for Ramp {
    fn default() -> Self {
        Self { share: 0, plan: Vec::new(), by: Vec::new(), stop_at: Text(Part::percent(1)) }
    }
}

/// One share, from its moment on.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Step {
    /// When it begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Moment")]
    pub at: Option<Moment>,
    /// Percent of clients, 0 to 100.
    pub share: u32,
}
