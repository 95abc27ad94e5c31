//! `tidegate rehearse`: the rehearsal with this very program in its lane, or the same load elsewhere.

mod gate;
pub mod order;

use std::io::IsTerminal as _;

use anyhow::{Context as _, anyhow};
use serde::Serialize;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use self::order::{Kind, Order};
use super::cli::output;
use crate::rehearsal::{
    against,
    play::{self, Scene},
    report::Report,
    table::{AgainstTable, BOTH, Live, Stay, Table},
};

/// Plays, shows, and says whether it passed.
pub fn run(order: &Order) -> anyhow::Result<bool> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let (count, interrupts) = watch::channel(0);
        let played = async {
            match &order.kind {
                Kind::InABox { options, stay } => in_a_box(*options, *stay, order.json, &interrupts).await,
                Kind::Against(options) => on_theirs(options, order.json, interrupts.clone()).await,
            }
        };
        tokio::select! {
            played = played => played,
            error = count_interrupts(&count) => Err(error),
        }
    })
}

/// A report as a script reads it, with the fronts of lanes that stay.
#[derive(Serialize)]
struct Told<'a> {
    #[serde(flatten)]
    report: &'a Report,
    stays: Option<Stay>,
}

async fn in_a_box(
    options: play::Options,
    stay: bool,
    json: bool,
    interrupts: &watch::Receiver<usize>,
) -> anyhow::Result<bool> {
    let mut live = Live::new(&BOTH, options.duration, output::complain);
    let mut watch = |scene: &Scene| live.show(scene);
    let played = tokio::select! {
        played = play::play(options, |wanted| Box::pin(gate::start(wanted)), &mut watch) => {
            played.context("the rehearsal could not be played")
        }
        () = against::interrupted(interrupts, 1) => Err(anyhow!("interrupted")),
    };
    live.end();
    let played = played?;
    let [direct, through_tidegate] = played.fronts();
    let stays = stay.then_some(Stay { direct, through_tidegate });
    let report = &played.report;
    tell(json, &Told { report, stays }, &Table { report, colours: in_colours() })?;
    if let Some(stays) = stays {
        output::complain(&stays.to_string());
        against::interrupted(interrupts, 1).await;
    }
    Ok(played.strike().await?.passed)
}

async fn on_theirs(
    options: &against::Options,
    json: bool,
    interrupts: watch::Receiver<usize>,
) -> anyhow::Result<bool> {
    let megabytes = options.pushed_bytes() / 1_000_000;
    output::complain(&format!(
        "Pushes about {megabytes} MB in all, and deletes it at the end; Harbor has the room back\n\
         after its next garbage collection. Ctrl-C ends the load and deletes all the same.\n",
    ));
    let names: &[&str] = if options.direct.is_some() { &["directly", "--against"] } else { &["--against"] };
    let mut live = Live::new(names, options.duration, output::complain);
    let played = against::run(options, interrupts, &mut |scene| live.show(scene)).await;
    live.end();
    let report = played.context("the load could not be played")?;
    tell(json, &report, &AgainstTable { report: &report, colours: in_colours() })?;
    Ok(report.passed)
}

fn tell(json: bool, report: &impl Serialize, table: &impl ToString) -> anyhow::Result<()> {
    let text = if json { serde_json::to_string_pretty(report)? + "\n" } else { table.to_string() };
    if output::print(&text) == 0 { Ok(()) } else { Err(anyhow!("the report could not be written")) }
}

fn in_colours() -> bool {
    std::io::stdout().is_terminal()
}

/// Counts SIGINT and SIGTERM; returns only where they can't be listened to.
async fn count_interrupts(count: &watch::Sender<usize>) -> anyhow::Error {
    let (mut interrupt, mut terminate) =
        match (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) {
            (Ok(interrupt), Ok(terminate)) => (interrupt, terminate),
            (Err(error), _) | (_, Err(error)) => {
                return anyhow!(error).context("signals can't be listened to");
            }
        };
    loop {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        count.send_modify(|count| *count += 1);
    }
}
