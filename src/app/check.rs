//! `tidegate check`: everything that would go wrong, without binding an address.

pub mod endpoints;

use std::fmt;

use serde::Serialize;

use super::{
    config::{self, Fault, Faults, Material, Place, Settings, Sources},
    serve::wiring,
    translate,
};
use crate::{
    edges::{
        key_source::{self, Alarm, KeyShelf},
        tls::TlsFault,
    },
    words::clock::Clock,
};

/// What was found, gravest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// With these nothing starts.
    pub faults: Vec<Fault>,
    /// Endpoints that don't answer as they should, now.
    pub unreachable: Vec<Fault>,
    pub warnings: Vec<Fault>,
}

/// Resolves, connects to and probes every endpoint; what goes wrong is a fault each.
pub type AskEndpoints = dyn Fn(&Settings) -> Vec<Fault>;

/// Checks the configuration, the files that it names, and then, if `ask` is given, its endpoints.
/// A faulty configuration is all that is reported of it: what it names isn't known.
pub fn check(sources: &Sources, clock: &Clock, ask: Option<&AskEndpoints>) -> Report {
    let settings = match config::load(sources) {
        Ok(settings) => settings,
        Err(Faults(faults)) => return Report { faults, ..Report::default() },
    };
    let mut report = Report::default();
    keys(&settings, clock, &mut report);
    certificates(&settings, clock, &mut report);
    admin_token(&settings, &mut report);
    if let Some(ask) = ask {
        report.unreachable = ask(&settings);
    }
    report
}

fn keys(settings: &Settings, clock: &Clock, report: &mut Report) {
    let shelf = KeyShelf::new(translate::policy(&settings.keys), translate::sources(&settings.keys));
    for alarm in key_source::load_once(&shelf, clock.now()).iter() {
        let of = if alarm.is_warning { &mut report.warnings } else { &mut report.faults };
        of.push(of_alarm("keys.sources", alarm));
    }
}

fn certificates(settings: &Settings, clock: &Clock, report: &mut Report) {
    for (i, listener) in settings.listeners.iter().enumerate() {
        let key = format!("listener[{i}].tls");
        match wiring::door(listener, clock) {
            Ok(door) => warnings(&key, door.tls.iter().flat_map(|tls| tls.alarms().to_vec()), report),
            Err(error) => report.faults.push(of_tls(&key, &error)),
        }
    }
    match wiring::upstream_tls(settings, clock) {
        Ok(tls) => warnings("upstream.tls", tls.iter().flat_map(|tls| tls.alarms().to_vec()), report),
        Err(error) => report.faults.push(of_tls("upstream.tls", &error)),
    }
}

fn warnings(key: &str, alarms: impl Iterator<Item = Alarm>, report: &mut Report) {
    report.warnings.extend(alarms.map(|alarm| of_alarm(key, &alarm)));
}

fn of_tls(key: &str, error: &anyhow::Error) -> Fault {
    let fault = error.downcast_ref::<TlsFault>();
    let path = fault.map(TlsFault::path).filter(|path| !path.as_os_str().is_empty());
    Fault {
        place: path.map_or(Place::Default, |path| Place::Path(path.to_owned())),
        key: key.to_owned(),
        found: fault.map_or_else(|| format!("{error:#}"), ToString::to_string),
        expected: String::new(),
        remedy: fault.map_or("", TlsFault::remedy).to_owned(),
    }
}

fn of_alarm(key: &str, alarm: &Alarm) -> Fault {
    Fault {
        place: Place::Path(alarm.path.clone().into()),
        key: key.to_owned(),
        found: alarm.cause.clone(),
        expected: String::new(),
        remedy: alarm.remedy.to_owned(),
    }
}

fn admin_token(settings: &Settings, report: &mut Report) {
    let Some(Material::File(path)) = &settings.admin.token else { return };
    let found = match std::fs::read_to_string(path) {
        Ok(text) if !text.trim().is_empty() => return,
        Ok(_) => "an empty file".to_owned(),
        Err(error) => error.to_string(),
    };
    report.faults.push(Fault {
        place: Place::Path(path.clone()),
        key: "admin.token_file".to_owned(),
        found,
        expected: "a file with the token, which this user can read".to_owned(),
        remedy: "write one: openssl rand -hex 32".to_owned(),
    });
}

impl Report {
    /// 64 where the configuration or its files are wrong, 1 where only endpoints don't answer, else 0.
    pub fn exit_code(&self) -> u8 {
        match (self.faults.is_empty(), self.unreachable.is_empty()) {
            (false, _) => 64,
            (true, false) => 1,
            (true, true) => 0,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts =
            [("FAULTS", &self.faults), ("UNREACHABLE", &self.unreachable), ("WARNINGS", &self.warnings)];
        for (title, part) in parts.iter().filter(|(_, part)| !part.is_empty()) {
            writeln!(f, "{title}  {}\n\n{}", part.len(), Faults::sorted((*part).clone()))?;
        }
        if self.faults.is_empty() && self.unreachable.is_empty() {
            writeln!(f, "nothing is wrong")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::config::Flags;

    fn of_key(content: &[u8]) -> Report {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("private_key.pem");
        std::fs::write(&path, content).expect("a file");
        let flags = Flags { keys: vec![path], ..Flags::default() };
        check(&Sources { flags, ..Sources::default() }, &Clock::system(), None)
    }

    #[test]
    fn a_key_file_that_is_broken_is_a_fault_with_path_cause_and_remedy() {
        let report = of_key(b"");
        assert_eq!(report.exit_code(), 64);
        assert!(report.faults[0].place.to_string().ends_with("/private_key.pem"), "{report}");
        assert_eq!(report.faults[0].found, "the file is empty");
        assert!(!report.faults[0].remedy.is_empty());
    }

    #[test]
    fn an_endpoint_that_does_not_answer_fails_without_being_a_bad_configuration() {
        let silent = |settings: &Settings| {
            let endpoint = settings.upstream.endpoints[0].url.to_string();
            vec![Fault {
                place: Place::Default,
                key: "upstream.endpoints[0]".to_owned(),
                found: format!("{endpoint} doesn't answer"),
                expected: String::new(),
                remedy: String::new(),
            }]
        };
        let report = check(&Sources::default(), &Clock::system(), Some(&silent));
        assert_eq!(report.exit_code(), 1);
        assert!(report.to_string().contains("http://core:8080 doesn't answer"), "{report}");
    }

    #[test]
    fn a_bad_configuration_asks_no_endpoint() {
        let flags = Flags { harbor: Some("core".to_owned()), ..Flags::default() };
        let never = |_: &Settings| -> Vec<Fault> { panic!("asked") };
        let report = check(&Sources { flags, ..Sources::default() }, &Clock::system(), Some(&never));
        assert_eq!(report.exit_code(), 64);
        assert!(
            report.to_string().starts_with("FAULTS  1\n\nflag --harbor: upstream.endpoints[0].url\n"),
            "{report}"
        );
    }

    #[test]
    fn a_certificate_that_is_not_there_is_a_fault() {
        let tls = "[{ address = ':0', tls = { certificate_file = '/nowhere/tls.crt', key_file = '/nowhere/tls.key' } }]";
        let environment = vec![("TIDEGATE_LISTENER".to_owned(), tls.to_owned())];
        let report = check(&Sources { environment, ..Sources::default() }, &Clock::system(), None);
        assert_eq!(report.exit_code(), 64);
        assert_eq!(report.faults[0].place.to_string(), "/nowhere/tls.crt");
        assert_eq!(report.faults[0].key, "listener[0].tls");
    }

    #[test]
    fn nothing_wrong_is_said_too() {
        let report = check(&Sources::default(), &Clock::system(), None);
        assert_eq!((report.to_string().as_str(), report.exit_code()), ("nothing is wrong\n", 0));
    }
}
