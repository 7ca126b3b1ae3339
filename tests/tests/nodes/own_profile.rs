//! A network with messages of its own: a built profile over every network.
//!
//! Issue 9, 13: a profile is built with owned tags, bounds and lanes, and a request may carry any topics up to a
//! stated bound.

use std::time::Duration;

use bytes::Bytes;
use gossip::{
    Admission, Inbound, Lane, NetworkId, NetworkProfile, Outbound, PeerClass, ProfileBuilder,
    Request, RequestError, Route, SubmitError, Tag, TagRule, Verdict, wire::topics::Topics,
};
use tandem::{Mode, NodeBuilder, Running, Shutdown};
use testkit::wait::{soon, until};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

const VOTE: Tag = Tag(*b"vo");
const NOTE: Tag = Tag(*b"no");
const MAX_VOTE: usize = 16 * 1024;
const MAX_REQUEST: usize = 10_000;

/// Votes of 16 KiB on streams, notes on a topic of their own.
fn profile(name: &str) -> &'static NetworkProfile {
    let topic = Route::Topic("own-profile/notes/1");
    ProfileBuilder::new(name)
        .tag(TagRule::new(VOTE, Lane::Priority, MAX_VOTE))
        .tag(TagRule { route: topic, ..TagRule::new(NOTE, Lane::Bulk, 1_000) })
        .max_request(MAX_REQUEST)
        .build()
        .expect("the profile is sound")
}

/// A node that relays messages, and answers a request with the length of its question.
fn builder(mode: Mode, profile: &'static NetworkProfile) -> (NodeBuilder, mpsc::Receiver<Inbound>) {
    let (heard, messages) = mpsc::channel(16);
    let hear = move |message: Inbound| {
        let heard = heard.clone();
        async move { heard.send(message).await.map_or(Verdict::Ignore, |()| Verdict::Relay) }
    };
    let answer = |request: Inbound| async move {
        let asked = Topics::decode(&request.body).ok();
        let len = asked.and_then(|topics| topics.get("question").map(Bytes::len)).unwrap_or(0);
        Verdict::Respond(Topics::new().with("length", len.to_string()))
    };
    let network = NetworkId::new("own-v1").expect("the name is a short path segment");
    let builder = NodeBuilder::new(network).profile(profile).mode(mode);
    (builder.handler(VOTE, hear.clone()).handler(NOTE, hear).handler(Tag::UE, answer), messages)
}

async fn next(messages: &mut mpsc::Receiver<Inbound>) -> Inbound {
    soon("a message is heard", messages.recv()).await.expect("the node runs")
}

/// Broadcasts until the message arrives: in its first second a topic has no mesh.
async fn heard(from: &Running, tag: Tag, body: &Bytes, at: &mut mpsc::Receiver<Inbound>) {
    let node = from.node();
    until("the message is heard", || {
        assert_eq!(node.broadcast(Outbound::new(tag, body.clone())), Ok(Admission::Queued));
        at.try_recv().is_ok_and(|message| message.tag == tag && message.body == *body)
    })
    .await;
}

async fn a_network_of_ones_own(mode: Mode, profile: &'static NetworkProfile) {
    let root = CancellationToken::new();
    let (first, mut at_first) = builder(mode, profile);
    let first = first.start(&root).await.expect("the first node starts");
    let (second, _at_second) = builder(mode, profile);
    let peer = first.node().addresses()[0].clone();
    let second = second.peer(peer.clone()).start(&root).await.expect("the second node starts");
    // A node of the built-in profile speaks another protocol, even if its network has the same name.
    let network = NetworkId::new("own-v1").expect("the name is a short path segment");
    let stranger = NodeBuilder::new(network).mode(mode).peer(peer).start(&root);
    let stranger = stranger.await.expect("the stranger starts");
    until("the nodes are connected", || !second.node().peers(PeerClass::Connected).is_empty())
        .await;

    let vote = Bytes::from(vec![7; MAX_VOTE]);
    assert_eq!(second.node().broadcast(Outbound::new(VOTE, vote.clone())), Ok(Admission::Queued));
    let message = next(&mut at_first).await;
    assert_eq!((message.tag, message.body), (VOTE, vote));
    heard(&second, NOTE, &Bytes::from_static(b"a note"), &mut at_first).await;
    let too_long = second.node().broadcast(Outbound::new(VOTE, vec![7; MAX_VOTE + 1]));
    assert_eq!(too_long, Err(SubmitError::TooLarge { bytes: MAX_VOTE + 1, max: MAX_VOTE }));
    let foreign = second.node().broadcast(Outbound::new(Tag::AV, "a vote of another network"));
    assert_eq!(foreign, Err(SubmitError::UnknownTag { tag: Tag::AV }));

    let asked = second.node().peers(PeerClass::Connected)[0].id;
    let question = |len| Request { topics: Topics::new().with("question", vec![b'?'; len]) };
    let answer = soon("the answer comes", second.node().request(asked, question(9_000))).await;
    let answer = answer.expect("the peer answers").topics;
    assert_eq!(answer.get("length").map(|text| &text[..]), Some(&b"9000"[..]));
    let refused = second.node().request(asked, question(10_001)).await;
    assert!(matches!(refused, Err(RequestError::TooLarge { max: MAX_REQUEST, .. })), "{refused:?}");

    assert!(stranger.node().peers(PeerClass::Connected).is_empty(), "a stranger has no link");
    assert_eq!(first.node().peers(PeerClass::Connected).len(), 1);
    for node in [stranger, second, first] {
        assert_eq!(node.stop(Duration::from_secs(5)).await, Shutdown::Clean);
    }
}

#[tokio::test]
async fn own_messages_over_websocket() {
    a_network_of_ones_own(Mode::WebSocket, profile("own-ws")).await;
}

#[tokio::test]
async fn own_messages_over_libp2p() {
    a_network_of_ones_own(Mode::Libp2p, profile("own-p2p")).await;
}

#[tokio::test]
async fn own_messages_over_both() {
    a_network_of_ones_own(Mode::Hybrid, profile("own-both")).await;
}
