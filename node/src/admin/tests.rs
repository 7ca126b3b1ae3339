//! The admin API over a real socket, with a broadcaster behind it and no network.

use std::{
    collections::BTreeSet,
    os::unix::fs::PermissionsExt,
    sync::Arc,
    time::{Duration, Instant},
};

use broadcaster::{Broadcaster, Setup, TopicMessage, WantedTags};
use bytes::Bytes;
use gossip::{
    Admission, ApplicationReason, BoxFuture, ConnectPolicy, Delivery, DeliveryError, Direction,
    GossipNode, Interest, LinkId, NetworkId, NetworkProfile, NodeAddress, Outbound, PeerClass,
    PeerInfo, Request, RequestError, Response, SubmitError, Tag, Transport, wire::digest::Digest,
};
use runtime::Shutdown;
use serde_json::Value;
use tandem::{DataDir, TopicScore};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

use crate::{
    config::{Flags, Layers},
    live::Live,
};

use super::{
    Client, ClientError, Context, Crowded, Server,
    api::OPENAPI,
    wire::{About, Dial, Heard, Line, Peer},
};

/// A node that has no network.
struct Hermit {
    network: NetworkId,
    broadcaster: Broadcaster,
}

impl GossipNode for Hermit {
    fn network_id(&self) -> &NetworkId {
        &self.network
    }
    fn addresses(&self) -> Vec<NodeAddress> {
        Vec::new()
    }
    fn broadcast(&self, message: Outbound) -> Result<Admission, SubmitError> {
        self.broadcaster.broadcast(&message)
    }
    fn broadcast_and_wait(
        &self,
        message: Outbound,
    ) -> BoxFuture<'_, Result<Delivery, DeliveryError>> {
        Box::pin(self.broadcaster.broadcast_and_wait(&message))
    }
    fn relay(&self, message: Outbound) -> Result<Admission, SubmitError> {
        self.broadcaster.relay(&message)
    }
    fn peers(&self, class: PeerClass) -> Vec<PeerInfo> {
        self.broadcaster.peers(class)
    }
    fn request(
        &self,
        peer: LinkId,
        request: Request,
    ) -> BoxFuture<'_, Result<Response, RequestError>> {
        Box::pin(self.broadcaster.request(peer, request))
    }
    fn connect_outgoing(&self, _policy: ConnectPolicy) {}
    fn disconnect(&self, peer: LinkId, reason: ApplicationReason) {
        self.broadcaster.disconnect(peer, reason.into());
    }
    fn network_advanced(&self) {}
}

/// The configuration of nobody.
fn live(broadcaster: &Broadcaster) -> Arc<Live> {
    let flags = Flags::data_dir(None);
    let home = |name: &str| (name == "HOME").then(|| "/home/me".into());
    let layers = Layers::gather_from(None, &flags, std::iter::empty(), home).unwrap();
    let parts = (tandem::View::default(), tandem::PeerControl::default(), broadcaster.clone());
    Arc::new(Live::new((None, flags), (layers, Vec::new()), parts, |limits| limits))
}

struct Rig {
    server: Server,
    client: Client,
    broadcaster: Broadcaster,
    dir: TempDir,
    _locked: DataDir,
}

impl Rig {
    fn start() -> Self {
        let root = CancellationToken::new();
        let broadcaster = Broadcaster::start(Setup::new(&NetworkProfile::TANDEM), &root);
        let network = NetworkId::new("test").unwrap();
        let node = Arc::new(Hermit { network, broadcaster: broadcaster.clone() });
        let dir = tempfile::tempdir().unwrap();
        let locked = DataDir::open(dir.path()).unwrap();
        let context = Context {
            node,
            broadcaster: broadcaster.clone(),
            mode: tandem::Mode::WebSocket,
            peer_id: "12D3KooW".to_owned(),
            registry: Arc::default(),
            view: tandem::View::default(),
            control: tandem::PeerControl::default(),
            condition: crate::cli::Condition::default(),
            started: Instant::now(),
            out: crate::lines::Lines::to(std::io::stdout(), |_| String::new()).unwrap(),
            http: None,
            journal: super::Journal::default(),
            live: live(&broadcaster),
            admin_url: Arc::default(),
            rates: Arc::default(),
            refused: Arc::default(),
            crowded: Crowded::default(),
        };
        let server = Server::start(&locked, context, &root).unwrap();
        let client = Client::new(dir.path());
        Self { server, client, broadcaster, dir, _locked: locked }
    }

    fn hear(&self, tag: Tag, body: &'static [u8]) {
        let (body, report) = (Bytes::from_static(body), Box::new(|_| {}));
        self.broadcaster.hear(TopicMessage {
            tag,
            body,
            from: None,
            transport: Transport::Libp2p,
            report,
        });
    }

    async fn stop(self) {
        assert_eq!(self.server.stop(Duration::from_secs(5)).await, Shutdown::Clean);
        assert_eq!(self.broadcaster.stop(Duration::from_secs(5)).await, Shutdown::Clean);
        assert!(!DataDir::admin_socket(self.dir.path()).exists(), "the socket is gone");
    }
}

#[tokio::test]
async fn the_status_says_who_the_node_is() {
    let rig = Rig::start();
    let status = rig.client.status().await.unwrap();
    assert_eq!((status.network.as_str(), status.profile.as_str()), ("test", "tandem"));
    assert_eq!(status.ws, None, "a node that is gone listens nowhere");
    assert_eq!(rig.client.peers().await.unwrap(), []);
    rig.stop().await;
}

// Issue 12, 2.
#[test]
fn the_description_has_every_route_and_no_other() {
    let document: Value = serde_json::from_str(OPENAPI).unwrap();
    let paths = document["paths"].as_object().unwrap().iter();
    let described: BTreeSet<(String, String)> = paths
        .flat_map(|(path, methods)| {
            let methods = methods.as_object().unwrap().keys();
            methods.map(|method| (method.clone(), path.clone()))
        })
        .collect();
    let owned = |(method, path): &(&str, &str)| ((*method).to_owned(), (*path).to_owned());
    let routes = super::api::routes();
    let answered: BTreeSet<(String, String)> = routes.listed().iter().map(owned).collect();
    assert_eq!(described, answered);
    assert_eq!(routes.listed().len(), answered.len(), "a route stands there once");
    let versioned =
        |path: &str| path.starts_with("/v1/") || ["/health", "/metrics"].contains(&path);
    assert!(answered.iter().all(|(_, path)| versioned(path)), "{answered:?}");
}

/// Adds the paths of the numbers in a value.
fn numbers_in(value: &Value, at: &str, paths: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, field)| {
            let at = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
            numbers_in(field, &at, paths);
        }),
        Value::Number(_) => drop(paths.insert(at.to_owned())),
        _ => {}
    }
}

// Issue 12, 2.
#[test]
fn peers_can_be_sorted_by_every_number_that_they_have() {
    let dial = Dial {
        address: String::new(),
        outcome: String::new(),
        failures: 1,
        last_error: None,
        next_try_ms: Some(1),
    };
    let mut info = PeerInfo::new(LinkId(1), Transport::Libp2p, Direction::Inbound);
    info.rtt = Some(Duration::from_millis(1));
    let topics = Some(TopicScore { score: 1.0, is_muted: false });
    let about = About { topics, ..About::default() };
    let peer = Peer { dial: Some(dial), ..Peer::of(&info, about, Instant::now()) };
    let mut paths = BTreeSet::new();
    numbers_in(&serde_json::to_value(&peer).unwrap(), "", &mut paths);
    assert_eq!(paths, super::peers::NUMBERS.into_iter().map(str::to_owned).collect());
    for path in super::peers::NUMBERS {
        assert!(super::peers::number(&peer, path).is_some(), "{path}");
    }
}

#[tokio::test]
async fn the_socket_is_its_owners_alone() {
    let rig = Rig::start();
    let socket = DataDir::admin_socket(rig.dir.path());
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    rig.stop().await;
}

#[tokio::test]
async fn a_message_that_is_heard_is_told_once_with_its_digest() {
    let rig = Rig::start();
    let mut lines = rig.client.listen(&[Tag::TX]).await.unwrap();
    assert_eq!(lines.next().await.unwrap(), Some(Line::Listening));
    rig.hear(Tag::AV, b"not asked for");
    rig.hear(Tag::TX, b"asked for");
    rig.hear(Tag::TX, b"asked for");
    rig.hear(Tag::TX, b"last");
    for body in [&b"asked for"[..], b"last"] {
        let expected = Heard {
            tag: "TX".to_owned(),
            size: body.len(),
            digest: Digest::of(Tag::TX, body).to_string(),
            peer: None,
            transport: "p2p".to_owned(),
        };
        assert_eq!(lines.next().await.unwrap(), Some(Line::Message(expected)));
    }
    rig.stop().await;
    assert_eq!(lines.next().await.unwrap(), None, "the stream ends with the node");
}

// Issue 10, 10: a node that wants only what somebody listens to.
#[tokio::test]
async fn a_listener_makes_the_node_ask_its_peers_for_its_tags() {
    let rig = Rig::start();
    rig.broadcaster.want(WantedTags::Only(Vec::new())).unwrap();
    let mut wanted = rig.broadcaster.wanted();
    let table = &NetworkProfile::TANDEM.tags;
    let only = |tags: &[Tag]| tags.iter().fold(Interest::NONE, |set, tag| set.with(table, *tag));
    assert_eq!(*wanted.borrow_and_update(), Interest::NONE);
    let lines = rig.client.listen(&[Tag::TX, Tag::SP]).await.unwrap();
    assert_eq!(*wanted.borrow_and_update(), only(&[Tag::TX, Tag::SP]));
    let every = rig.client.listen(&[]).await.unwrap();
    assert_eq!(*wanted.borrow_and_update(), table.gossip());
    drop((lines, every));
    // The node learns of it from the sockets.
    tokio::time::timeout(Duration::from_secs(20), wanted.wait_for(|set| *set == Interest::NONE))
        .await
        .expect("nobody listens any more")
        .unwrap();
    rig.stop().await;
}

#[tokio::test]
async fn a_message_is_sent_up_to_the_bound_of_its_tag() {
    let rig = Rig::start();
    let sent = rig.client.send(Tag::AV, vec![7; 1_228].into()).await.unwrap();
    assert_eq!((sent.bytes, sent.peers, sent.written), (1_228, 0, 0));
    assert_eq!(sent.digest, Digest::of(Tag::AV, &[7; 1_228]).to_string());
    for (tag, bytes, expected) in [
        (Tag::AV, 1_229, "the body has 1229 bytes: AV takes at most 1228"),
        (Tag::AV, 6_000_000, "the body has 6000000 bytes: AV takes at most 1228"),
        (Tag::UE, 1, "UE cannot be sent in this network: use one of AV, PP, SP, TX, VB"),
        (Tag(*b"&="), 1, "&= cannot be sent in this network: use one of AV, PP, SP, TX, VB"),
    ] {
        match rig.client.send(tag, vec![7; bytes].into()).await {
            Err(ClientError::BadRequest { reason }) => assert_eq!(reason, expected),
            other => panic!("{tag}: {other:?}"),
        }
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_client_without_a_node_is_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let error = Client::new(dir.path()).status().await.unwrap_err();
    assert!(error.to_string().contains("start one with tandem run"), "{error}");
}

#[tokio::test]
async fn garbage_on_the_socket_hurts_nobody() {
    let rig = Rig::start();
    let socket = DataDir::admin_socket(rig.dir.path());
    let mut stream = tokio::net::UnixStream::connect(&socket).await.unwrap();
    stream.write_all(b"\x00\xff garbage\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 400"), "{}", answer.escape_ascii());
    assert!(rig.client.status().await.is_ok());
    rig.stop().await;
}

#[tokio::test]
async fn a_node_that_was_killed_leaves_a_socket_that_the_next_one_replaces() {
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::net::UnixListener::bind(DataDir::admin_socket(dir.path())).unwrap();
    let error = Client::new(dir.path()).status().await.unwrap_err();
    assert!(matches!(error, ClientError::NoNode { .. }), "{error:?}");
}
