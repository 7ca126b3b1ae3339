//! In place of `system` where there is none, as in a browser: its sockets cannot be had, so their types have no value.

use std::{
    future::{Ready, ready},
    io,
    net::{SocketAddr, SocketAddrV6, UdpSocket},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

#[derive(Debug)]
pub(crate) enum TcpListener {}
#[derive(Debug)]
pub(crate) enum TcpStream {}
#[derive(Debug)]
pub(crate) enum OwnedReadHalf {}
#[derive(Debug)]
pub(crate) enum OwnedWriteHalf {}

impl TcpListener {
    pub(crate) fn poll_accept(
        &self,
        _: &mut Context<'_>,
    ) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        match *self {}
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        match *self {}
    }
}

impl TcpStream {
    pub(crate) fn peer_addr(&self) -> io::Result<SocketAddr> {
        match *self {}
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        match *self {}
    }

    pub(crate) fn peek(&self, _: &mut [u8]) -> Ready<io::Result<usize>> {
        match *self {}
    }

    pub(crate) fn into_split(self) -> (OwnedReadHalf, OwnedWriteHalf) {
        match self {}
    }
}

macro_rules! reads {
    ($($name:ty),*) => {$(
        impl AsyncRead for $name {
            fn poll_read(
                self: Pin<&mut Self>,
                _: &mut Context<'_>,
                _: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                match *self {}
            }
        }
    )*};
}

macro_rules! writes {
    ($($name:ty),*) => {$(
        impl AsyncWrite for $name {
            fn poll_write(
                self: Pin<&mut Self>,
                _: &mut Context<'_>,
                _: &[u8],
            ) -> Poll<io::Result<usize>> {
                match *self {}
            }

            fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                match *self {}
            }

            fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                match *self {}
            }
        }
    )*};
}

reads!(TcpStream, OwnedReadHalf);
writes!(TcpStream, OwnedWriteHalf);

fn unsupported<T>() -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "a browser has no sockets and no names"))
}

pub(crate) fn connect(_: SocketAddr) -> Ready<io::Result<TcpStream>> {
    ready(unsupported())
}

pub(crate) fn listen(_: SocketAddr) -> Ready<io::Result<TcpListener>> {
    ready(unsupported())
}

pub(crate) fn listen_v6_only(_: SocketAddrV6) -> io::Result<TcpListener> {
    unsupported()
}

pub(crate) fn bind_udp(_: SocketAddr) -> io::Result<UdpSocket> {
    unsupported()
}

pub(crate) fn look_up(_: &str, _: u16) -> Ready<io::Result<Vec<SocketAddr>>> {
    ready(unsupported())
}
