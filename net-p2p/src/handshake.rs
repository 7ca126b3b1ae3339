//! The handshake of a gossip stream.
//!
//! ```text
//!   dialer of the connection ── headers ──▶ listener        (either end may have opened the stream)
//!                            ◀── headers ──
//!   legacy:                  ── one byte ──▶                 (no answer)
//! ```
//!
//! # Invariants
//!
//! * The dialer of the connection writes first. The opener of the stream may therefore have to read first, so
//!   a stream comes here only after its protocol negotiation has completed in both directions.
//! * A peer of another version gets no answer. A peer of another network gets this node's headers, so that it
//!   can log the reason.

use std::io;

use blake2::{Blake2b, Digest, digest::consts::U32};
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use gossip::{
    Direction, NetworkId, NetworkProfile,
    wire::{
        features::Features,
        hello::{Hello, VersionMismatch},
        metainfo::{self, HEADER_BYTES, Headers, MetainfoError},
    },
};

use crate::conventions::{Conventions, Extras, GenesisRule};

/// The byte that the dialer of a legacy stream writes. Source: wire facts 8.3.
const LEGACY_BYTE: u8 = b'1';

/// Name, after the prefix, of the header with the number of lanes that a node can keep apart.
const LANES: &str = "Lanes";

/// Name, after the prefix, of the header with the number of the dial that led to the connection.
const DIAL: &str = "Dial";

/// Name, after the prefix, of the header with the random number of the link.
const LINK: &str = "Link";

/// The form of handshake that a stream protocol uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Headers in both directions.
    Headers,
    /// One byte from the dialer.
    Legacy,
}

/// The number of streams of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LaneCount {
    /// One stream for both lanes.
    One,
    /// One stream for each lane.
    PerLane,
}

/// This end's part of a handshake.
#[derive(Clone, Debug)]
pub(crate) struct Ours {
    pub(crate) profile: &'static NetworkProfile,
    pub(crate) network: NetworkId,
    /// The features that this end announces.
    pub(crate) features: Features,
    /// Random number of the dial: differs between connections, and between runs of the process.
    pub(crate) dial: u64,
    /// Random number of the link.
    pub(crate) link: u64,
    /// Random bytes of the run of the process.
    pub(crate) node_random: [u8; 10],
    /// The number of streams that this end supports on this link.
    pub(crate) lanes: LaneCount,
}

/// The result of a handshake, known to both ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Met {
    /// The number of streams that both ends support.
    pub(crate) lanes: LaneCount,
    /// The features that the peer announced. The only part that each end knows of the other.
    pub(crate) features: Features,
    /// The number of the dial, if the dialer announced one. A node dials a peer only when it has no connection
    /// to it, so of two dials the older one is dead, even if nobody has noticed yet.
    pub(crate) session: Option<u64>,
    /// The text of the peer's run, if it announced one.
    pub(crate) node_random: Option<String>,
    /// Breaks ties between links. Equal at both ends; differs between links if both ends number them.
    pub(crate) tie: [u8; 32],
}

/// The reason why a handshake failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum HandshakeError {
    /// The stream broke, or ended early.
    #[error("the stream broke during the handshake")]
    Io(#[from] io::Error),
    /// The peer sent something other than valid headers.
    #[error("the handshake cannot be read")]
    Malformed(#[from] MetainfoError),
    /// The peer speaks another version.
    #[error("no version in common")]
    Version(#[from] VersionMismatch),
    /// The peer belongs to another network, and this network compares the names.
    #[error("the peer belongs to the network {theirs:?}")]
    OtherNetwork {
        /// The name that the peer announced, with only printable characters.
        theirs: String,
    },
}

/// Performs the handshake on a new stream. `direction` is that of the connection.
///
/// # Cancel safety
///
/// Not safe: after a dropped future the stream must be dropped too, which resets it.
pub(crate) async fn exchange<S>(
    stream: &mut S,
    form: Form,
    direction: Direction,
    ours: &Ours,
) -> Result<Met, HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    match (form, direction) {
        (Form::Legacy, Direction::Outbound) => {
            stream.write_all(&[LEGACY_BYTE]).await?;
            stream.flush().await?;
            Ok(Met::LEGACY)
        }
        (Form::Legacy, Direction::Inbound) => {
            stream.read_exact(&mut [0]).await?; // Existing nodes accept any value.
            Ok(Met::LEGACY)
        }
        (Form::Headers, Direction::Outbound) => {
            let sent = ours.message()?;
            stream.write_all(&sent).await?;
            stream.flush().await?;
            let (headers, heard) = read(stream, ours.profile).await?;
            ours.check_network(&headers)?;
            let session = ours.has_extras().then_some(ours.dial);
            Ok(ours.met(&headers, session, tie(&sent, &heard)))
        }
        (Form::Headers, Direction::Inbound) => {
            let (headers, heard) = read(stream, ours.profile).await?;
            let sent = ours.message()?;
            stream.write_all(&sent).await?;
            stream.flush().await?;
            ours.check_network(&headers)?;
            let dial = ours.first(&headers, DIAL);
            let session = dial.and_then(|dial| u64::from_str_radix(dial, 16).ok());
            Ok(ours.met(&headers, session, tie(&heard, &sent)))
        }
    }
}

impl Met {
    const LEGACY: Self = Self {
        lanes: LaneCount::One,
        features: Features::NONE,
        session: None,
        node_random: None,
        tie: [0; 32],
    };
}

impl Ours {
    fn has_extras(&self) -> bool {
        Conventions::of(self.profile).extras == Extras::DialLinkLanes
    }

    /// Encodes the message, its length prefix included.
    fn message(&self) -> Result<Vec<u8>, MetainfoError> {
        let hello = Hello {
            genesis: self.network.as_str().to_owned(),
            features: self.features.to_header(),
            version: self.profile.version.to_owned(),
            // Existing nodes leave it out over libp2p.
            node_random: self
                .has_extras()
                .then(|| gossip::wire::hello::node_random(self.node_random)),
            ..Hello::default()
        };
        let mut headers = metainfo::from_hello(&hello, self.profile);
        if self.has_extras() {
            let mut add = |name, value: String| headers.push((self.extra(name), vec![value]));
            add(DIAL, format!("{:016x}", self.dial));
            add(LINK, format!("{:016x}", self.link));
            if self.lanes == LaneCount::PerLane {
                add(LANES, "2".to_owned());
            }
        }
        metainfo::encode(&headers)
    }

    fn extra(&self, name: &str) -> String {
        format!("{}{name}", self.profile.header_prefix)
    }

    fn first<'a>(&self, headers: &'a Headers, name: &str) -> Option<&'a str> {
        headers.get(&self.extra(name))?.first().map(String::as_str)
    }

    fn check_network(&self, headers: &Headers) -> Result<(), HandshakeError> {
        let theirs = metainfo::to_hello(headers, self.profile).genesis;
        if Conventions::of(self.profile).genesis == GenesisRule::Ignored
            || theirs == self.network.as_str()
        {
            return Ok(());
        }
        let shown: String = theirs.chars().take(64).collect();
        let theirs = gossip::wire::hello::printable(shown.as_bytes());
        Err(HandshakeError::OtherNetwork { theirs })
    }

    fn met(&self, headers: &Headers, session: Option<u64>, tie: [u8; 32]) -> Met {
        let both = self.lanes == LaneCount::PerLane && self.first(headers, LANES) == Some("2");
        let lanes = if both { LaneCount::PerLane } else { LaneCount::One };
        let theirs = metainfo::to_hello(headers, self.profile);
        // The version was found equal to this end's, under whichever header.
        let features = Features::parse(&theirs.features, self.profile.version);
        let node_random = theirs.node_random.filter(|_| self.has_extras());
        Met { lanes, features, session, node_random, tie }
    }
}

/// Reads the peer's message and checks its version. Returns the headers, and the message as received.
async fn read<S: AsyncRead + Unpin>(
    stream: &mut S,
    profile: &NetworkProfile,
) -> Result<(Headers, Vec<u8>), HandshakeError> {
    let mut header = [0; HEADER_BYTES];
    stream.read_exact(&mut header).await?;
    let mut message = vec![0; HEADER_BYTES + metainfo::body_len(header)?];
    let (length, body) = message.split_at_mut(HEADER_BYTES);
    length.copy_from_slice(&header);
    stream.read_exact(body).await?;
    let headers = metainfo::decode_body(body)?;
    metainfo::check_version(&headers, profile)?;
    Ok((headers, message))
}

fn tie(dialer: &[u8], listener: &[u8]) -> [u8; 32] {
    Blake2b::<U32>::new().chain_update(dialer).chain_update(listener).finalize().into()
}

#[cfg(test)]
mod tests {
    use tokio::io::DuplexStream;
    use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

    use super::*;

    fn ours(profile: &'static NetworkProfile, network: &str, link: u64) -> Ours {
        let network = NetworkId::new(network).unwrap();
        let features = Features::announcing(profile.votes);
        let (dial, node_random) = (100 + link, [7; 10]);
        Ours { profile, network, features, dial, link, node_random, lanes: LaneCount::PerLane }
    }

    fn pipe() -> (Compat<DuplexStream>, Compat<DuplexStream>) {
        let (a, b) = tokio::io::duplex(1 << 17);
        (a.compat(), b.compat())
    }

    type Outcome = Result<Met, HandshakeError>;

    async fn meet(form: Form, dialer: &Ours, listener: &Ours) -> (Outcome, Outcome) {
        let (mut a, mut b) = pipe();
        tokio::join!(
            exchange(&mut a, form, Direction::Outbound, dialer),
            exchange(&mut b, form, Direction::Inbound, listener),
        )
    }

    #[tokio::test]
    async fn two_nodes_of_one_network_agree_on_everything_the_ledger_needs() {
        let profile = &NetworkProfile::TANDEM;
        let (one, other) = (ours(profile, "net", 1), ours(profile, "net", 2));
        let (dialer, listener) = meet(Form::Headers, &one, &other).await;
        let (dialer, listener) = (dialer.unwrap(), listener.unwrap());
        assert_eq!(dialer, listener);
        assert_eq!(dialer.lanes, LaneCount::PerLane);
        assert_eq!(dialer.session, Some(101));

        let again = Ours { link: 7, ..one };
        let (dialer_again, _) = meet(Form::Headers, &again, &other).await;
        let dialer_again = dialer_again.unwrap();
        assert_ne!(dialer_again.tie, dialer.tie, "another link");
        assert_eq!(dialer_again.session, dialer.session, "of the same dial");
    }

    #[tokio::test]
    async fn lanes_are_kept_apart_only_if_both_can() {
        let profile = &NetworkProfile::TANDEM;
        let one = Ours { lanes: LaneCount::One, ..ours(profile, "net", 1) };
        let (dialer, listener) = meet(Form::Headers, &one, &ours(profile, "net", 2)).await;
        assert_eq!(
            (dialer.unwrap().lanes, listener.unwrap().lanes),
            (LaneCount::One, LaneCount::One)
        );
    }

    #[tokio::test]
    async fn another_network_is_refused_at_both_ends_where_networks_are_compared() {
        let profile = &NetworkProfile::TANDEM;
        let (dialer, listener) =
            meet(Form::Headers, &ours(profile, "a", 1), &ours(profile, "b", 2)).await;
        let theirs = |outcome: Outcome| match outcome.unwrap_err() {
            HandshakeError::OtherNetwork { theirs } => theirs,
            other => panic!("{other}"),
        };
        assert_eq!((theirs(dialer), theirs(listener)), ("b".to_owned(), "a".to_owned()));

        let profile = &NetworkProfile::ALGORAND;
        let (dialer, listener) =
            meet(Form::Headers, &ours(profile, "a", 1), &ours(profile, "b", 2)).await;
        assert!(dialer.is_ok() && listener.is_ok());
    }

    #[tokio::test]
    async fn existing_nodes_get_the_six_headers_they_know() {
        let message = ours(&NetworkProfile::ALGORAND, "test-v1", 1).message().unwrap();
        let headers = metainfo::decode_body(&message[2..]).unwrap();
        let names: Vec<&str> = headers.keys().map(String::as_str).collect();
        let known =
            ["Accept-Version", "Genesis", "Instancename", "Peer-Features", "Telid", "Version"];
        assert_eq!(names, known.map(|name| format!("X-Algorand-{name}")));
    }

    #[tokio::test]
    async fn the_legacy_listener_accepts_any_byte_and_sends_none() {
        let (mut us, mut them) = pipe();
        them.write_all(b"x").await.unwrap();
        let ours = ours(&NetworkProfile::ALGORAND, "net", 1);
        let met = exchange(&mut us, Form::Legacy, Direction::Inbound, &ours).await.unwrap();
        assert_eq!(met, Met::LEGACY);
        drop(us);
        assert_eq!(them.read(&mut [0]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_malformed_handshake_gets_no_answer() {
        let ours = ours(&NetworkProfile::ALGORAND, "net", 1);
        for bytes in [&b"\0\x03\x99\x01\x02"[..], b"\0\0", b"\0\x01\x80", b"\0"] {
            let (mut us, mut them) = pipe();
            them.write_all(bytes).await.unwrap();
            them.close().await.unwrap();
            exchange(&mut us, Form::Headers, Direction::Inbound, &ours).await.unwrap_err();
            drop(us);
            assert_eq!(them.read(&mut [0]).await.unwrap(), 0, "{bytes:?}");
        }
    }
}
