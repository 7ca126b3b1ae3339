//! The client against scripted peers and against hyper, over in-memory pipes.

mod breaks;
mod deadlines;
mod pooling;
mod queueing;
mod stopping;
mod streaming;
mod wire_bytes;

use std::{
    convert::Infallible,
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use gossip::{
    BoxFuture, StreamUse,
    http::{BoxError, HttpBody, HttpClient, HttpError, HttpResponse, read_all},
};
use http::{HeaderValue, Request, Response};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use runtime::TaskSet;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    sync::mpsc,
    time,
};
use tokio_util::sync::CancellationToken;

use super::*;

/// Longer than any deadline in these tests, so that a wrong outcome ends the test.
const PATIENCE: Duration = Duration::from_secs(600);

/// Opens pipes, and gives their other ends to the test.
pub(super) struct Pipes {
    accepted: mpsc::Sender<DuplexStream>,
    opened: AtomicUsize,
    bytes: usize,
}

impl Connect for Pipes {
    fn connect(&self) -> BoxFuture<'_, Result<Box<dyn Io>, BoxError>> {
        Box::pin(async {
            let (ours, theirs) = tokio::io::duplex(self.bytes);
            self.opened.fetch_add(1, SeqCst);
            self.accepted.send(theirs).await.map_err(|_gone| "connection refused")?;
            Ok(Box::new(ours) as Box<dyn Io>)
        })
    }
}

/// Clients, one of them, and the other ends of its connections.
pub(super) struct Bench {
    pub(super) clients: Clients,
    pub(super) client: HttpClient,
    pub(super) pipes: Arc<Pipes>,
    pub(super) accept: Accept,
    pub(super) stop: CancellationToken,
}

pub(super) struct Accept(mpsc::Receiver<DuplexStream>);

impl Accept {
    pub(super) async fn next(&mut self) -> Peer {
        let io = time::timeout(PATIENCE, self.0.recv()).await.expect("nobody connects");
        Peer(io.expect("nobody will connect"))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Limits without a window and with four connections.
pub(super) fn limits() -> ClientLimits {
    let connections = NonZeroUsize::new(4).unwrap();
    ClientLimits { window: None, connections, ..ClientLimits::default() }
}

pub(super) fn target(pipes: &Arc<Pipes>, streams: StreamUse) -> Target {
    Target {
        name: "peer".to_owned(),
        host: HeaderValue::from_static("peer"),
        prefix: String::new(),
        streams,
        idle: TCP_IDLE,
        connect: Arc::<Pipes>::clone(pipes),
    }
}

impl Bench {
    pub(super) fn new(limits: ClientLimits) -> Self {
        Self::with(limits, StreamUse::KeptAlive, 64 << 10)
    }

    pub(super) fn with(limits: ClientLimits, streams: StreamUse, bytes: usize) -> Self {
        let stop = CancellationToken::new();
        let clients = Clients::new(limits, "tests".to_owned(), &stop);
        let (accepted, accept) = mpsc::channel(1024);
        let pipes = Arc::new(Pipes { accepted, opened: AtomicUsize::new(0), bytes });
        let client = clients.client(target(&pipes, streams));
        Self { clients, client, pipes, accept: Accept(accept), stop }
    }

    /// Number of connections that were opened.
    pub(super) fn opened(&self) -> usize {
        self.pipes.opened.load(SeqCst)
    }

    pub(super) fn pool(&self) -> Arc<pool::Pool> {
        self.clients.shared.table.pool("peer".to_owned())
    }

    /// Number of connections whose task is running.
    pub(super) fn alive(&self) -> usize {
        self.clients.shared.tasks.len() - 1
    }

    /// Serves every connection with hyper until the set is dropped.
    pub(super) fn serve<S, F>(self, service: S) -> Served
    where
        S: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
        F: Future<Output = Response<HttpBody>> + Send + 'static,
    {
        let Self { clients, client, pipes, mut accept, .. } = self;
        let servers = TaskSet::new(&CancellationToken::new());
        let inner = servers.clone();
        servers.spawn("accept", |_cancel| async move {
            while let Some(io) = accept.0.recv().await {
                let service = service.clone();
                let serve = service_fn(move |request| {
                    let response = service(request);
                    async move { Ok::<_, Infallible>(response.await) }
                });
                inner.spawn("serve", |_cancel| async move {
                    // These tests look at the client's side only.
                    let _ended = http1::Builder::new()
                        .half_close(true)
                        .serve_connection(TokioIo::new(io), serve)
                        .await;
                });
            }
        });
        Served { clients, client, pipes, _servers: servers }
    }
}

/// A [`Bench`] with a server.
pub(super) struct Served {
    pub(super) clients: Clients,
    pub(super) client: HttpClient,
    pub(super) pipes: Arc<Pipes>,
    _servers: TaskSet,
}

impl Served {
    pub(super) fn opened(&self) -> usize {
        self.pipes.opened.load(SeqCst)
    }
}

/// The scripted end of a connection.
pub(super) struct Peer(pub(super) DuplexStream);

impl Peer {
    /// Reads to the end of a head.
    pub(super) async fn head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let byte = time::timeout(PATIENCE, self.0.read_u8()).await.expect("no request");
            head.push(byte.expect("the connection ended"));
        }
        String::from_utf8(head).unwrap()
    }

    pub(super) async fn say(&mut self, bytes: &str) {
        self.0.write_all(bytes.as_bytes()).await.unwrap();
    }

    /// Reads to the end of the client's half; `None` if it broke.
    pub(super) async fn rest(&mut self) -> Option<Vec<u8>> {
        let mut rest = Vec::new();
        let read = time::timeout(PATIENCE, self.0.read_to_end(&mut rest)).await;
        read.expect("the connection stays open").ok().map(|_count| rest)
    }
}

pub(super) const HI: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";

pub(super) async fn text(response: HttpResponse) -> String {
    let bytes = read_all(response.into_body(), 1 << 20).await.unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Runs every other task until none is ready. The clock does not advance.
pub(super) async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}
