//! The system's sockets and names.

use std::{
    io,
    net::{SocketAddr, SocketAddrV6, UdpSocket},
};

use socket2::{Domain, Socket, Type};
use tokio::net;
pub(crate) use tokio::net::{
    TcpListener, TcpStream,
    tcp::{OwnedReadHalf, OwnedWriteHalf},
};

/// Connections that the system keeps until they are accepted. Source: tokio's own default.
const BACKLOG: i32 = 1_024;

#[expect(clippy::disallowed_methods, reason = "this is where the system is asked")]
pub(crate) async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    TcpStream::connect(address).await
}

#[expect(clippy::disallowed_methods, reason = "this is where the system is asked")]
pub(crate) async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

pub(crate) fn listen_v6_only(address: SocketAddrV6) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, None)?;
    socket.set_only_v6(true)?;
    #[cfg(not(windows))]
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::V6(address).into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

pub(crate) fn bind_udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

#[expect(clippy::disallowed_methods, reason = "this is where the system is asked")]
pub(crate) async fn look_up(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    Ok(net::lookup_host((host, port)).await?.collect())
}
