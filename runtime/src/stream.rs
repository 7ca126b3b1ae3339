//! A connected socket, of the system or in memory.
//!
//! # Invariants
//!
//! * A write half that is dropped ends its direction, and leaves the other one open.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

use crate::memory::{PipeReader, PipeStream, PipeWriter};

/// A connected socket.
#[derive(Debug)]
pub struct Stream(Kind<TcpStream, PipeStream>);

/// The half of a [`Stream`] that is read.
#[derive(Debug)]
pub struct ReadHalf(Kind<OwnedReadHalf, PipeReader>);

/// The half of a [`Stream`] that is written.
#[derive(Debug)]
pub struct WriteHalf(Kind<OwnedWriteHalf, PipeWriter>);

#[derive(Debug)]
enum Kind<T, M> {
    Tcp(T),
    Memory(M),
}

impl From<TcpStream> for Stream {
    fn from(stream: TcpStream) -> Self {
        Self(Kind::Tcp(stream))
    }
}

impl From<PipeStream> for Stream {
    fn from(stream: PipeStream) -> Self {
        Self(Kind::Memory(stream))
    }
}

impl Stream {
    /// The socket of the system, to set its options; `None` in memory, where there are none.
    #[must_use]
    pub fn tcp(&self) -> Option<&TcpStream> {
        match &self.0 {
            Kind::Tcp(stream) => Some(stream),
            Kind::Memory(_) => None,
        }
    }

    /// Returns the address of the other end.
    ///
    /// # Errors
    ///
    /// The error of the system for a socket that is broken.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        match &self.0 {
            Kind::Tcp(stream) => stream.peer_addr(),
            Kind::Memory(stream) => Ok(stream.peer_addr()),
        }
    }

    /// The address of this end.
    ///
    /// # Errors
    ///
    /// The error of the system for a socket that is broken.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.0 {
            Kind::Tcp(stream) => stream.local_addr(),
            Kind::Memory(stream) => Ok(stream.local_addr()),
        }
    }

    /// Looks at the next bytes without taking them; zero at the end of the stream.
    ///
    /// # Errors
    ///
    /// The error of the system for a socket that is broken.
    ///
    /// # Cancel safety
    ///
    /// Safe: nothing is taken.
    pub async fn peek(&self, into: &mut [u8]) -> io::Result<usize> {
        match &self.0 {
            Kind::Tcp(stream) => stream.peek(into).await,
            Kind::Memory(stream) => stream.peek(into).await,
        }
    }

    /// The two directions, each of which can be given to a task of its own.
    #[must_use]
    pub fn into_split(self) -> (ReadHalf, WriteHalf) {
        match self.0 {
            Kind::Tcp(stream) => {
                let (read, write) = stream.into_split();
                (ReadHalf(Kind::Tcp(read)), WriteHalf(Kind::Tcp(write)))
            }
            Kind::Memory(stream) => {
                let (read, write) = stream.into_split();
                (ReadHalf(Kind::Memory(read)), WriteHalf(Kind::Memory(write)))
            }
        }
    }
}

macro_rules! reads {
    ($($name:ty),*) => {$(
        impl AsyncRead for $name {
            fn poll_read(
                mut self: Pin<&mut Self>,
                context: &mut Context<'_>,
                into: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                match &mut self.0 {
                    Kind::Tcp(stream) => Pin::new(stream).poll_read(context, into),
                    Kind::Memory(stream) => Pin::new(stream).poll_read(context, into),
                }
            }
        }
    )*};
}

macro_rules! writes {
    ($($name:ty),*) => {$(
        impl AsyncWrite for $name {
            fn poll_write(
                mut self: Pin<&mut Self>,
                context: &mut Context<'_>,
                bytes: &[u8],
            ) -> Poll<io::Result<usize>> {
                match &mut self.0 {
                    Kind::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
                    Kind::Memory(stream) => Pin::new(stream).poll_write(context, bytes),
                }
            }

            fn poll_write_vectored(
                mut self: Pin<&mut Self>,
                context: &mut Context<'_>,
                parts: &[io::IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                match &mut self.0 {
                    Kind::Tcp(stream) => Pin::new(stream).poll_write_vectored(context, parts),
                    Kind::Memory(stream) => Pin::new(stream).poll_write_vectored(context, parts),
                }
            }

            fn is_write_vectored(&self) -> bool {
                match &self.0 {
                    Kind::Tcp(stream) => stream.is_write_vectored(),
                    Kind::Memory(stream) => stream.is_write_vectored(),
                }
            }

            fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
                match &mut self.0 {
                    Kind::Tcp(stream) => Pin::new(stream).poll_flush(context),
                    Kind::Memory(stream) => Pin::new(stream).poll_flush(context),
                }
            }

            fn poll_shutdown(
                mut self: Pin<&mut Self>,
                context: &mut Context<'_>,
            ) -> Poll<io::Result<()>> {
                match &mut self.0 {
                    Kind::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
                    Kind::Memory(stream) => Pin::new(stream).poll_shutdown(context),
                }
            }
        }
    )*};
}

reads!(Stream, ReadHalf);
writes!(Stream, WriteHalf);
