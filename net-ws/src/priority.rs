//! The ranking of those that dialled this node, by the voting keys that they prove to hold.
//!
//! ```text
//!   101 with a challenge ──▶ peer ──NP──▶ judge ──weight──▶ the peer's place in the fan-out, its merit at the door
//!                                                  ▲
//!                                   every minute ──┘
//! ```
//!
//! # Invariants
//!
//! * One challenge is sent on each connection, and one response to it is looked at: three signatures are all the work
//!   that a peer can cause.
//! * An account gives its weight to one link: the newest that proved to be its.
//! * A link that has ended weighs nothing, and none of it is kept.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use broadcaster::Broadcaster;
use bytes::Bytes;
use gossip::{
    LinkId, PriorityScheme, Tag,
    wire::priority::{PriorityError, PriorityResponse},
};
use mesh::Merit;
use tokio::time;
use tokio_util::sync::CancellationToken;

/// Interval at which weights are asked for again. Source: wire facts 11.5.
const REFRESH: Duration = Duration::from_secs(60);

type Account = [u8; 32];

/// The scheme of a node, and the links that it ranks.
#[derive(Debug)]
pub(crate) struct Priority {
    scheme: Arc<dyn PriorityScheme>,
    /// At most one for each link.
    ranked: Mutex<BTreeMap<Account, Ranked>>,
}

#[derive(Debug)]
struct Ranked {
    link: LinkId,
    merit: Option<Merit>,
}

impl Priority {
    pub(crate) fn new(scheme: Arc<dyn PriorityScheme>) -> Self {
        Self { scheme, ranked: Mutex::default() }
    }

    /// The message that answers a challenge, if this node answers.
    pub(crate) fn respond(&self, challenge: &str) -> Option<(Tag, Bytes)> {
        self.scheme.respond(challenge).map(|response| (Tag::NP, response.encode()))
    }

    /// Ranks a link by the response to its challenge.
    pub(crate) fn judge(
        &self,
        broadcaster: &Broadcaster,
        (link, merit): (LinkId, Option<&Merit>),
        challenge: &str,
        payload: &[u8],
    ) -> Result<(), PriorityError> {
        let response = PriorityResponse::decode(payload)?;
        let PriorityResponse { account, round, .. } = response;
        let voter = self.scheme.voter(&account, round).ok_or(PriorityError::NoVoter)?;
        response.verify(challenge, &voter)?;
        let ranked = Ranked { link, merit: merit.cloned() };
        ranked.weigh(broadcaster, self.scheme.weight(&account));
        if let Some(before) = self.ranked().insert(account, ranked).filter(|it| it.link != link) {
            before.weigh(broadcaster, 0);
        }
        Ok(())
    }

    /// Forgets a link that has ended.
    pub(crate) fn gone(&self, link: LinkId) {
        self.ranked().retain(|_, ranked| ranked.link != link);
    }

    fn refresh(&self, broadcaster: &Broadcaster) {
        for (account, ranked) in self.ranked().iter() {
            ranked.weigh(broadcaster, self.scheme.weight(account));
        }
    }

    fn ranked(&self) -> MutexGuard<'_, BTreeMap<Account, Ranked>> {
        self.ranked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ranked {
    fn weigh(&self, broadcaster: &Broadcaster, weight: u64) {
        broadcaster.weigh(self.link, weight);
        if let Some(merit) = &self.merit {
            merit.weigh(weight);
        }
    }
}

/// Asks for the weights again from time to time, until the network stops.
pub(crate) async fn run(
    priority: Arc<Priority>,
    broadcaster: Broadcaster,
    cancel: CancellationToken,
) {
    let mut ticks = time::interval(REFRESH);
    while cancel.run_until_cancelled(ticks.tick()).await.is_some() {
        priority.refresh(&broadcaster);
    }
}
