//! A configuration that is made anew when its files change.

use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{sync::watch, task::spawn_blocking, time};
use tracing::{error, info, warn};

use super::{Alarm, TlsFault};
use crate::{
    edges::small_file::Stamp,
    words::clock::{Clock, UnixTime},
};

/// A configuration with the certificate that it shows, if any, and the time in which that is valid.
pub(super) struct Built<C> {
    pub(super) config: C,
    pub(super) validity: Option<(PathBuf, UnixTime, UnixTime)>,
}

type Build<C> = Box<dyn Fn() -> Result<Built<C>, TlsFault> + Send + Sync>;

pub(super) struct Reloading<C> {
    files: Vec<PathBuf>,
    build: Build<C>,
    current: ArcSwap<C>,
    alarms: ArcSwap<Vec<Alarm>>,
    seen: Mutex<Seen>,
}

/// The files as they were when the last configuration was tried.
struct Seen {
    stamps: Vec<Option<Stamp>>,
    fault: Option<Alarm>,
    validity: Option<(PathBuf, UnixTime, UnixTime)>,
}

impl<C> Reloading<C> {
    pub(super) fn start(files: Vec<PathBuf>, build: Build<C>, now: UnixTime) -> Result<Self, TlsFault> {
        let stamps = stamps(&files);
        let Built { config, validity } = build()?;
        let seen = Seen { stamps, fault: None, validity };
        let alarms = ArcSwap::from_pointee(seen.alarms(now));
        alarms.load().iter().for_each(tell);
        let current = ArcSwap::from_pointee(config);
        Ok(Self { files, build, current, alarms, seen: Mutex::new(seen) })
    }

    pub(super) fn current(&self) -> Arc<C> {
        self.current.load_full()
    }

    pub(super) fn alarms(&self) -> Arc<Vec<Alarm>> {
        self.alarms.load_full()
    }

    /// Builds anew where a file has changed, was changed so lately that it may have changed again, or was at
    /// fault: certificate and key are seldom replaced in one moment.
    pub(super) fn look(&self, now: UnixTime) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let stamps = stamps(&self.files);
        let is_fresh = stamps.iter().flatten().any(|stamp| stamp.is_fresh(now.0));
        let is_changed = stamps != seen.stamps;
        if is_changed || is_fresh || seen.fault.is_some() {
            match (self.build)() {
                Ok(Built { config, validity }) => {
                    self.current.store(Arc::new(config));
                    if is_changed || seen.fault.is_some() {
                        info!(tls.files = ?self.files, "certificates were read anew");
                    }
                    *seen = Seen { stamps, fault: None, validity };
                }
                Err(fault) => seen.failed(&fault, now),
            }
        }
        let alarms = Arc::new(seen.alarms(now));
        let told = self.alarms.swap(Arc::clone(&alarms));
        alarms.iter().filter(|alarm| !told.iter().any(|t| t.cause == alarm.cause)).for_each(tell);
    }
}

impl<C> fmt::Debug for Reloading<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reloading").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Seen {
    fn failed(&mut self, fault: &TlsFault, now: UnixTime) {
        let since = self.fault.as_ref().map_or(now, |known| known.since);
        let (path, cause) = (fault.path().display().to_string(), fault.to_string());
        self.fault = Some(Alarm {
            path,
            cause,
            remedy: fault.remedy(),
            since,
            is_warning: false,
            forbids_start: false,
        });
    }

    fn alarms(&self, now: UnixTime) -> Vec<Alarm> {
        let warning = self.validity.as_ref().and_then(|(path, not_before, not_after)| {
            let (cause, since) = match () {
                () if now > *not_after => ("the certificate has expired", *not_after),
                () if now < *not_before => ("the certificate is not valid yet", now),
                () => return None,
            };
            let (path, cause) = (path.display().to_string(), cause.to_owned());
            Some(Alarm {
                path,
                cause,
                remedy: "replace the certificate, or set the clock",
                since,
                is_warning: true,
                forbids_start: false,
            })
        });
        self.fault.iter().cloned().chain(warning).collect()
    }
}

/// Looks every `every` off the runtime's thread, until `stop` is true or its sender is gone.
pub(super) async fn follow(
    look: impl Fn(UnixTime) + Send + Sync + 'static,
    clock: Clock,
    every: Duration,
    mut stop: watch::Receiver<bool>,
) {
    let look = Arc::new(look);
    let mut tick = time::interval(every.max(Duration::from_millis(1)));
    tick.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = async { stop.wait_for(|stop| *stop).await.ok(); } => return,
        }
        let (look, clock) = (Arc::clone(&look), clock.clone());
        if let Err(failure) = spawn_blocking(move || look(clock.now())).await {
            error!(error = %failure, "a look at the certificate files failed; the next one tries again");
        }
    }
}

fn stamps(files: &[PathBuf]) -> Vec<Option<Stamp>> {
    files.iter().map(|path| Stamp::of(path)).collect()
}

fn tell(alarm: &Alarm) {
    let Alarm { path, cause, remedy, is_warning, .. } = alarm;
    if *is_warning {
        warn!(tls.path = %path, tls.cause = %cause, tls.remedy = remedy, "a certificate is used, but look at it");
    } else {
        error!(
            tls.path = %path, tls.cause = %cause, tls.remedy = remedy,
            "certificates can't be used; those from before stay in use"
        );
    }
}
