//! What a rehearsal found, and whether it shows what it should.

use serde::Serialize;

use super::{load::Sum, stage::Gated};

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
    /// Whether tidegate lost nothing and the direct lane something.
    pub passed: bool,
    /// Through a round robin that knows nothing of keys.
    pub direct: Sum,
    /// The same load through tidegate.
    pub through_tidegate: Sum,
    /// What tidegate counted meanwhile.
    pub tidegate: Gated,
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
}
