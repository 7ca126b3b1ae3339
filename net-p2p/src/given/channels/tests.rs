//! Two ends whose hosts hand messages to each other, and a host that does as it is told.

use std::{
    collections::BTreeMap,
    future::poll_fn,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::{AsyncReadExt as _, AsyncWriteExt as _, FutureExt as _, future};
use libp2p::{
    PeerId, Transport as _,
    core::{
        Endpoint,
        muxing::{StreamMuxer, StreamMuxerExt as _},
        transport::{DialOpts, PortUse, TransportError},
    },
    noise,
};
use mesh::LearntHosts;
use runtime::time;

use super::{
    handed::{KEPT, Order, STREAM_KEPT},
    transport::{ChannelsError, Handshake},
    *,
};
use crate::{
    backlog::Backlog,
    channels::{Association as _, Event, Fingerprint, Message, SHA_256},
    config::libp2p_key,
    connections::ConnectionTasks,
    dial_hosts::DialHosts,
    metrics::{P2pEvent, P2pMetrics},
    muxer::Muxer,
    tests::host::{PATIENCE, connection_tasks, new_key},
};

const CERTIFICATES: [[u8; 32]; 2] = [[1; 32], [2; 32]];

/// An address with the second certificate.
const ADDRESS: &str =
    "/ip4/127.0.0.1/udp/9/webrtc-direct/certhash/uEiACAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAg";

fn fingerprint(hash: [u8; 32]) -> Fingerprint {
    [&SHA_256[..], &hash].concat().try_into().unwrap()
}

/// One end's channels; those of the other end get everything at once.
pub(super) struct Wire {
    own: ChannelEvents,
    other: ChannelEvents,
    /// The numbers at the other end, for either end.
    numbers: Arc<[Mutex<BTreeMap<u16, u16>>; 2]>,
    end: usize,
    /// Bytes that the host says it holds.
    held: Arc<AtomicUsize>,
}

impl Wire {
    /// The two ends of a connection, whose hosts say that they hold so many bytes.
    pub(super) fn pair(events: &[ChannelEvents; 2], held: &[Arc<AtomicUsize>; 2]) -> [Self; 2] {
        let numbers = Arc::new([0, 1].map(|_| Mutex::new(BTreeMap::from([(0, 0)]))));
        [0, 1].map(|end| Self {
            own: events[end].clone(),
            other: events[1 - end].clone(),
            numbers: Arc::clone(&numbers),
            end,
            held: Arc::clone(&held[end]),
        })
    }

    fn number(&self, channel: u16) -> Option<u16> {
        self.numbers[self.end].lock().unwrap().get(&channel).copied()
    }
}

impl PeerChannels for Wire {
    fn open(&mut self, channel: u16) -> io::Result<()> {
        let Some(number) = self.other.accepted() else { return Err(io::ErrorKind::Other.into()) };
        self.numbers[self.end].lock().unwrap().insert(channel, number);
        self.numbers[1 - self.end].lock().unwrap().insert(number, channel);
        self.other.opened(number);
        self.own.opened(channel);
        Ok(())
    }

    fn send(&mut self, channel: u16, message: &[u8]) -> io::Result<()> {
        if let Some(number) = self.number(channel) {
            self.other.message(number, message.to_vec());
        }
        Ok(())
    }

    fn buffered(&mut self, _: u16) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    fn close(&mut self, channel: u16) {
        if let Some(number) = self.number(channel) {
            self.other.closed(number);
        }
        self.own.closed(channel);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.other.ended(io::Error::other("the other end is gone"));
    }
}

struct End {
    muxer: Muxer,
    events: ChannelEvents,
    metrics: P2pMetrics,
    held: Arc<AtomicUsize>,
    /// They end when they are dropped.
    _tasks: ConnectionTasks,
}

/// The parts of an end that a test sees, without its muxer.
struct Seen {
    events: ChannelEvents,
    metrics: P2pMetrics,
    held: Arc<AtomicUsize>,
    tasks: ConnectionTasks,
}

type Connected = Result<(PeerId, Muxer), ChannelsError>;

/// Connects two ends, each of which was told that the other one has a certificate of `peers`.
async fn handshake(peers: [[u8; 32]; 2]) -> [(Connected, Seen); 2] {
    let sides = [Side::Dialer, Side::Listener];
    let events = sides.map(ChannelEvents::new);
    let held = [0, 1].map(|_| Arc::new(AtomicUsize::new(0)));
    let mut wires = Wire::pair(&events, &held).map(Some);
    let ends = [0, 1].map(|end| {
        let metrics = P2pMetrics::default();
        let held = Arc::clone(&held[end]);
        let wire = wires[end].take().unwrap();
        let dialled = DialledChannels { channels: Box::new(wire), certificate: CERTIFICATES[end] };
        let tasks = connection_tasks();
        let handshake = Handshake {
            noise: noise::Config::new(&libp2p_key(&new_key())).unwrap(),
            tasks: tasks.clone(),
            backlog: Backlog::new(1 << 26, metrics.clone()),
        };
        let this = (events[end].clone(), sides[end]);
        let made = handshake.establish(this, dialled, fingerprint(peers[1 - end]));
        (made, Seen { events: events[end].clone(), metrics, held, tasks })
    });
    let [(ours, our_end), (theirs, their_end)] = ends;
    let both = time::timeout(PATIENCE, async { tokio::join!(ours, theirs) });
    let (ours, theirs) = both.await.expect("an end of the handshake");
    [(ours, our_end), (theirs, their_end)]
}

async fn connect() -> [End; 2] {
    handshake(CERTIFICATES).await.map(|(made, Seen { events, metrics, held, tasks })| {
        let (_, muxer) = made.unwrap();
        End { muxer, events, metrics, held, _tasks: tasks }
    })
}

impl End {
    async fn open(&mut self) -> <Muxer as StreamMuxer>::Substream {
        poll_fn(|context| self.muxer.poll_outbound_unpin(context)).await.unwrap()
    }

    async fn accepted(&mut self) -> <Muxer as StreamMuxer>::Substream {
        let stream = poll_fn(|context| self.muxer.poll_inbound_unpin(context));
        time::timeout(PATIENCE, stream).await.expect("a stream").unwrap()
    }
}

#[tokio::test]
async fn streams_go_both_ways_and_end_as_they_were_ended() {
    const BYTES: usize = 1_000_000;
    let [mut ours, mut theirs] = connect().await;
    let mut out = ours.open().await;
    let write = async {
        out.write_all(&vec![7; BYTES]).await.unwrap();
        out.close().await.unwrap();
    };
    let read = async {
        let mut heard = Vec::new();
        let mut stream = theirs.accepted().await;
        stream.read_to_end(&mut heard).await.unwrap();
        stream.write_all(b"all of it").await.unwrap();
        drop(stream);
        heard.len()
    };
    let both = async { tokio::join!(write, read).1 };
    assert_eq!(time::timeout(PATIENCE, both).await.expect("the end of the stream"), BYTES);
    let mut answer = Vec::new();
    let end = time::timeout(PATIENCE, out.read_to_end(&mut answer)).await.expect("an end");
    assert_eq!(answer, b"all of it");
    assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset, "it was dropped");
}

#[tokio::test]
async fn a_stream_that_nobody_reads_is_reset_beyond_its_bound_and_others_go_on() {
    let [mut ours, mut theirs] = connect().await;
    let mut unread = ours.open().await;
    unread.write_all(b"first").await.unwrap();
    let mut held = theirs.accepted().await;
    let fill = async { while unread.write_all(&[7; 16_000]).await.is_ok() {} };
    time::timeout(PATIENCE, fill).await.expect("the writer hears of it");
    assert_eq!(theirs.metrics.count(P2pEvent::WebRtcUnread), 1);
    let kept = theirs.events.0.with(|session| session.channels().held()).unwrap();
    assert!(kept < 200_000, "{kept} bytes are kept of a stream that is reset");
    let end = held.read(&mut [0; 10]).await;
    assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    let mut other = ours.open().await;
    other.write_all(b"still here").await.unwrap();
    let mut heard = [0; 10];
    theirs.accepted().await.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"still here");
}

#[tokio::test]
async fn a_writer_waits_for_its_host() {
    let [mut ours, _theirs] = connect().await;
    let mut stream = ours.open().await;
    stream.write_all(b"begun").await.unwrap();
    ours.held.store(100_000, Ordering::Relaxed);
    let mut taken = 0;
    while let Ok(written) =
        time::timeout(Duration::from_millis(300), stream.write(&[7; 16_000])).await
    {
        taken += written.unwrap();
        assert!(taken < 200_000, "{taken} bytes were taken for a host with no room");
    }
    ours.held.store(0, Ordering::Relaxed);
    ours.events.drained(2);
    time::timeout(PATIENCE, stream.write_all(&[7; 200_000])).await.expect("room").unwrap();
}

#[tokio::test]
async fn garbage_on_a_channel_ends_its_stream_and_nothing_else() {
    let [mut ours, mut theirs] = connect().await;
    let mut stream = ours.open().await;
    stream.write_all(b"x").await.unwrap();
    let mut heard = theirs.accepted().await;
    let number = 2;
    theirs.events.message(number, vec![0xff; 20_000]);
    let mut bytes = Vec::new();
    let end = time::timeout(PATIENCE, heard.read_to_end(&mut bytes)).await.expect("an end");
    assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    for number in [0, 2, 7, u16::MAX] {
        theirs.events.message(number, vec![0; 100]);
        theirs.events.opened(number);
        theirs.events.drained(number);
    }
    ours.open().await.write_all(b"y").await.unwrap();
    assert_eq!(theirs.accepted().await.read(&mut [0; 1]).await.unwrap(), 1);
}

#[tokio::test]
async fn streams_end_with_their_connection() {
    let [mut ours, mut theirs] = connect().await;
    let mut stream = ours.open().await;
    stream.write_all(b"x").await.unwrap();
    let mut heard = theirs.accepted().await;
    heard.read_exact(&mut [0; 1]).await.unwrap();
    theirs.events.ended(io::Error::other("the host says so"));
    let end = time::timeout(PATIENCE, heard.read(&mut [0; 1])).await.expect("an end");
    assert!(end.is_err());
    let why = poll_fn(|context| theirs.muxer.poll_inbound_unpin(context)).await.unwrap_err();
    assert!(why.to_string().contains("the host says so"), "{why}");
    // Its host is dropped with it, which ends the other one.
    let end = time::timeout(PATIENCE, stream.read(&mut [0; 1])).await.expect("an end");
    assert!(end.is_err());
    assert_eq!(theirs.events.accepted(), None, "a connection that has ended takes nothing");
}

#[tokio::test]
async fn an_orderly_close_waits_until_the_peer_has_everything() {
    let [mut ours, mut theirs] = connect().await;
    let mut stream = ours.open().await;
    let write = async {
        stream.write_all(&[7; 60_000]).await.unwrap();
        drop(stream);
        poll_fn(|context| ours.muxer.poll_close_unpin(context)).await.unwrap();
    };
    let read = async {
        let mut heard = Vec::new();
        // The reset of a stream that is dropped before the close shows that it is not whole.
        let _ = theirs.accepted().await.read_to_end(&mut heard).await;
        heard.len()
    };
    let both = async { tokio::join!(write, read).1 };
    assert_eq!(time::timeout(PATIENCE, both).await.expect("an orderly end"), 60_000);
}

#[tokio::test]
async fn a_certificate_that_the_peer_does_not_have_fails_the_handshake() {
    for (made, _) in handshake([CERTIFICATES[0], [9; 32]]).await {
        assert!(made.is_err());
    }
}

#[test]
fn unread_messages_are_bounded_for_a_stream_and_for_all() {
    let mut handed = Handed::new(Side::Dialer);
    let ids: Vec<u16> = (0..4).map(|_| handed.accept().unwrap()).collect();
    while handed.overfull().is_none() {
        handed.message(ids[0], vec![7; 16_000]);
    }
    assert!((STREAM_KEPT..STREAM_KEPT + 17_000).contains(&handed.held()));
    assert_eq!(handed.overfull(), Some(ids[0]));
    assert!(handed.close(ids[0]) && !handed.close(ids[0]));
    assert!(handed.held() < 1_000, "{}", handed.held());
    for turn in 0.. {
        if handed.overfull().is_some() {
            break;
        }
        handed.message(ids[1 + turn % 3], Vec::new());
    }
    assert!((KEPT..KEPT + 1_000).contains(&handed.held()), "empty messages cost memory too");
}

#[test]
fn a_peer_has_so_many_channels_and_their_numbers_again() {
    let mut handed = Handed::new(Side::Dialer);
    let ids: Vec<u16> = std::iter::from_fn(|| handed.accept()).collect();
    assert_eq!(ids.len(), 1_024);
    handed.closed(ids[7]);
    assert_eq!((handed.accept(), handed.accept()), (Some(ids[7]), None));
    assert!(!handed.open(ids[7]), "the number is in use");
}

#[test]
fn a_peer_that_takes_nothing_is_sent_no_more_flags_than_are_kept_for_it() {
    let mut handed = Handed::new(Side::Dialer);
    let ids: Vec<u16> = std::iter::from_fn(|| handed.accept()).collect();
    let mut sent = 0;
    ids.iter().for_each(|id| handed.opened(*id));
    for &id in ids.iter().cycle() {
        if !handed.send(id, b"fin") {
            break;
        }
        sent += 1;
    }
    assert!((1_024..20_000).contains(&sent), "{sent} flags wait");
    while handed.order().is_some() {}
    for &id in &ids {
        handed.buffered(id, 100_000);
    }
    assert!(!handed.send(ids[0], b"fin"), "the host keeps enough");
}

#[test]
fn orders_wait_until_a_channel_is_open() {
    let mut handed = Handed::new(Side::Dialer);
    assert!(handed.open(2) && handed.send(2, b"one") && handed.close(2));
    assert!(!handed.send(2, b"none"), "it is closed");
    assert_eq!((handed.order(), handed.order()), (Some(Order::Open(2)), None));
    assert_eq!(handed.unsent(), 3);
    handed.opened(2);
    let orders = [handed.order(), handed.order(), handed.order()];
    assert_eq!(orders, [Some(Order::Send(2, b"one".to_vec())), Some(Order::Close(2)), None]);
    handed.closed(2);
    assert_eq!((handed.poll(), handed.poll()), (Some(Event::Closed(2)), None));
    assert!(!handed.has(2) && handed.is_sent());
}

#[test]
fn the_first_message_of_a_channel_of_the_peer_opens_it() {
    let mut handed = Handed::new(Side::Dialer);
    let id = handed.accept().unwrap();
    handed.message(id, b"one".to_vec());
    let read = [handed.read(id), handed.read(id), handed.read(id)];
    assert_eq!(read, [Some(Message::Opening), Some(Message::Bytes(b"one".to_vec())), None]);
    assert_eq!(handed.held(), 0);
    handed.closed(id);
    let events: Vec<_> = std::iter::from_fn(|| handed.poll()).collect();
    let readable = Event::Readable(id);
    assert_eq!(events, [readable, readable, Event::Finished(id), Event::Closed(id)]);
}

/// A host that never answers.
#[derive(Debug)]
struct Silent;

impl ChannelTransport for Silent {
    fn dial(
        &self,
        _: Multiaddr,
        _: ChannelEvents,
    ) -> BoxFuture<'static, io::Result<DialledChannels>> {
        future::pending().boxed()
    }
}

fn given(hosts: LearntHosts) -> GivenChannels {
    GivenChannels::new(GivenChannelsParts {
        transports: vec![Arc::new(Silent)],
        hosts: DialHosts::new(hosts),
        noise: noise::Config::new(&libp2p_key(&new_key())).unwrap(),
        tasks: connection_tasks(),
        backlog: Backlog::new(1 << 26, P2pMetrics::default()),
    })
}

const OPTIONS: DialOpts = DialOpts { role: Endpoint::Dialer, port_use: PortUse::New };

#[tokio::test(start_paused = true)]
async fn a_dial_that_is_never_answered_fails_in_time_for_the_handshake() {
    let dial = given(LearntHosts::Any).dial(ADDRESS.parse().unwrap(), OPTIONS).unwrap();
    let began = time::Instant::now();
    assert!(matches!(dial.await, Err(ChannelsError::Late)));
    assert_eq!(began.elapsed().as_secs(), 8);
}

#[tokio::test]
async fn an_address_without_a_certificate_or_of_a_private_network_is_not_dialled() {
    let bare: Multiaddr = "/ip4/127.0.0.1/udp/9/webrtc-direct".parse().unwrap();
    let refused = given(LearntHosts::Any).dial(bare, OPTIONS).err().unwrap();
    assert!(matches!(refused, TransportError::MultiaddrNotSupported(_)));
    let refused = given(LearntHosts::Public).dial(ADDRESS.parse().unwrap(), OPTIONS).err().unwrap();
    assert!(matches!(refused, TransportError::Other(ChannelsError::NotPublic(_))));
}
