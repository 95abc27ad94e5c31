//! Nothing wrong is ever served: whoever asks gets the answer to this very request, what was acknowledged is there, and
//! nothing that changes anything is done twice.
//!
//! A load in the background, of several principals over several connections, HTTP/1.1 and HTTP/2: every answer of it is
//! known beforehand and unlike every other one, and is read in full. Beside it stands Harbor's own record of what was
//! done, by whichever request, those of a test's clients too.
//!
//! ```text
//! asker  what one principal asks for, turn by turn     wire   its connection
//! seen   what came of it                                twice  what was done, judged
//! ```

mod asker;
mod seen;
mod twice;
mod wire;

use super::gate::Gate;
use asker::{Asker, Who};
use seen::Seen;
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tidegate::rehearsal::harbor::{Deeds, Role, World};
use tokio::{
    runtime::{Builder, Runtime},
    task::JoinHandle,
};
use wire::Wire;

/// No asker ends its last request later.
const LAST: Duration = Duration::from_mins(3);
/// Everybody's password and secret.
const SECRET: &str = "Witness12345";

/// Watches what is served and what is done, until it is asked to judge.
pub struct Witness {
    runtime: Runtime,
    seen: Arc<Seen>,
    askers: Vec<JoinHandle<()>>,
    people: People,
    deeds: Arc<Deeds>,
}

/// What a witness found.
#[derive(Debug)]
pub struct Findings {
    /// Answers that were right.
    pub right: usize,
    /// Requests that got none, or a refusal: no fault of what was served.
    pub failed: usize,
    /// What must never be, each with a name.
    pub wrong: Vec<String>,
    summary: String,
}

impl Witness {
    /// Begins to ask tidegate, by HTTP/2 too where the configuration has [`super::gate::http2_listener`].
    ///
    /// # Panics
    /// Where what is to be pulled can't be pushed.
    pub fn watch(world: &World, gate: &Gate) -> Self {
        Self::watch_at(world, gate.address, gate.http2())
    }

    /// The same of any front door, and of one that speaks HTTP/2 by prior knowledge.
    pub fn watch_at(world: &World, front: SocketAddr, http2: Option<SocketAddr>) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let (seen, people) = (Arc::new(Seen::default()), People::join(world));
        let deeds = world.watch();
        let mut askers: Vec<Asker> =
            people.everybody().map(|who| Asker::new(who, Wire::http1(front), &seen)).collect();
        let writer = Asker::new(people.keeper(), Wire::http1(front), &seen);
        if let Some(http2) = http2 {
            let shared = Wire::http2(http2);
            askers.extend(people.everybody().map(|who| Asker::new(who, shared.clone(), &seen)));
        }
        // A repository each: the registry answers 500 to who removes a manifest while others of its tags come and go.
        let repositories =
            (0..).flat_map(|n| people.everybody().map(move |who| format!("{}/seed-{n}", who.project)));
        let seeds: Vec<_> = repositories
            .take(askers.len())
            .map(|repository| runtime.block_on(writer.seed(repository)))
            .collect();
        let asking = askers.into_iter().zip(seeds).map(|(asker, seed)| runtime.spawn(asker.ask(seed)));
        let askers = asking.collect();
        Self { runtime, seen, askers, people, deeds }
    }

    /// How many requests got no answer or a refusal so far, and the words of the first ones.
    pub fn failures(&self) -> (usize, Vec<String>) {
        self.seen.failures()
    }

    /// How many answers were right so far.
    pub fn right(&self) -> usize {
        self.seen.right()
    }

    /// Ends the load, looks at a core for all that was acknowledged, and asserts that nothing was wrong.
    #[expect(clippy::print_stdout, reason = "what was seen is for whoever runs the tests")]
    pub fn judge(self, core: SocketAddr) {
        let Findings { wrong, summary, right, .. } = self.findings(core);
        println!("  {summary}");
        assert!(right > 0, "the witness saw nothing: {summary}");
        assert!(wrong.is_empty(), "wrongly served:\n{}", wrong.join("\n"));
    }

    /// The same without asserting.
    pub fn findings(self, core: SocketAddr) -> Findings {
        self.seen.stop();
        let Self { runtime, seen, askers, people, deeds } = self;
        runtime.block_on(async {
            for asker in askers {
                let ended = tokio::time::timeout(LAST, asker).await;
                ended.expect("an asker ends").expect("no panic in an asker");
            }
        });
        let keeper = Asker::new(people.keeper(), Wire::http1(core), &Arc::default());
        let missing = runtime.block_on(keeper.missing(&seen));
        let deeds = deeds.all();
        let (twice, wrong) = (twice::twice(&deeds), seen.wrong());
        let (failed, _) = seen.failures();
        let summary = format!(
            "the witness: {seen}; {failed} failed; {} changes recorded, {} done twice; {} acknowledged and not there",
            deeds.len(),
            twice.len(),
            missing.len()
        );
        Findings { right: seen.right(), failed, wrong: [wrong, missing, twice].concat(), summary }
    }
}

/// Two users, a robot and nobody, each with a project that no other one's credential opens; nobody's is public.
struct People(String);

impl People {
    fn join(world: &World) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let people = Self(format!("witness{}", COUNT.fetch_add(1, Ordering::Relaxed)));
        world.add_user(&people.keeper().name, SECRET, false);
        for who in people.everybody() {
            world.add_project(&who.project, who.name.is_empty());
            world.add_member(&who.project, &people.keeper().name, Role::ProjectAdmin);
            if who.is_user {
                world.add_user(&who.name, SECRET, false);
                world.add_member(&who.project, &who.name, Role::ProjectAdmin);
            } else if !who.name.is_empty() {
                world.add_robot(&who.name, SECRET, &[&who.project]);
            }
        }
        people
    }

    fn everybody(&self) -> impl Iterator<Item = Who> {
        let Self(of) = self;
        let who = |name: String, project: &str, is_user| Who {
            name,
            secret: SECRET,
            project: format!("{of}-{project}"),
            is_user,
        };
        [
            who(format!("{of}-a"), "a", true),
            who(format!("{of}-b"), "b", true),
            who(format!("robot${of}"), "robots", false),
            who(String::new(), "everybody", false),
        ]
        .into_iter()
    }

    /// Who pushes what is pulled, and pulls what was acknowledged.
    fn keeper(&self) -> Who {
        let name = format!("{}-keeper", self.0);
        Who { name, secret: SECRET, project: format!("{}-a", self.0), is_user: true }
    }
}
