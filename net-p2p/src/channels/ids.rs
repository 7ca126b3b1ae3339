//! The IDs of the channels that this node opens. Source: RFC 8832, 6: even ones for the client of DTLS, odd ones for the
//! server.
//!
//! # Invariants
//!
//! * No ID is in use twice, and that of the Noise handshake is never among them.

use std::collections::VecDeque;

use super::Side;

/// The ID of the channel for the Noise handshake. Source: libp2p specifications, `webrtc/webrtc-direct.md`.
pub(crate) const HANDSHAKE: u16 = 0;

/// Largest ID. Source: RFC 8832, 6: 65,535 is none.
const MAX_ID: u16 = u16::MAX - 1;

/// The IDs of one end.
#[derive(Debug)]
pub(crate) struct Ids {
    /// The lowest one that was never used. It is no ID once there is none.
    next: u16,
    given_back: VecDeque<u16>,
    parity: u16,
}

impl Ids {
    pub(crate) const fn new(side: Side) -> Self {
        let (next, parity) = match side {
            Side::Dialer => (2, 0),
            Side::Listener => (1, 1),
        };
        Self { next, given_back: VecDeque::new(), parity }
    }

    /// Returns `true` for an ID that the peer must not use.
    pub(crate) const fn is_own(&self, id: u16) -> bool {
        id % 2 == self.parity && id != HANDSHAKE
    }

    /// The number of IDs in use.
    pub(crate) fn in_use(&self) -> usize {
        let first = if self.parity == 0 { 2 } else { 1 };
        usize::from(self.next - first) / 2 - self.given_back.len()
    }

    /// The next ID, an old one first; `None` while all are in use.
    pub(crate) fn take(&mut self) -> Option<u16> {
        if let Some(id) = self.given_back.pop_front() {
            return Some(id);
        }
        let id = self.next;
        (id <= MAX_ID).then(|| {
            self.next = id.saturating_add(2);
            id
        })
    }

    /// Takes an ID back that both ends have closed. One that is no ID of this end is left alone.
    pub(crate) fn give_back(&mut self, id: u16) {
        if self.is_own(id) && id < self.next && !self.given_back.contains(&id) {
            self.given_back.push_back(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_has_its_own_and_uses_them_again() {
        let mut ids = Ids::new(Side::Dialer);
        assert_eq!([ids.take(), ids.take()], [Some(2), Some(4)]);
        assert_eq!(ids.in_use(), 2);
        for id in [0, 1, 6, 2, 2] {
            ids.give_back(id);
        }
        assert_eq!(ids.in_use(), 1);
        assert_eq!([ids.take(), ids.take()], [Some(2), Some(6)]);
        assert_eq!(Ids::new(Side::Listener).take(), Some(1));
    }

    #[test]
    fn they_come_to_an_end() {
        for side in [Side::Dialer, Side::Listener] {
            let mut ids = Ids::new(side);
            let mut last = 0;
            while let Some(id) = ids.take() {
                last = id;
            }
            assert!(last >= MAX_ID - 1 && ids.take().is_none());
            ids.give_back(last);
            assert_eq!(ids.take(), Some(last));
        }
    }
}
