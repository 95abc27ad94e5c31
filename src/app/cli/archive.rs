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
use zeroize::Zeroizing;

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

    /// What an operator should know of the secret's file.
    fn caution(&self) -> String {
        let path = self.key_file.as_ref().or(self.passphrase_file.as_ref());
        let is_open =
            |path: &&PathBuf| small_file::read(path).is_ok_and(|read| read.mode.is_world_readable());
        path.filter(is_open).map_or_else(String::new, |path| {
            format!("{}\n  is readable by the world: chmod o-r\n", path.display())
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
        if sealed.len() as u64 > LONGEST {
            let fault = anyhow!("nothing was written: {}; name fewer files in keys.sources", too_long());
            return Err(fault.into());
        }
        whole_file::create(&self.file, &sealed).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => anyhow!("{shown} is there already; name another file"),
            _ => anyhow!(
                "{shown} was not written: {error}; name a file in a folder that this user may write to"
            ),
        })?;
        let contents = contents(&archive) + &left_out(&here.tokens) + &self.sealing.caution();
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
        let sealed = read_archive(&self.file)
            .map_err(|fault| anyhow!("{shown} can't be read: {fault}. Nothing was changed"))?;
        let opened = envelope::open(&sealed, &self.sealing.secret()?);
        let plain =
            opened.map_err(|fault| anyhow!("{shown}: {fault}; {}. Nothing was changed", fault.remedy()))?;
        let archive =
            Archive::read(&plain).map_err(|fault| anyhow!("{shown}: {fault}. Nothing was changed"))?;
        let mut said = format!("{shown}, made at {}\n", archive.made.rfc3339());
        let (done, left_out, unsettled) = match &self.to {
            Some(folder) => {
                let (done, left_out) = extract(&archive, folder, self.dry_run)?;
                (done, left_out, None)
            }
            None => put_back(&archive, &self.which.client()?, self.dry_run)?,
        };
        said += &done;
        if let Some(why) = &unsettled {
            let _ = writeln!(said, "it is restored here, but {why}");
        }
        if left_out > 0 {
            let _ = writeln!(said, "not all of it: files that are left out: {left_out}");
        }
        said += &self.sealing.caution();
        if self.dry_run {
            said += "nothing was changed (--dry-run)\n";
        }
        Ok(output::print(&said).max(u8::from(left_out > 0 || unsettled.is_some())))
    }
}

fn read_archive(path: &Path) -> anyhow::Result<Vec<u8>> {
    use io::Read as _;
    let (file, _) = small_file::open(path, LONGEST).map_err(|fault| match fault {
        FileFault::TooLarge => anyhow!(too_long()),
        fault => anyhow!("{fault}; {}", fault.remedy()),
    })?;
    let mut bytes = Vec::new();
    file.take(LONGEST).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn too_long() -> String {
    format!("no archive has more than {} MiB", LONGEST >> 20)
}

/// What becomes of one file.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// It holds the very bytes, and core may read it as it might.
    Same,
    /// It holds the very bytes, for another owner or with another mode.
    Give,
    Replace {
        held: String,
    },
    Make,
    /// A key of it was retired at once.
    LeftOut(String),
}

impl Step {
    const fn writes(&self) -> bool {
        matches!(self, Self::Give | Self::Replace { .. } | Self::Make)
    }
}

/// What is there now: its bytes and who may read them.
type Present = Option<(Zeroizing<Vec<u8>>, Mode)>;

fn step(file: &KeptFile, present: &Present, banned: &BTreeSet<String>) -> Step {
    let keys = file.keys().unwrap_or_default();
    if let Some(kid) = keys.iter().find_map(|key| banned.get(key.kid().as_str())) {
        return Step::LeftOut(kid.clone());
    }
    match present {
        Some((bytes, mode)) if **bytes == **file.bytes => {
            if *mode == mode_of(file) {
                Step::Same
            } else {
                Step::Give
            }
        }
        Some((bytes, _)) => {
            Step::Replace { held: key::parse(bytes).map_or("no key".to_owned(), |keys| ids(&keys)) }
        }
        None => Step::Make,
    }
}

/// As the file was, but that the world may never write it, and that it is nothing to run as somebody else.
fn mode_of(file: &KeptFile) -> Mode {
    Mode { owner: file.owner, group: file.group, bits: file.bits & 0o775 }
}

fn line(file: &KeptFile, step: &Step) -> String {
    let path = &file.path;
    let Mode { owner, group, bits } = mode_of(file);
    let becomes = ids(&file.keys().unwrap_or_default());
    match step {
        Step::Same => format!("{path}\n  holds the same\n    {becomes}\n"),
        Step::Give => {
            format!(
                "{path}\n  holds the same, and is given to ({owner}:{group}, mode {bits:03o})\n    {becomes}\n"
            )
        }
        Step::LeftOut(kid) => format!("{path}\n  is left out: this key was retired at once\n    {kid}\n"),
        Step::Make => format!("{path}\n  is made ({owner}:{group}, mode {bits:03o}), with\n    {becomes}\n"),
        Step::Replace { held } => format!(
            "{path}\n  holds\n    {held}\n  and gets ({owner}:{group}, mode {bits:03o})\n    {becomes}\n"
        ),
    }
}

/// All that can be refused is refused before the first change. What was done, how many files were left out, and why what
/// was ended isn't known everywhere.
fn put_back(
    archive: &Archive,
    client: &Client,
    dry_run: bool,
) -> anyhow::Result<(String, usize, Option<String>)> {
    let files: Vec<String> = archive.files.iter().map(|file| file.path.clone()).collect();
    let tell = |dry_run| -> anyhow::Result<Restored> {
        let (deployment, known) = (archive.deployment.clone(), archive.known.clone());
        let asked = admin::Restore { deployment, known, dry_run, files: files.clone() };
        let changed = if dry_run { "nothing was changed" } else { "no file was changed" };
        block_on(client.post_json("/v1/keys/restore", &asked)).context(changed)
    };
    let mut told = tell(true)?;
    if !told.strangers.is_empty() {
        bail!(
            "nothing was changed: this tidegate reads no keys from {}: add it to keys.sources, or write the files elsewhere with --to FOLDER",
            told.strangers.join(", ")
        );
    }
    let mut found = Vec::new();
    for file in &archive.files {
        found.push((file, present(&file.path)?));
    }
    for (file, step) in steps(&found, &told) {
        if step.writes() {
            may_write(file)?;
        }
    }
    if !dry_run {
        // What was retired in the meantime counts.
        told = tell(false)?;
    }
    let steps = steps(&found, &told);
    let mut said = String::new();
    for (file, step) in &steps {
        if !dry_run {
            // Also where nothing is to be written any more: a restore that was killed has written it.
            whole_file::clear_beside(Path::new(&file.path));
        }
        if !dry_run && step.writes() {
            whole_file::replace(Path::new(&file.path), &file.bytes, mode_of(file)).with_context(|| {
                format!("{} was not written, and of the archive only this was restored:\n{said}", file.path)
            })?;
        }
        said += &line(file, step);
    }
    let left_out = steps.iter().filter(|(_, step)| matches!(step, Step::LeftOut(_))).count();
    Ok((said + &known(&told), left_out, told.unsettled))
}

fn steps<'a>(found: &[(&'a KeptFile, Present)], told: &Restored) -> Vec<(&'a KeptFile, Step)> {
    let banned: BTreeSet<String> = told.banned.iter().cloned().collect();
    found.iter().map(|(file, present)| (*file, step(file, present, &banned))).collect()
}

fn present(path: &str) -> anyhow::Result<Present> {
    match small_file::read(Path::new(path)) {
        Ok(read) => Ok(Some((read.bytes, read.mode))),
        Err(FileFault::Missing) => Ok(None),
        // Who may read it is of no use to know.
        Err(FileFault::Empty) => {
            Ok(Some((Zeroizing::default(), Mode { owner: u32::MAX, group: u32::MAX, bits: 0 })))
        }
        Err(fault) => bail!("nothing was changed: {path}: {fault}; {}", fault.remedy()),
    }
}

fn may_write(file: &KeptFile) -> anyhow::Result<()> {
    let (path, mode) = (Path::new(&file.path), mode_of(file));
    if path.is_symlink() {
        bail!(
            "nothing was changed: {} is a link, as in a mounted Secret: write the files elsewhere with --to FOLDER, and the Secret from there",
            file.path
        );
    }
    if whole_file::is_mount_point(path) {
        bail!(
            "nothing was changed: {} is mounted by itself, as one file of a container: write the files elsewhere with --to FOLDER, from there to where it is mounted from, and restart core and tidegate",
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
    let mut steps: Vec<(PathBuf, &KeptFile, Step)> = Vec::new();
    for (name, file) in names(&archive.files)?.into_iter().zip(&archive.files) {
        let path = folder.join(name);
        if path.exists() {
            bail!("nothing was written: {} is there already; name an empty folder", path.display());
        }
        steps.push((path, file, step(file, &None, &banned)));
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

/// A name in one folder for each file: its own, and with a number where others have that too.
fn names(files: &[KeptFile]) -> anyhow::Result<Vec<PathBuf>> {
    let mut names: Vec<PathBuf> = Vec::new();
    for file in files {
        let own = Path::new(&file.path);
        let name = own.file_name().context("a file of the archive has no name")?;
        let stem = own.file_stem().unwrap_or(name).to_string_lossy();
        let numbered = |number: usize| match own.extension() {
            Some(ending) => PathBuf::from(format!("{stem}-{number}.{}", ending.to_string_lossy())),
            None => PathBuf::from(format!("{stem}-{number}")),
        };
        let mut candidates = std::iter::once(PathBuf::from(name)).chain((2..).map(numbered));
        names.extend(candidates.find(|name| !names.contains(name)));
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decisions::key::forge::rsa;

    fn file(path: &str, key: usize, bits: u32) -> KeptFile {
        let bytes = Zeroizing::new(rsa(key).pkcs1_pem().into_bytes());
        KeptFile { path: path.to_owned(), bytes, owner: 10_000, group: 10_001, bits }
    }

    #[test]
    fn a_file_is_left_alone_only_where_core_may_read_it_as_it_might() {
        let none = BTreeSet::new();
        let kept = file("/k", 0, 0o4666);
        let mode = |owner, bits| Mode { owner, group: 10_001, bits };
        let present = |key, mode| Some((file("/k", key, 0).bytes, mode));
        assert_eq!(mode_of(&kept), mode(10_000, 0o664), "for nobody in the world to write");
        for (found, expected) in [
            (None, Step::Make),
            (present(0, mode(10_000, 0o664)), Step::Same),
            (present(0, mode(10_000, 0o600)), Step::Give),
            (present(0, mode(0, 0o664)), Step::Give),
            (present(1, mode(10_000, 0o664)), Step::Replace { held: rsa(1).key().kid().to_string() }),
        ] {
            assert_eq!(step(&kept, &found, &none), expected);
        }
    }

    #[test]
    fn a9_what_is_retired_while_an_archive_is_restored_is_left_out() {
        let (first, second) = (file("/a", 0, 0o600), file("/b", 1, 0o600));
        let found = [(&first, None), (&second, None)];
        let told = |banned: &[usize]| {
            let banned = banned.iter().map(|key| rsa(*key).key().kid().to_string()).collect();
            let told = Restored { banned, ..Restored::default() };
            steps(&found, &told).into_iter().map(|(_, step)| step).collect::<Vec<_>>()
        };
        assert_eq!(told(&[]), [Step::Make, Step::Make]);
        assert_eq!(told(&[1]), [Step::Make, Step::LeftOut(rsa(1).key().kid().to_string())]);
    }

    #[test]
    fn files_of_one_name_get_a_number() {
        let files = ["/x/core.pem", "/y/core.pem", "/z/core.pem", "/core-2.pem", "/x/key", "/y/key"];
        let files = files.map(|path| file(path, 0, 0o600));
        let names = names(&files).expect("names");
        let expected =
            ["core.pem", "core-2.pem", "core-3.pem", "core-2-2.pem", "key", "key-2"].map(PathBuf::from);
        assert_eq!(names, expected);
    }
}
