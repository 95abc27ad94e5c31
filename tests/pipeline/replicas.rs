//! Two processes with one Redis: what an operator orders of one counts on the other, and who doesn't know is named.

use crate::{
    operating::{status, tell, told, with_token},
    outages::SHORT_PARK,
    stage::{
        DEV, MANIFEST, ROBOT, Replica, SCOPE, Setup, Stage, ask_token, hold, kid, pull, spare_key, story,
        token,
    },
    store::{is_in_state, pulled, redis, scene, shared},
    support::{gate::Gate, ports, process::Program, waiting},
    talk::Ask,
};
use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    time::{Duration, Instant},
};
use tidegate::{
    decisions::record::seal,
    rehearsal::harbor::{Health, KeyForm},
    words::clock::Clock,
};

const PATIENCE: Duration = Duration::from_secs(20);

/// How long what one replica was told may take to count on the other.
const SOON: Duration = Duration::from_secs(1);

/// Two gates before one core, and the file of the token of both.
struct Both {
    stage: Stage,
    core: Replica,
    one: Gate,
    two: Gate,
    secret: PathBuf,
    setup: Setup,
    redis: SocketAddr,
    _redis: Program,
}

impl Both {
    fn new() -> Self {
        let (stage, core) = scene();
        let address = ports::free();
        let server = redis(&stage, address);
        let setup = shared(&stage, &core, address).rest("[timeouts]\ndrain_delay = \"0s\"\n");
        let (one, secret) = with_token(&stage, &setup);
        let (two, _) = with_token(&stage, &setup);
        let both = Self { stage, core, one, two, secret, setup, redis: address, _redis: server };
        both.know_each_other();
        both
    }

    fn know_each_other(&self) {
        for gate in [&self.one, &self.two] {
            are(gate, 2);
        }
    }

    fn upgrade(&self) {
        hold(&self.core.key_file, 1);
        for gate in [&self.one, &self.two] {
            is_in_state(gate, 0, "verifying");
            is_in_state(gate, 1, "signing");
        }
    }

    fn pulled(&self, token: &str) -> [u16; 2] {
        [&self.one, &self.two].map(|gate| pulled(gate, token))
    }
}

fn are(gate: &Gate, replicas: usize) {
    gate.wait_for(&format!("{replicas} replicas live"), |metrics| {
        metrics.sum("tidegate_replicas", &[]) as usize == replicas
    });
}

/// How an operator's order gets to the admin listener, without the time that a command takes to start.
fn ordered(gate: &Gate, path: &str, body: &str) -> u16 {
    let ask = Ask::new("POST", path).on(&gate.admin.to_string()).body(body);
    ask.bearer("a token of the operator's").at(gate.admin).status
}

#[test]
fn a20_a_key_retired_on_one_replica_is_refused_on_the_other_within_a_second() {
    let both = Both::new();
    let former = token(both.core.address, DEV, SCOPE);
    both.upgrade();
    assert_eq!(both.pulled(&former), [200, 200]);
    let path = format!("/v1/keys/{}/retire", kid(0).replace(':', "%3A"));
    let (began, refused) = (Instant::now(), std::sync::OnceLock::new());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while pulled(&both.two, &former) == 200 && began.elapsed() < PATIENCE {}
            let _ = refused.set(began.elapsed());
        });
        assert_eq!(ordered(&both.one, &path, ""), 200, "{}", both.one.tail());
        assert_eq!(both.pulled(&former), [401, 401], "the command succeeds when both know it");
    });
    let took = refused.get().copied().unwrap_or(PATIENCE);
    assert!(took < SOON, "{took:?}\n{}", both.two.tail());
    for gate in [&both.one, &both.two] {
        let listed = told(gate, &both.secret, &["keys", "list"]);
        assert!(listed.contains(&kid(0)) && listed.contains("retired since 20"), "{listed}");
    }
}

#[test]
fn a20_a_replica_that_does_not_answer_is_named_and_the_command_fails() {
    let mut both = Both::new();
    let former = token(both.core.address, DEV, SCOPE);
    both.upgrade();
    both.two.signal("STOP");
    let retire = ["keys", "retire", &kid(0), "--now"];
    let (exit, said) = tell(&both.one, &both.secret, &retire);
    assert_eq!(exit, 1, "{said}");
    assert!(said.contains("it is retired here, but") && said.contains("haven't acknowledged it: "), "{said}");
    assert_eq!(pulled(&both.one, &former), 401, "here it counts");
    both.two.signal("CONT");
    told(&both.one, &both.secret, &retire);
    assert_eq!(both.pulled(&former), [401, 401]);
    // Whoever stops on purpose is waited for no more.
    both.two.signal("TERM");
    assert_eq!(both.two.ends(PATIENCE), Some(0), "{}", both.two.tail());
    are(&both.one, 1);
    told(&both.one, &both.secret, &["keys", "retire", &kid(0), "--now"]);
}

/// What is known of the former order says nothing of the next one.
#[test]
fn a20_a_second_order_of_the_same_user_is_acknowledged_for_itself() {
    let both = Both::new();
    let revoke = ["revoke", "--subject", DEV.0];
    told(&both.one, &both.secret, &revoke);
    both.two.signal("STOP");
    let said_at = Clock::system().now();
    waiting::holds("a later second", PATIENCE, || Clock::system().now() > said_at);
    let (exit, said) = tell(&both.one, &both.secret, &revoke);
    assert_eq!(exit, 1, "{said}");
    assert!(said.contains("it is revoked here, but") && said.contains("haven't acknowledged it: "), "{said}");
    both.two.signal("CONT");
    told(&both.one, &both.secret, &revoke);
}

#[test]
fn a20_a_restore_names_the_replica_that_does_not_know_what_it_ended() {
    let both = Both::new();
    let path = |name: &str| both.stage.path(name).display().to_string();
    let (archive, key) = (path("ended.keys"), path("archive.key"));
    fs::write(&key, &**seal::written(&[9; seal::KEY])).expect("a key");
    let (other, other_secret) = {
        let file = format!("[store]\nurl = \"file:{}\"\n", path("other.redb"));
        let setup = Setup::before(&[&both.core], &[&both.core.key_file]).top("deployment = \"harbor\"");
        with_token(&both.stage, &setup.rest(&file))
    };
    told(&other, &other_secret, &["revoke", "--subject", DEV.0]);
    told(&other, &other_secret, &["keys", "back-up", &archive, "--key-file", &key]);
    let restore = ["keys", "restore", &archive, "--key-file", &key];
    both.two.signal("STOP");
    let (exit, said) = tell(&both.one, &both.secret, &restore);
    assert_eq!(exit, 1, "{said}");
    assert!(
        said.contains("it is restored here, but") && said.contains("haven't acknowledged it: "),
        "{said}"
    );
    both.two.signal("CONT");
    told(&both.one, &both.secret, &restore);
}

#[test]
fn a_key_file_is_put_back_though_the_store_is_down() {
    let (stage, core) = scene();
    let address = ports::free();
    let server = redis(&stage, address);
    let (gate, secret) = with_token(&stage, &shared(&stage, &core, address));
    let path = |name: &str| stage.path(name).display().to_string();
    let (archive, key) = (path("before.keys"), path("archive.key"));
    fs::write(&key, &**seal::written(&[9; seal::KEY])).expect("a key");
    let before = fs::read(&core.key_file).expect("core's key");
    told(&gate, &secret, &["revoke", "--subject", "gone"]);
    told(&gate, &secret, &["keys", "back-up", &archive, "--key-file", &key]);
    hold(&core.key_file, 1);
    is_in_state(&gate, 1, "signing");
    drop(server);
    let (exit, said) = tell(&gate, &secret, &["keys", "restore", &archive, "--key-file", &key]);
    assert_eq!(exit, 1, "{said}");
    assert!(said.contains("it is restored here, but the store didn't take it"), "{said}");
    assert!(fs::read(&core.key_file).expect("core's key") == before, "{said}");
}

#[test]
fn a20_a_command_says_that_the_store_did_not_take_it() {
    let (stage, core) = scene();
    let address = ports::free();
    let server = redis(&stage, address);
    let (gate, secret) = with_token(&stage, &shared(&stage, &core, address));
    let token = token(gate.address, DEV, SCOPE);
    assert_eq!(pulled(&gate, &token), 200);
    drop(server);
    let (exit, said) = tell(&gate, &secret, &["revoke", "--subject", DEV.0]);
    assert_eq!(exit, 1, "{said}");
    assert!(said.contains("it is revoked here, but the store didn't take it"), "{said}");
    assert_eq!(pulled(&gate, &token), 401, "here it counts");
    let _server = redis(&stage, address);
    waiting::holds("it is taken", PATIENCE, || tell(&gate, &secret, &["revoke", "--subject", DEV.0]).0 == 0);
}

/// A token of before, one of after, and another user's.
#[test]
fn a20_what_a_user_was_given_is_refused_everywhere_and_after_a_restart() {
    let mut both = Both::new();
    let (of_dev, of_robot) = (token(both.one.address, DEV, SCOPE), token(both.one.address, ROBOT, SCOPE));
    assert_eq!((both.pulled(&of_dev), both.pulled(&of_robot)), ([200, 200], [200, 200]));
    told(&both.one, &both.secret, &["revoke", "--subject", DEV.0]);
    assert_eq!((both.pulled(&of_dev), both.pulled(&of_robot)), ([401, 401], [200, 200]));
    let direct = pull(MANIFEST).bearer(&of_dev).at(both.core.address).status;
    assert_eq!(direct, 200, "core alone knows nothing of it");
    let again = ask_token(SCOPE).basic(DEV).at(both.two.address).token();
    assert_ne!(again, of_dev, "no cached answer either");
    let fresh = waiting::until(PATIENCE, || {
        let fresh = token(both.two.address, DEV, SCOPE);
        (both.pulled(&fresh) == [200, 200]).then_some(())
    });
    assert!(fresh.is_some(), "what Harbor gives the user now is good: {}", both.two.tail());
    let refusal = pull(MANIFEST).bearer(&of_dev).at(both.two.address);
    assert_eq!(crate::stage::told(&both.two, &refusal)["reason"], "token_revoked");
    both.two.signal("KILL");
    both.two.ends(PATIENCE);
    let (two, _) = with_token(&both.stage, &both.setup);
    assert_eq!([&of_dev, &of_robot].map(|token| pulled(&two, token)), [401, 200], "{}", two.tail());
}

/// Whose clock says what is older than an order isn't the same everywhere.
#[test]
fn a20_a_token_of_a_core_whose_clock_is_ahead_ends_with_its_users_revocation() {
    let stage = Stage::new();
    let core = stage.replica("core", |options| options.clock = Clock::shifted(45));
    core.seed();
    let (gate, secret) = with_token(&stage, &Setup::before(&[&core], &[&core.key_file]));
    let (of_dev, of_robot) = (token(gate.address, DEV, SCOPE), token(gate.address, ROBOT, SCOPE));
    assert_eq!([&of_dev, &of_robot].map(|token| pulled(&gate, token)), [200, 200]);
    told(&gate, &secret, &["revoke", "--subject", DEV.0]);
    assert_eq!([&of_dev, &of_robot].map(|token| pulled(&gate, token)), [401, 200], "{}", gate.tail());
    assert_eq!(pull(MANIFEST).bearer(&of_dev).at(core.address).status, 200, "directly");
    waiting::holds("what Harbor gives the user now is good", PATIENCE, || {
        pulled(&gate, &token(gate.address, DEV, SCOPE)) == 200
    });
}

/// Without any key nothing is verified: what the token says of itself denies.
#[test]
fn a20_an_unverified_token_of_a_revoked_user_is_refused() {
    let (stage, core) = scene();
    let setup = Setup::before(&[&core], &[]).rest("[replay]\nenabled = false\n[store]\nurl = \"memory:\"\n");
    let (gate, secret) = with_token(&stage, &setup);
    let (of_dev, of_robot) = (token(core.address, DEV, SCOPE), token(core.address, ROBOT, SCOPE));
    assert_eq!([&of_dev, &of_robot].map(|token| pulled(&gate, token)), [200, 200]);
    told(&gate, &secret, &["revoke", "--subject", DEV.0]);
    assert_eq!([&of_dev, &of_robot].map(|token| pulled(&gate, token)), [401, 200], "{}", gate.tail());
}

/// What Harbor granted before is granted again while its database is away: to the robot, not to the user who was
/// revoked.
#[test]
fn a20_grace_ends_with_a_users_revocation() {
    let stage = Stage::new();
    let core = stage.replica("core", |_| {});
    core.seed();
    let setup = Setup::before(&[&core], &[&core.key_file]).rest("[token]\ncache = \"0s\"").rest(SHORT_PARK);
    let (gate, secret) = with_token(&stage, &setup);
    for (who, name) in [(DEV, DEV.0), (ROBOT, ROBOT.0)] {
        assert_eq!(ask_token(SCOPE).basic(who).at(gate.address).subject(), name);
    }
    told(&gate, &secret, &["revoke", "--subject", DEV.0]);
    stage.world.set_database(Health::Refusing);
    let granted = |who| story(&gate, &ask_token(SCOPE).basic(who).at(gate.address))[2].clone();
    assert_eq!((&*granted(ROBOT), &*granted(DEV)), ("grace", "outage"), "{}", gate.tail());
}

/// While core can't sign, tokens are tidegate's own.
#[test]
fn a20_a_token_of_our_own_ends_with_its_users_revocation() {
    let (stage, core) = scene();
    let (gate, secret) = with_token(&stage, &Setup::before(&[&core], &[]));
    spare_key(0).rename_into(&core.key_file, KeyForm::Garbage).expect("a broken key file");
    let (of_dev, of_robot) = (token(gate.address, DEV, SCOPE), token(gate.address, ROBOT, SCOPE));
    assert!(of_dev.starts_with("tidegate1_"), "{}", gate.tail());
    assert_eq!([&of_dev, &of_robot].map(|token| pulled(&gate, token)), [200, 200]);
    told(&gate, &secret, &["revoke", "--subject", DEV.0]);
    assert_eq!([&of_dev, &of_robot].map(|token| pulled(&gate, token)), [401, 200], "{}", gate.tail());
}

#[test]
fn a20_one_token_is_refused_everywhere_and_its_user_goes_on() {
    let both = Both::new();
    // Of core's own: the gates would give the same one twice.
    let (lost, other) = (token(both.core.address, DEV, SCOPE), token(both.core.address, DEV, SCOPE));
    assert_ne!(lost, other);
    assert_eq!((both.pulled(&lost), both.pulled(&other)), ([200, 200], [200, 200]));
    let file = both.stage.path("lost-token");
    fs::write(&file, format!("{lost}\n")).expect("a file");
    told(&both.one, &both.secret, &["revoke", "--token-file", &file.display().to_string()]);
    assert_eq!((both.pulled(&lost), both.pulled(&other)), ([401, 401], [200, 200]));
    assert!(!both.one.output().contains(&lost), "it stays where it is");
}

/// A21: whatever is said on the channel, nothing comes of it but another look.
#[test]
fn a21_messages_of_strangers_change_nothing() {
    let both = Both::new();
    let token = token(both.one.address, DEV, SCOPE);
    let before = status(&both.one)["alarms"].clone();
    for message in ["nothing", "retire-everything", "{v:1,of:key}"] {
        waiting::holds("both listen", PATIENCE, || publish(both.redis, message) == ":2");
    }
    assert_eq!(both.pulled(&token), [200, 200]);
    assert_eq!(status(&both.one)["alarms"], before, "{}", both.one.tail());
}

/// Says something on the channel of changes; how many heard it, as Redis writes a number.
fn publish(server: SocketAddr, message: &str) -> String {
    let mut line = TcpStream::connect(server).expect("a connection");
    write!(line, "PUBLISH tidegate:harbor:changed {message}\r\n").expect("it is said");
    let mut answer = String::new();
    BufReader::new(line).read_line(&mut answer).expect("an answer");
    answer.trim_end().to_owned()
}

#[test]
fn who_uses_a_key_is_known_on_every_replica() {
    let both = Both::new();
    let of_dev = token(both.core.address, DEV, SCOPE);
    let of_robot = token(both.core.address, ROBOT, SCOPE);
    both.upgrade();
    assert_eq!((pulled(&both.one, &of_dev), pulled(&both.two, &of_robot)), (200, 200));
    let used = |gate: &Gate| {
        let keys = status(gate)["keys"].clone();
        let key = keys.as_array()?.iter().find(|key| key["kid"] == *kid(0))?.clone();
        Some((key["evidence"]["principals"].as_u64()?, key["evidence"]["clients"].as_u64()?))
    };
    for gate in [&both.one, &both.two] {
        waiting::holds("both users are known", PATIENCE, || used(gate) == Some((2, 1)));
    }
    let (exit, said) = tell(&both.one, &both.secret, &["keys", "retire", &kid(0)]);
    assert_eq!(exit, 1, "{said}");
    assert!(said.contains("its last tokens live until 20"), "{said}");
    assert!(said.contains("used by about 2 users from 1 address, last seen"), "{said}");
    assert_eq!(both.pulled(&of_dev), [200, 200], "it is as it was");
}
