//! A request to Harbor: judged, planned, sent, and planned again where core's key changed meanwhile.

mod conclude;
mod dispatch;
mod judge;
mod observed;
mod prepare;
mod wait;

use std::{
    ops::Range,
    rc::Rc,
    time::{Duration, Instant},
};

use http::{HeaderValue, Response};

pub use self::observed::would_rescue;
use super::{
    body::DownBody,
    context::{Downstream, Policy, Worker},
    park::Turn,
    send::Outgoing,
    story::Story,
};
use crate::{
    decisions::{plan::Tried, refusal},
    words::{
        reason::{Reason, Rescue},
        route::Registry,
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
    /// Whether it goes to the portal.
    pub portal: bool,
    /// Its story.
    pub story: &'a mut Story,
    journey: Journey,
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
    asked: bool,
    refused: bool,
    held: bool,
    /// Whether it has waited for a lock of core's.
    outlasted: bool,
    waits: usize,
    wait_until: Option<Instant>,
}

/// Rounds of planning at most, sent or not: each learns something, and there is only so much to learn.
const ROUNDS: usize = 12;

pub use wait::serves;

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
    /// See [`Passage::portal`].
    pub portal: bool,
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
    let Ask { outgoing, registry, bearer, within, park, portal } = ask;
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
        portal,
        story,
        journey,
    };
    let mut turn: Option<Turn> = None;
    loop {
        match passage.round().await {
            Ok(Some(response)) => {
                if let Some(turn) = turn {
                    turn.answered();
                    passage.story.rescued(Rescue::Park);
                }
                return Ok(response);
            }
            Ok(None) => passage.journey.rounds += 1,
            Err(reason) => {
                drop(turn.take());
                // Boxed: rare.
                turn = Some(Box::pin(passage.park(reason)).await?);
            }
        }
        if passage.journey.rounds >= ROUNDS {
            return Err(Reason::UpstreamBroke);
        }
    }
}

impl Passage<'_> {
    /// One round under one snapshot of keys, endpoints and time (A19).
    async fn round(&mut self) -> Result<Round, Reason> {
        if self.journey.refused {
            self.await_signers().await;
        }
        let (ring, now) = (self.worker.shared.keys.ring(), self.worker.shared.clock.now());
        let judgement = self.judge(&ring, now).await;
        self.keep_head(judgement.as_ref());
        let Some(ready) = self.prepare(judgement.as_ref(), &ring, now).await? else { return Ok(None) };
        let Some(sent) = self.dispatch(ready, judgement.as_ref(), &ring).await? else {
            return Ok(None);
        };
        self.conclude(sent).await
    }

    fn may_send_again(&self) -> bool {
        self.outgoing.sends.get() < refusal::SENDS
    }
}
