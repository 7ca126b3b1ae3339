//! A ledger and nodes to test with.

use std::{
    collections::HashMap,
    fs,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Instant,
};

use bytes::Bytes;
use gossip::{
    Admission, ApplicationReason, BoxFuture, ConnectPolicy, Delivery, DeliveryError, Direction,
    GossipNode, Handler, Identity, Inbound, LinkId, NetworkId, NodeAddress, Outbound, PeerClass,
    PeerInfo, Request, RequestError, Response, SubmitError, Tag, Transport, Verdict,
    wire::{request, topics::Topics},
};
use serde_json::Value;
use tandem_services::blocks::{Access, BlockStore, Blocks, StoreError, StoredBlock};
use tokio::task::JoinSet;

pub(crate) fn testdata(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub(crate) fn vectors() -> Value {
    serde_json::from_slice(&testdata("block_service.json")).unwrap()
}

/// The ledger behind the recorded exchanges: stand-in blocks up to round 1,000, and round 9 fails.
#[derive(Debug)]
pub(crate) struct Ledger;

impl Ledger {
    pub(crate) fn blocks() -> Blocks {
        Blocks::new(Arc::new(Self))
    }
}

impl BlockStore for Ledger {
    fn access(&self) -> Access {
        Access::Blocking
    }

    fn latest(&self) -> Result<Option<u64>, StoreError> {
        Ok(Some(1000))
    }

    fn get(&self, round: u64) -> Result<Option<StoredBlock>, StoreError> {
        if round == 9 {
            let source = Arc::new(std::io::Error::other("the disk is on fire"));
            return Err(StoreError::Read { source });
        }
        let mut block = b"\x81\xa3rnd".to_vec();
        match u8::try_from(round) {
            Ok(small @ 0..=0x7f) => block.push(small),
            _ => {
                block.push(0xcd);
                block.extend(u16::try_from(round).unwrap_or(0).to_be_bytes());
            }
        }
        let block = StoredBlock { block: block.into(), cert: Bytes::from_static(b"\x80") };
        Ok((round <= 1000).then_some(block))
    }

    fn contains(&self, round: u64) -> Result<bool, StoreError> {
        Ok(round <= 1000)
    }

    fn put_all(&self, _blocks: &[(u64, StoredBlock)]) -> Result<(), StoreError> {
        Err(StoreError::Full { limit: 0 })
    }
}

/// The behaviour of a peer of a [`FakeNode`] for a request; the number counts the requests to it.
pub(crate) type Answers =
    Arc<dyn Fn(Bytes, usize) -> BoxFuture<'static, Result<Topics, RequestError>> + Send + Sync>;

/// A node whose peers are functions.
pub(crate) struct FakeNode {
    network: NetworkId,
    peers: Mutex<HashMap<LinkId, Answers>>,
    /// Those that proved who they are.
    identities: Mutex<HashMap<LinkId, Identity>>,
    /// Every request: whom, and its payload.
    pub(crate) asked: Mutex<Vec<(LinkId, Bytes)>>,
}

impl FakeNode {
    pub(crate) fn new() -> Arc<Self> {
        let network = NetworkId::new("test-v1").unwrap();
        let (peers, identities, asked) = (Mutex::default(), Mutex::default(), Mutex::default());
        Arc::new(Self { network, peers, identities, asked })
    }

    /// A peer proves who it is.
    pub(crate) fn identify(&self, peer: LinkId, identity: Identity) {
        self.identities.lock().unwrap().insert(peer, identity);
    }

    pub(crate) fn connect<F, Fut>(&self, peer: u64, answers: F) -> LinkId
    where
        F: Fn(Bytes, usize) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Topics, RequestError>> + Send + 'static,
    {
        let answers: Answers = Arc::new(move |payload, turn| Box::pin(answers(payload, turn)));
        self.peers.lock().unwrap().insert(LinkId(peer), answers);
        LinkId(peer)
    }

    /// Connects a node whose handler answers; it knows us as `known_as`.
    pub(crate) fn connect_handler(
        &self,
        peer: u64,
        known_as: u64,
        handler: Arc<dyn Handler>,
    ) -> LinkId {
        self.connect(peer, move |payload, _turn| {
            let handler = Arc::clone(&handler);
            async move { handle(handler, inbound(payload, known_as)).await }
        })
    }

    pub(crate) fn disconnect(&self, peer: LinkId) {
        self.peers.lock().unwrap().remove(&peer);
    }

    /// The peers that it asked, in order.
    pub(crate) fn asked(&self) -> Vec<u64> {
        self.asked.lock().unwrap().iter().map(|(peer, _)| peer.0).collect()
    }
}

/// Has a request handled in a task of its own, as a node does; what is not answered never ends.
pub(crate) async fn handle(
    handler: Arc<dyn Handler>,
    message: Inbound,
) -> Result<Topics, RequestError> {
    let mut task = JoinSet::new();
    task.spawn(async move { handler.handle(message).await });
    match task.join_next().await.unwrap().unwrap() {
        Verdict::Respond(topics) => Ok(topics),
        _ => std::future::pending().await,
    }
}

/// A request as a handler gets it.
pub(crate) fn inbound(body: Bytes, from: u64) -> Inbound {
    let (tag, from, transport) = (Tag::UE, Some(LinkId(from)), Transport::Memory);
    Inbound { tag, body, from, identity: None, transport, received: Instant::now() }
}

impl GossipNode for FakeNode {
    fn network_id(&self) -> &NetworkId {
        &self.network
    }

    fn addresses(&self) -> Vec<NodeAddress> {
        Vec::new()
    }

    fn broadcast(&self, _message: Outbound) -> Result<Admission, SubmitError> {
        Ok(Admission::Closed)
    }

    fn broadcast_and_wait(
        &self,
        _message: Outbound,
    ) -> BoxFuture<'_, Result<Delivery, DeliveryError>> {
        Box::pin(async { Err(DeliveryError::Closed) })
    }

    fn relay(&self, _message: Outbound) -> Result<Admission, SubmitError> {
        Ok(Admission::Closed)
    }

    fn peers(&self, _class: PeerClass) -> Vec<PeerInfo> {
        let peers = self.peers.lock().unwrap();
        let identities = self.identities.lock().unwrap();
        let mut peers: Vec<_> = peers
            .keys()
            .map(|&id| {
                let mut peer = PeerInfo::new(id, Transport::Memory, Direction::Inbound);
                peer.identity = identities.get(&id).copied();
                peer
            })
            .collect();
        peers.sort_by_key(|peer| peer.id);
        peers
    }

    fn request(
        &self,
        peer: LinkId,
        request: Request,
    ) -> BoxFuture<'_, Result<Response, RequestError>> {
        let turn = {
            let mut asked = self.asked.lock().unwrap();
            let payload = request::seal(&request.topics, asked.len() as u64 + 1);
            asked.push((peer, payload.clone()));
            (payload, asked.iter().filter(|(to, _)| *to == peer).count())
        };
        let answers = self.peers.lock().unwrap().get(&peer).cloned();
        Box::pin(async move {
            let answers = answers.ok_or(RequestError::NotConnected { peer })?;
            let topics = answers(turn.0, turn.1).await?;
            Ok(Response { topics })
        })
    }

    fn connect_outgoing(&self, _policy: ConnectPolicy) {}

    fn disconnect(&self, _peer: LinkId, _reason: ApplicationReason) {}

    fn network_advanced(&self) {}
}
