//! The rehearsal from curtain to curtain: both lanes set, the same load on each, the upgrade in its middle.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::{
    load::{self, Door, Ledger, Plan},
    report::Report,
    stage::{Folder, Keys, Stage, StartGate, VERSIONS},
};

/// The shortest load in which every step of the upgrade meets some clients.
pub const SHORTEST: Duration = Duration::from_secs(3);
/// How much longer than planned the lanes may take, on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(25);
/// Between two looks at the lanes.
const LOOK: Duration = Duration::from_millis(100);

/// One step of the upgrade, at its share of the load's time.
#[derive(Clone, Copy, Debug)]
enum Step {
    Join,
    Leave,
}

/// A replica with the new key joins before one with the former leaves, twice.
const STEPS: [(f64, Step); 4] =
    [(0.20, Step::Join), (0.35, Step::Leave), (0.50, Step::Join), (0.65, Step::Leave)];
/// When the pushes begin that hold a token of the former key until only the new one is served.
const HOLD: f64 = 0.10;

/// Seed and length of the load.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub seed: u64,
    pub duration: Duration,
}

/// What is going on, for whoever watches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scene {
    pub elapsed: Duration,
    /// Operations that each lane will have.
    pub planned: usize,
    /// What Harbor serves now, in both lanes.
    pub act: Act,
    /// Operations ended and failed, directly and through tidegate.
    pub lanes: [(usize, usize); 2],
}

/// Which keys Harbor's replicas hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Act {
    #[default]
    FormerKey,
    BothKeys,
    NewKey,
}

/// Plays it all. `watch` is told several times a second.
pub async fn play(options: Options, start: StartGate, watch: &mut dyn FnMut(&Scene)) -> io::Result<Report> {
    if options.duration < SHORTEST {
        return Err(io::Error::other(format!("a load of less than {SHORTEST:?} shows nothing")));
    }
    let folder = Folder::new()?;
    let keys = Arc::new(Keys::generate()?);
    let plan = Plan::of(options.seed, options.duration, options.duration.mul_f64(HOLD));
    let direct = Lane::set(&folder, "direct", &keys, &plan, None);
    let through = Lane::set(&folder, "tidegate", &keys, &plan, Some(start));
    let (direct, through) = tokio::try_join!(direct, through)?;
    let lanes = [Arc::clone(&direct.ledger), Arc::clone(&through.ledger)];
    let (act, now) = watch::channel(Act::FormerKey);

    let played = async {
        tokio::try_join!(direct.play(&plan, options, None), through.play(&plan, options, Some(&act)))
    };
    let limited = tokio::time::timeout(options.duration + PATIENCE, played);
    let mut limited = std::pin::pin!(limited);
    let began = Instant::now();
    let mut look = tokio::time::interval(LOOK);
    let ended = loop {
        tokio::select! {
            ended = &mut limited => break ended,
            _ = look.tick() => {}
        }
        let lanes = [lanes[0].counts(), lanes[1].counts()];
        watch(&Scene { elapsed: began.elapsed(), planned: plan.operations(), act: *now.borrow(), lanes });
    };
    let ended =
        ended.map_err(|_| io::Error::other("this machine is too busy: the load didn't end in time"))?;
    let ((direct, _), (through_tidegate, tidegate)) = ended?;
    let report = Report {
        seed: options.seed,
        duration_seconds: options.duration.as_secs_f64(),
        upgraded_from: VERSIONS[0].to_string(),
        upgraded_to: VERSIONS[1].to_string(),
        passed: false,
        direct,
        through_tidegate,
        tidegate,
    };
    Ok(report.judged())
}

/// One lane on its stage.
struct Lane {
    stage: Stage,
    ledger: Arc<Ledger>,
}

impl Lane {
    /// A stage, with the images that will be pulled.
    async fn set(
        folder: &Folder,
        name: &str,
        keys: &Arc<Keys>,
        plan: &Plan,
        start: Option<StartGate>,
    ) -> io::Result<Self> {
        let stage = Stage::set(folder.path().join(name), Arc::clone(keys), start).await?;
        load::seed(plan, stage.front).await?;
        Ok(Self { stage, ledger: Arc::default() })
    }

    /// Load and upgrade side by side, then the end of the stage.
    async fn play(
        self,
        plan: &Plan,
        options: Options,
        tell: Option<&watch::Sender<Act>>,
    ) -> io::Result<(load::Sum, super::stage::Gated)> {
        let Self { mut stage, ledger } = self;
        let (tell_upgraded, upgraded) = watch::channel(false);
        let door = Door { front: stage.front, upgraded, registry: Arc::clone(&stage.registry) };
        let upgrade = async {
            upgrade(&mut stage, options.duration, tell).await?;
            tell_upgraded.send_replace(true);
            io::Result::Ok(())
        };
        let load = async {
            load::run(plan, &door, &ledger).await;
            io::Result::Ok(())
        };
        tokio::try_join!(load, upgrade)?;
        Ok((ledger.sum(), stage.strike().await?))
    }
}

async fn upgrade(stage: &mut Stage, lasts: Duration, tell: Option<&watch::Sender<Act>>) -> io::Result<()> {
    let began = Instant::now();
    for (number, (share, step)) in STEPS.into_iter().enumerate() {
        tokio::time::sleep_until((began + lasts.mul_f64(share)).into()).await;
        match step {
            Step::Join => stage.join().await?,
            Step::Leave => stage.leave().await?,
        }
        let act = if number + 1 == STEPS.len() { Act::NewKey } else { Act::BothKeys };
        if let Some(tell) = tell {
            tell.send_replace(act);
        }
    }
    Ok(())
}
