use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use futures_util::FutureExt as _;

use super::{queue::WAITING, *};
use crate::{
    decisions::record::seal::{KEY, SealKey},
    edges::store::{Cursor, Kept, Memory, Page, Write, Written},
};

/// A store in memory that can be told to fail or to hang.
#[derive(Debug, Default)]
struct Moody {
    memory: Memory,
    fails: AtomicBool,
    hangs: AtomicBool,
    /// It takes no records of keys, and gives none.
    has_no_keys: AtomicBool,
    /// It takes nothing in this place.
    refuses: Mutex<Option<Place>>,
    /// A reading of it doesn't end.
    is_endless: AtomicBool,
    /// Writes, each time that one came.
    writes: AtomicU64,
    /// The place of the first of them.
    first: Mutex<Option<Place>>,
}

impl Moody {
    fn mood<'a, T: Send + 'a>(&'a self, doing: Doing<'a, T>) -> Doing<'a, T> {
        if self.hangs.load(Ordering::SeqCst) {
            return Box::pin(std::future::pending());
        }
        if self.fails.load(Ordering::SeqCst) {
            return Box::pin(async { Err(StoreFault::Unavailable("no space left".to_owned())) });
        }
        doing
    }

    fn of_kind<'a, T: Send + 'a>(&'a self, kind: Kind, doing: Doing<'a, T>) -> Doing<'a, T> {
        if kind == Kind::Key && self.has_no_keys.load(Ordering::SeqCst) {
            return Box::pin(async { Err(StoreFault::Unavailable("its node is lost".to_owned())) });
        }
        self.mood(doing)
    }

    fn refuses(&self, place: &Place) -> bool {
        self.refuses.lock().expect("whole").as_ref() == Some(place)
    }
}

impl Backend for Moody {
    fn get<'a>(&'a self, place: &'a Place) -> Doing<'a, Option<Kept>> {
        self.mood(self.memory.get(place))
    }

    fn put(&self, writes: Vec<Write>) -> Doing<'_, Vec<Written>> {
        let place = writes.first().map(|write| write.place.clone());
        let mut first = self.first.lock().expect("whole");
        *first = first.take().or(place);
        drop(first);
        self.writes.fetch_add(writes.len() as u64, Ordering::SeqCst);
        let kind = writes.first().map_or(Kind::Session, |write| write.place.kind);
        self.of_kind(
            kind,
            Box::pin(async move {
                let mut all = Vec::new();
                for write in writes {
                    if self.refuses(&write.place) {
                        all.push(Written::Refused("no right".to_owned()));
                    } else {
                        all.extend(self.memory.put(vec![write]).await?);
                    }
                }
                Ok(all)
            }),
        )
    }

    fn page<'a>(&'a self, kind: Kind, from: Option<&'a Cursor>, about: usize) -> Doing<'a, Page> {
        if self.is_endless.load(Ordering::SeqCst) {
            return Box::pin(async {
                time::sleep(Duration::from_millis(100)).await;
                Ok(Page { next: Some(Cursor("1".to_owned())), ..Page::default() })
            });
        }
        self.of_kind(kind, self.memory.page(kind, from, about))
    }

    fn revision(&self, kind: Kind) -> Doing<'_, u64> {
        self.of_kind(kind, Box::pin(async { Ok(self.writes.load(Ordering::SeqCst)) }))
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn name(&self) -> &'static str {
        "moody"
    }
}

fn key(n: u8) -> SealKey {
    SealKey::new(&[n; KEY]).expect("a key")
}

fn store(backend: &Arc<Moody>) -> Arc<Store> {
    sealed_by(backend, SealRing::new("d", key(1), vec![]))
}

fn sealed_by(backend: &Arc<Moody>, seals: SealRing) -> Arc<Store> {
    Arc::new(Store::new(backend.clone(), seals, Clock::system()))
}

fn place(key: &str) -> Place {
    Place::new(Kind::Grant, key)
}

async fn loaded(store: &Store) -> Vec<(String, Vec<u8>)> {
    let records = store.load(Kind::Grant).await.expect("a store");
    records.into_iter().map(|record| (record.key, record.plain.to_vec())).collect()
}

/// Runs a store's task beside a test.
async fn beside<T>(store: &Arc<Store>, test: impl Future<Output = T>) -> T {
    let (stop, stopped) = watch::channel(false);
    let run = store.clone().run(stopped);
    let (done, ()) = tokio::join!(
        async {
            let done = test.await;
            stop.send_replace(true);
            done
        },
        run
    );
    done
}

const LONG: Duration = Duration::from_secs(30);

#[tokio::test]
async fn what_is_kept_is_read_by_the_next_process() {
    let backend = Arc::new(Moody::default());
    let first = store(&backend);
    beside(&first, async {
        first.keep(place("a"), b"one".to_vec(), None);
        first.keep(place("a"), b"two".to_vec(), None);
        first.keep(place("b"), b"three".to_vec(), None);
        first.keep(place("c"), b"over".to_vec(), Some(UnixTime(1)));
        assert!(first.written_within(LONG).await);
        first.forget(place("b"));
        assert!(first.written_within(LONG).await);
    })
    .await;
    assert_eq!(loaded(&store(&backend)).await, [("a".to_owned(), b"two".to_vec())]);
}

#[tokio::test]
async fn while_a_store_is_down_changes_wait_and_are_written_when_it_is_back() {
    for (fault, cause) in [("fails", "no space left"), ("hangs", "it gave no answer within 2 s")] {
        let backend = Arc::new(Moody::default());
        let mood = if fault == "fails" { &backend.fails } else { &backend.hangs };
        let one = store(&backend);
        beside(&one, async {
            mood.store(true, Ordering::SeqCst);
            let mut changes = one.changes();
            changes.mark_unchanged();
            for n in 0..1_000 {
                one.keep(place(&n.to_string()), vec![n as u8], None);
            }
            while one.health().degraded.is_none() {
                assert!(!one.written_within(Duration::from_millis(100)).await, "{fault}");
            }
            let health = one.health();
            assert_eq!(health.degraded.as_ref().map(|(_, why)| why.as_str()), Some(cause));
            assert_eq!((health.waiting, health.dropped), (1_000, 0));
            mood.store(false, Ordering::SeqCst);
            assert!(one.written_within(LONG).await, "{fault}");
            assert!(changes.has_changed().unwrap_or_default(), "whoever reads is told");
            // That it can be read again is seen at the next beat.
            let well = time::timeout(LONG, async {
                while one.health() != Health::default() {
                    time::sleep(Duration::from_millis(10)).await;
                }
            });
            assert!(well.await.is_ok(), "{fault}: {:?}", one.health());
        })
        .await;
        assert_eq!(loaded(&store(&backend)).await.len(), 1_000, "{fault}");
    }
}

#[tokio::test]
async fn a_queue_without_room_drops_and_counts() {
    let backend = Arc::new(Moody::default());
    let one = store(&backend);
    let session = |n: usize| Place::new(Kind::Session, n.to_string());
    for n in 0..WAITING + 3 {
        assert_eq!(one.keep(session(n), vec![], None), n < WAITING);
    }
    assert!(one.keep(session(0), b"again".to_vec(), None));
    assert_eq!((one.health().waiting, one.health().dropped), (WAITING, 3));
}

#[tokio::test]
async fn grants_that_wait_leave_room_for_what_ends_them_and_let_it_go_first() {
    let backend = Arc::new(Moody::default());
    let one = store(&backend);
    for n in 0..WAITING / 2 + 3 {
        assert_eq!(one.keep(place(&n.to_string()), vec![], None), n < WAITING / 2);
    }
    assert_eq!(one.health().dropped, 0, "each comes again");
    let end = Place::new(Kind::End, "x");
    assert!(one.keep(end.clone(), vec![], None));
    beside(&one, async {
        while backend.memory.get(&end).await == Ok(None) {
            time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    let first = backend.first.lock().expect("whole").clone();
    assert_eq!(first, Some(end));
}

#[tokio::test]
async fn the_first_who_comes_says_what_all_have() {
    let backend = Arc::new(Moody::default());
    let (one, other) = (store(&backend), store(&backend));
    let secret = Place::new(Kind::Secret, "s");
    let (a, b) = tokio::join!(one.first(&secret, b"one"), other.first(&secret, b"other"));
    let had = [a, b].map(|first| first.expect("a store").expect("it opens").to_vec());
    assert_eq!(had, [b"one", b"one"]);
    let stranger = sealed_by(&backend, SealRing::new("d", key(2), vec![]));
    assert_eq!(stranger.first(&secret, b"x").await, Ok(None), "it is left in place");
    backend.fails.store(true, Ordering::SeqCst);
    assert!(store(&backend).first(&secret, b"x").await.is_err());
}

#[tokio::test]
async fn news_are_what_others_wrote_since() {
    let backend = Arc::new(Moody::default());
    let (one, other) = (store(&backend), store(&backend));
    let news = async |store: &Store| {
        let mut found = Vec::new();
        store.news(Kind::Grant, |loaded| found.push(loaded.key)).await.expect("a store");
        found.sort();
        found
    };
    beside(&one, async {
        one.keep(place("a"), b"x".to_vec(), None);
        one.keep(place("b"), b"x".to_vec(), None);
        assert!(one.written_within(LONG).await);
    })
    .await;
    assert_eq!(news(&one).await, [""; 0], "our own");
    assert_eq!(news(&other).await, ["a", "b"]);
    assert_eq!(news(&other).await, [""; 0]);
    beside(&one, async {
        one.keep(place("b"), b"y".to_vec(), None);
        one.keep(place("c"), b"z".to_vec(), Some(UnixTime(1)));
        assert!(one.written_within(LONG).await);
    })
    .await;
    assert_eq!(news(&other).await, ["b"], "and not what is over");
    beside(&other, async { assert!(other.written_within(LONG).await) }).await;
    assert_eq!(backend.get(&place("c")).await, Ok(None), "that is removed");
    beside(&one, async {
        one.forget(place("a"));
        assert!(one.written_within(LONG).await);
    })
    .await;
    assert_eq!(news(&other).await, [""; 0]);
    let remembered = other.state().generations.keys().map(|place| place.key.clone()).collect::<Vec<_>>();
    assert_eq!(remembered, ["b"], "what others removed is forgotten");
}

#[tokio::test]
async fn two_writers_of_one_place_both_get_their_turn() {
    let backend = Arc::new(Moody::default());
    let (one, other) = (store(&backend), store(&backend));
    for (count, writer) in [&one, &other, &one, &other].into_iter().enumerate() {
        beside(writer, async {
            writer.keep(place("a"), vec![count as u8], None);
            assert!(writer.written_within(LONG).await);
        })
        .await;
        assert_eq!(loaded(&store(&backend)).await, [("a".to_owned(), vec![count as u8])]);
    }
}

#[tokio::test]
async fn a21_a_record_that_was_put_back_adds_nothing_and_is_put_right() {
    let backend = Arc::new(Moody::default());
    let one = store(&backend);
    beside(&one, async {
        one.keep(place("a"), b"former".to_vec(), None);
        assert!(one.written_within(LONG).await);
        let former = backend.get(&place("a")).await.expect("a store").expect("a record");
        one.keep(place("a"), b"present".to_vec(), None);
        assert!(one.written_within(LONG).await);
        let present = backend.get(&place("a")).await.expect("a store").expect("a record");
        let back = Write { place: place("a"), over: Some(present.generation), kept: Some(former) };
        assert_eq!(backend.put(vec![back]).await, Ok(vec![Written::Done]));
        assert_eq!(loaded(&one).await, []);
        let told = one.health().unopened;
        assert!(told.iter().any(|(place, why)| place == "grant/a" && why.contains("put back")), "{told:?}");
        one.keep(place("a"), b"present".to_vec(), None);
        assert!(one.written_within(LONG).await);
        assert_eq!(loaded(&one).await, [("a".to_owned(), b"present".to_vec())]);
        assert_eq!(one.health().unopened, []);
    })
    .await;
}

#[tokio::test]
async fn a21_a_record_under_an_unknown_key_is_named_and_left_in_place() {
    let backend = Arc::new(Moody::default());
    let one = store(&backend);
    kept_by(&one, &[("a", b"x"), ("b", b"x")]).await;
    let at = |key: &str| backend.memory.get(&place(key)).now_or_never().expect("at once").expect("a store");
    let before = at("a");
    let stranger = || sealed_by(&backend, SealRing::new("d", key(2), vec![]));
    let first = stranger();
    beside(&first, async {
        assert_eq!(loaded(&first).await, []);
        assert_eq!(first.health().unopened.len(), 2);
        assert!(first.written_within(LONG).await);
    })
    .await;
    // What belongs there is kept all the same, also by one who hasn't looked first.
    kept_by(&first, &[("a", b"y")]).await;
    kept_by(&stranger(), &[("b", b"y")]).await;
    let second = stranger();
    assert_eq!(loaded(&second).await, ["a", "b"].map(|key| (key.to_owned(), b"y".to_vec())));
    assert_eq!(second.health().unopened.len(), 2);
    kept_by(&second, &[("a", b"z")]).await;
    assert_eq!(loaded(&stranger()).await[0], ("a".to_owned(), b"z".to_vec()));
    beside(&second, async {
        second.forget(place("b"));
        assert!(second.written_within(LONG).await);
    })
    .await;
    assert_eq!(loaded(&stranger()).await.len(), 1);
    assert_eq!(at("a"), before);
    assert!(at("b").is_some());
}

#[tokio::test]
async fn what_was_kept_beside_a_record_comes_home_when_the_record_opens_or_is_gone() {
    let backend = Arc::new(Moody::default());
    let one = store(&backend);
    kept_by(&one, &[("a", b"x"), ("b", b"x")]).await;
    kept_by(&sealed_by(&backend, SealRing::new("d", key(2), vec![])), &[("a", b"y"), ("b", b"y")]).await;
    let present = backend.get(&place("b")).await.expect("a store").map(|kept| kept.generation);
    let removed = Write { place: place("b"), over: present, kept: None };
    assert_eq!(backend.put(vec![removed]).await, Ok(vec![Written::Done]));
    let names = async || {
        let page = backend.page(Kind::Grant, None, 10).await.expect("a page");
        page.records.into_iter().map(|(name, _)| name).collect::<Vec<_>>()
    };
    assert_eq!(names().await.len(), 3);
    let both = sealed_by(&backend, SealRing::new("d", key(2), vec![key(1)]));
    let all = ["a", "b"].map(|key| (key.to_owned(), b"y".to_vec()));
    beside(&both, async {
        assert_eq!(loaded(&both).await, all);
        assert!(both.written_within(LONG).await);
    })
    .await;
    assert_eq!((names().await, both.health()), (vec!["a".to_owned(), "b".to_owned()], Health::default()));
    assert_eq!(loaded(&sealed_by(&backend, SealRing::new("d", key(2), vec![]))).await, all);
}

/// Has them written.
async fn kept_by(store: &Arc<Store>, records: &[(&str, &[u8])]) {
    beside(store, async {
        for (key, text) in records {
            store.keep(place(key), text.to_vec(), None);
        }
        assert!(store.written_within(LONG).await, "{:?}", store.health());
    })
    .await;
}

#[tokio::test]
async fn what_a_former_key_sealed_is_sealed_again_by_the_first_one() {
    let backend = Arc::new(Moody::default());
    let one = store(&backend);
    beside(&one, async {
        one.keep(place("a"), b"x".to_vec(), None);
        assert!(one.written_within(LONG).await);
    })
    .await;
    let both = sealed_by(&backend, SealRing::new("d", key(2), vec![key(1)]));
    beside(&both, async {
        assert_eq!(loaded(&both).await, [("a".to_owned(), b"x".to_vec())]);
        assert!(both.written_within(LONG).await);
    })
    .await;
    let alone = sealed_by(&backend, SealRing::new("d", key(2), vec![]));
    assert_eq!(loaded(&alone).await, [("a".to_owned(), b"x".to_vec())]);
}

/// A clock that is ahead, ours or the one that wrote it, must not cost others what they need.
#[tokio::test]
async fn a_record_that_is_over_is_removed_a_day_later_and_only_as_it_was_judged() {
    let backend = Arc::new(Moody::default());
    let clock = Clock::shifted(0);
    let ends = |hours| Some(clock.now().plus(Duration::from_hours(hours)));
    let one = store(&backend);
    beside(&one, async {
        one.keep(place("a"), b"x".to_vec(), ends(1));
        one.keep(place("b"), b"x".to_vec(), ends(1));
        assert!(one.written_within(LONG).await);
    })
    .await;
    let ahead = Arc::new(Store::new(backend.clone(), SealRing::new("d", key(1), vec![]), clock.clone()));
    clock.shift_to(3_600 * 24);
    beside(&ahead, async {
        assert_eq!(loaded(&ahead).await, []);
        assert!(ahead.written_within(LONG).await);
    })
    .await;
    assert_eq!(loaded(&store(&backend)).await.len(), 2, "for whose clock is right");
    clock.shift_to(3_600 * 26);
    assert_eq!(loaded(&ahead).await, []);
    assert_eq!(ahead.health().waiting, 2, "both are to be removed");
    // Somebody needs one of them still.
    let other = store(&backend);
    beside(&other, async {
        assert_eq!(loaded(&other).await.len(), 2);
        other.keep(place("b"), b"y".to_vec(), ends(100));
        assert!(other.written_within(LONG).await);
    })
    .await;
    beside(&ahead, async { assert!(ahead.written_within(LONG).await) }).await;
    assert_eq!(loaded(&store(&backend)).await, [("b".to_owned(), b"y".to_vec())]);
}

#[tokio::test]
async fn a20_a_kind_that_cant_be_written_or_read_keeps_no_revocation_back() {
    let backend = Arc::new(Moody::default());
    let (one, other) = (store(&backend), store(&backend));
    backend.has_no_keys.store(true, Ordering::SeqCst);
    let revocation = Place::new(Kind::Revocation, "a");
    let mut told = other.changes();
    beside(&other, async {
        // What it has seen of the kinds that can be read it compares from then on.
        while other.health().degraded.is_none() {
            time::sleep(Duration::from_millis(10)).await;
        }
        told.mark_unchanged();
        beside(&one, async {
            for n in 0..1_000 {
                one.keep(Place::new(Kind::Key, n.to_string()), vec![], None);
            }
            one.keep(revocation.clone(), b"ended".to_vec(), None);
            while backend.memory.get(&revocation).await == Ok(None) {
                time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        time::timeout(LONG, told.changed()).await.expect("it is told").expect("it runs");
    })
    .await;
    assert_eq!(other.load(Kind::Revocation).await.expect("it is read").len(), 1);
    assert_eq!(one.health().waiting, 1_000);
    assert!(one.health().degraded.is_some_and(|(_, why)| why == "its node is lost"));
}

#[tokio::test]
async fn that_a_store_can_be_read_doesnt_say_that_it_takes_writes() {
    let backend = Arc::new(Moody::default());
    let one = store(&backend);
    *backend.refuses.lock().expect("whole") = Some(place("5"));
    beside(&one, async {
        for n in 0..10 {
            one.keep(place(&n.to_string()), vec![], None);
        }
        while one.health().degraded.is_none() {
            time::sleep(Duration::from_millis(10)).await;
        }
        let degraded = one.health().degraded;
        assert_eq!(one.health().waiting, 1, "what was done isn't done again");
        one.load(Kind::Grant).await.expect("it can be read");
        assert_eq!(one.health().degraded, degraded);
        *backend.refuses.lock().expect("whole") = None;
        assert!(one.written_within(LONG).await);
        assert_eq!(one.health().degraded, None);
    })
    .await;
    assert_eq!(loaded(&store(&backend)).await.len(), 10);
}

#[tokio::test]
async fn a_reading_that_doesnt_end_is_given_up() {
    let backend = Arc::new(Moody::default());
    backend.is_endless.store(true, Ordering::SeqCst);
    let most = Duration::from_millis(300);
    let read = store(&backend).read_within(most, Kind::Grant).await;
    assert_eq!(read.map(|_| ()), Err(StoreFault::Slow(most)));
}

#[tokio::test]
async fn of_many_records_that_dont_open_some_are_named_and_none_is_when_they_are_gone() {
    let backend = Arc::new(Moody::default());
    let one = store(&backend);
    let names: Vec<String> = (0..40).map(|n| n.to_string()).collect();
    let records: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), b"x".as_slice())).collect();
    kept_by(&one, &records).await;
    let stranger = sealed_by(&backend, SealRing::new("d", key(2), vec![]));
    let mut told = stranger.changes();
    assert_eq!(loaded(&stranger).await, []);
    let health = stranger.health();
    assert_eq!((health.unopened.len(), health.unopened_count), (NAMED, 40));
    told.mark_unchanged();
    for name in &names {
        let over = backend.get(&place(name)).await.expect("a store").map(|kept| kept.generation);
        let gone = Write { place: place(name), over, kept: None };
        assert_eq!(backend.put(vec![gone]).await, Ok(vec![Written::Done]));
    }
    for _ in 0..names.len().div_ceil(NAMED) {
        stranger.look_for_removed().await;
        assert!(told.has_changed().expect("it is there"), "whoever reads is told");
    }
    assert_eq!(stranger.health(), Health::default());
}

#[tokio::test]
async fn a_change_whose_place_is_taken_for_good_is_counted() {
    let backend = Arc::new(Moody::default());
    kept_by(&store(&backend), &[("a", b"x")]).await;
    let junk = Kept { generation: 1, expires: None, sealed: b"junk".to_vec() };
    let beside = Write { place: place("a").beside(key(2).id()), over: None, kept: Some(junk) };
    assert_eq!(backend.put(vec![beside]).await, Ok(vec![Written::Done]));
    let stranger = sealed_by(&backend, SealRing::new("d", key(2), vec![]));
    kept_by(&stranger, &[("a", b"y")]).await;
    assert_eq!((stranger.health().dropped, stranger.health().waiting), (1, 0));
}

#[tokio::test]
async fn a21_a_place_that_was_emptied_begins_with_a_higher_generation() {
    let backend = Arc::new(Moody::default());
    let one = store(&backend);
    let generation = async || {
        let kept = backend.get(&place("a")).await.expect("a store").expect("a record");
        kept.generation
    };
    kept_by(&one, &[("a", b"x")]).await;
    kept_by(&one, &[("a", b"y")]).await;
    let before = generation().await;
    beside(&one, async {
        one.forget(place("a"));
        assert!(one.written_within(LONG).await);
    })
    .await;
    kept_by(&one, &[("a", b"z")]).await;
    assert!(generation().await > before);
}

#[tokio::test]
async fn a21_a_revocation_isnt_over_because_somebody_says_so_in_the_store() {
    let backend = Arc::new(Moody::default());
    let (one, revocation) = (store(&backend), Place::new(Kind::Revocation, "a"));
    beside(&one, async {
        one.keep(revocation.clone(), b"ended".to_vec(), None);
        assert!(one.written_within(LONG).await);
    })
    .await;
    let kept = backend.get(&revocation).await.expect("a store").expect("a record");
    let changed = Kept { expires: Some(UnixTime(1)), ..kept.clone() };
    let write = Write { place: revocation.clone(), over: Some(kept.generation), kept: Some(changed) };
    assert_eq!(backend.put(vec![write]).await, Ok(vec![Written::Done]));
    let next = store(&backend);
    beside(&next, async {
        assert!(next.load(Kind::Revocation).await.expect("a store").is_empty());
        assert!(next.written_within(LONG).await);
    })
    .await;
    assert_eq!(next.unopened(Kind::Revocation), ["a".to_owned()].into());
    assert_eq!(next.health().unopened_revocations, 1);
    assert!(backend.get(&revocation).await.expect("a store").is_some());
}

/// `docs/store.md`, Seals: at any moment replicas of two neighbouring steps run beside each other.
#[tokio::test]
async fn a20_of_the_three_steps_of_a_new_sealing_key_each_reads_what_its_neighbours_write() {
    let ring = |step: usize| match step {
        0 => SealRing::new("d", key(1), vec![]),
        1 => SealRing::new("d", key(1), vec![key(2)]),
        2 => SealRing::new("d", key(2), vec![key(1)]),
        _ => SealRing::new("d", key(2), vec![]),
    };
    for (before, after) in [(0, 1), (1, 2), (2, 3)] {
        let backend = Arc::new(Moody::default());
        kept_by(&sealed_by(&backend, ring(before)), &[("a", b"x")]).await;
        for reader in if before == 2 { vec![before] } else { vec![before, after] } {
            assert_eq!(loaded(&sealed_by(&backend, ring(reader))).await.len(), 1, "{before} {reader}");
        }
        kept_by(&sealed_by(&backend, ring(after)), &[("b", b"y")]).await;
        for reader in [before, after] {
            let reader = sealed_by(&backend, ring(reader));
            assert!(loaded(&reader).await.contains(&("b".to_owned(), b"y".to_vec())));
            assert_eq!(reader.health().unopened, []);
        }
    }
}
