//! What requests share: one process's state, one worker's, one connection's.

use std::{
    borrow::Cow,
    cell::{Cell, RefCell},
    collections::HashMap,
    net::IpAddr,
    rc::Rc,
    sync::{Arc, Mutex, OnceLock, PoisonError, atomic::AtomicU64},
    task::{Poll, Waker},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::HeaderValue;
use ipnet::IpNet;
use tokio::sync::Notify;

use super::{
    budget::Budget,
    evidence::Evidences,
    formers::Formers,
    grace::Graces,
    known::{Known, KnownTokens},
    outages::Outages,
    own_token::OwnTokens,
    park::Lot,
    pings::Pings,
    plain::Plain,
    ramps::Ramps,
    refused::Checks,
    relay::UpBody,
    replay::Replays,
    revocations::Revocations,
    strangers::{InVain, Strangers},
    token_service::{Answers, WrongCredentials},
    uploads::Uploads,
    windows::UpgradeWindows,
};
use crate::{
    decisions::{ramp::Ramp, token::verify::Rules},
    edges::{
        distant::Distant,
        fleet::{Endpoint, Scheme, Shelf},
        key_source::KeyShelf,
        pool::Pool,
        signer::Signer,
        telemetry::{access_log::AccessLog, counters::Counters},
        wire::{Phase, Pulse},
    },
    words::clock::Clock,
};

/// What requests go up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upstream {
    /// Harbor core, which issues tokens, takes Basic and holds one key.
    Harbor,
    /// Registries with no core before them, whose tokens come from elsewhere.
    Plain,
}

/// What a configuration decides about requests; swapped whole at a reload.
#[derive(Clone, Debug)]
pub struct Policy {
    /// `false`: observe mode, nothing is judged (A27).
    pub enforce: bool,
    /// What stands behind us.
    pub upstream: Upstream,
    /// What tokens must look like.
    pub rules: Rules,
    /// `aud` of a token that is signed again.
    pub service: Arc<str>,
    /// Where clients reach us, as scheme and authority; `None` = as asked.
    pub public: Option<(Scheme, Box<str>)>,
    /// Whether the realm of challenges becomes the public one.
    pub rewrite_realm: bool,
    /// To the head of `/service/token`'s answer.
    pub token_timeout: Duration,
    /// To the head of an answer of API, UI and portal.
    pub api_timeout: Duration,
    /// To the head of a registry answer.
    pub registry_timeout: Duration,
    /// Whether credentials are kept for replay.
    pub replay: bool,
    /// Replays of one OIDC principal at once; of robots and in other modes it is 8.
    pub replays_each: usize,
    /// Bytes of a body's kept head.
    pub head: usize,
    /// Between two looks for keys that unknown names ask for, at least.
    pub between_looks: Duration,
    /// How long a request may wait for an endpoint; zero = not at all.
    pub park: Duration,
    /// How long a token answer may be given again; zero = never.
    pub answer_cache: Duration,
    /// How long after Harbor last granted it something may be granted again while Harbor can't answer; zero = never.
    pub grace: Duration,
    /// The move to the next side; `None` = there is none.
    pub ramp: Option<Arc<Ramp>>,
}

impl Policy {
    /// Whether plain registries stand behind us.
    pub fn is_plain(&self) -> bool {
        self.upstream == Upstream::Plain
    }
}

/// The state of the process.
pub struct Shared {
    /// Names this process's caches (A2).
    pub deployment: Box<str>,
    /// The key ring.
    pub keys: Arc<KeyShelf>,
    /// The endpoints.
    pub fleet: Arc<Shelf>,
    /// See [`Policy`].
    pub policy: ArcSwap<Policy>,
    /// Verified tokens.
    pub known: KnownTokens,
    /// What was revoked beside keys.
    pub revocations: Arc<Revocations>,
    /// Upgrade windows.
    pub windows: Arc<UpgradeWindows>,
    /// Who uses which key.
    pub evidence: Arc<Evidences>,
    /// Credentials for replay.
    pub replays: Replays,
    /// Tokens of our own.
    pub own: OwnTokens,
    /// Former secrets of robots.
    pub formers: Formers,
    /// What grace may grant again.
    pub graces: Arc<Graces>,
    /// Challenges for when no endpoint gives one.
    pub pings: Pings,
    /// The move to the next side.
    pub ramps: Ramps,
    /// Token answers.
    pub answers: Arc<Answers>,
    /// Limits on wrong credentials.
    pub wrong: WrongCredentials,
    /// Signatures.
    pub signer: Signer,
    /// Bytes of kept heads.
    pub heads: Arc<Budget>,
    /// Uploads that may begin again.
    pub uploads: Uploads,
    /// Requests that wait for an endpoint.
    pub lot: Arc<Lot>,
    /// Whether cores reach their database, and requests that wait for it.
    pub outages: Outages,
    /// The time.
    pub clock: Clock,
    /// Asks for a round of probes at once.
    pub probe_now: Arc<Notify>,
    /// The longest `exp - iat` of a token that an endpoint issued, seconds: Harbor's own setting, where it is
    /// longer than what the configuration says.
    pub lifetime_seen: AtomicU64,
    /// Harbor's authentication mode, once known.
    pub auth_mode: OnceLock<Box<str>>,
    /// When an unknown `kid` last made us look for keys.
    pub looked: Mutex<Option<Instant>>,
    /// When a peer's question last did.
    pub looked_for_peers: Mutex<Option<Instant>>,
    /// What was found out of plain registries.
    pub plain: Plain,
    /// Keys from afar: peers, JWKS URLs.
    pub distant: Arc<Distant>,
    /// Requests that wait for one of those.
    pub strangers: Strangers,
    /// Keys that endpoints hold and whose private halves were looked for here in vain.
    pub unsigned: InVain,
}

impl Shared {
    /// The rules of now: a lifetime that Harbor itself uses is no forgery.
    pub fn rules<'a>(&self, policy: &'a Policy) -> Cow<'a, Rules> {
        let seen = Duration::from_secs(self.lifetime_seen.load(std::sync::atomic::Ordering::Relaxed));
        if seen <= policy.rules.lifetime {
            return Cow::Borrowed(&policy.rules);
        }
        Cow::Owned(Rules { lifetime: seen, ..policy.rules.clone() })
    }

    /// At most one look for unknown names in `between`, whatever the flood.
    pub fn may_look(&self, between: Duration) -> bool {
        let mut last = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        is_time_again(&mut last, Instant::now(), between)
    }

    /// The same for peers: they prove themselves, and what anybody makes up here takes nothing from them.
    pub fn may_look_for_peers(&self, between: Duration) -> bool {
        let mut last = self.looked_for_peers.lock().unwrap_or_else(PoisonError::into_inner);
        is_time_again(&mut last, Instant::now(), between)
    }

    /// When the last look for unknown names began.
    pub fn last_look(&self) -> Option<Instant> {
        *self.looked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A client's request that an endpoint answered turned out to have failed there: of the next side that counts.
    pub fn failed_after_all(&self, policy: &Policy, endpoint: &Endpoint, client: IpAddr) {
        if let Some(ramp) = policy.ramp.as_deref() {
            self.ramps.failed(ramp, endpoint.side, (client, 1), self.clock.now());
        }
    }

    /// How many replays of this principal may run at once.
    pub fn replays_of(&self, policy: &Policy, name: &str) -> usize {
        let oidc = self.auth_mode.get().is_none_or(|mode| &**mode == "oidc_auth");
        if oidc && !name.starts_with("robot$") { policy.replays_each } else { REPLAYS_EACH }
    }
}

/// Whether `between` has passed since the last time, which is then now. Not by the wall clock: one that is set back
/// would keep us from looking for as long.
fn is_time_again(last: &mut Option<Instant>, now: Instant, between: Duration) -> bool {
    let again = last.is_none_or(|last| now.saturating_duration_since(last) >= between);
    if again {
        *last = Some(now);
    }
    again
}

/// Replays of one robot, or of any principal where Harbor's mode is not OIDC, at once.
const REPLAYS_EACH: usize = 8;

/// The state of one worker thread.
pub struct Worker {
    /// The process's.
    pub shared: Arc<Shared>,
    /// Its upstream connections.
    pub pool: Rc<Pool<UpBody>>,
    /// Its counters.
    pub counters: Arc<Counters>,
    /// Its access log; `None` = off.
    pub log: Option<AccessLog>,
    /// Checks of held keys that are under way.
    pub checks: Checks,
    /// When each endpoint was last looked at for several keys.
    pub looks: RefCell<HashMap<u64, Instant>>,
    /// Turn and turn about.
    pub turn: Cell<usize>,
    /// First half of its request ids.
    pub id_prefix: Box<str>,
    /// Second half.
    pub next_id: Cell<u64>,
}

impl Worker {
    /// A request id of our own.
    pub fn new_id(&self) -> HeaderValue {
        let n = self.next_id.get();
        self.next_id.set(n + 1);
        let mut text = Vec::with_capacity(self.id_prefix.len() + 17);
        text.extend_from_slice(self.id_prefix.as_bytes());
        text.push(b'-');
        let digits = (u64::BITS - n.leading_zeros()).div_ceil(4).max(1);
        text.extend((0..digits).rev().map(|place| b"0123456789abcdef"[(n >> (4 * place) & 15) as usize]));
        HeaderValue::from_maybe_shared(Bytes::from(text)).unwrap_or_else(|_| HeaderValue::from_static("-"))
    }

    /// The next turn among endpoints.
    pub fn next_turn(&self) -> usize {
        let turn = self.turn.get();
        self.turn.set(turn.wrapping_add(1));
        turn
    }
}

/// The last token of a connection, by its bytes, and what it was verified to be.
pub type LastToken = (Box<[u8]>, Arc<Known>);

/// Since when an HTTP/2 stream waits for its client: the connection's wire can't tell one stream from another.
#[derive(Debug, Default)]
pub struct Waits {
    /// For the next bytes of the request's body.
    pub body: Cell<Option<Instant>>,
    /// For room to send the next bytes of the answer.
    pub answer: Cell<Option<Instant>>,
    ended: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Waits {
    /// Completes when the stream is ended by [`Waits::end`].
    pub async fn ended(&self) {
        std::future::poll_fn(|cx| {
            if self.ended.get() {
                return Poll::Ready(());
            }
            let mut waker = self.waker.borrow_mut();
            if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                *waker = Some(cx.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }

    fn end(&self) {
        self.ended.set(true);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    fn longest(&self, now: Instant) -> Option<Duration> {
        let since = self.body.get().into_iter().chain(self.answer.get()).min()?;
        Some(now.saturating_duration_since(since))
    }
}

/// A request that is being served: until its answer has ended, or was given up by either side.
pub struct InFlight {
    /// The connection that it came over.
    pub downstream: Rc<Downstream>,
    /// With HTTP/2, what its stream waits for.
    pub waits: Option<Rc<Waits>>,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let downstream = &self.downstream;
        downstream.in_flight.set(downstream.in_flight.get().saturating_sub(1));
        if let Some(ended) = &self.waits {
            downstream.streams.borrow_mut().retain(|waits| !Rc::ptr_eq(waits, ended));
        }
        if downstream.in_flight.get() == 0 {
            downstream.pulse.enter(Phase::Idle);
        }
    }
}

/// One connection from a client.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own, none a state")]
pub struct Downstream {
    /// The address at its other end, or in its PROXY header.
    pub peer: IpAddr,
    /// The same as text.
    pub peer_text: HeaderValue,
    /// Whose forwarding headers count.
    pub trusted_proxies: Arc<[IpNet]>,
    /// Whether the peer is one of them.
    pub proxied: bool,
    /// Whether it came by TLS.
    pub tls: bool,
    /// Whether Harbor's components may speak on it.
    pub cluster: bool,
    /// Whether it showed a certificate that the listener's `client_ca_file` signed.
    pub certified: bool,
    /// Its wire.
    pub pulse: Rc<Pulse>,
    /// Requests being served on it: more than one with HTTP/2 only.
    pub in_flight: Cell<usize>,
    /// Whether it speaks HTTP/2.
    pub http2: bool,
    /// Bytes of a request's head at most, where hyper doesn't see to it.
    pub longest_head: Option<usize>,
    /// What its HTTP/2 streams wait for.
    pub streams: RefCell<Vec<Rc<Waits>>>,
    /// The one whose request begins next: set by the task that runs it, right before.
    pub opening: RefCell<Option<Rc<Waits>>>,
    /// Its last token: most requests of a connection carry the same one.
    pub last: RefCell<Option<LastToken>>,
}

impl Downstream {
    /// A request's head has arrived.
    pub fn begin(self: &Rc<Self>) -> InFlight {
        self.in_flight.set(self.in_flight.get() + 1);
        self.pulse.enter(Phase::Busy);
        let waits = self.opening.take();
        self.streams.borrow_mut().extend(waits.clone());
        InFlight { downstream: self.clone(), waits }
    }

    /// How many HTTP/2 streams are being served, and how many of them their client has kept waiting for `stall`.
    pub fn standing(&self, now: Instant, stall: Duration) -> (usize, usize) {
        let streams = self.streams.borrow();
        let stand = |waits: &&Rc<Waits>| waits.longest(now).is_some_and(|waited| waited >= stall);
        (streams.len(), streams.iter().filter(stand).count())
    }

    /// Ends those: each is reset, the others go on.
    pub fn end_standing(&self, now: Instant, stall: Duration) {
        let streams = self.streams.borrow();
        let stand = |waits: &&Rc<Waits>| waits.longest(now).is_some_and(|waited| waited >= stall);
        streams.iter().filter(stand).for_each(|waits| waits.end());
    }

    /// Whether an address is a trusted proxy's.
    pub fn trusts(&self, address: IpAddr) -> bool {
        trusts(&self.trusted_proxies, address)
    }
}

/// Whether an address is in one of these networks.
pub fn trusts(networks: &[IpNet], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_unknown_names_gets_one_look_in_its_time() {
        let (began, second) = (Instant::now(), Duration::from_secs(1));
        let mut last = None;
        let looks = [0, 0, 999, 1_000, 1_001, 1_999, 2_000]
            .map(|at| is_time_again(&mut last, began + Duration::from_millis(at), second));
        assert_eq!(looks, [true, false, false, true, false, false, true]);
    }
}
