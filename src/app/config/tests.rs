//! What operators write, and what they are told.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use super::*;

/// A configuration out of this text, these variables and these flags.
#[derive(Default)]
struct Written<'t> {
    file: &'t str,
    variables: &'t [(&'t str, &'t str)],
    flags: Flags,
}

impl Written<'_> {
    fn load(self) -> Result<Settings, Faults> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("tidegate.toml");
        std::fs::write(&path, self.file).expect("a file");
        let environment = self.variables.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let mut loaded = load(&Sources { file: Some(path.clone()), environment, flags: self.flags });
        if let Err(faults) = &mut loaded {
            for fault in &mut faults.0 {
                match &mut fault.place {
                    Place::File { path, .. } | Place::Path(path) => *path = PathBuf::from("tidegate.toml"),
                    _ => {}
                }
            }
        }
        loaded
    }
}

fn file(text: &str) -> Result<Settings, Faults> {
    Written { file: text, ..Written::default() }.load()
}

/// `line:column key` of each fault.
fn places(loaded: Result<Settings, Faults>) -> Vec<String> {
    let faults = loaded.expect_err("faults").0;
    faults.into_iter().map(|fault| format!("{} {}", fault.place, fault.key)).collect()
}

fn variables(variables: &[(&str, &str)]) -> Result<Settings, Faults> {
    Written { variables, ..Written::default() }.load()
}

#[test]
fn a_harbor_alone_is_a_whole_configuration() {
    let flags = Flags { harbor: Some("https://harbor.example".to_owned()), ..Flags::default() };
    let settings = load(&Sources { flags, ..Sources::default() }).expect("settings");
    assert_eq!(settings.upstream.endpoints[0].url.to_string(), "https://harbor.example");
    assert_eq!(settings.listeners.len(), 1);
    assert_eq!(settings.listeners[0].address, "[::]:8080".parse::<SocketAddr>().expect("an address"));
    assert_eq!(settings.mode, Mode::Enforce);
    assert_eq!(settings.token.cache, Duration::from_secs(45));
    assert!(settings.keys.sources.is_empty());
}

#[test]
fn a_store_that_does_not_fit_together_is_refused() {
    let server = "deployment = \"h\"\n[store]\nseal_key_files = [\"/k\"]\n";
    let table: [(String, &[&str]); 8] = [
        (format!("{server}url = \"redis://r\"\n"), &[]),
        (format!("{server}url = \"rediss://r\"\ntls = {{ ca_file = \"/c\" }}\n"), &[]),
        ("[store]\nurl = \"redis://r\"\n".to_owned(), &["deployment", "store.seal_key_files"]),
        (format!("{server}url = \"redis://r\"\ntls = {{ ca_file = \"/c\" }}\n"), &["store.tls"]),
        ("[store]\npassword_file = \"/p\"\n".to_owned(), &["store.password_file"]),
        ("[store]\nprefix = \"a b\"\n".to_owned(), &["store.prefix"]),
        ("[store]\nurl = \"redis://u:secret@r\"\n".to_owned(), &["store.url"]),
        ("[store]\nurl = \"file:store.redb\"\n".to_owned(), &["store.url"]),
    ];
    for (text, expected) in table {
        let faults = file(&text).err().map(|faults| faults.0).unwrap_or_default();
        let mut keys: Vec<_> = faults.iter().map(|fault| fault.key.as_str()).collect();
        keys.sort_unstable();
        assert_eq!(keys, expected, "{text}");
        assert!(faults.iter().all(|fault| !fault.found.contains("secret")), "no password is shown");
    }
}

#[test]
fn every_fault_is_listed_at_once_with_its_place() {
    let text = r#"mode = "enforced"
realm = "rewrite"
lisener = 1

[upstream.probe]
every = "5 sec"

[[listener]]
address = "localhost:8080"
proxy_protocol = true

[keys]
sources = [{ file = "/a", folder = "/b" }, { fil = "/c" }]
leeway = "10m"
"#;
    let faults = file(text).expect_err("faults");
    insta::assert_snapshot!(faults, @r#"
    tidegate.toml:1:1: mode
      found     "enforced"
      expected  "enforce" or "observe"
      remedy    did you mean "enforce"?

    tidegate.toml:2:1: realm
      found     "rewrite" without a public_url
      expected  the URL that the realm shall point to
      remedy    set public_url, such as "https://harbor.example.com"

    tidegate.toml:3:1: lisener
      found     a key that nothing reads
      remedy    did you mean listener?

    tidegate.toml:6:1: upstream.probe.every
      found     "5 sec"
      expected  a time: a whole number and ms, s, m, h or d without a space, such as
                "45s"
      remedy    mend it, or remove it for the default "30s"

    tidegate.toml:9:1: listener[0].address
      found     "localhost:8080"
      expected  an IP address and port such as "[::]:8080" or "127.0.0.1:8080", or
                ":8080" for all addresses
      remedy    mend it, or remove it for the default "[::]:8080"

    tidegate.toml:10:1: listener[0].proxy_protocol
      found     a PROXY header asked for, and nobody who may send it
      expected  the networks of the load balancers
      remedy    set trusted_proxies, such as ["10.0.0.0/8"]

    tidegate.toml:13:12: keys.sources[0]
      found     several of file, folder, jwks and pkcs11
      expected  exactly one of them
      remedy    write { file = "/path" }

    tidegate.toml:13:46: keys.sources[1].fil
      found     a key that nothing reads
      remedy    did you mean file?

    tidegate.toml:14:1: keys.leeway
      found     "10m"
      expected  at most 5m
    "#);
}

#[test]
fn broken_syntax_is_one_fault_and_the_rest_is_still_judged() {
    let found = places(file("mode = \nrealm = \"kep\"\n[keys\nleeway = \"1x\"\n"));
    assert!(found.contains(&"tidegate.toml:2:1 realm".to_owned()), "{found:?}");
    assert!(found.iter().any(|place| place.starts_with("tidegate.toml:1:")), "{found:?}");
    assert!(found.iter().any(|place| place.starts_with("tidegate.toml:3:")), "{found:?}");
}

#[test]
fn flags_come_before_the_environment_before_the_file() {
    let flags = Flags { listen: vec!["127.0.0.1:1".to_owned()], ..Flags::default() };
    let written = Written {
        file: "deployment = \"of-file\"\nmode = \"observe\"\n[[listener]]\naddress = \":2\"\n",
        variables: &[("TIDEGATE_DEPLOYMENT", "7"), ("TIDEGATE_LISTENER", "[{ address = ':3' }]")],
        flags,
    };
    let settings = written.load().expect("settings");
    assert_eq!(settings.deployment, "7", "a text stays a text");
    assert_eq!(settings.mode, Mode::Observe);
    assert_eq!(settings.listeners[0].address.to_string(), "127.0.0.1:1");
}

#[test]
fn the_environment_reaches_every_depth() {
    let settings = variables(&[
        ("TIDEGATE_UPSTREAM__PROBE__EVERY", "5s"),
        ("TIDEGATE_UPSTREAM__POOL__PER_ENDPOINT", "7"),
        ("TIDEGATE_KEYS__SOURCES", r#"[{ file = "/k", until = 2026-12-01T20:00:00Z }]"#),
        ("TIDEGATE_GRACE__WINDOWS", "[{ from = 2026-12-01T20:00:00Z, until = 2026-12-01T21:00:00Z }]"),
        ("TIDEGATE_LOG__ACCESS", "false"),
        ("TIDEGATE_ADMIN__TOKEN", "true"),
    ])
    .expect("settings");
    assert_eq!(settings.upstream.probe.every, Duration::from_secs(5));
    assert_eq!(settings.upstream.pool.per_endpoint, 7);
    assert_eq!(settings.keys.sources[0].until.map(|time| time.0), Some(1_796_155_200));
    let windows: Vec<_> = settings.grace.windows.iter().map(|(from, until)| (from.0, until.0)).collect();
    assert_eq!(windows, [(1_796_155_200, 1_796_158_800)]);
    assert!(!settings.log.access);
    assert_eq!(settings.admin.token, Some(Material::Inline(Secret::new("true".to_owned()))));
}

#[test]
fn faults_of_the_environment_name_the_variable() {
    let found = places(variables(&[
        ("TIDEGATE_UPSTREAM__PROBE__EVERY", "soon"),
        ("TIDEGATE_UPSTREAM__PROBE__EVRY", "5s"),
        ("TIDEGATE_LOG__ACCESS", "yes"),
        ("TIDEGATE_MODES", "observe"),
    ]));
    assert_eq!(
        found,
        [
            "environment TIDEGATE_LOG__ACCESS log.access",
            "environment TIDEGATE_MODES modes",
            "environment TIDEGATE_UPSTREAM__PROBE__EVERY upstream.probe.every",
            "environment TIDEGATE_UPSTREAM__PROBE__EVRY upstream.probe.evry",
        ]
    );
}

#[test]
fn variables_that_kubernetes_sets_for_a_service_named_tidegate_are_none_of_ours() {
    let set = [
        ("TIDEGATE_PORT", "tcp://10.0.0.1:8080"),
        ("TIDEGATE_SERVICE_HOST", "10.0.0.1"),
        ("TIDEGATE_SERVICE_PORT_HTTP", "8080"),
        ("TIDEGATE_PORT_8080_TCP_ADDR", "10.0.0.1"),
        ("TIDEGATE_ADMIN_PORT", "tcp://10.0.0.1:9180"),
        ("TIDEGATE_CONFIG", "/etc/tidegate/tidegate.toml"),
    ];
    assert!(variables(&set).is_ok());
}

#[test]
fn private_halves_are_kept_where_they_outlive_the_process_and_their_keys_do_verify() {
    let store = "[store]\nurl = \"file:/s\"\n";
    assert!(file(&format!("[keys]\nkeep_private = true\n{store}")).is_ok_and(|s| s.keys.keep_private));
    assert!(file(store).is_ok_and(|settings| !settings.keys.keep_private));
    for text in [
        "[keys]\nkeep_private = true\n[store]\nurl = \"memory:\"\n".to_owned(),
        format!("[keys]\nkeep_private = true\noverlap = \"off\"\n{store}"),
    ] {
        assert_eq!(places(file(&text)), ["tidegate.toml:2:1 keys.keep_private"], "{text}");
    }
}

#[test]
fn grace_is_for_no_longer_than_what_ends_it_is_remembered() {
    let longest = file("[grace]\nwindow = \"7d\"\n").expect("settings").grace.window;
    assert_eq!(longest, crate::decisions::grace::LONGEST);
    assert_eq!(places(file("[grace]\nwindow = \"8d\"\n")), ["tidegate.toml:2:1 grace.window"]);
}

#[test]
fn what_is_not_built_yet_is_refused_wherever_it_is_written() {
    let text = "[traces]\notlp = \"/x\"\n";
    let written =
        Written { file: text, variables: &[("TIDEGATE_OIDC__ISSUER", "https://i")], ..Written::default() };
    let faults = written.load().expect_err("faults").0;
    let keys: Vec<_> = faults.iter().map(|fault| fault.key.as_str()).collect();
    assert_eq!(keys, ["traces", "oidc"]);
    assert!(faults.iter().all(|fault| fault.found.contains("not available in this version")));
}

#[test]
fn a_ramp_leads_somewhere_by_steps_in_their_order() {
    let with = |endpoints: &str, ramp: &str| {
        let endpoints =
            format!("[upstream]\nendpoints = [{{ url = \"http://a\" }}, {endpoints}]\n[ramp]\n{ramp}\n");
        let loaded = file(&endpoints);
        loaded.map_err(|faults| faults.0.iter().map(|fault| fault.key.clone()).collect::<Vec<_>>())
    };
    let next = "{ url = \"http://b\", side = \"next\" }";
    let good = "share = 5\nplan = [{ at = 2026-12-01T20:00:00Z, share = 30 }, { at = 2026-12-02T20:00:00Z, share = 100 }]\n\
                by = [\"project:p\", \"agent:skopeo\", \"source:10.0.0.0/8\"]\nstop_at = \"0.5%\"";
    let ramp = with(next, good).expect("settings").ramp.expect("a ramp");
    assert_eq!((ramp.share, ramp.plan.len(), ramp.by.len()), (5, 2, 3));
    assert!(with("", "").expect("settings").ramp.is_none());
    for (endpoints, ramp, key) in [
        ("", "share = 1", "ramp.share"),
        ("", "by = [\"project:p\"]", "ramp.by"),
        ("", "plan = [{ at = 2026-12-01T20:00:00Z, share = 30 }]", "ramp.plan"),
        (next, "share = 101", "ramp.share"),
        (next, "plan = [{ share = 30 }]", "ramp.plan[0].at"),
        (next, "plan = [{ at = 2026-12-01T20:00:00Z, share = 300 }]", "ramp.plan[0].share"),
        (
            next,
            "plan = [{ at = 2026-12-01T20:00:00Z, share = 1 }, { at = 2026-12-01T20:00:00Z, share = 2 }]",
            "ramp.plan[1].at",
        ),
        (next, "by = [\"robot:p\"]", "ramp.by[0]"),
        (next, "stop_at = \"1\"", "ramp.stop_at"),
    ] {
        assert_eq!(with(endpoints, ramp).err(), Some(vec![key.to_owned()]), "{endpoints} {ramp}");
    }
    let all =
        file("[upstream]\nendpoints = [{ url = \"http://a\", side = \"next\" }]\n").expect_err("faults");
    assert_eq!(all.0[0].key, "upstream.endpoints[0].side");
}

#[test]
fn a29_former_secrets_are_robots_alone_and_end() {
    let whole = "name = \"robot$ci\"\nformer_hash_file = \"/f\"\npresent_file = \"/p\"\nuntil = 2026-12-31T00:00:00Z\n";
    let with = |text: &str| {
        let loaded = file(&format!("[[credential]]\n{text}"));
        loaded.map_err(|faults| faults.0.iter().map(|fault| fault.key.clone()).collect::<Vec<_>>())
    };
    assert_eq!(with(whole).expect("settings").credentials.len(), 1);
    let custom = whole.replace("robot$ci", "bot-ci") + "prefix = \"bot-\"\n";
    assert!(with(&custom).is_ok());
    for (from, to, key) in [
        ("robot$ci", "admin", "name"),
        ("robot$ci", "robot$", "name"),
        ("robot$ci", "robot$a:b", "name"),
        ("/f", "", "former_hash_file"),
        ("/p", "", "present_file"),
        ("until = 2026-12-31T00:00:00Z", "", "until"),
        ("until = 2026-12-31T00:00:00Z", "until = \"soon\"", "until"),
    ] {
        assert_eq!(with(&whole.replace(from, to)).err(), Some(vec![format!("credential[0].{key}")]), "{to}");
    }
    assert_eq!(
        with(&(whole.to_owned() + "prefix = \"\"\n")).err(),
        Some(vec!["credential[0].prefix".to_owned()])
    );
    assert_eq!(
        with(&format!("{whole}[[credential]]\n{whole}")).err(),
        Some(vec!["credential[1].name".to_owned()])
    );
    let keys = "[keys]\nsources = [{ file = \"/k\" }]\n";
    let plain = format!("[upstream]\nkind = \"registry\"\n{keys}[[credential]]\n{whole}");
    let faults = file(&plain).expect_err("a plain registry would be shown the secret").0;
    assert_eq!(faults.iter().map(|fault| &*fault.key).collect::<Vec<_>>(), ["credential"]);
}

#[test]
fn a_secret_is_a_value_or_a_file_and_never_shown() {
    let both = "[admin]\ntoken = \"s3cret\"\ntoken_file = \"/t\"\n";
    let faults = file(both).expect_err("faults");
    assert_eq!(faults.0.len(), 1);
    assert!(!format!("{faults} {faults:?}").contains("s3cret"));

    let wrong_type = "[admin]\ntoken = [\"s3cret\"]\n";
    let faults = file(wrong_type).expect_err("faults");
    assert!(!format!("{faults} {faults:?}").contains("s3cret"));

    let mistyped = "[admin]\ntokn = \"s3cret\"\n";
    let faults = file(mistyped).expect_err("faults");
    assert!(!format!("{faults} {faults:?}").contains("s3cret"));

    let right = file("[admin]\ntoken = \"s3cret\"\n").expect("settings");
    assert!(!format!("{right:?}").contains("s3cret"));
}

#[test]
fn what_does_not_fit_together_is_a_fault() {
    for (text, key) in [
        ("realm = \"rewrite\"", "realm"),
        ("deployment = \"a b\"", "deployment"),
        ("listener = []", "listener"),
        ("[[listener]]\naddress = \":1\"\n[[listener]]\naddress = \"127.0.0.1:1\"", "listener[1].address"),
        ("[[listener]]\naddress = \":9180\"", "listener[0].address"),
        ("[[listener]]\nproxy_protocol = true", "listener[0].proxy_protocol"),
        ("[[listener]]\ntls = {}", "listener[0].tls"),
        ("[[listener]]\ntls = { key_file = \"/k\" }", "listener[0].tls.key_file"),
        ("upstream.endpoints = []", "upstream.endpoints"),
        ("upstream.endpoints = [{ opaque = \"yes\" }]", "upstream.endpoints[0].url"),
        (
            "upstream.endpoints = [{ url = \"http://c\" }, { url = \"http://C:80/\" }]",
            "upstream.endpoints[1].url",
        ),
        ("upstream.tls.ca_file = \"/c\"", "upstream.tls"),
        ("upstream.probe.in_window = \"1m\"", "upstream.probe.in_window"),
        ("upstream.timeouts.api = \"0s\"", "upstream.timeouts.api"),
        ("upstream.pool.per_endpoint = 0", "upstream.pool.per_endpoint"),
        ("keys.sources = [{}]", "keys.sources[0]"),
        ("keys.sources = [{ file = \"/a\" }, { file = \"/a\" }]", "keys.sources[1]"),
        ("keys.sources = [{ folder = \"/a\", alias = \"x\" }]", "keys.sources[0].alias"),
        ("keys.sources = [{ jwks = \"http://a/jwks\" }]", "keys.sources[0].jwks"),
        (
            "keys.sources = [{ file = \"/a\", state = \"retired\", until = 2026-12-01T20:00:00Z }]",
            "keys.sources[0].state",
        ),
        ("keys.sources = [{ file = \"/a\", from = 2026-12-01T20:00:00 }]", "keys.sources[0].from"),
        ("keys.leeway = \"10m\"", "keys.leeway"),
        ("keys.token_lifetime = \"10s\"", "keys.token_lifetime"),
        ("token.issuer = \"\"", "token.issuer"),
        ("uploads.head = \"65MiB\"", "uploads.heads_total"),
        ("grace.windows = [{ from = 2026-12-01T20:00:00Z }]", "grace.windows[0]"),
        (
            "grace.windows = [{ from = 2026-12-01T20:00:00Z, until = 2026-12-01T20:00:00Z }]",
            "grace.windows[0].until",
        ),
        (
            "grace.windows = [{ from = 2026-12-01T20:00:00, until = 2026-12-01T21:00:00Z }]",
            "grace.windows[0].from",
        ),
        ("limits.buffer = \"4KiB\"", "limits.buffer"),
        ("limits.head = \"128KiB\"", "limits.head"),
        ("limits.connections = -1", "limits.connections"),
        ("timeouts.stall = \"0s\"", "timeouts.stall"),
        ("admin.hosts = [\"http://x\"]", "admin.hosts[0]"),
        ("admin.address = \"unix:tidegate.sock\"", "admin.address"),
    ] {
        let faults = file(text).expect_err(text).0;
        let keys: Vec<_> = faults.iter().map(|fault| fault.key.as_str()).collect();
        assert_eq!(keys, [key], "{text}");
    }
}

#[test]
fn a_token_that_outlives_its_keys_window_is_a_fault() {
    let sources = |until: &str| {
        file(&format!(
            "[keys]\nsources = [\n  {{ file = \"/a\", until = {until} }},\n  {{ file = \"/b\", from = 2026-12-01T20:00:00Z }},\n]\n"
        ))
    };
    assert!(sources("2026-12-01T20:31:00Z").is_ok());
    let faults = sources("2026-12-01T20:20:00Z").expect_err("faults");
    assert_eq!(faults.0[0].place.to_string(), "tidegate.toml:3:18");
    assert!(
        faults.0[0].expected.contains("tokens issued in the last 660 s before the next key would die"),
        "{faults}"
    );
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let missing = Sources { file: Some("/nowhere/tidegate.toml".into()), ..Sources::default() };
    let faults = load(&missing).expect_err("faults");
    assert!(faults.to_string().starts_with("/nowhere/tidegate.toml\n  found     "), "{faults}");
}

#[test]
fn a10_peers_prove_themselves_or_say_aloud_that_they_do_not() {
    let long = "x".repeat(32);
    let table: [(String, &[&str]); 14] = [
        (String::new(), &[]),
        ("urls = [\"http://peers:8080\"]\nsecret_file = \"/s\"".to_owned(), &[]),
        (format!("urls = [\"http://peers:8080\"]\nsecret = \"{long}\""), &[]),
        ("urls = [\"http://peers:8080\"]\ninsecure = true".to_owned(), &[]),
        ("secret_file = \"/s\"".to_owned(), &[]),
        (
            "urls = [\"https://p\"]\nca_file = \"/a\"\ncertificate_file = \"/c\"\nkey_file = \"/k\""
                .to_owned(),
            &[],
        ),
        ("urls = [\"http://peers:8080\"]".to_owned(), &["peers.urls"]),
        ("urls = [\"https://p\"]\nca_file = \"/a\"".to_owned(), &["peers.urls"]),
        (
            "urls = [\"https://p\"]\ncertificate_file = \"/c\"\nsecret_file = \"/s\"".to_owned(),
            &["peers.certificate_file"],
        ),
        ("urls = [\"http://p\", \"http://p\"]\nsecret_file = \"/s\"".to_owned(), &["peers.urls[1]"]),
        ("secret = \"short\"".to_owned(), &["peers.secret"]),
        (format!("secret = \"{long}\"\nsecret_file = \"/s\""), &["peers.secret_file"]),
        ("ca_file = \"/a\"\nsecret_file = \"/s\"".to_owned(), &["peers.ca_file"]),
        ("every = \"1ms\"".to_owned(), &["peers.every"]),
    ];
    for (text, expected) in table {
        let faults = file(&format!("deployment = \"h\"\n[peers]\n{text}\n")).err();
        let faults = faults.map(|faults| faults.0).unwrap_or_default();
        let keys: Vec<_> = faults.iter().map(|fault| fault.key.as_str()).collect();
        assert_eq!(keys, expected, "{text}");
        assert!(faults.iter().all(|fault| !fault.found.contains("short\"")), "no secret is shown");
    }
    let nameless = file("[peers]\nurls = [\"http://peers:8080\"]\nsecret_file = \"/s\"\n");
    assert_eq!(places(nameless), ["default deployment"]);
}

#[test]
fn a_jwks_is_a_file_or_an_https_url() {
    for (source, expected) in [
        ("jwks = \"/keys.json\"", None),
        ("jwks = \"https://keys.example/jwks.json\"", None),
        ("jwks = \"https://keys.example/jwks.json\", ca_file = \"/ca.pem\"", None),
        ("jwks = \"http://keys.example/jwks.json\"", Some("keys.sources[0].jwks")),
        ("jwks = \"https://keys.example/jwks.json?a=b\"", Some("keys.sources[0].jwks")),
        ("jwks = \"/keys.json\", ca_file = \"/ca.pem\"", Some("keys.sources[0].ca_file")),
        ("file = \"/key.pem\", ca_file = \"/ca.pem\"", Some("keys.sources[0].ca_file")),
        ("jwks = \"https://keys.example/jwks.json\", alias = \"a\"", Some("keys.sources[0].alias")),
    ] {
        let faults = file(&format!("[keys]\nsources = [{{ {source} }}]\n")).err().map(|faults| faults.0);
        let found = faults.iter().flatten().map(|fault| fault.key.as_str()).next();
        assert_eq!(found, expected, "{source}");
    }
}
