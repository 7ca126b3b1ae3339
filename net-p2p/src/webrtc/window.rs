//! The bytes that SCTP keeps until they are read, and the moment at which the peer has to hear of room again.
//!
//! The library tells its peer how much room is left, and nobody else, so both follow from the packets that it sends.
//! It also tells the peer only in answer to data. A peer that was told of no room sends no data, so without more it
//! would ask again after its retransmission timeout, which doubles each time.
//!
//! # Invariants
//!
//! * The count is exact whenever the library has answered everything.

/// Types of chunks: data, its acknowledgement, and the two that begin and end an association. Source: RFC 9260, 3.2.
const DATA: u8 = 0;
const SACK: u8 = 3;
const INIT: u8 = 1;
const ABORT: u8 = 6;

/// Length of the header of a packet. Source: RFC 9260, 3.1.
const HEADER_BYTES: usize = 12;

/// Yields type and value of each chunk of a packet.
pub(crate) fn chunks(packet: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut rest = packet.get(HEADER_BYTES..).unwrap_or_default();
    std::iter::from_fn(move || {
        let &[kind, _flags, high, low, ..] = rest else { return None };
        let length = usize::from(u16::from_be_bytes([high, low]));
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// Returns `true` for a packet with nothing but data.
pub(super) fn is_data(packet: &[u8]) -> bool {
    let mut kinds = chunks(packet).map(|(kind, _)| kind).peekable();
    kinds.peek().is_some() && kinds.all(|kind| kind == DATA)
}

/// Returns `true` for a packet by which the peer begins an association.
pub(super) fn is_init(packet: &[u8]) -> bool {
    chunks(packet).next().is_some_and(|(kind, _)| kind == INIT)
}

/// Returns `true` for a packet by which the peer ends the association at once.
pub(super) fn is_abort(packet: &[u8]) -> bool {
    chunks(packet).any(|(kind, _)| kind == ABORT)
}

/// The room that a packet of this node tells of.
fn room_told(packet: &[u8]) -> Option<usize> {
    let (_, value) = chunks(packet).find(|(kind, _)| *kind == SACK)?;
    let room = value.get(4..8)?.try_into().ok()?;
    usize::try_from(u32::from_be_bytes(room)).ok()
}

/// The window of a connection.
#[derive(Debug)]
pub(super) struct Window {
    bytes: usize,
    /// Kept by the library when it told so last.
    told: usize,
    /// Read since then.
    read: usize,
    /// `true` if the library was made to tell again since then.
    is_asked: bool,
}

impl Window {
    /// A window of so many bytes.
    pub(super) const fn new(bytes: usize) -> Self {
        Self { bytes, told: 0, read: 0, is_asked: false }
    }

    /// Looks at a packet that is sent.
    pub(super) fn sends(&mut self, packet: &[u8]) {
        if let Some(room) = room_told(packet) {
            *self = Self { told: self.bytes.saturating_sub(room), ..Self::new(self.bytes) };
        }
    }

    /// Notes that bytes were read.
    pub(super) fn read(&mut self, bytes: usize) {
        self.read += bytes;
    }

    /// Bytes that the library keeps.
    pub(super) fn held(&self) -> usize {
        self.told.saturating_sub(self.read)
    }

    /// Returns `true`, once, if the peer was told of little room and there is much now.
    pub(super) fn must_tell(&mut self) -> bool {
        let is_due = self.told > self.bytes / 2 && self.held() <= self.bytes / 4;
        is_due && !std::mem::replace(&mut self.is_asked, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(chunks: &[(u8, &[u8])]) -> Vec<u8> {
        let mut packet = vec![0; HEADER_BYTES];
        for (kind, value) in chunks {
            let length = u16::try_from(4 + value.len()).unwrap();
            packet.extend([*kind, 0]);
            packet.extend(length.to_be_bytes());
            packet.extend_from_slice(value);
            packet.resize(packet.len().next_multiple_of(4), 0);
        }
        packet
    }

    fn sack(room: u32) -> Vec<u8> {
        let value = [&[0; 4][..], &room.to_be_bytes(), &[0; 4]].concat();
        packet(&[(9, b"abc"), (SACK, &value)])
    }

    #[test]
    fn the_count_follows_what_the_peer_is_told() {
        let mut window = Window::new(1_000);
        window.sends(&packet(&[(DATA, b"abc")]));
        assert_eq!(window.held(), 0);
        window.sends(&sack(300));
        assert_eq!(window.held(), 700);
        window.read(300);
        assert_eq!((window.held(), window.must_tell()), (400, false));
        window.read(200);
        assert!(window.must_tell() && !window.must_tell());
        window.sends(&sack(800));
        assert_eq!((window.held(), window.must_tell()), (200, false));
    }

    #[test]
    fn packets_are_told_apart_and_broken_ones_are_none() {
        assert!(is_data(&packet(&[(DATA, b"abc"), (DATA, b"d")])));
        assert!(!is_data(&packet(&[(DATA, b"abc"), (SACK, b"")])));
        assert!(is_abort(&packet(&[(DATA, b"abc"), (ABORT, b"")])));
        for broken in [&[][..], &[0; 12], &[0; 15], &[0; 40]] {
            assert!(!is_data(broken) && !is_abort(broken) && room_told(broken).is_none());
        }
    }
}
