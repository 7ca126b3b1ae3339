//! The identity exchange over real connections: which peers are known, and which of two links is kept.

#![allow(clippy::disallowed_methods, reason = "a test may use the system directly")]
// A test that cannot go on has failed.
#![allow(clippy::unwrap_used)]

use std::{net::SocketAddr, sync::Arc};

use crate::common::{
    Node, Recipe, address_of,
    raw::{self, Raw, masked},
    soon, until,
};
use broadcaster::PeerEvent;
use gossip::{
    Admission, Direction, DisconnectReason, GossipNode, NetworkProfile, Outbound, PeerClass, Tag,
    wire::identity::{self, Challenge, Keypair},
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::{broadcast, oneshot},
    task::JoinSet,
};

fn key(seed: u8) -> Arc<Keypair> {
    Arc::new(Keypair::from_seed([seed; 32]))
}

fn tandem(seed: u8) -> Recipe {
    let recipe = Recipe::new(&NetworkProfile::TANDEM).listening();
    recipe.with(|config| config.identity = Some(key(seed)))
}

fn algorand(seed: u8) -> Recipe {
    let recipe = Recipe::new(&NetworkProfile::ALGORAND).listening();
    recipe.with(|config| {
        config.identity = Some(key(seed));
        config.public_address = Some("relay.example:4160".to_owned());
    })
}

async fn knows(node: &Node, other: &Keypair) {
    until("a known peer", || {
        let peers = node.peers();
        peers.len() == 1 && peers[0].identity == Some(other.identity())
    })
    .await;
}

async fn until_ended(events: &mut broadcast::Receiver<PeerEvent>) -> DisconnectReason {
    loop {
        if let PeerEvent::Disconnected(_, reason) = soon(events.recv()).await.unwrap() {
            return reason;
        }
    }
}

#[tokio::test]
async fn both_ends_learn_the_identity_of_the_other() {
    let listener = tandem(1).start().await;
    let dialer = tandem(2).dialling(&[listener.address()]).start().await;
    knows(&dialer, &key(1)).await;
    knows(&listener, &key(2)).await;
    dialer.stop().await;
    listener.stop().await;
}

// Issue 9, 13: the listener was told of every dialer as nobody first.
#[tokio::test]
async fn the_first_that_either_end_is_told_of_the_other_is_who_it_is() {
    let (listener, dialer) = (tandem(1).start().await, tandem(2).start().await);
    let (mut at_listener, mut at_dialer) =
        (listener.broadcaster.events(), dialer.broadcaster.events());
    dialer.network.add_peer(&address_of(&listener.address())).expect("the address can be dialled");
    for (events, other) in [(&mut at_listener, 2), (&mut at_dialer, 1)] {
        let event = soon(events.recv()).await.unwrap();
        assert!(matches!(event, PeerEvent::Connected(_)), "{event:?}");
        assert_eq!(event.peer().identity, Some(key(other).identity()));
    }
    dialer.stop().await;
    for events in [&mut at_listener, &mut at_dialer] {
        let event = soon(events.recv()).await.unwrap();
        assert!(matches!(event, PeerEvent::Disconnected(..)), "{event:?}");
    }
    listener.stop().await;
}

#[tokio::test]
async fn a_second_link_to_the_same_node_is_not_kept() {
    for seed in 0..10 {
        let listener = tandem(100).start().await;
        let dialer = tandem(seed).dialling(&[listener.address()]).start().await;
        knows(&dialer, &key(100)).await;
        let tasks = dialer.network.task_count();
        let mut proxy = proxy(listener.address()).await;
        dialer.network.add_peer(&address_of(&proxy.address)).expect("the address can be dialled");
        soon(&mut proxy.accepted).await.unwrap();
        until("the end of one of two links", || dialer.network.task_count() == tasks).await;
        knows(&dialer, &key(100)).await;
        knows(&listener, &key(seed)).await;
        dialer.stop().await;
        listener.stop().await;
    }
}

#[tokio::test]
async fn nodes_that_dial_each_other_at_once_keep_one_link() {
    for round in 0..20_u8 {
        let a = tandem(2 * round).start().await;
        let b = tandem(2 * round + 1).start().await;
        a.network.add_peer(&address_of(&b.address())).expect("the address can be dialled");
        b.network.add_peer(&address_of(&a.address())).expect("the address can be dialled");
        knows(&a, &key(2 * round + 1)).await;
        knows(&b, &key(2 * round)).await;
        // Both ends kept the same link, and it carries messages.
        until("one link, dialled by one of them", || {
            let directions = [&a, &b].map(|node| {
                let peers = node.peers();
                (peers.len() == 1).then(|| peers[0].direction)
            });
            directions.contains(&Some(Direction::Inbound))
                && directions.contains(&Some(Direction::Outbound))
        })
        .await;
        for (from, to) in [(&a, &b), (&b, &a)] {
            let body = from.address().to_string();
            let sent = from.network.broadcast(Outbound::new(Tag::TX, body.clone()));
            assert_eq!(sent, Ok(Admission::Queued));
            until("the message", || to.heard.all().iter().any(|message| message.body == body))
                .await;
        }
        a.stop().await;
        b.stop().await;
    }
}

#[tokio::test]
async fn messages_sent_while_links_are_replaced_arrive() {
    let a = tandem(1).start().await;
    let b = tandem(2).start().await;
    a.network.add_peer(&address_of(&b.address())).expect("the address can be dialled");
    b.network.add_peer(&address_of(&a.address())).expect("the address can be dialled");
    a.until_peers(1).await;
    for index in 0..200 {
        let message = Outbound::new(Tag::AV, format!("vote {index}"));
        assert_eq!(a.network.broadcast(message), Ok(Admission::Queued));
        tokio::task::yield_now().await;
    }
    until("every vote", || b.heard.all().len() == 200).await;
    a.stop().await;
    b.stop().await;
}

/// Forwards one connection, which gives a node a second address.
struct Proxy {
    address: SocketAddr,
    accepted: oneshot::Receiver<()>,
    passing: JoinSet<()>,
}

async fn proxy(to: SocketAddr) -> Proxy {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, accepted) = oneshot::channel();
    let mut passing = JoinSet::new();
    passing.spawn(async move {
        let (mut inner, _) = listener.accept().await.unwrap();
        sender.send(()).unwrap();
        let mut outer = TcpStream::connect(to).await.unwrap();
        // Either end may close first, in any way.
        let _ = copy_bidirectional(&mut inner, &mut outer).await;
    });
    Proxy { address, accepted, passing }
}

#[tokio::test]
async fn a_node_that_dials_itself_gives_up() {
    let node = tandem(1).start().await;
    let mut proxy = proxy(node.address()).await;
    node.network.add_peer(&address_of(&proxy.address)).expect("the address can be dialled");
    soon(&mut proxy.accepted).await.unwrap();
    // The proxy's task ends after both ends of the connection have closed.
    soon(proxy.passing.join_next()).await.unwrap().unwrap();
    assert!(node.peers().is_empty());
    until("the dial's end", || node.network.task_count() == 2).await;
    node.stop().await;
}

#[tokio::test]
async fn a_restarted_node_replaces_its_dead_link() {
    let listener = tandem(1).start().await;
    let mut events = listener.broadcaster.events();
    // A dialer that disappears without closing: its end of the connection stays open and silent.
    let mut ghost = Raw::connect(listener.address()).await;
    let challenge = Challenge([9; 32]);
    let header = identity::request_header(&key(2), "anything:1", challenge);
    let header = format!("X-Tandem-Identitychallenge: {header}\r\n");
    ghost.send(raw::gossip_request("X-Tandem-", &header).as_bytes()).await;
    let answer = soon(ghost.answer()).await.unwrap();
    let seen = &answer.headers["x-tandem-identitychallenge"][0];
    let seen = identity::read_response_header(seen, &challenge).unwrap();
    assert_eq!(seen.key, key(1).identity());
    let proof = identity::verification(&key(2), seen.response_challenge);
    ghost.send(&masked(0x82, &[b"NI", &proof[..]].concat())).await;
    knows(&listener, &key(2)).await;
    let dialer = tandem(2).dialling(&[listener.address()]).start().await;
    assert_eq!(until_ended(&mut events).await, DisconnectReason::Duplicate);
    knows(&listener, &key(2)).await;
    knows(&dialer, &key(1)).await;
    assert_eq!(soon(ghost.frame()).await.unwrap().payload, [0x03, 0xe8]);
    dialer.stop().await;
    listener.stop().await;
}

#[tokio::test]
async fn a_wrong_proof_ends_the_connection() {
    for (recipe, prefix, challenged) in [
        (tandem(1), "X-Tandem-", true),
        (tandem(1), "X-Tandem-", false),
        (algorand(1), "X-Algorand-", false),
    ] {
        let listener = recipe.start().await;
        let mut events = listener.broadcaster.events();
        let mut client = Raw::connect(listener.address()).await;
        let challenge = Challenge([9; 32]);
        let header = identity::request_header(&key(2), "anything:1", challenge);
        let header = format!("{prefix}Identitychallenge: {header}\r\n");
        let header = if challenged { header } else { String::new() };
        client.send(raw::gossip_request(prefix, &header).as_bytes()).await;
        soon(client.answer()).await.unwrap();
        let proof = identity::verification(&key(2), Challenge([1; 32]));
        client.send(&masked(0x82, &[b"NI", &proof[..]].concat())).await;
        assert_eq!(soon(client.frame()).await.unwrap().payload, [0x03, 0xe8]);
        assert_eq!(until_ended(&mut events).await, DisconnectReason::BadIdentity);
        listener.stop().await;
    }
}

#[tokio::test]
async fn a_lost_peer_is_dialled_again() {
    let listener = tandem(1).start().await;
    let address = listener.address();
    let dialer = tandem(2).dialling(&[address]).start().await;
    knows(&dialer, &key(1)).await;
    listener.stop().await;
    dialer.until_peers(0).await;
    let again = tandem(1).with(|config| config.listen = Some(address.to_string())).start().await;
    knows(&dialer, &key(1)).await;
    assert_eq!(dialer.network.peers(PeerClass::ConnectedOut).len(), 1);
    dialer.stop().await;
    again.stop().await;
}

#[tokio::test]
async fn an_outgoing_mesh_can_be_replaced() {
    let listener = tandem(1).start().await;
    let dialer = tandem(2).dialling(&[listener.address()]).start().await;
    knows(&dialer, &key(1)).await;
    let first = dialer.peers()[0].id;
    dialer.network.connect_outgoing(gossip::ConnectPolicy::ReplaceMesh);
    until("another link", || {
        let peers = dialer.peers();
        peers.len() == 1 && peers[0].id != first
    })
    .await;
    dialer.stop().await;
    listener.stop().await;
}

// Issue 10, section 15.1: nodes of which one alone takes part in the exchange, or which know each other by other names.
#[tokio::test]
async fn nodes_that_do_not_both_name_themselves_keep_a_link_without_identities() {
    let unnamed = |seed| algorand(seed).with(|config| config.public_address = None);
    for (case, listener, dialer) in [
        ("the dialer alone has a name", unnamed(1), algorand(2)),
        ("the listener alone has a name", algorand(1), unnamed(2)),
        ("the listener is dialled under another name", algorand(1), algorand(2)),
        ("neither has a name", unnamed(1), unnamed(2)),
    ] {
        let listener = listener.start().await;
        let dialer = dialer.dialling(&[listener.address()]).start().await;
        listener.until_peers(1).await;
        dialer.until_peers(1).await;
        for (from, to) in [(&dialer, &listener), (&listener, &dialer)] {
            let body = format!("{case}: from {:?}", from.network.local_address());
            let sent = from.network.broadcast(Outbound::new(Tag::TX, body.clone()));
            assert_eq!(sent, Ok(Admission::Queued));
            until(case, || to.heard.all().iter().any(|message| message.body == body)).await;
        }
        for node in [&listener, &dialer] {
            assert_eq!(node.peers()[0].identity, None, "{case}");
            assert_eq!(node.peers().len(), 1, "{case}");
        }
        dialer.stop().await;
        listener.stop().await;
    }
}
