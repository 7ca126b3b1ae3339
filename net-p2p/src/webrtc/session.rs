//! One connection without I/O: the way, DTLS, SCTP, and its channels.

use std::{net::SocketAddr, time::Instant};

use bytes::Bytes;

use super::{
    association::Sctp,
    secured::{Outgoing, Secured},
};
use crate::channels::{self, Channels, Ended, Fingerprint};

/// A connection.
pub(super) struct Session {
    secured: Secured,
    channels: Channels<Sctp>,
    /// Packets that are not encrypted yet.
    packets: Vec<Bytes>,
}

impl Session {
    pub(super) fn new(secured: Secured, channels: Channels<Sctp>) -> Self {
        Self { secured, channels, packets: Vec::new() }
    }

    /// The certificate of the peer, once channels can be opened.
    pub(super) fn peer(&mut self) -> Option<Fingerprint> {
        self.secured.peer().filter(|_| self.channels.association().is_established())
    }

    fn note(&mut self, done: Result<(), Ended>) {
        if let Err(why) = done {
            self.channels.end(why);
        }
    }

    /// Takes a datagram of the peer.
    pub(super) fn receive(&mut self, datagram: &[u8], from: SocketAddr, now: Instant) {
        if self.channels.has_ended() {
            return;
        }
        let received = self.secured.receive(datagram, from, now);
        // Packets that came together with the end were sent before it.
        let passed_on = self.pass_on(now);
        self.note(received.and(passed_on));
    }

    fn pass_on(&mut self, now: Instant) -> Result<(), Ended> {
        if self.secured.peer().is_some() {
            self.channels.association().start()?;
        }
        while let Some(packet) = self.secured.poll_packet() {
            self.channels.association().receive(packet, now)?;
            self.channels.settle(now)?;
        }
        Ok(())
    }

    /// Does what is due.
    pub(super) fn tick(&mut self, now: Instant) {
        if self.channels.has_ended() {
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
            if self.channels.has_ended() || self.secured.peer().is_none() {
                return None;
            }
            if self.packets.is_empty() {
                self.packets = self.channels.association().poll_transmit(now)?;
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
        if !self.channels.has_ended() {
            self.secured.close(now);
            self.channels.end(Ended::Here);
        }
    }
}

impl channels::Session for Session {
    type Association = Sctp;

    fn channels(&mut self) -> &mut Channels<Sctp> {
        &mut self.channels
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::Arc,
        task::{Context, Poll, Waker},
    };

    use rand::{SeedableRng as _, rngs::StdRng};

    use super::*;
    use crate::{
        channels::{ChannelStream, Shared, Side},
        webrtc::{WebRtcCertificate, WebRtcVersion, credentials::Credentials, path::Path},
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
        let shared = Arc::new(Shared::new(Session::new(
            secured,
            Channels::new(Side::Listener, Sctp::new(Side::Listener)),
        )));
        let mut stream = ChannelStream::handshake(Arc::clone(&shared));
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
