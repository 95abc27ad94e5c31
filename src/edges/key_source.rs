//! Key files: told of changes by the kernel and looked at every half second, because a mount whose inode
//! changed and a network file system tell nothing. Tokens with keys are looked at by threads of their own, whose last
//! word is taken here.

mod look;
mod told;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use tokio::{
    sync::{Notify, watch},
    task::spawn_blocking,
    time,
};
use tracing::{error, info, warn};

use self::look::{Looker, Patience, Sight};
pub use super::alarm::Alarm;
use super::pkcs11;
use crate::{
    decisions::{
        key::{Key, KeyFault},
        record::seen_key::SeenKey,
        ring::{
            AddFault, Change, Keeper, Listing, Peer, PeerKey, Policy, Restorable, RetireFault, Ring,
            SourceName,
        },
        window::Open,
    },
    words::{
        clock::{Clock, UnixTime},
        kid::Kid,
    },
};

/// One configured source of keys.
#[derive(Clone, Debug)]
pub struct Source {
    pub place: Place,
    pub listing: Listing,
}

/// Where a source's keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// One file of PEM blocks, or a JWKS.
    File(PathBuf),
    /// Every `*.pem`, `*.key` and `*.crt` of a folder whose name doesn't begin with a dot.
    Folder(PathBuf),
    /// A JWKS file and nothing else.
    Jwks(PathBuf),
    /// Keys of a PKCS#11 token.
    Token(Box<pkcs11::Location>),
}

/// How long the start waits for tokens to be read: longer than a look at one may take.
const FIRST_LOOK: Duration = Duration::from_secs(6);
/// How long a look waits for tokens where a request waits for the look.
const ASKED_LOOK: Duration = Duration::from_millis(200);

impl Place {
    fn takes(&self, path: &Path) -> bool {
        match self {
            Self::File(file) | Self::Jwks(file) => is_same(file, path),
            Self::Folder(folder) => {
                path.parent().is_some_and(|parent| is_same(folder, parent)) && look::is_key_file(path)
            }
            Self::Token(_) => false,
        }
    }
}

/// Where a configured path is relative, it is to this process's folder.
fn is_same(configured: &Path, path: &Path) -> bool {
    configured == path || std::path::absolute(configured).is_ok_and(|absolute| absolute == path)
}

/// The current ring and alarms, shared by all workers, and what makes the next ones. Its locks are never held
/// over an await and never taken by a request; the keeper's is never held over a read of a file.
#[derive(Debug)]
pub struct KeyShelf {
    ring: ArcSwap<Ring>,
    /// See [`Keeper::own`], with what was retired at once.
    own: ArcSwap<(Ring, Vec<Arc<Key>>)>,
    /// See [`Keeper::sourced`].
    sourced: ArcSwap<Ring>,
    alarms: ArcSwap<Vec<Alarm>>,
    suspicions: ArcSwap<Vec<Alarm>>,
    looker: Mutex<Looker>,
    keeper: Mutex<Keeper>,
    places: ArcSwap<Vec<Place>>,
    began: Instant,
    reconfigured: Notify,
    looked: Notify,
    changed: Notify,
    keeps_private: AtomicBool,
}

impl KeyShelf {
    /// Nothing is read yet: see [`load_once`].
    pub fn new(policy: Policy, sources: Vec<Source>) -> Self {
        let keeper = Keeper::new(policy);
        Self {
            ring: ArcSwap::new(Arc::clone(keeper.ring())),
            own: ArcSwap::default(),
            sourced: ArcSwap::default(),
            alarms: ArcSwap::default(),
            suspicions: ArcSwap::default(),
            places: ArcSwap::from_pointee(places(&sources)),
            looker: Mutex::new(Looker::new(sources)),
            keeper: Mutex::new(keeper),
            began: Instant::now(),
            reconfigured: Notify::new(),
            looked: Notify::new(),
            changed: Notify::new(),
            keeps_private: AtomicBool::new(false),
        }
    }

    fn keeper(&self) -> MutexGuard<'_, Keeper> {
        let mut keeper = lock(&self.keeper);
        keeper.pass(self.began.elapsed());
        keeper
    }

    /// How long a key verifies after its last signature.
    pub fn window(&self) -> Duration {
        self.keeper().policy().window()
    }

    /// Whether this file is a source, or would be one if it were there.
    pub fn is_source(&self, path: &Path) -> bool {
        self.places.load().iter().any(|place| place.takes(path))
    }

    /// Whether a store should hold private halves too.
    pub fn set_keeps_private(&self, keeps: bool) {
        if self.keeps_private.swap(keeps, Ordering::Relaxed) != keeps {
            self.changed.notify_one();
        }
    }

    pub fn keeps_private(&self) -> bool {
        self.keeps_private.load(Ordering::Relaxed)
    }

    /// Keys that a store should hold with their private halves: see [`Keeper::private_halves`].
    pub fn private_halves(&self, now: UnixTime) -> Vec<Arc<Key>> {
        if self.keeps_private() { self.keeper().private_halves(now) } else { Vec::new() }
    }

    /// Takes back private halves that a store holds: see [`Keeper::recall_private`].
    pub fn recall_private(&self, keys: impl IntoIterator<Item = Key>, now: UnixTime) {
        let mut keeper = self.keeper();
        let (ring, changes) = keeper.recall_private(keys, now);
        self.publish(&keeper, ring, &changes, now);
    }

    /// The ring as it is now: take it once for each plan (A19).
    pub fn ring(&self) -> Arc<Ring> {
        self.ring.load_full()
    }

    /// The keys that our own files held, and what was retired at once: what peers may read.
    pub fn own(&self) -> Arc<(Ring, Vec<Arc<Key>>)> {
        self.own.load_full()
    }

    /// The keys without what peers published: what registries may trust.
    pub fn sourced(&self) -> Arc<Ring> {
        self.sourced.load_full()
    }

    /// Alarms and warnings of all sources, for `status`, `check` and readiness.
    pub fn alarms(&self) -> Arc<Vec<Alarm>> {
        self.alarms.load_full()
    }

    /// What would keep core from signing with files that are sound for us: of use where some core can't sign.
    pub fn suspicions(&self) -> Arc<Vec<Alarm>> {
        self.suspicions.load_full()
    }

    /// Takes another configuration and reads it, so it may block on files. Keys of sources that are gone from it count as replaced; what was retired
    /// stays retired.
    pub fn reconfigure(&self, policy: Policy, sources: Vec<Source>, now: UnixTime) {
        let mut looker = lock(&self.looker);
        self.places.store(Arc::new(places(&sources)));
        let sights = looker.reconfigure(sources, now);
        self.keeper().set_policy(policy);
        self.suspicions.store(Arc::new(looker.suspicions()));
        self.apply(sights, looker.warnings(), now);
        self.reconfigured.notify_one();
    }

    /// Nobody else writes into the store: see [`Keeper::recall_as_own`].
    pub fn recall_as_own(&self) {
        lock(&self.keeper).recall_as_own();
    }

    /// A peer published these keys: see [`Keeper::learn`].
    pub fn learn(&self, peer: &Peer, published: &[PeerKey], retired: &[Arc<Key>], now: UnixTime) {
        let mut keeper = self.keeper();
        let (ring, changes) = keeper.learn(peer, published, retired, now);
        self.publish(&keeper, ring, &changes, now);
        self.looked.notify_waiters();
    }

    /// A source that isn't a file was read; without a listing it was taken away. It may block on a look at files.
    pub fn heard(
        &self,
        name: &SourceName,
        listing: Option<Listing>,
        read: Result<Vec<Key>, KeyFault>,
        now: UnixTime,
    ) {
        let looker = lock(&self.looker);
        let sight = Sight { name: name.clone(), listing, read };
        self.apply(vec![sight], looker.warnings(), now);
    }

    /// Another configuration says this about a source that isn't a file, whatever keys were read of it.
    pub fn list(&self, name: &SourceName, listing: Listing, now: UnixTime) {
        let mut keeper = self.keeper();
        keeper.declare(name, listing);
        let (ring, changes) = keeper.refresh(now);
        self.publish(&keeper, ring, &changes, now);
    }

    /// Retires a key at once, by any of its names (A9).
    pub fn retire_now(&self, name: &str, now: UnixTime) -> Result<(), RetireFault> {
        let mut keeper = self.keeper();
        let (ring, changes) = keeper.retire_now(name, now)?;
        self.publish(&keeper, ring, &changes, now);
        Ok(())
    }

    /// Retires a key whose tokens have all ended: see [`Keeper::retire`].
    pub fn retire(
        &self,
        name: &str,
        latest_exp: impl Fn(&Kid) -> Option<UnixTime>,
        now: UnixTime,
    ) -> Result<(), RetireFault> {
        let mut keeper = self.keeper();
        let (ring, changes) = keeper.retire(name, latest_exp, now)?;
        self.publish(&keeper, ring, &changes, now);
        Ok(())
    }

    /// Takes keys that no source holds: see [`Keeper::add`].
    pub fn add(&self, keys: Vec<Key>, signed_until: UnixTime, now: UnixTime) -> Result<(), AddFault> {
        let mut keeper = self.keeper();
        let (ring, changes) = keeper.add(keys, signed_until, now)?;
        self.publish(&keeper, ring, &changes, now);
        Ok(())
    }

    /// Retires at once a key that another replica retired `at`.
    pub fn ban(&self, key: Arc<Key>, at: UnixTime, now: UnixTime) {
        let mut keeper = self.keeper();
        let (ring, changes) = keeper.ban(key, at, now);
        self.publish(&keeper, ring, &changes, now);
    }

    /// Which upgrade window is open: see [`Keeper::set_window`].
    pub fn set_window(&self, open: Option<Open>, now: UnixTime) {
        let mut keeper = self.keeper();
        let (ring, changes) = keeper.set_window(open, now);
        self.publish(&keeper, ring, &changes, now);
    }

    /// Endpoints hold these keys, by a probe whose signature verified: see [`Keeper::observe_held`].
    pub fn note_held<'a>(&self, held: impl IntoIterator<Item = &'a Kid>, now: UnixTime) {
        let mut keeper = self.keeper();
        let (ring, changes) = keeper.observe_held(held, now);
        self.publish(&keeper, ring, &changes, now);
    }

    /// Takes back what a store holds: see [`Keeper::recall`].
    pub fn recall(&self, seen: impl IntoIterator<Item = SeenKey>, now: UnixTime) {
        let mut keeper = self.keeper();
        let (ring, changes) = keeper.recall(seen, now);
        self.publish(&keeper, ring, &changes, now);
    }

    /// The files that hold keys now, and then the tokens that do, whose private halves stay in them.
    pub fn sources(&self) -> (Vec<SourceName>, Vec<SourceName>) {
        let keeper = self.keeper();
        let (tokens, files): (Vec<_>, Vec<_>) = keeper.sources().partition(|(_, is_file)| !is_file);
        let names =
            |sources: Vec<(&SourceName, bool)>| sources.into_iter().map(|(name, _)| name.clone()).collect();
        (names(files), names(tokens))
    }

    /// Takes what an archive holds, but for a `dry_run`; what that changes.
    pub fn restore(
        &self,
        (seen, retired): (Vec<SeenKey>, Vec<Key>),
        dry_run: bool,
        now: UnixTime,
    ) -> Restorable {
        let mut keeper = self.keeper();
        let would = keeper.restorable(&seen, &retired, now);
        if !dry_run {
            let (ring, changes) = keeper.restore(seen, retired, now);
            self.publish(&keeper, ring, &changes, now);
        }
        would
    }

    /// The store can't be read, or has been: see [`Keeper::trust_held_only`].
    pub fn trust_held_only(&self, is_unknown: bool, now: UnixTime) {
        let mut keeper = self.keeper();
        let (ring, changes) = keeper.trust_held_only(is_unknown, now);
        self.publish(&keeper, ring, &changes, now);
    }

    /// Keys that may have been retired, by the names of their records: see [`Keeper::doubt`].
    pub fn doubt(&self, places: BTreeSet<String>, now: UnixTime) {
        let mut keeper = self.keeper();
        let (ring, changes) = keeper.doubt(places, now);
        self.publish(&keeper, ring, &changes, now);
    }

    /// What a store should hold of it now: keys seen, and what was retired at once, with the time.
    pub fn to_keep(&self, now: UnixTime) -> (Vec<SeenKey>, Vec<(Arc<Key>, UnixTime)>) {
        let keeper = self.keeper();
        let at = |key: &Arc<Key>| (Arc::clone(key), keeper.banned_at(key).unwrap_or(now));
        (keeper.seen(now), keeper.retired().iter().map(at).collect())
    }

    /// Waits until something may have changed since the last call.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Ends what tokens do for us, at the end of the process; key files need no end.
    pub fn end(&self) {
        lock(&self.looker).end();
    }

    /// The keeper's lock is held, so that a ring never follows its successor.
    fn publish(&self, keeper: &Keeper, ring: Arc<Ring>, changes: &[Change], now: UnixTime) {
        self.ring.store(ring);
        self.show(keeper, now);
        changes.iter().for_each(tell);
        self.changed.notify_one();
    }

    fn show(&self, keeper: &Keeper, now: UnixTime) {
        self.own.store(Arc::new((keeper.own(now), keeper.retired().to_vec())));
        self.sourced.store(Arc::new(keeper.sourced(now)));
    }

    /// Asks for a look at all sources at once; [`KeyShelf::looked_within`] tells when it is done.
    pub fn look_soon(&self) {
        self.reconfigured.notify_one();
    }

    /// Waits for the end of the next look, at most so long.
    pub async fn looked_within(&self, most: Duration) {
        time::timeout(most, self.looked.notified()).await.ok();
    }

    /// Tokens are asked, and waited for so long, if at all; else what is known of them counts.
    fn look(&self, patience: Patience, tokens: Option<Duration>, now: UnixTime) {
        let mut looker = lock(&self.looker);
        if let Some(wait) = tokens {
            looker.ask_tokens(wait);
        }
        let sights = looker.look(patience, now);
        self.suspicions.store(Arc::new(looker.suspicions()));
        self.apply(sights, looker.warnings(), now);
        // What the keeper refused (a name that another source has) may be taken once that one has changed.
        self.keeper().faults().for_each(|(name, ..)| looker.forget(name));
    }

    /// Gives the keeper what was seen, publishes what came of it, then tells of it. The keeper's lock spans
    /// the publication, so that a ring never follows its successor.
    fn apply(&self, sights: Vec<Sight>, mut alarms: Vec<Alarm>, now: UnixTime) {
        let mut changes = Vec::new();
        let mut keeper = self.keeper();
        for Sight { name, listing, read } in sights {
            if let Some(listing) = listing {
                keeper.declare(&name, listing);
            }
            changes.extend(keeper.observe(&name, read, now).1);
        }
        let (ring, by_time) = keeper.refresh(now);
        changes.extend(by_time);
        alarms.extend(keeper.faults().map(Alarm::of));
        let told = self.alarms.swap(Arc::new(alarms.clone()));
        self.ring.store(ring);
        self.show(&keeper, now);
        drop(keeper);
        if !changes.is_empty() {
            self.changed.notify_one();
        }
        self.looked.notify_waiters();
        changes.iter().for_each(tell);
        alarms.iter().filter(|alarm| alarm.is_warning && !told.contains(alarm)).for_each(Alarm::tell);
    }
}

fn places(sources: &[Source]) -> Vec<Place> {
    sources.iter().map(|source| source.place.clone()).collect()
}

/// What these locks guard is whole at every step, so that a panic elsewhere doesn't end rotation.
fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads all sources once, for the start and for `tidegate check`; gives back what is wrong with them.
pub fn load_once(shelf: &KeyShelf, now: UnixTime) -> Arc<Vec<Alarm>> {
    shelf.look(Patience::None, Some(FIRST_LOOK), now);
    shelf.alarms()
}

/// Keeps the shelf up to date until `stop` is true or its sender is gone: at once when the kernel tells of a
/// change, and every `reread_every` (half a second). Files are read off the runtime's thread.
pub async fn run(
    shelf: Arc<KeyShelf>,
    clock: Clock,
    reread_every: Duration,
    mut stop: watch::Receiver<bool>,
) {
    let mut told = told::of(lock(&shelf.looker).sources());
    let mut tick = time::interval(reread_every.max(Duration::from_millis(1)));
    tick.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    loop {
        let (patience, tokens) = tokio::select! {
            _ = tick.tick() => (Patience::None, None),
            () = told.change() => (Patience::UntilTick, None),
            () = shelf.reconfigured.notified() => {
                told = told::of(lock(&shelf.looker).sources());
                (Patience::None, Some(ASKED_LOOK))
            }
            () = stopped(&mut stop) => return,
        };
        let (shelf, clock) = (Arc::clone(&shelf), clock.clone());
        if let Err(failure) = spawn_blocking(move || shelf.look(patience, tokens, clock.now())).await {
            error!(error = %failure, "a look at the key files failed; the next one tries again");
        }
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error says that the sender is gone, which is a stop too.
    stop.wait_for(|stop| *stop).await.ok();
}

impl Alarm {
    fn of((source, fault, since): (&SourceName, &KeyFault, UnixTime)) -> Self {
        let (path, cause) = (source.to_string(), fault.to_string());
        Self {
            path,
            cause,
            remedy: fault.remedy(),
            since,
            is_warning: false,
            forbids_start: *fault == KeyFault::PublishedDefault,
        }
    }

    fn tell(&self) {
        warn!(key.path = %self.path, key.cause = %self.cause, key.remedy = self.remedy, "a key file works, but look at it");
    }
}

/// One line for each change, in full sentences.
fn tell(change: &Change) {
    match change {
        Change::Became { kid, source, state } => {
            info!(key.kid = %kid, key.path = %source, key.state = state.as_str(), "a key changed its state");
        }
        Change::Broke { source, fault } => error!(
            key.path = %source, key.cause = %fault, key.remedy = fault.remedy(),
            "a key source can't be used; the keys that it gave before stay in use"
        ),
        Change::Mended { source } => info!(key.path = %source, "a key source is in use again"),
    }
}

#[cfg(test)]
mod tests;
