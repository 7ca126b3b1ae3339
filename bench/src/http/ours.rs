//! The contender Tandem: a node at each end, or its server under the callers of the bare contender.

use std::num::NonZeroUsize;

use broadcaster::Setup;
use gossip::{
    NetworkProfile, NodeAddress,
    http::{HttpClient, HttpService},
};
use mesh::InboundLimits;
use net_http::{HttpServer, client::ClientLimits, serve::ServeLimits};

use super::{
    Carrier,
    app::{self, Wanted},
    bare,
    stage::{Caller, Keep, Stage},
    tls::Certificate,
};
use crate::{
    error::Failure,
    node::{Http, Node},
    transport::Transport,
};

/// Limit on connections, streams and requests: larger than the number of callers.
const ROOM: usize = 1_024;

/// Connections or streams of a client. Chosen: one for each caller, and as many as a node opens per libp2p
/// connection. With more, some callers would wait for idle ones.
const CALLERS: NonZeroUsize = NonZeroUsize::new(256).unwrap();

/// Limits of a server with a single, busy peer.
pub(crate) fn serve_limits() -> ServeLimits {
    ServeLimits::default()
        .with_connections(ROOM)
        .with_waiting(ROOM)
        .with_per_peer(ROOM)
        .with_waiting_per_peer(ROOM)
        .with_requests(ROOM)
}

/// Limits of a client without a rate limit.
pub(crate) fn client_limits() -> ClientLimits {
    ClientLimits::default().with_window(None).with_connections(CALLERS)
}

/// Limits of a port whose clients connect at the same moment: over TLS each counts as half-open for a while.
fn inbound_limits() -> InboundLimits {
    InboundLimits::default().with_half_open_total(ROOM).with_half_open_per_ip(ROOM)
}

/// A caller. All callers share one client, like the parts of an application.
struct OurCaller(HttpClient);

impl Caller for OurCaller {
    async fn call(&mut self, wanted: Wanted) -> Result<(), Failure> {
        wanted.ask(&self.0).await
    }
}

/// A node that serves, its address, and the certificate that it has for TLS.
struct Serving {
    node: Node,
    address: NodeAddress,
    certificate: Option<Certificate>,
}

impl Serving {
    async fn start(stage: &Stage, transport: Transport) -> Result<Self, Failure> {
        let service = HttpService::new(app::router(stage.plan.bytes));
        let http_server = Some(HttpServer::new(service, serve_limits()));
        let mut http = Http { http_server, inbound: inbound_limits(), ..Http::default() };
        let is_secure = stage.plan.carrier == Carrier::Tls;
        let certificate = is_secure.then(Certificate::generate).transpose()?;
        http.tls = certificate.as_ref().map(Certificate::identity).transpose()?;
        let setup = Setup::new(&NetworkProfile::TANDEM);
        let node = Node::start(transport, setup, None, http, stage.tasks.token()).await?;
        let address = node.address()?;
        Ok(Self { node, address, certificate })
    }

    /// The socket of a WebSocket network.
    fn socket(&self) -> Result<String, Failure> {
        let socket = self.address.host_port();
        Ok(socket.ok_or("a WebSocket network has another kind of address")?.to_string())
    }
}

/// Starts one node, and the callers of the bare contender.
pub(super) async fn start_server(stage: Stage) -> Result<Keep, Failure> {
    let near = Serving::start(&stage, Transport::Ws).await?;
    let socket = near.socket()?.parse()?;
    match &near.certificate {
        Some(certificate) => bare::call_tls(&stage, socket, certificate)?,
        None => bare::call_tcp(&stage, socket),
    }
    Ok(Box::new(near.node))
}

/// Starts both nodes and connects them.
pub(super) async fn start(stage: Stage) -> Result<Keep, Failure> {
    let transport = match stage.plan.carrier {
        Carrier::Tcp | Carrier::Tls => Transport::Ws,
        Carrier::P2p => Transport::P2p,
    };
    let near = Serving::start(&stage, transport).await?;
    let mut asking = Http { clients: client_limits(), ..Http::default() };
    let mut address = near.address.clone();
    if let Some(certificate) = &near.certificate {
        asking.tls_roots.push(certificate.certificate().clone());
        address = format!("https://{}", near.socket()?).parse()?;
    }
    let (setup, peer) = (Setup::new(&NetworkProfile::TANDEM), Some(near.address.clone()));
    let far = Node::start(transport, setup, peer, asking, stage.tasks.token()).await?;
    // The libp2p connection exists before the measurement, so no dial is measured.
    near.node.connected(1).await?;
    far.connected(1).await?;
    let client = far.network.http_client(&address)?;
    stage.start((0..stage.plan.callers).map(|_| OurCaller(client.clone())));
    Ok(Box::new((near.node, far)))
}
