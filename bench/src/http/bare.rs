//! The upper bound: hyper at both ends of a bare socket, TLS session or libp2p stream.

use std::{net::SocketAddr, sync::Arc};

use axum::Router;
use bytes::Bytes;
use futures::StreamExt;
use http_body_util::Empty;
use hyper::{client, server};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use libp2p::{PeerId, Stream, StreamProtocol, identity::Keypair, swarm::SwarmEvent};
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client::TlsStream};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt};

use super::{
    Reuse,
    app::{self, Wanted},
    stage::{Caller, Keep, Stage},
    tls::Certificate,
};
use crate::{error::Failure, receiver::p2p as streams};

/// The protocol of the streams. Source: the libp2p HTTP specification.
pub(super) const PROTOCOL: StreamProtocol = StreamProtocol::new("/http/1.1");

/// Opens connections.
trait Connect: Clone + Send + Sync + 'static {
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    fn connect(&mut self) -> impl Future<Output = Result<Self::Io, Failure>> + Send;
}

/// A caller with its own connection.
struct BareCaller<C> {
    connect: C,
    sender: Option<client::conn::http1::SendRequest<Empty<Bytes>>>,
    stage: Stage,
}

impl<C: Connect> BareCaller<C> {
    async fn ask(&mut self, wanted: Wanted) -> Result<(), Failure> {
        let mut sender = match self.sender.take() {
            Some(sender) => sender,
            None => {
                let io = TokioIo::new(self.connect.connect().await?);
                let (sender, connection) = client::conn::http1::handshake(io).await?;
                self.stage.tasks.spawn("connection", |_cancel| async move {
                    // An error of the connection fails the request too.
                    let _ = connection.await;
                });
                sender
            }
        };
        sender.ready().await?;
        wanted.check(sender.send_request(wanted.request()).await?).await?;
        if wanted.reuse == Reuse::Kept {
            self.sender = Some(sender);
        }
        Ok(())
    }
}

impl<C: Connect> Caller for BareCaller<C> {
    async fn call(&mut self, wanted: Wanted) -> Result<(), Failure> {
        self.ask(wanted).await
    }
}

fn start<C: Connect>(stage: &Stage, connect: &C) {
    let caller = |_| BareCaller { connect: connect.clone(), sender: None, stage: stage.clone() };
    stage.start((0..stage.plan.callers).map(caller));
}

/// Serves one connection to its end.
async fn serve(io: impl AsyncRead + AsyncWrite + Unpin + Send, router: Router) {
    let service = TowerToHyperService::new(router);
    // An error of the connection fails the caller's request.
    let _ = server::conn::http1::Builder::new().serve_connection(TokioIo::new(io), service).await;
}

/// A plain socket.
#[derive(Clone)]
struct Tcp(SocketAddr);

impl Connect for Tcp {
    type Io = TcpStream;

    async fn connect(&mut self) -> Result<TcpStream, Failure> {
        let stream = TcpStream::connect(self.0).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// Serves and calls over plain sockets.
pub(super) async fn tcp(stage: Stage) -> Result<Keep, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let (address, router) = (listener.local_addr()?, app::router(stage.plan.bytes));
    let tasks = stage.tasks.clone();
    stage.tasks.spawn("accept", |_cancel| async move {
        while let Ok((io, _)) = listener.accept().await {
            let router = router.clone();
            if io.set_nodelay(true).is_ok() {
                tasks.spawn("connection", |_cancel| serve(io, router));
            }
        }
    });
    call_tcp(&stage, address);
    Ok(Box::new(()))
}

/// Calls over plain sockets.
pub(super) fn call_tcp(stage: &Stage, address: SocketAddr) {
    start(stage, &Tcp(address));
}

/// TLS over a plain socket.
#[derive(Clone)]
struct Tls {
    tcp: Tcp,
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl Connect for Tls {
    type Io = TlsStream<TcpStream>;

    async fn connect(&mut self) -> Result<Self::Io, Failure> {
        let tcp = self.tcp.connect().await?;
        Ok(self.connector.connect(self.name.clone(), tcp).await?)
    }
}

/// Serves and calls over tokio-rustls on plain sockets.
pub(super) async fn tls(stage: Stage) -> Result<Keep, Failure> {
    let certificate = Certificate::generate()?;
    let acceptor = TlsAcceptor::from(Arc::new(certificate.server_config()?));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let (address, router) = (listener.local_addr()?, app::router(stage.plan.bytes));
    let tasks = stage.tasks.clone();
    stage.tasks.spawn("accept", |_cancel| async move {
        while let Ok((io, _)) = listener.accept().await {
            let (router, acceptor) = (router.clone(), acceptor.clone());
            if io.set_nodelay(true).is_ok() {
                tasks.spawn("connection", |_cancel| async move {
                    if let Ok(io) = acceptor.accept(io).await {
                        serve(io, router).await;
                    }
                });
            }
        }
    });
    call_tls(&stage, address, &certificate)?;
    Ok(Box::new(()))
}

/// Calls over tokio-rustls on plain sockets.
pub(super) fn call_tls(
    stage: &Stage,
    address: SocketAddr,
    certificate: &Certificate,
) -> Result<(), Failure> {
    let connector = TlsConnector::from(Arc::new(certificate.client_config()?));
    let name = ServerName::try_from(super::tls::NAME)?;
    start(stage, &Tls { tcp: Tcp(address), connector, name });
    Ok(())
}

/// Opens streams of one libp2p connection.
#[derive(Clone)]
struct Streams {
    control: libp2p_stream::Control,
    hub: PeerId,
}

impl Connect for Streams {
    type Io = Compat<Stream>;

    async fn connect(&mut self) -> Result<Self::Io, Failure> {
        Ok(self.control.open_stream(self.hub, PROTOCOL).await?.compat())
    }
}

/// Serves and calls over `libp2p-stream`: TCP, Noise, Yamux, with one connection for all callers.
pub(super) async fn p2p(stage: Stage) -> Result<Keep, Failure> {
    let mut hub = streams::swarm(Keypair::generate_ed25519())?;
    let id = *hub.local_peer_id();
    hub.listen_on("/ip4/127.0.0.1/tcp/0".parse()?)?;
    let address = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = hub.select_next_some().await {
            break address;
        }
    };
    let mut incoming = hub.behaviour().new_control().accept(PROTOCOL)?;
    stage.tasks.spawn("hub", |_cancel| async move {
        loop {
            hub.select_next_some().await;
        }
    });
    let (tasks, router) = (stage.tasks.clone(), app::router(stage.plan.bytes));
    stage.tasks.spawn("accept", |_cancel| async move {
        while let Some((_peer, stream)) = incoming.next().await {
            let router = router.clone();
            tasks.spawn("connection", |_cancel| serve(stream.compat(), router));
        }
    });
    let control = streams::dial(Keypair::generate_ed25519(), &address, &stage.tasks).await?;
    start(&stage, &Streams { control, hub: id });
    Ok(Box::new(()))
}
