//! What a rehearsal found, and whether it shows what it should.

use serde::Serialize;

use super::{
    load::{Client, Sum},
    stage::Gated,
};

/// The result of both lanes. Its JSON is an interface (`docs/rehearsal.md`): fields may be added, none changes its meaning.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// Of the load.
    pub seed: u64,
    /// How long the load was planned to run.
    pub duration_seconds: f64,
    /// Harbor's version before and after the upgrade.
    pub upgraded_from: String,
    pub upgraded_to: String,
    /// The program that made the load; none where the built-in clients did.
    pub client: Option<ByProgram>,
    /// What happened to both lanes' Harbor.
    pub story: Vec<Happened>,
    /// Whether tidegate lost nothing and the direct lane something.
    pub passed: bool,
    /// Through a round robin that knows nothing of keys.
    pub direct: Sum,
    /// The same load through tidegate.
    pub through_tidegate: Sum,
    /// What tidegate counted meanwhile.
    pub tidegate: Gated,
}

/// A real client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ByProgram {
    pub name: Client,
    pub version: String,
}

/// A step of the story.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Happened {
    /// Since the load began, as planned.
    pub at_seconds: f64,
    pub what: &'static str,
}

impl Report {
    /// Judges itself: lanes that did nothing, or not the same, show nothing.
    pub fn judged(mut self) -> Self {
        let (direct, through) = (&self.direct, &self.through_tidegate);
        let same = direct.operations == through.operations && through.operations > 0;
        self.passed = same && through.failed == 0 && direct.failed > 0;
        self
    }
}

/// The result of a load on an operator's Harbor. Its JSON is an interface as [`Report`]'s is.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct AgainstReport {
    /// Of the load.
    pub seed: u64,
    /// How long the load was planned to run.
    pub duration_seconds: f64,
    /// Where the lane that counts came in.
    pub against_url: String,
    /// Where the other one did; none without.
    pub direct_url: Option<String>,
    pub projects: Vec<String>,
    /// Whether the lane that counts did something and lost nothing, and nothing was left behind.
    pub passed: bool,
    /// Whether the load was ended before its time.
    pub interrupted: bool,
    pub against: Sum,
    pub direct: Option<Sum>,
    /// What is still in Harbor.
    pub not_deleted: Vec<Left>,
}

/// A repository that could not be deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Left {
    pub repository: String,
    pub why: String,
}

impl AgainstReport {
    /// Judges itself.
    pub fn judged(mut self) -> Self {
        let lossless = self.against.operations > 0 && self.against.failed == 0;
        self.passed = lossless && !self.interrupted && self.not_deleted.is_empty();
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_passes_only_if_we_lost_nothing_and_the_direct_lane_something() {
        let table = [
            ("tidegate left out: both lose", (100, 9), (100, 9), false),
            ("we lose one", (100, 9), (100, 1), false),
            ("nothing fails directly: nothing is shown", (100, 0), (100, 0), false),
            ("we did less than the other lane", (100, 9), (90, 0), false),
            ("nobody did anything", (0, 0), (0, 0), false),
            ("as it should be", (100, 9), (100, 0), true),
        ];
        for (name, direct, through, passed) in table {
            let sum = |(operations, failed)| Sum { operations, failed, ..Sum::default() };
            let report = Report { direct: sum(direct), through_tidegate: sum(through), ..Report::default() };
            assert_eq!(report.judged().passed, passed, "{name}");
        }
    }

    #[test]
    fn a_load_on_an_operators_harbor_passes_if_it_lost_and_left_nothing() {
        let left = || vec![Left { repository: "p/r".to_owned(), why: "403".to_owned() }];
        let table = [
            ("all well", (9, 0), false, Vec::new(), true),
            ("one lost", (9, 1), false, Vec::new(), false),
            ("nothing done", (0, 0), false, Vec::new(), false),
            ("interrupted", (9, 0), true, Vec::new(), false),
            ("something left", (9, 0), false, left(), false),
        ];
        for (name, (operations, failed), interrupted, not_deleted, passed) in table {
            let against = Sum { operations, failed, ..Sum::default() };
            let report = AgainstReport { interrupted, against, not_deleted, ..AgainstReport::default() };
            assert_eq!(report.judged().passed, passed, "{name}");
        }
    }
}
