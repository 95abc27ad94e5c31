//! The behaviour that all stores share: [`every`] runs on each of them.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tidegate::{
    decisions::record::{
        Kind, Place,
        seal::{KEY, SealKey, SealRing},
    },
    edges::store::{Backend, Kept, Memory, Store, Write, Written},
    words::clock::{Clock, UnixTime},
};
use tokio::sync::watch;

/// How long a store may take for anything.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub fn place(key: &str) -> Place {
    Place::new(Kind::Session, key)
}

pub fn kept(generation: u64, text: &str) -> Kept {
    Kept { generation, expires: None, sealed: text.as_bytes().to_vec() }
}

pub fn write(key: &str, over: Option<u64>, kept: Option<Kept>) -> Write {
    Write { place: place(key), over, kept }
}

pub async fn put(store: &dyn Backend, write: Write) -> Written {
    store.put(vec![write]).await.expect("the store takes it").remove(0)
}

/// All records of a kind, by their keys; pages of `about`.
pub async fn all(store: &dyn Backend, kind: Kind, about: usize) -> Vec<(String, Kept)> {
    let (mut found, mut from) = (Vec::new(), None);
    loop {
        let page = store.page(kind, from.as_ref(), about).await.expect("a page");
        found.extend(page.records);
        match page.next {
            Some(next) => from = Some(next),
            None => return found,
        }
    }
}

/// Everything below on one store that holds nothing yet; `other` is the same store of another deployment.
pub async fn every(store: Arc<dyn Backend>, other: Arc<dyn Backend>) {
    a_record_is_there_as_it_was_written(&*store).await;
    a_write_over_another_generation_changes_nothing(&*store).await;
    a_batch_is_done_each_by_itself(&*store).await;
    pages_hold_every_record_of_one_kind(&*store).await;
    deployments_never_meet(&*store, &*other).await;
    of_many_writers_each_wins_once(&store).await;
    who_listens_hears_of_every_change_that_is_watched(&*store).await;
    a_sealed_store_keeps_what_it_is_given(&store).await;
}

async fn a_record_is_there_as_it_was_written(store: &dyn Backend) {
    assert_eq!(store.get(&place("a")).await, Ok(None));
    let bytes: Vec<u8> = (0..=255).collect();
    let first = Kept { generation: 7, expires: Some(UnixTime(1_000)), sealed: bytes };
    assert_eq!(put(store, write("a", None, Some(first.clone()))).await, Written::Done);
    assert_eq!(store.get(&place("a")).await, Ok(Some(first)));
    assert_eq!(put(store, write("a", Some(7), None)).await, Written::Done);
    assert_eq!(store.get(&place("a")).await, Ok(None));
    let odd = "robot$ci/ä :{}\n\"";
    assert_eq!(put(store, write(odd, None, Some(kept(1, "")))).await, Written::Done);
    assert_eq!(store.get(&place(odd)).await, Ok(Some(kept(1, ""))));
    assert_eq!(put(store, write(odd, Some(1), None)).await, Written::Done);
}

async fn a_write_over_another_generation_changes_nothing(store: &dyn Backend) {
    assert_eq!(put(store, write("b", Some(1), Some(kept(2, "x")))).await, Written::Other(None));
    assert_eq!(put(store, write("b", None, Some(kept(1, "x")))).await, Written::Done);
    assert_eq!(put(store, write("b", None, Some(kept(1, "y")))).await, Written::Other(Some(1)));
    assert_eq!(put(store, write("b", Some(9), None)).await, Written::Other(Some(1)));
    assert_eq!(store.get(&place("b")).await, Ok(Some(kept(1, "x"))));
    assert_eq!(put(store, write("b", Some(1), None)).await, Written::Done);
}

async fn a_batch_is_done_each_by_itself(store: &dyn Backend) {
    let batch = vec![
        write("c", None, Some(kept(1, "c"))),
        write("c", None, Some(kept(1, "late"))),
        write("d", None, Some(kept(1, "d"))),
        write("c", Some(1), Some(kept(2, "again"))),
    ];
    let done = store.put(batch).await;
    assert_eq!(done, Ok(vec![Written::Done, Written::Other(Some(1)), Written::Done, Written::Done]));
    assert_eq!(store.get(&place("c")).await, Ok(Some(kept(2, "again"))));
    let removed = vec![write("c", Some(2), None), write("d", Some(1), None)];
    assert_eq!(store.put(removed).await, Ok(vec![Written::Done; 2]));
}

async fn pages_hold_every_record_of_one_kind(store: &dyn Backend) {
    assert!(all(store, Kind::Session, 10).await.is_empty());
    let names: BTreeSet<String> = (0..500).map(|n| format!("{n}")).collect();
    let writes = names.iter().map(|name| write(name, None, Some(kept(1, name)))).collect();
    store.put(writes).await.expect("the store takes them");
    let stranger = Write { place: Place::new(Kind::Window, "w"), over: None, kept: Some(kept(1, "w")) };
    assert_eq!(put(store, stranger).await, Written::Done);
    for about in [7, 100, 500, 10_000] {
        let found = all(store, Kind::Session, about).await;
        assert_eq!(found.iter().map(|(name, _)| name.clone()).collect::<BTreeSet<_>>(), names, "{about}");
        assert!(found.iter().all(|(name, kept)| kept.sealed == name.as_bytes()));
    }
    assert_eq!(all(store, Kind::Window, 10).await.len(), 1);
    let writes = names.iter().map(|name| write(name, Some(1), None)).collect();
    store.put(writes).await.expect("the store takes them");
    assert!(all(store, Kind::Session, 10).await.is_empty());
}

/// A10: two Harbors may share a server.
async fn deployments_never_meet(store: &dyn Backend, other: &dyn Backend) {
    assert_eq!(put(store, write("e", None, Some(kept(1, "ours")))).await, Written::Done);
    assert_eq!(other.get(&place("e")).await, Ok(None));
    assert_eq!(put(other, write("e", None, Some(kept(5, "theirs")))).await, Written::Done);
    assert_eq!(store.get(&place("e")).await, Ok(Some(kept(1, "ours"))));
    assert_eq!(all(other, Kind::Session, 10).await.len(), 1);
    assert_eq!(put(store, write("e", Some(1), None)).await, Written::Done);
}

async fn of_many_writers_each_wins_once(store: &Arc<dyn Backend>) {
    const WRITERS: u64 = 8;
    let mut writers = tokio::task::JoinSet::new();
    for _ in 0..WRITERS {
        let store = store.clone();
        writers.spawn(async move {
            for _ in 0..10 {
                loop {
                    let present = store.get(&place("f")).await.expect("a store");
                    let over = present.map(|kept| kept.generation);
                    let next = kept(over.unwrap_or_default() + 1, "f");
                    if put(&*store, write("f", over, Some(next))).await == Written::Done {
                        break;
                    }
                }
            }
        });
    }
    while writers.join_next().await.transpose().expect("a writer").is_some() {}
    let last = store.get(&place("f")).await.expect("a store").map(|kept| kept.generation);
    assert_eq!(last, Some(WRITERS * 10), "no write was lost and none counted twice");
    assert_eq!(put(&**store, write("f", last, None)).await, Written::Done);
}

/// Where the store has it at all.
async fn who_listens_hears_of_every_change_that_is_watched(store: &dyn Backend) {
    let Some(listening) = store.listen() else { return };
    let mut ear = listening.await.expect("it listens");
    for kind in Kind::WATCHED {
        for (over, now) in [(None, Some(kept(1, "x"))), (Some(1), None)] {
            let change = Write { place: Place::new(kind, "heard"), over, kept: now };
            assert_eq!(put(store, change).await, Written::Done);
            let heard = tokio::time::timeout(PATIENCE, ear.heard()).await;
            assert_eq!(heard, Ok(Ok(())), "{kind:?}");
        }
    }
}

/// The whole of it, as the process uses it: sealed, queued, read by the next process.
async fn a_sealed_store_keeps_what_it_is_given(backend: &Arc<dyn Backend>) {
    let sealed = |backend: &Arc<dyn Backend>| {
        let seals = SealRing::new("d", SealKey::new(&[1; KEY]).expect("a key"), vec![]);
        Arc::new(Store::new(backend.clone(), seals, Clock::system()))
    };
    let store = sealed(backend);
    let (stop, stopped) = watch::channel(false);
    let mut running = tokio::task::JoinSet::new();
    running.spawn(store.clone().run(stopped));
    for n in 0..300 {
        store.keep(Place::new(Kind::Grant, n.to_string()), format!("secret {n}").into_bytes(), None);
    }
    assert!(store.written_within(PATIENCE).await, "{:?}", store.health());
    for (_, kept) in all(&**backend, Kind::Grant, 100).await {
        assert!(!kept.sealed.windows(6).any(|part| part == b"secret"), "A21: it is sealed");
    }
    let next = sealed(backend);
    let read = next.load(Kind::Grant).await.expect("the next process reads it");
    assert_eq!(read.len(), 300);
    assert!(read.iter().all(|record| record.plain.starts_with(b"secret ")));
    stop.send_replace(true);
    running.join_next().await.expect("a task").expect("it ends");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory() {
    every(Arc::new(Memory::default()), Arc::new(Memory::default())).await;
}
