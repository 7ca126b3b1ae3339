//! Refusals: each has a reason, and leaves nothing running.

use broadcaster::{Broadcaster, Setup};
use gossip::{NetworkId, NetworkProfile, NodeAddress};
use tandem_net_p2p::{P2pConfig, P2pEvent, P2pNetwork, StartError};
use tokio_util::sync::CancellationToken;

use super::kit::{Plan, linked, new_key, until};

#[tokio::test]
async fn a_peer_of_another_network_is_refused_and_counted_at_both_ends() {
    let profile = &NetworkProfile::TANDEM;
    let one = Plan { network: "one", ..Plan::new(profile) }.start().await;
    let other = Plan { network: "other", ..Plan::new(profile) }.start().await;
    one.dial(&other);
    for node in [&one, &other] {
        until("it was refused", || node.network.metrics().count(P2pEvent::OtherNetwork) > 0).await;
        assert!(node.peers().is_empty());
    }
    one.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn a_node_does_not_connect_to_itself() {
    let node = Plan::new(&NetworkProfile::TANDEM).start().await;
    let friend = Plan::new(&NetworkProfile::TANDEM).start().await;
    node.dial(&node);
    node.dial(&friend);
    linked(&node, &friend).await;
    assert_eq!(node.peers().len(), 1);
    node.stop().await;
    friend.stop().await;
}

// Issue 8, 31; threats and goals, row 5: through an address that it does not know as its own.
#[tokio::test]
async fn a_node_does_not_connect_to_itself_through_a_second_address() {
    let every = "/ip4/0.0.0.0/tcp/0".parse().unwrap();
    let on_all = |mut config: P2pConfig| {
        config.listen = vec![every];
        config
    };
    let node = Plan::new(&NetworkProfile::TANDEM).start_with(on_all).await;
    let friend = Plan::new(&NetworkProfile::TANDEM).start().await;
    let port = node.network.listen_addresses()[0].split('/').nth(4).unwrap().to_owned();
    let (own, other) = (node.network.identity(), new_key().identity());
    // The second one claims to be somebody else's.
    for id in [own, other] {
        let second = NodeAddress::Multiaddr(format!("/ip4/127.0.0.2/tcp/{port}/p2p/{id}"));
        node.network.add_peer(&second).unwrap();
    }
    node.dial(&friend);
    linked(&node, &friend).await;
    // Several rounds of the dial schedule.
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    assert_eq!(node.peers().len(), 1);
    node.stop().await;
    friend.stop().await;
}

async fn start(change: impl FnOnce(&mut P2pConfig)) -> Result<P2pNetwork, StartError> {
    let (root, profile) = (CancellationToken::new(), &NetworkProfile::TANDEM);
    let mut config = P2pConfig::new(NetworkId::new("net").unwrap(), new_key());
    change(&mut config);
    P2pNetwork::start(config, Broadcaster::start(Setup::new(profile), &root), &root).await
}

#[tokio::test]
async fn a_failed_start_is_an_error_with_its_reason() {
    let peer = NodeAddress::Multiaddr("/ip4/127.0.0.1/tcp/1".to_owned());
    let error = start(|config| config.peers.push(peer)).await.unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("does not end with /p2p/ID"), "{cause}");

    let elsewhere = "/ip4/192.0.2.1/tcp/0"; // reserved for documentation, so no machine has it
    let error = start(|config| config.listen.push(elsewhere.parse().unwrap())).await.unwrap_err();
    assert_eq!(error.to_string(), format!("cannot listen on {elsewhere}"));

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = format!("/ip4/127.0.0.1/tcp/{}", taken.local_addr().unwrap().port());
    let error = start(|config| config.listen.push(taken.parse().unwrap())).await.unwrap_err();
    assert_eq!(error.to_string(), format!("cannot listen on {taken}"));
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("in use"), "{source}");

    let running = Plan::new(&NetworkProfile::TANDEM).start().await;
    let address = running.address().to_string();
    let port = address.split("/p2p/").next().unwrap();
    let error = start(|config| config.listen.push(port.parse().unwrap())).await.unwrap_err();
    assert_eq!(error.to_string(), format!("cannot listen on {port}"), "not even another node's");
    running.stop().await;
}
