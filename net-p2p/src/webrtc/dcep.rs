//! The two messages by which a data channel is opened. Source: RFC 8832.

/// Type of the message that opens a channel.
const OPEN: u8 = 3;

/// Type of the answer.
const ACK: u8 = 2;

/// Length of what stands in front of label and protocol.
const OPEN_BYTES: usize = 12;

/// The answer.
pub(super) const ACKNOWLEDGEMENT: &[u8] = &[ACK];

/// A reliable, ordered channel of normal priority, without a label and a protocol. Source: RFC 8832, 5.1.
pub(super) const OPENING: &[u8] = &[OPEN, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// A message of the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dcep {
    /// It opens the channel.
    Open,
    /// It has taken the channel.
    Acknowledged,
}

impl Dcep {
    /// Returns `None` for bytes that are no such message. Labels and protocols are for later versions.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [OPEN, ..] if bytes.len() >= OPEN_BYTES => Some(Self::Open),
            [ACK, ..] => Some(Self::Acknowledged),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_messages_are_read_and_others_refused() {
        assert_eq!(Dcep::read(OPENING), Some(Dcep::Open));
        assert_eq!(Dcep::read(ACKNOWLEDGEMENT), Some(Dcep::Acknowledged));
        let labelled = [OPENING, b"label".as_slice()].concat();
        assert_eq!(Dcep::read(&labelled), Some(Dcep::Open));
        for other in [&[][..], &[9], &OPENING[..11]] {
            assert_eq!(Dcep::read(other), None, "{other:?}");
        }
    }
}
