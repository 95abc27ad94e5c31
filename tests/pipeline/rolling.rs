//! A Harbor of two cores that is upgraded one core after the other, over and over: each is terminated, gets a new key
//! and comes back, while the other one serves with the key of before.

use crate::{
    stage::{ADMIN, DEV, SCOPE, push, token},
    support::harbor::{Harbor, KEY_BITS, Replica},
};
use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};
use tidegate::{
    rehearsal::harbor::{CoreKey, KeyForm},
    words::clock::Clock,
};

/// How long a core is away.
const AWAY: Duration = Duration::from_millis(100);
/// Between two looks whether a key is seen.
const LOOK: Duration = Duration::from_millis(5);
/// Between two steps of an upgrade, at most.
const PAUSE: Duration = Duration::from_millis(600);

/// A key that core held, and a token that core itself signed with it.
#[derive(Clone, Debug)]
pub struct Signed {
    pub kid: String,
    pub token: String,
}

/// The cores.
pub struct Rolling {
    cores: [Replica; 2],
    signed: Mutex<Vec<Signed>>,
    // Ends last: what the cores stand on.
    _harbor: Harbor,
}

impl Rolling {
    pub fn begin() -> Arc<Self> {
        let harbor = Harbor::start_in_memory();
        let mut cores = ["one", "other"].map(|name| harbor.replica(name));
        cores[1].hold_the_key_of(&cores[0]);
        for core in &mut cores {
            core.start_delay = AWAY;
        }
        let pushed = push(cores[0].address, "priv/seed", "v1", b"a layer", |ask| ask.basic(ADMIN));
        assert_eq!(pushed, Ok(()), "the seed");
        let rolling = Self { cores, signed: Mutex::default(), _harbor: harbor };
        let first = CoreKey::read(&rolling.cores[0].key_file).expect("its key");
        rolling.note(&rolling.cores[0], &first);
        Arc::new(rolling)
    }

    pub fn addresses(&self) -> [SocketAddr; 2] {
        [self.cores[0].address, self.cores[1].address]
    }

    pub fn key_files(&self) -> [&Path; 2] {
        [&self.cores[0].key_file, &self.cores[1].key_file]
    }

    /// All keys so far with a token of each, in their order.
    pub fn signed(&self) -> Vec<Signed> {
        held(&self.signed).clone()
    }

    /// Both cores, one after the other, with this pause between them.
    pub fn upgrade(&self, pause: Duration) {
        let key = CoreKey::generate(KEY_BITS).expect("a key");
        for core in &self.cores {
            core.terminate();
            key.rename_into(&core.key_file, KeyForm::Pkcs1).expect("the key is replaced");
            core.start_again();
            self.note(core, &key);
            thread::sleep(pause);
        }
    }

    /// Upgrades at random moments until the guard is dropped; the next one begins when the key of the last one
    /// `is_seen`.
    pub fn upgrades(self: &Arc<Self>, is_seen: impl Fn(&str) -> bool + Send + 'static) -> Upgrades {
        let (rolling, stop) = (Arc::clone(self), Arc::<AtomicBool>::default());
        let ended = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut chance = Chance::new();
            while !ended.load(Ordering::Relaxed) {
                if rolling.signed().last().is_some_and(|signed| is_seen(&signed.kid)) {
                    rolling.upgrade(chance.up_to(PAUSE));
                } else {
                    thread::sleep(LOOK);
                }
            }
        });
        Upgrades { stop, thread: Some(thread) }
    }

    fn note(&self, core: &Replica, key: &CoreKey) {
        let kid = key.kid().to_string();
        if held(&self.signed).iter().all(|signed| signed.kid != kid) {
            let token = token(core.address, DEV, SCOPE);
            held(&self.signed).push(Signed { kid, token });
        }
    }
}

/// Upgrades that go on until this is dropped, and the last one with it.
pub struct Upgrades {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Upgrades {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(thread::panicking() || ended.is_none_or(|ended| ended.is_ok()), "the upgrades ended early");
    }
}

/// Random moments; no two runs have the same ones.
pub struct Chance(u64);

impl Chance {
    pub fn new() -> Self {
        Self(Clock::system().now_precise().subsec_nanos().into())
    }

    /// From nothing to `most`.
    pub fn up_to(&mut self, most: Duration) -> Duration {
        // Knuth's MMIX: its high bits are random enough.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        most.mul_f64((self.0 >> 11) as f64 / (1_u64 << 53) as f64)
    }
}

fn held<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
