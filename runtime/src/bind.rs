//! Listening on every address of a name.
//!
//! # Invariants
//!
//! * All addresses of a name are listened on, on one port, or none is: two nodes never share a name.
//! * Of several sockets none is accepted from twice while another has somebody waiting.

use std::{
    future::poll_fn,
    io,
    net::{SocketAddr, SocketAddrV6},
    sync::atomic::{AtomicUsize, Ordering},
    task::{Context, Poll},
};

use socket2::{Domain, Socket, Type};
use tokio::net::TcpListener;

use crate::{environment::Sockets, memory::PipeListener, stream::Stream};

/// Connections that the system keeps until they are accepted. Source: tokio's own default.
const BACKLOG: i32 = 1_024;

/// How often another port is tried that is free on all addresses. Chosen: that one fails is rare.
const PORT_TRIES: usize = 16;

/// Listening sockets, one for each address of a name.
#[derive(Debug)]
pub struct Listener {
    sockets: Vec<ListeningSocket>,
    addresses: Vec<SocketAddr>,
    /// Which socket is asked first next.
    next: AtomicUsize,
}

#[derive(Debug)]
enum ListeningSocket {
    Tcp(TcpListener),
    Memory(PipeListener),
}

impl ListeningSocket {
    fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<(Stream, SocketAddr)>> {
        match self {
            Self::Tcp(listener) => {
                listener.poll_accept(context).map_ok(|(stream, from)| (stream.into(), from))
            }
            Self::Memory(listener) => {
                listener.poll_accept(context).map(|(stream, from)| Ok((stream.into(), from)))
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr(),
            Self::Memory(listener) => Ok(listener.local_addr()),
        }
    }
}

impl Listener {
    /// Waits for the next connection, on whatever address.
    ///
    /// # Errors
    ///
    /// What the system says, such as that there are too many open files. The next call may succeed.
    ///
    /// # Cancel safety
    ///
    /// Safe: no connection is lost.
    pub async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        poll_fn(|context| self.poll_accept(context)).await
    }

    /// As [`Listener::accept`], for one task that polls.
    pub fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<(Stream, SocketAddr)>> {
        let (count, first) = (self.sockets.len(), self.next.load(Ordering::Relaxed));
        for offset in 0..count {
            let at = (first + offset) % count;
            let Some(socket) = self.sockets.get(at) else { continue };
            if let Poll::Ready(accepted) = socket.poll_accept(context) {
                self.next.store((at + 1) % count, Ordering::Relaxed);
                return Poll::Ready(accepted);
            }
        }
        Poll::Pending
    }

    /// The first address that is listened on, with the port that was picked.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// Every address that is listened on, at least one.
    #[must_use]
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addresses
    }
}

/// Listens on all of `addresses`, which are at least one and of one port.
pub(crate) async fn all(addresses: &[SocketAddr], on: &Sockets) -> io::Result<Listener> {
    let mut tries = 0;
    loop {
        tries += 1;
        match once(addresses, on).await {
            Err((error, Picked::ByUs))
                if error.kind() == io::ErrorKind::AddrInUse && tries < PORT_TRIES => {}
            Err((error, _)) => return Err(error),
            Ok(listener) => return Ok(listener),
        }
    }
}

/// Who chose the port that could not be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Picked {
    /// The caller.
    ByCaller,
    /// The system, for the first address.
    ByUs,
}

async fn once(addresses: &[SocketAddr], on: &Sockets) -> Result<Listener, (io::Error, Picked)> {
    let is_one_of_several = addresses.len() > 1;
    let family = if is_one_of_several { Family::Own } else { Family::AsTheSystem };
    let (mut sockets, mut bound) = (Vec::new(), Vec::<SocketAddr>::new());
    let (mut picked, mut lacking) = (Picked::ByCaller, None);
    for &address in addresses {
        let mut address = address;
        if let (0, Some(first)) = (address.port(), bound.first()) {
            address.set_port(first.port());
            picked = Picked::ByUs;
        }
        let socket = match on.listen(address, family).await {
            Ok(socket) => socket,
            Err(error) if is_one_of_several && is_lacking(&error) => {
                tracing::info!(%address, %error, "this machine has no such address; left out");
                lacking = Some(error);
                continue;
            }
            Err(error) if is_one_of_several => {
                let error = io::Error::new(error.kind(), format!("{address}: {error}"));
                return Err((error, picked));
            }
            Err(error) => return Err((error, picked)),
        };
        bound.push(socket.local_addr().map_err(|error| (error, picked))?);
        sockets.push(socket);
    }
    match (bound.is_empty(), lacking) {
        (true, Some(error)) => Err((error, picked)),
        (true, None) => Err((io::ErrorKind::InvalidInput.into(), picked)),
        (false, _) => Ok(Listener { sockets, addresses: bound, next: AtomicUsize::new(0) }),
    }
}

/// Whether the machine does not have an address at all, so that nobody can listen there.
fn is_lacking(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported)
}

/// Which callers an IPv6 socket takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    /// As the system has it: `[::]` may take IPv4 too.
    AsTheSystem,
    /// IPv6 only, since IPv4 has a socket of its own.
    Own,
}

impl Sockets {
    async fn listen(&self, address: SocketAddr, family: Family) -> io::Result<ListeningSocket> {
        match (self, address) {
            (Self::Memory(host), _) => host.listen(address).map(ListeningSocket::Memory),
            (Self::System, SocketAddr::V6(address)) if family == Family::Own => {
                v6_only(address).map(ListeningSocket::Tcp)
            }
            (Self::System, _) => {
                #[expect(clippy::disallowed_methods, reason = "this is where the system is asked")]
                let listener = TcpListener::bind(address).await?;
                Ok(ListeningSocket::Tcp(listener))
            }
        }
    }
}

fn v6_only(address: SocketAddrV6) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, None)?;
    socket.set_only_v6(true)?;
    #[cfg(not(windows))]
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::V6(address).into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}
