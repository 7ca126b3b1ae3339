//! Stream requests to peers that are not connected yet.
//!
//! # Invariants
//!
//! * A peer has requests here only while one of its addresses is being dialled, or is about to be.
//! * At most [`MAX_PENDING`] requests wait. Requests whose caller no longer waits are removed first.

use std::collections::{HashMap, VecDeque};

use libp2p::PeerId;

use super::handler::{OpenError, OpenRequest};
use crate::address::PeerAddress;

/// Largest number of requests that wait for a dial. Chosen: four times the callers that are meant to be served
/// at once.
const MAX_PENDING: usize = 1_024;

/// A request, and the address that it named.
type Waiting = (PeerAddress, OpenRequest);

/// The requests by peer.
#[derive(Debug, Default)]
pub(crate) struct PendingDials {
    peers: HashMap<PeerId, VecDeque<Waiting>>,
    count: usize,
}

impl PendingDials {
    /// Adds a request. Returns its address if that must be dialled now.
    pub(crate) fn keep(&mut self, to: PeerAddress, request: OpenRequest) -> Option<PeerAddress> {
        if self.count >= MAX_PENDING {
            self.forget_abandoned();
        }
        if self.count >= MAX_PENDING {
            request.fail(OpenError::Busy);
            return None;
        }
        let waiting = self.peers.entry(to.peer).or_default();
        let address = waiting.is_empty().then(|| to.clone());
        waiting.push_back((to, request));
        self.count += 1;
        address
    }

    /// Takes the requests for a peer that is now connected.
    pub(crate) fn reached(&mut self, peer: &PeerId) -> impl Iterator<Item = OpenRequest> {
        let waiting = self.peers.remove(peer).unwrap_or_default();
        self.count -= waiting.len();
        waiting.into_iter().map(|(_, request)| request)
    }

    /// Fails the requests that named an address which could not be reached. Returns another address of the peer
    /// to dial, if a request named one.
    pub(crate) fn failed(
        &mut self,
        address: &PeerAddress,
        error: impl Fn() -> OpenError,
    ) -> Option<PeerAddress> {
        let waiting = self.peers.remove(&address.peer)?;
        self.count -= waiting.len();
        let (here, elsewhere): (VecDeque<_>, VecDeque<_>) =
            waiting.into_iter().partition(|(to, _)| to == address);
        here.into_iter().for_each(|(_, request)| request.fail(error()));
        let (next, _) = elsewhere.front()?;
        let next = next.clone();
        self.count += elsewhere.len();
        self.peers.insert(address.peer, elsewhere);
        Some(next)
    }

    /// Removes requests without a waiting caller. A peer keeps its last one, because its dial is in progress.
    fn forget_abandoned(&mut self) {
        for waiting in self.peers.values_mut() {
            let mut left = waiting.len();
            waiting.retain(|(_, request)| {
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

    fn request() -> (OpenRequest, Answer) {
        let (reply, answer) = oneshot::channel();
        (OpenRequest::new(Vec::new(), Instant::now(), Turn::Queued, reply), answer)
    }

    fn error(answer: &mut Answer) -> Option<OpenError> {
        answer.try_recv().ok().map(Result::unwrap_err)
    }

    #[tokio::test]
    async fn requests_for_one_peer_share_a_dial_and_those_of_its_address_share_its_failure() {
        let key = new_key();
        let (one, other) = (address(&key, 1), address(&key, 2));
        let mut pending_dials = PendingDials::default();
        let (first, mut first_answer) = request();
        let (second, mut second_answer) = request();
        let (third, mut third_answer) = request();
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
    async fn abandoned_requests_make_room() {
        let key = new_key();
        let to = address(&key, 1);
        let mut pending_dials = PendingDials::default();
        let mut answers = Vec::new();
        for _ in 0..MAX_PENDING {
            let (request, answer) = request();
            let _shares_the_dial = pending_dials.keep(to.clone(), request);
            answers.push(answer);
        }
        let (refused, mut refused_answer) = request();
        assert_eq!(pending_dials.keep(to.clone(), refused), None);
        assert!(matches!(error(&mut refused_answer), Some(OpenError::Busy)));
        answers.clear();
        let (taken, mut taken_answer) = request();
        assert_eq!(pending_dials.keep(to, taken), None, "the dial is still under way");
        assert!(error(&mut taken_answer).is_none());
        assert_eq!(pending_dials.count, 2);
    }
}
