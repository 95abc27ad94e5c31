//! Key files as accidents and attackers write them: a named error, never a block; a ring that works stays.

use crate::{
    bench,
    raw::get,
    standin::basic_of,
    support::{harbor, settings, waiting},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(10);

/// `tidegate check --offline` with these key files; status and both outputs.
fn check(keys: &[&Path]) -> (Option<i32>, String) {
    let mut command = Command::new(settings::tidegate());
    command.args(["check", "--offline", "--harbor", "http://127.0.0.1:1"]);
    for key in keys {
        command.arg("--key").arg(key);
    }
    said(&finished(&mut command))
}

fn said(output: &Output) -> (Option<i32>, String) {
    let text = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

fn finished(command: &mut Command) -> Output {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let ended = waiting::until(SOON, || child.try_wait().expect("a status"));
    if ended.is_none() {
        let _ = child.kill();
        panic!("it blocks");
    }
    child.wait_with_output().expect("its output")
}

fn openssl(arguments: &[&str]) {
    let output = Command::new(settings::packaged("openssl")).args(arguments).output().expect("openssl");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A folder with one bad file of each kind.
fn bad_files(folder: &TempDir) -> Vec<PathBuf> {
    let at = |name: &str| folder.path().join(name);
    let text = |name: &str| at(name).display().to_string();
    harbor::replace_key(&at("good.pem"));
    let good = fs::read(at("good.pem")).unwrap();
    fs::write(at("empty.pem"), "").unwrap();
    fs::write(at("cut.pem"), &good[..good.len() / 2]).unwrap();
    fs::write(at("binary.pem"), [0_u8, 159, 146, 150].repeat(100)).unwrap();
    fs::create_dir(at("directory.pem")).unwrap();
    fs::File::create(at("huge.pem")).unwrap().set_len(100 << 20).unwrap();
    assert!(Command::new("mkfifo").arg(at("fifo.pem")).status().unwrap().success());
    openssl(&["genrsa", "-traditional", "-out", &text("short.pem"), "1024"]);
    openssl(&[
        "rsa",
        "-in",
        &text("good.pem"),
        "-aes128",
        "-passout",
        "pass:x",
        "-out",
        &text("encrypted.pem"),
    ]);
    openssl(&[
        "rsa",
        "-in",
        &text("good.pem"),
        "-aes128",
        "-passout",
        "pass:x",
        "-traditional",
        "-out",
        &text("encrypted-1.pem"),
    ]);
    ["empty", "cut", "binary", "directory", "huge", "fifo", "short", "encrypted", "encrypted-1", "missing"]
        .iter()
        .map(|name| at(&format!("{name}.pem")))
        .collect()
}

#[test]
fn every_bad_key_file_is_a_fault_with_path_cause_and_remedy_and_nothing_blocks() {
    let folder = tempfile::tempdir().unwrap();
    for path in bad_files(&folder) {
        let began = Instant::now();
        let (status, text) = check(&[&path]);
        assert_eq!(status, Some(64), "{}: {text}", path.display());
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        assert!(text.contains(&name) && text.contains("remedy"), "{text}");
        assert!(!text.contains("PRIVATE KEY-----"), "no material is shown: {text}");
        assert!(began.elapsed() < SOON);
    }
    let (status, text) = check(&[&folder.path().join("good.pem")]);
    assert_eq!(status, Some(0), "{text}");
}

#[test]
fn a_ring_that_works_stays_when_its_file_turns_bad() {
    let folder = tempfile::tempdir().unwrap();
    let bad = bad_files(&folder);
    let (gate, standin) = bench::before_the_standin("");
    let token = standin.token("dev", &["repository:priv/app:pull"]);
    let bearer = format!("Authorization: Bearer {token}\r\n");
    let good = fs::read(&standin.key_file).unwrap();
    for path in bad.iter().filter(|path| path.is_file()) {
        // The content alone: core may not read a file of any mode.
        fs::write(&standin.key_file, fs::read(path).unwrap()).unwrap();
        waiting::holds("an alarm names the file", SOON, || !gate.alarms(&standin.key_file).is_empty());
        let signing = gate.metrics().sum("tidegate_key_state", &[("state", "signing")]);
        assert!(signing > 0.5, "{} ended the ring", path.display());
        fs::write(&standin.key_file, &good).unwrap();
    }
    waiting::holds("core serves as before", SOON, || get(gate.address, "/v2/", &bearer).status == 200);
}

const DEFAULT_KEY: &str = "7WMA:KVXO:KF25:35NA:GJ35:ZGKY:PGYT:I5UT:TGWY:UUI4:PT7Z:X3KW";

/// A JWKS with the public half of this key under Harbor's published default name.
fn named_as_default(key: &Path) -> String {
    let arguments = ["rsa", "-noout", "-modulus", "-in"];
    let output = Command::new(settings::packaged("openssl")).args(arguments).arg(key).output();
    let text = String::from_utf8(output.expect("openssl").stdout).expect("text");
    let digits = text.trim().strip_prefix("Modulus=").expect("a modulus");
    let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal");
    let modulus: Vec<u8> = (0..digits.len()).step_by(2).map(byte).collect();
    let n = URL_SAFE_NO_PAD.encode(modulus);
    format!(r#"{{"keys":[{{"kty":"RSA","alg":"RS256","kid":"{DEFAULT_KEY}","n":"{n}","e":"AQAB"}}]}}"#)
}

/// Its private half is not ours to have: another key under its name stands for it.
#[test]
fn harbors_published_default_key_ends_check_and_start() {
    let folder = tempfile::tempdir().unwrap();
    let [key, jwks, named, file] =
        ["key.pem", "jwks.json", "named.json", "tidegate.toml"].map(|n| folder.path().join(n));
    harbor::replace_key(&key);
    fs::write(&jwks, named_as_default(&key)).unwrap();
    fs::write(&named, named_as_default(&key).replace(DEFAULT_KEY, "another")).unwrap();
    let source = |path: &Path, more: &str| {
        let listed = format!("{{ file = \"{}\", state = \"verifying\"{more} }}", path.display());
        let listener = "[[listener]]\naddress = \"127.0.0.1:0\"\n[admin]\naddress = \"127.0.0.1:0\"\n";
        fs::write(&file, format!("[upstream]\nendpoints = [{{ url = \"http://127.0.0.1:1\" }}]\n[keys]\nsources = [{listed}]\n{listener}")).unwrap();
    };
    let run = |arguments: &[&str]| {
        let mut command = Command::new(settings::tidegate());
        command.args(arguments).arg("--config").arg(&file);
        said(&finished(&mut command))
    };
    source(&jwks, "");
    let (status, text) = run(&["check", "--offline"]);
    assert_eq!(status, Some(64), "{text}");
    assert!(text.contains("jwks.json") && text.contains("core.secretName"), "path and remedy: {text}");
    let (status, text) = run(&["serve"]);
    assert_eq!(status, Some(1), "{text}");
    assert!(text.contains("jwks.json") && text.contains("core.secretName"), "path and remedy: {text}");
    source(&key, &format!(", alias = \"{DEFAULT_KEY}\""));
    for arguments in [&["check", "--offline"][..], &["serve"]] {
        let (status, text) = run(arguments);
        assert_eq!(status, Some(64), "{text}");
        assert!(text.contains("keys.sources[0].alias"), "{text}");
    }
    source(&named, "");
    assert_eq!(run(&["check", "--offline"]).0, Some(0), "the same file under another name");
}

#[test]
fn a_token_that_names_harbors_published_default_key_means_nothing() {
    let (gate, standin) = bench::before_the_standin("");
    let header = format!(r#"{{"alg":"RS256","kid":"{DEFAULT_KEY}","typ":"JWT"}}"#);
    let token = standin.token("dev", &["repository:priv/app:pull"]);
    let rest = token.split_once('.').expect("parts").1.to_owned();
    let forged = format!("{}.{rest}", URL_SAFE_NO_PAD.encode(header));
    let bearer = format!("Authorization: Bearer {forged}\r\n");
    assert_eq!(get(gate.address, "/v2/priv/app/tags/list", &bearer).status, 401);
    let reason = [("reason", "token_default_key")];
    gate.wait_for("it is counted", |metrics| metrics.sum("tidegate_rejections_total", &reason) > 0.5);
    let sent = format!("Bearer {forged}");
    assert!(standin.heads().iter().all(|head| head.header("authorization") != Some(&sent)));
}

#[test]
fn the_same_key_twice_is_one_and_a_key_readable_by_the_world_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (folder.path().join("one.pem"), folder.path().join("two.pem"));
    harbor::replace_key(&one);
    fs::copy(&one, &two).unwrap();
    for path in [&one, &two] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }
    let (status, text) = check(&[&one, &two]);
    assert_eq!(status, Some(0), "{text}");
    fs::set_permissions(&one, fs::Permissions::from_mode(0o644)).unwrap();
    let (status, text) = check(&[&one]);
    assert_eq!(status, Some(0), "Kubernetes mounts Secrets so: {text}");
    let warning = "the private key is readable by the world";
    assert!(text.contains("one.pem") && text.contains(warning), "{text}");
    fs::set_permissions(&one, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(!check(&[&one]).1.contains(warning), "for the group is as it should be");
}

#[test]
fn two_keys_of_one_name_are_a_fault() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (folder.path().join("one.pem"), folder.path().join("two.pem"));
    harbor::replace_key(&one);
    harbor::replace_key(&two);
    let path = folder.path().join("tidegate.toml");
    let source =
        |file: &Path| format!("{{ file = \"{}\", alias = \"same\", state = \"verifying\" }}", file.display());
    fs::write(&path, format!("[keys]\nsources = [{}, {}]\n", source(&one), source(&two))).unwrap();
    let mut command = Command::new(settings::tidegate());
    command.args(["check", "--offline", "--config"]).arg(&path);
    let (status, text) = said(&finished(&mut command));
    assert_eq!(status, Some(64), "{text}");
    assert!(text.contains("keys.sources[1].alias") && text.contains("another source has"), "{text}");
}

#[test]
fn a_secret_is_in_no_line_of_the_log() {
    let (gate, standin) = bench::before_the_standin("[log]\nlevel = \"trace\"\n");
    let basic = basic_of("dev");
    let token = standin.token("dev", &["repository:priv/app:pull"]);
    for (target, value) in [
        (
            "/service/token?service=harbor-registry&scope=repository:priv/app:pull&password=Query12345",
            basic.clone(),
        ),
        ("/v2/priv/app/tags/list", format!("Bearer {token}")),
        ("/v2/priv/app/tags/list?secret=Query12345", basic.clone()),
        ("/v2/", "Bearer a.Secret12345.c".to_owned()),
    ] {
        let _ = get(gate.address, target, &format!("Authorization: {value}\r\nCookie: sid=Cookie12345\r\n"));
    }
    waiting::holds("all four are logged", SOON, || gate.log().len() >= 4);
    let everything: String = gate.events().iter().map(ToString::to_string).collect();
    let secrets = [
        "Query12345",
        "Secret12345",
        "Cookie12345",
        "Dev12345",
        basic.trim_start_matches("Basic "),
        token.rsplit('.').next().unwrap(),
    ];
    for secret in secrets {
        assert!(!everything.contains(secret) && !gate.tail().contains(secret), "{secret}");
    }
}
