//! The socket of a QUIC endpoint on a port that WebRTC has too.

use std::{
    fmt,
    io::{self, IoSliceMut},
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit},
};
use tokio::sync::mpsc;

use crate::udp_ports::Received;

/// Sends over a socket, and receives what its one reader passes on.
pub(super) struct SharedSocket {
    sending: Arc<dyn AsyncUdpSocket>,
    received: Mutex<mpsc::Receiver<Received>>,
}

impl SharedSocket {
    pub(super) fn new(
        sending: Arc<dyn AsyncUdpSocket>,
        received: mpsc::Receiver<Received>,
    ) -> Arc<Self> {
        Arc::new(Self { sending, received: Mutex::new(received) })
    }
}

impl fmt::Debug for SharedSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedSocket").field("sending", &self.sending).finish_non_exhaustive()
    }
}

impl AsyncUdpSocket for SharedSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.sending).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.sending.try_send(transmit)
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut received = self.received.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = 0;
        for (buffer, meta) in buffers.iter_mut().zip(metas) {
            match received.poll_recv(context) {
                Poll::Ready(Some(Received { meta: told, bytes })) => {
                    // A datagram that is longer than the endpoint reads is none of QUIC's.
                    let length = bytes.len().min(buffer.len());
                    buffer[..length].copy_from_slice(&bytes[..length]);
                    *meta = RecvMeta { len: length, stride: length, ..told };
                    taken += 1;
                }
                Poll::Ready(None) if taken == 0 => {
                    return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
                }
                Poll::Ready(None) => break,
                Poll::Pending if taken == 0 => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        Poll::Ready(Ok(taken))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.sending.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.sending.max_transmit_segments()
    }

    fn may_fragment(&self) -> bool {
        self.sending.may_fragment()
    }
}
