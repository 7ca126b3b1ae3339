//! Streams between a node and a plain host: none is lost, and every overflow is counted.

use std::time::Duration;

use futures::{AsyncReadExt, AsyncWriteExt};
use gossip::NetworkProfile;
use libp2p::StreamProtocol;

use super::host::{Host, Node, PATIENCE, new_key, ordered_keys, until};
use crate::{OpenError, P2pEvent};

const ECHO: StreamProtocol = StreamProtocol::new("/test/echo");

#[tokio::test]
async fn of_forty_streams_opened_at_once_none_is_lost() {
    let (small, large) = ordered_keys();
    let node = Node::start(&NetworkProfile::ALGORAND, "net", large).await;
    let mut host = Host::dial(&small, &[ECHO], node.address()).await;
    let peer = small.identity();
    let opens = (0..40_u8).map(|number| {
        let network = node.network.clone();
        async move {
            let mut stream = network.open_stream(&peer, vec![ECHO], PATIENCE).await.unwrap().stream;
            stream.write_all(&[number]).await.unwrap();
            stream.flush().await.unwrap();
            stream
        }
    });
    let opened = futures::future::join_all(opens).await;
    let mut numbers = Vec::new();
    for _ in 0..40 {
        let mut inbound = host.accepted.next().await.unwrap();
        let mut number = [0];
        inbound.stream.read_exact(&mut number).await.unwrap();
        numbers.push(number[0]);
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (0..40).collect::<Vec<_>>());
    drop(opened);
}

#[tokio::test]
async fn handshakes_beyond_the_bound_of_one_peer_are_refused_and_counted() {
    let (small, large) = ordered_keys();
    let node = Node::start(&NetworkProfile::ALGORAND, "net", large).await;
    let host = Host::dial(&small, &[], node.address()).await;
    let opens = (0..40).map(|_| host.open(NetworkProfile::ALGORAND.stream_protocol));
    let streams = futures::future::join_all(opens).await;
    let metrics = node.network.metrics();
    until("32 of 40 are refused", || metrics.count(P2pEvent::TooManyHandshakes) == 32).await;
    assert_eq!(metrics.count(P2pEvent::AcceptQueueFull), 0);
    drop(streams);
}

#[tokio::test]
async fn a_stream_that_cannot_be_opened_is_an_error_with_its_reason() {
    let (small, large) = ordered_keys();
    let node = Node::start(&NetworkProfile::ALGORAND, "net", large).await;
    let nobody = node.network.open_stream(&small.identity(), vec![ECHO], PATIENCE).await;
    assert!(matches!(nobody.unwrap_err(), OpenError::NotConnected));
    let _host = Host::dial(&small, &[], node.address()).await;
    let refused = node.network.open_stream(&small.identity(), vec![ECHO], PATIENCE).await;
    assert!(matches!(refused.unwrap_err(), OpenError::Unsupported));
    assert_eq!(node.network.stop(Duration::from_secs(5)).await, runtime::Shutdown::Clean);
    let stopped = node.network.open_stream(&small.identity(), vec![ECHO], PATIENCE).await;
    assert!(matches!(stopped.unwrap_err(), OpenError::Closed));
}

// Issue 9, 13: no application can take a protocol that the node itself announces.
#[tokio::test]
async fn no_protocol_of_the_node_itself_is_given_to_an_application() {
    use crate::{AcceptLimits, OwnProtocol, PeerStream, ProtocolError, check_protocols};
    for profile in [&NetworkProfile::TANDEM, &NetworkProfile::ALGORAND] {
        let node = Node::start_with(profile, "net", new_key(), |mut config| {
            config.http_server = Some(net_http::HttpServer::without_service());
            config
        });
        let node = node.await;
        let host = Host::dial(&new_key(), &[], node.address()).await;
        let spoken = host.seen.lock().unwrap().identified.clone().unwrap().protocols;
        assert!(spoken.len() >= 6, "{spoken:?}");
        for name in spoken {
            let own =
                OwnProtocol::new(name.to_string(), AcceptLimits::default(), |_: PeerStream| {
                    std::future::ready(())
                });
            let refused = check_protocols(profile, &[own]);
            assert_eq!(refused, Err(ProtocolError::Taken { name: name.to_string() }));
        }
    }
}
