//! Listening on every address of a name.
//!
//! # Invariants
//!
//! * All addresses of a name are listened on, on one port, or none is: two nodes never share a name.
//! * Of several sockets none is accepted from twice while another has somebody waiting.

use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering},
    task::{Context, Poll},
};

use crate::{
    sockets::{Family, ListeningSocket, Sockets},
    stream::Stream,
};

/// Largest number of ports to try for one that is free on all addresses. Chosen: a port that fails is rare.
const PORT_TRIES: usize = 16;

/// Listening sockets, one for each address of a name.
#[derive(Debug)]
pub struct Listener {
    sockets: Vec<ListeningSocket>,
    addresses: Vec<SocketAddr>,
    /// Which socket is asked first next.
    next: AtomicUsize,
}

impl Listener {
    /// Waits for the next connection, on whatever address.
    ///
    /// # Errors
    ///
    /// The error of the system, such as too many open files. The next call may succeed.
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

/// The origin of the port that could not be had.
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

/// Returns `true` if the machine does not have an address at all, so that nobody can listen there.
fn is_lacking(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported)
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, sync::Arc};

    use futures::future::BoxFuture;
    use tokio::io::AsyncReadExt;

    use super::*;
    use crate::{Environment, Resolve, memory::Network};

    /// A resolver that knows one name.
    #[derive(Debug)]
    struct Name(Vec<Ipv4Addr>);

    impl Resolve for Name {
        fn resolve<'a>(
            &'a self,
            _host: &'a str,
            port: u16,
        ) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
            let found = self.0.iter().map(|&ip| SocketAddr::new(ip.into(), port)).collect();
            Box::pin(std::future::ready(Ok(found)))
        }
    }

    fn with_name(addresses: &[[u8; 4]]) -> Environment {
        let addresses = addresses.iter().copied().map(Ipv4Addr::from).collect();
        Environment::system().with_resolver(Arc::new(Name(addresses)))
    }

    // Issue 8, 5: `localhost` was listened on at one of its addresses, and a second node got the other one.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_name_is_listened_on_at_all_of_its_addresses_or_not_at_all() {
        let both = with_name(&[[127, 0, 0, 1], [127, 0, 0, 2]]);
        let first = both.bind("both.example:0").await.unwrap();
        let [one, other] = first.local_addrs() else { panic!("{first:?}") };
        assert_eq!(one.port(), other.port());
        for address in [*one, *other] {
            let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
            let caller = both.dial(&address.to_string(), deadline).await.unwrap();
            let (mut accepted, _) = first.accept().await.unwrap();
            assert_eq!(accepted.local_addr().unwrap(), address);
            drop(caller);
            assert_eq!(accepted.read(&mut [0]).await.unwrap(), 0);
        }
        let name = format!("both.example:{}", one.port());
        assert_eq!(both.bind(&name).await.unwrap_err().kind(), io::ErrorKind::AddrInUse);

        // A port that is taken on the second address alone is refused too, and the first one given back.
        let (one, other) = (*one, *other);
        drop(first);
        let taken = Environment::system().bind(&other.to_string()).await.unwrap();
        let refused = both.bind(&name).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
        assert!(refused.to_string().starts_with(&other.to_string()), "{refused}");
        let _free = Environment::system().bind(&one.to_string()).await.unwrap();
        drop(taken);
    }

    #[tokio::test]
    async fn an_address_that_the_machine_does_not_have_is_left_out_unless_it_is_the_only_one() {
        let some = with_name(&[[192, 0, 2, 1], [127, 0, 0, 1]]);
        let listener = some.bind("some.example:0").await.unwrap();
        assert_eq!(listener.local_addrs().len(), 1);
        let none = with_name(&[[192, 0, 2, 1]]).bind("none.example:0").await.unwrap_err();
        assert_eq!(none.kind(), io::ErrorKind::AddrNotAvailable);
    }

    #[tokio::test]
    async fn in_memory_a_port_is_taken_as_long_as_its_listener_lives() {
        let host = Network::new(1).host(Ipv4Addr::new(10, 0, 0, 1).into());
        let listener = host.bind("10.0.0.1:80").await.unwrap();
        let taken = host.bind("10.0.0.1:80").await.unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
        drop(listener);
        assert!(host.bind("10.0.0.1:80").await.is_ok());
        let elsewhere = host.bind("10.0.0.2:80").await.unwrap_err();
        assert_eq!(elsewhere.kind(), io::ErrorKind::AddrNotAvailable);
    }

    // Issue 11, 1.
    #[tokio::test]
    async fn a_network_in_memory_refuses_datagrams() {
        let host = Network::new(1).host(Ipv4Addr::new(10, 0, 0, 1).into());
        let refused = host.bind_udp(([10, 0, 0, 1], 7).into()).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::Unsupported);
        let system = Environment::system();
        let first = system.bind_udp(([127, 0, 0, 1], 0).into()).unwrap();
        let taken = system.bind_udp(first.local_addr().unwrap()).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
    }
}
