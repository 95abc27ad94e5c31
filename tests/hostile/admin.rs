//! The admin listener of the real binary with a token and as a Unix socket (A28).

use crate::{
    bench,
    raw::{self, find},
    standin::Standin,
    support::{gate, ports, process::Program, settings, waiting},
};
use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::Path,
    process::Command,
    time::Duration,
};

const SOON: Duration = Duration::from_secs(10);
const TOKEN: &str = "Operator12345";

#[test]
fn a28_only_the_token_shows_and_changes_and_the_file_is_read_at_each_use() {
    let standin = Standin::start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    fs::write(&file, format!("{TOKEN}\n")).unwrap();
    let by_environment = format!("TIDEGATE_ADMIN__TOKEN_FILE={}", file.display());
    let gate = bench::start_by(&["env", &by_environment], "", standin.address, &[&standin.key_file]);
    let ours = gate.admin.to_string();
    let ask = |method: &str, target: &str, host: &str, lines: &str| {
        let head = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n{lines}\r\n");
        raw::ask(gate.admin, head).expect("an answer")
    };
    let with = |token: &str| format!("Authorization: Bearer {token}\r\n");
    let keys: serde_json::Value =
        serde_json::from_slice(&ask("GET", "/v1/keys", &ours, &with(TOKEN)).body).expect("a list of keys");
    let kid = keys[0]["kid"].as_str().expect("a key").replace(':', "%3A");
    let retire = format!("/v1/keys/{kid}/retire");
    let signing = || gate.metrics().sum("tidegate_key_state", &[("state", "signing")]) > 0.5;
    for (method, target) in [("GET", "/v1/status"), ("GET", "/v1/keys"), ("POST", retire.as_str())] {
        let wrong = [
            String::new(),
            with(""),
            with("operator12345"),
            with(&TOKEN[1..]),
            with(&format!("{TOKEN}x")),
            format!("Authorization: Basic {TOKEN}\r\n"),
            with(TOKEN) + &with(TOKEN),
            format!("Cookie: token={TOKEN}\r\n"),
        ];
        for lines in wrong {
            assert_eq!(ask(method, target, &ours, &lines).status, 401, "{method} {target} {lines}");
        }
        let query = format!("{target}?token={TOKEN}");
        assert_eq!(ask(method, &query, &ours, "").status, 401, "{method} {query}");
        // What a browser, or core at a URL that a user has set, would send.
        assert_eq!(ask(method, target, "evil.example", &with(TOKEN)).status, 403, "{method} {target}");
        let origin = format!("{}Origin: http://evil.example\r\n", with(TOKEN));
        assert_eq!(ask(method, target, &ours, &origin).status, 403, "{method} {target}");
    }
    assert!(signing(), "nothing of that has retired the key");
    for open in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(ask("GET", open, &ours, "").status, 200, "{open} is open");
    }
    fs::write(&file, "Another12345").unwrap();
    assert_eq!(ask("GET", "/v1/status", &ours, &with(TOKEN)).status, 401, "the former token");
    assert_eq!(ask("GET", "/v1/status", &ours, &with("Another12345")).status, 200);
    fs::write(&file, "").unwrap();
    assert_eq!(ask("POST", &retire, &ours, &with("")).status, 403, "an empty file is no token");
    fs::write(&file, TOKEN).unwrap();
    assert_eq!(ask("POST", &retire, &ours, &with(TOKEN)).status, 200);
    assert!(!signing(), "the right token retires it");
    assert!(!gate.output().contains(TOKEN), "the token is in no line of the log");
}

/// The status of the answer over a Unix socket, once there is one.
fn over(socket: &Path, host: &str, target: &str) -> Option<String> {
    let mut stream = UnixStream::connect(socket).ok()?;
    let head = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let end = find(&answer, b"\r\n")?;
    Some(String::from_utf8_lossy(&answer[..end]).into_owned())
}

#[test]
fn a28_a_unix_socket_is_for_its_owner_alone_and_needs_no_token() {
    let standin = Standin::start();
    let folder = tempfile::tempdir().unwrap();
    let (socket, file) = (folder.path().join("admin.sock"), folder.path().join("tidegate.toml"));
    let base = gate::configuration(&[standin.address], "no", &[&standin.key_file]);
    let listener = format!("[[listener]]\naddress = \"{}\"\n", ports::free());
    let admin = format!("[admin]\naddress = \"unix:{}\"\n", socket.display());
    fs::write(&file, format!("{base}{listener}{admin}")).unwrap();
    let mut command = Command::new(settings::tidegate());
    command.args(["serve", "--config"]).arg(&file);
    let mut program = Program::start(&mut command, folder.path(), "tidegate");
    program.kill_at_once();
    program.wait_until(SOON, || over(&socket, "localhost", "/healthz").is_some());
    let mode = fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let status = |host: &str, target: &str| over(&socket, host, target).expect("an answer");
    assert!(status("localhost", "/v1/status").contains(" 200 "));
    assert!(status("evil.example", "/v1/status").contains(" 403 "));
    waiting::holds("it is ready", SOON, || status("localhost", "/readyz").contains(" 200 "));
}
