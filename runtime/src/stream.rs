//! A connected socket, of the system or in memory.
//!
//! # Invariants
//!
//! * A write half that is dropped ends its direction, and leaves the other one open.
//! * A short message in several parts goes to the system as one part. A `writev` of two parts costs 0.3 µs more than a
//!   `send`, which is a fortieth of an exchange of short HTTP messages over loopback.

use std::{
    io::{self, IoSlice},
    mem::MaybeUninit,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    memory::{PipeReader, PipeStream, PipeWriter},
    system::{OwnedReadHalf, OwnedWriteHalf, TcpStream},
};

/// Longest message in several parts that is sent as one, in bytes. Chosen: copying so much costs less than the `writev` that
/// it saves, and the head of an HTTP message with a short body fits.
const SHORT_BYTES: usize = 2048;

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
    #[cfg(not(target_family = "wasm"))]
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
    #[cfg_attr(
        target_family = "wasm",
        expect(unreachable_code, reason = "there are no sockets of the system")
    )]
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

/// Writes parts to a socket of the system, short ones together.
fn poll_write_parts(
    socket: Pin<&mut impl AsyncWrite>,
    context: &mut Context<'_>,
    parts: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    if let [part] = parts {
        return socket.poll_write(context, part);
    }
    if parts.iter().map(|part| part.len()).sum::<usize>() > SHORT_BYTES {
        return socket.poll_write_vectored(context, parts);
    }
    let mut room = [const { MaybeUninit::uninit() }; SHORT_BYTES];
    let mut short = ReadBuf::uninit(&mut room);
    parts.iter().for_each(|part| short.put_slice(part));
    socket.poll_write(context, short.filled())
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
                parts: &[IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                match &mut self.0 {
                    Kind::Tcp(stream) => poll_write_parts(Pin::new(stream), context, parts),
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        time::Instant,
    };

    use super::*;
    use crate::Environment;

    const WAIT: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn parts_arrive_in_order_whatever_their_lengths() {
        let environment = Environment::system();
        let listener = environment.bind("127.0.0.1:0").await.unwrap();
        let (address, deadline) = (listener.local_addr().to_string(), Instant::now() + WAIT);
        let dial = environment.dial(&address, deadline);
        let (dialled, accepted) = tokio::join!(dial, listener.accept());
        let mut reader = accepted.unwrap().0;
        let (_, mut writer) = dialled.unwrap().into_split();
        for lengths in [
            &[0][..],
            &[0, 0],
            &[7],
            &[100_000],
            &[1, 0, 2],
            &[SHORT_BYTES - 1, 1],
            &[SHORT_BYTES, 1],
            &[3, 100_000, 5],
        ] {
            let mut next = 0_u8;
            let parts: Vec<Vec<u8>> = lengths
                .iter()
                .map(|len| {
                    next += 1;
                    vec![next; *len]
                })
                .collect();
            let whole = parts.concat();
            let write = async {
                let mut slices: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
                let (mut left, mut written) = (&mut slices[..], 0);
                while written < whole.len() {
                    let count = writer.write_vectored(left).await.unwrap();
                    assert!(count > 0, "{lengths:?}");
                    written += count;
                    IoSlice::advance_slices(&mut left, count);
                }
            };
            let mut read = vec![0; whole.len()];
            let (_, ()) = tokio::join!(reader.read_exact(&mut read), write);
            assert_eq!(read, whole, "{lengths:?}");
        }
    }
}
