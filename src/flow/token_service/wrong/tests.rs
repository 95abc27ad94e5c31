use std::sync::atomic::Ordering::SeqCst;

use tokio::time::{sleep, timeout};

use super::{
    name::{LOCK, QUEUE, TRIES},
    pending::PENDING,
    *,
};

fn tries() -> WrongCredentials {
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"a test's own");
    WrongCredentials::new(key, 3, Duration::from_mins(1))
}

const HERE: (IpAddr, usize) = (IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 100);

#[tokio::test]
async fn an_accepted_secret_never_waits_behind_unknown_ones() {
    let tries = tries();
    let good = HeaderValue::from_static("Basic good");
    tries.admit("robot$ci", &good, HERE).await.expect("free").settle(true, true);
    let unknown = tries.admit("robot$ci", &HeaderValue::from_static("Basic bad"), HERE).await.expect("first");
    let known = tries.admit("robot$ci", &good, HERE);
    let admitted = tokio::time::timeout(Duration::from_millis(200), known).await;
    assert!(admitted.is_ok(), "waited behind an unknown secret");
    drop(unknown);
}

#[tokio::test]
async fn a7_a_secret_that_harbor_accepted_before_a_restart_never_waits_behind_unknown_ones_either() {
    let tries = tries();
    let (good, bad) = (HeaderValue::from_static("Basic good"), HeaderValue::from_static("Basic bad"));
    let _unknown = tries.admit("robot$ci", &bad, HERE).await.expect("first");
    let known = tries.admit_vouched("robot$ci", &good, HERE, || true);
    let admitted = timeout(Duration::from_millis(200), known).await.expect("it waits for nobody");
    assert!(admitted.is_ok_and(|admission| admission.was_accepted()));
    let again = tries.admit_vouched("robot$ci", &good, HERE, || panic!("it is known now"));
    assert!(timeout(Duration::from_millis(200), again).await.is_ok_and(|admitted| admitted.is_ok()));
}

#[tokio::test]
async fn unknown_secrets_of_a_name_queue_shortly_and_addresses_are_limited() {
    let tries = tries();
    let held = tries.admit("bob", &HeaderValue::from_static("Basic 0"), HERE).await.expect("first");
    let name = tries.name("bob");
    let places: Vec<_> = (0..=QUEUE as u8).map(|n| name.queue([n; 32])).collect();
    assert_eq!(places.iter().filter(|p| p.is_none()).count(), 1);
    drop(places);
    drop(held);
    for n in 0..3 {
        let value = HeaderValue::from_str(&format!("Basic {n}")).expect("a header");
        tries.admit("bob", &value, HERE).await.expect("within the limit").settle(false, false);
    }
    let over = tries.admit("bob", &HeaderValue::from_static("Basic 9"), HERE).await;
    assert_eq!(over.err(), Some(Reason::WrongCredentials));
    let elsewhere =
        tries.admit("bob", &HeaderValue::from_static("Basic 9"), (IpAddr::from([10, 0, 0, 1]), 100)).await;
    assert!(elsewhere.is_ok());
}

#[tokio::test]
async fn a_try_refused_while_a_wrong_one_is_at_core_waits_for_its_end_and_goes_before_the_next() {
    let tries = tries();
    let value = HeaderValue::from_static;
    let guess = tries.admit("bob", &value("Basic x"), HERE).await.expect("free");
    let known = value("Basic y");
    tries.accepted.insert(tries.keyed(known.as_bytes()), ());
    let right = tries.admit("bob", &known, HERE).await.expect("free");
    let (second, bad) = (value("Basic z"), Duration::from_millis(50));
    let outlast = async {
        assert!(right.outlast_lock().await);
        assert!(timeout(bad, tries.admit("bob", &second, HERE)).await.is_err(), "the right one goes first");
    };
    let land = async {
        guess.settle(false, false);
        drop(guess);
    };
    tokio::join!(outlast, land);
    drop(right);
    assert!(timeout(bad, tries.admit("bob", &second, HERE)).await.is_ok(), "then the next guess");
}

#[tokio::test]
async fn a7_a_new_secret_waits_no_longer_than_one_lock_however_many_outlast_theirs() {
    let tries = tries();
    let name = tries.name("bob");
    name.outlasting.fetch_add(1, SeqCst);
    let value = HeaderValue::from_static("Basic new");
    let never_ending = async {
        loop {
            sleep(LOCK / 4).await;
            name.outlasted.notify_waiters();
        }
    };
    let new = timeout(2 * LOCK, tries.admit("bob", &value, HERE));
    let admitted = tokio::select! { admitted = new => admitted, () = never_ending => unreachable!() };
    assert!(admitted.is_ok(), "it waits for ever");
}

#[tokio::test]
async fn a_refusal_under_anothers_lock_is_evidence_of_nothing() {
    let tries = tries();
    let wrong = tries.admit("bob", &HeaderValue::from_static("Basic x"), HERE).await.expect("free");
    wrong.settle(false, false);
    assert_eq!(wrong.lock_of_another(), None, "its own wrong try");
    drop(wrong);
    let right = tries.admit("bob", &HeaderValue::from_static("Basic y"), HERE).await.expect("free");
    assert!(right.lock_of_another().is_some_and(|wait| wait <= LOCK));
}

#[tokio::test]
async fn names_are_remembered_by_their_hash_and_not_at_all_from_an_address_over_its_limit() {
    let tries = tries();
    let value = HeaderValue::from_static("Basic x");
    for _ in 0..3 {
        tries.admit("bob", &value, HERE).await.expect("within the limit").settle(false, false);
    }
    for n in 0..100 {
        let name = format!("{n}{}", "n".repeat(22_000));
        assert!(tries.admit(&name, &value, HERE).await.is_err());
    }
    tries.names.run_pending_tasks();
    assert_eq!(tries.names.entry_count(), 1, "bob's alone");
    assert!(tries.names.iter().all(|(key, _)| key.len() == 32), "no name is kept");
}

#[tokio::test]
async fn a7_an_accepted_secret_that_is_refused_stays_known_and_counts_against_nobody() {
    let tries = tries();
    let (good, bad) = (HeaderValue::from_static("Basic good"), HeaderValue::from_static("Basic bad"));
    tries.admit("bob", &good, HERE).await.expect("free").settle(true, true);
    for _ in 0..10 {
        let admitted = tries.admit("bob", &good, HERE).await.expect("known");
        assert!(admitted.was_accepted());
        admitted.settle(false, false);
    }
    assert!(tries.admit("bob", &bad, HERE).await.is_ok(), "nothing was counted");
}

#[tokio::test]
async fn a7_an_accepted_secret_waits_once_for_a_lock_that_nobody_has_seen() {
    let tries = tries();
    let (good, bad) = (HeaderValue::from_static("Basic good"), HeaderValue::from_static("Basic bad"));
    tries.admit("bob", &good, HERE).await.expect("free").settle(true, true);
    let right = tries.admit("bob", &good, HERE).await.expect("known");
    assert!(timeout(Duration::from_millis(50), right.outlast_lock()).await.is_err(), "it waits");
    assert!(!right.outlast_lock().await, "once");
    drop(right);
    let unknown = tries.admit("bob", &bad, HERE).await.expect("free");
    assert!(!unknown.outlast_lock().await, "what was never accepted does not");
}

#[tokio::test]
async fn a7_secrets_that_nobody_could_judge_are_limited_where_they_are_many() {
    let tries = tries();
    let (good, elsewhere) = (HeaderValue::from_static("Basic good"), IpAddr::from([10, 0, 0, 1]));
    tries.admit("bob", &good, HERE).await.expect("free").settle(true, true);
    for n in 0..3 * UNTOLD {
        let value = HeaderValue::from_str(&format!("Basic {n}")).expect("a header");
        tries.admit("bob", &value, HERE).await.expect("within the limit").untold();
        tries.admit("bob", &good, HERE).await.expect("known").untold();
    }
    let next = HeaderValue::from_static("Basic next");
    assert_eq!(tries.admit("bob", &next, HERE).await.err(), Some(Reason::WrongCredentials));
    assert!(tries.admit("bob", &good, HERE).await.is_ok(), "a known secret goes freely");
    assert!(tries.admit("bob", &next, (elsewhere, 100)).await.is_ok(), "and so does another address");
}

#[tokio::test]
async fn tries_of_one_secret_and_of_one_address_are_bounded() {
    let tries = tries();
    let name = tries.name("bob");
    let places: Vec<_> = (0..=TRIES).map(|_| name.queue([1; 32])).collect();
    assert_eq!(places.iter().filter(|place| place.is_none()).count(), 1, "of one secret");
    let long = (HERE.0, (PENDING - 2) * 1_024);
    let value = HeaderValue::from_static;
    let first = tries.admit("a", &value("Basic a"), long).await.expect("room");
    let second = tries.admit("b", &value("Basic b"), HERE).await.expect("the last of it");
    assert!(tries.admit("c", &value("Basic c"), HERE).await.is_err(), "of one address, over all names");
    second.settle(true, true);
    assert!(
        tries.admit("b", &value("Basic b"), HERE).await.is_ok(),
        "a known secret is not counted with them"
    );
    let known = tries.admit("b", &value("Basic b"), (HERE.0, (PENDING - 2) * 1_024)).await.expect("room");
    assert_eq!(tries.admit("b", &value("Basic b"), long).await.err(), Some(Reason::Busy), "but by itself");
    let nobody = tries.admit_anonymous(long).expect("room");
    assert_eq!(tries.admit_anonymous(long).err(), Some(Reason::Busy), "nor without bounds where it has none");
    drop((known, nobody));
    drop((first, second));
    assert!(tries.questions.are_none(), "nobody is remembered who has none");
    assert!(tries.admit("c", &value("Basic c"), HERE).await.is_ok());
}

#[tokio::test]
async fn a_network_of_ipv6_has_one_limit() {
    let tries = tries();
    let at = |text: &str| (text.parse().expect("an address"), 100);
    let value = HeaderValue::from_static("Basic x");
    for host in 1..=3 {
        let from = at(&format!("2001:db8::{host}"));
        tries.admit("bob", &value, from).await.expect("within the limit").settle(false, false);
    }
    assert!(tries.admit("bob", &value, at("2001:db8::9:4")).await.is_err());
    assert!(tries.admit("bob", &value, at("2001:db8:0:1::4")).await.is_ok(), "another network");
}

#[tokio::test]
async fn a_wrong_basic_past_the_token_service_counts_and_explains_a_refusal() {
    use Asked::{Api, Base, Current, Registry};
    let bob = HeaderValue::from_static("Basic Ym9iOng=");
    let up = HeaderMap::from_iter([(header::AUTHORIZATION, bob.clone())]);
    let answer = |status: u16, challenge: &'static str| {
        let built = Response::builder().status(status).header(header::WWW_AUTHENTICATE, challenge);
        built.body(()).expect("an answer")
    };
    let right = HeaderValue::from_static("Basic right");
    let (quick, slept) = (Duration::from_millis(30), Duration::from_millis(1_530));
    let table = [
        (answer(401, "Basic realm=\"harbor\""), Base, quick, true),
        (answer(401, ""), Base, slept, false),
        (answer(200, ""), Base, quick, false),
        (answer(401, "Basic realm=\"harbor\""), Registry, quick, false),
        (answer(401, "Basic realm=\"harbor\""), Registry, slept, true),
        (answer(401, ""), Registry, slept, false),
        (answer(401, ""), Api, quick, true),
        (answer(403, ""), Api, slept, false),
        (answer(401, ""), Current, quick, false),
        (answer(401, ""), Current, slept, true),
    ];
    for (answer, asked, took, wrong) in table {
        let tries = tries();
        tries.note((&answer, took), (&Method::GET, &up), asked, HERE.0);
        let right = tries.admit("bob", &right, HERE).await.expect("free");
        assert_eq!(right.lock_of_another().is_some(), wrong, "{answer:?} {asked:?}");
        drop(right);
        (0..2).for_each(|_| tries.note((&answer, took), (&Method::GET, &up), asked, HERE.0));
        assert_eq!(tries.admit("bob", &bob, HERE).await.is_err(), wrong, "three wrong ones");
    }
    let tries = tries();
    tries.admit("bob", &bob, HERE).await.expect("free").settle(true, true);
    (0..9).for_each(|_| tries.note((&answer(401, "Basic"), slept), (&Method::GET, &up), Base, HERE.0));
    assert!(tries.admit("bob", &right, HERE).await.is_ok(), "a known secret counts against nobody (A7)");
}

#[tokio::test]
async fn a7_past_the_token_service_names_and_addresses_with_many_refusals_are_limited() {
    let tries = tries();
    let of = |secret: &str| {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        HeaderValue::try_from(format!("Basic {}", STANDARD.encode(format!("bob:{secret}")))).expect("a value")
    };
    let up = |secret: &str| HeaderMap::from_iter([(header::AUTHORIZATION, of(secret))]);
    let answer = |status: u16| {
        let built =
            Response::builder().status(status).header(header::WWW_AUTHENTICATE, "Basic realm=\"harbor\"");
        built.body(()).expect("an answer")
    };
    let note = |secret: &str, status: u16, address: u8| {
        let answered = (&answer(status), Duration::from_millis(1_530));
        tries.note(answered, (&Method::GET, &up(secret)), Asked::Base, IpAddr::from([10, 0, 0, address]));
    };
    let pass = |secret: &str, address: u8| tries.pass(&of(secret), IpAddr::from([10, 0, 0, address])).is_ok();
    assert!((0..100).all(|_| pass("right", 9)), "many of one address");
    note("proven", 200, 9);
    for guess in 0..3 {
        assert!(pass(&guess.to_string(), guess), "within the limits");
        note(&guess.to_string(), 401, guess);
    }
    assert!(pass("another", 9) && !pass("yet another", 8), "one in the time of a lock");
    assert!((0..100).all(|_| pass("proven", 8)), "what was accepted before goes freely");
    (0..3).for_each(|_| note("a guess", 401, 7));
    assert!(!pass("for another name", 7) && pass("proven", 7), "an address over its limit");
}
