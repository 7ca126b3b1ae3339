//! Wishes for streams to peers that are not connected.
//!
//! # Invariants
//!
//! * A peer has wishes here only while an address of it is being dialled, or is about to be.
//! * At most [`MAX_UNREACHED`] wishes wait; those that nobody waits for any more make room first.

use std::collections::{HashMap, VecDeque};

use libp2p::PeerId;

use super::handler::{OpenError, OpenRequest};
use crate::config::PeerAddress;

/// Wishes that wait for connections. Chosen: four times the callers that are meant to be served at
/// once.
const MAX_UNREACHED: usize = 1_024;

/// A wish, with the address it names.
type Waiting = (PeerAddress, OpenRequest);

/// The wishes, by peer.
#[derive(Debug, Default)]
pub(crate) struct PendingDials {
    peers: HashMap<PeerId, VecDeque<Waiting>>,
    count: usize,
}

impl PendingDials {
    /// Keeps a wish. Gives its address if it is to be dialled now.
    pub(crate) fn keep(&mut self, to: PeerAddress, request: OpenRequest) -> Option<PeerAddress> {
        if self.count >= MAX_UNREACHED {
            self.forget_abandoned();
        }
        if self.count >= MAX_UNREACHED {
            request.fail(OpenError::Busy);
            return None;
        }
        let wishes = self.peers.entry(to.peer).or_default();
        let address = wishes.is_empty().then(|| to.clone());
        wishes.push_back((to, request));
        self.count += 1;
        address
    }

    /// A peer is connected. Gives what was wished of it.
    pub(crate) fn reached(&mut self, peer: &PeerId) -> impl Iterator<Item = OpenRequest> {
        let wishes = self.peers.remove(peer).unwrap_or_default();
        self.count -= wishes.len();
        wishes.into_iter().map(|(_, request)| request)
    }

    /// Nobody was reached at an address. Gives another address of the peer to dial, if one was named.
    pub(crate) fn failed(
        &mut self,
        address: &PeerAddress,
        error: impl Fn() -> OpenError,
    ) -> Option<PeerAddress> {
        let wishes = self.peers.remove(&address.peer)?;
        self.count -= wishes.len();
        let (here, elsewhere): (VecDeque<_>, VecDeque<_>) =
            wishes.into_iter().partition(|(to, _)| to == address);
        here.into_iter().for_each(|(_, request)| request.fail(error()));
        let (next, _) = elsewhere.front()?;
        let next = next.clone();
        self.count += elsewhere.len();
        self.peers.insert(address.peer, elsewhere);
        Some(next)
    }

    /// Makes room. A peer whose wishes are all abandoned keeps the last one, for its dial is under way.
    fn forget_abandoned(&mut self) {
        for wishes in self.peers.values_mut() {
            let mut left = wishes.len();
            wishes.retain(|(_, request)| {
                let forget = left > 1 && request.is_abandoned();
                left -= usize::from(forget);
                !forget
            });
        }
        self.count = self.peers.values().map(VecDeque::len).sum();
    }
}

#[cfg(test)]
mod tests {
    use gossip::Keypair;
    use tokio::{sync::oneshot, time::Instant};

    use super::*;
    use crate::{
        config::libp2p_key,
        streams::{OutboundStream, Turn},
        tests::host::new_key,
    };

    type Answer = oneshot::Receiver<Result<OutboundStream, OpenError>>;

    fn address(key: &Keypair, port: u16) -> PeerAddress {
        let id = libp2p_key(key).public().to_peer_id();
        PeerAddress::new(format!("/ip4/127.0.0.1/tcp/{port}/p2p/{id}").parse().unwrap()).unwrap()
    }

    fn wish() -> (OpenRequest, Answer) {
        let (reply, answer) = oneshot::channel();
        (OpenRequest::new(Vec::new(), Instant::now(), Turn::Queued, reply), answer)
    }

    fn error(answer: &mut Answer) -> Option<OpenError> {
        answer.try_recv().ok().map(Result::unwrap_err)
    }

    #[tokio::test]
    async fn wishes_for_one_peer_share_a_dial_and_its_failure_is_told_to_who_named_the_address() {
        let key = new_key();
        let (one, other) = (address(&key, 1), address(&key, 2));
        let mut pending_dials = PendingDials::default();
        let (first, mut first_answer) = wish();
        let (second, mut second_answer) = wish();
        let (third, mut third_answer) = wish();
        assert_eq!(pending_dials.keep(one.clone(), first), Some(one.clone()));
        assert_eq!(pending_dials.keep(one.clone(), second), None);
        assert_eq!(pending_dials.keep(other.clone(), third), None);
        assert_eq!(pending_dials.failed(&one, || OpenError::Unresolved), Some(other.clone()));
        for answer in [&mut first_answer, &mut second_answer] {
            assert!(matches!(error(answer), Some(OpenError::Unresolved)));
        }
        assert!(error(&mut third_answer).is_none());
        assert_eq!(pending_dials.reached(&other.peer).count(), 1);
        assert!(pending_dials.count == 0 && !pending_dials.peers.contains_key(&other.peer));
        assert_eq!(pending_dials.failed(&other, || OpenError::Closed), None);
    }

    #[tokio::test]
    async fn what_nobody_waits_for_any_more_makes_room() {
        let key = new_key();
        let to = address(&key, 1);
        let mut pending_dials = PendingDials::default();
        let mut answers = Vec::new();
        for _ in 0..MAX_UNREACHED {
            let (request, answer) = wish();
            let _shares_the_dial = pending_dials.keep(to.clone(), request);
            answers.push(answer);
        }
        let (refused, mut refused_answer) = wish();
        assert_eq!(pending_dials.keep(to.clone(), refused), None);
        assert!(matches!(error(&mut refused_answer), Some(OpenError::Busy)));
        answers.clear();
        let (taken, mut taken_answer) = wish();
        assert_eq!(pending_dials.keep(to, taken), None, "the dial is still under way");
        assert!(error(&mut taken_answer).is_none());
        assert_eq!(pending_dials.count, 2);
    }
}
