//! The transports of a network that is measured.

use clap::ValueEnum;

/// A transport for gossip.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Transport {
    /// WebSocket.
    Ws,
    /// A gossip stream of libp2p: TCP, Noise, Yamux.
    P2p,
    /// A gossip stream of libp2p over QUIC.
    Quic,
}

impl Transport {
    const ALL: [Self; 3] = [Self::Ws, Self::P2p, Self::Quic];

    /// The name in the rows.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ws => "ws",
            Self::P2p => "p2p",
            Self::Quic => "quic",
        }
    }

    /// The transports in `asked`; all if it is empty.
    pub(crate) fn chosen(asked: &[Self]) -> Vec<Self> {
        if asked.is_empty() { Self::ALL.to_vec() } else { asked.to_vec() }
    }
}
