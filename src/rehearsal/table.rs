//! What a person sees: the lanes side by side, what the clients said, what tidegate did about it. 80 columns.

mod live;
mod stay;

use std::{
    collections::BTreeSet,
    fmt::{self, Write as _},
};

pub use self::{
    live::{BOTH, Live},
    stay::Stay,
};
use super::{
    load::{Kind, Part, Sum},
    report::{AgainstReport, Report},
};

/// The widest line.
const WIDTH: usize = 80;
/// Where a client's words begin.
const WORDS_AT: usize = 27;

/// So many kinds of failures are shown, the most frequent ones.
const KINDS: usize = 8;

/// A report as text, with colours where it goes to a terminal.
#[derive(Clone, Copy, Debug)]
pub struct Table<'a> {
    pub report: &'a Report,
    pub colours: bool,
}

/// The same of a load on an operator's Harbor.
#[derive(Clone, Copy, Debug)]
pub struct AgainstTable<'a> {
    pub report: &'a AgainstReport,
    pub colours: bool,
}

/// A lane and its name.
type Column<'a> = (&'a str, &'a Sum);

/// How numbers are shown.
#[derive(Clone, Copy)]
struct Paint {
    colours: bool,
}

/// Green for what should be, red for what shouldn't.
#[derive(Clone, Copy)]
enum Colour {
    Green,
    Red,
}

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (report, paint) = (self.report, Paint { colours: self.colours });
        writeln!(
            f,
            "Rolling upgrade of Harbor {} to {} with a new key (seed {}, {} s)",
            report.upgraded_from, report.upgraded_to, report.seed, report.duration_seconds
        )?;
        if let Some(by) = &report.client {
            writeln!(f, "Load by {} {}", by.name, by.version)?;
        }
        writeln!(f)?;
        paint.rows(f, &[("directly", &report.direct), ("through tidegate", &report.through_tidegate)])?;
        paint.failures(f, "Failed directly, in the clients' words", &report.direct)?;
        paint.failures(f, "Failed through tidegate", &report.through_tidegate)?;
        if !report.tidegate.rescues.is_empty() {
            writeln!(f, "\nRescued by tidegate")?;
            for (reason, count) in &report.tidegate.rescues {
                writeln!(f, "{count:>7} requests by {reason}: {}", meaning(reason))?;
            }
        }
        let verdict = format!(
            "{} of {} operations failed directly, {} of {} through tidegate.",
            report.direct.failed,
            report.direct.operations,
            report.through_tidegate.failed,
            report.through_tidegate.operations
        );
        paint.verdict(f, report.passed, &verdict)
    }
}

impl fmt::Display for AgainstTable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (report, paint) = (self.report, Paint { colours: self.colours });
        writeln!(f, "Load on {} (seed {}, {} s)", report.against_url, report.seed, report.duration_seconds)?;
        if let Some(direct) = &report.direct_url {
            writeln!(f, "directly: {direct}")?;
        }
        writeln!(f)?;
        let direct = report.direct.as_ref().map(|sum| ("directly", sum));
        let against = (if direct.is_some() { "through --against" } else { "at --against" }, &report.against);
        let lanes: Vec<Column<'_>> = direct.into_iter().chain([against]).collect();
        paint.rows(f, &lanes)?;
        for (name, sum) in lanes {
            paint.failures(f, &format!("Failed {name}, in the clients' words"), sum)?;
        }
        if !report.not_deleted.is_empty() {
            writeln!(f, "\n{}", paint.paint(Colour::Red, "Not deleted, still in Harbor"))?;
            for left in &report.not_deleted {
                writeln!(f, "  {}\n    {}", left.repository, left.why)?;
            }
        }
        let interrupted = if report.interrupted { ", until it was interrupted" } else { "" };
        let Sum { failed, operations, .. } = report.against;
        let left = match report.not_deleted.len() {
            0 => "nothing was left behind".to_owned(),
            count => format!("repositories left behind: {count}"),
        };
        let verdict = format!("{failed} of {operations} operations failed{interrupted}; {left}.");
        paint.verdict(f, report.passed, &verdict)
    }
}

impl Paint {
    fn rows(self, f: &mut fmt::Formatter<'_>, lanes: &[Column<'_>]) -> fmt::Result {
        let line = |f: &mut fmt::Formatter<'_>, first: &str, cells: Vec<String>| {
            writeln!(f, "{}", format!("{first:<20}{}", cells.join("  ")).trim_end())
        };
        line(f, "", lanes.iter().map(|(name, _)| format!("{name:<28}")).collect())?;
        line(f, "", lanes.iter().map(|_| HEADS.to_owned()).collect())?;
        let parts: BTreeSet<_> =
            lanes.iter().flat_map(|(_, sum)| &sum.parts).map(|part| (part.client, part.operation)).collect();
        for (client, operation) in parts {
            let of = |part: &&Part| part.client == client && part.operation == operation;
            let cells = lanes.iter().map(|(_, sum)| self.cell(sum.parts.iter().find(of)));
            line(f, &format!("  {client:<11}{operation:<7}"), cells.collect())?;
        }
        let all = lanes.iter().map(|(_, sum)| self.failed(sum.failed, sum.operations, 28));
        line(f, "  all", all.collect())
    }

    fn cell(self, part: Option<&Part>) -> String {
        let Some(part) = part else { return format!("{:<28}", "") };
        let millis = |time: Option<f64>| time.map_or_else(|| "-".to_owned(), |time| format!("{time:.0} ms"));
        let failed = self.failed(part.failed, part.operations, 10);
        format!("{failed}{:>9}{:>9}", millis(part.median_ms), millis(part.p99_ms))
    }

    fn failed(self, failed: usize, of: usize, width: usize) -> String {
        let colour = if failed == 0 { Colour::Green } else { Colour::Red };
        let text = format!("{failed} of {of}");
        let rest = width.saturating_sub(text.len());
        format!("{}{:rest$}", self.paint(colour, &text), "")
    }

    fn failures(self, f: &mut fmt::Formatter<'_>, title: &str, sum: &Sum) -> fmt::Result {
        if sum.failures.is_empty() {
            return writeln!(f, "\n{title}\n      {}", self.paint(Colour::Green, "0 nothing"));
        }
        writeln!(f, "\n{title}")?;
        sum.failures.iter().take(KINDS).try_for_each(|kind| f.write_str(&row(kind)))?;
        let others = sum.failures.get(KINDS..).unwrap_or_default();
        if others.is_empty() {
            return Ok(());
        }
        let count: usize = others.iter().map(|kind| kind.count).sum();
        writeln!(f, "{count:>7} in {} other ways (--json tells)", others.len())
    }

    fn verdict(self, f: &mut fmt::Formatter<'_>, passed: bool, verdict: &str) -> fmt::Result {
        let (colour, word) = if passed { (Colour::Green, "Passed") } else { (Colour::Red, "NOT PASSED") };
        writeln!(f, "\n{}: {verdict}", self.paint(colour, word))
    }

    fn paint(self, colour: Colour, text: &str) -> String {
        let code = match colour {
            Colour::Green if self.colours => "32;1",
            Colour::Red if self.colours => "31;1",
            Colour::Green | Colour::Red => return text.to_owned(),
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

const HEADS: &str = "failed       median      p99";

/// Count, client and operation, and the client's words, wrapped.
fn row(kind: &Kind) -> String {
    let mut text = format!("{:>7} {:<11}{:<7}", kind.count, kind.client, kind.operation);
    let mut at = WORDS_AT - 1;
    for word in kind.words.split(' ') {
        let length = word.chars().count();
        if at + 1 + length > WIDTH && at > WORDS_AT {
            // Writing to a string can't fail.
            _ = write!(text, "\n{:<1$}", "", WORDS_AT - 1);
            at = WORDS_AT - 1;
        }
        if at > WORDS_AT - 1 || text.ends_with(|c| c != ' ') {
            text.push(' ');
            at += 1;
        }
        text += word;
        at += length;
    }
    text + "\n"
}

/// A rescue in an operator's words.
fn meaning(reason: &str) -> &'static str {
    match reason {
        "reroute" => "sent to the replica that holds the token's key",
        "resign" => "the same claims, signed with the replica's key",
        "replay" => "the credential that the token was issued for",
        "second_plan" => "planned again after a refusal",
        "clock" => "made valid for a clock that is behind",
        "other_endpoint" => "sent to another replica",
        "own_token" => "tidegate's own token, while core signed none",
        "park" => "waited for a replica to come back",
        "pull_resumed" => "went on where a replica broke it off",
        "push_restarted" => "began anew with all that had been sent",
        _ => "see the documentation of rescues",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rehearsal::{
        load::{Client, Operation},
        stage::Gated,
    };

    fn report() -> Report {
        let part = |failed, median_ms| Part {
            client: Client::Containerd,
            operation: Operation::Push,
            operations: 700,
            failed,
            median_ms,
            p99_ms: median_ms,
        };
        let words = "writing blob: uploading layer chunked: unauthorized: unauthorized to access repository: …, action: push";
        let kind =
            Kind { client: Client::Podman, operation: Operation::Push, words: words.to_owned(), count: 12 };
        let direct = Sum { operations: 700, failed: 700, parts: vec![part(700, None)], failures: vec![kind] };
        let through = Sum { operations: 700, parts: vec![part(0, Some(12.3))], ..Sum::default() };
        let rescues = [("resign".to_owned(), 7), ("reroute".to_owned(), 9)].into();
        Report {
            seed: 1,
            duration_seconds: 30.0,
            upgraded_from: "2.10.2".to_owned(),
            upgraded_to: "2.15.2".to_owned(),
            direct,
            through_tidegate: through,
            tidegate: Gated { rescues, ..Gated::default() },
            passed: true,
            ..Report::default()
        }
    }

    #[test]
    fn lanes_stand_side_by_side_within_eighty_columns() {
        let text = Table { report: &report(), colours: false }.to_string();
        insta::assert_snapshot!(text, @r#"
        Rolling upgrade of Harbor 2.10.2 to 2.15.2 with a new key (seed 1, 30 s)

                            directly                      through tidegate
                            failed       median      p99  failed       median      p99
          containerd push   700 of 700        -        -  0 of 700      12 ms    12 ms
          all               700 of 700                    0 of 700

        Failed directly, in the clients' words
             12 podman     push   writing blob: uploading layer chunked: unauthorized:
                                  unauthorized to access repository: …, action: push

        Failed through tidegate
              0 nothing

        Rescued by tidegate
              9 requests by reroute: sent to the replica that holds the token's key
              7 requests by resign: the same claims, signed with the replica's key

        Passed: 700 of 700 operations failed directly, 0 of 700 through tidegate.
        "#);
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
    }

    #[test]
    fn colours_don_t_move_columns() {
        let plain = Table { report: &report(), colours: false }.to_string();
        let painted = Table { report: &report(), colours: true }.to_string();
        let stripped =
            ["\x1b[32;1m", "\x1b[31;1m", "\x1b[0m"].iter().fold(painted.clone(), |t, c| t.replace(c, ""));
        assert_ne!(painted, plain);
        assert_eq!(stripped, plain);
    }
}
