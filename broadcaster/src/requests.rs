//! The requests to one peer that wait for an answer.
//!
//! # Invariants
//!
//! * An answer resolves the request whose hash it carries, and no other.
//! * A peer may answer as often as it was asked. An answer beyond that, while nothing waits, ends the
//!   connection; an answer that came too late is dropped. Source: wire facts 4.4.

use std::collections::HashMap;

use bytes::Bytes;
use gossip::{
    DisconnectReason,
    wire::{
        request::{self, RequestKey},
        topics::Topics,
    },
};
use tokio::sync::oneshot;

/// The fate of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answered {
    /// The caller got it.
    Delivered,
    /// The caller has stopped waiting.
    Late,
}

#[derive(Debug, Default)]
pub(crate) struct Requests {
    nonce: u64,
    /// Requests sent minus answers received.
    owed: i64,
    waiting: HashMap<RequestKey, oneshot::Sender<Topics>>,
}

impl Requests {
    /// Seals a request: its bytes, its key, and what resolves with the answer. `None` if `most` wait already.
    pub(crate) fn open(
        &mut self,
        topics: &Topics,
        most: usize,
    ) -> Option<(Bytes, RequestKey, oneshot::Receiver<Topics>)> {
        self.waiting.retain(|_, waiting| !waiting.is_closed());
        if self.waiting.len() >= most {
            return None;
        }
        self.nonce += 1;
        let payload = request::seal(topics, self.nonce);
        let key = RequestKey::of(&payload);
        let (sender, receiver) = oneshot::channel();
        self.waiting.insert(key, sender);
        self.owed += 1;
        Some((payload, key, receiver))
    }

    /// Takes back a request that was never sent.
    pub(crate) fn withdraw(&mut self, key: RequestKey) {
        self.waiting.remove(&key);
        self.owed -= 1;
    }

    /// Takes an answer.
    pub(crate) fn answer(&mut self, payload: &Bytes) -> Result<Answered, DisconnectReason> {
        self.waiting.retain(|_, waiting| !waiting.is_closed());
        self.owed -= 1;
        if self.waiting.is_empty() && self.owed < 0 {
            return Err(DisconnectReason::UnexpectedResponse);
        }
        let Ok((Some(key), topics)) = request::open_answer(payload) else {
            return Ok(Answered::Late);
        };
        let waiting = self.waiting.remove(&key);
        match waiting.map(|waiting| waiting.send(topics)) {
            Some(Ok(())) => Ok(Answered::Delivered),
            _ => Ok(Answered::Late),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topics() -> Topics {
        Topics::new().with("roundKey", Bytes::from_static(b"1"))
    }

    #[test]
    fn an_answer_finds_its_request_whatever_the_order() {
        let mut requests = Requests::default();
        let (_, first, mut first_answer) = requests.open(&topics(), 2).unwrap();
        let (_, second, mut second_answer) = requests.open(&topics(), 2).unwrap();
        assert!(requests.open(&topics(), 2).is_none());
        for key in [second, first] {
            let answer = request::answer(topics(), key);
            assert_eq!(requests.answer(&answer), Ok(Answered::Delivered));
        }
        assert_eq!(first_answer.try_recv().unwrap(), topics());
        assert_eq!(second_answer.try_recv().unwrap(), topics());
    }

    #[test]
    fn a_late_answer_is_dropped_and_one_too_many_ends_the_connection() {
        let mut requests = Requests::default();
        let (_, key, waiting) = requests.open(&topics(), 2).unwrap();
        drop(waiting);
        let answer = request::answer(topics(), key);
        assert_eq!(requests.answer(&answer), Ok(Answered::Late));
        assert_eq!(requests.answer(&answer), Err(DisconnectReason::UnexpectedResponse));
    }
}
