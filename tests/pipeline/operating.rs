//! What an operator sees: `check`, `status`, `/metrics`.

use crate::{
    stage::{DEV, MANIFEST, SCOPE, Setup, Stage, hold, pull, token},
    support::{gate::Gate, process, settings},
    talk::Ask,
};
use serde_json::Value;
use std::{
    fs,
    path::Path,
    process::{Command, Output},
    time::Duration,
};

fn tidegate(arguments: &[&str]) -> Output {
    Command::new(settings::tidegate()).args(arguments).output().expect("tidegate runs")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// A gate whose admin listener has a token, in the file that comes with it.
pub fn with_token(stage: &Stage, setup: &Setup) -> (Gate, std::path::PathBuf) {
    started_with_token(stage, setup, Gate::start_by)
}

/// The same where no endpoint answers.
pub fn unready_with_token(stage: &Stage, setup: &Setup) -> (Gate, std::path::PathBuf) {
    started_with_token(stage, setup, Gate::start_unready)
}

fn started_with_token(
    stage: &Stage,
    setup: &Setup,
    start: fn(&[&str], &str) -> Gate,
) -> (Gate, std::path::PathBuf) {
    let file = stage.path("admin-token");
    fs::write(&file, "a token of the operator's").expect("the token file");
    let by_environment = format!("TIDEGATE_ADMIN__TOKEN_FILE={}", file.display());
    (start(&["env", &by_environment], &setup.text()), file)
}

/// The exit code of a command that tells a gate something, and all that it printed.
pub fn tell(gate: &Gate, token: &Path, arguments: &[&str]) -> (i32, String) {
    let (admin, token) = (format!("http://{}", gate.admin), token.display().to_string());
    let output = tidegate(&[arguments, &["--admin", &admin, "--admin-token-file", &token]].concat());
    (output.status.code().unwrap_or(-1), said(&output))
}

/// The same of one that must succeed.
pub fn told(gate: &Gate, token: &Path, arguments: &[&str]) -> String {
    let (code, text) = tell(gate, token, arguments);
    assert_eq!(code, 0, "{arguments:?}\n{text}\n{}", gate.tail());
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    text
}

/// What `tidegate status` prints, at most 80 columns wide.
pub fn screen(gate: &Gate, token: &Path) -> String {
    let shown = ask_status(gate, token, &[]);
    let text = said(&shown);
    let expected = i32::from(text.contains("NOT READY"));
    assert_eq!(shown.status.code(), Some(expected), "scripts see whether it is ready: {text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    text
}

fn ask_status(gate: &Gate, token: &Path, more: &[&str]) -> Output {
    let (admin, token) = (format!("http://{}", gate.admin), token.display().to_string());
    tidegate(&[&["status", "--admin", &admin, "--admin-token-file", &token], more].concat())
}

/// What `/v1/status` says of a gate that [`with_token`] started.
pub fn status(gate: &Gate) -> Value {
    let answer =
        Ask::get("/v1/status").on(&gate.admin.to_string()).bearer("a token of the operator's").at(gate.admin);
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

#[test]
fn check_names_every_fault_at_once_with_place_and_remedy_and_exits_64() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("tidegate.toml");
    let faulty = "mode = \"enforced\"\n\n[upstream]\nendpoints = [{ url = \"core:8080\" }]\nconnect = \"2s\"\n\n\
                  [timeouts]\ndrain = \"5 apples\"\n\n[[listener]]\naddress = \"localhost\"\n";
    fs::write(&file, faulty).expect("the configuration");
    let output = tidegate(&["check", "--config", &file.display().to_string()]);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(64), "{text}");
    for (line, words) in
        [(1, "enforce"), (4, "core:8080"), (5, "connect"), (8, "5 apples"), (11, "localhost")]
    {
        let place = format!("tidegate.toml:{line}");
        assert!(text.contains(&place) && text.contains(words), "{place} {words}\n{text}");
    }
}

#[test]
fn status_fits_eighty_columns_and_is_json_for_scripts() {
    let stage = Stage::new();
    let (core, other) = (stage.replica("core", |_| {}), stage.replica("other", |_| {}));
    core.seed();
    hold(&other.key_file, 1);
    let (gate, secret) =
        with_token(&stage, &Setup::before(&[&core, &other], &[&core.key_file, &other.key_file]));
    let token = token(core.address, DEV, SCOPE);
    for _ in 0..4 {
        assert_eq!(pull(MANIFEST).bearer(&token).at(gate.address).status, 200);
    }
    let text = screen(&gate, &secret);
    for words in
        ["enforce", "ready", &core.address.to_string(), &other.address.to_string(), "signing", "RESCUED"]
    {
        assert!(text.contains(words), "{words}\n{text}");
    }
    let json: Value = serde_json::from_slice(&ask_status(&gate, &secret, &["--json"]).stdout).expect("JSON");
    assert_eq!((json["mode"].as_str(), json["readiness"]["ready"].as_bool()), (Some("enforce"), Some(true)));
    assert_eq!(json["endpoints"].as_array().map(Vec::len), Some(2));
    assert!(json["rescues"]["reroute"].as_u64().is_some_and(|count| count > 0), "{json}");
    let guess = stage.path("guess");
    fs::write(&guess, "another").expect("a file");
    let refused = ask_status(&gate, &guess, &[]);
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
}

#[test]
fn a_core_that_holds_another_key_than_ours_is_an_alarm() {
    let stage = Stage::new();
    let (core, other) = (stage.replica("core", |_| {}), stage.replica("other", |_| {}));
    hold(&other.key_file, 1);
    let (gate, secret) = with_token(&stage, &Setup::before(&[&core], &[&other.key_file]));
    let alarms = status(&gate)["alarms"].to_string();
    assert!(alarms.contains("no private key of ours is it") && alarms.contains("core reads?"), "{alarms}");
    assert!(screen(&gate, &secret).contains("ALARMS"));
    let (keyless, _) = with_token(&stage, &Setup::before(&[&core], &[]));
    assert_eq!(status(&keyless)["alarms"], serde_json::json!([]), "nothing is meant to be signed");
}

#[test]
fn metrics_are_what_prometheus_reads() {
    let stage = Stage::new();
    let core = stage.replica("core", |_| {});
    core.seed();
    let gate = Setup::before(&[&core], &[&core.key_file]).start();
    pull(MANIFEST).bearer("dead").at(gate.address);
    pull(MANIFEST).basic(DEV).at(gate.address);
    let answer = Ask::get("/metrics").on(&gate.admin.to_string()).at(gate.admin);
    let text = answer.text();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').expect("a name and a value");
        assert!(name.starts_with("tidegate_") && value.parse::<f64>().is_ok(), "{line}");
    }
    assert!(gate.metrics().sum("tidegate_requests_total", &[("route", "registry")]) > 1.5, "{text}");
    let file = stage.path("metrics");
    fs::write(&file, classic(&text)).expect("a file");
    let mut promtool = Command::new("sh");
    let program = settings::packaged("promtool");
    promtool.arg("-c").arg(format!("{} check metrics < {}", program.display(), file.display()));
    let said = process::run(&mut promtool, Duration::from_secs(20));
    assert_eq!(said.unwrap_or_else(|failure| panic!("{failure}")), "", "promtool finds nothing to say");
}

/// promtool reads the format before `OpenMetrics`, in which the name of a counter's family has its suffix.
fn classic(text: &str) -> String {
    let counter = |name: &str| text.contains(&format!("# TYPE {name} counter\n"));
    let line = |line: &str| {
        let mut words: Vec<String> = line.splitn(4, ' ').map(str::to_owned).collect();
        if line.starts_with("# ") && words.len() == 4 && counter(&words[2]) {
            words[2].push_str("_total");
        }
        words.join(" ") + "\n"
    };
    text.lines().filter(|line| *line != "# EOF").map(line).collect()
}
