//! tidegate itself is killed at random moments of a rolling upgrade under load.
//!
//! Between a kill and the next start nobody listens, as beside a container that is restarted: clients connect again
//! until somebody does, which is counted apart. A request on a connection that was open when the process was killed
//! may break. All else has to be answered.

use crate::{
    pullers::{Front, Killed, Pullers, judge},
    rolling::{Chance, Rolling},
    stage::{MANIFEST, pull},
    support::{
        gate::{self, Gate},
        settings,
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// A key that was seen for so long is on the disk.
const WRITTEN: Duration = Duration::from_millis(100);
/// From the start, or from readiness, to the kill at most.
const LIVES: Duration = Duration::from_millis(800);

#[test]
fn a20_no_kill_loses_a_key_or_fails_a_client() {
    let kills = if settings::long() { 200 } else { 15 };
    let mut scene = Scene::begin();
    let (direct, through) =
        (Pullers::begin(&Front::new(&scene.rolling.addresses()), 2), Pullers::begin(&scene.front(), 4));
    let seen = scene.seen.clone();
    // Who upgrades Harbor twice before tidegate has seen the first key has tokens that nobody can know.
    let upgrades = scene.rolling.upgrades(move |kid| seen.is_written(kid, Instant::now()));
    for turn in 0..kills {
        scene.live_and_die(turn);
    }
    scene.gate.becomes_ready();
    drop(upgrades);
    scene.tokens_are_good();
    let Scene { gate, seen, rolling, .. } = &scene;
    let (known, all) = (held(&seen.0).known.len(), rolling.signed().len());
    println!("{kills} kills, {known} of {all} keys seen in time");
    assert!(known > kills / 5, "too few keys were there long enough: {known}");
    judge("tidegate killed", direct, through, &format!("{}\n{}", gate.refusals(), gate.tail()));
}

/// Keys that tidegate has seen.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Sight>>);

#[derive(Default)]
struct Sight {
    /// By the process that runs, and when.
    now: BTreeMap<String, Instant>,
    /// For so long that they may not be lost any more.
    known: BTreeSet<String>,
}

impl Seen {
    fn is_written(&self, kid: &str, at: Instant) -> bool {
        let sight = held(&self.0);
        sight.known.contains(kid) || sight.now.get(kid).is_some_and(|since| at - *since > WRITTEN)
    }

    /// The process died.
    fn died(&self, at: Instant) {
        let mut sight = held(&self.0);
        let now = std::mem::take(&mut sight.now).into_iter();
        sight.known.extend(
            now.filter(|(_, since)| at.saturating_duration_since(*since) > WRITTEN).map(|(kid, _)| kid),
        );
    }
}

fn held<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Scene {
    gate: Gate,
    rolling: Arc<Rolling>,
    killed: Killed,
    chance: Chance,
    log: Tail,
    seen: Seen,
    state: TempDir,
}

impl Scene {
    fn begin() -> Self {
        let rolling = Rolling::begin();
        let state = in_memory();
        let configuration = gate::configuration(&rolling.addresses(), "auto", &rolling.key_files());
        let gate = Gate::start(&format!(
            "{configuration}\n[store]\nurl = \"file:{}\"\n",
            state.path().join("store.redb").display()
        ));
        let seen = Seen::default();
        let log = Tail { path: gate.log_file(), lines: None, part: String::new(), seen: seen.clone() };
        Self { gate, rolling, killed: Killed::default(), chance: Chance::new(), log, seen, state }
    }

    fn front(&self) -> Front {
        Front::of_killed(&[self.gate.address], &self.killed)
    }

    /// From one start to the next one. Every third process is killed while it starts.
    fn live_and_die(&mut self, turn: usize) {
        if !turn.is_multiple_of(3) {
            self.gate.becomes_ready();
            self.tokens_are_good();
        }
        let end = Instant::now() + self.chance.up_to(LIVES);
        while Instant::now() < end {
            self.log.read();
            thread::sleep(Duration::from_millis(2));
        }
        let killed = self.killed.note(|| self.gate.kill());
        // What it wrote last is read now, and counts as seen now: too late to be judged.
        self.log.read();
        self.seen.died(killed);
        self.gate.begin_again();
    }

    /// Core itself takes only tokens of its present key.
    fn tokens_are_good(&self) {
        let known = held(&self.seen.0).known.clone();
        for signed in self.rolling.signed().iter().filter(|signed| known.contains(&signed.kid)) {
            let answer = pull(MANIFEST).bearer(&signed.token).at(self.gate.address);
            assert_eq!(
                answer.status,
                200,
                "{}: {}\n{}",
                signed.kid,
                answer.text(),
                self.told_of(&signed.kid)
            );
        }
        let metrics = self.gate.metrics();
        assert!(metrics.sum("tidegate_store_unopened_records", &[]) < 0.5, "{}", self.gate.tail());
        let files = self.state.path().read_dir().expect("its files").map_while(Result::ok);
        let names: BTreeSet<_> = files.map(|file| file.file_name()).collect();
        assert_eq!(names, ["seal.key", "store.redb"].map(Into::into).into(), "the store opened, each time");
    }
}

impl Scene {
    /// What the log says about a key, and about the last request.
    fn told_of(&self, kid: &str) -> String {
        let output = self.gate.output();
        let of_it = output.lines().filter(|line| line.contains(kid) && !line.contains("tidegate starts"));
        let last = output.lines().rfind(|line| line.contains("\"status\":401"));
        of_it.chain(last).collect::<Vec<_>>().join("\n")
    }
}

/// A folder whose writes no disk holds up: what a kill leaves is the same.
fn in_memory() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("a folder")
}

/// A log, read as it grows.
struct Tail {
    path: PathBuf,
    lines: Option<BufReader<File>>,
    part: String,
    seen: Seen,
}

impl Tail {
    /// Notes the keys that came into use by what was written since the last call.
    fn read(&mut self) {
        let lines = self
            .lines
            .get_or_insert_with(|| BufReader::new(File::open(&self.path).expect("the log is there")));
        // A line may come in parts.
        while lines.read_line(&mut self.part).expect("text") > 0 {
            if !self.part.ends_with('\n') {
                continue;
            }
            let line: serde_json::Value = serde_json::from_str(&self.part).unwrap_or_default();
            self.part.clear();
            if let (Some(kid), Some("signing")) = (line["key.kid"].as_str(), line["key.state"].as_str()) {
                held(&self.seen.0).now.entry(kid.to_owned()).or_insert_with(Instant::now);
            }
        }
    }
}
