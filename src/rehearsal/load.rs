//! The load: what clients do, decided by the seed, and the clients that do it.
//!
//! ```text
//! seeded, image   numbers, layers and manifests that a seed decides
//! Plan::of        who does what, and when: the same for both lanes
//! client          the habits of docker, containerd, podman and crane around credentials
//! operation       log-in, pull, push, step by step, over wire
//! program         a real client in the place of those habits
//! site, place     where a lane is, and where its images lie
//! removal         repositories deleted again
//! said            what a client says when it gives up
//! ledger          every operation and how it ended
//! ```

mod client;
mod image;
mod ledger;
mod operation;
mod place;
mod program;
mod removal;
mod said;
mod seeded;
mod site;
mod wire;

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::watch, task::JoinSet};

pub use self::{
    client::Client,
    ledger::{Entry, Kind, Ledger, Operation, Part, Sum},
    place::{Place, Repositories},
    program::{Program, find},
    removal::{Refused, remove},
    site::{Account, Origin, Site},
};
use self::{image::Image, operation::Hold, seeded::Seeded};
use super::harbor::MemoryRegistry;

/// Images that are pulled.
const PULLED: u64 = 8;
/// Clients of each kind that work side by side.
const EACH: usize = 2;

/// Who works, and how busily.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Whose habits, or which program.
    pub clients: Vec<Client>,
    /// Between two operations of one client: this, and up to as much again.
    pub pause: Duration,
    /// When one push of each kind begins that holds its token until it is told to go on; `None` for programs, which
    /// hold nothing.
    pub hold_at: Option<Duration>,
}

/// Who does what, and when. Made of a seed and a duration alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    seed: u64,
    clients: Vec<Vec<Planned>>,
}

/// One operation to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Planned {
    /// Since the load began; later where the one before took longer.
    at: Duration,
    client: Client,
    operation: Operation,
    /// Of its image, or which one it pulls.
    image: u64,
    /// It holds its token until the upgrade is through.
    holds: bool,
}

impl Plan {
    /// The plan of a load that lasts so long.
    pub fn of(seed: u64, lasts: Duration, pace: &Pace) -> Self {
        let workers = pace.clients.iter().cycle().take(pace.clients.len() * EACH);
        let busy = workers
            .zip(1..)
            .map(|(client, number)| busy(*client, Seeded::new(seed, number), pace.pause, lasts));
        let holding = pace.clients.iter().zip(1_000..).filter_map(|(&client, number)| {
            let image = Seeded::new(seed, number).next();
            let at = pace.hold_at?;
            Some(vec![Planned { at, client, operation: Operation::Push, image, holds: true }])
        });
        Self { seed, clients: busy.chain(holding).collect() }
    }

    /// How many clients work side by side.
    pub fn clients(&self) -> usize {
        self.clients.len()
    }

    /// How many bytes of layers it pushes: some 0.2 MB for each layer, two layers an image.
    pub fn pushed_bytes(&self) -> u64 {
        let pushes = self.clients.iter().flatten().filter(|planned| planned.operation == Operation::Push);
        pushes.count() as u64 * 2 * 190_000
    }

    /// How many operations it has.
    pub fn operations(&self) -> usize {
        self.clients.iter().map(Vec::len).sum()
    }
}

/// One client's operations until the load's end.
fn busy(client: Client, mut seeded: Seeded, pause: Duration, lasts: Duration) -> Vec<Planned> {
    let mut pause = || pause + Duration::from_millis(seeded.below(pause.as_millis() as u64));
    let starts: Vec<Duration> =
        std::iter::successors(Some(pause()), |at| Some(*at + pause())).take_while(|at| *at < lasts).collect();
    let operation = |at| {
        let operation = match seeded.below(10) {
            0..2 if client.asks_at_login() => Operation::Login,
            0..6 => Operation::Pull,
            _ => Operation::Push,
        };
        let image = if operation == Operation::Push { seeded.next() } else { seeded.below(PULLED) };
        Planned { at, client, operation, image, holds: false }
    };
    starts.into_iter().map(operation).collect()
}

/// A lane as its clients see it.
#[derive(Debug)]
pub struct Door {
    /// Where they come in.
    pub site: Arc<Site>,
    pub repositories: Repositories,
    /// Decides the bytes of its images: a daemon that both lanes share must not know them from the other one.
    pub salt: u64,
    /// True once those that hold a token are to go on.
    pub upgraded: watch::Receiver<bool>,
    /// Where the lane's images end, if that is ours; what was pushed and looked at is forgotten there.
    pub registry: Option<Arc<MemoryRegistry>>,
    /// One for each client of the plan; none where the built-in habits make the load.
    pub programs: Vec<Program>,
}

/// Pushes what will be pulled.
pub async fn seed(plan: &Plan, door: &Door) -> io::Result<()> {
    for number in 0..PULLED {
        seed_one(plan, door, number).await?;
    }
    Ok(())
}

/// Pushes one image that will be pulled.
pub async fn seed_one(plan: &Plan, door: &Door, number: u64) -> io::Result<()> {
    let image = Image::of(plan.seed.wrapping_add(number), door.salt);
    let place = door.repositories.pulled(number);
    let pushed = operation::push(Client::Crane, &door.site, &place, &image, None).await;
    pushed
        .map_err(|said| io::Error::other(format!("{place} can't be pushed to {}: {said}", door.site.origin)))
}

/// Plays the plan; every operation has ended when it returns.
pub async fn run(plan: &Plan, door: &Arc<Door>, ledger: &Arc<Ledger>) {
    let began = Instant::now();
    let mut clients = JoinSet::new();
    for (number, operations) in plan.clients.clone().into_iter().enumerate() {
        let (door, ledger) = (Arc::clone(door), Arc::clone(ledger));
        clients.spawn(async move {
            for planned in operations {
                tokio::time::sleep_until((began + planned.at).into()).await;
                ledger.note(play(&planned, &door, number).await);
            }
        });
    }
    while let Some(ended) = clients.join_next().await {
        if let Err(panicked) = ended {
            std::panic::resume_unwind(panicked.into_panic());
        }
    }
}

async fn play(planned: &Planned, door: &Door, number: usize) -> Entry {
    let &Planned { client, operation, .. } = planned;
    let began = Instant::now();
    let (ended, waited) = match (door.programs.get(number), operation) {
        (Some(program), _) => (by_program(planned, door, (program, number as u64)).await, Duration::ZERO),
        (None, Operation::Login) => (operation::login(client, &door.site).await, Duration::ZERO),
        (None, Operation::Pull) => {
            let place = door.repositories.pulled(planned.image);
            (operation::pull(client, &door.site, &place).await, Duration::ZERO)
        }
        (None, Operation::Push) => push(planned, door).await,
    };
    Entry { client, operation, took: began.elapsed().saturating_sub(waited), failure: ended.err() }
}

async fn by_program(
    planned: &Planned,
    door: &Door,
    (program, number): (&Program, u64),
) -> Result<(), String> {
    let clients = door.programs.len().max(1) as u64;
    match planned.operation {
        Operation::Login => program.login().await,
        Operation::Pull => {
            // Each its own ones: clients that share a daemon must not find there what another one has pulled.
            let own = planned.image / clients * clients + number;
            program.pull(&door.repositories.pulled(own % PULLED)).await
        }
        Operation::Push => {
            let place = door.repositories.pushed(planned.image);
            let ended = program.push(&place, &Image::of(planned.image, door.salt)).await;
            let taken = door.registry.as_ref().is_none_or(|r| r.tag(&place.repository, &place.tag).is_some());
            forget(door, &place);
            ended.and(if taken { Ok(()) } else { Err("pushed, and no tag leads to it".to_owned()) })
        }
    }
}

/// How a push ended, and how long it waited with its token in hand.
async fn push(planned: &Planned, door: &Door) -> (Result<(), String>, Duration) {
    let place = door.repositories.pushed(planned.image);
    let image = Image::of(planned.image, door.salt);
    let mut hold = planned.holds.then(|| Hold::until(door.upgraded.clone()));
    let ended = operation::push(planned.client, &door.site, &place, &image, hold.as_mut()).await;
    forget(door, &place);
    (ended, hold.map_or(Duration::ZERO, |hold| hold.waited))
}

fn forget(door: &Door, place: &Place) {
    if let Some(registry) = &door.registry {
        registry.forget(&place.repository);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(seed: u64) -> Plan {
        let pace = Pace {
            clients: Client::ALL.to_vec(),
            pause: Duration::from_millis(250),
            hold_at: Some(Duration::from_secs(3)),
        };
        Plan::of(seed, Duration::from_secs(20), &pace)
    }

    #[test]
    fn the_same_seed_is_the_same_load() {
        assert_eq!(plan(1), plan(1));
        assert_ne!(plan(1), plan(2));
    }

    #[test]
    fn every_client_does_all_that_it_can_and_one_push_of_each_holds_its_token() {
        let plan = plan(1);
        let all: Vec<&Planned> = plan.clients.iter().flatten().collect();
        let does = |client, operation| all.iter().any(|p| p.client == client && p.operation == operation);
        for client in Client::ALL {
            assert!(does(client, Operation::Pull) && does(client, Operation::Push), "{client}");
            assert_eq!(does(client, Operation::Login), client.asks_at_login(), "{client}");
            assert_eq!(all.iter().filter(|p| p.client == client && p.holds).count(), 1);
        }
        assert!(all.iter().all(|p| p.at < Duration::from_secs(20)));
        assert_eq!(plan.operations(), all.len());
    }
}
