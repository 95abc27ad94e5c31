//! The disk of the embedded store is full, or read-only: all is served, the operator is told, and it recovers by itself.

use crate::{
    stage::{DEV, MANIFEST, Replica, SCOPE, Setup, Stage, hold, kid, pull, token},
    support::{
        gate::Gate,
        harbor::KEY_BITS,
        http,
        process::{self, Program},
        settings, waiting,
    },
};
use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tidegate::rehearsal::harbor::{CoreKey, KeyForm};

const PATIENCE: Duration = Duration::from_secs(20);
/// More than the room that is left in a store's file takes.
const KEYS: usize = 200;

#[test]
fn a_full_disk_stops_nothing_and_what_was_learned_is_kept_when_there_is_room() {
    let scene = Scene::new();
    match Disk::mounted(&scene.stage) {
        Some(disk) => {
            scene.fills(&disk.starter(), |_| disk.fill(), |_| disk.empty(), "No space left on device");
        }
        // Where nothing may be mounted a process that may write no longer files comes nearest.
        None => scene.fills_by_limit(),
    }
}

#[test]
fn a_disk_that_gives_no_room_even_for_the_log_stops_nothing() {
    Scene::new().fills_by_limit();
}

#[test]
fn tidegate_starts_beside_a_store_whose_disk_is_full_and_takes_it_up_when_there_is_room() {
    let scene = Scene::new();
    let degraded = |gate: &Gate| readiness(gate).contains("degraded: store, since 20");
    if let Some(disk) = Disk::mounted(&scene.stage) {
        // Of a file that was large enough already some room is left.
        let goes_on = |gate: &Gate| degraded(gate) || readiness(gate) == "ready\n";
        scene.starts(&disk.starter(), |_| disk.fill(), goes_on, |_| disk.empty());
    }
    let scene = Scene::new();
    let limit_it = scene.stage.path("limit-it");
    let fill = |_: &Gate| fs::write(&limit_it, "").expect("a file");
    let empty = |gate: &Gate| {
        fs::remove_file(&limit_it).expect("it goes");
        limit(gate, "unlimited");
    };
    scene.starts(&limited_if(&limit_it), fill, degraded, empty);
}

/// A file system that the kernel has made read-only after an error of its disk.
#[test]
fn a_disk_that_becomes_read_only_stops_nothing() {
    let scene = Scene::new();
    let Some(disk) = Disk::mounted(&scene.stage) else { return };
    let mut gate = scene.gate(&disk.starter());
    gate.kill();
    disk.remount("ro");
    gate.begin_again();
    gate.becomes_ready();
    scene.serves_degraded(&gate, "Read-only file system");
    disk.remount("rw");
    scene.recovers(&mut gate);
}

/// Whoever opens the file waits: as on a disk, or a server of files, that doesn't answer.
#[test]
fn a_disk_that_hangs_at_the_start_is_not_waited_for() {
    let scene = Scene::new();
    let mut gate = scene.gate(&limited());
    gate.kill();
    hold(&scene.core.key_file, 1);
    let held = Held::of(&scene.stage.path("state/store.redb"));
    let held = held.expect("a lease on a file: F_SETLEASE, and 45 s of lease-break-time");
    let began = Instant::now();
    gate.begin_again();
    waiting::holds("it serves", STARTS, || is_up(&gate));
    waiting::holds("it says how the store is", STARTS, || {
        readiness(&gate).contains("degraded: store, since 20")
    });
    let answer = pull(MANIFEST).bearer(&token(gate.address, DEV, SCOPE)).at(gate.address);
    assert_eq!(answer.status, 200, "{}", gate.tail());
    assert!(began.elapsed() < KERNEL_WAITS, "the kernel waits no longer for who holds the file");
    drop(held);
    scene.recovers(&mut gate);
}

/// How long the kernel lets others wait for who holds a file (`/proc/sys/fs/lease-break-time`).
const KERNEL_WAITS: Duration = Duration::from_secs(45);
/// How long a start may take: less than that, more than the store is waited for.
const STARTS: Duration = Duration::from_secs(35);

fn is_up(gate: &Gate) -> bool {
    http::get(gate.admin, "/readyz", &[]).is_ok_and(|answer| answer.status == 200)
}

/// A process with a lease on a file (fcntl(2), `F_SETLEASE`), which it never gives back: who opens the file for
/// writing is held up by the kernel.
struct Held {
    _holder: Program,
    _log: TempDir,
}

impl Held {
    /// `None` where the file system has no leases, or this kernel waits for another while.
    fn of(path: &Path) -> Option<Self> {
        let waits = fs::read_to_string("/proc/sys/fs/lease-break-time").ok()?;
        if waits.trim() != KERNEL_WAITS.as_secs().to_string() {
            return None;
        }
        let script = "import fcntl, signal, sys, time\n\
                      signal.signal(signal.SIGIO, signal.SIG_IGN)\n\
                      file = open(sys.argv[1], 'rb')\n\
                      fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)\n\
                      print('held', flush=True)\n\
                      time.sleep(3600)\n";
        let log = tempfile::tempdir().expect("a folder");
        let mut command = Command::new("python3");
        let mut holder = Program::start(command.args(["-c", script]).arg(path), log.path(), "lease");
        holder.kill_at_once();
        let is_held = waiting::until(PATIENCE, || {
            let is_held = holder.output().contains("held");
            (is_held || !holder.runs()).then_some(is_held)
        });
        (is_held == Some(true)).then_some(Self { _holder: holder, _log: log })
    }
}

/// What was never there can't be begun: that is a mistake, and told at the start.
#[test]
fn a_store_that_can_not_be_begun_is_no_start() {
    let scene = Scene::new();
    let path = scene.stage.path("tidegate.toml");
    fs::write(&path, scene.setup("/proc/store.redb")).expect("a file");
    let output = Command::new(settings::tidegate()).args(["serve", "--config"]).arg(&path).output();
    let output = output.expect("tidegate runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("/proc/store.redb") && said.contains("whose folder this user can write"), "{said}");
    assert_ne!(output.status.code(), Some(0));
}

struct Scene {
    stage: Stage,
    core: Replica,
    former: String,
}

impl Scene {
    fn new() -> Self {
        let stage = Stage::new();
        let core = stage.replica("core", |_| {});
        core.seed();
        // Of core's own: only by its key can tidegate know it.
        let former = token(core.address, DEV, SCOPE);
        fs::create_dir(stage.path("state")).expect("a folder");
        Self { stage, core, former }
    }

    fn setup(&self, store: &str) -> String {
        Setup::before(&[&self.core], &[&self.core.key_file])
            .rest("[replay]\nenabled = false\n")
            .rest(&format!("[store]\nurl = \"file:{store}\"\n"))
            .text()
    }

    fn gate(&self, starter: &[String]) -> Gate {
        let words: Vec<&str> = starter.iter().map(String::as_str).collect();
        let store = self.stage.path("state/store.redb");
        let gate = Gate::start_by(&words, &self.setup(&store.display().to_string()));
        is_well(&gate);
        gate
    }

    /// Full while it runs.
    fn fills(&self, starter: &[String], fill: impl Fn(&Gate), empty: impl Fn(&Gate), cause: &str) {
        let mut gate = self.gate(starter);
        fill(&gate);
        self.uses_up(&gate);
        self.serves_degraded(&gate, cause);
        empty(&gate);
        self.recovers(&mut gate);
    }

    /// A store's file has some room of its own: core takes new keys until none is left of it.
    fn uses_up(&self, gate: &Gate) {
        for _ in 0..KEYS {
            let key = CoreKey::generate(KEY_BITS).expect("a key");
            key.rename_into(&self.core.key_file, KeyForm::Pkcs1).expect("the key file is replaced");
            let kid = key.kid().to_string();
            gate.wait_for("core's key is known", |metrics| {
                metrics.sum("tidegate_key_state", &[("kid", &kid), ("state", "signing")]) > 0.5
            });
            if readiness(gate).contains("degraded") {
                return;
            }
        }
    }

    fn fills_by_limit(&self) {
        self.fills(&limited(), limit_to_nothing, |gate| limit(gate, "unlimited"), "File too large");
    }

    /// Full when it starts.
    fn starts(
        &self,
        starter: &[String],
        fill: impl Fn(&Gate),
        goes_on: impl Fn(&Gate) -> bool,
        empty: impl Fn(&Gate),
    ) {
        let mut gate = self.gate(starter);
        gate.kill();
        fill(&gate);
        hold(&self.core.key_file, 1);
        gate.begin_again();
        fill(&gate);
        gate.becomes_ready();
        waiting::holds("it goes on, and says how the store is", PATIENCE, || goes_on(&gate));
        let answer = pull(MANIFEST).bearer(&token(gate.address, DEV, SCOPE)).at(gate.address);
        assert_eq!(answer.status, 200, "{}", gate.tail());
        empty(&gate);
        self.recovers(&mut gate);
    }

    /// The key of before verifies, and everybody can see how the store is.
    fn serves_degraded(&self, gate: &Gate, cause: &str) {
        waiting::holds("degraded", PATIENCE, || readiness(gate).contains("degraded: store, since 20"));
        let metrics = gate.metrics();
        assert!(metrics.sum("tidegate_store_degraded_since_seconds", &[]) > 0.0);
        assert!(metrics.sum("tidegate_alarms", &[]) >= 1.0);
        let alarms = || crate::operating::status(gate)["alarms"].to_string();
        assert!(alarms().contains(cause), "{cause}: {}", alarms());
        for token in [&self.former, &token(gate.address, DEV, SCOPE)] {
            let answer = pull(MANIFEST).bearer(token).at(gate.address);
            assert_eq!(answer.status, 200, "{}\n{}", answer.text(), gate.tail());
        }
    }

    /// By itself; and what was learned meanwhile outlives the process.
    fn recovers(&self, gate: &mut Gate) {
        is_well(gate);
        gate.kill();
        hold(&self.core.key_file, 2);
        gate.begin_again();
        gate.becomes_ready();
        let known = |key: usize, state: &str| {
            gate.wait_for(&format!("key {key} is {state}"), |metrics| {
                metrics.sum("tidegate_key_state", &[("kid", &kid(key)), ("state", state)]) > 0.5
            });
        };
        known(0, "verifying");
        known(2, "signing");
        let answer = pull(MANIFEST).bearer(&self.former).at(gate.address);
        assert_eq!(answer.status, 200, "{}\n{}", answer.text(), gate.tail());
    }
}

fn is_well(gate: &Gate) {
    waiting::holds("the store is well", PATIENCE, || {
        let waits = gate.metrics().sum("tidegate_store_waiting_changes", &[]);
        (readiness(gate).as_str(), waits) == ("ready\n", 0.0)
    });
}

fn readiness(gate: &Gate) -> String {
    http::get(gate.admin, "/readyz", &[]).expect("an answer").body
}

/// A small file system of its own.
struct Disk {
    folder: PathBuf,
    enter: Vec<String>,
    holder: Program,
}

impl Disk {
    /// On the stage's folder `state`, for processes in a mount namespace of their own, so that nothing stays behind.
    /// `None` where this user may do so neither as root nor in a user namespace.
    fn mounted(stage: &Stage) -> Option<Self> {
        let folder = stage.path("state");
        [&["--mount"][..], &["--user", "--map-root-user", "--mount"]].into_iter().find_map(|spaces| {
            let mut command = Command::new("unshare");
            let script = "mount -t tmpfs -o size=4m,mode=700 tidegate \"$0\" && exec sleep 3600";
            command.args(spaces).args(["sh", "-c", script]).arg(&folder);
            let mut holder = Program::start(&mut command, &stage.path(""), "disk");
            holder.kill_at_once();
            let place = PathBuf::from(format!("/proc/{}/root{}", holder.id(), folder.display()));
            let is_there = waiting::until(PATIENCE, || {
                let (its, ours) = (device(&place), device(&folder));
                let is_mounted = its.is_some() && its != ours;
                (is_mounted || !holder.runs()).then_some(is_mounted)
            });
            let enter =
                spaces.iter().filter(|space| **space != "--map-root-user").map(|&space| space.to_owned());
            let enter = ["nsenter".to_owned(), format!("--target={}", holder.id())].into_iter().chain(enter);
            let enter = enter.chain(spaces.contains(&"--user").then(|| "--preserve-credentials".to_owned()));
            (is_there == Some(true)).then(|| Self { folder: place, enter: enter.collect(), holder })
        })
    }

    fn starter(&self) -> Vec<String> {
        assert!(self.holder.id() > 0);
        let admin = ["env".to_owned(), "TIDEGATE_ADMIN__TOKEN=a token of the operator's".to_owned()];
        self.enter.iter().cloned().chain(admin).collect()
    }

    /// To the last byte.
    fn fill(&self) {
        let path = self.folder.join("another program's file");
        let mut file = fs::OpenOptions::new().create(true).append(true).open(path).expect("a file");
        for size in [4_096, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
    }

    fn empty(&self) {
        fs::remove_file(self.folder.join("another program's file")).expect("it goes");
    }

    fn remount(&self, how: &str) {
        let folder = self.folder.to_string_lossy();
        let folder = folder.split_once("/root").map_or("", |(_, folder)| folder);
        let mut command = Command::new(&self.enter[0]);
        command.args(&self.enter[1..]).args(["mount", "-o", &format!("remount,bind,{how}"), folder]);
        process::run(&mut command, PATIENCE).expect("it is mounted anew");
    }
}

fn device(path: &Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt as _;
    path.metadata().ok().map(|about| about.dev())
}

/// A process that is told of a file too long, and not ended by it.
fn limited() -> Vec<String> {
    let script = "trap '' XFSZ; exec \"$@\"";
    let admin = "TIDEGATE_ADMIN__TOKEN=a token of the operator's";
    ["sh", "-c", script, "sh", "env", admin].map(str::to_owned).into()
}

/// One that may write nothing to any file from its start on, where this file is there.
fn limited_if(limit_it: &Path) -> Vec<String> {
    let script = format!("if [ -e '{}' ]; then ulimit -S -f 0; fi; {}", limit_it.display(), limited()[2]);
    let mut starter = limited();
    starter[2] = script;
    starter
}

/// No file of its may be written past its first byte.
fn limit_to_nothing(gate: &Gate) {
    limit(gate, "1");
}

fn limit(gate: &Gate, bytes: &str) {
    let mut command = Command::new("prlimit");
    command.args([&format!("--pid={}", gate.id()), &format!("--fsize={bytes}:unlimited")]);
    process::run(&mut command, PATIENCE).expect("its limit is set");
}
