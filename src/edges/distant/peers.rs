//! Peers: other tidegates before the same Harbor, each beside a core of its own. Each address of their names is asked for its
//! document, and is shown ours; nothing that was learned is shown (A10).

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use futures_util::future::join_all;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use zeroize::Zeroizing;

use super::{
    PATIENCE,
    fetch::{self, FetchFault, Site},
};
use crate::{
    decisions::{
        peer::{
            self, DocumentFault, Told,
            proof::{self, Secret, SecretFault},
        },
        ring::{Peer, SourceName},
    },
    edges::{
        alarm::{Alarm, cause},
        key_source::KeyShelf,
        small_file,
        tls::ClientTls,
    },
    words::{clock::Clock, file_fault::FileFault, kid::Kid},
};

/// Where a peer's document is.
pub const TARGET: &str = "/.tidegate/jwks.json";
/// A text of the asker's choice, new for each question.
pub const NONCE: HeaderName = HeaderName::from_static("tidegate-nonce");
/// The proof of the shared secret over it, of either side.
pub const PROOF: HeaderName = HeaderName::from_static("tidegate-proof");
/// The key for which is asked: a file that holds it may not be read yet.
pub const WANTED: HeaderName = HeaderName::from_static("tidegate-wanted");

/// Addresses that are asked at most.
const ADDRESSES: usize = 64;

/// What peers share with this process, and where they are.
pub struct PeerSettings {
    /// Never empty.
    pub deployment: Arc<str>,
    pub sites: Vec<Site>,
    pub every: Duration,
    pub secret: Option<SecretSource>,
    /// Who asks need not prove anything.
    pub insecure: bool,
    /// What `sites` with TLS share.
    pub tls: Option<Arc<ClientTls>>,
    /// Our own listeners, and our own addresses: they are no peers.
    pub listeners: Vec<SocketAddr>,
    pub addresses: Vec<IpAddr>,
}

/// Where the shared secret comes from.
pub enum SecretSource {
    Text(Zeroizing<String>),
    /// Read again in each round.
    File(PathBuf),
}

/// Why there is no secret.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretSourceFault {
    #[error(transparent)]
    File(#[from] FileFault),
    #[error("it is no text")]
    NoText,
    #[error(transparent)]
    Secret(#[from] SecretFault),
}

/// Why a peer told nothing.
#[derive(Debug, thiserror::Error)]
enum PeerFault {
    #[error("{}", cause(.0))]
    Fetch(FetchFault),
    #[error("it answered {0}")]
    Status(u16),
    #[error("its answer doesn't prove the shared secret")]
    Unproved,
    #[error(transparent)]
    Document(#[from] DocumentFault),
    #[error("no randomness")]
    Random,
}

impl PeerFault {
    fn remedy(&self) -> &'static str {
        match self {
            Self::Fetch(FetchFault::Tls(_) | FetchFault::Http(_)) => {
                "check peers.ca_file, peers.certificate_file and peers.server_name against the peer's listener"
            }
            Self::Fetch(_) => "is it running, and are port and network between right?",
            Self::Status(403) | Self::Unproved => {
                "give all replicas the same peers.secret_file and deployment"
            }
            Self::Status(_) => {
                "set deployment and peers there too, and lead the URL to its listener of scope cluster"
            }
            Self::Document(fault) => fault.remedy(),
            Self::Random => "look at the machine's source of randomness",
        }
    }

    /// One that comes and goes with a restart is no alarm at first.
    fn may_pass(&self) -> bool {
        matches!(self, Self::Fetch(_) | Self::Random)
            || matches!(self, Self::Status(status) if *status >= 500)
    }
}

/// What is said where nobody else answers.
const US_ALONE: &str = "each address of peers.urls leads back to this process, and no peer is heard";
/// What mends it.
const US_ALONE_REMEDY: &str = "give names that have each replica's own addresses, as a headless Service has, and let nobody between \
                               answer in a peer's place";

/// What this process knows of peers, and shows them.
pub struct Peers {
    settings: PeerSettings,
    /// Our own name among processes.
    process: Arc<str>,
    secrets: ArcSwap<Vec<Secret>>,
    known: Mutex<Known>,
    /// Held while the ring takes what was told, so that a former answer never follows a later one.
    learning: Mutex<()>,
    periodic: tokio::sync::Mutex<()>,
    random: SystemRandom,
    shelf: Arc<KeyShelf>,
    clock: Clock,
}

#[derive(Default)]
struct Known {
    /// By the place of the site and the address.
    peers: BTreeMap<(usize, SocketAddr), State>,
    /// Names that can't be looked up.
    unresolved: BTreeMap<usize, String>,
    /// What keeps the secret's file from being read.
    secret: Option<Alarm>,
}

/// What is known of one address.
#[derive(Default)]
struct State {
    /// When the question began whose answer was taken last.
    began: Option<Instant>,
    heard: Option<Instant>,
    told: Option<(String, Arc<Told>)>,
    trouble: Option<Trouble>,
    is_us: bool,
}

struct Trouble {
    since: Instant,
    cause: String,
    remedy: &'static str,
    may_pass: bool,
}

/// A peer, for `status`.
#[derive(Clone, Debug)]
pub struct PeerStatus {
    /// As it is configured.
    pub url: String,
    /// `None` where the name has none.
    pub address: Option<SocketAddr>,
    /// Since its last good answer.
    pub heard_ago: Option<Duration>,
    /// Keys that it published then.
    pub keys: Vec<Kid>,
    /// What is wrong, and what mends it.
    pub trouble: Option<(String, &'static str)>,
    /// Whether an operator should mend it: what a restart brings about passes by itself.
    pub is_alarm: bool,
}

/// A document for who asks.
pub struct Shown {
    pub document: String,
    pub tag: String,
    /// With a shared secret.
    pub proof: Option<String>,
}

/// Why somebody isn't shown it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// Nothing says who may read it.
    NoPage,
    /// The shared secret isn't proved.
    Unproved,
}

impl Peers {
    /// Reads the secret; nobody is asked yet.
    pub fn new(
        settings: PeerSettings,
        shelf: Arc<KeyShelf>,
        clock: Clock,
    ) -> Result<Self, SecretSourceFault> {
        let random = SystemRandom::new();
        let secrets = settings.secret.as_ref().map_or(Ok(Vec::new()), SecretSource::read)?;
        let process = fresh(&random).unwrap_or_else(|| format!("process-{}", std::process::id()));
        Ok(Self {
            settings,
            process: process.into(),
            secrets: ArcSwap::from_pointee(secrets),
            known: Mutex::default(),
            learning: Mutex::default(),
            periodic: tokio::sync::Mutex::default(),
            random,
            shelf,
            clock,
        })
    }

    pub(super) fn asks(&self) -> bool {
        !self.settings.sites.is_empty()
    }

    pub(super) fn every(&self) -> Duration {
        self.settings.every
    }

    /// What is shown to somebody who has proved this much; the certificate is one that the listener's `client_ca_file` signed.
    pub fn show(
        &self,
        is_certified: bool,
        nonce: Option<&str>,
        shown: Option<&str>,
    ) -> Result<Shown, Denied> {
        let deployment = &*self.settings.deployment;
        let nonce = nonce.filter(|nonce| proof::is_nonce(nonce));
        let secrets = self.secrets.load();
        let proved = nonce.zip(shown).and_then(|(nonce, shown)| {
            secrets
                .iter()
                .find(|secret| secret.proves_ask(deployment, nonce, shown))
                .map(|secret| (secret, nonce))
        });
        let is_open = is_certified || self.settings.insecure;
        match (self.settings.secret.is_some(), &proved) {
            (true, None) => return Err(Denied::Unproved),
            (false, _) if !is_open => return Err(Denied::NoPage),
            _ => {}
        }
        let own = self.shelf.own();
        let document = peer::write(&own.0, &own.1, (deployment, &self.process), self.clock.now());
        let tag = proof::tag(document.as_bytes());
        let proof = proved.map(|(secret, nonce)| secret.of_answer(deployment, nonce, &tag));
        Ok(Shown { document, tag, proof })
    }

    /// Whether our own files are known to hold a key of this name.
    pub fn holds(&self, kid: &str) -> bool {
        self.shelf.own().0.find(kid).is_some()
    }

    /// All peers, as they were last heard.
    pub fn statuses(&self) -> Vec<PeerStatus> {
        let known = self.lock();
        let url = |site: usize| self.settings.sites.get(site).map(Site::url).unwrap_or_default();
        let patience = 2 * self.settings.every;
        let peers =
            known.peers.iter().filter(|(_, state)| !state.is_us).map(|((site, address), state)| PeerStatus {
                url: url(*site),
                address: Some(*address),
                heard_ago: state.heard.map(|at| at.elapsed()),
                keys: state
                    .told
                    .iter()
                    .flat_map(|(_, told)| &told.keys)
                    .map(|told| told.key.kid().clone())
                    .collect(),
                trouble: state.trouble.as_ref().map(|trouble| (trouble.cause.clone(), trouble.remedy)),
                is_alarm: state
                    .trouble
                    .as_ref()
                    .is_some_and(|t| !t.may_pass || t.since.elapsed() >= patience),
            });
        let unresolved = known.unresolved.iter().map(|(site, cause)| PeerStatus {
            url: url(*site),
            address: None,
            heard_ago: None,
            keys: Vec::new(),
            trouble: Some((cause.clone(), "check the name in peers.urls, and this machine's DNS")),
            is_alarm: true,
        });
        peers.chain(unresolved).collect()
    }

    /// What is wrong on our own side.
    pub fn alarms(&self) -> Vec<Alarm> {
        let tls = self.settings.tls.iter().flat_map(|tls| tls.alarms().to_vec());
        let known = self.lock();
        let is_us_alone = !known.peers.is_empty() && known.peers.values().all(|state| state.is_us);
        let us = is_us_alone.then_some(("peers.urls", US_ALONE.to_owned(), US_ALONE_REMEDY));
        let retired = peer::retired_alarm(self.shelf.own().1.len());
        let retired = retired.map(|cause| ("retired keys", cause, peer::RETIRED_REMEDY));
        let since = self.clock.now();
        let own = us.into_iter().chain(retired).map(|(subject, cause, remedy)| Alarm {
            path: subject.to_owned(),
            cause,
            remedy,
            since,
            is_warning: false,
            forbids_start: false,
        });
        tls.chain(known.secret.clone()).chain(own).collect()
    }

    /// Whether anybody may read our keys and tell us of theirs without a proof.
    pub fn is_insecure(&self) -> bool {
        self.settings.insecure && self.settings.secret.is_none()
    }

    /// Asks all, with what files hold now; not where the last such round still waits.
    pub(super) async fn periodic_round(self: &Arc<Self>) {
        let Ok(_alone) = self.periodic.try_lock() else { return };
        self.read_files().await;
        self.round(None).await;
    }

    /// Asks all at once; at known addresses while names are looked up.
    pub(super) async fn round(self: &Arc<Self>, wanted: Option<&Kid>) {
        join_all((0..self.settings.sites.len()).map(|site| self.ask_site(site, wanted))).await;
    }

    async fn ask_site(self: &Arc<Self>, site: usize, wanted: Option<&Kid>) {
        let known: Vec<SocketAddr> =
            self.lock().peers.keys().filter(|(of, _)| *of == site).map(|(_, address)| *address).collect();
        let ask = async |addresses: &[SocketAddr]| {
            join_all(addresses.iter().map(|address| self.ask(site, *address, wanted))).await;
        };
        let others = async {
            let new = self.look_up(site, &known).await;
            ask(&new).await;
        };
        tokio::join!(ask(&known), others);
    }

    /// Addresses that the name has and that weren't known; those that it has no more are forgotten. A name that can't be
    /// looked up keeps its own.
    async fn look_up(&self, site: usize, before: &[SocketAddr]) -> Vec<SocketAddr> {
        let Some(of) = self.settings.sites.get(site) else { return Vec::new() };
        let found = of.addresses(PATIENCE).await;
        let mut known = self.lock();
        match found {
            Ok(mut found) => {
                known.unresolved.remove(&site);
                found.retain(|address| !self.is_ours(*address));
                found.truncate(ADDRESSES);
                known.peers.retain(|(of, address), _| *of != site || found.contains(address));
                found.retain(|address| !before.contains(address));
                for address in &found {
                    known.peers.entry((site, *address)).or_default();
                }
                found
            }
            Err(fault) => {
                let text = cause(&fault);
                if known.unresolved.insert(site, text.clone()).is_none() {
                    tracing::warn!(
                        peer.url = of.url(),
                        peer.cause = text,
                        "a peer's name can't be looked up; its former addresses stay in use"
                    );
                }
                Vec::new()
            }
        }
    }

    fn is_ours(&self, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        self.settings.listeners.iter().any(|ours| {
            let is_here = ip.is_loopback() || self.settings.addresses.contains(&ip);
            ours.port() == address.port() && (ours.ip() == ip || ours.ip().is_unspecified() && is_here)
        })
    }

    async fn ask(self: &Arc<Self>, site: usize, address: SocketAddr, wanted: Option<&Kid>) {
        let Some(of) = self.settings.sites.get(site) else { return };
        let began = Instant::now();
        let before = self.lock().peers.get(&(site, address)).and_then(|state| state.told.clone());
        let told = self.question(of, address, wanted, before).await;
        let all = Arc::clone(self);
        // Hundreds of keys are read, and a ring is made of them: not on the runtime's thread.
        let taken = tokio::task::spawn_blocking(move || all.take((site, address), began, told));
        if let Err(error) = taken.await {
            tracing::error!(%error, "a peer's keys were not taken; the next answer's are");
        }
    }

    fn take(
        &self,
        (site, address): (usize, SocketAddr),
        began: Instant,
        told: Result<(String, Arc<Told>), PeerFault>,
    ) {
        let _learning = self.learning.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(told) = self.note((site, address), began, told) else { return };
        let name = SourceName::new(&format!("peer {address}"));
        let peer = Peer { name, process: told.process.clone() };
        self.shelf.learn(&peer, &told.keys, &told.retired, self.clock.now());
    }

    /// What is to be learned of an answer.
    fn note(
        &self,
        place: (usize, SocketAddr),
        began: Instant,
        told: Result<(String, Arc<Told>), PeerFault>,
    ) -> Option<Arc<Told>> {
        let mut known = self.lock();
        // One whose name has it no more is asked no more.
        let state = known.peers.get_mut(&place)?;
        // An answer that took its time may be older than the one that is known.
        if state.began.is_some_and(|last| last > began) {
            return None;
        }
        state.began = Some(began);
        let (tag, told) = told.map_err(|fault| state.failed(place.1, &fault)).ok()?;
        state.is_us = told.process == self.process;
        if state.trouble.take().is_some() && !state.is_us {
            tracing::info!(peer.address = %place.1, "a peer answers again");
        }
        state.heard = Some(Instant::now());
        state.told = Some((tag, told.clone()));
        (!state.is_us).then_some(told)
    }

    /// The document, and its tag.
    async fn question(
        &self,
        of: &Site,
        address: SocketAddr,
        wanted: Option<&Kid>,
        before: Option<(String, Arc<Told>)>,
    ) -> Result<(String, Arc<Told>), PeerFault> {
        let nonce = fresh(&self.random).ok_or(PeerFault::Random)?;
        let headers = self.headers(&nonce, wanted, before.as_ref().map(|(tag, _)| tag.as_str()));
        let answer = fetch::get(of, address, TARGET, headers, PATIENCE).await.map_err(PeerFault::Fetch)?;
        let (tag, told) = match (answer.status, before) {
            (StatusCode::OK, _) => (proof::tag(&answer.body), None),
            (StatusCode::NOT_MODIFIED, Some((tag, told))) => (tag, Some(told)),
            (status, _) => return Err(PeerFault::Status(status.as_u16())),
        };
        self.is_proved(&answer.headers, &nonce, &tag)?;
        let told = match told {
            Some(told) => told,
            None => Arc::new(peer::read(&answer.body, &self.settings.deployment)?),
        };
        Ok((tag, told))
    }

    fn headers(&self, nonce: &str, wanted: Option<&Kid>, tag: Option<&str>) -> HeaderMap {
        let proof = self.secrets.load().first().map(|secret| secret.of_ask(&self.settings.deployment, nonce));
        let texts = [
            (NONCE, Some(nonce.to_owned())),
            (PROOF, proof),
            (WANTED, wanted.map(ToString::to_string)),
            (header::IF_NONE_MATCH, tag.map(|tag| format!("\"{tag}\""))),
        ];
        // All of these are visible ASCII.
        let values =
            texts.into_iter().filter_map(|(name, text)| Some((name, HeaderValue::from_str(&text?).ok()?)));
        values.collect()
    }

    /// Before a byte of the document is read: nobody but a peer could have sent it.
    fn is_proved(&self, headers: &HeaderMap, nonce: &str, tag: &str) -> Result<(), PeerFault> {
        if self.settings.secret.is_none() {
            return Ok(());
        }
        let shown = headers.get(PROOF).and_then(|proof| proof.to_str().ok()).ok_or(PeerFault::Unproved)?;
        let secrets = self.secrets.load();
        // The one that we asked with.
        let secret = secrets.first().ok_or(PeerFault::Unproved)?;
        let holds = secret.proves_answer(&self.settings.deployment, nonce, tag, shown);
        if holds { Ok(()) } else { Err(PeerFault::Unproved) }
    }

    /// Secret and certificates may have been replaced; what can't be read leaves what was.
    async fn read_files(&self) {
        if let Some(tls) = self.settings.tls.clone() {
            let now = self.clock.now();
            tokio::task::spawn_blocking(move || tls.reload(now)).await.ok();
        }
        let Some(SecretSource::File(path)) = &self.settings.secret else { return };
        let of = path.clone();
        let Ok(read) = tokio::task::spawn_blocking(move || read_file(&of)).await else { return };
        let mut known = self.lock();
        match read {
            Ok(secrets) => {
                self.secrets.store(Arc::new(secrets));
                known.secret = None;
            }
            Err(fault) => {
                let path = path.display().to_string();
                let cause = format!("{fault}; the secret of before stays in use");
                let now = self.clock.now();
                let since = known.secret.as_ref().map_or(now, |alarm| alarm.since);
                let remedy = SecretFault::REMEDY;
                if known.secret.is_none() {
                    tracing::error!(
                        peer.secret_file = path,
                        peer.cause = cause,
                        peer.remedy = remedy,
                        "the secret of peers can't be read"
                    );
                }
                known.secret =
                    Some(Alarm { path, cause, remedy, since, is_warning: false, forbids_start: false });
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn failed(&mut self, address: SocketAddr, fault: &PeerFault) {
        let (cause, remedy, may_pass) = (fault.to_string(), fault.remedy(), fault.may_pass());
        let is_known = self.trouble.as_ref().is_some_and(|trouble| trouble.cause == cause);
        if !is_known && !self.is_us {
            tracing::warn!(peer.address = %address, peer.cause = cause, peer.remedy = remedy, "a peer tells nothing; what it told before counts for one token lifetime");
        }
        let since = self.trouble.as_ref().map_or_else(Instant::now, |trouble| trouble.since);
        self.trouble = Some(Trouble { since, cause, remedy, may_pass });
    }
}

impl SecretSource {
    /// All secrets of it.
    pub fn read(&self) -> Result<Vec<Secret>, SecretSourceFault> {
        match self {
            Self::Text(text) => Ok(proof::secrets(text)?),
            Self::File(path) => read_file(path),
        }
    }
}

fn read_file(path: &std::path::Path) -> Result<Vec<Secret>, SecretSourceFault> {
    let read = small_file::read(path)?;
    let text = std::str::from_utf8(&read.bytes).map_err(|_| SecretSourceFault::NoText)?;
    Ok(proof::secrets(text)?)
}

/// 256 bits of chance as text.
fn fresh(random: &SystemRandom) -> Option<String> {
    let mut bytes = [0; 32];
    random.fill(&mut bytes).ok()?;
    Some(URL_SAFE_NO_PAD.encode(bytes))
}
