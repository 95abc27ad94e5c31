//! A changed configuration, taken while serving. A bad one keeps the running one and says what is wrong.

use std::{
    io,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::bail;
use arc_swap::ArcSwap;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::Notify,
};

use super::wiring;
use crate::{
    app::{
        config::{self, Settings, Sources, Stated},
        distant, translate,
    },
    edges::resolve::Names,
    flow::context::Shared,
    words::clock::Clock,
};

/// How often the configuration's file is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// A file that is being written looks different after this.
const SETTLES: Duration = Duration::from_millis(250);

/// What tells of a change, from its making on.
pub(super) struct Watch {
    sources: Sources,
    hangup: io::Result<Signal>,
    seen: Mark,
}

impl Watch {
    /// To be made as soon as the configuration was read: what changes while the rest begins is a change too, and SIGHUP
    /// ends a process that doesn't listen to it.
    pub(super) fn begin(sources: Sources) -> Self {
        let seen = sources.file.as_deref().and_then(mark);
        Self { sources, hangup: signal(SignalKind::hangup()), seen }
    }
}

/// Reloads at SIGHUP and whenever the file has changed; never ends.
pub(super) async fn run(
    watch: Watch,
    began_with: Settings,
    shared: Arc<Shared>,
    names: Arc<ArcSwap<Names>>,
    resolve_now: Arc<Notify>,
    clock: Clock,
) {
    let Watch { sources, hangup, mut seen } = watch;
    let mut hangup = match hangup {
        Ok(hangup) => hangup,
        Err(error) => {
            tracing::error!(%error, "SIGHUP can't be listened to; the configuration is not reloaded");
            return std::future::pending().await;
        }
    };
    let mut running = began_with.stated;
    loop {
        let asked = tokio::select! {
            _ = hangup.recv() => true,
            () = tokio::time::sleep(LOOK) => false,
        };
        let now = sources.file.as_deref().and_then(mark);
        if !asked && now == seen {
            continue;
        }
        seen = match &sources.file {
            Some(path) => settled(path, now).await,
            None => now,
        };
        match config::load(&sources) {
            Ok(settings) => {
                let taken = nothing_lost(running, settings.stated)
                    .and_then(|()| apply(&settings, &began_with, &shared, &names, &clock));
                if let Err(error) = taken {
                    let faults = format!("{error:#}");
                    tracing::error!(%faults, "the new configuration can't be used; the running one stays");
                    continue;
                }
                running = settings.stated;
                resolve_now.notify_one();
            }
            Err(faults) => {
                tracing::error!(faults = %faults, "the new configuration is faulty; the running one stays");
            }
        }
    }
}

type Mark = Option<(SystemTime, u64)>;

fn mark(path: &Path) -> Mark {
    let about = std::fs::metadata(path).ok()?;
    Some((about.modified().ok()?, about.len()))
}

/// What the file looks like once it looks the same twice in a row: an editor or a copy may be halfway through it.
async fn settled(path: &Path, mut seen: Mark) -> Mark {
    loop {
        tokio::time::sleep(SETTLES).await;
        let now = mark(path);
        if now == seen {
            return now;
        }
        seen = now;
    }
}

/// Defaults in the place of what was written would send every request to nowhere, or drop every key: a truncated
/// file rather than a wish.
fn nothing_lost(running: Stated, new: Stated) -> anyhow::Result<()> {
    let lost = [
        (running.file && !new.file, "the file is empty and the running one was not"),
        (running.endpoints && !new.endpoints, "it has no upstream.endpoints and the running one has"),
        (running.key_sources && !new.key_sources, "it has no keys.sources and the running one has"),
    ];
    match lost.into_iter().find(|(lost, _)| *lost) {
        Some((_, what)) => bail!("{what}; restart to go back to the default on purpose"),
        None => Ok(()),
    }
}

fn apply(
    new: &Settings,
    began_with: &Settings,
    shared: &Shared,
    names: &ArcSwap<Names>,
    clock: &Clock,
) -> anyhow::Result<()> {
    let running = names.load().client();
    // Without TLS so far, it begins with the endpoints that want it: they are never reached in the clear.
    let client =
        running.clone().map_or_else(|| wiring::upstream_tls(new, clock), |running| Ok(Some(running)))?;
    let urls = distant::urls(new, clock)?;
    let policy = wiring::policy(new);
    if shared.policy.load().ramp != policy.ramp {
        shared.ramps.resume();
    }
    shared.policy.store(Arc::new(policy));
    shared.formers.configure(wiring::formers(new), clock.now());
    shared.windows.list(translate::windows(&new.grace));
    shared.keys.reconfigure(translate::policy(&new.keys), translate::sources(&new.keys), clock.now());
    shared.distant.urls().follow(urls);
    shared.keys.set_keeps_private(new.keys.keep_private);
    names.store(Arc::new(wiring::names(new, client.as_ref())));
    let fresh_tls = running.is_none();
    for part in fixed_parts_changed(began_with, new).filter(|part| !(fresh_tls && *part == "upstream.tls")) {
        tracing::warn!(
            part,
            "restart needed: this part of the new configuration counts from the next start on"
        );
    }
    tracing::info!("the configuration was reloaded");
    Ok(())
}

/// What a reload can't change: sockets, threads, memory.
fn fixed_parts_changed(running: &Settings, new: &Settings) -> impl Iterator<Item = &'static str> {
    let same = [
        ("listener", running.listeners == new.listeners),
        ("upstream.kind", running.upstream.kind == new.upstream.kind),
        ("upstream.tls", running.upstream.tls == new.upstream.tls),
        ("upstream.resolve_every", running.upstream.resolve_every == new.upstream.resolve_every),
        ("upstream.timeouts.connect", running.upstream.timeouts.connect == new.upstream.timeouts.connect),
        ("keys.reread_every", running.keys.reread_every == new.keys.reread_every),
        ("upstream.probe", running.upstream.probe == new.upstream.probe),
        ("upstream.pool", running.upstream.pool == new.upstream.pool),
        ("limits", running.limits == new.limits),
        ("timeouts", running.timeouts == new.timeouts),
        ("park.requests", running.park.requests == new.park.requests),
        ("park.bytes", running.park.bytes == new.park.bytes),
        ("uploads", running.uploads == new.uploads),
        ("replay.entries", running.replay.entries == new.replay.entries),
        ("store", running.store == new.store),
        ("peers", running.peers == new.peers),
        ("admin", running.admin == new.admin),
        ("log", running.log == new.log),
        ("deployment", running.deployment == new.deployment),
    ];
    same.into_iter().filter(|(_, same)| !same).map(|(part, _)| part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Settings {
        let environment = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let sources = Sources { environment: environment.collect(), ..Sources::default() };
        config::load(&sources).expect("settings")
    }

    #[test]
    fn a_changed_secret_needs_a_restart_like_any_other_part() {
        let with = |token| settings(&[("TIDEGATE_ADMIN__TOKEN", token)]);
        let changed = |to: &Settings| fixed_parts_changed(&with(FIRST), to).collect::<Vec<_>>();
        assert_eq!(changed(&with("a-second-token-of-forty-characters-and-so")), ["admin"]);
        assert_eq!(changed(&with(FIRST)), [""; 0]);
    }

    const FIRST: &str = "a-first-token-of-forty-characters-and-more";
}
