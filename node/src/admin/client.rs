//! The client of the admin API: one connection for each request.
//!
//! # Invariants
//!
//! * Every request has a deadline, but for the lines of a stream, which come when they come.

use std::{
    io,
    marker::PhantomData,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use gossip::{NodeAddress, wire::digest::Digest};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Request, Response, StatusCode,
    body::Incoming,
    client::conn::http1,
    header::{AUTHORIZATION, HOST},
};
use hyper_util::rt::TokioIo;
use runtime::TaskSet;
use serde::de::DeserializeOwned;
use tandem::{BanSubject, Capability, DataDir, ValueKey};
use tokio::{
    net::{TcpStream, UnixStream},
    time,
};
use tokio_util::{either::Either, sync::CancellationToken};

use super::{
    problem::Problem,
    report::{Connect, Latency, PeerPage},
    traced::{Traces, WatchOrder, Way},
    wire::{
        Additions, BanOrder, Banned, Entry, FoundContent, FoundProvider, Heard, HeardOnTopic, Line,
        MemberSet, MembersNow, Offer, Peer, Published, Reloaded, Sent, Status, StoredValue,
        TableNode, ValueToPut,
    },
};

/// Longest time for a connection and the head of an answer. Chosen: longer than a node waits for its peers.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// Longest answer, and longest line of a stream, in bytes. Chosen: a whole phonebook, or a page of peers that all say
/// as much of themselves as they may, and in letters that JSON escapes.
const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;

/// Peers of one page.
const PAGE: usize = 256;

/// A client of one node.
#[derive(Debug)]
pub(crate) struct Client {
    door: Door,
    /// Drives the connections; ends with the client.
    tasks: TaskSet,
}

/// The way to a node.
#[derive(Debug)]
enum Door {
    /// The socket in its data directory.
    Socket(PathBuf),
    /// Its admin port.
    Port(AdminUrl),
}

/// The address of an admin port, and the token that opens it, as `tandem dashboard` prints them.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct AdminUrl {
    /// Host and port.
    authority: String,
    token: String,
}

impl std::fmt::Debug for AdminUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AdminUrl").field("authority", &self.authority).finish_non_exhaustive()
    }
}

impl AdminUrl {
    /// Reads `http://HOST:PORT/#token=TOKEN`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (address, token) = text.strip_prefix("http://")?.split_once("#token=")?;
        let authority = address.trim_end_matches('/');
        let is_plain = |letter: char| letter.is_ascii_graphic() && letter != '/';
        let is_whole = |part: &str| !part.is_empty() && part.chars().all(is_plain);
        let (_, port) = authority.rsplit_once(':')?;
        let is_valid = is_whole(authority) && is_whole(token) && port.parse::<u16>().is_ok();
        is_valid.then(|| Self { authority: authority.to_owned(), token: token.to_owned() })
    }

    /// Host and port, without the token.
    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }
}

/// Why a node did not do as it was told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ClientError {
    /// Nobody listens there.
    #[error(
        "no node runs on the data directory {}: start one with tandem run, or choose another with --data-dir",
        dir.display()
    )]
    NoNode {
        /// The directory.
        dir: PathBuf,
    },
    /// The socket could not be used.
    #[error("cannot reach the node that uses {}", dir.display())]
    Connect {
        /// The directory.
        dir: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The admin port could not be reached.
    #[error("cannot reach the admin port at {authority}")]
    Port {
        /// Host and port.
        authority: String,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The connection broke.
    #[error("the connection to the node broke")]
    Broken {
        /// The error of the HTTP library.
        source: hyper::Error,
    },
    /// The node answered nothing.
    #[error("the node did not answer within {} s", ANSWER_TIMEOUT.as_secs())]
    TimedOut,
    /// The node refused what was asked for, because of how it was asked.
    #[error("{reason}")]
    BadRequest {
        /// The node's own words.
        reason: String,
    },
    /// The node could not do it.
    #[error("{reason}")]
    Failed {
        /// The node's own words.
        reason: String,
    },
    /// The node answered something that is no answer.
    #[error("the node's answer cannot be read: is it of another version of tandem?")]
    Malformed,
}

impl Client {
    /// A client of the node that uses a data directory. Connects to nothing yet.
    pub(crate) fn new(dir: &Path) -> Self {
        Self::through(Door::Socket(dir.to_owned()))
    }

    /// A client of the node with an admin port. Connects to nothing yet.
    pub(crate) fn of(url: AdminUrl) -> Self {
        Self::through(Door::Port(url))
    }

    fn through(door: Door) -> Self {
        Self { door, tasks: TaskSet::new(&CancellationToken::new()) }
    }

    /// State of the node.
    pub(crate) async fn status(&self) -> Result<Status, ClientError> {
        self.ask("GET", "/v1/node", Bytes::new()).await
    }

    /// The peers of the node.
    pub(crate) async fn peers(&self) -> Result<Vec<Peer>, ClientError> {
        let mut peers: Vec<Peer> = Vec::new();
        loop {
            let path = format!("/v1/peers?limit={PAGE}&offset={}", peers.len());
            let page: PeerPage = self.ask("GET", &path, Bytes::new()).await?;
            let is_last = page.peers.len() < PAGE;
            // Peers come and go between two pages.
            peers.extend(page.peers);
            if is_last {
                peers.sort_by_key(|peer| peer.peer);
                peers.dedup_by_key(|peer| peer.peer);
                return Ok(peers);
            }
        }
    }

    /// The counters of the node, in the text format of OpenMetrics.
    pub(crate) async fn metrics(&self) -> Result<String, ClientError> {
        let answer = checked(self.request("GET", "/metrics", Bytes::new()).await?).await?;
        let text = read(answer.into_body()).await?;
        String::from_utf8(text.into()).map_err(|_| ClientError::Malformed)
    }

    /// The messages so far, by the time that they took in the node.
    pub(crate) async fn latency(&self) -> Result<Latency, ClientError> {
        self.ask("GET", "/v1/latency", Bytes::new()).await
    }

    /// The messages whose way through the node is kept.
    pub(crate) async fn traces(&self) -> Result<Traces, ClientError> {
        self.ask("GET", "/v1/traces", Bytes::new()).await
    }

    /// The way of a message through the node, if it is kept.
    pub(crate) async fn trace(&self, digest: &Digest) -> Result<Option<Way>, ClientError> {
        let path = format!("/v1/traces/{digest}");
        let answer = self.request("GET", &path, Bytes::new()).await?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let body = read(checked(answer).await?.into_body()).await?;
        serde_json::from_slice(&body).map(Some).map_err(|_| ClientError::Malformed)
    }

    /// Makes the node keep the way of a message, should it come.
    pub(crate) async fn watch(&self, order: &WatchOrder) -> Result<(), ClientError> {
        let body = serde_json::to_vec(order).map_err(|_| ClientError::Malformed)?;
        self.ask("POST", "/v1/traces", body.into()).await
    }

    /// Makes the node read the files of its certificates again.
    pub(crate) async fn reload(&self) -> Result<Reloaded, ClientError> {
        self.ask("POST", "/v1/reload", Bytes::new()).await
    }

    /// The addresses that the node knows.
    pub(crate) async fn phonebook(&self) -> Result<Vec<Entry>, ClientError> {
        self.ask("GET", "/v1/phonebook", Bytes::new()).await
    }

    /// Searches the DHT for at most `count` nodes that offer something.
    pub(crate) async fn providers(
        &self,
        capability: &Capability,
        count: usize,
    ) -> Result<Vec<FoundProvider>, ClientError> {
        let path = format!("/v1/dht/providers?capability={capability}&count={count}");
        self.ask("GET", &path, Bytes::new()).await
    }

    /// Announces a capability in the DHT.
    pub(crate) async fn provide(&self, capability: &Capability) -> Result<(), ClientError> {
        let offer = Offer { capability: capability.to_string() };
        let body = serde_json::to_vec(&offer).map_err(|_| ClientError::Malformed)?;
        self.ask("POST", "/v1/dht/providers", body.into()).await
    }

    /// The routing table of the DHT.
    pub(crate) async fn dht_peers(&self) -> Result<Vec<TableNode>, ClientError> {
        self.ask("GET", "/v1/dht/peers", Bytes::new()).await
    }

    /// Searches the DHT for a value.
    pub(crate) async fn value(&self, key: &ValueKey) -> Result<Option<FoundContent>, ClientError> {
        let path = format!("/v1/dht/values?key={}", encode(key.as_str()));
        self.ask("GET", &path, Bytes::new()).await
    }

    /// Puts a value into the DHT.
    pub(crate) async fn put_value(&self, value: &ValueToPut) -> Result<StoredValue, ClientError> {
        let body = serde_json::to_vec(value).map_err(|_| ClientError::Malformed)?;
        self.ask("POST", "/v1/dht/values", body.into()).await
    }

    /// Adds addresses to those that the node knows, and returns the number of new ones.
    pub(crate) async fn add(&self, additions: &Additions) -> Result<usize, ClientError> {
        let body = serde_json::to_vec(additions).map_err(|_| ClientError::Malformed)?;
        self.ask("POST", "/v1/phonebook", body.into()).await
    }

    /// Makes the node forget an address. Returns `false` if it did not know it.
    pub(crate) async fn remove(&self, address: &NodeAddress) -> Result<bool, ClientError> {
        let address = encode(&address.to_string());
        self.ask("DELETE", &format!("/v1/phonebook?address={address}"), Bytes::new()).await
    }

    /// Makes the node forget an address and end its links to it. Returns `false` if it did not know it.
    pub(crate) async fn remove_peer(&self, address: &NodeAddress) -> Result<bool, ClientError> {
        let address = encode(&address.to_string());
        self.ask("DELETE", &format!("/v1/peers?address={address}"), Bytes::new()).await
    }

    /// Makes the node dial an address whenever there is no link to its peer.
    pub(crate) async fn connect(&self, address: &str) -> Result<(), ClientError> {
        let order = Connect { address: address.to_owned() };
        let body = serde_json::to_vec(&order).map_err(|_| ClientError::Malformed)?;
        self.ask("POST", "/v1/peers", body.into()).await
    }

    /// Every ban of the node.
    pub(crate) async fn bans(&self) -> Result<Vec<Banned>, ClientError> {
        self.ask("GET", "/v1/bans", Bytes::new()).await
    }

    /// Bans somebody.
    pub(crate) async fn ban(&self, order: &BanOrder) -> Result<(), ClientError> {
        let body = serde_json::to_vec(order).map_err(|_| ClientError::Malformed)?;
        self.ask("POST", "/v1/bans", body.into()).await
    }

    /// Ends a ban. Returns `false` if there was none.
    pub(crate) async fn unban(&self, subject: &BanSubject) -> Result<bool, ClientError> {
        let subject = encode(&subject.to_string());
        self.ask("DELETE", &format!("/v1/bans?subject={subject}"), Bytes::new()).await
    }

    /// The members that the node was told of.
    pub(crate) async fn members(&self) -> Result<MembersNow, ClientError> {
        self.ask("GET", "/v1/members", Bytes::new()).await
    }

    /// Tells the node the members of an epoch, and asks for those that there are then.
    pub(crate) async fn set_members(&self, set: &MemberSet) -> Result<MembersNow, ClientError> {
        let body = serde_json::to_vec(set).map_err(|_| ClientError::Malformed)?;
        self.ask("POST", "/v1/members", body.into()).await
    }

    /// Sends a message to the peers of the node.
    pub(crate) async fn send(&self, tag: gossip::Tag, body: Bytes) -> Result<Sent, ClientError> {
        self.ask("POST", &format!("/v1/send?tag={}", encode(&tag.to_string())), body).await
    }

    /// The messages that the node hears from now on.
    pub(crate) async fn listen(
        &self,
        tags: &[gossip::Tag],
    ) -> Result<Lines<Line<Heard>>, ClientError> {
        let tags: Vec<String> = tags.iter().map(ToString::to_string).collect();
        let query = if tags.is_empty() {
            String::new()
        } else {
            format!("?tags={}", encode(&tags.join(",")))
        };
        let answer = self.request("GET", &format!("/v1/listen{query}"), Bytes::new()).await?;
        Ok(Lines::of(checked(answer).await?))
    }

    /// Publishes a message on a topic of the node's own.
    pub(crate) async fn publish(&self, topic: &str, body: Bytes) -> Result<Published, ClientError> {
        self.ask("POST", &format!("/v1/topics/publish?topic={}", encode(topic)), body).await
    }

    /// The messages that the node hears from now on, on a topic of its own.
    pub(crate) async fn listen_on(
        &self,
        topic: &str,
    ) -> Result<Lines<Line<HeardOnTopic>>, ClientError> {
        let path = format!("/v1/topics/listen?topic={}", encode(topic));
        let answer = checked(self.request("GET", &path, Bytes::new()).await?).await?;
        Ok(Lines::of(answer))
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        body: Bytes,
    ) -> Result<T, ClientError> {
        let answer = checked(self.request(method, path, body).await?).await?;
        let body = read(answer.into_body()).await?;
        serde_json::from_slice(&body).map_err(|_| ClientError::Malformed)
    }

    async fn request(
        &self,
        method: &str,
        path: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>, ClientError> {
        let broken = |source| ClientError::Broken { source };
        let exchange = async {
            let stream = self.open().await?;
            let (mut sender, connection) =
                http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
            self.tasks.spawn("admin client", |cancel| async move {
                tokio::select! {
                    () = cancel.cancelled() => {}
                    // An error of the connection is also one of the request.
                    _ = connection => {}
                }
            });
            let (host, token) = match &self.door {
                Door::Socket(_) => ("tandem", None),
                Door::Port(url) => (url.authority.as_str(), Some(&url.token)),
            };
            let mut request = Request::builder().method(method).uri(path).header(HOST, host);
            if let Some(token) = token {
                request = request.header(AUTHORIZATION, format!("Bearer {token}"));
            }
            let request = request.body(Full::new(body)).map_err(|_| ClientError::Malformed)?;
            sender.send_request(request).await.map_err(broken)
        };
        time::timeout(ANSWER_TIMEOUT, exchange).await.map_err(|_elapsed| ClientError::TimedOut)?
    }

    async fn open(&self) -> Result<Either<UnixStream, TcpStream>, ClientError> {
        match &self.door {
            Door::Socket(dir) => {
                let stream = UnixStream::connect(DataDir::admin_socket(dir)).await;
                stream.map(Either::Left).map_err(|source| {
                    let dir = dir.clone();
                    match source.kind() {
                        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                            ClientError::NoNode { dir }
                        }
                        _ => ClientError::Connect { dir, source },
                    }
                })
            }
            Door::Port(AdminUrl { authority, .. }) => {
                let stream = connect_tcp(authority).await;
                let failed = |source| ClientError::Port { authority: authority.clone(), source };
                stream.map(Either::Right).map_err(failed)
            }
        }
    }
}

/// A connection to an admin port.
#[allow(
    clippy::disallowed_methods,
    reason = "a command of the program, outside any node's environment"
)]
async fn connect_tcp(authority: &str) -> io::Result<TcpStream> {
    TcpStream::connect(authority).await
}

/// The lines of a stream, each a `T`.
#[derive(Debug)]
pub(crate) struct Lines<T> {
    body: Incoming,
    /// The bytes of a line that is not complete.
    buffer: BytesMut,
    line: PhantomData<T>,
}

impl<T: DeserializeOwned> Lines<T> {
    fn of(answer: Response<Incoming>) -> Self {
        Self { body: answer.into_body(), buffer: BytesMut::new(), line: PhantomData }
    }

    /// The next line; `None` when the node has stopped.
    ///
    /// # Cancel safety
    ///
    /// Safe: what was read of a line is kept.
    pub(crate) async fn next(&mut self) -> Result<Option<T>, ClientError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(end);
                self.buffer.advance(1);
                let line = serde_json::from_slice(&line).map_err(|_| ClientError::Malformed)?;
                return Ok(Some(line));
            }
            if self.buffer.len() > MAX_ANSWER_BYTES {
                return Err(ClientError::Malformed);
            }
            match self.body.frame().await {
                // The node ends its connections when it stops, in the middle of a stream.
                None | Some(Err(_)) => return Ok(None),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
            }
        }
    }
}

/// Turns an answer that is no success into an error.
async fn checked(answer: Response<Incoming>) -> Result<Response<Incoming>, ClientError> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let body = read(answer.into_body()).await?;
    let Ok(Problem { detail: reason, .. }) = serde_json::from_slice(&body) else {
        return Err(ClientError::Malformed);
    };
    Err(if status.is_client_error() {
        ClientError::BadRequest { reason }
    } else {
        ClientError::Failed { reason }
    })
}

async fn read(body: Incoming) -> Result<Bytes, ClientError> {
    let body = time::timeout(ANSWER_TIMEOUT, Limited::new(body, MAX_ANSWER_BYTES).collect()).await;
    match body {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(_)) => Err(ClientError::Malformed),
        Err(_elapsed) => Err(ClientError::TimedOut),
    }
}

/// Percent-encodes what may not stand in a query.
fn encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b',';
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_a_dashboard_is_read() {
        let url = AdminUrl::parse("http://127.0.0.1:9091/#token=abc").unwrap();
        assert_eq!((url.authority(), url.token.as_str()), ("127.0.0.1:9091", "abc"));
        assert!(!format!("{url:?}").contains("abc"));
        for wrong in [
            "",
            "/data",
            "https://a:1/#token=x",
            "http://a:1/",
            "http://a/#token=x",
            "http://a:1/#token=",
            "http://a:1/b/#token=x",
            "http://a:1/#token=x\r\ny",
        ] {
            assert_eq!(AdminUrl::parse(wrong), None, "{wrong}");
        }
    }
}
