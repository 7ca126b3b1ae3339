//! Loops written by hand: one queue per peer, and a task that writes and flushes its messages.
//!
//! A batch of one message is the first version of any such loop; a batch of 256 is the version of a careful
//! engineer who does not use a library.

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use gossip::Tag;
use libp2p::{futures::AsyncWriteExt, identity::Keypair, swarm::SwarmEvent};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_tungstenite::{
    accept_async_with_config,
    tungstenite::{Message, protocol::WebSocketConfig},
};
use tokio_util::compat::FuturesAsyncReadCompatExt;

use super::{
    raw,
    stage::{Publish, Stage},
};
use crate::{
    error::Failure,
    meter::{Tally, WINDOW},
    node::NETWORK,
    receiver::{self, p2p, ws},
};

/// Buffer sizes of a WebSocket, in bytes: those of a node.
const BUFFER_BYTES: usize = 16 * 1024;

/// Largest number of messages per write and flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Batch(pub(super) usize);

impl Batch {
    /// Waits for a message, and takes those behind it. Returns `false` once the queue has ended.
    pub(super) async fn fill(
        self,
        waiting: &mut mpsc::Receiver<Bytes>,
        into: &mut Vec<Bytes>,
    ) -> bool {
        into.clear();
        waiting.recv_many(into, self.0).await > 0
    }
}

/// The configuration of every tungstenite in this bench.
pub(crate) fn web_socket_config() -> WebSocketConfig {
    WebSocketConfig::default().read_buffer_size(BUFFER_BYTES).write_buffer_size(BUFFER_BYTES)
}

/// tokio-tungstenite: one flush per batch.
pub(super) async fn ws(stage: Stage, batch: Batch) -> Result<Publish, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let mut queues = Vec::new();
    for receiver in 0..stage.peers {
        let accept = async {
            let (near, _) = listener.accept().await?;
            near.set_nodelay(true)?;
            Ok::<_, Failure>(accept_async_with_config(near, Some(web_socket_config())).await?)
        };
        let (near, far) = tokio::join!(accept, ws::connect(address, NETWORK, receiver));
        let (mut near, far) = (near?, far?);
        let (mut tally, meter) = (Tally::new(&stage.meter, receiver), stage.meter.clone());
        stage.tasks.spawn("receiver", |_| async move {
            meter.ended(receiver::count_ws(far, &mut tally).await);
        });
        let (queue, mut waiting) = mpsc::channel::<Bytes>(2 * WINDOW);
        let meter = stage.meter.clone();
        stage.tasks.spawn("writer", |_| async move {
            let mut messages = Vec::new();
            while batch.fill(&mut waiting, &mut messages).await {
                let written = async {
                    for message in messages.drain(..) {
                        near.feed(Message::Binary(message)).await?;
                    }
                    near.flush().await
                };
                if let Err(error) = written.await {
                    return meter.fail(error.to_string());
                }
            }
        });
        queues.push(queue);
    }
    Ok(Box::new(move |body| {
        let message = Bytes::from([&Tag::AV.0[..], &body].concat());
        for queue in &queues {
            queue.try_send(message.clone()).map_err(|_| "a queue is full or gone")?;
        }
        Ok(())
    }))
}

/// A libp2p stream: one write and one flush per batch.
pub(super) async fn p2p(stage: Stage, batch: Batch) -> Result<Publish, Failure> {
    let mut hub = p2p::swarm(Keypair::generate_ed25519())?;
    let id = *hub.local_peer_id();
    hub.listen_on("/ip4/127.0.0.1/tcp/0".parse()?)?;
    let address = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = hub.select_next_some().await {
            break address;
        }
    };
    let mut streams = hub.behaviour().new_control().accept(p2p::PROTOCOL)?;
    stage.tasks.spawn("hub", |cancel| async move {
        tokio::select! {
            () = cancel.cancelled() => {}
            () = async { loop { hub.select_next_some().await; } } => {}
        }
    });
    let mut queues = Vec::new();
    for receiver in 0..stage.peers {
        let connect = p2p::connect(id, &address, p2p::Opening::None, &stage.tasks);
        // The negotiation of the stream completes with its first byte, which the receiver writes.
        let far = async {
            let mut far = connect.await?;
            far.write_all(&[0]).await?;
            far.flush().await?;
            Ok::<_, Failure>(far)
        };
        let (near, far) = tokio::join!(streams.next(), far);
        let ((_, mut near), far) = (near.ok_or("the hub has ended")?, far?);
        let (mut tally, meter) = (Tally::new(&stage.meter, receiver), stage.meter.clone());
        stage.tasks.spawn("receiver", |_| async move {
            meter.ended(receiver::count_lengths(far.compat(), &mut tally).await);
        });
        let (queue, mut waiting) = mpsc::channel::<Bytes>(2 * WINDOW);
        let meter = stage.meter.clone();
        stage.tasks.spawn("writer", |_| async move {
            let (mut messages, mut bytes) = (Vec::new(), Vec::new());
            while batch.fill(&mut waiting, &mut messages).await {
                bytes.clear();
                messages.drain(..).for_each(|message| bytes.extend_from_slice(&message));
                let written = async {
                    near.write_all(&bytes).await?;
                    near.flush().await
                };
                if let Err(error) = written.await {
                    return meter.fail(error.to_string());
                }
            }
        });
        queues.push(queue);
    }
    Ok(raw::to_all(queues))
}
