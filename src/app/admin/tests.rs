//! The listener on a real socket, asked by its own client and by hand.

use std::{os::unix::fs::PermissionsExt as _, path::Path, sync::Mutex};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UnixStream},
    sync::oneshot,
};

use super::{
    client::{Client, Target},
    *,
};
use crate::{
    app::{
        config::{AdminAddress, Material, Secret},
        ramp::Steer,
        status,
    },
    decisions::{key::forge::rsa, record::revocation::Revocation, window::Order},
};

/// A process with one key.
#[derive(Default)]
struct Fake {
    retired: Mutex<Vec<String>>,
    not_ready: bool,
}

impl Operator for Fake {
    fn readiness(&self) -> Readiness {
        let reasons = if self.not_ready { vec!["draining".to_owned()] } else { Vec::new() };
        Readiness { ready: !self.not_ready, reasons, degraded: vec![] }
    }

    fn metrics(&self) -> String {
        assert!(!self.not_ready, "a panic in an answer");
        "# EOF\n".to_owned()
    }

    fn status(&self) -> Status {
        let key = status::Key {
            kid: "A:B".to_owned(),
            state: "signing".to_owned(),
            private: true,
            source: "/k".to_owned(),
            ..status::Key::default()
        };
        Status { keys: vec![key], ..Status::default() }
    }

    fn published(&self) -> Published {
        Published { jwks: r#"{"keys":[]}"#.to_owned(), bundle: String::new() }
    }

    fn archivable(&self) -> Archivable {
        Archivable::default()
    }

    fn restore(&self, archived: Restore) -> Result<(Restored, Vec<Ordered>), ContentFault> {
        let changed = format!("restored, dry run: {}", archived.dry_run);
        self.retired.lock().expect("a lock").push(changed);
        let is_lost = archived.deployment == "lost";
        Ok((Restored::default(), is_lost.then(|| revoked("lost")).into_iter().collect()))
    }

    fn steer(&self, how: Steer) -> bool {
        self.retired.lock().expect("a lock").push(format!("{how:?}"));
        true
    }

    fn add(&self, keys: Vec<Key>, signed_until: Option<UnixTime>) -> Result<(), AddFault> {
        let added = format!("{} {:?}", keys.len(), signed_until.map(|at| at.0));
        self.retired.lock().expect("a lock").push(added);
        Ok(())
    }

    fn retire(&self, kid: &str, at_once: bool) -> Result<Ordered, NotRetired> {
        if kid != "A:B" {
            return Err(NotRetired { fault: RetireFault::Unknown, evidence: None });
        }
        if !at_once {
            let evidence = Some(Evidence { principals: 2, clients: 1, ..Evidence::default() });
            return Err(NotRetired { fault: RetireFault::Lives(UnixTime(0)), evidence });
        }
        self.retired.lock().expect("a lock").push(kid.to_owned());
        Ok(revoked(kid))
    }

    fn window(&self) -> WindowReport {
        WindowReport::default()
    }

    fn open_window(&self, length: Duration) -> Ordered {
        self.retired.lock().expect("a lock").push(format!("open for {} s", length.as_secs()));
        Ordered::Window(Order { opened: UnixTime(0), until: UnixTime(0), said: UnixTime(0) })
    }

    fn close_window(&self) -> Option<Ordered> {
        None
    }

    fn revoke(&self, what: &Revoke) -> Option<Ordered> {
        let Revoke::Subject(name) = what else { return None };
        self.retired.lock().expect("a lock").push(format!("revoked {name}"));
        Some(revoked(name))
    }

    /// Another replica never hears of the user "lost".
    async fn settled(&self, ordered: &[Ordered]) -> Result<(), Unsettled> {
        let is_lost = ordered.contains(&revoked("lost"));
        if is_lost { Err(Unsettled::NotWritten) } else { Ok(()) }
    }
}

fn revoked(name: &str) -> Ordered {
    let (name, at) = (name.to_owned(), UnixTime(0));
    Ordered::Revocation(Revocation::Subject { name, not_before: at, at })
}

/// A listener that runs until it is stopped.
struct Running {
    operator: Arc<Fake>,
    address: Option<SocketAddr>,
    stop: oneshot::Sender<()>,
    served: tokio::task::JoinHandle<()>,
}

impl Running {
    async fn start(settings: config::Admin, operator: Fake) -> Self {
        let bound = Bound::bind(&settings.address).await.expect("an address");
        let (address, operator) = (bound.local_addr(), Arc::new(operator));
        let (stop, stopped) = oneshot::channel();
        let serving = Arc::clone(&operator);
        let served = tokio::task::spawn_local(async move {
            let stopped = async { drop(stopped.await) };
            serve(bound, &settings, serving, stopped).await;
        });
        Self { operator, address, stop, served }
    }

    /// The answer's status line and the rest, to these lines of a head.
    async fn raw(&self, lines: &str) -> String {
        let stream = TcpStream::connect(self.address.expect("TCP")).await.expect("a connection");
        exchange(stream, lines).await
    }

    /// As [`Running::raw`], with our own address as `Host`.
    async fn asked(&self, request: &str, more: &str) -> String {
        let host = self.address.expect("TCP");
        self.raw(&format!("{request} HTTP/1.1\nhost: {host}\n{more}connection: close\n")).await
    }

    fn client(&self, token: Option<&str>) -> Client {
        let url = format!("http://{}", self.address.expect("TCP"));
        Client {
            target: Target::parse(&url).expect("a target"),
            token: token.map(|token| Secret::new(token.to_owned())),
        }
    }

    async fn stop(self) -> Arc<Fake> {
        drop(self.stop);
        self.served.await.expect("an end");
        self.operator
    }
}

async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, lines: &str) -> String {
    let head = lines.replace('\n', "\r\n") + "\r\n";
    stream.write_all(head.as_bytes()).await.expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    answer
}

fn settings(token: Option<Material>) -> config::Admin {
    let address = AdminAddress::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)));
    config::Admin { address, hosts: vec!["tidegate.harbor.svc".to_owned()], token }
}

fn inline(token: &str) -> Material {
    Material::Inline(Secret::new(token.to_owned()))
}

/// Runs on one thread, where tasks of a test may be local ones.
fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, test);
}

#[test]
fn health_readiness_and_metrics_are_open() {
    run(async {
        let running = Running::start(settings(None), Fake::default()).await;
        assert!(running.asked("GET /healthz", "").await.starts_with("HTTP/1.1 200 "));
        assert!(running.asked("GET /readyz", "").await.starts_with("HTTP/1.1 200 "));
        let metrics = running.asked("GET /metrics", "").await;
        assert!(metrics.contains("openmetrics-text") && metrics.ends_with("# EOF\n"), "{metrics}");
        assert!(running.asked("POST /metrics", "").await.starts_with("HTTP/1.1 405 "));
        assert!(running.asked("HEAD /healthz", "").await.starts_with("HTTP/1.1 200 "));
        running.stop().await;
    });
}

#[test]
fn who_is_not_ready_says_why_and_a_panic_ends_one_answer_only() {
    run(async {
        let fake = Fake { not_ready: true, ..Fake::default() };
        let running = Running::start(settings(None), fake).await;
        assert!(running.asked("GET /metrics", "").await.starts_with("HTTP/1.1 500 "));
        let answer = running.asked("GET /readyz", "").await;
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.ends_with("not ready\ndraining\n"), "{answer}");
        running.stop().await;
    });
}

#[test]
fn a28_what_changes_state_needs_the_token_on_loopback_too() {
    run(async {
        let running = Running::start(settings(Some(inline("right"))), Fake::default()).await;
        for (token, status) in [
            ("", 401),
            ("authorization: Bearer wrong\n", 401),
            ("authorization: Basic right\n", 401),
            ("authorization: bearer right\n", 200),
        ] {
            let answer = running.asked("POST /v1/keys/A%3AB/retire", token).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{token} {answer}");
        }
        for path in ["/v1/keys", "/v1/keys/restore"] {
            let changed = running.asked(&format!("POST {path}"), "").await;
            assert!(changed.starts_with("HTTP/1.1 401 "), "{path} {changed}");
        }
        for path in ["/v1/status", "/v1/keys", "/v1/keys/published", "/v1/keys/archivable", "/anything"] {
            let answer = running.asked(&format!("GET {path}"), "").await;
            assert!(answer.starts_with("HTTP/1.1 401 "), "{path} {answer}");
        }
        let fake = running.stop().await;
        assert_eq!(*fake.retired.lock().expect("a lock"), ["A:B"]);
    });
}

#[test]
fn a28_without_a_token_nothing_can_be_changed() {
    run(async {
        let folder = tempfile::tempdir().expect("a folder");
        let empty = folder.path().join("token");
        std::fs::write(&empty, "\n").expect("a file");
        for token in [None, Some(Material::File(empty)), Some(Material::File("/nowhere/token".into()))] {
            let running = Running::start(settings(token), Fake::default()).await;
            let answer = running.asked("POST /v1/keys/A:B/retire", "authorization: Bearer \n").await;
            assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
            assert!(running.stop().await.retired.lock().expect("a lock").is_empty());
        }
    });
}

#[test]
fn a28_a_foreign_host_or_origin_is_refused() {
    run(async {
        let running = Running::start(settings(None), Fake::default()).await;
        let address = running.address.expect("TCP");
        for (head, status) in [
            ("GET /healthz HTTP/1.1\nhost: evil.example\n".to_owned(), 403),
            ("GET /healthz HTTP/1.1\nhost: 203.0.113.9\n".to_owned(), 403),
            (format!("GET /healthz HTTP/1.1\nhost: {address}\nhost: {address}\n"), 403),
            ("GET /healthz HTTP/1.0\n".to_owned(), 403),
            (format!("GET http://evil.example/healthz HTTP/1.1\nhost: {address}\n"), 403),
            (format!("GET /healthz HTTP/1.1\nhost: {address}\norigin: http://evil.example\n"), 403),
            (format!("GET /healthz HTTP/1.1\nhost: {address}\norigin: null\n"), 403),
            (format!("GET /healthz HTTP/1.1\nhost: {address}\norigin: http://{address}\n"), 200),
            ("GET /healthz HTTP/1.1\nhost: LOCALHOST:9180\n".to_owned(), 200),
            ("GET /healthz HTTP/1.1\nhost: tidegate.harbor.svc\n".to_owned(), 200),
        ] {
            let answer = running.raw(&format!("{head}connection: close\n")).await;
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status} "))
                    || answer.starts_with(&format!("HTTP/1.0 {status} ")),
                "{head} {answer}"
            );
        }
        running.stop().await;
    });
}

#[test]
fn a28_a_unix_socket_has_mode_0600_and_needs_no_token() {
    run(async {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("admin.sock");
        let unix =
            || config::Admin { address: AdminAddress::Unix(path.clone()), hosts: Vec::new(), token: None };
        let running = Running::start(unix(), Fake::default()).await;
        let mode = std::fs::metadata(&path).expect("a socket").permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        let second = Bound::bind(&unix().address).await.map(|_| ()).expect_err("a live socket");
        assert_eq!(second.kind(), std::io::ErrorKind::AddrInUse);
        let client = Client { target: Target::Unix(path.clone()), token: None };
        let status: Status = client.get("/v1/status").await.expect("a status");
        assert_eq!(status.keys.len(), 1);
        let stream = UnixStream::connect(&path).await.expect("a connection");
        let foreign =
            exchange(stream, "GET /healthz HTTP/1.1\nhost: evil.example\nconnection: close\n").await;
        assert!(foreign.starts_with("HTTP/1.1 403 "), "{foreign}");
        running.stop().await;
        assert!(!Path::new(&path).exists());
    });
}

#[test]
fn the_client_says_what_the_other_side_said() {
    run(async {
        let running = Running::start(settings(Some(inline("right"))), Fake::default()).await;
        let refused = running.client(Some("wrong")).get::<Status>("/v1/status").await.expect_err("a refusal");
        assert!(refused.to_string().contains("--admin-token-file"), "{refused}");
        let keys: Vec<status::Key> = running.client(Some("right")).get("/v1/keys").await.expect("keys");
        assert_eq!(keys[0].kid, "A:B");
        let unknown = running.client(Some("right")).post::<Vec<status::Key>>("/v1/keys/C/retire").await;
        assert_eq!(
            unknown.expect_err("no key").to_string(),
            "no key of the ring has this name, or an id that begins with it"
        );
        running.stop().await;
    });
}

#[test]
fn a28_the_jwks_is_open_with_its_age_and_its_tag() {
    run(async {
        let running = Running::start(settings(None), Fake::default()).await;
        let answer = running.asked("GET /.tidegate/jwks.json", "").await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with(r#"{"keys":[]}"#), "{answer}");
        assert!(answer.contains("cache-control: public, max-age=10\r\n"), "{answer}");
        let tag = answer.lines().find_map(|line| line.strip_prefix("etag: ")).expect("a tag");
        for (tag, status) in [(tag, 304), ("\"another\"", 200)] {
            let again = running.asked("GET /.tidegate/jwks.json", &format!("if-none-match: {tag}\n")).await;
            assert!(again.starts_with(&format!("HTTP/1.1 {status} ")), "{again}");
        }
        assert!(running.asked("POST /.tidegate/jwks.json", "").await.starts_with("HTTP/1.1 405 "));
        running.stop().await;
    });
}

#[test]
fn what_is_added_comes_as_public_halves_and_all_else_is_refused() {
    run(async {
        let running = Running::start(settings(Some(inline("right"))), Fake::default()).await;
        let client = running.client(Some("right"));
        let add = |spki: &str, alias: Option<&str>| {
            let key = AddedKey { spki: spki.to_owned(), alias: alias.map(str::to_owned) };
            Added { keys: vec![key], signed_until: Some(7) }
        };
        let whole = AddedKey::of(&rsa(0).key()).spki;
        let asked = async |added: Added| client.post_json::<Vec<status::Key>>("/v1/keys", &added).await;
        assert!(asked(add(&whole, Some("former"))).await.is_ok());
        for bad in [add("", None), add("AAAA", None), add(&whole, Some("a b"))] {
            let refused = asked(bad).await.expect_err("no key").to_string();
            assert_eq!(refused, "a key or an alias can't be used");
        }
        let refused = client.post_json::<Vec<status::Key>>("/v1/keys", &"x".repeat(3 << 20)).await;
        assert!(refused.expect_err("too long").to_string().contains("longer than"));
        assert_eq!(*running.stop().await.retired.lock().expect("a lock"), ["1 Some(7)"]);
    });
}

#[test]
fn an_idle_connection_does_not_hold_up_the_end() {
    run(async {
        let running = Running::start(settings(None), Fake::default()).await;
        let address = running.address.expect("TCP");
        let mut idle = TcpStream::connect(address).await.expect("a connection");
        idle.write_all(format!("GET /healthz HTTP/1.1\r\nhost: {address}\r\n\r\n").as_bytes())
            .await
            .expect("sent");
        let mut first = [0; 12];
        idle.read_exact(&mut first).await.expect("an answer");
        assert_eq!(&first, b"HTTP/1.1 200");
        let ended = tokio::time::timeout(PATIENCE / 2, running.stop()).await;
        assert!(ended.is_ok(), "the listener waited for a connection without a request");
    });
}

#[test]
fn a20_an_order_that_is_not_known_everywhere_is_no_success() {
    run(async {
        let running = Running::start(settings(Some(inline("right"))), Fake::default()).await;
        let client = running.client(Some("right"));
        let revoke = async |name: &str| {
            client.post_json::<Done>("/v1/revoke", &Revoke::Subject(name.to_owned())).await
        };
        assert!(revoke("dev").await.is_ok());
        let lost = revoke("lost").await.expect_err("nobody has acknowledged it").to_string();
        assert!(lost.starts_with("it is revoked here, but the store didn't take it"), "{lost}");
        let token = client.post_json::<Done>("/v1/revoke", &Revoke::Token("AAAA".to_owned())).await;
        assert!(token.expect_err("no digest").to_string().contains("32 bytes"));
        let open = async |for_seconds| {
            client.post_json::<WindowReport>("/v1/window", &OpenWindow { for_seconds }).await
        };
        for (for_seconds, is_fine) in [(59, false), (60, true), (7 * 86_400, true), (7 * 86_400 + 1, false)] {
            assert_eq!(open(for_seconds).await.is_ok(), is_fine, "{for_seconds}");
        }
        let close = client.post::<WindowReport>("/v1/window/close").await.expect_err("none is open");
        assert_eq!(close.to_string(), "no window is open by command");
        let retire = client.post::<Vec<status::Key>>("/v1/keys/A:B/retire?unless=alive").await;
        let said = retire.expect_err("its tokens live").to_string();
        assert!(said.contains("; used by about 2 users from 1 address, last seen"), "{said}");
        let done = running.operator.retired.lock().expect("a lock").clone();
        assert_eq!(done, ["revoked dev", "revoked lost", "open for 60 s", "open for 604800 s"]);
        running.stop().await;
    });
}

#[test]
fn a28_orders_ask_for_the_token() {
    run(async {
        let running = Running::start(settings(Some(inline("right"))), Fake::default()).await;
        for (line, status) in [
            ("GET /v1/window", 401),
            ("POST /v1/window", 401),
            ("POST /v1/window/close", 401),
            ("POST /v1/revoke", 401),
        ] {
            let answer = running.asked(line, "").await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{line} {answer}");
        }
        let client = running.client(Some("wrong"));
        assert!(client.post::<Done>("/v1/revoke").await.is_err());
        assert!(running.operator.retired.lock().expect("a lock").is_empty());
        running.stop().await;
    });
}
