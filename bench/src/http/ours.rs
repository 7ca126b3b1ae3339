//! The contender Tandem: a node at each end.

use std::num::NonZeroUsize;

use broadcaster::Setup;
use gossip::{
    NetworkProfile,
    http::{HttpClient, HttpService},
};
use mesh::InboundLimits;
use net_http::{HttpServer, client::ClientLimits, serve::ServeLimits};

use super::{
    Carrier,
    app::{self, Wanted},
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

/// Starts both nodes and connects them.
pub(super) async fn start(stage: Stage) -> Result<Keep, Failure> {
    let transport = match stage.plan.carrier {
        Carrier::Tcp | Carrier::Tls => Transport::Ws,
        Carrier::P2p => Transport::P2p,
    };
    let service = HttpService::new(app::router(stage.plan.bytes));
    let http_server = Some(HttpServer::new(service, serve_limits()));
    let mut serving = Http { http_server, inbound: inbound_limits(), ..Http::default() };
    let mut asking = Http { clients: client_limits(), ..Http::default() };
    if stage.plan.carrier == Carrier::Tls {
        let certificate = Certificate::generate()?;
        serving.tls = Some(certificate.identity()?);
        asking.tls_roots.push(certificate.certificate().clone());
    }
    let (profile, parent) = (&NetworkProfile::TANDEM, stage.tasks.token());
    let near = Node::start(transport, Setup::new(profile), None, serving, parent).await?;
    let mut address = near.address()?;
    let peer = Some(address.clone());
    let far = Node::start(transport, Setup::new(profile), peer, asking, parent).await?;
    // The libp2p connection exists before the measurement, so no dial is measured.
    near.connected(1).await?;
    far.connected(1).await?;
    if stage.plan.carrier == Carrier::Tls {
        let socket =
            address.host_port().ok_or("a WebSocket network has another kind of address")?;
        address = format!("https://{socket}").parse()?;
    }
    let client = far.network.http_client(&address)?;
    stage.start((0..stage.plan.callers).map(|_| OurCaller(client.clone())));
    Ok(Box::new((near, far)))
}
