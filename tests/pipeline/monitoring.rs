//! What Prometheus makes of our metrics, and of the alerts that come with us.

use crate::{
    stage::{DEV, MANIFEST, Setup, Stage, pull},
    support::{
        http, ports,
        process::{self, Program},
        settings, waiting,
    },
    talk::Ask,
};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

const PATIENCE: Duration = Duration::from_secs(30);

fn in_checkout(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(in_checkout(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn promtool(arguments: &[&str]) {
    let program = settings::packaged("promtool");
    let version = process::run(Command::new(&program).arg("--version"), PATIENCE).expect("a version");
    settings::took_part("promtool", version.split_whitespace().nth(2).unwrap_or_default());
    process::run(Command::new(program).args(arguments), PATIENCE)
        .unwrap_or_else(|failure| panic!("{failure}"));
}

/// The names in `text` that start with `tidegate_`, and the words after `reason` and `outcome` in label matchers.
fn named_in(text: &str) -> (BTreeSet<&str>, BTreeSet<&str>) {
    let rules = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    let words = rules.flat_map(|line| line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'));
    let metrics = words.filter(|word| word.starts_with("tidegate_")).collect();
    let matchers = text
        .split(['{', ','])
        .filter(|part| ["reason=", "outcome="].iter().any(|label| part.trim_start().starts_with(label)));
    let values = matchers.filter_map(|part| part.split('"').nth(1)).flat_map(|value| value.split('|'));
    (metrics, values.collect())
}

#[test]
fn every_alert_is_about_metrics_and_reasons_that_there_are() {
    let (alerts, metrics, reasons) =
        (read("deploy/alerts.yaml"), read("docs/metrics.md"), read("docs/reasons.md"));
    let (names, values) = named_in(&alerts);
    assert!(names.len() >= 8 && values.len() >= 4, "{names:?} {values:?}");
    for name in names {
        assert!(metrics.contains(&format!("| `{name}` |")), "{name} is not in docs/metrics.md");
    }
    for value in values {
        assert!(reasons.contains(&format!("| `{value}` |")), "{value} is not in docs/reasons.md");
    }
    promtool(&["check", "rules", &in_checkout("deploy/alerts.yaml").display().to_string()]);
}

/// Each alert against samples that should and should not raise it.
#[test]
fn the_alerts_are_raised_by_what_they_tell_of() {
    promtool(&["test", "rules", &in_checkout("tests/pipeline/alerts.test.yaml").display().to_string()]);
    let (alerts, cases) = (read("deploy/alerts.yaml"), read("tests/pipeline/alerts.test.yaml"));
    for alert in alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        assert!(cases.contains(&format!("alertname: {alert}\n")), "{alert} has no case");
    }
}

#[test]
fn a_prometheus_scrapes_us_and_raises_an_alert_when_core_is_gone() {
    let stage = Stage::new();
    let core = stage.replica("core", |_| {});
    core.seed();
    let gate = Setup::before(&[&core], &[]).without_park().start();
    assert_eq!(pull(MANIFEST).basic(DEV).at(gate.address).status, 200);
    let configuration = stage.path("prometheus.yml");
    let lines = format!(
        "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\n\
         rule_files: [\"{}\"]\n\
         scrape_configs: [{{ job_name: tidegate, static_configs: [{{ targets: [\"{}\"] }}] }}]\n",
        in_checkout("deploy/alerts.yaml").display(),
        gate.admin
    );
    fs::write(&configuration, lines).expect("a file");
    let (address, folder) = (ports::free(), stage.path("prometheus"));
    fs::create_dir(&folder).expect("a folder");
    let mut command = Command::new(settings::packaged("prometheus"));
    command.arg(format!("--config.file={}", configuration.display()));
    command.arg(format!("--storage.tsdb.path={}", folder.display()));
    command.arg(format!("--web.listen-address={address}"));
    let mut prometheus = Program::start(&mut command, &folder, "prometheus");
    prometheus.wait_until(PATIENCE, || {
        http::get(address, "/-/ready", &[]).is_ok_and(|answer| answer.status == 200)
    });
    settings::took_part("prometheus", "");
    let holds = |query: &str| {
        let found = waiting::until(PATIENCE, || (!asked(address, query).is_empty()).then_some(()));
        assert!(found.is_some(), "{query}\n{}", prometheus.tail());
    };
    holds("up{job=\"tidegate\"} == 1");
    holds("sum(tidegate_requests_total{route=\"registry\",status=\"200\"}) > 0");
    holds("tidegate_request_duration_seconds_bucket{route=\"registry\",le=\"+Inf\"} > 0");
    // Before the first scrape one of them waits: that no tidegate is scraped.
    holds("absent(ALERTS)");
    stage.kill(core);
    assert!(pull(MANIFEST).basic(DEV).at(gate.address).status >= 502);
    for alert in ["TidegateNoEndpoint", "TidegateEndpointDown", "TidegateAlarm"] {
        holds(&format!("ALERTS{{alertname=\"{alert}\"}}"));
    }
}

/// The series that a query gives now.
fn asked(prometheus: SocketAddr, query: &str) -> Vec<Value> {
    let mut escaped = String::new();
    for byte in query.bytes() {
        _ = write!(escaped, "%{byte:02X}");
    }
    let answer = Ask::get(&format!("/api/v1/query?query={escaped}")).at(prometheus);
    answer.json()["data"]["result"].as_array().cloned().unwrap_or_default()
}
