//! What the stand-in offers beyond the contract: hooks for tests, an orderly end, and changes that end credentials.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tidegate::rehearsal::harbor::{
    Core, CoreKey, CoreOptions, Gate, Head, Health, KeyForm, Moment, OutageTimes, SAMPLE_ADMIN_PASSWORD,
    SAMPLE_ROBOT_SECRET, SAMPLE_USER_PASSWORD, Version, World,
};
use tokio::sync::{Notify, mpsc};

use crate::{
    client::{Answer, Request, Wire},
    target::spare_key,
    tokens::Token,
};

/// A core over a sample world, with its key file.
struct Fixture {
    folder: TempDir,
    world: Arc<World>,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let fixture = Self { folder, world: Arc::new(World::sample()) };
        fixture.hold(spare_key(0));
        fixture
    }

    fn hold(&self, key: &CoreKey) {
        key.overwrite(&self.folder.path().join("key.pem"), KeyForm::Pkcs1).expect("a key file");
    }

    async fn core(&self, change: impl FnOnce(&mut CoreOptions)) -> Core {
        let key_file = self.folder.path().join("key.pem");
        let mut options = CoreOptions::new(Version::V2_10_2, key_file, Arc::clone(&self.world), "");
        change(&mut options);
        Core::start(SocketAddr::from(([127, 0, 0, 1], 0)), options).await.expect("a core")
    }
}

fn request(core: &Core, method: &str, target: &str) -> Request {
    Request::new(core.address(), &core.address().to_string(), method, target)
}

fn named(name: &str, password: &str) -> (String, String) {
    (name.to_owned(), password.to_owned())
}

async fn token(core: &Core, credential: &(String, String)) -> Answer {
    let target = "/service/token?service=harbor-registry&scope=repository:priv/x:pull,push";
    request(core, "GET", target).basic(credential).send().await
}

fn grants(answer: &Answer) -> Vec<String> {
    Token::of(answer).actions("priv/x")
}

/// Holds each request to `/v2/` at a moment until it is released, and tells when one is held.
fn hold_at(moment: Moment) -> (Gate, Arc<Notify>, Arc<Notify>) {
    let (held, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (tell, wait) = (Arc::clone(&held), Arc::clone(&release));
    let gate: Gate = Arc::new(move |now: Moment, head: &Head| {
        (now == moment && head.target.starts_with("/v2/")).then(|| {
            let (tell, wait) = (Arc::clone(&tell), Arc::clone(&wait));
            let held: std::pin::Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(async move {
                tell.notify_one();
                wait.notified().await;
            });
            held
        })
    });
    (gate, held, release)
}

#[tokio::test]
async fn a_key_swapped_while_a_request_is_held_decides_by_the_moment() {
    for (moment, expected) in [(Moment::Arrived, 401), (Moment::Allowed, 200)] {
        let fixture = Fixture::new();
        let (gate, held, release) = hold_at(moment);
        let core = fixture.core(|options| options.gate = Some(gate)).await;
        let bearer = Token::of(&token(&core, &named("dev", SAMPLE_USER_PASSWORD)).await).text;
        let swap = async {
            held.notified().await;
            fixture.hold(spare_key(1));
            release.notify_one();
        };
        let ping = request(&core, "GET", "/v2/").bearer(&bearer).send();
        let (answer, ()) = tokio::join!(ping, swap);
        assert_eq!(answer.status, expected, "{moment:?}");
    }
}

#[tokio::test]
async fn stopping_waits_for_the_last_request_and_closes_what_is_idle() {
    let fixture = Fixture::new();
    let (gate, held, release) = hold_at(Moment::Allowed);
    let core = fixture.core(|options| options.gate = Some(gate)).await;
    let mut idle = Wire::connect(core.address()).await;
    let busy = request(&core, "GET", "/v2/").basic(&named("admin", SAMPLE_ADMIN_PASSWORD));
    let address = core.address();
    let stopped = AtomicBool::new(false);
    let stop = async {
        held.notified().await;
        core.stop().await;
        stopped.store(true, Ordering::SeqCst);
    };
    let finish = async {
        assert!(idle.is_closed().await);
        assert!(!stopped.load(Ordering::SeqCst), "a request is still held");
        release.notify_one();
    };
    let (answer, (), ()) = tokio::join!(busy.send(), stop, finish);
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "the port is free");
}

#[tokio::test]
async fn requests_are_counted_and_shown_as_they_came() {
    let fixture = Fixture::new();
    let (observer, mut seen) = mpsc::unbounded_channel();
    let core = fixture.core(|options| options.observer = Some(observer)).await;
    token(&core, &named("dev", SAMPLE_USER_PASSWORD)).await;
    request(&core, "GET", "/v2/").header("X-Two", "a").header("X-Two", "b").send().await;
    let served = core.served();
    assert_eq!((served.requests, served.tokens, served.registry, served.registry_refusals), (2, 1, 1, 1));
    assert!(seen.recv().await.expect("the first").head.target.starts_with("/service/token?"));
    let second = seen.recv().await.expect("the second").head;
    assert_eq!(second.all("x-two").collect::<Vec<_>>(), ["a", "b"]);
}

#[tokio::test]
async fn changes_through_the_api_end_what_a_credential_may_do() {
    let fixture = Fixture::new();
    let core = fixture.core(|_| {}).await;
    let (admin, dev) = (named("admin", SAMPLE_ADMIN_PASSWORD), named("dev", SAMPLE_USER_PASSWORD));
    let robot = named("robot$ci", SAMPLE_ROBOT_SECRET);
    let call = async |method: &str, path: &str, sent: Value| {
        request(&core, method, &format!("/api/v2.0/{path}")).basic(&admin).json(&sent).send().await
    };
    let id_of = async |list: &str, key: &str, name: &str, id: &str| {
        let entries = call("GET", list, Value::Null).await.json();
        let entry = entries.as_array().expect("a list").iter().find(|entry| entry[key] == name).cloned();
        entry.expect("an entry of that name")[id].to_string()
    };
    assert_eq!(grants(&token(&core, &dev).await), ["pull", "push"]);

    let member = id_of("projects/priv/members", "entity_name", "dev", "id").await;
    assert_eq!(call("DELETE", &format!("projects/priv/members/{member}"), Value::Null).await.status, 200);
    assert!(grants(&token(&core, &dev).await).is_empty(), "no member any more");

    let user = id_of("users", "username", "dev", "user_id").await;
    let changed = request(&core, "PUT", &format!("/api/v2.0/users/{user}/password")).basic(&dev);
    let passwords = json!({"old_password": dev.1, "new_password": "Other12345"});
    assert_eq!(changed.json(&passwords).send().await.status, 200);
    assert_eq!(Token::of(&token(&core, &named("dev", "Other12345")).await).claims["sub"], "dev");
    assert_eq!(Token::of(&token(&core, &dev).await).claims.get("sub"), None, "the former password");

    assert_eq!(grants(&token(&core, &robot).await), ["pull", "push"]);
    let id = id_of("robots", "name", "robot$ci", "id").await;
    let answer = call("PATCH", &format!("robots/{id}"), json!({"secret": "Another12345"})).await;
    assert_eq!((answer.status, &answer.json()["secret"]), (200, &json!("Another12345")));
    let with_new = named("robot$ci", "Another12345");
    assert_eq!(grants(&token(&core, &with_new).await), ["pull", "push"]);
    assert_eq!(call("DELETE", "projects/priv", Value::Null).await.status, 200);
    assert!(grants(&token(&core, &with_new).await).is_empty(), "no such project any more");
    assert_eq!(call("DELETE", &format!("robots/{id}"), Value::Null).await.status, 200);
    assert_eq!(Token::of(&token(&core, &with_new).await).claims.get("sub"), None);
}

#[tokio::test]
async fn a_shifted_core_judges_and_issues_by_its_own_clock() {
    let fixture = Fixture::new();
    let ahead = tidegate::words::clock::Clock::shifted(45);
    let other = fixture.core(|options| options.clock = ahead.clone()).await;
    let core = fixture.core(|_| {}).await;
    let dev = named("dev", SAMPLE_USER_PASSWORD);
    let early = Token::of(&token(&other, &dev).await).text;
    assert_eq!(request(&other, "GET", "/v2/").bearer(&early).send().await.status, 200);
    assert_eq!(request(&core, "GET", "/v2/").bearer(&early).send().await.status, 401, "2.10 knows no leeway");
    ahead.shift_to(0);
    let timely = Token::of(&token(&other, &dev).await).text;
    assert_eq!(request(&core, "GET", "/v2/").bearer(&timely).send().await.status, 200);
}

#[tokio::test]
async fn each_use_of_the_key_file_sees_what_it_is_now() {
    let fixture = Fixture::new();
    let core = fixture.core(|_| {}).await;
    let host = core.address().to_string();
    let get = |target: &str| Request::new(core.address(), &host, "GET", target);
    let (admin, dev) = (named("admin", SAMPLE_ADMIN_PASSWORD), named("dev", SAMPLE_USER_PASSWORD));
    let bearer = Token::of(&token(&core, &dev).await).text;
    let mut wire = Wire::connect(core.address()).await;
    let mut ask = async |request: Request| {
        wire.write(&request.bytes()).await.expect("a small request");
        wire.answer(false).await.expect("an answer").status
    };
    let path = fixture.folder.path().join("key.pem");
    let scoped = "/service/token?service=harbor-registry&scope=registry:catalog:*";
    // K7 to K9: a token is made, Basic goes on, a token of the key is accepted.
    for (form, made, accepted) in [
        (KeyForm::Pkcs8, 500, 200),
        (KeyForm::Pkcs1, 200, 200),
        (KeyForm::Ec, 200, 401),
        (KeyForm::Empty, 500, 401),
        (KeyForm::HalfWritten, 500, 401),
        (KeyForm::Garbage, 500, 401),
        (KeyForm::Public, 500, 401),
        (KeyForm::Pkcs1, 200, 200),
    ] {
        spare_key(0).rename_into(&path, form).expect("written");
        assert_eq!(ask(get(scoped)).await, made, "{form:?}");
        assert_eq!(ask(get("/v2/").basic(&admin)).await, 200, "{form:?}");
        assert_eq!(ask(get("/v2/").bearer(&bearer)).await, accepted, "{form:?}");
    }
}

#[tokio::test]
async fn a_client_that_leaves_ends_a_request_that_hangs() {
    let fixture = Fixture::new();
    let core = fixture.core(|_| {}).await;
    let admin = named("admin", SAMPLE_ADMIN_PASSWORD);
    for (hang, request) in [
        (World::set_database as fn(&World, Health), request(&core, "GET", "/v2/").basic(&admin)),
        (World::set_redis, request(&core, "GET", "/v2/")),
    ] {
        hang(&fixture.world, Health::Hanging);
        let mut wire = Wire::connect(core.address()).await;
        wire.write(&request.bytes()).await.expect("a small request");
        assert!(wire.is_silent_for(Duration::from_millis(200)).await);
        wire.end().await;
        hang(&fixture.world, Health::Up);
    }
}

#[tokio::test]
async fn health_takes_as_long_as_a_real_ones_unless_told_otherwise() {
    let fixture = Fixture::new();
    let core = fixture.core(|_| {}).await;
    fixture.world.set_database(Health::Refusing);
    let told = async || request(&core, "GET", "/api/v2.0/health").send().await.json()["status"].clone();
    assert_eq!(told().await, "healthy", "for 10 s");
    let at_once = OutageTimes { health_check: Duration::ZERO, ..OutageTimes::default() };
    fixture.world.set_outage_times(at_once);
    assert_eq!(told().await, "unhealthy");
}
