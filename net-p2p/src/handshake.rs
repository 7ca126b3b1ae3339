//! The first messages of a gossip stream, before any message of gossip.
//!
//! ```text
//!   dialer of the connection ── headers ──▶ listener        whoever opened the stream
//!                            ◀── headers ──
//!   legacy:                  ── one byte ──▶                 and nothing back
//! ```
//!
//! # Invariants
//!
//! * Who writes first follows from who dialled the connection. The opener of the stream may have to
//!   read first, so a stream comes here only with its negotiation complete.
//! * A peer of another version gets no answer; one of another network gets ours, so that it can say why.

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

/// What the dialer of a legacy stream writes. Source: wire facts 8.3.
const LEGACY_BYTE: u8 = b'1';

/// Name of the header, after the prefix, that says how many lanes a node can keep apart.
const LANES: &str = "Lanes";

/// Name of the header, after the prefix, with a number for the dial that led to the connection.
const DIAL: &str = "Dial";

/// Name of the header, after the prefix, with a random number for the link.
const LINK: &str = "Link";

/// Which handshake a stream protocol has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Headers both ways.
    Headers,
    /// One byte from the dialer.
    Legacy,
}

/// Over how many streams a link runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LaneCount {
    /// One for both lanes.
    One,
    /// One for each lane.
    PerLane,
}

/// What this end says.
#[derive(Clone, Debug)]
pub(crate) struct Ours {
    pub(crate) profile: &'static NetworkProfile,
    pub(crate) network: NetworkId,
    /// Differs from connection to connection, and from run to run.
    pub(crate) dial: u64,
    /// Differs from link to link.
    pub(crate) link: u64,
    /// What this end can do on this link.
    pub(crate) lanes: LaneCount,
}

/// What both ends know after the handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Met {
    /// What both ends can do.
    pub(crate) lanes: LaneCount,
    /// Names the dial, where the dialer announced it. A node dials a peer only when it has no connection
    /// to it, so of two dials the older one is dead, whether anybody has noticed or not.
    pub(crate) session: Option<u64>,
    /// The same at both ends, and different from link to link where links are numbered.
    pub(crate) tie: [u8; 32],
}

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum HandshakeError {
    /// The stream broke, or ended early.
    #[error("the stream broke during the handshake")]
    Io(#[from] io::Error),
    /// What the peer sent is no headers.
    #[error("the handshake cannot be read")]
    Malformed(#[from] MetainfoError),
    /// The peer speaks another version.
    #[error("no version in common")]
    Version(#[from] VersionMismatch),
    /// The peer belongs to another network.
    #[error("the peer belongs to the network {theirs:?}")]
    OtherNetwork {
        /// The name it announced, made printable.
        theirs: String,
    },
}

/// Exchanges handshakes on a new stream. `direction` is that of the connection.
///
/// # Cancel safety
///
/// None: the stream must then be dropped, which resets it.
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
            stream.read_exact(&mut [0]).await?; // any value will do
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
    const LEGACY: Self = Self { lanes: LaneCount::One, session: None, tie: [0; 32] };
}

impl Ours {
    fn has_extras(&self) -> bool {
        Conventions::of(self.profile).extras == Extras::DialLinkLanes
    }

    /// The whole message, length included.
    fn message(&self) -> Result<Vec<u8>, MetainfoError> {
        let hello = Hello {
            genesis: self.network.as_str().to_owned(),
            features: Features::ours().to_header(),
            version: self.profile.version.to_owned(),
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
        Met { lanes, session, tie }
    }
}

/// Reads the peer's message and checks its version. Gives the headers and the message as it came.
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
        Ours { profile, network, dial: 100 + link, link, lanes: LaneCount::PerLane }
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
    async fn two_of_one_network_agree_on_everything_the_ledger_needs() {
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
    async fn the_legacy_listener_takes_any_byte_and_says_nothing() {
        let (mut us, mut them) = pipe();
        them.write_all(b"x").await.unwrap();
        let ours = ours(&NetworkProfile::ALGORAND, "net", 1);
        let met = exchange(&mut us, Form::Legacy, Direction::Inbound, &ours).await.unwrap();
        assert_eq!(met, Met::LEGACY);
        drop(us);
        assert_eq!(them.read(&mut [0]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_dialer_that_makes_no_sense_gets_no_answer() {
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
