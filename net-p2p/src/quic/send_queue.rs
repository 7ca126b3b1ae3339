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
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
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

/// Time in which a full queue shall empty. Chosen by measuring: with it a vote arrives within 4.3 ms behind bulk of 1 MiB at 200
/// Mbit/s in 99 of 100 cases, with 2.5 ms within 5.0, and with 1.5 ms no sooner.
const TARGET: Duration = Duration::from_millis(2);

/// Size with which a queue begins, as the system is given it: Linux counts twice as many bytes, with its own for each
/// datagram. Chosen: a little more than [`TARGET`] at 200 Mbit/s.
const FIRST: usize = 32 * 1024;

/// Smallest and largest size. Chosen: two batches of quinn, and what Linux allows at most unless it is told otherwise.
const LEAST: usize = 16 * 1024;
const MOST: usize = 208 * 1024;

/// Part of a measurement that counts: it may be wrong, because the task that writes may have waited for a processor.
const SMOOTHING: usize = 8;

/// The size of a queue, from one measurement to the next.
#[derive(Debug)]
struct Size {
    /// As the system was told.
    told: usize,
    /// The smoothed estimate of what it should be.
    wanted: usize,
}

impl Size {
    const fn new() -> Self {
        Self { told: FIRST, wanted: FIRST }
    }

    /// Takes the time in which half of a full queue has emptied: the system says that a socket can be written to once half of
    /// its queue is free. Returns the size to tell the system, if it is to be another one.
    fn measure(&mut self, half_emptied_in: Duration) -> Option<usize> {
        let nanos = half_emptied_in.as_nanos().max(1);
        let sample = self.told as u128 * TARGET.as_nanos() / (2 * nanos);
        let sample = usize::try_from(sample).unwrap_or(MOST).min(2 * self.told);
        self.wanted = self.wanted - self.wanted / SMOOTHING + sample / SMOOTHING;
        self.wanted = self.wanted.clamp(LEAST, MOST);
        if self.wanted.abs_diff(self.told) <= self.told / SMOOTHING {
            return None;
        }
        self.told = self.wanted;
        Some(self.told)
    }
}

/// A socket of quinn with such a queue.
#[derive(Debug)]
pub(super) struct BoundedSocket {
    inner: Arc<dyn AsyncUdpSocket>,
    /// The same socket.
    socket: Socket,
    size: Mutex<Size>,
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
            size: Mutex::new(Size::new()),
            made: Instant::now(),
            full_since: AtomicU64::new(0),
        };
        this.tell(FIRST);
        this
    }

    fn tell(&self, size: usize) {
        // A system that refuses leaves the queue as it was: votes then wait longer behind bulk.
        let _ = self.socket.set_send_buffer_size(size);
    }

    fn nanos(&self) -> u64 {
        // The clock of a node that runs for 500 years.
        u64::try_from(self.made.elapsed().as_nanos()).unwrap_or(u64::MAX).max(1)
    }

    fn found_full(&self) {
        // A failure is a queue that was full already.
        let (relaxed, now) = (Ordering::Relaxed, self.nanos());
        let _ = self.full_since.compare_exchange(0, now, relaxed, relaxed);
    }

    fn has_sent(&self) {
        // Almost always zero, which costs less to read than to swap.
        if self.full_since.load(Ordering::Relaxed) == 0 {
            return;
        }
        let since = self.full_since.swap(0, Ordering::Relaxed);
        if since == 0 {
            return;
        }
        let took = Duration::from_nanos(self.nanos().saturating_sub(since));
        let told = self.size.lock().unwrap_or_else(PoisonError::into_inner).measure(took);
        if let Some(size) = told {
            self.tell(size);
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
        let mut size = Size::new();
        for _ in 0..200 {
            let nanos = size.told as u64 * 1_000_000_000 / bytes_per_second;
            size.measure(Duration::from_nanos(nanos));
        }
        size.told
    }

    #[test]
    fn a_queue_holds_what_leaves_within_the_target() {
        // Linux counts twice.
        for rate in [16_000_000, 25_000_000, 125_000_000] {
            let half = (rate as f64 * TARGET.as_secs_f64() / 2.0) as usize;
            assert!(settled(rate).abs_diff(half) <= half / 4, "{rate}: {}", settled(rate));
        }
        assert!(settled(1_000_000) <= LEAST * 5 / 4);
        assert_eq!(settled(10_000_000_000), MOST);
    }

    #[test]
    fn one_measurement_changes_little_and_a_few_change_much() {
        let mut size = Size::new();
        assert_eq!(size.measure(Duration::from_secs(9)), None, "an eighth is kept");
        let steps = (0..100).filter_map(|_| size.measure(Duration::ZERO)).collect::<Vec<_>>();
        assert!(steps.windows(2).all(|pair| pair[0] < pair[1] && pair[1] <= pair[0] * 5 / 4));
        assert_eq!(steps.last(), Some(&MOST));
    }

    fn socket() -> std::net::UdpSocket {
        Environment::system().bind_udp(([127, 0, 0, 1], 0).into()).unwrap()
    }

    /// A socket that takes a datagram, or finds its queue full.
    #[derive(Debug)]
    struct Scripted(Mutex<Vec<bool>>);

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
        let script = [false].into_iter().chain([false, true, true].repeat(20)).chain([false]);
        let scripted = Scripted(Mutex::new(script.collect()));
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
        for _ in 0..20 {
            assert!(!send());
            time::advance(Duration::from_millis(5)).await;
            assert!(!send());
            time::advance(Duration::from_millis(5)).await;
            assert!(send());
        }
        let smaller = same.send_buffer_size().unwrap();
        assert!(smaller < first * 2 / 3, "{smaller} of {first}");
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
