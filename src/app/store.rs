//! The store that the settings name, opened.

use std::{
    fs::OpenOptions,
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use zeroize::Zeroizing;

use super::config::{self, Material, Servers, Settings, StoreUrl};
use crate::{
    decisions::record::Kind,
    edges::{
        alarm::Alarm,
        store::{
            self, Backend, Embedded, Form, Health, NotNow, Password, SealFileFault, Server, ServerSettings,
            ServerTls, Store, seal_ring,
        },
    },
    words::{
        clock::{Clock, UnixTime},
        file_fault::FileFault,
    },
};

/// Where `auto` looks: a folder that a package, an image or an operator has made.
const USUAL_FOLDER: &str = "/var/lib/tidegate";
/// The file in it.
const FILE: &str = "store.redb";
/// The sealing key beside a file of a store, where none is configured.
const SEAL_KEY: &str = "seal.key";

/// How long `check` waits for a server.
const ASKED: Duration = Duration::from_secs(3);

/// A store, and what its operator should know of how it was opened.
pub struct Opened {
    /// `None` = memory: what is to outlive the process doesn't.
    pub store: Option<Arc<Store>>,
    /// Whether what it knew of keys that were retired at once is gone, or can't be had: until an operator has seen to
    /// that, only keys that an endpoint is seen to hold verify (A20).
    pub is_lost: bool,
    pub alarms: Vec<Alarm>,
}

impl Opened {
    fn memory(alarms: Vec<Alarm>) -> Self {
        Self { store: None, is_lost: false, alarms }
    }

    /// Since when there is none, though there should be one.
    pub fn missing_since(&self) -> Option<UnixTime> {
        let is_missing = self.store.is_none() && self.is_lost;
        self.alarms.first().filter(|_| is_missing).map(|alarm| alarm.since)
    }

    /// What an operator calls it.
    pub fn name(&self) -> &str {
        self.store.as_ref().map_or("memory", |store| store.name())
    }
}

/// Opens it. A store that was named and can't be used is an error; what `auto` finds and can't use is an alarm.
pub fn open(settings: &Settings, clock: &Clock) -> anyhow::Result<Opened> {
    match &settings.store.url {
        StoreUrl::Memory => Ok(Opened::memory(Vec::new())),
        StoreUrl::File(path) => file(path, settings, clock, NotNow::Fault),
        StoreUrl::Auto => Ok(auto(Path::new(USUAL_FOLDER), settings, clock)),
        StoreUrl::Redis(at) => servers(Form::One, at, "", settings, clock),
        StoreUrl::Sentinel(at, master) => servers(Form::Sentinel, at, master, settings, clock),
        StoreUrl::Cluster(at) => servers(Form::Cluster, at, "", settings, clock),
    }
}

fn auto(folder: &Path, settings: &Settings, clock: &Clock) -> Opened {
    let path = folder.join(FILE);
    let is_there = is_there(&path);
    if !is_there && !can_write(folder) {
        // Made by whoever installs us: what nobody asked for is not put on a machine.
        tracing::warn!(
            store.name = "memory",
            store.cause = "/var/lib/tidegate isn't there, or can't be written",
            store.remedy = "make it for this user (0700), or name a store in store.url",
            "what is to outlive this process is kept in memory: tokens of a replaced key end with it"
        );
        return Opened::memory(Vec::new());
    }
    file(&path, settings, clock, NotNow::Later).unwrap_or_else(|error| {
        let remedy = "mend that and restart, or name another store in store.url (memory: to go without)";
        let alarm = told(
            &path,
            format!("{error:#}; what is to outlive this process is kept in memory"),
            remedy,
            clock,
        );
        Opened { is_lost: is_there, ..Opened::memory(vec![alarm]) }
    })
}

/// Also where nobody can tell: only what is known not to be there can't say what was retired.
fn is_there(path: &Path) -> bool {
    match path.metadata() {
        Ok(about) => about.len() > 0,
        Err(error) => !matches!(
            error.kind(),
            ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::PermissionDenied
        ),
    }
}

fn file(path: &Path, settings: &Settings, clock: &Clock, not_now: NotNow) -> anyhow::Result<Opened> {
    let deployment = &settings.deployment;
    let embedded = Embedded::open(path, deployment, clock.now(), not_now)
        .map_err(|fault| anyhow!("{fault}; {}", fault.remedy()))
        .context("store.url")?;
    // What another key has sealed doesn't open by a new one, and with it what was retired would be unknown (A20).
    let seals = seal_ring(&seal_keys(&settings.store, path), deployment, embedded.is_empty())
        .map_err(|fault| no_seals(&fault, path))
        .context("store.seal_key_files")?;
    let aside = store::set_aside(path).map(|aside| {
        let cause = format!(
            "it was no whole store and is now {}; a new one was begun: keys that only it held end, and what was retired at once is known no more",
            aside.display()
        );
        told(path, cause, ASIDE_REMEDY, clock)
    });
    let is_lost = aside.is_some();
    let others = embedded.holds.iter().flatten().filter(|(of, _)| *of != deployment).map(|(of, count)| {
        let cause = format!(
            "it holds {count} records of deployment = {of:?}, which count for nothing here: what was retired at once there isn't retired here"
        );
        told(path, cause, OTHERS_REMEDY, clock)
    });
    let alarms = aside.into_iter().chain(others).chain(open_to_all(settings, clock)).collect();
    let backend: Arc<dyn Backend> = Arc::new(embedded);
    let store = Arc::new(Store::new(backend, seals, clock.clone()));
    Ok(Opened { store: Some(store), is_lost, alarms })
}

const ASIDE_REMEDY: &str = "look at the disk; retire again what was retired at once (keys retire --now); then remove that file and restart: until then only keys that an endpoint is seen to hold verify";
const OTHERS_REMEDY: &str = "give that deployment its own file; if it is this one under a former name, set that name again, or retire here too what was retired (keys retire --now)";
const LOST_SEAL_REMEDY: &str = "put it back from its back-up, or name it in store.seal_key_files; if it is lost, move the store's file away and retire again what was retired at once";

fn no_seals(fault: &SealFileFault, path: &Path) -> anyhow::Error {
    match fault {
        SealFileFault::Unreadable { fault: FileFault::Missing, .. } => {
            anyhow!("{fault}, and {} may hold records that it sealed; {LOST_SEAL_REMEDY}", path.display())
        }
        _ => anyhow!("{fault}; {}", SealFileFault::REMEDY),
    }
}

/// An alarm, also for the log.
fn told(path: &Path, cause: String, remedy: &'static str, clock: &Clock) -> Alarm {
    tracing::error!(store.name = %path.display(), store.cause = %cause, store.remedy = remedy, "the store isn't as it should be");
    alarm(&path.display().to_string(), cause, remedy, clock)
}

/// Secrets of the store that anybody on the machine may read.
fn open_to_all(settings: &Settings, clock: &Clock) -> Vec<Alarm> {
    let of = &settings.store;
    let password = match &of.password {
        Some(Material::File(path)) => Some(path),
        _ => None,
    };
    let seals = match &of.url {
        StoreUrl::File(path) => seal_keys(of, path),
        _ => of.seal_keys.clone(),
    };
    let open = seals.iter().chain(password).filter(|path| store::is_open_to_all(path));
    let warning = |path: &PathBuf| Alarm {
        is_warning: true,
        ..alarm(
            &path.display().to_string(),
            "the secret is readable by the world".to_owned(),
            "chmod o-r",
            clock,
        )
    };
    open.map(warning).collect()
}

/// Nothing is connected yet: what isn't there now may be there later.
fn servers(
    form: Form,
    at: &Servers,
    master: &str,
    settings: &Settings,
    clock: &Clock,
) -> anyhow::Result<Opened> {
    let seals = seal_ring(&settings.store.seal_keys, &settings.deployment, false)
        .map_err(|fault| anyhow!("{fault}; {}", SealFileFault::REMEDY))
        .context("store.seal_key_files")?;
    let server = server(form, at, master, settings);
    let store = Arc::new(Store::new(Arc::new(server), seals, clock.clone()));
    Ok(Opened { store: Some(store), is_lost: false, alarms: open_to_all(settings, clock) })
}

fn server(form: Form, at: &Servers, master: &str, settings: &Settings) -> Server {
    let (of, deployment) = (&settings.store, &settings.deployment);
    let path = |material: &Material| match material {
        Material::File(path) => Some(path.clone()),
        Material::Inline(_) => None,
    };
    let client = of.client.as_ref().and_then(|(certificate, key)| Some((path(certificate)?, path(key)?)));
    Server::new(ServerSettings {
        form,
        at: at.at.iter().map(|server| (host(&server.host), server.port)).collect(),
        master: master.to_owned(),
        database: at.database,
        user: at.user.clone(),
        password: match &of.password {
            None => Password::None,
            Some(Material::Inline(secret)) => Password::Text(Zeroizing::new(secret.expose().to_owned())),
            Some(Material::File(path)) => Password::File(path.clone()),
        },
        tls: at.tls.then(|| ServerTls { ca_file: of.ca.as_ref().and_then(path), client }),
        prefix: format!("{}{deployment}:", of.prefix),
        name: of.url.to_string(),
    })
}

/// Without the brackets of an IPv6 address.
fn host(of: &config::Host) -> String {
    match of {
        config::Host::Name(name) => name.clone(),
        config::Host::Ip(ip) => ip.to_string(),
    }
}

/// The configured files, else the one beside the store.
fn seal_keys(store: &config::Store, path: &Path) -> Vec<PathBuf> {
    if store.seal_keys.is_empty() { vec![path.with_file_name(SEAL_KEY)] } else { store.seal_keys.clone() }
}

fn can_write(folder: &Path) -> bool {
    tempfile::tempfile_in(folder).is_ok()
}

fn alarm(subject: &str, cause: String, remedy: &'static str, clock: &Clock) -> Alarm {
    let (path, since) = (subject.to_owned(), clock.now());
    Alarm { path, cause, remedy, since, is_warning: false, forbids_start: false }
}

/// Which of the sealing keys would be at fault at the start, and why, for `check`: nothing is made.
pub fn seal_key_faults(settings: &Settings) -> Vec<(PathBuf, String, &'static str)> {
    let store = &settings.store;
    let local = match &store.url {
        StoreUrl::File(path) => Some(path.clone()),
        StoreUrl::Auto => Some(Path::new(USUAL_FOLDER).join(FILE)),
        _ => None,
    };
    let files = local.as_ref().map_or_else(|| store.seal_keys.clone(), |path| seal_keys(store, path));
    let holds = local.as_ref().is_none_or(|path| is_there(path));
    let fault = |(number, path): (usize, PathBuf)| {
        let fault = seal_ring(std::slice::from_ref(&path), &settings.deployment, false).err()?;
        let is_missing = matches!(fault, SealFileFault::Unreadable { fault: FileFault::Missing, .. });
        let remedy = match &local {
            Some(_) if is_missing && number == 0 && !holds => return None,
            Some(_) if is_missing && number == 0 => LOST_SEAL_REMEDY,
            _ => SealFileFault::REMEDY,
        };
        Some((path, fault.to_string(), remedy))
    };
    files.into_iter().enumerate().filter_map(fault).collect()
}

/// Secrets that anybody on the machine may read, for `check`.
pub fn warnings(settings: &Settings, clock: &Clock) -> Vec<Alarm> {
    open_to_all(settings, clock)
}

/// Why the file of a store couldn't be used at a start, for `check`: nothing of it is changed, nor made for good.
pub fn file_fault(settings: &Settings) -> Option<(PathBuf, String, &'static str)> {
    let StoreUrl::File(path) = &settings.store.url else { return None };
    let fault =
        |cause: String| Some((path.clone(), cause, "give store.url a file whose folder this user can write"));
    match OpenOptions::new().read(true).write(true).open(path) {
        Ok(_) => None,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let folder = path.ancestors().skip(1).find(|folder| folder.exists())?;
            let made = tempfile::tempfile_in(folder);
            fault(format!("it can't be made: {}: {}", folder.display(), made.err()?))
        }
        Err(error) => fault(error.to_string()),
    }
}

/// Why the server of a store doesn't answer now, for `check`: it is asked for one field, and nothing is changed.
pub async fn server_fault(settings: &Settings) -> Option<String> {
    let server = match &settings.store.url {
        StoreUrl::Auto | StoreUrl::Memory | StoreUrl::File(_) => return None,
        StoreUrl::Redis(at) => server(Form::One, at, "", settings),
        StoreUrl::Sentinel(at, master) => server(Form::Sentinel, at, master, settings),
        StoreUrl::Cluster(at) => server(Form::Cluster, at, "", settings),
    };
    let asked = tokio::time::timeout(ASKED, server.revision(Kind::Revocation)).await;
    match asked {
        Ok(answer) => answer.err().map(|fault| fault.to_string()),
        Err(_) => Some(format!("it gave no answer within {} s", ASKED.as_secs())),
    }
}

/// The alarms of a store as it is now.
pub fn alarms(name: &str, health: &Health) -> Vec<(String, String, &'static str)> {
    let mut found = Vec::new();
    if let Some((since, cause)) = &health.degraded {
        let cause = format!("not usable since {}: {cause}; {} changes wait", since.rfc3339(), health.waiting);
        let remedy = "look at the server and the network, or at the disk's room and the folder's rights; it recovers by itself";
        found.push((name.to_owned(), cause, remedy));
    }
    if let Some((place, why)) = health.unopened.first() {
        let count = health.unopened_count;
        let remedy = "name the sealing key that is missing in store.seal_key_files, or remove the record (HDEL; a file: move it away while tidegate is stopped)";
        found.push((name.to_owned(), format!("{count} records don't open, such as {place}: {why}"), remedy));
    }
    if health.unopened_revocations > 0 {
        let cause = format!(
            "{} of the records that don't open may say what was retired at once: keys that they name aren't trusted, and after a start only those verify that an endpoint is seen to hold",
            health.unopened_revocations
        );
        let remedy = "have them opened; where that can't be, retire again what was retired (keys retire --now), then remove them";
        found.push((name.to_owned(), cause, remedy));
    }
    if health.dropped > 0 {
        let cause = format!(
            "{} changes were given up: too many wait, or a record that doesn't open has their place",
            health.dropped
        );
        found.push((name.to_owned(), cause, "mend the store, then restart"));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::config::{Sources, load};

    fn settings(url: &str) -> Settings {
        let environment = vec![("TIDEGATE_STORE__URL".to_owned(), url.to_owned())];
        load(&Sources { environment, ..Sources::default() }).expect("settings")
    }

    #[test]
    fn a_file_is_made_for_its_owner_alone_and_opens_once() {
        use std::os::unix::fs::MetadataExt as _;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state").join("store.redb");
        let settings = settings(&format!("file:{}", path.display()));
        let opened = open(&settings, &Clock::system()).expect("a store");
        let mode = |path: &Path| path.metadata().expect("there").mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(&path.with_file_name(SEAL_KEY)), 0o600);
        assert_eq!(mode(path.parent().expect("a folder")), 0o700);
        let second =
            open(&settings, &Clock::system()).err().map(|error| format!("{error:#}")).unwrap_or_default();
        assert!(second.contains("is open in another process"), "{second}");
        drop(opened);
    }

    #[test]
    fn an_alarm_says_since_when_and_what_waits() {
        let health = Health {
            degraded: Some((UnixTime(0), "no space left".to_owned())),
            waiting: 3,
            unopened: vec![("key/abc".to_owned(), "broken".to_owned())],
            unopened_count: 1,
            ..Health::default()
        };
        let found: Vec<String> = alarms("/store", &health).into_iter().map(|(_, cause, _)| cause).collect();
        assert_eq!(
            found,
            [
                "not usable since 1970-01-01T00:00:00Z: no space left; 3 changes wait",
                "1 records don't open, such as key/abc: broken",
            ]
        );
    }

    #[test]
    fn what_would_be_wrong_with_the_files_of_a_store_at_a_start_is_told_and_nothing_is_made() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state/store.redb");
        let faults = |url: &str, seals: &str| {
            let environment = [("TIDEGATE_STORE__URL", url), ("TIDEGATE_STORE__SEAL_KEY_FILES", seals)];
            let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
            let settings = load(&Sources { environment, ..Sources::default() }).expect("settings");
            let file = file_fault(&settings).map(|(_, found, _)| found);
            let seals = seal_key_faults(&settings).into_iter();
            (file, seals.map(|(_, found, _)| found).collect::<Vec<_>>())
        };
        let url = format!("file:{}", path.display());
        assert_eq!(faults(&url, "[]"), (None, vec![]));
        assert!(faults("file:/proc/nowhere/store.redb", "[]").0.is_some());
        assert!(faults(&format!("file:{}", folder.path().display()), "[]").0.is_some());
        let broken = folder.path().join("broken.key");
        std::fs::write(&broken, "no key").expect("a file");
        let two = format!("['{}', '{}']", folder.path().join("first.key").display(), broken.display());
        assert!(faults(&url, &two).1.concat().contains("broken.key"));
        assert_eq!(folder.path().read_dir().expect("a folder").count(), 1);
        drop(open(&settings(&url), &Clock::system()).expect("a store"));
        std::fs::remove_file(path.with_file_name(SEAL_KEY)).expect("it goes");
        assert!(faults(&url, "[]").1.concat().contains("seal.key"));
    }

    #[test]
    fn a20_where_auto_finds_a_store_that_it_cant_use_what_was_retired_isnt_known() {
        let (folder, settings) = (tempfile::tempdir().expect("a folder"), settings("auto"));
        let begin = || auto(folder.path(), &settings, &Clock::system());
        let opened = begin();
        assert!(opened.store.is_some() && !opened.is_lost);
        let in_use = begin();
        assert!(in_use.store.is_some(), "it is tried again");
        // Read before it is known that the file is in use.
        std::fs::write(folder.path().join(SEAL_KEY), "no key").expect("a file");
        let opened = begin();
        assert!(opened.store.is_none() && opened.is_lost && opened.missing_since().is_some());
        assert_eq!(opened.alarms.len(), 1);
    }

    #[test]
    fn a_secret_of_the_store_that_the_world_may_read_is_told_of() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().expect("a folder");
        let settings = settings(&format!("file:{}", folder.path().join("store.redb").display()));
        let opened = open(&settings, &Clock::system()).expect("a store");
        assert_eq!(opened.alarms, []);
        let mode = std::fs::Permissions::from_mode(0o644);
        std::fs::set_permissions(folder.path().join(SEAL_KEY), mode).expect("a mode");
        let told = warnings(&settings, &Clock::system());
        assert!(told.len() == 1 && told[0].is_warning, "{told:?}");
    }
}
