//! Grace through a restart of tidegate, and on replicas that share a store (A15, A20).

use std::{fs, net::SocketAddr, time::Duration};

use tidegate::{
    decisions::record::seal,
    rehearsal::harbor::{Health, KeyForm},
};

use crate::{
    gate_clock::GateClock,
    operating::{told, with_token},
    outages::{SHORT_PARK, SOON},
    stage::{
        ADMIN, DEV, MANIFEST, ROBOT, Replica, SCOPE, Setup, Stage, ask_token, hold, pull, spare_key, story,
        token,
    },
    store::{PATIENCE, file, is_written, redis},
    support::{gate::Gate, ports, waiting},
    talk::{Ask, claims},
};

const OTHERS: &str = "Another12345";

fn scene() -> (Stage, Replica) {
    let stage = Stage::new();
    let core = stage.replica("core", |_| {});
    core.seed();
    (stage, core)
}

/// Every question reaches core.
fn setup(core: &Replica, store: &str) -> Setup {
    Setup::before(&[core], &[&core.key_file])
        .rest("[token]\ncache = \"0s\"")
        .rest(SHORT_PARK)
        .rest(&format!("[store]\nurl = \"{store}\"\n"))
}

/// A replica with a store at that server.
fn shared(stage: &Stage, core: &Replica, server: SocketAddr) -> Setup {
    caching(stage, core, server).rest("[token]\ncache = \"0s\"")
}

/// The same, which keeps answers to token requests as ever.
fn caching(stage: &Stage, core: &Replica, server: SocketAddr) -> Setup {
    let key = stage.path("seal.key");
    fs::write(&key, seal::written(&[7; seal::KEY]).as_bytes()).expect("the sealing key");
    let store = format!("[store]\nurl = \"redis://{server}\"\nseal_key_files = [\"{}\"]\n", key.display());
    Setup::before(&[core], &[&core.key_file]).top("deployment = \"harbor\"").rest(SHORT_PARK).rest(&store)
}

fn kill(mut gate: Gate) {
    is_written(&gate);
    gate.signal("KILL");
    gate.ends(PATIENCE);
}

fn asks(gate: &Gate) -> [String; 3] {
    story(gate, &ask_token(SCOPE).basic(DEV).at(gate.address))
}

fn is_granted(gate: &Gate) {
    assert_eq!(ask_token(SCOPE).basic(DEV).at(gate.address).subject(), "dev", "{}", gate.tail());
}

/// What becomes of it while the database refuses.
fn in_an_outage(stage: &Stage, gate: &Gate) -> String {
    stage.world.set_database(Health::Refusing);
    let [_, _, reason] = asks(gate);
    stage.world.set_database(Health::Up);
    reason
}

/// The first case is the same load without the store: there nobody knows the credential any more.
#[test]
fn a15_what_harbor_granted_is_granted_again_after_a_crash_in_the_outage() {
    for (with_store, expected) in [(false, "outage"), (true, "grace")] {
        let (stage, core) = scene();
        let store = if with_store { file(&stage) } else { "memory:".to_owned() };
        let gate = setup(&core, &store).start();
        let before = claims(&token(gate.address, DEV, SCOPE));
        kill(gate);
        stage.world.set_database(Health::Refusing);
        assert_eq!(ask_token(SCOPE).basic(DEV).at(core.address).subject(), "", "directly: a wrong password");
        let gate = setup(&core, &store).start();
        let answer = ask_token(SCOPE).basic(DEV).at(gate.address);
        assert_eq!(story(&gate, &answer)[2], expected, "with a store: {with_store}\n{}", gate.tail());
        if with_store {
            let after = claims(&answer.token());
            for name in ["iss", "sub", "aud", "iat", "nbf", "jti", "access"] {
                assert_eq!(after[name], before[name], "{name}");
            }
            let wrong = ask_token(SCOPE).basic(("dev", "guessed")).at(gate.address);
            assert_eq!(story(&gate, &wrong)[2], "outage", "a wrong password: {}", gate.tail());
            stage.world.set_database(Health::Up);
            let pulled = pull(MANIFEST).bearer(&answer.token()).at(gate.address);
            assert_eq!(pulled.status, 200, "{}", gate.tail());
        }
    }
}

#[test]
fn a15_what_ended_grace_ends_it_after_a_restart_too() {
    type Deed = (&'static str, fn(&Stage, &Gate));
    let deeds: [Deed; 3] = [
        ("a refusal while all was well", |stage, gate| {
            stage.world.set_password("dev", OTHERS);
            let refused = ask_token("repository:priv/other:pull").basic(DEV).at(gate.address);
            assert_eq!(story(gate, &refused)[2], "credential_refused", "{}", gate.tail());
        }),
        ("a write to a project", |_, gate| {
            let write = Ask::new("PUT", "/api/v2.0/projects/priv").header("Content-Type", "application/json");
            let write = write.body("{\"metadata\":{\"public\":\"false\"}}").basic(ADMIN);
            assert_eq!(write.at(gate.address).status, 200);
        }),
        ("a write that may concern anybody", |stage, gate| {
            let leaver = stage.world.add_user("leaver", "Leaver12345", false);
            let write = Ask::new("DELETE", &format!("/api/v2.0/users/{leaver}")).basic(ADMIN);
            assert_eq!(write.at(gate.address).status, 200);
        }),
    ];
    for (name, deed) in deeds {
        let (stage, core) = scene();
        let gate = setup(&core, &file(&stage)).start();
        is_granted(&gate);
        deed(&stage, &gate);
        kill(gate);
        let gate = setup(&core, &file(&stage)).start();
        assert_eq!(in_an_outage(&stage, &gate), "outage", "{name}: {}", gate.tail());
        stage.world.set_password("dev", DEV.1);
        is_granted(&gate);
        kill(gate);
        let gate = setup(&core, &file(&stage)).start();
        assert_eq!(in_an_outage(&stage, &gate), "grace", "accepted since, {name}: {}", gate.tail());
    }
}

#[test]
fn a15_what_one_replica_was_granted_another_grants_and_what_ends_it_there_ends_it_here() {
    let (stage, core) = scene();
    let address = ports::free();
    let _server = redis(&stage, address);
    let (one, two) = (shared(&stage, &core, address).start(), shared(&stage, &core, address).start());
    is_granted(&one);
    waiting::holds("it reaches the other one", PATIENCE, || in_an_outage(&stage, &two) == "grace");
    let write = Ask::new("PUT", "/api/v2.0/projects/priv").header("Content-Type", "application/json");
    let write = write.body("{\"metadata\":{\"public\":\"false\"}}").basic(ADMIN);
    assert_eq!(write.at(one.address).status, 200);
    stage.world.set_database(Health::Refusing);
    waiting::holds("so does its end", SOON, || asks(&two)[2] == "outage");
    stage.world.set_database(Health::Up);
    is_granted(&two);
    assert_eq!(in_an_outage(&stage, &two), "grace", "asked for by who knew: {}", two.tail());
    stage.world.set_password("dev", OTHERS);
    assert_eq!(asks(&one)[2], "credential_refused");
    stage.world.set_database(Health::Refusing);
    waiting::holds("and a refusal", SOON, || asks(&two)[2] == "outage");
}

/// No clock decides: by that of the replica that was asked, what it recorded looks younger than the order.
#[test]
fn a20_a_grant_by_a_replica_whose_clock_is_ahead_ends_with_its_users_revocation() {
    let (stage, core) = scene();
    let address = ports::free();
    let _server = redis(&stage, address);
    let setup = shared(&stage, &core, address);
    let (clock, (one, secret)) = (GateClock::new(&stage), with_token(&stage, &setup));
    clock.is_ahead(20);
    let starter = clock.starter();
    let words: Vec<&str> = starter.iter().map(String::as_str).collect();
    let two = Gate::start_by(&words, &setup.text());
    let asks = |gate: &Gate, who| story(gate, &ask_token(SCOPE).basic(who).at(gate.address))[2].clone();
    for who in [DEV, ROBOT] {
        assert_eq!(ask_token(SCOPE).basic(who).at(two.address).subject(), who.0, "{}", two.tail());
        waiting::holds("it reaches the other one", PATIENCE, || {
            stage.world.set_database(Health::Refusing);
            let reason = asks(&one, who);
            stage.world.set_database(Health::Up);
            reason == "grace"
        });
    }
    told(&one, &secret, &["revoke", "--subject", DEV.0]);
    stage.world.set_database(Health::Refusing);
    for gate in [&one, &two] {
        waiting::holds("it is over", SOON, || asks(gate, DEV) == "outage");
        assert_eq!(asks(gate, ROBOT), "grace", "another's: {}", gate.tail());
    }
}

/// What a replica keeps of token answers is over when a write goes through another one: of a password, and where grace
/// isn't touched, of a new member.
#[test]
fn a2_a_write_through_one_replica_empties_the_answers_of_all() {
    type Deed = (&'static str, fn(&Stage) -> Ask);
    let deeds: [Deed; 2] = [
        ("a write that may concern anybody", |stage| {
            let leaver = stage.world.add_user("leaver", "Leaver12345", false);
            Ask::new("DELETE", &format!("/api/v2.0/users/{leaver}")).basic(ADMIN)
        }),
        ("a write that adds", |_| {
            let write = Ask::new("POST", "/api/v2.0/projects").header("Content-Type", "application/json");
            write.body("{\"project_name\":\"another\"}").basic(ADMIN)
        }),
    ];
    for (name, write) in deeds {
        let (stage, core) = scene();
        let address = ports::free();
        let _server = redis(&stage, address);
        let start = || caching(&stage, &core, address).start();
        let (one, two) = (start(), start());
        let asked = || core.asked().iter().filter(|head| head.target.starts_with("/service/token")).count();
        for gate in [&one, &two] {
            is_granted(gate);
        }
        let before = asked();
        for gate in [&one, &two] {
            is_granted(gate);
        }
        assert_eq!(asked(), before, "{name}: both keep the answer");
        let status = write(&stage).at(one.address).status;
        assert!((200..300).contains(&status), "{name}: {status}");
        stage.world.set_password("dev", OTHERS);
        assert_eq!(asks(&one)[2], "credential_refused", "{name}");
        // An answer lives for 45 s.
        waiting::holds("the other one's are gone", SOON, || asks(&two)[2] == "credential_refused");
    }
}

/// Long after Harbor issued what it was made of: without a store another process takes it for a forgery (A8).
#[test]
fn a8_a_token_of_grace_is_good_on_another_replica_and_after_a_restart_and_ends_with_a_write_there() {
    let stage = Stage::new();
    let core = stage.replica("core", |options| options.token_expiration = Duration::from_mins(1));
    core.seed();
    let address = ports::free();
    let _server = redis(&stage, address);
    let start = || shared(&stage, &core, address).keys("token_lifetime = \"1m\"").start();
    let (one, two) = (start(), start());
    is_granted(&one);
    stage.world.set_database(Health::Refusing);
    let granted = ask_token(SCOPE).basic(DEV).at(one.address);
    assert_eq!(story(&one, &granted)[2], "grace", "{}", one.tail());
    stage.world.set_database(Health::Up);
    let pulled = |gate: &Gate| pull(MANIFEST).bearer(&granted.token()).at(gate.address).status;
    kill(one);
    let one = start();
    for gate in [&one, &two] {
        assert_eq!(pulled(gate), 200, "{}", gate.tail());
    }
    let write = Ask::new("PUT", "/api/v2.0/projects/priv").header("Content-Type", "application/json");
    let write = write.body("{\"metadata\":{\"public\":\"false\"}}").basic(ADMIN);
    assert_eq!(write.at(one.address).status, 200);
    for gate in [&one, &two] {
        waiting::holds("it is over", SOON, || pulled(gate) == 401);
    }
}

#[test]
fn a20_without_the_store_at_the_start_there_is_no_grace_until_it_could_be_read() {
    let (stage, core) = scene();
    let address = ports::free();
    let gate = shared(&stage, &core, address).start();
    is_granted(&gate);
    assert_eq!(in_an_outage(&stage, &gate), "outage", "{}", gate.tail());
    let _server = redis(&stage, address);
    waiting::holds("grace is on", PATIENCE, || {
        is_granted(&gate);
        in_an_outage(&stage, &gate) == "grace"
    });
}

/// A token of ours, given while core can't sign. The first case is the same without the store.
#[test]
fn a11_a_token_of_our_own_is_good_after_a_restart_and_on_another_replica() {
    for (with_store, expected) in [(false, 401), (true, 200)] {
        let (stage, core) = scene();
        let address = ports::free();
        let _server = redis(&stage, address);
        let start =
            || if with_store { shared(&stage, &core, address) } else { setup(&core, "memory:") }.start();
        let (gate, other) = (start(), start());
        spare_key(1).rename_into(&core.key_file, KeyForm::Empty).expect("a broken key file");
        assert_ne!(ask_token(SCOPE).basic(DEV).at(core.address).status, 200, "directly");
        let token = token(gate.address, DEV, SCOPE);
        assert!(token.starts_with("tidegate1_"), "{token}");
        let pulled = |gate: &Gate| pull(MANIFEST).bearer(&token).at(gate.address).status;
        assert_eq!((pulled(&gate), pulled(&other)), (200, expected), "{}", other.tail());
        kill(gate);
        let gate = start();
        assert_eq!(pulled(&gate), expected, "with a store: {with_store}\n{}", gate.tail());
        hold(&core.key_file, 0);
    }
}

/// No file of the store shows whose password is in it.
#[test]
fn no_credential_and_no_token_lies_open_in_the_store() {
    let (stage, core) = scene();
    let gate = setup(&core, &file(&stage)).start();
    let token = token(gate.address, DEV, SCOPE);
    kill(gate);
    let bytes = fs::read(stage.path("state/store.redb")).expect("the store");
    let signature = token.rsplit('.').next().expect("a signature");
    let head = Ask::get("/").basic(DEV).head();
    let basic = String::from_utf8_lossy(&head);
    let basic = basic.split("Basic ").nth(1).and_then(|rest| rest.split_whitespace().next()).expect("Basic");
    for secret in [DEV.1, basic, signature, "priv/seed"] {
        let found = bytes.windows(secret.len()).any(|part| part == secret.as_bytes());
        assert!(!found, "{secret}");
    }
    assert!(bytes.windows(6).any(|part| part == b"/grant"), "a grant is in it");
}
