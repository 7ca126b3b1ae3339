//! A client that writes raw bytes, and services for the tests.

// A test that cannot go on has failed.
#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    io,
    net::IpAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::{Router, routing::any};
use gossip::{
    HeaderCase, Identity, StreamUse, Transport,
    http::{Caller, HttpService},
};
use tandem_net_http::{
    HttpServer, ServeContext, ServeLimits, reply,
    serve::{Connection, NoHook, PermitRule, Terms},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Longest wait for anything that must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn from_peer(number: u8) -> Caller {
    let address = format!("peer {number}");
    Caller {
        identity: Some(Identity::from_ed25519([number; 32])),
        transport: Transport::Libp2p,
        address: address.into(),
        ip: None,
    }
}

pub(crate) fn from_socket(ip: &str) -> Caller {
    let ip: IpAddr = ip.parse().unwrap();
    let address = format!("{ip}:1").into();
    Caller { identity: None, transport: Transport::WebSocket, address, ip: Some(ip) }
}

/// A router with `hi` at `/hello`, as where the vectors were recorded.
pub(crate) fn hello() -> Router {
    let protocols = r#"{"/algorand-http/1.0.0":{"path":"/"}}"#;
    let json = [("Content-Type", "application/json")];
    Router::new()
        .route("/hello", any(async || "hi"))
        .route("/.well-known/libp2p/protocols", any(async move || (json, protocols)))
        .fallback(async || reply::not_found().map(axum::body::Body::new))
}

/// A server, and the streams it serves.
pub(crate) struct Served {
    pub(crate) http_server: HttpServer,
    pub(crate) cancel: CancellationToken,
    tasks: JoinSet<()>,
}

impl Served {
    pub(crate) fn new(router: Router, limits: ServeLimits) -> Self {
        Self::within(HttpService::new(router), limits, ServeContext::default())
    }

    /// A server on the engine that is tested.
    pub(crate) fn within(service: HttpService, limits: ServeLimits, context: ServeContext) -> Self {
        let context = ServeContext { engine: crate::ENGINE, ..context };
        Self::of(HttpServer::within(service, limits, context))
    }

    pub(crate) fn of(http_server: HttpServer) -> Self {
        Self { http_server, cancel: CancellationToken::new(), tasks: JoinSet::new() }
    }

    /// Opens a stream that can be reset.
    pub(crate) fn open_reset(&mut self, caller: Caller, streams: StreamUse) -> Resettable {
        let (theirs, ours) = duplex(64 * 1024);
        let reset = CancellationToken::new();
        let ours = Reset { stream: ours, reset: Box::pin(reset.clone().cancelled_owned()) };
        self.serve(ours, caller, streams);
        Resettable { client: Client { stream: theirs, got: Vec::new() }, reset }
    }

    pub(crate) fn open(&mut self, caller: Caller, streams: StreamUse) -> Client {
        let (theirs, ours) = duplex(64 * 1024);
        self.serve(ours, caller, streams);
        Client { stream: theirs, got: Vec::new() }
    }

    fn serve<Io>(&mut self, io: Io, caller: Caller, streams: StreamUse)
    where
        Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (http_server, cancel) = (self.http_server.clone(), self.cancel.clone());
        let limits = http_server.limits();
        let terms = match caller.transport {
            // Sockets are refused before their first request here, too.
            Transport::WebSocket => Terms {
                streams,
                permit: PermitRule::BeforeReading,
                ..limits.for_socket(HeaderCase::Canonical)
            },
            _ => limits.for_stream(streams, HeaderCase::Canonical),
        };
        self.tasks.spawn(async move {
            let connection = Connection { io, caller, terms };
            let upgraded = http_server.serve(connection, &NoHook, &cancel).await;
            assert!(upgraded.is_none());
        });
    }

    /// Waits until every stream has ended.
    pub(crate) async fn ended(&mut self) {
        while let Some(ended) = timeout(PATIENCE, self.tasks.join_next()).await.unwrap() {
            ended.unwrap();
        }
    }
}

/// The client end of a stream that can be reset.
pub(crate) struct Resettable {
    client: Client,
    reset: CancellationToken,
}

impl Resettable {
    pub(crate) async fn get(&mut self, path: &str) {
        self.client.get(path).await;
    }

    pub(crate) fn reset(&self) {
        self.reset.cancel();
    }
}

/// A stream that fails when it is told to.
struct Reset {
    stream: DuplexStream,
    reset: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl AsyncRead for Reset {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.reset.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl AsyncWrite for Reset {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// The client end of a stream.
pub(crate) struct Client {
    pub(crate) stream: DuplexStream,
    pub(crate) got: Vec<u8>,
}

/// A parsed answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Parsed {
    pub(crate) status: String,
    pub(crate) headers: BTreeMap<String, Vec<String>>,
    pub(crate) body: String,
}

impl Client {
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // The server may have closed already; the test reads that from the other direction.
        let _ = self.stream.write_all(bytes.as_ref()).await;
    }

    pub(crate) async fn get(&mut self, path: &str) {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: \r\n\r\n")).await;
    }

    pub(crate) async fn half_close(&mut self) {
        self.stream.shutdown().await.unwrap();
    }

    /// Reads to the end of the stream.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        let read = self.stream.read_to_end(&mut self.got);
        timeout(PATIENCE, read).await.expect("the stream never ended").unwrap();
        std::mem::take(&mut self.got)
    }

    /// Reads the next answer with a length; `None` if the stream ends first.
    pub(crate) async fn answer(&mut self) -> Option<Parsed> {
        loop {
            if let Some((parsed, len)) = first_answer(&self.got) {
                self.got.drain(..len);
                return Some(parsed);
            }
            let read = self.stream.read_buf(&mut self.got);
            let read = timeout(PATIENCE, read).await.expect("nothing came");
            if read.ok().is_none_or(|count| count == 0) {
                return None;
            }
        }
    }

    pub(crate) async fn status(&mut self) -> Option<u16> {
        self.answer().await.map(|answer| answer.code())
    }
}

impl Parsed {
    pub(crate) fn code(&self) -> u16 {
        self.status.split(' ').nth(1).unwrap().parse().unwrap()
    }
}

fn first_answer(bytes: &[u8]) -> Option<(Parsed, usize)> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let mut parsed = parse(std::str::from_utf8(&bytes[..end]).unwrap());
    let length = parsed.headers.get("Content-Length").map_or(0, |all| all[0].parse().unwrap());
    parsed.body = String::from_utf8_lossy(bytes.get(end..end + length)?).into_owned();
    Some((parsed, end + length))
}

/// Parses a whole answer; everything after the head is the body.
pub(crate) fn parse(text: &str) -> Parsed {
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {text:?}"));
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().to_owned();
    let mut headers = BTreeMap::<String, Vec<String>>::new();
    for line in lines {
        let (name, value) = line.split_once(": ").unwrap();
        headers.entry(name.to_owned()).or_default().push(value.to_owned());
    }
    Parsed { status, headers, body: body.to_owned() }
}
