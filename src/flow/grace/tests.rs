use super::*;

const BASIC: HeaderValue = HeaderValue::from_static("Basic ZGV2OnNlY3JldA==");
const NOW: UnixTime = UnixTime(1_000_000);
const WINDOW: Duration = Duration::from_hours(12);

fn graces() -> Graces {
    let graces = Graces::new(ProcessId(1), 100);
    graces.open(hmac::Key::new(hmac::HMAC_SHA256, b"a test's own"), None);
    graces
}

fn accept(graces: &Graces, place: u8, window: Duration) {
    grant(graces, place, &[], window);
}

fn grant(graces: &Graces, place: u8, names: &[&str], window: Duration) {
    let access = |name: &&str| Access {
        kind: "repository".into(),
        name: (*name).into(),
        actions: vec!["pull".into()],
    };
    let access: Vec<_> = names.iter().map(access).collect();
    graces.accepted([place; 32], &BASIC, ("a.b.c", "dev", &access), (NOW, window), graces.seen());
}

fn suspended(graces: &Graces, place: u8) -> Option<bool> {
    graces.find(&[place; 32]).map(|granted| granted.record().suspended)
}

#[test]
fn a15_a_refusal_suspends_every_scope_until_harbor_accepts_that_one_again() {
    let graces = graces();
    accept(&graces, 1, WINDOW);
    accept(&graces, 2, WINDOW);
    graces.suspend(&HeaderValue::from_static("Basic other"), NOW);
    assert_eq!([1, 2].map(|place| suspended(&graces, place)), [Some(false); 2], "another's refusal");
    graces.suspend(&BASIC, NOW);
    assert_eq!([1, 2].map(|place| suspended(&graces, place)), [None; 2]);
    assert_eq!(graces.known(&BASIC).map(|record| record.suspended), Some(true));
    accept(&graces, 2, WINDOW);
    assert_eq!([1, 2].map(|place| suspended(&graces, place)), [None, Some(false)]);
    let record = grace::Record { accepted: NOW, suspended: false };
    assert_eq!(graces.known(&BASIC), Some(record), "whatever it asked for");
    assert_eq!(graces.known(&HeaderValue::from_static("Basic other")), None);
}

#[test]
fn a_write_to_a_project_ends_what_was_granted_there_and_log_ins_of_its_robots() {
    let graces = graces();
    let grants: [&[&str]; 4] = [&["mine/a", "other/b"], &["other/b"], &[], &["mine/a"]];
    let all = || [0, 1, 2, 3].map(|place| graces.find(&[place; 32]).is_some());
    for (place, names) in grants.iter().enumerate().take(3) {
        grant(&graces, place as u8, names, WINDOW);
    }
    let robots = ["robot$mine+ci", "bot-mine+ci", "robot$other+ci", "robot$ci"];
    for (place, name) in (10..).zip(robots) {
        graces.accepted([place; 32], &BASIC, ("a.b.c", name, &[]), (NOW, WINDOW), graces.seen());
    }
    let given = graces.find(&[0; 32]).expect("a record");
    graces.gave([7; 32], given);
    graces.forget_project("mine", NOW);
    grant(&graces, 3, grants[3], WINDOW);
    assert_eq!(all(), [false, true, true, true]);
    assert!(graces.given(&[7; 32]).is_some_and(|granted| granted.is_over()), "tokens in somebody's hands");
    let kept = [10, 11, 12, 13].map(|place| graces.find(&[place; 32]).is_some());
    assert_eq!(kept, [false, false, true, true]);
    let asked_before = graces.seen();
    graces.forget_project("other", NOW);
    let access = graces.find(&[3; 32]).expect("a record").access.clone();
    let others = Access { name: "other/b".into(), ..access[0].clone() };
    graces.accepted([1; 32], &BASIC, ("a.b.c", "dev", &[others]), (NOW, WINDOW), asked_before);
    assert_eq!(all(), [false, false, true, true], "an answer that was asked for before the write");
}

/// Clocks of replicas differ: what another one accepted by a clock that is ahead looks younger than the order.
#[test]
fn a20_what_a_user_was_granted_ends_with_its_revocation_whatever_clock_it_was_granted_by() {
    let graces = graces();
    let ahead = UnixTime(NOW.0 + 3_600);
    graces.accepted([1; 32], &BASIC, ("a.b.c", "dev", &[]), (ahead, WINDOW), graces.seen());
    graces.gave([7; 32], graces.find(&[1; 32]).expect("a record"));
    graces.forget_subject("ci", NOW);
    assert_eq!(suspended(&graces, 1), Some(false), "another user's");
    let asked_before = graces.seen();
    graces.forget_subject("dev", NOW);
    assert_eq!(suspended(&graces, 1), None);
    assert!(graces.known(&BASIC).is_some_and(|record| record.suspended));
    assert!(graces.given(&[7; 32]).is_some_and(|granted| granted.is_over()), "tokens in somebody's hands");
    graces.accepted([1; 32], &BASIC, ("a.b.c", "dev", &[]), (ahead, WINDOW), asked_before);
    assert_eq!(suspended(&graces, 1), None, "an answer that was asked for before the order");
    accept(&graces, 1, WINDOW);
    assert_eq!(suspended(&graces, 1), Some(false), "accepted since");
    assert!(graces.known(&BASIC).is_some_and(|record| !record.suspended));
}

#[test]
fn a_write_ends_them_and_nothing_is_kept_where_grace_is_off() {
    let graces = graces();
    accept(&graces, 1, WINDOW);
    let held = graces.find(&[1; 32]).expect("a record");
    graces.gave([7; 32], held);
    graces.forget_all(NOW);
    assert!(graces.find(&[1; 32]).is_none());
    assert!(graces.given(&[7; 32]).is_some_and(|granted| granted.is_over()));
    accept(&graces, 3, Duration::ZERO);
    assert!(graces.find(&[3; 32]).is_none());
}

#[test]
fn a15_what_was_granted_to_a_credential_that_was_forgotten_since_is_over() {
    let graces = graces();
    accept(&graces, 1, WINDOW);
    graces.credentials.invalidate_all();
    assert_eq!(suspended(&graces, 1), None, "nobody can tell whether it was refused");
    graces.suspend(&BASIC, NOW);
    accept(&graces, 2, WINDOW);
    assert_eq!([1, 2].map(|place| suspended(&graces, place)), [None, Some(false)], "known anew");
}

#[test]
fn a15_a_credential_without_room_is_over_for_good() {
    let graces = Graces::new(ProcessId(1), 4);
    graces.open(hmac::Key::new(hmac::HMAC_SHA256, b"a test's own"), None);
    let before = graces.seen();
    for n in 0..100 {
        let credential = HeaderValue::from_str(&format!("Basic {n}")).expect("a header");
        let granted = ("a.b.c", "dev", &[][..]);
        graces.accepted([n; 32], &credential, granted, (NOW, WINDOW), before.clone());
    }
    graces.credentials.run_pending_tasks();
    assert!(graces.credentials.entry_count() <= 4);
    let known = graces.seen().iter().map(|(_, number)| number).sum::<u64>();
    assert!(known >= 96, "each that went was ended: {known}");
}

#[test]
fn a20_until_it_is_open_there_is_no_grace() {
    let graces = Graces::new(ProcessId(1), 100);
    accept(&graces, 1, WINDOW);
    graces.suspend(&BASIC, NOW);
    graces.forget_all(NOW);
    assert!(graces.find(&[1; 32]).is_none() && graces.known(&BASIC).is_none());
    assert!(graces.place(|_| [0; 32]).is_none());
}

mod with_a_store {
    use super::*;
    use crate::{
        decisions::{
            record::seal::{KEY, SealKey, SealRing},
            token::forge,
        },
        edges::store::Memory,
        words::clock::Clock,
    };

    fn store(backend: &Arc<Memory>) -> Arc<Store> {
        let seals = SealRing::new("d", SealKey::new(&[1; KEY]).expect("a key"), vec![]);
        Arc::new(Store::new(backend.clone(), seals, Clock::shifted(0)))
    }

    fn process(id: u64, store: &Arc<Store>) -> Graces {
        let graces = Graces::new(ProcessId(id), 100);
        graces.open(hmac::Key::new(hmac::HMAC_SHA256, b"theirs together"), Some(store.clone()));
        graces
    }

    fn token() -> String {
        forge::Draft::of(0).set("sub", r#""dev""#).set("access", "null").with_signature(|_| vec![0; 3])
    }

    fn accept_at(graces: &Graces, place: u8, now: UnixTime) {
        graces.accepted([place; 32], &BASIC, (&token(), "dev", &[]), (now, WINDOW), graces.seen());
    }

    /// Reads what the store holds.
    async fn read(graces: &Graces, store: &Store, now: UnixTime) {
        let learn = |loaded: crate::edges::store::Loaded| {
            graces.learn(record::end::read(&loaded.plain).expect("an end"));
        };
        store.news(Kind::End, learn).await.expect("a store");
        let recall = |loaded: crate::edges::store::Loaded| {
            graces.recall(&loaded.key, Grant::read(&loaded.plain).expect("a grant"), (now, WINDOW));
        };
        store.news(Kind::Grant, recall).await.expect("a store");
    }

    /// Has what is queued written.
    async fn written(store: &Arc<Store>) {
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let ends = async {
            assert!(store.written_within(Duration::from_secs(30)).await);
            stop.send_replace(true);
        };
        tokio::join!(ends, store.clone().run(stopped));
    }

    fn waiting(store: &Store) -> usize {
        store.health().waiting
    }

    #[tokio::test]
    async fn a15_what_was_granted_outlives_the_process_and_what_ended_it_as_well() {
        let now = Clock::system().now();
        let backend = Arc::<Memory>::default();
        let (first, of_first) = (store(&backend), store(&backend));
        let graces = process(1, &first);
        for place in [1, 2] {
            accept_at(&graces, place, now);
        }
        written(&first).await;
        let next = process(2, &of_first);
        read(&next, &of_first, now).await;
        assert_eq!([1, 2, 3].map(|place| suspended(&next, place)), [Some(false), Some(false), None]);
        let record = grace::Record { accepted: now, suspended: false };
        assert_eq!(
            (next.known(&BASIC), next.find(&[1; 32]).map(|g| g.record())),
            (Some(record), Some(record))
        );
        // Refused by the one, accepted by the other, which had not heard of it.
        graces.suspend(&BASIC, now);
        accept_at(&next, 1, now);
        written(&first).await;
        read(&next, &of_first, now).await;
        assert_eq!([1, 2].map(|place| suspended(&next, place)), [None; 2], "the refusal counts");
        assert_eq!(next.known(&BASIC).map(|record| record.suspended), Some(true));
        accept_at(&next, 2, now);
        written(&of_first).await;
        let third = store(&backend);
        let later = process(3, &third);
        read(&later, &third, now).await;
        assert_eq!(
            [1, 2].map(|place| suspended(&later, place)),
            [None, Some(false)],
            "and the acceptance since"
        );
        graces.forget_all(now);
        written(&first).await;
        read(&later, &third, now).await;
        assert_eq!(suspended(&later, 2), None);
    }

    #[tokio::test]
    async fn a_grant_is_written_seldom_and_at_once_where_the_store_holds_none_that_is_good() {
        let now = Clock::system().now();
        let backend = Arc::<Memory>::default();
        let store = store(&backend);
        let graces = process(1, &store);
        accept_at(&graces, 1, now);
        assert_eq!(waiting(&store), 1);
        written(&store).await;
        accept_at(&graces, 1, now.plus(WINDOW / 12).minus(Duration::from_secs(1)));
        assert_eq!(waiting(&store), 0, "it would bring back hardly less");
        accept_at(&graces, 1, now.plus(WINDOW / 12));
        assert_eq!(waiting(&store), 1);
        written(&store).await;
        graces.suspend(&BASIC, now);
        assert_eq!(waiting(&store), 1, "a refusal is written at once");
        written(&store).await;
        accept_at(&graces, 1, now.plus(WINDOW / 12));
        assert_eq!(waiting(&store), 1, "what is kept has ended");
        written(&store).await;
        let nothing = [Access { kind: "repository".into(), name: "p/r".into(), actions: vec![] }];
        graces.accepted([2; 32], &BASIC, ("a.b.c", "dev", &nothing), (now, WINDOW), graces.seen());
        assert_eq!(waiting(&store), 0, "it grants nothing");
    }

    #[tokio::test]
    async fn the_store_keeps_no_more_grants_than_memory_has_room_for() {
        let now = Clock::system().now();
        let backend = Arc::<Memory>::default();
        let store = store(&backend);
        let graces = process(1, &store);
        (0..250).for_each(|place| accept_at(&graces, place, now));
        graces.records.run_pending_tasks();
        written(&store).await;
        let kept = store.load(Kind::Grant).await.expect("a store").len();
        assert_eq!(kept, usize::try_from(graces.records.entry_count()).expect("few"));
        assert!(kept <= 100, "{kept}");
    }
}

#[test]
fn a_proof_is_read_as_it_was_written_and_none_speaks_of_very_many() {
    let seen = |n: usize| (0..n).map(|n| (ProcessId(u64::MAX - n as u64), 7)).collect();
    let proof = |n| Proof { secret: [9; 32], seen: seen(n) };
    for n in [0, 1, PROCESSES] {
        let written = proof(n).write().expect("a proof");
        assert_eq!(written.len(), 32 + 16 * n);
        let read = Proof::read(&written).expect("a proof");
        assert_eq!((read.secret, read.seen), ([9; 32], seen(n)));
        for cut in [31, written.len() - 1] {
            assert!(n == 0 || Proof::read(&written[..cut]).is_none());
        }
    }
    assert!(proof(PROCESSES + 1).write().is_none());
}
