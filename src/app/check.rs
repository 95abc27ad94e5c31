//! `tidegate check`: what it looked at, and everything that would go wrong. Addresses are bound and given back.

mod addresses;
pub mod endpoints;
mod looked;

use std::{collections::BTreeSet, fmt, path::PathBuf};

use serde::Serialize;

pub use self::{endpoints::Asked, looked::Looked};
use super::{
    config::{self, Fault, Faults, KeyOrigin, Material, Mode, Place, Ramp, Settings, Sources},
    distant, held_keys,
    realm::{self, Reached},
    serve::wiring,
    status, store, translate,
};
use crate::{
    decisions::ring::{Ring, State},
    edges::{
        key_source::{self, Alarm, KeyShelf},
        listener::own_addresses,
        tls::TlsFault,
    },
    flow::formers,
    words::clock::{Clock, UnixTime},
};

/// What was looked at and what was found, gravest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    pub looked: Looked,
    /// With these nothing starts.
    pub faults: Vec<Fault>,
    /// Endpoints that don't answer as they should, now.
    pub unreachable: Vec<Fault>,
    pub warnings: Vec<Fault>,
}

/// Resolves, connects to and probes every endpoint.
pub type AskEndpoints = dyn Fn(&Settings) -> Asked;

/// Checks the configuration, the files that it names, and then, if `ask` is given, its endpoints. Of a faulty
/// configuration the files are read that can be made out; addresses and endpoints would be guessed.
pub fn check(sources: &Sources, clock: &Clock, ask: Option<&AskEndpoints>) -> Report {
    let (settings, faults) = config::load_in_part(sources);
    let looked = Looked { configuration: sources.file.clone(), ..Looked::default() };
    let mut report = Report { looked, faults, ..Report::default() };
    let Some(settings) = settings else { return report };
    let is_sound = report.faults.is_empty();
    let now = clock.now();
    let ring = keys(&settings, now, &mut report);
    certificates(&settings, clock, &mut report);
    admin_token(&settings, &mut report);
    store_files(&settings, clock, &mut report);
    peers(&settings, clock, &mut report);
    former_secrets(&settings, now, &mut report);
    report.warnings.extend(idle_ramp(&settings));
    if is_sound {
        report.looked.at(&settings);
        addresses::addresses(&settings, &mut report);
        if let Some(ask) = ask {
            told_by_endpoints(ask(&settings), &settings, (&ring, now), &mut report);
        }
    }
    report
}

fn keys(settings: &Settings, now: UnixTime, report: &mut Report) -> std::sync::Arc<Ring> {
    let shelf = KeyShelf::new(translate::policy(&settings.keys), translate::sources(&settings.keys));
    for alarm in key_source::load_once(&shelf, now).iter() {
        let of = if alarm.is_warning { &mut report.warnings } else { &mut report.faults };
        of.push(of_alarm("keys.sources", alarm));
    }
    shelf.end();
    let ring = shelf.ring();
    report.looked.keys = ring.entries().map(|entry| status::Key::of(entry, now)).collect();
    report.warnings.extend(public_halves(settings, &ring, now));
    ring
}

/// A JWKS, and what is listed as past or to come, is public on purpose; what core is said to sign with is not.
fn public_halves(settings: &Settings, ring: &Ring, now: UnixTime) -> Vec<Fault> {
    let sets: BTreeSet<String> = settings
        .keys
        .sources
        .iter()
        .filter_map(|source| match &source.origin {
            KeyOrigin::JwksFile(path) => Some(path.to_string_lossy().into_owned()),
            KeyOrigin::File(_) | KeyOrigin::Folder(_) | KeyOrigin::JwksUrl(..) | KeyOrigin::Token(_) => None,
        })
        .collect();
    let public = ring.entries().filter(|entry| {
        let signs = entry.state(now) == State::Signing;
        signs && !entry.key().can_sign() && !sets.contains(entry.source().as_str())
    });
    let warning = |source: &str| Fault {
        place: Place::Path(PathBuf::from(source)),
        key: "keys.sources".to_owned(),
        found:
            "only a certificate or public half: its tokens are verified, and none can be signed again with it"
                .to_owned(),
        expected: String::new(),
        remedy: "name core's private key file, unless that is meant".to_owned(),
    };
    public.map(|entry| warning(entry.source().as_str())).collect()
}

/// In observe mode nothing is sent a second time and no token is signed again, so nobody is moved (A27).
fn idle_ramp(settings: &Settings) -> Option<Fault> {
    let moves = |ramp: &Ramp| ramp.share > 0 || !ramp.plan.is_empty() || !ramp.by.is_empty();
    settings.ramp.as_ref().filter(|ramp| settings.mode == Mode::Observe && moves(ramp))?;
    Some(Fault {
        place: Place::Default,
        key: "ramp".to_owned(),
        found: "mode = \"observe\": everything goes to the endpoints without side = \"next\"".to_owned(),
        expected: String::new(),
        remedy: "set mode = \"enforce\" before the first step".to_owned(),
    })
}

/// The files that peers and JWKS URLs need, and what is dangerous on purpose.
fn peers(settings: &Settings, clock: &Clock, report: &mut Report) {
    if settings.peers.insecure && settings.peers.secret.is_none() {
        report.warnings.push(Fault {
            place: Place::Default,
            key: "peers.insecure".to_owned(),
            found: distant::INSECURE.to_owned(),
            expected: String::new(),
            remedy: distant::INSECURE_REMEDY.to_owned(),
        });
    }
    if let Some((path, found, remedy)) = distant::secret_fault(settings) {
        let (key, remedy) = ("peers.secret_file".to_owned(), remedy.to_owned());
        report.faults.push(Fault { place: Place::Path(path), key, found, expected: String::new(), remedy });
    }
    match distant::peer_tls(settings, clock) {
        Ok(tls) => warnings("peers", tls.iter().flat_map(|tls| tls.alarms().to_vec()), report),
        Err(error) => report.faults.push(of_tls("peers", &error)),
    }
    if let Err(error) = distant::urls(settings, clock) {
        report.faults.push(of_tls("keys.sources", &error));
    }
}

fn told_by_endpoints(asked: Asked, settings: &Settings, (ring, now): (&Ring, UnixTime), report: &mut Report) {
    let held = asked.endpoints.iter().map(|endpoint| (endpoint.name.as_str(), &endpoint.held));
    let misfit = |misfit: held_keys::Misfit| Fault {
        place: Place::Endpoint(misfit.endpoint),
        key: "keys.sources".to_owned(),
        found: misfit.cause,
        expected: String::new(),
        remedy: misfit.remedy.to_owned(),
    };
    report.warnings.extend(held_keys::misfits(ring, held, now).into_iter().map(misfit));
    let past = asked.realm.and_then(|(endpoint, realm)| {
        Some((endpoint, Reached::new(settings, own_addresses()).passed_by(&realm)?))
    });
    report.warnings.extend(past.map(|(endpoint, found)| Fault {
        place: Place::Endpoint(endpoint),
        key: "public_url".to_owned(),
        found,
        expected: String::new(),
        remedy: realm::REMEDY.to_owned(),
    }));
    if !asked.endpoints.is_empty() {
        let seen = |endpoint: endpoints::Answered| looked::Endpoint {
            held: (&endpoint.held).into(),
            name: endpoint.name,
            up: Some(endpoint.up),
        };
        report.looked.endpoints = asked.endpoints.into_iter().map(seen).collect();
    }
    report.unreachable = asked.faults;
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

fn former_secrets(settings: &Settings, now: UnixTime, report: &mut Report) {
    for (i, one) in settings.credentials.iter().enumerate() {
        let hash = formers::read_hash(&one.former_hash).map(|(_, open)| open);
        let present = formers::read_present(&one.present).map(|(_, open)| open);
        for (path, member, read) in
            [(&one.former_hash, "former_hash_file", hash), (&one.present, "present_file", present)]
        {
            let fault = |found: &str, remedy: &str| Fault {
                place: Place::Path(path.clone()),
                key: format!("credential[{i}].{member}"),
                found: found.to_owned(),
                expected: String::new(),
                remedy: remedy.to_owned(),
            };
            match read {
                Ok(open) => report.warnings.extend(open.map(|(found, remedy)| fault(found, remedy))),
                // A configuration that names none says so by itself.
                Err(_) if path.as_os_str().is_empty() => {}
                Err(error) => report.faults.push(fault(&error.to_string(), error.remedy())),
            }
        }
        if one.until <= now {
            report.warnings.push(Fault {
                place: Place::Default,
                key: format!("credential[{i}].until"),
                found: format!("{}: the former secret of {} is taken no more", one.until.rfc3339(), one.name),
                expected: String::new(),
                remedy: "remove the [[credential]], and the files".to_owned(),
            });
        }
    }
}

fn store_files(settings: &Settings, clock: &Clock, report: &mut Report) {
    let fault = |key: &str, expected: &str, (path, found, remedy): (PathBuf, String, &str)| Fault {
        place: Place::Path(path),
        key: key.to_owned(),
        found,
        expected: expected.to_owned(),
        remedy: remedy.to_owned(),
    };
    let seals = store::seal_key_faults(settings).into_iter();
    let seals = seals.map(|of| fault("store.seal_key_files", "a key of 32 bytes in base64", of));
    report.faults.extend(seals);
    report.faults.extend(store::file_fault(settings).map(|of| fault("store.url", "", of)));
    warnings("store", store::warnings(settings, clock).into_iter(), report);
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

    fn verdict(&self) -> String {
        match (self.faults.len(), self.unreachable.len(), self.warnings.len()) {
            (0, 0, 0) => "nothing is wrong".to_owned(),
            (0, 0, warnings) => format!("{}, no faults", counted(warnings, "warning")),
            (faults, unreachable, warnings) => {
                let faults = (faults > 0).then(|| counted(faults, "fault"));
                let unreachable = (unreachable > 0).then(|| format!("{unreachable} unreachable"));
                let warnings = (warnings > 0).then(|| counted(warnings, "warning"));
                faults.into_iter().chain(unreachable).chain(warnings).collect::<Vec<_>>().join(", ")
            }
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.looked)?;
        let parts =
            [("FAULTS", &self.faults), ("UNREACHABLE", &self.unreachable), ("WARNINGS", &self.warnings)];
        for (title, part) in parts.iter().filter(|(_, part)| !part.is_empty()) {
            writeln!(f, "{title}  {}\n\n{}", part.len(), Faults::sorted((*part).clone()))?;
        }
        writeln!(f, "{}", self.verdict())
    }
}

/// `1 fault`, `2 faults`.
fn counted(count: usize, name: &str) -> String {
    format!("{count} {name}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests;
