//! An endpoint by a DNS name with several addresses, as a headless Service of Kubernetes has it. The system's resolver
//! answers out of a hosts file that only the gate sees.

use crate::{
    stage::{DEV, MANIFEST, Replica, Setup, Stage, pull, story},
    support::{gate::Gate, ports, waiting},
};
use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

const PATIENCE: Duration = Duration::from_secs(15);
const NAME: &str = "cores.harbor.test";
const FIRST: Ipv4Addr = Ipv4Addr::LOCALHOST;
const SECOND: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// Starts a command with other files in the place of `/etc/hosts` and of where hosts are looked up.
const OTHER_HOSTS: &str =
    "mount --bind \"$0\" /etc/hosts && mount --bind \"$1\" /etc/nsswitch.conf && shift && exec \"$@\"";

struct Scene {
    stage: Stage,
    hosts: PathBuf,
    port: u16,
    gate: Gate,
    first: Replica,
}

impl Scene {
    /// A core at the first address, and a gate whose name has these addresses.
    fn new(addresses: &[Ipv4Addr]) -> Self {
        let stage = Stage::new();
        let port = ports::free().port();
        let first = stage.replica_at(SocketAddr::from((FIRST, port)), "first", |_| {});
        first.seed();
        let (hosts, switch) = (stage.path("hosts"), stage.path("nsswitch.conf"));
        fs::write(&switch, "hosts: files\n").expect("a file");
        answer(&hosts, addresses);
        let setup = Setup::default().endpoint(&format!("http://{NAME}:{port}")).upstream(
            "resolve_every = \"100ms\"\nprobe = { every = \"200ms\", in_window = \"200ms\", timeout = \"1s\" }",
        );
        let alone = if owned_by_root() { "-m" } else { "-rm" };
        let (hosts_path, switch) = (hosts.display().to_string(), switch.display().to_string());
        let starter = ["unshare", alone, "sh", "-c", OTHER_HOSTS, &hosts_path, &switch];
        let gate = Gate::start_by(&starter, &setup.text());
        Self { stage, hosts, port, gate, first }
    }

    fn second(&self) -> Replica {
        self.stage.replica_at(SocketAddr::from((SECOND, self.port)), "second", |_| {})
    }

    fn pull(&self) {
        let answer = pull(MANIFEST).basic(DEV).at(self.gate.address);
        assert_eq!(answer.status, 200, "{:?}\n{}", story(&self.gate, &answer), self.gate.tail());
    }

    /// Pulls until this core got a request more than it had.
    fn reaches(&self, core: &Replica) {
        let before = core.asked().len();
        waiting::holds("it gets requests", PATIENCE, || {
            self.pull();
            core.asked().len() > before
        });
    }

    fn endpoints(&self) -> Vec<String> {
        self.gate.metrics().values("tidegate_endpoint_up", "endpoint")
    }

    fn named(&self, address: Ipv4Addr) -> String {
        format!("{NAME}:{}@{address}", self.port)
    }
}

/// Written in place: the mount is of the file, not of its path.
fn answer(hosts: &Path, addresses: &[Ipv4Addr]) {
    let lines: Vec<String> = addresses.iter().map(|address| format!("{address} {NAME}\n")).collect();
    fs::write(hosts, lines.concat()).expect("the hosts file");
}

fn owned_by_root() -> bool {
    fs::metadata("/proc/self").expect("this process").uid() == 0
}

#[test]
fn every_address_of_a_name_gets_requests_and_one_that_stops_is_left() {
    let scene = Scene::new(&[FIRST, SECOND]);
    let second = scene.second();
    scene.gate.wait_for("both take requests", |metrics| {
        metrics.values("tidegate_endpoint_up", "endpoint") == [scene.named(FIRST), scene.named(SECOND)]
    });
    scene.reaches(&scene.first);
    scene.reaches(&second);
    let gone = second.address;
    scene.stage.kill(second);
    for _ in 0..12 {
        scene.pull();
    }
    scene.gate.wait_for("it is ejected", |_| scene.endpoints() == [scene.named(FIRST)]);
    let back = scene.stage.replica_at(gone, "second", |_| {});
    scene.reaches(&back);
}

#[test]
fn an_address_that_a_name_gets_later_is_taken_up_and_one_that_it_loses_is_left() {
    let scene = Scene::new(&[FIRST]);
    let second = scene.second();
    for _ in 0..6 {
        scene.pull();
    }
    assert_eq!(second.asked().len(), 0, "nobody has named it");
    answer(&scene.hosts, &[FIRST, SECOND]);
    scene.reaches(&second);
    answer(&scene.hosts, &[SECOND]);
    let left = scene.named(FIRST);
    scene.gate.wait_for("it is left", |_| !scene.endpoints().contains(&left));
    let before = scene.first.asked().len();
    for _ in 0..6 {
        scene.pull();
    }
    assert_eq!(scene.first.asked().len(), before, "what the name has lost gets no request");
}

#[test]
fn a_name_that_cannot_be_looked_up_keeps_its_addresses_and_is_told_once() {
    let scene = Scene::new(&[FIRST]);
    answer(&scene.hosts, &[]);
    let told = || scene.gate.output().matches("can't be looked up").count();
    waiting::holds("it is told", PATIENCE, || told() == 1);
    for _ in 0..6 {
        scene.pull();
    }
    assert_eq!(told(), 1, "{}", scene.gate.tail());
    let second = scene.second();
    answer(&scene.hosts, &[SECOND]);
    scene.reaches(&second);
}
