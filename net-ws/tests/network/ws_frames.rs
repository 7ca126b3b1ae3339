//! The recorded behaviour of WebSocket links: frames, closes, and handshakes from the dialler's side.

#![allow(clippy::disallowed_methods, reason = "a test may use the system directly")]
// A test that cannot go on has failed.
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::common::{
    self, Recipe,
    dialled::Dialled,
    raw::{self, End, Frame, Raw, masked},
    soon, until,
};
use futures::future::join_all;
use gossip::{
    Admission, ApplicationReason, GossipNode, LinkId, LinkPath, NetworkProfile, Outbound, Tag,
    Transport,
    wire::identity::{self, Challenge, Keypair},
};
use mesh::{LinkClaim, Ruling};
use runtime::Shutdown;
use serde::Deserialize;
use tandem_net_ws::WsConfig;
use tokio::time::Instant;

/// Time for which a connection that was recorded as open is watched.
const WATCH: Duration = Duration::from_millis(200);

#[derive(Deserialize)]
struct Vectors {
    server_cases: Vec<ServerCase>,
    handshake_cases: Vec<HandshakeCase>,
    frame_sizes: Vec<FrameSize>,
    close_cases: Vec<CloseCase>,
}

#[derive(Deserialize)]
struct ServerCase {
    name: String,
    client_sends: Option<Vec<String>>,
    client_sends_total_bytes: Option<usize>,
    server_frames: Vec<Recorded>,
    connection_after: String,
    handlers_called: Vec<String>,
}

#[derive(Deserialize)]
struct HandshakeCase {
    name: String,
    response_head_at_is_accept_key: Option<String>,
    response_head_len: Option<usize>,
    request: Option<String>,
    #[serde(default)]
    client_keeps_connection: bool,
    #[serde(default)]
    client_frames: Vec<Recorded>,
    connection_after: Option<String>,
    #[serde(default)]
    handlers_called: Vec<String>,
    address_hidden_afterwards: Option<bool>,
}

#[derive(Deserialize)]
struct FrameSize {
    sender: String,
    message_len_with_tag: usize,
    frames: Option<Vec<Recorded>>,
    frame_count: Option<usize>,
    frames_first4_last2: Option<Vec<Recorded>>,
}

#[derive(Deserialize)]
struct CloseCase {
    name: String,
    frames_seen_by_client: Option<Vec<Recorded>>,
    frames_seen_by_server: Option<Vec<Recorded>>,
    server_sends: Option<String>,
    client_frames: Option<Vec<Recorded>>,
    connection_after: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Recorded {
    first_byte: String,
    masked: bool,
    len: usize,
    payload: Option<String>,
}

fn vectors() -> Vectors {
    serde_json::from_str(include_str!("../../testdata/ws_frames.json")).unwrap()
}

/// Reads the recorded frames, and checks that nothing else follows.
async fn read_like(raw: &mut Raw, recorded: &[Recorded], is_open: bool) -> Vec<Frame> {
    let (frames, end) =
        if is_open { raw.frames_of_open(recorded.len(), WATCH).await } else { raw.frames().await };
    assert_eq!(end, if is_open { End::Open } else { End::Over }, "{frames:x?}");
    frames
}

#[track_caller]
fn assert_frames(name: &str, frames: &[Frame], recorded: &[Recorded]) {
    assert_eq!(frames.len(), recorded.len(), "{name}: {frames:x?} {recorded:?}");
    for (frame, recorded) in frames.iter().zip(recorded) {
        assert_eq!(format!("{:02x}", frame.first), recorded.first_byte, "{name}");
        assert_eq!(frame.masked, recorded.masked, "{name}");
        assert_eq!(frame.payload.len(), recorded.len, "{name}");
        if let Some(payload) = &recorded.payload {
            assert_eq!(&hex::encode(&frame.payload), payload, "{name}");
        }
    }
}

fn sorted(mut items: Vec<String>) -> Vec<String> {
    items.sort();
    items
}

fn algorand() -> Recipe {
    Recipe::new(&NetworkProfile::ALGORAND)
}

impl ServerCase {
    fn sends(&self) -> Vec<Vec<u8>> {
        if let Some(sends) = &self.client_sends {
            return sends.iter().map(|bytes| hex::decode(bytes).unwrap()).collect();
        }
        let message =
            |tag: &str, len: usize| masked(0x82, &[tag.as_bytes(), &vec![7; len]].concat());
        let sends = match self.name.as_str() {
            "SP_payload_6378" => vec![message("SP", 6_378), message("TX", 1)],
            "SP_payload_6379" => vec![message("SP", 6_379), message("TX", 1)],
            "TX_payload_5000001" => vec![message("TX", 5_000_001)],
            "unknown_tag_100000" => vec![message("ZZ", 100_000), message("TX", 1)],
            "tx_4999_no_ms" => vec![message("TX", 4_999)],
            other => panic!("{other} has no bytes"),
        };
        let total: usize = sends.iter().map(Vec::len).sum();
        assert_eq!(Some(total), self.client_sends_total_bytes, "{}", self.name);
        sends
    }

    async fn check(&self) {
        let name = &self.name;
        let node = algorand().listening().relaying().start().await;
        let mut client = raw::upgraded(node.address()).await;
        assert_eq!(&client.frame().await.unwrap().payload[..2], b"MI");
        for bytes in self.sends() {
            client.send(&bytes).await;
        }
        until(name, || node.heard.all().len() >= self.handlers_called.len()).await;
        let is_open = self.connection_after == "open";
        // This node does not negotiate packed votes, so it answers none.
        let is_vote_answer = |frame: &Recorded| frame.payload.as_deref() == Some("5650ff");
        let expected = if self.server_frames.iter().any(is_vote_answer) {
            &[][..]
        } else {
            &self.server_frames
        };
        let frames = read_like(&mut client, expected, is_open).await;
        assert_frames(name, &frames, expected);
        assert_eq!(sorted(node.heard.summary()), sorted(self.handlers_called.clone()), "{name}");
        node.until_peers(usize::from(is_open)).await;
        drop(client);
        node.stop().await;
    }
}

#[tokio::test]
async fn a_client_gets_the_recorded_frames() {
    let cases = vectors().server_cases;
    assert_eq!(cases.len(), 79);
    join_all(cases.iter().map(|case| soon(case.check()))).await;
}

/// Message 2 of the recorded identity exchange, for the challenge of this request.
fn identity_response(dialled: &Dialled) -> String {
    let seen =
        identity::read_request_header(dialled.header("X-Algorand-Identitychallenge")).unwrap();
    let key = Keypair::from_seed([1; 32]);
    format!(
        "X-Algorand-Identitychallenge: {}\r\n",
        identity::response_header(&key, &seen, recorded_response_challenge())
    )
}

fn recorded_response_challenge() -> Challenge {
    Challenge(std::array::from_fn(|index| u8::try_from(0x20 + index).unwrap()))
}

fn with_identity(config: &mut WsConfig) {
    config.public_address = Some("own.example:4160".to_owned());
    config.identity = Some(Arc::new(Keypair::from_seed([0; 32])));
    config.user_agent = "algod/5.1 (; commit=; 0) linux(amd64)".to_owned();
}

impl HandshakeCase {
    async fn check(&self) {
        let name = self.name.as_str();
        let has_identity = name.contains("identity");
        // The node dials once: the test accepts no second connection.
        let mut dialled = Dialled::redialling(common::HOUR, |config| {
            config.user_agent = "algod/5.1 (; commit=; 0) linux(amd64)".to_owned();
            if has_identity {
                with_identity(config);
            }
        })
        .await;
        if let Some(recorded) = &self.request {
            return self.check_request(&dialled, recorded);
        }
        let mut answer = self.answer(&dialled).into_bytes();
        if !self.handlers_called.is_empty() {
            for body in [1_004, 1_000, 1_001, 1_002, 1_003] {
                let message = [&b"TX"[..], &vec![7; body]].concat();
                let len = u16::try_from(message.len()).unwrap().to_be_bytes();
                answer.extend([&[0x82, 126][..], &len, &message].concat());
            }
        }
        let claim = LinkClaim {
            link: LinkId(u64::MAX),
            identity: Keypair::from_seed([1; 32]).identity(),
            transport: Transport::WebSocket,
            path: LinkPath::Direct,
            dialer: Keypair::from_seed([0; 32]).identity(),
            session: None,
            run: None,
            tie: [0; 32],
        };
        let _held = (name == "identity_duplicate").then(|| {
            let held = dialled.node.broadcaster.claim(claim);
            assert_eq!(held.ruling(), Ruling::Keep);
            held
        });
        dialled.server.send(&answer).await;
        let stays_open = self.connection_after.as_deref().is_none_or(|after| after == "open");
        if self.client_keeps_connection {
            dialled.node.until_peers(1).await;
        }
        let frames = read_like(&mut dialled.server, &self.client_frames, stays_open).await;
        assert_frames(name, &frames, &self.client_frames);
        assert_eq!(dialled.node.peers().len(), usize::from(self.client_keeps_connection), "{name}");
        let heard = dialled.node.heard.summary();
        assert_eq!(sorted(heard), sorted(self.handlers_called.clone()), "{name}");
        drop(dialled.server);
        dialled.node.stop().await;
    }

    fn answer(&self, dialled: &Dialled) -> String {
        match self.name.as_str() {
            "identity_response_valid" | "identity_duplicate" => {
                dialled.head(&identity_response(dialled))
            }
            "frames_in_same_segment_as_101" => dialled.head_of(4_096),
            _ => match (&self.response_head_at_is_accept_key, self.response_head_len) {
                (Some(head), _) => head
                    .replace('@', &dialled.accept_key())
                    .replace("ZZZZZZZZZZZZZZ==", dialled.header("X-Algorand-Noderandom")),
                (None, Some(len)) => dialled.head_of(len),
                (None, None) => panic!("{} has no answer", self.name),
            },
        }
    }

    /// Compares the request line by line, except for random values and headers that this node does not send.
    fn check_request(&self, dialled: &Dialled, recorded: &str) {
        let ours: Vec<&str> = dialled.request.split("\r\n").collect();
        let theirs: Vec<&str> = recorded.split("\r\n").collect();
        assert_eq!(ours.len(), theirs.len(), "{}: {ours:#?}", self.name);
        let address = dialled.listener.local_addr().unwrap().to_string();
        for (ours, theirs) in ours.iter().zip(theirs) {
            let (name, value) = ours.split_once(": ").unwrap_or((ours, ""));
            let (recorded_name, recorded) = theirs.split_once(": ").unwrap_or((theirs, ""));
            assert_eq!(name, recorded_name, "{}", self.name);
            match name {
                "Host" => assert_eq!(value, address),
                "Sec-WebSocket-Key" | "X-Algorand-Noderandom" => {
                    assert_eq!(value.len(), recorded.len());
                }
                "X-Algorand-Identitychallenge" => {
                    let seen = identity::read_request_header(value).unwrap();
                    assert_eq!(seen.address, address.as_bytes());
                    assert_eq!(seen.key, Keypair::from_seed([0; 32]).identity());
                    let recorded = identity::read_request_header(recorded).unwrap();
                    assert_eq!(seen.key, recorded.key);
                }
                _ => assert_eq!(value, recorded, "{}: {name}", self.name),
            }
        }
    }

    /// Checks whether the node waits before the next dial as long as the answer asks.
    async fn check_hiding(&self, hidden: bool) {
        let mut dialled = Dialled::redialling(Duration::from_millis(1), |_| {}).await;
        let answer = self.response_head_at_is_accept_key.clone().unwrap();
        dialled.server.send(answer.as_bytes()).await;
        let answered = Instant::now();
        if self.name == "reply_508" {
            // Existing nodes dial again, as recorded. This node does not dial an address that is its own.
            let again = tokio::time::timeout(WATCH * 5, dialled.listener.accept()).await;
            assert!(again.is_err(), "{}", self.name);
            return dialled.node.stop().await;
        }
        let Dialled { node, listener, .. } = dialled;
        let again = Dialled::next(node, listener).await;
        let is_late = answered.elapsed() > Duration::from_millis(1_900);
        assert_eq!(is_late, hidden, "{}: {:?}", self.name, answered.elapsed());
        drop(again.server);
        again.node.stop().await;
    }
}

#[tokio::test]
async fn a_dialler_judges_replies_as_recorded() {
    let cases = vectors().handshake_cases;
    assert_eq!(cases.len(), 48);
    join_all(cases.iter().map(|case| soon(case.check()))).await;
}

#[tokio::test]
async fn only_429_with_seconds_hides_an_address() {
    let cases = vectors().handshake_cases;
    let hiding: Vec<_> =
        cases.iter().filter_map(|case| Some((case, case.address_hidden_afterwards?))).collect();
    assert_eq!(hiding.len(), 7);
    join_all(hiding.iter().map(|(case, hidden)| soon(case.check_hiding(*hidden)))).await;
}

#[tokio::test]
async fn messages_are_cut_into_frames_as_recorded() {
    let sizes = vectors().frame_sizes;
    assert_eq!(sizes.len(), 24);
    let listening = algorand().listening().start().await;
    let client = soon(raw::upgraded(listening.address())).await;
    let Dialled { node: dialling, server, .. } = soon(Dialled::accepted()).await;
    let mut ends =
        BTreeMap::from([("server", (listening, client)), ("client", (dialling, server))]);
    for size in &sizes {
        let (node, end) = ends.get_mut(size.sender.as_str()).unwrap();
        node.until_peers(1).await;
        let len = size.message_len_with_tag;
        let message = Outbound::new(Tag::TX, vec![7; len - 2]);
        assert_eq!(node.network.broadcast(message), Ok(Admission::Queued));
        let mut frames: Vec<Frame> = Vec::new();
        while frames.last().is_none_or(|frame| frame.first & 0x80 == 0) {
            frames.push(soon(end.frame()).await.unwrap());
        }
        let message: Vec<u8> = frames.iter().flat_map(|frame| frame.payload.clone()).collect();
        assert_eq!(message, [&b"TX"[..], &vec![7; len - 2]].concat());
        let name = format!("{} {len}", size.sender);
        if let Some(recorded) = &size.frames {
            assert_frames(&name, &frames, recorded);
        }
        if let (Some(count), Some(recorded)) = (size.frame_count, &size.frames_first4_last2) {
            assert_eq!(frames.len(), count, "{name}");
            if count > 6 {
                frames.drain(4..count - 2);
            }
            assert_frames(&name, &frames, recorded);
        }
    }
    for (node, end) in ends.into_values() {
        drop(end);
        node.stop().await;
    }
}

impl CloseCase {
    async fn check(&self) {
        let name = self.name.as_str();
        match name {
            "server_disconnects_peer" | "server_node_stops" => {
                let node = algorand().listening().start().await;
                let mut client = raw::upgraded(node.address()).await;
                node.until_peers(1).await;
                let ending = async {
                    if name == "server_node_stops" {
                        let stopped = node.network.stop(Duration::from_secs(5)).await;
                        assert_eq!(stopped, Shutdown::Clean);
                    } else {
                        let peer = node.peers()[0].id;
                        node.network.disconnect(peer, ApplicationReason::Requested);
                    }
                };
                let ((), (frames, end)) = tokio::join!(ending, client.frames());
                assert_frames(name, &frames, self.frames_seen_by_client.as_ref().unwrap());
                assert_eq!(end, End::Over);
            }
            "server_broadcast_then_disconnect_20_runs" => {
                join_all((0..20).map(|_| broadcast_then_disconnect())).await;
            }
            "client_disconnects_peer" => {
                let mut dialled = Dialled::accepted().await;
                let peer = dialled.node.peers()[0].id;
                dialled.node.network.disconnect(peer, ApplicationReason::Requested);
                let (frames, end) = dialled.server.frames().await;
                assert_frames(name, &frames, self.frames_seen_by_server.as_ref().unwrap());
                assert_eq!(end, End::Over);
            }
            _ => {
                let mut dialled = Dialled::accepted().await;
                let sends = hex::decode(self.server_sends.as_ref().unwrap()).unwrap();
                dialled.server.send(&sends).await;
                let is_open = self.connection_after.as_deref() == Some("open");
                let recorded = self.client_frames.as_ref().unwrap();
                let frames = read_like(&mut dialled.server, recorded, is_open).await;
                assert_frames(name, &frames, recorded);
            }
        }
    }
}

/// Checks that the peer gets the message and the close, or the close alone; never half a message.
async fn broadcast_then_disconnect() {
    let node = algorand().listening().start().await;
    let mut client = raw::upgraded(node.address()).await;
    node.until_peers(1).await;
    let message = Outbound::new(Tag::TX, vec![7; 3_000]);
    assert_eq!(node.network.broadcast(message), Ok(Admission::Queued));
    node.network.disconnect(node.peers()[0].id, ApplicationReason::Requested);
    let (frames, end) = client.frames().await;
    assert_eq!(end, End::Over);
    let seen: Vec<(u8, usize)> =
        frames.iter().map(|frame| (frame.first, frame.payload.len())).collect();
    assert!(seen == [(0x88, 2)] || seen == [(0x82, 3_002), (0x88, 2)], "{seen:?}");
}

#[tokio::test]
async fn connections_are_closed_as_recorded() {
    let cases = vectors().close_cases;
    assert_eq!(cases.len(), 8);
    join_all(cases.iter().map(|case| soon(case.check()))).await;
}
