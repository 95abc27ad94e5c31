//! A request to Harbor: judged, planned, sent, and planned again where core's key changed meanwhile.

mod conclude;
mod credential;
mod disguise;
mod dispatch;
mod judge;
mod manifest;
mod observed;
mod prepare;
mod push;
mod ramp;
mod wait;

use std::{
    ops::Range,
    rc::Rc,
    time::{Duration, Instant},
};

use http::{HeaderValue, Response};

pub use self::{observed::would_rescue, wait::serves};
use self::{push::Push, ramp::Ramped};
use super::{
    body::DownBody,
    context::{Downstream, Policy, Worker},
    park::{self, Turn},
    replay,
    send::Outgoing,
    story::Story,
};
use crate::{
    decisions::{outage::Need, plan::Tried, refusal},
    words::{
        reason::{Reason, Rescue},
        route::{Kind, Registry},
    },
};

/// A request on its way up, with what has been tried for it.
pub struct Passage<'a> {
    /// The worker that serves it.
    pub worker: &'a Rc<Worker>,
    /// The connection that it came over; `None` for a question of our own.
    pub downstream: Option<&'a Downstream>,
    /// The policy of its moment.
    pub policy: &'a Policy,
    /// What goes up.
    pub outgoing: Outgoing,
    /// What of the registry it is for; `None` for any other route, which is only passed on.
    pub registry: Option<Registry<'a>>,
    /// Its registry token, where it has one and is judged by it.
    pub bearer: Option<Bearer>,
    /// To the head of the answer.
    pub within: Duration,
    /// How long it may wait for an endpoint; zero = not at all.
    pub park: Duration,
    /// How long its client gives it in all, waits included, where that is known.
    pub patience: Option<Duration>,
    /// What core can't answer it without.
    pub need: Need,
    /// Whether it goes to the portal.
    pub portal: bool,
    /// Its story.
    pub story: &'a mut Story,
    journey: Journey,
    /// What can be sent anew, where it is a step of a push.
    push: Option<Box<Push>>,
    /// Whether it is a client's own request, not a step that we take for one.
    of_client: bool,
    /// Whether it has had a round: what is kept of it is decided in the first.
    begun: bool,
    ramped: Ramped,
}

/// A request's bearer: the header as it came, and where the token stands in it. No copy of the token.
#[derive(Clone, Debug)]
pub struct Bearer {
    value: HeaderValue,
    place: Range<usize>,
}

impl Bearer {
    /// The bearer in `value`, whose token is `token`, a part of its bytes.
    pub fn new(value: &HeaderValue, token: &[u8]) -> Self {
        let end = value.as_bytes().trim_ascii_end().len();
        Self { value: value.clone(), place: end - token.len()..end }
    }

    /// The token's bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.value.as_bytes()[self.place.clone()]
    }

    /// The token as text; empty where it is none, which verifies as little.
    pub fn text(&self) -> &str {
        std::str::from_utf8(self.bytes()).unwrap_or_default()
    }
}

/// What one request has gone through so far.
#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own, none a state")]
struct Journey {
    tried: Vec<Tried>,
    avoid: Vec<u64>,
    rounds: usize,
    /// Endpoints that were asked for their key ahead of it, and those that were after they refused it unasked.
    asked: Vec<u64>,
    learned: Vec<u64>,
    refused: bool,
    held: bool,
    /// Whether the endpoint of its last send was asked for its key first.
    asked_last: bool,
    /// Whether it has waited for a lock of core's.
    outlasted: bool,
    waits: usize,
    wait_until: Option<Instant>,
    /// Sends before it began: it has its own budget of them.
    sent_before: usize,
    /// Whether all of it may be sent again after an outage.
    again: bool,
    /// Whether it was sent again on the mere doubt that an outage had failed it.
    doubted: bool,
    /// Whether an endpoint had no connection left for it.
    full: bool,
    /// To replay; had after a wait, for the plan that follows.
    turn: Option<replay::Turn>,
}

/// Rounds of planning at most, sent or not: each learns something, and there is only so much to learn.
const ROUNDS: usize = 12;

/// What came of one round: what goes to the client, or nothing yet because something was learned.
type Round = Option<Response<DownBody>>;

/// What a passage is made of.
pub struct Ask<'a> {
    /// See [`Passage::outgoing`].
    pub outgoing: Outgoing,
    /// See [`Passage::registry`].
    pub registry: Option<Registry<'a>>,
    /// See [`Passage::bearer`].
    pub bearer: Option<Bearer>,
    /// See [`Passage::within`].
    pub within: Duration,
    /// See [`Passage::park`].
    pub park: Duration,
    /// See [`Passage::patience`].
    pub patience: Option<Duration>,
    /// See [`Passage::need`].
    pub need: Need,
    /// See [`Passage::portal`].
    pub portal: bool,
    /// See [`Passage::of_client`].
    pub of_client: bool,
}

/// What follows a round that failed.
enum Recovered {
    /// An endpoint is back, and it is this request's turn.
    Turn(Turn),
    /// Its push began anew.
    Again,
    /// It has been done already.
    Done(Box<Response<DownBody>>),
}

/// Sends a request up by the best plan there is and gives back Harbor's answer, or the reason to answer it
/// ourselves.
pub async fn forward(
    worker: &Rc<Worker>,
    downstream: Option<&Downstream>,
    policy: &Policy,
    ask: Ask<'_>,
    story: &mut Story,
) -> Result<Response<DownBody>, Reason> {
    let Ask { outgoing, registry, bearer, within, park, patience, need, portal, of_client } = ask;
    let journey = Journey::default();
    let mut passage = Passage {
        worker,
        downstream,
        policy,
        outgoing,
        registry,
        bearer,
        within,
        park,
        patience,
        need,
        portal,
        story,
        journey,
        push: None,
        of_client,
        begun: false,
        ramped: Ramped::default(),
    };
    passage.run().await
}

impl Passage<'_> {
    /// Round after round, until there is an answer or nothing more can be done.
    async fn run(&mut self) -> Result<Response<DownBody>, Reason> {
        let mut turn: Option<Turn> = None;
        let mut waited = false;
        loop {
            let body = self.outgoing.body.is_some();
            let round = match &turn {
                None => self.round().await,
                // Boxed: rare.
                Some(_) => Box::pin(park::hold(self.round(), &mut turn, body)).await,
            };
            let reason = match round {
                Ok(Some(response)) => {
                    turn.into_iter().for_each(Turn::answered);
                    if waited {
                        self.story.rescued(Rescue::Park);
                    }
                    self.settle_side(&response);
                    self.settle_push(&response);
                    return Ok(response);
                }
                Ok(None) if self.journey.rounds + 1 >= ROUNDS => return Err(Reason::UpstreamBroke),
                Ok(None) => {
                    self.journey.rounds += 1;
                    continue;
                }
                Err(reason) => reason,
            };
            drop(turn.take());
            waited = false;
            // Boxed: rare.
            match Box::pin(self.recover(reason)).await? {
                Recovered::Turn(back) => (turn, waited) = (Some(back), true),
                Recovered::Again => {}
                Recovered::Done(response) => return Ok(*response),
            }
        }
    }

    /// One round under one snapshot of keys, endpoints and time (A19).
    async fn round(&mut self) -> Result<Round, Reason> {
        if self.journey.refused {
            self.await_signers().await;
        }
        let mut moment = self.judge().await;
        if !std::mem::replace(&mut self.begun, true) {
            self.keep_head(moment.judgement.as_ref());
            self.take_up(moment.judgement.as_ref());
        }
        let Some(ready) = self.prepare(&mut moment).await? else { return Ok(None) };
        let Some(sent) = self.dispatch(ready, &moment).await? else { return Ok(None) };
        self.conclude(sent).await
    }

    /// What can be done about a round that failed.
    async fn recover(&mut self, reason: Reason) -> Result<Recovered, Reason> {
        let manifest = self.registry.as_ref().is_some_and(|registry| registry.kind == Kind::Manifest);
        match (reason, &self.push) {
            // A token request waits by itself: it has another way than up.
            (Reason::Outage, _) if self.registry.is_none() => Err(reason),
            (Reason::Outage, _) if self.journey.again => self.await_database().await.map(Recovered::Turn),
            (Reason::UpstreamBroke | Reason::Outage, Some(_)) if manifest => {
                self.manifest_again(reason).await
            }
            (Reason::UpstreamBroke | Reason::Outage, Some(_)) => {
                self.begin_again(reason).await.map(|()| Recovered::Again)
            }
            _ => self.park(reason).await.map(Recovered::Turn),
        }
    }

    /// All is open again, for as many sends as at first.
    fn start_over(&mut self) {
        let tried = self.journey.tried.drain(..).filter(|tried| *tried == Tried::Replay).collect();
        let Journey { waits, held, outlasted, doubted, .. } = self.journey;
        let (wait_until, sent_before) = (self.journey.wait_until, self.outgoing.sends.get());
        self.journey =
            Journey { tried, held, outlasted, waits, wait_until, sent_before, doubted, ..Journey::default() };
    }

    fn sends(&self) -> usize {
        self.outgoing.sends.get() - self.journey.sent_before
    }

    fn may_send_again(&self) -> bool {
        self.sends() < refusal::SENDS
    }
}
