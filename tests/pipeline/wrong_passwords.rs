//! Core sleeps 1.5 s at a wrong password and locks its name for as long (T8): nobody else pays for it (A7).

use tidegate::{
    decisions::outage::QUESTION,
    flow::token_service::SLEPT,
    rehearsal::harbor::{Head, Health, Moment},
};

use crate::{
    outages::{SHORT_PARK, SOON},
    stage::{DEV, MANIFEST, SCOPE, Setup, Stage, ask_token, hold, pull, story, token},
    support::waiting,
    talk::Ask,
};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

const WRONG: (&str, &str) = ("dev", "guessed");

#[test]
fn the_same_wrong_password_many_times_at_once_costs_core_one_try() {
    let stage = Stage::new();
    let core = stage.replica("core", |_| {});
    let gate = Setup::before(&[&core], &[&core.key_file]).start();
    let began = Instant::now();
    thread::scope(|scope| {
        let ask = |_| scope.spawn(|| ask_token("repository:priv/a:pull").basic(WRONG).at(gate.address));
        let askers: Vec<_> = (0..20).map(ask).collect();
        for asker in askers {
            assert_eq!(asker.join().expect("an asker").subject(), "", "T8: nobody's token");
        }
    });
    assert_eq!(core.tokens_asked(), 1);
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

#[test]
fn a_password_that_harbor_accepted_before_is_not_refused_under_the_lock_of_a_wrong_one() {
    let stage = Stage::new();
    let core = stage.replica("core", |_| {});
    let gate = Setup::before(&[&core], &[&core.key_file]).start();
    assert_eq!(ask_token("repository:priv/a:pull").basic(DEV).at(gate.address).subject(), "dev");
    thread::scope(|scope| {
        let wrong = scope.spawn(|| ask_token("repository:priv/b:pull").basic(WRONG).at(gate.address));
        let deadline = Duration::from_secs(5);
        crate::support::waiting::holds("core has the wrong password", deadline, || core.tokens_asked() == 2);
        let right = ask_token("repository:priv/c:pull").basic(DEV).at(gate.address);
        assert_eq!(right.subject(), "dev", "while the wrong one is under way\n{}", gate.tail());
        assert_eq!(wrong.join().expect("an asker").subject(), "");
        let after = ask_token("repository:priv/d:pull").basic(DEV).at(gate.address);
        assert_eq!(after.subject(), "dev", "right after it");
    });
}

#[test]
fn a_right_password_that_is_not_known_yet_is_not_refused_under_the_lock_either() {
    let stage = Stage::new();
    let core = stage.replica("core", |_| {});
    let gate = Setup::before(&[&core], &[&core.key_file]).start();
    thread::scope(|scope| {
        let wrong = scope.spawn(|| ask_token("repository:priv/b:pull").basic(WRONG).at(gate.address));
        let deadline = Duration::from_secs(5);
        crate::support::waiting::holds("core has the wrong password", deadline, || core.tokens_asked() == 1);
        let right = ask_token("repository:priv/c:pull").basic(DEV).at(gate.address);
        assert_eq!(right.subject(), "dev");
        wrong.join().expect("an asker");
    });
}

#[test]
fn an_address_that_guesses_too_often_is_told_so_and_harbor_is_spared() {
    let stage = Stage::new();
    let core = stage.replica("core", |_| {});
    let gate = Setup::before(&[&core], &[]).rest("[limits]\nwrong_credentials = \"2/min\"").start();
    let guess = |n: u32| {
        ask_token("repository:priv/a:pull").basic(("robot$ci", &format!("guess-{n}"))).at(gate.address)
    };
    assert_eq!((guess(0).status, guess(1).status), (200, 200));
    let before = core.tokens_asked();
    let refused = guess(2);
    assert_eq!(refused.status, 429, "{}", refused.text());
    assert_eq!(core.tokens_asked(), before);
}

#[test]
fn a7_guesses_in_an_outage_are_limited_and_a_few_of_them_lock_nobody_out() {
    let stage = Stage::new();
    let core = stage.replica("core", |_| {});
    let rest = format!("{SHORT_PARK}[limits]\nwrong_credentials = \"2/min\"\n[token]\ncache = \"0s\"\n");
    let gate = Setup::before(&[&core], &[&core.key_file]).rest(&rest).start();
    assert_eq!(ask_token(SCOPE).basic(DEV).at(gate.address).subject(), "dev");
    stage.world.set_database(Health::Refusing);
    // Of a name each: those of one wait for each other.
    let guess = |n: u32| ask_token(SCOPE).basic((&format!("user{n}"), "guessed")).at(gate.address).status;
    let guesses = |of: std::ops::Range<u32>| -> Vec<u16> {
        thread::scope(|scope| {
            let asked: Vec<_> = of.map(|n| scope.spawn(move || guess(n))).collect();
            asked.into_iter().map(|asked| asked.join().expect("no panic")).collect()
        })
    };
    assert_eq!(guesses(0..5), [503; 5]);
    assert_eq!(
        guesses(5..20),
        [503; 15],
        "ten times as many as wrong ones, for a right one may be among them"
    );
    assert_eq!(guess(20), 429, "{}", gate.tail());
    assert_eq!(ask_token(SCOPE).basic(DEV).at(gate.address).subject(), "dev", "what is known goes freely");
}

/// A pull by replay right when `stranger` has tried a wrong password of the token's user.
fn pulled_under_a_lock(stranger: impl Fn(SocketAddr, SocketAddr) + Send + Sync) {
    let stage = Stage::new();
    let core = stage.replica("core", |_| {});
    core.seed();
    let gate = Setup::before(&[&core], &[]).start();
    let token = token(gate.address, DEV, SCOPE);
    hold(&core.key_file, 1);
    let proven = pull(MANIFEST).bearer(&token).at(gate.address);
    assert_eq!(proven.status, 200, "by replay\n{}", gate.tail());
    thread::scope(|scope| {
        let before = core.asked().len();
        let tries = scope.spawn(|| stranger(gate.address, core.address));
        let deadline = Duration::from_secs(5);
        waiting::holds("core has the wrong password", deadline, || core.asked().len() > before);
        assert_eq!(pull(MANIFEST).basic(DEV).at(core.address).status, 401, "directly, under the lock");
        let pulled = pull(MANIFEST).bearer(&token).at(gate.address);
        assert_eq!((pulled.status, story(&gate, &pulled)[1].as_str()), (200, "replay"), "{}", gate.tail());
        tries.join().expect("a stranger");
    });
    let after = pull(MANIFEST).bearer(&token).at(gate.address);
    assert_eq!(after.status, 200, "the credential is still at hand\n{}", gate.tail());
}

#[test]
fn a7_a_strangers_wrong_password_ends_nobodys_replay() {
    pulled_under_a_lock(|gate, _| drop(ask_token("repository:priv/a:pull").basic(WRONG).at(gate)));
}

#[test]
fn a7_nor_does_one_that_nobody_here_has_seen() {
    pulled_under_a_lock(|_, core| drop(ask_token("repository:priv/a:pull").basic(WRONG).at(core)));
}

/// Core refuses a right password at once under a stranger's lock. How long it took is what core took, not what our own
/// question takes after it: else it would look as if core had slept over it, which is what it does to a wrong one.
#[test]
fn a7_a_refusal_under_a_lock_is_told_by_what_core_took_for_it_not_by_what_our_question_took() {
    let stage = Stage::new();
    let core = stage.replica("core", |options| {
        options.gate = Some(Arc::new(|moment, head: &Head| {
            let asks = moment == Moment::Arrived && head.target == QUESTION;
            asks.then(|| Box::pin(tokio::time::sleep(2 * SLEPT)) as _)
        }));
    });
    core.seed();
    let rest = format!("{SHORT_PARK}[limits]\nwrong_credentials = \"100000/min\"\n[token]\ncache = \"0s\"\n");
    let gate = Setup::before(&[&core], &[&core.key_file]).rest(&rest).start();
    assert_eq!(ask_token(SCOPE).basic(DEV).at(gate.address).subject(), "dev");
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        // While core sleeps over the one's try it refuses the other's at once. No question of ours follows theirs, so
        // that what is known of a stranger's wrong try is never old.
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(SeqCst) {
                    Ask::get("/api/v2.0/projects").basic(WRONG).at(gate.address);
                    thread::sleep(Duration::from_millis(5));
                }
            });
        }
        waiting::holds("it is refused under the lock", SOON, || {
            Ask::get("/v2/").basic(DEV).at(gate.address).status == 401
        });
        over.store(true, SeqCst);
    });
    stage.world.set_database(Health::Refusing);
    let granted = ask_token(SCOPE).basic(DEV).at(gate.address);
    assert_eq!(story(&gate, &granted)[2], "grace", "it was evidence of nothing: {}", gate.tail());
}
