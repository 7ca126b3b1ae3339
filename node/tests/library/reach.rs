//! Reaching connected peers from an application.

#![allow(clippy::disallowed_methods, reason = "a test may use the system directly")]

use std::time::Duration;

use axum::{Router, routing::get};
use gossip::{
    DialOutcome, GossipNode, Identity, Inbound, Keypair, NetworkId, NodeAddress, Outbound,
    PeerClass, PeerInfo, Roles, Tag, Validation,
    http::{Caller, HttpAddressError, HttpError, read_all},
};
use tandem::{Mode, NodeBuilder, Relaying, Running};
use tokio::time;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(30);
const MODES: [Mode; 3] = [Mode::Hybrid, Mode::WebSocket, Mode::Libp2p];

/// A node that tells who it is at `/name`.
fn named(mode: Mode, name: &'static str) -> NodeBuilder {
    let network = NetworkId::new("reached").expect("a name");
    let app = Router::new().route(
        "/name",
        get(async move |caller: Caller| format!("{name}, {}", caller.identity.is_some())),
    );
    NodeBuilder::new(network).mode(mode).http(app)
}

async fn start(builder: NodeBuilder) -> Running {
    builder.start(&CancellationToken::new()).await.expect("the node starts")
}

async fn dial(builder: NodeBuilder, other: &Running) -> Running {
    let address: NodeAddress = other.node().addresses().swap_remove(0);
    start(builder.peer(address)).await
}

/// Waits until a node is connected to this identity, and gives what it knows of it.
async fn met(node: &dyn GossipNode, identity: Identity) -> PeerInfo {
    let met = async {
        loop {
            let peers = node.peers(PeerClass::Connected);
            if let Some(peer) = peers.into_iter().find(|peer| peer.identity == Some(identity)) {
                return peer;
            }
            time::sleep(Duration::from_millis(5)).await;
        }
    };
    time::timeout(PATIENCE, met).await.expect("the peer connects in time")
}

/// The answer of the peer of this identity at `/name`.
async fn name_of(node: &dyn GossipNode, identity: &Identity) -> Result<String, HttpError> {
    let client = node.http_client_of(identity).expect("it is connected");
    let response = client.get("/name").await?;
    let body = read_all(response.into_body(), 1_000).await.expect("it is short");
    Ok(String::from_utf8(body.to_vec()).expect("it is text"))
}

// Issue 9, 13: an application knows whom it is connected to, and had no way to call them by that name.
#[tokio::test]
async fn a_connected_peer_is_called_by_its_identity_whoever_dialled() {
    for mode in MODES {
        let listener = start(named(mode, "listener")).await;
        let caller = dial(named(mode, "caller"), &listener).await;
        for (from, to, name) in [(&caller, &listener, "listener"), (&listener, &caller, "caller")] {
            let (node, identity) = (from.node(), to.identity());
            let peer = met(&*node, identity).await;
            let proved = peer.transport == gossip::Transport::Libp2p;
            let told = name_of(&*node, &identity).await.expect("it answers");
            assert_eq!(told, format!("{name}, {proved}"), "{mode:?}");

            let by_id = format!("/p2p/{identity}").parse().expect("an address");
            match (mode, node.http_client(&by_id)) {
                (Mode::WebSocket, Err(error)) => {
                    assert!(matches!(error, HttpAddressError::OtherTransport { .. }), "{error}");
                }
                // A hybrid that is connected over WebSocket alone has no way there over libp2p.
                (Mode::Hybrid, Ok(client)) if !proved => {
                    let error = client.get("/name").await.expect_err("not over libp2p");
                    assert!(matches!(error, HttpError::Unreachable { .. }), "{error}");
                }
                (_, Ok(client)) => drop(client.get("/name").await.expect("it answers")),
                (_, Err(error)) => panic!("{mode:?}: {error}"),
            }
        }
    }
}

// Issue 9, 13.
#[tokio::test]
async fn a_peer_that_is_not_connected_has_no_client_and_the_error_says_so() {
    let stranger = Keypair::from_seed([7; 32]).identity();
    for mode in MODES {
        let node = start(named(mode, "alone")).await;
        let error = node.node().http_client_of(&stranger).expect_err("nobody is connected");
        assert_eq!(error, HttpAddressError::NotConnected { peer: stranger }, "{mode:?}");
        assert_eq!(error.to_string(), format!("{stranger} is not connected"));

        let other = start(named(mode, "other")).await;
        let node = dial(named(mode, "left"), &other).await;
        met(&*node.node(), other.identity()).await;
        let gone = other.identity();
        let _clean = other.stop(Duration::from_secs(5)).await;
        let left = async {
            while node.node().http_client_of(&gone).is_ok() {
                time::sleep(Duration::from_millis(5)).await;
            }
        };
        time::timeout(PATIENCE, left).await.expect("the peer is noticed to have gone");
    }
}

// Issue 9, 13: a node that says nowhere that it listens cannot be called over WebSocket.
#[tokio::test]
async fn a_peer_that_does_not_listen_has_no_address() {
    let listener = start(named(Mode::WebSocket, "listener")).await;
    let address: NodeAddress = listener.node().addresses().swap_remove(0);
    let deaf = start(named(Mode::WebSocket, "deaf").outward().peer(address)).await;
    let peer = met(&*listener.node(), deaf.identity()).await;
    assert_eq!(peer.http_address, None);
    let error = listener.node().http_client_of(&deaf.identity()).expect_err("it has no address");
    assert_eq!(error, HttpAddressError::NoAddress { peer: deaf.identity() });
}

// Issue 9, 13.
#[tokio::test]
async fn a_peer_shows_the_parts_it_plays() {
    for mode in MODES {
        let relay = start(named(mode, "relay").relaying(Relaying::Accepted)).await;
        let leaf = dial(named(mode, "leaf"), &relay).await;
        let (leaf_sees, relay_sees) = (leaf.node(), relay.node());
        let seen = met(&*leaf_sees, relay.identity()).await;
        assert!(seen.roles.contains(Roles::CONFIGURED), "{mode:?}: {:?}", seen.roles);
        if seen.transport == gossip::Transport::WebSocket {
            let tells = async {
                while !met(&*leaf_sees, relay.identity()).await.roles.contains(Roles::RELAY) {
                    time::sleep(Duration::from_millis(5)).await;
                }
            };
            time::timeout(PATIENCE, tells).await.expect("a relay says what it is");
        }
        let seen = met(&*relay_sees, leaf.identity()).await;
        assert_eq!(seen.roles, Roles::NONE, "{mode:?}");
    }
}

// Issue 9, 13: the state of a dial was in the view of a node only, not with the peer.
#[tokio::test]
async fn a_peer_shows_the_state_of_the_address_that_leads_to_it() {
    for mode in MODES {
        let listener = start(named(mode, "listener")).await;
        let address: NodeAddress = listener.node().addresses().swap_remove(0);
        let dead: NodeAddress = match mode {
            Mode::Libp2p => {
                format!("/ip4/127.0.0.1/tcp/1/p2p/{}", Keypair::from_seed([9; 32]).identity())
            }
            _ => "127.0.0.1:1".to_owned(),
        }
        .parse()
        .expect("an address");
        let dialler = named(mode, "dialler").peer(address.clone()).peer(dead.clone());
        let dialler = start(dialler).await;
        let node = dialler.node();
        let dial_of = |address: &NodeAddress| {
            let text = address.to_string();
            let known = node.dials().into_iter().find(|dial| dial.address == text);
            known.unwrap_or_else(|| panic!("{mode:?}: {text} is configured: {:?}", node.dials()))
        };
        let outcomes = async {
            loop {
                let peer = met(&*node, listener.identity()).await;
                let outcomes = peer.dial.map(|dial| dial.outcome);
                let failed = dial_of(&dead).outcome == DialOutcome::Failed;
                if outcomes == Some(DialOutcome::Connected) && failed {
                    break;
                }
                time::sleep(Duration::from_millis(5)).await;
            }
        };
        time::timeout(PATIENCE, outcomes).await.expect("both dials come to an end");
        let peer = met(&*node, listener.identity()).await;
        assert_eq!(peer.dial, Some(dial_of(&address)), "{mode:?}: one state, in both places");
        assert!(dial_of(&dead).last_error.is_some() && dial_of(&dead).failures > 0, "{mode:?}");
        let stranger = met(&*listener.node(), dialler.identity()).await;
        assert_eq!((stranger.dial, listener.node().dials()), (None, Vec::new()), "{mode:?}");
    }
}

// Issue 9, 13: handlers could be added, validators could not.
#[tokio::test]
async fn a_running_node_takes_another_validator() {
    for mode in MODES {
        let listener = start(named(mode, "listener")).await;
        let judge = |message: &Inbound| match &message.body[..] {
            b"good" => Validation::Accept,
            _ => Validation::Ignore,
        };
        assert_eq!(listener.validate(Tag::VB, judge), Ok(()));
        let again = listener.validate(Tag::VB, judge).expect_err("it has one");
        assert_eq!(again.to_string(), "there is one for VB already");
        let unknown = listener.validate(Tag(*b"ZZ"), judge).expect_err("no such tag");
        assert_eq!(unknown.to_string(), "ZZ is not a tag of this network");
        let mut observed = listener.observe();
        let speaker = dial(named(mode, "speaker"), &listener).await;
        met(&*speaker.node(), listener.identity()).await;
        for body in ["bad", "good"] {
            let _queued = speaker.node().broadcast(Outbound::new(Tag::VB, body)).expect("sound");
        }
        let heard = time::timeout(PATIENCE, observed.recv()).await.expect("one is heard");
        assert_eq!(heard.expect("the node runs").body, "good", "{mode:?}");
    }
}
