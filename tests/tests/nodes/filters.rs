//! The recorded conversation of an existing relay with two clients about digests, interests and packed votes, with one of
//! our relays in its place.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{net::SocketAddr, time::Duration};

use gossip::{
    NetworkId, NetworkProfile, Outbound, Tag,
    wire::{digest::Digest, features::VoteCompression, proposal},
};
use serde::Deserialize;
use tandem::{
    AbortedBy, Mode, NodeBuilder, Relaying, Running, Shutdown,
    services::blocks::{Capacity, Responder},
};
use testkit::{
    harness::{RawPeer, fence},
    recorder::Recorder,
    votes::VotingPeer,
    wait::{soon, until},
};
use tokio_util::sync::CancellationToken;

#[derive(Deserialize)]
struct Vectors {
    wire: Vec<Step>,
}

#[derive(Deserialize)]
struct Step {
    step: String,
    first_client_receives: Vec<String>,
    second_client_receives: Vec<String>,
}

impl Step {
    /// The messages that this node sends at the step.
    fn ours(&self) -> [Vec<String>; 2] {
        let mut ours = [self.first_client_receives.clone(), self.second_client_receives.clone()];
        // S-14: the frame has fewer than 5,000 bytes, so no peer that announced it is spared it. This node announces
        // only what spares something.
        if self.step.contains("PP of 6000 bytes") {
            ours = [vec![], vec![]];
        }
        // S-4: one vote that cannot be packed is sent as it is, and the packing goes on.
        if self.step.contains("broadcasts SP, VB, AV") {
            ours.iter_mut().for_each(|client| client.retain(|message| message != "VP, 3 bytes"));
        }
        ours
    }
}

fn network() -> NetworkId {
    NetworkId::new("filters-v1").unwrap()
}

async fn relay() -> (Running, SocketAddr) {
    let mut relay = NodeBuilder::new(network())
        .profile(&NetworkProfile::ALGORAND)
        .mode(Mode::WebSocket)
        .relaying(Relaying::OnRequest)
        .handler(Tag::UE, Responder::new(Capacity::default()));
    for tag in [Tag::AV, Tag::PP, Tag::SP, Tag::TX, Tag::VB] {
        relay = relay.handler(tag, Recorder::default());
    }
    let relay = relay.start(&CancellationToken::new()).await.unwrap();
    let url = relay.ws_url().unwrap();
    let address = url.strip_prefix("http://").unwrap().parse().unwrap();
    (relay, address)
}

/// A client that the relay serves, with the features of the recorded ones.
async fn client(address: SocketAddr) -> VotingPeer {
    let features = VoteCompression::Stateful(2_048);
    let mut client = VotingPeer::connect(address, &network(), features).await.unwrap();
    fence(&mut client.raw, 0).await;
    client
}

/// The next messages of a client, written as they were recorded.
async fn receives(client: &mut VotingPeer, count: usize) -> Vec<String> {
    let mut messages = Vec::new();
    for _ in 0..count {
        let (tag, payload) = soon("a message", client.raw.recv()).await.unwrap();
        messages.push(match tag {
            Tag::MS => format!("{}{}", hex::encode(tag.0), hex::encode(payload)),
            _ => format!("{tag}, {} bytes", Tag::BYTES + payload.len()),
        });
    }
    messages
}

/// Steps with both clients: each gets what was recorded, and nothing else.
struct Scene {
    relay: Running,
    clients: [VotingPeer; 2],
}

impl Scene {
    async fn check(&mut self, step: &Step) {
        for (client, expected) in self.clients.iter_mut().zip(step.ours()) {
            assert_eq!(receives(client, expected.len()).await, expected, "{}", step.step);
        }
    }

    async fn send(&mut self, client: usize, tag: Tag, payload: &[u8]) {
        self.clients[client].raw.send(tag, payload).await.unwrap();
    }

    /// The second client says that it has a message, and the relay sends it.
    async fn announce_and_broadcast(&mut self, tag: Tag, body: Vec<u8>) {
        self.send(1, Tag::MS, &Digest::of(tag, &body).0).await;
        assert_eq!(fence(&mut self.clients[1].raw, 1).await, []);
        self.broadcast(tag, body).await;
    }

    async fn broadcast(&self, tag: Tag, body: Vec<u8>) {
        let node = self.relay.node();
        let written = node.broadcast_and_wait(Outbound::new(tag, body));
        soon("it is written", written).await.unwrap();
    }

    async fn nothing_more(&mut self) {
        for client in &mut self.clients {
            assert_eq!(fence(&mut client.raw, 2).await, []);
        }
    }
}

/// Bytes that do not shrink.
fn noise(len: usize) -> Vec<u8> {
    let mut word = 1_u64;
    let bytes = std::iter::from_fn(|| {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        Some(word.to_be_bytes()[3])
    });
    bytes.take(len).collect()
}

// Issue 10, 10: sections 2.3, 2.4, 3.2 of the wire facts.
#[tokio::test]
async fn two_clients_are_sent_what_an_existing_relay_sent_them() {
    let steps = include_str!("../../../gossip/testdata/vectors/filter.json");
    let steps = serde_json::from_str::<Vectors>(steps).unwrap().wire;
    assert_eq!(steps.len(), 13);
    let (relay, address) = relay().await;
    let clients = [client(address).await, client(address).await];
    let mut scene = Scene { relay, clients };

    scene.send(0, Tag::TX, &[1; 4_999]).await;
    scene.check(&steps[0]).await;
    scene.send(0, Tag::TX, &[2; 5_000]).await;
    scene.check(&steps[1]).await;
    scene.send(0, Tag::PP, &proposal::compress(&[3; 6_000])).await;
    scene.check(&steps[2]).await;
    let large = [(Tag::VB, vec![4; 4_998]), (Tag::VB, vec![5; 4_999]), (Tag::VB, vec![6; 5_000])];
    let proposals = [(Tag::PP, vec![7; 20_000]), (Tag::PP, noise(20_000))];
    for ((tag, body), step) in large.into_iter().chain(proposals).zip(&steps[3..8]) {
        scene.announce_and_broadcast(tag, body).await;
        scene.check(step).await;
    }
    scene.broadcast(Tag::SP, vec![8; 10]).await;
    scene.check(&steps[8]).await;
    scene.nothing_more().await;

    scene.send(1, Tag::MI, b"\x01\x04tags\x08AV,SP,TS").await;
    assert_eq!(fence(&mut scene.clients[1].raw, 3).await, []);
    for (tag, fill) in [(Tag::SP, 9), (Tag::AV, 10), (Tag::VB, 11)] {
        scene.broadcast(tag, vec![fill; 10]).await;
    }
    scene.check(&steps[9]).await;
    scene.nothing_more().await;

    scene.clients = [client(address).await, client(address).await];
    let aborts = scene.relay.broadcaster().metrics().votes().clone();
    let ours = || aborts.aborts(AbortedBy::Us);
    scene.send(0, Tag::VP, &[0xfe]).await;
    scene.check(&steps[10]).await;
    scene.send(1, Tag::MI, b"\x01\x04tags\x02AV").await;
    scene.send(1, Tag::VP, &[0xfe]).await;
    until("both bad votes are read", || ours() == 2).await;
    scene.check(&steps[11]).await;
    scene.broadcast(Tag::AV, vec![12; 10]).await;
    scene.check(&steps[12]).await;
    assert_eq!(scene.relay.stop(Duration::from_secs(5)).await, Shutdown::Clean);
}
