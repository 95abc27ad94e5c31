//! `tidegate keys back-up` and `restore`. Private halves go between the key files and the archive alone; the running
//! tidegate is asked for what only it knows, and told what it should know.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow, bail};
use aws_lc_rs::rand;
use clap::Args;

use super::{
    Failure,
    ask::{Which, block_on},
    output,
};
use crate::{
    app::admin::{self, Archivable, Restored, client::Client},
    decisions::{
        archive::{
            Archive, KeptFile,
            envelope::{self, ITERATIONS, Passphrase, SALT, SHORTEST_PASSPHRASE, Secret},
        },
        key::{self, Key},
        record::seal::SealKey,
    },
    edges::{
        small_file::{self, Mode},
        whole_file,
    },
    words::{
        clock::{Clock, UnixTime},
        file_fault::FileFault,
    },
};

/// Bytes of the longest archive that is read.
const LONGEST: u64 = 64 << 20;
/// What holds private halves and has no owner of its own.
const FOR_US_ALONE: u32 = 0o600;

/// What seals the archive: never a word of the command line, which others can read.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct Sealing {
    /// The file with a passphrase of at least 12 characters
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// The file with a key: (umask 077; openssl rand -base64 32 > FILE)
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(override_usage = "tidegate keys back-up --passphrase-file|--key-file <FILE> <ARCHIVE>")]
pub(super) struct BackUp {
    /// The archive; a file that is there is never overwritten
    #[arg(value_name = "ARCHIVE")]
    file: PathBuf,
    #[command(flatten)]
    sealing: Sealing,
    #[command(flatten)]
    which: Which,
}

#[derive(Debug, Args)]
#[command(override_usage = "tidegate keys restore --passphrase-file|--key-file <FILE> <ARCHIVE>")]
pub(super) struct Restore {
    /// The archive
    #[arg(value_name = "ARCHIVE")]
    file: PathBuf,
    #[command(flatten)]
    sealing: Sealing,
    /// Say what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Write its key files into this folder and do nothing else, for keys that are mounted from a Secret or on another
    /// machine; no tidegate is asked
    #[arg(long, value_name = "FOLDER")]
    to: Option<PathBuf>,
    #[command(flatten)]
    which: Which,
}

impl Sealing {
    fn secret(&self) -> anyhow::Result<Secret> {
        let read = |path: &Path| {
            small_file::read(path).map_err(|fault| anyhow!("{}: {fault}; {}", path.display(), fault.remedy()))
        };
        if let Some(path) = &self.key_file {
            let key = SealKey::parse(&read(path)?.bytes).map_err(|fault| {
                anyhow!("{}: {fault}; make one: (umask 077; openssl rand -base64 32 > FILE)", path.display())
            });
            return Ok(Secret::Key(key?));
        }
        let path = self.passphrase_file.as_deref().context("no passphrase and no key")?;
        let passphrase = Passphrase::parse(&read(path)?.bytes);
        passphrase.map(Secret::Passphrase).with_context(|| {
            format!("{}: a passphrase has {SHORTEST_PASSPHRASE} characters or more", path.display())
        })
    }
}

impl BackUp {
    pub(super) fn run(self) -> Result<u8, Failure> {
        let secret = self.sealing.secret()?;
        let client = self.which.client()?;
        let here: Archivable = block_on(client.get("/v1/keys/archivable"))?;
        let files = here.files.iter().map(|path| kept(path)).collect::<anyhow::Result<Vec<_>>>()?;
        let archive =
            Archive { deployment: here.deployment, made: Clock::system().now(), files, known: here.known };
        let mut salt = [0; SALT];
        rand::fill(&mut salt).map_err(|_| anyhow!("there is no randomness"))?;
        let sealed =
            envelope::seal(&archive.write(), &secret, salt, ITERATIONS).map_err(anyhow::Error::from)?;
        let shown = self.file.display();
        whole_file::create(&self.file, &sealed).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => anyhow!("{shown} is there already; name another file"),
            _ => anyhow!(
                "{shown} was not written: {error}; name a file in a folder that this user may write to"
            ),
        })?;
        let contents = contents(&archive) + &left_out(&here.tokens);
        Ok(output::print(&format!("{shown} is written, for its owner alone\n{contents}")))
    }
}

/// Byte for byte: core wants its file as it was.
fn kept(path: &str) -> anyhow::Result<KeptFile> {
    let read = small_file::read(Path::new(path)).map_err(|fault| {
        let remedy = match fault {
            FileFault::Missing => "run this where tidegate runs: it reads this file",
            ref fault => fault.remedy(),
        };
        anyhow!("nothing was written: {path}: {fault}; {remedy}")
    })?;
    let Mode { owner, group, bits } = read.mode;
    let file = KeptFile { path: path.to_owned(), bytes: read.bytes, owner, group, bits };
    let parsed = file.keys().map(|_| ());
    parsed.map_err(|fault| anyhow!("nothing was written: {path}: {fault}; {}", fault.remedy()))?;
    Ok(file)
}

fn contents(archive: &Archive) -> String {
    let mut text = String::new();
    for file in &archive.files {
        let _ = writeln!(text, "{}\n    {}", file.path, ids(&file.keys().unwrap_or_default()));
    }
    let (seen, retired) = (archive.known.seen.len(), archive.known.retired.len());
    let _ = writeln!(text, "keys seen: {seen}, retired at once: {retired}");
    text
}

/// What no archive can hold is said, so that nobody relies on it.
fn left_out(tokens: &[String]) -> String {
    let line =
        |token: &String| format!("{token}\n    is not in it: its private half never leaves the token\n");
    tokens.iter().map(line).collect()
}

/// One below the other.
fn ids(keys: &[Key]) -> String {
    keys.iter().map(|key| key.kid().as_str()).collect::<Vec<_>>().join("\n    ")
}

impl Restore {
    pub(super) fn run(self) -> Result<u8, Failure> {
        let shown = self.file.display();
        let sealed = read_archive(&self.file).with_context(|| format!("{shown} can't be read"))?;
        let opened = envelope::open(&sealed, &self.sealing.secret()?);
        let plain =
            opened.map_err(|fault| anyhow!("{shown}: {fault}; {}. Nothing was changed", fault.remedy()))?;
        let archive =
            Archive::read(&plain).map_err(|fault| anyhow!("{shown}: {fault}. Nothing was changed"))?;
        let mut said = format!("{shown}, made at {}\n", archive.made.rfc3339());
        let (done, left_out) = match &self.to {
            Some(folder) => extract(&archive, folder, self.dry_run)?,
            None => put_back(&archive, &self.which.client()?, self.dry_run)?,
        };
        said += &done;
        if left_out > 0 {
            let _ = writeln!(said, "not all of it: files that are left out: {left_out}");
        }
        if self.dry_run {
            said += "nothing was changed (--dry-run)\n";
        }
        Ok(output::print(&said).max(u8::from(left_out > 0)))
    }
}

fn read_archive(path: &Path) -> io::Result<Vec<u8>> {
    use io::Read as _;
    let file = std::fs::File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut bytes = Vec::new();
    file.take(LONGEST).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What becomes of one file.
enum Step<'a> {
    /// It holds the very bytes.
    Same,
    Replace {
        held: String,
    },
    Make,
    /// A key of it was retired at once.
    LeftOut(&'a str),
}

fn step<'a>(file: &KeptFile, present: Option<&[u8]>, banned: &'a BTreeSet<String>) -> Step<'a> {
    let keys = file.keys().unwrap_or_default();
    if let Some(kid) = keys.iter().find_map(|key| banned.get(key.kid().as_str())) {
        return Step::LeftOut(kid);
    }
    match present {
        Some(bytes) if *bytes == **file.bytes => Step::Same,
        Some(bytes) => {
            Step::Replace { held: key::parse(bytes).map_or("no key".to_owned(), |keys| ids(&keys)) }
        }
        None => Step::Make,
    }
}

fn line(file: &KeptFile, step: &Step<'_>) -> String {
    let KeptFile { path, owner, group, bits, .. } = file;
    let becomes = ids(&file.keys().unwrap_or_default());
    match step {
        Step::Same => format!("{path}\n  holds the same\n    {becomes}\n"),
        Step::LeftOut(kid) => format!("{path}\n  is left out: this key was retired at once\n    {kid}\n"),
        Step::Make => format!("{path}\n  is made ({owner}:{group}, mode {bits:03o}), with\n    {becomes}\n"),
        Step::Replace { held } => format!(
            "{path}\n  holds\n    {held}\n  and gets ({owner}:{group}, mode {bits:03o})\n    {becomes}\n"
        ),
    }
}

/// All that can be refused is refused before the first change. What was done, and how many files were left out.
fn put_back(archive: &Archive, client: &Client, dry_run: bool) -> anyhow::Result<(String, usize)> {
    let tell = |dry_run| -> anyhow::Result<Restored> {
        let asked =
            admin::Restore { deployment: archive.deployment.clone(), known: archive.known.clone(), dry_run };
        block_on(client.post_json("/v1/keys/restore", &asked))
    };
    let would = tell(true).context("nothing was changed")?;
    let banned: BTreeSet<String> = would.banned.iter().cloned().collect();
    let mut steps = Vec::new();
    for file in &archive.files {
        let present = present(&file.path)?;
        let step = step(file, present.as_ref().map(|bytes| bytes.as_slice()), &banned);
        if matches!(step, Step::Make | Step::Replace { .. }) {
            may_write(file)?;
        }
        steps.push((file, step));
    }
    if !dry_run {
        tell(false).context("nothing was changed")?;
    }
    let mut said = String::new();
    for (file, step) in &steps {
        if !dry_run && matches!(step, Step::Make | Step::Replace { .. }) {
            let mode = Mode { owner: file.owner, group: file.group, bits: file.bits };
            whole_file::replace(Path::new(&file.path), &file.bytes, mode).with_context(|| {
                format!("{} was not written, and of the archive only this was restored:\n{said}", file.path)
            })?;
        }
        said += &line(file, step);
    }
    let left_out = steps.iter().filter(|(_, step)| matches!(step, Step::LeftOut(_))).count();
    Ok((said + &known(&would), left_out))
}

fn present(path: &str) -> anyhow::Result<Option<zeroize::Zeroizing<Vec<u8>>>> {
    match small_file::read(Path::new(path)) {
        Ok(read) => Ok(Some(read.bytes)),
        Err(FileFault::Missing) => Ok(None),
        Err(FileFault::Empty) => Ok(Some(zeroize::Zeroizing::default())),
        Err(fault) => bail!("nothing was changed: {path}: {fault}; {}", fault.remedy()),
    }
}

fn may_write(file: &KeptFile) -> anyhow::Result<()> {
    let (path, mode) =
        (Path::new(&file.path), Mode { owner: file.owner, group: file.group, bits: file.bits });
    if path.is_symlink() {
        bail!(
            "nothing was changed: {} is a link, as in a mounted Secret: write the files elsewhere with --to FOLDER, and the Secret from there",
            file.path
        );
    }
    whole_file::can_replace(path, mode).with_context(|| {
        format!(
            "nothing was changed: {} can't be replaced by this user; run this as root (it was {}:{}'s), or write the files elsewhere with --to FOLDER",
            file.path, file.owner, file.group
        )
    })
}

fn known(restored: &Restored) -> String {
    let mut text = String::new();
    for kid in &restored.retired {
        let _ = writeln!(text, "retired at once\n    {kid}");
    }
    if restored.revoked > 0 {
        let _ = writeln!(text, "users and tokens revoked: {}", restored.revoked);
    }
    for window in &restored.windows {
        let _ = writeln!(text, "verifies until {}\n    {}", UnixTime(window.until).rfc3339(), window.kid);
    }
    text
}

fn extract(archive: &Archive, folder: &Path, dry_run: bool) -> anyhow::Result<(String, usize)> {
    let (_, retired) = archive.known.read().map_err(anyhow::Error::from)?;
    let banned: BTreeSet<String> = retired.iter().map(|key| key.kid().to_string()).collect();
    if !folder.is_dir() {
        bail!("nothing was written: {} is no folder; make it first", folder.display());
    }
    let mut steps: Vec<(PathBuf, &KeptFile, Step<'_>)> = Vec::new();
    for file in &archive.files {
        let name = Path::new(&file.path).file_name().context("a file of the archive has no name")?;
        let path = folder.join(name);
        if path.exists() || steps.iter().any(|(other, ..)| *other == path) {
            bail!("nothing was written: {} is there already; name an empty folder", path.display());
        }
        steps.push((path, file, step(file, None, &banned)));
    }
    let mut said = String::new();
    for (path, file, step) in &steps {
        if let Step::LeftOut(_) = step {
            said += &line(file, step);
            continue;
        }
        if !dry_run {
            whole_file::create(path, &file.bytes)
                .with_context(|| format!("{} was not written", path.display()))?;
        }
        let KeptFile { path: from, owner, group, bits, .. } = file;
        let ids = ids(&file.keys().unwrap_or_default());
        let _ = writeln!(
            said,
            "{}\n  mode {FOR_US_ALONE:03o}; it was {from}\n  ({owner}:{group}, mode {bits:03o})\n    {ids}",
            path.display()
        );
    }
    let left_out = steps.iter().filter(|(.., step)| matches!(step, Step::LeftOut(_))).count();
    Ok((said, left_out))
}
