//! Stream requests to peers that are not connected yet.
//!
//! # Invariants
//!
//! * A peer has requests here only while one of its addresses is being dialled, or is about to be. Requests for a direct
//!   way and for one through a relay stand apart: a direct one may need a circuit to the same peer first.
//! * At most [`MAX_PENDING`] requests wait. Requests whose caller no longer waits are removed first.

use std::collections::{HashMap, VecDeque};

use gossip::LinkPath;
use libp2p::PeerId;

use super::handler::{OpenError, OpenRequest};
use crate::address::{PeerAddress, path_of};

/// Largest number of requests that wait for a dial. Chosen: four times the callers that are meant to be served
/// at once.
const MAX_PENDING: usize = 1_024;

/// A request, and the address that it named.
type Waiting = (PeerAddress, OpenRequest);

/// A way to a peer.
type Way = (PeerId, LinkPath);

fn way_of(to: &PeerAddress) -> Way {
    (to.peer, path_of(&to.address))
}

/// The requests by the way that they want.
#[derive(Debug, Default)]
pub(crate) struct PendingDials {
    ways: HashMap<Way, VecDeque<Waiting>>,
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
        let waiting = self.ways.entry(way_of(&to)).or_default();
        let address = waiting.is_empty().then(|| to.clone());
        waiting.push_back((to, request));
        self.count += 1;
        address
    }

    /// Takes the requests for a peer that is now connected by `path`: a direct connection is as good as a circuit, but not the
    /// other way round.
    pub(crate) fn reached(&mut self, peer: &PeerId, path: LinkPath) -> Vec<OpenRequest> {
        let served: &[LinkPath] = match path {
            LinkPath::Direct => &[LinkPath::Direct, LinkPath::Relayed],
            LinkPath::Relayed => &[LinkPath::Relayed],
        };
        let waiting = served.iter().filter_map(|path| self.ways.remove(&(*peer, *path)));
        let waiting: Vec<OpenRequest> = waiting.flatten().map(|(_, request)| request).collect();
        self.count -= waiting.len();
        waiting
    }

    /// Fails the requests that named an address which could not be reached. Returns another address of the peer
    /// to dial, if a request named one.
    pub(crate) fn failed(
        &mut self,
        address: &PeerAddress,
        error: impl Fn() -> OpenError,
    ) -> Option<PeerAddress> {
        let waiting = self.ways.remove(&way_of(address))?;
        self.count -= waiting.len();
        let (here, elsewhere): (VecDeque<_>, VecDeque<_>) =
            waiting.into_iter().partition(|(to, _)| to == address);
        here.into_iter().for_each(|(_, request)| request.fail(error()));
        let (next, _) = elsewhere.front()?;
        let next = next.clone();
        self.count += elsewhere.len();
        self.ways.insert(way_of(address), elsewhere);
        Some(next)
    }

    /// Removes requests without a waiting caller. A peer keeps its last one, because its dial is in progress.
    fn forget_abandoned(&mut self) {
        for waiting in self.ways.values_mut() {
            let mut left = waiting.len();
            waiting.retain(|(_, request)| {
                let forget = left > 1 && request.is_abandoned();
                left -= usize::from(forget);
                !forget
            });
        }
        self.count = self.ways.values().map(VecDeque::len).sum();
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
        assert_eq!(pending_dials.reached(&other.peer, LinkPath::Direct).len(), 1);
        assert!(pending_dials.count == 0 && pending_dials.ways.is_empty());
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

    // Issue 13, 3: a direct connection over WebRTC begins with a circuit to the same peer.
    #[cfg(feature = "circuits")]
    #[tokio::test]
    async fn a_request_for_a_direct_way_waits_for_it_while_one_for_a_circuit_is_served() {
        let (key, relay) = (new_key(), new_key());
        let (direct, through) = (address(&key, 1), address(&relay, 1));
        let circuit = format!("{}/p2p-circuit/p2p/{}", through.address, direct.peer);
        let circuit = PeerAddress::new(circuit.parse().unwrap()).unwrap();
        let mut pending_dials = PendingDials::default();
        let [(first, _first_answer), (second, _second_answer)] = [request(), request()];
        assert_eq!(pending_dials.keep(direct.clone(), first), Some(direct.clone()));
        assert_eq!(pending_dials.keep(circuit.clone(), second), Some(circuit));
        assert_eq!(pending_dials.reached(&direct.peer, LinkPath::Relayed).len(), 1);
        assert_eq!(pending_dials.count, 1);
        assert_eq!(pending_dials.reached(&direct.peer, LinkPath::Direct).len(), 1);
        assert_eq!(pending_dials.count, 0);
    }
}
