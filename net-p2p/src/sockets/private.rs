//! Private networks: a key that all of their nodes share encrypts everything below the handshake of libp2p. Source:
//! the libp2p specification, Private-Networks-PSK-V1.
//!
//! ```text
//!   each end, the dialler first: 24 random bytes, then its bytes under XSalsa20 with the key and those 24 as the nonce
//! ```
//!
//! # Invariants
//!
//! * A peer without the key is recognized by its first bytes, and gets no further: with the key they are the header of
//!   the negotiation that every libp2p connection begins with.
//! * The key proves membership and nothing else; identities are proved above.

use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::core::Endpoint;
use rand::Rng;
use runtime::Random;
use salsa20::{
    XSalsa20,
    cipher::{KeyIvInit, StreamCipher},
};

use crate::{
    metrics::{P2pEvent, P2pMetrics},
    network_key::NetworkKey,
};

/// The bytes with which every connection begins. Source: the libp2p specification, multistream-select 1.0.
const HEADER: &[u8] = b"\x13/multistream/1.0.0\n";

/// Longest piece that is encrypted at once, in bytes. Chosen: a Noise frame is written in a few of them.
const PIECE_BYTES: usize = 16 * 1024;

/// Memory for writing that an idle connection keeps.
const KEPT_BYTES: usize = 1024;

/// The membership of a node in a private network.
#[derive(Clone, Debug)]
pub(crate) struct Membership {
    pub(crate) key: NetworkKey,
    pub(crate) random: Random,
    pub(crate) metrics: P2pMetrics,
}

/// The mistake of a peer that is in another network, or in none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the peer does not know the key of the private network")]
struct NoMember;

impl Membership {
    /// Exchanges the nonces, at this end of the connection.
    pub(super) async fn enter<S>(mut self, mut socket: S, end: Endpoint) -> io::Result<Private<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (ours, mut theirs) = (self.random.random::<[u8; 24]>(), [0; 24]);
        // The end that was dialled says nothing before the other one has: js-libp2p loses what comes on a WebSocket before it
        // listens, which it does by the time it writes.
        if end == Endpoint::Listener {
            socket.read_exact(&mut theirs).await?;
        }
        socket.write_all(&ours).await?;
        socket.flush().await?;
        if end == Endpoint::Dialer {
            socket.read_exact(&mut theirs).await?;
        }
        if theirs.starts_with(HEADER) {
            // The peer is in no private network.
            self.metrics.note(P2pEvent::NotOfPrivateNetwork);
            return Err(io::Error::new(io::ErrorKind::InvalidData, NoMember));
        }
        let cipher = |nonce: [u8; 24]| XSalsa20::new(&self.key.bytes().into(), &nonce.into());
        Ok(Private {
            socket,
            reads: cipher(theirs),
            writes: cipher(ours),
            out: Vec::new(),
            written: 0,
            matched: 0,
            metrics: self.metrics,
        })
    }
}

/// A connection within a private network.
pub(crate) struct Private<S> {
    socket: S,
    reads: XSalsa20,
    writes: XSalsa20,
    /// Encrypted bytes, from `written` on.
    out: Vec<u8>,
    written: usize,
    /// Bytes of the header that the peer has sent.
    matched: usize,
    metrics: P2pMetrics,
}

impl<S: fmt::Debug> fmt::Debug for Private<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Private").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl<S: AsyncWrite + Unpin> Private<S> {
    /// Checks bytes that the peer sent against the header, as far as they belong to it.
    fn check(&mut self, bytes: &[u8]) -> io::Result<()> {
        let expected = HEADER.get(self.matched..).unwrap_or_default();
        let count = expected.len().min(bytes.len());
        if bytes.get(..count) != expected.get(..count) {
            self.metrics.note(P2pEvent::NotOfPrivateNetwork);
            return Err(io::Error::new(io::ErrorKind::InvalidData, NoMember));
        }
        self.matched += count;
        Ok(())
    }

    fn poll_out(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.out.get(self.written..).filter(|rest| !rest.is_empty()) {
            match ready!(Pin::new(&mut self.socket).poll_write(context, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.written += count,
            }
        }
        self.out.clear();
        self.out.shrink_to(KEPT_BYTES);
        self.written = 0;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Private<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let count = ready!(Pin::new(&mut this.socket).poll_read(context, into))?;
        let bytes = into.get_mut(..count).unwrap_or_default();
        this.reads.apply_keystream(bytes);
        this.check(bytes)?;
        Poll::Ready(Ok(count))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Private<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_out(context))?;
        let count = bytes.len().min(PIECE_BYTES);
        this.out.extend_from_slice(bytes.get(..count).unwrap_or_default());
        this.writes.apply_keystream(&mut this.out);
        // The piece is taken either way; the rest of it is written by the next write or flush.
        match this.poll_out(context) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(count)),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_out(context))?;
        Pin::new(&mut this.socket).poll_flush(context)
    }

    fn poll_close(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_out(context))?;
        Pin::new(&mut this.socket).poll_close(context)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use tokio_util::compat::TokioAsyncReadCompatExt;

    use super::*;

    // js-libp2p loses what comes on a WebSocket before it listens: ten of twelve of its calls ended without an answer.
    #[tokio::test]
    async fn the_end_that_was_dialled_says_nothing_before_the_other_one() {
        let membership = Membership {
            key: format!("/key/swarm/psk/1.0.0/\n/base16/\n{}", "07".repeat(32)).parse().unwrap(),
            random: runtime::Environment::system().random(),
            metrics: P2pMetrics::default(),
        };
        let (here, there) = tokio::io::duplex(1_000);
        let mut entering = Box::pin(membership.enter(here.compat(), Endpoint::Listener));
        assert!((&mut entering).now_or_never().is_none());
        let (mut there, mut nonce) = (there.compat(), [0; 24]);
        assert!(there.read(&mut nonce).now_or_never().is_none(), "nothing has come");
        there.write_all(&[1; 24]).await.unwrap();
        entering.await.unwrap();
        there.read_exact(&mut nonce).await.unwrap();
    }
}
