//! The server of AutoNAT v2.
//!
//! # Invariants
//!
//! * At most [`MAX_REQUESTS`] requests are in progress, each for [`REQUEST_TIME`] at most; [`PER_MINUTE`] a minute are
//!   answered, and [`PER_HOST`] of one host.
//! * A connection is dialled outside of the swarm, under an identity of its own, and is closed after the nonce.

use std::{
    collections::HashMap,
    future::poll_fn,
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use gossip::{Host, LinkPath};
use libp2p::{
    Multiaddr, PeerId, Transport,
    core::{
        Endpoint,
        muxing::{StreamMuxer, StreamMuxerBox},
        transport::{Boxed, DialOpts, PortUse},
    },
    multiaddr::Protocol,
};
use multistream_select::{Version, dialer_select_proto};
use runtime::TaskSet;
use tokio::{
    io::AsyncWriteExt,
    sync::Semaphore,
    time::{self, Instant},
};
use tokio_util::{compat::FuturesAsyncReadCompatExt, sync::CancellationToken};

use super::{
    DIAL_BACK,
    wire::{Content, DialBack, DialBackResponse, Envelope, Response, dial, status},
};
use crate::{
    address::{PeerAddress, ip_literal, ip_of, path_of},
    metrics::{P2pEvent, P2pMetrics},
    reach::{MAX_TOLD, wire},
    streams::{AcceptQueue, InboundStream, StreamIo},
};

/// Requests in progress, at most. Chosen: each dials once.
const MAX_REQUESTS: usize = 16;

/// Longest time of a request. Chosen: a dial, its handshake, and two round trips.
const REQUEST_TIME: Duration = Duration::from_secs(15);

/// Requests that are answered in a minute. Source: go-libp2p, `autonatv2`, `serverRPM`.
const PER_MINUTE: usize = 60;

/// Those of one host. Source: there, `serverPerPeerRPM`, which we count by host.
const PER_HOST: usize = 12;

/// The transport that dials back. It is no part of the swarm.
pub(in crate::reach) struct DialBacker(pub(in crate::reach) Mutex<Boxed<(PeerId, StreamMuxerBox)>>);

/// The requests of the minute.
#[derive(Debug)]
struct Minute {
    began: Instant,
    hosts: HashMap<Host, usize>,
    all: usize,
}

/// The server of one swarm.
pub(in crate::reach) struct Server {
    dial_backer: DialBacker,
    minute: Mutex<Minute>,
    metrics: P2pMetrics,
}

impl Server {
    pub(in crate::reach) fn new(dial_backer: DialBacker, metrics: P2pMetrics) -> Self {
        let minute = Minute { began: Instant::now(), hosts: HashMap::new(), all: 0 };
        Self { dial_backer, minute: Mutex::new(minute), metrics }
    }

    /// Answers requests until cancelled, each in a task of `tasks`.
    pub(in crate::reach) async fn run(
        self,
        mut accept: AcceptQueue,
        tasks: TaskSet,
        cancel: CancellationToken,
    ) {
        let (server, places) = (Arc::new(self), Arc::new(Semaphore::new(MAX_REQUESTS)));
        while let Some(Some(stream)) = cancel.run_until_cancelled(accept.next()).await {
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                server.metrics.note(P2pEvent::DialBackRefused);
                continue;
            };
            let server = Arc::clone(&server);
            tasks.spawn("dial back", |cancel| async move {
                let peer = stream.peer();
                let answered = time::timeout(REQUEST_TIME, Box::pin(server.answer(stream)));
                if let Some(Ok(Err(error))) = cancel.run_until_cancelled(answered).await {
                    tracing::debug!(%peer, %error, "a request to dial back failed");
                }
                drop(place);
            });
        }
    }

    async fn answer(&self, stream: InboundStream) -> io::Result<()> {
        let about = stream.about.clone();
        let mut io = StreamIo::from(stream);
        let request: Envelope = wire::read(&mut io).await?;
        let Some(Content::Request(request)) = request.content else {
            return self.refuse(&mut io, status::REJECTED).await;
        };
        let from = ip_of(&about.address);
        if path_of(&about.address) == LinkPath::Relayed || !self.has_turn(Host::of(from)) {
            return self.refuse(&mut io, status::REJECTED).await;
        }
        let told = request.addrs.into_iter().take(MAX_TOLD).enumerate();
        let chosen = told.filter_map(|(index, bytes)| {
            let bare = Multiaddr::try_from(bytes).ok()?;
            let bare = bare.iter().filter(|part| !matches!(part, Protocol::P2p(_)));
            let whole: Multiaddr = bare.collect::<Multiaddr>().with(Protocol::P2p(about.peer));
            PeerAddress::new(whole.clone()).ok()?;
            let is_its_own = ip_literal(&whole)?.to_canonical() == from.to_canonical();
            is_its_own.then_some((index, whole))
        });
        let Some((index, address)) = { chosen }.next() else {
            return self.refuse(&mut io, status::REFUSED).await;
        };
        let dial = match self.dial_backer.dial(address, (about.peer, request.nonce)).await {
            Ok(()) => dial::OK,
            Err(failed) => failed,
        };
        self.metrics.note(P2pEvent::DialledBack);
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        send(&mut io, Response { status: status::OK, index, dial }).await
    }

    async fn refuse(&self, io: &mut StreamIo, status: i32) -> io::Result<()> {
        self.metrics.note(P2pEvent::DialBackRefused);
        send(io, Response { status, index: 0, dial: dial::UNUSED }).await
    }

    /// Counts a request, and returns `true` if its host may have it answered.
    fn has_turn(&self, host: Host) -> bool {
        let mut minute = self.minute.lock().unwrap_or_else(PoisonError::into_inner);
        if minute.began.elapsed() >= Duration::from_secs(60) {
            *minute = Minute { began: Instant::now(), hosts: HashMap::new(), all: 0 };
        }
        if minute.all >= PER_MINUTE {
            return false;
        }
        let of_host = minute.hosts.entry(host).or_default();
        if *of_host >= PER_HOST {
            return false;
        }
        *of_host += 1;
        minute.all += 1;
        true
    }
}

async fn send(io: &mut StreamIo, response: Response) -> io::Result<()> {
    wire::write(io, &Envelope::from(Content::Response(response))).await?;
    io.shutdown().await
}

impl DialBacker {
    /// Dials an address and hands the nonce over there. The error is the result in the words of the protocol.
    async fn dial(&self, address: Multiaddr, (peer, nonce): (PeerId, u64)) -> Result<(), i32> {
        let options = DialOpts { role: Endpoint::Dialer, port_use: PortUse::New };
        let dialling = {
            let mut transport = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            transport.dial(address, options).map_err(|_refused| dial::NOT_REACHED)?
        };
        let (reached, mut muxer) = dialling.await.map_err(|_failed| dial::NOT_REACHED)?;
        if reached != peer {
            return Err(dial::NOT_REACHED);
        }
        let told = tell(&mut muxer, nonce).await.map_err(|_failed| dial::NOT_ANSWERED);
        // Its orderly end has a bound of its own in the muxer; an error ends it as well.
        let _ = poll_fn(|context| Pin::new(&mut muxer).poll_close(context)).await;
        told
    }
}

/// Hands a nonce over on a new connection.
async fn tell(muxer: &mut StreamMuxerBox, nonce: u64) -> io::Result<()> {
    let opened = poll_fn(|context| Pin::new(&mut *muxer).poll_outbound(context)).await;
    let stream = opened.map_err(io::Error::other)?;
    let name = DIAL_BACK;
    let chosen = dialer_select_proto(stream, [name.as_ref()], Version::V1).await;
    let (_, stream) = chosen.map_err(io::Error::other)?;
    let mut io = stream.compat();
    wire::write(&mut io, &DialBack { nonce }).await?;
    let answer: DialBackResponse = wire::read(&mut io).await?;
    match answer.status {
        0 => Ok(()),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}
