//! WebSockets that were accepted on the port of another network of the node.
//!
//! # Invariants
//!
//! * A socket keeps the place with the door that it got on that port: its pass is left in a slot, from which the next
//!   layer takes it before it polls again.
//! * The addresses of the port are told as this network's own, with `/ws` or `/tls/ws` at their end.

use std::{
    collections::VecDeque,
    net::IpAddr,
    task::{Context, Poll},
};

use futures::FutureExt;
use gossip::Security;
use libp2p::{
    Multiaddr,
    core::{
        Endpoint,
        transport::{ListenerId, TransportEvent},
    },
    multiaddr::Protocol,
};
use net_tcp::hand_over::{HandOver, HandedOver, Port};

use super::{
    event::{Event, multiaddr},
    rise::Rise,
    socket::Socket,
};
use crate::{address::ip_of, admission::PassSlot};

/// The sockets of one port.
#[derive(Debug)]
pub(crate) struct Handed {
    from: HandOver,
    id: ListenerId,
    told: Vec<Multiaddr>,
    /// The addresses of this machine, which a port that listens on all of them is told under.
    own: Vec<IpAddr>,
    to_tell: VecDeque<Multiaddr>,
}

impl Handed {
    /// Takes the sockets of `from`.
    pub(crate) fn new(from: HandOver) -> Self {
        let id = ListenerId::next();
        let mut handed =
            Self { from, id, told: Vec::new(), own: Vec::new(), to_tell: VecDeque::new() };
        handed.look();
        handed
    }

    /// Notes an address of this machine.
    pub(super) fn found(&mut self, address: &Multiaddr) {
        let ip = ip_of(address);
        if !self.own.contains(&ip) {
            self.own.push(ip);
            self.look();
        }
    }

    /// Looks for addresses of the port that were not told.
    fn look(&mut self) {
        for port in self.from.ports() {
            let Port { address, security } = port;
            let ips = match address.ip().is_unspecified() {
                false => vec![address.ip()],
                true => {
                    let same = |ip: &&IpAddr| ip.is_ipv4() == address.is_ipv4();
                    self.own.iter().filter(same).copied().collect()
                }
            };
            for ip in ips {
                let whole = over(multiaddr((ip, address.port()).into()), security);
                if !self.told.contains(&whole) {
                    self.told.push(whole.clone());
                    self.to_tell.push_back(whole);
                }
            }
        }
    }

    /// The next event of the port. The pass of a socket is left in `passes`.
    pub(super) fn poll(
        &mut self,
        context: &mut Context<'_>,
        (rise, passes): (&Rise, &PassSlot),
    ) -> Poll<Event> {
        loop {
            if let Some(listen_addr) = self.to_tell.pop_front() {
                return Poll::Ready(TransportEvent::NewAddress {
                    listener_id: self.id,
                    listen_addr,
                });
            }
            match std::task::ready!(self.from.poll_take(context)) {
                None => self.look(),
                Some(socket) => {
                    let HandedOver { io, early, security, from, local, pass, page, evicted } =
                        *socket;
                    passes.leave((pass, evicted));
                    let (rise, web) = (rise.clone(), rise.web.clone());
                    let rising = async move {
                        let socket = Socket::Web(Box::new(web.handed((io, early), page)));
                        rise.entered(socket, Endpoint::Listener).await
                    };
                    return Poll::Ready(TransportEvent::Incoming {
                        listener_id: self.id,
                        upgrade: rising.boxed(),
                        local_addr: over(multiaddr(local), security),
                        send_back_addr: over(multiaddr(from), security),
                    });
                }
            }
        }
    }
}

/// The address of a WebSocket over TCP.
fn over(address: Multiaddr, security: Security) -> Multiaddr {
    let address = match security {
        Security::Tls => address.with(Protocol::Tls),
        _ => address,
    };
    address.with(Protocol::Ws("/".into()))
}
