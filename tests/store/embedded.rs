//! The embedded store as a file.

use std::{path::Path, sync::Arc};

use tidegate::{
    edges::store::{Backend, Embedded, NotNow, StoreFault, Written},
    words::clock::UnixTime,
};

use crate::{
    behaviour::{PATIENCE, every, kept, place, put, write},
    support::waiting,
};

fn open(path: &Path) -> Arc<Embedded> {
    Arc::new(Embedded::open(path, "d", UnixTime(1), NotNow::Fault).expect("the store opens"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded() {
    let folder = tempfile::tempdir().expect("a folder");
    // One file has one deployment: the other one's is beside it.
    let other = Embedded::open(&folder.path().join("other.redb"), "e", UnixTime(1), NotNow::Fault)
        .expect("the store opens");
    every(open(&folder.path().join("store.redb")), Arc::new(other)).await;
}

#[tokio::test]
async fn what_was_taken_is_there_when_the_file_is_opened_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("store.redb");
    let store = open(&path);
    assert_eq!(put(&*store, write("a", None, Some(kept(1, "x")))).await, Written::Done);
    // As a crash leaves it: a copy of the file while it is open.
    let copy = folder.path().join("copy.redb");
    std::fs::copy(&path, &copy).expect("a copy");
    assert_eq!(open(&copy).get(&place("a")).await, Ok(Some(kept(1, "x"))));
}

/// Each cut and each changed place of the file: it opens with what was taken, or is set aside; nothing ends us.
#[tokio::test]
async fn a_torn_file_opens_whole_or_is_set_aside() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("store.redb");
    let store = open(&path);
    for n in 0..50 {
        assert_eq!(put(&*store, write(&n.to_string(), None, Some(kept(1, "x")))).await, Written::Done);
    }
    drop(store);
    let whole = std::fs::read(&path).expect("the file");
    let mut torn: Vec<Vec<u8>> = [1, 100, 4_096, 5_000, whole.len() / 2, whole.len() - 1]
        .into_iter()
        .map(|cut| whole[..cut].to_vec())
        .collect();
    torn.extend((0..24).map(|n| {
        let mut changed = whole.clone();
        let at = n * whole.len() / 24;
        changed[at..(at + 64).min(whole.len())].fill(0xa5);
        changed
    }));
    for (number, bytes) in torn.into_iter().enumerate() {
        let path = folder.path().join(format!("{number}.redb"));
        std::fs::write(&path, &bytes).expect("a torn file");
        let store = open(&path);
        let found = store.get(&place("7")).await;
        let expected = if store.set_aside.is_some() { None } else { Some(kept(1, "x")) };
        assert_eq!(found, Ok(expected), "{number}");
        assert_eq!(put(&*store, write("new", None, Some(kept(1, "y")))).await, Written::Done, "{number}");
    }
}

#[tokio::test]
async fn a_file_says_how_many_records_it_holds_of_whom() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("store.redb");
    let store = open(&path);
    assert!(store.is_empty());
    for name in ["a", "b"] {
        assert_eq!(put(&*store, write(name, None, Some(kept(1, "x")))).await, Written::Done);
    }
    drop(store);
    let holds = |deployment: &str| {
        // Its thread closes it.
        let opens = || Embedded::open(&path, deployment, UnixTime(1), NotNow::Fault).ok();
        waiting::until(PATIENCE, opens).expect("the store opens").holds
    };
    let expected = Some([("d".to_owned(), 2)].into());
    assert_eq!((holds("e"), holds("d")), (expected.clone(), expected));
}

/// One that was found in the usual place and can't be opened yet.
#[tokio::test]
async fn a_file_that_is_waited_for_is_used_once_it_can_be() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("store.redb");
    let first = open(&path);
    assert_eq!(put(&*first, write("a", None, Some(kept(1, "x")))).await, Written::Done);
    assert!(Embedded::open(&path, "d", UnixTime(1), NotNow::Fault).is_err());
    let later = Embedded::open(&path, "d", UnixTime(1), NotNow::Later).expect("it is waited for");
    assert!(!later.is_empty(), "nobody knows");
    let fault = later.get(&place("a")).await;
    assert!(
        matches!(&fault, Err(StoreFault::Unavailable(why)) if why.contains("another process")),
        "{fault:?}"
    );
    drop(first);
    // Its thread closes it.
    let mut found = later.get(&place("a")).await;
    for _ in 0..1_000 {
        if found.is_ok() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        found = later.get(&place("a")).await;
    }
    assert_eq!(found, Ok(Some(kept(1, "x"))));
}
