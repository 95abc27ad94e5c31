//! Events of the process, on standard error: JSON or text, one line each.

use std::io::IsTerminal as _;

use tracing_subscriber::{
    filter::{LevelFilter, Targets},
    fmt,
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

use super::config::{Level, Log, LogFormat};

/// Starts the log. A second start in one process changes nothing.
pub fn start(log: Log) {
    let level = match log.level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    };
    let lines = fmt().with_max_level(level).with_writer(std::io::stderr).with_target(false);
    // A line that can't be written (a full disk, a pipe whose reader is gone) is lost: telling of it on the very same
    // output would end the task that had something to say.
    let lines = lines.log_internal_errors(false);
    // It calls it an error that a PKCS#11 token has mechanisms that it doesn't know, for each session.
    let wanted = Targets::new().with_default(level).with_target("cryptoki", LevelFilter::OFF);
    let _ = match log.format {
        LogFormat::Json => lines.json().flatten_event(true).finish().with(wanted).try_init(),
        // Colours are for eyes: in a file or a collector they are noise.
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).finish().with(wanted).try_init(),
    };
}
