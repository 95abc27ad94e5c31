//! The move from one side of endpoints to the next one: who goes there, how many, and when it has failed too often.
//! Pure.

use std::{cmp::Reverse, collections::HashMap, fmt, net::IpAddr, time::Duration};

use aws_lc_rs::digest::{self, SHA256};
use ipnet::IpNet;

use crate::words::clock::UnixTime;

/// Which endpoints: those that serve now, or those that shall.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Side {
    /// Where all fall back to.
    #[default]
    Current,
    /// `side = "next"`.
    Next,
}

/// Traffic that goes to the next side whatever the share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Matcher {
    /// `project:p`: registry requests for it, and requests for tokens that name it.
    Project(Box<str>),
    /// `agent:x`: `User-Agent` has this in it.
    Agent(Box<str>),
    /// `source:10.0.0.0/8`: the client's address is in it.
    Source(IpNet),
}

impl Matcher {
    /// `None` where it is none of the three.
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, what) = text.split_once(':')?;
        match kind {
            _ if what.is_empty() => None,
            "project" => (!what.contains('/')).then(|| Self::Project(what.into())),
            "agent" => Some(Self::Agent(what.into())),
            "source" => {
                let one = || what.parse::<IpAddr>().ok().map(IpNet::from);
                what.parse::<IpNet>().ok().map(|network| network.trunc()).or_else(one).map(Self::Source)
            }
            _ => None,
        }
    }

    fn matches(&self, asked: &Asked<'_>) -> bool {
        match self {
            Self::Project(name) => (asked.is_for)(name),
            Self::Agent(part) => contains(asked.agent, part.as_bytes()),
            Self::Source(network) => network.contains(&asked.client),
        }
    }
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Project(name) => write!(f, "project:{name}"),
            Self::Agent(part) => write!(f, "agent:{part}"),
            Self::Source(network) => write!(f, "source:{network}"),
        }
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// A part of a whole, in hundredths of a percent: 0 to 10,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Part(u16);

/// The whole.
const WHOLE: u16 = 10_000;

impl Part {
    /// So many percent; more than 100 are 100.
    pub const fn percent(percent: u8) -> Self {
        let all = percent as u16 * 100;
        Self(if all > WHOLE { WHOLE } else { all })
    }

    /// `1%`, `0.5%`: at most two digits behind the point.
    pub fn parse(text: &str) -> Option<Self> {
        let number = text.strip_suffix('%')?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        let digits =
            |text: &str, most| (1..=most).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole, 3) || !digits(fraction, 2) {
            return None;
        }
        let hundredths: u32 = format!("{fraction:0<2}").parse().ok()?;
        let all = whole.parse::<u32>().ok()? * 100 + hundredths;
        u16::try_from(all).ok().filter(|all| *all <= WHOLE).map(Self)
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 % 100 {
            0 => write!(f, "{}%", self.0 / 100),
            hundredths => write!(f, "{}.{hundredths:02}%", self.0 / 100),
        }
    }
}

/// From then on so many percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// When it begins.
    pub at: UnixTime,
    /// 0 to 100.
    pub share: u8,
}

/// What the configuration says of the move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ramp {
    /// Percent of clients before the first step.
    pub share: u8,
    /// Later ones after earlier ones.
    pub plan: Vec<Step>,
    /// What goes to the next side beside the share.
    pub by: Vec<Matcher>,
    /// The part of the next side's requests in a minute that may fail.
    pub stop_at: Part,
}

impl Ramp {
    /// Percent of clients by plan.
    pub fn planned(&self, now: UnixTime) -> u8 {
        self.plan.iter().rev().find(|step| step.at <= now).map_or(self.share, |step| step.share)
    }

    /// The step that comes next.
    pub fn next_step(&self, now: UnixTime) -> Option<Step> {
        self.plan.iter().find(|step| step.at > now).copied()
    }

    /// Whether a request goes to the next side because of what it is.
    pub fn names(&self, asked: &Asked<'_>) -> bool {
        self.by.iter().any(|matcher| matcher.matches(asked))
    }
}

/// What a request is, as far as the ramp looks at it.
pub struct Asked<'a> {
    /// The client.
    pub client: IpAddr,
    /// `User-Agent`; empty where it has none.
    pub agent: &'a [u8],
    /// Whether it is for this project.
    pub is_for: &'a dyn Fn(&str) -> bool,
}

/// A client's place among all, 0 to 9,999: those below a share belong to it, so that a share that grows takes clients up
/// and sends none back.
///
/// By the client's address (of IPv6 its network), and by nothing that a client says: it is the same for a ping, a token
/// request and what follows, anonymous or not, in every process with the same deployment, and no token can choose it (A9).
pub fn place(deployment: &str, network: IpAddr) -> u16 {
    let mut context = digest::Context::new(&SHA256);
    context.update(b"ramp");
    context.update(&(deployment.len() as u64).to_be_bytes());
    context.update(deployment.as_bytes());
    match network {
        IpAddr::V4(v4) => context.update(&v4.octets()),
        IpAddr::V6(v6) => context.update(&v6.octets()),
    }
    let mut first = [0; 8];
    first.iter_mut().zip(context.finish().as_ref()).for_each(|(to, from)| *to = *from);
    (u64::from_be_bytes(first) % u64::from(WHOLE)) as u16
}

/// Whether the client at `place` belongs to so many percent.
pub fn is_within(place: u16, share: u8) -> bool {
    place < Part::percent(share).0
}

/// Requests to the next side, and those of them that failed there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// All.
    pub sends: u32,
    /// Those that failed.
    pub failures: u32,
}

/// So many failures at least: fewer are chance, whatever part of few requests they are.
pub const LEAST_FAILURES: u32 = 5;
/// Seconds that are looked at.
pub const WINDOW: usize = 60;

impl Tally {
    /// Whether the next side has failed too often.
    pub fn is_past(self, stop_at: Part) -> bool {
        let failed = u64::from(self.failures) * u64::from(WHOLE);
        self.failures >= LEAST_FAILURES && failed > u64::from(self.sends) * u64::from(stop_at.0)
    }
}

/// The last minute, second by second.
#[derive(Clone, Debug)]
pub struct Minute([(UnixTime, Tally); WINDOW]);

impl Default for Minute {
    fn default() -> Self {
        Self([(UnixTime(i64::MIN), Tally::default()); WINDOW])
    }
}

impl Minute {
    /// One more of each where said.
    pub fn count(&mut self, now: UnixTime, more: Tally) {
        let at = now.0.rem_euclid(WINDOW as i64) as usize;
        let Some((second, tally)) = self.0.get_mut(at) else { return };
        if *second != now {
            (*second, *tally) = (now, Tally::default());
        }
        tally.sends = tally.sends.saturating_add(more.sends);
        tally.failures = tally.failures.saturating_add(more.failures);
    }

    /// All of the minute that ends now. What a clock that jumped has left in the future does not count.
    pub fn sum(&self, now: UnixTime) -> Tally {
        let within = |second: UnixTime| (0..WINDOW as i64).contains(&now.0.saturating_sub(second.0));
        let mut sum = Tally::default();
        for (_, tally) in self.0.iter().filter(|(second, _)| within(*second)) {
            sum.sends = sum.sends.saturating_add(tally.sends);
            sum.failures = sum.failures.saturating_add(tally.failures);
        }
        sum
    }
}

/// Failures of one network that count where it is bounded: two such networks alone are fewer than stop the move.
pub const OF_ONE_NETWORK: u32 = 2;
/// Networks that are bounded at most: the one that failed most where it sends no more than half of all, and the next one
/// where both send no more than a quarter. Where they send more, there is nobody else to judge by.
const BOUNDED: [u64; 2] = [2, 4];
/// Networks that are told apart in each half of the minute; all others are as one, which is never bounded.
const NETWORKS: usize = 10_000;
/// Seconds after which the older half is forgotten.
const HALF: i64 = WINDOW as i64 / 2;

impl Tally {
    /// Both of these.
    fn plus(self, more: Self) -> Self {
        let sends = self.sends.saturating_add(more.sends);
        Self { sends, failures: self.failures.saturating_add(more.failures) }
    }

    /// With so few failures that it stops nothing alone, and as many fewer sends: the part that failed is the same.
    fn bounded(self) -> Self {
        if self.failures <= OF_ONE_NETWORK {
            return self;
        }
        let sends = u64::from(self.sends) * u64::from(OF_ONE_NETWORK);
        let sends = sends.div_ceil(u64::from(self.failures)).min(self.sends.into()) as u32;
        Self { sends, failures: OF_ONE_NETWORK }
    }
}

/// What the next side is judged by: `all`, but of the networks that failed most (`worst`, the worst one first) no more
/// than is bounded. So one hostile client among many stops nothing, and a side that fails all is stopped also where
/// little was sent before, or much, and where all clients are behind one address.
pub fn judged(all: Tally, worst: &[Tally]) -> Tally {
    let (mut judged, mut sent) = (all, 0);
    for (tally, part) in worst.iter().zip(BOUNDED) {
        sent += u64::from(tally.sends);
        if sent * part > u64::from(all.sends) {
            break;
        }
        let bounded = tally.bounded();
        judged.sends = judged.sends.saturating_sub(tally.sends - bounded.sends);
        judged.failures = judged.failures.saturating_sub(tally.failures - bounded.failures);
    }
    judged
}

/// What each network sent to the next side within the last minute, or the second half of it at least, and what of it
/// failed.
#[derive(Clone, Debug)]
pub struct Networks {
    /// When the running half began.
    since: UnixTime,
    /// The running half, and the one before. `None` is nobody's: no network is to blame.
    halves: [HashMap<Option<IpAddr>, Tally>; 2],
    all: Tally,
    /// Those that failed most, the worst one first.
    worst: Vec<IpAddr>,
}

impl Default for Networks {
    fn default() -> Self {
        Self {
            since: UnixTime(i64::MIN),
            halves: <[HashMap<_, _>; 2]>::default(),
            all: Tally::default(),
            worst: Vec::new(),
        }
    }
}

impl Networks {
    /// Counts this too; of no network where it is nobody's.
    pub fn count(&mut self, network: Option<IpAddr>, more: Tally, now: UnixTime) {
        self.pass(now);
        let [running, _] = &mut self.halves;
        let is_known = running.len() < NETWORKS || running.contains_key(&network);
        let network = network.filter(|_| is_known);
        let tally = running.entry(network).or_default();
        *tally = tally.plus(more);
        self.all = self.all.plus(more);
        if let Some(network) = network.filter(|_| more.failures > 0) {
            self.rank(network);
        }
    }

    /// What the next side is judged by.
    pub fn judged(&self) -> Tally {
        let worst: Vec<Tally> = self.worst.iter().map(|network| self.of(*network)).collect();
        judged(self.all, &worst)
    }

    /// Forgets what is too old by now. Clocks that are read at once may come late by a little; one that was set back, or
    /// forth, leaves nothing.
    fn pass(&mut self, now: UnixTime) {
        match now.0.saturating_sub(self.since.0) {
            passed if (-HALF..HALF).contains(&passed) => {}
            passed if (HALF..2 * HALF).contains(&passed) => {
                self.since = UnixTime(self.since.0 + HALF);
                self.halves.swap(0, 1);
                self.forget();
            }
            _ => {
                self.since = now;
                self.halves.iter_mut().for_each(HashMap::clear);
                self.forget();
            }
        }
    }

    /// The running half begins, and what is known is that of the one before.
    fn forget(&mut self) {
        let [running, before] = &mut self.halves;
        running.clear();
        self.all = before.values().fold(Tally::default(), |all, tally| all.plus(*tally));
        let failed = before.iter().filter(|(_, tally)| tally.failures > 0);
        let failed: Vec<IpAddr> = failed.filter_map(|(network, _)| *network).collect();
        self.worst.clear();
        for network in failed {
            self.rank(network);
        }
    }

    fn of(&self, network: IpAddr) -> Tally {
        let halves = self.halves.iter().filter_map(|half| half.get(&Some(network)));
        halves.fold(Tally::default(), |sum, tally| sum.plus(*tally))
    }

    /// A network that has failed by now may be among the worst.
    fn rank(&mut self, network: IpAddr) {
        let mut worst = std::mem::take(&mut self.worst);
        if !worst.contains(&network) {
            worst.push(network);
        }
        worst.sort_by_key(|network| Reverse(self.of(*network).failures));
        worst.truncate(BOUNDED.len());
        self.worst = worst;
    }
}

/// Most clients wait so long at least: who leaves later without an answer was failed.
pub const PATIENCE: Duration = Duration::from_secs(4);

/// What the next side has done to a request that has ended, or whose client has left: `failed` times it had failed it
/// before, and so long a send to one side has been without an answer. Where the current side is no better, nothing.
pub fn settled(failed: u32, awaited: Option<(Side, Duration)>) -> Tally {
    match awaited.filter(|(_, waited)| *waited >= PATIENCE) {
        None => Tally { sends: 0, failures: failed },
        Some((Side::Next, _)) => Tally { sends: 1, failures: failed.saturating_add(1) },
        Some((Side::Current, _)) => Tally::default(),
    }
}

#[cfg(test)]
mod tests;
