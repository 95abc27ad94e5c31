//! `[ramp]`, and that there is something to move between.

use super::Checker;
use crate::{
    app::config::{
        raw,
        settings::{Endpoint, Ramp, Side},
    },
    decisions::ramp::Step,
};

pub(super) fn ramp(c: &mut Checker<'_>, raw: raw::Ramp, endpoints: &[Endpoint]) -> Option<Ramp> {
    let has = |side| endpoints.iter().any(|endpoint| endpoint.side == side);
    if !has(Side::Current) && has(Side::Next) {
        let remedy = "remove side from those that serve now";
        let keys = ["upstream.endpoints[0].side", "upstream.endpoints"];
        c.fault(&keys, "\"next\" for every endpoint", "one without it, to fall back to", remedy);
    }
    let first = (raw.share > 0).then_some("ramp.share");
    let first = first.or((!raw.plan.is_empty()).then_some("ramp.plan"));
    if let Some(key) = first.or((!raw.by.is_empty()).then_some("ramp.by")).filter(|_| !has(Side::Next)) {
        let remedy = "write { url = \"http://core-next:8080\", side = \"next\" } among upstream.endpoints";
        c.fault(
            &[key, "upstream.endpoints"],
            "a ramp to nowhere",
            "an endpoint with side = \"next\"",
            remedy,
        );
    }
    let share = percent(c, "ramp.share", raw.share);
    let plan = plan(c, raw.plan);
    let by = raw.by.into_iter().map(|matcher| matcher.0).collect();
    has(Side::Next).then_some(Ramp { share, plan, by, stop_at: raw.stop_at.0 })
}

fn plan(c: &mut Checker<'_>, raw: Vec<raw::Step>) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for (i, step) in raw.into_iter().enumerate() {
        let key = format!("ramp.plan[{i}].at");
        let share = percent(c, &format!("ramp.plan[{i}].share"), step.share);
        let Some(at) = step.at else {
            c.fault(&[&key], "no moment", "when the share begins", "set at, such as 2026-12-01T20:00:00Z");
            continue;
        };
        if steps.last().is_some_and(|last| last.at >= at.0) {
            c.fault(&[&key], "a step that is not later than the one before it", "steps in their order", "");
        }
        steps.push(Step { at: at.0, share });
    }
    steps
}

fn percent(c: &mut Checker<'_>, key: &str, share: u32) -> u8 {
    if share > 100 {
        c.fault(&[key], &share.to_string(), "a whole number from 0 to 100", "");
    }
    u8::try_from(share).unwrap_or(100).min(100)
}
