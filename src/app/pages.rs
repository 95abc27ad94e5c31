//! Pages of the documentation that are made from the code: reasons, metrics, the access log.

use std::fmt::Write as _;

use crate::{
    edges::telemetry::{access_log::MEMBERS, counters::ROUTES, exposition::FAMILIES},
    words::reason::{Outcome, Reason, Rescue},
};

/// What the access log calls a plan, and what it means.
pub const PLANS: [(&str, &str); 6] = [
    ("as_came", "The client's own `Authorization`, unchanged."),
    ("reroute", "The same, at the endpoint that holds the token's key, where another one's turn had come."),
    ("resign", "The token's claims, signed with the key that the endpoint holds."),
    ("replay", "The credential that Harbor issued the token for."),
    ("blank", "A bearer that means nothing, in the place of a token that counts as none."),
    ("cached", "Nothing: the answer to a token request was in memory."),
];

fn row(page: &mut String, cells: &[&str]) {
    // Writing to a text can't fail.
    let _ = writeln!(page, "| {} |", cells.join(" | "));
}

fn table(page: &mut String, heads: &[&str], rows: impl IntoIterator<Item = [String; 2]>) {
    row(page, heads);
    row(page, &vec!["---"; heads.len()]);
    for [first, second] in rows {
        row(page, &[&first, &second]);
    }
}

fn named(name: &str, meaning: &str) -> [String; 2] {
    [format!("`{name}`"), meaning.to_owned()]
}

/// `docs/reasons.md`: the closed lists.
pub fn reasons() -> String {
    let mut page = String::from(
        "# Outcomes, rescues, reasons\n\nMade from the code. Metrics and the access log use these names and no others.\n\n\
         ## What became of a request\n\n`outcome` of the access log, `tidegate_outcomes_total{outcome}`.\n\n",
    );
    table(&mut page, &["outcome", "meaning"], Outcome::ALL.iter().map(|o| named(o.name(), o.meaning())));
    page.push_str(
        "\n## What rescued it\n\nA rescued request would have failed without tidegate: `reason` of the access log where \
         `outcome` is `rescued`, `tidegate_rescued_requests_total{reason}`. In observe mode \
         `tidegate_would_rescue_total{reason}` counts refusals of Harbor's that the first plan would have rescued, \
         replays left out.\n\n",
    );
    table(&mut page, &["reason", "meaning"], Rescue::ALL.iter().map(|r| named(r.name(), r.meaning())));
    page.push_str(
        "\n## Why it was refused\n\n`reason` of the access log elsewhere, `tidegate_rejections_total{reason}`. A token that is refused \
         (`token_…`) counts as no credential: a public project can still be read, and Harbor answers all else \
         with its own `Basic` challenge.\n\n",
    );
    table(&mut page, &["reason", "meaning"], Reason::ALL.iter().map(|r| named(r.name(), r.meaning())));
    page
}

/// `docs/metrics.md`: the families that `/metrics` exposes.
pub fn metrics() -> String {
    let mut page = String::from(
        "# Metrics\n\nMade from the code. `/metrics` of the admin listener, in the text format of OpenMetrics.\n\n",
    );
    row(&mut page, &["name", "kind", "labels", "meaning"]);
    row(&mut page, &["---"; 4]);
    for family in &FAMILIES {
        let name = match family.kind {
            "counter" => format!("`{}_total`", family.name),
            "histogram" => format!("`{0}_bucket`, `_sum`, `_count`", family.name),
            _ => format!("`{}`", family.name),
        };
        let labels: Vec<_> = family.labels.iter().map(|label| format!("`{label}`")).collect();
        row(&mut page, &[&name, family.kind, &labels.join(", "), family.help]);
    }
    page.push_str(
        "\nLabels of closed lists are explained in [reasons](reasons.md). Alert rules on these metrics:\n\
         [deploy/alerts.yaml](../deploy/alerts.yaml).\n",
    );
    page
}

/// `docs/log.md`: the access log.
pub fn log() -> String {
    let mut page = String::from(
        "# The access log\n\nMade from the code. One JSON object a line and request, written to stdout at its end; events and alarms \
         go to stderr, their moment as `timestamp` (RFC 3339). A text that is empty is \
         left out; texts of clients are cut at 256 bytes and escaped to ASCII. Queries, credentials and tokens are \
         never written.\n\n",
    );
    table(&mut page, &["member", "meaning"], MEMBERS.map(|(name, meaning)| named(name, meaning)));
    page.push_str("\n## What went up\n\n");
    table(&mut page, &["plan", "meaning"], PLANS.map(|(name, meaning)| named(name, meaning)));
    let routes = ROUTES.map(|route| format!("`{route}`")).join(", ");
    let _ = writeln!(
        page,
        "\n`route` is one of {routes}. `outcome` and `reason` are explained in [reasons](reasons.md)."
    );
    page
}

#[cfg(test)]
mod tests;
