//! The rehearsal from curtain to curtain: both lanes set, the same load on each, the upgrade in its middle.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::{
    load::{self, Client, Door, Ledger, Pace, Plan, Program, Repositories, Site},
    report::{ByProgram, Happened, Report},
    stage::{Folder, Keys, Stage, StartGate, VERSIONS},
    story::{self, Scheduled, Step},
};

/// The shortest load in which every step of the upgrade meets some clients.
pub const SHORTEST: Duration = Duration::from_secs(3);
/// How much longer than planned the lanes may take, on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(25);
/// The same where programs make the load, each of whose operations costs processes and files.
const PATIENCE_WITH_PROGRAMS: Duration = Duration::from_mins(3);
/// Between two looks at the lanes.
const LOOK: Duration = Duration::from_millis(100);

/// When the pushes begin that hold a token of the former key until only the new one is served.
const HOLD: f64 = 0.10;
/// Between two operations of one of the built-in clients, and of a program.
const PAUSE: Duration = Duration::from_millis(250);
const PAUSE_OF_PROGRAMS: Duration = Duration::from_millis(750);

/// Seed and length of the load, and who makes it.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub seed: u64,
    pub duration: Duration,
    /// In the place of the built-in habits.
    pub program: Option<Client>,
}

/// What is going on, for whoever watches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scene {
    pub elapsed: Duration,
    /// Operations that each lane will have.
    pub planned: usize,
    /// What happens to Harbor now, in both lanes.
    pub doing: &'static str,
    /// Operations ended and failed, by lane: first directly, then through tidegate.
    pub lanes: Vec<(usize, usize)>,
}

/// What was found, and the lanes, which stand until they are struck.
pub struct Played {
    pub report: Report,
    stages: [Stage; 2],
    // Gone when the stages are.
    _folder: Folder,
}

impl Played {
    /// Where clients come in: directly, and through tidegate.
    pub fn fronts(&self) -> [SocketAddr; 2] {
        [self.stages[0].front, self.stages[1].front]
    }

    /// Ends both lanes.
    pub async fn strike(self) -> io::Result<Report> {
        let Self { report, stages, _folder } = self;
        for stage in stages {
            stage.strike().await?;
        }
        Ok(report)
    }
}

/// Plays it all. `watch` is told several times a second.
pub async fn play(options: Options, start: StartGate, watch: &mut dyn FnMut(&Scene)) -> io::Result<Played> {
    if options.duration < SHORTEST {
        return Err(io::Error::other(format!("a load of less than {SHORTEST:?} shows nothing")));
    }
    let folder = Folder::new()?;
    let client = match options.program {
        Some(client) => Some(ByProgram { name: client, version: load::find(client, folder.path()).await? }),
        None => None,
    };
    let keys = Arc::new(Keys::generate()?);
    let plan = Plan::of(options.seed, options.duration, &pace(options));
    let story = story::story(story::PLAYED);
    let direct = Lane::set(&folder, "direct", &keys, (&plan, options), None);
    let through = Lane::set(&folder, "tidegate", &keys, (&plan, options), Some(start));
    let (direct, through) = tokio::try_join!(direct, through)?;
    let ledgers = [Arc::clone(&direct.ledger), Arc::clone(&through.ledger)];
    let (tell, now) = watch::channel(story::AT_FIRST);

    let played = async {
        tokio::try_join!(
            direct.play(&plan, options, &story, None),
            through.play(&plan, options, &story, Some(&tell))
        )
    };
    let patience = if client.is_some() { PATIENCE_WITH_PROGRAMS } else { PATIENCE };
    let limited = tokio::time::timeout(options.duration + patience, played);
    let began = Instant::now();
    let look = || Scene {
        elapsed: began.elapsed(),
        planned: plan.operations(),
        doing: *now.borrow(),
        lanes: ledgers.iter().map(|ledger| ledger.counts()).collect(),
    };
    let ended = watched(limited, || watch(&look())).await;
    let ended =
        ended.map_err(|_| io::Error::other("this machine is too busy: the load didn't end in time"))?;
    let ((direct, direct_stage), (through_tidegate, stage)) = ended?;
    let report = Report {
        seed: options.seed,
        duration_seconds: options.duration.as_secs_f64(),
        upgraded_from: VERSIONS[0].to_string(),
        upgraded_to: VERSIONS[1].to_string(),
        client,
        story: story.iter().map(|scheduled| happened(scheduled, options.duration)).collect(),
        passed: false,
        direct,
        through_tidegate,
        tidegate: stage.counted().await?,
    };
    Ok(Played { report: report.judged(), stages: [direct_stage, stage], _folder: folder })
}

/// Awaits `work`, and shows what is going on meanwhile.
pub(super) async fn watched<T>(work: impl Future<Output = T>, mut show: impl FnMut()) -> T {
    let mut work = std::pin::pin!(work);
    let mut look = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            ended = &mut work => return ended,
            _ = look.tick() => show(),
        }
    }
}

fn pace(options: Options) -> Pace {
    match options.program {
        Some(client) => Pace { clients: vec![client], pause: PAUSE_OF_PROGRAMS, hold_at: None },
        None => Pace {
            clients: Client::ALL.to_vec(),
            pause: PAUSE,
            hold_at: Some(options.duration.mul_f64(HOLD)),
        },
    }
}

fn happened(scheduled: &Scheduled, lasts: Duration) -> Happened {
    Happened { at_seconds: lasts.mul_f64(scheduled.share).as_secs_f64(), what: scheduled.name }
}

/// One lane on its stage.
struct Lane {
    stage: Stage,
    door: Arc<Door>,
    tell_upgraded: watch::Sender<bool>,
    ledger: Arc<Ledger>,
}

impl Lane {
    /// A stage, with the images that will be pulled and, where there are any, its programs.
    async fn set(
        folder: &Folder,
        name: &str,
        keys: &Arc<Keys>,
        (plan, options): (&Plan, Options),
        start: Option<StartGate>,
    ) -> io::Result<Self> {
        let salt = u64::from(start.is_some());
        let own = folder.path().join(name);
        let stage = Stage::set(own.clone(), Arc::clone(keys), start).await?;
        let site = Arc::new(Site::own(stage.front));
        let mut programs = Vec::new();
        if let Some(client) = options.program {
            for number in 0..plan.clients() {
                let home = own.join(format!("client-{number}"));
                programs.push(Program::start(client, &site.origin, home).await?);
            }
        }
        let (tell_upgraded, upgraded) = watch::channel(false);
        let registry = Some(Arc::clone(&stage.registry));
        let door = Door { site, repositories: Repositories::OneEach, salt, upgraded, registry, programs };
        load::seed(plan, &door).await?;
        Ok(Self { stage, door: Arc::new(door), tell_upgraded, ledger: Arc::default() })
    }

    /// Load and story side by side.
    async fn play(
        self,
        plan: &Plan,
        options: Options,
        story: &[Scheduled],
        tell: Option<&watch::Sender<&'static str>>,
    ) -> io::Result<(load::Sum, Stage)> {
        let Self { mut stage, door, tell_upgraded, ledger } = self;
        let story = async {
            let began = Instant::now();
            for scheduled in story {
                let at = began + options.duration.mul_f64(scheduled.share);
                tokio::time::sleep_until(at.into()).await;
                if let Some(tell) = tell {
                    tell.send_replace(scheduled.name);
                }
                take(&mut stage, scheduled.step).await?;
                tell_upgraded.send_replace(stage.is_upgraded());
            }
            io::Result::Ok(())
        };
        let load = async {
            load::run(plan, &door, &ledger).await;
            io::Result::Ok(())
        };
        tokio::try_join!(load, story)?;
        for program in &door.programs {
            program.end().await;
        }
        Ok((ledger.sum(), stage))
    }
}

async fn take(stage: &mut Stage, step: Step) -> io::Result<()> {
    match step {
        Step::Join => stage.join().await,
        Step::Leave => stage.leave().await,
        Step::Restart => stage.restart().await,
        Step::Break => stage.break_key(),
        Step::Mend => stage.mend_key(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn u8_k9_a_lane_loses_to_each_trouble_and_is_well_afterwards() {
        let options = Options { seed: 1, duration: Duration::from_secs(6), program: None };
        let folder = Folder::new().expect("a folder");
        let keys = Arc::new(Keys::generate().expect("keys"));
        let plan = Plan::of(options.seed, options.duration, &pace(options));
        // No upgrade: what is lost is lost to the troubles alone.
        let of = |share, step| Scheduled { share, step, name: "" };
        let story = [
            of(0.10, Step::Join),
            of(0.11, Step::Leave),
            of(0.12, Step::Leave),
            of(0.35, Step::Join),
            of(0.40, Step::Restart),
            of(0.70, Step::Break),
            of(0.90, Step::Mend),
        ];
        let lane = Lane::set(&folder, "direct", &keys, (&plan, options), None).await.expect("a stage");
        let door = Arc::clone(&lane.door);
        let (sum, stage) = lane.play(&plan, options, &story, None).await.expect("it is played");
        let lost = |words: &str| sum.failures.iter().any(|kind| kind.words.contains(words));
        assert!(lost("502 Bad Gateway"), "{:?}", sum.failures);
        assert!(lost("500 Internal Server Error"), "{:?}", sum.failures);
        load::seed(&plan, &door).await.expect("pushes succeed afterwards");
        stage.strike().await.expect("it ends");
    }
}
