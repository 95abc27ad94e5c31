//! The embedded store: one redb file, which one process has open. Its calls block on the disk, so they run on a
//! thread of its own.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, OpenOptions},
    io::{self, ErrorKind},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use crossbeam_channel::{RecvTimeoutError, Sender, TrySendError, bounded};
use redb::{
    Builder, Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, StorageError,
    TableDefinition,
};
use tokio::sync::oneshot;

use super::backend::{Backend, Cursor, Doing, Kept, Page, StoreFault, Write, Written};
use crate::{
    decisions::record::{Kind, Place},
    words::clock::UnixTime,
};

/// `deployment/kind/key` to what [`Kept::write`] makes.
const RECORDS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("records");
/// Bytes of the file that are held in memory.
const CACHE: usize = 8 << 20;
/// Calls that wait for the disk: past it, it doesn't answer.
const JOBS: usize = 32;
/// How long the start waits for it.
const OPENS: Duration = Duration::from_secs(10);
/// What is no store has this before the time in its name's ending.
const ASIDE: &str = "set-aside-";
/// What a broken disk answers (errno(3)).
const EIO: i32 = 5;

/// Why the file can't be used at all.
#[derive(Debug, thiserror::Error)]
pub enum OpenStoreFault {
    #[error("{} is open in another process", .0.display())]
    InUse(PathBuf),
    #[error("{}: {cause}", path.display())]
    Unusable { path: PathBuf, cause: String },
}

impl OpenStoreFault {
    /// What mends it, in words for the operator.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::InUse(_) => {
                "one tidegate has one file: give the second one a file of its own, or both a Redis (store.url)"
            }
            Self::Unusable { .. } => "give store.url a file whose folder this user can write",
        }
    }
}

/// One file.
#[derive(Debug)]
pub struct Embedded {
    name: String,
    jobs: Sender<Job>,
    /// What was in the file's place and is no store: where it was put.
    pub set_aside: Option<PathBuf>,
    /// How many records it holds of each deployment; `None` where it isn't open yet.
    pub holds: Option<BTreeMap<String, usize>>,
}

/// What becomes of a file that was there before and doesn't open now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotNow {
    /// It is an error, but where the disk is full, read-only or broken, or doesn't answer.
    Fault,
    /// It is tried again at each call, whatever the reason.
    Later,
}

type Job = Box<dyn FnOnce(&mut File) + Send>;

/// How a file began.
struct Begun {
    database: Option<Database>,
    set_aside: Option<PathBuf>,
    holds: Option<BTreeMap<String, usize>>,
}

impl Embedded {
    /// Opens the file, and makes it (0600) and its folder (0700) where they aren't there. What isn't a whole store is
    /// set aside under another name, and a new one begun. One that was there, and whose disk is full or read-only now,
    /// is opened when that is over: until then each call fails.
    pub fn open(
        path: &Path,
        deployment: &str,
        now: UnixTime,
        not_now: NotNow,
    ) -> Result<Self, OpenStoreFault> {
        let (jobs, queue) = bounded::<Job>(JOBS);
        let (tell, told) = bounded(1);
        let mut file = File { path: path.to_owned(), prefix: format!("{deployment}/"), database: None };
        let work = move || {
            let (database, told) = match begin(&file.path, now, not_now) {
                Ok(Begun { database, set_aside, holds }) => (database, Ok((set_aside, holds))),
                Err(fault) => (None, Err(fault)),
            };
            file.database = database;
            let is_over = told.is_err();
            // Who opened it waits no more where it took too long: then it is tried again.
            if tell.send(told).is_ok() && is_over {
                return;
            }
            while let Ok(job) = queue.recv() {
                job(&mut file);
            }
        };
        let thread = thread::Builder::new().name("store".into()).spawn(work);
        thread.map_err(|error| unusable(path, &error))?;
        let (set_aside, holds) = match told.recv_timeout(OPENS) {
            Ok(begun) => begun?,
            Err(RecvTimeoutError::Timeout) => (None, None),
            Err(RecvTimeoutError::Disconnected) => return Err(unusable(path, &"redb gave up on it")),
        };
        Ok(Self { name: path.display().to_string(), jobs, set_aside, holds })
    }

    /// Whether it is known to hold nothing, of any deployment.
    pub fn is_empty(&self) -> bool {
        self.holds.as_ref().is_some_and(BTreeMap::is_empty)
    }

    fn ask<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut File) -> Result<T, redb::Error> + Send + 'static,
    ) -> Doing<'_, T> {
        let (done, result) = oneshot::channel();
        let job = move |file: &mut File| {
            // Whoever asked may have left: then it is asked again, or of no use.
            if !done.is_closed() {
                let _ = done.send(file.try_job(job));
            }
        };
        let asked = self.jobs.try_send(Box::new(job)).map_err(|error| match error {
            TrySendError::Full(_) => StoreFault::Unavailable("the disk doesn't answer".to_owned()),
            TrySendError::Disconnected(_) => gone(),
        });
        Box::pin(async move {
            asked?;
            result.await.map_err(|_| gone())?
        })
    }
}

fn begin(path: &Path, now: UnixTime, not_now: NotNow) -> Result<Begun, OpenStoreFault> {
    let unusable = |error: &io::Error| unusable(path, error);
    let was_there = path.metadata().is_ok_and(|about| about.len() > 0);
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    if let Some(folder) = folder.filter(|_| !was_there) {
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|error| unusable(&error))?;
    }
    let (opened, set_aside) = match database(path) {
        Err(Opening::Torn) => {
            let aside = path.with_extension(format!("{ASIDE}{}", now.0));
            fs::rename(path, &aside).map_err(|error| unusable(&error))?;
            (database(path), Some(aside))
        }
        opened => (opened, None),
    };
    match opened {
        Ok(database) => {
            let holds = holds(&database).map_err(|error| self::unusable(path, &error))?;
            Ok(Begun { database: Some(database), set_aside, holds: Some(holds) })
        }
        // It served before, so that this is no mistake of who configured it, and it may come back.
        Err(opening) if was_there && (not_now == NotNow::Later || matches!(opening, Opening::Disk(_))) => {
            Ok(Begun { database: None, set_aside, holds: None })
        }
        Err(opening) => Err(opening.fault(path)),
    }
}

fn holds(database: &Database) -> Result<BTreeMap<String, usize>, redb::Error> {
    let mut holds = BTreeMap::new();
    for record in database.begin_read()?.open_table(RECORDS)?.iter()? {
        let (name, _) = record?;
        let deployment = name.value().split('/').next().unwrap_or_default();
        match holds.get_mut(deployment) {
            Some(count) => *count += 1,
            None => drop(holds.insert(deployment.to_owned(), 1)),
        }
    }
    Ok(holds)
}

/// What was set aside and is still beside the file: what it held is gone as long as nobody has seen to it.
pub fn set_aside(path: &Path) -> Option<PathBuf> {
    let beginning = format!("{}.{ASIDE}", path.file_stem()?.to_str()?);
    let entries = fs::read_dir(path.parent()?).ok()?;
    let names = entries.map_while(Result::ok).map(|entry| entry.path());
    names.filter(|name| name.file_name().is_some_and(|n| n.to_string_lossy().starts_with(&beginning))).min()
}

fn gone() -> StoreFault {
    StoreFault::Unavailable("its thread has ended".to_owned())
}

fn unusable(path: &Path, cause: &impl ToString) -> OpenStoreFault {
    OpenStoreFault::Unusable { path: path.to_owned(), cause: cause.to_string() }
}

/// Why a file didn't open.
enum Opening {
    InUse,
    /// It is no store, or not a whole one.
    Torn,
    /// The disk is full, read-only or broken.
    Disk(String),
    Other(String),
}

impl Opening {
    fn fault(self, path: &Path) -> OpenStoreFault {
        match self {
            Self::InUse => OpenStoreFault::InUse(path.to_owned()),
            Self::Torn => unusable(path, &"it can't be begun anew"),
            Self::Disk(cause) | Self::Other(cause) => unusable(path, &cause),
        }
    }

    fn of(error: &io::Error) -> Self {
        match error.kind() {
            ErrorKind::InvalidData | ErrorKind::UnexpectedEof => Self::Torn,
            ErrorKind::StorageFull
            | ErrorKind::QuotaExceeded
            | ErrorKind::ReadOnlyFilesystem
            | ErrorKind::FileTooLarge => Self::Disk(error.to_string()),
            _ if error.raw_os_error() == Some(EIO) => Self::Disk(error.to_string()),
            _ => Self::Other(error.to_string()),
        }
    }
}

fn database(path: &Path) -> Result<Database, Opening> {
    let other = |error: &dyn ToString| Opening::Other(error.to_string());
    // redb would make it by the umask alone.
    let made = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    made.map_err(|error| Opening::of(&error))?;
    // What a disk made of the file may well be something that redb never thought of.
    let opened = catch_unwind(AssertUnwindSafe(|| {
        Builder::new().set_cache_size(CACHE).set_check_integrity_on_open(true).create(path)
    }));
    let database = opened.map_err(|_| Opening::Torn)?.map_err(|error| match error {
        DatabaseError::DatabaseAlreadyOpen => Opening::InUse,
        DatabaseError::Storage(StorageError::Corrupted(_)) => Opening::Torn,
        DatabaseError::Storage(StorageError::Io(error)) => Opening::of(&error),
        error => other(&error),
    })?;
    let table = || -> Result<(), redb::Error> {
        let write = database.begin_write()?;
        write.open_table(RECORDS)?;
        Ok(write.commit()?)
    };
    match table() {
        Ok(()) => Ok(database),
        // A store of something else's.
        Err(redb::Error::TableTypeMismatch { .. } | redb::Error::TableIsMultimap(_)) => Err(Opening::Torn),
        Err(redb::Error::Io(error)) => Err(Opening::of(&error)),
        Err(error) => Err(other(&error)),
    }
}

/// The file, as its thread has it.
struct File {
    path: PathBuf,
    prefix: String,
    /// `None` after a disk failed under it: it is opened again at the next call.
    database: Option<Database>,
}

impl File {
    fn try_job<T>(&mut self, job: impl FnOnce(&mut Self) -> Result<T, redb::Error>) -> Result<T, StoreFault> {
        if self.database.is_none() {
            self.database =
                Some(database(&self.path).map_err(|opening| unavailable(&opening.fault(&self.path)))?);
        }
        let done = catch_unwind(AssertUnwindSafe(|| job(self)));
        let failed = match done {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(error)) => unavailable(&error),
            Err(_) => StoreFault::Unavailable("redb gave up on the file".to_owned()),
        };
        // After a failure of the disk redb takes no more calls until it is opened anew.
        self.database = None;
        Err(failed)
    }

    fn opened(&self) -> Result<&Database, redb::Error> {
        self.database.as_ref().ok_or(redb::Error::DatabaseClosed)
    }

    fn name(&self, kind: Kind, key: &str) -> String {
        format!("{}{}/{key}", self.prefix, kind.name())
    }

    fn get(&self, place: &Place) -> Result<Option<Vec<u8>>, redb::Error> {
        let table = self.opened()?.begin_read()?.open_table(RECORDS)?;
        Ok(table.get(&*self.name(place.kind, &place.key))?.map(|bytes| bytes.value().to_vec()))
    }

    /// All in one transaction, on the disk when this comes back.
    fn put(&self, writes: Vec<Write>) -> Result<Vec<Written>, redb::Error> {
        let transaction = self.opened()?.begin_write()?;
        let mut all = Vec::with_capacity(writes.len());
        {
            let mut table = transaction.open_table(RECORDS)?;
            for write in writes {
                let name = self.name(write.place.kind, &write.place.key);
                let present = table.get(&*name)?.map(|bytes| generation(bytes.value()));
                let met = write.meets(present);
                match (&met, write.kept) {
                    (Written::Done, Some(kept)) => drop(table.insert(&*name, &*kept.write())?),
                    (Written::Done, None) => drop(table.remove(&*name)?),
                    (Written::Other(_) | Written::Refused(_), _) => {}
                }
                all.push(met);
            }
        }
        transaction.commit()?;
        Ok(all)
    }

    fn page(&self, kind: Kind, from: &str, about: usize) -> Result<Vec<(String, Vec<u8>)>, redb::Error> {
        let table = self.opened()?.begin_read()?.open_table(RECORDS)?;
        let (prefix, begin) = (self.name(kind, ""), self.name(kind, from));
        let mut found = Vec::new();
        for record in table.range::<&str>(&*begin..)? {
            let (name, bytes) = record?;
            let Some(key) = name.value().strip_prefix(&prefix) else { break };
            if key != from || from.is_empty() {
                found.push((key.to_owned(), bytes.value().to_vec()));
            }
            if found.len() == about {
                break;
            }
        }
        Ok(found)
    }
}

/// Of what is no record the generation that nobody writes over.
fn generation(bytes: &[u8]) -> u64 {
    Kept::read(bytes).map_or(u64::MAX, |kept| kept.generation)
}

fn unavailable(error: &dyn std::error::Error) -> StoreFault {
    StoreFault::Unavailable(crate::edges::alarm::cause(error))
}

impl Backend for Embedded {
    fn get<'a>(&'a self, place: &'a Place) -> Doing<'a, Option<Kept>> {
        let of = place.clone();
        let bytes = self.ask(move |file| file.get(&of));
        Box::pin(async move { bytes.await?.map(|bytes| Kept::read(&bytes)).transpose() })
    }

    fn put(&self, writes: Vec<Write>) -> Doing<'_, Vec<Written>> {
        self.ask(move |file| file.put(writes))
    }

    fn page<'a>(&'a self, kind: Kind, from: Option<&'a Cursor>, about: usize) -> Doing<'a, Page> {
        let begin = from.map_or_else(String::new, |cursor| cursor.0.clone());
        let found = self.ask(move |file| file.page(kind, &begin, about));
        Box::pin(async move {
            let found = found.await?;
            let next = found.last().filter(|_| found.len() == about).map(|(key, _)| Cursor(key.clone()));
            let mut page = Page { next, ..Page::default() };
            for (key, bytes) in found {
                match Kept::read(&bytes) {
                    Ok(kept) => page.records.push((key, kept)),
                    Err(_) => page.junk.push(key),
                }
            }
            Ok(page)
        })
    }

    fn revision(&self, _: Kind) -> Doing<'_, u64> {
        self.ask(|file| {
            file.opened()?.begin_read()?;
            Ok(0)
        })
    }

    fn is_shared(&self) -> bool {
        false
    }

    fn name(&self) -> &str {
        &self.name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(key: &str) -> Vec<Write> {
        let kept = Kept { generation: 1, expires: None, sealed: b"x".to_vec() };
        vec![Write { place: Place::new(Kind::Grant, key), over: None, kept: Some(kept) }]
    }

    #[tokio::test]
    async fn a_disk_that_hangs_is_given_so_many_calls_and_those_that_nobody_waits_for_are_not_made() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Embedded::open(&folder.path().join("store.redb"), "d", UnixTime(1), NotNow::Fault);
        let store = store.expect("the store opens");
        let (answer, disk) = bounded::<()>(0);
        let hangs = store.ask(move |_| {
            let _ = disk.recv();
            Ok(())
        });
        let mut asked = Vec::new();
        let refused = loop {
            assert!(asked.len() <= JOBS, "one that the disk has, and those that wait");
            let mut asks = store.put(write("left"));
            match futures_util::poll!(&mut asks) {
                std::task::Poll::Ready(refused) => break refused,
                std::task::Poll::Pending => asked.push(asks),
            }
        };
        assert_eq!(refused, Err(StoreFault::Unavailable("the disk doesn't answer".to_owned())));
        drop(asked);
        answer.send(()).expect("it waits");
        assert_eq!(hangs.await, Ok(()));
        // The queue is in order: the others have had their turn.
        let place = Place::new(Kind::Grant, "left");
        let found = async {
            loop {
                match store.get(&place).await {
                    Err(_) => tokio::task::yield_now().await,
                    Ok(found) => break found,
                }
            }
        };
        let found = tokio::time::timeout(Duration::from_secs(30), found).await.expect("the disk is back");
        assert_eq!(found, None, "whoever asked had left");
        assert_eq!(store.put(write("kept")).await, Ok(vec![Written::Done]));
    }
}
