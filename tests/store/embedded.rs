//! The embedded store as a file.

use std::{path::Path, sync::Arc};

use tidegate::{
    edges::store::{Backend, Embedded, Written},
    words::clock::UnixTime,
};

use crate::behaviour::{every, kept, place, put, write};

fn open(path: &Path) -> Arc<Embedded> {
    Arc::new(Embedded::open(path, "d", UnixTime(1)).expect("the store opens"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded() {
    let folder = tempfile::tempdir().expect("a folder");
    // One file has one deployment: the other one's is beside it.
    let other = Embedded::open(&folder.path().join("other.redb"), "e", UnixTime(1)).expect("the store opens");
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
