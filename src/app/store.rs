//! The store that the settings name, opened.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, anyhow};
use zeroize::Zeroizing;

use super::config::{self, Material, Servers, Settings, StoreUrl};
use crate::{
    edges::{
        alarm::Alarm,
        store::{
            Backend, Embedded, Form, Health, Password, SealFileFault, Server, ServerSettings, ServerTls,
            Store, seal_ring,
        },
    },
    words::clock::Clock,
};

/// Where `auto` looks: a folder that a package, an image or an operator has made.
const USUAL_FOLDER: &str = "/var/lib/tidegate";
/// The file in it.
const FILE: &str = "store.redb";
/// The sealing key beside a file of a store, where none is configured.
const SEAL_KEY: &str = "seal.key";

/// A store, and what its operator should know of how it was opened.
pub struct Opened {
    /// `None` = memory: what is to outlive the process doesn't.
    pub store: Option<Arc<Store>>,
    pub alarms: Vec<Alarm>,
}

impl Opened {
    fn memory(alarms: Vec<Alarm>) -> Self {
        Self { store: None, alarms }
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
        StoreUrl::File(path) => file(path, settings, clock),
        StoreUrl::Auto if !can_write(Path::new(USUAL_FOLDER)) => {
            // Made by whoever installs us: what nobody asked for is not put on a machine.
            tracing::warn!(
                store.name = "memory",
                store.cause = "/var/lib/tidegate isn't there, or can't be written",
                store.remedy = "make it for this user (0700), or name a store in store.url",
                "what is to outlive this process is kept in memory: tokens of a replaced key end with it"
            );
            Ok(Opened::memory(Vec::new()))
        }
        StoreUrl::Auto => {
            let path = Path::new(USUAL_FOLDER).join(FILE);
            Ok(file(&path, settings, clock).unwrap_or_else(|error| {
                let remedy = "name it in store.url to insist on it, or memory: to go without";
                Opened::memory(vec![alarm(&path.display().to_string(), format!("{error:#}"), remedy, clock)])
            }))
        }
        StoreUrl::Redis(at) => servers(Form::One, at, "", settings, clock),
        StoreUrl::Sentinel(at, master) => servers(Form::Sentinel, at, master, settings, clock),
        StoreUrl::Cluster(at) => servers(Form::Cluster, at, "", settings, clock),
    }
}

fn file(path: &Path, settings: &Settings, clock: &Clock) -> anyhow::Result<Opened> {
    let deployment = &settings.deployment;
    let embedded = Embedded::open(path, deployment, clock.now())
        .map_err(|fault| anyhow!("{fault}; {}", fault.remedy()))
        .context("store.url")?;
    let seals =
        seal_ring(&seal_keys(&settings.store, path), deployment, true).context("store.seal_key_files")?;
    let aside = embedded.set_aside.as_ref().map(|aside| {
        let cause = format!("it was no whole store and is now {}; a new one was begun", aside.display());
        let remedy = "look at the disk; keys that only it held end with this start";
        tracing::error!(store.name = %path.display(), store.cause = %cause, store.remedy = remedy, "the store was set aside");
        alarm(&path.display().to_string(), cause, remedy, clock)
    });
    let backend: Arc<dyn Backend> = Arc::new(embedded);
    let store = Arc::new(Store::new(backend, seals, clock.clone()));
    Ok(Opened { store: Some(store), alarms: aside.into_iter().collect() })
}

/// Nothing is connected yet: what isn't there now may be there later.
fn servers(
    form: Form,
    at: &Servers,
    master: &str,
    settings: &Settings,
    clock: &Clock,
) -> anyhow::Result<Opened> {
    let (of, deployment) = (&settings.store, &settings.deployment);
    let seals = seal_ring(&of.seal_keys, deployment, false)
        .map_err(|fault| anyhow!("{fault}; {}", SealFileFault::REMEDY))
        .context("store.seal_key_files")?;
    let path = |material: &Material| match material {
        Material::File(path) => Some(path.clone()),
        Material::Inline(_) => None,
    };
    let client = of.client.as_ref().and_then(|(certificate, key)| Some((path(certificate)?, path(key)?)));
    let backend: Arc<dyn Backend> = Arc::new(Server::new(ServerSettings {
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
    }));
    let store = Arc::new(Store::new(backend, seals, clock.clone()));
    Ok(Opened { store: Some(store), alarms: Vec::new() })
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
    tempfile::Builder::new().prefix(".tidegate").tempfile_in(folder).is_ok()
}

fn alarm(subject: &str, cause: String, remedy: &'static str, clock: &Clock) -> Alarm {
    let (path, since) = (subject.to_owned(), clock.now());
    Alarm { path, cause, remedy, since, is_warning: false, forbids_start: false }
}

/// What is wrong with the sealing keys, for `check`: nothing is made.
pub fn seal_key_fault(settings: &Settings) -> Option<(PathBuf, String, &'static str)> {
    let files = &settings.store.seal_keys;
    let (first, fault) = (files.first()?.clone(), seal_ring(files, &settings.deployment, false).err()?);
    let is_made = settings.store.url.servers().is_none() && !first.exists();
    (!is_made).then(|| (first, fault.to_string(), SealFileFault::REMEDY))
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
        let count = health.unopened.len();
        let remedy = "name the sealing key that is missing in store.seal_key_files, or remove the record";
        found.push((name.to_owned(), format!("{count} records don't open, such as {place}: {why}"), remedy));
    }
    if health.dropped > 0 {
        let cause = format!("{} changes were dropped because too many wait", health.dropped);
        found.push((name.to_owned(), cause, "mend the store, then restart"));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        app::config::{Sources, load},
        words::clock::UnixTime,
    };

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
}
