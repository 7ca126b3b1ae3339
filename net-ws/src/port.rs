//! Signals between the source and the sink of one connection.
//!
//! ```text
//!   WsSource ── pong, ping, close ──▶ Port ──▶ WsSink ──▶ wire
//! ```
//!
//! # Invariants
//!
//! * At most one pong, one ping and one close wait here, whatever the peer sends.
//! * The first close frame that was settled is kept: a connection ends for one reason.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use broadcaster::RoundTrip;
use bytes::Bytes;
use tokio::{sync::Notify, time::Instant};

/// Control frames that must be written.
#[derive(Debug, Default)]
pub(crate) struct Urgent {
    /// Payload of the newest ping that has not been answered.
    pub(crate) pong: Option<Bytes>,
    /// `true` if a ping must be sent.
    pub(crate) ping: bool,
}

/// Signals between the two halves of one connection.
#[derive(Debug, Default)]
pub(crate) struct Port {
    state: Mutex<State>,
    /// Set when anything urgent is waiting; lets the sink check without taking the lock.
    is_urgent: AtomicBool,
    wake: Notify,
    /// Set when a caller waits for bytes of the peer.
    is_doubted: AtomicBool,
    heard: Notify,
    round_trip: RoundTrip,
}

#[derive(Debug, Default)]
struct State {
    urgent: Urgent,
    /// Time at which a ping was handed to the sink that no pong has answered.
    pinged: Option<Instant>,
    close: Option<Bytes>,
}

impl Port {
    /// Queues a pong. It replaces one that still waits: RFC 6455 asks for an answer to the newest ping only.
    pub(crate) fn pong(&self, payload: Bytes) {
        self.state().urgent.pong = Some(payload);
        self.raise();
    }

    /// Queues a ping.
    pub(crate) fn ping(&self) {
        self.state().urgent.ping = true;
        self.raise();
    }

    /// Queues a ping, and resolves when the peer has sent anything.
    ///
    /// # Cancel safety
    ///
    /// Safe: the ping is sent all the same.
    pub(crate) async fn sign_of_life(&self) {
        let heard = self.heard.notified();
        tokio::pin!(heard);
        // Registers the waiter now. Bytes that arrive before the first poll would be missed otherwise.
        heard.as_mut().enable();
        self.is_doubted.store(true, Ordering::Release);
        self.ping();
        heard.await;
    }

    /// Records that the peer has sent something.
    pub(crate) fn heard(&self) {
        if self.is_doubted.load(Ordering::Relaxed) && self.is_doubted.swap(false, Ordering::AcqRel)
        {
            self.heard.notify_waiters();
        }
    }

    /// Notes a pong that was read at `heard`. One that no ping asked for says nothing.
    pub(crate) fn ponged(&self, heard: Instant) {
        if let Some(pinged) = self.state().pinged.take() {
            self.round_trip.set(heard.saturating_duration_since(pinged));
        }
    }

    /// The cell with the round-trip time, which pongs and the handshake of a dial set.
    pub(crate) const fn round_trip(&self) -> &RoundTrip {
        &self.round_trip
    }

    /// Settles the payload of the close frame. Only the first call has an effect.
    pub(crate) fn close(&self, payload: Bytes) {
        self.state().close.get_or_insert(payload);
    }

    /// Takes the payload of the close frame, if the source settled one.
    pub(crate) fn take_close(&self) -> Option<Bytes> {
        self.state().close.take()
    }

    /// Takes the control frames that must be written.
    pub(crate) fn take_urgent(&self) -> Urgent {
        if !self.is_urgent.swap(false, Ordering::AcqRel) {
            return Urgent::default();
        }
        let mut state = self.state();
        let urgent = std::mem::take(&mut state.urgent);
        if urgent.ping {
            state.pinged = Some(Instant::now());
        }
        urgent
    }

    /// Resolves when a control frame is waiting.
    ///
    /// # Cancel safety
    ///
    /// Safe: nothing is taken.
    pub(crate) async fn urgent(&self) {
        loop {
            let woken = self.wake.notified();
            if self.is_urgent.load(Ordering::Acquire) {
                return;
            }
            woken.await;
        }
    }

    fn raise(&self) {
        self.is_urgent.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    // Issue 10, 3: no transport told its round-trip time.
    #[tokio::test(start_paused = true)]
    async fn a_pong_tells_the_round_trip_of_the_ping_before_it_once() {
        let (port, millis) = (Port::default(), std::time::Duration::from_millis);
        port.ponged(Instant::now());
        assert_eq!(port.round_trip().get(), None, "nobody asked");
        port.ping();
        assert!(port.take_urgent().ping);
        tokio::time::advance(millis(20)).await;
        port.ponged(Instant::now());
        tokio::time::advance(millis(20)).await;
        port.ponged(Instant::now());
        assert_eq!(port.round_trip().get(), Some(millis(20)));
    }

    #[test]
    fn only_the_newest_pong_and_the_first_close_stay() {
        let port = Port::default();
        assert!(port.urgent().now_or_never().is_none());
        port.pong(Bytes::from_static(b"one"));
        port.pong(Bytes::from_static(b"two"));
        port.close(Bytes::from_static(b"first"));
        port.close(Bytes::from_static(b"second"));
        assert!(port.urgent().now_or_never().is_some());
        assert!(port.urgent().now_or_never().is_some(), "asking takes nothing");
        assert_eq!(port.take_urgent().pong.unwrap(), "two");
        assert!(port.urgent().now_or_never().is_none());
        assert_eq!(port.take_close().unwrap(), "first");
    }
}
