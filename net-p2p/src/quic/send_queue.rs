//! The queue of datagrams that the system keeps for a socket, bounded by the time in which it empties.
//!
//! Datagrams leave the system in the order in which it took them, so a vote waits for all that are queued there, however high
//! the priority of its stream. The system's own bound is in bytes, and on a slow path these are many milliseconds.
//!
//! # Invariants
//!
//! * A queue that takes longer than [`TARGET`] to empty is made smaller, and one that empties sooner larger, within
//!   [`LEAST`] and [`MOST`].
//! * A queue that never fills keeps its size: where the system passes datagrams on at once, nothing is measured.

use std::{
    io::{self, IoSliceMut},
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit},
};
use socket2::Socket;
use tokio::time::Instant;

/// Time in which a full queue shall empty. Chosen: half of the 5 ms within which a vote shall arrive behind bulk.
const TARGET: Duration = Duration::from_micros(2_500);

/// Size with which a queue begins, as the system is given it: Linux counts twice as many bytes, with its own for each
/// datagram. Chosen: [`TARGET`] at 200 Mbit/s.
const FIRST: usize = 32 * 1024;

/// Smallest and largest size. Chosen: two batches of quinn, and what Linux allows at most unless it is told otherwise.
const LEAST: usize = 16 * 1024;
const MOST: usize = 208 * 1024;

/// The size of a queue, from one measurement to the next.
///
/// The system says that a socket can be written to once half of its queue is free.
fn resized(size: usize, half_emptied_in: Duration) -> usize {
    let nanos = half_emptied_in.as_nanos().max(1);
    let wanted = size as u128 * TARGET.as_nanos() / (2 * nanos);
    // One measurement may be wrong: the task that writes may have waited for a processor.
    let wanted = usize::try_from(wanted).unwrap_or(MOST).clamp(size / 2, size.saturating_mul(2));
    wanted.clamp(LEAST, MOST)
}

/// A socket of quinn with such a queue.
#[derive(Debug)]
pub(super) struct BoundedSocket {
    inner: Arc<dyn AsyncUdpSocket>,
    /// The same socket.
    socket: Socket,
    size: AtomicUsize,
    made: Instant,
    /// Nanoseconds from `made` until the queue was found full; 0 while it is not.
    full_since: AtomicU64,
}

impl BoundedSocket {
    /// Bounds the queue of `socket`, which `inner` sends over.
    pub(super) fn new(inner: Arc<dyn AsyncUdpSocket>, socket: std::net::UdpSocket) -> Self {
        let this = Self {
            inner,
            socket: socket.into(),
            size: AtomicUsize::new(FIRST),
            made: Instant::now(),
            full_since: AtomicU64::new(0),
        };
        this.resize(FIRST);
        this
    }

    fn resize(&self, size: usize) {
        self.size.store(size, Ordering::Relaxed);
        // A system that refuses leaves the queue as it was: votes then wait longer behind bulk.
        let _ = self.socket.set_send_buffer_size(size);
    }

    fn nanos(&self) -> u64 {
        // The clock of a node that runs for 500 years.
        u64::try_from(self.made.elapsed().as_nanos()).unwrap_or(u64::MAX).max(1)
    }

    fn found_full(&self) {
        let _ =
            self.full_since.compare_exchange(0, self.nanos(), Ordering::Relaxed, Ordering::Relaxed);
    }

    fn has_sent(&self) {
        if self.full_since.load(Ordering::Relaxed) == 0 {
            return;
        }
        let since = self.full_since.swap(0, Ordering::Relaxed);
        if since == 0 {
            return;
        }
        let size = self.size.load(Ordering::Relaxed);
        let next = resized(size, Duration::from_nanos(self.nanos().saturating_sub(since)));
        if next.abs_diff(size) > size / 8 {
            self.resize(next);
        }
    }
}

impl AsyncUdpSocket for BoundedSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.inner).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let sent = self.inner.try_send(transmit);
        match &sent {
            Ok(()) => self.has_sent(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.found_full(),
            Err(_) => {}
        }
        sent
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.inner.poll_recv(context, buffers, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

#[cfg(test)]
mod tests {
    use quinn::{Runtime as _, TokioRuntime};
    use runtime::Environment;
    use tokio::time;

    use super::*;

    /// The size that a queue comes to on a path that takes so many bytes a second.
    fn settled(bytes_per_second: u64) -> usize {
        (0..20).fold(FIRST, |size, _| {
            let nanos = size as u64 * 1_000_000_000 / bytes_per_second;
            resized(size, Duration::from_nanos(nanos))
        })
    }

    #[test]
    fn a_queue_holds_what_leaves_within_the_target() {
        assert_eq!(settled(25_000_000), 31_250, "2.5 ms of 200 Mbit/s, and Linux counts twice");
        assert_eq!(settled(125_000_000), 156_250);
        assert_eq!((settled(1_000_000), settled(10_000_000_000)), (LEAST, MOST));
    }

    #[test]
    fn one_measurement_changes_a_queue_by_a_factor_of_two_at_most() {
        assert_eq!(resized(100_000, Duration::from_secs(9)), 50_000);
        assert_eq!(resized(40_000, Duration::ZERO), 80_000);
    }

    fn socket() -> std::net::UdpSocket {
        Environment::system().bind_udp(([127, 0, 0, 1], 0).into()).unwrap()
    }

    /// A socket that takes a datagram, or finds its queue full.
    #[derive(Debug)]
    struct Scripted(std::sync::Mutex<Vec<bool>>);

    impl AsyncUdpSocket for Scripted {
        fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
            unreachable!()
        }
        fn try_send(&self, _: &Transmit<'_>) -> io::Result<()> {
            let is_full = self.0.lock().unwrap().pop().unwrap();
            if is_full { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        }
        fn poll_recv(
            &self,
            _: &mut Context<'_>,
            _: &mut [IoSliceMut<'_>],
            _: &mut [RecvMeta],
        ) -> Poll<io::Result<usize>> {
            Poll::Pending
        }
        fn local_addr(&self) -> io::Result<SocketAddr> {
            Ok(([127, 0, 0, 1], 0).into())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_system_is_told_the_size_that_was_measured() {
        let socket = socket();
        let same = Socket::from(socket.try_clone().unwrap());
        let script = [false, false, true, true, false];
        let scripted = Scripted(std::sync::Mutex::new(script.into()));
        let bounded = BoundedSocket::new(Arc::new(scripted), socket);
        let first = same.send_buffer_size().unwrap();
        assert!(first >= FIRST);
        let transmit = Transmit {
            destination: ([127, 0, 0, 1], 9).into(),
            ecn: None,
            contents: &[0; 100],
            segment_size: None,
            src_ip: None,
        };
        let send = || bounded.try_send(&transmit).is_ok();
        assert!(send());
        assert_eq!(same.send_buffer_size().unwrap(), first, "it was not full");
        assert!(!send());
        time::advance(Duration::from_millis(1)).await;
        assert!(!send());
        time::advance(Duration::from_millis(1)).await;
        assert!(send());
        let smaller = same.send_buffer_size().unwrap();
        assert_eq!(smaller * FIRST, first * resized(FIRST, Duration::from_millis(2)));
        assert!(send());
        assert_eq!(same.send_buffer_size().unwrap(), smaller);
    }

    #[tokio::test]
    async fn datagrams_pass() {
        let socket = socket();
        let receiver = tokio::net::UdpSocket::from_std(self::socket()).unwrap();
        let same = socket.try_clone().unwrap();
        let bounded = BoundedSocket::new(TokioRuntime.wrap_udp_socket(socket).unwrap(), same);
        let transmit = Transmit {
            destination: receiver.local_addr().unwrap(),
            ecn: None,
            contents: b"a datagram",
            segment_size: None,
            src_ip: None,
        };
        while bounded.try_send(&transmit).is_err() {
            tokio::task::yield_now().await;
        }
        let mut into = [0; 32];
        let bytes = receiver.recv(&mut into).await.unwrap();
        assert_eq!(&into[..bytes], b"a datagram");
    }
}
