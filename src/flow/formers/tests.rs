use std::{fs, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::*;
use crate::{decisions::former, flow::token_service::Asked};

const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
const NOW: UnixTime = UnixTime(1_000);

fn basic(name: &str, secret: &str) -> HeaderValue {
    let text = format!("Basic {}", STANDARD.encode(format!("{name}:{secret}")));
    HeaderValue::try_from(text).expect("a header")
}

/// Where whoever is known is served.
const BASE: &str = "/api/v2.0/users/current";

fn header(secret: &str) -> http::HeaderMap {
    http::HeaderMap::from_iter([(http::header::AUTHORIZATION, basic("robot$ci", secret))])
}

fn key() -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, b"a test's own")
}

fn wrong() -> WrongCredentials {
    WrongCredentials::new(key(), 3, Duration::from_mins(1))
}

/// `robot$ci` with "former" until 2,000, and "present" now.
fn formers(folder: &Path) -> Formers {
    let (hash_file, present_file) = (folder.join("former"), folder.join("present"));
    fs::write(&hash_file, former::hash(b"former", &[3; 16]).expect("a hash")).expect("a file");
    fs::write(&present_file, "present\n").expect("a file");
    let formers = Formers::new(key());
    let until = UnixTime(2_000);
    let configured = Configured { name: "robot$ci".to_owned(), hash_file, present_file, until };
    formers.configure(vec![configured], NOW);
    formers
}

async fn taken(formers: &Formers, name: &str, secret: &str, now: UnixTime) -> Option<HeaderValue> {
    let taken = formers.take((&basic(name, secret), HERE), &wrong(), now).await;
    taken.expect("no limit").map(|taken| taken.present)
}

#[tokio::test]
async fn a29_a_former_secret_is_taken_for_its_robot_alone_and_only_until_its_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let formers = formers(folder.path());
    assert_eq!(taken(&formers, "robot$ci", "former", NOW).await, Some(basic("robot$ci", "present")));
    for (name, secret) in [
        ("robot$ci", "present"),
        ("robot$ci", "another"),
        ("robot$ci", ""),
        ("robot$c", "former"),
        ("robot$ci2", "former"),
        ("ROBOT$CI", "former"),
        ("admin", "former"),
    ] {
        assert_eq!(taken(&formers, name, secret, NOW).await, None, "{name} {secret}");
    }
    assert!(taken(&formers, "robot$ci", "former", UnixTime(1_999)).await.is_some());
    assert_eq!(taken(&formers, "robot$ci", "former", UnixTime(2_000)).await, None);
    let uses = formers.uses();
    assert_eq!((uses[0].requests, uses[0].addresses, uses[0].last), (2, 1, Some(UnixTime(1_999))));
}

#[tokio::test]
async fn a29_guesses_are_limited_with_all_wrong_credentials_and_cost_nothing_then() {
    let folder = tempfile::tempdir().expect("a folder");
    let (formers, wrong) = (formers(folder.path()), wrong());
    let guess = async |secret: &str, from: u8| {
        let came = basic("robot$ci", secret);
        formers.take((&came, IpAddr::from([10, 0, 0, from])), &wrong, NOW).await.map(|taken| taken.is_some())
    };
    for n in 0..3 {
        assert_eq!(guess(&n.to_string(), 1).await, Ok(false));
        assert_eq!(guess(&n.to_string(), 1).await, Ok(false), "the same again counts once");
    }
    assert_eq!(guess("next", 1).await, Err(Reason::WrongCredentials));
    assert_eq!(guess("former", 2).await, Ok(true), "from elsewhere");
    assert_eq!(guess("former", 1).await, Ok(true), "what was found right goes freely");
    assert_eq!(guess("present", 1).await, Ok(false), "as the present one does");
}

#[tokio::test]
async fn a7_a_secret_that_harbor_accepted_before_is_limited_with_no_other_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let (formers, wrong) = (formers(folder.path()), wrong());
    let try_one = async |secret: &str| {
        let came = basic("robot$ci", secret);
        formers.take((&came, HERE), &wrong, NOW).await.map(|taken| taken.is_some())
    };
    // Of before it was changed, and one that isn't in the file yet.
    for secret in ["former", "newer"] {
        let (answer, up) = (http::Response::new(()), header(secret));
        wrong.note((&answer, Duration::ZERO), (&http::Method::GET, &up), Asked::of(None, BASE), HERE);
        assert!(wrong.has_accepted(&basic("robot$ci", secret)), "{secret}");
    }
    assert_eq!(try_one("newer").await, Ok(false));
    assert!(!wrong.is_over_limit(HERE));
    for n in 0..3 {
        assert_eq!(try_one(&n.to_string()).await, Ok(false));
    }
    assert_eq!(try_one("guess").await, Err(Reason::WrongCredentials), "its address is over its limit");
    assert_eq!(try_one("newer").await, Ok(false), "it goes up as it came");
    assert_eq!(try_one("former").await, Ok(true), "Harbor accepted it, before it was changed");
}

#[tokio::test]
async fn files_that_change_are_read_again_and_broken_ones_leave_what_was_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let formers = formers(folder.path());
    let present = folder.path().join("present");
    fs::write(&present, "newer").expect("a file");
    formers.look(NOW);
    assert_eq!(taken(&formers, "robot$ci", "former", NOW).await, Some(basic("robot$ci", "newer")));
    assert!(formers.alarms().iter().all(|alarm| alarm.cause.contains("world")), "{:?}", formers.alarms());
    fs::write(&present, "").expect("a file");
    fs::write(folder.path().join("former"), "former").expect("a file");
    formers.look(NOW);
    assert_eq!(taken(&formers, "robot$ci", "former", NOW).await, Some(basic("robot$ci", "newer")));
    let causes: Vec<_> = formers.alarms().into_iter().map(|alarm| alarm.cause).collect();
    assert!(causes.iter().any(|cause| cause.contains("is it the secret itself?")), "{causes:?}");
    assert!(causes.iter().any(|cause| cause.contains("no secret")), "{causes:?}");
    assert!(causes.iter().all(|cause| !cause.contains("former")), "no secret is shown: {causes:?}");
    formers.configure(vec![], NOW);
    assert!(!formers.any() && formers.alarms().is_empty());
}

#[test]
fn a29_a_token_that_was_given_for_a_former_secret_ends_with_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let formers = formers(folder.path());
    assert!(!formers.may_have_ended(UnixTime(i64::MAX)), "none was given");
    formers.gave([1; 32], &"robot$ci".into());
    let ended = |now| [1, 2].map(|token| formers.has_ended(&[token; 32], UnixTime(now)));
    assert!(!formers.may_have_ended(UnixTime(1_999)) && formers.may_have_ended(UnixTime(2_000)));
    assert_eq!([ended(1_999), ended(2_000)], [[false, false], [true, false]]);
    let mut sooner = formers.all.load()[0].configured.clone();
    sooner.until = UnixTime(1_500);
    formers.configure(vec![sooner], NOW);
    assert!(formers.may_have_ended(UnixTime(1_500)) && formers.has_ended(&[1; 32], UnixTime(1_500)));
    formers.configure(vec![], NOW);
    assert!(formers.may_have_ended(NOW) && formers.has_ended(&[1; 32], NOW), "taken out");
}
