//! The only file that writes to standard output and standard error by itself.

use std::{
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
};

/// Prints what a command was asked for, and gives the exit code: 0 also where the reader has enough (`| head`),
/// 1 where the text got lost.
pub fn print(text: &str) -> u8 {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => 1,
        _ => 0,
    }
}

/// As [`print`], in the place of what stands on a terminal; below it elsewhere.
pub fn print_anew(text: &str) -> u8 {
    const HOME_AND_CLEAR: &str = "\x1b[H\x1b[2J";
    if io::stdout().is_terminal() {
        print(&format!("{HOME_AND_CLEAR}{text}"))
    } else {
        print(&format!("{text}\n"))
    }
}

/// Says what went wrong. Where nobody can be told, the exit code still tells.
pub fn complain(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// Help and version go to standard output and are no failure; wrong usage is 2.
pub fn usage(usage: &clap::Error) -> ExitCode {
    let _ = usage.print();
    u8::try_from(usage.exit_code()).unwrap_or(2).into()
}
