//! Bans of a node survive its end, and a peer store that others use keeps no node from starting.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::time::Duration;

use gossip::NetworkId;
use tandem::{DataDir, NodeBuilder, Running, Shutdown};
use tokio_util::sync::CancellationToken;

const HOUR: Duration = Duration::from_secs(3_600);

async fn start(dir: &std::path::Path) -> Running {
    let network = NetworkId::new("kept").unwrap();
    NodeBuilder::new(network).data_dir(dir).start(&CancellationToken::new()).await.unwrap()
}

async fn stop(node: Running) {
    assert_eq!(node.stop(Duration::from_secs(10)).await, Shutdown::Clean);
}

// Issue 10, 3.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ban_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    let subjects =
        ["192.0.2.1", "12D3KooWQYV9dGMFoRzNStwpXztXaBUjtPqi6aU76ZgUriHhKust", "a.example:1"];
    for subject in subjects {
        node.broadcaster().ban(subject.parse().unwrap(), HOUR, "a test").unwrap();
    }
    stop(node).await;
    let again = start(folder.path()).await;
    let mut banned: Vec<String> =
        again.broadcaster().mesh().bans().iter().map(|ban| ban.subject.to_string()).collect();
    banned.sort();
    let mut expected = subjects;
    expected.sort_unstable();
    assert_eq!(banned, expected);
    for ban in again.broadcaster().mesh().bans() {
        assert_eq!(ban.reason, "a test");
        assert!(again.broadcaster().mesh().unban(&ban.subject));
    }
    stop(again).await;
    let free = start(folder.path()).await;
    assert_eq!(free.broadcaster().mesh().bans(), []);
    stop(free).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_in_use_is_no_reason_not_to_start() {
    let folder = tempfile::tempdir().unwrap();
    stop(start(folder.path()).await).await;
    let path = folder.path().join("peers.redb");
    let network = NetworkId::new("kept").unwrap();
    let other = discovery::PeerFile::open(&path, &network).unwrap();
    stop(start(folder.path()).await).await;
    drop(other);
    assert!(DataDir::open(folder.path()).is_ok());
    assert!(path.is_file());
}
