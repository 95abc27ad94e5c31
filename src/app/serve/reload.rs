//! A changed configuration, taken while serving. A bad one keeps the running one and says what is wrong.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::Notify,
};

use super::wiring;
use crate::{
    app::{
        config::{self, Settings, Sources},
        translate,
    },
    edges::resolve::Names,
    flow::context::Shared,
    words::clock::Clock,
};

/// How often the configuration's file is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// Reloads at SIGHUP and whenever the file has changed; `running` is what the process began with. Never ends.
pub(super) async fn run(
    sources: Sources,
    mut running: Settings,
    shared: Arc<Shared>,
    names: Arc<ArcSwap<Names>>,
    resolve_now: Arc<Notify>,
    clock: Clock,
) {
    let mut hangup = match signal(SignalKind::hangup()) {
        Ok(hangup) => hangup,
        Err(error) => {
            tracing::error!(%error, "SIGHUP can't be listened to; the configuration is not reloaded");
            return std::future::pending().await;
        }
    };
    let mut seen = sources.file.as_deref().and_then(mark);
    loop {
        let asked = tokio::select! {
            _ = hangup.recv() => true,
            () = tokio::time::sleep(LOOK) => false,
        };
        let now = sources.file.as_deref().and_then(mark);
        if !asked && now == seen {
            continue;
        }
        seen = now;
        match config::load(&sources) {
            Ok(settings) => {
                apply(&settings, &running, &shared, &names, &clock);
                resolve_now.notify_one();
                running = settings;
            }
            Err(faults) => {
                tracing::error!(faults = %faults, "the new configuration is faulty; the running one stays");
            }
        }
    }
}

fn mark(path: &Path) -> Option<(SystemTime, u64)> {
    let about = std::fs::metadata(path).ok()?;
    Some((about.modified().ok()?, about.len()))
}

fn apply(new: &Settings, running: &Settings, shared: &Shared, names: &ArcSwap<Names>, clock: &Clock) {
    shared.policy.store(Arc::new(wiring::policy(new)));
    shared.keys.reconfigure(translate::policy(&new.keys), translate::sources(&new.keys), clock.now());
    let client = names.load().client();
    names.store(Arc::new(wiring::names(new, client.as_ref())));
    tracing::info!("the configuration was reloaded");
    for part in fixed_parts_changed(running, new) {
        tracing::warn!(
            part,
            "restart needed: this part of the new configuration counts from the next start on"
        );
    }
}

/// What a reload can't change: sockets, threads, memory.
fn fixed_parts_changed(running: &Settings, new: &Settings) -> Vec<&'static str> {
    let text = |part: &dyn std::fmt::Debug| format!("{part:?}");
    let same = [
        ("listener", text(&running.listeners) == text(&new.listeners)),
        ("upstream.tls", text(&running.upstream.tls) == text(&new.upstream.tls)),
        ("upstream.probe", text(&running.upstream.probe) == text(&new.upstream.probe)),
        ("upstream.pool", text(&running.upstream.pool) == text(&new.upstream.pool)),
        ("limits", text(&running.limits) == text(&new.limits)),
        ("timeouts", text(&running.timeouts) == text(&new.timeouts)),
        ("uploads", text(&running.uploads) == text(&new.uploads)),
        ("replay.entries", running.replay.entries == new.replay.entries),
        ("admin", text(&running.admin) == text(&new.admin)),
        ("log", text(&running.log) == text(&new.log)),
        ("deployment", running.deployment == new.deployment),
    ];
    same.into_iter().filter(|(_, same)| !same).map(|(part, _)| part).collect()
}
