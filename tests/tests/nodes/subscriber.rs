//! A peer that wants some tags only costs the bytes of those, counted on its socket.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::disallowed_methods, reason = "a test may use the system directly")]

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use gossip::{Admission, NetworkId, NetworkProfile, Outbound, PeerClass, Tag, wire::proposal};
use tandem::{Mode, NodeBuilder, Relaying, Shutdown};
use testkit::{
    wait::{soon, until},
    websocket::{upgrade, upgrade_request},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_util::sync::CancellationToken;

fn network() -> NetworkId {
    NetworkId::new("subscriber-v1").unwrap()
}

/// The bytes of an unmasked message of one frame.
fn frame_bytes(payload: usize) -> usize {
    let message = Tag::BYTES + payload;
    message
        + match message {
            ..126 => 2,
            126..65_536 => 4,
            _ => 10,
        }
}

/// A masked frame of a short message, as a client sends it.
fn masked(message: &[u8]) -> Vec<u8> {
    let len = 0x80 | u8::try_from(message.len()).unwrap();
    [&[0x82, len, 0, 0, 0, 0][..], message].concat()
}

/// Connects a peer that asks for these tags, and reads the relay's own list of tags.
async fn subscribe(address: SocketAddr, tags: &str) -> TcpStream {
    let request = upgrade_request(&NetworkProfile::ALGORAND, &network());
    let (mut stream, head) = upgrade(address, &request).await.unwrap();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let mut header = [0; 2];
    stream.read_exact(&mut header).await.unwrap();
    assert_eq!(header[0], 0x82);
    let mut list = vec![0; usize::from(header[1])];
    stream.read_exact(&mut list).await.unwrap();
    assert!(list.starts_with(b"MI"), "{list:?}");
    let length = u8::try_from(tags.len()).unwrap();
    let wanted = [&b"MI\x01\x04tags"[..], &[length], tags.as_bytes()].concat();
    stream.write_all(&masked(&wanted)).await.unwrap();
    stream
}

/// Reads until the last message of each of these tags has come, and counts all bytes.
async fn bytes_until(stream: &mut TcpStream, lasts: &[Vec<u8>]) -> usize {
    let mut got = Vec::new();
    for last in lasts {
        let mut searched = 0;
        while !got[searched..].windows(last.len()).any(|window| window == last) {
            searched = got.len().saturating_sub(last.len());
            let read = soon("the last message", stream.read_buf(&mut got)).await.unwrap();
            assert_ne!(read, 0, "the connection ended after {} bytes", got.len());
        }
    }
    got.len()
}

// Issue 10, 10: "a subscriber that wants only some tags gets only those (measured in bytes)".
#[tokio::test]
async fn a_subscriber_of_votes_gets_the_bytes_of_votes_and_no_others() {
    let relay = NodeBuilder::new(network())
        .profile(&NetworkProfile::ALGORAND)
        .mode(Mode::WebSocket)
        .relaying(Relaying::Accepted);
    let relay = relay.start(&CancellationToken::new()).await.unwrap();
    let url = relay.ws_url().unwrap();
    let address = url.strip_prefix("http://").unwrap().parse().unwrap();
    let mut votes_only = subscribe(address, "AV").await;
    let mut bundles_only = subscribe(address, "VB").await;
    let mut all = subscribe(address, "AV,PP,TX,VB").await;
    let node = relay.node();
    let links = || node.peers(PeerClass::Connected).len();
    until("all are peers", || links() == 3).await;
    // Two of them want no transaction, once their lists were read.
    let drops = || relay.broadcaster().metrics().drops(tandem::DropReason::NotInterested);
    for probe in 0_u32.. {
        let (before, probe) = (drops(), Bytes::copy_from_slice(&probe.to_be_bytes()));
        let written = node.broadcast_and_wait(Outbound::new(Tag::TX, probe));
        soon("a probe is written", written).await.unwrap();
        if drops() == before + 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // The counts begin after a vote and a bundle, which each lane brings last.
    let last = |tag: Tag, number: u8| [&tag.0[..], b"the last one of ", &[number]].concat();
    let end = |number: u8| {
        for tag in [Tag::AV, Tag::VB] {
            let body = last(tag, number).split_off(Tag::BYTES);
            assert_eq!(node.broadcast(Outbound::new(tag, body)), Ok(Admission::Queued));
        }
        [last(Tag::AV, number), last(Tag::VB, number)]
    };
    let [vote, bundle] = end(1);
    bytes_until(&mut votes_only, std::slice::from_ref(&vote)).await;
    bytes_until(&mut bundles_only, std::slice::from_ref(&bundle)).await;
    bytes_until(&mut all, &[vote, bundle]).await;

    let mut sent = [0; 4];
    let mut send = |kind: usize, tag: Tag, body: Vec<u8>| {
        let on_wire = if tag == Tag::PP { proposal::compress(&body).len() } else { body.len() };
        sent[kind] += frame_bytes(on_wire);
        assert_eq!(node.broadcast(Outbound::new(tag, body)), Ok(Admission::Queued));
    };
    for number in 0..50_u8 {
        send(0, Tag::AV, vec![number; 600]);
        send(1, Tag::VB, vec![number; 30_000]);
        send(2, Tag::TX, vec![number; 2_000]);
        send(3, Tag::PP, vec![number; 9_000]);
    }
    let [vote, bundle] = end(2);
    sent[0] += frame_bytes(vote.len() - Tag::BYTES);
    sent[1] += frame_bytes(bundle.len() - Tag::BYTES);
    assert_eq!(bytes_until(&mut votes_only, std::slice::from_ref(&vote)).await, sent[0]);
    assert_eq!(bytes_until(&mut bundles_only, std::slice::from_ref(&bundle)).await, sent[1]);
    assert_eq!(bytes_until(&mut all, &[vote, bundle]).await, sent.iter().sum::<usize>());
    assert!(sent[0] * 40 < sent.iter().sum(), "{sent:?}");
    drop((votes_only, bundles_only, all));
    assert_eq!(relay.stop(Duration::from_secs(5)).await, Shutdown::Clean);
}
