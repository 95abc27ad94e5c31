use super::*;

const LONG: Duration = Duration::from_mins(1);

fn client(n: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, n])
}

fn place(lot: &Arc<Lot>, n: u8) -> Option<Place> {
    lot.enter(client(n), Some(&Arc::from(n.to_string())), 10)
}

/// Begins to wait as the `n`th client; tells its number and gives the turn back when it has it.
fn wait(lot: &Arc<Lot>, n: u8, order: &Arc<Mutex<Vec<u8>>>) -> tokio::task::JoinHandle<Option<Turn>> {
    let (place, order) = (place(lot, n).expect("room"), order.clone());
    #[expect(
        clippy::disallowed_methods,
        reason = "its handle goes to the test, which waits for it or ends it"
    )]
    tokio::spawn(async move {
        let turn = place.turn(Instant::now() + LONG).await;
        order.lock().expect("unpoisoned").push(n);
        turn
    })
}

async fn settled() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn first_come_is_first_served_and_more_follow_as_answers_come() {
    let (lot, order) = (Arc::new(Lot::new(100, 10_000)), Arc::default());
    let mut all = Vec::new();
    for n in 0..20 {
        all.push(wait(&lot, n, &order));
        settled().await;
    }
    assert_eq!(lot.waiting(), 20, "nobody goes while no endpoint takes requests");
    lot.tell(true);
    settled().await;
    assert_eq!(*order.lock().expect("unpoisoned"), (0..FIRST as u8).collect::<Vec<_>>());
    let first = all.remove(0).await.expect("no panic").expect("a turn");
    first.answered();
    settled().await;
    assert_eq!(order.lock().expect("unpoisoned").len(), FIRST + 2, "its place, and one more");
    drop(all.remove(0).await.expect("no panic").expect("a turn"));
    settled().await;
    assert_eq!(order.lock().expect("unpoisoned").len(), FIRST + 3, "without an answer its place alone");
    assert!(order.lock().expect("unpoisoned").is_sorted());
}

#[tokio::test]
async fn nobody_goes_after_the_last_endpoint_has_gone_again() {
    let (lot, order) = (Arc::new(Lot::new(100, 10_000)), Arc::default());
    let mut all: Vec<_> = (0..20).map(|n| wait(&lot, n, &order)).collect();
    settled().await;
    lot.tell(true);
    lot.tell(false);
    settled().await;
    all.remove(0).await.expect("no panic").expect("a turn").answered();
    settled().await;
    assert_eq!(order.lock().expect("unpoisoned").len(), FIRST);
    lot.tell(true);
    settled().await;
    assert_eq!(order.lock().expect("unpoisoned").len(), FIRST + 1, "as many as there is room for at first");
}

#[tokio::test]
async fn a25_a_turn_without_an_answer_is_given_back_and_lets_one_follow() {
    let (lot, order) = (Arc::new(Lot::new(100, 10_000)), Arc::default());
    let mut all: Vec<_> = (0..20).map(|n| wait(&lot, n, &order)).collect();
    settled().await;
    lot.tell(true);
    let mut turn = all.remove(0).await.expect("no panic");
    assert!(hold(async { true }, &mut turn, true).await && turn.is_some(), "an answer in time");
    hold(tokio::time::sleep(2 * KEPT_FOR_BODY), &mut turn, true).await;
    assert!(turn.is_none());
    settled().await;
    assert_eq!(order.lock().expect("unpoisoned").len(), FIRST + 1, "its place alone");
}

#[tokio::test]
async fn who_leaves_takes_nobodys_turn() {
    let (lot, order) = (Arc::new(Lot::new(100, 10_000)), Arc::default());
    let all: Vec<_> = (0..20).map(|n| wait(&lot, n, &order)).collect();
    settled().await;
    for gone in &all[..10] {
        gone.abort();
    }
    settled().await;
    assert_eq!(lot.waiting(), 10);
    lot.tell(true);
    // Let go, and gone before it could see it.
    all[10].abort();
    settled().await;
    assert_eq!(lot.line().up, FIRST);
    assert_eq!(order.lock().expect("unpoisoned").len(), FIRST);
}

#[tokio::test]
async fn a_wait_has_an_end_and_leaves_nothing() {
    let lot = Arc::new(Lot::new(1, 100));
    let one = place(&lot, 1).expect("room");
    assert!(place(&lot, 2).is_none(), "there is room for one");
    assert!(one.turn(Instant::now() + Duration::from_millis(10)).await.is_none());
    assert_eq!(lot.waiting(), 0);
    drop(one);
    assert!(place(&lot, 2).is_some());
}

#[test]
fn a25_bytes_are_bounded_as_well_as_places() {
    let lot = Arc::new(Lot::new(100, 25));
    let held: Vec<_> = [place(&lot, 1), place(&lot, 2)].into_iter().flatten().collect();
    assert_eq!(held.len(), 2);
    assert!(place(&lot, 3).is_none());
}
