//! Every operation of a lane and how it ended.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::Serialize;

use super::client::Client;

/// What a client is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Operation {
    /// docker and podman only: the others' log-in asks nobody.
    Login,
    /// Manifest and blobs, digests checked.
    Pull,
    /// Blobs and manifest, looked at afterwards.
    Push,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Login => "login",
            Self::Pull => "pull",
            Self::Push => "push",
        })
    }
}

/// One operation that has ended.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Whose.
    pub client: Client,
    /// What.
    pub operation: Operation,
    /// How long, without the time that a push was told to hold its token.
    pub took: Duration,
    /// The client's words, where it failed.
    pub failure: Option<String>,
}

/// The entries of one lane.
#[derive(Debug, Default)]
pub struct Ledger(Mutex<Vec<Entry>>);

impl Ledger {
    /// Adds one.
    pub fn note(&self, entry: Entry) {
        self.entries().push(entry);
    }

    /// How many operations have ended, and how many of them failed.
    pub fn counts(&self) -> (usize, usize) {
        let entries = self.entries();
        (entries.len(), entries.iter().filter(|entry| entry.failure.is_some()).count())
    }

    /// The lane's result so far.
    pub fn sum(&self) -> Sum {
        Sum::of(&self.entries())
    }

    fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        // Nobody panics while holding it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A lane's result.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Sum {
    /// How many operations ran.
    pub operations: usize,
    /// How many failed.
    pub failed: usize,
    /// By client and operation.
    pub parts: Vec<Part>,
    /// By client, operation and words, most frequent first.
    pub failures: Vec<Kind>,
}

/// The operations of one kind of one client.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Part {
    pub client: Client,
    pub operation: Operation,
    pub operations: usize,
    pub failed: usize,
    /// Of those that succeeded; `None` where none did.
    pub median_ms: Option<f64>,
    /// The same, 99 of 100 are no slower.
    pub p99_ms: Option<f64>,
}

/// Failures with the same words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Kind {
    pub client: Client,
    pub operation: Operation,
    pub words: String,
    pub count: usize,
}

impl Sum {
    fn of(entries: &[Entry]) -> Self {
        let mut parts: BTreeMap<_, Vec<&Entry>> = BTreeMap::new();
        let mut kinds: BTreeMap<_, usize> = BTreeMap::new();
        for entry in entries {
            parts.entry((entry.client, entry.operation)).or_default().push(entry);
            if let Some(words) = &entry.failure {
                *kinds.entry((entry.client, entry.operation, words)).or_default() += 1;
            }
        }
        let kind = |((client, operation, words), count): ((Client, Operation, &String), usize)| Kind {
            client,
            operation,
            words: words.clone(),
            count,
        };
        let mut failures: Vec<Kind> = kinds.into_iter().map(kind).collect();
        failures.sort_by_key(|kind| std::cmp::Reverse(kind.count));
        Self {
            operations: entries.len(),
            failed: entries.iter().filter(|entry| entry.failure.is_some()).count(),
            parts: parts.into_iter().map(|((client, operation), of)| part(client, operation, &of)).collect(),
            failures,
        }
    }
}

fn part(client: Client, operation: Operation, entries: &[&Entry]) -> Part {
    let mut times: Vec<Duration> =
        entries.iter().filter(|entry| entry.failure.is_none()).map(|entry| entry.took).collect();
    times.sort_unstable();
    Part {
        client,
        operation,
        operations: entries.len(),
        failed: entries.len() - times.len(),
        median_ms: quantile(&times, 50),
        p99_ms: quantile(&times, 99),
    }
}

/// The time that `percent` of all don't pass (nearest rank), in milliseconds with one digit.
fn quantile(sorted: &[Duration], percent: usize) -> Option<f64> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).map(|time| (time.as_secs_f64() * 10_000.0).round() / 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_summed_by_client_operation_and_words() {
        let ledger = Ledger::default();
        let note = |client, millis, failure: Option<&str>| {
            let took = Duration::from_millis(millis);
            let failure = failure.map(str::to_owned);
            ledger.note(Entry { client, operation: Operation::Pull, took, failure });
        };
        note(Client::Crane, 5, Some("once"));
        for (millis, failure) in [(10, None), (30, None), (20, None), (1, Some("no")), (2, Some("no"))] {
            note(Client::Docker, millis, failure);
        }
        assert_eq!(ledger.counts(), (6, 3));
        let sum = ledger.sum();
        let docker = &sum.parts[0];
        assert_eq!((docker.operations, docker.failed), (5, 2));
        assert_eq!((docker.median_ms, docker.p99_ms), (Some(20.0), Some(30.0)));
        assert_eq!((sum.parts[1].median_ms, sum.failures[0].count), (None, 2));
        assert_eq!((sum.failures[0].words.as_str(), sum.failures[1].words.as_str()), ("no", "once"));
    }
}
