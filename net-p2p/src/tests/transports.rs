//! Every transport and every security protocol: nothing written is lost, and an unread stream holds little.

use std::{future::poll_fn, net::Ipv4Addr, pin::Pin, time::Duration};

use futures::{AsyncReadExt, AsyncWriteExt, FutureExt};
use gossip::NetworkId;
use libp2p::{
    Multiaddr, PeerId, Transport,
    core::{
        Endpoint,
        muxing::{StreamMuxerBox, StreamMuxerExt, SubstreamBox},
        transport::{Boxed, DialOpts, ListenerId, PortUse, TransportEvent},
    },
};
use mesh::{Door, LearntHosts};
use runtime::{Environment, memory::Network};
use tokio::time;

use super::host::{PATIENCE, new_key, transport_in};
use crate::{P2pConfig, config::libp2p_key, dial_hosts::DialHosts, security::Security};

/// A way from one node to another.
#[derive(Clone, Copy, Debug)]
struct Way {
    security: Security,
    listen: &'static str,
}

const TCP: &str = "/ip4/127.0.0.1/tcp/0";

/// In memory.
const MEMORY: &str = "/ip4/10.0.0.1/tcp/0";

const WAYS: &[Way] = &[
    Way { security: Security::Noise, listen: TCP },
    Way { security: Security::Noise, listen: MEMORY },
    #[cfg(feature = "tls")]
    Way { security: Security::Tls, listen: TCP },
    #[cfg(feature = "quic")]
    Way { security: Security::Noise, listen: "/ip4/127.0.0.1/udp/0/quic-v1" },
    #[cfg(feature = "quic")]
    Way { security: Security::Noise, listen: "/ip6/::1/udp/0/quic-v1" },
    #[cfg(feature = "webrtc")]
    Way { security: Security::Noise, listen: "/ip4/127.0.0.1/udp/0/webrtc-direct" },
    #[cfg(feature = "webrtc")]
    Way { security: Security::Noise, listen: "/ip6/::1/udp/0/webrtc-direct" },
    #[cfg(feature = "websocket")]
    Way { security: Security::Noise, listen: "/ip4/127.0.0.1/tcp/0/ws" },
    #[cfg(feature = "websocket")]
    Way { security: Security::Noise, listen: "/ip4/127.0.0.1/tcp/0/tls/ws" },
];

/// The environments of both ends.
fn environments(way: Way) -> [Environment; 2] {
    if way.listen != MEMORY {
        return [Environment::system(), Environment::system()];
    }
    let network = Network::new(1);
    [1, 2].map(|host| network.host(Ipv4Addr::new(10, 0, 0, host).into()))
}

/// The configuration of both ends, which trust each other's certificate.
fn config() -> P2pConfig {
    let config = P2pConfig::new(NetworkId::new("net").unwrap(), new_key());
    #[cfg(feature = "websocket")]
    let config = super::web::Files::new().known_to(config);
    config
}

/// Both ends of a connection.
struct Ends {
    ours: StreamMuxerBox,
    theirs: StreamMuxerBox,
    /// They own the tasks of the connection.
    _transports: [Boxed<(PeerId, StreamMuxerBox)>; 2],
}

async fn next(
    transport: &mut Boxed<(PeerId, StreamMuxerBox)>,
) -> TransportEvent<
    <Boxed<(PeerId, StreamMuxerBox)> as Transport>::ListenerUpgrade,
    <Boxed<(PeerId, StreamMuxerBox)> as Transport>::Error,
> {
    let event = poll_fn(|context| Pin::new(&mut *transport).poll(context));
    time::timeout(PATIENCE, event).await.expect("an event of the transport")
}

/// Connects two transports, and checks that each end knows the other.
async fn connect(way: Way) -> Ends {
    let (one, other) = (libp2p_key(&new_key()), libp2p_key(&new_key()));
    let ([here, there], config) = (environments(way), config());
    let (security, hosts) = ([way.security], DialHosts::default());
    let parts = |key| (key, Door::default(), &security[..]);
    let mut listener = transport_in((&here, &hosts), &config, parts(&one));
    let mut dialer = transport_in((&there, &hosts), &config, parts(&other));
    listener.listen_on(ListenerId::next(), way.listen.parse().unwrap()).unwrap();
    let address: Multiaddr = loop {
        if let TransportEvent::NewAddress { listen_addr, .. } = next(&mut listener).await {
            break listen_addr;
        }
    };
    let options = DialOpts { role: Endpoint::Dialer, port_use: PortUse::New };
    let dial = dialer.dial(address, options).unwrap();
    let accept = async {
        loop {
            if let TransportEvent::Incoming { upgrade, .. } = next(&mut listener).await {
                break upgrade.await.unwrap();
            }
        }
    };
    let (dialled, (them, theirs)) =
        time::timeout(PATIENCE, async { tokio::join!(dial, accept) }).await.expect("a handshake");
    let (us, ours) = dialled.unwrap();
    assert_eq!((us, them), (one.public().to_peer_id(), other.public().to_peer_id()), "{way:?}");
    Ends { ours, theirs, _transports: [listener, dialer] }
}

async fn open(muxer: &mut StreamMuxerBox) -> SubstreamBox {
    let first =
        muxer.poll_outbound_unpin(&mut std::task::Context::from_waker(std::task::Waker::noop()));
    // rust-libp2p#6427: the swarm panics if the first poll is ready.
    assert!(first.is_pending());
    poll_fn(|context| muxer.poll_outbound_unpin(context)).await.unwrap()
}

async fn accepted(muxer: &mut StreamMuxerBox) -> SubstreamBox {
    let stream = poll_fn(|context| muxer.poll_inbound_unpin(context));
    time::timeout(PATIENCE, stream).await.expect("a stream").unwrap()
}

// Issue 11, 1. The library's own transport of QUIC loses nine tenths of this.
#[tokio::test]
async fn bytes_written_before_everything_is_closed_at_once_all_arrive() {
    const BYTES: usize = 200_000;
    for &way in WAYS {
        let Ends { mut ours, mut theirs, _transports } = connect(way).await;
        let mut stream = open(&mut ours).await;
        let write = async {
            stream.write_all(&vec![7; BYTES]).await.unwrap();
            stream.close().await.unwrap();
            poll_fn(|context| ours.poll_close_unpin(context)).await.unwrap();
        };
        let read = async {
            let mut stream = accepted(&mut theirs).await;
            let (mut heard, mut piece) = (0, vec![0; 4_096]);
            while let Ok(bytes @ 1..) = stream.read(&mut piece).await {
                heard += bytes;
                time::sleep(Duration::from_micros(200)).await;
            }
            heard
        };
        let both = async { tokio::join!(write, read).1 };
        let heard = time::timeout(PATIENCE, both).await.expect("an orderly end");
        assert_eq!(heard, BYTES, "{way:?}");
    }
}

// Issue 11, 1. The library's own transport of QUIC takes 10 MB.
#[tokio::test]
async fn a_stream_that_nobody_reads_holds_at_most_its_window() {
    for &way in WAYS {
        let Ends { mut ours, mut theirs, _transports } = connect(way).await;
        let mut stream = open(&mut ours).await;
        let (mut taken, piece) = (0, vec![7; 16 * 1024]);
        while let Ok(Ok(bytes)) =
            time::timeout(Duration::from_millis(700), stream.write(&piece)).await
        {
            taken += bytes;
        }
        // SCTP has one window, of 1 MiB, for all streams of a connection.
        let most = if way.listen.contains("webrtc") { 1_300_000 } else { 256 * 1024 };
        assert!((200_000..=most).contains(&taken), "{way:?}: {taken} bytes");
        let mut unread = accepted(&mut theirs).await;
        assert!(unread.read(&mut [0; 10]).now_or_never().is_some(), "{way:?}");
    }
}

// Issue 11, 1.
#[tokio::test]
async fn a_peer_that_dies_within_a_message_ends_the_stream_with_an_error() {
    for &way in WAYS {
        let Ends { mut ours, mut theirs, _transports } = connect(way).await;
        let mut stream = open(&mut ours).await;
        stream.write_all(&[7; 1_000]).await.unwrap();
        stream.flush().await.unwrap();
        let mut heard = accepted(&mut theirs).await;
        heard.read_exact(&mut [0; 1_000]).await.unwrap();
        drop(stream);
        drop(ours);
        let end = time::timeout(PATIENCE, heard.read(&mut [0; 1])).await.expect("an end");
        assert!(!matches!(end, Ok(1..)), "{way:?}");
    }
}

// Issue 11, 1.
#[tokio::test]
async fn a_stream_over_udp_that_was_dropped_is_no_whole_one() {
    for &way in WAYS.iter().filter(|way| way.listen.contains("udp")) {
        let Ends { mut ours, mut theirs, _transports } = connect(way).await;
        let mut stream = open(&mut ours).await;
        stream.write_all(&[7; 1_000]).await.unwrap();
        stream.flush().await.unwrap();
        let mut heard = accepted(&mut theirs).await;
        heard.read_exact(&mut [0; 1_000]).await.unwrap();
        drop(stream);
        let end = time::timeout(PATIENCE, heard.read(&mut [0; 1])).await.expect("an end");
        end.unwrap_err();
    }
}

// Issue 11, 1: as many as nobody answers, and then one that is.
#[tokio::test]
async fn a_stream_opens_behind_two_thousand_that_nobody_takes() {
    for &way in WAYS {
        let Ends { mut ours, mut theirs, _transports } = connect(way).await;
        let opening = async {
            for _ in 0..2_000 {
                // A connection refuses streams one by one; each of these is gone at once.
                let mut stream = open(&mut ours).await;
                if stream.write_all(b"x").await.is_ok() {
                    let _ = stream.flush().await;
                }
            }
            let mut stream = open(&mut ours).await;
            stream.write_all(b"ping").await.unwrap();
            stream.flush().await.unwrap();
            let mut answer = [0; 4];
            stream.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer, b"pong");
        };
        let answering = async {
            loop {
                let mut stream = accepted(&mut theirs).await;
                let mut asked = [0; 4];
                if let Ok(Ok(())) =
                    time::timeout(Duration::from_secs(5), stream.read_exact(&mut asked)).await
                    && &asked == b"ping"
                {
                    stream.write_all(b"pong").await.unwrap();
                    stream.flush().await.unwrap();
                    // Until the other end has read it.
                    let _ = stream.read(&mut asked).await;
                    return;
                }
            }
        };
        let both = async {
            tokio::select! { () = opening => {}, () = async { answering.await; std::future::pending().await } => {} }
        };
        time::timeout(2 * PATIENCE, both).await.unwrap_or_else(|_| panic!("no answer: {way:?}"));
    }
}

// Threats and goals, row 7. Over QUIC a name that somebody had announced led to any host.
#[tokio::test]
async fn an_address_that_nobody_named_leads_to_no_host_of_this_network() {
    let (hosts, key) = (DialHosts::new(LearntHosts::Public), libp2p_key(&new_key()));
    let parts = (&key, Door::default(), Security::ALL);
    let mut dialer = transport_in((&Environment::system(), &hosts), &config(), parts);
    for address in [
        "/ip4/127.0.0.1/tcp/1",
        "/dns4/localhost/tcp/1",
        #[cfg(feature = "websocket")]
        "/dns4/localhost/tcp/1/ws",
        #[cfg(feature = "quic")]
        "/ip4/127.0.0.1/udp/1/quic-v1",
        #[cfg(feature = "quic")]
        "/dns4/localhost/udp/1/quic-v1",
    ] {
        let options = DialOpts { role: Endpoint::Dialer, port_use: PortUse::New };
        let dial = dialer.dial(address.parse().unwrap(), options).unwrap();
        let refused = time::timeout(PATIENCE, dial).await.expect("an answer").err().unwrap();
        let mut causes = vec![refused.to_string()];
        let mut cause: &dyn std::error::Error = &refused;
        while let Some(source) = cause.source() {
            causes.push(source.to_string());
            cause = source;
        }
        let told = causes.iter().any(|text| text.contains("no host of the public Internet"));
        assert!(told, "{address}: {causes:?}");
    }
}

// Issue 11, 2.
#[cfg(feature = "quic")]
#[tokio::test]
async fn two_nodes_that_dial_each_other_over_two_transports_have_one_link() {
    use gossip::{GossipNode, NetworkProfile, NodeAddress, PeerClass};

    use super::host::{Node, until};

    let start = || {
        Node::start_with(&NetworkProfile::TANDEM, "net", new_key(), |config| P2pConfig {
            listen: vec![TCP.parse().unwrap(), "/ip4/127.0.0.1/udp/0/quic-v1".parse().unwrap()],
            ..config
        })
    };
    let (one, other) = tokio::join!(start(), start());
    let address = |node: &Node, part: &str| {
        let all = node.network.listen_addresses();
        NodeAddress::Multiaddr(all.into_iter().find(|address| address.contains(part)).unwrap())
    };
    one.network.add_peer(&address(&other, "/quic-v1")).unwrap();
    other.network.add_peer(&address(&one, "/tcp/")).unwrap();
    let links = |node: &Node| node.network.peers(PeerClass::Connected).len();
    until("each has a link", || links(&one) > 0 && links(&other) > 0).await;
    let settled = time::Instant::now() + Duration::from_secs(2);
    until("two links are one", || {
        assert!(links(&one) <= 2 && links(&other) <= 2);
        time::Instant::now() >= settled && links(&one) == 1 && links(&other) == 1
    })
    .await;
}
