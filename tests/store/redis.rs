//! Redis as the store: the behaviour of every store, and what only servers do: they go away and come back.

use std::{sync::Arc, time::Duration};

use tidegate::{
    decisions::record::{
        Kind, Place,
        seal::{KEY, SealKey, SealRing},
    },
    edges::store::{Backend, Form, Password, Server, Store, StoreFault, Write, Written},
    words::clock::Clock,
};
use tokio::{sync::watch, task::JoinSet};

use crate::{
    behaviour::{every, kept, place, put, write},
    servers::{Certificates, Cluster, Failover, PASSWORD, PATIENCE, Redis, server, settings_of},
    support::{slow_link::SlowLink, waiting},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_server_with_a_password_from_a_file() {
    let redis = Redis::start(&[]);
    redis.ask(&["SET", "another program's", "value"]);
    let file = redis.folder().join("password");
    std::fs::write(&file, format!("{PASSWORD}\n")).expect("a file");
    let with = |deployment: &str| {
        let password = Password::File(file.clone());
        Arc::new(Server::new(tidegate::edges::store::ServerSettings {
            password,
            ..settings_of(Form::One, &[redis.address], deployment)
        }))
    };
    every(with("d"), with("e")).await;
    assert_eq!(redis.ask(&["GET", "another program's"]).trim(), "value");
    let names = redis.ask(&["KEYS", "*"]);
    let ours = names.lines().filter(|name| !name.is_empty() && *name != "another program's");
    assert!(ours.clone().all(|name| name.starts_with("tidegate:")), "{names}");
    std::fs::write(&file, "wrong").expect("a file");
    assert!(matches!(with("d").get(&place("a")).await, Err(StoreFault::Unavailable(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn valkey() {
    let valkey = Redis::valkey();
    assert!(!valkey.info("valkey_version").is_empty());
    every(server(Form::One, &[valkey.address], "d"), server(Form::One, &[valkey.address], "e")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_server_with_a_private_ca_and_a_clients_certificate() {
    let certificates = Certificates::make();
    let redis = Redis::with_tls(&certificates);
    let with = |deployment: &str, tls| {
        let settings = settings_of(Form::One, &[redis.address], deployment);
        Arc::new(Server::new(tidegate::edges::store::ServerSettings { tls: Some(tls), ..settings }))
    };
    every(with("d", certificates.of_client()), with("e", certificates.of_client())).await;
    let mut without = certificates.of_client();
    without.client = None;
    assert!(with("d", without).get(&place("a")).await.is_err(), "the server asks for a certificate");
    let mut strange = certificates.of_client();
    strange.ca_file = Some(Certificates::make().path("ca.crt"));
    assert!(with("d", strange).get(&place("a")).await.is_err(), "another CA's server is none of ours");
}

/// With the rights that `docs/store.md` names, and without the channel, to which others have none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_with_few_rights_writes_and_is_told_where_it_may_listen() {
    let redis = Redis::start(&[]);
    let (password, commands) = (format!(">{PASSWORD}"), "+hget +hset +hdel +hscan +hincrby +eval");
    for (user, channel, hears) in [("told", "&tidegate:*", true), ("untold", "resetchannels", false)] {
        let mut rights =
            vec!["ACL", "SETUSER", user, "on", &password, "resetchannels", channel, "~tidegate:*"];
        rights.extend(commands.split(' '));
        if hears {
            rights.extend(["+publish", "+subscribe"]);
        }
        assert_eq!(redis.ask(&rights).trim(), "OK");
        let settings = settings_of(Form::One, &[redis.address], user);
        let user = Some(user.to_owned());
        let store = Server::new(tidegate::edges::store::ServerSettings { user, ..settings });
        let listening = store.listen().expect("one server tells").await;
        assert_eq!(listening.is_ok(), hears);
        let change = Write { place: Place::new(Kind::Key, "a"), over: None, kept: Some(kept(1, "x")) };
        assert_eq!(put(&store, change).await, Written::Done);
        assert_eq!(store.revision(Kind::Key).await, Ok(1));
        if let Ok(mut ear) = listening {
            let heard = tokio::time::timeout(PATIENCE, ear.heard()).await;
            assert_eq!(heard, Ok(Ok(())));
        }
    }
}

/// What others need beside that: `SELECT` for a numbered database, `ROLE` behind Sentinel, `CLUSTER SLOTS` in a Cluster.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_with_the_rights_of_its_form_writes_and_without_them_doesnt() {
    let (one, behind, cluster) = (Redis::start(&[]), Failover::start(), Cluster::start());
    let nodes: Vec<&Redis> = cluster.nodes.iter().collect();
    let forms = [
        (Form::One, one.address, vec![&one], 1, "+select"),
        (Form::Sentinel, behind.sentinel, vec![&behind.master], 0, "+role"),
        (Form::Cluster, nodes[0].address, nodes.clone(), 0, "+cluster|slots"),
    ];
    for (form, at, servers, database, right) in forms {
        for is_given in [false, true] {
            let user = if is_given { "with" } else { "without" };
            for server in &servers {
                let password = format!(">{PASSWORD}");
                let mut rights = vec!["ACL", "SETUSER", user, "on", &password, "~tidegate:*"];
                rights.extend("+hget +hset +hdel +hscan +hincrby +eval".split(' '));
                rights.extend(is_given.then_some(right));
                assert_eq!(server.ask(&rights).trim(), "OK");
            }
            let settings = settings_of(form, &[at], "d");
            let user = Some(user.to_owned());
            let store = Server::new(tidegate::edges::store::ServerSettings { user, database, ..settings });
            let written = store.put(vec![write("a", None, Some(kept(1, "x")))]).await;
            assert_eq!(written == Ok(vec![Written::Done]), is_given, "{form:?} {right}: {written:?}");
        }
    }
}

/// Text of somebody else's in the place of records is told of, and gone when it is removed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_record_is_named_until_it_is_removed() {
    let redis = Redis::start(&[]);
    let at = [redis.address];
    for (field, value) in [("short", "junk"), ("longer", "junk that is long enough for a head")] {
        redis.ask(&["HSET", "tidegate:d:grant", field, value]);
    }
    redis.ask(&["EVAL", r"redis.call('HSET', 'tidegate:d:grant', '\255', 'junk')", "0"]);
    let running = Running::on(server(Form::One, &at, "d"));
    running.keep(0..1);
    assert!(running.store.written_within(PATIENCE).await);
    assert_eq!(running.store.load(Kind::Grant).await.expect("a store").len(), 1);
    let health = running.store.health();
    assert_eq!((health.unopened_count, health.dropped), (3, 0), "{health:?}");
    assert!(health.unopened.iter().any(|(place, _)| place == "grant/short"), "{health:?}");
    redis.ask(&["HDEL", "tidegate:d:grant", "short", "longer"]);
    let count = || running.store.health().unopened_count;
    tokio::task::block_in_place(|| waiting::holds("they are gone", PATIENCE, || count() == 1));
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_sentinel() {
    let servers = Failover::start();
    let at = [servers.sentinel];
    every(server(Form::Sentinel, &at, "d"), server(Form::Sentinel, &at, "e")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_of_three_nodes() {
    let cluster = Cluster::start();
    let at: Vec<_> = cluster.nodes.iter().map(|node| node.address).collect();
    every(server(Form::Cluster, &at[..1], "d"), server(Form::Cluster, &at, "e")).await;
    let sizes: Vec<String> = cluster.nodes.iter().map(|node| node.ask(&["DBSIZE"])).collect();
    assert!(sizes.iter().filter(|size| size.trim() != "0").count() > 1, "kinds are spread: {sizes:?}");
}

/// The one that was named is gone, and then another one stumbles: what is known of the Cluster is kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_reached_though_the_node_that_was_named_is_gone() {
    let cluster = Cluster::start();
    let named = (cluster.holder_of("tidegate:d:session") + 1) % 3;
    let holder = &cluster.nodes[cluster.holder_of("tidegate:d:session")];
    let replica = cluster.replica_of(named);
    let store = server(Form::Cluster, &[cluster.nodes[named].address], "d");
    assert_eq!(put(&*store, write("a", None, Some(kept(1, "x")))).await, Written::Done);
    cluster.nodes[named].signal("KILL");
    tokio::task::block_in_place(|| {
        waiting::holds("the replica has its place", PATIENCE, || replica.info("role") == "master");
    });
    holder.signal("STOP");
    assert!(store.get(&place("a")).await.is_err());
    holder.signal("CONT");
    let mut found = store.get(&place("a")).await;
    let began = std::time::Instant::now();
    while found.is_err() && began.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(50)).await;
        found = store.get(&place("a")).await;
    }
    assert_eq!(found, Ok(Some(kept(1, "x"))));
}

/// A store that runs, and ends with the test.
struct Running {
    store: Arc<Store>,
    stop: watch::Sender<bool>,
    task: JoinSet<()>,
}

impl Running {
    fn on(backend: Arc<dyn Backend>) -> Self {
        let seals = SealRing::new("d", SealKey::new(&[1; KEY]).expect("a key"), vec![]);
        let store = Arc::new(Store::new(backend, seals, Clock::system()));
        let (stop, stopped) = watch::channel(false);
        let mut task = JoinSet::new();
        task.spawn(store.clone().run(stopped));
        Self { store, stop, task }
    }

    fn keep(&self, names: std::ops::Range<usize>) {
        for n in names {
            self.store.keep(Place::new(Kind::Grant, n.to_string()), b"x".to_vec(), None);
        }
    }

    async fn end(mut self) {
        self.stop.send_replace(true);
        self.task.join_next().await.expect("a task").expect("it ends");
    }
}

async fn count(backend: Arc<dyn Backend>) -> usize {
    let running = Running::on(backend);
    let count = running.store.load(Kind::Grant).await.expect("a store").len();
    running.end().await;
    count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fail_over_of_sentinel_loses_no_change() {
    let servers = Failover::start();
    let at = [servers.sentinel];
    let running = Running::on(server(Form::Sentinel, &at, "d"));
    running.keep(0..100);
    assert!(running.store.written_within(PATIENCE).await, "{:?}", running.store.health());
    assert_eq!(servers.master.ask(&["WAIT", "1", "10000"]).trim(), "1", "the replica has them");
    servers.master.signal("KILL");
    running.keep(100..200);
    assert!(running.store.written_within(PATIENCE).await, "{:?}", running.store.health());
    assert_eq!(servers.replica.info("role"), "master");
    assert_eq!(count(server(Form::Sentinel, &at, "d")).await, 200);
    running.end().await;
}

/// One after the other they would take longer than a store is waited for, and so for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_changes_are_written_though_the_way_is_long() {
    let redis = Redis::start(&[]);
    let link = SlowLink::before(redis.address);
    link.takes(Duration::from_millis(25));
    let running = Running::on(server(Form::One, &[link.address], "d"));
    running.keep(0..1_000);
    assert!(running.store.written_within(PATIENCE).await, "{:?}", running.store.health());
    assert_eq!(count(server(Form::One, &[redis.address], "d")).await, 1_000);
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_server_hangs_or_is_gone_changes_wait() {
    let redis = Redis::start(&[]);
    let at = [redis.address];
    let running = Running::on(server(Form::One, &at, "d"));
    running.keep(0..10);
    assert!(running.store.written_within(PATIENCE).await);
    redis.signal("STOP");
    running.keep(10..20);
    let degraded = || running.store.health().degraded.is_some();
    let told =
        tokio::task::block_in_place(|| waiting::until(Duration::from_secs(10), || degraded().then_some(())));
    assert!(told.is_some(), "a server that hangs is told of");
    redis.signal("CONT");
    assert!(running.store.written_within(PATIENCE).await, "{:?}", running.store.health());
    assert_eq!(count(server(Form::One, &at, "d")).await, 20);
    redis.signal("KILL");
    running.keep(20..30);
    let gone =
        tokio::task::block_in_place(|| waiting::until(Duration::from_secs(10), || degraded().then_some(())));
    assert!(gone.is_some(), "a server that is gone is told of");
    assert_eq!(running.store.health().waiting, 10);
    drop(redis);
    // Empty, as after a restart without a disk: what waited is written, and whoever reads is told to look again.
    let _empty = Redis::at(at[0], &[]);
    assert!(running.store.written_within(PATIENCE).await, "{:?}", running.store.health());
    assert_eq!(count(server(Form::One, &at, "d")).await, 10);
    running.end().await;
}
