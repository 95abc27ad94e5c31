//! The two files of a former secret: its hash, and the present secret.

use std::{path::Path, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::HeaderValue;
use zeroize::Zeroizing;

use super::{Former, lock};
use crate::{
    decisions::former::{FormerHash, HashFault},
    edges::{
        alarm::Alarm,
        small_file::{self, Mode, Stamp},
    },
    words::{clock::UnixTime, file_fault::FileFault},
};

/// What both hold now.
#[derive(Default)]
pub(super) struct Held {
    pub(super) hash: Option<Arc<FormerHash>>,
    /// The secret, and the `Authorization` with it.
    pub(super) present: Option<(Zeroizing<Vec<u8>>, HeaderValue)>,
    pub(super) alarms: Vec<Alarm>,
}

/// How both looked when they were read.
#[derive(Default)]
pub(super) struct Looked([Option<Stamp>; 2]);

/// Why a file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// It can't be read.
    #[error("{0}")]
    File(FileFault),
    /// It holds no hash.
    #[error("{0}")]
    Hash(HashFault),
    /// It holds no secret.
    #[error("it holds no secret of one line")]
    NoSecret,
}

impl Fault {
    /// What mends it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::File(_) => "name a file that is there and that this user may read",
            Self::Hash(fault) => fault.remedy(),
            Self::NoSecret => "write the robot's present secret into it, on one line",
        }
    }
}

/// Cause and remedy.
pub type Warning = (&'static str, &'static str);

/// What is said of a file that everybody may read.
const OPEN: Warning =
    ("the file is readable by the world", "`chmod 640`, or `defaultMode: 0440` in Kubernetes");

/// The hash, and a warning where everybody may read it.
pub fn read_hash(path: &Path) -> Result<(FormerHash, Option<Warning>), Fault> {
    let (bytes, mode) = read(path)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| Fault::Hash(HashFault::Plain))?;
    let hash = FormerHash::parse(text).map_err(Fault::Hash)?;
    Ok((hash, mode.is_world_readable().then_some(OPEN)))
}

/// The present secret, without the end of its line, and the same warning.
pub fn read_present(path: &Path) -> Result<(Zeroizing<Vec<u8>>, Option<Warning>), Fault> {
    let (bytes, mode) = read(path)?;
    let secret = bytes.trim_ascii();
    if secret.is_empty() || secret.contains(&b'\n') {
        return Err(Fault::NoSecret);
    }
    Ok((Zeroizing::new(secret.to_vec()), mode.is_world_readable().then_some(OPEN)))
}

fn read(path: &Path) -> Result<(Zeroizing<Vec<u8>>, Mode), Fault> {
    small_file::read(path).map(|read| (read.bytes, read.mode)).map_err(Fault::File)
}

impl Former {
    /// Reads what has changed. What can't be read leaves in use what was read before.
    pub(super) fn look(&self, now: UnixTime) {
        let mut looked = lock(&self.looked);
        let paths = [&self.configured.hash_file, &self.configured.present_file];
        let stamps = paths.map(|path| Stamp::of(path));
        let settled = stamps.iter().all(|stamp| stamp.is_some_and(|stamp| !stamp.is_fresh(now.0)));
        if settled && looked.0 == stamps {
            return;
        }
        let before = self.held.load();
        let mut held = Held { hash: before.hash.clone(), present: before.present.clone(), alarms: vec![] };
        match read_hash(paths[0]) {
            Ok((hash, open)) => {
                held.hash = Some(Arc::new(hash));
                held.alarms.extend(open.map(|(cause, remedy)| alarm(paths[0], cause, remedy, now)));
            }
            Err(fault) => held.alarms.push(alarm(paths[0], &fault.to_string(), fault.remedy(), now)),
        }
        match read_present(paths[1]) {
            Ok((secret, open)) => {
                held.present = basic(&self.configured.name, &secret).map(|header| (secret, header));
                held.alarms.extend(open.map(|(cause, remedy)| alarm(paths[1], cause, remedy, now)));
            }
            Err(fault) => held.alarms.push(alarm(paths[1], &fault.to_string(), fault.remedy(), now)),
        }
        for alarm in held.alarms.iter().filter(|new| !before.alarms.iter().any(|old| same(old, new))) {
            tracing::warn!(path = alarm.path, cause = alarm.cause, remedy = alarm.remedy, "a former secret");
        }
        looked.0 = stamps;
        self.held.store(Arc::new(held));
    }
}

fn same(old: &Alarm, new: &Alarm) -> bool {
    (&old.path, &old.cause) == (&new.path, &new.cause)
}

fn alarm(path: &Path, cause: &str, remedy: &'static str, since: UnixTime) -> Alarm {
    let (path, cause) = (path.display().to_string(), cause.to_owned());
    Alarm { path, cause, remedy, since, is_warning: true, forbids_start: false }
}

fn basic(name: &str, secret: &[u8]) -> Option<HeaderValue> {
    let pair = Zeroizing::new([name.as_bytes(), b":", secret].concat());
    let text = Zeroizing::new(format!("Basic {}", STANDARD.encode(&*pair)));
    let mut value = HeaderValue::from_str(&text).ok()?;
    value.set_sensitive(true);
    Some(value)
}
