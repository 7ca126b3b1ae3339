//! What the two halves of a connection tell each other.
//!
//! ```text
//!   WsSource ── pong, ping, close ──▶ Port ──▶ WsSink ──▶ wire
//! ```
//!
//! # Invariants
//!
//! * At most one pong, one ping and one close wait here, whatever the peer sends.
//! * The first close stays: a connection ends for one reason.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use tokio::sync::Notify;

/// What has to be written besides messages.
#[derive(Debug, Default)]
pub(crate) struct Urgent {
    /// The payload of the newest ping that has not been answered.
    pub(crate) pong: Option<Bytes>,
    /// Whether to ask the peer for a sign of life.
    pub(crate) ping: bool,
}

/// Joins the two halves of one connection.
#[derive(Debug, Default)]
pub(crate) struct Port {
    state: Mutex<State>,
    /// Whether anything urgent waits, to be asked without a lock.
    is_urgent: AtomicBool,
    wake: Notify,
    /// Whether somebody waits for the peer to send anything.
    is_doubted: AtomicBool,
    heard: Notify,
}

#[derive(Debug, Default)]
struct State {
    urgent: Urgent,
    close: Option<Bytes>,
}

impl Port {
    /// Has a ping answered. A pong that still waits is replaced: the newest says it all.
    pub(crate) fn pong(&self, payload: Bytes) {
        self.state().urgent.pong = Some(payload);
        self.raise();
    }

    /// Has the peer asked for a sign of life.
    pub(crate) fn ping(&self) {
        self.state().urgent.ping = true;
        self.raise();
    }

    /// Has the peer asked for a sign of life, and resolves when it has sent anything.
    ///
    /// # Cancel safety
    ///
    /// Safe: the ping is sent all the same.
    pub(crate) async fn sign_of_life(&self) {
        let heard = self.heard.notified();
        tokio::pin!(heard);
        // From now on, and not only once it is polled.
        heard.as_mut().enable();
        self.is_doubted.store(true, Ordering::Release);
        self.ping();
        heard.await;
    }

    /// The peer has sent something.
    pub(crate) fn heard(&self) {
        if self.is_doubted.load(Ordering::Relaxed) && self.is_doubted.swap(false, Ordering::AcqRel)
        {
            self.heard.notify_waiters();
        }
    }

    /// Says what the close frame will hold, unless that is settled.
    pub(crate) fn close(&self, payload: Bytes) {
        self.state().close.get_or_insert(payload);
    }

    /// The payload of the close frame, if the source settled it.
    pub(crate) fn take_close(&self) -> Option<Bytes> {
        self.state().close.take()
    }

    /// Takes what is urgent.
    pub(crate) fn take_urgent(&self) -> Urgent {
        if !self.is_urgent.swap(false, Ordering::AcqRel) {
            return Urgent::default();
        }
        std::mem::take(&mut self.state().urgent)
    }

    /// Resolves when something urgent waits.
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
