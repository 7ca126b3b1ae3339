//! Hosts, names, delays and cuts.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use futures::future::BoxFuture;
use rand::Rng;
use tokio::sync::mpsc;

use super::{
    path::{Cuts, Path, between},
    pipe::{self, PipeStream},
};
use crate::{random::Random, resolve::Resolve, time};

/// Callers that a listener keeps until it accepts them. Chosen: as the system's sockets do.
pub const BACKLOG: usize = 1_024;

/// The first port that is picked for those who ask for none. Source: RFC 6335, section 6.
const FIRST_DYNAMIC_PORT: u16 = 49_152;

/// The shortest and the longest time that bytes take between two hosts. Chosen: a city and a continent.
const DELAYS: std::ops::Range<Duration> = Duration::from_millis(2)..Duration::from_millis(60);

/// A network in memory. A cheap handle.
#[derive(Clone)]
pub struct Network {
    shared: Shared,
    cuts: Cuts,
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network").field("listeners", &self.lock().listeners.len()).finish()
    }
}

type Shared = Arc<Mutex<State>>;
type Callers = mpsc::Sender<(PipeStream, SocketAddr)>;

struct State {
    listeners: BTreeMap<SocketAddr, Callers>,
    names: BTreeMap<String, Vec<IpAddr>>,
    /// Hosts that swallow what is sent to them.
    silent: BTreeSet<IpAddr>,
    delays: BTreeMap<(IpAddr, IpAddr), Duration>,
    next_port: BTreeMap<IpAddr, u16>,
    random: Random,
}

impl State {
    fn delay(&mut self, between: (IpAddr, IpAddr)) -> Duration {
        let random = &mut self.random;
        *self.delays.entry(between).or_insert_with(|| random.random_range(DELAYS))
    }

    fn pick_port(&mut self, ip: IpAddr) -> u16 {
        let next = self.next_port.entry(ip).or_insert(FIRST_DYNAMIC_PORT);
        let port = *next;
        *next = port.checked_add(1).unwrap_or(FIRST_DYNAMIC_PORT);
        port
    }
}

impl Network {
    /// A network whose delays, and the random numbers of whose hosts, come from a seed. To be made inside
    /// of a runtime.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let state = State {
            listeners: BTreeMap::new(),
            names: BTreeMap::new(),
            silent: BTreeSet::new(),
            delays: BTreeMap::new(),
            next_port: BTreeMap::new(),
            random: Random::seeded(seed),
        };
        Self { shared: Arc::new(Mutex::new(state)), cuts: Cuts::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A host, and its random numbers.
    pub(crate) fn join(&self, ip: IpAddr) -> (Host, Random) {
        let random = Random::seeded(self.lock().random.random());
        (Host { ip, shared: Arc::clone(&self.shared), cuts: self.cuts.clone() }, random)
    }

    /// Gives a name to addresses, in the order in which they are tried.
    pub fn name(&self, name: &str, addresses: &[IpAddr]) {
        self.lock().names.insert(name.to_owned(), addresses.to_vec());
    }

    /// From now on nobody who dials this address hears anything.
    pub fn silence(&self, ip: IpAddr) {
        self.lock().silent.insert(ip);
    }

    /// Stops all bytes between two hosts, and their dials.
    pub fn cut(&self, one: IpAddr, other: IpAddr) {
        self.cuts.cut(between(one, other));
    }

    /// Mends what was cut: what was sent meanwhile arrives.
    pub fn mend(&self, one: IpAddr, other: IpAddr) {
        self.cuts.mend(between(one, other));
    }
}

/// One host of a network.
#[derive(Clone)]
pub(crate) struct Host {
    ip: IpAddr,
    shared: Shared,
    cuts: Cuts,
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").field("ip", &self.ip).finish_non_exhaustive()
    }
}

impl Host {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The address that the other end of a connection sees.
    fn own(&self, family_of: SocketAddr) -> IpAddr {
        // A host that dials itself does so from where it dials.
        if family_of.ip().is_loopback() { family_of.ip() } else { self.ip }
    }

    /// Connects to an address: a round trip for the handshake, as TCP has it.
    pub(crate) async fn connect(&self, to: SocketAddr) -> io::Result<PipeStream> {
        let from_ip = self.own(to);
        let real = if to.ip().is_loopback() { SocketAddr::new(self.ip, to.port()) } else { to };
        let (path, is_silent, from) = {
            let mut state = self.lock();
            let between = between(self.ip, real.ip());
            let delay = state.delay(between);
            let path = Path::new(between, delay, self.cuts.clone());
            let from = SocketAddr::new(from_ip, state.pick_port(self.ip));
            (path, state.silent.contains(&to.ip()), from)
        };
        if is_silent {
            return std::future::pending().await;
        }
        path.whole().await;
        time::sleep(2 * path.delay()).await;
        let (ours, theirs) = pipe::connect(&path, from, to);
        let callers = self.lock().listeners.get(&real).cloned();
        let is_taken = callers.is_some_and(|callers| callers.try_send((theirs, from)).is_ok());
        if is_taken { Ok(ours) } else { Err(io::ErrorKind::ConnectionRefused.into()) }
    }

    /// Listens. The unspecified and the loopback address stand for the host's own.
    pub(crate) fn listen(&self, at: SocketAddr) -> io::Result<PipeListener> {
        let is_own = at.ip() == self.ip || at.ip().is_unspecified() || at.ip().is_loopback();
        if !is_own {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        let mut state = self.lock();
        let port = if at.port() == 0 { state.pick_port(self.ip) } else { at.port() };
        let address = SocketAddr::new(self.ip, port);
        if state.listeners.contains_key(&address) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let (sender, callers) = mpsc::channel(BACKLOG);
        state.listeners.insert(address, sender);
        drop(state);
        let host = self.clone();
        Ok(PipeListener { callers: Mutex::new(callers), address, host })
    }
}

impl Resolve for Host {
    fn resolve<'a>(
        &'a self,
        host: &'a str,
        port: u16,
    ) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        let found = self.lock().names.get(host).cloned();
        let found = found.map(|ips| ips.into_iter().map(|ip| SocketAddr::new(ip, port)).collect());
        Box::pin(std::future::ready(found.ok_or_else(|| io::ErrorKind::NotFound.into())))
    }
}

/// A listening socket in memory.
#[derive(Debug)]
pub(crate) struct PipeListener {
    callers: Mutex<mpsc::Receiver<(PipeStream, SocketAddr)>>,
    address: SocketAddr,
    host: Host,
}

impl PipeListener {
    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn poll_accept(&self, context: &mut Context<'_>) -> Poll<(PipeStream, SocketAddr)> {
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        match callers.poll_recv(context) {
            Poll::Ready(Some(caller)) => Poll::Ready(caller),
            // The network keeps the sending end for as long as this listener lives.
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}

impl Drop for PipeListener {
    fn drop(&mut self) {
        self.host.lock().listeners.remove(&self.address);
    }
}
