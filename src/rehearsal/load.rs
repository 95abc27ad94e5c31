//! The load: what clients do, decided by the seed, and the clients that do it.
//!
//! ```text
//! seeded, image   numbers, layers and manifests that a seed decides
//! Plan::of        who does what, and when: the same for both lanes
//! client          the habits of docker, containerd, podman and crane around credentials
//! operation       log-in, pull, push, step by step, over wire
//! said            what a client says when it gives up
//! ledger          every operation and how it ended
//! ```

mod client;
mod image;
mod ledger;
mod operation;
mod said;
mod seeded;
mod wire;

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::watch, task::JoinSet};

pub use self::{
    client::Client,
    ledger::{Entry, Kind, Ledger, Operation, Part, Sum},
};
use self::{image::Image, operation::Hold, seeded::Seeded};
use super::harbor::MemoryRegistry;

/// Images that are pulled.
const PULLED: u64 = 8;
/// Clients of each kind that work side by side.
const EACH: usize = 2;
/// Between two operations of one client: this, and up to as much again.
const PAUSE: Duration = Duration::from_millis(250);

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
    /// The plan of a load that lasts so long. One push of each kind of client begins `hold_at` and holds its token.
    pub fn of(seed: u64, lasts: Duration, hold_at: Duration) -> Self {
        let busy = (0..Client::ALL.len() * EACH).map(|number| {
            let client = Client::ALL[number % Client::ALL.len()];
            busy(client, Seeded::new(seed, number as u64 + 1), lasts)
        });
        let holding = Client::ALL.into_iter().zip(1_000..).map(|(client, number)| {
            let image = Seeded::new(seed, number).next();
            vec![Planned { at: hold_at, client, operation: Operation::Push, image, holds: true }]
        });
        Self { seed, clients: busy.chain(holding).collect() }
    }

    /// How many operations it has.
    pub fn operations(&self) -> usize {
        self.clients.iter().map(Vec::len).sum()
    }
}

/// One client's operations until the load's end.
fn busy(client: Client, mut seeded: Seeded, lasts: Duration) -> Vec<Planned> {
    let mut pause = || PAUSE + Duration::from_millis(seeded.below(PAUSE.as_millis() as u64));
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

/// Where a lane's clients come in, and what tells those that hold a token to go on.
#[derive(Clone, Debug)]
pub struct Door {
    /// Its front.
    pub front: SocketAddr,
    /// True once only the new key is served.
    pub upgraded: watch::Receiver<bool>,
    /// Where the lane's images end; what was pushed and looked at is forgotten there.
    pub registry: Arc<MemoryRegistry>,
}

/// Pushes what will be pulled.
pub async fn seed(plan: &Plan, front: SocketAddr) -> io::Result<()> {
    for number in 0..PULLED {
        let image = Image::of(plan.seed.wrapping_add(number));
        let pushed = operation::push(Client::Crane, front, &pulled(number), &image, None).await;
        pushed.map_err(io::Error::other)?;
    }
    Ok(())
}

/// Plays the plan; every operation has ended when it returns.
pub async fn run(plan: &Plan, door: &Door, ledger: &Arc<Ledger>) {
    let began = Instant::now();
    let mut clients = JoinSet::new();
    for operations in plan.clients.clone() {
        let (door, ledger) = (door.clone(), Arc::clone(ledger));
        clients.spawn(async move {
            for planned in operations {
                tokio::time::sleep_until((began + planned.at).into()).await;
                ledger.note(play(&planned, &door).await);
            }
        });
    }
    while let Some(ended) = clients.join_next().await {
        if let Err(panicked) = ended {
            std::panic::resume_unwind(panicked.into_panic());
        }
    }
}

async fn play(planned: &Planned, door: &Door) -> Entry {
    let &Planned { client, operation, .. } = planned;
    let began = Instant::now();
    let (ended, waited) = match operation {
        Operation::Login => (operation::login(client, door.front).await, Duration::ZERO),
        Operation::Pull => {
            (operation::pull(client, door.front, &pulled(planned.image)).await, Duration::ZERO)
        }
        Operation::Push => push(planned, door).await,
    };
    Entry { client, operation, took: began.elapsed().saturating_sub(waited), failure: ended.err() }
}

/// How a push ended, and how long it waited with its token in hand.
async fn push(planned: &Planned, door: &Door) -> (Result<(), String>, Duration) {
    let repository = format!("priv/new-{:016x}", planned.image);
    let image = Image::of(planned.image);
    let mut hold = planned.holds.then(|| Hold::until(door.upgraded.clone()));
    let ended = operation::push(planned.client, door.front, &repository, &image, hold.as_mut()).await;
    door.registry.forget(&repository);
    (ended, hold.map_or(Duration::ZERO, |hold| hold.waited))
}

fn pulled(number: u64) -> String {
    format!("priv/base-{number}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(seed: u64) -> Plan {
        Plan::of(seed, Duration::from_secs(20), Duration::from_secs(3))
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
