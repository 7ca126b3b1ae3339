//! A chat: everybody hears everybody on a topic, over libp2p and WebSockets alike, and newcomers ask peers what was said.
//!
//! Messages have a tag of their own, which goes over a GossipSub topic between libp2p peers and over the link of each
//! WebSocket peer; nodes with both pass them from one to the other.

mod console;
mod history;
mod message;

use std::{path::PathBuf, time::Duration};

use bytes::Bytes;
use clap::Parser;
use examples::Failure;
use tandem::{
    DataDir, NodeBuilder, PeerEvent, Relaying,
    gossip::{
        Inbound, Lane, NetworkId, NetworkProfile, NodeAddress, Outbound, ProfileBuilder, Route,
        Tag, TagRule, Validation, Verdict,
    },
};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;

use self::{console::Console, history::History, message::Message};

const SAID: Tag = Tag(*b"sd");

/// A chat without a server. Without a terminal, lines of standard input are said.
#[derive(Debug, Parser)]
struct Arguments {
    /// The name that others see, with the end of the identity behind it.
    name: String,
    /// Directory of the key that signs what is said.
    #[arg(long)]
    data_dir: PathBuf,
    /// A node to be connected with: host:port, or a multiaddr with /p2p/ID.
    #[arg(long)]
    peer: Vec<NodeAddress>,
    #[arg(long, default_value = "127.0.0.1:0")]
    listen_ws: String,
    #[arg(long, default_value = "/ip4/127.0.0.1/tcp/0")]
    listen_p2p: String,
}

fn profile() -> Result<&'static NetworkProfile, Failure> {
    let said = TagRule::new(SAID, Lane::Bulk, message::MAX_MESSAGE);
    let said = TagRule { route: Route::Topic("chat/said/1"), ..said };
    Ok(ProfileBuilder::new("chat").tag(said).build()?)
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments = Arguments::parse();
    let dir = DataDir::open(arguments.data_dir)?;
    let key = dir.key(profile()?)?;
    let history = History::default();
    let (heard, mut news) = mpsc::channel::<Bytes>(64);
    let builder = NodeBuilder::new(NetworkId::new("chat")?)
        .profile(profile()?)
        .opened_data_dir(dir)
        .listen_ws(arguments.listen_ws)
        .listen_p2p([arguments.listen_p2p])
        .relaying(Relaying::Accepted)
        .validator(SAID, |said: &Inbound| match Message::read(&said.body) {
            Ok(_) => Validation::Accept,
            Err(_) => Validation::Reject,
        })
        .handler(SAID, move |said: Inbound| {
            let heard = heard.clone();
            async move {
                // At the end its receiver has gone.
                let _ = heard.send(said.body).await;
                Verdict::Ignore
            }
        })
        .http(history.router())
        .peers(arguments.peer);
    let mut node = builder.start(&CancellationToken::new()).await?;
    let (mut events, mut histories) = (node.events(), JoinSet::new());
    let mut console = Console::open()?;
    for address in node.node().addresses() {
        console.show(format!("listening {address}"))?;
    }
    console.show("ready".to_owned())?;
    loop {
        let new: Vec<Message> = tokio::select! {
            entered = console.next() => match entered? {
                None => break,
                Some(text) => match Message::sign(&key, &arguments.name, &text, history::now()) {
                    Ok(said) => {
                        // Peers that do not get it, or come later, find it in the history.
                        let _ = node.node().broadcast(Outbound::new(SAID, said.write()))?;
                        vec![said]
                    }
                    Err(fault) => {
                        console.show(format!("not said: {fault}"))?;
                        Vec::new()
                    }
                },
            },
            Some(said) = news.recv() => Message::read(&said).into_iter().collect(),
            Ok(PeerEvent::Connected(peer) | PeerEvent::Identified(peer)) = events.recv() => {
                if let Some(identity) = peer.identity {
                    histories.spawn(history::of(node.node(), identity));
                }
                Vec::new()
            }
            // A peer that does not answer has told nothing.
            Some(Ok(Ok(told))) = histories.join_next() => told,
        };
        for message in new.iter().filter(|message| history.add(message)) {
            console.show(message.shown())?;
        }
    }
    drop(console);
    println!("stopped: {:?}", node.stop(Duration::from_secs(5)).await);
    Ok(())
}
