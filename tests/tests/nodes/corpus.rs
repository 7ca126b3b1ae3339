//! Traffic of live nodes, played into a relay by two scripted peers: each gets every message of the other once,
//! byte for byte and in order. One of them packs its votes and the other does not, so the relay converts them.

use std::{collections::HashMap, net::SocketAddr, time::Duration};

use bytes::Bytes;
use gossip::{
    Lane, NetworkId, NetworkProfile, Tag,
    wire::{
        digest::Digest,
        proposal::{MAX_DECOMPRESSED, decompress},
        request::{RequestKey, open_answer},
    },
};
use sha2::{Digest as _, Sha256};
use tandem::services::blocks::{Capacity, Responder};
use tandem::{Mode, NodeBuilder, Relaying, Running, Shutdown};
use testkit::{
    corpus::{Recorded, Session},
    harness::{RawPeer, fence},
    process::Node,
    votes::{is_packed, plain},
    wait::PATIENCE,
    websocket::RawWebSocket,
};
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;

/// The network of the recordings.
const NETWORK: &str = "tandemtest-v1";

/// Environment variable with the speed of playback, relative to the recording; at 1 a run takes 188 s.
const PACE_VARIABLE: &str = "TANDEM_TEST_PACE";

/// The speed of playback.
#[derive(Clone, Copy)]
enum Pace {
    /// This many times the recorded speed.
    Times(f64),
    /// Without pauses.
    Unpaced,
}

/// The speed of playback by default: faster than recorded, because 188 s are too long for a test.
fn recorded() -> Pace {
    let times = std::env::var(PACE_VARIABLE).ok().and_then(|times| times.parse().ok());
    Pace::Times(times.unwrap_or(20.0))
}

fn is_gossip(tag: Tag) -> bool {
    [Tag::AV, Tag::PP, Tag::TX, Tag::VB].contains(&tag)
}

/// The messages that a peer plays: all but answers to requests, because nothing here sends those requests.
fn played(session: &Session) -> impl Iterator<Item = &Recorded> {
    session.sent.iter().filter(|message| message.tag != Tag::TS)
}

/// The messages that a peer waits for.
struct Expected<'a> {
    /// Number of gossip messages that only the other peer sends.
    count: usize,
    /// Messages that both peers send: the second sender does not get them.
    shared: &'a [(Tag, Bytes)],
}

/// Plays a session. Returns the messages received until everything expected has arrived and every request is
/// answered.
async fn play(
    peer: &mut RawWebSocket,
    session: &Session,
    pace: Pace,
    expected: Expected<'_>,
) -> Vec<(Tag, Bytes)> {
    let mut came = Vec::new();
    let (began, mut messages) = (Instant::now(), played(session).peekable());
    let requests = played(session).filter(|message| message.tag == Tag::UE).count();
    let (mut gossip, mut answers) = (0, 0);
    while messages.peek().is_some() || gossip < expected.count || answers < requests {
        let due = messages.peek().map(|message| match pace {
            Pace::Times(times) => began + Duration::from_secs_f64(message.at_ms / 1_000.0 / times),
            Pace::Unpaced => began,
        });
        tokio::select! {
            biased;
            () = time::sleep_until(due.unwrap_or(began)), if due.is_some() => {
                let Some(message) = messages.next() else { continue };
                let sent = peer.send(message.tag, &message.payload).await;
                sent.expect("the relay takes everything");
            }
            message = peer.recv() => {
                let (tag, payload) = message.expect("the relay keeps the connection");
                let counts = is_gossip(tag) && !expected.shared.contains(&content(tag, &payload));
                gossip += usize::from(counts);
                answers += usize::from(tag == Tag::TS);
                came.push((tag, payload));
            }
        }
    }
    // All that the relay had queued arrives before this answer.
    came.extend(fence(peer, u64::MAX).await);
    came
}

/// The form in which messages are compared.
fn content(tag: Tag, payload: &Bytes) -> (Tag, Bytes) {
    match tag {
        Tag::PP => (tag, decompress(payload, MAX_DECOMPRESSED).expect("it is a frame")),
        Tag::AV => (tag, plain(payload)),
        _ => (tag, payload.clone()),
    }
}

fn gossip_of<'a>(messages: impl Iterator<Item = (Tag, &'a Bytes)>) -> Vec<(Tag, Bytes)> {
    let gossip = messages.filter(|(tag, _)| is_gossip(*tag));
    gossip.map(|(tag, payload)| content(tag, payload)).collect()
}

/// The messages of one lane, in order.
fn lane(messages: &[(Tag, Bytes)], lane: Lane) -> Vec<&(Tag, Bytes)> {
    let table = &NetworkProfile::ALGORAND.tags;
    let in_lane = |tag| table.rule(tag).is_some_and(|rule| rule.lane == lane);
    messages.iter().filter(|(tag, _)| in_lane(*tag)).collect()
}

/// Compares the messages received by one peer with those that the other one played.
fn compare(came: &[(Tag, Bytes)], from: &Session, own: &Session, shared: &[(Tag, Bytes)]) {
    let heard = gossip_of(came.iter().map(|(tag, payload)| (*tag, payload)));
    let sent = gossip_of(from.sent.iter().map(|message| (message.tag, &message.payload)));
    for of in Lane::ALL {
        let unshared = |messages| -> Vec<&(Tag, Bytes)> {
            let of_lane = lane(messages, of).into_iter();
            of_lane.filter(|message| !shared.contains(message)).collect()
        };
        let (heard, sent) = (unshared(&heard), unshared(&sent));
        let first = heard.iter().zip(&sent).position(|(heard, sent)| heard != sent);
        assert_eq!(first, None, "the first difference in the {} lane", of.label());
        assert_eq!(heard.len(), sent.len(), "messages of the {} lane", of.label());
    }
    let votes = came.iter().filter(|(tag, _)| *tag == Tag::AV);
    let recorded = from.sent.iter().filter(|message| message.tag == Tag::AV);
    for ((_, payload), recorded) in votes.zip(recorded) {
        assert_eq!(is_packed(payload), own.request.contains("avvpack"), "a vote in another form");
        let hash = hex::encode(Sha256::digest(plain(payload)));
        assert_eq!(
            from.votes.get(&recorded.line),
            Some(&hash),
            "the vote of line {}",
            recorded.line
        );
    }
    hop_local(came, from, own);
}

/// Checks that control messages are not forwarded, and that requests are answered.
fn hop_local(came: &[(Tag, Bytes)], from: &Session, own: &Session) {
    let large = from.sent.iter().filter(|message| is_gossip(message.tag)).map(|message| {
        let (tag, body) = content(message.tag, &message.payload);
        Bytes::from(Digest::of(tag, &body).0.to_vec())
    });
    let large: Vec<Bytes> = large.collect();
    let mut answers: HashMap<RequestKey, u32> = HashMap::new();
    for (tag, payload) in came {
        let passed_on = from.sent.iter().any(|sent| sent.tag == *tag && sent.payload == *payload);
        match *tag {
            // The relay sends its own interest, and announces the messages it has.
            Tag::MI => assert!(!passed_on, "an interest was passed on"),
            Tag::MS => assert!(large.contains(payload), "an announcement of nothing"),
            Tag::TS => {
                let (key, topics) = open_answer(payload).expect("an answer is a list of topics");
                *answers.entry(key.expect("it names its request")).or_default() += 1;
                let error = topics.get("Error").expect("there is no block here");
                assert_eq!(error, "requested block is not available");
                assert_eq!(topics.get("latest").map(Bytes::len), Some(8));
                assert_eq!(topics.len(), 2);
            }
            tag => assert!(is_gossip(tag), "{tag} was passed on"),
        }
    }
    for request in own.sent.iter().filter(|message| message.tag == Tag::UE) {
        let answered = answers.get(&RequestKey::of(&request.payload));
        assert_eq!(answered, Some(&1), "the request of line {}", request.line);
    }
}

/// Plays both sessions at the same time into the relay at an address.
async fn play_into(address: SocketAddr, pace: Pace) {
    let names = ["av", "av-stateless"];
    let [left, right] = names.map(|name| Session::read(name).expect("the corpus is there"));
    let gossip = |session: &Session| {
        gossip_of(session.sent.iter().map(|message| (message.tag, &message.payload)))
    };
    let (from_left, from_right) = (gossip(&left), gossip(&right));
    assert_eq!((from_left.len(), from_right.len()), (272, 243), "the corpus is whole");
    // A bundle that both peers send: the first copy is forwarded, and the second is a duplicate.
    let shared: Vec<_> =
        from_left.iter().filter(|message| from_right.contains(message)).cloned().collect();
    let connect = async |session: &Session| {
        let peer = RawWebSocket::connect(address, &session.request).await;
        let mut peer = peer.expect("the relay takes a recorded node");
        // The answer shows that the relay serves this peer.
        fence(&mut peer, 0).await;
        peer
    };
    let (mut at_left, mut at_right) = (connect(&left).await, connect(&right).await);
    let shared = shared.as_slice();
    let to_left = Expected { count: from_right.len() - shared.len(), shared };
    let to_right = Expected { count: from_left.len() - shared.len(), shared };
    let length = match pace {
        Pace::Times(times) => Duration::from_secs_f64(190.0 / times),
        Pace::Unpaced => Duration::ZERO,
    };
    let both = futures::future::join(
        play(&mut at_left, &left, pace, to_left),
        play(&mut at_right, &right, pace, to_right),
    );
    let both = time::timeout(length + PATIENCE, both).await;
    let (came_left, came_right) = both.expect("everything comes out in time");
    compare(&came_left, &right, &left, shared);
    compare(&came_right, &left, &right, shared);
    for message in shared {
        let came = came_left.iter().chain(&came_right);
        let times = came.filter(|(tag, payload)| content(*tag, payload) == *message).count();
        assert_eq!(times, 1, "a message that both sent");
    }
}

/// A relay inside this process.
async fn relay() -> (Running, SocketAddr) {
    let network = NetworkId::new(NETWORK).expect("it is the name of a network");
    let relay = NodeBuilder::new(network)
        .profile(&NetworkProfile::ALGORAND)
        .mode(Mode::WebSocket)
        .relaying(Relaying::Accepted)
        .handler(Tag::UE, Responder::new(Capacity::default()));
    let relay = relay.start(&CancellationToken::new()).await.expect("the relay starts");
    let url = relay.ws_url().expect("it listens");
    let address = url.strip_prefix("http://").unwrap_or(&url).parse();
    (relay, address.expect("it is a socket address"))
}

async fn embedded(pace: Pace) {
    let (relay, address) = relay().await;
    play_into(address, pace).await;
    assert_eq!(relay.stop(Duration::from_secs(5)).await, Shutdown::Clean);
}

async fn in_a_process(pace: Pace) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    // The relay answers block requests itself, because the other peer is a script without answers.
    let arguments = ["--profile", "algorand", "--network", NETWORK, "--pass-on-blocks", "off"];
    let relay = Node::run(folder.path(), &arguments).await;
    let address = relay.ws_address().parse().expect("it is a socket address");
    play_into(address, pace).await;
    assert_eq!(relay.terminate().await, Some(0));
}

#[tokio::test]
async fn a_relay_forwards_the_recorded_traffic_at_its_pace() {
    embedded(recorded()).await;
}

#[tokio::test]
async fn a_relay_forwards_the_recorded_traffic_at_full_speed() {
    embedded(Pace::Unpaced).await;
}

#[tokio::test]
async fn the_program_forwards_the_recorded_traffic_at_its_pace() {
    in_a_process(recorded()).await;
}

#[tokio::test]
async fn the_program_forwards_the_recorded_traffic_at_full_speed() {
    in_a_process(Pace::Unpaced).await;
}
