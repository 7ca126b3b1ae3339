//! Meetings as a transport of libp2p, which dials, and listens wherever a circuit leads to this node.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::{FutureExt, SinkExt, StreamExt, future::BoxFuture};
use gossip::LinkPath;
use libp2p::{
    Multiaddr, PeerId, Transport,
    core::transport::{DialOpts, ListenerId, TransportError, TransportEvent},
    multiaddr::Protocol,
};
use mesh::LearntHosts;
use runtime::time::{self, Instant};
use tokio_util::codec::Framed;

use super::{
    MeetingError, MeetingRole, SIGNALLING, WAITING,
    course::MAX_CANDIDATES,
    exchange::{exchange, signals},
    places::{Place, Places},
    signal::SignalCodec,
};
use crate::{
    address::{PeerAddress, circuit_of, ip_literal, meeting_of, path_of},
    backlog::Backlog,
    channels::{HANDSHAKE, Made, Side},
    command::ToSwarm,
    connections::ConnectionTasks,
    dial_hosts::{DialHosts, NotPublic},
    given::{
        SharedChannelTransport,
        channels::{ChannelEvents, pump::Pump},
    },
    metrics::P2pEvent,
    muxer::Muxer,
    streams::{AcceptQueue, Acceptors, InboundStream, StreamIo, StreamTarget},
};

/// Longest time from a dial to the stream for signals. Chosen: it leaves 2 s to connect directly.
const OPEN_TIME: Duration = Duration::from_secs(8);

/// Longest time for the orderly end of the signals. Chosen: a few round trips through the relay.
const PARTING_TIME: Duration = Duration::from_secs(5);

type Meeting = BoxFuture<'static, Result<(PeerId, Muxer), MeetingError>>;

/// The parts of the transport that stand for one swarm. Default: no host, so nobody is met.
#[derive(Debug, Default)]
pub(crate) struct MeetingParts {
    host: Option<SharedChannelTransport>,
    swarm: ToSwarm,
    hosts: DialHosts,
    accept: Option<AcceptQueue>,
}

impl MeetingParts {
    /// Meets with the first of `transports` that can, over streams that `swarm` opens to relays among `hosts`, and that peers
    /// open.
    pub(crate) fn new(
        transports: Vec<SharedChannelTransport>,
        acceptors: &mut Acceptors,
        (swarm, hosts): (ToSwarm, DialHosts),
    ) -> Self {
        let host = transports.into_iter().find(|transport| transport.meets());
        let accept = host.as_ref().map(|_| acceptors.accept(&[SIGNALLING], WAITING));
        Self { host, swarm, hosts, accept }
    }
}

/// Dials and accepts meetings.
pub(crate) struct Meetings {
    parts: MeetingParts,
    listener: ListenerId,
    places: Places,
    ground: Ground,
}

/// The means of a connection.
#[derive(Clone)]
struct Ground {
    tasks: ConnectionTasks,
    backlog: Backlog,
}

impl Meetings {
    /// Drives the connections in `tasks`, and counts their bytes in `backlog`.
    pub(crate) fn new(parts: MeetingParts, tasks: ConnectionTasks, backlog: Backlog) -> Self {
        let ground = Ground { tasks, backlog };
        Self { parts, listener: ListenerId::next(), places: Places::default(), ground }
    }

    /// Takes a stream for signals that came on a circuit, with a place for its meeting.
    fn admit(&self, stream: &InboundStream) -> Option<(SharedChannelTransport, Multiaddr, Place)> {
        let host = self.parts.host.clone()?;
        let mut through = stream.about.address.clone();
        circuit_of(&through)?;
        through.pop();
        let place = self.places.take(stream.about.peer)?;
        Some((host, through.with(Protocol::WebRTC), place))
    }
}

/// Opens a stream for signals on a circuit.
async fn open(swarm: ToSwarm, circuit: PeerAddress) -> Result<StreamIo, MeetingError> {
    let deadline = Instant::now() + OPEN_TIME;
    let opened = swarm.open_to(StreamTarget::At(circuit), vec![SIGNALLING], deadline).await;
    let opened = opened.map_err(MeetingError::NotTold)?;
    if path_of(opened.address()) == LinkPath::Direct {
        return Err(MeetingError::Direct);
    }
    Ok(opened.into())
}

/// Ends the signals in an orderly way: an end that is reset could take the meeting for a failed one.
async fn part(mut stream: Framed<StreamIo, SignalCodec>) {
    let ended = async {
        // An error is an end as well.
        if stream.close().await.is_ok() {
            stream.take(MAX_CANDIDATES).for_each(|_late| std::future::ready(())).await;
        }
    };
    // At the deadline it is reset.
    let _ = time::timeout(PARTING_TIME, ended).await;
}

impl Ground {
    /// Has the host connect, with signals over `io`.
    async fn meet(
        self,
        host: SharedChannelTransport,
        role: MeetingRole,
        io: StreamIo,
    ) -> Result<Muxer, MeetingError> {
        let Self { tasks, backlog } = self;
        let side = match role {
            MeetingRole::Offers => Side::Dialer,
            MeetingRole::Answers => Side::Listener,
        };
        let events = ChannelEvents::new(side);
        // Both ends are known, so there is no channel for a handshake.
        events.closed(HANDSHAKE);
        let (signals, of_host) = signals();
        let connecting = host.meet(role, signals, events.clone());
        let mut stream = Framed::new(io, SignalCodec);
        let connected = exchange(&mut stream, role, connecting, of_host).await;
        if matches!(connected, Err(MeetingError::OfPeer(_))) {
            backlog.metrics().note(P2pEvent::SignalFault);
        }
        let channels = connected?;
        backlog.metrics().note(P2pEvent::Met);
        tasks.start("end of signals", Box::pin(part(stream)));
        let ChannelEvents(shared) = events;
        let pump = Pump::new(Arc::clone(&shared), channels);
        Ok(Made { pump, name: "data channels" }.drive(&tasks, &backlog))
    }
}

impl Transport for Meetings {
    type Output = (PeerId, Muxer);
    type Error = MeetingError;
    type ListenerUpgrade = Meeting;
    type Dial = Meeting;

    fn listen_on(
        &mut self,
        _: ListenerId,
        address: Multiaddr,
    ) -> Result<(), TransportError<MeetingError>> {
        Err(TransportError::MultiaddrNotSupported(address))
    }

    fn remove_listener(&mut self, _: ListenerId) -> bool {
        false
    }

    fn dial(
        &mut self,
        address: Multiaddr,
        options: DialOpts,
    ) -> Result<Meeting, TransportError<MeetingError>> {
        let Some(circuit) = meeting_of(&address).filter(|_| options.role.is_dialer()) else {
            return Err(TransportError::MultiaddrNotSupported(address));
        };
        let Some(host) = self.parts.host.clone() else {
            return Err(TransportError::Other(MeetingError::NoHost));
        };
        let hosts = self.parts.hosts.now();
        // As with circuits: a stranger's address leads to no relay in the network of this node.
        let is_allowed = hosts == LearntHosts::Any
            || ip_literal(&circuit.address).is_some_and(|ip| hosts.allow(ip));
        if !is_allowed {
            return Err(TransportError::Other(NotPublic.into()));
        }
        let (swarm, ground, peer) = (self.parts.swarm.clone(), self.ground.clone(), circuit.peer);
        Ok(async move {
            let io = open(swarm, circuit).await?;
            Ok((peer, ground.meet(host, MeetingRole::Offers, io).await?))
        }
        .boxed())
    }

    fn poll(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<TransportEvent<Meeting, MeetingError>> {
        loop {
            let Some(accept) = &mut self.parts.accept else { return Poll::Pending };
            // `None` while the swarm ends.
            let Some(stream) = ready!(accept.poll_next(context)) else { return Poll::Pending };
            let Some((host, local_addr, place)) = self.admit(&stream) else {
                self.ground.backlog.metrics().note(P2pEvent::MeetingRefused);
                continue;
            };
            let (peer, ground) = (stream.about.peer, self.ground.clone());
            let io = StreamIo::from(stream);
            let met = async move {
                let met = ground.meet(host, MeetingRole::Answers, io).await;
                drop(place);
                Ok((peer, met?))
            };
            return Poll::Ready(TransportEvent::Incoming {
                listener_id: self.listener,
                upgrade: met.boxed(),
                send_back_addr: local_addr.clone().with(Protocol::P2p(peer)),
                local_addr,
            });
        }
    }
}
