//! The dialler: one TCP connection, one upgrade request, one result.
//!
//! ```text
//!   address ─▶ TCP ─▶ request ─▶ reply ─▶ checks ─▶ identity ─▶ Dialled
//!                                  └────────┴──────────┴──────▶ DialError ─▶ DialFailure
//! ```
//!
//! # Invariants
//!
//! * One deadline covers everything from the name look-up to the last header.
//! * Of a reply at most [`ReplyRule::max_head_bytes`](gossip::ReplyRule::max_head_bytes) of head and 1,024 bytes
//!   of body are read. Redirects are not followed.
//! * Bytes that follow the head in the same segment belong to the connection and are kept.
//! * Every failed dial is counted by its reason.

mod reply;
mod request;
mod wire;

use std::{io, time::Duration};

use bytes::{Bytes, BytesMut};
use gossip::{
    Identity, NodeAddress, ReplyRule, Security,
    wire::{
        features::Features,
        hello::Hello,
        identity::{self, Challenge, ResponseSeen},
    },
};
use mesh::{DialFailure, LearntHosts};
use net_tcp::frame::{Control, OpCode};
use rand::Rng;
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    time::{self, Instant},
};
use tracing::Instrument;

use crate::{
    config::{self, TargetError},
    context::{Context, Exchange},
    frame::{self, Part, close_payload},
    metrics::DialRefusal,
    socket,
    tls::{self, TlsFailed},
};

pub(crate) use self::wire::Wire;

/// Longest time to send the close frame of a refused connection. Source: wire facts 1.9.
const CLOSE_TIME: Duration = Duration::from_secs(5);

/// The address of a dial, taken apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Target {
    /// For TLS: the name that the certificate must be valid for. `None` for a plain connection.
    server_name: Option<String>,
    /// Host and port; the scheme's default port if the address has none.
    host_port: String,
    /// Host and port as written in the address, for the `Host` header.
    authority: String,
    /// Path of the upgrade request.
    path: String,
    /// The name that the identity challenge is addressed to; logs and peer lists show it too.
    pub(crate) name: String,
    /// The whole address as an operator may write it.
    pub(crate) address: String,
}

impl Target {
    /// Takes `address` apart, or refuses one that this network cannot dial.
    pub(crate) fn new(context: &Context, address: &NodeAddress) -> Result<Self, TargetError> {
        config::check_peer(address)?;
        let multiaddr = || TargetError::Multiaddr { address: address.to_string() };
        let url = address.gossip_url(&context.network).ok_or_else(multiaddr)?;
        let server_name = match address {
            NodeAddress::WebSocket(secure) if secure.security() == Security::Tls => {
                let nameless = || TargetError::ServerName { address: address.to_string() };
                Some(tls::server_name(secure).ok_or_else(nameless)?)
            }
            _ => None,
        };
        Ok(Self {
            server_name,
            host_port: address.host_port().ok_or_else(multiaddr)?,
            authority: url.authority,
            path: url.target,
            name: address.phonebook_entry(),
            address: address.to_string(),
        })
    }
}

/// A connection whose upgrade was accepted and whose reply passed all checks.
#[derive(Debug)]
pub(crate) struct Dialled {
    pub(crate) stream: Wire,
    /// Bytes that were read after the head of the reply.
    pub(crate) early: BytesMut,
    /// The features that the peer announced.
    pub(crate) features: Features,
    /// The peer's verified answer to the identity challenge, if it answered.
    pub(crate) verified: Option<ResponseSeen>,
    /// The challenge with which the peer asks for a proof of weight, if it does.
    pub(crate) priority_challenge: Option<String>,
    /// Time from the request to the reply.
    pub(crate) round_trip: Duration,
}

/// The reason why a dial failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    #[error("no TCP connection")]
    Connect(#[source] runtime::DialError),
    #[error(transparent)]
    Tls(TlsFailed),
    #[error("the connection broke during the handshake")]
    Broken(#[source] io::Error),
    #[error("the handshake took too long")]
    TimedOut,
    #[error("the head of the reply is longer than {max} bytes")]
    LongHead {
        /// The bound, in bytes.
        max: usize,
    },
    #[error("the reply is not HTTP")]
    Malformed,
    #[error("the reply is {status}: {body}")]
    Status {
        status: u16,
        /// The delay that a 429 asked for in `Retry-After`.
        retry_after: Option<Duration>,
        /// Start of the body, with only printable characters.
        body: String,
    },
    #[error("the reply does not accept the upgrade: {0}")]
    NotAccepted(Missing),
    #[error("the peer {0}")]
    Unsupported(Other),
    #[error("it leads to no host of the public Internet")]
    NotPublic,
    #[error("it is this node")]
    Ourselves,
    #[error("the peer answered the identity challenge wrongly")]
    Identity(#[source] identity::IdentityError),
    #[error("another link to {0} stays")]
    Duplicate(Identity),
}

/// The header of an upgrade that the reply lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Missing {
    #[error("its Upgrade header is not `websocket`")]
    Upgrade,
    #[error("its Connection header is not `Upgrade`")]
    Connection,
    #[error("its Sec-WebSocket-Accept does not fit the request")]
    AcceptKey,
}

/// The property of the peer that rules out gossip with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Other {
    #[error("speaks another version of the protocol")]
    Version,
    #[error("did not send its random text")]
    NoRandom,
    #[error("belongs to another network")]
    Network,
}

impl DialError {
    /// The error for a connection that broke during the handshake, whose TLS session may have ended for a reason.
    fn broken(error: io::Error) -> Self {
        match error.downcast::<TlsFailed>() {
            Ok(failed) => Self::Tls(failed),
            Err(error) => Self::Broken(error),
        }
    }

    /// The counter of this error; `None` if the failure lies with this node.
    pub(crate) fn refusal(&self) -> Option<DialRefusal> {
        Some(match self {
            Self::Connect(_) | Self::NotPublic => DialRefusal::Unreachable,
            Self::Tls(TlsFailed::Certificate { .. }) => DialRefusal::Certificate,
            Self::Tls(_) => DialRefusal::Tls,
            Self::Broken(_) => DialRefusal::Broken,
            Self::TimedOut => DialRefusal::TimedOut,
            Self::LongHead { .. } => DialRefusal::LongHead,
            Self::Malformed => DialRefusal::Malformed,
            Self::Status { .. } => DialRefusal::Status,
            Self::NotAccepted(Missing::Upgrade) => DialRefusal::UpgradeHeader,
            Self::NotAccepted(Missing::Connection) => DialRefusal::ConnectionHeader,
            Self::NotAccepted(Missing::AcceptKey) => DialRefusal::AcceptKey,
            Self::Unsupported(Other::Version) => DialRefusal::Version,
            Self::Unsupported(Other::NoRandom) => DialRefusal::NoRandom,
            Self::Unsupported(Other::Network) => DialRefusal::Network,
            Self::Ourselves => DialRefusal::Ourselves,
            Self::Identity(_) => DialRefusal::Identity,
            Self::Duplicate(_) => DialRefusal::Duplicate,
        })
    }

    /// The kind of failure, as the dial schedule distinguishes them.
    pub(crate) fn failure(&self) -> DialFailure {
        match self {
            Self::Connect(_)
            | Self::NotPublic
            | Self::Tls(TlsFailed::Handshake { .. })
            | Self::Broken(_)
            | Self::TimedOut
            | Self::LongHead { .. }
            | Self::Malformed
            | Self::NotAccepted(_) => DialFailure::Unreachable,
            Self::Status { retry_after: Some(delay), .. } => DialFailure::RetryAfter(*delay),
            Self::Status { status: 508, .. } | Self::Ourselves => DialFailure::Ourselves,
            Self::Tls(_) | Self::Status { .. } | Self::Unsupported(_) | Self::Identity(_) => {
                DialFailure::Refused
            }
            Self::Duplicate(identity) => DialFailure::Duplicate(*identity),
        }
    }

    /// The text of the close frame; `None` if no WebSocket was established. Source: wire facts 1.9 and 6.3.
    fn close_text(&self) -> Option<&'static str> {
        match self {
            Self::Unsupported(_) | Self::Ourselves => Some("Unsupported headers"),
            Self::Identity(_) => Some("Invalid identity response"),
            Self::Duplicate(_) => Some("Duplicate connection"),
            _ => None,
        }
    }
}

/// Opens a connection to `target` and completes the handshake.
pub(crate) async fn dial(
    context: &Context,
    target: &Target,
    hosts: LearntHosts,
) -> Result<Dialled, DialError> {
    let deadline = Instant::now() + context.dial_timeout;
    let mut stream = connect(context, (target, hosts), deadline).await?;
    let sent = request::Sent::new(context, target);
    let rule = context.profile.reply_rule;
    let asked = Instant::now();
    let span = tracing::debug_span!("gossip_handshake", transport = "ws", direction = "out");
    let exchange = exchange(&mut stream, &sent, rule, deadline).instrument(span);
    let (reply, early) = match time::timeout_at(deadline, exchange).await {
        Ok(exchanged) => exchanged?,
        Err(_elapsed) => return Err(DialError::TimedOut),
    };
    let round_trip = asked.elapsed();
    reply.check_upgrade(&sent.key, rule)?;
    let checked = reply.check_hello(context).and_then(|theirs| {
        // The version agreed on, under whichever header the peer named it.
        let features = Features::parse(&theirs.features, context.profile.version);
        let verified = verify(context, &theirs, sent.challenge.as_ref())?;
        Ok((features, verified, theirs.priority_challenge))
    });
    match checked {
        Ok((features, verified, priority_challenge)) => {
            Ok(Dialled { stream, early, features, verified, priority_challenge, round_trip })
        }
        Err(error) => {
            abort(context, &mut stream, &error).await;
            Err(error)
        }
    }
}

/// Opens a connection to `target`, over TLS if its address asks for it.
async fn connect(
    context: &Context,
    (target, hosts): (&Target, LearntHosts),
    deadline: Instant,
) -> Result<Wire, DialError> {
    let environment = context.environment();
    let found = environment.look_up(&target.host_port, deadline).await;
    let mut found = found.map_err(DialError::Connect)?;
    found.retain(|address| hosts.allow(address.ip()));
    if found.is_empty() {
        return Err(DialError::NotPublic);
    }
    let connecting = environment.dial_addresses(found, deadline);
    let connecting = connecting.instrument(tracing::debug_span!("tcp_connect"));
    let stream = connecting.await.map_err(DialError::Connect)?;
    socket::tune(&stream);
    socket::tune_for_gossip(&stream);
    let Some(name) = &target.server_name else { return Ok(Wire::Plain(stream)) };
    let handshake = tls::connect(&context.trust, name, stream);
    let handshake = handshake.instrument(tracing::debug_span!("tls_handshake", role = "client"));
    let session = time::timeout_at(deadline, handshake).await.map_err(|_| DialError::TimedOut)?;
    Ok(Wire::Tls(Box::new(session.map_err(DialError::Tls)?)))
}

/// Sends the upgrade request and reads the reply.
async fn exchange(
    stream: &mut Wire,
    sent: &request::Sent,
    rule: ReplyRule,
    deadline: Instant,
) -> Result<(reply::Reply, BytesMut), DialError> {
    stream.write_all(&sent.bytes).await.map_err(DialError::broken)?;
    let (reply, early) = reply::read_head(stream, rule).await?;
    if reply.status == 101 {
        return Ok((reply, early));
    }
    // A refusal may come without a length and without an end, and its body is for the log only. The margin
    // ends this read before the deadline of the whole dial, which would lose the status.
    let patience = deadline - Duration::from_millis(50);
    let body = reply::read_body(stream, early, reply.body_length());
    let body = time::timeout_at(patience, body).await.unwrap_or_default();
    Err(reply.refusal(&body))
}

/// Verifies the peer's answer to the identity challenge, if this node sent one.
fn verify(
    context: &Context,
    theirs: &Hello,
    challenge: Option<&Challenge>,
) -> Result<Option<ResponseSeen>, DialError> {
    let (Some(header), Some(challenge), Exchange::On { .. }) =
        (&theirs.identity_challenge, challenge, &context.exchange)
    else {
        return Ok(None);
    };
    identity::read_response_header(header, challenge).map(Some).map_err(DialError::Identity)
}

/// Closes an upgraded connection that will not become a peer.
pub(crate) async fn abort(
    context: &Context,
    stream: &mut (impl AsyncWrite + Unpin),
    error: &DialError,
) {
    let Some(text) = error.close_text() else { return };
    let mut frame = Vec::new();
    let payload: Bytes = close_payload(1002, text);
    let kind = (Part::Last, OpCode::Control(Control::Close));
    let mask = context.environment().random().random();
    frame::write_frame(&mut frame, Some(mask), kind, &payload);
    let close = async {
        if stream.write_all(&frame).await.is_ok() {
            // Shutdown fails only if the peer has closed already, which ends the connection just the same.
            let _ = stream.shutdown().await;
        }
    };
    // The dial has failed in any case; the close frame is a courtesy under a deadline.
    let _ = time::timeout(CLOSE_TIME, close).await;
}
