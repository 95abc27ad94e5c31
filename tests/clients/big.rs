//! One large layer up and down while the only core ends again and again (U8, U9).

use crate::{
    lane::{Lane, Ledger, Side},
    support::{
        client::{self, skopeo::Skopeo},
        gate::{self, Gate},
        harbor::{Harbor, Replica},
        image::Image,
        process::peak_memory,
        settings,
        tap::Tap,
        waiting,
        witness::Witness,
    },
};
use std::{
    cell::Cell,
    fs,
    hash::{BuildHasher as _, RandomState},
    thread,
    time::Duration,
};
use tempfile::TempDir;

const MIB: u64 = 1 << 20;
/// `uploads.memory_total`, MiB.
const KEPT: u64 = 64;
/// What tidegate may take beside that: itself, its connections and what is on their way, MiB.
const BESIDE: u64 = 64;

#[test]
fn a_pull_and_a_push_of_5_gib_go_on_while_core_is_killed_at_random_moments() {
    let (mebibytes, kills) = if settings::long() { (5 * 1024, 10) } else { (256, 3) };
    let seed = RandomState::new().hash_one("moments");
    println!("\n{mebibytes} MiB, {kills} kills each way, seed {seed}");
    let scene = Scene::begin();
    let image = Image::generate(seed, mebibytes);
    let ledger = Ledger::default();
    let witness = Witness::watch(scene.harbor.world(), &scene.gate);
    let lanes = [Side::Direct, Side::Through].map(|side| {
        let tap = Tap::counting(scene.front(side));
        let lane = Lane::both(tap.address, tap.address)[side as usize].clone();
        let skopeo = Skopeo::new();
        assert!(ledger.login(&lane, &skopeo), "{ledger}");
        (side, tap, lane, skopeo)
    });
    let moments = moments(seed, kills, mebibytes * MIB);
    // The last one when all of the layer has left its client, and core makes a blob of it.
    let with_end = [&moments[..], &[mebibytes * MIB]].concat();
    for (side, tap, lane, skopeo) in &lanes {
        let repository = format!("{}:v1", repository(*side));
        let pushed = scene.killed(tap, &with_end, || ledger.push(lane, skopeo, &image, &repository));
        println!("  {side:?}: {pushed} kills while it was pushed");
        assert!(*side == Side::Direct || pushed >= kills, "it was over too soon");
    }
    for (side, tap, lane, skopeo) in &lanes {
        let repository = format!("{}:v1", repository(Side::Through));
        let pulled = scene.killed(tap, &moments, || ledger.pull(lane, skopeo, &repository));
        println!("  {side:?}: {pulled} kills while it was pulled");
        assert!(*side == Side::Direct || pulled == kills, "it was over too soon");
    }
    scene.gate.wait_for("nothing is in the spool", |metrics| metrics.sum(SPOOLED, &[]) < 0.5);
    let peak = peak_memory(scene.gate.id());
    println!("  at most {} MiB in the spool, {} MiB of memory", scene.spooled.get() / MIB, peak / MIB);
    ledger.verify_pushes(scene.core.address);
    ledger.judge("one large layer, core killed at random moments", &scene.gate);
    witness.judge(scene.core.address);
    assert!(scene.spooled.get() > 0, "the spool was used");
    assert!(peak < (KEPT + BESIDE) * MIB, "{peak} bytes of memory");
}

/// The metric of the spool's bytes.
const SPOOLED: &str = "tidegate_spool_bytes";

/// Where a lane pushes.
fn repository(side: Side) -> &'static str {
    if side == Side::Direct { "priv/big-direct" } else { "priv/big-through" }
}

/// One core, and tidegate with a spool before it.
struct Scene {
    core: Replica,
    gate: Gate,
    spool: TempDir,
    /// The most bytes seen in the spool.
    spooled: Cell<u64>,
    harbor: Harbor,
}

impl Scene {
    fn begin() -> Self {
        let harbor = Harbor::start();
        let mut core = harbor.replica("only");
        core.start_delay = Duration::from_millis(500);
        let spool = tempfile::tempdir().expect("a temporary folder");
        let gate = Gate::start(&format!(
            "{}\n[uploads]\nmemory_total = \"{KEPT}MiB\"\nspool = \"{}\"\n",
            gate::configuration(&[core.address], "auto", &[&core.key_file]),
            spool.path().display()
        ));
        Self { core, gate, spool, spooled: Cell::new(0), harbor }
    }

    fn front(&self, side: Side) -> std::net::SocketAddr {
        if side == Side::Direct { self.core.address } else { self.gate.address }
    }

    /// Ends core whenever that many bytes have passed on the wire of a client that does this, by SIGTERM and by SIGKILL
    /// in turn; how often it did so before the client's end.
    fn killed(&self, tap: &Tap, moments: &[u64], act: impl FnOnce() -> bool + Send) -> usize {
        let before = tap.passed();
        thread::scope(|scope| {
            let acting = scope.spawn(act);
            let kills = moments.iter().enumerate().take_while(|(count, at)| {
                waiting::holds("the bytes pass", client::patience(), || {
                    acting.is_finished() || tap.passed() - before >= **at
                });
                if acting.is_finished() {
                    return false;
                }
                self.look_into_the_spool();
                if count.is_multiple_of(2) {
                    self.core.terminate();
                } else {
                    self.core.kill();
                }
                for side in [Side::Direct, Side::Through] {
                    self.harbor.forget_uploads(repository(side));
                }
                self.core.start_again();
                true
            });
            kills.count()
        })
    }

    fn look_into_the_spool(&self) {
        let named = fs::read_dir(self.spool.path()).expect("the spool's folder").count();
        assert_eq!(named, 0, "no file in the spool has a name");
        let now = self.gate.metrics().sum(SPOOLED, &[]) as u64;
        self.spooled.set(self.spooled.get().max(now));
    }
}

/// So many moments below nine tenths of `size`, ascending.
fn moments(seed: u64, count: usize, size: u64) -> Vec<u64> {
    let moment = |number: usize| {
        // SplitMix64's finish, of a number that differs.
        let mut z = seed.wrapping_add((number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % (size / 10 * 9)
    };
    let mut moments: Vec<u64> = (0..count).map(moment).collect();
    moments.sort_unstable();
    moments
}
