//! The contender Tandem: a node with its default limits.

use broadcaster::Setup;
use gossip::{Admission, NetworkProfile, NodeAddress, Outbound, Tag};
use libp2p::{Multiaddr, multiaddr::Protocol};
use tokio_util::compat::FuturesAsyncReadCompatExt;

use super::stage::{Publish, Stage};
use crate::{
    error::Failure,
    meter::Tally,
    node::{Http, NETWORK, Node},
    receiver::{self, p2p, quic, ws},
    transport::Transport,
};

/// A WebSocket network on a broadcaster.
pub(super) async fn ws(stage: Stage) -> Result<Publish, Failure> {
    let node = start(Transport::Ws, &stage).await?;
    let NodeAddress::WebSocket(address) = node.address()? else {
        return Err("a WebSocket network has another kind of address".into());
    };
    let address = format!("{}:{}", address.host(), address.port()).parse()?;
    for receiver in 0..stage.peers {
        let far = ws::connect(address, NETWORK, receiver).await?;
        let (mut tally, meter) = (Tally::new(&stage.meter, receiver), stage.meter.clone());
        stage.tasks.spawn("receiver", |_| async move {
            meter.ended(receiver::count_ws(far, &mut tally).await);
        });
    }
    node.connected(stage.peers).await?;
    Ok(publish(node))
}

/// A libp2p network on a broadcaster.
pub(super) async fn p2p(stage: Stage) -> Result<Publish, Failure> {
    let node = start(Transport::P2p, &stage).await?;
    let address: Multiaddr = node.address()?.to_string().parse()?;
    let Some(Protocol::P2p(id)) = address.iter().last() else {
        return Err("the node's address does not name it".into());
    };
    let opening = p2p::Opening::Headers { genesis: NETWORK };
    for receiver in 0..stage.peers {
        let far = p2p::connect(id, &address, opening, &stage.tasks).await?;
        let (mut tally, meter) = (Tally::new(&stage.meter, receiver), stage.meter.clone());
        stage.tasks.spawn("receiver", |_| async move {
            meter.ended(receiver::count_lengths(far.compat(), &mut tally).await);
        });
    }
    node.connected(stage.peers).await?;
    Ok(publish(node))
}

/// A libp2p network over QUIC on a broadcaster.
pub(super) async fn quic(stage: Stage) -> Result<Publish, Failure> {
    let node = start(Transport::Quic, &stage).await?;
    let (id, to) = quic::place(&node.address()?.to_string())?;
    let opening = p2p::Opening::Headers { genesis: NETWORK };
    for receiver in 0..stage.peers {
        let far = quic::connect(&p2p::key_below(id), to, opening, &stage.tasks).await?;
        let (mut tally, meter) = (Tally::new(&stage.meter, receiver), stage.meter.clone());
        stage.tasks.spawn("receiver", |_| async move {
            meter.ended(receiver::count_lengths(far, &mut tally).await);
        });
    }
    node.connected(stage.peers).await?;
    Ok(publish(node))
}

async fn start(transport: Transport, stage: &Stage) -> Result<Node, Failure> {
    let setup = Setup::new(&NetworkProfile::TANDEM);
    Node::start(transport, setup, None, Http::default(), stage.tasks.token()).await
}

fn publish(node: Node) -> Publish {
    Box::new(move |body| match node.network.broadcast(Outbound::new(Tag::AV, body)) {
        Ok(Admission::Queued) => Ok(()),
        refused => Err(format!("a broadcast was not queued: {refused:?}").into()),
    })
}
