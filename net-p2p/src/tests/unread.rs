//! Connections that fill stream windows which are not read: the memory they hold, and the effect on honest
//! peers.

use std::{
    future::pending,
    time::{Duration, Instant},
};

use futures::{AsyncReadExt, AsyncWriteExt, future::join_all};
use gossip::{
    Admission, GossipNode, NetworkProfile, Outbound, PeerClass, Tag,
    http::{HttpRequest, HttpResponse, HttpService},
};
use libp2p::Stream;
use mesh::{Door, InboundLimits};
use net_http::{HttpServer, ServeLimits};
use tokio::time;

use super::host::{Host, Node, new_key, until};
use crate::{P2pConfig, P2pEvent};

/// Bytes that a stream accepts without being read: its initial window and a little more.
const BODY_BYTES: usize = 250_000;

/// Streams of one connection. Chosen: the number of requests of one peer that are served at once.
const STREAMS: usize = 16;

/// Number of votes of an honest peer during the attack, and the pause between two.
const VOTES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(20);

/// A node that neither reads nor answers requests, with `bound` bytes for the backlog of its connections.
async fn deaf(bound: usize) -> Node {
    let hold = |_request: HttpRequest| pending::<Result<HttpResponse, std::convert::Infallible>>();
    let server = HttpServer::new(HttpService::new(tower::service_fn(hold)), ServeLimits::default());
    let door = Door::new(InboundLimits::default().with_per_ip(64));
    Node::start_with(&NetworkProfile::TANDEM, "net", new_key(), |config| P2pConfig {
        http_server: Some(server),
        backlog_bytes: Some(bound),
        door,
        ..config
    })
    .await
}

/// Fills streams of one connection, each with `bodies`. Returns them with the number of bytes that each
/// accepted.
async fn fill(node: &Node, bodies: &[usize]) -> (Host, Vec<(Stream, usize)>) {
    let host = Host::dial(&new_key(), &[], node.address()).await;
    let protocol = NetworkProfile::TANDEM.http_protocol;
    let filling = bodies.iter().map(async |&body| {
        // A connection that was ended for what its other streams hold opens no more.
        let mut stream = host.try_open(protocol).await.ok()?.stream;
        let head = format!("POST /hold HTTP/1.1\r\nHost: x\r\nContent-Length: {body}\r\n\r\n");
        let request = [head.as_bytes(), &vec![7; body]].concat();
        let mut taken = 0;
        while let Some(rest @ [_, ..]) = request.get(taken..) {
            match time::timeout(Duration::from_secs(2), stream.write(rest)).await {
                Ok(Ok(bytes)) => taken += bytes,
                // The stream was reset, or its window is full.
                Ok(Err(_)) | Err(_) => break,
            }
        }
        // A reset after this point shows in `kept`.
        let _ = time::timeout(Duration::from_secs(2), stream.flush()).await;
        Some((stream, taken))
    });
    let filled = join_all(filling).await.into_iter().flatten().collect();
    (host, filled)
}

/// Number of bytes accepted by the streams that were not reset.
async fn kept(filled: Vec<(Stream, usize)>) -> usize {
    let kept = filled.into_iter().map(async |(mut stream, taken)| {
        match time::timeout(Duration::from_millis(500), stream.read(&mut [0; 1])).await {
            Err(_nothing) => taken,
            Ok(_ended) => 0,
        }
    });
    join_all(kept).await.into_iter().sum()
}

/// Makes a peer send votes, and returns the 99th percentile of their latencies.
async fn vote(peer: &Node, node: &Node) -> Duration {
    let before = node.heard().len();
    let mut delays = Vec::new();
    for number in 0..VOTES {
        let body = (before as u32 + number).to_be_bytes();
        let vote = Outbound::new(Tag::VB, body.to_vec());
        let said = Instant::now();
        assert_eq!(peer.network.broadcast(vote), Ok(Admission::Queued));
        until("a vote is heard", || node.heard().len() > before + number as usize).await;
        delays.push(said.elapsed());
        time::sleep(PAUSE).await;
    }
    delays.sort_unstable();
    delays[VOTES as usize * 99 / 100 - 1]
}

// Issue 9, 5. Before, unread bytes were bounded per connection, and not for the node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_fill_windows_hold_no_more_than_the_bound() {
    const BOUND: usize = 4 * 1024 * 1024;
    const CONNECTIONS: usize = 8;
    let node = deaf(BOUND).await;
    let peer = Node::start(&NetworkProfile::TANDEM, "net", new_key()).await;
    peer.network.add_peer(&node.network.listen_addresses()[0].parse().unwrap()).unwrap();
    // At both ends: a vote that is sent to nobody is heard by nobody.
    let linked = |end: &Node| !end.network.peers(PeerClass::Connected).is_empty();
    until("they are linked", || linked(&node) && linked(&peer)).await;
    let link = node.network.peers(PeerClass::Connected)[0].id;
    let quiet = vote(&peer, &node).await;
    let attack = async {
        let fills = (0..CONNECTIONS).map(|_| fill(&node, &[BODY_BYTES; STREAMS]));
        let (hosts, filled): (Vec<_>, Vec<_>) = join_all(fills).await.into_iter().unzip();
        (hosts, kept(filled.into_iter().flatten().collect()).await)
    };
    let ((_hosts, kept), slowest) = tokio::join!(attack, vote(&peer, &node));
    println!("{kept} bytes kept; 99 of 100 votes took {slowest:?} at most, {quiet:?} before");
    // Bytes in transit when a stream is checked are not held yet.
    assert!(kept <= BOUND, "{kept} bytes");
    let metrics = node.network.metrics();
    let ended = metrics.count(P2pEvent::BacklogConnection);
    assert!(ended + metrics.count(P2pEvent::BacklogStream) > 0);
    assert_eq!(node.network.peers(PeerClass::Connected)[0].id, link, "the honest peer stays");
}

// Issue 9, 5.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_largest_stream_is_reset_and_its_connection_stays() {
    let node = deaf(400_000).await;
    let (quiet, small) = fill(&node, &[10_000, 10_000]).await;
    let (greedy, large) = fill(&node, &[BODY_BYTES, 20_000]).await;
    let (more, more_filled) = fill(&node, &[200_000]).await;
    until("room is made", || node.network.metrics().count(P2pEvent::BacklogStream) == 1).await;
    assert_eq!(node.network.metrics().count(P2pEvent::BacklogConnection), 0);
    assert!(quiet.is_alive() && greedy.is_alive() && more.is_alive());
    assert!(kept(small).await >= 20_000);
    let left = kept(large).await;
    assert!((20_000..BODY_BYTES).contains(&left), "{left} bytes");
    assert!(kept(more_filled).await >= 200_000);
}
