//! A dialled connection: plain, or over TLS.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use runtime::{ReadHalf, Stream, WriteHalf};
use tokio::io::{self as tokio_io, AsyncRead, AsyncWrite, ReadBuf};

use crate::tls::TlsSession;

/// A dialled connection.
#[derive(Debug)]
pub(crate) enum Wire {
    /// TCP alone.
    Plain(Stream),
    /// TLS over TCP.
    Tls(Box<TlsSession>),
}

/// The half of a [`Wire`] that is read.
#[derive(Debug)]
pub(crate) enum WireReader {
    Plain(ReadHalf),
    Tls(tokio_io::ReadHalf<Box<TlsSession>>),
}

/// The half of a [`Wire`] that is written.
#[derive(Debug)]
pub(crate) enum WireWriter {
    Plain(WriteHalf),
    Tls(tokio_io::WriteHalf<Box<TlsSession>>),
}

impl Wire {
    /// The two directions, each of which can be given to a task of its own.
    pub(crate) fn into_split(self) -> (WireReader, WireWriter) {
        match self {
            Self::Plain(stream) => {
                let (read, write) = stream.into_split();
                (WireReader::Plain(read), WireWriter::Plain(write))
            }
            Self::Tls(session) => {
                let (read, write) = tokio_io::split(session);
                (WireReader::Tls(read), WireWriter::Tls(write))
            }
        }
    }
}

macro_rules! reads {
    ($($name:ty),*) => {$(
        impl AsyncRead for $name {
            fn poll_read(
                self: Pin<&mut Self>,
                context: &mut Context<'_>,
                into: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    Self::Plain(io) => Pin::new(io).poll_read(context, into),
                    Self::Tls(io) => Pin::new(io).poll_read(context, into),
                }
            }
        }
    )*};
}

macro_rules! writes {
    ($($name:ty),*) => {$(
        impl AsyncWrite for $name {
            fn poll_write(
                self: Pin<&mut Self>,
                context: &mut Context<'_>,
                bytes: &[u8],
            ) -> Poll<io::Result<usize>> {
                match self.get_mut() {
                    Self::Plain(io) => Pin::new(io).poll_write(context, bytes),
                    Self::Tls(io) => Pin::new(io).poll_write(context, bytes),
                }
            }

            fn poll_write_vectored(
                self: Pin<&mut Self>,
                context: &mut Context<'_>,
                parts: &[io::IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                match self.get_mut() {
                    Self::Plain(io) => Pin::new(io).poll_write_vectored(context, parts),
                    Self::Tls(io) => Pin::new(io).poll_write_vectored(context, parts),
                }
            }

            fn is_write_vectored(&self) -> bool {
                match self {
                    Self::Plain(io) => io.is_write_vectored(),
                    Self::Tls(io) => io.is_write_vectored(),
                }
            }

            fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    Self::Plain(io) => Pin::new(io).poll_flush(context),
                    Self::Tls(io) => Pin::new(io).poll_flush(context),
                }
            }

            fn poll_shutdown(
                self: Pin<&mut Self>,
                context: &mut Context<'_>,
            ) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    Self::Plain(io) => Pin::new(io).poll_shutdown(context),
                    Self::Tls(io) => Pin::new(io).poll_shutdown(context),
                }
            }
        }
    )*};
}

reads!(Wire, WireReader);
writes!(Wire, WireWriter);
