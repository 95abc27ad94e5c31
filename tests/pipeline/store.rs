//! What outlives tidegate: the overlap of keys, and what was retired, through a restart beside a core that has a new key.

use crate::{
    gate_clock::GateClock,
    keys::utc,
    operating::{status, tell, with_token},
    stage::{DEV, MANIFEST, Replica, SCOPE, Setup, Stage, hold, kid, pull, token},
    support::{gate::Gate, http, ports, process::Program, settings, waiting},
    talk::Ask,
    windows::writes,
};
use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::Command,
    thread,
    time::Duration,
};
use tidegate::{decisions::record::seal, words::clock::Clock};

pub const PATIENCE: Duration = Duration::from_secs(20);

/// Nothing rescues a token here but the keys that are known.
fn setup(core: &Replica, store: &str) -> Setup {
    Setup::before(&[core], &[&core.key_file])
        .rest("[replay]\nenabled = false\n")
        .rest("[timeouts]\ndrain_delay = \"0s\"\n")
        .rest(&format!("[store]\nurl = \"{store}\"\n"))
}

pub fn file(stage: &Stage) -> String {
    format!("file:{}", stage.path("state/store.redb").display())
}

pub fn scene() -> (Stage, Replica) {
    let stage = Stage::new();
    let core = stage.replica("core", |_| {});
    core.seed();
    (stage, core)
}

pub fn is_in_state(gate: &Gate, key: usize, state: &str) {
    gate.wait_for(&format!("key {key} is {state}"), |metrics| {
        metrics.sum("tidegate_key_state", &[("kid", &kid(key)), ("state", state)]) > 0.5
    });
}

pub fn is_written(gate: &Gate) {
    gate.wait_for("the store has taken all", |metrics| {
        metrics.sum("tidegate_store_waiting_changes", &[]) == 0.0
    });
}

fn stop(mut gate: Gate) {
    gate.signal("TERM");
    assert_eq!(gate.ends(PATIENCE), Some(0), "{}", gate.tail());
}

pub fn pulled(gate: &Gate, token: &str) -> u16 {
    pulled_at(gate.address, token)
}

fn pulled_at(address: SocketAddr, token: &str) -> u16 {
    pull(MANIFEST).bearer(token).at(address).status
}

/// The first case is the same load without the store: there the token dies with the process.
#[test]
fn a_token_of_a_key_that_no_file_holds_any_more_is_good_after_a_restart() {
    for (with_store, expected) in [(false, 401), (true, 200)] {
        let (stage, core) = scene();
        let store = if with_store { file(&stage) } else { "memory:".to_owned() };
        let gate = setup(&core, &store).start();
        let former = token(gate.address, DEV, SCOPE);
        assert_eq!(pulled(&gate, &former), 200);
        hold(&core.key_file, 1);
        is_in_state(&gate, 0, "verifying");
        stop(gate);
        let gate = setup(&core, &store).start();
        assert_eq!(pulled(&gate, &former), expected, "with a store: {with_store}\n{}", gate.tail());
    }
}

/// A crash, and core's key is replaced while nobody looks.
#[test]
fn a_key_that_was_replaced_while_tidegate_was_dead_is_known_after_it() {
    let (stage, core) = scene();
    let mut gate = setup(&core, &file(&stage)).start();
    let former = token(gate.address, DEV, SCOPE);
    is_written(&gate);
    gate.signal("KILL");
    gate.ends(PATIENCE);
    hold(&core.key_file, 1);
    let gate = setup(&core, &file(&stage)).start();
    is_in_state(&gate, 0, "verifying");
    assert_eq!(pulled(&gate, &former), 200, "{}", gate.tail());
}

/// Beside a core that has had its next key since before tidegate was there again: the first case is the same load
/// without tidegate.
#[test]
fn a8_a_key_that_came_back_with_a_restart_verifies_until_its_window_ends() {
    let stage = Stage::new();
    let core = stage.replica("core", |options| options.token_expiration = Duration::from_mins(1));
    core.seed();
    let clock = GateClock::new(&stage);
    let starter = clock.starter();
    let words: Vec<&str> = starter.iter().map(String::as_str).collect();
    let setup = setup(&core, &file(&stage)).keys("token_lifetime = \"1m\"\nleeway = \"5s\"");
    let mut gate = Gate::start_by(&words, &setup.text());
    is_in_state(&gate, 0, "signing");
    is_written(&gate);
    let former = token(core.address, DEV, SCOPE);
    gate.kill();
    hold(&core.key_file, 1);
    assert_eq!(pulled_at(core.address, &former), 401, "directly");
    gate.begin_again();
    gate.becomes_ready();
    for (seconds, state, status) in [(0, "verifying", 200), (45, "verifying", 200), (75, "retired", 401)] {
        clock.is_ahead(seconds);
        is_in_state(&gate, 0, state);
        assert_eq!(pulled(&gate, &former), status, "{seconds}\n{}", gate.tail());
    }
    // What ended doesn't come back with another restart.
    gate.kill();
    gate.begin_again();
    gate.becomes_ready();
    assert_eq!(pulled(&gate, &former), 401, "{}", gate.tail());
    is_in_state(&gate, 1, "signing");
}

/// Another configuration, while nobody looks.
fn restart_with(gate: &mut Gate, configuration: &str, meanwhile: impl FnOnce()) {
    gate.signal("TERM");
    assert_eq!(gate.ends(PATIENCE), Some(0), "{}", gate.tail());
    meanwhile();
    gate.configure(configuration);
    gate.begin_again();
    gate.becomes_ready();
}

/// In how many seconds a key's window ends.
fn ends_in(gate: &Gate, key: usize) -> Option<u64> {
    let shown = status(gate);
    let mut keys = shown["keys"].as_array().expect("keys").iter();
    keys.find(|shown| shown["kid"] == *kid(key)).and_then(|shown| shown["ends_in_seconds"].as_u64())
}

/// The Secret has changed and core signs with the former key yet, when an operator finds that its tokens live longer
/// than was written. With the lifetime of before the window stays as short.
#[test]
fn a8_a_longer_lifetime_after_a_restart_counts_for_a_key_whose_window_was_open() {
    for (lifetime, ends) in [("1m", 0..66), ("30m", 1_000..1_806)] {
        let (stage, core) = scene();
        let secret = stage.path("secret.pem");
        hold(&secret, 0);
        let text = |lifetime: &str| {
            Setup::before(&[&core], &[&secret])
                .keys(&format!("token_lifetime = \"{lifetime}\"\nleeway = \"5s\""))
                .rest("[replay]\nenabled = false\n[timeouts]\ndrain_delay = \"0s\"\n")
                .rest(&format!("[store]\nurl = \"{}\"\n", file(&stage)))
                .text()
        };
        let mut gate = administered_by(&stage, &text("1m"));
        is_in_state(&gate, 0, "signing");
        let former = token(core.address, DEV, SCOPE);
        hold(&secret, 1);
        is_in_state(&gate, 0, "verifying");
        restart_with(&mut gate, &text(lifetime), || ());
        is_in_state(&gate, 0, "verifying");
        let found = ends_in(&gate, 0).expect("it ends");
        assert!(ends.contains(&found), "{lifetime}: in {found} s\n{}", gate.tail());
        assert_eq!(pulled(&gate, &former), 200, "{lifetime}\n{}", gate.tail());
    }
}

#[test]
fn a9_an_end_that_was_postponed_cuts_no_longer_and_what_was_retired_stays_retired() {
    for (retires, status) in [(false, 200), (true, 401)] {
        let (stage, core) = scene();
        let secret = stage.path("secret.pem");
        hold(&secret, 0);
        let text = |seconds: i64| {
            let until = utc(Clock::system().now().0 + seconds);
            Setup::before(&[&core], &[])
                .source(&format!("{{ file = \"{}\", until = {until} }}", secret.display()))
                .rest("[replay]\nenabled = false\n[timeouts]\ndrain_delay = \"0s\"\n")
                .rest(&format!("[store]\nurl = \"{}\"\n", file(&stage)))
                .text()
        };
        let mut gate = administered_by(&stage, &text(300));
        is_in_state(&gate, 0, "signing");
        let former = token(core.address, DEV, SCOPE);
        is_written(&gate);
        if retires {
            assert_eq!(retire(&gate, 0), 200);
        }
        restart_with(&mut gate, &text(7_200), || hold(&secret, 1));
        let ends = ends_in(&gate, 0);
        assert_eq!(ends.is_some_and(|end| end > 600), !retires, "{ends:?}\n{}", gate.tail());
        assert_eq!(pulled(&gate, &former), status, "retired: {retires}\n{}", gate.tail());
    }
}

/// The Secret has changed, but the core beside us still holds the former key; tokens come from a replica that holds the
/// next one. Nothing but the former key's private half makes them good here.
fn sidecar(stage: &Stage, core: &Replica, keep_private: bool) -> Gate {
    Setup::before(&[core], &[&stage.path("secret.pem")])
        .keys(&format!("keep_private = {keep_private}"))
        .rest("[replay]\nenabled = false\n")
        .rest("[timeouts]\ndrain_delay = \"0s\"\n")
        .rest(&format!("[store]\nurl = \"{}\"\n", file(stage)))
        .start()
}

#[test]
fn a_sidecar_that_restarts_after_the_secret_changed_signs_for_a_core_that_holds_the_former_key() {
    for (keep_private, expected) in [(false, 401), (true, 200)] {
        let (stage, core) = scene();
        let other = stage.replica("other", |_| {});
        hold(&other.key_file, 1);
        let secret = stage.path("secret.pem");
        hold(&secret, 0);
        let mut gate = sidecar(&stage, &core, keep_private);
        is_written(&gate);
        gate.signal("KILL");
        gate.ends(PATIENCE);
        hold(&secret, 1);
        let token = token(other.address, DEV, SCOPE);
        assert_eq!(pulled_at(core.address, &token), 401, "directly");
        let gate = sidecar(&stage, &core, keep_private);
        is_in_state(&gate, 0, "verifying");
        assert_eq!(pulled(&gate, &token), expected, "kept: {keep_private}\n{}", gate.tail());
        stop(gate);
        let gate = sidecar(&stage, &core, keep_private);
        assert_eq!(pulled(&gate, &token), expected, "once more, kept: {keep_private}\n{}", gate.tail());
        is_written(&gate);
        stop(gate);
        // Whoever turns it off has them removed.
        let gate = sidecar(&stage, &core, false);
        assert_eq!(pulled(&gate, &token), 401, "{}", gate.tail());
        is_written(&gate);
        stop(gate);
        let gate = sidecar(&stage, &core, true);
        assert_eq!(pulled(&gate, &token), 401, "{}", gate.tail());
    }
}

/// Whoever kept it is gone by then.
#[test]
fn a9_the_private_half_of_a_key_retired_at_once_goes_with_it() {
    let (stage, core) = scene();
    let address = ports::free();
    let _server = redis(&stage, address);
    let setup = |keeps: bool| shared(&stage, &core, address).keys(&format!("keep_private = {keeps}"));
    let (gate, secret) = with_token(&stage, &setup(false));
    let mut keeper = setup(true).start();
    is_written(&keeper);
    let halves = || said_to(address, "HLEN tidegate:harbor:private");
    // Beside records a hash has a field for itself.
    assert!(halves().starts_with(":2\r\n"), "{}", halves());
    keeper.signal("KILL");
    keeper.ends(PATIENCE);
    hold(&core.key_file, 1);
    is_in_state(&gate, 0, "verifying");
    // One that was killed is waited for, for a while.
    waiting::holds("it is retired", Duration::from_secs(40), || {
        tell(&gate, &secret, &["keys", "retire", &kid(0), "--now"]).0 == 0
    });
    assert!(!gate.output().contains("put back"), "its own writes: {}", gate.tail());
    let is_gone = waiting::until(PATIENCE, || halves().starts_with(":1\r\n").then_some(()));
    assert!(is_gone.is_some(), "{}\n{}", said_to(address, "HKEYS tidegate:harbor:private"), gate.tail());
}

#[test]
fn a9_a_key_retired_at_once_stays_retired_after_a_restart_though_its_file_is_there() {
    let (stage, core) = scene();
    let mut gate = administered(&stage, &core);
    let token = token(gate.address, DEV, SCOPE);
    assert_eq!(pulled(&gate, &token), 200);
    // Killed right after the answer, which says that it is done (A20).
    assert_eq!(retire(&gate, 0), 200);
    gate.signal("KILL");
    gate.ends(PATIENCE);
    let gate = administered(&stage, &core);
    is_in_state(&gate, 0, "retired");
    assert_eq!(pulled(&gate, &token), 401, "{}", gate.tail());
    let alarms = status(&gate)["alarms"].to_string();
    assert!(alarms.contains("which is retired here"), "core still holds it, and that is told: {alarms}");
}

const OPERATOR: &str = "a token of the operator's";

/// A process whose operator has a token.
fn administered(stage: &Stage, core: &Replica) -> Gate {
    administered_by(stage, &setup(core, &file(stage)).text())
}

fn administered_by(stage: &Stage, configuration: &str) -> Gate {
    let admin = stage.path("admin-token");
    fs::write(&admin, OPERATOR).expect("the token file");
    let variable = format!("TIDEGATE_ADMIN__TOKEN_FILE={}", admin.display());
    Gate::start_by(&["env", &variable], configuration)
}

fn retire(gate: &Gate, key: usize) -> u16 {
    let path = format!("/v1/keys/{}/retire", kid(key).replace(':', "%3A"));
    Ask::new("POST", &path).on(&gate.admin.to_string()).body("").bearer(OPERATOR).at(gate.admin).status
}

/// What `serve` says before it ends by itself, which it does with an error.
fn refused(stage: &Stage, text: &str) -> String {
    let configuration = stage.path("refused.toml");
    fs::write(&configuration, text).expect("a file");
    let output = Command::new(settings::tidegate())
        .args(["serve", "--config"])
        .arg(&configuration)
        .output()
        .expect("tidegate runs");
    assert_ne!(output.status.code(), Some(0));
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

#[test]
fn a20_no_sealing_key_is_made_beside_records_that_another_one_sealed() {
    let (stage, core) = scene();
    let gate = setup(&core, &file(&stage)).start();
    is_in_state(&gate, 0, "signing");
    is_written(&gate);
    stop(gate);
    let key = stage.path("state/seal.key");
    let kept = fs::read(&key).expect("the sealing key");
    fs::remove_file(&key).expect("it goes");
    let text = setup(&core, &file(&stage)).text();
    let said = refused(&stage, &format!("{text}\n[[listener]]\naddress = \"127.0.0.1:0\"\n"));
    assert!(said.contains("seal.key") && said.contains("put it back from its back-up"), "{said}");
    assert!(!key.exists());
    fs::write(&key, kept).expect("it is put back");
    let gate = setup(&core, &file(&stage)).start();
    assert!(gate.metrics().sum("tidegate_store_unopened_records", &[]) < 0.5, "{}", gate.tail());
}

#[test]
fn a20_a_key_whose_retirement_doesnt_open_isnt_trusted_and_can_be_retired_again() {
    let (stage, core) = scene();
    let gate = administered(&stage, &core);
    let token = token(gate.address, DEV, SCOPE);
    assert_eq!(retire(&gate, 0), 200);
    is_written(&gate);
    stop(gate);
    // Another one in its place: a restored back-up of the wrong machine.
    let (key, other) = (stage.path("state/seal.key"), seal::written(&[9; seal::KEY]));
    let kept = fs::read(&key).expect("the sealing key");
    fs::write(&key, other.as_bytes()).expect("another one");
    let gate = administered(&stage, &core);
    is_in_state(&gate, 0, "announced");
    assert_eq!(pulled(&gate, &token), 401, "{}", gate.tail());
    let alarms = status(&gate)["alarms"].to_string();
    assert!(alarms.contains("may say what was retired at once"), "{alarms}");
    assert_eq!(retire(&gate, 0), 200);
    is_written(&gate);
    stop(gate);
    let gate = administered(&stage, &core);
    is_in_state(&gate, 0, "retired");
    stop(gate);
    fs::write(&key, kept).expect("it is put back");
    let gate = administered(&stage, &core);
    is_in_state(&gate, 0, "retired");
    assert_eq!(pulled(&gate, &token), 401, "{}", gate.tail());
}

#[test]
fn a20_until_an_operator_has_seen_to_a_torn_store_only_held_keys_verify() {
    let (stage, core) = scene();
    let (path, listed) = (stage.path("state/store.redb"), stage.path("listed.pem"));
    hold(&listed, 1);
    let entry = format!("{{ file = \"{}\", state = \"verifying\" }}", listed.display());
    let start = || setup(&core, &file(&stage)).source(&entry).start();
    stop(start());
    fs::write(&path, b"another program's file ".repeat(1_000)).expect("it is torn");
    for _ in 0..2 {
        let gate = start();
        assert_eq!(pulled(&gate, &token(gate.address, DEV, SCOPE)), 200, "{}", gate.tail());
        is_in_state(&gate, 0, "signing");
        is_in_state(&gate, 1, "announced");
        let alarms = gate.alarms(&path).concat();
        assert!(alarms.contains("what was retired at once is known no more"), "{alarms}");
        stop(gate);
    }
    set_aside_is_removed(&path);
    is_in_state(&start(), 1, "verifying");
}

/// Neither those of another name nor those of none: whose they are nobody can tell.
#[test]
fn a10_records_under_another_name_of_the_deployment_are_told_of_and_not_taken_over() {
    let (stage, core) = scene();
    let path = stage.path("state/store.redb");
    let are_told_of = |gate: &Gate, name: &str| {
        let alarms = gate.alarms(&path).concat();
        let whose = format!("records of deployment = \\\"{name}\\\", which count for nothing here");
        assert!(alarms.contains(&whose), "{alarms}");
    };
    let gate = administered(&stage, &core);
    assert_eq!(retire(&gate, 0), 200);
    is_written(&gate);
    stop(gate);
    // The second time beside records of its own.
    for _ in 0..2 {
        let gate = setup(&core, &file(&stage)).top("deployment = \"harbor\"").start();
        are_told_of(&gate, "");
        is_in_state(&gate, 0, "signing");
        assert_eq!(pulled(&gate, &token(gate.address, DEV, SCOPE)), 200, "{}", gate.tail());
        is_written(&gate);
        stop(gate);
    }
    let gate = administered(&stage, &core);
    is_in_state(&gate, 0, "retired");
    are_told_of(&gate, "harbor");
}

#[test]
fn a_second_process_on_the_same_file_says_so_and_the_first_one_serves_on() {
    let (stage, core) = scene();
    let gate = setup(&core, &file(&stage)).start();
    let configuration = stage.path("second.toml");
    let text = setup(&core, &file(&stage)).text();
    fs::write(&configuration, format!("{text}\n[[listener]]\naddress = \"127.0.0.1:0\"\n")).expect("a file");
    let output = Command::new(settings::tidegate())
        .args(["serve", "--config"])
        .arg(&configuration)
        .output()
        .expect("tidegate runs");
    let said =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("store.redb is open in another process; one tidegate has one file"), "{said}");
    assert_ne!(output.status.code(), Some(0));
    assert_eq!(pulled(&gate, &token(gate.address, DEV, SCOPE)), 200);
}

#[test]
fn a_file_that_is_no_whole_store_is_set_aside_and_serving_goes_on() {
    let (stage, core) = scene();
    let path = stage.path("state/store.redb");
    stop(setup(&core, &file(&stage)).start());
    let whole = fs::read(&path).expect("the store");
    let torn = [whole[..whole.len() / 2].to_vec(), b"another program's file ".repeat(1_000), vec![0; 4_096]];
    for (count, bytes) in torn.into_iter().enumerate() {
        fs::write(&path, &bytes).expect("it is torn");
        let gate = setup(&core, &file(&stage)).start();
        assert_eq!(pulled(&gate, &token(gate.address, DEV, SCOPE)), 200, "{}", gate.tail());
        let named = waiting::until(PATIENCE, || (!gate.alarms(&path).is_empty()).then_some(()));
        assert!(named.is_some(), "it is named: {}", gate.tail());
        let kept = set_aside(&path);
        assert_eq!(kept.len(), 1, "{count}: what was there is kept");
        // Of a file of its own redb mends the head before it finds out.
        assert!(count == 0 || kept[0] == bytes, "{count}: as it was");
        stop(gate);
        set_aside_is_removed(&path);
    }
}

fn aside(path: &Path) -> Vec<std::path::PathBuf> {
    let folder = fs::read_dir(path.parent().expect("a folder")).expect("its files").map_while(Result::ok);
    folder.map(|entry| entry.path()).filter(|path| path.to_string_lossy().contains("set-aside")).collect()
}

fn set_aside(path: &Path) -> Vec<Vec<u8>> {
    aside(path).into_iter().map(|path| fs::read(path).expect("it is there")).collect()
}

fn set_aside_is_removed(path: &Path) {
    for path in aside(path) {
        fs::remove_file(path).expect("it goes");
    }
}

/// A Redis in memory; killed when dropped.
pub fn redis(stage: &Stage, address: SocketAddr) -> Program {
    let port = address.port().to_string();
    let mut command = Command::new(settings::packaged("redis-server"));
    command.args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"]);
    let mut program = Program::start(command.arg(stage.path("")), &stage.path(""), "redis");
    program.kill_at_once();
    program.wait_until(PATIENCE, || TcpStream::connect(address).is_ok());
    program
}

/// A replica with a store at that server.
pub fn shared(stage: &Stage, core: &Replica, server: SocketAddr) -> Setup {
    let key = stage.path("seal.key");
    fs::write(&key, seal::written(&[7; seal::KEY]).as_bytes()).expect("the sealing key");
    Setup::before(&[core], &[&core.key_file])
        .top("deployment = \"harbor\"")
        .rest("[replay]\nenabled = false\n")
        .rest(&format!("[store]\nurl = \"redis://{server}\"\nseal_key_files = [\"{}\"]\n", key.display()))
}

fn readiness(gate: &Gate) -> String {
    http::get(gate.admin, "/readyz", &[]).expect("an answer").body
}

#[test]
fn while_the_store_is_gone_all_is_served_and_readiness_says_degraded() {
    let (stage, core) = scene();
    let address = ports::free();
    let server = redis(&stage, address);
    let gate = shared(&stage, &core, address).start();
    let token = token(gate.address, DEV, SCOPE);
    assert_eq!((pulled(&gate, &token), readiness(&gate).as_str()), (200, "ready\n"));
    drop(server);
    waiting::holds("degraded", PATIENCE, || readiness(&gate).contains("degraded: store, since 20"));
    assert!(gate.metrics().sum("tidegate_store_degraded_since_seconds", &[]) > 0.0);
    assert!(gate.metrics().sum("tidegate_alarms", &[]) >= 1.0);
    hold(&core.key_file, 1);
    is_in_state(&gate, 0, "verifying");
    assert_eq!(pulled(&gate, &token), 200, "{}", gate.tail());
    let _server = redis(&stage, address);
    waiting::holds("well again", PATIENCE, || readiness(&gate) == "ready\n");
    is_written(&gate);
    // What was learned meanwhile is there for whoever comes next.
    let next = shared(&stage, &core, address).start();
    assert_eq!(pulled(&next, &token), 200, "{}", next.tail());
}

/// That reads are answered says nothing of writes: readiness doesn't come and go with each of them.
#[test]
fn a_server_that_takes_reads_and_no_writes_is_one_fault_until_it_takes_them_again() {
    let (stage, core) = scene();
    let address = ports::free();
    let _server = redis(&stage, address);
    let gate = shared(&stage, &core, address).start();
    is_written(&gate);
    said_to(address, "CONFIG SET maxmemory 1");
    waiting::holds("degraded", PATIENCE, || readiness(&gate).contains("degraded: store, since 20"));
    let (since, refused, read) = (readiness(&gate), counted(address, "errorstat_OOM:count="), reads(address));
    let mut flapped = Vec::new();
    waiting::holds("writes are tried and reads succeed", PATIENCE, || {
        let now = readiness(&gate);
        flapped.extend((now != since).then_some(now));
        counted(address, "errorstat_OOM:count=") >= refused + 8 && reads(address) >= read + 8
    });
    assert_eq!(flapped, [""; 0], "{since}\n{}", gate.tail());
    let told = |gate: &Gate| gate.output().matches("the store is back").count();
    assert_eq!(told(&gate), 0, "{}", gate.tail());
    said_to(address, "CONFIG SET maxmemory 0");
    waiting::holds("well again", PATIENCE, || readiness(&gate) == "ready\n");
    assert_eq!(told(&gate), 1, "{}", gate.tail());
}

/// Scans that the server has answered.
fn reads(server: SocketAddr) -> u64 {
    counted(server, "cmdstat_hscan:calls=")
}

/// A number of the server's own counters.
fn counted(server: SocketAddr, name: &str) -> u64 {
    let all = said_to(server, "INFO everything");
    let number = all.split_once(name).map_or("0", |(_, rest)| rest);
    let digits: String = number.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().expect("a number")
}

/// A command for the server, and what it says.
fn said_to(server: SocketAddr, command: &str) -> String {
    let mut line = TcpStream::connect(server).expect("a connection");
    write!(line, "{command}\r\nQUIT\r\n").expect("it is said");
    let mut answer = String::new();
    line.read_to_string(&mut answer).expect("an answer");
    assert!(!answer.starts_with('-'), "{answer}");
    answer
}

#[test]
fn what_one_replica_knows_the_other_one_does_within_a_second() {
    let (stage, core) = scene();
    let other = stage.replica("other", |_| {});
    hold(&other.key_file, 1);
    let address = ports::free();
    let _server = redis(&stage, address);
    let (one, two) = (shared(&stage, &core, address).start(), shared(&stage, &other, address).start());
    is_in_state(&two, 1, "signing");
    is_in_state(&two, 0, "verifying");
    is_in_state(&one, 1, "verifying");
    let token = token(one.address, DEV, SCOPE);
    assert_eq!(pulled(&two, &token), 200, "{}", two.tail());
    hold(&core.key_file, 2);
    is_in_state(&one, 2, "signing");
    let seen = waiting::until(Duration::from_secs(2), || {
        let labels = [("kid", &*kid(2)), ("state", "verifying")];
        (two.metrics().sum("tidegate_key_state", &labels) > 0.5).then_some(())
    });
    assert!(seen.is_some(), "{}", two.tail());
}

/// Their views differ for good, and neither writes over the other's.
#[test]
fn replicas_whose_keys_differ_leave_each_others_records_alone() {
    let (stage, core) = scene();
    let other = stage.replica("other", |_| {});
    hold(&other.key_file, 1);
    let address = ports::free();
    let _server = redis(&stage, address);
    let (one, two) = (shared(&stage, &core, address).start(), shared(&stage, &other, address).start());
    is_in_state(&one, 1, "verifying");
    is_in_state(&two, 0, "verifying");
    is_quiet(address);
    assert!(writes(address) <= 8, "{} writes of two keys", writes(address));
    // What signs for one of them signs: a token of this second is good.
    for (core, gate) in [(&core, &two), (&other, &one)] {
        assert_eq!(pulled(gate, &token(core.address, DEV, SCOPE)), 200, "{}", gate.tail());
    }
}

/// One of them lets no key verify that isn't listed, and forgets nothing that another one needs.
#[test]
fn a_replica_with_other_rules_leaves_the_records_of_others_alone() {
    let (stage, core) = scene();
    let address = ports::free();
    let _server = redis(&stage, address);
    let one = shared(&stage, &core, address).start();
    let former = token(one.address, DEV, SCOPE);
    hold(&core.key_file, 1);
    is_in_state(&one, 0, "verifying");
    is_written(&one);
    let strict = shared(&stage, &core, address).keys("overlap = \"listed\"").start();
    assert_eq!(pulled(&strict, &former), 401, "by its rules");
    is_quiet(address);
    stop(one);
    let next = shared(&stage, &core, address).start();
    assert_eq!(pulled(&next, &former), 200, "{}", next.tail());
}

/// Nobody writes a key's record for a second and a half, in which each replica looks for changes three times.
fn is_quiet(address: SocketAddr) {
    waiting::holds("all is written", PATIENCE, || {
        let before = writes(address);
        std::thread::sleep(Duration::from_millis(1_500));
        writes(address) == before && before > 0
    });
}

#[test]
fn a20_without_the_store_at_the_start_only_held_keys_verify() {
    let (stage, core) = scene();
    let listed = stage.path("listed.pem");
    hold(&listed, 1);
    let address = ports::free();
    let entry = format!("{{ file = \"{}\", state = \"verifying\" }}", listed.display());
    let gate = shared(&stage, &core, address).source(&entry).start();
    assert_eq!(pulled(&gate, &token(gate.address, DEV, SCOPE)), 200, "{}", gate.tail());
    is_in_state(&gate, 0, "signing");
    is_in_state(&gate, 1, "announced");
    let _server = redis(&stage, address);
    is_in_state(&gate, 1, "verifying");
}

/// As when Redis restarts, or Sentinel chooses, while a replica starts.
#[test]
fn a_store_that_is_soon_back_is_read_before_serving_begins() {
    let (stage, core) = scene();
    let listed = stage.path("listed.pem");
    hold(&listed, 1);
    let entry = format!("{{ file = \"{}\", state = \"verifying\" }}", listed.display());
    let away = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = away.local_addr().expect("its address");
    let gate = shared(&stage, &core, address).source(&entry);
    let (gate, _server) = thread::scope(|scope| {
        let starts = scope.spawn(|| gate.start());
        // It was asked, and broke off.
        drop(away.accept().expect("the start asks the store"));
        drop(away);
        let server = redis(&stage, address);
        (starts.join().expect("it starts"), server)
    });
    assert!(!gate.output().contains("not everything that was retired is known"), "{}", gate.tail());
    let verifies = gate.metrics().sum("tidegate_key_state", &[("kid", &kid(1)), ("state", "verifying")]);
    assert!(verifies > 0.5, "{}", gate.tail());
}

#[test]
fn a_shared_store_without_a_sealing_key_says_how_to_make_one() {
    let (stage, core) = scene();
    let configuration = stage.path("tidegate.toml");
    let text = shared(&stage, &core, ports::free()).text();
    fs::write(&configuration, text).expect("a file");
    fs::remove_file(stage.path("seal.key")).expect("it goes");
    let output = Command::new(settings::tidegate())
        .args(["serve", "--config"])
        .arg(&configuration)
        .output()
        .expect("tidegate runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("seal.key") && said.contains("openssl rand -base64 32"), "{said}");
    assert_ne!(output.status.code(), Some(0));
}
