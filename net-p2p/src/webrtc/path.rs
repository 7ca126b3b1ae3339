//! The way of the datagrams of one connection: what is left of ICE where one end has one address that both know.
//!
//! The end that listens answers checks, and sends to the address that the last check named. The end that dials makes
//! the checks, one at a time until the first is answered, and then as signs of life. Source: RFC 8445, 2.5 (lite
//! implementations), RFC 7675.
//!
//! # Invariants
//!
//! * Only a message that was made with the password of its receiver counts as heard, or changes the address.
//! * A peer that was not heard for [`SILENCE_LIMIT`] is given up.

use std::{
    net::SocketAddr,
    panic::catch_unwind,
    time::{Duration, Instant},
};

use ice::{
    DefaultSha1HmacProvider, Sha1HmacProvider as _,
    stun::{StunMessage, TransId},
};

use super::credentials::Credentials;

/// Longest silence of a peer. Source: as with QUIC, and RFC 7675, 5.1.
pub(super) const SILENCE_LIMIT: Duration = Duration::from_secs(30);

/// Interval of checks until one is answered. Source: RFC 8445, 14.2 recommends 50 ms; chosen: twice that.
const FIRST_CHECKS: Duration = Duration::from_millis(100);

/// Interval of checks on a way that is open. Source: RFC 7675, 5.1.
const CHECKS: Duration = Duration::from_secs(5);

/// Checks whose answers may still come.
const CHECKS_UNDER_WAY: usize = 8;

/// Largest message of STUN that is written, in bytes.
const MAX_STUN_BYTES: usize = 1_024;

/// Priority of a candidate. Source: RFC 8445, 5.1.2.1, for a peer-reflexive one.
const PRIORITY: u32 = (110 << 24) | (65_535 << 8) | 255;

fn sha1_hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 20] {
    DefaultSha1HmacProvider.sha1_hmac(key, parts)
}

/// Returns `true` for a datagram that is one of STUN. Source: RFC 7983, 7.
pub(super) fn is_stun(datagram: &[u8]) -> bool {
    matches!(datagram.first(), Some(0..=3))
}

/// Returns `true` for a datagram that is one of DTLS. Source: RFC 7983, 7.
pub(super) fn is_dtls(datagram: &[u8]) -> bool {
    matches!(datagram.first(), Some(20..=63))
}

/// Returns `true` for a datagram that begins a handshake of DTLS. Source: RFC 6347, 4.1 and 4.3.2.
pub(super) fn is_client_hello(datagram: &[u8]) -> bool {
    const HANDSHAKE: u8 = 22;
    const CLIENT_HELLO: u8 = 1;
    const RECORD_HEADER_BYTES: usize = 13;
    datagram.first() == Some(&HANDSHAKE) && datagram.get(RECORD_HEADER_BYTES) == Some(&CLIENT_HELLO)
}

/// Reads a message of STUN. A reader that panics has found none.
fn read(datagram: &[u8]) -> Option<StunMessage<'_>> {
    catch_unwind(|| StunMessage::parse(datagram).ok()).ok().flatten()
}

fn write(message: StunMessage<'_>, password: &str) -> Option<Vec<u8>> {
    let mut bytes = vec![0; MAX_STUN_BYTES];
    let length = message.to_bytes(Some(password.as_bytes()), &mut bytes, sha1_hmac).ok()?;
    bytes.truncate(length);
    Some(bytes)
}

/// A check of a peer.
#[derive(Debug)]
pub(super) struct Check {
    /// The answer to it.
    pub(super) answer: Vec<u8>,
    pub(super) credentials: Credentials,
}

impl Check {
    /// Reads a check that came to the end that listens; `None` for all else, and for one that was not made with the
    /// password that its own user name says.
    pub(super) fn read(datagram: &[u8], from: SocketAddr) -> Option<Self> {
        let message = read(datagram).filter(StunMessage::is_binding_request)?;
        let credentials = Credentials::read(message.username()?)?;
        let answer = answer(&message, from, &credentials.listener)?;
        Some(Self { answer, credentials })
    }
}

fn answer(check: &StunMessage<'_>, from: SocketAddr, password: &str) -> Option<Vec<u8>> {
    check.verify(password.as_bytes(), sha1_hmac).then_some(())?;
    write(StunMessage::binding_reply(check.trans_id(), from), password)
}

/// The side of this end.
#[derive(Debug)]
enum Side {
    Listener,
    Dialer { is_open: bool, next: Instant, under_way: Vec<TransId> },
}

/// The way of one connection.
#[derive(Debug)]
pub(super) struct Path {
    credentials: Credentials,
    remote: SocketAddr,
    heard: Instant,
    side: Side,
}

impl Path {
    /// The way to a peer that has dialled from `remote`.
    pub(super) fn listener(credentials: Credentials, remote: SocketAddr, now: Instant) -> Self {
        Self { credentials, remote, heard: now, side: Side::Listener }
    }

    /// The way to a peer that is dialled at `remote`.
    pub(super) fn dialer(credentials: Credentials, remote: SocketAddr, now: Instant) -> Self {
        let side = Side::Dialer { is_open: false, next: now, under_way: Vec::new() };
        Self { credentials, remote, heard: now, side }
    }

    /// The address of the peer.
    pub(super) const fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// `true` once datagrams other than checks may be sent.
    pub(super) const fn is_open(&self) -> bool {
        match self.side {
            Side::Listener => true,
            Side::Dialer { is_open, .. } => is_open,
        }
    }

    /// Notes that the peer is there, because it has sent something that nobody else can make.
    pub(super) fn heard(&mut self, now: Instant) {
        self.heard = now;
    }

    /// `true` if the peer has not been heard for too long.
    pub(super) fn is_lost(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.heard) >= SILENCE_LIMIT
    }

    /// The password of messages to this end.
    fn own_password(&self) -> &str {
        match self.side {
            Side::Listener => &self.credentials.listener,
            Side::Dialer { .. } => self.credentials.dialer_password(),
        }
    }

    /// Takes a message of STUN, and returns the answer to it.
    pub(super) fn receive(
        &mut self,
        datagram: &[u8],
        from: SocketAddr,
        now: Instant,
    ) -> Option<Vec<u8>> {
        let message = read(datagram)?;
        if message.is_binding_request() {
            let answer = answer(&message, from, self.own_password())?;
            self.heard(now);
            if matches!(self.side, Side::Listener) && message.use_candidate() {
                self.remote = from;
            }
            return Some(answer);
        }
        if let Side::Dialer { is_open, next, under_way } = &mut self.side
            && message.is_successful_binding_response()
            && under_way.contains(&message.trans_id())
            && message.verify(self.credentials.listener.as_bytes(), sha1_hmac)
        {
            under_way.clear();
            self.heard = now;
            if !std::mem::replace(is_open, true) {
                *next = now + CHECKS;
            }
        }
        None
    }

    /// The next check to send, if it is time.
    pub(super) fn poll_check(&mut self, now: Instant) -> Option<Vec<u8>> {
        let Side::Dialer { is_open, next, under_way } = &mut self.side else { return None };
        if now < *next {
            return None;
        }
        *next = now + if *is_open { CHECKS } else { FIRST_CHECKS };
        if under_way.len() >= CHECKS_UNDER_WAY {
            under_way.remove(0);
        }
        let id = TransId::new();
        under_way.push(id);
        let username = self.credentials.username();
        let check = StunMessage::binding_request(&username, id, true, 1, PRIORITY, true);
        write(check, &self.credentials.listener)
    }

    /// The moment at which [`Self::poll_check`] or [`Self::is_lost`] is asked next.
    pub(super) fn timeout(&self) -> Instant {
        let lost = self.heard + SILENCE_LIMIT;
        match &self.side {
            Side::Listener => lost,
            Side::Dialer { next, .. } => lost.min(*next),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;
    use crate::webrtc::credentials::WebRtcVersion;

    const DIALER: &str = "192.0.2.1:5000";
    const LISTENER: &str = "192.0.2.2:4002";

    fn pair(version: WebRtcVersion, now: Instant) -> (Path, Credentials) {
        let credentials = Credentials::draw(version, &mut StdRng::seed_from_u64(7));
        (Path::dialer(credentials.clone(), LISTENER.parse().unwrap(), now), credentials)
    }

    #[test]
    fn a_check_opens_the_way_of_either_version() {
        let now = Instant::now();
        for version in [WebRtcVersion::V1, WebRtcVersion::V2] {
            let (mut dialer, credentials) = pair(version, now);
            let check = dialer.poll_check(now).unwrap();
            assert!(is_stun(&check) && dialer.poll_check(now).is_none() && !dialer.is_open());
            let read = Check::read(&check, DIALER.parse().unwrap()).unwrap();
            assert_eq!(read.credentials, credentials);
            let mut listener = Path::listener(credentials, DIALER.parse().unwrap(), now);
            let later = now + Duration::from_secs(20);
            let answer = listener.receive(&check, DIALER.parse().unwrap(), later).unwrap();
            assert_eq!(answer, read.answer);
            assert_eq!(dialer.receive(&answer, LISTENER.parse().unwrap(), now), None);
            assert!(dialer.is_open());
            assert!(!listener.is_lost(later + SILENCE_LIMIT / 2));
            assert!(listener.is_lost(later + SILENCE_LIMIT));
        }
    }

    #[test]
    fn a_peer_that_moves_is_answered_at_its_new_address() {
        let now = Instant::now();
        let (mut dialer, credentials) = pair(WebRtcVersion::V1, now);
        let mut listener = Path::listener(credentials, DIALER.parse().unwrap(), now);
        let check = dialer.poll_check(now).unwrap();
        let moved = "192.0.2.9:7".parse().unwrap();
        listener.receive(&check, moved, now).unwrap();
        assert_eq!(listener.remote(), moved);
    }

    #[test]
    fn a_message_of_somebody_else_is_not_heard() {
        let now = Instant::now();
        let (mut dialer, _) = pair(WebRtcVersion::V1, now);
        let other = Credentials::draw(WebRtcVersion::V1, &mut StdRng::seed_from_u64(8));
        let mut listener = Path::listener(other, DIALER.parse().unwrap(), now);
        let check = dialer.poll_check(now).unwrap();
        let later = now + SILENCE_LIMIT;
        let moved = "192.0.2.9:7".parse().unwrap();
        assert_eq!(listener.receive(&check, moved, later), None);
        assert!(listener.is_lost(later) && listener.remote() == DIALER.parse().unwrap());
        let mut forged = check.clone();
        let last = forged.len() - 10;
        forged[last] ^= 1;
        assert!(Check::read(&forged, moved).is_none());
    }

    proptest! {
        #[test]
        fn any_datagram_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            Check::read(&bytes, DIALER.parse().unwrap());
        }

        // Changes of a real message get further into the reader than random bytes.
        #[test]
        fn a_changed_check_is_read_or_refused(changes in proptest::collection::vec((0_usize..200, any::<u8>()), 1..6)) {
            let (mut dialer, _) = pair(WebRtcVersion::V2, Instant::now());
            let mut check = dialer.poll_check(Instant::now()).unwrap_or_default();
            for (at, byte) in changes {
                if let Some(place) = check.get_mut(at) {
                    *place = byte;
                }
            }
            Check::read(&check, DIALER.parse().unwrap());
        }
    }
}
