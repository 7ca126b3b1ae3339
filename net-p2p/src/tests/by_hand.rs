//! A peer that negotiates protocols and speaks GossipSub by hand, so that it can break every rule.

use std::future::poll_fn;

use futures::{AsyncReadExt, AsyncWriteExt};
use gossip::Identity;
use libp2p::{
    Multiaddr, PeerId, Transport,
    core::{
        Endpoint,
        muxing::{StreamMuxerBox, StreamMuxerExt, SubstreamBox},
        transport::{Boxed, DialOpts, PortUse},
    },
};
use mesh::Door;
use tokio::time;

use super::{
    host::{PATIENCE, new_key, plain_transport},
    rpc,
};
use crate::config::libp2p_key;

/// The version of GossipSub that the peer speaks.
pub(crate) const MESHSUB: &str = "/meshsub/1.1.0";

/// The first line of a negotiation.
const HEADER: &str = "/multistream/1.0.0";

/// One line of a negotiation as on the wire.
fn line(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len() + 1).unwrap();
    [&[length], text.as_bytes(), b"\n"].concat()
}

async fn read_message(stream: &mut SubstreamBox) -> std::io::Result<String> {
    let (mut length, mut byte, mut shift) = (0, [0x80], 0);
    while byte[0] & 0x80 != 0 {
        stream.read_exact(&mut byte).await?;
        length |= usize::from(byte[0] & 0x7f) << shift;
        shift += 7;
    }
    let mut text = vec![0; length];
    stream.read_exact(&mut text).await?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Sends bytes at once. The node may have ended the stream.
pub(crate) async fn send(stream: &mut SubstreamBox, bytes: &[u8]) {
    let sent = async {
        stream.write_all(bytes).await?;
        stream.flush().await
    };
    // A peer that misbehaves may be disconnected.
    let _ = time::timeout(PATIENCE, sent).await.expect("the node reads or ends the stream");
}

/// A connection to a node.
pub(crate) struct ByHand {
    muxer: StreamMuxerBox,
    identity: Identity,
    /// It owns the tasks of the connection.
    _transport: Boxed<(PeerId, StreamMuxerBox)>,
}

impl ByHand {
    /// Connects with a new identity.
    pub(crate) async fn dial(to: Multiaddr) -> Self {
        let key = new_key();
        let (identity, key) = (key.identity(), libp2p_key(&key));
        let mut transport = plain_transport(&key, Door::default());
        let options = DialOpts { role: Endpoint::Dialer, port_use: PortUse::New };
        let (_node, muxer) = transport.dial(to, options).unwrap().await.unwrap();
        Self { muxer, identity, _transport: transport }
    }

    /// The identity of this peer.
    pub(crate) fn identity(&self) -> Identity {
        self.identity
    }

    /// Opens a stream without a word on it.
    pub(crate) async fn open(&mut self) -> SubstreamBox {
        let opened = poll_fn(|context| self.muxer.poll_outbound_unpin(context));
        time::timeout(PATIENCE, opened).await.unwrap().unwrap()
    }

    /// Opens a stream and agrees on `protocol`, after the lines `before` and the answers to them.
    pub(crate) async fn open_as(&mut self, before: &[&str], protocol: &str) -> SubstreamBox {
        let mut stream = self.open().await;
        let lines = [&[HEADER], before, &[protocol]].concat();
        let said: Vec<u8> = lines.into_iter().flat_map(line).collect();
        send(&mut stream, &said).await;
        while time::timeout(PATIENCE, read_message(&mut stream)).await.unwrap().unwrap()
            != format!("{protocol}\n")
        {}
        stream
    }

    /// Accepts the stream on which the node publishes, and resets all others.
    pub(crate) async fn accept_topics(&mut self) -> SubstreamBox {
        let accepted = async {
            loop {
                let inbound = poll_fn(|context| self.muxer.poll_inbound_unpin(context));
                let mut stream = inbound.await.unwrap();
                // The node names the protocol right after the header.
                let _header = read_message(&mut stream).await.unwrap();
                let named = read_message(&mut stream).await.unwrap();
                if named.starts_with("/meshsub/") {
                    send(&mut stream, &[line(HEADER), line(named.trim_end())].concat()).await;
                    return stream;
                }
            }
        };
        time::timeout(PATIENCE, accepted).await.expect("the node opens its stream")
    }

    /// Subscribes to a topic on a stream of its own, and accepts the one of the node. Returns both.
    pub(crate) async fn subscribe(&mut self, topic: &str) -> [SubstreamBox; 2] {
        let mut own = self.open_as(&[], MESHSUB).await;
        send(&mut own, &rpc::request(&[rpc::subscription(topic)])).await;
        [own, self.accept_topics().await]
    }

    /// Returns `true` while the connection lasts.
    pub(crate) fn is_alive(&mut self) -> bool {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        !matches!(self.muxer.poll_unpin(&mut context), std::task::Poll::Ready(Err(_)))
    }
}
