//! The parts that an application would take otherwise: axum's server, and the client of hyper-util with its pool, which all
//! callers share.

use std::{fmt, io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    serve::{Listener, ListenerExt},
};
use bytes::Bytes;
use http::uri::{Authority, Scheme, Uri};
use http_body_util::Empty;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{
    net::{TcpListener, TcpStream},
    time,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{
    Carrier,
    app::{self, Wanted},
    stage::{Caller, Keep, Stage},
    tls::Certificate,
};
use crate::error::Failure;

/// Pause after a connection that could not be accepted.
const AFTER_FAILURE: Duration = Duration::from_millis(10);

/// A caller. All callers share one client, like the parts of an application.
struct UsualCaller {
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    scheme: Scheme,
    host: Authority,
}

impl UsualCaller {
    async fn ask(&self, wanted: Wanted) -> Result<(), Failure> {
        let mut request = wanted.request();
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(self.host.clone());
        *request.uri_mut() = Uri::from_parts(parts)?;
        wanted.check(self.client.request(request).await?).await
    }
}

impl Caller for UsualCaller {
    async fn call(&mut self, wanted: Wanted) -> Result<(), Failure> {
        self.ask(wanted).await
    }
}

/// TLS in front of axum, whose listener yields connections after their handshakes.
struct Secured {
    tcp: TcpListener,
    acceptor: TlsAcceptor,
}

impl Secured {
    async fn next(&self) -> io::Result<(TlsStream<TcpStream>, SocketAddr)> {
        let (tcp, from) = self.tcp.accept().await?;
        tcp.set_nodelay(true)?;
        Ok((self.acceptor.accept(tcp).await?, from))
    }
}

impl Listener for Secured {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        loop {
            match self.next().await {
                Ok(accepted) => return accepted,
                Err(_failed) => time::sleep(AFTER_FAILURE).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

/// Serves, and starts the callers.
pub(super) async fn start(stage: Stage) -> Result<Keep, Failure> {
    let certificate = Certificate::generate()?;
    let tcp = TcpListener::bind("127.0.0.1:0").await?;
    let (address, router) = (tcp.local_addr()?, app::router(stage.plan.bytes));
    let scheme = match stage.plan.carrier {
        Carrier::Tls => {
            let acceptor = TlsAcceptor::from(Arc::new(certificate.server_config()?));
            serve(&stage, Secured { tcp, acceptor }, router);
            Scheme::HTTPS
        }
        Carrier::Tcp | Carrier::P2p => {
            let tcp = tcp.tap_io(|io| {
                // Without it, requests would be slower, and are answered all the same.
                let _ = io.set_nodelay(true);
            });
            serve(&stage, tcp, router);
            Scheme::HTTP
        }
    };
    let mut http = HttpConnector::new();
    http.set_nodelay(true);
    http.enforce_http(false);
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(certificate.client_config()?)
        .https_or_http()
        .enable_http1()
        .wrap_connector(http);
    let client = Client::builder(TokioExecutor::new()).build(connector);
    let host: Authority = address.to_string().parse()?;
    let caller =
        |_| UsualCaller { client: client.clone(), scheme: scheme.clone(), host: host.clone() };
    stage.start((0..stage.plan.callers).map(caller));
    Ok(Box::new(()))
}

fn serve<L: Listener<Addr: fmt::Debug>>(stage: &Stage, listener: L, router: Router) {
    stage.tasks.spawn("axum", |_cancel| async move {
        // It ends with the measurement only.
        let _ = axum::serve(listener, router).await;
    });
}
