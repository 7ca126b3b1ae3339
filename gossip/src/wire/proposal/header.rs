//! The header of a zstd frame. Source: RFC 8878, section 3.1.1.1.

use super::MAGIC;

/// The bit of the descriptor that a reader has to refuse.
const RESERVED: u8 = 0b1000;

/// The bit of the descriptor that says that a checksum follows the blocks.
const CHECKSUM: u8 = 0b100;

/// The bit of the descriptor that says that the content is the window.
const SINGLE_SEGMENT: u8 = 0b10_0000;

/// Smallest window that a header can write, as a power of two of bytes.
const MIN_WINDOW_LOG: u32 = 10;

/// Largest window of which zstd reads a header at all, as a power of two of bytes.
const READABLE_WINDOW_LOG: u32 = 31;

/// Everything that a frame announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    descriptor: u8,
    /// In bytes.
    pub(super) window: u64,
    /// Zero stands for none.
    pub(super) dictionary: u32,
    /// Bytes of content.
    pub(super) content: Option<u64>,
    /// Bytes of the header itself, with the magic.
    pub(super) bytes: usize,
}

impl Header {
    /// `None` if the header is not complete.
    pub(super) fn read(payload: &[u8]) -> Option<Self> {
        let rest = payload.strip_prefix(&MAGIC)?;
        let (descriptor, rest) = rest.split_first()?;
        let is_single_segment = descriptor & SINGLE_SEGMENT != 0;
        let (window, rest) = rest.split_at_checked(usize::from(!is_single_segment))?;
        let dictionary_bytes = [0, 1, 2, 4][usize::from(descriptor & 0b11)];
        let (dictionary, rest) = rest.split_at_checked(dictionary_bytes)?;
        let content_bytes = [usize::from(is_single_segment), 2, 4, 8][usize::from(descriptor >> 6)];
        let (content, rest) = rest.split_at_checked(content_bytes)?;
        // Lengths below 256 take one byte, so those of two bytes start there.
        let offset = if content_bytes == 2 { 256 } else { 0 };
        let content = (content_bytes > 0).then(|| little_endian(content) + offset);
        Some(Self {
            descriptor: *descriptor,
            window: window.first().map_or(content.unwrap_or_default(), |&byte| window_of(byte)),
            dictionary: u32::try_from(little_endian(dictionary)).unwrap_or(u32::MAX),
            content,
            bytes: payload.len() - rest.len(),
        })
    }

    /// Returns `false` for what a header must not say in this version of the format.
    pub(super) fn is_supported(&self) -> bool {
        let is_single_segment = self.descriptor & SINGLE_SEGMENT != 0;
        let is_readable = is_single_segment || self.window < 1 << (READABLE_WINDOW_LOG + 1);
        self.descriptor & RESERVED == 0 && is_readable
    }

    /// The descriptor and the window of a frame with the same blocks, and with a window of this power of two of bytes,
    /// which is at least ten.
    pub(super) fn with_window_of(&self, log: u32) -> [u8; 2] {
        let exponent = u8::try_from(log.saturating_sub(MIN_WINDOW_LOG)).unwrap_or(u8::MAX);
        [self.descriptor & CHECKSUM, exponent.min(0b1_1111) << 3]
    }
}

/// Five bits of exponent, three of mantissa.
fn window_of(byte: u8) -> u64 {
    let base = 1_u64 << (MIN_WINDOW_LOG + u32::from(byte >> 3));
    base + base / 8 * u64::from(byte & 0b111)
}

/// At most eight bytes.
fn little_endian(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
}
