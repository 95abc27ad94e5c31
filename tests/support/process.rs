//! Programs that run: to their end with a deadline, or in the background until dropped.

use super::waiting;
use std::{
    cell::RefCell,
    fmt,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// How long a program may take to end after SIGTERM before it is killed.
const GRACE: Duration = Duration::from_secs(5);
/// How much of a program's output a failure shows, from its end.
const SHOWN_BYTES: usize = 6_000;

/// A command that failed, with what it said.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Program and arguments.
    pub command: String,
    /// Its exit status, or that its deadline passed.
    pub status: String,
    /// What it wrote, the end of it.
    pub output: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}\n{}", self.command, self.status, self.output.trim_end())
    }
}

impl std::error::Error for Failure {}

thread_local! {
    /// What ends the commands of this thread before their time.
    static END: RefCell<Option<Arc<AtomicBool>>> = const { RefCell::new(None) };
}

/// Has every command that `act` runs on this thread ended as soon as `end` is set, and none begun after that.
pub fn until_end_of<T>(end: &Arc<AtomicBool>, act: impl FnOnce() -> T) -> T {
    END.set(Some(Arc::clone(end)));
    let came = act();
    END.set(None);
    came
}

fn is_over() -> bool {
    END.with_borrow(|end| end.as_ref().is_some_and(|end| end.load(Ordering::Relaxed)))
}

/// Runs `command` to its end; what it wrote on both outputs.
pub fn run(command: &mut Command, deadline: Duration) -> Result<String, Failure> {
    if is_over() {
        return Err(Failure {
            command: said(command),
            status: "not begun".to_owned(),
            output: String::new(),
        });
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut program = Program::start(command, folder.path(), "output");
    let ended = waiting::until(deadline, || {
        let status = program.child.try_wait().expect("a child's status");
        (status.is_some() || is_over()).then_some(status)
    });
    let failure = |status: String| Failure { command: said(command), status, output: program.tail() };
    match ended {
        Some(Some(status)) if status.success() => Ok(program.output()),
        Some(Some(status)) => Err(failure(status.to_string())),
        Some(None) => Err(failure("ended by us".to_owned())),
        None => Err(failure(format!("not done within {deadline:?}"))),
    }
}

/// The most resident memory that a running process ever had, bytes.
pub fn peak_memory(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("its status");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("its peak memory");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number") << 10
}

/// A program in the background, ended when dropped.
#[derive(Debug)]
pub struct Program {
    child: Child,
    name: String,
    output: PathBuf,
    grace: Duration,
}

impl Program {
    /// Starts `command`, its outputs both to `folder/NAME.log`.
    ///
    /// # Panics
    /// Where it can't be started.
    pub fn start(command: &mut Command, folder: &Path, name: &str) -> Self {
        let output = folder.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&output).expect("an output file");
        command.stdin(Stdio::null()).stdout(file.try_clone().expect("a second handle")).stderr(file);
        let child = command.spawn().unwrap_or_else(|error| panic!("{} starts: {error}", said(command)));
        Self { child, name: name.to_owned(), output, grace: GRACE }
    }

    /// Has it killed when dropped, without SIGTERM before: for a program that has no children to end and that
    /// takes its time to drain.
    pub fn kill_at_once(&mut self) {
        self.grace = Duration::ZERO;
    }

    /// Waits until `ready`, at most for `deadline`.
    ///
    /// # Panics
    /// When the deadline has passed or the program has ended, with what it said.
    pub fn wait_until(&mut self, deadline: Duration, mut ready: impl FnMut() -> bool) {
        let found = waiting::until(deadline, || match self.child.try_wait().expect("a child's status") {
            Some(status) => Some(Err(status)),
            None => ready().then_some(Ok(())),
        });
        match found {
            Some(Ok(())) => {}
            Some(Err(status)) => {
                panic!("{} ended ({status}) before it was ready:\n{}", self.name, self.tail())
            }
            None => panic!("{} was not ready within {deadline:?}:\n{}", self.name, self.tail()),
        }
    }

    /// Sends the signal of that name (`TERM`, `HUP`) to this very process.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(status.is_ok_and(|status| status.success()), "{} takes a signal", self.name);
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().expect("a child's status").is_none()
    }

    /// Waits for its end, at most for `deadline`; its exit status, `None` where a signal ended it or it still runs.
    pub fn ends(&mut self, deadline: Duration) -> Option<i32> {
        waiting::until(deadline, || self.child.try_wait().expect("a child's status"))?.code()
    }

    /// All that it wrote so far.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.output).unwrap_or_default()).into_owned()
    }

    /// The end of what it wrote.
    pub fn tail(&self) -> String {
        let output = self.output();
        let from = output.len().saturating_sub(SHOWN_BYTES);
        let from = (from..output.len()).find(|at| output.is_char_boundary(*at)).unwrap_or(from);
        output[from..].to_owned()
    }
}

impl Drop for Program {
    /// SIGTERM first, because some programs have children to end; SIGKILL after the grace.
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_some()) {
            return;
        }
        if !self.grace.is_zero() {
            self.signal("TERM");
        }
        if waiting::until(self.grace, || self.child.try_wait().ok().flatten()).is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn said(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}
