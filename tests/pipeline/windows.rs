//! Upgrade windows, as an operator opens and closes them.

use crate::{
    operating::{screen, status, tell, told, with_token},
    stage::{DEV, SCOPE, Setup, Stage, hold, kid, token},
    store::{is_in_state, pulled, redis, scene, shared},
    support::{gate::Gate, ports, waiting},
};
use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    time::Duration,
};
use tidegate::{
    decisions::record::seal,
    words::clock::{Clock, UnixTime},
};

fn is_open(gate: &Gate) -> bool {
    gate.metrics().sum("tidegate_window_until_seconds", &[]) > 0.0
}

#[test]
fn a_window_is_open_on_all_replicas_until_one_of_them_is_told_to_close_it() {
    let (stage, core) = scene();
    let address = ports::free();
    let _redis = redis(&stage, address);
    let setup = shared(&stage, &core, address);
    let ((one, secret), (two, _)) = (with_token(&stage, &setup), with_token(&stage, &setup));
    for gate in [&one, &two] {
        gate.wait_for("both live", |metrics| metrics.sum("tidegate_replicas", &[]) > 1.5);
    }
    assert!(told(&one, &secret, &["window", "show"]).contains("no upgrade window is open"));
    let said = told(&one, &secret, &["window", "open", "--for", "2h"]);
    assert!(said.contains("open until 20") && said.contains("(by command)"), "{said}");
    assert!(is_open(&one) && is_open(&two), "the command succeeds when all know it");
    assert!(screen(&two, &secret).contains("UPGRADE WINDOW  open until 20"));
    let (_, json) = tell(&two, &secret, &["window", "show", "--json"]);
    assert!(json.contains(r#""by":"command""#), "{json}");
    told(&two, &secret, &["window", "close"]);
    assert!(!is_open(&one) && !is_open(&two));
    let (exit, said) = tell(&one, &secret, &["window", "close"]);
    assert_eq!((exit, said.contains("no window is open by command")), (1, true), "{said}");
    for wrong in ["30s", "169h"] {
        let (exit, said) = tell(&one, &secret, &["window", "open", "--for", wrong]);
        assert_eq!((exit, said.contains("1m to 168h")), (1, true), "{said}");
    }
}

/// Each makes the records of keys last as long as the window, and neither goes on about it.
#[test]
fn a_window_makes_replicas_write_their_keys_once() {
    let (stage, core) = scene();
    let address = ports::free();
    let _redis = redis(&stage, address);
    let setup = shared(&stage, &core, address);
    let ((one, secret), (two, _)) = (with_token(&stage, &setup), with_token(&stage, &setup));
    hold(&core.key_file, 1);
    for gate in [&one, &two] {
        is_in_state(gate, 0, "verifying");
        is_in_state(gate, 1, "signing");
    }
    let before = writes(address);
    told(&one, &secret, &["window", "open", "--for", "2h"]);
    let few = || {
        let now = writes(address);
        std::thread::sleep(Duration::from_secs(1));
        writes(address) == now && now > before
    };
    waiting::holds("all is written", Duration::from_secs(20), few);
    assert!(writes(address) <= before + 2 * 2 * 3, "{before} {}", writes(address));
}

/// How often records of keys were written.
pub fn writes(server: SocketAddr) -> u64 {
    let mut line = TcpStream::connect(server).expect("a connection");
    write!(line, "HGET tidegate:harbor:key \"\"\r\n").expect("it is asked");
    let mut answer = BufReader::new(line).lines().map_while(Result::ok);
    answer.nth(1).and_then(|count| count.parse().ok()).expect("a number")
}

/// Without the window the next look is far away: the key that core holds now is not known.
#[test]
fn while_a_window_is_open_endpoints_are_asked_for_their_keys_often() {
    let (stage, core) = scene();
    let setup = Setup::before(&[&core], &[])
        .upstream("probe = { every = \"10m\", in_window = \"100ms\" }")
        .rest("[store]\nurl = \"memory:\"\n");
    let (gate, secret) = with_token(&stage, &setup);
    let holds = |gate: &Gate, key: usize| {
        gate.metrics().sum("tidegate_endpoint_held_key", &[("kid", &kid(key))]) > 0.5
    };
    assert!(holds(&gate, 0), "{}", gate.tail());
    // One that asks as often as the window would have the other one ask.
    let often = Setup::before(&[&core], &[]).upstream("probe = { every = \"100ms\", in_window = \"100ms\" }");
    let often = often.rest("[store]\nurl = \"memory:\"\n").start();
    for key in [1, 2, 1] {
        hold(&core.key_file, key);
        often.wait_for("it is seen by who asks", |_| holds(&often, key));
    }
    assert_eq!(status(&gate)["window"], serde_json::Value::Null);
    assert!(holds(&gate, 0) && !holds(&gate, 1), "nobody has asked");
    told(&gate, &secret, &["window", "open", "--for", "1h"]);
    gate.wait_for("the new key is known", |_| holds(&gate, 1));
    hold(&core.key_file, 2);
    gate.wait_for("and the next one", |_| holds(&gate, 2));
}

#[test]
fn closing_says_which_keys_may_be_retired_and_who_uses_the_others() {
    let (stage, core) = scene();
    let setup = Setup::before(&[&core], &[&core.key_file]).rest("[replay]\nenabled = false\n");
    let (gate, secret) = with_token(&stage, &setup);
    let former = token(core.address, DEV, SCOPE);
    told(&gate, &secret, &["window", "open", "--for", "1h"]);
    hold(&core.key_file, 1);
    is_in_state(&gate, 0, "verifying");
    assert_eq!(pulled(&gate, &former), 200);
    let said = told(&gate, &secret, &["window", "close"]);
    assert!(said.starts_with("no upgrade window is open\n"), "{said}");
    let (_, about) = said.split_once(&kid(0)).expect("the former key is told of");
    assert!(about.contains("used by 1 user from 1 address, last seen"), "{said}");
    assert!(about.contains("its tokens may live for "), "{said}");
}

fn dates(from: i64, until: i64) -> String {
    let now = Clock::system().now().0;
    let date = |at: i64| UnixTime(now + at).rfc3339();
    format!("[grace]\nwindows = [{{ from = {}, until = {} }}]\n", date(from), date(until))
}

#[test]
fn windows_of_the_configuration_open_by_themselves_and_reload() {
    let (stage, core) = scene();
    let setup = |dates: &str| Setup::before(&[&core], &[&core.key_file]).rest(dates).text();
    let gate = Gate::start(&setup(&dates(3_600, 7_200)));
    assert!(!is_open(&gate));
    gate.reload(&setup(&dates(-60, 3_600)), |metrics| {
        metrics.sum("tidegate_window_until_seconds", &[]) > 0.0
    });
    gate.reload(&setup(""), |metrics| metrics.sum("tidegate_window_until_seconds", &[]) == 0.0);
    gate.configure(&setup(&dates(2, 3_600)));
    gate.wait_for("it opens by itself", |metrics| metrics.sum("tidegate_window_until_seconds", &[]) > 0.0);
    drop(stage);
}

#[test]
fn an_archive_holds_the_window_that_was_open() {
    let (stage, core) = scene();
    let start = |name: &str| {
        let file = format!("[store]\nurl = \"file:{}\"\n", stage.path(name).display());
        with_token(&stage, &Setup::before(&[&core], &[&core.key_file]).rest(&file))
    };
    let (gate, secret) = start("one.redb");
    let (archive, key) = (path(&stage, "open.keys"), path(&stage, "archive.key"));
    fs::write(Path::new(&key), &**seal::written(&[9; seal::KEY])).expect("a key");
    told(&gate, &secret, &["window", "open", "--for", "2h"]);
    told(&gate, &secret, &["revoke", "--subject", "somebody"]);
    told(&gate, &secret, &["keys", "back-up", &archive, "--key-file", &key]);
    let (next, _) = start("two.redb");
    assert!(!is_open(&next));
    let said = told(&next, &secret, &["keys", "restore", &archive, "--key-file", &key]);
    assert!(said.contains("users and tokens revoked: 1"), "{said}");
    next.wait_for("it is open", |metrics| metrics.sum("tidegate_window_until_seconds", &[]) > 0.0);
}

fn path(stage: &Stage, name: &str) -> String {
    stage.path(name).display().to_string()
}
