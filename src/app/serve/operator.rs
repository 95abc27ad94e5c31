//! What the process tells its operator.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use tokio::sync::watch;

use super::wiring::Alarms;
use crate::{
    app::{
        admin::{Archivable, NotRetired, Operator, Published, Restore, Restored, RestoredWindow, Revoke},
        distant, held_keys,
        ramp::{self, Steer},
        status::{self, Readiness, Status, WindowReport},
        store,
    },
    decisions::{
        archive::{self, ContentFault, Known},
        key::Key,
        outage::Need,
        plan::Standing,
        ramp::Side,
        record::revocation::Revocation,
        revoked::Revoked,
        ring::{AddFault, Entry, Policy, RetireFault, Ring, SourceName},
    },
    edges::{
        fleet::{self, CANNOT_SIGN_REMEDY},
        listener::Places,
        signer::Latency,
        store::Health,
        telemetry::{
            counters::{Counters, ROUTES, STATUSES},
            exposition::{self, Gauges},
        },
    },
    flow::{
        context::Shared,
        formers::Use,
        replicas::{Ordered, Replicas, Unsettled},
    },
    words::{
        clock::UnixTime,
        kid::Kid,
        reason::{Reason, Rescue},
    },
};

/// What to do where an endpoint is up and its database isn't.
const STUMBLES_REMEDY: &str =
    "look at Harbor's database and at core's log; it is noticed by itself when it is well again";

/// One serving process.
pub(super) struct Process {
    pub(super) shared: Arc<Shared>,
    pub(super) counters: Vec<Arc<Counters>>,
    pub(super) places: Arc<Places>,
    pub(super) alarms: Alarms,
    pub(super) store: store::Opened,
    /// Where there is a store.
    pub(super) replicas: Option<Arc<Replicas>>,
    pub(super) deployment: String,
    /// How long tokens live.
    pub(super) policy: Policy,
    pub(super) began: Instant,
    pub(super) draining: watch::Receiver<bool>,
}

impl Operator for Process {
    fn readiness(&self) -> Readiness {
        let fleet = self.shared.fleet.snapshot();
        let mut reasons = Vec::new();
        if *self.draining.borrow() {
            reasons.push("draining".to_owned());
        }
        if !fleet.statuses.iter().any(|s| s.standing == Standing::Healthy) {
            reasons.push("no endpoint answers".to_owned());
        }
        let degraded = self.health().and_then(|health| health.degraded).map(|(since, _)| since);
        let degraded = degraded.or_else(|| self.store.missing_since());
        let degraded = degraded.map(|since| format!("store, since {}", since.rfc3339()));
        Readiness { ready: reasons.is_empty(), reasons, degraded: degraded.into_iter().collect() }
    }

    fn metrics(&self) -> String {
        let fleet = self.shared.fleet.snapshot();
        let ring = self.shared.keys.ring();
        let now = self.shared.clock.now();
        let gauges = Gauges {
            keys: ring.entries().map(|e| (e.key().kid().to_string(), e.state(now).as_str())).collect(),
            key_expiries: self.key_expiries(&ring),
            window_until: self.shared.windows.open(now).map_or(0, |open| open.until.0),
            replicas: self.replicas.as_ref().map_or(1, |replicas| 1 + replicas.live().len()),
            endpoints: fleet
                .statuses
                .iter()
                .map(|s| {
                    let kids = s.held.kids().map(ToString::to_string).collect();
                    (s.endpoint.name.to_string(), s.standing == Standing::Healthy, kids)
                })
                .collect(),
            signatures: self.shared.signer.signatures(),
            signing_delay: self.shared.signer.delay().as_secs_f64(),
            parked: self.waiting(),
            signing: self.shared.signer.latencies(),
            uploads_not_kept: self.shared.uploads.stores.given_up.load(std::sync::atomic::Ordering::Relaxed),
            spooled: self.shared.uploads.stores.spool.as_ref().map_or(0, |spool| spool.used()),
            answers: self.shared.answers.count(),
            replays: self.shared.replays.count(),
            grants: self.shared.graces.count(),
            connections_refused: self.places.refused() as u64,
            alarms: self.all_alarms().len() as u64,
            store: self.health(),
            peers: distant::statuses(&self.shared.distant)
                .into_iter()
                .map(|peer| {
                    (peer.name().to_owned(), peer.fault.is_none() && peer.heard_seconds_ago.is_some())
                })
                .collect(),
            ramp: ramp::gauges(&self.shared, now),
            former_secrets: self.shared.formers.uses().into_iter().map(|u| (u.name, u.requests)).collect(),
        };
        // Writing to a string can't fail.
        exposition::text(&self.counters, gauges).unwrap_or_default()
    }

    fn status(&self) -> Status {
        let now = self.shared.clock.now();
        let fleet = self.shared.fleet.snapshot();
        let ring = self.shared.keys.ring();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            mode: if self.shared.policy.load().enforce { "enforce" } else { "observe" }.to_owned(),
            deployment: self.deployment.clone(),
            uptime_seconds: self.began.elapsed().as_secs(),
            readiness: self.readiness(),
            endpoints: fleet.statuses.iter().map(endpoint).collect(),
            window: self.shared.windows.open(now).map(|open| status::Window::of(open, now)),
            replicas: self.others(),
            keys: self.keys(&ring, |_| true, now),
            peers: distant::statuses(&self.shared.distant),
            requests: self.requests(),
            rescues: self.by_name(Rescue::ALL, Rescue::name, Counters::rescues),
            would_have_rescued: self.by_name(Rescue::ALL, Rescue::name, Counters::would_rescues),
            rejections: self.by_name(Reason::ALL, Reason::name, Counters::reasons),
            waiting: self.waiting(),
            signatures: self.shared.signer.latencies().into_iter().map(signatures).collect(),
            alarms: self.all_alarms(),
            ramp: ramp::of(&self.shared, now),
            former_secrets: self.shared.formers.uses().iter().map(|one| former_secret(one, now)).collect(),
        }
    }

    fn steer(&self, how: Steer) -> bool {
        ramp::steer(&self.shared, how, self.shared.clock.now())
    }

    fn published(&self) -> Published {
        // Peers' keys are theirs to publish (A10).
        let (ring, now) = (self.shared.keys.sourced(), self.shared.clock.now());
        Published { jwks: ring.jwks(now), bundle: ring.bundle(now) }
    }

    fn archivable(&self) -> Archivable {
        let now = self.shared.clock.now();
        let (seen, retired) = self.shared.keys.to_keep(now);
        let retired: Vec<_> = retired.into_iter().map(|(key, at)| (key.spki().to_vec(), at)).collect();
        // What is listed as retired is to stay so where this is restored and not listed.
        let ring = self.shared.keys.ring();
        let listed = ring.banned().iter().map(|key| (key.spki().to_vec(), now));
        let listed = listed.filter(|(spki, _)| !retired.iter().any(|(known, _)| known == spki));
        let banned: Vec<_> = retired.iter().cloned().chain(listed).collect();
        let banned = banned.into_iter().map(|(spki, at)| Revocation::Key { spki, at });
        let ended: Vec<_> = banned.chain(self.shared.revocations.to_keep()).collect();
        let (files, tokens) = self.shared.keys.sources();
        // Who reads them may stand in another folder.
        let absolute = |file: &SourceName| {
            std::path::absolute(file.as_str())
                .map_or_else(|_| file.to_string(), |path| path.display().to_string())
        };
        Archivable {
            deployment: self.deployment.clone(),
            files: files.iter().map(absolute).collect(),
            tokens: tokens.iter().map(ToString::to_string).collect(),
            known: Known::of(&seen, &ended, self.shared.windows.order()),
        }
    }

    fn restore(&self, archived: Restore) -> Result<(Restored, Vec<Ordered>), ContentFault> {
        let (keys, now) = (&self.shared.keys, self.shared.clock.now());
        archive::fits(&archived.deployment, &self.deployment)?;
        let (seen, retired) = archived.known.read()?;
        let (revoked, window) = archived.known.read_orders()?;
        let ended = retired.iter().map(|key| Revocation::Key { spki: key.spki().to_vec(), at: now });
        let ordered =
            ended.chain(revoked.iter().cloned()).filter(|it| it.expires().is_none_or(|end| now < end));
        let mut ordered: Vec<_> = ordered.map(Ordered::Revocation).collect();
        let revoked: Vec<_> = revoked.into_iter().filter(|revocation| self.is_news(revocation)).collect();
        let revoked_count = revoked.len();
        if !archived.dry_run {
            self.take_revoked(revoked, now);
            if let Some(order) = window {
                self.shared.windows.take(order);
                let counts = self.shared.windows.order() == Some(order) && now < order.over();
                ordered.extend(counts.then_some(Ordered::Window(order)));
            }
        }
        let mut banned: Vec<String> = retired.iter().map(|key| key.kid().to_string()).collect();
        let would = keys.restore((seen, retired), archived.dry_run, now);
        banned.extend(keys.ring().banned().iter().map(|key| key.kid().to_string()));
        let is_stranger = |path: &String| !keys.is_source(Path::new(path));
        let window = |(kid, until): (Kid, UnixTime)| RestoredWindow { kid: kid.to_string(), until: until.0 };
        let restored = Restored {
            retired: would.retired.iter().map(ToString::to_string).collect(),
            windows: would.windows.into_iter().map(window).collect(),
            banned,
            strangers: archived.files.into_iter().filter(is_stranger).collect(),
            revoked: revoked_count,
            unsettled: None,
        };
        Ok((restored, ordered))
    }

    fn retire(&self, kid: &str, at_once: bool) -> Result<Ordered, NotRetired> {
        let (keys, now) = (&self.shared.keys, self.shared.clock.now());
        let (ring, seen) = (keys.ring(), self.shared.evidence.all());
        let retired = if at_once {
            keys.retire_now(kid, now)
        } else {
            keys.retire(kid, |kid| seen.key(kid).map(|seen| seen.latest_exp), now)
        };
        let meant = ring.meant(kid).ok();
        match (retired, meant) {
            (Ok(()), Some(entry)) => {
                Ok(Ordered::Revocation(Revocation::Key { spki: entry.key().spki().to_vec(), at: now }))
            }
            (Ok(()), None) => Err(NotRetired { fault: RetireFault::Unknown, evidence: None }),
            (Err(fault), meant) => {
                let may_live = matches!(fault, RetireFault::Lives(_) | RetireFault::Signs(_));
                let seen = meant.filter(|_| may_live).and_then(|entry| seen.key(entry.key().kid()));
                Err(NotRetired { fault, evidence: seen.map(|seen| status::Evidence::of(seen, now)) })
            }
        }
    }

    fn window(&self) -> WindowReport {
        let (ring, now) = (self.shared.keys.ring(), self.shared.clock.now());
        let listed = self.shared.windows.listed();
        let listed = listed.iter().filter(|dates| now < dates.until);
        WindowReport {
            open: self.shared.windows.open(now).map(|open| status::Window::of(open, now)),
            listed: listed
                .map(|dates| status::ListedWindow { from: dates.from.0, until: dates.until.0 })
                .collect(),
            keys: self.keys(&ring, |entry| entry.state(now).verifies(), now),
        }
    }

    fn open_window(&self, length: Duration) -> Ordered {
        Ordered::Window(self.shared.windows.order_open(length, self.shared.clock.now()))
    }

    fn close_window(&self) -> Option<Ordered> {
        self.shared.windows.order_close(self.shared.clock.now()).map(Ordered::Window)
    }

    fn revoke(&self, what: &Revoke) -> Option<Ordered> {
        let at = self.shared.clock.now();
        let revocation = match what {
            Revoke::Subject(name) if name.is_empty() => return None,
            Revoke::Subject(name) => {
                let not_before = self.after_all_tokens(at);
                Revocation::Subject { name: name.clone(), not_before, at }
            }
            Revoke::Token(digest) => {
                let digest = STANDARD.decode(digest).ok()?.try_into().ok()?;
                Revocation::Token { digest, at }
            }
        };
        self.take_revoked(vec![revocation.clone()], at);
        Some(Ordered::Revocation(revocation))
    }

    async fn settled(&self, ordered: &[Ordered]) -> Result<(), Unsettled> {
        match &self.replicas {
            Some(replicas) => replicas.settled(ordered).await,
            None => Ok(()),
        }
    }

    fn add(&self, keys: Vec<Key>, signed_until: Option<UnixTime>) -> Result<(), AddFault> {
        let now = self.shared.clock.now();
        self.shared.keys.add(keys, signed_until.unwrap_or(now), now)
    }
}

impl Process {
    fn keys(&self, ring: &Ring, which: impl Fn(&Entry) -> bool, now: UnixTime) -> Vec<status::Key> {
        let seen = self.shared.evidence.all();
        let entries = ring.entries().filter(|entry| which(entry));
        entries.map(|entry| status::Key::with_use(entry, &seen, &self.policy, now)).collect()
    }

    fn key_expiries(&self, ring: &Ring) -> Vec<(String, i64)> {
        let seen = self.shared.evidence.all();
        let of = |entry: &Entry| {
            let kid = entry.key().kid();
            Some((kid.to_string(), seen.key(kid)?.latest_exp.0))
        };
        ring.entries().filter_map(of).collect()
    }

    fn others(&self) -> Vec<status::Replica> {
        let others = self.replicas.iter().flat_map(|replicas| replicas.live());
        others
            .map(|other| status::Replica {
                id: other.id,
                host: other.host,
                version: other.version,
                heard_seconds_ago: other.silent.as_secs(),
                agrees: other.agrees,
            })
            .collect()
    }

    /// Later than the `iat` of any token up to `now`: what was given within this very second has ended too, and what a
    /// core gave whose clock is ahead.
    fn after_all_tokens(&self, now: UnixTime) -> UnixTime {
        let fleet = self.shared.fleet.snapshot();
        let ahead = fleet.statuses.iter().map(|status| status.clock_ahead).max().unwrap_or_default().max(0);
        // What is further ahead verifies nowhere.
        let leeway = self.shared.policy.load().rules.leeway;
        now.plus(Duration::from_secs(1) + leeway.min(Duration::from_secs(ahead.unsigned_abs())))
    }

    fn is_news(&self, revocation: &Revocation) -> bool {
        Revoked::clone(&self.shared.revocations.revoked()).add(revocation)
    }

    fn take_revoked(&self, revoked: Vec<Revocation>, now: UnixTime) {
        for revocation in &revoked {
            if let Revocation::Subject { name, .. } = revocation {
                self.shared.graces.forget_subject(name, now);
            }
        }
        if !self.shared.revocations.take(revoked).is_empty() {
            self.shared.answers.forget_all();
        }
    }

    fn health(&self) -> Option<Health> {
        self.store.store.as_ref().map(|store| store.health())
    }

    /// Requests that wait for an endpoint, or for a database.
    fn waiting(&self) -> usize {
        self.shared.lot.waiting() + self.shared.outages.waiting()
    }

    fn requests(&self) -> u64 {
        let places = (0..ROUTES.len()).flat_map(|route| (0..STATUSES).map(move |place| (route, place)));
        places.map(|(route, place)| self.counters.iter().map(|c| c.requests(route, place)).sum::<u64>()).sum()
    }

    fn by_name<T: Copy>(
        &self,
        all: &[T],
        name: fn(T) -> &'static str,
        of: fn(&Counters, T) -> u64,
    ) -> BTreeMap<String, u64> {
        let counts =
            all.iter().map(|item| (name(*item).to_owned(), self.counters.iter().map(|c| of(c, *item)).sum()));
        counts.filter(|(_, count)| *count > 0).collect()
    }

    fn all_alarms(&self) -> Vec<status::Alarm> {
        let unsigned = self.shared.fleet.snapshot().statuses.iter().any(fleet::Status::cannot_sign);
        let suspected = if unsigned { self.shared.keys.suspicions().to_vec() } else { Vec::new() };
        let keys = self.shared.keys.alarms().to_vec().into_iter().chain(suspected);
        let files = keys.chain((self.alarms)()).chain(self.store.alarms.clone());
        let files =
            files.map(|a| status::Alarm { subject: a.path, cause: a.cause, remedy: a.remedy.to_owned() });
        let fleet = self.shared.fleet.snapshot();
        let endpoints: Vec<_> = fleet
            .statuses
            .iter()
            .filter_map(|s| {
                let stumbles = self.shared.outages.trouble(s.endpoint.id, Need::Database);
                let cause = s.trouble.as_ref().map(ToString::to_string);
                let cause = cause.or_else(|| stumbles.map(|trouble| trouble.to_string()))?;
                let remedy = if s.cannot_sign() {
                    CANNOT_SIGN_REMEDY
                } else if s.trouble.is_none() {
                    STUMBLES_REMEDY
                } else if s.endpoint.tls.is_some() {
                    "check upstream.tls against the endpoint's certificate; look at its own log and at the network between"
                } else {
                    "look at the endpoint's own log and at the network between"
                };
                Some(status::Alarm { subject: s.endpoint.name.to_string(), cause, remedy: remedy.to_owned() })
            })
            .collect();
        let (ring, now) = (self.shared.keys.ring(), self.shared.clock.now());
        let held = fleet.statuses.iter().map(|s| (&*s.endpoint.name, &s.held));
        let misfits = held_keys::misfits(&ring, held, now).into_iter().map(|misfit| status::Alarm {
            subject: misfit.endpoint,
            cause: misfit.cause,
            remedy: misfit.remedy.to_owned(),
        });
        let health = self.health().unwrap_or_default();
        let store = store::alarms(self.store.name(), &health)
            .into_iter()
            .map(|(subject, cause, remedy)| status::Alarm { subject, cause, remedy: remedy.to_owned() });
        let distant = distant::alarms(&self.shared.distant);
        let ramp = ramp::alarm(&self.shared);
        let formers = self.shared.formers.alarms().into_iter();
        let formers =
            formers.map(|a| status::Alarm { subject: a.path, cause: a.cause, remedy: a.remedy.to_owned() });
        files.chain(formers).chain(endpoints).chain(misfits).chain(store).chain(distant).chain(ramp).collect()
    }
}

fn former_secret(used: &Use, now: UnixTime) -> status::FormerSecret {
    status::FormerSecret {
        name: used.name.clone(),
        ends_in_seconds: (now < used.until).then(|| used.until.since(now).as_secs()),
        requests: used.requests,
        last_used_seconds_ago: used.last.map(|last| now.since(last).as_secs()),
        addresses: used.addresses,
    }
}

fn signatures((place, latency): (String, Latency)) -> status::Signatures {
    let mean_micros = latency.mean().as_micros() as u64;
    status::Signatures { place, count: latency.count(), mean_micros }
}

fn endpoint(s: &crate::edges::fleet::Status) -> status::Endpoint {
    status::Endpoint {
        url: s.endpoint.authority.to_string(),
        address: s.endpoint.address.to_string(),
        healthy: s.standing == Standing::Healthy,
        held: (&s.held).into(),
        probed_seconds_ago: s.probed.map(|at| at.elapsed().as_secs()),
        side: if s.endpoint.side == Side::Next { "next" } else { "" }.to_owned(),
    }
}
