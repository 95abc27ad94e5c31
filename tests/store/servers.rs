//! Real Redis processes on loopback: alone, behind Sentinel, three nodes of a Cluster.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use tempfile::TempDir;
use tidegate::edges::store::{Form, Password, Server, ServerSettings, ServerTls};

use crate::support::{
    ports,
    process::{self, Program},
    settings, waiting,
};

/// How long a server, a fail-over or a cluster may take.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// What every server here asks for.
pub const PASSWORD: &str = "a password of the server's";

/// One server process.
pub struct Redis {
    pub address: SocketAddr,
    program: Program,
    more: Vec<String>,
    folder: TempDir,
}

impl Redis {
    /// A server with a password, in memory alone, and these options.
    pub fn start(options: &[&str]) -> Self {
        Self::at(ports::free(), options)
    }

    /// One with TLS alone, which asks for certificates of clients.
    pub fn with_tls(tls: &Certificates) -> Self {
        let address = ports::free();
        let port = address.port().to_string();
        let file = |name: &str| tls.path(name).display().to_string();
        let options = [
            "--tls-port",
            &port,
            "--tls-cert-file",
            &file("server.crt"),
            "--tls-key-file",
            &file("server.key"),
            "--tls-ca-cert-file",
            &file("ca.crt"),
            "--tls-auth-clients",
            "yes",
            "--port",
            "0",
        ];
        let more = [
            "--tls",
            "--cacert",
            &file("ca.crt"),
            "--cert",
            &file("client.crt"),
            "--key",
            &file("client.key"),
        ];
        Self::run(address, &options, &more)
    }

    pub fn at(address: SocketAddr, options: &[&str]) -> Self {
        let port = address.port().to_string();
        Self::run(address, &[&["--port", &port], options].concat(), &[])
    }

    /// Valkey in its place.
    pub fn valkey() -> Self {
        let address = ports::free();
        let options = ["--port", &address.port().to_string()];
        Self::run_as(&settings::built("valkey-server"), address, &options, &[])
    }

    fn run(address: SocketAddr, options: &[&str], more: &[&str]) -> Self {
        Self::run_as(&settings::packaged("redis-server"), address, options, more)
    }

    fn run_as(program: &Path, address: SocketAddr, options: &[&str], more: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut command = Command::new(program);
        command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--protected-mode", "no"]);
        command.args([
            "--requirepass",
            PASSWORD,
            "--masterauth",
            PASSWORD,
            "--repl-diskless-sync-delay",
            "0",
        ]);
        command.args(options).arg("--dir").arg(folder.path());
        let mut program = Program::start(&mut command, folder.path(), "redis");
        program.kill_at_once();
        let more: Vec<String> = more.iter().map(|&text| text.to_owned()).collect();
        let mut server = Self { address, program, more, folder };
        server.program.wait_until(PATIENCE, || cli(address, &server.more, &["PING"]).contains("PONG"));
        // Valkey says which Redis it stands for, and beside it what it is itself.
        let [valkey, redis] =
            ["valkey_version", "redis_version"].map(|name| server.info(name).trim().to_owned());
        if valkey.is_empty() {
            settings::took_part("redis-server", &redis);
        } else {
            settings::took_part("valkey-server", &valkey);
        }
        server
    }

    /// What `redis-cli` prints for a command.
    pub fn ask(&self, command: &[&str]) -> String {
        cli(self.address, &self.more, command)
    }

    /// A line of `INFO`.
    pub fn info(&self, name: &str) -> String {
        let info = self.ask(&["INFO"]);
        let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_default().to_owned()
    }

    /// SIGKILL, SIGSTOP, SIGCONT.
    pub fn signal(&self, name: &str) {
        self.program.signal(name);
    }

    pub fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }
}

fn cli(address: SocketAddr, more: &[String], command: &[&str]) -> String {
    let mut cli = Command::new(settings::packaged("redis-cli"));
    cli.args(["-h", "127.0.0.1", "-p", &address.port().to_string(), "--no-auth-warning"]);
    // Sentinels have none, and say so.
    cli.env("REDISCLI_AUTH", PASSWORD).args(more).args(command);
    process::run(&mut cli, PATIENCE).unwrap_or_default()
}

/// A master, its replica, and a sentinel that puts the one in the other's place.
pub struct Failover {
    pub master: Redis,
    pub replica: Redis,
    pub sentinel: SocketAddr,
    _program: Program,
    _folder: TempDir,
}

impl Failover {
    pub fn start() -> Self {
        let master = Redis::start(&[]);
        let port = master.address.port().to_string();
        let replica = Redis::start(&["--replicaof", "127.0.0.1", &port]);
        waiting::holds("the replica follows", PATIENCE, || replica.info("master_link_status") == "up");
        let (folder, sentinel) = (tempfile::tempdir().expect("a folder"), ports::free());
        let path = folder.path().join("sentinel.conf");
        let text = format!(
            "port {}\nbind 127.0.0.1\ndir {}\nprotected-mode no\nsentinel monitor harbor 127.0.0.1 {port} 1\n\
             sentinel auth-pass harbor \"{PASSWORD}\"\nsentinel down-after-milliseconds harbor 500\n\
             sentinel failover-timeout harbor 3000\n",
            sentinel.port(),
            folder.path().display()
        );
        fs::write(&path, text).expect("its configuration");
        let mut command = Command::new(settings::packaged("redis-server"));
        let mut program = Program::start(command.arg(&path).arg("--sentinel"), folder.path(), "sentinel");
        program.kill_at_once();
        let known = || {
            let replicas = cli(sentinel, &[], &["SENTINEL", "REPLICAS", "harbor"]);
            replicas.contains(&replica.address.port().to_string())
                && cli(sentinel, &[], &["SENTINEL", "MASTER", "harbor"]).contains("num-slaves")
        };
        program.wait_until(PATIENCE, known);
        Self { master, replica, sentinel, _program: program, _folder: folder }
    }
}

/// Three masters that share the slots.
pub struct Cluster {
    pub nodes: Vec<Redis>,
}

impl Cluster {
    pub fn start() -> Self {
        let bus: Vec<u16> = (0..3).map(|_| ports::free().port()).collect();
        let node = |bus: &u16| {
            let bus = bus.to_string();
            Redis::start(&[
                "--cluster-enabled",
                "yes",
                "--cluster-port",
                &bus,
                "--cluster-node-timeout",
                "2000",
            ])
        };
        let nodes: Vec<Redis> = bus.iter().map(node).collect();
        let slots = [("0", "5460"), ("5461", "10922"), ("10923", "16383")];
        for (number, (node, (first, last))) in nodes.iter().zip(slots).enumerate() {
            node.ask(&["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()]);
            node.ask(&["CLUSTER", "ADDSLOTSRANGE", first, last]);
            let (port, bus) = (nodes[0].address.port().to_string(), bus[0].to_string());
            node.ask(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]);
        }
        for node in &nodes {
            let whole = || {
                let info = node.ask(&["CLUSTER", "INFO"]);
                info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")
            };
            waiting::holds("the cluster is whole", PATIENCE, whole);
        }
        Self { nodes }
    }

    /// The node, by its place, that holds this key.
    pub fn holder_of(&self, key: &str) -> usize {
        let holds = |node: &Redis| !node.ask(&["EXISTS", key]).contains("MOVED");
        self.nodes.iter().position(holds).expect("a node for every key")
    }

    /// A replica of that node, which takes its place when it is lost.
    pub fn replica_of(&self, place: usize) -> Redis {
        let (master, bus) = (&self.nodes[place], ports::free().port().to_string());
        let options = ["--cluster-enabled", "yes", "--cluster-port", &bus, "--cluster-node-timeout", "2000"];
        let replica = Redis::start(&options);
        let of_master = master.ask(&["CLUSTER", "MYID"]);
        // The bus's port of a node is the one that its neighbours tell.
        let nodes = master.ask(&["CLUSTER", "NODES"]);
        let line = nodes.lines().find(|line| line.contains("myself")).expect("its own line");
        let bus = line.split(['@', ',', ' ']).nth(2).expect("its bus").to_owned();
        replica.ask(&["CLUSTER", "MEET", "127.0.0.1", &master.address.port().to_string(), &bus]);
        waiting::holds("the replica follows", PATIENCE, || {
            replica.ask(&["CLUSTER", "REPLICATE", of_master.trim()]);
            replica.info("master_link_status") == "up"
        });
        for node in &self.nodes {
            let knows = || node.ask(&["CLUSTER", "SLOTS"]).contains(&replica.address.port().to_string());
            waiting::holds("every node knows the replica", PATIENCE, knows);
        }
        replica
    }
}

/// A private CA, a server's certificate for 127.0.0.1, and a client's.
pub struct Certificates(TempDir);

impl Certificates {
    pub fn make() -> Self {
        use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: String| fs::write(folder.path().join(name), text).expect("a file");
        let key = || KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("names");
        // OpenSSL takes one whose issuer has its own name for self-signed.
        params.distinguished_name.push(DnType::CommonName, "a private CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_key = key();
        write("ca.crt", params.self_signed(&ca_key).expect("a CA").pem());
        let issuer = Issuer::new(params, ca_key);
        for name in ["server", "client"] {
            let key = key();
            let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("names");
            params.distinguished_name.push(DnType::CommonName, name);
            write(&format!("{name}.crt"), params.signed_by(&key, &issuer).expect("a certificate").pem());
            write(&format!("{name}.key"), key.serialize_pem());
        }
        Self(folder)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn of_client(&self) -> ServerTls {
        ServerTls {
            ca_file: Some(self.path("ca.crt")),
            client: Some((self.path("client.crt"), self.path("client.key"))),
        }
    }
}

/// The store at these servers.
pub fn settings_of(form: Form, at: &[SocketAddr], deployment: &str) -> ServerSettings {
    ServerSettings {
        form,
        at: at.iter().map(|address| (address.ip().to_string(), address.port())).collect(),
        master: "harbor".to_owned(),
        database: 0,
        user: None,
        password: Password::Text(PASSWORD.to_owned().into()),
        tls: None,
        prefix: format!("tidegate:{deployment}:"),
        name: "redis".to_owned(),
    }
}

pub fn server(form: Form, at: &[SocketAddr], deployment: &str) -> std::sync::Arc<Server> {
    std::sync::Arc::new(Server::new(settings_of(form, at, deployment)))
}
