//! The program with few file descriptors: it admits no more peers than it can serve, and logs its limits.

use gossip::{NetworkId, NetworkProfile};
use tempfile::tempdir;
use testkit::{
    process::Node,
    wait::{PATIENCE, soon, until},
    websocket::{upgrade, upgrade_request},
};
use tokio::{net::TcpStream, time};

/// Limits on open files: the soft limit, and the hard one.
const OPEN_FILES: (u32, u32) = (100, 300);

/// Peers that fit into the hard limit: 128 files are reserved, and a quarter of the rest for outbound
/// connections.
const MAX_INBOUND: usize = 300 - 128 - 43 - 10;

// Issue 8, 4. Before, with 1,011 peers and a limit of 1,024 the WebSocket port, the libp2p port and the admin
// socket all stalled, with 20 warnings a second.
#[tokio::test]
async fn a_node_with_few_descriptors_takes_no_more_peers_than_it_can_serve() {
    let folder = tempdir().expect("a temporary folder");
    let arguments = ["--max-inbound-per-ip", "1000", "--log", "warn"];
    let node = Node::run_with_files(OPEN_FILES, folder.path(), &arguments).await;
    let address = node.ws_address().parse().expect("it is a socket address");
    let network = NetworkId::new("tandem").expect("it is a name");
    let ask = async || {
        let request = upgrade_request(&NetworkProfile::TANDEM, &network);
        let asked = upgrade(address, &request);
        let answered = time::timeout(PATIENCE, asked).await.expect("the port answers or closes");
        answered.ok().filter(|(_, head)| head.starts_with("HTTP/1.1 101 "))
    };
    let mut peers = Vec::new();
    for _ in 0..300 {
        peers.extend(ask().await);
    }
    assert_eq!(peers.len(), MAX_INBOUND);
    // The admin socket answers, and so does the libp2p port.
    assert_eq!(node.peers().await.len(), MAX_INBOUND);
    let p2p = node.p2p[0].split('/').nth(4).and_then(|port| port.parse::<u16>().ok());
    let p2p = ("127.0.0.1", p2p.expect("the address has a port"));
    soon("a connection", TcpStream::connect(p2p)).await.expect("the libp2p port accepts");
    let log = node.log();
    let fitted = log.iter().filter(|line| line.contains("fewer connections than configured"));
    assert_eq!(fitted.count(), 1, "{log:?}");
    assert!(!log.iter().any(|line| line.contains("cannot accept")), "{log:?}");
    assert!(log.len() < 10, "{log:?}");
    // Peers that disconnect make room.
    drop(peers.split_off(MAX_INBOUND / 2));
    time::timeout(PATIENCE, async {
        while ask().await.is_none() {
            time::sleep(time::Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("there is room again");
    until("its process is well", || node.log().len() < 10).await;
}
