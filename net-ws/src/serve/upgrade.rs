//! The checks that an upgrade request has to pass, and the answer to each refusal.
//!
//! # Invariants
//!
//! * The checks are in the order of existing nodes. Source: wire facts 1.6, rows 7 to 16.
//! * A place for a peer is taken before the request costs work, and given back with every refusal.
//! * Every refusal is counted, by reason.

use std::{
    borrow::Cow,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use gossip::{
    HelloPlace, Identity, NetworkProfile, NodeAddress, Security,
    http::{Caller, HttpBody, HttpResponse},
    wire::{
        features::Features,
        hello::{self, Header, Hello},
        hello_query::{self, QueryHello},
        identity::{self, Challenge, Introduction, ListenerIdentity},
        priority,
    },
};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use mesh::{Pass, PeerPlace};
use net_http::serve::{Action, Pipelined, RequestHead};
use net_tcp::{
    origins::{is_same_host, origin_of},
    websocket::request::{self as websocket, NoUpgrade},
};
use rand::Rng;
use tokio::time::Instant;
use tracing::field::Empty;

use super::{handed::Taken, reply};
use crate::{
    context::{Answers, Context, Exchange},
    metrics::UpgradeRefusal,
};

/// A peer whose upgrade request was accepted.
pub(super) struct Accepted {
    pub(super) features: Features,
    pub(super) exchange: ListenerIdentity,
    pub(super) session: u64,
    /// The challenge that the answer carries, if this node ranks its peers.
    pub(super) priority_challenge: Option<String>,
    pub(super) place: PeerPlace,
    /// The address at which the peer listens, as it announces it.
    pub(super) listens: Option<NodeAddress>,
    /// The answer for a page, which cannot read headers.
    pub(super) told: Option<String>,
    /// The client that sent the request.
    pub(super) caller: Caller,
}

/// Answers a request for gossip in the network called `genesis`.
pub(super) fn decide(
    context: &Arc<Context>,
    request: &RequestHead<'_>,
    genesis: &[u8],
    pass: &Pass,
) -> Action<Taken<Box<Accepted>>> {
    let from = &*request.caller.address;
    let span = tracing::debug_span!(
        "gossip_handshake",
        transport = "ws",
        direction = "in",
        from,
        error = Empty,
        otel.status_code = Empty,
    );
    match span.in_scope(|| accept(context, request, genesis, pass)) {
        Ok((response, accepted)) => Action::Upgrade(response, Taken::Gossip(Box::new(accepted))),
        Err(refusal) => {
            span.record("error", refusal.why.label()).record("otel.status_code", "ERROR");
            tracing::debug!(reason = refusal.why.label(), "upgrade refused");
            context.metrics.note_upgrade(refusal.why);
            match refusal.said {
                Answer::Nothing => Action::Close,
                Answer::NoUpgrade(status) => Action::Answer(reply::no_upgrade(status)),
                Answer::Status(status) => Action::Answer(reply::empty(status)),
                Answer::Words(status, words) => Action::Answer(reply::refused(status, &words)),
            }
        }
    }
}

fn accept(
    context: &Arc<Context>,
    request: &RequestHead<'_>,
    genesis: &[u8],
    pass: &Pass,
) -> Result<(HttpResponse, Accepted), Refusal> {
    let now = Instant::now().into_std();
    // No identity is passed: the peer proves one later, over a channel that proves nothing itself (see
    // `gossip::Identity`).
    let place = pass.admit_unproved(|| claimed(context, request), now).map_err(turned_away)?;
    let said = Said::by(request, context.profile)?;
    let (theirs, exchange, answer) = introduce(context, &said, genesis)?;
    let key = websocket_key(context, request, &said)?;
    if let (HelloPlace::HeadersOrQuery { .. }, Some(origin)) =
        (context.profile.hello, origin_of(request.headers))
    {
        place.is_page_of(&origin).map_err(turned_away)?;
    }
    let ip = request.caller.ip;
    // A page listens nowhere, whatever it says.
    let location = theirs.location.filter(|_| matches!(said, Said::InHeaders(_)));
    let listens = ip.zip(location).and_then(|(ip, location)| listens(ip, &location));
    let claimed = match &exchange {
        ListenerIdentity::Challenged { key, .. } => Some(*key),
        _ => None,
    };
    pass.announces(claimed, listens.as_ref(), now).map_err(turned_away)?;
    if request.pipelined == Pipelined::Something {
        return Err(Refusal::new(UpgradeRefusal::Pipelined, Answer::Nothing));
    }
    // The version agreed on, under whichever header the peer named it.
    let features = Features::parse(&theirs.features, context.profile.version);
    let mut response = Response::new(HttpBody::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let draw = || priority::challenge(context.environment().random().random());
    let priority_challenge = context.priority.as_ref().map(|_| draw());
    let ours = Hello {
        identity_challenge: answer,
        priority_challenge: priority_challenge.clone(),
        ..context.hello.clone()
    };
    *response.headers_mut() = answer_headers(context, (&key, request.headers), &ours);
    let told = match said {
        Said::InHeaders(_) => None,
        Said::InQuery(_) => Some(hello_query::encode(&ours, context.profile)),
    };
    let session = context.session(theirs.node_random.as_deref().unwrap_or_default());
    let caller = request.caller.clone();
    let accepted =
        Accepted { features, exchange, session, priority_challenge, place, listens, told, caller };
    Ok((response, accepted))
}

/// The identity that a peer says it has. It costs the check of a signature, and proves nothing yet.
fn claimed(context: &Context, request: &RequestHead<'_>) -> Option<Identity> {
    let said = Said::by(request, context.profile).ok()?;
    let header = said.first(Header::IdentityChallenge, context.profile)?;
    match meet(context, std::str::from_utf8(header).ok()) {
        (ListenerIdentity::Challenged { key, .. }, _) => Some(key),
        _ => None,
    }
}

/// The answer to a peer that the door does not let in.
const fn turned_away(why: mesh::Refusal) -> Refusal {
    let (why, status) = match why {
        mesh::Refusal::Banned => (UpgradeRefusal::Banned, StatusCode::FORBIDDEN),
        mesh::Refusal::NotMember => (UpgradeRefusal::NotMember, StatusCode::FORBIDDEN),
        _ => (UpgradeRefusal::Full, StatusCode::SERVICE_UNAVAILABLE),
    };
    Refusal::new(why, Answer::Status(status))
}

/// The address at which a peer that came from `ip` listens, as it announced it, without TLS. Only the port is
/// taken from the announcement, so that no peer can make this node call a third one.
fn listens(ip: IpAddr, location: &str) -> Option<NodeAddress> {
    let NodeAddress::WebSocket(told) = location.parse().ok()? else { return None };
    // A certificate is valid for a name, and nothing here proves that the name is the peer's.
    if told.security() == Security::Tls || told.port() == 0 {
        return None;
    }
    let socket = SocketAddr::new(ip.to_canonical(), told.port());
    format!("http://{socket}{}", told.path()).parse().ok()
}

/// A request that is not upgraded, and the reason.
struct Refusal {
    why: UpgradeRefusal,
    said: Answer,
}

/// The answer to a request that is not upgraded.
enum Answer {
    /// No answer: the connection is closed.
    Nothing,
    /// A status without a body.
    Status(StatusCode),
    /// A status with an explanation as its body.
    Words(StatusCode, String),
    /// A status with the headers and the body that WebSocket libraries answer with.
    NoUpgrade(StatusCode),
}

impl Refusal {
    const fn new(why: UpgradeRefusal, said: Answer) -> Self {
        Self { why, said }
    }

    /// Answers 412 with an explanation.
    fn because(why: UpgradeRefusal, words: impl Into<String>) -> Self {
        Self::new(why, Answer::Words(StatusCode::PRECONDITION_FAILED, words.into()))
    }
}

/// The hello of a request, in the place where it stands.
enum Said<'r> {
    /// In the headers.
    InHeaders(&'r HeaderMap),
    /// In the query of the URL, as pages send it.
    InQuery(QueryHello),
}

impl<'r> Said<'r> {
    /// Looks for the hello. Headers come first: no page can set one, and a query then means nothing, as ever.
    fn by(request: &RequestHead<'r>, profile: &NetworkProfile) -> Result<Self, Refusal> {
        let headers = request.headers;
        let query = request.uri.query().filter(|query| !query.is_empty());
        let (HelloPlace::HeadersOrQuery { .. }, Some(query)) = (profile.hello, query) else {
            return Ok(Self::InHeaders(headers));
        };
        if Header::ALL.iter().any(|header| headers.contains_key(header.name(profile))) {
            return Ok(Self::InHeaders(headers));
        }
        let read = QueryHello::read(query);
        read.map(Self::InQuery)
            .map_err(|error| Refusal::because(UpgradeRefusal::Query, error.to_string()))
    }

    /// The first value of a header.
    fn first(&self, header: Header, profile: &NetworkProfile) -> Option<&[u8]> {
        match self {
            Self::InHeaders(headers) => {
                headers.get(header.name(profile)).map(HeaderValue::as_bytes)
            }
            Self::InQuery(query) => query.get(header),
        }
    }

    /// Every version that the peer accepts.
    fn accepted_versions(&self, profile: &NetworkProfile) -> Vec<Cow<'_, str>> {
        let header = Header::AcceptVersion;
        let values: Vec<&[u8]> = match self {
            Self::InHeaders(headers) => {
                headers.get_all(header.name(profile)).iter().map(HeaderValue::as_bytes).collect()
            }
            Self::InQuery(query) => query.get(header).into_iter().collect(),
        };
        values.into_iter().map(String::from_utf8_lossy).collect()
    }
}

type Introduced = (Hello, ListenerIdentity, Option<String>);

/// Reads the hello in which the peer introduces itself, and refuses a peer of another network or version,
/// one without a random text, and this node itself.
fn introduce(context: &Context, said: &Said<'_>, genesis: &[u8]) -> Result<Introduced, Refusal> {
    let profile = context.profile;
    let theirs = Hello::read(|header| said.first(header, profile));
    let accepted = said.accepted_versions(profile);
    hello::negotiate(accepted.iter().map(|text| &**text), Some(&theirs.version), profile.version)
        .map_err(|mismatch| {
        Refusal::because(UpgradeRefusal::Version, mismatch.refusal(profile.version))
    })?;
    if genesis != context.network.as_str().as_bytes() {
        return Err(Refusal::because(UpgradeRefusal::Network, "mismatching genesis ID"));
    }
    let name = Header::NodeRandom.text_name(profile);
    match theirs.node_random.as_deref() {
        None => {
            let words = format!("Request was missing a {name} header");
            return Err(Refusal::because(UpgradeRefusal::NoRandom, words));
        }
        Some(ours) if ours == context.node_random() => {
            let words = format!("Request included matching {name}={ours} header");
            let said = Answer::Words(StatusCode::LOOP_DETECTED, words);
            return Err(Refusal::new(UpgradeRefusal::Ourselves, said));
        }
        Some(_) => {}
    }
    let (exchange, answer) = match meet(context, theirs.identity_challenge.as_deref()) {
        (exchange, Introduction::Accept { header }) => (exchange, Some(header)),
        (exchange, Introduction::ContinueWithoutIdentity) => (exchange, None),
        (_, Introduction::Refuse(error)) => {
            tracing::debug!(%error, "identity challenge refused");
            return Err(Refusal::new(UpgradeRefusal::Identity, Answer::Status(StatusCode::OK)));
        }
    };
    Ok((theirs, exchange, answer))
}

/// Reads the identity challenge of a dialer and prepares the answer.
fn meet(context: &Context, header: Option<&str>) -> (ListenerIdentity, Introduction) {
    let response_challenge = Challenge(context.environment().random().random());
    match (&context.exchange, header) {
        (Exchange::Off, _) | (_, None) => {
            (ListenerIdentity::Anonymous, Introduction::ContinueWithoutIdentity)
        }
        (Exchange::On { key, answers: Answers::Naming(names) }, Some(_)) => {
            ListenerIdentity::meet(header, names, key, response_challenge)
        }
        (Exchange::On { key, answers: Answers::Every }, Some(header)) => {
            match identity::read_request_header(header) {
                Err(error) => (ListenerIdentity::Anonymous, Introduction::Refuse(error)),
                Ok(seen) => {
                    let header = identity::response_header(key, &seen, response_challenge);
                    let challenged =
                        ListenerIdentity::Challenged { key: seen.key, response_challenge };
                    (challenged, Introduction::Accept { header })
                }
            }
        }
    }
}

/// Reads `Sec-WebSocket-Key` after the checks that RFC 6455 demands of a server.
fn websocket_key(
    context: &Context,
    request: &RequestHead<'_>,
    said: &Said<'_>,
) -> Result<HeaderValue, Refusal> {
    let headers = request.headers;
    let refuse = |why, status| Refusal::new(why, Answer::NoUpgrade(status));
    websocket::judge(request.method, headers).map_err(|why| match why {
        NoUpgrade::Headers => refuse(UpgradeRefusal::NoUpgrade, StatusCode::BAD_REQUEST),
        NoUpgrade::Method => refuse(UpgradeRefusal::Method, StatusCode::METHOD_NOT_ALLOWED),
        NoUpgrade::Version => refuse(UpgradeRefusal::WebSocketVersion, StatusCode::BAD_REQUEST),
    })?;
    if !is_let_in(context, headers, said) {
        return Err(match context.profile.hello {
            HelloPlace::Headers => refuse(UpgradeRefusal::Origin, StatusCode::FORBIDDEN),
            HelloPlace::HeadersOrQuery { .. } => Refusal::new(
                UpgradeRefusal::Origin,
                Answer::Words(StatusCode::FORBIDDEN, reply::FOREIGN.into()),
            ),
        });
    }
    let key = websocket::key(headers).cloned();
    key.ok_or_else(|| refuse(UpgradeRefusal::NoKey, StatusCode::BAD_REQUEST))
}

/// Returns `true` if `Origin` is absent, is listed, or names this host; for a page, this host by a name that can be no other.
fn is_let_in(context: &Context, headers: &HeaderMap, said: &Said<'_>) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    context.page_origins.let_in_client(headers)
        || matches!(said, Said::InHeaders(_)) && is_same_host(origin, headers)
}

/// The headers of the 101. The first three are in this order. Source: wire facts 1.3.
fn answer_headers(
    context: &Context,
    (key, asked): (&HeaderValue, &HeaderMap),
    ours: &Hello,
) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(16);
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    if let Ok(accept) = HeaderValue::try_from(websocket::accept_key(key.as_bytes())) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    if let HelloPlace::HeadersOrQuery { sub_protocol } = context.profile.hello
        && websocket::has_token(asked, header::SEC_WEBSOCKET_PROTOCOL, sub_protocol)
    {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(sub_protocol));
    }
    for (name, value) in ours.headers(context.profile) {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            headers.append(name, value);
        }
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    // Issue 9, 13.
    #[test]
    fn only_the_port_of_an_announced_address_is_used() {
        for (from, location, listens_at) in [
            ("10.0.0.1", "http://10.0.0.1:4160", Some("http://10.0.0.1:4160")),
            ("10.0.0.1", "10.0.0.1:4160", Some("http://10.0.0.1:4160")),
            ("10.0.0.1", "http://0.0.0.0:4160/a", Some("http://10.0.0.1:4160/a")),
            // The announcement cannot name another host, neither by number nor by name.
            ("10.0.0.1", "http://127.0.0.1:9000", Some("http://10.0.0.1:9000")),
            ("10.0.0.1", "http://database.internal:5432", Some("http://10.0.0.1:5432")),
            ("::ffff:10.0.0.1", "http://10.0.0.1:1", Some("http://10.0.0.1:1")),
            ("2001:db8::1", "http://[2001:db8::2]:1", Some("http://[2001:db8::1]:1")),
            ("10.0.0.1", "https://relay.example:443", None),
            ("10.0.0.1", "/ip4/10.0.0.1/tcp/1", None),
            ("10.0.0.1", "http://10.0.0.1:0", None),
            ("10.0.0.1", "", None),
            ("10.0.0.1", "\u{25af}", None),
        ] {
            let found = listens(from.parse().unwrap(), location);
            let wanted: Option<NodeAddress> = listens_at.map(|text| text.parse().unwrap());
            assert_eq!(found, wanted, "{from} {location}");
        }
    }
}
