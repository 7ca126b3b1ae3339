//! Nodes whose wall clocks are set by a year, forwards and backwards: no link, vote or ban depends on them.

use std::time::Duration;

use gossip::{Admission, NetworkId, Outbound, PeerClass, Tag};
use mesh::BanSubject;
use runtime::{Environment, WallClock};
use tandem::{Mode, NodeBuilder, Running, Shutdown};
use testkit::{recorder::Recorder, wait::until};
use tokio_util::sync::CancellationToken;

/// A year, in seconds.
const YEAR: i64 = 365 * 86_400;

struct Timed {
    running: Running,
    clock: WallClock,
    heard: Recorder,
}

impl Timed {
    async fn start(mode: Mode, peer: Option<&Self>) -> Self {
        let (clock, heard) = (WallClock::system(), Recorder::default());
        let network = NetworkId::new("clocks-v1").expect("the name is a short path segment");
        let mut builder = NodeBuilder::new(network)
            .mode(mode)
            .environment(Environment::system().with_clock(clock.clone()))
            .handler(Tag::AV, heard.clone());
        if let Some(peer) = peer {
            builder = builder.peer(peer.running.node().addresses().remove(0));
        }
        let running = builder.start(&CancellationToken::new()).await.expect("the node starts");
        Self { running, clock, heard }
    }

    fn links(&self) -> Vec<gossip::LinkId> {
        self.running.node().peers(PeerClass::Connected).iter().map(|peer| peer.id).collect()
    }

    fn vote(&self, text: String) {
        assert_eq!(
            self.running.node().broadcast(Outbound::new(Tag::AV, text)),
            Ok(Admission::Queued)
        );
    }
}

/// Two nodes vote while the clock of one is set; both keep their link, and hear every vote once.
async fn clocks_are_set(mode: Mode) {
    let first = Timed::start(mode, None).await;
    let second = Timed::start(mode, Some(&first)).await;
    for node in [&first, &second] {
        until("the nodes are connected", || node.links().len() == 1).await;
    }
    let links = [first.links(), second.links()];
    let stranger: BanSubject = "192.0.2.1".parse().expect("it is an address");
    let ban = |node: &Timed| {
        node.running.broadcaster().ban(stranger.clone(), Duration::from_secs(3_600), "a test")
    };
    ban(&first).expect("there is room");

    for (step, seconds) in [YEAR, -YEAR, -YEAR, YEAR, 3 * YEAR].into_iter().enumerate() {
        let before = first.clock.now();
        first.clock.set_by(seconds);
        assert_ne!(before.duration_since(first.clock.now()).is_ok(), seconds > 0, "it was set");
        let votes: Vec<String> = (0..20).map(|n| format!("{mode:?} {step} {n}")).collect();
        for vote in &votes {
            first.vote(format!("first {vote}"));
            second.vote(format!("second {vote}"));
        }
        for vote in &votes {
            for (node, sender) in [(&first, "second"), (&second, "first")] {
                let vote = format!("{sender} {vote}");
                node.heard.hears(vote.as_bytes()).await;
                assert_eq!(node.heard.times(vote.as_bytes()), 1, "{vote}");
            }
        }
        assert_eq!([first.links(), second.links()], links, "after {seconds} s");
        let bans = first.running.broadcaster().mesh().bans();
        assert!(bans.iter().any(|ban| ban.subject == stranger), "{bans:?}");
    }
    for node in [first, second] {
        assert_eq!(node.running.stop(Duration::from_secs(5)).await, Shutdown::Clean);
    }
}

// Issue 8, 31.
#[tokio::test]
async fn a_clock_that_jumps_ends_no_websocket_link() {
    clocks_are_set(Mode::WebSocket).await;
}

#[tokio::test]
async fn a_clock_that_jumps_ends_no_libp2p_link() {
    clocks_are_set(Mode::Libp2p).await;
}

#[tokio::test]
async fn a_clock_that_jumps_ends_no_link_of_a_hybrid() {
    clocks_are_set(Mode::Hybrid).await;
}
