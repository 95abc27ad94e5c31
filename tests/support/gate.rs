//! tidegate itself, as an operator starts it: the binary, a configuration file, its admin listener.

use super::{
    http, ports,
    process::{self, Program},
    settings, waiting,
};
use std::{
    ffi::OsString,
    fs,
    io::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};
use tempfile::TempDir;

/// How long tidegate may take to be ready, or to take up a new configuration.
const PATIENCE: Duration = Duration::from_secs(20);
/// Of its log.
const NAME: &str = "tidegate";

/// A running `tidegate serve`.
#[derive(Debug)]
pub struct Gate {
    /// Where clients reach it.
    pub address: SocketAddr,
    /// Its admin listener.
    pub admin: SocketAddr,
    program: Program,
    /// Program and arguments of whatever becomes tidegate.
    words: Vec<OsString>,
    configuration: PathBuf,
    folder: TempDir,
}

impl Gate {
    /// Starts tidegate with this configuration, to which a listener and an admin address on free ports are added,
    /// and waits for `/readyz`.
    pub fn start(configuration: &str) -> Self {
        Self::start_by(&[], configuration)
    }

    /// The same, started by a command that becomes tidegate (`setpriv …`).
    pub fn start_by(starter: &[&str], configuration: &str) -> Self {
        Self::start_until("/readyz", starter, configuration)
    }

    /// Starts it where no endpoint answers: waits for `/healthz` alone.
    pub fn start_unready(starter: &[&str], configuration: &str) -> Self {
        Self::start_until("/healthz", starter, configuration)
    }

    fn start_until(page: &str, starter: &[&str], configuration: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (address, admin) = (ports::free(), ports::free());
        let path = folder.path().join("tidegate.toml");
        fs::write(&path, whole(configuration, address, admin)).expect("the configuration is written");
        let binary = settings::tidegate();
        let version = process::run(Command::new(&binary).arg("--version"), PATIENCE)
            .expect("tidegate tells its version");
        settings::took_part("tidegate", version.split_whitespace().last().unwrap_or_default());
        let mut words: Vec<OsString> = starter.iter().map(OsString::from).collect();
        words.extend([binary.into(), "serve".into(), "--config".into(), path.clone().into()]);
        let mut program = begun(&words, &folder);
        program.wait_until(PATIENCE, || is_there(admin, page));
        program.kill_at_once();
        Self { address, admin, program, words, configuration: path, folder }
    }

    /// Ends it as a crash does, and returns when it is gone.
    pub fn kill(&mut self) {
        self.program.signal("KILL");
        waiting::holds("tidegate is gone", PATIENCE, || !self.program.runs());
    }

    /// Starts it anew, once it has ended, on its addresses and with its configuration, and doesn't wait.
    pub fn begin_again(&mut self) {
        assert!(!self.program.runs(), "it runs");
        self.program = begun(&self.words, &self.folder);
        self.program.kill_at_once();
    }

    /// Waits until it serves.
    pub fn becomes_ready(&mut self) {
        let admin = self.admin;
        self.program.wait_until(PATIENCE, || is_there(admin, "/readyz"));
    }

    /// Where it writes its log.
    pub fn log_file(&self) -> PathBuf {
        self.folder.path().join(format!("{NAME}.log"))
    }

    /// Writes another configuration and sends SIGHUP; returns when `taken_up` holds.
    ///
    /// # Panics
    /// When that takes too long, with the log.
    pub fn reload(&self, configuration: &str, taken_up: impl Fn(&Metrics) -> bool) {
        self.configure(configuration);
        self.program.signal("HUP");
        self.wait_for("the configuration is taken up", taken_up);
    }

    /// Writes another configuration and does nothing more.
    pub fn configure(&self, configuration: &str) {
        let beside = self.folder.path().join("tidegate.toml.next");
        fs::write(&beside, whole(configuration, self.address, self.admin))
            .expect("the configuration is written");
        fs::rename(beside, &self.configuration).expect("the configuration is replaced");
    }

    /// Writes another configuration over the running one in place, with a pause after each line, as a slow
    /// copy does.
    pub fn copy_over(&self, configuration: &str, pause: Duration) {
        let mut file = fs::File::create(&self.configuration).expect("the configuration is emptied");
        for line in whole(configuration, self.address, self.admin).split_inclusive('\n') {
            file.write_all(line.as_bytes()).expect("the configuration is written");
            std::thread::sleep(pause);
        }
    }

    /// Empties the configuration's file.
    pub fn empty_configuration(&self) {
        fs::write(&self.configuration, "").expect("the configuration is emptied");
    }

    /// Waits until the metrics say so.
    ///
    /// # Panics
    /// When that takes too long, with the log.
    pub fn wait_for(&self, what: &str, condition: impl Fn(&Metrics) -> bool) {
        let found = waiting::until(PATIENCE, || condition(&self.metrics()).then_some(()));
        assert!(found.is_some(), "not within {PATIENCE:?}: {what}\n{}", self.program.tail());
    }

    /// What `/metrics` says now.
    pub fn metrics(&self) -> Metrics {
        Metrics::parse(&http::get(self.admin, "/metrics", &[]).expect("metrics are served").body)
    }

    /// The access log: one value a request, once its line is written.
    pub fn log(&self) -> Vec<serde_json::Value> {
        self.events().into_iter().filter(|line| line.get("outcome").is_some()).collect()
    }

    /// Access-log lines of refusals that a client with a proved credential got, and of failures of Harbor's.
    pub fn refusals(&self) -> String {
        let refused = |line: &serde_json::Value| {
            let status = line["status"].as_u64().unwrap_or_default();
            status >= 500 || status == 401 && line["principal"].as_str().is_some_and(|name| !name.is_empty())
        };
        let lines = self.log().into_iter().filter(refused).map(|line| line.to_string());
        lines.collect::<Vec<_>>().join("\n")
    }

    /// Every line of its output that is JSON: the access log, events and alarms.
    pub fn events(&self) -> Vec<serde_json::Value> {
        self.program.output().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Events other than requests that name this file: what an operator is told about it.
    pub fn alarms(&self, file: &Path) -> Vec<String> {
        let file = file.to_string_lossy().into_owned();
        let events = self.events().into_iter().filter(|line| line.get("outcome").is_none());
        events.map(|line| line.to_string()).filter(|line| line.contains(&file)).collect()
    }

    /// Sends the signal of that name (`TERM`, `HUP`).
    pub fn signal(&self, name: &str) {
        self.program.signal(name);
    }

    /// Where it speaks HTTP/2 by prior knowledge, if its configuration has an [`http2_listener`].
    pub fn http2(&self) -> Option<SocketAddr> {
        let text = fs::read_to_string(&self.configuration).expect("the configuration is read");
        let parsed: toml::Table = text.parse().expect("a configuration in TOML");
        let mut listeners = parsed.get("listener")?.as_array()?.iter();
        let speaks =
            |listener: &&toml::Value| listener.get("http2").and_then(toml::Value::as_bool) == Some(true);
        listeners.find(speaks)?.get("address")?.as_str()?.parse().ok()
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.program.id()
    }

    /// All that it wrote so far.
    pub fn output(&self) -> String {
        self.program.output()
    }

    /// Waits for its end; its exit status.
    pub fn ends(&mut self, deadline: Duration) -> Option<i32> {
        self.program.ends(deadline)
    }

    /// The end of all that it wrote, for a failing test to show.
    pub fn tail(&self) -> String {
        self.program.tail()
    }
}

/// Metrics in the text exposition format.
#[derive(Clone, Debug, Default)]
pub struct Metrics(Vec<Sample>);

#[derive(Clone, Debug, PartialEq)]
struct Sample {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

impl Metrics {
    /// The sum of all samples of that name that carry these labels; 0 where there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let carries = |sample: &&Sample| {
            labels.iter().all(|(name, value)| sample.labels.iter().any(|(n, v)| n == name && v == value))
        };
        self.0.iter().filter(|sample| sample.name == name).filter(carries).map(|sample| sample.value).sum()
    }

    /// The values of one label over all samples of that name whose value isn't 0, sorted, each once.
    pub fn values(&self, name: &str, label: &str) -> Vec<String> {
        let samples = self.0.iter().filter(|sample| sample.name == name && sample.value != 0.0);
        let labels = samples.flat_map(|sample| &sample.labels).filter(|(name, _)| name == label);
        let mut values: Vec<String> = labels.map(|(_, value)| value.clone()).collect();
        values.sort();
        values.dedup();
        values
    }

    /// Requests that would have failed without tidegate, by reason: `reason 12, reason 3`.
    pub fn rescues(&self) -> String {
        let reasons = self.values("tidegate_rescued_requests_total", "reason").into_iter();
        let counted = reasons.map(|reason| {
            let count = self.sum("tidegate_rescued_requests_total", &[("reason", &reason)]);
            format!("{reason} {count}")
        });
        counted.collect::<Vec<_>>().join(", ")
    }

    fn parse(text: &str) -> Self {
        Self(text.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect())
    }
}

/// `name{label="value",…} 1.5`; label values hold no escaped quote in what tidegate serves.
fn sample(line: &str) -> Option<Sample> {
    let (named, rest) = match line.split_once('{') {
        Some((name, rest)) => (name, rest.rsplit_once('}')?),
        None => line.split_once(' ').map(|(name, value)| (name, ("", value)))?,
    };
    let (labels, value) = rest;
    let labels = labels.split("\",").filter_map(|label| label.split_once("=\""));
    let labels = labels.map(|(name, value)| (name.trim().to_owned(), value.trim_end_matches('"').to_owned()));
    let value = value.split_whitespace().next()?.parse().ok()?;
    Some(Sample { name: named.to_owned(), labels: labels.collect(), value })
}

/// The lines of a configuration that name endpoints and key files.
pub fn configuration(endpoints: &[SocketAddr], opaque: &str, keys: &[&Path]) -> String {
    let endpoint = |address: &SocketAddr| format!("{{ url = \"http://{address}\", opaque = \"{opaque}\" }}");
    let endpoints: Vec<String> = endpoints.iter().map(endpoint).collect();
    let sources: Vec<String> =
        keys.iter().map(|path| format!("{{ file = \"{}\" }}", path.display())).collect();
    format!(
        "[upstream]\nendpoints = [{}]\n\n[keys]\nsources = [{}]\n",
        endpoints.join(", "),
        sources.join(", ")
    )
}

/// One more listener, on a free port, that speaks HTTP/2 too.
pub fn http2_listener() -> String {
    format!("\n[[listener]]\naddress = \"{}\"\nhttp2 = true\n", ports::free())
}

fn begun(words: &[OsString], folder: &TempDir) -> Program {
    let mut command = Command::new(&words[0]);
    Program::start(command.args(&words[1..]).current_dir(folder.path()), folder.path(), NAME)
}

fn is_there(admin: SocketAddr, page: &str) -> bool {
    http::get(admin, page, &[]).is_ok_and(|answer| answer.status == 200)
}

fn whole(configuration: &str, address: SocketAddr, admin: SocketAddr) -> String {
    // Where a test says nothing of it, what this machine keeps for a tidegate of its own is left alone.
    let store = if configuration.contains("[store]") { "" } else { "\n[store]\nurl = \"memory:\"\n" };
    format!(
        "{configuration}\n{store}[[listener]]\naddress = \"{address}\"\n\n[admin]\naddress = \"{admin}\"\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_summed_by_name_and_label() {
        let text = "# TYPE a counter\na_total{reason=\"x\",e=\"http://1:2\"} 2\na_total{reason=\"y\",e=\"z\"} 3\nb 0.5\n";
        let metrics = Metrics::parse(text);
        assert_eq!((metrics.sum("a_total", &[]), metrics.sum("a_total", &[("reason", "x")])), (5.0, 2.0));
        assert_eq!((metrics.sum("b", &[]), metrics.sum("c", &[])), (0.5, 0.0));
        assert_eq!(metrics.values("a_total", "e"), ["http://1:2", "z"]);
    }
}
