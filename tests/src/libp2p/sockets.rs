//! The transport of scripted libp2p peers: TCP that leaves from an address of their choice, so that one
//! machine can be many hosts.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    pin::Pin,
    task::{Context, Poll},
};

use futures::future::{BoxFuture, FutureExt, Pending};
use libp2p::{
    Multiaddr, Transport,
    core::transport::{DialOpts, ListenerId, TransportError, TransportEvent},
    multiaddr::Protocol,
};
use net_tcp::websocket::{Carrier, upgrade};
use runtime::Random;
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

use crate::websocket::connect_from;

/// Dials `/ip4/…/tcp/…` and `/ip4/…/tcp/…/ws`, and listens nowhere.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sockets {
    /// Where connections leave from; unspecified: where the system likes.
    pub(crate) source: Ipv4Addr,
}

impl Transport for Sockets {
    type Output = Compat<Box<dyn Carrier>>;
    type Error = io::Error;
    type ListenerUpgrade = Pending<io::Result<Self::Output>>;
    type Dial = BoxFuture<'static, io::Result<Self::Output>>;

    fn listen_on(
        &mut self,
        _id: ListenerId,
        address: Multiaddr,
    ) -> Result<(), TransportError<io::Error>> {
        Err(TransportError::MultiaddrNotSupported(address))
    }

    fn remove_listener(&mut self, _id: ListenerId) -> bool {
        false
    }

    fn dial(
        &mut self,
        address: Multiaddr,
        _options: DialOpts,
    ) -> Result<Self::Dial, TransportError<io::Error>> {
        let Some(to) = socket_address(&address) else {
            return Err(TransportError::MultiaddrNotSupported(address));
        };
        let source = self.source;
        let is_web_socket = address.iter().any(|part| matches!(part, Protocol::Ws(_)));
        Ok(async move {
            let stream: Box<dyn Carrier> = Box::new(connect_from(source, to).await?);
            if !is_web_socket {
                return Ok(stream.compat());
            }
            let upgraded = upgrade::connect(stream, &to.to_string(), Random::system()).await;
            Ok((Box::new(upgraded.map_err(io::Error::other)?) as Box<dyn Carrier>).compat())
        }
        .boxed())
    }

    fn poll(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, io::Error>> {
        Poll::Pending
    }
}

/// The socket that a multiaddr names, whatever comes behind it.
pub(crate) fn socket_address(address: &Multiaddr) -> Option<SocketAddr> {
    let mut parts = address.iter();
    match (parts.next()?, parts.next()?) {
        (Protocol::Ip4(ip), Protocol::Tcp(port)) => Some((IpAddr::V4(ip), port).into()),
        _ => None,
    }
}
