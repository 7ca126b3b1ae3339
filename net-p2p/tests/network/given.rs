//! Nodes whose only way to each other is a transport that they were given.

use std::{
    collections::HashMap,
    fmt, io,
    sync::{Arc, Mutex},
};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream};
use gossip::{Admission, GossipNode, NetworkProfile, NodeAddress, Outbound, Tag};
use tandem_net_p2p::{
    Accepted, ByteListener, ByteStream, ByteTransport, Multiaddr, P2pConfig, P2pNetwork, StartError,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::kit::{Node, Plan, linked, new_key, until};

/// Capacity of each direction, in bytes. Small, so that messages wait for their reader.
const PIPE_BYTES: usize = 1000;

/// Streams within this process, by the addresses that somebody listens on.
#[derive(Clone, Default)]
struct Pipes(Arc<Mutex<HashMap<Multiaddr, mpsc::Sender<ByteStream>>>>);

impl fmt::Debug for Pipes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pipes")
    }
}

fn error(text: &str) -> io::Error {
    io::Error::other(text.to_owned())
}

impl ByteTransport for Pipes {
    fn dial(&self, address: Multiaddr) -> BoxFuture<'static, io::Result<ByteStream>> {
        let bare: Multiaddr = address.iter().take(2).collect();
        let found = self.0.lock().unwrap().get(&bare).cloned();
        async move {
            let to = found.ok_or_else(|| error("there is no such pipe"))?;
            let (near, far) = tokio::io::duplex(PIPE_BYTES);
            let far: ByteStream = Box::new(far);
            to.send(far).await.map_err(|_| error("the pipe is no more"))?;
            Ok(Box::new(near) as ByteStream)
        }
        .boxed()
    }

    fn listen(&self, address: Multiaddr) -> BoxFuture<'static, io::Result<ByteListener>> {
        let (sender, receiver) = mpsc::channel(1);
        let taken = self.0.lock().unwrap().insert(address.clone(), sender).is_some();
        let local = address.clone();
        let accepted = stream::unfold(receiver, move |mut receiver| {
            let local = local.clone();
            async move {
                let stream = receiver.recv().await?;
                let from = "/ip4/127.0.0.1/tcp/1".parse().unwrap();
                Some((Ok(Accepted { stream, local, from }), receiver))
            }
        });
        async move {
            if taken {
                return Err(error("somebody listens there"));
            }
            Ok(ByteListener { addresses: vec![address], accepted: accepted.boxed() })
        }
        .boxed()
    }
}

async fn start(pipes: &Pipes, port: u16) -> Node {
    let with_pipes = |mut config: P2pConfig| {
        config.transports = vec![Arc::new(pipes.clone())];
        config.listen = vec![format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap()];
        config
    };
    Plan::new(&NetworkProfile::TANDEM).start_with(with_pipes).await
}

// Issue 13, 5.
#[tokio::test]
async fn nodes_gossip_over_a_transport_that_they_were_given() {
    let pipes = Pipes::default();
    let (one, other) = (start(&pipes, 1).await, start(&pipes, 2).await);
    let listens = format!("/ip4/127.0.0.1/tcp/1/p2p/{}", one.network.identity());
    assert_eq!(one.network.listen_addresses(), [listens]);
    other.dial(&one);
    linked(&one, &other).await;
    let proposal: Vec<u8> = (0..1_000_000_u32).map(|n| (n / 7) as u8).collect();
    let sent = [(Tag::PP, proposal), (Tag::AV, b"a vote".to_vec()), (Tag::TX, b"one".to_vec())];
    for (tag, body) in &sent {
        let taken = one.network.broadcast(Outbound::new(*tag, body.clone())).unwrap();
        assert_eq!(taken, Admission::Queued);
    }
    for (tag, body) in &sent {
        until("it was received", || other.heard(*tag) == [body.clone()]).await;
    }
    one.stop().await;
    other.stop().await;
}

// Issue 13, 5: the error of the transport is that of the dial.
#[tokio::test]
async fn a_dial_fails_with_the_text_of_the_transport() {
    let pipes = Pipes::default();
    let node = start(&pipes, 1).await;
    let nobody = format!("/ip4/127.0.0.1/tcp/9/p2p/{}", new_key().identity());
    node.network.add_peer(&NodeAddress::Multiaddr(nobody)).unwrap();
    let said = || format!("{:?}", node.network.dials());
    until("the failure is told", || said().contains("there is no such pipe")).await;
    node.stop().await;
}

#[tokio::test]
async fn a_node_that_cannot_listen_says_what_the_transport_said() {
    let pipes = Pipes::default();
    let node = start(&pipes, 1).await;
    let mut config = P2pConfig::new(node.network.network_id().clone(), new_key());
    config.transports = vec![Arc::new(pipes.clone())];
    config.listen = vec!["/ip4/127.0.0.1/tcp/1".parse().unwrap()];
    let started =
        P2pNetwork::start(config, node.broadcaster.clone(), &CancellationToken::new()).await;
    let Err(StartError::Listen { source, .. }) = started else { panic!("it listens") };
    assert_eq!(source.to_string(), "somebody listens there");
    node.stop().await;
}
