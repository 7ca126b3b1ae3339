//! UDP ports that QUIC and WebRTC share: one socket, whose datagrams go to the transport that their first byte names.
//!
//! ```text
//!   socket ──▶ task ─ 64 and more ───────────▶ queue ──▶ QUIC endpoint
//!                  ├─ 0 to 3, 20 to 63 ──────▶ queue ──▶ port of WebRTC
//!                  └─ everything else is dropped and counted
//! ```
//!
//! Source: RFC 9443, 2. A QUIC endpoint on such a port does not offer to leave the fixed bit of QUIC out (RFC 9287), because
//! its datagrams would begin with lower bytes too.
//!
//! # Invariants
//!
//! * A port is shared only if the node was told to listen on it for both.
//! * Datagrams that wait for a transport take at most [`MAX_WAITING`] of [`MAX_DATAGRAM_BYTES`] each. Those beyond are lost and
//!   counted, and delay no others.
//! * The socket is closed once both transports have left it.

use std::{
    collections::{BTreeSet, HashMap},
    future::poll_fn,
    io::{self, IoSliceMut},
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use quinn::{AsyncUdpSocket, Runtime as _, TokioRuntime, udp::RecvMeta};
use runtime::Environment;
use tokio::sync::mpsc;

use crate::{
    connections::ConnectionTasks,
    metrics::{P2pEvent, P2pMetrics},
    udp::Datagram,
};

/// Longest datagram, in bytes; longer ones are dropped. Source: larger than any MTU on the Internet.
const MAX_DATAGRAM_BYTES: usize = 2_048;

/// Datagrams that wait for a transport. Chosen: as many as a connection over WebRTC lets wait, 1 MiB at most.
const MAX_WAITING: usize = 512;

/// Reads of the system in one turn. Chosen: few, as each may bring many datagrams.
const READS: usize = 8;

/// A datagram for QUIC, with what the system says of it.
pub(crate) struct Received {
    pub(crate) meta: RecvMeta,
    pub(crate) bytes: Vec<u8>,
}

/// The end of a port for one transport: its socket, for sending, and the datagrams that come.
pub(crate) type End<T> = (std::net::UdpSocket, mpsc::Receiver<T>);

/// The ends of a port that nobody has taken yet.
#[derive(Default)]
struct Ends {
    quic: Option<End<Received>>,
    webrtc: Option<End<Datagram>>,
}

/// The transport for a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Quic,
    WebRtc,
}

fn kind_of(datagram: &[u8]) -> Option<Kind> {
    match datagram.first()? {
        0..=3 | 20..=63 => Some(Kind::WebRtc),
        64.. => Some(Kind::Quic),
        _ => None,
    }
}

/// The shared ports of a node. Clones share them.
#[derive(Clone)]
pub(crate) struct UdpPorts {
    wanted: Arc<BTreeSet<SocketAddr>>,
    ends: Arc<Mutex<HashMap<SocketAddr, Ends>>>,
    environment: Environment,
    tasks: ConnectionTasks,
    metrics: P2pMetrics,
}

impl UdpPorts {
    /// The ports of a node that shares those at `wanted`. Its sockets come from `environment`.
    pub(crate) fn new(
        wanted: BTreeSet<SocketAddr>,
        environment: Environment,
        (tasks, metrics): (ConnectionTasks, P2pMetrics),
    ) -> Self {
        Self { wanted: Arc::new(wanted), ends: Arc::default(), environment, tasks, metrics }
    }

    /// Takes the end of QUIC; `None` if the address is not shared.
    pub(crate) fn quic(&self, at: SocketAddr) -> Option<io::Result<End<Received>>> {
        self.take(at, |ends| ends.quic.take())
    }

    /// Takes the end of WebRTC; `None` if the address is not shared.
    pub(crate) fn webrtc(&self, at: SocketAddr) -> Option<io::Result<End<Datagram>>> {
        self.take(at, |ends| ends.webrtc.take())
    }

    fn take<T>(
        &self,
        at: SocketAddr,
        take: impl Fn(&mut Ends) -> Option<T>,
    ) -> Option<io::Result<T>> {
        self.wanted.contains(&at).then(|| {
            let mut all = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
            let ends = all.entry(at).or_default();
            if let Some(end) = take(ends) {
                return Ok(end);
            }
            // A port whose end is in use is in use.
            *ends = self.open(at)?;
            take(ends).ok_or_else(|| io::ErrorKind::AddrInUse.into())
        })
    }

    fn open(&self, at: SocketAddr) -> io::Result<Ends> {
        let socket = self.environment.bind_udp(at)?;
        let (for_quic, for_webrtc) = (socket.try_clone()?, socket.try_clone()?);
        let socket = TokioRuntime.wrap_udp_socket(socket)?;
        let (to_quic, quic) = mpsc::channel(MAX_WAITING);
        let (to_webrtc, webrtc) = mpsc::channel(MAX_WAITING);
        let reader = Reader { socket, to_quic, to_webrtc, metrics: self.metrics.clone() };
        self.tasks.start("udp port", Box::pin(reader.run()));
        Ok(Ends { quic: Some((for_quic, quic)), webrtc: Some((for_webrtc, webrtc)) })
    }
}

/// The one reader of a socket.
struct Reader {
    socket: Arc<dyn AsyncUdpSocket>,
    to_quic: mpsc::Sender<Received>,
    to_webrtc: mpsc::Sender<Datagram>,
    metrics: P2pMetrics,
}

impl Reader {
    /// Reads until both transports have left.
    async fn run(self) {
        let left = async {
            self.to_quic.closed().await;
            self.to_webrtc.closed().await;
        };
        tokio::select! {
            () = left => {}
            () = self.read() => {}
        }
    }

    /// Reads until the socket fails.
    async fn read(&self) {
        let size = MAX_DATAGRAM_BYTES * self.socket.max_receive_segments();
        let mut room = vec![0; size * READS];
        let mut metas = [RecvMeta::default(); READS];
        loop {
            let read = {
                let mut buffers: Vec<_> = room.chunks_mut(size).map(IoSliceMut::new).collect();
                poll_fn(|context| self.socket.poll_recv(context, &mut buffers, &mut metas)).await
            };
            let Ok(read) = read else { return };
            for (meta, bytes) in metas.iter().zip(room.chunks(size)).take(read) {
                let bytes = bytes.get(..meta.len).unwrap_or_default();
                // The system may put datagrams of one sender together.
                for datagram in bytes.chunks(meta.stride.max(1)) {
                    self.pass_on(*meta, datagram);
                }
            }
        }
    }

    fn pass_on(&self, meta: RecvMeta, datagram: &[u8]) {
        let kind = kind_of(datagram).filter(|_| datagram.len() <= MAX_DATAGRAM_BYTES);
        // A datagram is copied once it has its place, so that a flood of those without one costs no memory.
        let copied = || datagram.to_vec();
        let lost = match kind {
            Some(Kind::Quic) => {
                let meta = RecvMeta { len: datagram.len(), stride: datagram.len(), ..meta };
                let place = self.to_quic.try_reserve();
                let sent = place.map(|place| place.send(Received { meta, bytes: copied() }));
                sent.is_err().then_some(P2pEvent::QuicDropped)
            }
            Some(Kind::WebRtc) => {
                let place = self.to_webrtc.try_reserve();
                let sent =
                    place.map(|place| place.send(Datagram { from: meta.addr, bytes: copied() }));
                sent.is_err().then_some(P2pEvent::WebRtcDropped)
            }
            None => Some(P2pEvent::WebRtcStray),
        };
        if let Some(event) = lost {
            self.metrics.note(event);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Source: RFC 9443, 2, figure 2.
    #[test]
    fn each_first_byte_belongs_to_one_transport_or_none() {
        let firsts = |kind| (0..=255_u8).filter(move |byte| kind_of(&[*byte]) == kind);
        assert!(firsts(Some(Kind::WebRtc)).eq((0..=3).chain(20..=63)));
        assert!(firsts(Some(Kind::Quic)).eq(64..=255));
        assert!(firsts(None).eq(4..=19));
        assert_eq!(kind_of(&[]), None);
    }
}
