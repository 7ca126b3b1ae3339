//! The last messages, which peers ask each other for over HTTP.
//!
//! # Invariants
//!
//! * It is bounded, and an author who says much displaces their own messages before those of others.
//! * No message is in it twice, and one that was displaced does not come back.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, UNIX_EPOCH},
};

use axum::{Router, routing::get};
use tandem::gossip::{
    GossipNode, Identity,
    http::{BoxError, HttpBody, Timeout, read_all},
};

use crate::message::{MAX_MESSAGE, Message};

/// Messages that are kept, and asked for.
const KEPT: usize = 100;

/// Most time by which the clock of an author may be ahead, in milliseconds.
const AHEAD: u64 = 60_000;

/// Longest time for the history of a peer.
const WITHIN: Duration = Duration::from_secs(10);

/// Milliseconds since 1970.
pub(crate) fn now() -> u64 {
    let since = UNIX_EPOCH.elapsed().unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

type Messages = BTreeMap<(u64, String), Message>;

/// The last messages. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct History(Arc<Mutex<Messages>>);

impl History {
    fn change<T>(&self, change: impl FnOnce(&mut Messages) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Adds a message. Returns `true` if it is new.
    pub(crate) fn add(&self, message: &Message) -> bool {
        let (at, signature) = message.place();
        self.change(|messages| {
            let is_old = messages.len() == KEPT
                && messages.keys().next().is_some_and(|(oldest, _)| at <= *oldest);
            if at > now() + AHEAD || is_old {
                return false;
            }
            let is_new = messages.insert((at, signature.to_owned()), message.clone()).is_none();
            if messages.len() > KEPT {
                let displaced = displaced(messages);
                messages.retain(|place, _| Some(place) != displaced.as_ref());
            }
            is_new
        })
    }

    /// Serves them to peers, a line each.
    pub(crate) fn router(&self) -> Router {
        let history = self.clone();
        let line = |message: &Message| [message.write(), b"\n".to_vec()].concat();
        let lines =
            move |messages: &mut Messages| messages.values().flat_map(line).collect::<Vec<u8>>();
        Router::new().route("/history", get(move || async move { history.change(lines) }))
    }
}

/// The oldest message of the author who has most.
fn displaced(messages: &Messages) -> Option<(u64, String)> {
    let mut counts = HashMap::<&str, usize>::new();
    for message in messages.values() {
        *counts.entry(message.author()).or_default() += 1;
    }
    let most = counts.iter().max_by_key(|(_, count)| **count)?.0;
    let mut places = messages.iter().filter(|(_, message)| message.author() == *most);
    places.next().map(|(place, _)| place.clone())
}

/// Asks a connected peer for its history. Messages that nobody signed are left out.
pub(crate) async fn of(
    node: Arc<dyn GossipNode>,
    peer: Identity,
) -> Result<Vec<Message>, BoxError> {
    let request = axum::http::Request::get("/history").extension(Timeout(WITHIN));
    let answer = node.http_client_of(&peer)?.send(request.body(HttpBody::empty())?).await?;
    let lines = read_all(answer.into_body(), KEPT * (MAX_MESSAGE + 1)).await?;
    let lines = lines.split(|byte| *byte == b'\n').take(KEPT);
    Ok(lines.filter_map(|line| Message::read(line).ok()).collect())
}
