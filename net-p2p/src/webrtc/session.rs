//! One connection without I/O: the way, DTLS, SCTP, and its channels. Its streams and its task share it.
//!
//! # Invariants
//!
//! * A panic of a library ends the connection, and nothing else: whoever locks the session gets a value or the end.
//! * Once a connection has ended, what came before can still be read, and nothing can be written.

use std::{
    io,
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Mutex, PoisonError},
    task::{Context, Poll},
    time::Instant,
};

use bytes::Bytes;
use tokio::sync::Notify;

use super::{
    Ended,
    certificate::Fingerprint,
    channels::{Channels, Key},
    secured::{Outgoing, Secured},
};

/// A connection.
pub(super) struct Session {
    secured: Secured,
    channels: Channels,
    /// Packets that are not encrypted yet.
    packets: Vec<Bytes>,
    /// The reason why it has ended, until somebody takes it.
    ended: Option<Ended>,
    has_ended: bool,
}

impl Session {
    pub(super) fn new(secured: Secured, channels: Channels) -> Self {
        Self { secured, channels, packets: Vec::new(), ended: None, has_ended: false }
    }

    pub(super) fn channels(&mut self) -> &mut Channels {
        &mut self.channels
    }

    /// The certificate of the peer, once channels can be opened.
    pub(super) fn peer(&self) -> Option<Fingerprint> {
        self.secured.peer().filter(|_| self.channels.is_established())
    }

    /// Takes the reason why the connection has ended.
    pub(super) fn take_end(&mut self) -> Option<Ended> {
        self.ended.take()
    }

    fn end(&mut self, why: Ended) {
        if !std::mem::replace(&mut self.has_ended, true) {
            self.ended = Some(why);
            self.channels.wake_all();
        }
    }

    fn note(&mut self, done: Result<(), Ended>) {
        if let Err(why) = done {
            self.end(why);
        }
    }

    /// Takes a datagram of the peer.
    pub(super) fn receive(&mut self, datagram: &[u8], from: SocketAddr, now: Instant) {
        if self.has_ended {
            return;
        }
        let received = self.secured.receive(datagram, from, now);
        // Packets that came together with the end were sent before it.
        let passed_on = self.pass_on(now);
        self.note(received.and(passed_on));
    }

    fn pass_on(&mut self, now: Instant) -> Result<(), Ended> {
        if self.secured.peer().is_some() {
            self.channels.start()?;
        }
        while let Some(packet) = self.secured.poll_packet() {
            self.channels.receive(packet, now)?;
        }
        Ok(())
    }

    /// Does what is due.
    pub(super) fn tick(&mut self, now: Instant) {
        if self.has_ended {
            return;
        }
        let ticked = self.secured.tick(now).and_then(|()| self.pass_on(now));
        let ticked = ticked.and_then(|()| self.channels.tick(now));
        self.note(ticked);
    }

    /// The moment at which [`Self::tick`] is due.
    pub(super) fn timeout(&self) -> Instant {
        let secured = self.secured.timeout();
        self.channels.timeout().map_or(secured, |channels| channels.min(secured))
    }

    /// The next datagrams to send; none once there is nothing more to send now.
    pub(super) fn poll_transmit(&mut self, now: Instant) -> Option<Outgoing> {
        loop {
            if let Some(datagram) = self.secured.poll_transmit() {
                return Some(datagram);
            }
            if self.has_ended || self.secured.peer().is_none() {
                return None;
            }
            if self.packets.is_empty() {
                self.packets = self.channels.poll_transmit(now)?;
                self.packets.reverse();
            }
            if let Some(packet) = self.packets.pop() {
                let sent = self.secured.send(&packet, now);
                self.note(sent);
            }
        }
    }

    /// Tells the peer that nothing more comes, and ends the connection.
    pub(super) fn close(&mut self, now: Instant) {
        if !self.has_ended {
            self.secured.close(now);
            self.end(Ended::Here);
        }
    }

    /// Reads bytes of a stream; 0 at its end.
    pub(super) fn read(
        &mut self,
        key: Key,
        context: &Context<'_>,
        into: &mut [u8],
        now: Instant,
    ) -> Poll<io::Result<usize>> {
        match self.channels.read(key, context, into, now) {
            Poll::Pending if self.has_ended => gone(),
            read => read,
        }
    }

    /// Writes bytes to a stream.
    pub(super) fn write(
        &mut self,
        key: Key,
        context: &Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.has_ended {
            return gone();
        }
        self.channels.write(key, context, bytes)
    }
}

/// The error of a stream whose connection has ended.
pub(super) fn gone<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()))
}

/// A session, and the wake-up of its task.
pub(super) struct Shared {
    session: Mutex<Session>,
    /// Told when a stream has changed something that the task has to send.
    pub(super) changed: Notify,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn new(session: Session) -> Self {
        Self { session: Mutex::new(session), changed: Notify::new() }
    }

    /// Calls `with` with the session. `None` if a library panicked, now or before: the connection has ended then.
    pub(super) fn with<T>(&self, with: impl FnOnce(&mut Session) -> T) -> Option<T> {
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(session.ended, Some(Ended::Panicked)) {
            return None;
        }
        let session = &mut *session;
        let done = catch_unwind(AssertUnwindSafe(|| with(session)));
        if done.is_err() {
            session.has_ended = true;
            session.ended = Some(Ended::Panicked);
            // Waking touches wakers only.
            session.channels.wake_all();
            self.changed.notify_one();
        }
        done.ok()
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, task::Waker};

    use rand::{SeedableRng as _, rngs::StdRng};

    use super::*;
    use crate::webrtc::{
        Side, WebRtcCertificate, WebRtcVersion, channels::HANDSHAKE_KEY, credentials::Credentials,
        path::Path, stream::WebRtcStream,
    };

    // Issue 13, 3. sctp-proto 0.10.8 panicked at a peer that began an association towards the end that dials.
    #[test]
    fn a_panic_of_a_library_ends_the_connection_and_nothing_else() {
        let now = Instant::now();
        let credentials = Credentials::draw(WebRtcVersion::V1, &mut StdRng::seed_from_u64(1));
        let path = Path::listener(credentials, ([127, 0, 0, 1], 1).into(), now);
        let config = Arc::new(dimpl::Config::builder().build().unwrap());
        let certificate = WebRtcCertificate::generate().unwrap().for_dtls();
        let secured = Secured::listener(path, (config, certificate), now);
        let shared = Arc::new(Shared::new(Session::new(secured, Channels::new(Side::Listener))));
        let mut stream = WebRtcStream::new(Arc::clone(&shared), HANDSHAKE_KEY);
        let mut context = Context::from_waker(Waker::noop());
        assert!(stream.poll_read(&mut context, &mut [0]).is_pending());
        assert_eq!(shared.with(|_| -> u8 { panic!("a bug") }), None);
        assert_eq!(shared.with(|_| 1), None, "nobody gets to a session that is half changed");
        let kind = |polled| match polled {
            Poll::Ready(Err::<usize, io::Error>(error)) => error.kind(),
            other => panic!("{other:?}"),
        };
        let read = kind(stream.poll_read(&mut context, &mut [0]));
        let written = kind(stream.poll_write(&mut context, b"x"));
        assert_eq!([read, written], [io::ErrorKind::ConnectionAborted; 2]);
    }
}
