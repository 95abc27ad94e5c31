//! The move to the next side as it goes on in this process: what share it has, what failed there, and what began where.

use std::{
    net::IpAddr,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use aws_lc_rs::digest::{SHA256, digest};
use http::{HeaderMap, HeaderValue, Uri, header};
use moka::sync::Cache;
use percent_encoding::percent_decode_str;

use super::{
    budget::network_of,
    uploads::{self, Name},
};
use crate::{
    decisions::ramp::{self, Asked, Minute, Networks, Part, Ramp, Side, Tally},
    words::{clock::UnixTime, route::project_of},
};

/// Uploads whose side is known, at most, and how long one may stand still.
const UPLOADS: u64 = 100_000;
const UPLOAD_IDLE: Duration = Duration::from_hours(1);
/// Log-ins whose side is known, at most, and how long one may take.
const LOGINS: u64 = 10_000;
const LOGIN: Duration = Duration::from_mins(15);

/// What is done about a move that failed.
pub const REMEDY: &str =
    "look at the log of the endpoints with side = \"next\"; when they are mended, `tidegate ramp resume`";

/// All that is known of it.
pub struct Ramps {
    steered: Mutex<Steered>,
    /// The same for requests: see [`Ramps::share`].
    share: AtomicU8,
    /// The largest share that clients of this process had: some of them may have tokens of the next side.
    reached: AtomicU8,
    counted: Mutex<Counted>,
    sends: [AtomicU64; 2],
    failures: AtomicU64,
    uploads: Cache<Name, Side>,
    logins: Cache<Name, Side>,
}

/// What the next side did lately: to be shown, and to be judged.
#[derive(Default)]
struct Counted {
    minute: Minute,
    networks: Networks,
}

/// What an operator or failures have made of the plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Steered {
    /// A share in the place of the planned one.
    pub set: Option<u8>,
    /// Everything goes to the current side.
    pub stopped: Option<Stopped>,
}

/// Why, and since when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// What for.
    pub why: Why,
    /// Since when.
    pub since: UnixTime,
}

/// Who stopped it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// So many of the next side's requests failed in a minute.
    Failures(Tally),
    /// `tidegate ramp stop`.
    Operator,
}

/// As planned, and stopped, in the place of a share.
const AS_PLANNED: u8 = u8::MAX;
const STOPPED: u8 = u8::MAX - 1;

/// Where a request should go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// The side.
    pub side: Side,
    /// Whether its client is, or was, among those that go to the next side: a kid that nobody verified leads nobody else
    /// there (A9).
    pub may_be_next: bool,
}

impl Default for Ramps {
    fn default() -> Self {
        Self {
            steered: Mutex::default(),
            share: AtomicU8::new(AS_PLANNED),
            reached: AtomicU8::new(0),
            counted: Mutex::default(),
            sends: Default::default(),
            failures: AtomicU64::new(0),
            uploads: Cache::builder().max_capacity(UPLOADS).time_to_idle(UPLOAD_IDLE).build(),
            logins: Cache::builder().max_capacity(LOGINS).time_to_live(LOGIN).build(),
        }
    }
}

impl Ramps {
    /// Where a request goes by the plan of now and its client's address.
    pub fn way(&self, ramp: &Ramp, deployment: &str, asked: &Asked<'_>, now: UnixTime) -> Way {
        let (steered, planned) = (self.share.load(Relaxed), ramp.planned(now));
        let share = share_of(steered, planned);
        let reached = self.reached.fetch_max(share, Relaxed).max(planned).max(share);
        if reached == 0 && ramp.by.is_empty() {
            return Way { side: Side::Current, may_be_next: false };
        }
        let named = ramp.names(asked);
        let place = ramp::place(deployment, network_of(asked.client));
        let next = steered != STOPPED && (named || ramp::is_within(place, share));
        let side = if next { Side::Next } else { Side::Current };
        Way { side, may_be_next: named || ramp::is_within(place, reached) }
    }

    /// Percent of clients that go to the next side now.
    pub fn share(&self, ramp: &Ramp, now: UnixTime) -> u8 {
        share_of(self.share.load(Relaxed), ramp.planned(now))
    }

    /// Counts a request of this client that went to `side`.
    pub fn sent(&self, ramp: &Ramp, side: Side, client: IpAddr, now: UnixTime) {
        self.count(side);
        if side == Side::Next {
            self.note(ramp, Some(network_of(client)), Tally { sends: 1, failures: 0 }, now);
        }
    }

    /// Counts a request that should have gone to `side`, which couldn't be reached: that is no client's doing.
    pub fn unreached(&self, ramp: &Ramp, side: Side, now: UnixTime) {
        self.count(side);
        if side == Side::Next {
            self.note(ramp, None, Tally { sends: 1, failures: 1 }, now);
        }
    }

    /// So many times requests of this client have failed at `side` that were counted as sent there. Where the next side
    /// has failed too often the move stops.
    pub fn failed(&self, ramp: &Ramp, side: Side, (client, times): (IpAddr, u32), now: UnixTime) {
        if side == Side::Next && times > 0 {
            self.note(ramp, Some(network_of(client)), Tally { sends: 0, failures: times }, now);
        }
    }

    fn count(&self, side: Side) {
        if let Some(sends) = self.sends.get(usize::from(side == Side::Next)) {
            sends.fetch_add(1, Relaxed);
        }
    }

    fn note(&self, ramp: &Ramp, network: Option<IpAddr>, more: Tally, now: UnixTime) {
        let mut counted = lock(&self.counted);
        counted.minute.count(now, more);
        counted.networks.count(network, more, now);
        if more.failures == 0 {
            return;
        }
        let tally = counted.networks.judged();
        drop(counted);
        self.failures.fetch_add(u64::from(more.failures), Relaxed);
        let idle = self.share(ramp, now) == 0 && ramp.by.is_empty();
        if tally.is_past(ramp.stop_at) && !idle {
            self.stop_for(tally, ramp.stop_at, now);
        }
    }

    fn stop_for(&self, tally: Tally, stop_at: Part, now: UnixTime) {
        let mut steered = lock(&self.steered);
        if steered.stopped.is_some() {
            return;
        }
        steered.stopped = Some(Stopped { why: Why::Failures(tally), since: now });
        self.share.store(STOPPED, Relaxed);
        drop(steered);
        let Tally { sends, failures } = tally;
        tracing::error!(
            requests = sends, failures, stop_at = %stop_at, remedy = REMEDY,
            "the move to the next side is stopped: too many of its requests failed within a minute; all go to the current side"
        );
    }

    /// So many percent from now on, whatever the plan says and whatever failed before.
    pub fn set(&self, share: u8) {
        self.steer(Steered { set: Some(share.min(100)), stopped: None });
    }

    /// All go to the current side from now on.
    pub fn stop(&self, now: UnixTime) {
        let mut steered = self.steered();
        steered.stopped.get_or_insert(Stopped { why: Why::Operator, since: now });
        self.steer(steered);
    }

    /// As planned from now on: also what another configuration does.
    pub fn resume(&self) {
        self.steer(Steered::default());
    }

    fn steer(&self, to: Steered) {
        let mut steered = lock(&self.steered);
        let share = match &to {
            Steered { stopped: Some(_), .. } => STOPPED,
            Steered { set: Some(share), .. } => *share,
            Steered { .. } => AS_PLANNED,
        };
        if to.stopped.is_none() {
            // What failed before is not held against it.
            *lock(&self.counted) = Counted::default();
        }
        *steered = to;
        self.share.store(share, Relaxed);
    }

    /// What has been made of the plan.
    pub fn steered(&self) -> Steered {
        lock(&self.steered).clone()
    }

    /// Requests to both sides since the start, the current one's first, and how many failed at the next one.
    pub fn counts(&self) -> ([u64; 2], u64) {
        (self.sends.each_ref().map(|sends| sends.load(Relaxed)), self.failures.load(Relaxed))
    }

    /// What the next side did in the minute before `now`.
    pub fn minute(&self, now: UnixTime) -> Tally {
        lock(&self.counted).minute.sum(now)
    }

    /// The side on which an upload goes on, by its next step's target.
    pub fn side_of_upload(&self, repository: &str, target: &Uri) -> Option<Side> {
        self.uploads.get(&uploads::name("", repository, target))
    }

    /// An upload goes on at this `Location`.
    pub fn upload_is_on(&self, repository: &str, location: &Uri, side: Side) {
        self.uploads.insert(uploads::name("", repository, location), side);
    }

    /// The side on which a browser began to log in.
    pub fn side_of_login(&self, headers: &HeaderMap) -> Option<Side> {
        self.logins.get(&session(headers)?)
    }

    /// A step of a log-in was answered by this side; the session is Harbor's new one, or the one that asked.
    pub fn login_is_on(&self, asked: Option<Name>, answer: &HeaderMap, side: Side) {
        let fresh = answer.get_all(header::SET_COOKIE).iter().find_map(|cookie| sid(cookie.as_bytes()));
        for name in fresh.into_iter().chain(asked) {
            self.logins.insert(name, side);
        }
    }
}

fn share_of(steered: u8, planned: u8) -> u8 {
    match steered {
        AS_PLANNED => planned,
        STOPPED => 0,
        set => set,
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Harbor's session of a browser, by its digest.
pub fn session(headers: &HeaderMap) -> Option<Name> {
    let cookies = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes);
    cookies.flat_map(|value| value.split(|b| *b == b';')).find_map(sid)
}

/// The digest of a cookie's value, where the cookie is `sid`.
fn sid(cookie: &[u8]) -> Option<Name> {
    let value = cookie.trim_ascii().strip_prefix(b"sid=")?;
    let value = value.split(|b| *b == b';').next()?;
    digest(&SHA256, value).as_ref().try_into().ok().filter(|_| !value.is_empty())
}

/// Whether a path is a step of Harbor's log-in.
pub fn is_login(path: &str) -> bool {
    path.starts_with("/c/oidc/") || path == "/c/login"
}

/// Whether a token request's query names this project in one of its scopes.
pub fn names_project(query: &str, project: &str) -> bool {
    let scopes = query.split('&').filter_map(|pair| pair.strip_prefix("scope="));
    scopes.map(|scope| scope.replace('+', " ")).any(|scope| {
        let scope = percent_decode_str(&scope).decode_utf8_lossy().into_owned();
        let names = scope.split(' ').filter_map(|one| one.strip_prefix("repository:"));
        names.into_iter().any(|name| project_of(name.split(':').next().unwrap_or_default()) == project)
    })
}

/// A request's client, for the ramp.
pub fn asked<'a>(client: IpAddr, headers: &'a HeaderMap, is_for: &'a dyn Fn(&str) -> bool) -> Asked<'a> {
    let agent = headers.get(header::USER_AGENT).map_or(&[][..], HeaderValue::as_bytes);
    Asked { client, agent, is_for }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOBODY: &dyn Fn(&str) -> bool = &|_| false;

    fn ramp(share: u8) -> Ramp {
        Ramp { share, plan: vec![], by: vec![], stop_at: Part::percent(1) }
    }

    fn client(n: u8) -> Asked<'static> {
        Asked { client: IpAddr::from([10, 0, 0, n]), agent: b"", is_for: NOBODY }
    }

    fn next(ramps: &Ramps, ramp: &Ramp) -> usize {
        let now = UnixTime(1_000);
        (0..=255).filter(|n| ramps.way(ramp, "", &client(*n), now).side == Side::Next).count()
    }

    #[test]
    fn it_stops_by_itself_and_goes_on_when_told() {
        let (ramps, ramp, now) = (Ramps::default(), ramp(30), UnixTime(1_000));
        let before = next(&ramps, &ramp);
        assert!((50..110).contains(&before), "{before}");
        for _ in 0..4 {
            ramps.unreached(&ramp, Side::Next, now);
        }
        assert_eq!(next(&ramps, &ramp), before, "too few to tell");
        ramps.unreached(&ramp, Side::Next, now);
        assert_eq!(next(&ramps, &ramp), 0);
        let why = ramps.steered().stopped.map(|stopped| stopped.why);
        assert_eq!(why, Some(Why::Failures(Tally { sends: 5, failures: 5 })));
        assert_eq!(ramps.share(&ramp, now), 0);
        ramps.resume();
        assert_eq!(next(&ramps, &ramp), before);
        assert_eq!(ramps.minute(now), Tally::default(), "what was is not held against it");
        ramps.set(100);
        assert_eq!(next(&ramps, &ramp), 256);
        ramps.stop(now);
        assert_eq!((next(&ramps, &ramp), ramps.share(&ramp, now)), (0, 0));
        assert_eq!(ramps.counts(), ([0, 5], 5));
    }

    #[test]
    fn one_client_among_many_stops_nothing_and_several_do() {
        let (ramps, ramp, now) = (Ramps::default(), ramp(30), UnixTime(1_000));
        let of = |n: u8| IpAddr::from([10, 0, 0, n]);
        (0..200).for_each(|n| ramps.sent(&ramp, Side::Next, of(n), now));
        for _ in 0..40 {
            ramps.sent(&ramp, Side::Next, of(250), now);
            ramps.failed(&ramp, Side::Next, (of(250), 1), now);
            ramps.failed(&ramp, Side::Current, (of(250), 1), now);
        }
        assert_eq!((ramps.steered(), ramps.minute(now).failures), (Steered::default(), 40));
        (0..3).for_each(|n| ramps.failed(&ramp, Side::Next, (of(n), 1), now));
        let why = ramps.steered().stopped.map(|stopped| stopped.why);
        assert_eq!(why, Some(Why::Failures(Tally { sends: 202, failures: 5 })));
        assert_eq!(ramps.counts(), ([0, 240], 43));
    }

    #[test]
    fn a_client_alone_stops_it_where_there_is_no_other() {
        let (ramps, ramp, now) = (Ramps::default(), ramp(30), UnixTime(1_000));
        let client = IpAddr::from([10, 0, 0, 1]);
        for _ in 0..5 {
            assert_eq!(ramps.steered(), Steered::default());
            ramps.sent(&ramp, Side::Next, client, now);
            ramps.failed(&ramp, Side::Next, (client, 1), now);
        }
        assert!(ramps.steered().stopped.is_some());
    }

    #[test]
    fn failures_of_a_side_that_nobody_is_sent_to_stop_nothing() {
        let (ramps, ramp) = (Ramps::default(), ramp(0));
        (0..50).for_each(|_| ramps.unreached(&ramp, Side::Next, UnixTime(1_000)));
        assert_eq!(ramps.steered(), Steered::default());
    }

    #[test]
    fn a9_an_unverified_kid_leads_nobody_to_the_next_side_who_never_was_there() {
        let (ramps, now) = (Ramps::default(), UnixTime(1_000));
        let may = |ramp: &Ramp| {
            let may = |n: &u8| ramps.way(ramp, "", &client(*n), now).may_be_next;
            (0..=255).filter(may).count()
        };
        assert_eq!(may(&ramp(0)), 0);
        let some = may(&ramp(30));
        assert!((50..110).contains(&some), "{some}");
        ramps.stop(now);
        assert_eq!(may(&ramp(30)), some, "they may have tokens of it");
        assert_eq!(next(&ramps, &ramp(30)), 0);
    }

    #[test]
    fn a_token_request_names_projects_in_its_scopes() {
        let table = [
            ("service=s&scope=repository:p/r:pull", true),
            ("scope=repository%3Ap%2Fr%3Apull%2Cpush&service=s", true),
            ("scope=repository:q/r:pull&scope=repository:p/x:pull", true),
            ("scope=repository:q/r:pull+repository:p/x:pull", true),
            ("scope=registry:p:*", false),
            ("scope=repository:pp/r:pull", false),
            ("account=p", false),
        ];
        for (query, want) in table {
            assert_eq!(names_project(query, "p"), want, "{query}");
        }
    }

    #[test]
    fn a_log_in_stays_with_the_side_that_made_its_session() {
        let ramps = Ramps::default();
        let headers =
            |name, value: &'static str| HeaderMap::from_iter([(name, HeaderValue::from_static(value))]);
        let answer = headers(header::SET_COOKIE, "sid=abc; Path=/; HttpOnly");
        ramps.login_is_on(None, &answer, Side::Next);
        let of = |cookie| ramps.side_of_login(&headers(header::COOKIE, cookie));
        assert_eq!(of("lang=en; sid=abc"), Some(Side::Next));
        assert_eq!([of("sid=abd"), of("xsid=abc"), of("sid=")], [None; 3]);
        let asked = session(&headers(header::COOKIE, "sid=former"));
        ramps.login_is_on(asked, &HeaderMap::new(), Side::Current);
        assert_eq!(of("sid=former"), Some(Side::Current));
        assert!(is_login("/c/oidc/callback") && !is_login("/c/log_out") && !is_login("/api/v2.0/users"));
    }
}
