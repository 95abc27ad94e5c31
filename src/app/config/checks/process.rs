//! `[replay]`, `[uploads]`, `[limits]`, `[timeouts]`, `[admin]` and `[log]`.

use super::{Checker, keys::at_most};
use crate::{
    app::config::{
        address::Host,
        amounts::{Size, Span},
        raw,
        settings::{Admin, Grace, Level, Limits, Log, LogFormat, Park, Replay, Timeouts, Uploads},
        written::{Text, Written as _},
    },
    words::clock::UnixTime,
};

/// hyper takes no smaller buffer.
const LEAST_BUFFER: Size = Size::kib(8);
/// Each of `limits.connections` may hold one.
const LARGEST_BUFFER: Size = Size::mib(1);

pub(super) fn replay(raw: &raw::Replay) -> Replay {
    Replay { enabled: raw.enabled, entries: raw.entries.get(), per_principal: raw.per_principal.get() }
}

pub(super) fn uploads(c: &mut Checker<'_>, raw: &raw::Uploads) -> Uploads {
    let uploads = Uploads {
        head: raw.head.0.bytes(),
        heads_total: raw.heads_total.0.bytes(),
        memory_total: raw.memory_total.0.bytes(),
        spool: (!raw.spool.is_empty()).then(|| raw.spool.clone().into()),
        spool_each: raw.spool_each.0.bytes() as u64,
        spool_total: raw.spool_total.0.bytes() as u64,
    };
    if uploads.spool_each > uploads.spool_total {
        let keys = ["uploads.spool_total", "uploads.spool_each"];
        c.fault(&keys, &quoted(&raw.spool_total), "at least uploads.spool_each", "");
    }
    if uploads.head > uploads.heads_total {
        let keys = ["uploads.heads_total", "uploads.head"];
        c.fault(&keys, &quoted(&raw.heads_total), "at least uploads.head", "");
    }
    uploads
}

pub(super) fn park(raw: &raw::Park) -> Park {
    Park { timeout: raw.timeout.0.duration(), requests: raw.requests.get(), bytes: raw.bytes.0.bytes() }
}

/// What has ended is remembered for so long (`decisions::grace::LONGEST`).
const LONGEST_GRACE: Span = Span::hours(168);

pub(super) fn grace(c: &mut Checker<'_>, raw: &raw::Grace) -> Grace {
    let windows = raw.windows.iter().enumerate().filter_map(|(i, window)| upgrade_window(c, i, window));
    let windows = windows.collect();
    Grace { window: at_most(c, "grace.window", raw.window.0, LONGEST_GRACE), windows }
}

fn upgrade_window(c: &mut Checker<'_>, i: usize, raw: &raw::UpgradeWindow) -> Option<(UnixTime, UnixTime)> {
    let (key, from, until) = (format!("grace.windows[{i}]"), raw.from, raw.until);
    let (from_key, until_key) = (format!("{key}.from"), format!("{key}.until"));
    let (Some(from), Some(until)) = (from, until) else {
        let remedy = "write { from = 2026-12-01T20:00:00Z, until = 2026-12-01T23:00:00Z }";
        c.fault(&[&key, &from_key, &until_key], "a window without a beginning or an end", "both", remedy);
        return None;
    };
    if until.0 <= from.0 {
        c.fault(&[&until_key, &from_key], "an end before its beginning", "until after from", "");
    }
    Some((from.0, until.0))
}

pub(super) fn limits(c: &mut Checker<'_>, raw: &raw::Limits) -> Limits {
    let (head, buffer) = (raw.head.0.bytes(), raw.buffer.0.bytes());
    if !(LEAST_BUFFER.bytes()..=LARGEST_BUFFER.bytes()).contains(&buffer) {
        let expected = format!("{} to {}", LEAST_BUFFER.write(), LARGEST_BUFFER.write());
        c.fault(&["limits.buffer"], &quoted(&raw.buffer), &expected, "");
    } else if head > buffer || head < 1_024 {
        let keys = ["limits.head", "limits.buffer"];
        c.fault(&keys, &quoted(&raw.head), "1KiB to limits.buffer, in which it must fit", "");
    }
    Limits {
        connections: raw.connections.get(),
        head,
        buffer,
        http2_streams: raw.http2_streams.get(),
        wrong_credentials: raw.wrong_credentials.0,
        unknown_kids: raw.unknown_kids.0,
    }
}

fn quoted(size: &Text<Size>) -> String {
    format!("\"{}\"", size.0.write())
}

pub(super) fn timeouts(c: &mut Checker<'_>, raw: &raw::Timeouts) -> Timeouts {
    let least = Span::millis(10);
    Timeouts {
        handshake: c.at_least("timeouts.handshake", &raw.handshake, least),
        head: c.at_least("timeouts.head", &raw.head, least),
        idle: c.at_least("timeouts.idle", &raw.idle, least),
        stall: c.at_least("timeouts.stall", &raw.stall, least),
        drain_delay: raw.drain_delay.0.duration(),
        drain: raw.drain.0.duration(),
    }
}

pub(super) fn admin(c: &mut Checker<'_>, raw: raw::Admin) -> Admin {
    let mut hosts = Vec::new();
    for (i, host) in raw.hosts.iter().enumerate() {
        match Host::parse(host) {
            Some(host) => hosts.push(host.to_string()),
            None => c.fault(
                &[&format!("admin.hosts[{i}]")],
                &format!("{host:?}"),
                "a DNS name or an address, without scheme and port",
                "",
            ),
        }
    }
    let token = c.material("admin.token", raw.token, raw.token_file);
    Admin { address: raw.address.0, hosts, token }
}

pub(super) fn log(raw: &raw::Log) -> Log {
    Log {
        level: match raw.level {
            raw::Level::Error => Level::Error,
            raw::Level::Warn => Level::Warn,
            raw::Level::Info => Level::Info,
            raw::Level::Debug => Level::Debug,
            raw::Level::Trace => Level::Trace,
        },
        format: match raw.format {
            raw::LogFormat::Json => LogFormat::Json,
            raw::LogFormat::Text => LogFormat::Text,
        },
        access: raw.access,
    }
}
