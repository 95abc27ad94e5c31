//! One look at all sources: what changed since the last one goes to the keeper.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{Alarm, Place, Source};
use crate::{
    decisions::{
        key::{self, Key, KeyFault},
        ring::{Listed, Listing, SourceName},
    },
    edges::{
        pkcs11::{Location, Modules, Reading, Watched},
        small_file::{self, CORE, Mode, Read, Stamp},
    },
    words::clock::UnixTime,
};

/// How the files of a folder end that are read.
const ENDINGS: [&str; 3] = ["pem", "key", "crt"];
/// Files read of one folder.
const FILES_OF_A_FOLDER: usize = 256;

/// When a new fault counts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// At once.
    None,
    /// At the next tick: the kernel told of a change, and the writer may be in the middle of it.
    UntilTick,
}

/// What one look found out about one source.
pub(super) struct Sight {
    pub(super) name: SourceName,
    /// `None` where the source was taken away: what was said about it still counts.
    pub(super) listing: Option<Listing>,
    pub(super) read: Result<Vec<Key>, KeyFault>,
}

/// What was seen at the last look.
#[derive(Debug, Default)]
pub(super) struct Looker {
    sources: Vec<Source>,
    seen: HashMap<PathBuf, Seen>,
    tokens: Vec<Token>,
    modules: Modules,
}

/// A token that is watched, and what it said at the last look.
#[derive(Debug)]
struct Token {
    watched: Watched,
    said: Option<Result<Reading, KeyFault>>,
    warnings: Vec<Alarm>,
}

/// A path as it was at the last look.
#[derive(Debug)]
struct Seen {
    /// `None` where it couldn't be read; it is tried again at every look.
    stamp: Option<Stamp>,
    digest: [u8; 32],
    mode: Mode,
    warnings: Vec<Alarm>,
    /// What would keep core from signing with it, if it is core's.
    suspicions: Vec<Alarm>,
}

impl Looker {
    pub(super) fn new(sources: Vec<Source>) -> Self {
        let mut looker = Self::default();
        looker.sources = sources;
        looker.watch_tokens();
        looker
    }

    /// Begins to watch the tokens that no one watches yet, and ends to watch those that are configured no more.
    fn watch_tokens(&mut self) {
        let wanted = self.sources.iter().filter_map(|source| match &source.place {
            Place::Token(location) => Some(&**location),
            Place::File(_) | Place::Folder(_) | Place::Jwks(_) => None,
        });
        let mut before = std::mem::take(&mut self.tokens);
        let (modules, tokens) = (&self.modules, &mut self.tokens);
        tokens.extend(wanted.map(|location: &Location| {
            match before.iter().position(|token| token.watched.location() == location) {
                Some(at) => before.swap_remove(at),
                None => Token {
                    watched: Watched::start(location.clone(), modules),
                    said: None,
                    warnings: Vec::new(),
                },
            }
        }));
    }

    /// See [`Modules::end`].
    pub(super) fn end(&self) {
        self.modules.end();
    }

    /// Has all tokens looked at, and waits for that as long as this.
    pub(super) fn ask_tokens(&self, wait: Duration) {
        let until = Instant::now() + wait;
        let asked: Vec<_> = self.tokens.iter().map(|token| (token, token.watched.ask())).collect();
        for (token, look) in asked {
            token.watched.wait(look, until);
        }
    }

    pub(super) fn sources(&self) -> &[Source] {
        &self.sources
    }

    /// Takes other sources; what is configured no more counts as taken away on purpose.
    pub(super) fn reconfigure(&mut self, sources: Vec<Source>, now: UnixTime) -> Vec<Sight> {
        let seen = std::mem::take(&mut self.seen);
        let tokens: Vec<SourceName> = self.tokens.iter().map(|token| token.watched.name()).collect();
        self.sources = sources;
        self.watch_tokens();
        // What is listed otherwise now is told again.
        self.tokens.iter_mut().for_each(|token| token.said = None);
        let mut sights = self.look(Patience::None, now);
        let gone = seen.keys().filter(|path| !self.seen.contains_key(*path));
        sights.extend(gone.map(|path| Sight::gone(name_of(path))));
        let is_watched = |name: &SourceName| self.tokens.iter().any(|token| token.watched.name() == *name);
        sights.extend(tokens.into_iter().filter(|name| !is_watched(name)).map(Sight::gone));
        sights
    }

    /// Has the file of this name read anew at the next look, changed or not.
    pub(super) fn forget(&mut self, name: &SourceName) {
        if let Some(seen) = self.seen.get_mut(Path::new(name.as_str())) {
            seen.stamp = None;
        }
        let of_token = self.tokens.iter_mut().filter(|token| token.watched.name() == *name);
        of_token.for_each(|token| token.said = None);
    }

    /// What changed since the last look.
    pub(super) fn look(&mut self, patience: Patience, now: UnixTime) -> Vec<Sight> {
        let mut look = Look { seen: &mut self.seen, patience, now, sights: Vec::new() };
        for Source { place, listing } in &self.sources {
            match place {
                Place::File(path) => look.file(path, listing, key::parse),
                Place::Jwks(path) => look.file(path, listing, key::parse_jwks),
                Place::Folder(path) => look.folder(path, listing),
                Place::Token(location) => {
                    let token = self.tokens.iter_mut().find(|token| token.watched.location() == &**location);
                    look.sights.extend(token.and_then(|token| token.sight(listing, now)));
                }
            }
        }
        look.sights
    }

    pub(super) fn warnings(&self) -> Vec<Alarm> {
        let of_files = self.seen.values().flat_map(|seen| &seen.warnings);
        of_files.chain(self.tokens.iter().flat_map(|token| &token.warnings)).cloned().collect()
    }

    pub(super) fn suspicions(&self) -> Vec<Alarm> {
        self.seen.values().flat_map(|seen| seen.suspicions.iter().cloned()).collect()
    }
}

impl Token {
    /// What it says, if that is something else than at the last look.
    fn sight(&mut self, listing: &Listing, now: UnixTime) -> Option<Sight> {
        let said = self.watched.reading()?;
        if self.said.as_ref() == Some(&said) {
            return None;
        }
        let name = self.watched.name();
        let read = said.as_ref().map_err(KeyFault::clone).and_then(|reading| self.watched.keys(reading));
        self.warnings.clear();
        if said.as_ref().is_ok_and(|reading| reading.may_leave) {
            let cause = "the token gives the private half to whoever has the PIN".to_owned();
            let remedy = "make keys in the token with CKA_SENSITIVE and without CKA_EXTRACTABLE";
            self.warnings.push(warning(Path::new(name.as_str()), cause, remedy, now));
        }
        self.said = Some(said);
        Some(Sight { name, listing: Some(listing.clone()), read })
    }
}

impl Drop for Looker {
    fn drop(&mut self) {
        self.end();
    }
}

impl Sight {
    fn gone(name: SourceName) -> Self {
        Self { name, listing: None, read: Ok(Vec::new()) }
    }
}

/// One look while it runs.
struct Look<'a> {
    seen: &'a mut HashMap<PathBuf, Seen>,
    patience: Patience,
    now: UnixTime,
    sights: Vec<Sight>,
}

type Parse = fn(&[u8]) -> Result<Vec<Key>, KeyFault>;

impl Look<'_> {
    fn file(&mut self, path: &Path, listing: &Listing, parse: Parse) {
        let before = self.seen.get_mut(path).filter(|seen| seen.stamp.is_some());
        let known = before.as_ref().and_then(|seen| seen.stamp);
        if known.is_some_and(|stamp| Stamp::of(path) == Some(stamp) && !stamp.is_fresh(self.now.0)) {
            return;
        }
        let read = match (small_file::read(path).map_err(KeyFault::from), before) {
            (Ok(read), Some(seen)) if seen.digest == read.digest => {
                seen.stamp = Some(read.stamp);
                // What it holds is known; who may read it may have changed.
                if let (true, Ok(keys)) = (seen.mode != read.mode, parse(&read.bytes)) {
                    seen.mode = read.mode;
                    seen.warnings = warnings(path, &keys, &read, self.now);
                    seen.suspicions = suspicions(path, listing, &keys, (read.mode, self.now));
                }
                return;
            }
            (read, _) => read,
        };
        match read.and_then(|read| parse(&read.bytes).map(|keys| (read, keys))) {
            Ok((read, keys)) => self.found(path, listing, keys, &read),
            Err(fault) => self.failed(path, listing, fault),
        }
    }

    fn found(&mut self, path: &Path, listing: &Listing, keys: Vec<Key>, read: &Read) {
        let warnings = warnings(path, &keys, read, self.now);
        let suspicions = suspicions(path, listing, &keys, (read.mode, self.now));
        let (stamp, digest, mode) = (Some(read.stamp), read.digest, read.mode);
        self.seen.insert(path.to_owned(), Seen { stamp, digest, mode, warnings, suspicions });
        self.sights.push(Sight { name: name_of(path), listing: Some(listing.clone()), read: Ok(keys) });
    }

    fn failed(&mut self, path: &Path, listing: &Listing, fault: KeyFault) {
        if self.patience == Patience::UntilTick {
            return;
        }
        let (digest, mode) = ([0; 32], Mode { owner: 0, group: 0, bits: 0 });
        let seen = Seen { stamp: None, digest, mode, warnings: Vec::new(), suspicions: Vec::new() };
        self.seen.insert(path.to_owned(), seen);
        self.sights.push(Sight { name: name_of(path), listing: Some(listing.clone()), read: Err(fault) });
    }

    /// Each file is a source of its own; one that was taken away counts as replaced. A folder that can't be
    /// read, or holds nothing any more, leaves all as it was.
    fn folder(&mut self, folder: &Path, listing: &Listing) {
        let files = match files_of(folder) {
            Ok(files) => files,
            Err(fault) => return self.failed(folder, listing, fault),
        };
        if self.seen.remove(folder).is_some() {
            self.sights.push(Sight::gone(name_of(folder)));
        }
        for file in &files {
            self.file(file, listing, key::parse);
        }
        let gone = |path: &&PathBuf| path.parent() == Some(folder) && !files.contains(path);
        for path in self.seen.keys().filter(gone).cloned().collect::<Vec<_>>() {
            self.seen.remove(&path);
            self.sights.push(Sight::gone(name_of(&path)));
        }
    }
}

fn name_of(path: &Path) -> SourceName {
    SourceName::new(&path.to_string_lossy())
}

/// Files with a key's ending; hidden ones are Kubernetes' versions and writers' drafts.
fn files_of(folder: &Path) -> Result<Vec<PathBuf>, KeyFault> {
    let entries = std::fs::read_dir(folder).map_err(|error| small_file::fault(&error))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| small_file::fault(&error))?.path();
        if is_key_file(&path) && !path.is_dir() {
            files.push(path);
        }
        if files.len() > FILES_OF_A_FOLDER {
            return Err(KeyFault::TooMany(FILES_OF_A_FOLDER));
        }
    }
    files.sort();
    if files.is_empty() { Err(KeyFault::EmptyFolder) } else { Ok(files) }
}

/// Whether a file of a folder is read, by its name.
pub(super) fn is_key_file(path: &Path) -> bool {
    let is_key = path.extension().is_some_and(|ending| ENDINGS.iter().any(|known| ending == *known));
    let is_hidden = path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'));
    is_key && !is_hidden
}

fn warnings(path: &Path, keys: &[Key], read: &Read, now: UnixTime) -> Vec<Alarm> {
    let alarm = |cause: String, remedy| warning(path, cause, remedy, now);
    let cautions = keys.iter().filter_map(Key::caution).map(|c| alarm(c.to_string(), c.remedy()));
    let mut warnings: Vec<_> = cautions.collect();
    if read.mode.is_world_readable() && keys.iter().any(Key::can_sign) {
        let remedy = "`chown 10000:10000` (core's) and `chmod 640`, or `defaultMode: 0440` with `fsGroup: 10000` in Kubernetes";
        warnings.push(alarm("the private key is readable by the world".to_owned(), remedy));
    }
    warnings
}

fn warning(path: &Path, cause: String, remedy: &'static str, now: UnixTime) -> Alarm {
    let path = path.to_string_lossy().into_owned();
    Alarm { path, cause, remedy, since: now, is_warning: true, forbids_start: false }
}

/// A file that is of use to us and would be none to core: said only while some core can't sign, because it may well
/// be another file than core's. What an operator listed as past or to come is not what core signs with, nor is a JWKS.
fn suspicions(path: &Path, listing: &Listing, keys: &[Key], (mode, now): (Mode, UnixTime)) -> Vec<Alarm> {
    let mut found = Vec::new();
    let is_set = keys.iter().any(|key| key.declared().is_some());
    if is_set || keys.is_empty() || listing.state.is_some_and(|state| state != Listed::Signing) {
        return found;
    }
    if !keys.iter().any(Key::can_sign) {
        let fault = KeyFault::PublicOnly;
        found.push(warning(path, fault.to_string(), fault.remedy(), now));
    } else if !mode.lets(CORE) {
        let Mode { owner, group, bits } = mode;
        let cause =
            format!("core's uid {CORE} may not read the file: it is {owner}:{group}'s, mode {bits:03o}");
        let remedy = "`chown 10000:10000` it, or `fsGroup: 10000` with `defaultMode: 0440` in Kubernetes";
        found.push(warning(path, cause, remedy, now));
    }
    found
}
