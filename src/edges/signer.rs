//! Signing on threads of its own: a signature takes 0.7 ms with RSA-2048 and 3 ms with RSA-4096, which no
//! worker may stand still for. First come, first served; one job a token and key. What a PKCS#11 token signs is signed
//! on that token's own threads and waited for so long and no longer.

mod latency;

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use self::latency::Latencies;
pub use self::latency::{BOUNDS, Latency};

use crate::{
    decisions::{
        key::{Elsewhere, Key, SignFault},
        token::resign::{Change, ResignFault, Unsigned, grant_again, resign},
    },
    words::{clock::UnixTime, kid::Kid},
};

/// How long a signature from elsewhere is waited for: the client has more patience, and there may be another way up.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// Where keys of files sign, by the name that metrics have for it.
const MEMORY: &str = "memory";

/// A signature that was asked for.
pub struct Job {
    /// The verified token.
    pub token: Box<str>,
    /// The held key.
    pub key: Arc<Key>,
    /// How the endpoint calls it; `None` = by its libtrust id.
    pub name: Option<Kid>,
    /// `aud` becomes this plain string; `None` leaves it.
    pub audience: Option<Arc<str>>,
    /// How far `nbf` goes back.
    pub not_before_back: Duration,
    /// What Harbor issued is granted again, without any other change.
    pub again: Option<Again>,
}

/// A grant once more.
pub struct Again {
    /// Until when.
    pub until: UnixTime,
    /// What shows that it is one.
    pub proof: Option<String>,
}

/// Why there is no signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignerFault {
    /// See [`ResignFault`].
    #[error(transparent)]
    Resign(#[from] ResignFault),
    /// The ring has no private half of the held key any more.
    #[error("no private half of the held key")]
    NoKey,
    /// Where the private half is, nobody answered in time.
    #[error("no signature came in time")]
    Late,
    /// The signer is shutting down.
    #[error("the signer has stopped")]
    Stopped,
}

/// The threads that sign.
pub struct Signer {
    queue: crossbeam_channel::Sender<Queued>,
    waiting: Arc<AtomicUsize>,
    one_takes: Arc<AtomicU64>,
    signatures: Arc<AtomicU64>,
    latencies: Arc<Latencies>,
}

struct Queued {
    job: Job,
    asked: Instant,
    done: oneshot::Sender<Result<String, ResignFault>>,
}

impl Signer {
    /// Starts `threads` of them. They end when the signer is dropped.
    pub fn start(threads: usize) -> io::Result<Self> {
        let (queue, jobs) = crossbeam_channel::unbounded::<Queued>();
        let signer = Self {
            queue,
            waiting: Arc::default(),
            one_takes: Arc::new(AtomicU64::new(1_000)),
            signatures: Arc::default(),
            latencies: Arc::default(),
        };
        for n in 0..threads.max(1) {
            let jobs = jobs.clone();
            let (waiting, one_takes) = (signer.waiting.clone(), signer.one_takes.clone());
            let (signatures, latencies) = (signer.signatures.clone(), signer.latencies.clone());
            thread::Builder::new().name(format!("signer-{n}")).spawn(move || {
                while let Ok(queued) = jobs.recv() {
                    let began = Instant::now();
                    // Whoever asked may have left; what it asked for is wanted by its token's next use.
                    let _ = queued.done.send(unsigned(&queued.job).and_then(Unsigned::sign));
                    latencies.note(MEMORY, queued.asked.elapsed());
                    one_takes.store(began.elapsed().as_micros() as u64, Ordering::Relaxed);
                    signatures.fetch_add(1, Ordering::Relaxed);
                    waiting.fetch_sub(1, Ordering::Relaxed);
                }
            })?;
        }
        Ok(signer)
    }

    /// Signs one token again.
    pub async fn sign(&self, job: Job) -> Result<String, SignerFault> {
        if let Some(place) = job.key.elsewhere() {
            // Boxed: rare.
            return Box::pin(self.sign_elsewhere(&job, place)).await;
        }
        let (done, result) = oneshot::channel();
        self.waiting.fetch_add(1, Ordering::Relaxed);
        if self.queue.send(Queued { job, asked: Instant::now(), done }).is_err() {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(SignerFault::Stopped);
        }
        Ok(result.await.map_err(|_| SignerFault::Stopped)??)
    }

    async fn sign_elsewhere(&self, job: &Job, place: &Arc<dyn Elsewhere>) -> Result<String, SignerFault> {
        let asked = Instant::now();
        let unsigned = unsigned(job)?;
        let (done, result) = oneshot::channel::<Result<Vec<u8>, SignFault>>();
        // Whoever asked may have left.
        place.sign(unsigned.message(), Box::new(move |signed| drop(done.send(signed))));
        let Ok(result) = tokio::time::timeout(PATIENCE, result).await else { return Err(SignerFault::Late) };
        let signature = result.map_err(|_| SignerFault::Late)?.map_err(ResignFault::from)?;
        let token = unsigned.signed_elsewhere(&signature)?;
        self.signatures.fetch_add(1, Ordering::Relaxed);
        self.latencies.note(place.name(), asked.elapsed());
        Ok(token)
    }

    /// How long a signature by this key would wait that is asked for now.
    pub fn delay_by(&self, key: &Key) -> Duration {
        key.elsewhere().map_or_else(|| self.delay(), |place| place.delay())
    }

    /// How long those made were waited for, by place: since the start.
    pub fn latencies(&self) -> Vec<(String, Latency)> {
        self.latencies.all()
    }

    /// How long a job for a key in memory would wait that is asked for now.
    pub fn delay(&self) -> Duration {
        let waiting = self.waiting.load(Ordering::Relaxed) as u64;
        Duration::from_micros(waiting.saturating_mul(self.one_takes.load(Ordering::Relaxed)))
    }

    /// Signatures made since the start.
    pub fn signatures(&self) -> u64 {
        self.signatures.load(Ordering::Relaxed)
    }
}

fn unsigned(job: &Job) -> Result<Unsigned<'_>, ResignFault> {
    if let Some(Again { until, proof }) = &job.again {
        return grant_again(&job.token, &job.key, *until, proof.as_deref());
    }
    let change = Change {
        audience: job.audience.as_deref(),
        not_before_back: job.not_before_back,
        kid: job.name.as_ref(),
    };
    resign(&job.token, &job.key, &change)
}
