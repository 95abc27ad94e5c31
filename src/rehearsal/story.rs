//! What happens to a lane's Harbor while the load runs: the upgrade, and troubles in its midst.

/// One thing that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Core's key file is replaced; a replica of the next version, with the new key, joins.
    Join,
    /// The oldest replica leaves the endpoints, and stops when its last request has ended.
    Leave,
    /// The oldest replica ends in the middle of whatever it does, and is there again 1 to 2 s later (U8).
    Restart,
    /// Core's key file is empty (K9).
    Break,
    /// Core's key file is whole again.
    Mend,
}

/// What may befall Harbor besides the upgrade.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Replicas end without draining, before, between and after the changes of replicas.
    Restarts,
    /// For some seconds no token can be signed.
    BrokenKey,
}

/// The troubles that are played.
pub const PLAYED: &[Trouble] = &[Trouble::Restarts, Trouble::BrokenKey];

/// A step, when it begins, and what a person calls it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scheduled {
    /// Of the load's time, 0 to 1.
    pub share: f64,
    pub step: Step,
    pub name: &'static str,
}

/// Before anything happens.
pub const AT_FIRST: &str = "two replicas, one key";

/// A replica with the new key joins before one with the former leaves, twice.
const UPGRADE: [Scheduled; 4] = [
    at(0.20, Step::Join, "a replica with the new key joins"),
    at(0.35, Step::Leave, "a former replica leaves"),
    at(0.50, Step::Join, "another one with the new key joins"),
    at(0.65, Step::Leave, "upgraded: the new key alone"),
];
const RESTARTS: [Scheduled; 3] = [
    at(0.08, Step::Restart, "a replica stops and starts again"),
    at(0.42, Step::Restart, "the former replica stops and starts"),
    at(0.72, Step::Restart, "a new replica stops and starts again"),
];
const BROKEN_KEY: [Scheduled; 2] =
    [at(0.82, Step::Break, "core's key file is empty"), at(0.92, Step::Mend, "core's key file is mended")];

const fn at(share: f64, step: Step, name: &'static str) -> Scheduled {
    Scheduled { share, step, name }
}

/// The upgrade and these troubles, in order.
pub fn story(troubles: &[Trouble]) -> Vec<Scheduled> {
    let of = |trouble: &Trouble| match trouble {
        Trouble::Restarts => &RESTARTS[..],
        Trouble::BrokenKey => &BROKEN_KEY[..],
    };
    let mut story: Vec<Scheduled> = UPGRADE.iter().chain(troubles.iter().flat_map(of)).copied().collect();
    story.sort_by(|one, other| one.share.total_cmp(&other.share));
    story
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn troubles_stand_between_the_steps_of_the_upgrade() {
        use Step::{Break, Join, Leave, Mend, Restart};
        let steps = |troubles: &[Trouble]| -> Vec<Step> { story(troubles).iter().map(|s| s.step).collect() };
        assert_eq!(steps(&[]), [Join, Leave, Join, Leave]);
        assert_eq!(
            steps(&[Trouble::BrokenKey, Trouble::Restarts]),
            [Restart, Join, Leave, Restart, Join, Leave, Restart, Break, Mend]
        );
        let all = story(&[Trouble::BrokenKey, Trouble::Restarts]);
        // What stands beside the bar, within 80 columns.
        assert!(all.iter().all(|s| s.name.len() <= 37 && s.share < 1.0), "{all:?}");
    }
}
