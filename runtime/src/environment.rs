//! The environment of a node: clock, random numbers, names and sockets, handed down from the caller that starts it.
//!
//! # Invariants
//!
//! * Clones share everything: one node has one clock and one source of random numbers.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, SystemTime},
};

use crate::{
    bind::{self, Listener},
    clock::WallClock,
    dial::{self, DialError},
    gateway,
    hasher::KeyedHasher,
    memory,
    random::Random,
    resolve::{Resolve, SystemResolver},
    sockets::Sockets,
    stream::Stream,
    time::{self, Instant},
};

/// The time of day at which the clocks of a network in memory begin, in seconds of Unix time: 2026-01-01. Chosen:
/// any time that looks like one.
const BEGINNING: Duration = Duration::from_secs(1_767_225_600);

/// The source of a node's wall clock, random numbers, names and sockets. A cheap handle.
#[derive(Clone, Debug)]
pub struct Environment {
    parts: Arc<Parts>,
}

#[derive(Clone, Debug)]
struct Parts {
    clock: WallClock,
    random: Random,
    resolver: Arc<dyn Resolve>,
    sockets: Sockets,
}

impl Default for Environment {
    fn default() -> Self {
        Self::system()
    }
}

impl Environment {
    /// The system's clock, random numbers, names and TCP sockets.
    #[must_use]
    pub fn system() -> Self {
        Self::new(Parts {
            clock: WallClock::system(),
            random: Random::system(),
            resolver: Arc::new(SystemResolver),
            sockets: Sockets::System,
        })
    }

    fn new(parts: Parts) -> Self {
        Self { parts: Arc::new(parts) }
    }

    fn change(mut self, change: impl FnOnce(&mut Parts)) -> Self {
        change(Arc::make_mut(&mut self.parts));
        self
    }

    /// Reads the time of day from another clock.
    #[must_use]
    pub fn with_clock(self, clock: WallClock) -> Self {
        self.change(|parts| parts.clock = clock)
    }

    /// Draws random numbers from another source.
    #[must_use]
    pub fn with_random(self, random: Random) -> Self {
        self.change(|parts| parts.random = random)
    }

    /// Looks names up elsewhere.
    #[must_use]
    pub fn with_resolver(self, resolver: Arc<dyn Resolve>) -> Self {
        self.change(|parts| parts.resolver = resolver)
    }

    /// The time of day. Never to be used for deadlines: it jumps.
    #[must_use]
    pub fn clock(&self) -> &WallClock {
        &self.parts.clock
    }

    /// The source of random numbers.
    #[must_use]
    pub fn random(&self) -> Random {
        self.parts.random.clone()
    }

    /// Hashes under a key of its own, drawn now.
    #[must_use]
    pub fn hasher(&self) -> KeyedHasher {
        KeyedHasher::new(&mut self.random())
    }

    /// Returns `true` if connections are pipes in memory, so that nothing outside of this process is reached.
    #[must_use]
    pub fn is_in_memory(&self) -> bool {
        matches!(self.parts.sockets, Sockets::Memory(_))
    }

    /// Looks up the addresses of `host:port`, at least one, in the order in which they are to be tried. An
    /// IPv6 address stands in brackets.
    ///
    /// # Errors
    ///
    /// The answer of the resolver; [`io::ErrorKind::NotFound`] if the name has no address, and
    /// [`io::ErrorKind::InvalidInput`] if `host_port` is not of that form.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves nothing behind.
    pub async fn resolve(&self, host_port: &str) -> io::Result<Vec<SocketAddr>> {
        if let Ok(address) = host_port.parse() {
            return Ok(vec![address]);
        }
        let invalid = || io::Error::new(io::ErrorKind::InvalidInput, "not of the form host:port");
        let (host, port) = host_port.rsplit_once(':').ok_or_else(invalid)?;
        let port = port.parse().map_err(|_| invalid())?;
        let mut found = Vec::new();
        for address in self.parts.resolver.resolve(host, port).await? {
            if !found.contains(&address) {
                found.push(address);
            }
        }
        if found.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
        }
        Ok(found)
    }

    /// Connects to `host:port` within `deadline`, which covers the look-up too. The addresses of a name
    /// race each other as in RFC 8305, so that a dead one costs a quarter of a second and not the dial.
    ///
    /// # Errors
    ///
    /// [`DialError`], which says what became of every address that was tried.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes what it had opened.
    pub async fn dial(&self, host_port: &str, deadline: Instant) -> Result<Stream, DialError> {
        let found = self.look_up(host_port, deadline).await?;
        self.dial_addresses(found, deadline).await
    }

    /// Looks `host:port` up within `deadline`, for [`Environment::dial_addresses`].
    ///
    /// # Errors
    ///
    /// [`DialError::Unresolved`] and [`DialError::LookUpTimedOut`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves nothing behind.
    pub async fn look_up(
        &self,
        host_port: &str,
        deadline: Instant,
    ) -> Result<Vec<SocketAddr>, DialError> {
        let name = || host_port.to_owned();
        match time::timeout_at(deadline, self.resolve(host_port)).await {
            Ok(found) => found.map_err(|source| DialError::Unresolved { name: name(), source }),
            Err(_elapsed) => Err(DialError::LookUpTimedOut { name: name() }),
        }
    }

    /// Connects to one of `addresses` within `deadline`, racing them as [`Environment::dial`] does.
    ///
    /// # Errors
    ///
    /// [`DialError`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes what it had opened.
    pub async fn dial_addresses(
        &self,
        addresses: Vec<SocketAddr>,
        deadline: Instant,
    ) -> Result<Stream, DialError> {
        let sockets = &self.parts.sockets;
        dial::race(addresses, |address| sockets.connect(address), deadline).await
    }

    /// Listens on every address of `host:port`, on the same port; port 0 picks one that is free on all.
    ///
    /// An address of a kind that this machine does not have is left out, if there is another one: nobody
    /// else can listen there either.
    ///
    /// # Errors
    ///
    /// The error of the resolver, or of the system for the first address that cannot be listened on: then none is.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves nothing behind.
    pub async fn bind(&self, host_port: &str) -> io::Result<Listener> {
        let found = self.resolve(host_port).await?;
        bind::all(&found, &self.parts.sockets).await
    }
}

impl Environment {
    /// A socket for datagrams at `address`, which does not block. An IPv6 socket takes IPv6 only, so that IPv4 can have
    /// one of its own on the same port.
    ///
    /// # Errors
    ///
    /// The error of the system; [`io::ErrorKind::Unsupported`] in memory, where there are no datagrams.
    pub fn bind_udp(&self, address: SocketAddr) -> io::Result<std::net::UdpSocket> {
        self.parts.sockets.bind_udp(address)
    }
}

impl Environment {
    /// The router to which the system sends what is not for a network of its own, over IPv4. `None` if there is none, on
    /// systems that do not show their routes as Linux does, and in memory.
    #[must_use]
    pub fn default_gateway(&self) -> Option<std::net::Ipv4Addr> {
        if self.is_in_memory() {
            return None;
        }
        gateway::of_table(&std::fs::read_to_string("/proc/net/route").ok()?)
    }
}

impl memory::Network {
    /// The environment of a node on a host, with random numbers and a clock of its own. The clock shows the first
    /// second of 2026 when the host is made.
    #[must_use]
    pub fn host(&self, ip: IpAddr) -> Environment {
        let (host, random) = self.join(ip);
        let clock = WallClock::starting_at(SystemTime::UNIX_EPOCH + BEGINNING);
        let resolver = Arc::new(host.clone());
        Environment::new(Parts { clock, random, resolver, sockets: Sockets::Memory(host) })
    }
}
