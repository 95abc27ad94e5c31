//! The endpoints of Harbor and what is known of each, published as snapshots.

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use crate::{
    decisions::{
        plan::{Fleet, Held, Standing, View},
        ramp::Side,
    },
    words::kid::Kid,
};

/// One address that requests go to.
pub struct Endpoint {
    /// Never used again for another address within a process.
    pub id: u64,
    /// The name in logs and metrics: the configured URL's authority and the address.
    pub name: Arc<str>,
    /// Where connections go.
    pub address: SocketAddr,
    /// Name and trust of its TLS; `None` = plain.
    pub tls: Option<Arc<UpstreamTls>>,
    /// What the configuration says of its opacity.
    pub opaque: Opaque,
    /// Its authority, for our own probes' `Host`.
    pub authority: Arc<str>,
    /// Whether it is one to move to.
    pub side: Side,
    /// When a bearer was last accepted for certain, milliseconds since the fleet began; 0 = never.
    confirmed: AtomicU64,
}

/// How an endpoint is reached by TLS.
pub struct UpstreamTls {
    /// Trust, client certificate.
    pub client: Arc<super::tls::ClientTls>,
    /// Name to verify and to send as SNI; the settings of `client` may have another.
    pub name: Box<str>,
}

/// Whether several replicas answer behind one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opaque {
    /// Found out: an endpoint whose probes name different keys within a moment is opaque.
    Auto,
    /// Taken as opaque from the start.
    Yes,
    /// One replica, whatever its probes say.
    No,
}

/// What is known of one endpoint.
#[derive(Clone)]
pub struct Status {
    /// Which one.
    pub endpoint: Arc<Endpoint>,
    /// Its held key.
    pub held: Held,
    /// Whether it takes requests.
    pub standing: Standing,
    /// Whether its core grants leeway; `None` = not known.
    pub leeway: Option<bool>,
    /// Harbor's version, where it says.
    pub version: Option<Arc<str>>,
    /// Seconds by which its clock is ahead of ours.
    pub clock_ahead: i64,
    /// Rises with each change of `held`.
    pub epoch: u64,
    /// When a probe was last answered.
    pub probed: Option<Instant>,
    /// Why it is ejected, or why its key is not known.
    pub trouble: Option<Arc<str>>,
}

/// All endpoints at one moment.
#[derive(Clone, Default)]
pub struct Snapshot {
    /// Core's endpoints.
    pub statuses: Vec<Status>,
    /// The portal's, if it is configured: no tokens go there.
    pub portal: Vec<Status>,
    /// The scheme that Harbor's own realm names, once a challenge was seen.
    pub realm_scheme: Option<Scheme>,
}

/// `http` or `https`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Plain.
    Http,
    /// TLS.
    Https,
}

impl Scheme {
    /// The scheme's text.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// Endpoints that serve the same: core's, or the portal's.
#[derive(Clone, Copy)]
pub struct Group<'a>(pub &'a [Status]);

impl Fleet for Group<'_> {
    fn count(&self) -> usize {
        self.0.len()
    }

    fn standing(&self, index: usize) -> Standing {
        self.0[index].standing
    }

    fn view(&self, index: usize) -> View<'_> {
        let status = &self.0[index];
        View { held: &status.held, leeway: status.leeway.unwrap_or(false), clock_ahead: status.clock_ahead }
    }

    fn side(&self, index: usize) -> Side {
        self.0[index].endpoint.side
    }
}

impl Group<'_> {
    /// Where the endpoints of these ids stand; one that has left stands nowhere.
    pub fn places(&self, ids: &[u64]) -> Vec<usize> {
        ids.iter().filter_map(|id| self.0.iter().position(|s| s.endpoint.id == *id)).collect()
    }

    /// Whether an endpoint other than the one at `index` and those to `avoid` takes requests.
    pub fn has_healthy_beside(&self, index: usize, avoid: &[usize]) -> bool {
        let mut others = (0..self.0.len()).filter(|other| *other != index && !avoid.contains(other));
        others.any(|other| self.standing(other) == Standing::Healthy)
    }
}

impl Snapshot {
    /// Whether more than one key is held, or one is not known: then probes go often (`probe.in_window`).
    pub fn unsettled(&self) -> bool {
        let mut kids = self.statuses.iter().flat_map(|s| s.held.kids());
        let first = kids.next();
        kids.any(|kid| Some(kid) != first)
            || self.statuses.iter().any(|s| matches!(s.held, Held::Unknown | Held::CannotSign))
    }

    /// The status of an endpoint by its id.
    pub fn by_id(&self, id: u64) -> Option<&Status> {
        self.statuses.iter().chain(&self.portal).find(|s| s.endpoint.id == id)
    }
}

/// The shelf on which the present snapshot lies. Readers never wait; changes are rare and in turn.
pub struct Shelf {
    present: ArcSwap<Snapshot>,
    writing: Mutex<()>,
    changed: Notify,
    began: Instant,
    next_id: AtomicU64,
}

impl Default for Shelf {
    fn default() -> Self {
        Self {
            present: ArcSwap::default(),
            writing: Mutex::new(()),
            changed: Notify::new(),
            began: Instant::now(),
            next_id: AtomicU64::new(1),
        }
    }
}

impl Shelf {
    /// The snapshot of now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.present.load_full()
    }

    /// Makes the next snapshot out of the present one.
    pub fn change(&self, make: impl FnOnce(&mut Snapshot)) {
        let _turn = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = Snapshot::clone(&self.present.load());
        make(&mut next);
        self.present.store(Arc::new(next));
        self.changed.notify_waiters();
    }

    /// Waits for the next change, at most so long.
    pub async fn changed_within(&self, most: Duration) {
        let _ = tokio::time::timeout(most, self.changed.notified()).await;
    }

    /// Looks at every snapshot, for ever.
    pub async fn watch(&self, mut look: impl FnMut(&Snapshot)) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            look(&self.present.load());
            changed.await;
        }
    }

    /// Changes what is known of one endpoint; nothing where it has left meanwhile.
    pub fn change_status(&self, id: u64, make: impl FnOnce(&mut Status)) {
        self.change(|snapshot| {
            let mut all = snapshot.statuses.iter_mut().chain(&mut snapshot.portal);
            if let Some(status) = all.find(|s| s.endpoint.id == id) {
                make(status);
            }
        });
    }

    /// A new endpoint, of which nothing is known yet.
    pub fn new_status(&self, new: NewEndpoint) -> Status {
        let endpoint = Endpoint {
            id: self.next_id.fetch_add(1, Ordering::Relaxed),
            name: new.name,
            address: new.address,
            tls: new.tls,
            opaque: new.opaque,
            authority: new.authority,
            side: new.side,
            confirmed: AtomicU64::new(0),
        };
        Status {
            held: if new.opaque == Opaque::Yes { Held::Several(Vec::new()) } else { Held::Unknown },
            endpoint: Arc::new(endpoint),
            standing: Standing::Healthy,
            leeway: None,
            version: None,
            clock_ahead: 0,
            epoch: 0,
            probed: None,
            trouble: None,
        }
    }

    /// Notes that `endpoint` holds `kid` for certain (A12): by a token that it just issued and whose
    /// signature verified or that a probe got, or by a bearer that it accepted where only a good one passes.
    pub fn confirm(&self, endpoint: &Endpoint, kid: &Kid) {
        endpoint.confirmed.store(self.tick(), Ordering::Relaxed);
        let known = self.present.load();
        let settled = known.by_id(endpoint.id).is_some_and(|s| match &s.held {
            Held::One(held) => held == kid,
            Held::Several(kids) => kids.first() == Some(kid),
            Held::Unknown | Held::CannotSign => false,
        });
        if settled {
            return;
        }
        let mut again = false;
        self.change_status(endpoint.id, |status| {
            again = status.held == Held::CannotSign;
            status.learn(kid.clone());
        });
        if again {
            tracing::info!(endpoint = %endpoint.name, key.kid = %kid, "core signs tokens again");
        }
    }

    /// Notes that an endpoint answered but has no key to sign with (K7 to K9).
    pub fn cannot_sign(&self, endpoint: &Endpoint) {
        let present = self.present.load();
        let known = |s: &Status| s.held == Held::CannotSign && s.trouble.as_deref() == Some(CANNOT_SIGN);
        if present.by_id(endpoint.id).is_some_and(known) {
            return;
        }
        let mut begins = false;
        self.change_status(endpoint.id, |status| {
            begins = status.held != Held::CannotSign && !status.held.several();
            status.lose_key();
            status.trouble = Some(CANNOT_SIGN.into());
        });
        if begins {
            tracing::error!(
                endpoint = %endpoint.name, cause = CANNOT_SIGN, remedy = CANNOT_SIGN_REMEDY,
                "core can't sign tokens; clients go on by their passwords"
            );
        }
    }

    /// Ejects an endpoint that can't be reached, until a probe succeeds.
    pub fn eject(&self, endpoint: &Endpoint, why: &str) {
        self.change_status(endpoint.id, |status| {
            status.standing = Standing::Ejected;
            status.trouble = Some(why.into());
        });
    }

    /// Whether a bearer was accepted there within `span`.
    pub fn confirmed_within(&self, endpoint: &Endpoint, span: Duration) -> bool {
        let at = endpoint.confirmed.load(Ordering::Relaxed);
        at != 0 && self.tick().saturating_sub(at) <= span.as_millis() as u64
    }

    fn tick(&self) -> u64 {
        self.began.elapsed().as_millis() as u64 + 1
    }
}

/// What a new endpoint is made of.
pub struct NewEndpoint {
    /// See [`Endpoint::name`].
    pub name: Arc<str>,
    /// See [`Endpoint::address`].
    pub address: SocketAddr,
    /// See [`Endpoint::tls`].
    pub tls: Option<Arc<UpstreamTls>>,
    /// See [`Endpoint::opaque`].
    pub opaque: Opaque,
    /// See [`Endpoint::authority`].
    pub authority: Arc<str>,
    /// See [`Endpoint::side`].
    pub side: Side,
}

/// What is wrong with an endpoint that can't sign, as far as its answers tell.
const CANNOT_SIGN: &str = "core answers token requests with 500 or an empty token: its key file is missing, empty, broken, unreadable or no PKCS#1 RSA key";
/// What mends it.
pub const CANNOT_SIGN_REMEDY: &str = "give core, at TOKEN_PRIVATE_KEY_PATH, a PKCS#1 RSA key that its uid 10000 can read; clients with passwords go on meanwhile";

/// Keys of one opaque endpoint at most: more replicas than that hold the same few.
const KEYS_OF_ONE: usize = 8;

impl Status {
    /// The endpoint holds `kid`; where it may hold several, this one is the likeliest now.
    pub fn learn(&mut self, kid: Kid) {
        self.epoch += 1;
        if self.held == Held::CannotSign {
            self.trouble = None;
        }
        self.held = match std::mem::take(&mut self.held) {
            Held::Several(mut kids) => {
                kids.retain(|k| *k != kid);
                kids.insert(0, kid);
                kids.truncate(KEYS_OF_ONE);
                Held::Several(kids)
            }
            Held::Unknown | Held::CannotSign | Held::One(_) => Held::One(kid),
        };
    }

    /// Whether some replica of it can't sign, as it showed last.
    pub fn cannot_sign(&self) -> bool {
        self.held == Held::CannotSign || self.trouble.as_deref() == Some(CANNOT_SIGN)
    }

    /// The endpoint has no key to sign with now.
    pub fn lose_key(&mut self) {
        self.epoch += 1;
        if !self.held.several() {
            self.held = Held::CannotSign;
        }
    }

    /// The endpoint showed different keys within a moment: it is opaque.
    pub fn became_opaque(&mut self, kids: Vec<Kid>) {
        self.epoch += 1;
        self.held = Held::Several(kids);
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("id", &self.id).field("name", &self.name).finish_non_exhaustive()
    }
}
