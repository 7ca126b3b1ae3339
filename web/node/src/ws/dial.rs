//! One dial: a WebSocket with the hello in its query, the answer as its first message, and the check of that.
//!
//! # Invariants
//!
//! * One deadline covers everything.
//! * The hello of the peer is bounded, and judged by the rules of the native dialler.

use std::time::Duration;

use gossip::{
    DisconnectReason, HelloPlace, Identity, NodeAddress,
    wire::{
        features::Features,
        hello::{Header, Hello, Own, Unfit},
        hello_query::{self, QueryHello},
        identity::{self, Challenge, ResponseSeen},
    },
};
use mesh::DialFailure;
use rand::Rng;
use runtime::time::{self, Instant};

use super::{
    page::Context,
    socket::{Arrived, Socket},
};

/// Longest time of a dial. Source: that of the plain client.
const DIAL_TIME: Duration = Duration::from_secs(10);

/// A socket on which the peer has introduced itself.
#[derive(Debug)]
pub(super) struct Dialled {
    pub(super) socket: Socket,
    /// The features that the peer announced.
    pub(super) features: Features,
    /// The peer's verified answer to the identity challenge, if it answered.
    pub(super) verified: Option<ResponseSeen>,
    /// Time from the dial to the hello.
    pub(super) round_trip: Duration,
}

/// The reason why a dial failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    #[error("the address is not for WebSocket")]
    Address,
    #[error("the host refuses the address: {0}")]
    Host(String),
    #[error(
        "no connection: the node does not answer, or does not let in pages of this origin (a browser does not tell which)"
    )]
    Unreachable,
    #[error("the handshake took too long")]
    TimedOut,
    #[error("the node sent no hello")]
    NoHello,
    #[error("the hello cannot be read")]
    Query(#[source] hello_query::QueryError),
    #[error(transparent)]
    Unfit(Unfit),
    #[error("the peer answered the identity challenge wrongly")]
    Identity(#[source] identity::IdentityError),
    #[error("another link to {0} stays")]
    Duplicate(Identity),
}

impl DialError {
    /// The kind of failure, as the dial schedule distinguishes them.
    pub(super) fn failure(&self) -> DialFailure {
        match self {
            Self::Unfit(Unfit::Ourselves) => DialFailure::Ourselves,
            Self::Duplicate(identity) => DialFailure::Duplicate(*identity),
            Self::Unfit(_) | Self::Identity(_) | Self::Query(_) => DialFailure::Refused,
            _ => DialFailure::Unreachable,
        }
    }
}

/// Opens a socket to `address` and completes the handshake.
pub(super) async fn dial(context: &Context, address: &NodeAddress) -> Result<Dialled, DialError> {
    let HelloPlace::HeadersOrQuery { sub_protocol } = context.profile.hello else {
        return Err(DialError::Address);
    };
    let url = address.gossip_url(&context.network).ok_or(DialError::Address)?;
    let mut random = context.broadcaster.environment().random();
    let challenge = context.key.as_ref().map(|_| Challenge(random.random()));
    let name = address.phonebook_entry();
    let introduced = context.key.as_ref().zip(challenge);
    let hello = Hello {
        identity_challenge: introduced
            .map(|(key, challenge)| identity::request_header(key, &name, challenge)),
        ..context.hello.clone()
    };
    let joint = if url.target.contains('?') { '&' } else { '?' };
    let url = format!("{url}{joint}{}", hello_query::encode(&hello, context.profile));
    let asked = Instant::now();
    let socket = Socket::open(&context.constructor, &url, sub_protocol);
    let socket = socket.map_err(|error| DialError::Host(error_text(&error)))?;
    let first = time::timeout(DIAL_TIME, socket.next()).await;
    let text = match first.map_err(|_elapsed| DialError::TimedOut)? {
        Ok(Arrived::Text(text)) => text,
        Ok(Arrived::Binary(_)) => return Err(DialError::NoHello),
        Err(DisconnectReason::RemoteClosed) => return Err(DialError::NoHello),
        Err(_) => return Err(DialError::Unreachable),
    };
    let round_trip = asked.elapsed();
    let theirs = read_hello(context, &text)?;
    // The version agreed on, under whichever name the peer told it.
    let features = Features::parse(&theirs.features, context.profile.version);
    let verified = match (&theirs.identity_challenge, challenge) {
        (Some(header), Some(challenge)) => {
            let seen = identity::read_response_header(header, &challenge);
            Some(seen.map_err(DialError::Identity)?)
        }
        _ => None,
    };
    Ok(Dialled { socket, features, verified, round_trip })
}

/// Reads the hello of the peer, and checks version, random text and network.
fn read_hello(context: &Context, text: &str) -> Result<Hello, DialError> {
    let read = QueryHello::read(text).map_err(DialError::Query)?;
    let theirs = Hello::read(|header| read.get(header));
    let accepted = read.get(Header::AcceptVersion);
    let accepted = accepted.and_then(|value| std::str::from_utf8(value).ok());
    let own = Own {
        version: context.profile.version,
        node_random: context.hello.node_random.as_deref().unwrap_or_default(),
        network: context.network.as_str(),
    };
    theirs.check_answer(accepted.into_iter(), own).map_err(DialError::Unfit)?;
    Ok(theirs)
}

fn error_text(error: &wasm_bindgen::JsValue) -> String {
    let error = js_sys::Error::from(error.clone());
    String::from(error.message())
}
