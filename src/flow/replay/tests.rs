//! When a credential may be sent in a token's place, and when that ends.

use futures_util::FutureExt as _;

use super::*;

const NOW: UnixTime = UnixTime(1_000);

fn remember(replays: &Replays, token: u8, credential: &'static str, at_once: usize) {
    let credential = HeaderValue::from_static(credential);
    replays.remember([token; 32], &credential, vec![], (NOW, UnixTime(2_000)), ("robot$ci", at_once));
}

fn sent(replays: &Replays, token: u8) -> Option<HeaderValue> {
    replays.find(&[token; 32], NOW).map(|issued| issued.credential().clone())
}

#[test]
fn a4_a_credential_is_found_by_the_tokens_digest_until_the_token_expires() {
    let replays = Replays::new(100);
    remember(&replays, 1, "Basic one", 8);
    assert_eq!(sent(&replays, 1).expect("at hand"), "Basic one");
    assert!(sent(&replays, 1).is_some_and(|value| value.is_sensitive()), "kept out of debug texts");
    assert_eq!(sent(&replays, 2), None);
    assert!(replays.find(&[1; 32], UnixTime(1_999)).is_some());
    assert!(replays.find(&[1; 32], UnixTime(2_000)).is_none());
}

#[test]
fn a4_a_credential_that_harbor_refused_is_over_for_all_its_tokens() {
    let replays = Replays::new(100);
    remember(&replays, 1, "Basic one", 8);
    remember(&replays, 2, "Basic one", 8);
    remember(&replays, 3, "Basic other", 8);
    replays.find(&[1; 32], NOW).expect("at hand").end();
    assert_eq!((sent(&replays, 1), sent(&replays, 2)), (None, None));
    assert!(sent(&replays, 3).is_some(), "another secret of the same name is unharmed (A7)");
    remember(&replays, 4, "Basic one", 8);
    assert!(sent(&replays, 4).is_some(), "Harbor accepted it again");
    assert_eq!(sent(&replays, 2), None);
}

#[test]
fn a2_a_write_ends_what_is_on_its_way_as_well() {
    let replays = Replays::new(100);
    remember(&replays, 1, "Basic one", 8);
    let on_its_way = replays.find(&[1; 32], NOW).expect("at hand");
    replays.forget_all();
    assert!(on_its_way.is_over() && sent(&replays, 1).is_none());
}

#[tokio::test]
async fn a4_those_who_waited_behind_a_refused_credential_do_not_send_it() {
    let replays = Replays::new(100);
    remember(&replays, 1, "Basic one", 8);
    let issued = replays.find(&[1; 32], NOW).expect("at hand");
    let first = issued.turn().await.expect("the first goes at once");
    let mut second = Box::pin(issued.turn());
    assert!((&mut second).now_or_never().is_none(), "it waits");
    issued.end();
    drop(first);
    assert!(second.await.is_none() && issued.is_over());
}

#[test]
fn a4_a_token_of_our_own_ends_with_the_first_refusal_of_its_credential() {
    let replays = Replays::new(100);
    let own = |credential| {
        let credential = HeaderValue::from_static(credential);
        replays.of_own(&credential, vec![], (NOW, UnixTime(1_300)), ("robot$ci", 8))
    };
    remember(&replays, 1, "Basic one", 8);
    own("Basic one").expect("nothing is said against it").end();
    assert!(own("Basic one").is_none() && sent(&replays, 1).is_none(), "it is over for all its tokens");
    assert!(own("Basic other").is_some());
    replays.accepted(&HeaderValue::from_static("Basic one"));
    assert!(own("Basic one").is_some(), "Harbor accepted it again");
}

#[tokio::test]
async fn replays_of_our_own_tokens_share_the_bound_of_their_principal() {
    let replays = Replays::new(100);
    remember(&replays, 1, "Basic one", 2);
    let known = replays.find(&[1; 32], NOW).expect("at hand");
    known.turn().await.expect("the first").accepted();
    let credential = HeaderValue::from_static("Basic one");
    let own = replays.of_own(&credential, vec![], (NOW, UnixTime(1_300)), ("robot$ci", 2)).expect("good");
    let (_one, _two) = (known.turn().await.expect("one"), own.turn().await.expect("two"));
    assert!(own.turn().now_or_never().is_none() && known.turn().now_or_never().is_none(), "two at once");
}

#[tokio::test]
async fn the_first_replay_of_a_principal_runs_alone_and_then_so_many_at_once() {
    let replays = Replays::new(100);
    remember(&replays, 1, "Basic one", 2);
    let issued = replays.find(&[1; 32], NOW).expect("at hand");
    let first = issued.turn().await.expect("the first");
    assert!(issued.turn().now_or_never().is_none(), "nobody beside the first (O7)");
    first.accepted();
    drop(first);
    let (_one, _two) = (issued.turn().await.expect("one"), issued.turn().await.expect("two"));
    assert!(issued.turn().now_or_never().is_none(), "two at once");
    assert!(!issued.is_over(), "waiting in vain says nothing of the credential");
}

#[tokio::test]
async fn those_in_line_behind_the_first_follow_side_by_side_when_it_is_accepted() {
    let replays = Replays::new(100);
    remember(&replays, 1, "Basic one", 3);
    let issued = replays.find(&[1; 32], NOW).expect("at hand");
    let first = issued.turn_at_once().expect("the first");
    assert!(issued.turn_at_once().is_none());
    let mut line: Vec<_> = (0..4).map(|_| Box::pin(issued.turn())).collect();
    for turn in &mut line {
        assert!(turn.now_or_never().is_none(), "it waits");
    }
    first.accepted();
    drop(first);
    let mut went = Vec::new();
    for turn in &mut line {
        went.extend(turn.now_or_never().flatten());
    }
    assert_eq!(went.len(), 3, "no more than may run at once");
    assert!(went.iter().all(|turn| turn.is_for(&issued)));
}

#[test]
fn a4_what_was_issued_is_gone_from_memory_when_the_token_has_ended() {
    let replays = Replays::new(100);
    remember(&replays, 1, "Basic one", 8);
    let credential = HeaderValue::from_static("Basic one");
    replays.remember([2; 32], &credential, vec![], (UnixTime(2_000), UnixTime(2_000)), ("robot$ci", 8));
    assert_eq!(replays.issued.iter().count(), 1);
}

#[test]
fn large_tokens_are_bounded_in_bytes() {
    let replays = Replays::new(100_000);
    let credential = HeaderValue::from_static("Basic one");
    let name = "n".repeat(8 << 20);
    for n in 0..64 {
        let access =
            vec![Access { kind: "repository".to_owned(), name: name.clone(), actions: Vec::default() }];
        replays.remember([n; 32], &credential, access, (NOW, UnixTime(2_000)), ("robot$ci", 8));
    }
    assert_eq!(replays.count(), 31, "256 MiB in all");
}
