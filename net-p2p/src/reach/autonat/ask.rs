//! The client of AutoNAT v2: it has peers try the addresses that this node may have, and tells the swarm task which can be
//! dialled.
//!
//! # Invariants
//!
//! * One address is asked for at a time, of a peer that was not asked for it in this round.
//! * An address that one peer has dialled can be dialled. One that [`ENOUGH`] peers have tried in vain cannot, and before
//!   that nothing is known.
//! * At most [`MAX_DATA`] bytes are sent for one question.

use std::{
    collections::{HashMap, HashSet},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use gossip::LinkPath;
use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};
use rand::{Rng, seq::IndexedRandom};
use runtime::TaskSet;
use tokio::{
    io::AsyncWriteExt,
    sync::watch,
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

use super::{
    REQUEST,
    wire::{Content, Data, DialBack, DialBackResponse, Envelope, Request, dial, status},
};
use crate::{
    address::path_of,
    command::Notice,
    link::LinkContext,
    metrics::{P2pEvent, P2pMetrics},
    reach::{ReachNotice, autorelay::Verdict, client::Client, observed::Observed, wire},
    streams::{AcceptQueue, InboundStream, StreamIo, StreamTarget},
};

/// Time between two questions while nothing is known. Chosen: a verdict of three peers within 10 s.
const SOON: Duration = Duration::from_secs(2);

/// Time between two rounds once there is a verdict. Source: go-libp2p, `autonat`, `bootDelay` and `refreshInterval`, 15 min.
const LATER: Duration = Duration::from_secs(15 * 60);

/// Peers that have to try an address in vain. Source: go-libp2p, `autonat`, `maxConfidence`.
const ENOUGH: usize = 3;

/// Longest time of a question. Chosen: the server has 15 s for it.
const ASK_TIME: Duration = Duration::from_secs(20);

/// Longest time for a nonce to be said on a stream. Chosen: the server says it at once.
const NONCE_TIME: Duration = Duration::from_secs(10);

/// Bytes that are sent to a server that wants some, at most. Source: libp2p specifications, `autonat/autonat-v2.md`.
const MAX_DATA: u64 = 100_000;

/// Bytes of one message of them. Source: there, 4,096.
const CHUNK: usize = 4_000;

/// The nonces that are awaited, and whether each came. Clones share them.
#[derive(Clone, Debug, Default)]
pub(in crate::reach) struct Nonces(Arc<Mutex<HashMap<u64, bool>>>);

impl Nonces {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, bool>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes nonces from connections until cancelled.
    pub(in crate::reach) async fn run(
        self,
        (mut accept, metrics): (AcceptQueue, P2pMetrics),
        tasks: TaskSet,
        cancel: CancellationToken,
    ) {
        while let Some(Some(stream)) = cancel.run_until_cancelled(accept.next()).await {
            let (nonces, metrics) = (self.clone(), metrics.clone());
            // The queue bounds the streams; a nonce that nobody awaits ends its task at once.
            tasks.spawn("nonce", |cancel| async move {
                let taken = time::timeout(NONCE_TIME, nonces.take(stream));
                if !matches!(cancel.run_until_cancelled(taken).await, None | Some(Ok(Ok(())))) {
                    metrics.note(P2pEvent::DialBackRefused);
                }
            });
        }
    }

    async fn take(&self, stream: InboundStream) -> io::Result<()> {
        let mut io = StreamIo::from(stream);
        let DialBack { nonce } = wire::read(&mut io).await?;
        match self.lock().get_mut(&nonce) {
            Some(came) => *came = true,
            None => return Err(io::ErrorKind::InvalidData.into()),
        }
        wire::write(&mut io, &DialBackResponse { status: 0 }).await?;
        io.shutdown().await
    }
}

/// The results of the peers that have tried an address.
#[derive(Debug, Default)]
struct Tried {
    asked: HashSet<PeerId>,
    failures: usize,
    is_reached: bool,
}

/// The client of one swarm.
pub(in crate::reach) struct Asker {
    pub(in crate::reach) client: Client,
    pub(in crate::reach) context: Arc<LinkContext>,
    pub(in crate::reach) observed: Observed,
    /// The addresses that are told whatever comes of it, and tried.
    pub(in crate::reach) announced: Vec<Multiaddr>,
    pub(in crate::reach) nonces: Nonces,
    pub(in crate::reach) verdict: watch::Sender<Verdict>,
}

impl Asker {
    /// Asks until cancelled.
    pub(in crate::reach) async fn run(self, cancel: CancellationToken) {
        let rounds = async {
            loop {
                let (verdict, reached) = self.round().await;
                tracing::info!(?verdict, ?reached, "peers have tried the addresses of this node");
                self.verdict.send_replace(verdict);
                let notice = Notice::Reach(ReachNotice::Verdict { reached });
                // The send fails only if the swarm has ended.
                let _ = self.client.senders.notices.send(notice).await;
                // Another way out may have been seen meanwhile, which is worth another round.
                let known = self.candidates();
                let until = Instant::now() + LATER;
                while Instant::now() < until && self.candidates() == known {
                    time::sleep(SOON).await;
                }
            }
        };
        cancel.run_until_cancelled(rounds).await;
    }

    fn candidates(&self) -> Vec<Multiaddr> {
        match self.announced.is_empty() {
            true => self.observed.candidates(),
            false => self.announced.clone(),
        }
    }

    /// Has peers try the addresses until there is a verdict. Returns it with the addresses that were reached.
    async fn round(&self) -> (Verdict, Vec<Multiaddr>) {
        let mut tried: HashMap<Multiaddr, Tried> = HashMap::new();
        loop {
            let candidates = self.candidates();
            let servers = self.context.abouts.speaking(&REQUEST);
            let is_open = |address: &&Multiaddr| {
                let of = tried.get(*address);
                of.is_none_or(|of| !of.is_reached && of.failures < ENOUGH)
            };
            let open: Vec<_> = candidates.iter().filter(is_open).cloned().collect();
            if open.is_empty() && !candidates.is_empty() {
                let is_reached =
                    |address: &&Multiaddr| tried.get(*address).is_some_and(|of| of.is_reached);
                let reached: Vec<_> = candidates.iter().filter(is_reached).cloned().collect();
                let verdict = match reached.is_empty() {
                    true => Verdict::Unreachable,
                    false => Verdict::Reachable,
                };
                return (verdict, reached);
            }
            for address in open {
                let of = tried.entry(address.clone()).or_default();
                let mut fresh: Vec<_> =
                    servers.iter().filter(|server| !of.asked.contains(*server)).collect();
                // With few peers, the same ones are asked again.
                if fresh.is_empty() {
                    fresh = servers.iter().collect();
                }
                let mut random = self.context.broadcaster.environment().random();
                let Some(server) = fresh.choose(&mut random) else { continue };
                of.asked.insert(**server);
                match time::timeout(ASK_TIME, self.ask(**server, &address)).await {
                    Ok(Ok(Some(true))) => of.is_reached = true,
                    Ok(Ok(Some(false))) => of.failures += 1,
                    // The peer did not try.
                    Ok(Ok(None) | Err(_)) | Err(_) => {}
                }
            }
            time::sleep(SOON).await;
        }
    }

    /// Has one peer try an address. `None` if it did not.
    async fn ask(&self, server: PeerId, address: &Multiaddr) -> io::Result<Option<bool>> {
        let nonce: u64 = self.context.broadcaster.environment().random().random();
        self.nonces.lock().insert(nonce, false);
        let asked = self.exchange(server, address, nonce).await;
        let came = self.nonces.lock().remove(&nonce).unwrap_or(false);
        Ok(asked?.map(|said| said && came))
    }

    async fn exchange(
        &self,
        server: PeerId,
        address: &Multiaddr,
        nonce: u64,
    ) -> io::Result<Option<bool>> {
        let to = StreamTarget::Connected(server);
        let opened = self.client.swarm.open_to(to, vec![REQUEST], Instant::now() + ASK_TIME).await;
        let opened = opened.map_err(io::Error::other)?;
        if path_of(opened.address()) == LinkPath::Relayed {
            return Ok(None);
        }
        let mut io = StreamIo::from(opened);
        let bare = address.iter().filter(|part| !matches!(part, Protocol::P2p(_)));
        let addrs = vec![bare.collect::<Multiaddr>().to_vec()];
        wire::write(&mut io, &Envelope::from(Content::Request(Request { addrs, nonce }))).await?;
        let mut is_paid = false;
        loop {
            let answer: Envelope = wire::read(&mut io).await?;
            match answer.content {
                Some(Content::Response(answer)) => {
                    return Ok(match (answer.status, answer.dial) {
                        (status::OK, dial::OK) => Some(true),
                        (status::OK, dial::NOT_REACHED) => Some(false),
                        // A server dials no private address for a node that it sees at a public one.
                        (status::REFUSED, _) => Some(false),
                        _ => None,
                    });
                }
                Some(Content::DataRequest(wanted)) if wanted.bytes <= MAX_DATA && !is_paid => {
                    is_paid = true;
                    let mut left = usize::try_from(wanted.bytes).unwrap_or_default();
                    while left > 0 {
                        let data = vec![0; left.min(CHUNK)];
                        left -= data.len();
                        wire::write(&mut io, &Envelope::from(Content::Data(Data { data }))).await?;
                    }
                }
                _ => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
    }
}
