//! Two replicas share a store that goes away under load while Harbor is upgraded: no client notices, the operator does,
//! and what was learned meanwhile is in the store when it is back.

use crate::{
    pullers::{Front, Killed, Pullers, judge},
    rolling::Rolling,
    servers::{Cluster, Failover, PASSWORD, Redis},
    stage::{MANIFEST, pull},
    support::{
        gate::{self, Gate},
        http, settings,
        slow_link::SlowLink,
        waiting,
    },
};
use std::{fs, sync::Arc, thread, time::Duration};
use tempfile::TempDir;
use tidegate::decisions::record::seal;

const PATIENCE: Duration = Duration::from_secs(30);

/// How long a server stays away that comes back only when it is told to.
fn away() -> Duration {
    Duration::from_secs(if settings::long() { 60 } else { 2 })
}

#[test]
fn nothing_fails_while_redis_is_down() {
    let redis = Redis::start(&[]);
    let address = redis.address;
    let scene = Scene::begin(&format!("redis://{address}"));
    redis.signal("KILL");
    scene.is_degraded();
    scene.upgrade_and_stay(away());
    drop(redis);
    // In memory alone: it comes back empty.
    let _back = Redis::at(address, &[]);
    scene.end("Redis down");
}

#[test]
fn nothing_fails_while_redis_hangs() {
    let redis = Redis::start(&[]);
    let scene = Scene::begin(&format!("redis://{}", redis.address));
    redis.signal("STOP");
    scene.is_degraded();
    scene.upgrade_and_stay(away());
    redis.signal("CONT");
    scene.end("Redis hangs");
}

/// Each answer comes after two seconds, so that the store is there and yet of no use.
#[test]
fn nothing_fails_while_the_way_to_redis_takes_two_seconds() {
    let redis = Redis::start(&[]);
    let link = SlowLink::before(redis.address);
    let scene = Scene::begin(&format!("redis://{}", link.address));
    link.takes(Duration::from_secs(1));
    scene.is_degraded();
    let since = scene.gates.each_ref().map(degraded_since);
    scene.upgrade_and_stay(away());
    for gate in &scene.gates {
        gate.wait_for("changes wait", |metrics| metrics.sum("tidegate_store_waiting_changes", &[]) > 0.5);
    }
    for (gate, since) in scene.gates.iter().zip(since) {
        let alarms = crate::operating::status(gate)["alarms"].to_string();
        assert!(alarms.contains("not usable since 20"), "{alarms}");
        let now = degraded_since(gate);
        assert!((now - since).abs() < 0.5, "since when: {since} and {now}");
    }
    link.takes(Duration::ZERO);
    scene.end("a slow way to Redis");
}

#[test]
fn nothing_fails_while_sentinel_fails_over() {
    let servers = Failover::start();
    let scene = Scene::begin(&format!("redis-sentinel://{}/harbor", servers.sentinel));
    servers.master.signal("KILL");
    scene.upgrade_and_stay(Duration::ZERO);
    scene.end("fail-over of Sentinel");
    assert_eq!(servers.replica.info("role"), "master");
}

#[test]
fn nothing_fails_while_a_node_of_the_cluster_is_lost() {
    let cluster = Cluster::start();
    let holder = cluster.holder_of("tidegate:harbor:key");
    let replica = cluster.replica_of(holder);
    let nodes: Vec<_> = cluster.nodes.iter().map(|node| node.address.to_string()).collect();
    let scene = Scene::begin(&format!("redis-cluster://{}", nodes.join(",")));
    cluster.nodes[holder].signal("KILL");
    scene.upgrade_and_stay(Duration::ZERO);
    scene.end("a node of the Cluster lost");
    assert_eq!(replica.info("role"), "master");
}

/// As `docs/store.md` says, in three rounds, each on one replica after the other: the next key second, then first, then
/// alone. At no moment is there a record that a replica can't read.
#[test]
fn nothing_fails_while_the_sealing_key_is_rolled() {
    let redis = Redis::start(&[]);
    let mut scene = Scene::begin(&format!("redis://{}", redis.address));
    for seals in [&["seal.key", "next.key"][..], &["next.key", "seal.key"], &["next.key"]] {
        for number in 0..2 {
            let configuration = scene.configuration(seals);
            scene.restart(number, &configuration);
            scene.rolling.upgrade(Duration::ZERO);
            scene.is_well();
            for gate in &scene.gates {
                let unopened = gate.metrics().sum("tidegate_store_unopened_records", &[]);
                assert!(unopened < 0.5, "{seals:?}: {}", gate.tail());
            }
        }
    }
    scene.knows_all("sealing key rolled", &["next.key"]);
    scene.judge("sealing key rolled");
}

const ADMIN: [&str; 2] = ["env", "TIDEGATE_ADMIN__TOKEN=a token of the operator's"];

/// Two replicas of tidegate, clients of both, and the same clients before the cores alone.
struct Scene {
    gates: [Gate; 2],
    rolling: Arc<Rolling>,
    direct: Pullers,
    through: Pullers,
    killed: Killed,
    url: String,
    files: TempDir,
}

impl Scene {
    fn begin(url: &str) -> Self {
        let (rolling, files) = (Rolling::begin(), tempfile::tempdir().expect("a folder"));
        fs::write(files.path().join("password"), PASSWORD).expect("the password");
        for (name, byte) in [("seal.key", 7), ("next.key", 8)] {
            fs::write(files.path().join(name), seal::written(&[byte; seal::KEY]).as_bytes()).expect("a key");
        }
        let configuration = configuration(&rolling, url, &files, &["seal.key"]);
        let (gates, killed) = ([(); 2].map(|()| Gate::start_by(&ADMIN, &configuration)), Killed::default());
        let addresses = gates.each_ref().map(|gate| gate.address);
        let direct = Pullers::begin(&Front::new(&rolling.addresses()), 2);
        let through = Pullers::begin(&Front::of_killed(&addresses, &killed), 4);
        let scene = Self { gates, rolling, direct, through, killed, url: url.to_owned(), files };
        scene.is_well();
        scene
    }

    fn configuration(&self, seals: &[&str]) -> String {
        configuration(&self.rolling, &self.url, &self.files, seals)
    }

    /// Ends one of them as its operator does, and starts it with another configuration.
    fn restart(&mut self, number: usize, configuration: &str) {
        let gate = &mut self.gates[number];
        gate.configure(configuration);
        self.killed.note(|| {
            gate.signal("TERM");
            assert_eq!(gate.ends(PATIENCE), Some(0), "{}", gate.tail());
        });
        gate.begin_again();
        gate.becomes_ready();
    }

    fn is_well(&self) {
        for gate in &self.gates {
            waiting::holds("the store is well", PATIENCE, || {
                let metrics = gate.metrics();
                let waits = metrics.sum("tidegate_store_waiting_changes", &[]);
                (readiness(gate).as_str(), waits) == ("ready\n", 0.0)
            });
        }
    }

    fn is_degraded(&self) {
        for gate in &self.gates {
            waiting::holds("degraded", PATIENCE, || readiness(gate).contains("degraded: store, since 20"));
            let metrics = gate.metrics();
            assert!(metrics.sum("tidegate_store_degraded_since_seconds", &[]) > 0.0);
            assert!(metrics.sum("tidegate_alarms", &[]) >= 1.0);
        }
    }

    /// While the store is away, clients pull on with both keys for so long.
    fn upgrade_and_stay(&self, most: Duration) {
        self.rolling.upgrade(Duration::from_millis(300));
        thread::sleep(most);
    }

    /// The store is there again, or soon.
    fn end(self, title: &str) {
        for gate in &self.gates {
            waiting::holds("the operator is told", PATIENCE, || gate.output().contains("the store is back"));
        }
        self.is_well();
        // Whoever comes next knows the keys of before and of meanwhile.
        self.rolling.upgrade(Duration::ZERO);
        let kid = self.rolling.signed().pop().expect("a key").kid;
        for gate in &self.gates {
            gate.wait_for("the last key is seen", |metrics| {
                metrics.sum("tidegate_key_state", &[("kid", &kid), ("state", "signing")]) > 0.5
            });
        }
        self.is_well();
        self.knows_all(title, &["seal.key"]);
        self.judge(title);
    }

    fn judge(self, title: &str) {
        let refusals: Vec<String> = self.gates.iter().map(Gate::refusals).collect();
        judge(title, self.direct, self.through, &refusals.join("\n"));
    }

    /// So does a new process, by the store alone.
    fn knows_all(&self, title: &str, seals: &[&str]) {
        let next = Gate::start(&self.configuration(seals));
        for signed in self.rolling.signed() {
            let answer = pull(MANIFEST).bearer(&signed.token).at(next.address);
            assert_eq!(answer.status, 200, "{title}: {}\n{}", answer.text(), next.tail());
        }
    }
}

fn configuration(rolling: &Rolling, url: &str, files: &TempDir, seals: &[&str]) -> String {
    let path = |name: &str| files.path().join(name).display().to_string();
    let seals: Vec<String> = seals.iter().map(|name| path(name)).collect();
    format!(
        "deployment = \"harbor\"\n{}\n[store]\nurl = \"{url}\"\npassword_file = \"{}\"\nseal_key_files = {seals:?}\n\n\
         [timeouts]\ndrain_delay = \"0s\"\ndrain = \"1s\"\n",
        gate::configuration(&rolling.addresses(), "auto", &rolling.key_files()),
        path("password"),
    )
}

/// A moment, in seconds since 1970.
fn degraded_since(gate: &Gate) -> f64 {
    gate.metrics().sum("tidegate_store_degraded_since_seconds", &[])
}

fn readiness(gate: &Gate) -> String {
    http::get(gate.admin, "/readyz", &[]).expect("an answer").body
}
