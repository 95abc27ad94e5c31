//! The same load on a Harbor of the operator's, while the operator upgrades it. It pushes into repositories of its own,
//! and deletes them at the end, whatever the end is.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::{
    harbor::random_name,
    load::{self, Client, Door, Ledger, Pace, Plan, Repositories, Site},
    play::{SHORTEST, Scene, watched},
    report::{AgainstReport, Left},
};

/// Between two operations of one client: a real Harbor has other work too, and keeps layers until its next garbage
/// collection.
const PAUSE: Duration = Duration::from_secs(1);
/// When the pushes begin that hold their token, and when they go on, as shares of the load.
const HOLD: [f64; 2] = [0.10, 0.80];
/// The longest that a token is held: it lives 30 min (K6).
const LONGEST_HOLD: Duration = Duration::from_mins(20);
/// How much longer than planned the load may take: requests wait for an endpoint at the end too.
const PATIENCE: Duration = Duration::from_mins(2);
/// How long deleting is tried, by repository, while Harbor is not there.
const LONGEST_REMOVAL: Duration = Duration::from_secs(30);
/// Between two tries; and before the second round, for what a push that was cut may have finished meanwhile.
const BETWEEN: Duration = Duration::from_secs(1);

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Options {
    pub seed: u64,
    pub duration: Duration,
    /// Where images are pushed to; at least one.
    pub projects: Vec<String>,
    /// Where the lane that counts comes in.
    pub site: Arc<Site>,
    /// Where a second one does, to compare with.
    pub direct: Option<Arc<Site>>,
}

/// One lane.
struct Lane {
    door: Arc<Door>,
    repositories: Vec<String>,
    ledger: Arc<Ledger>,
}

/// How a load ended.
enum Ended {
    InTime,
    Interrupted,
}

impl Options {
    fn plan(&self) -> Plan {
        let clients = Client::ALL.to_vec();
        let hold_at = Some(self.duration.mul_f64(HOLD[0]));
        Plan::of(self.seed, self.duration, &Pace { clients, pause: PAUSE, hold_at })
    }

    /// How many bytes of layers all lanes push together.
    pub fn pushed_bytes(&self) -> u64 {
        self.plan().pushed_bytes() * if self.direct.is_some() { 2 } else { 1 }
    }

    /// The second lane, then the one that counts.
    fn lanes(&self, upgraded: &watch::Receiver<bool>) -> Vec<Lane> {
        let lane = |site: &Arc<Site>| {
            let run: String = random_name().chars().filter(|c| *c != '-').take(16).collect();
            let repositories: Vec<String> =
                self.projects.iter().map(|project| format!("{project}/tidegate-rehearsal-{run}")).collect();
            let door = Door {
                site: Arc::clone(site),
                repositories: Repositories::Shared(repositories.clone()),
                salt: 0,
                upgraded: upgraded.clone(),
                registry: None,
                programs: Vec::new(),
            };
            Lane { door: Arc::new(door), repositories, ledger: Arc::default() }
        };
        self.direct.iter().chain([&self.site]).map(lane).collect()
    }
}

/// Plays it. `interrupts` counts how often the operator wanted it to end: the first time the load ends, the second time
/// the deleting. `watch` is told several times a second.
pub async fn run(
    options: &Options,
    interrupts: watch::Receiver<usize>,
    watch: &mut dyn FnMut(&Scene),
) -> io::Result<AgainstReport> {
    if options.duration < SHORTEST {
        return Err(io::Error::other(format!("a load of less than {SHORTEST:?} shows nothing")));
    }
    let plan = options.plan();
    let (go_on, upgraded) = watch::channel(false);
    let lanes = options.lanes(&upgraded);
    let began = Instant::now();
    let mut show = |doing| {
        let lanes = lanes.iter().map(|lane| lane.ledger.counts()).collect();
        watch(&Scene { elapsed: began.elapsed(), planned: plan.operations(), doing, lanes });
    };
    let prepared = tokio::select! {
        prepared = watched(prepare(&plan, &lanes), || show("trying push, pull and delete")) => prepared.map(|()| Ended::InTime),
        () = interrupted(&interrupts, 1) => Ok(Ended::Interrupted),
    };
    let ended = match prepared {
        Ok(Ended::InTime) => tokio::select! {
            ended = watched(play(&plan, &lanes, options, &go_on), || show("the load runs: upgrade now")) => {
                ended.map(|()| Ended::InTime)
            }
            () = interrupted(&interrupts, 1) => Ok(Ended::Interrupted),
        },
        other => other,
    };
    let not_deleted = watched(clean(&lanes, &interrupts), || show("deleting what was pushed")).await;
    let mut sums = lanes.iter().map(|lane| lane.ledger.sum());
    let direct = options.direct.as_ref().and_then(|_| sums.next());
    let report = AgainstReport {
        seed: options.seed,
        duration_seconds: options.duration.as_secs_f64(),
        against_url: options.site.origin.to_string(),
        direct_url: options.direct.as_ref().map(|site| site.origin.to_string()),
        projects: options.projects.clone(),
        passed: false,
        interrupted: matches!(ended, Ok(Ended::Interrupted)),
        against: sums.next().unwrap_or_default(),
        direct,
        not_deleted,
    };
    match ended {
        Ok(_) => Ok(report.judged()),
        Err(error) => Err(with_leavings(&error, &report.not_deleted)),
    }
}

/// Shows before the load that it can be undone: an image is pushed to each project and its repository deleted. Then
/// pushes what will be pulled.
async fn prepare(plan: &Plan, lanes: &[Lane]) -> io::Result<()> {
    for lane in lanes {
        for (repository, number) in lane.repositories.iter().zip(0..) {
            load::seed_one(plan, &lane.door, number).await?;
            load::remove(&lane.door.site, repository).await.map_err(|refused| {
                let why = format!("{} is pushed and can't be deleted again ({})", repository, refused.why);
                io::Error::other(why + ": give the user the right to delete repositories")
            })?;
        }
        load::seed(plan, &lane.door).await?;
    }
    Ok(())
}

async fn play(plan: &Plan, lanes: &[Lane], options: &Options, go_on: &watch::Sender<bool>) -> io::Result<()> {
    let [begin, end] = HOLD.map(|share| options.duration.mul_f64(share));
    let hold = async {
        tokio::time::sleep(end.min(begin + LONGEST_HOLD)).await;
        go_on.send_replace(true);
    };
    let load = async {
        let runs = lanes.iter().map(|lane| load::run(plan, &lane.door, &lane.ledger));
        futures_util::future::join_all(runs).await;
    };
    let both = async { tokio::join!(hold, load) };
    let ended = tokio::time::timeout(options.duration + PATIENCE, both).await;
    ended.map(drop).map_err(|_| io::Error::other("the load didn't end in time: Harbor is too slow for it"))
}

/// Deletes the repositories of all lanes, those that went a second time; what is left.
async fn clean(lanes: &[Lane], interrupts: &watch::Receiver<usize>) -> Vec<Left> {
    let sites: Vec<&Arc<Site>> = lanes.iter().map(|lane| &lane.door.site).collect();
    let all = lanes.iter().enumerate().flat_map(|(number, lane)| {
        let own_first: Vec<_> = sites.iter().cycle().skip(number).take(sites.len()).copied().collect();
        lane.repositories.iter().map(move |repository| (own_first.clone(), repository))
    });
    let (mut todo, mut left): (Vec<_>, _) = (all.collect(), Vec::new());
    for pause in [Duration::ZERO, BETWEEN] {
        tokio::time::sleep(pause).await;
        let mut gone = Vec::new();
        for (sites, repository) in todo {
            let removed = tokio::select! {
                removed = remove(&sites, repository) => removed,
                () = interrupted(interrupts, 2) => Err("interrupted".to_owned()),
            };
            match removed {
                Ok(()) => gone.push((sites, repository)),
                Err(why) => left.push(Left { repository: repository.clone(), why }),
            }
        }
        todo = gone;
    }
    left
}

/// Deletes one, by any of the doors, while that may be of use.
async fn remove(doors: &[&Arc<Site>], repository: &str) -> Result<(), String> {
    let until = Instant::now() + LONGEST_REMOVAL;
    loop {
        let mut refusals = Vec::new();
        for door in doors {
            match load::remove(door, repository).await {
                Ok(()) => return Ok(()),
                Err(refused) => refusals.push(refused),
            }
        }
        let is_final = refusals.iter().all(|refused| refused.is_final);
        if is_final || Instant::now() > until {
            return Err(refusals.into_iter().next().map(|refused| refused.why).unwrap_or_default());
        }
        tokio::time::sleep(BETWEEN).await;
    }
}

/// Returns when the operator has wanted the end so often.
pub async fn interrupted(interrupts: &watch::Receiver<usize>, times: usize) {
    let mut interrupts = interrupts.clone();
    if interrupts.wait_for(|count| *count >= times).await.is_err() {
        // Nobody is left who could want it.
        std::future::pending::<()>().await;
    }
}

fn with_leavings(error: &io::Error, left: &[Left]) -> io::Error {
    let names: Vec<&str> = left.iter().map(|left| left.repository.as_str()).collect();
    if names.is_empty() {
        return io::Error::other(error.to_string());
    }
    io::Error::other(format!("{error}; not deleted: {}", names.join(", ")))
}
