//! What an operator is told, of set-ups on addresses that are free.

use std::path::Path;

use super::*;
use crate::{
    app::config::Flags,
    decisions::{key::forge, plan::Held},
};

fn sources(flags: Flags) -> Sources {
    let listen = if flags.listen.is_empty() { vec!["127.0.0.1:0".to_owned()] } else { flags.listen.clone() };
    let environment = vec![("TIDEGATE_ADMIN__ADDRESS".to_owned(), "127.0.0.1:0".to_owned())];
    Sources { environment, flags: Flags { listen, ..flags }, file: None }
}

fn checked(sources: &Sources) -> Report {
    check(sources, &Clock::system(), None)
}

fn with_key(content: &[u8], ask: Option<&AskEndpoints>) -> Report {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("private_key.pem");
    std::fs::write(&path, content).expect("a file");
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("a mode");
    let flags = Flags { keys: vec![path], ..Flags::default() };
    check(&sources(flags), &Clock::system(), ask)
}

fn found(faults: &[Fault]) -> Vec<&str> {
    faults.iter().map(|fault| fault.found.as_str()).collect()
}

/// An endpoint that holds the forged key of this number, before a Harbor with this realm.
fn holding(which: usize, realm: &str) -> impl Fn(&Settings) -> Asked {
    let asked = Asked {
        endpoints: vec![endpoints::Answered {
            name: "core:8080 10.0.0.5:8080".to_owned(),
            up: true,
            held: Held::One(forge::rsa(which).key().kid().clone()),
        }],
        faults: Vec::new(),
        realm: Some(("core:8080 10.0.0.5:8080".to_owned(), realm.to_owned())),
    };
    move |_| asked.clone()
}

#[test]
fn a_key_file_that_is_broken_is_a_fault_with_path_cause_and_remedy() {
    let report = with_key(b"", None);
    assert_eq!(report.exit_code(), 64);
    assert!(report.faults[0].place.to_string().ends_with("/private_key.pem"), "{report}");
    assert_eq!(report.faults[0].found, "the file is empty");
    assert!(!report.faults[0].remedy.is_empty());
}

#[test]
fn an_endpoint_that_does_not_answer_fails_without_being_a_bad_configuration() {
    let silent = |settings: &Settings| {
        let endpoint = settings.upstream.endpoints[0].url.to_string();
        let fault = Fault {
            place: Place::Default,
            key: "upstream.endpoints[0]".to_owned(),
            found: format!("{endpoint} doesn't answer"),
            expected: String::new(),
            remedy: String::new(),
        };
        Asked { faults: vec![fault], ..Asked::default() }
    };
    let report = check(&sources(Flags::default()), &Clock::system(), Some(&silent));
    assert_eq!(report.exit_code(), 1);
    assert!(report.to_string().contains("http://core:8080 doesn't answer"), "{report}");
    assert!(report.to_string().ends_with("\n1 unreachable\n"), "{report}");
}

#[test]
fn a_bad_configuration_asks_no_endpoint_and_still_has_its_files_read() {
    let flags = Flags {
        harbor: Some("core".to_owned()),
        keys: vec!["/nowhere/private_key.pem".into()],
        ..Flags::default()
    };
    let never = |_: &Settings| -> Asked { panic!("asked") };
    let report = check(&sources(flags), &Clock::system(), Some(&never));
    assert_eq!((report.exit_code(), report.faults.len()), (64, 2), "{report}");
    let text = report.to_string();
    assert!(text.contains("\nflag --harbor: upstream.endpoints[0].url\n"), "{text}");
    assert!(text.contains("/nowhere/private_key.pem: keys.sources\n"), "{text}");
    assert!(!text.contains("LISTENERS"), "what is at its default for a fault's sake isn't shown: {text}");
}

#[test]
fn a_certificate_that_is_not_there_is_a_fault() {
    let tls = "[{ address = '127.0.0.1:0', tls = { certificate_file = '/nowhere/tls.crt', key_file = '/nowhere/tls.key' } }]";
    let mut sources = sources(Flags::default());
    sources.flags.listen.clear();
    sources.environment.push(("TIDEGATE_LISTENER".to_owned(), tls.to_owned()));
    let report = checked(&sources);
    assert_eq!(report.exit_code(), 64);
    assert_eq!(report.faults[0].place.to_string(), "/nowhere/tls.crt");
    assert_eq!(report.faults[0].key, "listener[0].tls");
}

#[test]
fn nothing_wrong_is_said_too_after_what_was_looked_at() {
    let report = checked(&sources(Flags::default()));
    let text = report.to_string();
    assert_eq!(report.exit_code(), 0);
    assert!(text.starts_with("CONFIGURATION\n  flags and defaults (no file found)\n"), "{text}");
    assert!(text.ends_with("\n\nnothing is wrong\n"), "{text}");
    for words in ["127.0.0.1:0 ", "http://core:8080 ", "not asked", "KEYS\n  none"] {
        assert!(text.contains(words), "{words}\n{text}");
    }
}

#[test]
fn a_key_that_core_does_not_hold_is_a_warning() {
    let ours = forge::rsa(0).pkcs1_pem();
    let here = "http://localhost:0/service/token";
    let report = with_key(ours.as_bytes(), Some(&holding(0, here)));
    assert!(!found(&report.warnings).iter().any(|text| text.contains("private key")), "{report}");
    let report = with_key(ours.as_bytes(), Some(&holding(1, here)));
    assert!(found(&report.warnings)[0].contains("no private key of ours is it"), "{report}");
    assert_eq!(report.exit_code(), 0, "it may be meant");
    let text = report.to_string();
    assert!(text.contains("private  signing\n") && text.contains(" up "), "{text}");
    assert!(text.ends_with(" no faults\n") && !text.contains("nothing is wrong"), "{text}");
}

#[test]
fn a_public_half_is_a_warning() {
    let report = with_key(forge::rsa(0).public_pem().as_bytes(), None);
    assert!(found(&report.warnings)[0].starts_with("only a certificate or public half"), "{report}");
    assert!(report.to_string().contains("  public   signing\n"), "{report}");
}

#[test]
fn a_realm_that_leads_elsewhere_is_a_warning() {
    let elsewhere = holding(0, "https://harbor.example/service/token");
    let report = check(&sources(Flags::default()), &Clock::system(), Some(&elsewhere));
    assert_eq!(report.warnings.len(), 1, "{report}");
    assert!(report.warnings[0].found.contains("https://harbor.example for tokens"), "{report}");
    let mut public = sources(Flags::default());
    public.environment.push(("TIDEGATE_PUBLIC_URL".to_owned(), "https://harbor.example".to_owned()));
    assert_eq!(check(&public, &Clock::system(), Some(&elsewhere)).warnings, []);
}

#[test]
fn an_address_in_use_may_be_our_own_and_one_that_is_not_ours_is_a_fault() {
    let taken =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| Ok((l.local_addr()?, l))).expect("a port");
    let at = |address: String| sources(Flags { listen: vec![address], ..Flags::default() });
    let report = checked(&at(taken.0.to_string()));
    assert_eq!(report.exit_code(), 0, "{report}");
    assert_eq!(found(&report.warnings), ["in use; fine if tidegate itself is running there"]);
    assert_eq!(report.warnings[0].place.to_string(), format!("address {}", taken.0));
    // Addresses of documentation are nobody's (RFC 5737).
    let report = checked(&at("192.0.2.1:0".to_owned()));
    assert_eq!((report.exit_code(), report.faults[0].key.as_str()), (64, "listener[0].address"));
    assert!(report.faults[0].found.contains("no such address"), "{report}");
}

#[test]
fn the_folder_of_the_admin_socket_must_be_there_and_keeps_nothing_of_the_check() {
    let folder = tempfile::tempdir().expect("a folder");
    let admin_at = |path: &Path| {
        let mut sources = sources(Flags::default());
        sources.environment =
            vec![("TIDEGATE_ADMIN__ADDRESS".to_owned(), format!("unix:{}", path.display()))];
        checked(&sources)
    };
    assert_eq!(admin_at(&folder.path().join("admin.sock")).exit_code(), 0);
    assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0);
    let report = admin_at(&folder.path().join("absent/admin.sock"));
    assert_eq!(report.exit_code(), 64);
    assert!(report.faults[0].found.ends_with("its folder isn't there"), "{report}");
    assert_eq!(report.faults[0].remedy, "make it, or set admin.address");
}

#[test]
fn a27_a_ramp_in_observe_mode_is_a_warning() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tidegate.toml");
    let text = |mode: &str, share: u8| {
        let endpoints = "[{ url = \"http://a:8080\" }, { url = \"http://b:8080\", side = \"next\" }]";
        format!("mode = \"{mode}\"\n[upstream]\nendpoints = {endpoints}\n[ramp]\nshare = {share}\n")
    };
    for (mode, share, warned) in [("observe", 10, true), ("observe", 0, false), ("enforce", 10, false)] {
        std::fs::write(&path, text(mode, share)).expect("a file");
        let sources =
            Sources { file: Some(path.clone()), flags: Flags::default(), ..sources(Flags::default()) };
        let report = checked(&sources);
        let said = found(&report.warnings).iter().any(|text| text.starts_with("mode = \"observe\""));
        assert_eq!((said, report.faults.len()), (warned, 0), "{mode} {share}\n{report}");
    }
}
