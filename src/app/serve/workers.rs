//! The worker threads: each with a runtime, a pool and counters of its own, given sockets in turn.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tokio::{
    net::TcpStream,
    sync::{mpsc, watch},
    task::LocalSet,
};

use crate::{
    app::config::Settings,
    edges::{
        listener::{Place, Places},
        pool,
        task::Bound,
        telemetry::{access_log, counters::Counters},
    },
    flow::{
        connection::{self, Bounds, Door},
        context::{Shared, Worker},
        outages,
        refused::Checks,
    },
};

/// How often a worker hands over its log lines and closes idle upstream connections.
const HOUSEKEEPING: Duration = Duration::from_millis(100);

/// From the last connection accepted to the closing of idle ones.
const IDLE_CLOSED_AFTER: Duration = Duration::from_secs(1);

type Handed = (usize, std::net::TcpStream, SocketAddr, Place);

/// All workers.
pub(super) struct Workers {
    inboxes: Vec<mpsc::UnboundedSender<Handed>>,
    threads: Vec<thread::JoinHandle<()>>,
    counters: Vec<Arc<Counters>>,
}

impl Workers {
    /// Starts one for each core that we may use.
    pub(super) fn start(
        settings: &Settings,
        shared: &Arc<Shared>,
        doors: &[Arc<Door>],
        writer: Option<&access_log::Writer>,
        draining: &watch::Receiver<bool>,
    ) -> anyhow::Result<Self> {
        let count = thread::available_parallelism().map_or(1, usize::from);
        let mut workers = Self { inboxes: Vec::new(), threads: Vec::new(), counters: Vec::new() };
        let boot = format!("{:x}", shared.clock.now_precise().as_micros() & 0xff_ffff_ffff);
        for number in 0..count {
            let counters: Arc<Counters> = Arc::default();
            let (inbox, handed) = mpsc::unbounded_channel();
            let seed = Seed {
                shared: shared.clone(),
                counters: counters.clone(),
                log: writer.map(|w| w.log(counters.clone())),
                id_prefix: format!("{boot}-{number}").into(),
                pool: pool_limits(settings, count),
                bounds: bounds(settings),
                doors: doors.to_vec(),
                draining: draining.clone(),
            };
            let thread = thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn(move || work(seed, handed))
                .context("a worker thread did not start")?;
            workers.inboxes.push(inbox);
            workers.threads.push(thread);
            workers.counters.push(counters);
        }
        Ok(workers)
    }

    /// Their counters.
    pub(super) fn counters(&self) -> Vec<Arc<Counters>> {
        self.counters.clone()
    }

    /// What the listener of this number gives its connections to: each worker in turn.
    pub(super) fn hand(
        &self,
        door: usize,
    ) -> impl FnMut(std::net::TcpStream, SocketAddr, Place) + Send + use<> {
        let inboxes = self.inboxes.clone();
        let mut turn = 0_usize;
        move |stream, peer, place| {
            turn = turn.wrapping_add(1);
            // A worker that is gone ends the process; its connection is closed with it.
            let _ = inboxes[turn % inboxes.len()].send((door, stream, peer, place));
        }
    }

    /// Accepts and serves for `delay` more, so that balancers see us leave; closes idle connections a moment after
    /// the last one was accepted, then waits for the others to end, at most `most`.
    pub(super) async fn drain(
        self,
        stop_accepting: &watch::Sender<bool>,
        close: &watch::Sender<bool>,
        places: &Places,
        (delay, most): (Duration, Duration),
    ) {
        tokio::time::sleep(delay).await;
        stop_accepting.send_replace(true);
        let until = Instant::now() + most;
        // A client that was just accepted has its first request on the way.
        tokio::time::sleep(IDLE_CLOSED_AFTER.min(most)).await;
        close.send_replace(true);
        while places.open() > 0 && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let left = places.open();
        if left > 0 {
            tracing::warn!(connections = left, "the drain's time is over; what still runs is cut");
        }
        drop(self.inboxes);
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a worker had panicked");
            }
        }
    }
}

/// What a worker grows from: all that may cross threads.
struct Seed {
    shared: Arc<Shared>,
    counters: Arc<Counters>,
    log: Option<access_log::AccessLog>,
    id_prefix: Box<str>,
    pool: pool::Limits,
    bounds: Bounds,
    doors: Vec<Arc<Door>>,
    draining: watch::Receiver<bool>,
}

fn work(seed: Seed, mut handed: mpsc::UnboundedReceiver<Handed>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return tracing::error!(%error, "a worker's runtime did not start"),
    };
    let tasks = LocalSet::new();
    let Seed { shared, counters, log, id_prefix, pool, bounds, doors, draining } = seed;
    tasks.block_on(&runtime, async move {
        let doubt = doubt(shared.clone());
        let worker = Rc::new(Worker {
            shared,
            pool: pool::Pool::new(pool, Some(doubt)),
            counters,
            log,
            checks: Checks::default(),
            looks: RefCell::new(HashMap::new()),
            turn: Cell::new(0),
            id_prefix,
            next_id: Cell::new(0),
        });
        let house = worker.clone();
        let _house = Bound::spawn(async move {
            loop {
                tokio::time::sleep(HOUSEKEEPING).await;
                keep_house(&house);
            }
        });
        while let Some((door, stream, peer, place)) = handed.recv().await {
            let Ok(stream) = TcpStream::from_std(stream) else { continue };
            let client = (stream, peer, place);
            let serve =
                connection::serve(worker.clone(), doors[door].clone(), bounds, client, draining.clone());
            // Its place is given back at its end, which is all that anybody waits for.
            drop(tokio::task::spawn_local(serve));
        }
        keep_house(&worker);
    });
}

fn keep_house(worker: &Worker) {
    if let Some(log) = &worker.log {
        log.flush();
    }
    let snapshot = worker.shared.fleet.snapshot();
    worker.pool.sweep(|id| snapshot.by_id(id).is_some());
}

/// Silence on a connection makes one ask whether its endpoint hangs.
fn doubt(shared: Arc<Shared>) -> pool::Doubt {
    let hangs: pool::Hangs = Rc::new(move |endpoint| {
        let shared = shared.clone();
        Box::pin(async move {
            let hangs = shared.outages.hangs(&endpoint).await;
            if hangs {
                shared.probe_now.notify_one();
            }
            hangs
        })
    });
    pool::Doubt { after: outages::SILENCE, hangs }
}

fn pool_limits(settings: &Settings, workers: usize) -> pool::Limits {
    let upstream = &settings.upstream;
    let answers = &upstream.timeouts;
    pool::Limits {
        shortest_patience: answers.token.min(answers.api).min(answers.registry),
        idle: upstream.pool.idle,
        per_endpoint: upstream.pool.per_endpoint.div_ceil(workers),
        connect: upstream.timeouts.connect,
        stall: settings.timeouts.stall,
        buffer: settings.limits.buffer,
    }
}

fn bounds(settings: &Settings) -> Bounds {
    let (timeouts, limits) = (&settings.timeouts, &settings.limits);
    Bounds {
        handshake: timeouts.handshake,
        head: timeouts.head,
        idle: timeouts.idle,
        stall: timeouts.stall,
        head_bytes: limits.head,
        buffer: limits.buffer,
        http2_streams: limits.http2_streams,
    }
}
