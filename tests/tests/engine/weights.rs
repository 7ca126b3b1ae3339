//! The order in which a node writes to its peers: the heavier first.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::{Arc, Mutex};

use broadcaster::{Limits, Relaying};
use gossip::{Admission, LinkId, Outbound, Tag};
use runtime::TaskSet;
use testkit::{
    harness::RawPeer,
    memory::Shape,
    rig::{settle, setup, start},
};
use tokio_util::sync::CancellationToken;

// Issue 10, 8: "peers ranked by weight in fan-out order". On one thread, so that tasks run in the order in which they are
// woken.
#[tokio::test(start_paused = true)]
async fn the_heavier_peer_is_written_to_first() {
    let (node, broadcaster) = start(setup(Limits::default()).relaying(Relaying::Accepted));
    let readers = TaskSet::new(&CancellationToken::new());
    let written = Arc::new(Mutex::new(Vec::<LinkId>::new()));
    let mut links = Vec::new();
    for _ in 0..4 {
        let (mut raw, attached) = node.scripted(Shape::default()).unwrap();
        let (link, written) = (attached.peer, Arc::clone(&written));
        links.push(link);
        readers.spawn("reader", |_cancel| async move {
            while raw.recv().await.is_some() {
                written.lock().unwrap().push(link);
            }
            drop(attached);
        });
    }
    let (mut source, _attached) = node.scripted(Shape::default()).unwrap();
    let mut number = 0;
    for (weights, order) in [
        ([0, 0, 0, 0], [0, 1, 2, 3]),
        ([5, 0, 9, 7], [2, 3, 0, 1]),
        // The first one bought more, the third one sold all.
        ([8, 0, 0, 7], [0, 3, 1, 2]),
        ([u64::MAX, 1, u64::MAX - 1, 2], [0, 2, 3, 1]),
    ] {
        for (link, weight) in links.iter().zip(weights) {
            broadcaster.weigh(*link, weight);
        }
        settle().await;
        let expected = order.map(|place| links[place]);
        for tag in [Tag::AV, Tag::VB, Tag::AV] {
            // Its own message, and one that it passes on.
            let own = broadcaster.broadcast(&Outbound::new(tag, format!("own {number}")));
            assert_eq!(own, Ok(Admission::Queued));
            settle().await;
            assert_eq!(std::mem::take(&mut *written.lock().unwrap()), expected, "{weights:?}");
            source.send(tag, format!("passed on {number}").as_bytes()).await.unwrap();
            settle().await;
            assert_eq!(std::mem::take(&mut *written.lock().unwrap()), expected, "{weights:?}");
            number += 1;
        }
    }
}
