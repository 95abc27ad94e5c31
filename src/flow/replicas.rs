//! The other replicas: which of them live, and whether they have taken what an operator ordered (A20). Each writes a
//! record of its own every second; by it others see that it lives, and which revocations and windows it goes by.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use aws_lc_rs::digest::{Context, SHA256};
use tokio::{sync::watch, time};

use super::evidence::{Evidences, KEPT};
use crate::{
    decisions::{
        evidence::Evidence,
        record::{Kind, Place, replica::Replica, revocation::Revocation, seen_key::place_of, window},
        window::Order,
    },
    edges::store::{Loaded, Store, StoreFault},
    words::clock::{Clock, UnixTime},
};

/// Between two records of one replica.
const EVERY: Duration = Duration::from_secs(1);
/// A replica whose record stood still for so long is no live one. By our own clock: those of others differ.
const LIVES: Duration = Duration::from_secs(20);
/// The record of one that is gone is removed after that.
const REMEMBERED: Duration = Duration::from_mins(10);
/// Between two records of evidence.
const EVIDENCE_EVERY: Duration = Duration::from_secs(5);
/// Between two looks at the others while somebody waits for them.
const LOOK: Duration = Duration::from_millis(100);
/// How long an order may take to get to all replicas.
pub const SETTLES: Duration = Duration::from_secs(5);

/// What this process goes by of what the store holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// The same in every replica that goes by the same.
    pub digest: String,
    /// By the names of their records.
    pub revocations: BTreeMap<String, Revocation>,
    pub window: Option<Order>,
}

impl Applied {
    /// Of the records as they were read. Those that mean nothing to us are left out: nobody may take us for one that goes
    /// by what only a later version knows.
    pub fn of(revocations: &[Loaded], windows: &[Loaded]) -> Self {
        let kinds = [(Kind::Revocation, revocations), (Kind::Window, windows)];
        let all = kinds.into_iter().flat_map(|(kind, records)| {
            let usable = records.iter().filter(move |record| is_usable(kind, &record.plain));
            usable.map(move |record| (kind.name(), record.key.as_str(), record.plain.as_slice()))
        });
        let mut all: Vec<_> = all.collect();
        all.sort_unstable();
        let mut whole = Context::new(&SHA256);
        for (kind, key, plain) in all {
            for part in [kind.as_bytes(), key.as_bytes(), plain] {
                whole.update(&(part.len() as u64).to_be_bytes());
                whole.update(part);
            }
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(whole.finish().as_ref());
        Self {
            digest: place_of(&digest),
            revocations: revocations
                .iter()
                .filter_map(|record| Some((record.key.clone(), Revocation::read(&record.plain).ok()?)))
                .collect(),
            window: windows.iter().find_map(|record| Order::read(&record.plain).ok()),
        }
    }
}

fn is_usable(kind: Kind, plain: &[u8]) -> bool {
    match kind {
        Kind::Window => Order::read(plain).is_ok(),
        _ => Revocation::read(plain).is_ok_and(|revocation| revocation.key().is_none_or(|key| key.is_ok())),
    }
}

/// What an operator ordered, and all replicas must know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ordered {
    Revocation(Revocation),
    Window(Order),
}

impl Ordered {
    /// Whether this very order counts there, or one that goes further.
    fn is_in(&self, applied: &Applied) -> bool {
        match self {
            Self::Revocation(revocation) => {
                let known = applied.revocations.get(&revocation.place());
                known.is_some_and(|known| !revocation.ends_more(known))
            }
            Self::Window(order) => applied.window.is_some_and(|known| known.or_later(*order) == known),
        }
    }

    fn keep(&self, store: &Store) {
        match self {
            Self::Revocation(revocation) => {
                let place = Place::new(Kind::Revocation, revocation.place());
                store.keep(place, revocation.write(), revocation.expires());
            }
            Self::Window(order) => {
                store.keep(Place::new(Kind::Window, window::PLACE), order.write(), Some(order.over()));
            }
        }
    }
}

/// Why it can't be said that an order is done. It counts here in any case.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsettled {
    #[error(
        "the store didn't take it within {} s: a restart, and other replicas, don't know of it until it does (tidegate status names its fault)",
        SETTLES.as_secs()
    )]
    NotWritten,
    #[error("within {} s these replicas haven't acknowledged it: {}; run it again, and look at them", SETTLES.as_secs(), listed(.0))]
    Missing(Vec<Other>),
}

/// Another replica as it was last heard of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Other {
    pub id: String,
    pub host: String,
    pub version: String,
    /// Whether it goes by the same revocations and windows.
    pub agrees: bool,
    pub silent: Duration,
}

impl fmt::Display for Other {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, host, silent, .. } = self;
        write!(f, "{host} ({id}, last heard {} s ago)", silent.as_secs())
    }
}

fn listed(all: &[Other]) -> String {
    all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// A record, and when it last changed.
#[derive(Debug)]
struct Heard {
    replica: Replica,
    at: Instant,
}

/// The process among its like.
pub struct Replicas {
    store: Arc<Store>,
    id: String,
    host: String,
    version: &'static str,
    began: UnixTime,
    clock: Clock,
    applied: watch::Receiver<Applied>,
    others: Mutex<BTreeMap<String, Heard>>,
    evidence: Arc<Evidences>,
    left: Mutex<bool>,
}

impl Replicas {
    /// `id` is this process's alone; `host` and `version` are what operators call it.
    pub fn new(
        store: Arc<Store>,
        (id, host, version): (String, String, &'static str),
        clock: Clock,
        applied: watch::Receiver<Applied>,
        evidence: Arc<Evidences>,
    ) -> Self {
        let (began, others, left) = (clock.now(), Mutex::default(), Mutex::new(false));
        Self { store, id, host, version, began, clock, applied, others, evidence, left }
    }

    /// Says that we live, hears who else does, and shares evidence; never ends.
    pub async fn run(self: Arc<Self>) {
        let mut applied = self.applied.clone();
        let (mut shared, mut due) = (Evidence::default(), Instant::now());
        loop {
            if self.store.is_shared() {
                self.say();
                // A fault of the store's is told by the store.
                let _ = self.hear().await;
            }
            if Instant::now() >= due {
                shared = self.share(shared).await;
                due = Instant::now() + EVIDENCE_EVERY;
            }
            tokio::select! {
                () = time::sleep(EVERY) => {}
                changed = applied.changed() => if changed.is_err() {
                    time::sleep(EVERY).await;
                },
            }
        }
    }

    /// We stop on purpose: nobody need wait for us.
    pub fn leave(&self) {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        *left = true;
        if self.store.is_shared() {
            self.store.forget(self.place(Kind::Replica));
        }
    }

    fn place(&self, kind: Kind) -> Place {
        Place::new(kind, self.id.as_str())
    }

    fn say(&self) {
        let now = self.clock.now();
        let replica = Replica {
            host: self.host.clone(),
            version: self.version.to_owned(),
            began: self.began,
            seen: now,
            applied: self.applied.borrow().digest.clone(),
        };
        let left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        if !*left {
            self.store.keep(self.place(Kind::Replica), replica.write(), Some(now.plus(REMEMBERED)));
        }
    }

    async fn hear(&self) -> Result<(), StoreFault> {
        let loaded = self.store.load(Kind::Replica).await?;
        let found: BTreeMap<String, Replica> = loaded
            .into_iter()
            .filter(|record| record.key != self.id)
            .filter_map(|record| Some((record.key, Replica::read(&record.plain).ok()?)))
            .collect();
        let (mut others, now) = (self.others(), Instant::now());
        others.retain(|id, _| found.contains_key(id));
        for (id, replica) in found {
            let heard = others.entry(id).or_insert_with(|| Heard { replica: replica.clone(), at: now });
            if heard.replica != replica {
                *heard = Heard { replica, at: now };
            }
        }
        Ok(())
    }

    /// Writes what we saw, where that is more than before; reads what others did. Who is alone reads what it wrote
    /// itself before its restart.
    async fn share(&self, before: Evidence) -> Evidence {
        let here = self.evidence.here(self.clock.now());
        if here != before
            && let Some(last) = here.latest_exp()
        {
            self.store.keep(self.place(Kind::Evidence), here.write(), Some(last.plus(KEPT)));
        }
        if let Ok(loaded) = self.store.load(Kind::Evidence).await {
            let mut all = Evidence::default();
            let others = loaded.iter().filter(|record| record.key != self.id);
            others.filter_map(|record| Evidence::read(&record.plain).ok()).for_each(|seen| all.join(&seen));
            self.evidence.set_elsewhere(all);
        }
        here
    }

    /// The live ones but for ourselves.
    pub fn live(&self) -> Vec<Other> {
        let ours = self.applied.borrow().digest.clone();
        let others = self.others();
        let all = others.iter().map(|(id, heard)| Other {
            id: id.clone(),
            host: heard.replica.host.clone(),
            version: heard.replica.version.clone(),
            agrees: heard.replica.applied == ours,
            silent: heard.at.elapsed(),
        });
        all.filter(|other| other.silent < LIVES).collect()
    }

    /// Waits until these orders are in the store and every live replica goes by them.
    pub async fn settled(&self, ordered: &[Ordered]) -> Result<(), Unsettled> {
        if ordered.is_empty() {
            return Ok(());
        }
        let until = Instant::now() + SETTLES;
        // Now, and not when a task comes to it: we may be killed right after the answer.
        let missing = |ordered: &&Ordered| !ordered.is_in(&self.applied.borrow());
        ordered.iter().filter(missing).for_each(|ordered| ordered.keep(&self.store));
        if !self.store.is_shared() {
            let is_written = self.store.written_within(SETTLES).await;
            return if is_written { Ok(()) } else { Err(Unsettled::NotWritten) };
        }
        loop {
            let is_here = ordered.iter().all(|ordered| ordered.is_in(&self.applied.borrow()));
            let heard = is_here && self.hear().await.is_ok();
            let missing: Vec<Other> = self.live().into_iter().filter(|other| !other.agrees).collect();
            if heard && missing.is_empty() {
                return Ok(());
            }
            if Instant::now() >= until {
                return Err(if heard { Unsettled::Missing(missing) } else { Unsettled::NotWritten });
            }
            time::sleep(LOOK).await;
        }
    }

    // What it guards is whole at every step.
    fn others(&self) -> MutexGuard<'_, BTreeMap<String, Heard>> {
        self.others.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;

    fn loaded(key: &str, plain: &[u8]) -> Loaded {
        Loaded { key: key.to_owned(), plain: Zeroizing::new(plain.to_vec()), expires: None }
    }

    #[test]
    fn a20_replicas_agree_that_go_by_the_same_records_in_whatever_order_they_read_them() {
        let of = |revocations: &[Loaded], windows: &[Loaded]| Applied::of(revocations, windows).digest;
        let revoked =
            |key: &str, n: u8| loaded(key, &Revocation::Token { digest: [n; 32], at: UnixTime(1) }.write());
        let window = |until| {
            let order = Order { opened: UnixTime(0), until: UnixTime(until), said: UnixTime(0) };
            loaded("b", &order.write())
        };
        let one = of(&[revoked("a", 1), revoked("b", 2)], &[]);
        assert_eq!(one, of(&[revoked("b", 2), revoked("a", 1)], &[]));
        for other in [
            of(&[revoked("a", 1)], &[]),
            of(&[revoked("a", 1), revoked("b", 3)], &[]),
            of(&[revoked("a", 1)], &[window(9)]),
            of(&[revoked("a", 1), revoked("b", 2)], &[window(9)]),
            of(&[revoked("ab", 1), revoked("", 2)], &[]),
        ] {
            assert_ne!(one, other);
        }
    }

    /// The former version doesn't do what it can't read: it mustn't look as if it did.
    #[test]
    fn a20_who_cannot_use_a_record_does_not_agree_with_who_can() {
        let known = loaded("a", &Revocation::Token { digest: [1; 32], at: UnixTime(1) }.write());
        let of = |records: Vec<Loaded>, windows: Vec<Loaded>| Applied::of(&records, &windows).digest;
        let without = of(vec![known], vec![]);
        let known = || loaded("a", &Revocation::Token { digest: [1; 32], at: UnixTime(1) }.write());
        for strange in [
            &b"{\"v\":9,\"of\":\"moon\",\"at\":1}"[..],
            b"{\"v\":1,\"of\":\"key\",\"spki\":\"AA==\",\"at\":1}",
        ] {
            assert_eq!(without, of(vec![known(), loaded("b", strange)], vec![]));
        }
        assert_eq!(without, of(vec![known()], vec![loaded("order", b"{}")]));
    }

    #[test]
    fn a20_only_the_very_order_or_one_that_goes_further_is_known() {
        let of = |not_before: i64| {
            let not_before = UnixTime(not_before);
            Revocation::Subject { name: "dev".to_owned(), not_before, at: not_before }
        };
        let order = |until, said| Order { opened: UnixTime(0), until: UnixTime(until), said: UnixTime(said) };
        let applied = Applied {
            revocations: BTreeMap::from([(of(5).place(), of(5))]),
            window: Some(order(90, 5)),
            ..Applied::default()
        };
        let table = [
            (Ordered::Revocation(of(5)), true),
            (Ordered::Revocation(of(4)), true),
            (Ordered::Revocation(of(6)), false),
            (Ordered::Revocation(Revocation::Token { digest: [1; 32], at: UnixTime(5) }), false),
            (Ordered::Window(order(90, 5)), true),
            (Ordered::Window(order(10, 4)), true),
            (Ordered::Window(order(10, 5)), false),
            (Ordered::Window(order(10, 6)), false),
        ];
        for (ordered, want) in table {
            assert_eq!(ordered.is_in(&applied), want, "{ordered:?}");
        }
    }

    #[test]
    fn who_has_not_acknowledged_is_named() {
        let silent = Duration::from_secs(3);
        let other = Other {
            id: "0a1b".to_owned(),
            host: "tidegate-1".to_owned(),
            version: String::new(),
            agrees: false,
            silent,
        };
        let said = Unsettled::Missing(vec![other]).to_string();
        assert!(said.contains("tidegate-1 (0a1b, last heard 3 s ago)"), "{said}");
    }
}
